package transporttest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/transporttest/leak"
)

// env is one run of one case. It is the TB that the fixture and the assertions see: cleanups run, and the context
// ends, before the leak check, and FailNow may be called from any goroutine.
type env struct {
	testing.TB
	Fixture
	group  string // non-empty: every subscription joins this group
	bubble bool
	fresh  func(testing.TB) Fixture // makes another fixture
	ctx    context.Context          // ends with the case; no deadline
	cancel context.CancelFunc
	topics int
	id     string

	mu       sync.Mutex
	cleanups []func()
	over     bool
}

// execute runs the case and reports to tb.
func (tc *testCase) execute(tb testing.TB, newFixture func(testing.TB) Fixture, limit time.Duration, bubble bool) {
	tb.Helper()
	before := leak.Goroutines()
	c := &env{TB: tb, bubble: bubble, fresh: newFixture, id: transport.NewID()}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if tc.group {
		c.group = "workers"
	}
	c.limited(tc.name, limit, func() {
		c.Fixture = newFixture(c)
		c.setDefaults(bubble)
		tc.run(c)
	})
	c.cancel()
	c.limited("closing after "+tc.name, limit/4, c.cleanup)
	if left := leak.Since(before, 2*time.Second); left != "" {
		c.Errorf("%s: goroutines left behind:\n%s", tc.name, left)
	}
	if c.Failed() {
		c.Logf("%s: the rule: %s", tc.name, tc.rule)
	}
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
}

// limited runs f in a goroutine for at most limit. A panic is a failure.
func (c *env) limited(what string, limit time.Duration, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				c.Errorf("%s: panic: %v\n%s", what, p, debug.Stack())
			}
		}()
		f()
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		c.Errorf("%s: not done after %v:\n%s", what, limit, leak.Stacks())
	}
}

func (c *env) cleanup() {
	for {
		c.mu.Lock()
		n := len(c.cleanups)
		if n == 0 {
			c.mu.Unlock()
			return
		}
		f := c.cleanups[n-1]
		c.cleanups = c.cleanups[:n-1]
		c.mu.Unlock()
		f()
	}
}

// Cleanup, Context and the failing methods are testing.TB's.

func (c *env) Cleanup(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cleanups = append(c.cleanups, f)
}

func (c *env) Context() context.Context { return c.ctx }

// live calls f unless the case is over: what is left of a case that hung must not speak up later.
func (c *env) live(f func()) {
	c.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		f()
	}
}

func (c *env) Fail()             { c.live(c.TB.Fail) }
func (c *env) Error(args ...any) { c.Helper(); c.live(func() { c.Helper(); c.TB.Error(args...) }) }
func (c *env) Log(args ...any)   { c.Helper(); c.live(func() { c.Helper(); c.TB.Log(args...) }) }
func (c *env) Errorf(format string, args ...any) {
	c.Helper()
	c.live(func() { c.Helper(); c.TB.Errorf(format, args...) })
}
func (c *env) Logf(format string, args ...any) {
	c.Helper()
	c.live(func() { c.Helper(); c.TB.Logf(format, args...) })
}
func (c *env) FailNow()          { c.Fail(); runtime.Goexit() }
func (c *env) Fatal(args ...any) { c.Helper(); c.Error(args...); runtime.Goexit() }
func (c *env) Fatalf(format string, args ...any) {
	c.Helper()
	c.Errorf(format, args...)
	runtime.Goexit()
}

// What follows is the vocabulary of the cases.

// topic returns a topic that nobody else uses.
func (c *env) topic() string {
	c.topics++
	return fmt.Sprintf("test.%s.%d", c.id, c.topics)
}

// patient returns a context for one operation that must succeed.
func (c *env) patient() (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.ctx, c.Patience)
}

// subscribe subscribes, in the group where the case runs in one.
func (c *env) subscribe(topic string, opts ...transport.SubscribeOption) transport.Subscription {
	c.Helper()
	if c.group != "" {
		opts = append([]transport.SubscribeOption{transport.Group(c.group)}, opts...)
	}
	return c.broadcast(topic, opts...)
}

// broadcast subscribes, outside of the group too.
func (c *env) broadcast(topic string, opts ...transport.SubscribeOption) transport.Subscription {
	c.Helper()
	ctx, cancel := c.patient()
	defer cancel()
	s, err := c.Receiver.Subscribe(ctx, topic, opts...)
	return c.opened(s, err, "Subscribe %q", topic)
}

func (c *env) respond(topic string, opts ...transport.SubscribeOption) transport.Subscription {
	c.Helper()
	ctx, cancel := c.patient()
	defer cancel()
	s, err := c.Receiver.Respond(ctx, topic, opts...)
	return c.opened(s, err, "Respond %q", topic)
}

func (c *env) opened(s transport.Subscription, err error, what ...any) transport.Subscription {
	c.Helper()
	require.NoError(c, err, what...)
	require.NotNil(c, s, what...)
	c.Cleanup(func() { s.Close() })
	return s
}

func (c *env) accept(topic string) transport.Listener {
	c.Helper()
	ctx, cancel := c.patient()
	defer cancel()
	l, err := c.Receiver.Accept(ctx, topic)
	require.NoError(c, err, "Accept %q", topic)
	require.NotNil(c, l)
	c.Cleanup(func() { l.Close() })
	return l
}

// publish publishes bodies one after the other.
func (c *env) publish(topic string, bodies ...string) {
	c.Helper()
	for _, b := range bodies {
		c.send(&transport.Message{Topic: topic, Body: []byte(b)})
	}
}

func (c *env) send(m *transport.Message) {
	c.Helper()
	ctx, cancel := c.patient()
	defer cancel()
	require.NoError(c, c.Sender.Publish(ctx, m), "Publish to %q", m.Topic)
}

// next returns the next delivery, which must come.
func (c *env) next(s transport.Subscription) *transport.Delivery {
	c.Helper()
	ctx, cancel := c.patient()
	defer cancel()
	d, err := s.Next(ctx)
	require.NoError(c, err, "Next")
	require.NotNil(c, d, "Next returned neither a delivery nor an error")
	require.NotNil(c, d.Message, "the delivery has no message")
	return d
}

// expect returns the next delivery, which must have this body.
func (c *env) expect(s transport.Subscription, body string) *transport.Delivery {
	c.Helper()
	d := c.next(s)
	require.Equal(c, body, string(d.Body), "the body of the next delivery")
	return d
}

// take acknowledges the next n deliveries and returns their bodies.
func (c *env) take(s transport.Subscription, n int) []string {
	c.Helper()
	bodies := make([]string, n)
	for i := range bodies {
		d := c.next(s)
		bodies[i] = string(d.Body)
		c.ack(d)
	}
	return bodies
}

// nothing checks that no delivery comes.
func (c *env) nothing(s transport.Subscription) {
	c.Helper()
	c.nothingFor(s, c.Quiet)
}

func (c *env) nothingFor(s transport.Subscription, wait time.Duration) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, wait)
	defer cancel()
	d, err := s.Next(ctx)
	if err == nil {
		require.NotNil(c, d, "Next returned neither a delivery nor an error")
		c.Fatalf("unexpected delivery: body %.80q, attempt %d, topic %q", d.Body, d.Attempt, d.Topic)
	}
	require.ErrorIs(c, err, context.DeadlineExceeded, "Next returns the error of its ctx")
}

func (c *env) ack(d *transport.Delivery) {
	c.Helper()
	require.NoError(c, d.Ack(), "Ack")
}

func (c *env) nack(d *transport.Delivery, err error) {
	c.Helper()
	require.NoError(c, d.Nack(err), "Nack")
}

// reply settles a call. A caller that is gone may be an error.
func (c *env) reply(d *transport.Delivery, body string) {
	c.Helper()
	require.NoError(c, d.Settle(&transport.Message{Body: []byte(body)}, nil), "the reply")
}

// again asks for redelivery after wait.
func again(wait time.Duration) error {
	return &transport.Error{Code: transport.CodeUnavailable, Message: "again", RetryAfter: wait}
}

// call calls and returns the reply, which must come.
func (c *env) call(topic, body string) *transport.Message {
	c.Helper()
	return c.request(&transport.Message{Topic: topic, Body: []byte(body)})
}

func (c *env) request(m *transport.Message) *transport.Message {
	c.Helper()
	ctx, cancel := c.patient()
	defer cancel()
	r, err := c.Sender.Call(ctx, m)
	require.NoError(c, err, "Call %q", m.Topic)
	require.NotNil(c, r, "the reply is nil and so is the error")
	return r
}

// A result is what a Call returned.
type result struct {
	reply *transport.Message
	err   error
}

// calling calls in the background. The ctx of the call ends with the case.
func (c *env) calling(ctx context.Context, topic, body string) <-chan result {
	return async(func() (r result) {
		r.reply, r.err = c.Sender.Call(ctx, &transport.Message{Topic: topic, Body: []byte(body)})
		return r
	})
}

// async runs f in the background. Its result waits in the channel.
func async[T any](f func() T) <-chan T {
	done := make(chan T, 1)
	go func() { done <- f() }()
	return done
}

// await returns what comes out of ch, which must come.
func await[T any](c *env, ch <-chan T, what string) T {
	c.Helper()
	t := time.NewTimer(c.Patience)
	defer t.Stop()
	select {
	case v := <-ch:
		return v
	case <-t.C:
		c.Fatalf("%s: not done after %v", what, c.Patience)
		panic("unreachable")
	}
}

// pending checks that ch stays silent.
func pending[T any](c *env, ch <-chan T, what string) {
	c.Helper()
	t := time.NewTimer(c.Quiet)
	defer t.Stop()
	select {
	case <-ch:
		c.Fatalf("%s: done too early", what)
	case <-t.C:
	}
}

// ignoreErrors keeps what handlers do on purpose out of the log.
var ignoreErrors = transport.OnError(func(*transport.Message, error) {})

// serve runs Serve in the background until the case is over.
func (c *env) serve(s transport.Subscription, h transport.Handler, opts ...transport.ServeOption) {
	opts = append([]transport.ServeOption{ignoreErrors}, opts...)
	done := async(func() error { return transport.Serve(c.ctx, s, h, opts...) })
	c.Cleanup(func() { c.cancel(); <-done })
}

// serveStreams runs ServeStreams in the background until the case is over.
func (c *env) serveStreams(l transport.Listener, h transport.StreamHandler) {
	done := async(func() error {
		return transport.ServeStreams(c.ctx, l, h, ignoreErrors)
	})
	c.Cleanup(func() { c.cancel(); <-done })
}

// echo serves calls to topic with their own body and header.
func (c *env) echo(topic string) {
	c.serve(c.respond(topic), func(_ context.Context, m *transport.Message) (*transport.Message, error) {
		return &transport.Message{Header: m.Header, Body: m.Body}, nil
	}, transport.Workers(8))
}

// atOnce checks that f takes no longer than Latency.
func (c *env) atOnce(what string, f func()) {
	c.Helper()
	start := time.Now()
	f()
	require.LessOrEqual(c, time.Since(start), c.Latency, "%s must happen at once", what)
}

// code checks that err has this Code.
func (c *env) code(err error, code transport.Code) {
	c.Helper()
	require.Error(c, err)
	require.Equal(c, code.String(), transport.CodeOf(err).String(), "the error is: %v", err)
}

// unsupported reports whether a demand was refused as not offered.
func unsupported(err error) bool { return errors.Is(err, errors.ErrUnsupported) }

// same checks bodies: in order where order can be required, which the subscription must have done.
func (c *env) same(want, got []string) {
	c.Helper()
	if c.offers(transport.Ordered) {
		require.Equal(c, want, got)
	} else {
		require.ElementsMatch(c, want, got)
	}
}

// inOrder requires order where it is offered.
func (c *env) inOrder() transport.SubscribeOption {
	return transport.Require(c.Offers & transport.Ordered)
}

// calm lets what was published reach whoever is subscribed, so that it is history for who comes next: what is still on
// its way may be seen by both.
func (c *env) calm() { time.Sleep(c.Quiet) }

// numbers returns the decimal numbers from first to last.
func numbers(first, last int) []string {
	var s []string
	for i := first; i <= last; i++ {
		s = append(s, fmt.Sprint(i))
	}
	return s
}

// collect is a handler that passes bodies on.
func collect(bodies chan<- string) transport.Handler {
	return transport.NoReply(func(ctx context.Context, m *transport.Message) error {
		select {
		case bodies <- string(m.Body):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}
