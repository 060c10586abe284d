package ws_test

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/ws"
)

// TestAtTheLimit: who does no more at a time than a server allows is never refused: what has ended is not counted any more
// when the client learns of its end.
func TestAtTheLimit(t *testing.T) {
	bus := backend(t)
	respond(t, bus, "echo", echo)
	l, err := bus.Accept(t.Context(), "stream")
	require.NoError(t, err)
	var serving sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	serving.Go(func() {
		transport.ServeStreams(ctx, l, func(context.Context, transport.Incoming) error { return nil })
	})
	t.Cleanup(func() { stop(); serving.Wait() })
	c := dial(t, serve(t, bus, &ws.Options{MaxCalls: 4, MaxSubscriptions: 1, MaxStreams: 1}).URL, nil)
	t.Run("calls", func(t *testing.T) {
		var callers sync.WaitGroup
		refused := make(chan error, 4)
		for range 4 {
			callers.Go(func() {
				for range 1000 {
					if _, err := c.Call(context.Background(), &transport.Message{Topic: "echo"}); err != nil {
						refused <- err
						return
					}
				}
			})
		}
		callers.Wait()
		require.Empty(t, refused)
	})
	t.Run("subscriptions", func(t *testing.T) {
		for range 500 {
			s, err := c.Subscribe(within(t), "x")
			require.NoError(t, err)
			require.NoError(t, s.Close())
		}
	})
	t.Run("streams", func(t *testing.T) {
		for range 1000 {
			s, err := c.Open(within(t), "stream", nil)
			require.NoError(t, err)
			s.Recv()
			require.NoError(t, s.Close())
		}
	})
}
