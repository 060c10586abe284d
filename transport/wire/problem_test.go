package wire_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

func fullError(c transport.Code) *transport.Error {
	return &transport.Error{Code: c, Reason: "NO_ORDER", Message: "there is no\n\"order\" 7 für Sie",
		Details:    []transport.Detail{{Type: "example.com/Order", Value: []byte("\x00\xff")}, {Type: "example.com/Empty"}},
		RetryAfter: 1500 * time.Millisecond,
		Header: transport.Header{"etag": {`"7"`}, "x": {"a", "", " ü\r\n"}, "x-bin": {"\xff\x00", ""}, "authorization": {"data"},
			wire.HeaderProblemType: {"https://example.com/p"}, wire.HeaderProblemInstance: {"/e/1"}},
	}
}

func remote(e *transport.Error) *transport.Error {
	c := *e
	c.Remote = true
	return &c
}

func TestProblemRoundTrip(t *testing.T) {
	eachCode(t, func(t *testing.T, c transport.Code) {
		e := fullError(c)
		doc := wire.AppendProblem(nil, e)
		require.True(t, json.Valid(doc))
		require.Equal(t, remote(e), wire.ParseProblem(doc, 0))
		require.Equal(t, remote(e), wire.ParseProblem(doc, wire.HTTPStatus(c)))
		bare := &transport.Error{Code: c}
		require.Equal(t, remote(bare), wire.ParseProblem(wire.AppendProblem(nil, bare), 0))
		require.Equal(t, remote(bare), wire.ParseProblem(wire.AppendProblem(nil, c), wire.HTTPStatus(c)))
	})
}

func TestProblemRandomRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		e := &transport.Error{Code: transport.Code(1 + r.IntN(16)), Reason: randomValue(r), Message: randomValue(r), Header: randomHeader(r)}
		e.Header.Del(wire.HeaderProblemType) // an unlucky value is the default
		if s := e.Header.Get(wire.HeaderStatus); s == strconv.Itoa(wire.HTTPStatus(e.Code)) {
			e.Header.Del(wire.HeaderStatus)
		}
		if len(e.Header) == 0 {
			e.Header = nil
		}
		if r.IntN(2) == 0 {
			e.RetryAfter = time.Duration(r.Int64N(math.MaxInt64))
		}
		for range r.IntN(3) {
			e.Details = append(e.Details, transport.Detail{Type: "x" + randomValue(r), Value: []byte("x" + randomBytes(r))})
		}
		require.Equal(t, remote(e), wire.ParseProblem(wire.AppendProblem(nil, e), 0))
	}
}

// The cause, and the text of an error that is not a transport.Error, stay here.
func TestProblemIsPublic(t *testing.T) {
	for _, err := range []error{errors.New("secret"), fmt.Errorf("secret: %w", transport.CodeNotFound),
		transport.Wrap(errors.New("secret"), transport.CodeAborted, "public"), nil} {
		doc := string(wire.AppendProblem(nil, err))
		require.NotContains(t, doc, "secret")
		require.Equal(t, wire.ParseProblem([]byte(doc), 0).Code, max(transport.CodeOf(err), transport.CodeUnknown))
	}
	e := fullError(transport.CodeNotFound)
	wire.AppendProblem(nil, e)
	require.Equal(t, fullError(transport.CodeNotFound), e, "the error must not be changed")
}

func TestProblemStatusHint(t *testing.T) {
	e := &transport.Error{Code: transport.CodeAborted, Header: transport.Header{wire.HeaderStatus: {"412"}}}
	require.Equal(t, 412, wire.StatusOf(e))
	require.Equal(t, remote(e), wire.ParseProblem(wire.AppendProblem(nil, e), 0))
	require.Equal(t, remote(e), wire.ParseProblem(wire.AppendProblem(nil, e), 412))
	for _, s := range []string{"200", "399", "600", "40", "+40", "4040", "x", ""} {
		require.Equal(t, 409, wire.StatusOf(&transport.Error{Code: transport.CodeAborted, Header: transport.Header{wire.HeaderStatus: {s}}}), s)
	}
	require.Equal(t, 500, wire.StatusOf(nil))
	require.Equal(t, 504, wire.StatusOf(context.DeadlineExceeded))
}

func TestParseForeignProblem(t *testing.T) {
	for doc, want := range map[string]*transport.Error{
		`{"type":"https://example.com/out-of-credit","title":"No credit","detail":"30 short","instance":"/a/1","balance":30}`: {
			Code: transport.CodePermissionDenied, Message: "30 short",
			Header: transport.Header{wire.HeaderProblemType: {"https://example.com/out-of-credit"}, wire.HeaderProblemInstance: {"/a/1"}}},
		`{"title":"No credit","status":404}`:                      {Code: transport.CodePermissionDenied, Message: "No credit"},
		`{"title":"Forbidden"}`:                                   {Code: transport.CodePermissionDenied},
		`{"code":"ERR_17","detail":"x"}`:                          {Code: transport.CodePermissionDenied, Message: "x"},
		`{"code":"ok"}`:                                           {Code: transport.CodePermissionDenied},
		`{"code":5,"title":[],"status":"x","details":"d"}`:        {Code: transport.CodePermissionDenied},
		`{"details":[1,{},{"type":1},{"type":"t","value":"!"}]}`:  {Code: transport.CodePermissionDenied},
		`{"header":{"X":"1"}}`:                                    {Code: transport.CodePermissionDenied},
		`{"header":{"x":1,"y":[true,null,"a"]},"retryAfter":1e1}`: {Code: transport.CodePermissionDenied, RetryAfter: 10 * time.Second, Header: transport.Header{"x": {"1"}, "y": {"true", "a"}}},
		`{"retryAfter":-1}`:                                       {Code: transport.CodePermissionDenied},
		`{"retryAfter":1e999}`:                                    {Code: transport.CodePermissionDenied},
		`{"retryAfter":1e30}`:                                     {Code: transport.CodePermissionDenied, RetryAfter: math.MaxInt64},
		`{"code":"not_found"}`:                                    {Code: transport.CodeNotFound, Header: transport.Header{wire.HeaderStatus: {"403"}}},
		`<html>`:                                                  {Code: transport.CodePermissionDenied, Message: "Forbidden"},
		``:                                                        {Code: transport.CodePermissionDenied, Message: "Forbidden"},
		`{"detail":`:                                              {Code: transport.CodePermissionDenied, Message: "Forbidden"},
		` {"detail":"x"} ` + "\n":                                 {Code: transport.CodePermissionDenied, Message: "x"},
	} {
		require.Equal(t, remote(want), wire.ParseProblem([]byte(doc), 403), doc)
	}
	require.Equal(t, transport.CodeNotFound, wire.ParseProblem([]byte(`{"status":404}`), 0).Code)
	require.Equal(t, transport.CodeInternal, wire.ParseProblem([]byte(`{}`), 500).Code)
	require.Equal(t, transport.CodeUnknown, wire.ParseProblem([]byte(`x`), 500).Code)
	require.Equal(t, transport.CodeUnknown, wire.ParseProblem([]byte(`{"status":200}`), 0).Code)
	require.Equal(t, transport.CodeUnknown, wire.ParseProblem(nil, 200).Code)
}

func TestWriteProblem(t *testing.T) {
	write := func(method string, err error) *http.Response {
		w := httptest.NewRecorder()
		w.Header().Set("Etag", `"body"`)
		w.Header().Set("Content-Encoding", "gzip")
		wire.WriteProblem(w, httptest.NewRequest(method, "/", nil), err)
		return w.Result()
	}
	e := fullError(transport.CodeUnavailable)
	e.Header["content-type"] = []string{"text/html"}
	e.Header["evil"] = []string{"a\r\nSet-Cookie: x"}
	r := write("GET", e)
	body, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.Equal(t, 503, r.StatusCode)
	require.Equal(t, wire.ContentTypeProblem, r.Header.Get("Content-Type"))
	require.Equal(t, "2", r.Header.Get("Retry-After"))
	require.Equal(t, `"7"`, r.Header.Get("Etag"))
	require.Equal(t, "no-store", r.Header.Get("Cache-Control"))
	require.Equal(t, strconv.Itoa(len(body)), r.Header.Get("Content-Length"))
	for _, name := range []string{"Content-Encoding", "Authorization", "Evil", "Problem-Type"} {
		require.NotContains(t, r.Header, name)
	}
	require.Equal(t, remote(e), wire.ErrorFrom(r, body))

	r = write("HEAD", transport.CodeNotFound)
	body, err = io.ReadAll(r.Body)
	require.NoError(t, err)
	require.Empty(t, body)
	require.Equal(t, 404, r.StatusCode)
	require.Equal(t, transport.CodeNotFound, wire.ErrorFrom(r, body).Code)

	w := httptest.NewRecorder()
	wire.WriteProblem(w, nil, nil)
	require.Equal(t, 500, w.Code)
	require.Equal(t, transport.CodeUnknown, wire.ParseProblem(w.Body.Bytes(), 500).Code)
}

func TestErrorFrom(t *testing.T) {
	r := &http.Response{StatusCode: 409, Header: http.Header{"Retry-After": {"3"}}, Request: &http.Request{Method: "POST"}}
	e := wire.ErrorFrom(r, nil)
	require.Equal(t, transport.CodeAlreadyExists, e.Code)
	require.Equal(t, 3*time.Second, e.RetryAfter)
	require.True(t, e.Remote)
	require.Empty(t, e.Header)
	e = wire.ErrorFrom(r, []byte(`{"code":"failed_precondition","retryAfter":0.5}`))
	require.Equal(t, transport.CodeFailedPrecondition, e.Code)
	require.Equal(t, 500*time.Millisecond, e.RetryAfter)
	require.Equal(t, "409", e.Header.Get(wire.HeaderStatus))
}

func TestRetryAfter(t *testing.T) {
	for v, want := range map[string]time.Duration{"": 0, "x": 0, "-1": 0, "0": 0, " 7 ": 7 * time.Second,
		"99999999999": 9223372036 * time.Second, "Fri, 31 Dec 1999 23:59:59 GMT": 58 * time.Second,
		"Fri, 31 Dec 1999 22:00:00 GMT": 0} {
		h := http.Header{"Date": {"Fri, 31 Dec 1999 23:59:01 GMT"}, "Retry-After": {v}}
		require.Equal(t, want, wire.RetryAfter(h), v)
	}
}

func FuzzParseProblem(f *testing.F) {
	f.Add(wire.AppendProblem(nil, fullError(transport.CodeAborted)), 409)
	for _, s := range []string{"", "{}", "[]", "null", `{"code":"ok"}`, `{"a":{"b":[1,"}"]},"details":[{"type":"t","value":"eA=="}]}`,
		`{"header":{"status":["200"]},"status":1e3}`, `{"\u0063ode":"not_found"}`, "{\"detail\":\"\xff\"}"} {
		f.Add([]byte(s), 0)
		f.Add([]byte(s), 500)
	}
	f.Fuzz(func(t *testing.T, data []byte, status int) {
		e := wire.ParseProblem(data, status)
		require.NotNil(t, e)
		require.True(t, 1 <= e.Code && e.Code <= 16)
		require.True(t, e.Remote)
		require.NoError(t, e.Header.Check())
		require.GreaterOrEqual(t, e.RetryAfter, time.Duration(0))
		again := wire.ParseProblem(wire.AppendProblem(nil, e), 0)
		require.Equal(t, e.Code, again.Code)
		require.Equal(t, e.RetryAfter, again.RetryAfter)
		require.Equal(t, e.Details, again.Details)
	})
}
