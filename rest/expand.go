package rest

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"github.com/intermodal-go/intermodal/transport"
)

// An expansion is a request as a route binds it: what bind, on the server, puts together again.
type expansion struct {
	path  string // escaped
	query string
	body  []byte
	// rebuilt says that body is JSON made from the message's, not the message's own bytes.
	rebuilt bool
}

// expand binds the members of m's body to the path, the query and the body. What has no parameters and takes the whole
// request is sent as it is, and need not be JSON. The error is CodeInvalidArgument.
func (p *parsedRoute) expand(m *transport.Message) (expansion, error) {
	var x expansion
	whole := p.Body == "" && p.method != "GET" && p.method != "DELETE"
	if whole && len(p.params) == 0 {
		x.body = m.Body
		return x, p.expandPath(&x, nil)
	}
	if ct := m.Header.Get(transport.HeaderContentType); !isJSON(ct) && len(m.Body) > 0 {
		return x, transport.Errorf(transport.CodeInvalidArgument,
			"the route %q takes its parameters from a JSON object, the request is %q", p.Pattern, ct)
	}
	members, err := membersOf(m.Body)
	if err != nil {
		return x, err
	}
	left := members
	values := make([]string, len(p.params))
	for i, name := range p.params {
		raw := lookup(members, name)
		text, ok := p.text(name, raw)
		if !ok {
			return x, transport.Errorf(transport.CodeInvalidArgument,
				"the request has no text, number or boolean %q for the path of %q", name, p.Pattern)
		}
		values[i] = text
		left = slices.DeleteFunc(slices.Clone(left), func(m member) bool { return strings.EqualFold(m.name, name) })
	}
	if err := p.expandPath(&x, values); err != nil {
		return x, err
	}
	x.rebuilt = true
	switch {
	case whole && len(left) == len(members): // all parameters are in nested objects: they may stay there
		x.body, x.rebuilt = m.Body, false
		return x, nil
	case whole:
		x.body = appendObject(nil, left)
		return x, nil
	case p.Body != "" && p.Body != "-":
		i := slices.IndexFunc(left, func(m member) bool { return m.name == p.Body })
		if i >= 0 {
			x.body = left[i].raw
			left = slices.Delete(slices.Clone(left), i, i+1)
		}
	}
	q, err := p.appendQuery(nil, "", left)
	x.query = string(q)
	return x, err
}

// expandPath fills the pattern's path with the values of its parameters.
func (p *parsedRoute) expandPath(x *expansion, values []string) error {
	var b []byte
	for _, s := range p.segments {
		b = append(b, '/')
		switch s.kind {
		case literal:
			b = append(b, url.PathEscape(s.text)...)
			continue
		case param:
			if values[0] == "" {
				return transport.Errorf(transport.CodeInvalidArgument, "%q is empty, and cannot stand in a path", s.text)
			}
			b = append(b, escapeSegment(values[0])...)
		case rest:
			for i, part := range strings.Split(values[0], "/") {
				if i > 0 {
					b = append(b, '/')
				}
				b = append(b, escapeSegment(part)...)
			}
		}
		if strings.IndexByte(values[0], 0) >= 0 {
			return badPath("characters")
		}
		values = values[1:]
	}
	if p.action != "" {
		b = append(b, ':')
		b = append(b, url.PathEscape(p.action)...)
	}
	x.path = string(b)
	if strings.IndexByte(x.path, '.') < 0 {
		return nil
	}
	return checkDots(x.path, true)
}

// escapeSegment escapes s for a path. A colon is escaped as well, which need not be, so that it never begins an action.
func escapeSegment(s string) string {
	return strings.ReplaceAll(url.PathEscape(s), ":", "%3A")
}

// membersOf returns the members of the JSON object that body is, in their order, of repeated ones the last. Nothing and
// null have none.
func membersOf(body []byte) ([]member, error) {
	if body = bytes.TrimSpace(body); len(body) == 0 || string(body) == "null" {
		return nil, nil
	}
	if err := checkJSON(body); err != nil {
		return nil, err
	}
	if body[0] != '{' {
		return nil, transport.Errorf(transport.CodeInvalidArgument, "the route needs a request that is a JSON object")
	}
	var members []member
	d := json.NewDecoder(bytes.NewReader(body))
	d.Token() // the brace; errors were found above
	for d.More() {
		token, _ := d.Token()
		name, _ := token.(string)
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, transport.Wrap(err, transport.CodeInvalidArgument, "the request is not valid JSON")
		}
		members = slices.DeleteFunc(members, func(m member) bool { return m.name == name })
		members = append(members, member{name: name, raw: raw})
	}
	return members, nil
}

// lookup returns the value of a member, nil if there is none: that of the very name, else one that encoding/json would
// take for it, else one inside of objects, whose names stand between dots.
func lookup(members []member, name string) []byte {
	var folded []byte
	for _, m := range members {
		if m.name == name {
			return m.raw
		}
		if strings.EqualFold(m.name, name) {
			folded = m.raw
		}
	}
	if folded != nil {
		return folded
	}
	for _, m := range members {
		if inner, ok := strings.CutPrefix(name, m.name+"."); ok && m.raw[0] == '{' {
			in, _ := membersOf(m.raw)
			if raw := lookup(in, inner); raw != nil {
				return raw
			}
		}
	}
	return nil
}

// text returns a scalar as it stands in a path or a query. It is false for all else. Where the server takes any JSON, a
// string that would be read as something else keeps its quotes.
func (p *parsedRoute) text(name string, raw []byte) (string, bool) {
	if len(raw) == 0 || raw[0] == 'n' || raw[0] == '{' || raw[0] == '[' {
		return "", false
	}
	if raw[0] != '"' {
		return string(raw), true
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return "", false
	}
	switch shape, _ := p.shape.member(name); {
	case shape == nil:
	case shape.kind == kindList && shape.elem.kind == kindAny, shape.kind == kindAny:
		if s != "" && checkJSON([]byte(s)) == nil {
			return string(raw), true
		}
	case shape.kind == kindText && shape.quoted: // a string in a string, which the server makes anew
		var inner string
		if json.Unmarshal([]byte(s), &inner) == nil {
			return inner, true
		}
	}
	return s, true
}

// appendQuery appends the members as a query: an array repeats the name, members of an object are name.member. Null, and
// what is empty, is left out. Values in an array that are no scalars make the array one JSON text, if the route's type says
// that the server reads it so.
func (p *parsedRoute) appendQuery(dst []byte, prefix string, members []member) ([]byte, error) {
	for _, m := range members {
		name := prefix + m.name
		switch m.raw[0] {
		case 'n':
		case '{':
			inner, err := membersOf(m.raw)
			if err == nil {
				dst, err = p.appendQuery(dst, name+".", inner)
			}
			if err != nil {
				return nil, err
			}
		case '[':
			var ok bool
			if dst, ok = p.appendList(dst, name, m.raw); !ok {
				return nil, transport.Errorf(transport.CodeInvalidArgument, "the list %q cannot stand in a query", name)
			}
		default:
			text, ok := p.text(name, m.raw)
			if !ok {
				return nil, transport.Errorf(transport.CodeInvalidArgument, "%q cannot stand in a query", name)
			}
			dst = appendPair(dst, name, text)
		}
	}
	return dst, nil
}

func (p *parsedRoute) appendList(dst []byte, name string, raw []byte) ([]byte, bool) {
	var elems []json.RawMessage
	if json.Unmarshal(raw, &elems) != nil {
		return dst, false
	}
	before := len(dst)
	for _, e := range elems {
		text, ok := p.text(name, e)
		if !ok {
			shape, _ := p.shape.member(name)
			if shape != nil && shape.kind == kindList && shape.elem.structured() {
				return appendPair(dst[:before], name, string(raw)), true
			}
			return dst, false
		}
		dst = appendPair(dst, name, text)
	}
	return dst, true
}

func appendPair(dst []byte, name, value string) []byte {
	if len(dst) > 0 {
		dst = append(dst, '&')
	}
	dst = append(dst, url.QueryEscape(name)...)
	dst = append(dst, '=')
	return append(dst, url.QueryEscape(value)...)
}

func appendObject(dst []byte, members []member) []byte {
	dst = append(dst, '{')
	for _, m := range members {
		dst = appendMember(dst, m.name, m.raw)
	}
	return append(dst, '}')
}
