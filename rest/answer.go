package rest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// An Answer is what a server said that does not speak problem+json with our codes: errors.As finds it in the cause of the
// error that a call returns. It is private: a gateway does not pass it on. It is read-only.
type Answer struct {
	Status int
	Header transport.Header // its fields but those of the connection, and credentials
	Body   []byte           // nil if it was too large, or broke off
}

// Error returns the status alone.
func (a *Answer) Error() string {
	return "the answer was " + strings.TrimSpace(strconv.Itoa(a.Status)+" "+http.StatusText(a.Status))
}

// answer is an HTTP response whose body was read to its end, and decompressed.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// maxDrain is how much of a body that nobody wants is read so that its connection can be used again.
const maxDrain = 64 << 10

// sameTime is the difference between two clocks that are meant to strike at once.
const sameTime = 20 * time.Millisecond

// roundTrip sends q for the n-th time. An answer that is no success is returned with an error.
func (c *Client) roundTrip(ctx context.Context, q *request, n int) (*answer, error) {
	r, err := c.attempt(ctx, q, n)
	if err != nil {
		return nil, err
	}
	resp, err := c.transport.RoundTrip(r)
	if err != nil {
		return nil, broken(ctx, err)
	}
	defer resp.Body.Close()
	resp.Request = r
	var body []byte
	if q.method != http.MethodHead && resp.StatusCode != http.StatusNotModified {
		encoding := strings.Join(resp.Header["Content-Encoding"], ",")
		body, err = wire.ReadBody(resp.Body, encoding, resp.ContentLength, c.maxBytes)
	}
	if err != nil {
		io.CopyN(io.Discard, resp.Body, maxDrain)
	}
	a := &answer{status: resp.StatusCode, header: resp.Header, body: body}
	switch success := a.status/100 == 2 || a.status == http.StatusSeeOther && q.monitor ||
		a.status == http.StatusNotModified && len(r.Header["If-None-Match"]) > 0; {
	case ctx.Err() != nil && (err != nil || !success):
		return nil, ctx.Err()
	case !success:
		err := failure(resp, body)
		if deadline, ok := ctx.Deadline(); ok && transport.CodeOf(err) == transport.CodeDeadlineExceeded && time.Until(deadline) < sameTime {
			<-ctx.Done() // the server keeps the same deadline: whose clock was first is chance
			return nil, ctx.Err()
		}
		return a, err
	case err != nil:
		return nil, unreadable(err, c.maxBytes)
	}
	return a, nil
}

// broken is the error for a connection that could not be made, or broke before there was an answer.
func broken(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case unsent(err):
		return &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent,
			Message: "the server cannot be reached", Cause: err}
	}
	return &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonOutcomeUnknown,
		Message: "the connection broke before the answer came", Cause: err}
}

// unsent reports whether an error of a RoundTripper says that there was no connection. Of what is not known to do so the
// outcome is unknown.
func unsent(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect") {
		return true
	}
	var name *net.DNSError
	var record tls.RecordHeaderError
	return errors.As(err, &name) || errors.As(err, &record) || untrusted(err) || errors.Is(err, http.ErrSchemeMismatch)
}

// untrusted reports whether the server's certificate was refused: trying again does not help.
func untrusted(err error) bool {
	var cert *tls.CertificateVerificationError
	return errors.As(err, &cert)
}

// unreadable is the error for a success whose body could not be read. What was asked for was done.
func unreadable(err error, limit int) error {
	switch code := transport.CodeOf(err); code {
	case transport.CodeResourceExhausted:
		return transport.Wrap(err, code, "the reply has more than %d bytes", limit)
	case transport.CodeInvalidArgument:
		return transport.Wrap(err, transport.CodeInternal, "the reply is encoded in a way that cannot be read")
	}
	return &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonOutcomeUnknown,
		Message: "the reply broke off", Cause: err}
}

// message returns the reply that an answer is.
func (a *answer) message(maxBytes int) (*transport.Message, error) {
	h, _, err := wire.SplitHeader(a.header)
	if err == nil {
		if a.status != http.StatusOK && a.status != http.StatusNoContent {
			h[wire.HeaderStatus] = []string{strconv.Itoa(a.status)}
		}
		m := &transport.Message{Header: h, Body: a.body}
		if err = m.Check(maxBytes); err == nil {
			return m, nil
		}
	}
	code := transport.CodeOf(err)
	if code != transport.CodeResourceExhausted {
		code = transport.CodeInternal
	}
	return nil, transport.Wrap(err, code, "the reply is too large, or its header is not legal")
}

// failure is the error for an answer that is no success. body may be nil.
func failure(r *http.Response, body []byte) error {
	contentType, doc := r.Header.Get("Content-Type"), body
	if contentType == "" || !isJSON(contentType) {
		doc = nil // a page for people
	}
	e := wire.ErrorFrom(r, doc)
	if complete(contentType, doc) {
		return e
	}
	a := &Answer{Status: r.StatusCode, Body: body}
	a.Header, _, _ = wire.SplitHeader(r.Header)
	e.Cause = a
	e.Header = merge(e.Header, a.Header)
	switch {
	case r.StatusCode < 300, r.StatusCode == http.StatusNotModified:
		e.Code, e.Message = transport.CodeInternal, "the answer has a status that was not asked for"
	case r.StatusCode < 400:
		e.Code, e.Message = transport.CodeFailedPrecondition, "the answer was a redirect, which is not followed"
	case e.Message == "":
		e.Message = http.StatusText(r.StatusCode)
	default:
		e.Message = bounded(e.Message)
	}
	return e
}

// complete reports whether body is a problem document that says all there is to say, as ours do.
func complete(contentType string, body []byte) bool {
	if !strings.HasPrefix(strings.ToLower(contentType), wire.ContentTypeProblem) {
		return false
	}
	var doc struct{ Code string }
	var code transport.Code
	return json.Unmarshal(body, &doc) == nil && code.UnmarshalText([]byte(doc.Code)) == nil && code.String() == doc.Code
}

// bounded returns at most a kilobyte of a foreign text.
func bounded(s string) string {
	n := 1 << 10
	if len(s) <= n {
		return s
	}
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// merge adds the fields of a foreign answer to an error's header, but for those that are about the page that came with it.
func merge(h, fields transport.Header) transport.Header {
	for k, vs := range fields {
		switch k {
		case "cache-control", "expires", "age", "vary", "last-modified", "accept-ranges", "retry-after":
			continue
		}
		if strings.HasPrefix(k, "content-") || len(h[k]) > 0 {
			continue
		}
		if h == nil {
			h = transport.Header{}
		}
		h[k] = vs
	}
	if h.Check() != nil {
		return nil
	}
	return h
}
