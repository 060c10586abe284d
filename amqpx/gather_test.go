package amqpx

import (
	"context"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/transporttest/leak"
)

// TestGatherKeepsNothingBack acknowledges several messages on a channel whose end waits for a method. That must not be
// kept back by what is to be gathered, or all would wait until MethodTimeout cuts the connection.
func TestGatherKeepsNothingBack(t *testing.T) {
	c, err := Dial(t.Context(), amqptest.URL(t), &Options{Namespace: "t" + transport.NewID(), MethodTimeout: time.Minute})
	require.NoError(t, err)
	defer c.Close()
	s, err := c.consume.session(t.Context())
	require.NoError(t, err)
	ch, err := s.channel(t.Context())
	require.NoError(t, err)
	stuck := func(in, at string) func() bool {
		return func() bool {
			for _, stack := range leak.Goroutines() {
				if strings.Contains(stack, in) && strings.Contains(stack, at) {
					return true
				}
			}
			return false
		}
	}

	using, method := make(chan struct{}), make(chan struct{})
	done, written, closed := make(chan error, 1), make(chan error, 1), make(chan struct{})
	go func() {
		done <- ch.do(context.Background(), func(ac *amqp.Channel) error {
			close(using)
			<-method
			return ac.Qos(1, 0, false)
		})
	}()
	<-using
	go func() { defer close(closed); ch.close() }()
	require.Eventually(t, stuck("(*RWMutex).Lock", "(*channel).close"), 10*time.Second, time.Millisecond)
	go func() { written <- writeAcks(ch, 0, []uint64{1, 2}, nil, 3) }()
	require.Eventually(t, stuck("(*RWMutex).RLock", "writeAcks"), 10*time.Second, time.Millisecond)
	close(method)
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		s.cut()
		require.Fail(t, "the method hangs")
	}
	require.ErrorIs(t, <-written, amqp.ErrClosed)
	<-closed
}
