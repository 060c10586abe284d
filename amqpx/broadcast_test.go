package amqpx_test

import (
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/transport"
)

// away returns a client that is disconnected, by a function, and comes back, by another.
func away(t *testing.T, o amqpx.Options) (c *amqpx.Client, leave, back func()) {
	cutter := newCutter()
	o.Dial = cutter.dial
	o.Backoff = transport.Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond}
	c = dialed(t, o)
	return c, func() { cutter.refuse(true); cutter.cut() }, func() { cutter.refuse(false) }
}

// TestBroadcastAway publishes while a subscriber is disconnected: it gets all of it, once and in order.
func TestBroadcastAway(t *testing.T) {
	ns := "t" + transport.NewID()
	here := dialed(t, amqpx.Options{Namespace: ns})
	there, leave, back := away(t, amqpx.Options{Namespace: ns})
	s := subscribed(t, there, "news")
	published(t, here, "news", numbers(1, 20)...)
	require.Equal(t, numbers(1, 5), taken(t, s, 5))
	leave()
	published(t, here, "news", numbers(21, 150)...)
	back()
	require.Equal(t, numbers(6, 150), taken(t, s, 145))
	nothing(t, s)
}

// TestBroadcastLoses is what cannot be made good: the subscription says so and ends.
func TestBroadcastLoses(t *testing.T) {
	ns := "t" + transport.NewID()
	here := dialed(t, amqpx.Options{Namespace: ns})
	t.Run("away for too long", func(t *testing.T) {
		there, leave, back := away(t, amqpx.Options{Namespace: ns, ReconnectWindow: 300 * time.Millisecond})
		s := subscribed(t, there, "news")
		leave()
		require.Eventually(t, func() bool { // until its queue is gone
			return here.PublishMandatory(t.Context(), ns, "news", amqp.Publishing{}) != nil
		}, 10*time.Second, 20*time.Millisecond)
		back()
		_, err := s.Next(within(t, 10*time.Second))
		hasCode(t, transport.CodeDataLoss, err)
		require.NoError(t, s.Close())
	})
	t.Run("too much", func(t *testing.T) {
		there, leave, back := away(t, amqpx.Options{Namespace: ns})
		there.SetLag(10)
		s := subscribed(t, there, "news")
		published(t, here, "news", "1")
		require.Equal(t, []string{"1"}, taken(t, s, 1))
		leave()
		published(t, here, "news", numbers(2, 12)...)
		back()
		_, err := s.Next(within(t, 10*time.Second))
		hasCode(t, transport.CodeDataLoss, err)
	})
	t.Run("almost too much", func(t *testing.T) {
		there, leave, back := away(t, amqpx.Options{Namespace: ns})
		there.SetLag(10)
		s := subscribed(t, there, "news")
		leave()
		published(t, here, "news", numbers(1, 9)...)
		back()
		require.Equal(t, numbers(1, 9), taken(t, s, 9))
	})
}

// TestBroadcastTooLarge ends the subscription, once all that came before was handed out.
func TestBroadcastTooLarge(t *testing.T) {
	ns := "t" + transport.NewID()
	small := dialed(t, amqpx.Options{Namespace: ns, MaxBytes: 1000})
	large := dialed(t, amqpx.Options{Namespace: ns})
	s := subscribed(t, small, "news", transport.Buffer(2))
	published(t, large, "news", numbers(1, 10)...)
	published(t, large, "news", strings.Repeat("x", 2000), "after")
	require.Equal(t, numbers(1, 10), taken(t, s, 10))
	_, err := s.Next(within(t, 10*time.Second))
	hasCode(t, transport.CodeResourceExhausted, err)
}

// TestBroadcastQueueGoes looks for the queue of a closed subscription.
func TestBroadcastQueueGoes(t *testing.T) {
	ns := "t" + transport.NewID()
	c := dialed(t, amqpx.Options{Namespace: ns})
	publish := func() error { return c.PublishMandatory(t.Context(), ns, "news", amqp.Publishing{}) }
	for range 2 {
		s := subscribed(t, c, "news")
		require.NoError(t, publish())
		require.NoError(t, s.Close())
		requireError(t, publish(), transport.CodeUnavailable, transport.ReasonNotSent)
	}
}
