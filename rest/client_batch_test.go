package rest_test

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

func TestClientPublishAll(t *testing.T) {
	var requests []string
	c := serve(t, &rest.ClientOptions{Routes: []rest.Route{{Topic: "routed", Pattern: "POST /routed", Event: true}}},
		func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			ms, err := wire.ReadEvents(r.Header, body, nil)
			require.NoError(t, err)
			bodies := make([]string, len(ms))
			for i, m := range ms {
				if bodies[i] = string(m.Body); len(bodies[i]) > 100 {
					bodies[i] = "large"
				}
			}
			requests = append(requests, r.URL.Path+" "+strings.Join(bodies, ","))
			w.WriteHeader(204)
		})
	var ms []*transport.Message
	for _, s := range []string{"a 1", "a 2", "b 3", "routed 4", "routed 5", "a 6", "a 7 key", "a 8", "a " + strings.Repeat("x", 100<<10), "a 9", "a 10", "a..b 11", "a 12"} {
		f := strings.Fields(s)
		m := message(f[0], f[1])
		if len(f) > 2 {
			m.Header = transport.Header{"idempotency-key": {f[2]}}
		}
		ms = append(ms, m)
	}
	ms = append(ms, nil)
	errs := c.PublishAll(t.Context(), ms...)
	require.Len(t, errs, len(ms))
	for i, err := range errs {
		require.Equal(t, i == 11 || i == 13, err != nil, i)
	}
	require.Equal(t, []string{"/topics/a 1,2", "/topics/b 3", "/routed 4", "/routed 5", "/topics/a 6", "/topics/a 7", "/topics/a 8",
		"/topics/a large", "/topics/a 9,10", "/topics/a 12"}, requests)

	requests, ms = nil, nil
	for i := range 1200 {
		ms = append(ms, message("a", strconv.Itoa(i)))
	}
	require.Equal(t, make([]error, len(ms)), c.PublishAll(t.Context(), ms...))
	require.Len(t, requests, 3)
	require.Empty(t, c.PublishAll(t.Context()))
}

// flaky accepts only events with an even number.
type flaky struct {
	transport.Mux
	mu    sync.Mutex
	taken []string
}

func (f *flaky) Publish(_ context.Context, m *transport.Message) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if (m.Body[0]-'0')%2 == 1 {
		return &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent, Message: "odd"}
	}
	f.taken = append(f.taken, string(m.Body))
	return nil
}

func TestClientPublishAllPartly(t *testing.T) {
	f := &flaky{}
	server, err := rest.NewServer(f, nil)
	require.NoError(t, err)
	c := serve(t, nil, server.ServeHTTP)
	var ms []*transport.Message
	for i := range 5 {
		ms = append(ms, message("a", strconv.Itoa(i)))
	}
	errs := c.PublishAll(t.Context(), ms...)
	for i, err := range errs {
		if i%2 == 0 {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, transport.CodeUnavailable)
		}
	}
	require.Equal(t, []string{"0", "2", "4"}, f.taken, "what was accepted is not sent again")

	status := 0
	c = serve(t, nil, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
	for status = range map[int]bool{400: true, 500: true} {
		for _, err := range c.PublishAll(t.Context(), ms...) {
			require.Equal(t, wire.CodeFromHTTP(status), transport.CodeOf(err))
		}
	}
}

func TestClientPeer(t *testing.T) {
	peers := make(chan transport.Peer, 1)
	server, err := rest.NewServer(transport.Mux{"t": func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
		p, _ := transport.PeerFrom(ctx)
		peers <- p
		return nil, nil
	}}, nil)
	require.NoError(t, err)
	c := serve(t, &rest.ClientOptions{Authorize: func(r *http.Request) error {
		r.Header.Set("Authorization", "Bearer x")
		return nil
	}}, server.ServeHTTP)
	_, err = c.Call(t.Context(), message("t", ""))
	require.NoError(t, err)
	p := <-peers
	require.Equal(t, "Bearer x", p.Header.Get("authorization"))
	require.Equal(t, "rest", p.Protocol)
	require.NoError(t, c.Health(t.Context()))
}
