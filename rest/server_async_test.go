package rest_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"net/http"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
)

// gate is a backend whose calls wait until they are let go.
type gate struct {
	entered chan *transport.Message
	release chan struct{}
	ended   chan error
	runs    atomic.Int32
}

func newGate() *gate {
	return &gate{entered: make(chan *transport.Message, 100), release: make(chan struct{}), ended: make(chan error, 100)}
}

func (g *gate) mux() transport.Mux {
	return transport.Mux{
		"work": func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			g.runs.Add(1)
			g.entered <- m
			select {
			case <-g.release:
			case <-ctx.Done():
				g.ended <- ctx.Err()
				return nil, ctx.Err()
			}
			g.ended <- nil
			switch string(m.Body) {
			case "fail":
				return nil, &transport.Error{Code: transport.CodeFailedPrecondition, Reason: "NO", Message: "no", Cause: errors.New("hunter2")}
			case "busy":
				return nil, transport.Errorf(transport.CodeUnavailable, "busy")
			case "panic":
				panic("hunter2")
			case "nothing":
				return nil, nil
			}
			return &transport.Message{Header: transport.Header{"content-type": {"text/plain"}, "location": {"/users/7"}, "x-more": {"1"}}, Body: m.Body}, nil
		},
		"quick": func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			g.runs.Add(1)
			p, _ := transport.PeerFrom(ctx)
			return &transport.Message{Body: []byte(p.ID + string(m.Body))}, nil
		},
	}
}

func byHeader(r *http.Request) (transport.Peer, error) {
	return transport.Peer{ID: r.Header.Get("Authorization")}, nil
}

func TestAsync(t *testing.T) {
	g := newGate()
	s, addr := start(t, g.mux(), &rest.Options{Authenticate: byHeader, OnError: func(*transport.Message, error) {}})
	const ann, bob = "Authorization: ann", "Authorization: bob"
	begin := func(body string) string {
		r := raw(t, addr, request("POST /calls/work", body, "Prefer: respond-async", ann))
		require.Equal(t, 202, r.status, r.body)
		require.Empty(t, r.body)
		require.Equal(t, "respond-async", r.header.Get("Preference-Applied"))
		require.Equal(t, "1", r.header.Get("Retry-After"))
		at := r.header.Get("Location")
		require.True(t, strings.HasPrefix(at, "/async/"), at)
		<-g.entered
		return at
	}
	ok, failing, panicking, empty := begin("ok"), begin("fail"), begin("panic"), begin("nothing")

	r := raw(t, addr, request("GET "+ok, "", ann))
	require.Equal(t, 202, r.status)
	require.Equal(t, `{"status":"running"}`, r.body)
	require.Equal(t, "no-store", r.header.Get("Cache-Control"))
	require.Equal(t, 404, raw(t, addr, request("GET "+ok, "", bob)).status, "another's")
	require.Equal(t, 404, raw(t, addr, request("DELETE "+ok, "", bob)).status)
	require.Equal(t, "not_found NO_SUCH_JOB", raw(t, addr, request("GET "+ok+"/result", "", ann)).code(t))

	waiting := make(chan reply, 1)
	go func() { waiting <- raw(t, addr, request("GET "+ok, "", ann, "Prefer: wait=20")) }()
	require.Equal(t, 202, raw(t, addr, request("GET "+ok, "", ann, "Prefer: wait=1")).status)
	close(g.release)
	r = <-waiting
	require.Equal(t, 303, r.status)
	require.Equal(t, ok+"/result", r.header.Get("Location"))
	require.Equal(t, "wait=20", r.header.Get("Preference-Applied"))

	for range 2 {
		r = raw(t, addr, request("GET "+ok+"/result", "", ann))
		require.Equal(t, 201, r.status, "what the call would have been answered with")
		require.Equal(t, "ok", r.body)
		require.Equal(t, "/users/7", r.header.Get("Location"))
		require.Equal(t, "1", r.header.Get("X-More"))
	}
	require.Equal(t, 404, raw(t, addr, request("GET "+ok+"/result", "", bob)).status)
	for at, want := range map[string]string{failing: "failed_precondition NO", panicking: "internal"} {
		require.Equal(t, 303, raw(t, addr, request("GET "+at, "", ann, "Prefer: wait=20")).status)
		r = raw(t, addr, request("GET "+at+"/result", "", ann))
		require.Equal(t, want, r.code(t))
		require.NotContains(t, r.body, "hunter2")
	}
	require.Equal(t, 303, raw(t, addr, request("GET "+empty, "", ann, "Prefer: wait=20")).status)
	require.Equal(t, 204, raw(t, addr, request("GET "+empty+"/result", "", ann)).status)

	require.Equal(t, 204, raw(t, addr, request("DELETE "+ok, "", ann)).status)
	require.Equal(t, 404, raw(t, addr, request("DELETE "+ok, "", ann)).status)
	require.Equal(t, 404, raw(t, addr, request("GET "+ok, "", ann)).status)
	require.Equal(t, 404, raw(t, addr, request("GET /async/nonsense", "", ann)).status)
	require.Equal(t, 410, raw(t, addr, request("GET /async/AABlU_EAabcdefghijklmnopqrstuv"[:len("GET /async/")+30], "", ann)).status, "from 2023")
	require.Equal(t, []string{"GET, HEAD, OPTIONS"}, raw(t, addr, request("OPTIONS "+ok+"/result", "")).header["Allow"])
	require.NoError(t, s.Shutdown(t.Context()))
}

func TestAsyncWithinTheWait(t *testing.T) {
	g := newGate()
	s, addr := start(t, g.mux(), nil)
	r := raw(t, addr, request("POST /calls/quick", "x", "Prefer: respond-async, wait=20"))
	require.Equal(t, 200, r.status)
	require.Equal(t, "x", r.body)
	require.Equal(t, "wait=20", r.header.Get("Preference-Applied"))
	r = raw(t, addr, request("POST /calls/work", "x", "Prefer: respond-async, wait=1"))
	require.Equal(t, 202, r.status)
	close(g.release)
	require.NoError(t, s.Shutdown(t.Context()), "it waits for the job")
	require.NoError(t, <-g.ended)
}

func TestAsyncIsCancelled(t *testing.T) {
	g := newGate()
	_, addr := start(t, g.mux(), &rest.Options{Jobs: 1})
	at := raw(t, addr, request("POST /calls/work", "x", "Prefer: respond-async")).header.Get("Location")
	<-g.entered
	r := raw(t, addr, request("POST /calls/work", "x", "Prefer: respond-async"))
	require.Equal(t, 503, r.status, "the jobs are bounded")
	require.Equal(t, "1", r.header.Get("Retry-After"))
	require.Equal(t, 204, raw(t, addr, request("DELETE "+at, "")).status)
	require.ErrorIs(t, <-g.ended, context.Canceled)
	require.Equal(t, 404, raw(t, addr, request("GET "+at, "")).status)
	require.Eventually(t, func() bool {
		return raw(t, addr, request("POST /calls/quick", "x", "Prefer: respond-async, wait=10")).status == 200
	}, 10*time.Second, time.Millisecond)
}

func TestAsyncEndsByItself(t *testing.T) {
	g := newGate()
	_, addr := start(t, g.mux(), &rest.Options{JobTimeout: 10 * time.Millisecond, OnError: func(*transport.Message, error) {}})
	at := raw(t, addr, request("POST /calls/work", "x", "Prefer: respond-async")).header.Get("Location")
	require.Equal(t, 303, raw(t, addr, request("GET "+at, "", "Prefer: wait=10")).status)
	require.Equal(t, "deadline_exceeded", raw(t, addr, request("GET "+at+"/result", "")).code(t))
}

func TestAsyncShutdownThatIsCutShort(t *testing.T) {
	g := newGate()
	s, addr := start(t, g.mux(), nil)
	at := raw(t, addr, request("POST /calls/work", "x", "Prefer: respond-async")).header.Get("Location")
	<-g.entered
	waiting := make(chan reply, 1)
	go func() { waiting <- raw(t, addr, request("GET "+at, "", "Prefer: wait=300")) }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.Shutdown(ctx), context.DeadlineExceeded)
	require.ErrorIs(t, <-g.ended, context.Canceled)
	require.Contains(t, []int{202, 303, 503}, (<-waiting).status, "who waits is not held")
	require.NoError(t, s.Shutdown(t.Context()))
}

func TestAsyncBehindAPrefix(t *testing.T) {
	g := newGate()
	close(g.release)
	s, err := rest.NewServer(g.mux(), nil)
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/api/", http.StripPrefix("/api", s))
	addr := listen(t, &http.Server{Handler: mux})
	for _, target := range []string{"/api/calls/work", "http://x/api/calls/work?q=1"} {
		r := raw(t, addr, request("POST "+target, "x", "Prefer: respond-async"))
		at := r.header.Get("Location")
		require.True(t, strings.HasPrefix(at, "/api/async/"), at)
		require.Equal(t, "/api/async/", raw(t, addr, request("GET "+at, "", "Prefer: wait=10")).header.Get("Location")[:11])
	}
	require.NoError(t, s.Shutdown(t.Context()))
}

// brokenStore is one that fails.
type brokenStore struct {
	rest.Store
	mu   sync.Mutex
	fail map[string]bool
}

func (s *brokenStore) failing(op string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail[op] {
		return errors.New("hunter2")
	}
	return nil
}

func (s *brokenStore) Add(ctx context.Context, key string, r *rest.Record, ttl time.Duration) (*rest.Record, error) {
	if err := s.failing("add"); err != nil {
		return nil, err
	}
	return s.Store.Add(ctx, key, r, ttl)
}

func (s *brokenStore) Set(ctx context.Context, key string, r *rest.Record, ttl time.Duration) error {
	if err := s.failing("set"); err != nil {
		return err
	}
	return s.Store.Set(ctx, key, r, ttl)
}

func TestStoreThatFails(t *testing.T) {
	g := newGate()
	store := &brokenStore{Store: rest.NewMemoryStore(nil), fail: map[string]bool{"add": true}}
	told := make(chan error, 10)
	_, addr := start(t, g.mux(), &rest.Options{Results: store, Keys: store, OnError: func(_ *transport.Message, err error) { told <- err }})
	for _, field := range []string{"Prefer: respond-async", "Idempotency-Key: k"} {
		r := raw(t, addr, request("POST /calls/quick", "x", field))
		require.Equal(t, "unavailable", r.code(t))
		require.NotContains(t, r.body, "hunter2")
		require.ErrorContains(t, <-told, "hunter2")
	}
	require.Zero(t, g.runs.Load(), "what cannot be remembered is not begun")
	store.mu.Lock()
	store.fail = map[string]bool{"set": true}
	store.mu.Unlock()
	require.Equal(t, 200, raw(t, addr, request("POST /calls/quick", "x", "Idempotency-Key: k")).status)
	require.ErrorContains(t, <-told, "hunter2")
}

func TestIdempotencyKey(t *testing.T) {
	g := newGate()
	_, addr := start(t, g.mux(), &rest.Options{Authenticate: byHeader, OnError: func(*transport.Message, error) {}})
	const key = `Idempotency-Key: "8e03978e"`
	first := make(chan reply, 1)
	go func() { first <- raw(t, addr, request("POST /calls/work", "x", key)) }()
	require.Equal(t, "8e03978e", (<-g.entered).Header.Get("idempotency-key"))
	require.Equal(t, "aborted IDEMPOTENCY_KEY_IN_USE", raw(t, addr, request("POST /calls/work", "x", key)).code(t))
	require.Equal(t, "invalid_argument IDEMPOTENCY_KEY_REUSED", raw(t, addr, request("POST /calls/work", "y", key)).code(t))
	close(g.release)
	one := <-first
	require.Equal(t, 201, one.status)
	require.Empty(t, one.header.Get("Idempotency-Replayed"))
	for range 2 {
		r := raw(t, addr, request("POST /calls/work", "x", "Idempotency-Key: 8e03978e"))
		require.Equal(t, "true", r.header.Get("Idempotency-Replayed"))
		for _, h := range []http.Header{one.header, r.header} {
			h.Del("Date")
			h.Del("Idempotency-Replayed")
		}
		require.Equal(t, one, r, "the same status, fields and body")
	}
	require.EqualValues(t, 1, g.runs.Load())
	require.Equal(t, 422, raw(t, addr, request("POST /calls/work", "y", key)).status)
	require.Equal(t, 422, raw(t, addr, request("POST /calls/work", "x", key, "Content-Type: text/plain")).status)

	require.Equal(t, 201, raw(t, addr, request("POST /calls/work", "x", key, "Authorization: bob")).status, "another principal's")
	require.Equal(t, 200, raw(t, addr, request("POST /calls/quick", "x", key)).status, "another operation's")
	require.EqualValues(t, 3, g.runs.Load())

	for body, want := range map[string]struct{ code, runs int }{"fail": {400, 1}, "busy": {503, 2}, "panic": {500, 2}, "nothing": {204, 1}} {
		g.runs.Store(0)
		var rs []reply
		for range 2 {
			r := raw(t, addr, request("POST /calls/work", body, "Idempotency-Key: "+body))
			require.Equal(t, want.code, r.status, body)
			rs = append(rs, r)
		}
		require.Equal(t, rs[0].body, rs[1].body)
		require.EqualValues(t, want.runs, g.runs.Load(), "%s: what may go better the next time is not kept", body)
	}
}

func TestIdempotencyKeyOutlivesTheClient(t *testing.T) {
	g := newGate()
	_, addr := start(t, g.mux(), nil)
	leave(t, addr, request("POST /calls/work", "x", "Idempotency-Key: k"), g.entered)
	close(g.release)
	require.NoError(t, <-g.ended, "a client with a key will ask again")
	require.Eventually(t, func() bool {
		r := raw(t, addr, request("POST /calls/work", "x", "Idempotency-Key: k"))
		return r.status == 201 && r.header.Get("Idempotency-Replayed") == "true"
	}, 10*time.Second, time.Millisecond)
	require.EqualValues(t, 1, g.runs.Load())
}

func TestIdempotencyKeyOfAJob(t *testing.T) {
	g := newGate()
	s, addr := start(t, g.mux(), nil)
	one := raw(t, addr, request("POST /calls/work", "x", "Idempotency-Key: k", "Prefer: respond-async"))
	two := raw(t, addr, request("POST /calls/work", "x", "Idempotency-Key: k", "Prefer: respond-async"))
	require.Equal(t, 202, one.status)
	require.Equal(t, 202, two.status)
	require.Equal(t, one.header.Get("Location"), two.header.Get("Location"))
	close(g.release)
	require.NoError(t, s.Shutdown(t.Context()))
	require.EqualValues(t, 1, g.runs.Load())
}

func TestIdempotencyKeyOfEvents(t *testing.T) {
	events := make(chan *transport.Message, 10)
	_, addr := start(t, shop(events), shopOptions())
	for range 2 {
		require.Equal(t, 202, raw(t, addr, request("POST /topics/orders.placed", "x", "Idempotency-Key: \"k\"")).status)
	}
	require.Equal(t, 422, raw(t, addr, request("POST /topics/orders.placed", "y", "Idempotency-Key: \"k\"")).status)
	require.Len(t, events, 1)
}

func TestMemoryStore(t *testing.T) {
	ctx := t.Context()
	s := rest.NewMemoryStore(&rest.MemoryOptions{Entries: 3, Bytes: 4096})
	done := &rest.Record{Done: true}
	running := &rest.Record{}
	old, err := s.Add(ctx, "a", running, time.Hour)
	require.NoError(t, err)
	require.Nil(t, old)
	old, err = s.Add(ctx, "a", done, time.Hour)
	require.NoError(t, err)
	require.Same(t, running, old)
	for _, key := range []string{"b", "c", "d"} {
		require.NoError(t, s.Set(ctx, key, done, time.Hour))
	}
	for key, want := range map[string]bool{"a": true, "b": false, "c": true, "d": true} { // the oldest that is done went
		r, err := s.Get(ctx, key)
		require.NoError(t, err)
		require.Equal(t, want, r != nil, key)
	}
	big := &rest.Record{Done: true, Reply: &transport.Message{Body: make([]byte, 3000)}, Err: &transport.Error{Message: "x", Details: []transport.Detail{{Type: "t"}}}}
	require.NoError(t, s.Set(ctx, "e", big, time.Hour))
	require.NoError(t, s.Set(ctx, "f", big, time.Hour))
	r, _ := s.Get(ctx, "e")
	require.Nil(t, r)
	require.ErrorIs(t, s.Set(ctx, "g", &rest.Record{Reply: &transport.Message{Body: make([]byte, 5000)}}, time.Hour), transport.CodeResourceExhausted)
	require.NoError(t, s.Delete(ctx, "f"))
	require.NoError(t, s.Delete(ctx, "f"))
	require.NoError(t, s.Set(ctx, "h", running, time.Hour))
	require.NoError(t, s.Set(ctx, "i", running, time.Hour))
	require.ErrorIs(t, s.Set(ctx, "j", running, time.Hour), transport.CodeResourceExhausted, "what runs is not forgotten")
}

func TestMemoryStoreForgets(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := rest.NewMemoryStore(nil)
		require.NoError(t, s.Set(t.Context(), "a", &rest.Record{}, time.Minute))
		require.NoError(t, s.Set(t.Context(), "b", &rest.Record{Done: true}, time.Minute))
		time.Sleep(time.Minute - 1)
		r, _ := s.Get(t.Context(), "a")
		require.NotNil(t, r)
		time.Sleep(time.Nanosecond)
		r, _ = s.Get(t.Context(), "a")
		require.Nil(t, r)
		require.NoError(t, s.Set(t.Context(), "c", &rest.Record{}, time.Minute))
		r, _ = s.Add(t.Context(), "b", &rest.Record{}, time.Minute)
		require.Nil(t, r)
	})
}
