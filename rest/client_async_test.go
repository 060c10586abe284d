package rest_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

func deferred(topic, body string) *transport.Message {
	m := message(topic, body)
	m.Header = transport.Header{"prefer": {"respond-async"}, "accept": {"text/x"}}
	return m
}

func TestClientAwaitsResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		polls := 0
		c := newClient(t, "http://h/api", &rest.ClientOptions{Transport: trip(func(r *http.Request) (*http.Response, error) {
			asked = append(asked, r.Method+" "+r.URL.Path)
			if r.Method == "POST" {
				return answer(202, "", "Location: ../jobs/7"), nil
			}
			require.Equal(t, "text/x", r.Header.Get("Accept"))
			if r.URL.Path == "/api/result" {
				return answer(201, "result", "Location: /things/1"), nil
			}
			switch polls++; polls {
			case 1: // held as long as the client asked for
				require.Equal(t, "wait=29", r.Header.Get("Prefer")) // of 30 s, less a little
				time.Sleep(3 * time.Second)
				return answer(202, "", "Retry-After: 1"), nil
			case 2: // not held
				return answer(202, "", "Retry-After: 5"), nil
			default:
				return answer(303, "", "Location: /api/result"), nil
			}
		})})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second-time.Nanosecond)
		defer cancel()
		start := time.Now()
		r, err := c.Call(ctx, deferred("slow", ""))
		require.NoError(t, err)
		require.Equal(t, "result", string(r.Body))
		require.Equal(t, transport.Header{"status": {"201"}, "location": {"/things/1"}}, r.Header)
		require.Equal(t, 8*time.Second, time.Since(start))
		require.Equal(t, []string{"POST /api/calls/slow", "GET /api/jobs/7", "GET /api/jobs/7", "GET /api/jobs/7", "GET /api/result"}, asked)
	})
}

func TestClientAbandonsResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deleted := ""
		c := newClient(t, "http://h", &rest.ClientOptions{Transport: trip(func(r *http.Request) (*http.Response, error) {
			switch r.Method {
			case "POST":
				return answer(202, "", "Location: /jobs/7"), nil
			case "DELETE":
				deleted = r.URL.Path
				return answer(204, ""), nil
			}
			<-r.Context().Done()
			return nil, r.Context().Err()
		})})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		_, err := c.Call(ctx, deferred("slow", ""))
		require.Equal(t, context.DeadlineExceeded, err)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.NoError(t, c.Shutdown(t.Context()))
		require.Equal(t, "/jobs/7", deleted)
	})
}

func TestClientResultElsewhere(t *testing.T) {
	for _, location := range []string{"http://example.com/jobs/7", "//example.com/", "https://h/jobs", "http://h:81/", "://"} {
		c := newClient(t, "http://h", &rest.ClientOptions{Transport: trip(func(r *http.Request) (*http.Response, error) {
			require.Equal(t, "POST", r.Method)
			return answer(202, "", "Location: "+location), nil
		})})
		_, err := c.Call(t.Context(), deferred("slow", ""))
		require.Equal(t, transport.ReasonOutcomeUnknown, asError(t, err).Reason, location)
		r, err := c.Call(t.Context(), message("slow", ""))
		require.NoError(t, err, "who has not asked for it gets the 202")
		require.Equal(t, transport.Header{"status": {"202"}, "location": {location}}, r.Header)
	}
}

// connect returns a client of a server over a bus.
func connect(t testing.TB, so *rest.Options, co *rest.ClientOptions) (*rest.Client, *mem.Bus) {
	t.Helper()
	bus := mem.New(nil)
	server, err := rest.NewServer(bus, so)
	require.NoError(t, err)
	web := httptest.NewServer(server)
	c := newClient(t, web.URL, co)
	t.Cleanup(func() {
		c.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		server.Shutdown(ctx)
		web.Close()
		bus.Close()
	})
	return c, bus
}

func respond(t testing.TB, bus *mem.Bus, topic string, h transport.Handler) {
	t.Helper()
	s, err := bus.Respond(t.Context(), topic)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { transport.Serve(ctx, s, h, transport.Workers(4)) })
	t.Cleanup(func() { cancel(); wg.Wait() })
}

func TestClientAsyncWithServer(t *testing.T) {
	var giveUp atomic.Pointer[context.CancelFunc] // called when the client asks for a result
	entered, ended := make(chan bool), make(chan error, 1)
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	c, bus := connect(t, nil, &rest.ClientOptions{Transport: trip(func(r *http.Request) (*http.Response, error) {
		if cancel := giveUp.Load(); cancel != nil && r.Method == http.MethodGet {
			<-entered
			(*cancel)()
		}
		return tr.RoundTrip(r)
	})})
	respond(t, bus, "slow", func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
		switch string(m.Body) {
		case "fail":
			return nil, transport.Errorf(transport.CodeAlreadyExists, "there is one")
		case "forever":
			close(entered)
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		}
		return &transport.Message{Header: transport.Header{"k": {"v"}, "status": {"201"}}, Body: []byte("done")}, nil
	})
	r, err := c.Call(t.Context(), deferred("slow", ""))
	require.NoError(t, err)
	require.Equal(t, "done", string(r.Body))
	require.Equal(t, "v", r.Header.Get("k"))
	require.Equal(t, "201", r.Header.Get("status"))
	_, err = c.Call(t.Context(), deferred("slow", "fail"))
	require.ErrorIs(t, err, transport.CodeAlreadyExists)
	require.Equal(t, "there is one", asError(t, err).Message)
	ctx, cancel := context.WithCancel(t.Context())
	giveUp.Store(&cancel)
	_, err = c.Call(ctx, deferred("slow", "forever"))
	require.Equal(t, context.Canceled, err)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the job goes on though nobody waits for it")
	}
}
