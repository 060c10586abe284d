package rest

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// A request is an HTTP request that can be sent any number of times.
type request struct {
	m          *transport.Message // nil: none
	method     string
	url        *url.URL
	header     http.Header // without what Authorize adds; not written once it was sent
	body       []byte
	idempotent bool // by its route or its key
	monitor    bool // it asks for a result, and may be sent on to it by 303
}

// safe reports whether the request changes nothing (RFC 9110 section 9.2.1).
func (q *request) safe() bool { return q.method == http.MethodGet || q.method == http.MethodHead }

// repeatable reports whether it may be sent again whatever became of it.
func (q *request) repeatable() bool {
	return q.idempotent || q.safe() || q.method == http.MethodPut || q.method == http.MethodDelete
}

var conditionals = [...]string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Range"}

// cacheable reports whether a cache may answer it: conditions that a caller set himself are his own business.
func (q *request) cacheable() bool {
	if q.method != http.MethodGet || len(q.header["Prefer"]) > 0 {
		return false
	}
	for _, name := range conditionals {
		if len(q.header[name]) > 0 {
			return false
		}
	}
	return true
}

// newHeader returns the fields of every request to u, with room for n more.
func (c *Client) newHeader(u *url.URL, n int) http.Header {
	h := make(http.Header, n+len(c.header)+2)
	if c.isHome(u) {
		maps.Copy(h, c.header)
	}
	h["Accept-Encoding"] = acceptGzip
	return h
}

var acceptGzip = []string{"gzip"}

// requestFor returns the request that calls m.
func (c *Client) requestFor(m *transport.Message) (*request, error) {
	q, bound, err := c.bound(m, "/calls/", false)
	if err != nil {
		return nil, err
	}
	id := m.ID
	if id == "" {
		id = transport.NewID()
	}
	q.header[fieldID] = []string{escapeID(id)}
	if bound && len(q.body) == 0 {
		wire.SetHeader(q.header, m.Header, transport.HeaderContentType)
	} else {
		wire.SetHeader(q.header, m.Header)
	}
	return c.finish(q, bound), nil
}

// requestForEvent returns the request that publishes m.
func (c *Client) requestForEvent(m *transport.Message) (*request, error) {
	q, bound, err := c.bound(m, "/topics/", true)
	if err != nil {
		return nil, err
	}
	wire.SetEvent(q.header, m)
	return c.finish(q, bound), nil
}

// bound returns the request with what m's route makes of its body, or m's body as it is, under the path and the topic. It
// reports whether the body is JSON made anew.
func (c *Client) bound(m *transport.Message, path string, event bool) (*request, bool, error) {
	q := &request{m: m, method: http.MethodPost, body: m.Body}
	x := expansion{}
	if p := c.table.find(m.Topic, event); p != nil {
		var err error
		if x, err = p.expand(m); err != nil {
			return nil, false, err
		}
		q.method, q.body, q.idempotent = p.method, x.body, p.Idempotent
	} else {
		x.path = path + url.PathEscape(m.Topic)
	}
	u := *c.base
	u.RawQuery = x.query
	if err := join(&u, x.path); err != nil {
		return nil, false, err
	}
	q.url = &u
	q.header = c.newHeader(&u, 6+len(m.Header))
	return q, x.rebuilt, nil
}

// join adds an escaped path to u.
func join(u *url.URL, path string) error {
	text, err := url.PathUnescape(path)
	if err != nil {
		return badPath("escapes")
	}
	u.RawPath = u.EscapedPath() + path // it is ignored where it is what Path becomes by itself
	u.Path += text
	return nil
}

// finish completes q once its header is there.
func (c *Client) finish(q *request, rebuilt bool) *request {
	if rebuilt && len(q.body) > 0 && len(q.header["Content-Type"]) == 0 {
		q.header["Content-Type"] = []string{"application/json"}
	}
	// The second name is not ours, but net/http takes it for a promise as well.
	q.idempotent = q.idempotent || len(q.header["Idempotency-Key"]) > 0 || len(q.header["X-Idempotency-Key"]) > 0
	if c.compress > 0 && len(q.body) >= c.compress {
		if zipped, release, ok := compress(q.body); ok {
			q.body = bytes.Clone(zipped)
			q.header["Content-Encoding"] = acceptGzip
			release()
		}
	}
	return q
}

// attempt returns the request as it is sent the n-th time.
func (c *Client) attempt(ctx context.Context, q *request, n int) (*http.Request, error) {
	r := &http.Request{Method: q.method, URL: q.url, Host: q.url.Host, Header: q.header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	if n > 1 || c.authorize != nil || c.user != nil {
		r.Header = q.header.Clone() // what was sent may still be read
	}
	if deadline, ok := ctx.Deadline(); ok && c.deadline != "" {
		ms := (time.Until(deadline) + time.Millisecond - 1) / time.Millisecond
		r.Header[c.deadline] = []string{strconv.FormatInt(min(max(int64(ms), 1), 9_999_999_999), 10)} // ten digits
	}
	if len(q.body) > 0 {
		r.ContentLength = int64(len(q.body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(q.body)), nil }
		r.Body, _ = r.GetBody()
	}
	r = r.WithContext(ctx)
	return r, c.sign(r)
}

// sign adds the credentials, if r goes where they belong. It may write r's header, and its URL is replaced.
func (c *Client) sign(r *http.Request) error {
	if c.authorize == nil && c.user == nil || !c.isHome(r.URL) {
		return nil
	}
	if c.user != nil && len(r.Header["Authorization"]) == 0 {
		password, _ := c.user.Password()
		r.SetBasicAuth(c.user.Username(), password)
	}
	if c.authorize == nil {
		return nil
	}
	u := *r.URL
	r.URL = &u
	if err := c.authorize(r); err != nil {
		if err := r.Context().Err(); err != nil {
			return err
		}
		code := transport.CodeOf(err)
		if code == transport.CodeUnknown {
			code = transport.CodeUnauthenticated
		}
		return &transport.Error{Code: code, Reason: transport.ReasonNotSent, Message: "the request could not be authorised", Cause: err}
	}
	return nil
}

// changed returns the paths whose replies q and its answer, which may be nil, make out of date.
func (c *Client) changed(q *request, a *answer) []string {
	paths := []string{cachePath(q.url)}
	if a == nil {
		return paths
	}
	for _, name := range [...]string{"Location", "Content-Location"} {
		if target := a.header.Get(name); target != "" {
			if u, err := q.url.Parse(target); err == nil && c.isHome(u) {
				paths = append(paths, cachePath(u))
			}
		}
	}
	return paths
}

// cachePath is u without what may differ between the representations of one resource.
func cachePath(u *url.URL) string { return strings.ToLower(u.Host) + u.EscapedPath() }
