package mem_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

var background = context.Background()

func publish(t testing.TB, p transport.Publisher, from, to int) {
	for i := from; i < to; i++ {
		require.NoError(t, p.Publish(background, &transport.Message{Topic: "t", Body: []byte(strconv.Itoa(i))}))
	}
}

func next(t testing.TB, s transport.Subscription) *transport.Delivery {
	ctx, cancel := context.WithTimeout(background, 10*time.Second)
	defer cancel()
	d, err := s.Next(ctx)
	require.NoError(t, err)
	return d
}

// expect takes the messages from to to and acknowledges them.
func expect(t testing.TB, s transport.Subscription, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		d := next(t, s)
		require.Equal(t, strconv.Itoa(i), string(d.Body))
		require.NoError(t, d.Ack())
	}
}

func subscribe(t testing.TB, s transport.Subscriber, opts ...transport.SubscribeOption) transport.Subscription {
	sub, err := s.Subscribe(background, "t", opts...)
	require.NoError(t, err)
	t.Cleanup(func() { sub.Close() })
	return sub
}

// The rules that hold on every transport are checked by the conformance suite. What follows is the Bus's own.

func TestBlockHoldsPublishersUpThenEndsTheReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reported error
		bus := mem.New(&mem.Options{HistoryMessages: 10, PublishWait: 3 * time.Second,
			OnError: func(topic string, _ *transport.Message, err error) { reported = err }})
		defer bus.Close()
		slow, quick := subscribe(t, bus), subscribe(t, bus)
		publish(t, bus, 0, 10)
		expect(t, quick, 0, 10)

		start := time.Now()
		publish(t, bus, 10, 11)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.ErrorIs(t, reported, transport.CodeResourceExhausted)
		expect(t, quick, 10, 11)

		_, err := slow.Next(background)
		var e *transport.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, transport.CodeResourceExhausted, e.Code)
		_, again := slow.Next(background)
		require.Equal(t, err, again, "a terminal error stays")
		// The cursor is loud about what is gone by now.
		_, err = bus.Subscribe(background, "t", transport.From(e.Header.Get("cursor")))
		require.ErrorIs(t, err, transport.CodeOutOfRange)
	})
}

func TestBlockIsReleasedByTheReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := mem.New(&mem.Options{HistoryMessages: 10})
		defer bus.Close()
		sub := subscribe(t, bus)
		done := make(chan struct{})
		go func() {
			defer close(done)
			publish(t, bus, 0, 1000)
		}()
		synctest.Wait()
		start := time.Now()
		expect(t, sub, 0, 1000)
		<-done
		require.Zero(t, time.Since(start))
	})
}

func TestBlockedPublishGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := mem.New(&mem.Options{HistoryMessages: 2})
		defer bus.Close()
		sub := subscribe(t, bus)
		publish(t, bus, 0, 2)
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		require.Equal(t, context.DeadlineExceeded, bus.Publish(ctx, &transport.Message{Topic: "t"}))
		expect(t, sub, 0, 2)
		publish(t, bus, 2, 3)
		expect(t, sub, 2, 3)
	})
}

func TestGroupBytes(t *testing.T) {
	bus := mem.New(&mem.Options{GroupBytes: 1000, HistoryMessages: 2})
	defer bus.Close()
	sub := subscribe(t, bus, transport.Group("g"))
	big := &transport.Message{Topic: "t", Body: make([]byte, 299)}
	for range 3 {
		require.NoError(t, bus.Publish(background, big))
	}
	err := bus.Publish(background, big)
	require.ErrorIs(t, err, transport.CodeResourceExhausted)
	require.NoError(t, next(t, sub).Ack())
	require.NoError(t, bus.Publish(background, big), "settling makes room")
	for range 3 {
		require.NoError(t, next(t, sub).Ack())
	}
}

func TestGroupIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reported []error
		bus := mem.New(&mem.Options{GroupIdle: time.Hour, OnError: func(_ string, _ *transport.Message, err error) { reported = append(reported, err) }})
		defer bus.Close()
		require.NoError(t, subscribe(t, bus, transport.Group("g")).Close())
		publish(t, bus, 0, 1)
		time.Sleep(59 * time.Minute)
		sub := subscribe(t, bus, transport.Group("g"))
		expect(t, sub, 0, 1)
		require.NoError(t, sub.Close())
		publish(t, bus, 1, 2)
		time.Sleep(61 * time.Minute)
		synctest.Wait()
		require.Len(t, reported, 1)
		sub = subscribe(t, bus, transport.Group("g"), transport.MaxAttempts(3)) // a new group
		publish(t, bus, 2, 3)
		expect(t, sub, 2, 3)
	})
}

func TestHistoryAgesAndTopicsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := mem.New(&mem.Options{HistoryAge: time.Minute, MaxTopics: 1})
		defer bus.Close()
		publish(t, bus, 0, 3)
		sub := subscribe(t, bus, transport.From(transport.Oldest))
		expect(t, sub, 0, 3)
		cursor := sub.Cursor()
		require.NoError(t, sub.Close())
		require.ErrorIs(t, bus.Publish(background, &transport.Message{Topic: "other"}), transport.CodeResourceExhausted)
		time.Sleep(50 * time.Second)
		require.NoError(t, subscribe(t, bus, transport.From(cursor)).Close(), "nothing was evicted after the cursor")
		time.Sleep(2 * time.Minute)
		require.NoError(t, bus.Publish(background, &transport.Message{Topic: "other"}), "the topic was forgotten")
		time.Sleep(3 * time.Minute)
		_, err := bus.Subscribe(background, "t", transport.From(cursor))
		require.ErrorIs(t, err, transport.CodeOutOfRange)
	})
}

func TestTopics(t *testing.T) {
	bus := mem.New(&mem.Options{Topics: []string{"t"}})
	defer bus.Close()
	publish(t, bus, 0, 1)
	_, err := bus.Subscribe(background, "u")
	require.ErrorIs(t, err, transport.CodeNotFound)
	require.ErrorIs(t, bus.Publish(background, &transport.Message{Topic: "u"}), transport.CodeNotFound)
	_, err = bus.Call(background, &transport.Message{Topic: "u"})
	require.ErrorIs(t, err, transport.CodeUnimplemented)
	_, err = bus.Respond(background, "u")
	require.ErrorIs(t, err, transport.CodeUnimplemented)
	_, err = bus.Open(background, "u", nil)
	require.ErrorIs(t, err, transport.CodeUnimplemented)
	_, err = bus.Subscribe(background, "_reply.1")
	require.NoError(t, err)
	_, err = bus.Call(background, &transport.Message{Topic: "t"})
	require.ErrorIs(t, err, transport.CodeUnavailable)
}

func TestDelayedBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := mem.New(&mem.Options{DelayedBytes: 100})
		defer bus.Close()
		sub := subscribe(t, bus)
		m := &transport.Message{Topic: "t", Header: transport.Header{"delay": {"1000"}}, Body: make([]byte, 80)}
		require.NoError(t, bus.Publish(background, m))
		require.ErrorIs(t, bus.Publish(background, m), transport.CodeResourceExhausted)
		start := time.Now()
		d := next(t, sub)
		require.Equal(t, time.Second, time.Since(start))
		require.Empty(t, d.Header, "the delay has been served")
		require.NoError(t, d.Ack())
		require.NoError(t, bus.Publish(background, m))
	})
}

func TestWaitingCallsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := mem.New(&mem.Options{Waiting: 2})
		defer bus.Close()
		r, err := bus.Respond(background, "t")
		require.NoError(t, err)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				_, err := bus.Call(background, &transport.Message{Topic: "t"})
				require.ErrorIs(t, err, transport.CodeUnavailable)
			})
		}
		synctest.Wait()
		_, err = bus.Call(background, &transport.Message{Topic: "t"})
		require.ErrorIs(t, err, transport.CodeResourceExhausted)
		require.NoError(t, r.Close())
		wg.Wait()
	})
}

func TestShutdownWaitsForWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := mem.New(nil)
		sub := subscribe(t, bus, transport.Group("g"))
		publish(t, bus, 0, 5)
		require.NoError(t, bus.Publish(background, &transport.Message{Topic: "t", Body: []byte("5"), Header: transport.Header{"delay": {"1000"}}}))
		done := make(chan error)
		go func() { done <- bus.Shutdown(background) }()
		expect(t, sub, 0, 6)
		require.NoError(t, <-done)
		_, err := sub.Next(background)
		require.Equal(t, io.EOF, err)
		require.ErrorIs(t, bus.Publish(background, &transport.Message{Topic: "t"}), transport.CodeUnavailable)
		require.ErrorIs(t, bus.Health(background), transport.CodeUnavailable)

		bus = mem.New(nil)
		subscribe(t, bus, transport.Group("g"))
		publish(t, bus, 0, 1)
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		require.Equal(t, context.DeadlineExceeded, bus.Shutdown(ctx))
	})
}

func TestTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := mem.New(nil)
		defer bus.Close()
		sub, member := subscribe(t, bus), subscribe(t, bus, transport.Group("g"))
		require.NoError(t, bus.Publish(background, &transport.Message{Topic: "t", Body: []byte("0"), Header: transport.Header{"ttl": {"1000"}}}))
		publish(t, bus, 1, 2)
		time.Sleep(2 * time.Second)
		expect(t, sub, 1, 2)
		expect(t, member, 1, 2)
	})
}

func TestDeadLetterThatCannotBePublishedIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := mem.New(&mem.Options{MaxTopics: 1})
		defer bus.Close()
		sub := subscribe(t, bus, transport.Group("g"), transport.DeadLetter("dead"))
		publish(t, bus, 0, 1)
		require.ErrorIs(t, next(t, sub).Nack(transport.CodeNotFound), transport.CodeResourceExhausted)
		expect(t, sub, 0, 1)
	})
}

// TestWorkersOnOneSubscription is a stress test of the tokens that wake readers: none may be lost.
func TestWorkersOnOneSubscription(t *testing.T) {
	for _, opts := range [][]transport.SubscribeOption{nil, {transport.Group("g")}, {transport.Buffer(2)}, {transport.Group("g"), transport.Buffer(2)}} {
		bus := mem.New(nil)
		sub := subscribe(t, bus, opts...)
		ctx, cancel := context.WithCancel(background)
		var got sync.WaitGroup
		var mu sync.Mutex
		failed := map[string]bool{}
		served := make(chan error)
		go func() {
			served <- transport.Serve(ctx, sub, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
				mu.Lock()
				defer mu.Unlock()
				if !failed[m.ID] && m.ID[len(m.ID)-1]%4 == 0 {
					failed[m.ID] = true
					return nil, &transport.Error{Code: transport.CodeUnavailable, RetryAfter: time.Millisecond}
				}
				got.Done()
				return nil, nil
			}, transport.Workers(8))
		}()
		var wg sync.WaitGroup
		got.Add(4 * 500)
		for range 4 {
			wg.Go(func() { publish(t, bus, 0, 500) })
		}
		wg.Wait()
		got.Wait()
		cancel()
		require.NoError(t, <-served)
		require.NoError(t, bus.Close())
	}
}

func TestMirrorSharesOneUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := mem.New(nil)
		defer bus.Close()
		up := &counting{Subscriber: bus}
		m := mem.NewMirror(up, nil)
		defer m.Close()
		var subs []transport.Subscription
		for range 100 {
			subs = append(subs, subscribe(t, m))
		}
		publish(t, bus, 0, 10)
		for _, s := range subs {
			for i := range 10 {
				d := next(t, s)
				require.Equal(t, strconv.Itoa(i), string(d.Body))
				require.NoError(t, d.Ack())
				require.Equal(t, d.Cursor(), s.Cursor())
			}
		}
		require.Equal(t, 1, up.opened)
		// The mirror's cursors are the upstream's.
		direct := subscribe(t, bus, transport.From(subs[0].Cursor()))
		publish(t, bus, 10, 11)
		expect(t, direct, 10, 11)
		for _, s := range subs {
			require.NoError(t, s.Close())
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Zero(t, up.open, "the feed lingers, then goes")
		subscribe(t, m)
		require.Equal(t, 1, up.open)
	})
}

func TestRestartedMirrorServesOldCursors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := mem.New(&mem.Options{HistoryMessages: 5000})
		defer bus.Close()
		var cursors []string
		sub := subscribe(t, bus)
		cursors = append(cursors, sub.Cursor())
		for i := range 1000 {
			publish(t, bus, i, i+1)
			d := next(t, sub)
			cursors = append(cursors, d.Cursor())
			require.NoError(t, d.Ack())
		}
		up := &counting{Subscriber: bus}
		m := mem.NewMirror(up, nil)
		defer m.Close()
		var wg sync.WaitGroup
		for i, c := range cursors {
			wg.Go(func() {
				s := subscribe(t, m, transport.From(c))
				require.Equal(t, c, s.Cursor())
				expect(t, s, i, 1005)
			})
		}
		synctest.Wait()
		publish(t, bus, 1000, 1005)
		wg.Wait()
		require.LessOrEqual(t, up.most, 2, "upstream subscriptions at once")
		require.Less(t, up.opened, 40, "in all")

		_, err := m.Subscribe(background, "t", transport.From("forged"))
		require.ErrorIs(t, err, transport.CodeOutOfRange)
		oldest := subscribe(t, m, transport.From(transport.Oldest))
		expect(t, oldest, 0, 1005)
	})
}

func TestMirrorBeyondItsCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := mem.New(nil)
		defer bus.Close()
		publish(t, bus, 0, 100)
		m := mem.NewMirror(bus, &mem.MirrorOptions{HistoryMessages: 10, Direct: 1})
		defer m.Close()
		s := subscribe(t, m, transport.From(transport.Oldest))
		expect(t, s, 0, 100)
		_, err := m.Subscribe(background, "t", transport.From(transport.Oldest))
		require.ErrorIs(t, err, transport.CodeResourceExhausted)
		require.NoError(t, s.Close())
		expect(t, subscribe(t, m, transport.From(transport.Oldest)), 0, 100)
	})
}

func TestMirrorEndsWithItsUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := mem.New(nil)
		defer bus.Close()
		broken := errors.New("the cable was cut")
		up := &counting{Subscriber: bus, cut: make(chan struct{}), err: broken}
		m := mem.NewMirror(up, nil)
		defer m.Close()
		s := subscribe(t, m)
		publish(t, bus, 0, 3)
		synctest.Wait()
		close(up.cut)
		synctest.Wait()
		expect(t, s, 0, 3)
		_, err := s.Next(background)
		require.Equal(t, broken, err)
		up.cut = nil
		s = subscribe(t, m, transport.From(s.Cursor())) // a new feed
		publish(t, bus, 3, 4)
		expect(t, s, 3, 4)
	})
}

// counting counts upstream subscriptions, and can cut them.
type counting struct {
	transport.Subscriber
	mu                 sync.Mutex
	opened, open, most int
	cut                chan struct{}
	err                error
}

func (c *counting) Subscribe(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	s, err := c.Subscriber.Subscribe(ctx, topic, opts...)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened++
	c.open++
	c.most = max(c.most, c.open)
	return &counted{Subscription: s, c: c, cut: c.cut}, nil
}

type counted struct {
	transport.Subscription
	c    *counting
	cut  chan struct{}
	once sync.Once
}

func (s *counted) Next(ctx context.Context) (*transport.Delivery, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.cut != nil {
		go func() {
			select {
			case <-s.cut:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	d, err := s.Subscription.Next(ctx)
	if err != nil && s.cut != nil {
		err = s.c.err
	}
	return d, err
}

func (s *counted) Close() error {
	s.once.Do(func() {
		s.c.mu.Lock()
		s.c.open--
		s.c.mu.Unlock()
	})
	return s.Subscription.Close()
}

func ExampleBus() {
	bus := mem.New(nil)
	defer bus.Close()
	ctx := context.Background()

	sub, _ := bus.Subscribe(ctx, "scores")
	bus.Publish(ctx, &transport.Message{Topic: "scores", Body: []byte("1:0")})
	d, _ := sub.Next(ctx)
	fmt.Println(string(d.Body), d.Attempt)
	d.Ack()

	// Somebody else goes on from there, later.
	bus.Publish(ctx, &transport.Message{Topic: "scores", Body: []byte("2:0")})
	again, _ := bus.Subscribe(ctx, "scores", transport.From(sub.Cursor()))
	d, _ = again.Next(ctx)
	fmt.Println(string(d.Body))
	// Output:
	// 1:0 1
	// 2:0
}

func ExampleNewMirror() {
	broker := mem.New(nil) // stands for a client of a real one
	defer broker.Close()
	mirror := mem.NewMirror(broker, nil)
	defer mirror.Close()
	ctx := context.Background()

	// Any number of local subscriptions cost the broker one.
	a, _ := mirror.Subscribe(ctx, "scores")
	b, _ := mirror.Subscribe(ctx, "scores")
	broker.Publish(ctx, &transport.Message{Topic: "scores", Body: []byte("1:0")})
	for _, s := range []transport.Subscription{a, b} {
		d, _ := s.Next(ctx)
		fmt.Println(string(d.Body))
		d.Ack()
	}
	// Output:
	// 1:0
	// 1:0
}
