package rest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
)

// A trip is a server without a network.
type trip func(r *http.Request) (*http.Response, error)

func (t trip) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return t(r)
}

// answer returns a response with the fields, given as "Name: value".
func answer(status int, body string, fields ...string) *http.Response {
	h := http.Header{}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		h.Add(name, value)
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
}

// newClient returns a client of base that is closed at the end of the test.
func newClient(t testing.TB, base string, o *rest.ClientOptions) *rest.Client {
	t.Helper()
	c, err := rest.NewClient(base, o)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// serve returns a client of a server that answers with h.
func serve(t testing.TB, o *rest.ClientOptions, h http.HandlerFunc) *rest.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return newClient(t, s.URL, o)
}

func message(topic, body string) *transport.Message {
	return &transport.Message{Topic: topic, Body: []byte(body)}
}

// asError returns the *transport.Error that err is.
func asError(t testing.TB, err error) *transport.Error {
	t.Helper()
	var e *transport.Error
	require.ErrorAs(t, err, &e)
	return e
}

func TestNewClientChecks(t *testing.T) {
	for _, base := range []string{"", "x", "/path", "ftp://h", "http://", "http://h?q", "http://h#f", "http://h/%zz", "ws://h"} {
		_, err := rest.NewClient(base, nil)
		require.ErrorIs(t, err, transport.CodeInvalidArgument, base)
	}
	for _, o := range []*rest.ClientOptions{
		{Routes: []rest.Route{{Topic: "a..b", Pattern: "GET /"}}},
		{Routes: []rest.Route{{Topic: "a", Pattern: "GET"}}},
		{Origins: []string{"example.com"}},
	} {
		_, err := rest.NewClient("http://h", o)
		require.ErrorIs(t, err, transport.CodeInvalidArgument)
	}
	for _, base := range []string{"http://h", "https://h:1/a/b/", "http://user:pass@h", "http://[::1]:80"} {
		c, err := rest.NewClient(base, nil)
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
}

func TestClientCallWithoutRoute(t *testing.T) {
	c := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "POST", r.Method)
		require.Equal(t, "/calls/a.b%2Fc%20%3F", r.URL.EscapedPath())
		require.Equal(t, "text/x", r.Header.Get("Content-Type"))
		require.Equal(t, "v", r.Header.Get("K"))
		require.Equal(t, `"the-key"`, r.Header.Get("Idempotency-Key"))
		require.Equal(t, "my%20id", r.Header.Get("Intermodal-Id"))
		require.NotEmpty(t, r.Header.Get("Connect-Timeout-Ms"))
		body, _ := io.ReadAll(r.Body)
		require.Equal(t, "\x00 body\n", string(body))
		w.Header().Set("Etag", `"7"`)
		w.Header().Set("Location", "/orders/7")
		w.Header().Set("Content-Type", "text/y")
		w.WriteHeader(201)
		io.WriteString(w, " reply\n")
	})
	m := &transport.Message{ID: "my id", Topic: "a.b/c ?", Body: []byte("\x00 body\n"),
		Header: transport.Header{"content-type": {"text/x"}, "k": {"v"}, "idempotency-key": {"the-key"}}}
	r, err := c.Call(t.Context(), m)
	require.NoError(t, err)
	require.Equal(t, &transport.Message{Body: []byte(" reply\n"), Header: transport.Header{
		"status": {"201"}, "etag": {`"7"`}, "location": {"/orders/7"}, "content-type": {"text/y"}}}, r)
}

func TestClientBasePathAndUser(t *testing.T) {
	var paths []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		paths = append(paths, r.Method+" "+r.URL.EscapedPath()+" "+user+":"+password+" "+r.UserAgent())
	}))
	defer s.Close()
	c := newClient(t, strings.Replace(s.URL, "//", "//joe:x%2F@", 1)+"/api%2F1/", &rest.ClientOptions{
		Header: http.Header{"user-agent": {"me"}},
		Routes: []rest.Route{{Topic: "home", Pattern: "GET /{$}"}, {Topic: "get", Pattern: "GET /x"}}})
	for _, topic := range []string{"home", "get", "other"} {
		_, err := c.Call(t.Context(), message(topic, ""))
		require.NoError(t, err)
	}
	require.NoError(t, c.Publish(t.Context(), message("event", "")))
	require.NoError(t, c.Health(t.Context()))
	require.Equal(t, []string{"GET /api%2F1/ joe:x/ me", "GET /api%2F1/x joe:x/ me", "POST /api%2F1/calls/other joe:x/ me",
		"POST /api%2F1/topics/event joe:x/ me", "HEAD /api%2F1 joe:x/ me"}, paths)
}

func TestClientReplies(t *testing.T) {
	var next *http.Response
	c := newClient(t, "http://h", &rest.ClientOptions{Transport: trip(func(*http.Request) (*http.Response, error) { return next, nil })})
	for _, tc := range []struct {
		answer *http.Response
		want   transport.Message
	}{
		{answer(200, "x"), transport.Message{Body: []byte("x"), Header: transport.Header{}}},
		{answer(204, "", "Etag: \"a\""), transport.Message{Body: []byte{}, Header: transport.Header{"etag": {`"a"`}}}},
		{answer(202, "later", "Location: /r"), transport.Message{Body: []byte("later"), Header: transport.Header{"status": {"202"}, "location": {"/r"}}}},
		{answer(200, "", "Link: <a>; rel=next", "Link: <b>; rel=prev", "Set-Cookie: a=b", "Date: x", "X-Y: z"),
			transport.Message{Body: []byte{}, Header: transport.Header{"link": {"<a>; rel=next", "<b>; rel=prev"}, "x-y": {"z"}}}},
		{answer(200, "", "Intermodal-Header: a_b=~"), transport.Message{Body: []byte{}, Header: transport.Header{"a_b": {""}}}},
	} {
		next = tc.answer
		r, err := c.Call(t.Context(), message("t", ""))
		require.NoError(t, err)
		require.Equal(t, tc.want, *r)
	}
	for _, bad := range []*http.Response{
		answer(200, "", "Intermodal-Header: nonsense"),
		answer(200, "x", "Content-Encoding: br"),
		answer(200, "x", "Content-Encoding: gzip"),
		answer(101, ""),
		answer(304, ""),
	} {
		next = bad
		_, err := c.Call(t.Context(), message("t", ""))
		require.ErrorIs(t, err, transport.CodeInternal)
		require.Zero(t, asError(t, err).Header.Get("status"))
	}
	next = answer(200, "", "K: "+strings.Repeat("v", 17<<10))
	_, err := c.Call(t.Context(), message("t", ""))
	require.ErrorIs(t, err, transport.CodeResourceExhausted)
}

func TestClientConditionalByCaller(t *testing.T) {
	c := serve(t, &rest.ClientOptions{Routes: []rest.Route{{Topic: "get", Pattern: "GET /x"}}}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"1"`)
		if r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(304)
		}
	})
	m := message("get", "")
	m.Header = transport.Header{"if-none-match": {`"1"`}}
	r, err := c.Call(t.Context(), m)
	require.NoError(t, err)
	require.Equal(t, transport.Header{"status": {"304"}, "etag": {`"1"`}}, r.Header)
}

func TestClientErrorAnswers(t *testing.T) {
	var next *http.Response
	c := newClient(t, "http://h", &rest.ClientOptions{Attempts: 1, Transport: trip(func(*http.Request) (*http.Response, error) { return next, nil })})
	html := "<html><title>secret</title>" + strings.Repeat("x", 1<<20)
	for name, tc := range map[string]struct {
		answer *http.Response
		want   transport.Error
		cause  bool
	}{
		"ours": {answer(409, `{"type":"about:blank","title":"Conflict","status":409,"detail":"no","code":"already_exists","reason":"R","retryAfter":1.5,"header":{"k":["v"]}}`,
			"Content-Type: application/problem+json", "K: v", "X-Other: y"),
			transport.Error{Code: transport.CodeAlreadyExists, Reason: "R", Message: "no", RetryAfter: 1500 * time.Millisecond, Header: transport.Header{"k": {"v"}}}, false},
		"foreign problem": {answer(403, `{"title":"Out of credit","type":"https://example.com/credit","balance":30}`,
			"Content-Type: application/problem+json", "X-Quota: 0"),
			transport.Error{Code: transport.CodePermissionDenied, Message: "Out of credit",
				Header: transport.Header{"problem-type": {"https://example.com/credit"}, "x-quota": {"0"}}}, true},
		"foreign JSON": {answer(422, `{"message":"secret","errors":[{"field":"title"}]}`, "Content-Type: application/json; charset=utf-8"),
			transport.Error{Code: transport.CodeInvalidArgument, Message: "Unprocessable Entity", Header: transport.Header{"status": {"422"}}}, true},
		"page": {answer(502, html[:1000], "Content-Type: text/html", "Retry-After: 7", "Set-Cookie: secret", "Cache-Control: no-store"),
			transport.Error{Code: transport.CodeUnavailable, Message: "Bad Gateway", RetryAfter: 7 * time.Second, Header: transport.Header{"status": {"502"}}}, true},
		"large page": {answer(500, html, "Content-Type: text/html"), transport.Error{Code: transport.CodeUnknown, Message: "Internal Server Error"}, true},
		"plain":      {answer(404, "404 page not found\n", "Content-Type: text/plain"), transport.Error{Code: transport.CodeNotFound, Message: "Not Found"}, true},
		"odd status": {answer(599, ""), transport.Error{Code: transport.CodeUnknown, Header: transport.Header{"status": {"599"}}}, true},
		"no JSON":    {answer(400, "<html>", "Content-Type: application/json"), transport.Error{Code: transport.CodeInvalidArgument, Message: "Bad Request"}, true},
		"redirect": {answer(308, "moved", "Location: http://elsewhere/"),
			transport.Error{Code: transport.CodeFailedPrecondition, Message: "the answer was a redirect, which is not followed",
				Header: transport.Header{"location": {"http://elsewhere/"}}}, true},
		"long text": {answer(400, `{"detail":"`+strings.Repeat("ü", 5000)+`"}`, "Content-Type: application/json"),
			transport.Error{Code: transport.CodeInvalidArgument, Message: strings.Repeat("ü", 512) + "…"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			next = tc.answer
			r, err := c.Call(t.Context(), message("t", ""))
			require.Nil(t, r)
			e := *asError(t, err)
			var a *rest.Answer
			require.Equal(t, tc.cause, errors.As(err, &a))
			if tc.cause {
				require.Equal(t, tc.answer.StatusCode, a.Status)
			}
			require.NotContains(t, err.Error(), "secret")
			require.True(t, e.Remote)
			e.Remote, e.Cause = false, nil
			require.Equal(t, tc.want, e)
		})
	}
	next = answer(422, `{"errors":[]}`, "Content-Type: application/json")
	_, err := c.Call(t.Context(), message("t", ""))
	var a *rest.Answer
	require.ErrorAs(t, err, &a)
	require.Equal(t, `{"errors":[]}`, string(a.Body))
}

func TestClientPublish(t *testing.T) {
	status := 202
	c := serve(t, &rest.ClientOptions{Routes: []rest.Route{{Topic: "orders.noted", Pattern: "POST /orders/{id}/notes", Event: true}}},
		func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			require.Equal(t, "1.0", r.Header.Get("Ce-Specversion"))
			require.NotEmpty(t, r.Header.Get("Ce-Id"))
			switch r.Header.Get("Ce-Type") {
			case "orders.placed":
				require.Equal(t, "/topics/orders.placed", r.URL.Path)
				require.Equal(t, `{"n": 1}`, string(body))
			default:
				require.Equal(t, "/orders/7/notes", r.URL.Path)
				require.Equal(t, `{"text":"x"}`, string(body))
				require.Equal(t, "application/json", r.Header.Get("Content-Type"))
			}
			w.WriteHeader(status)
		})
	require.NoError(t, c.Publish(t.Context(), message("orders.placed", `{"n": 1}`)))
	require.NoError(t, c.Publish(t.Context(), message("orders.noted", `{"id":7,"text":"x"}`)))
	status = 404
	require.ErrorIs(t, c.Publish(t.Context(), message("orders.placed", `{"n": 1}`)), transport.CodeNotFound)
}

func TestClientChecksBeforeSending(t *testing.T) {
	c := newClient(t, "http://h", &rest.ClientOptions{MaxBytes: 100,
		Routes: []rest.Route{{Topic: "get", Pattern: "GET /{id}"}},
		Transport: trip(func(*http.Request) (*http.Response, error) {
			t.Error("a request was sent")
			return nil, io.EOF
		})})
	for code, m := range map[transport.Code]*transport.Message{
		transport.CodeInvalidArgument:   {Topic: "a..b"},
		transport.CodeResourceExhausted: {Topic: "a", Body: make([]byte, 100)},
	} {
		_, err := c.Call(t.Context(), m)
		require.ErrorIs(t, err, code)
		require.ErrorIs(t, c.Publish(t.Context(), m), code)
	}
	for _, body := range []string{"", "null", "{}", `{"id":""}`, `{"id":null}`, `{"id":{}}`, `{"id":"."}`, `{"id":"a\u0000"}`, `[]`, `{"id":`, `{"id":1,"l":[[1]]}`} {
		_, err := c.Call(t.Context(), message("get", body))
		require.ErrorIs(t, err, transport.CodeInvalidArgument, body)
	}
	_, err := c.Call(t.Context(), &transport.Message{Topic: "get", Body: []byte("x"), Header: transport.Header{"content-type": {"application/protobuf"}}})
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	_, err = c.Call(t.Context(), nil)
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Call(ctx, message("t", ""))
	require.Equal(t, context.Canceled, err)
}

func TestClientAuthorize(t *testing.T) {
	refusal := error(nil)
	c := serve(t, &rest.ClientOptions{Authorize: func(r *http.Request) error {
		r.Header.Set("Authorization", "Bearer x")
		q := r.URL.Query()
		q.Set("key", "y")
		r.URL.RawQuery = q.Encode()
		return refusal
	}}, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("Authorization")+" "+r.URL.RawQuery)
	})
	for range 2 {
		r, err := c.Call(t.Context(), message("t", ""))
		require.NoError(t, err)
		require.Equal(t, "Bearer x key=y", string(r.Body))
	}
	refusal = errors.New("no token")
	_, err := c.Call(t.Context(), message("t", ""))
	e := asError(t, err)
	require.Equal(t, transport.CodeUnauthenticated, e.Code)
	require.Equal(t, transport.ReasonNotSent, e.Reason)
	require.NotContains(t, transport.Public(err).Message, "token")
	refusal = transport.CodePermissionDenied
	_, err = c.Call(t.Context(), message("t", ""))
	require.ErrorIs(t, err, transport.CodePermissionDenied)
}

func TestClientNoConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l.Close()
	for _, base := range []string{"http://" + l.Addr().String(), "http://does-not-exist.invalid"} {
		c := newClient(t, base, &rest.ClientOptions{Attempts: 1})
		_, err := c.Call(t.Context(), message("t", ""))
		e := asError(t, err)
		require.Equal(t, transport.CodeUnavailable, e.Code)
		require.Equal(t, transport.ReasonNotSent, e.Reason)
		require.False(t, e.Remote)
		require.NotContains(t, transport.Public(err).Error(), l.Addr().String())
		require.ErrorIs(t, c.Health(t.Context()), transport.CodeUnavailable)
	}
}

func TestClientTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c := newClient(t, s.URL, &rest.ClientOptions{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}})
	r, err := c.Call(t.Context(), message("t", ""))
	require.NoError(t, err)
	require.Equal(t, "HTTP/2.0", string(r.Body))

	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for _, base := range []string{s.URL, strings.Replace(plain.URL, "http:", "https:", 1)} {
		c := newClient(t, base, nil)
		_, err := c.Call(t.Context(), message("t", ""))
		require.ErrorIs(t, err, transport.CodeUnavailable)
		require.Equal(t, transport.ReasonNotSent, asError(t, err).Reason, "%v", err)
	}
}

func TestClientBrokenAnswers(t *testing.T) {
	for name, answer := range map[string]string{
		"nothing":          "",
		"half a header":    "HTTP/1.1 200 OK\r\nContent-",
		"half a body":      "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
		"half a chunk":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha",
		"no last chunk":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nha\r\n",
		"not HTTP":         "SSH-2.0-OpenSSH_9.7\r\n",
		"half a gzip body": "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 100\r\n\r\n\x1f\x8b\x08\x00",
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			c := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
				calls.Add(1)
				conn, _, _ := w.(http.Hijacker).Hijack()
				io.WriteString(conn, answer)
				conn.Close()
			})
			_, err := c.Call(t.Context(), message("t", ""))
			e := asError(t, err)
			require.Equal(t, transport.CodeUnavailable, e.Code, "%v", err)
			require.Equal(t, transport.ReasonOutcomeUnknown, e.Reason)
			require.False(t, transport.Resendable(err, nil))
			require.EqualValues(t, 1, calls.Load(), "a POST without a key is not sent again")
		})
	}
}

func TestClientContextEnds(t *testing.T) {
	started := make(chan bool, 10)
	half := false
	c := serve(t, &rest.ClientOptions{Timeout: time.Second}, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if half {
			io.WriteString(w, "half")
			w.(http.Flusher).Flush()
		}
		started <- true
		<-r.Context().Done()
	})
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-started; cancel() }()
		ctx, stop := context.WithTimeout(ctx, time.Minute)
		_, err := c.Call(ctx, message("t", ""))
		require.Equal(t, context.Canceled, err)
		stop()
		ctx, cancel = context.WithTimeout(t.Context(), time.Second) // in which it must arrive
		_, err = c.Call(ctx, message("t", ""))
		require.Equal(t, context.DeadlineExceeded, err)
		<-started
		cancel()
		_, err = c.Call(t.Context(), message("t", "")) // the default
		require.Equal(t, context.DeadlineExceeded, err)
		<-started
		half = true
	}
}

func TestClientOneConnection(t *testing.T) {
	var dials atomic.Int32
	dialer := &net.Dialer{}
	tr := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return dialer.DialContext(ctx, network, addr)
	}}
	n := 0
	c := serve(t, &rest.ClientOptions{Transport: tr, MaxBytes: 10_000}, func(w http.ResponseWriter, r *http.Request) {
		switch n++; n % 5 {
		case 0:
			w.WriteHeader(204)
		case 1:
			io.WriteString(w, strings.Repeat("x", 5000))
		case 2:
			http.Error(w, "no", 404)
		case 3:
			io.WriteString(w, strings.Repeat("too large", 5000))
		case 4:
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}
	})
	for range 100 {
		c.Call(t.Context(), message("t", "x"))
	}
	require.Equal(t, 100, n)
	require.EqualValues(t, 1, dials.Load())
}

func TestClientSizes(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(make([]byte, 2<<20))
	z.Close()
	c := serve(t, &rest.ClientOptions{CompressBytes: 100}, func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "gzip", r.Header.Get("Accept-Encoding"))
		switch r.URL.Path {
		case "/calls/large":
			w.Write(make([]byte, 2<<20))
		case "/calls/bomb":
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(zipped.Bytes())
		case "/calls/echo":
			if r.Header.Get("Content-Encoding") != "" {
				w.Header().Set("X-Zipped", "yes")
				z, err := gzip.NewReader(r.Body)
				require.NoError(t, err)
				r.Body = z
			}
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			io.Copy(z, r.Body)
			z.Close()
		}
	})
	for _, topic := range []string{"large", "bomb"} {
		_, err := c.Call(t.Context(), message(topic, ""))
		e := asError(t, err)
		require.Equal(t, transport.CodeResourceExhausted, e.Code)
		require.False(t, e.Remote)
		require.Empty(t, e.Header, "413 is not for our caller")
	}
	for body, want := range map[string]string{"short": "", strings.Repeat("long ", 1000): "yes"} {
		r, err := c.Call(t.Context(), message("echo", body))
		require.NoError(t, err)
		require.Equal(t, body, string(r.Body))
		require.Equal(t, want, r.Header.Get("x-zipped"))
	}
}

func TestClientShutdown(t *testing.T) {
	started, release := make(chan bool), make(chan bool)
	c := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case started <- true:
		case <-r.Context().Done():
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { _, err = c.Call(t.Context(), message("t", "x")) })
	<-started
	down := make(chan error)
	go func() { down <- c.Shutdown(t.Context()) }()
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		_, err := c.Call(ctx, message("t", ""))
		var e *transport.Error
		return errors.As(err, &e) && e.Reason == transport.ReasonClosed
	}, 10*time.Second, time.Millisecond)
	close(release)
	require.NoError(t, <-down)
	wg.Wait()
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.Equal(t, transport.ReasonClosed, asError(t, c.Publish(t.Context(), message("t", ""))).Reason)
}

func TestClientCloseBreaksOff(t *testing.T) {
	started := make(chan bool)
	c := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		close(started)
		<-r.Context().Done()
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := c.Call(t.Context(), message("t", ""))
		require.Equal(t, transport.ReasonOutcomeUnknown, asError(t, err).Reason)
	})
	<-started
	require.NoError(t, c.Close())
	wg.Wait()
}

func TestClientHealth(t *testing.T) {
	status := 404
	c := serve(t, nil, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
	require.NoError(t, c.Health(t.Context()))
	status = 503
	require.ErrorIs(t, c.Health(t.Context()), transport.CodeUnavailable)
}
