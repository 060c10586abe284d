package amqpx_test

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/transport"
)

// A tap is a queue of a plain program, bound to all topics of a namespace.
type tap struct {
	t     *testing.T
	ch    *amqp.Channel
	ns    string
	queue string
}

func newTap(t *testing.T, args amqp.Table) *tap {
	conn, err := amqp.Dial(amqptest.URL(t))
	require.NoError(t, err)
	ch, err := conn.Channel()
	require.NoError(t, err)
	ns := "tap" + transport.NewID()
	require.NoError(t, ch.ExchangeDeclare(ns, "topic", true, false, false, false, nil))
	_, err = ch.QueueDeclare(ns+".tap", true, false, false, false, args)
	require.NoError(t, err)
	require.NoError(t, ch.QueueBind(ns+".tap", "#", ns, false, nil))
	t.Cleanup(func() {
		ch.QueueDelete(ns+".tap", false, false, false)
		ch.ExchangeDelete(ns, false, false)
		conn.Close()
	})
	return &tap{t: t, ch: ch, ns: ns, queue: ns + ".tap"}
}

// take returns n messages.
func (p *tap) take(n int) []amqp.Delivery {
	p.t.Helper()
	name := transport.NewID()
	in, err := p.ch.Consume(p.queue, name, true, false, false, false, nil)
	require.NoError(p.t, err)
	var ds []amqp.Delivery
	late := time.After(20 * time.Second)
	for len(ds) < n {
		select {
		case d := <-in:
			ds = append(ds, d)
		case <-late:
			require.Fail(p.t, "messages are missing", "%d of %d have come", len(ds), n)
		}
	}
	require.NoError(p.t, p.ch.Cancel(name, false))
	return ds
}

// count is how many messages there are.
func (p *tap) count() int {
	q, err := p.ch.QueueDeclarePassive(p.queue, true, false, false, false, nil)
	require.NoError(p.t, err)
	return q.Messages
}

// client connects through url.
func (p *tap) client(url string, o amqpx.Options) *amqpx.Client {
	o.Namespace = p.ns
	o.Backoff = transport.Backoff{Min: 5 * time.Millisecond, Max: 50 * time.Millisecond}
	c, err := amqpx.Dial(p.t.Context(), url, &o)
	require.NoError(p.t, err)
	p.t.Cleanup(func() { require.NoError(p.t, c.Close()) })
	return c
}

func numbered(from, to int) (ms []*transport.Message) {
	for i := from; i <= to; i++ {
		ms = append(ms, &transport.Message{ID: fmt.Sprint(i), Topic: "a.b", Body: []byte("x")})
	}
	return ms
}

func reason(err error) string { return transport.Public(err).Reason }

func TestPublish(t *testing.T) {
	p := newTap(t, nil)
	c := p.client(amqptest.URL(t), amqpx.Options{Topics: []string{"a.b"}, MaxBytes: 100})
	m := &transport.Message{Topic: "a.b", Header: transport.Header{"content-type": {"text/plain"}, "k": {"v", "w"}},
		Body: []byte("body")}
	require.NoError(t, c.Publish(t.Context(), m))
	require.Empty(t, m.ID, "the sender's message is not written")
	d := p.take(1)[0]
	require.NoError(t, transport.CheckID(d.MessageId))
	require.Equal(t, "a.b", d.RoutingKey)
	require.Equal(t, "text/plain", d.ContentType)
	require.Equal(t, []any{"v", "w"}, d.Headers["k"])
	require.Equal(t, "body", string(d.Body))
	require.EqualValues(t, amqp.Persistent, d.DeliveryMode)
	require.WithinDuration(t, time.Now(), d.Timestamp, time.Minute)

	for want, m := range map[transport.Code]*transport.Message{
		transport.CodeNotFound:          {Topic: "a.c"},
		transport.CodeInvalidArgument:   {Topic: "a..c"},
		transport.CodeResourceExhausted: {Topic: "a.b", Body: make([]byte, 98)},
	} {
		require.ErrorIs(t, c.Publish(t.Context(), m), want)
	}
	require.NoError(t, c.Publish(t.Context(), &transport.Message{Topic: "_reply.x"}),
		"a requester's own topic always exists")
	require.NoError(t, c.Publish(t.Context(),
		&transport.Message{Topic: "a.b", Header: transport.Header{"ttl": {"4294967295"}}}))
	require.NoError(t, c.Publish(t.Context(),
		&transport.Message{Topic: "a.b", Header: transport.Header{"ttl": {"4294967296"}}}))
	require.ErrorIs(t, c.Publish(t.Context(), &transport.Message{Topic: "a.b", Header: transport.Header{"ttl": {"1s"}}}),
		transport.CodeInvalidArgument)
	require.EqualValues(t, 1, c.Stats().Generation)
	require.Zero(t, c.Stats().InFlight)
}

// More messages than the window go out in order, from one goroutine and from many.
func TestPublishAll(t *testing.T) {
	p := newTap(t, nil)
	c := p.client(amqptest.URL(t), amqpx.Options{Window: 10})
	const n = 500
	require.Equal(t, make([]error, n), c.PublishAll(t.Context(), numbered(1, n)...))
	for i, d := range p.take(n) {
		require.Equal(t, fmt.Sprint(i+1), d.MessageId)
	}
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for _, err := range c.PublishAll(t.Context(), numbered(1, 20)...) {
				require.NoError(t, err)
			}
			require.NoError(t, c.Publish(t.Context(), &transport.Message{Topic: "a"}))
		})
	}
	wg.Wait()
	p.take(32 * 21)
}

// A queue that refuses is not confused with one that takes.
func TestPublishRefused(t *testing.T) {
	p := newTap(t, amqp.Table{amqp.QueueMaxLenArg: 1, amqp.QueueOverflowArg: amqp.QueueOverflowRejectPublish})
	c := p.client(amqptest.URL(t), amqpx.Options{})
	errs := c.PublishAll(t.Context(), numbered(1, 5)...)
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[4], transport.CodeResourceExhausted)
	p.take(1)
	require.NoError(t, c.Publish(t.Context(), &transport.Message{Topic: "a"}))
}

// A mandatory message that no queue takes comes back, and only that one.
func TestPublishReturned(t *testing.T) {
	p := newTap(t, nil)
	c := p.client(amqptest.URL(t), amqpx.Options{})
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			msg := amqp.Publishing{MessageId: fmt.Sprint(i)}
			if i%2 == 0 {
				require.NoError(t, c.PublishMandatory(t.Context(), "", p.queue, msg))
				return
			}
			err := c.PublishMandatory(t.Context(), "", p.ns+".nowhere", msg)
			require.ErrorIs(t, err, transport.CodeUnavailable)
			require.Equal(t, transport.ReasonNotSent, reason(err))
		})
	}
	wg.Wait()
	require.EqualValues(t, 100, c.Stats().Returned)
	p.take(100)
}

// An exchange that is missing fails what is published to it, and nothing else.
func TestPublishNoExchange(t *testing.T) {
	p := newTap(t, nil)
	c := p.client(amqptest.URL(t), amqpx.Options{})
	good := make(chan error)
	go func() {
		for i := 1; ; i++ {
			if errs := c.PublishAll(t.Context(), numbered(i, i)...); errs[0] != nil || i == 50 {
				good <- errs[0]
				return
			}
		}
	}()
	for range 3 {
		require.ErrorIs(t, c.PublishMandatory(t.Context(), p.ns+".nowhere", "k", amqp.Publishing{}), transport.CodeNotFound)
	}
	require.NoError(t, <-good)
	require.EqualValues(t, 1, c.Stats().Generation, "the connection was sound")
}

// A message that the broker closes the channel over is given up, and the others are published.
func TestPublishPoison(t *testing.T) {
	p := newTap(t, nil)
	c := p.client(amqptest.URL(t), amqpx.Options{})
	bad := make(chan error)
	go func() {
		bad <- c.PublishMandatory(t.Context(), "", p.queue, amqp.Publishing{MessageId: "bad", Expiration: "never"})
	}()
	for i := 1; ; i++ {
		require.NoError(t, c.Publish(t.Context(), &transport.Message{ID: fmt.Sprint(i), Topic: "a"}))
		select {
		case err := <-bad:
			require.ErrorIs(t, err, transport.CodeFailedPrecondition)
			require.EqualValues(t, 1, c.Stats().Generation)
			return
		default:
		}
	}
}

// A write that hangs cuts the connection, and the messages are published on the next.
func TestPublishHung(t *testing.T) {
	p := newTap(t, nil)
	relay := amqptest.NewRelay(t, amqptest.URL(t))
	c := p.client(relay.URL(), amqpx.Options{MethodTimeout: 200 * time.Millisecond, DialTimeout: 300 * time.Millisecond,
		MaxBytes: 2 << 20})
	relay.Stall()
	var ms []*transport.Message
	for range 20 { // more than the buffers on the way hold
		ms = append(ms, &transport.Message{Topic: "a", Body: make([]byte, 1<<20)})
	}
	done := make(chan []error)
	go func() { done <- c.PublishAll(t.Context(), ms...) }()
	require.Eventually(t, func() bool { return c.Health(t.Context()) != nil }, 10*time.Second, time.Millisecond)
	relay.Resume()
	require.Equal(t, make([]error, 20), <-done)
	require.Greater(t, c.Stats().Generation, uint64(1))
}

// What was unconfirmed when the connection was lost is sent again, in order and before what follows.
func TestPublishAgain(t *testing.T) {
	p := newTap(t, nil)
	relay := amqptest.NewRelay(t, amqptest.URL(t))
	c := p.client(relay.URL(), amqpx.Options{})
	const n, cuts = 4000, 10
	done := make(chan []error)
	go func() {
		var errs []error
		for i := 1; i <= n; i += 200 {
			errs = append(errs, c.PublishAll(t.Context(), numbered(i, i+199)...)...)
		}
		done <- errs
	}()
	var errs []error
	for last := (amqpx.Stats{}); errs == nil; {
		select {
		case errs = <-done:
		case <-time.After(200 * time.Microsecond):
			now := c.Stats()
			flows := now.InFlight > 0 && now.InFlight != last.InFlight // some have their confirm since the last cut
			if flows && now.Generation > last.Generation && now.Generation <= cuts {
				last = now
				relay.Cut()
			}
		}
	}
	require.Equal(t, make([]error, n), errs)
	require.Greater(t, c.Stats().Generation, uint64(cuts/2), "enough cuts")
	require.NotZero(t, c.Stats().Republished)
	next, seen, again := 1, map[string]bool{}, 0
	for _, d := range p.take(p.count()) {
		if seen[d.MessageId] {
			again++
			continue
		}
		seen[d.MessageId] = true
		require.Equal(t, fmt.Sprint(next), d.MessageId, "the first of each are in order")
		next++
	}
	require.Equal(t, n, next-1, "nothing is lost")
	require.LessOrEqual(t, uint64(again), c.Stats().Republished, "only what was unconfirmed comes twice")
	t.Logf("%d connections, %d sent again, %d of these came twice", c.Stats().Generation, c.Stats().Republished, again)
}

// During an outage publishers wait, as long as their ctx lives.
func TestPublishOutage(t *testing.T) {
	p := newTap(t, nil)
	relay := amqptest.NewRelay(t, amqptest.URL(t))
	states := make(chan amqpx.State, 100)
	c := p.client(relay.URL(), amqpx.Options{Window: 2, OnState: func(s amqpx.State) {
		select {
		case states <- s:
		default:
		}
	}})
	require.True(t, (<-states).Connected)
	relay.Refuse()
	relay.Cut()
	require.False(t, (<-states).Connected)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := c.Publish(ctx, &transport.Message{ID: "late", Topic: "a"})
	require.ErrorIs(t, err, transport.CodeUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, transport.ReasonNotSent, reason(err))

	waiting := make(chan []error)
	go func() { waiting <- c.PublishAll(t.Context(), numbered(1, 2)...) }()
	require.Eventually(t, func() bool { return c.Stats().InFlight == 2 }, 5*time.Second, time.Millisecond)
	ctx, cancel = context.WithCancel(t.Context())
	outside := make(chan error)
	go func() { outside <- c.Publish(ctx, &transport.Message{ID: "no room", Topic: "a"}) }()
	cancel()
	err = <-outside
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, transport.ReasonNotSent, reason(err))

	relay.Resume()
	require.Equal(t, make([]error, 2), <-waiting)
	ds := p.take(2)
	require.Equal(t, "1", ds[0].MessageId)
	require.Equal(t, "2", ds[1].MessageId)
	require.Zero(t, p.count(), "what was given up is not sent")
}

// A publish without an answer ends with its ctx, or else with ConfirmTimeout, and its outcome is unknown.
func TestPublishUnknown(t *testing.T) {
	p := newTap(t, nil)
	relay := amqptest.NewRelay(t, amqptest.URL(t))
	c := p.client(relay.URL(), amqpx.Options{ConfirmTimeout: 2 * time.Second,
		MethodTimeout: 5 * time.Second})
	require.NoError(t, c.Publish(t.Context(), &transport.Message{Topic: "a"}))
	relay.Stall()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond) // in which it is written
	defer cancel()
	err := c.Publish(ctx, &transport.Message{ID: "1", Topic: "a"})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, transport.ReasonOutcomeUnknown, reason(err))
	for _, err := range c.PublishAll(t.Context(), numbered(2, 100)...) {
		require.ErrorIs(t, err, transport.CodeUnavailable)
		require.Equal(t, transport.ReasonOutcomeUnknown, reason(err))
	}
	require.Zero(t, c.Stats().InFlight)
	relay.Resume()
	require.NoError(t, c.Publish(t.Context(), &transport.Message{ID: "101", Topic: "a"}))
	require.EqualValues(t, 1, c.Stats().Generation)
}

// Many publishes that are given up do not pile up in the channel.
func TestPublishGivenUp(t *testing.T) {
	p := newTap(t, nil)
	c := p.client(amqptest.URL(t), amqpx.Options{Window: 5})
	for range 300 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(len(t.Name()))*10*time.Microsecond)
		if err := c.Publish(ctx, &transport.Message{Topic: "a"}); err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NotEmpty(t, reason(err))
		}
		cancel()
	}
	require.NoError(t, c.Publish(t.Context(), &transport.Message{Topic: "a"}))
	require.Zero(t, c.Stats().InFlight)
	require.EqualValues(t, 1, c.Stats().Generation)
}

// Shutdown waits for confirms; Close does not.
func TestPublishEnd(t *testing.T) {
	p := newTap(t, nil)
	relay := amqptest.NewRelay(t, amqptest.URL(t))
	c := p.client(relay.URL(), amqpx.Options{})
	require.NoError(t, c.Publish(t.Context(), &transport.Message{ID: "0", Topic: "a"}))
	relay.Stall()
	sent := make(chan []error)
	go func() { sent <- c.PublishAll(t.Context(), numbered(1, 100)...) }()
	require.Eventually(t, func() bool { return c.Stats().InFlight == 100 }, 5*time.Second, time.Millisecond)
	end := make(chan error)
	go func() { end <- c.Shutdown(t.Context()) }()
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		return reason(c.Health(ctx)) == transport.ReasonClosed
	}, 5*time.Second, time.Millisecond)
	err := c.Publish(t.Context(), &transport.Message{Topic: "a"})
	require.Equal(t, transport.ReasonClosed, reason(err), "nothing new begins")
	relay.Resume()
	require.Equal(t, make([]error, 100), <-sent)
	require.NoError(t, <-end)
	require.Len(t, p.take(101), 101)

	relay.Refuse()
	c = p.client(amqptest.URL(t), amqpx.Options{Dial: slowly(t, 300*time.Millisecond)})
	time.Sleep(300 * time.Millisecond) // from then on it is slow
	go func() { sent <- c.PublishAll(t.Context(), numbered(1, 100)...) }()
	require.Eventually(t, func() bool { return c.Stats().InFlight == 100 }, 5*time.Second, time.Millisecond)
	require.NoError(t, c.Close())
	for _, err := range <-sent {
		if err != nil {
			require.ErrorIs(t, err, transport.CodeUnavailable)
			require.Contains(t, []string{transport.ReasonOutcomeUnknown, transport.ReasonClosed}, reason(err))
		}
	}
	require.NoError(t, c.Shutdown(t.Context()))
}

// Shutdown waits for deliveries that are out, as long as its ctx lives.
func TestShutdown(t *testing.T) {
	p := newTap(t, nil)
	for _, patient := range []bool{true, false} {
		c := p.client(amqptest.URL(t), amqpx.Options{})
		s, err := c.Subscribe(t.Context(), "a", transport.Group("g"))
		require.NoError(t, err)
		t.Cleanup(func() { p.ch.QueueDelete(p.ns+".group.a.g", false, false, false) })
		require.NoError(t, c.Publish(t.Context(), &transport.Message{ID: "held", Topic: "a"}))
		d, err := s.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, "held", d.ID)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if patient {
			cancel()
			ctx, cancel = context.WithCancel(t.Context())
		}
		end := make(chan error)
		go func() { end <- c.Shutdown(ctx) }()
		_, err = s.Next(t.Context())
		require.Equal(t, io.EOF, err)
		if patient {
			select {
			case err := <-end:
				require.Fail(t, "Shutdown did not wait", "%v", err)
			case <-time.After(50 * time.Millisecond):
			}
			require.NoError(t, d.Ack())
			require.NoError(t, <-end)
		} else {
			require.ErrorIs(t, <-end, context.DeadlineExceeded)
			require.ErrorIs(t, d.Ack(), transport.CodeUnavailable)
		}
		cancel()
		_, err = c.Subscribe(t.Context(), "a")
		require.ErrorIs(t, err, transport.CodeUnavailable)
	}
	c := p.client(amqptest.URL(t), amqpx.Options{})
	s, err := c.Subscribe(t.Context(), "a", transport.Group("g"))
	require.NoError(t, err)
	d, err := s.Next(t.Context())
	require.NoError(t, err)
	require.Equal(t, "held", d.ID, "what was not acknowledged comes again")
	require.NoError(t, d.Ack())
}
