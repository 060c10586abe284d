package rest_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/rest"
)

// lingeringStore waits after each Set.
type lingeringStore struct {
	rest.Store
	set, goOn chan bool
}

func (s *lingeringStore) Set(ctx context.Context, key string, r *rest.Record, ttl time.Duration) error {
	err := s.Store.Set(ctx, key, r, ttl)
	s.set <- true
	<-s.goOn
	return err
}

// A job that was cancelled is gone at once, though its store has it for a moment yet.
func TestAsyncThatIsCancelledStaysGone(t *testing.T) {
	g := newGate()
	store := &lingeringStore{rest.NewMemoryStore(nil), make(chan bool), make(chan bool)}
	s, addr := start(t, g.mux(), &rest.Options{Results: store})
	at := raw(t, addr, request("POST /calls/work", "x", "Prefer: respond-async")).header.Get("Location")
	<-g.entered
	require.Equal(t, 204, raw(t, addr, request("DELETE "+at, "")).status)
	<-store.set
	for _, target := range []string{at, at + "/result"} {
		require.Equal(t, 404, raw(t, addr, request("GET "+target, "")).status)
	}
	close(store.goOn)
	require.Equal(t, 404, raw(t, addr, request("GET "+at, "")).status)
	require.NoError(t, s.Shutdown(t.Context()))
}
