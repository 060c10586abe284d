package rest_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
)

// start serves b at an address of its own.
func start(t testing.TB, b rest.Backend, o *rest.Options) (*rest.Server, string) {
	t.Helper()
	s, err := rest.NewServer(b, o)
	require.NoError(t, err)
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return s, h.Listener.Addr().String()
}

// An answer is what came back over the wire.
type reply struct {
	status int
	header http.Header
	body   string
	close  bool
	length int64
}

// raw sends the bytes of a request, in which lines may end in a mere LF, and reads one answer.
func raw(t testing.TB, addr, request string) reply {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	head, body, _ := strings.Cut(request, "\n\n")
	_, err = io.WriteString(c, strings.ReplaceAll(head, "\n", "\r\n")+"\r\n\r\n"+body)
	require.NoError(t, err)
	return read(t, bufio.NewReader(c), strings.Fields(head)[0])
}

func read(t testing.TB, r *bufio.Reader, method string) reply {
	t.Helper()
	p, err := http.ReadResponse(r, &http.Request{Method: method})
	require.NoError(t, err)
	body, err := io.ReadAll(p.Body)
	require.NoError(t, err)
	p.Body.Close()
	return reply{p.StatusCode, p.Header, string(body), p.Close, p.ContentLength}
}

// request builds the bytes of a request.
func request(line, body string, fields ...string) string {
	if strings.Count(line, " ") < 2 {
		line += " HTTP/1.1"
	}
	head := line + "\nHost: x"
	for _, f := range fields {
		head += "\n" + f
	}
	if body != "" {
		head += "\nContent-Length: " + strconv.Itoa(len(body))
	}
	return head + "\n\n" + body
}

// code returns the code and the reason of a problem.
func (r reply) code(t testing.TB) string {
	t.Helper()
	require.Equal(t, "application/problem+json", r.header.Get("Content-Type"), "%d %s", r.status, r.body)
	var p struct {
		Status       int
		Code, Reason string
	}
	require.NoError(t, json.Unmarshal([]byte(r.body), &p), r.body)
	require.Equal(t, r.status, p.Status)
	return strings.TrimSpace(p.Code + " " + p.Reason)
}

func zip(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, s)
	z.Close()
	return b.String()
}

type getUser struct {
	ID    int      `json:"id"`
	Tags  []string `json:"tags,omitempty"`
	Limit int      `json:"limit,omitempty"`
}

var opGet = transport.Operation[getUser, map[string]any]{Topic: "users.get"}

// shop is a backend with one of everything. Events end up in the channel.
func shop(events chan *transport.Message) transport.Mux {
	replies := map[string]*transport.Message{
		"plain":     {Header: transport.Header{"content-type": {"text/plain"}}, Body: []byte("hello")},
		"big":       {Header: transport.Header{"content-type": {"text/plain"}}, Body: bytes.Repeat([]byte("hello "), 2000)},
		"bigstrong": {Header: transport.Header{"content-type": {"text/plain"}, "etag": {`"v1"`}}, Body: bytes.Repeat([]byte("hello "), 2000)},
		"bigfinal":  {Header: transport.Header{"content-type": {"text/plain"}, "cache-control": {"no-transform"}}, Body: bytes.Repeat([]byte("hello "), 2000)},
		"bigpng":    {Header: transport.Header{"content-type": {"image/png"}}, Body: bytes.Repeat([]byte("hello "), 2000)},
		"strong":    {Header: transport.Header{"etag": {`"v1"`}, "last-modified": {"Tue, 06 Jan 2026 10:00:00 GMT"}, "cache-control": {"max-age=60"}, "vary": {"X-Who"}, "x-more": {"1"}}, Body: []byte("x")},
		"created":   {Header: transport.Header{"location": {"/users/7"}}, Body: []byte("{}")},
		"moved":     {Header: transport.Header{"status": {"303"}, "location": {"/elsewhere"}}},
		"accepted":  {Header: transport.Header{"status": {"202"}}, Body: []byte("{}")},
		"nothing":   nil,
		"pages":     {Header: transport.Header{"link": {`</users?page=2>; rel="next"`, `</users?page=9>; rel="last"`}}, Body: []byte("[]")},
		"odd":       {Header: transport.Header{"status": {"999"}, "content-length": {"1"}, "set-cookie": {"a=b"}, "x-text": {"ü\r\nX-Evil: 1"}}, Body: []byte("odd")},
		"bodyless":  {Header: transport.Header{"status": {"204"}}, Body: []byte("body")},
	}
	failures := map[string]error{
		"secret":  errors.New("the password is hunter2"),
		"wrapped": transport.Wrap(errors.New("hunter2"), transport.CodeUnavailable, "come back"),
		"quota":   &transport.Error{Code: transport.CodeResourceExhausted, Message: "too many", RetryAfter: 1500 * time.Millisecond},
		"busy":    &transport.Error{Code: transport.CodeUnavailable, RetryAfter: 2 * time.Second},
		"login":   transport.CodeUnauthenticated,
		"digest":  &transport.Error{Code: transport.CodeUnauthenticated, Header: transport.Header{"www-authenticate": {`Basic realm="x"`}}},
		"reason":  &transport.Error{Code: transport.CodeFailedPrecondition, Reason: "OUT_OF_STOCK", Message: "none left"},
		"gone":    &transport.Error{Code: transport.CodeNotFound, Header: transport.Header{"status": {"410"}}},
		"vary":    &transport.Error{Code: transport.CodeNotFound, Header: transport.Header{"vary": {"X-Who"}}},
	}
	for c := transport.Code(1); c <= 16; c++ {
		failures[c.String()] = c
	}
	name := func(m *transport.Message) string {
		var v struct{ Name string }
		json.Unmarshal(m.Body, &v)
		return v.Name
	}
	return transport.Mux{
		"echo": func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			return &transport.Message{Header: transport.Header{"content-type": m.Header.Values("content-type")}, Body: m.Body}, nil
		},
		"headers": func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			p, _ := transport.PeerFrom(ctx)
			b, err := json.Marshal(map[string]any{"id": m.ID, "topic": m.Topic, "header": m.Header,
				"peer": p.ID, "protocol": p.Protocol, "addr": p.Addr != "", "private": p.Header})
			return &transport.Message{Body: b}, err
		},
		"reply": func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			return replies[name(m)], nil
		},
		"fail": func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			return nil, failures[name(m)]
		},
		"panic": func(context.Context, *transport.Message) (*transport.Message, error) { panic("hunter2") },
		"orders.placed": func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			if m.Header.Get("delay") != "" {
				return nil, transport.CodeUnimplemented
			}
			events <- m
			return nil, nil
		},
		"wait": func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		opGet.Topic: opGet.Handler(func(ctx context.Context, in getUser) (map[string]any, error) {
			return map[string]any{"id": in.ID, "tags": in.Tags, "limit": in.Limit}, nil
		}),
		"create": func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			return &transport.Message{Body: []byte(`{"id":"a b"}`)}, nil
		},
	}
}

func shopOptions() *rest.Options {
	typed := rest.For(opGet, "GET /users/{id}")
	typed.CacheControl = "max-age=5"
	return &rest.Options{
		OnError: func(*transport.Message, error) {},
		Headers: []string{"X-Tenant"},
		Routes: []rest.Route{
			typed,
			{Topic: "users.get", Pattern: "PUT /users/{id}", RequireMatch: true, Types: []string{"application/json"}, Request: typed.Request},
			{Topic: "echo", Pattern: "POST /users/{id}:touch", Body: "-"},
			{Topic: "echo", Pattern: "POST /echo", Idempotent: true},
			{Topic: "echo", Pattern: "POST /keyed", RequireKey: true},
			{Topic: "create", Pattern: "POST /users", Location: "/users/{id}"},
			{Topic: "create", Pattern: "PATCH /users", Status: 202},
			{Topic: "reply", Pattern: "GET /reply/{name}"},
			{Topic: "reply", Pattern: "POST /reply/{name}"},
			{Topic: "fail", Pattern: "GET /fail/{name}", Statuses: map[string]int{"OUT_OF_STOCK": 409}},
			{Topic: "panic", Pattern: "GET /panic"},
			{Topic: "wait", Pattern: "GET /wait"},
			{Topic: "echo", Pattern: "GET /old", Deprecated: time.Unix(1700000000, 0), Sunset: time.Unix(1800000000, 0)},
			{Topic: "headers", Pattern: "GET /headers"},
			{Topic: "orders.placed", Pattern: "POST /orders/{id}", Event: true},
		},
	}
}

func TestAnswers(t *testing.T) {
	events := make(chan *transport.Message, 10)
	_, addr := start(t, shop(events), shopOptions())
	const json = "Content-Type: application/json"
	for _, c := range []struct {
		name   string
		line   string
		body   string
		fields []string
		status int
		want   string   // the body, or the code of a problem
		header []string // that the answer has; "Name: -" that it has not
	}{
		{"a call", "POST /calls/echo", "\x00\xff any", []string{"Content-Type: x/y"}, 200, "\x00\xff any", []string{"Content-Type: x/y", "Cache-Control: -", "ETag: -", "Vary: -", "Content-Length: 6"}},
		{"an escaped topic", "POST /calls/%65cho", "x", nil, 200, "x", []string{"Content-Type: -"}},
		{"the query of a call is not looked at", "POST /calls/echo?a=%zz", "x", nil, 200, "x", nil},
		{"an empty reply", "POST /calls/echo", "", nil, 204, "", []string{"Content-Type: -", "Content-Length: -"}},
		{"an unknown operation", "POST /calls/none", "x", nil, 501, "unimplemented", nil},
		{"an illegal topic", "POST /calls/a..b", "x", nil, 400, "invalid_argument", nil},
		{"a reserved topic", "POST /calls/rpc.x", "x", nil, 400, "invalid_argument", nil},
		{"a topic with a slash", "POST /calls/a%2Fb", "x", nil, 501, "unimplemented", nil},
		{"GET of a call", "GET /calls/echo", "", nil, 405, "unimplemented", []string{"Allow: OPTIONS, POST"}},
		{"GET of a topic", "GET /topics/orders.placed", "", nil, 405, "unimplemented", []string{"Allow: OPTIONS, POST"}},
		{"an unknown path", "GET /nothing", "", nil, 404, "not_found", []string{"Cache-Control: no-store"}},
		{"a slash too many", "GET /users/7/", "", nil, 404, "not_found", nil},
		{"HEAD of nothing", "HEAD /nothing", "", nil, 404, "", []string{"Content-Type: application/problem+json"}},
		{"an unknown method", "BREW /users/7", "", nil, 405, "unimplemented", []string{"Allow: GET, HEAD, OPTIONS, PUT"}},
		{"OPTIONS", "OPTIONS /users/7", "", nil, 204, "", []string{"Allow: GET, HEAD, OPTIONS, PUT", "Access-Control-Allow-Origin: -"}},
		{"OPTIONS of nothing", "OPTIONS /nothing", "", nil, 404, "not_found", nil},

		{"path and query", "GET /users/7?tags=a&tags=b&utm=1", "", []string{"Accept: application/json"}, 200, `{"id":7,"limit":0,"tags":["a","b"]}`,
			[]string{"Content-Type: application/json", "Cache-Control: max-age=5", "Vary: Accept, Accept-Encoding", "Content-Length: 35"}},
		{"HEAD", "HEAD /users/7?tags=a&tags=b", "", nil, 200, "", []string{"Content-Type: application/json", "Content-Length: 35"}},
		{"a bad path parameter", "GET /users/x", "", nil, 400, "invalid_argument INVALID_PARAMETER", nil},
		{"a bad query parameter", "GET /users/7?limit=x", "", nil, 400, "invalid_argument INVALID_PARAMETER", nil},
		{"a bad query", "GET /users/7?%zz", "", nil, 400, "invalid_argument", nil},
		{"GET with a body", "GET /users/7", "x", nil, 400, "invalid_argument", nil},
		{"GET with a content-type", "GET /users/7", "", []string{json}, 200, `{"id":7,"limit":0,"tags":null}`, nil},
		{"not acceptable", "GET /users/7", "", []string{"Accept: text/html, application/json;q=0"}, 406, "invalid_argument", nil},
		{"not acceptable, seen late", "GET /reply/plain", "", []string{"Accept: application/json"}, 406, "invalid_argument", []string{"Content-Type: application/problem+json"}},
		{"acceptable", "GET /reply/plain", "", []string{"Accept: text/*;q=0.1"}, 200, "hello", nil},
		{"an action", "POST /users/7:touch", "", nil, 200, `{"id":"7"}`, []string{json}},
		{"an action has no body", "POST /users/7:touch", `{"a":1}`, nil, 400, "invalid_argument", nil},
		{"an unknown action", "POST /users/7:fly", "", nil, 405, "unimplemented", nil},

		{"PUT", "PUT /users/7", `{"limit":3,"id":8}`, []string{json, `If-Match: "v"`}, 200, `{"id":7,"limit":3,"tags":null}`, []string{"ETag: -"}},
		{"PUT without If-Match", "PUT /users/7", `{}`, []string{json}, 428, "failed_precondition", nil},
		{"PUT of another type", "PUT /users/7", `{}`, []string{"Content-Type: text/csv", `If-Match: "v"`}, 415, "invalid_argument", []string{"Accept: application/json"}},
		{"PUT of bad JSON", "PUT /users/7", `{`, []string{json, `If-Match: "v"`}, 400, "invalid_argument", nil},
		{"a type of JSON", "PUT /users/7", `{}`, []string{"Content-Type: application/vnd.x+json", `If-Match: "v"`}, 200, `{"id":7,"limit":0,"tags":null}`, nil},

		{"201 by template", "POST /users", "{}", nil, 201, `{"id":"a b"}`, []string{"Location: /users/a%20b"}},
		{"201 by reply", "POST /reply/created", "", nil, 201, "{}", []string{"Location: /users/7"}},
		{"the route's status", "PATCH /users", "{}", nil, 202, `{"id":"a b"}`, nil},
		{"202 by reply", "POST /reply/accepted", "", nil, 202, "{}", []string{"Intermodal-Header: -"}},
		{"204", "POST /reply/nothing", "", nil, 204, "", nil},
		{"303", "POST /reply/moved", "", nil, 303, "", []string{"Location: /elsewhere"}},
		{"links", "GET /reply/pages", "", nil, 200, "[]", []string{`Link: </users?page=2>; rel="next"|</users?page=9>; rel="last"`}},
		{"what is no status is data", "POST /reply/odd", "", nil, 200, "odd", []string{"Content-Length: 3", "Set-Cookie: -", "X-Evil: -",
			"Intermodal-Header: content-length=1,set-cookie=a=b,status=999,x-text=~w7wNClgtRXZpbDogMQ"}},
		{"a body is not lost", "POST /reply/bodyless", "", nil, 200, "body", nil},
		{"deprecated", "GET /old", "", nil, 204, "", []string{"Deprecation: @1700000000", "Sunset: Fri, 15 Jan 2027 08:00:00 GMT"}},

		{"weak etag", "GET /reply/plain", "", nil, 200, "hello", []string{`ETag: W/"LPJNul-wow4m6Dsqxbni"`, "Cache-Control: no-cache"}},
		{"304 by the weak etag", "GET /reply/plain", "", []string{`If-None-Match: "x", W/"LPJNul-wow4m6Dsqxbni"`}, 304, "", []string{`ETag: W/"LPJNul-wow4m6Dsqxbni"`, "Cache-Control: no-cache", "Vary: Accept, Accept-Encoding", "Content-Type: -"}},
		{"304 to HEAD", "HEAD /reply/plain", "", []string{`If-None-Match: W/"LPJNul-wow4m6Dsqxbni"`}, 304, "", nil},
		{"strong etag", "GET /reply/strong", "", nil, 200, "x", []string{`ETag: "v1"`, "Cache-Control: max-age=60", "Vary: X-Who|Accept, Accept-Encoding", "X-More: 1"}},
		{"304", "GET /reply/strong", "", []string{`If-None-Match: "v1"`}, 304, "", []string{`ETag: "v1"`, "X-More: -", "Cache-Control: max-age=60", "Vary: X-Who|Accept, Accept-Encoding"}},
		{"412", "GET /reply/strong", "", []string{`If-Match: "v2"`}, 412, "aborted", []string{"ETag: -", "X-More: -", "Cache-Control: no-store"}},
		{"412 by date", "GET /reply/strong", "", []string{`If-Unmodified-Since: Mon, 05 Jan 2026 10:00:00 GMT`}, 412, "aborted", nil},
		{"304 by date", "GET /reply/strong", "", []string{`If-Modified-Since: Tue, 06 Jan 2026 10:00:00 GMT`}, 304, "", nil},
		{"conditions of a POST are the handler's", "POST /reply/strong", "", []string{`If-None-Match: "v1"`}, 200, "x", []string{`ETag: "v1"`}},

		{"gzip", "GET /reply/big", "", []string{"Accept-Encoding: gzip"}, 200, zip(strings.Repeat("hello ", 2000)), []string{"Content-Encoding: gzip", "Vary: Accept, Accept-Encoding"}},
		{"gzip of a POST", "POST /reply/big", "", []string{"Accept-Encoding: gzip"}, 200, zip(strings.Repeat("hello ", 2000)), []string{"Content-Encoding: gzip"}},
		{"gzip not wanted", "GET /reply/big", "", []string{"Accept-Encoding: gzip;q=0, br"}, 200, strings.Repeat("hello ", 2000), []string{"Content-Encoding: -", "Content-Length: 12000"}},
		{"gzip does not pay", "GET /reply/plain", "", []string{"Accept-Encoding: gzip"}, 200, "hello", []string{"Content-Encoding: -"}},
		{"gzip would be other bytes", "GET /reply/bigstrong", "", []string{"Accept-Encoding: gzip"}, 200, strings.Repeat("hello ", 2000), []string{"Content-Encoding: -", `ETag: "v1"`}},
		{"gzip is forbidden", "GET /reply/bigfinal", "", []string{"Accept-Encoding: gzip"}, 200, strings.Repeat("hello ", 2000), []string{"Content-Encoding: -"}},
		{"gzip of a picture", "GET /reply/bigpng", "", []string{"Accept-Encoding: gzip"}, 200, strings.Repeat("hello ", 2000), []string{"Content-Encoding: -"}},
		{"a request in gzip", "POST /calls/echo", zip("hello"), []string{"Content-Encoding: gzip"}, 200, "hello", nil},
		{"no gzip", "POST /calls/echo", "hello", []string{"Content-Encoding: gzip"}, 400, "invalid_argument", nil},
		{"another coding", "POST /calls/echo", "hello", []string{"Content-Encoding: br"}, 415, "invalid_argument", []string{"Accept-Encoding: gzip"}},
		{"two codings", "POST /calls/echo", "hello", []string{"Content-Encoding: gzip, gzip"}, 415, "invalid_argument", nil},

		{"no text of other errors", "GET /fail/secret", "", nil, 500, "unknown", nil},
		{"503", "GET /fail/wrapped", "", nil, 503, "unavailable", []string{"Retry-After: -"}},
		{"429", "GET /fail/quota", "", nil, 429, "resource_exhausted", []string{"Retry-After: 2"}},
		{"503 with a wait", "GET /fail/busy", "", nil, 503, "unavailable", []string{"Retry-After: 2"}},
		{"401", "GET /fail/login", "", nil, 401, "unauthenticated", []string{"Www-Authenticate: Bearer"}},
		{"401 with a challenge", "GET /fail/digest", "", nil, 401, "unauthenticated", []string{`Www-Authenticate: Basic realm="x"`}},
		{"the route's status for a reason", "GET /fail/reason", "", nil, 409, "failed_precondition OUT_OF_STOCK", nil},
		{"410", "GET /fail/gone", "", nil, 410, "not_found", nil},
		{"403", "GET /fail/permission_denied", "", nil, 403, "permission_denied", nil},
		{"499", "GET /fail/canceled", "", nil, 499, "canceled", nil},
		{"504", "GET /fail/deadline_exceeded", "", nil, 504, "deadline_exceeded", nil},
		{"409", "GET /fail/already_exists", "", nil, 409, "already_exists", nil},
		{"a panic", "GET /panic", "", nil, 500, "internal", nil},
		{"a deadline of gRPC", "GET /wait", "", []string{"Grpc-Timeout: 20m"}, 504, "deadline_exceeded", nil},
		{"a deadline of Connect", "GET /wait", "", []string{"Connect-Timeout-Ms: 20"}, 504, "deadline_exceeded", nil},
		{"a deadline by preference", "GET /wait", "", []string{"Prefer: wait=1"}, 504, "deadline_exceeded", nil},
		{"a malformed deadline", "GET /wait", "", []string{"Grpc-Timeout: soon"}, 400, "invalid_argument", nil},
		{"a key is missing", "POST /keyed", "x", nil, 400, "invalid_argument IDEMPOTENCY_KEY_MISSING", nil},
		{"a key is malformed", "POST /echo", "x", []string{`Idempotency-Key: "a`}, 400, "invalid_argument", nil},
		{"a malformed header", "POST /calls/echo", "x", []string{"Intermodal-Header: !"}, 400, "invalid_argument", nil},

		{"an event", "POST /topics/orders.placed", `{"n":1}`, []string{json}, 202, "", nil},
		{"an event of a route", "POST /orders/7", `{"n":1}`, []string{json}, 202, "", nil},
		{"a batch", "POST /topics/orders.placed", `[{"specversion":"1.0","id":"1","source":"/x","type":"orders.placed"},{"specversion":"1.0","id":"2","source":"/x","type":"orders.placed"}]`,
			[]string{"Content-Type: application/cloudevents-batch+json"}, 202, "", nil},
		{"an empty batch", "POST /topics/orders.placed", `[]`, []string{"Content-Type: application/cloudevents-batch+json"}, 202, "", nil},
		{"a batch that is none", "POST /topics/orders.placed", `{`, []string{"Content-Type: application/cloudevents-batch+json"}, 400, "invalid_argument", nil},
		{"an unknown topic", "POST /topics/none", "x", nil, 404, "not_found", nil},
		{"a delay that cannot be", "POST /topics/orders.placed", "x", []string{"Ce-Intermodalheader: delay=5"}, 501, "unimplemented", nil},
		{"part of a batch", "POST /topics/orders.placed", `[{"specversion":"1.0","id":"1","source":"/x","type":"orders.placed"},{"specversion":"1.0","id":"2","source":"/x","type":"orders.placed","intermodalheader":"delay=1"}]`,
			[]string{"Content-Type: application/cloudevents-batch+json"}, 501, "unimplemented", []string{"Failed: 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := raw(t, addr, request(c.line, c.body, c.fields...))
			require.Equal(t, c.status, r.status, r.body)
			if c.status >= 400 && !strings.HasPrefix(c.line, "HEAD") {
				require.Equal(t, c.want, r.code(t))
				require.NotContains(t, r.body, "hunter2")
			} else if r.header.Get("Content-Encoding") == "gzip" {
				z, err := gzip.NewReader(strings.NewReader(r.body))
				require.NoError(t, err)
				b, err := io.ReadAll(z)
				require.NoError(t, err)
				require.Equal(t, strings.Repeat("hello ", 2000), string(b))
				require.Less(t, len(r.body), 1000)
			} else {
				require.Equal(t, c.want, r.body)
			}
			for _, f := range c.header {
				name, value, _ := strings.Cut(f, ": ")
				if value == "-" {
					require.NotContains(t, r.header, http.CanonicalHeaderKey(name))
				} else {
					require.Equal(t, value, strings.Join(r.header.Values(name), "|"), name)
				}
			}
		})
	}
	close(events)
	var bodies []string
	for m := range events {
		require.Equal(t, "orders.placed", m.Topic)
		bodies = append(bodies, string(m.Body))
	}
	require.Equal(t, []string{`{"n":1}`, `{"n":1,"id":"7"}`, "", "", ""}, bodies)
}

func TestEveryCodeHasItsStatus(t *testing.T) {
	_, addr := start(t, shop(nil), shopOptions())
	for c := transport.Code(1); c <= 16; c++ {
		r := raw(t, addr, request("GET /fail/"+c.String(), ""))
		require.Equal(t, c.String(), r.code(t))
	}
}

func TestHeaderAndPeer(t *testing.T) {
	o := shopOptions()
	o.Authenticate = func(r *http.Request) (transport.Peer, error) {
		switch r.Header.Get("Authorization") {
		case "Bearer good":
			return transport.Peer{ID: "ann"}, nil
		case "Bearer old":
			return transport.Peer{ID: "ann", Expires: time.Now().Add(-time.Second)}, nil
		case "Bearer banned":
			return transport.Peer{}, transport.Errorf(transport.CodePermissionDenied, "go away")
		case "Bearer crash":
			panic("hunter2")
		}
		return transport.Peer{}, errors.New("hunter2")
	}
	_, addr := start(t, shop(nil), o)
	type seen struct {
		ID, Topic, Peer, Protocol string
		Addr                      bool
		Header, Private           transport.Header
	}
	ask := func(fields ...string) (s seen) {
		r := raw(t, addr, request("POST /calls/headers", "x", append(fields, "Authorization: Bearer good")...))
		require.Equal(t, 200, r.status, r.body)
		require.NoError(t, json.Unmarshal([]byte(r.body), &s))
		return s
	}
	s := ask("Intermodal-Id: the%20id%2F%C3%BC", "X-Tenant: acme", "Cookie: a=b", "User-Agent: curl", "If-Match: \"v\"", "Intermodal-Header: ttl=5,a.b=~w7w",
		"Connection: X-Hop", "X-Hop: 1", "Traceparent: 00-x", "Idempotency-Key: \"k\";p")
	require.Equal(t, seen{ID: "the id/ü", Topic: "headers", Peer: "ann", Protocol: "rest", Addr: true,
		Header:  transport.Header{"x-tenant": {"acme"}, "if-match": {`"v"`}, "ttl": {"5"}, "a.b": {"ü"}, "traceparent": {"00-x"}, "idempotency-key": {"k"}},
		Private: transport.Header{"authorization": {"Bearer good"}, "cookie": {"a=b"}, "user-agent": {"curl"}, "connection": {"X-Hop"}, "x-hop": {"1"}, "content-length": {"1"}}}, s)
	require.Empty(t, ask("Intermodal-Id: %zz").ID)

	for token, status := range map[string]int{"none": 401, "old": 401, "banned": 403, "crash": 500} {
		r := raw(t, addr, request("GET /headers", "", "Authorization: Bearer "+token))
		require.Equal(t, status, r.status, token)
		require.NotContains(t, r.body, "hunter2")
		require.Equal(t, status == 401, r.header.Get("WWW-Authenticate") == "Bearer")
	}
	require.Equal(t, 401, raw(t, addr, request("GET /nothing", "")).status, "strangers do not learn what there is")
	require.Equal(t, 204, raw(t, addr, request("OPTIONS /headers", "")).status, "a preflight has no credentials")
}

func TestEventHeaders(t *testing.T) {
	events := make(chan *transport.Message, 1)
	_, addr := start(t, shop(events), shopOptions())
	require.Equal(t, 202, raw(t, addr, request("POST /topics/orders.placed", "x", "Ce-Id: 17", "Ce-Specversion: 1.0", "Ce-Source: /x", "Ce-Type: orders.placed",
		"X-Tenant: acme", "X-Other: no", "Accept: */*", "Authorization: secret", "Ce-Intermodalheader: priority=3", "Content-Type: text/plain")).status)
	m := <-events
	require.Equal(t, "17", m.ID)
	require.Equal(t, transport.Header{"content-type": {"text/plain"}, "x-tenant": {"acme"}, "priority": {"3"}, "ce-source": {"/x"}}, m.Header)
}

func TestRoutesOnly(t *testing.T) {
	o := shopOptions()
	o.RoutesOnly, o.NoAsync = true, true
	_, addr := start(t, shop(nil), o)
	require.Equal(t, 404, raw(t, addr, request("POST /calls/echo", "x")).status)
	require.Equal(t, 404, raw(t, addr, request("POST /topics/orders.placed", "x")).status)
	require.Equal(t, 404, raw(t, addr, request("GET /async/x", "")).status)
	r := raw(t, addr, request("POST /echo", "x", "Prefer: respond-async"))
	require.Equal(t, 200, r.status)
	require.Empty(t, r.header.Get("Preference-Applied"))
}

func TestCORS(t *testing.T) {
	o := shopOptions()
	o.CORS = &rest.CORS{Origins: []string{"https://app.example.com"}, Credentials: true}
	o.Authenticate = func(*http.Request) (transport.Peer, error) { return transport.Peer{}, transport.CodeUnauthenticated }
	_, addr := start(t, shop(nil), o)
	const ours, theirs = "Origin: https://app.example.com", "Origin: https://evil.example.com"
	r := raw(t, addr, request("OPTIONS /users/7", "", ours, "Access-Control-Request-Method: PUT"))
	require.Equal(t, 204, r.status)
	require.Equal(t, "https://app.example.com", r.header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, "true", r.header.Get("Access-Control-Allow-Credentials"))
	require.Equal(t, "GET, HEAD, OPTIONS, PUT", r.header.Get("Access-Control-Allow-Methods"))
	require.Contains(t, r.header.Get("Access-Control-Allow-Headers"), "If-Match")
	require.Equal(t, "600", r.header.Get("Access-Control-Max-Age"))
	require.Equal(t, "Origin", r.header.Get("Vary"))
	r = raw(t, addr, request("OPTIONS /users/7", "", theirs, "Access-Control-Request-Method: PUT"))
	require.Empty(t, r.header.Get("Access-Control-Allow-Origin"))
	require.Empty(t, r.header.Get("Access-Control-Allow-Methods"))
	r = raw(t, addr, request("GET /users/7", "", ours))
	require.Equal(t, 401, r.status)
	require.Equal(t, "https://app.example.com", r.header.Get("Access-Control-Allow-Origin"), "a page may read errors")
	require.Contains(t, r.header.Get("Access-Control-Expose-Headers"), "ETag")

	o = shopOptions()
	o.CORS = &rest.CORS{Origins: []string{"*"}, Headers: []string{"X-A"}, Expose: []string{"X-B"}, MaxAge: time.Minute}
	_, addr = start(t, shop(nil), o)
	r = raw(t, addr, request("GET /reply/strong", "", theirs))
	require.Equal(t, "*", r.header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, "X-B", r.header.Get("Access-Control-Expose-Headers"))
	r = raw(t, addr, request("GET /reply/strong", "", theirs, `If-None-Match: "v1"`))
	require.Equal(t, 304, r.status)
	require.Equal(t, "*", r.header.Get("Access-Control-Allow-Origin"))

	o = shopOptions()
	o.CORS = &rest.CORS{Origins: []string{"https://a"}}
	_, addr = start(t, shop(nil), o)
	r = raw(t, addr, request("GET /reply/strong", "", theirs))
	require.Equal(t, []string{"X-Who", "Origin", "Accept, Accept-Encoding"}, r.header["Vary"], "also where the reply has one")
	require.Equal(t, []string{"X-Who", "Origin"}, raw(t, addr, request("GET /fail/vary", "")).header["Vary"])
}

func TestNewServerRefuses(t *testing.T) {
	mux := transport.Mux{}
	for want, o := range map[string]*rest.Options{
		"cannot be in a message's header":   {Headers: []string{"Authorization"}},
		"cannot be in a message's header ":  {Headers: []string{"a b"}},
		`with credentials cannot allow`:     {CORS: &rest.CORS{Origins: []string{"*"}, Credentials: true}},
		`CORS without origins`:              {CORS: &rest.CORS{}},
		`CORS cannot use`:                   {CORS: &rest.CORS{Origins: []string{"a,b"}}},
		`the route "GET users"`:             {Routes: []rest.Route{{Topic: "t", Pattern: "GET users"}}},
		`in the place of "GET /async/{id}"`: {Routes: []rest.Route{{Topic: "t", Pattern: "GET /async/{x}"}}},
	} {
		_, err := rest.NewServer(mux, o)
		require.ErrorIs(t, err, transport.CodeInvalidArgument, want)
		require.ErrorContains(t, err, strings.TrimSpace(want))
	}
	_, err := rest.NewServer(nil, nil)
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	_, err = rest.NewServer(mux, nil)
	require.NoError(t, err)
}

// sick is a backend that is not well.
type sick struct{ transport.Mux }

func (sick) Health(context.Context) error { return transport.CodeUnavailable }

func TestHealth(t *testing.T) {
	s, err := rest.NewServer(transport.Mux{}, nil)
	require.NoError(t, err)
	require.NoError(t, s.Health(t.Context()))
	require.NoError(t, s.Shutdown(t.Context()))
	require.ErrorIs(t, s.Health(t.Context()), transport.CodeUnavailable)
	require.NoError(t, s.Shutdown(t.Context()), "twice is safe")
	s, err = rest.NewServer(sick{}, nil)
	require.NoError(t, err)
	require.ErrorIs(t, s.Health(t.Context()), transport.CodeUnavailable)
}

func TestOnError(t *testing.T) {
	type told struct {
		topic string
		err   error
	}
	ch := make(chan told, 10)
	o := shopOptions()
	o.OnError = func(m *transport.Message, err error) { ch <- told{m.Topic, err} }
	_, addr := start(t, shop(nil), o)
	raw(t, addr, request("GET /fail/secret", ""))
	got := <-ch
	require.Equal(t, "fail", got.topic)
	require.ErrorContains(t, got.err, "hunter2", "private causes stay in the process")
	raw(t, addr, request("GET /panic", ""))
	require.ErrorIs(t, (<-ch).err, transport.ErrPanic)
	raw(t, addr, request("GET /fail/not_found", ""))
	require.Empty(t, ch)
}

func TestShutdownDrains(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s, addr := start(t, transport.Mux{"slow": func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
		close(entered)
		<-release
		return &transport.Message{Body: []byte("done")}, nil
	}}, nil)
	first := make(chan reply, 1)
	go func() { first <- raw(t, addr, request("POST /calls/slow", "x")) }()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	require.ErrorIs(t, s.Shutdown(ctx), context.DeadlineExceeded)
	cancel()
	r := raw(t, addr, request("POST /calls/slow", "x"))
	require.Equal(t, 503, r.status)
	require.Equal(t, "unavailable NOT_SENT", r.code(t))
	require.True(t, r.close)
	require.Equal(t, "1", r.header.Get("Retry-After"))
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	close(release)
	require.NoError(t, <-done)
	require.Equal(t, "done", (<-first).body)
}

func TestCallsAreBounded(t *testing.T) {
	entered, release := make(chan struct{}, 1), make(chan struct{})
	_, addr := start(t, transport.Mux{"slow": func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
		entered <- struct{}{}
		<-release
		return nil, nil
	}}, &rest.Options{Calls: 1})
	first := make(chan reply, 1)
	go func() { first <- raw(t, addr, request("POST /calls/slow", "x")) }()
	<-entered
	r := raw(t, addr, request("POST /calls/slow", "x"))
	require.Equal(t, 503, r.status)
	require.Equal(t, "1", r.header.Get("Retry-After"))
	require.False(t, r.close)
	close(release)
	require.Equal(t, 204, (<-first).status)
	require.Equal(t, 204, raw(t, addr, request("POST /calls/slow", "x")).status)
}

func TestClientThatLeavesCancels(t *testing.T) {
	entered, left := make(chan struct{}), make(chan error, 1)
	_, addr := start(t, transport.Mux{"wait": func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
		close(entered)
		<-ctx.Done()
		left <- ctx.Err()
		return nil, ctx.Err()
	}}, nil)
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	io.WriteString(c, strings.ReplaceAll(request("POST /calls/wait", "x"), "\n", "\r\n"))
	<-entered
	c.Close()
	require.ErrorIs(t, <-left, context.Canceled)
}

func TestTimeoutsOfTheServer(t *testing.T) {
	o := shopOptions()
	o.Timeout, o.MaxTimeout = 20*time.Millisecond, 50*time.Millisecond
	_, addr := start(t, shop(nil), o)
	require.Equal(t, 504, raw(t, addr, request("GET /wait", "")).status)
	require.Equal(t, 504, raw(t, addr, request("GET /wait", "", "Grpc-Timeout: 1H")).status)
}

func TestOpenAPIIsServed(t *testing.T) {
	o := shopOptions()
	o.Info = &rest.Info{Title: "Shop", Version: "3"}
	_, addr := start(t, shop(nil), o)
	r := raw(t, addr, request("GET /openapi.json", ""))
	require.Equal(t, 200, r.status)
	require.Contains(t, r.body, `"/users/{id}"`)
	require.Equal(t, 304, raw(t, addr, request("GET /openapi.json", "", "If-None-Match: "+r.header.Get("ETag"))).status)
	_, addr = start(t, shop(nil), shopOptions())
	require.Equal(t, 404, raw(t, addr, request("GET /openapi.json", "")).status)
}
