package wire

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// ContentTypeProblem is the media type of RFC 9457.
const ContentTypeProblem = "application/problem+json"

// StatusOf returns the HTTP status for err: the one in its header under [HeaderStatus] if that is 4xx or 5xx, else that
// of its Code, see [HTTPStatus]. Nil is 500: it is asked about failures only.
func StatusOf(err error) int {
	e := transport.Public(err)
	if e == nil {
		return http.StatusInternalServerError
	}
	return statusOf(e)
}

func statusOf(e *transport.Error) int {
	if n := statusHint(e.Header); n != 0 {
		return n
	}
	return HTTPStatus(e.Code)
}

// statusHint returns the one 4xx or 5xx status in h, or 0.
func statusHint(h transport.Header) int {
	if vs := h[HeaderStatus]; len(vs) == 1 && len(vs[0]) == 3 {
		if n, err := strconv.Atoi(vs[0]); err == nil && 400 <= n && n < 600 {
			return n
		}
	}
	return 0
}

// statusText is the title of a problem of type about:blank.
func statusText(status int, code transport.Code) string {
	if s := http.StatusText(status); s != "" {
		return s
	}
	return code.String()
}

// AppendProblem appends err as a problem document, the JSON object of RFC 9457: what [transport.Public] shows of it, and
// nothing else.
//
//	{"type":"about:blank","title":"Not Found","status":404,"detail":"there is no order 7","instance":"/errors/9",
//	 "code":"not_found","reason":"NO_ORDER","details":[{"type":"example.com/Order","value":"aWQ9Nw=="}],
//	 "retryAfter":1.5,"header":{"etag":["\"7\""]}}
//
// The first line is the standard's: type and instance are the header's [HeaderProblemType] and [HeaderProblemInstance],
// title goes with the status, status is [StatusOf], detail is Error.Message. The members below it are ours: code is the
// name of the Code, value of a detail is base64, retryAfter is in seconds as in HTTP and may have a fraction, header is
// the rest of Error.Header in the form of [AppendJSONHeader]. Members without content are left out, but for type, title,
// status and code. The same object is the data of a JSON-RPC error and the body of an AMQP reply. A nil err is written as
// CodeUnknown: a problem is never a success.
func AppendProblem(dst []byte, err error) []byte {
	e := transport.Public(err)
	if e == nil {
		e = &transport.Error{Code: transport.CodeUnknown}
	}
	return appendProblem(dst, e)
}

// appendProblem takes out of e.Header what has another place in the document, and what is not legal.
func appendProblem(dst []byte, e *transport.Error) []byte {
	status := statusOf(e)
	for k := range e.Header {
		if !legalKey(k) {
			delete(e.Header, k)
		}
	}
	kind := take(e.Header, HeaderProblemType)
	if kind == "" {
		kind = "about:blank"
	}
	dst = append(dst, `{"type":`...)
	dst = appendString(dst, kind)
	dst = append(dst, `,"title":`...)
	dst = appendString(dst, statusText(status, e.Code))
	dst = append(dst, `,"status":`...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	if e.Message != "" {
		dst = append(dst, `,"detail":`...)
		dst = appendString(dst, e.Message)
	}
	if instance := take(e.Header, HeaderProblemInstance); instance != "" {
		dst = append(dst, `,"instance":`...)
		dst = appendString(dst, instance)
	}
	dst = append(dst, `,"code":`...)
	dst = appendString(dst, e.Code.String())
	if e.Reason != "" {
		dst = append(dst, `,"reason":`...)
		dst = appendString(dst, e.Reason)
	}
	for i, d := range e.Details {
		if i == 0 {
			dst = append(dst, `,"details":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"type":`...)
		dst = appendString(dst, d.Type)
		dst = append(dst, `,"value":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, d.Value)
		dst = append(dst, `"}`...)
	}
	if len(e.Details) > 0 {
		dst = append(dst, ']')
	}
	if e.RetryAfter > 0 {
		dst = append(dst, `,"retryAfter":`...)
		dst = appendSeconds(dst, e.RetryAfter)
	}
	if statusHint(e.Header) != 0 {
		delete(e.Header, HeaderStatus) // the member status says it
	}
	if e.Header.Size() > 0 {
		dst = append(dst, `,"header":`...)
		dst = AppendJSONHeader(dst, e.Header)
	}
	return append(dst, '}')
}

// take removes the value under key, if it is a single one that is not empty, and returns it.
func take(h transport.Header, key string) string {
	vs := h[key]
	if len(vs) != 1 || vs[0] == "" {
		return ""
	}
	delete(h, key)
	return vs[0]
}

// ParseProblem returns the error in a problem document, ours or anybody's, or in the answer that stands in its place. It
// is never nil, its Remote is set, and its header is legal.
//
// status is the HTTP status that came with it, or 0 where there is none, as in JSON-RPC and AMQP; then the member status
// counts. The Code is the member code if that is the name of one. Else it is that of the status, see [CodeFromHTTP], where
// 500 with a document is CodeInternal, and CodeUnknown without a status. A status that is not the one that [HTTPStatus]
// gives for the code is kept in the header under [HeaderStatus]. A title that says more than the status stands in for a
// missing detail. Type (but for about:blank) and instance are kept as [HeaderProblemType] and [HeaderProblemInstance].
//
// Members of an unexpected form are ignored, and so are unknown ones. Data that is no JSON object gives the status's code
// and text. A header that is not legal, or too large, is dropped.
func ParseProblem(data []byte, status int) *transport.Error {
	return parseProblem(data, status, CodeFromHTTP)
}

// parseProblem is ParseProblem, with the code that a status stands for.
func parseProblem(data []byte, status int, codeFrom func(int) transport.Code) *transport.Error {
	e := &transport.Error{Remote: true}
	data = trimSpace(data)
	isDoc := len(data) > 0 && data[0] == '{' && json.Valid(data)
	if isDoc {
		readProblem(e, data, &status)
	} else if status != 0 {
		e.Message = http.StatusText(status)
	}
	switch {
	case e.Code != 0:
	case isDoc && status == http.StatusInternalServerError:
		e.Code = transport.CodeInternal
	default:
		e.Code = codeFrom(status)
	}
	if 400 <= status && status < 600 && status != HTTPStatus(e.Code) {
		setHeader(e, HeaderStatus, strconv.Itoa(status))
	}
	if e.Header.Check() != nil {
		e.Header = nil
	}
	return e
}

// readProblem fills e from a document; Code stays 0 if the document does not name it. It sets a status that is 0.
func readProblem(e *transport.Error, data []byte, status *int) {
	var title, kind, instance string
	docStatus := 0
	for name, raw := range members(data) {
		switch string(name) {
		case "type":
			kind = text(raw)
		case "title":
			title = text(raw)
		case "status":
			docStatus, _ = strconv.Atoi(string(raw))
		case "detail":
			e.Message = text(raw)
		case "instance":
			instance = text(raw)
		case "code":
			e.Code = codeNamed(text(raw))
		case "reason":
			e.Reason = text(raw)
		case "details":
			e.Details = parseDetails(raw)
		case "retryAfter":
			e.RetryAfter = parseSeconds(raw)
		case "header":
			if h, err := parseJSONHeader(raw); err == nil {
				e.Header = h
			}
		}
	}
	if *status == 0 && 400 <= docStatus && docStatus < 600 {
		*status = docStatus
	}
	if e.Message == "" && title != http.StatusText(*status) && title != e.Code.String() {
		e.Message = title
	}
	if kind != "" && kind != "about:blank" {
		setHeader(e, HeaderProblemType, kind)
	}
	if instance != "" {
		setHeader(e, HeaderProblemInstance, instance)
	}
}

// codeNamed returns the Code of that name, or 0.
func codeNamed(name string) (c transport.Code) {
	if c.UnmarshalText([]byte(name)); c.String() != name {
		return 0
	}
	return c
}

func setHeader(e *transport.Error, key, value string) {
	if e.Header == nil {
		e.Header = transport.Header{}
	}
	e.Header[key] = []string{value}
}

// parseDetails leaves out what has not the form of a detail.
func parseDetails(raw []byte) (ds []transport.Detail) {
	if raw[0] != '[' {
		return nil
	}
	for raw := range elements(raw) {
		if raw[0] != '{' {
			continue
		}
		var d transport.Detail
		var err error
		for name, raw := range members(raw) {
			switch string(name) {
			case "type":
				d.Type = text(raw)
			case "value":
				if d.Value, err = base64.StdEncoding.DecodeString(text(raw)); len(d.Value) == 0 {
					d.Value = nil
				}
			}
		}
		if err == nil && d.Type != "" {
			ds = append(ds, d)
		}
	}
	return ds
}

// appendSeconds appends d > 0 in seconds, exactly.
func appendSeconds(dst []byte, d time.Duration) []byte {
	dst = strconv.AppendInt(dst, int64(d/time.Second), 10)
	if frac := d % time.Second; frac > 0 {
		digits := strconv.Itoa(int(time.Second + frac)) // 1 and nine digits
		dst = append(dst, '.')
		dst = append(dst, strings.TrimRight(digits[1:], "0")...)
	}
	return dst
}

// parseSeconds reads a JSON number of seconds. It is 0 for all else and for negative ones, and has an upper bound.
func parseSeconds(raw []byte) time.Duration {
	if d, err := time.ParseDuration(string(raw) + "s"); err == nil {
		return max(d, 0) // exact; a number without an exponent is written like this
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	switch {
	case err != nil || !(f > 0):
		return 0
	case f >= math.MaxInt64/1e9:
		return math.MaxInt64
	}
	return time.Duration(f * 1e9)
}

// WriteProblem answers r with err: the status of [StatusOf], the document of [AppendProblem], and fields for those that
// do not read it. These are Retry-After, in whole seconds rounded up, and each key of the error's header that may be an
// HTTP field, see [SetHeader]. The answer is not cached unless that header says so. The body is left out if r is a HEAD
// request; r may be nil. WWW-Authenticate, which a 401 needs, is for the caller to set. What the caller set for a body
// (Content-Length, Content-Encoding, ETag) is removed.
func WriteProblem(w http.ResponseWriter, r *http.Request, err error) {
	e := transport.Public(err)
	if e == nil {
		e = &transport.Error{Code: transport.CodeUnknown}
	}
	status := statusOf(e)
	doc := appendProblem(nil, e)
	h := w.Header()
	for _, name := range []string{"Content-Encoding", "Etag", "Last-Modified"} {
		h.Del(name)
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	for k, vs := range e.Header {
		if k != transport.HeaderContentType && len(vs) > 0 {
			setField(h, k, vs)
		}
	}
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((e.RetryAfter-1)/time.Second)+1, 10))
	}
	h.Set("Content-Type", ContentTypeProblem)
	h.Set("Content-Length", strconv.Itoa(len(doc)))
	w.WriteHeader(status)
	if r == nil || r.Method != http.MethodHead {
		w.Write(doc) // nobody is left to be told that it failed
	}
}

// ErrorFrom returns the error that an HTTP answer stands for: [ParseProblem] of body, with [CodeFromResponse] where body
// names no code, and the field Retry-After where it has no retryAfter. It does not read r.Body.
func ErrorFrom(r *http.Response, body []byte) *transport.Error {
	e := parseProblem(body, r.StatusCode, func(int) transport.Code { return CodeFromResponse(r) })
	if e.RetryAfter == 0 {
		e.RetryAfter = RetryAfter(r.Header)
	}
	return e
}

// RetryAfter returns the wait that the field Retry-After asks for, in seconds or as a date (RFC 9110 section 10.2.3). A
// date is taken relative to the field Date, or else to this machine's clock. It is 0 without a field that makes sense.
func RetryAfter(h http.Header) time.Duration {
	v := textproto.TrimString(h.Get("Retry-After"))
	if v == "" {
		return 0
	}
	if n, err := strconv.ParseUint(v, 10, 63); err == nil {
		return time.Duration(min(n, math.MaxInt64/uint64(time.Second))) * time.Second
	}
	t, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return max(t.Sub(now), 0)
}
