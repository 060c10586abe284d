package rest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
)

var resendRoutes = []rest.Route{
	{Topic: "get", Pattern: "GET /x"}, {Topic: "put", Pattern: "PUT /x"}, {Topic: "delete", Pattern: "DELETE /x"},
	{Topic: "patch", Pattern: "PATCH /x"}, {Topic: "post", Pattern: "POST /x"}, {Topic: "search", Pattern: "POST /search", Idempotent: true},
}

var (
	errRefused = &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	keyed      = transport.Header{"idempotency-key": {"k"}}
)

func TestClientResends(t *testing.T) {
	status := func(code int, fields ...string) func() (*http.Response, error) {
		return func() (*http.Response, error) { return answer(code, "", fields...), nil }
	}
	fail := func(err error) func() (*http.Response, error) {
		return func() (*http.Response, error) { return nil, err }
	}
	notSent := func() (*http.Response, error) {
		return answer(503, `{"code":"unavailable","reason":"NOT_SENT"}`, "Content-Type: application/problem+json"), nil
	}
	for name, tc := range map[string]struct {
		topic  string
		header transport.Header
		first  func() (*http.Response, error)
		sent   int
	}{
		"GET refused":          {"get", nil, fail(errRefused), 3},
		"GET broken":           {"get", nil, fail(io.ErrUnexpectedEOF), 3},
		"GET 408":              {"get", nil, status(408), 3},
		"GET 425":              {"get", nil, status(425), 3},
		"GET 429":              {"get", nil, status(429), 3},
		"GET 502":              {"get", nil, status(502), 3},
		"GET 503":              {"get", nil, status(503), 3},
		"GET 504":              {"get", nil, status(504), 3},
		"GET 500":              {"get", nil, status(500), 1},
		"GET 404":              {"get", nil, status(404), 1},
		"GET 302":              {"get", nil, status(302), 1},
		"GET bad encoding":     {"get", nil, status(200, "Content-Encoding: br"), 1},
		"PUT broken":           {"put", nil, fail(io.EOF), 3},
		"DELETE broken":        {"delete", nil, fail(io.EOF), 3},
		"PATCH broken":         {"patch", nil, fail(io.EOF), 1},
		"POST broken":          {"post", nil, fail(io.EOF), 1},
		"POST refused":         {"post", nil, fail(errRefused), 3},
		"POST 503":             {"post", nil, status(503), 1},
		"POST 503 not sent":    {"post", nil, notSent, 3},
		"POST 503 with a key":  {"post", keyed, status(503), 3},
		"POST with a key":      {"post", keyed, fail(io.EOF), 3},
		"POST that may repeat": {"search", nil, fail(io.EOF), 3},
		"call broken":          {"other", nil, fail(io.EOF), 1},
		"call refused":         {"other", nil, fail(errRefused), 3},
		"call with a key":      {"other", keyed, status(503), 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sent := 0
				var bodies []string
				c := newClient(t, "http://h", &rest.ClientOptions{Routes: resendRoutes, Transport: trip(func(r *http.Request) (*http.Response, error) {
					if sent++; r.Body != nil {
						b, _ := io.ReadAll(r.Body)
						bodies = append(bodies, string(b))
						again, err := r.GetBody()
						require.NoError(t, err)
						b, _ = io.ReadAll(again)
						require.Equal(t, bodies[0], string(b))
					}
					return tc.first()
				})})
				start := time.Now()
				_, err := c.Call(t.Context(), &transport.Message{Topic: tc.topic, Header: tc.header, Body: []byte(`{}`)})
				require.Error(t, err)
				require.Equal(t, tc.sent, sent)
				for _, b := range bodies {
					require.Equal(t, "{}", b)
				}
				if waited := time.Since(start); sent > 1 {
					require.GreaterOrEqual(t, waited, 150*time.Millisecond)
					require.LessOrEqual(t, waited, 300*time.Millisecond)
				} else {
					require.Zero(t, waited)
				}
			})
		})
	}
}

func TestClientResendsUntilItWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		c := newClient(t, "http://h", &rest.ClientOptions{Routes: resendRoutes, Transport: trip(func(*http.Request) (*http.Response, error) {
			if n++; n < 3 {
				return answer(503, ""), nil
			}
			return answer(200, "done"), nil
		})})
		r, err := c.Call(t.Context(), message("get", ""))
		require.NoError(t, err)
		require.Equal(t, "done", string(r.Body))
		n = 0
		require.ErrorIs(t, c.Publish(t.Context(), message("t", "")), transport.CodeUnavailable, "an event without a key is not sent again")
		n = 0
		require.NoError(t, c.Publish(t.Context(), &transport.Message{Topic: "t", Header: keyed}))
	})
}

// The answer to the first attempt is lost while the server still works on it.
func TestClientKeyInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		c := newClient(t, "http://h", &rest.ClientOptions{Transport: trip(func(*http.Request) (*http.Response, error) {
			switch n++; n {
			case 1:
				return nil, io.ErrUnexpectedEOF
			case 2, 4:
				return answer(409, `{"code":"aborted","reason":"IDEMPOTENCY_KEY_IN_USE"}`, "Content-Type: application/problem+json"), nil
			}
			return answer(200, "done"), nil
		})})
		m := &transport.Message{Topic: "t", Header: keyed}
		r, err := c.Call(t.Context(), m)
		require.NoError(t, err)
		require.Equal(t, "done", string(r.Body))
		_, err = c.Call(t.Context(), m)
		require.ErrorIs(t, err, transport.CodeAborted, "here it is somebody else's")
	})
}

func TestClientRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		c := newClient(t, "http://h", &rest.ClientOptions{Routes: resendRoutes, Transport: trip(func(r *http.Request) (*http.Response, error) {
			if n++; n%2 == 1 {
				return answer(429, "", "Retry-After: 20"), nil
			}
			return answer(200, ""), nil
		})})
		start := time.Now()
		_, err := c.Call(t.Context(), message("get", "")) // within the default of 30 s
		require.NoError(t, err)
		require.Equal(t, 20*time.Second, time.Since(start))

		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		start = time.Now()
		_, err = c.Call(ctx, message("get", ""))
		require.Zero(t, time.Since(start), "there is no point in waiting until ctx ends")
		require.Equal(t, 20*time.Second, asError(t, err).RetryAfter)

		n = 0
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err = c.Call(ctx, message("get", ""))
		require.Equal(t, context.Canceled, err)
	})
}

func TestClientRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent, status := 0, 503
		c := newClient(t, "http://h", &rest.ClientOptions{Routes: resendRoutes, RetryBudget: 3, Transport: trip(func(*http.Request) (*http.Response, error) {
			sent++
			return answer(status, ""), nil
		})})
		for range 10 {
			_, err := c.Call(t.Context(), message("get", ""))
			require.Error(t, err)
		}
		require.Equal(t, 10+3, sent)
		status = 200
		for range 11 { // each gives a tenth back
			_, err := c.Call(t.Context(), message("get", ""))
			require.NoError(t, err)
		}
		sent, status = 0, 503
		for range 3 {
			c.Call(t.Context(), message("get", ""))
		}
		require.Equal(t, 3+1, sent)
	})
}

func TestClientDeadlineField(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for field, want := range map[string]http.Header{
			"":               {"Connect-Timeout-Ms": {"1500"}},
			"x-milliseconds": {"X-Milliseconds": {"1500"}},
			"-":              {},
		} {
			var got http.Header
			c := newClient(t, "http://h", &rest.ClientOptions{DeadlineField: field, Transport: trip(func(r *http.Request) (*http.Response, error) {
				got = r.Header.Clone()
				return answer(204, ""), nil
			})})
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond-time.Nanosecond)
			_, err := c.Call(ctx, message("t", ""))
			cancel()
			require.NoError(t, err)
			for _, name := range []string{"Accept-Encoding", "Intermodal-Id", "Content-Type"} {
				got.Del(name)
			}
			require.Equal(t, want, got)
		}
	})
}
