package amqpx_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/transport"
)

// dialed returns a client of the shared broker, and its namespace is removed after the test.
func dialed(t *testing.T, o amqpx.Options) *amqpx.Client {
	t.Helper()
	url := amqptest.URL(t)
	if o.Namespace == "" {
		o.Namespace = "t" + transport.NewID()
	}
	if o.OnDrop == nil {
		o.OnDrop = func(*transport.Message, error) {}
	}
	c, err := amqpx.Dial(t.Context(), url, &o)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		remove(t, url, append(c.Declared(), o.Namespace))
	})
	return c
}

// bare returns a channel of a program that knows nothing of this package, and a function that cuts its connection.
func bare(t testing.TB) (*amqp.Channel, func()) {
	t.Helper()
	conn, err := amqp.Dial(amqptest.URL(t))
	require.NoError(t, err)
	cut := sync.OnceFunc(func() { conn.Close() })
	t.Cleanup(cut)
	ch, err := conn.Channel()
	require.NoError(t, err)
	return ch, cut
}

// requireError checks an error's Code and Reason.
func requireError(t *testing.T, err error, code transport.Code, reason string) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, code.String(), transport.CodeOf(err).String(), "%v", err)
	require.Equal(t, reason, transport.Public(err).Reason, "%v", err)
}

type result struct {
	reply *transport.Message
	err   error
}

// calling calls in the background, without a deadline.
func calling(t *testing.T, c transport.Caller, topic, body string) <-chan result {
	done := make(chan result, 1)
	go func() {
		r, err := c.Call(t.Context(), &transport.Message{Topic: topic, Body: []byte(body)})
		done <- result{r, err}
	}()
	return done
}

// answered waits for what comes of a call.
func answered(t *testing.T, r <-chan result) result {
	t.Helper()
	select {
	case r := <-r:
		return r
	case <-time.After(15 * time.Second):
		require.FailNow(t, "the call hangs")
		panic("unreachable")
	}
}

// TestCallLosesResponder is about calls that were sent and lose all who could answer: they end, without any deadline.
func TestCallLosesResponder(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, queue string, ch *amqp.Channel, cut func()){
		"the connection": func(t *testing.T, _ string, _ *amqp.Channel, cut func()) { cut() },
		"the queue": func(t *testing.T, queue string, ch *amqp.Channel, _ func()) {
			ch.QueueDelete(queue, false, false, false)
		},
		"interest in calls": func(t *testing.T, _ string, ch *amqp.Channel, _ func()) {
			require.NoError(t, ch.Cancel("x", false))
		},
		"all it has taken": func(t *testing.T, _ string, ch *amqp.Channel, _ func()) { require.NoError(t, ch.Close()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dialed(t, amqpx.Options{})
			s, err := c.Respond(t.Context(), "op") // declares the queue
			require.NoError(t, err)
			foreign, cut := bare(t)
			queue := c.CallQueue("op")
			require.NoError(t, foreign.Qos(1, 0, false))
			taken, err := foreign.Consume(queue, "x", false, false, false, false, nil)
			require.NoError(t, err)
			require.NoError(t, s.Close()) // the queue stays: it has a consumer
			first := calling(t, c, "op", "taken")
			<-taken
			second := calling(t, c, "op", "waits in the queue")
			require.Eventually(t, func() bool {
				q, err := foreign.QueueDeclarePassive(queue, true, false, false, false, nil)
				return err == nil && q.Messages == 1
			}, 10*time.Second, 10*time.Millisecond)
			lose(t, queue, foreign, cut)
			requireError(t, answered(t, first).err, transport.CodeUnavailable, transport.ReasonOutcomeUnknown)
			requireError(t, answered(t, second).err, transport.CodeUnavailable, transport.ReasonOutcomeUnknown)
			requireError(t, answered(t, calling(t, c, "op", "")).err, transport.CodeUnavailable, transport.ReasonNotSent)
		})
	}
}

// TestCallOutlivesClose has a responder that closes, as the only one, long before it answers what it has taken.
func TestCallOutlivesClose(t *testing.T) {
	t.Parallel()
	c := dialed(t, amqpx.Options{})
	s, err := c.Respond(t.Context(), "op")
	require.NoError(t, err)
	r := calling(t, c, "op", "")
	d, err := s.Next(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	requireError(t, answered(t, calling(t, c, "op", "")).err, transport.CodeUnavailable, transport.ReasonNotSent)
	select {
	case r := <-r:
		require.Fail(t, "the call did not wait", "%+v", r)
	case <-time.After(3 * time.Second): // longer than calls are let alone without a sign of life
	}
	require.NoError(t, d.Settle(&transport.Message{Body: []byte("late")}, nil))
	got := answered(t, r)
	require.NoError(t, got.err)
	require.Equal(t, "late", string(got.reply.Body))
}

// TestCallIsNotHandledTwice has a program that takes a call and vanishes: another may not handle it again.
func TestCallIsNotHandledTwice(t *testing.T) {
	c := dialed(t, amqpx.Options{})
	s, err := c.Respond(t.Context(), "op", transport.Buffer(1))
	require.NoError(t, err)
	busy := calling(t, c, "op", "busy")
	d, err := s.Next(t.Context())
	require.NoError(t, err)
	foreign, cut := bare(t)
	taken, err := foreign.Consume(c.CallQueue("op"), "", false, false, false, false, nil)
	require.NoError(t, err)
	twice := calling(t, c, "op", "twice")
	<-taken
	cut()
	require.NoError(t, d.Ack())
	require.NoError(t, answered(t, busy).err)
	requireError(t, answered(t, twice).err, transport.CodeUnavailable, transport.ReasonOutcomeUnknown)
	last := calling(t, c, "op", "last")
	d, err = s.Next(t.Context())
	require.NoError(t, err)
	require.Equal(t, "last", string(d.Body), "the call that came again is not seen")
	require.NoError(t, d.Ack())
	require.NoError(t, answered(t, last).err)
	require.EqualValues(t, 1, c.Stats().Redelivered)
}

// TestResponderHandsOver closes one responder of two while it holds calls that nobody has taken from it.
func TestResponderHandsOver(t *testing.T) {
	c := dialed(t, amqpx.Options{})
	leaves, err := c.Respond(t.Context(), "op")
	require.NoError(t, err)
	stays, err := c.Respond(t.Context(), "op")
	require.NoError(t, err)
	var handled sync.Map
	served := make(chan error, 1)
	go func() {
		served <- transport.Serve(t.Context(), stays,
			func(_ context.Context, m *transport.Message) (*transport.Message, error) {
				n, _ := handled.LoadOrStore(string(m.Body), new(atomic.Int32))
				n.(*atomic.Int32).Add(1)
				return &transport.Message{Body: m.Body}, nil
			})
	}()
	var rs []<-chan result
	for i := range 50 {
		rs = append(rs, calling(t, c, "op", fmt.Sprint(i)))
	}
	d, err := leaves.Next(t.Context())
	require.NoError(t, err)
	require.NoError(t, leaves.Close())
	require.NoError(t, d.Settle(&transport.Message{Body: d.Body}, nil))
	for i, r := range rs {
		got := answered(t, r)
		require.NoError(t, got.err)
		require.Equal(t, fmt.Sprint(i), string(got.reply.Body))
	}
	handled.Range(func(body, n any) bool {
		require.EqualValues(t, 1, n.(*atomic.Int32).Load(), "call %v", body)
		return true
	})
	require.NoError(t, stays.Close())
	require.NoError(t, <-served)
}

// TestResponderConnectsAgain cuts the connection of a responder while calls wait in the queue: they are handled, once.
func TestResponderConnectsAgain(t *testing.T) {
	ns := "t" + transport.NewID()
	c := dialed(t, amqpx.Options{Namespace: ns})
	cutter := newCutter()
	worker := dialed(t, amqpx.Options{Namespace: ns, Dial: cutter.dial})
	s, err := worker.Respond(t.Context(), "op", transport.Buffer(1))
	require.NoError(t, err)
	out := calling(t, c, "op", "out")
	d, err := s.Next(t.Context())
	require.NoError(t, err)
	waits := calling(t, c, "op", "waits")
	foreign, _ := bare(t)
	require.Eventually(t, func() bool {
		q, err := foreign.QueueDeclarePassive(c.CallQueue("op"), true, false, false, false, nil)
		return err == nil && q.Messages == 1
	}, 10*time.Second, 10*time.Millisecond)
	cutter.cut()
	requireError(t, answered(t, out).err, transport.CodeUnavailable, transport.ReasonOutcomeUnknown)
	require.Error(t, d.Ack(), "the reply of a lost connection")
	d, err = s.Next(t.Context())
	require.NoError(t, err)
	require.Equal(t, "waits", string(d.Body))
	require.NoError(t, d.Ack())
	require.NoError(t, answered(t, waits).err)
}

// TestCallWithoutConnection waits for a broker until its ctx ends: then nothing was sent.
func TestCallWithoutConnection(t *testing.T) {
	cutter := newCutter()
	var w watcher
	c := dialed(t, amqpx.Options{Dial: cutter.dial, OnState: w.see})
	require.Error(t, func() error {
		_, err := c.Call(t.Context(), &transport.Message{Topic: "op"})
		return err
	}())
	cutter.refuse(true)
	cutter.cut()
	waitFor(t, func() bool { // or the call is one that is cut off
		states := w.of("call")
		return !states[len(states)-1].Connected
	})
	waitFor(t, func() bool { // and who calls may notice later; nothing is sent either way
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := c.Call(ctx, &transport.Message{Topic: "op"})
		return assert.True(t, transport.Resendable(err, nil), "%v", err) && errors.Is(err, context.DeadlineExceeded)
	})
	cutter.refuse(false)
	s, err := c.Respond(t.Context(), "op")
	require.NoError(t, err)
	r := calling(t, c, "op", "")
	d, err := s.Next(t.Context())
	require.NoError(t, err)
	require.NoError(t, d.Ack())
	require.NoError(t, answered(t, r).err)
}

// TestCallHeaders sends headers whose places in an AMQP message a call needs for itself.
func TestCallHeaders(t *testing.T) {
	c := dialed(t, amqpx.Options{})
	s, err := c.Respond(t.Context(), "op")
	require.NoError(t, err)
	h := transport.Header{"reply-to": {"a.topic"}, "correlation-id": {"7"}, "ttl": {"60000"}, "type": {"t"},
		"priority": {"3"}, "delay": {"1"}, "many": {"a", "b"}, "x-intermodal-deadline": {"mine"}, "raw-bin": {"\x00\xff"}}
	done := make(chan result, 1)
	go func() {
		r, err := c.Call(t.Context(), &transport.Message{Topic: "op", Header: h})
		done <- result{r, err}
	}()
	d, err := s.Next(t.Context())
	require.NoError(t, err)
	require.Equal(t, h, d.Header)
	require.NoError(t, d.Settle(&transport.Message{ID: "the-reply", Header: h, Body: []byte("x")}, nil))
	r := answered(t, done)
	require.NoError(t, r.err)
	require.Equal(t, h, r.reply.Header)
	require.Equal(t, "the-reply", r.reply.ID)
	require.Empty(t, r.reply.Topic)
}

// TestCallSizes refuses what is too large at the first place that can tell.
func TestCallSizes(t *testing.T) {
	const limit = 10_000
	ns := "t" + transport.NewID()
	small := dialed(t, amqpx.Options{Namespace: ns, MaxBytes: limit})
	large := dialed(t, amqpx.Options{Namespace: ns})
	body := []byte(strings.Repeat("x", limit+1))
	s, err := small.Respond(t.Context(), "op")
	require.NoError(t, err)
	_, err = small.Call(t.Context(), &transport.Message{Topic: "op", Body: body})
	requireError(t, err, transport.CodeResourceExhausted, "")
	_, err = large.Call(t.Context(), &transport.Message{Topic: "op", Body: body})
	requireError(t, err, transport.CodeResourceExhausted, "")
	r := calling(t, large, "op", "reply too large to send")
	d, err := s.Next(t.Context())
	require.NoError(t, err)
	require.Error(t, d.Settle(&transport.Message{Body: body}, nil))
	requireError(t, answered(t, r).err, transport.CodeInternal, "")
	require.NoError(t, s.Close())
	s, err = large.Respond(t.Context(), "op")
	require.NoError(t, err)
	r = calling(t, small, "op", "reply too large to take")
	d, err = s.Next(t.Context())
	require.NoError(t, err)
	require.NoError(t, d.Settle(&transport.Message{Body: body}, nil))
	requireError(t, answered(t, r).err, transport.CodeResourceExhausted, "")
}

// TestCallContract runs a typed operation.
func TestCallContract(t *testing.T) {
	c := dialed(t, amqpx.Options{})
	type sum struct{ A, B int }
	add := transport.Operation[sum, int]{Topic: "math.add"}
	service, err := transport.Start(t.Context(), transport.Join(transport.Parts{Responder: c}),
		add.Bind(func(_ context.Context, in sum) (int, error) {
			if in.A < 0 {
				return 0, &transport.Error{Code: transport.CodeInvalidArgument, Reason: "NEGATIVE", Message: "A is negative"}
			}
			return in.A + in.B, nil
		}))
	require.NoError(t, err)
	got, err := add.Call(t.Context(), c, sum{2, 3})
	require.NoError(t, err)
	require.Equal(t, 5, got)
	_, err = add.Call(t.Context(), c, sum{-1, 0})
	requireError(t, err, transport.CodeInvalidArgument, "NEGATIVE")
	require.NoError(t, service.Shutdown(t.Context()))
}

// TestCallsEndWithClient ends a client with calls and a responder under way.
func TestCallsEndWithClient(t *testing.T) {
	ns := "t" + transport.NewID()
	c := dialed(t, amqpx.Options{Namespace: ns})
	worker := dialed(t, amqpx.Options{Namespace: ns})
	s, err := worker.Respond(t.Context(), "op")
	require.NoError(t, err)
	r := calling(t, c, "op", "")
	d, err := s.Next(t.Context())
	require.NoError(t, err)

	shut := make(chan error, 1)
	go func() { shut <- worker.Shutdown(t.Context()) }()
	_, err = s.Next(t.Context()) // io.EOF: the flow has stopped
	require.Error(t, err)
	require.NoError(t, d.Settle(&transport.Message{Body: []byte("in time")}, nil))
	require.NoError(t, <-shut)
	got := answered(t, r)
	require.NoError(t, got.err)
	require.Equal(t, "in time", string(got.reply.Body))

	foreign, _ := bare(t)
	_, err = foreign.QueueDeclare(c.CallQueue("op"), true, false, false, false, amqpx.CallArgs)
	require.NoError(t, err)
	r = calling(t, c, "op", "nobody takes it")
	require.Eventually(t, func() bool {
		q, err := foreign.QueueDeclarePassive(c.CallQueue("op"), true, false, false, false, nil)
		return err == nil && q.Messages == 1
	}, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, c.Close())
	requireError(t, answered(t, r).err, transport.CodeUnavailable, transport.ReasonOutcomeUnknown)
	_, err = c.Call(t.Context(), &transport.Message{Topic: "op"})
	requireError(t, err, transport.CodeUnavailable, transport.ReasonClosed)
}

// TestLastResponderEmptiesQueue closes the only responder while calls wait in the queue: they are told at once, and
// that they were not handled.
func TestLastResponderEmptiesQueue(t *testing.T) {
	c := dialed(t, amqpx.Options{})
	s, err := c.Respond(t.Context(), "op", transport.Buffer(1))
	require.NoError(t, err)
	first := calling(t, c, "op", "first")
	d, err := s.Next(t.Context())
	require.NoError(t, err)
	var rs []<-chan result
	for range 20 {
		rs = append(rs, calling(t, c, "op", "waits"))
	}
	foreign, _ := bare(t)
	require.Eventually(t, func() bool {
		q, err := foreign.QueueDeclarePassive(c.CallQueue("op"), true, false, false, false, nil)
		return err == nil && q.Messages == 20
	}, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, s.Close())
	for _, r := range rs {
		requireError(t, answered(t, r).err, transport.CodeUnavailable, transport.ReasonNotSent)
	}
	require.NoError(t, d.Ack())
	require.NoError(t, answered(t, first).err)
}
