package rest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"mime"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// ReasonParameter is the Reason of the refusal of a path or query parameter. The error's one [transport.Detail] has the
// type "parameter" and the name as value.
const ReasonParameter = "INVALID_PARAMETER"

const (
	maxDepth      = 500  // of nested JSON
	maxParameters = 1000 // in a query
)

// bind returns the body of the message that a request is: values are those of the route's path parameters. A body to which
// nothing is added is returned as it came. The content-type is that of the request and is returned as it is afterwards.
func (p *parsedRoute) bind(values []string, query, contentType string, body []byte) ([]byte, string, error) {
	var o object
	for i, name := range p.params {
		s, way := p.shape.member(name)
		if s == nil {
			continue // cannot be: see parseRoute
		}
		v, err := s.convert(values[i : i+1])
		if err != "" {
			return nil, "", badParameter("path", name, err)
		}
		o.set(way, v)
	}
	if query != "" {
		if err := p.bindQuery(&o, query); err != nil {
			return nil, "", err
		}
	}
	if p.noBody() {
		if t := bytes.TrimSpace(body); len(t) > 0 && string(t) != "{}" && string(t) != "null" {
			return nil, "", transport.Errorf(transport.CodeInvalidArgument, "there must be no body")
		}
		if body, contentType = nil, ""; len(o) == 0 {
			return nil, "", nil
		}
	}
	if len(body) == 0 && len(o) > 0 {
		if !isJSON(contentType) {
			contentType = ""
		}
	} else if p.Body != "" && p.Body != "-" && len(body) > 0 {
		raw, err := p.bodyMember(contentType, body)
		if err != nil {
			return nil, "", err
		}
		body = appendMember([]byte{'{'}, p.Body, raw)
		body = append(body, '}')
		contentType = "application/json"
	} else if len(o) == 0 {
		if len(body) == 0 && isJSON(contentType) {
			contentType = "" // many clients name it always; no JSON is empty
		}
		return body, contentType, nil
	}
	if !isJSON(contentType) && len(body) > 0 {
		return nil, "", unsupported([]string{"application/json"})
	}
	body, err := o.merge(nil, body, 0)
	if err != nil {
		return nil, "", err
	}
	if contentType == "" {
		contentType = "application/json"
	}
	return body, contentType, nil
}

// noBody reports whether requests of the route have none.
func (p *parsedRoute) noBody() bool { return p.Body == "-" || p.method == "GET" }

// bodyMember returns the body as the JSON of the member that it is.
func (p *parsedRoute) bodyMember(contentType string, body []byte) ([]byte, error) {
	if isJSON(contentType) {
		return body, checkJSON(body)
	}
	switch s, _ := p.shape.member(p.Body); {
	case s.kind == kindBytes:
		raw := append(make([]byte, 0, base64.StdEncoding.EncodedLen(len(body))+2), '"')
		return append(base64.StdEncoding.AppendEncode(raw, body), '"'), nil
	case s.kind != kindText:
	case !utf8.Valid(body):
		return nil, transport.Errorf(transport.CodeInvalidArgument, "the body is not UTF-8")
	default:
		return appendText(nil, string(body)), nil
	}
	return nil, unsupported([]string{"application/json"})
}

// unsupported is the 415 answer: RFC 9110 section 15.5.16 has Accept say what would have done.
func unsupported(types []string) error {
	return &transport.Error{Code: transport.CodeInvalidArgument, Message: "the content-type is not supported here",
		Header: transport.Header{wire.HeaderStatus: {"415"}, "accept": {strings.Join(types, ", ")}}}
}

func (p *parsedRoute) bindQuery(o *object, query string) error {
	q, err := parseQuery(query)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(q))
	for name := range q {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if slices.Contains(p.params, name) {
			continue
		}
		s, way := p.shape.member(name)
		if s == nil {
			continue // links are decorated with all sorts of things
		}
		if !utf8.ValidString(name) {
			return transport.Errorf(transport.CodeInvalidArgument, "the query is not UTF-8")
		}
		vs := q[name]
		if p.shape == unknown && len(vs) > 1 {
			s = unknownList
		}
		v, text := s.convert(vs)
		if text != "" {
			return badParameter("query", name, text)
		}
		o.set(way, v)
	}
	return nil
}

func parseQuery(query string) (url.Values, error) {
	if strings.Count(query, "&") >= maxParameters {
		return nil, transport.Errorf(transport.CodeInvalidArgument, "the query has more than %d parameters", maxParameters)
	}
	q, err := url.ParseQuery(query)
	if err != nil {
		return nil, transport.Wrap(err, transport.CodeInvalidArgument, "the query is malformed")
	}
	return q, nil
}

func badParameter(where, name, text string) error {
	if len(name) > 100 {
		name = strings.ToValidUTF8(name[:100], "") + "…"
	}
	return &transport.Error{Code: transport.CodeInvalidArgument, Reason: ReasonParameter,
		Message: where + " parameter " + strconv.Quote(name) + " " + text,
		Details: []transport.Detail{{Type: "parameter", Value: []byte(name)}}}
}

// convert returns the JSON of the values that a parameter has, or else what is wrong with them.
func (s *shape) convert(values []string) (raw []byte, wrong string) {
	for _, v := range values {
		if !utf8.ValidString(v) {
			return nil, "is not UTF-8"
		}
	}
	if s.kind == kindList {
		if len(values) == 1 && strings.HasPrefix(values[0], "[") && s.elem.structured() && checkJSON([]byte(values[0])) == nil {
			return []byte(values[0]), ""
		}
		raw = append(raw, '[')
		for i, v := range values {
			if i > 0 {
				raw = append(raw, ',')
			}
			if raw, wrong = s.elem.append(raw, v); wrong != "" {
				return nil, wrong
			}
		}
		return append(raw, ']'), ""
	}
	if len(values) > 1 && s.kind == kindAny {
		return (&shape{kind: kindList, elem: s}).convert(values)
	}
	if len(values) != 1 {
		return nil, "must be there once"
	}
	return s.append(nil, values[0])
}

// structured reports whether a value of s has no form of its own in a query: then it is JSON.
func (s *shape) structured() bool {
	return s.kind == kindObject || s.kind == kindMap || s.kind == kindList || s.kind == kindAny
}

// append appends the JSON of one value.
func (s *shape) append(dst []byte, v string) ([]byte, string) {
	start := len(dst)
	switch s.kind {
	case kindText, kindBytes:
		if s.quoted && s.kind == kindText { // encoding/json wants a string in a string
			return appendText(dst, string(appendText(nil, v))), ""
		}
		return appendText(dst, v), ""
	case kindBool:
		switch v {
		case "true", "1":
			dst = append(dst, "true"...)
		case "false", "0":
			dst = append(dst, "false"...)
		default:
			return dst, "must be true or false"
		}
	case kindInt:
		n, err := strconv.ParseInt(v, 10, s.bits)
		if err != nil {
			return dst, wrongNumber(err, "an integer")
		}
		dst = strconv.AppendInt(dst, n, 10)
	case kindUint:
		n, err := strconv.ParseUint(v, 10, s.bits)
		if err != nil {
			return dst, wrongNumber(err, "an integer that is not negative")
		}
		dst = strconv.AppendUint(dst, n, 10)
	case kindFloat, kindNumber:
		if !isNumber(v) {
			return dst, "must be a number"
		}
		if s.kind == kindFloat {
			if f, err := strconv.ParseFloat(v, s.bits); err != nil || math.IsInf(f, 0) {
				return dst, "is out of range"
			}
		}
		dst = append(dst, v...)
	case kindAny:
		if v != "" && checkJSON([]byte(v)) == nil {
			return append(dst, v...), ""
		}
		return appendText(dst, v), ""
	default:
		if checkJSON([]byte(v)) != nil {
			return dst, "must be JSON"
		}
		return append(dst, v...), ""
	}
	if s.quoted {
		dst = slices.Insert(dst, start, '"')
		dst = append(dst, '"')
	}
	return dst, ""
}

func wrongNumber(err error, what string) string {
	if e, ok := err.(*strconv.NumError); ok && e.Err == strconv.ErrRange {
		return "is out of range"
	}
	return "must be " + what
}

// isNumber reports whether v is a number as JSON has it.
func isNumber(v string) bool {
	return v != "" && (v[0] == '-' || '0' <= v[0] && v[0] <= '9') && len(v) < 400 && json.Valid([]byte(v)) &&
		strings.TrimRight(v, " \t\r\n") == v
}

// appendText appends s, which is UTF-8, as a JSON string.
func appendText(dst []byte, s string) []byte {
	b, _ := json.Marshal(s)
	return append(dst, b...)
}

// isJSON reports whether a content-type is JSON's, or is none.
func isJSON(contentType string) bool {
	if contentType == "" || contentType == "application/json" {
		return true
	}
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == "application/json" || strings.HasSuffix(media, "+json"))
}

// checkDepth refuses what would make a decoder dig too deep. What is not said to be JSON passes.
func checkDepth(contentType string, body []byte) error {
	if len(body) <= maxDepth || contentType == "" || !isJSON(contentType) || !tooDeep(body) {
		return nil
	}
	return errDeep
}

var errDeep = transport.Errorf(transport.CodeInvalidArgument, "the body is nested more than %d levels deep", maxDepth)

func tooDeep(b []byte) bool {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			if depth++; depth > maxDepth {
				return true
			}
		case '}', ']':
			depth--
		}
	}
	return false
}

// checkJSON reports whether b is one JSON value, in UTF-8 and not too deep.
func checkJSON(b []byte) error {
	switch {
	case tooDeep(b):
		return errDeep
	case !json.Valid(b):
		// Decoding it once more tells where, in the words of the codec.
		var v json.RawMessage
		if err := transport.JSON.Unmarshal(b, &v); err != nil {
			return err
		}
		return transport.Errorf(transport.CodeInvalidArgument, "the body is not valid JSON")
	case !utf8.Valid(b):
		return transport.Errorf(transport.CodeInvalidArgument, "the body is not UTF-8")
	}
	return nil
}

// An object is what the parameters say, before it is merged into the body. A name is there once.
type object []member

type member struct {
	name string
	raw  []byte // nil if it is an object
	in   object
}

// set sets the member at the end of way, unless there is one: who comes first wins.
func (o *object) set(way []string, raw []byte) {
	i := slices.IndexFunc(*o, func(m member) bool { return m.name == way[0] })
	if i < 0 {
		*o = append(*o, member{name: way[0]})
		i = len(*o) - 1
	} else if (*o)[i].raw != nil || len(way) == 1 {
		return
	}
	if len(way) == 1 {
		(*o)[i].raw = raw
		return
	}
	(*o)[i].in.set(way[1:], raw)
}

// merge appends body, a JSON object or nothing, with the members of o in place of its own. Those of o come last, and names
// are compared as encoding/json does, so that no spelling of a name in the body gets past a parameter.
func (o object) merge(dst, body []byte, depth int) ([]byte, error) {
	var members map[string]json.RawMessage
	if len(body) > 0 {
		if depth == 0 {
			if err := checkJSON(body); err != nil {
				return nil, err
			}
		}
		if json.Unmarshal(body, &members) != nil {
			return nil, transport.Errorf(transport.CodeInvalidArgument, "the body must be a JSON object")
		}
	}
	dst = append(dst, '{')
	names := make([]string, 0, len(members))
	for name := range members {
		names = append(names, name)
	}
	slices.Sort(names)
	inner := map[string][]byte{} // of the body, by the names in o
	for _, name := range names {
		i := slices.IndexFunc(o, func(m member) bool { return strings.EqualFold(m.name, name) })
		switch {
		case i < 0:
			dst = appendMember(dst, name, members[name])
		case o[i].raw == nil && members[name][0] == '{':
			inner[o[i].name] = members[name]
		}
	}
	for _, m := range o {
		raw := m.raw
		if raw == nil {
			var err error
			if raw, err = m.in.merge(nil, inner[m.name], depth+1); err != nil {
				return nil, err
			}
		}
		dst = appendMember(dst, m.name, raw)
	}
	return append(dst, '}'), nil
}

func appendMember(dst []byte, name string, raw []byte) []byte {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	dst = appendText(dst, name)
	dst = append(dst, ':')
	return append(dst, raw...)
}
