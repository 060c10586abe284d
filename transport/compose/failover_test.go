package compose_test

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/compose"
	"github.com/intermodal-go/intermodal/transport/mem"
)

// A node is one server of a backend: its subscriptions end when it goes down.
type node struct {
	transport.Subscriber
	mu   sync.Mutex
	down error
	subs []*nodeSub
	opts []transport.SubscribeOptions // of each Subscribe that reached it
}

func (n *node) Subscribe(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	o, err := transport.Resolve(^transport.Feature(0), opts...)
	if err != nil {
		return nil, err
	}
	n.opts = append(n.opts, o)
	if n.down != nil {
		return nil, n.down
	}
	sub, err := n.Subscriber.Subscribe(ctx, topic, opts...)
	if err != nil {
		return nil, err
	}
	s := &nodeSub{Subscription: sub}
	n.subs = append(n.subs, s)
	return s, nil
}

// fail takes the node down, nil brings it up again: its connections to the backend end with it.
func (n *node) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = err
	if err == nil {
		return
	}
	for _, s := range n.subs {
		s.lost.Store(&err)
		s.Close()
	}
	n.subs = nil
}

type nodeSub struct {
	transport.Subscription
	lost atomic.Pointer[error]
}

func (s *nodeSub) Next(ctx context.Context) (*transport.Delivery, error) {
	d, err := s.Subscription.Next(ctx)
	if lost := s.lost.Load(); err == io.EOF && lost != nil {
		err = *lost
	}
	return d, err
}

// cluster is two nodes with one backend, and a Failover over them that records its switches.
type cluster struct {
	bus      *mem.Bus
	nodes    [2]*node
	failover *compose.Failover
	mu       sync.Mutex
	switches []compose.Switch
}

func newCluster(t *testing.T, o compose.FailoverOptions) *cluster {
	c := &cluster{bus: newBus(t)}
	c.nodes = [2]*node{{Subscriber: c.bus}, {Subscriber: c.bus}}
	o.OnSwitch = func(s compose.Switch) {
		c.mu.Lock()
		c.switches = append(c.switches, s)
		c.mu.Unlock()
	}
	if o.Backoff == (transport.Backoff{}) {
		o.Backoff = transport.Backoff{Min: time.Second, Jitter: -1}
	}
	c.failover = compose.NewFailover([]transport.Subscriber{c.nodes[0], c.nodes[1]}, &o)
	return c
}

func (c *cluster) publish(t *testing.T, bodies ...string) {
	t.Helper()
	for _, b := range bodies {
		require.NoError(t, c.bus.Publish(t.Context(), &transport.Message{Topic: topic, Body: []byte(b)}))
	}
}

func (c *cluster) subscribe(t *testing.T, opts ...transport.SubscribeOption) transport.Subscription {
	t.Helper()
	s, err := c.failover.Subscribe(t.Context(), topic, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func expect(t *testing.T, s transport.Subscription, body string) *transport.Delivery {
	t.Helper()
	d := next(t, s)
	require.Equal(t, body, string(d.Body))
	return d
}

var lost = transport.Errorf(transport.CodeUnavailable, "the connection is lost")

func TestFailoverHandsOutEachMessageOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, compose.FailoverOptions{})
		s := c.subscribe(t)
		c.publish(t, "1", "2", "3", "4", "5")
		require.NoError(t, expect(t, s, "1").Ack())
		two := expect(t, s, "2")
		require.NoError(t, expect(t, s, "3").Ack())
		four := expect(t, s, "4")
		mark := s.Cursor()

		c.nodes[0].fail(lost)
		require.NoError(t, four.Ack(), "settled before its like has come")
		c.publish(t, "6")
		require.NoError(t, expect(t, s, "5").Ack(), "2, 3 and 4 do not come again")
		require.Equal(t, mark, c.nodes[1].opts[0].From)
		require.Equal(t, mark, s.Cursor(), "2 is still out")
		require.NoError(t, two.Ack())
		six := expect(t, s, "6")
		require.NoError(t, six.Ack())
		nothing(t, s)
		require.Equal(t, []compose.Switch{{Topic: topic, From: 0, To: 1, Err: lost}}, c.switches)
	})
}

func TestFailoverRedeliversWhatIsNacked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, compose.FailoverOptions{})
		s := c.subscribe(t)
		c.publish(t, "1", "2", "3", "4")
		one, two, three := expect(t, s, "1"), expect(t, s, "2"), expect(t, s, "3")
		require.NoError(t, one.Nack(io.EOF)) // waits there for its next attempt
		c.nodes[0].fail(lost)
		require.NoError(t, two.Nack(io.EOF)) // before its like comes
		require.NoError(t, expect(t, s, "4").Ack())
		require.NoError(t, three.Nack(io.EOF)) // after its like came
		var again []string
		for range 3 {
			d := next(t, s)
			require.Equal(t, 2, d.Attempt)
			again = append(again, string(d.Body))
			require.NoError(t, d.Ack())
		}
		require.ElementsMatch(t, []string{"1", "2", "3"}, again)
		nothing(t, s)
	})
}

func TestFailoverKeepsRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, compose.FailoverOptions{})
		s := c.subscribe(t)
		c.publish(t, "1", "2")
		one := expect(t, s, "1")
		require.NoError(t, expect(t, s, "2").Nack(transport.CodeNotFound))
		c.nodes[0].fail(lost)
		nothing(t, s)
		require.NoError(t, one.Nack(transport.CodeNotFound))
		nothing(t, s)
	})
}

func TestFailoverBackAndForth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, compose.FailoverOptions{})
		s := c.subscribe(t, transport.From(transport.Oldest), transport.Buffer(8))
		var got []string
		for i := range 200 {
			c.publish(t, strconv.Itoa(i))
			d := next(t, s)
			got = append(got, string(d.Body))
			if i%7 == 0 {
				c.nodes[i%2].fail(io.EOF)
				c.nodes[i%2].fail(nil)
			}
			require.NoError(t, d.Ack())
		}
		for i, b := range got {
			require.Equal(t, strconv.Itoa(i), b)
		}
		require.NotEmpty(t, c.switches)
		nothing(t, s)
	})
}

func TestFailoverBoundsWhatIsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, opts := range [][]transport.SubscribeOption{nil, {transport.Group("g")}} {
			c := newCluster(t, compose.FailoverOptions{})
			s := c.subscribe(t, append(opts, transport.Buffer(2))...)
			c.publish(t, "1", "2", "3")
			one := expect(t, s, "1")
			expect(t, s, "2")
			nothing(t, s)
			c.nodes[0].fail(lost)
			nothing(t, s)
			require.NoError(t, one.Ack())
			expect(t, s, "3")
		}
	})
}

func TestFailoverInAGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, compose.FailoverOptions{})
		s := c.subscribe(t, transport.Group("g"))
		c.publish(t, "1", "2")
		require.Empty(t, s.Cursor())
		one := expect(t, s, "1")
		require.Empty(t, one.Cursor())
		c.nodes[0].fail(lost)
		require.NoError(t, one.Ack())
		require.NoError(t, expect(t, s, "2").Ack())
		require.Equal(t, "g", c.nodes[1].opts[0].Group)
		require.Empty(t, c.nodes[1].opts[0].From)
		require.False(t, c.switches[0].Gap)
	})
}

// live has no history.
type live struct{ transport.Subscriber }

func (l live) Subscribe(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	s, err := l.Subscriber.Subscribe(ctx, topic, opts...)
	return liveSub{s}, err
}

type liveSub struct{ transport.Subscription }

func (s liveSub) Cursor() string { return "" }

func (s liveSub) Next(ctx context.Context) (*transport.Delivery, error) {
	d, err := s.Subscription.Next(ctx)
	if err != nil {
		return nil, err
	}
	return transport.NewDelivery(liveSource{d}, 0, d.Message, d.Attempt, d.Missed), nil
}

type liveSource struct{ d *transport.Delivery }

func (s liveSource) Settle(_ uint64, reply *transport.Message, err error) error {
	return s.d.Settle(reply, err)
}
func (s liveSource) Cursor(uint64, *transport.Message) string { return "" }
func (s liveSource) Context(_ uint64, parent context.Context) (context.Context, context.CancelFunc) {
	return parent, func() {}
}

func TestFailoverWithoutHistoryTellsOfTheGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, compose.FailoverOptions{})
		c.nodes[0].Subscriber, c.nodes[1].Subscriber = live{c.bus}, live{c.bus}
		s := c.subscribe(t)
		c.publish(t, "1")
		require.NoError(t, expect(t, s, "1").Ack())
		c.nodes[0].fail(lost)
		c.publish(t, "2")
		nothing(t, s)
		c.publish(t, "3")
		require.NoError(t, expect(t, s, "3").Ack())
		require.True(t, c.switches[0].Gap)
	})
}

func TestFailoverPassesUpWhatIsNotAboutConnectivity(t *testing.T) {
	for _, code := range []transport.Code{transport.CodeInvalidArgument, transport.CodePermissionDenied,
		transport.CodeOutOfRange, transport.CodeUnimplemented, transport.CodeUnauthenticated, transport.CodeResourceExhausted} {
		t.Run(code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, compose.FailoverOptions{})
				s := c.subscribe(t)
				c.nodes[0].fail(code)
				for range 2 {
					_, err := s.Next(t.Context())
					require.Equal(t, code, err)
				}
				require.Empty(t, c.switches)

				if code == transport.CodeResourceExhausted {
					return // of Subscribe that is a server that is full
				}
				c = newCluster(t, compose.FailoverOptions{})
				s = c.subscribe(t)
				c.nodes[1].fail(code)
				c.nodes[0].fail(lost)
				_, err := s.Next(t.Context())
				require.Equal(t, code, err)
			})
		})
	}
}

func TestFailoverOfSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, compose.FailoverOptions{Timeout: time.Second})
		c.nodes[0].fail(lost)
		s := c.subscribe(t)
		c.publish(t, "1")
		expect(t, s, "1")
		require.Len(t, c.nodes[0].opts, 1)
		c.subscribe(t)
		require.Len(t, c.nodes[0].opts, 1, "it begins with the one that worked")

		gone := errors.New("gone")
		c.nodes[1].fail(gone)
		_, err := c.failover.Subscribe(t.Context(), topic)
		require.Equal(t, lost, err, "the last one's")
		c.nodes[1].fail(transport.CodePermissionDenied)
		_, err = c.failover.Subscribe(t.Context(), topic)
		require.Equal(t, transport.CodePermissionDenied, err)
		_, err = c.failover.Subscribe(t.Context(), topic, transport.Buffer(0))
		require.ErrorIs(t, err, transport.CodeInvalidArgument)
		_, err = compose.NewFailover(nil, nil).Subscribe(t.Context(), topic)
		require.ErrorIs(t, err, transport.CodeInvalidArgument)

		hangs := subscriberFunc(func(ctx context.Context, _ string, _ ...transport.SubscribeOption) (transport.Subscription, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		s, err = compose.NewFailover([]transport.Subscriber{hangs, c.bus}, nil).Subscribe(t.Context(), topic)
		require.NoError(t, err)
		require.NoError(t, s.Close())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = compose.NewFailover([]transport.Subscriber{hangs, c.bus}, nil).Subscribe(ctx, topic)
		require.Equal(t, context.DeadlineExceeded, err)
	})
}

func TestFailoverWaitsBetweenTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, compose.FailoverOptions{})
		s := c.subscribe(t)
		c.nodes[0].fail(lost)
		c.nodes[1].fail(lost)
		start := time.Now()
		time.AfterFunc(6*time.Second, func() { c.nodes[0].fail(nil) })
		done := make(chan time.Duration, 1)
		go func() {
			for { // short waits do not break it off
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				_, err := s.Next(ctx)
				cancel()
				if err == nil {
					done <- time.Since(start)
					return
				}
			}
		}()
		time.Sleep(5 * time.Second)
		c.publish(t, "meanwhile")
		// Tries of node 1 at 0 s, 0 at 1 s, 1 at 3 s, 0 at 7 s.
		require.Equal(t, 7*time.Second, <-done)
		require.Len(t, c.nodes[1].opts, 2)
	})
}

func TestFailoverAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, compose.FailoverOptions{Attempts: 3})
		s := c.subscribe(t)
		c.nodes[0].fail(lost)
		c.nodes[1].fail(lost)
		start := time.Now()
		_, err := s.Next(t.Context())
		require.Equal(t, lost, err)
		require.Equal(t, 3*time.Second, time.Since(start))
		_, err = s.Next(t.Context())
		require.Equal(t, lost, err)
	})
}

func TestFailoverClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, compose.FailoverOptions{})
		s := c.subscribe(t, transport.Buffer(1))
		ended := func() <-chan error {
			done := make(chan error, 1)
			go func() { _, err := s.Next(t.Context()); done <- err }()
			synctest.Wait()
			return done
		}
		c.publish(t, "1")
		d := expect(t, s, "1")
		full := ended()
		require.NoError(t, s.Close())
		require.NoError(t, s.Close())
		require.Equal(t, io.EOF, <-full)
		require.NoError(t, d.Ack())
		_, err := s.Next(t.Context())
		require.Equal(t, io.EOF, err)

		s = c.subscribe(t)
		waiting := ended()
		require.NoError(t, s.Close())
		require.Equal(t, io.EOF, <-waiting)

		s = c.subscribe(t)
		c.nodes[0].fail(lost)
		c.nodes[1].fail(lost)
		switching := ended()
		require.NoError(t, s.Close())
		require.Equal(t, io.EOF, <-switching)
	})
}

func TestFailoverManyReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, compose.FailoverOptions{})
		s := c.subscribe(t)
		const n = 500
		got := make(chan string, 2*n)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- transport.Serve(ctx, s, transport.NoReply(func(_ context.Context, m *transport.Message) error {
				got <- string(m.Body)
				return nil
			}), transport.Workers(8))
		}()
		for i := range n {
			c.publish(t, strconv.Itoa(i))
			if i%50 == 49 {
				c.nodes[(i/50)%2].fail(lost)
				c.nodes[(i/50)%2].fail(nil)
			}
		}
		seen := map[string]bool{}
		for range n {
			seen[<-got] = true
		}
		require.Len(t, seen, n)
		time.Sleep(time.Minute)
		require.Empty(t, got)
		cancel()
		require.NoError(t, <-done)
	})
}
