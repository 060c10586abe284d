package amqpx_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

var everything = []amqpx.History{{Topics: "#"}}

func subscribed(t *testing.T, s transport.Subscriber, topic string,
	opts ...transport.SubscribeOption) transport.Subscription {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	sub, err := s.Subscribe(ctx, topic, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { sub.Close() })
	return sub
}

func published(t *testing.T, p transport.Publisher, topic string, bodies ...string) {
	t.Helper()
	ms := make([]*transport.Message, len(bodies))
	for i, b := range bodies {
		ms[i] = &transport.Message{Topic: topic, Body: []byte(b)}
	}
	for _, err := range transport.PublishAll(t.Context(), p, ms...) {
		require.NoError(t, err)
	}
}

func next(t *testing.T, s transport.Subscription) *transport.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	d, err := s.Next(ctx)
	require.NoError(t, err)
	return d
}

// taken takes n deliveries and acknowledges them.
func taken(t *testing.T, s transport.Subscription, n int) (bodies []string) {
	t.Helper()
	for range n {
		d := next(t, s)
		bodies = append(bodies, string(d.Body))
		require.NoError(t, d.Ack())
	}
	return bodies
}

// nothing checks that nothing comes for a while.
func nothing(t *testing.T, s transport.Subscription) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := s.Next(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func numbers(from, to int) (s []string) {
	for i := from; i <= to; i++ {
		s = append(s, strconv.Itoa(i))
	}
	return s
}

// TestHistoryOfManyTopics reads topics that share a stream: each gets its own, and the low-water mark follows where
// others publish, so that it stays within the history.
func TestHistoryOfManyTopics(t *testing.T) {
	c := dialed(t, amqpx.Options{History: []amqpx.History{{Topics: "a.#", MaxBytes: 100_000}}, MaxBytes: 10_000})
	x, y := subscribed(t, c, "a.x"), subscribed(t, c, "a.y")
	published(t, c, "a.x", "1")
	published(t, c, "a.y", "2")
	published(t, c, "a.x", "3")
	require.Equal(t, []string{"1", "3"}, taken(t, x, 2))
	require.Equal(t, []string{"2"}, taken(t, y, 1))
	silent := y.Cursor()
	for range 40 { // all in all more than the history keeps
		published(t, c, "a.x", numbers(1, 50)...)
		taken(t, x, 50)
	}
	require.Eventually(t, func() bool {
		s, err := c.Subscribe(t.Context(), "a.y", transport.From(silent))
		if err == nil {
			s.Close()
		}
		return transport.CodeOf(err) == transport.CodeOutOfRange
	}, 10*time.Second, 10*time.Millisecond, "the first cursor should be lost")
	again := subscribed(t, c, "a.y", transport.From(y.Cursor()))
	published(t, c, "a.y", "4")
	require.Equal(t, []string{"4"}, taken(t, y, 1))
	require.Equal(t, []string{"4"}, taken(t, again, 1))

	_, err := c.Subscribe(t.Context(), "b", transport.From(transport.Oldest))
	require.ErrorIs(t, err, transport.CodeUnimplemented, "a topic without a history")
}

// TestHistoryIsNew deletes the stream, so that the same offsets have other messages or none.
func TestHistoryIsNew(t *testing.T) {
	for name, messages := range map[string]int{"and shorter": 1, "and longer": 20} {
		t.Run(name, func(t *testing.T) {
			c := dialed(t, amqpx.Options{History: everything})
			s := subscribed(t, c, "t")
			published(t, c, "t", numbers(1, 10)...)
			taken(t, s, 5)
			d := next(t, s)
			foreign, _ := bare(t)
			_, err := foreign.QueueDelete(c.LogQueue("#"), false, false, false)
			require.NoError(t, err)
			other := subscribed(t, c, "t") // makes it anew
			published(t, c, "t", numbers(1, messages)...)
			require.Equal(t, numbers(1, messages), taken(t, other, messages))

			for _, cursor := range []string{s.Cursor(), d.Cursor()} {
				_, err = c.Subscribe(t.Context(), "t", transport.From(cursor))
				require.ErrorIs(t, err, transport.CodeOutOfRange)
			}
			// The live subscription hands out what it has, then it tells.
			for err = nil; err == nil; {
				_, err = s.Next(t.Context())
			}
			require.ErrorIs(t, err, transport.CodeOutOfRange)
		})
	}
}

// TestHistoryBeyondTheEnd has cursors that would be right but for their offset.
func TestHistoryBeyondTheEnd(t *testing.T) {
	c := dialed(t, amqpx.Options{History: everything})
	s := subscribed(t, c, "t")
	published(t, c, "t", "1", "2")
	taken(t, s, 2)
	hash, _, _ := strings.Cut(s.Cursor(), "-")
	if strings.Count(s.Cursor(), "-") > 1 { // one in the hash
		hash = s.Cursor()[:strings.LastIndexByte(s.Cursor(), '-')]
	}
	for _, offset := range []string{"0", "1", "3", "1000", "9223372036854775807"} {
		_, err := c.Subscribe(t.Context(), "t", transport.From(hash+"-"+offset))
		require.ErrorIs(t, err, transport.CodeOutOfRange, offset)
	}
	resumed := subscribed(t, c, "t", transport.From(s.Cursor()))
	nothing(t, resumed)
	published(t, c, "t", "3")
	require.Equal(t, []string{"3"}, taken(t, resumed, 1))
}

// TestHistoryOverCuts reads while the connections are cut, and settles in a random order: each message comes once.
func TestHistoryOverCuts(t *testing.T) {
	const n = 1500
	ns := "t" + transport.NewID()
	publisher := dialed(t, amqpx.Options{Namespace: ns, History: everything})
	cutter := newCutter()
	c := dialed(t, amqpx.Options{Namespace: ns, History: everything, Dial: cutter.dial,
		Backoff: transport.Backoff{Min: time.Millisecond, Max: 20 * time.Millisecond}})
	for name, opts := range map[string][]transport.SubscribeOption{
		"buffer of 1":   {transport.Buffer(1)},
		"buffer of 7":   {transport.Buffer(7)},
		"default":       nil,
		"buffer of 500": {transport.Buffer(500)},
		"in order":      {transport.Require(transport.Ordered), transport.Buffer(50)},
	} {
		t.Run(name, func(t *testing.T) {
			topic := "t" + transport.NewID()
			s := subscribed(t, c, topic, opts...)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for i := range 30 {
					published(t, publisher, topic, numbers(1+i*n/30, (i+1)*n/30)...)
				}
			}()
			rnd := rand.New(rand.NewPCG(1, 2))
			seen := map[string]int{}
			var out []*transport.Delivery
			for i := 1; len(seen) < n; i++ {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
				d, err := s.Next(ctx)
				cancel()
				if err == nil {
					seen[string(d.Body)]++
					out = append(out, d)
				} else {
					require.ErrorIs(t, err, context.DeadlineExceeded, "after %d", len(seen))
				}
				for len(out) > 0 && (err != nil || rnd.IntN(3) > 0) {
					k := rnd.IntN(len(out))
					require.NoError(t, out[k].Ack())
					out[k] = out[len(out)-1]
					out = out[:len(out)-1]
				}
				if i%150 == 0 {
					cutter.cut()
				}
			}
			<-done
			nothing(t, s)
			for body, times := range seen {
				require.Equal(t, 1, times, "message %s", body)
			}
		})
	}
}

// TestHistoryTTL reads messages whose time to live has passed: a stream keeps them, a subscription does not show them.
func TestHistoryTTL(t *testing.T) {
	c := dialed(t, amqpx.Options{History: everything})
	for i, ttl := range []string{"1", "60000", "1", ""} {
		m := &transport.Message{Topic: "t", Header: transport.Header{}, Body: []byte(strconv.Itoa(i))}
		if ttl != "" {
			m.Header.Set(transport.HeaderTTL, ttl)
		}
		require.NoError(t, c.Publish(t.Context(), m))
	}
	time.Sleep(10 * time.Millisecond) // so that it has passed
	s := subscribed(t, c, "t", transport.From(transport.Oldest))
	require.Equal(t, []string{"1", "3"}, taken(t, s, 2))
	nothing(t, s)
}

// TestHistoryTooLarge has a message that is larger than what the subscriber takes.
func TestHistoryTooLarge(t *testing.T) {
	ns := "t" + transport.NewID()
	c := dialed(t, amqpx.Options{Namespace: ns, History: everything})
	small := dialed(t, amqpx.Options{Namespace: ns, History: everything, MaxBytes: 1000})
	s := subscribed(t, small, "t")
	published(t, c, "t", "1", strings.Repeat("x", 2000), "3")
	require.Equal(t, []string{"1"}, taken(t, s, 1))
	_, err := s.Next(t.Context())
	requireError(t, err, transport.CodeResourceExhausted, "")
	cursor := transport.Public(err).Header.Get("cursor")
	s = subscribed(t, small, "t", transport.From(cursor))
	require.Equal(t, []string{"3"}, taken(t, s, 1))
}

// TestHistoryOfForeignMessages reads messages of a program that gives them no ID: they get the same one each time.
func TestHistoryOfForeignMessages(t *testing.T) {
	ns := "t" + transport.NewID()
	c := dialed(t, amqpx.Options{Namespace: ns, History: everything})
	s := subscribed(t, c, "t")
	foreign, _ := bare(t)
	for range 3 {
		require.NoError(t, foreign.Publish(ns, "t", false, false, amqp.Publishing{Body: []byte("same")}))
	}
	require.NoError(t, foreign.Publish("", c.LogQueue("#"), false, false, amqp.Publishing{Body: []byte("to no topic")}))
	var ids, cursors []string
	for range 3 {
		d := next(t, s)
		ids, cursors = append(ids, d.ID), append(cursors, d.Cursor())
		require.NoError(t, d.Ack())
	}
	nothing(t, s)
	require.NotEqual(t, ids[0], ids[1])
	s = subscribed(t, c, "t", transport.From(cursors[0]))
	for i := 1; i < 3; i++ {
		d := next(t, s)
		require.Equal(t, ids[i], d.ID)
		require.Equal(t, cursors[i], d.Cursor())
	}
}

// TestHistoryOptions finds out at once what cannot be.
func TestHistoryOptions(t *testing.T) {
	ns := "t" + transport.NewID()
	c := dialed(t, amqpx.Options{Namespace: ns,
		History: []amqpx.History{{Topics: "t", MaxBytes: 1 << 20, MaxAge: time.Hour}}})
	published(t, c, "t", "1")
	url := amqptest.URL(t)
	_, err := amqpx.Dial(t.Context(), url, &amqpx.Options{Namespace: ns, History: []amqpx.History{{Topics: "t"}}})
	requireError(t, err, transport.CodeFailedPrecondition, "")
	for _, h := range []amqpx.History{{}, {Topics: "a..b"}, {Topics: "amq.#"}, {Topics: "a", MaxBytes: -1},
		{Topics: "a", MaxAge: -1}} {
		_, err := amqpx.Dial(t.Context(), url, &amqpx.Options{Namespace: ns, History: []amqpx.History{h}})
		requireError(t, err, transport.CodeInvalidArgument, "")
	}
}

// A counter counts the subscriptions that are made with it.
type counter struct {
	transport.Subscriber
	mu              sync.Mutex
	all, open, most int
}

func (c *counter) Subscribe(ctx context.Context, topic string,
	opts ...transport.SubscribeOption) (transport.Subscription, error) {
	c.mu.Lock()
	c.all++
	c.open++
	c.most = max(c.most, c.open)
	c.mu.Unlock()
	s, err := c.Subscriber.Subscribe(ctx, topic, opts...)
	if err != nil {
		c.closed()
		return nil, err
	}
	return &counted{s, sync.OnceFunc(c.closed)}, nil
}

func (c *counter) closed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
}

type counted struct {
	transport.Subscription
	closed func()
}

func (s *counted) Close() error {
	defer s.closed()
	return s.Subscription.Close()
}

// TestMirrorOfAnIdleTopic comes back to a topic where nothing happens, and whose stream has got marks meanwhile.
func TestMirrorOfAnIdleTopic(t *testing.T) {
	c := dialed(t, amqpx.Options{Namespace: "t" + transport.NewID(), History: everything})
	mirror := mem.NewMirror(c, nil)
	s := subscribed(t, mirror, "t")
	start := s.Cursor()
	published(t, c, "t", "1", "2")
	require.Equal(t, []string{"1", "2"}, taken(t, s, 2))
	end := s.Cursor()
	require.NoError(t, mirror.Close())
	mirror = mem.NewMirror(c, nil)
	defer mirror.Close()
	subscribed(t, mirror, "t")
	subscribed(t, c, "t") // as another server does
	for from, want := range map[string][]string{end: nil, start: {"1", "2"}, transport.Oldest: {"1", "2"}} {
		s, err := mirror.Subscribe(within(t, 10*time.Second), "t", transport.From(from))
		require.NoError(t, err)
		require.Equal(t, want, taken(t, s, len(want)))
		require.NoError(t, s.Close())
	}
}

// TestMirrorStartsAgain has a thousand subscribers whose server goes away, with its Mirror. They all come back to
// another one at once, each with its own cursor, while messages go on: nobody misses any, and the broker sees a few
// consumers.
func TestMirrorStartsAgain(t *testing.T) {
	const subscribers, before, away, after = 1000, 100, 100, 100
	ns := "t" + transport.NewID()
	publisher := dialed(t, amqpx.Options{Namespace: ns, History: everything})
	cursors := make([]string, subscribers)
	{
		c := dialed(t, amqpx.Options{Namespace: ns, History: everything})
		mirror := mem.NewMirror(c, nil)
		subs := make([]transport.Subscription, subscribers)
		for i := range subs {
			subs[i] = subscribed(t, mirror, "t")
		}
		published(t, publisher, "t", numbers(1, before)...)
		for i, s := range subs { // some have seen none, some all
			taken(t, s, i%(before+1))
			cursors[i] = s.Cursor()
		}
		require.NoError(t, mirror.Close())
		require.NoError(t, c.Close())
	}
	published(t, publisher, "t", numbers(before+1, before+away)...)

	count := &counter{Subscriber: dialed(t, amqpx.Options{Namespace: ns, History: everything})}
	mirror := mem.NewMirror(count, nil)
	defer mirror.Close()
	go func() {
		for i := range after {
			published(t, publisher, "t", strconv.Itoa(before+away+1+i))
			time.Sleep(5 * time.Millisecond)
		}
	}()
	var wg sync.WaitGroup
	failed := make(chan error, subscribers)
	for i, cursor := range cursors {
		wg.Go(func() { failed <- complete(t.Context(), mirror, cursor, i%(before+1)+1, before+away+after) })
	}
	wg.Wait()
	for range cursors {
		require.NoError(t, <-failed)
	}
	t.Logf("%d subscribers, %d subscriptions at the broker, %d at once", subscribers, count.all, count.most)
	require.LessOrEqual(t, count.most, 6)
}

// complete checks that from a cursor come all messages from first to last, and each once.
func complete(ctx context.Context, m *mem.Mirror, cursor string, first, last int) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	s, err := m.Subscribe(ctx, "t", transport.From(cursor))
	if err != nil {
		return fmt.Errorf("message %d: %w", first, err)
	}
	defer s.Close()
	for want := first; want <= last; want++ {
		d, err := s.Next(ctx)
		if err != nil {
			return fmt.Errorf("from %d on, at %d: %w", first, want, err)
		}
		if string(d.Body) != strconv.Itoa(want) {
			return fmt.Errorf("from %d on: got %s, not %d", first, d.Body, want)
		}
		d.Ack()
	}
	return nil
}
