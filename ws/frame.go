package ws

import (
	"encoding/base64"
	"mime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// subprotocol is offered and preferred in the handshake.
const subprotocol = "intermodal.v1.json"

// The errors of JSON-RPC that are not those of a Code.
const (
	rpcParseError     = -32700
	rpcInvalidRequest = -32600
	rpcNoMethod       = -32601
)

// maxRequestID bounds the id of a request, as it is on the wire.
const maxRequestID = 130

// A kind is what an object of JSON-RPC is.
type kind uint8

const (
	invalid kind = iota
	request
	notification
	response
)

// An envelope is one object of JSON-RPC as it was received. Its slices are those of the frame, and valid as long as
// that is; what is absent is nil.
type envelope struct {
	kind   kind
	id     []byte // raw; of an invalid one, if it has a legal id
	method []byte
	params []byte // raw, an object or array
	result []byte // raw
	err    []byte // raw
	meta   []byte // raw, an object
}

// decode appends the objects in a frame to es. batch says that they were in an array; ok is false if the frame is no
// JSON.
func decode(es []envelope, b []byte) (_ []envelope, batch, ok bool) {
	i := space(b, 0)
	if i == len(b) {
		return es, false, false
	}
	var end int
	if b[i] == '[' {
		w := walk(b, i)
		for w.next() {
			es = append(es, envelope{})
			es[len(es)-1].parse(w.value, 0)
		}
		batch, end = true, w.end
	} else {
		es = append(es, envelope{})
		end = es[len(es)-1].parse(b, i)
	}
	if end < 0 || space(b, end) != len(b) {
		return es, batch, false
	}
	return es, batch, true
}

// parse reads the value that begins at i, and returns its end, or -1 if it is no JSON.
func (e *envelope) parse(b []byte, i int) int {
	if b[i] != '{' {
		return scan(b, i)
	}
	version, legal, methods := false, true, false
	w := walk(b, i)
	for w.next() {
		v := w.value
		switch string(w.name) {
		case "jsonrpc":
			version = string(v) == `"2.0"`
		case "id":
			if len(v) <= maxRequestID && (v[0] == '"' || v[0] == '-' || isDigit(v[0]) || v[0] == 'n') {
				e.id = v
			} else {
				legal = false
			}
		case "method":
			methods = true
			switch {
			case v[0] != '"':
				legal = false
			default:
				if e.method = v[1 : len(v)-1]; strings.IndexByte(string(e.method), '\\') >= 0 {
					e.method = []byte(unquote(v))
				}
			}
		case "params":
			switch v[0] {
			case '{', '[':
				e.params = v
			case 'n': // some write it when they mean none
			default:
				legal = false
			}
		case "result":
			e.result = v
		case "error":
			if v[0] != 'n' { // JSON-RPC 1.0 has both in a response
				e.err = v
			}
		case "meta":
			if v[0] == '{' { // all else is none of ours
				e.meta = v
			}
		}
	}
	switch {
	case !version || !legal:
	case methods && e.id == nil:
		e.kind = notification
	case methods:
		e.kind = request
	case e.id != nil && (e.result != nil || e.err != nil):
		e.kind = response
	}
	return w.end
}

// responseID returns the number that a response answers; 0 is none of ours.
func (e *envelope) responseID() uint64 {
	n, _ := parseUint(e.id)
	return n
}

func parseUint(raw []byte) (uint64, bool) {
	var n uint64
	for _, c := range raw {
		if !isDigit(c) || n > 1<<53/10 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, len(raw) > 0
}

// A form says how a body is written.
type form uint8

const (
	formJSON form = iota
	formText
	formBase64
	formNone
)

var formNames = [...]string{"", "text", "base64", "none"}

// formOf returns the form for m's body; in params JSON is an object or an array.
func formOf(m *transport.Message, params bool) form {
	b := m.Body
	switch {
	case len(b) == 0:
		return formNone
	case (!params || b[0] == '{' || b[0] == '[') && jsonType(m.Header) && isJSON(b):
		return formJSON
	case utf8.Valid(b) && escaped(b) <= len(b)/3+8:
		return formText
	}
	return formBase64
}

// jsonType reports whether the content-type is JSON's, or absent.
func jsonType(h transport.Header) bool {
	switch t := h.Get(transport.HeaderContentType); t {
	case "", "application/json":
		return true
	case "text/plain", "application/octet-stream", "application/protobuf":
		return false
	default:
		t, _, err := mime.ParseMediaType(t)
		return err == nil && (t == "application/json" || strings.HasSuffix(t, "+json"))
	}
}

// appendBody appends a body in its form.
func appendBody(dst, body []byte, f form) []byte {
	switch f {
	case formJSON:
		return append(dst, body...)
	case formText:
		return appendString(dst, body)
	case formBase64:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, body)
		return append(dst, '"')
	}
	return append(dst, "null"...)
}

// parseBody reads a body, which it copies.
func parseBody(raw []byte, f form) ([]byte, error) {
	switch {
	case f == formNone || raw == nil:
		return nil, nil
	case f == formJSON:
		return append([]byte(nil), raw...), nil
	case !isString(raw):
		return nil, transport.Errorf(transport.CodeInvalidArgument, "a body of the form %q is no string", formNames[f])
	case f == formText:
		return []byte(unquote(raw)), nil
	}
	s := unquote(raw)
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, transport.Errorf(transport.CodeInvalidArgument, "a body is not base64")
	}
	return b, nil
}

// member appends the name of the next member of the object at the end of dst.
func member(dst []byte, name string) []byte {
	if last := dst[len(dst)-1]; last != '{' && last != ',' {
		dst = append(dst, ',')
	}
	dst = append(dst, '"')
	dst = append(dst, name...)
	return append(dst, '"', ':')
}

// The functions that follow append a member, unless its value is zero.

func appendUint(dst []byte, name string, n uint64) []byte {
	if n == 0 {
		return dst
	}
	return strconv.AppendUint(member(dst, name), n, 10)
}

func appendText(dst []byte, name, s string) []byte {
	if s == "" {
		return dst
	}
	return appendString(member(dst, name), s)
}

func appendHeader(dst []byte, h transport.Header) []byte {
	if len(h) == 0 {
		return dst
	}
	return wire.AppendJSONHeader(member(dst, "header"), h)
}

// appendMillis rounds up: what is left of a time is not nothing.
func appendMillis(dst []byte, name string, d time.Duration) []byte {
	ms := d / time.Millisecond
	if d > ms*time.Millisecond {
		ms++
	}
	return appendUint(dst, name, uint64(max(ms, 0)))
}

// appendMeta appends the metadata of m.
func appendMeta(dst []byte, m *transport.Message, f form) []byte {
	dst = appendText(dst, "id", m.ID)
	dst = appendHeader(dst, m.Header)
	return appendText(dst, "body", formNames[f])
}

// appendMessage appends m as members of our own methods' params.
func appendMessage(dst []byte, m *transport.Message) []byte {
	return appendContent(appendText(dst, "id", m.ID), m)
}

// appendContent appends the header and the body.
func appendContent(dst []byte, m *transport.Message) []byte {
	dst = appendHeader(dst, m.Header)
	f := formOf(m, false)
	if f == formNone { // no data says it
		return dst
	}
	dst = appendText(dst, "body", formNames[f])
	return appendBody(member(dst, "data"), m.Body, f)
}

const jsonrpc = `{"jsonrpc":"2.0"`

// appendCall appends a request whose method is m's topic; sub is the responder that it is for.
func appendCall(dst []byte, id uint64, m *transport.Message, timeout time.Duration, sub uint64) []byte {
	dst = append(dst, jsonrpc+`,"method":`...)
	dst = appendString(dst, m.Topic)
	dst = appendUint(dst, "id", id)
	f := formOf(m, true)
	switch f {
	case formNone:
		f = formJSON // absent params say it
	case formJSON:
		dst = appendBody(member(dst, "params"), m.Body, f)
	default:
		dst = append(member(dst, "params"), '[')
		dst = append(appendBody(dst, m.Body, f), ']')
	}
	dst = append(member(dst, "meta"), '{')
	dst = appendMeta(dst, m, f)
	dst = appendMillis(dst, "timeout", timeout)
	dst = appendUint(dst, "sub", sub)
	return append(dst, '}', '}')
}

// appendRequest begins one of our own requests; its params follow, and closing.
func appendRequest(dst []byte, method string, id uint64) []byte {
	dst = append(dst, jsonrpc+`,"method":"`...)
	dst = append(dst, method...)
	dst = append(dst, '"')
	dst = appendUint(dst, "id", id)
	return append(dst, `,"params":{`...)
}

// appendNote begins one of our own notifications; its params follow, and closing.
func appendNote(dst []byte, method string) []byte { return appendRequest(dst, method, 0) }

// closing ends what appendRequest and appendNote have begun.
const closing = "}}"

// appendReply appends the response to a call.
func appendReply(dst []byte, id string, m *transport.Message) []byte {
	dst = append(dst, jsonrpc+`,"id":`...)
	dst = append(dst, id...)
	f := formOf(m, false)
	dst = appendBody(member(dst, "result"), m.Body, f)
	if f != formJSON || m.ID != "" || len(m.Header) > 0 {
		dst = append(member(dst, "meta"), '{')
		dst = append(appendMeta(dst, m, f), '}')
	}
	return append(dst, '}')
}

// appendResult begins a response whose result is an object of ours; closing follows.
func appendResult(dst []byte, id string) []byte {
	dst = append(dst, jsonrpc+`,"id":`...)
	dst = append(dst, id...)
	return append(dst, `,"result":{`...)
}

// appendDone appends a response that says no more than that.
func appendDone(dst []byte, id string) []byte {
	dst = append(dst, jsonrpc+`,"id":`...)
	dst = append(dst, id...)
	return append(dst, `,"result":null}`...)
}

// appendFailure appends a response that is an error. An id of "" is written as null.
func appendFailure(dst []byte, id string, code int, err error) []byte {
	p := publicError(err)
	dst = append(dst, jsonrpc+`,"id":`...)
	if id == "" {
		dst = append(dst, "null"...)
	}
	dst = append(dst, id...)
	dst = append(dst, `,"error":{"code":`...)
	dst = strconv.AppendInt(dst, int64(code), 10)
	text := strings.ToValidUTF8(p.Message, "\ufffd")
	if text == "" {
		text = p.Code.String()
	}
	dst = appendString(member(dst, "message"), text)
	dst = wire.AppendProblem(member(dst, "data"), p)
	return append(dst, closing...)
}

// appendProblem appends the member error, unless err is nil.
func appendProblem(dst []byte, err error) []byte {
	if err == nil {
		return dst
	}
	return wire.AppendProblem(member(dst, "error"), publicError(err))
}

// publicError returns the part of err that crosses.
func publicError(err error) *transport.Error {
	p := transport.Public(err)
	size := len(p.Reason) + len(p.Message)
	for _, d := range p.Details {
		size += len(d.Type) + len(d.Value)
	}
	if size > transport.DefaultMaxHeaderBytes || p.Header.Check() != nil {
		p = &transport.Error{Code: p.Code, RetryAfter: p.RetryAfter} // better than no error at all
	}
	return p
}

// parseError reads the error of a response.
func parseError(raw []byte) *transport.Error {
	number, text, named := 0, "", false
	var data []byte
	if raw[0] == '{' {
		for w := walk(raw, 0); w.next(); {
			switch string(w.name) {
			case "code":
				number, _ = strconv.Atoi(string(w.value))
			case "message":
				if isString(w.value) {
					text = unquote(w.value)
				}
			case "data":
				data = w.value
			}
		}
	}
	if len(data) > 0 && data[0] == '{' {
		for w := walk(data, 0); w.next(); {
			named = named || string(w.name) == "code" && isString(w.value)
		}
	}
	if named {
		return wire.ParseProblem(data, 0)
	}
	return &transport.Error{Code: wire.CodeFromRPC(number), Message: text, Remote: true}
}

// parseProblem reads the member error of our own methods.
func parseProblem(raw []byte) error {
	if raw == nil || raw[0] == 'n' {
		return nil
	}
	return wire.ParseProblem(raw, 0)
}
