package mem_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

// A subscriberFunc is a Subscriber of one topic.
type subscriberFunc func(ctx context.Context) (transport.Subscription, error)

func (f subscriberFunc) Subscribe(ctx context.Context, _ string, _ ...transport.SubscribeOption) (transport.Subscription, error) {
	return f(ctx)
}

// Close beside a Subscribe that fails upstream.
func TestMirrorClosesWhileItsUpstreamRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan error)
		m := mem.NewMirror(subscriberFunc(func(context.Context) (transport.Subscription, error) { return nil, <-answer }), nil)
		refused := make(chan error, 1)
		go func() {
			_, err := m.Subscribe(background, "t")
			refused <- err
		}()
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- m.Close() }()
		synctest.Wait()
		answer <- transport.CodeUnavailable
		require.ErrorIs(t, <-refused, transport.CodeUnavailable)
		require.NoError(t, <-closed)
	})
}

// late is a subscription whose Next has one more delivery although its ctx has ended, as Next may.
type late struct {
	transport.Subscription
	more chan *transport.Delivery
}

func (l *late) Next(ctx context.Context) (*transport.Delivery, error) {
	<-ctx.Done()
	if d := <-l.more; d != nil {
		return d, nil
	}
	return nil, io.EOF
}

// What the feed before still brings does not come to the next one.
func TestMirrorForgetsWhatItsOldFeedBrings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := mem.New(nil)
		defer bus.Close()
		var first *late
		m := mem.NewMirror(subscriberFunc(func(ctx context.Context) (transport.Subscription, error) {
			s, err := bus.Subscribe(ctx, "t")
			if first == nil {
				first = &late{Subscription: s, more: make(chan *transport.Delivery)}
				return first, err
			}
			return s, err
		}), &mem.MirrorOptions{Linger: time.Second})
		s := subscribe(t, m)
		require.NoError(t, s.Close())
		require.NoError(t, bus.Publish(background, &transport.Message{Topic: "t", Body: []byte("before")}))
		d, err := first.Subscription.Next(background)
		require.NoError(t, err)
		time.Sleep(2 * time.Second) // the feed has gone, but for this
		s = subscribe(t, m)
		first.more <- d
		first.more <- nil
		synctest.Wait()
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		got, err := s.Next(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded, "%v was published before the subscription", got)
		require.NoError(t, m.Close())
	})
}
