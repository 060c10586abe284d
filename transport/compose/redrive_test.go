package compose_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/compose"
	"github.com/intermodal-go/intermodal/transport/mem"
)

// bury publishes messages that the group "workers" refuses, and returns it.
func bury(t *testing.T, bus *mem.Bus, ids ...string) transport.Subscription {
	t.Helper()
	s, err := bus.Subscribe(t.Context(), topic, transport.Group("workers"), transport.DeadLetter("dead"))
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	for _, id := range ids {
		require.NoError(t, bus.Publish(t.Context(), &transport.Message{ID: id, Topic: topic, Header: transport.Header{"k": {"v"}, "dead-letter-note": {"mine"}}, Body: []byte("body")}))
		require.NoError(t, next(t, s).Nack(transport.CodeInvalidArgument))
	}
	return s
}

func TestRedrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		s := bury(t, bus, "1", "2")
		start := time.Now()
		n, err := compose.Redrive(t.Context(), bus, bus, "dead", nil)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.Equal(t, time.Second, time.Since(start))
		for _, id := range []string{"1", "2"} {
			d := next(t, s)
			require.Equal(t, &transport.Message{ID: id, Topic: topic, Header: transport.Header{"k": {"v"}, "dead-letter-note": {"mine"}}, Body: []byte("body")}, d.Message)
			require.NoError(t, d.Ack())
		}
		n, err = compose.Redrive(t.Context(), bus, bus, "dead", &compose.RedriveOptions{Idle: time.Minute})
		require.NoError(t, err)
		require.Zero(t, n, "each once, however often it runs")
	})
}

func TestRedriveMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		bury(t, bus, "1", "2", "3")
		n, err := compose.Redrive(t.Context(), bus, bus, "dead", &compose.RedriveOptions{Max: 2})
		require.NoError(t, err)
		require.Equal(t, 2, n)
		n, err = compose.Redrive(t.Context(), bus, bus, "dead", nil)
		require.NoError(t, err)
		require.Equal(t, 1, n)
	})
}

func TestRedriveGivesBackWhatIsNotPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		bury(t, bus, "1", "2")
		published := 0
		p := transport.Handler(func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			if published++; published == 2 {
				return nil, io.ErrUnexpectedEOF
			}
			return nil, bus.Publish(ctx, m)
		})
		n, err := compose.Redrive(t.Context(), bus, p, "dead", nil)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.Equal(t, 1, n)
		n, err = compose.Redrive(t.Context(), bus, bus, "dead", nil)
		require.NoError(t, err)
		require.Equal(t, 1, n)
	})
}

func TestRedriveLeavesWhatHasNoTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		require.NoError(t, bus.Publish(t.Context(), &transport.Message{ID: "stray", Topic: "dead"}))
		bury(t, bus, "1")
		for want := 1; want >= 0; want-- {
			n, err := compose.Redrive(t.Context(), bus, bus, "dead", nil)
			require.ErrorIs(t, err, transport.CodeFailedPrecondition)
			require.Equal(t, want, n)
		}
		s, err := bus.Subscribe(t.Context(), "dead", transport.Group("redrive"))
		require.NoError(t, err)
		defer s.Close()
		d := next(t, s)
		require.Equal(t, "stray", d.ID, "it is still there")
		require.Equal(t, 1, d.Attempt)
	})
}

func TestRedriveDoesNotGoInCircles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		s := bury(t, bus, "1", "2")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { // they are refused again at once
			done <- transport.Serve(ctx, s, transport.NoReply(func(context.Context, *transport.Message) error {
				return transport.CodeInvalidArgument
			}))
		}()
		n, err := compose.Redrive(t.Context(), bus, bus, "dead", nil)
		require.ErrorIs(t, err, transport.CodeFailedPrecondition)
		require.Equal(t, 2, n)
		cancel()
		require.NoError(t, <-done)
	})
}

func TestRedriveEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		n, err := compose.Redrive(ctx, bus, bus, "dead", nil)
		require.Equal(t, context.DeadlineExceeded, err)
		require.Zero(t, n)

		time.AfterFunc(time.Millisecond, func() { bus.Close() })
		_, err = compose.Redrive(t.Context(), bus, bus, "dead", nil)
		require.Equal(t, io.EOF, err)
		_, err = compose.Redrive(t.Context(), bus, bus, "dead", nil)
		require.ErrorIs(t, err, transport.CodeUnavailable)
	})
}

func TestRedriveFromAGroupThatCollects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		s, err := bus.Subscribe(t.Context(), "dead", transport.Group("collector"))
		require.NoError(t, err)
		require.NoError(t, s.Close())
		bury(t, bus, "1")
		n, err := compose.Redrive(t.Context(), bus, bus, "dead", &compose.RedriveOptions{
			Subscribe: []transport.SubscribeOption{transport.Group("collector")}})
		require.NoError(t, err)
		require.Equal(t, 1, n)
	})
}
