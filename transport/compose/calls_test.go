package compose_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/compose"
	"github.com/intermodal-go/intermodal/transport/mem"
)

const topic = "orders.place"

// newBus returns a bus that is closed with the test.
func newBus(t testing.TB) *mem.Bus {
	bus := mem.New(nil)
	t.Cleanup(func() { bus.Close() })
	return bus
}

func newRequester(t testing.TB, p transport.Publisher, s transport.Subscriber, o *compose.RequesterOptions) *compose.Requester {
	r := compose.NewRequester(p, s, o)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func respond(t testing.TB, s transport.Subscriber, p transport.Publisher) transport.Subscription {
	t.Helper()
	sub, err := compose.NewResponder(s, p, nil).Respond(t.Context(), topic)
	require.NoError(t, err)
	t.Cleanup(func() { sub.Close() })
	return sub
}

func next(t testing.TB, sub transport.Subscription) *transport.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	d, err := sub.Next(ctx)
	require.NoError(t, err)
	return d
}

func nothing(t testing.TB, sub transport.Subscription) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := sub.Next(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

type result struct {
	reply *transport.Message
	err   error
}

func call(ctx context.Context, c transport.Caller, m *transport.Message) <-chan result {
	done := make(chan result, 1)
	go func() {
		reply, err := c.Call(ctx, m)
		done <- result{reply, err}
	}()
	return done
}

func request(body string) *transport.Message {
	return &transport.Message{Topic: topic, Body: []byte(body)}
}

func TestCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		sub := respond(t, bus, bus)
		m := &transport.Message{ID: "the-id", Topic: topic, Header: transport.Header{"k": {"v"}, "correlation-id": {"own"}}, Body: []byte("ping")}
		done := call(t.Context(), newRequester(t, bus, bus, nil), m)
		d := next(t, sub)
		require.Equal(t, m, d.Message, "the handler sees the request as it was")
		require.Equal(t, 1, d.Attempt)
		require.Empty(t, d.Cursor())
		ctx, cancel := d.Context(t.Context())
		deadline, ok := ctx.Deadline()
		require.True(t, ok)
		require.Equal(t, 30*time.Second, time.Until(deadline).Round(0))
		cancel()
		header := transport.Header{"l-bin": {"\xff"}, "ttl": {"nonsense"}, "delay": {"5000"}}
		require.NoError(t, d.Settle(&transport.Message{ID: "reply", Header: header, Body: []byte("pong")}, nil))
		r := <-done
		require.NoError(t, r.err)
		require.Equal(t, &transport.Message{ID: "reply", Header: header, Body: []byte("pong")}, r.reply)
		nothing(t, sub)
	})
}

func TestCallFailsWithTheWholeError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		sub := respond(t, bus, bus)
		done := call(t.Context(), newRequester(t, bus, bus, nil), request(""))
		e := transport.Error{Code: transport.CodeUnavailable, Reason: "BUSY", Message: "not now", RetryAfter: 1500 * time.Millisecond,
			Details: []transport.Detail{{Type: "t", Value: []byte{0xff}}}, Header: transport.Header{"content-type": {"x"}, "k": {"v"}}}
		local := e
		local.Cause = errors.New("secret")
		require.NoError(t, next(t, sub).Nack(&local))
		e.Remote = true
		require.Equal(t, &e, (<-done).err)
		nothing(t, sub) // a call is not redelivered
	})
}

func TestCallFixesTheID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		sub := respond(t, bus, bus)
		m := request("")
		done := call(t.Context(), newRequester(t, bus, bus, nil), m)
		d := next(t, sub)
		require.NoError(t, transport.CheckID(d.ID))
		require.NoError(t, d.Ack())
		require.NoError(t, (<-done).err)
		require.Equal(t, request(""), m)
	})
}

func TestCallsInAnyOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		sub := respond(t, bus, bus)
		r := newRequester(t, bus, bus, nil)
		bodies := []string{"a", "b", "c"}
		calls := map[string]<-chan result{}
		var out []*transport.Delivery
		for _, b := range bodies {
			m := request(b)
			m.ID = "the same"
			calls[b] = call(t.Context(), r, m)
			out = append(out, next(t, sub))
		}
		for i := len(out) - 1; i >= 0; i-- {
			require.NoError(t, out[i].Settle(&transport.Message{Body: out[i].Body}, nil))
		}
		for _, b := range bodies {
			require.Equal(t, b, string((<-calls[b]).reply.Body))
		}
	})
}

func TestCallEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		sub := respond(t, bus, bus)
		r := newRequester(t, bus, bus, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := call(ctx, r, request("late"))
		d := next(t, sub)
		cancel()
		require.Equal(t, context.Canceled, (<-done).err)
		require.NoError(t, d.Ack(), "the late reply is dropped")

		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := r.Call(ctx, request("nobody takes it"))
		require.Equal(t, context.DeadlineExceeded, err)

		done = call(t.Context(), r, request("next"))
		d = next(t, sub)
		require.Equal(t, "next", string(d.Body), "the one before has expired and is dropped unseen")
		require.NoError(t, d.Ack())
		require.NoError(t, (<-done).err)
	})
}

func TestCallTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		start := time.Now()
		_, err := newRequester(t, bus, bus, &compose.RequesterOptions{Timeout: time.Minute}).Call(t.Context(), request(""))
		require.Equal(t, time.Minute, time.Since(start))
		require.ErrorIs(t, err, transport.CodeDeadlineExceeded)
		var e *transport.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, transport.ReasonOutcomeUnknown, e.Reason)
	})
}

func TestCallHeedsTheDeadlineHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		m := request("")
		m.Header = transport.Header{}
		m.Header.SetDeadline(time.Now().Add(time.Second))
		start := time.Now()
		r := newRequester(t, bus, bus, nil)
		_, err := r.Call(t.Context(), m)
		require.Equal(t, context.DeadlineExceeded, err)
		require.Equal(t, time.Second, time.Since(start))
		m.Header.Set(transport.HeaderDeadline, "tomorrow")
		_, err = r.Call(t.Context(), m)
		require.ErrorIs(t, err, transport.CodeInvalidArgument)
	})
}

func TestCallChecksItsMessage(t *testing.T) {
	bus := newBus(t)
	r := newRequester(t, bus, bus, &compose.RequesterOptions{MaxBytes: 100})
	_, err := r.Call(t.Context(), nil)
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	_, err = r.Call(t.Context(), &transport.Message{Topic: "a..b"})
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	_, err = r.Call(t.Context(), request(strings.Repeat("x", 100)))
	require.ErrorIs(t, err, transport.CodeResourceExhausted)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = r.Call(ctx, request(""))
	require.Equal(t, context.Canceled, err)
}

func TestCallReturnsThePublishersError(t *testing.T) {
	bus := newBus(t)
	p := transport.Handler(func(context.Context, *transport.Message) (*transport.Message, error) {
		return nil, transport.CodePermissionDenied
	})
	_, err := newRequester(t, p, bus, nil).Call(t.Context(), request(""))
	require.Equal(t, transport.CodePermissionDenied, err)
}

func TestRequesterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		r := compose.NewRequester(bus, bus, nil)
		require.NoError(t, r.Close(), "before it was used")
		r = compose.NewRequester(bus, bus, nil)
		done := call(t.Context(), r, request(""))
		synctest.Wait()
		require.NoError(t, r.Close())
		requireReason(t, (<-done).err, transport.ReasonOutcomeUnknown)
		_, err := r.Call(t.Context(), request(""))
		requireReason(t, err, transport.ReasonClosed)
		require.NoError(t, r.Close())
	})
}

func requireReason(t *testing.T, err error, reason string) {
	t.Helper()
	require.ErrorIs(t, err, transport.CodeUnavailable)
	var e *transport.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, reason, e.Reason)
}

// subscriberFunc is a Subscriber.
type subscriberFunc func(context.Context, string, ...transport.SubscribeOption) (transport.Subscription, error)

func (f subscriberFunc) Subscribe(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	return f(ctx, topic, opts...)
}

func TestRequesterCloseBreaksOffSubscribing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := subscriberFunc(func(ctx context.Context, _ string, _ ...transport.SubscribeOption) (transport.Subscription, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		r := compose.NewRequester(newBus(t), s, nil)
		first := call(t.Context(), r, request(""))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := r.Call(ctx, request(""))
		require.Equal(t, context.DeadlineExceeded, err, "who waits for another's subscribing waits for its own ctx only")
		require.NoError(t, r.Close())
		requireReason(t, (<-first).err, transport.ReasonClosed)
	})
}

func TestRequesterSubscribesAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		var subs []transport.Subscription
		fail := errors.New("secret")
		s := subscriberFunc(func(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
			if fail != nil {
				return nil, fail
			}
			sub, err := bus.Subscribe(ctx, topic, opts...)
			subs = append(subs, sub)
			return sub, err
		})
		sub := respond(t, bus, bus)
		r := newRequester(t, bus, s, nil)
		_, err := r.Call(t.Context(), request(""))
		require.ErrorIs(t, err, fail)
		require.NotContains(t, transport.Public(err).Message, "secret")
		fail = nil
		done := call(t.Context(), r, request(""))
		d := next(t, sub)
		subs[0].Close()
		requireReason(t, (<-done).err, transport.ReasonOutcomeUnknown)
		require.NoError(t, d.Ack())
		done = call(t.Context(), r, request(""))
		require.NoError(t, next(t, sub).Ack())
		require.NoError(t, (<-done).err)
		require.Len(t, subs, 2, "one subscription for all calls")
	})
}

func TestEachCallGoesToOneResponder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		r := newRequester(t, bus, bus, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		seen := make(chan string, 100)
		for range 3 {
			sub := respond(t, bus, bus)
			wg.Go(func() {
				transport.Serve(ctx, sub, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
					seen <- string(m.Body)
					return m, nil
				})
			})
		}
		for range 20 {
			_, err := r.Call(t.Context(), request("x"))
			require.NoError(t, err)
		}
		require.Len(t, seen, 20)
		cancel()
		wg.Wait()
	})
}

func TestRequestsOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := newBus(t)
		sub := respond(t, bus, bus)
		replies, err := bus.Subscribe(t.Context(), "answers")
		require.NoError(t, err)
		defer replies.Close()

		require.NoError(t, bus.Publish(t.Context(), &transport.Message{ID: "1", Topic: topic, Header: transport.Header{"reply-to": {"answers"}}}))
		require.NoError(t, next(t, sub).Settle(&transport.Message{Body: []byte("yes")}, nil))
		d := next(t, replies)
		require.Equal(t, "yes", string(d.Body))
		require.Equal(t, "1", d.Header.Get("correlation-id"), "the ID stands in")
		require.NoError(t, d.Ack())

		require.NoError(t, bus.Publish(t.Context(), &transport.Message{Topic: topic, Header: transport.Header{"k": {"v"}}, Body: []byte("event")}))
		d = next(t, sub)
		require.Equal(t, "event", string(d.Body))
		ctx, cancel := d.Context(t.Context())
		require.NotEqual(t, t.Context(), ctx, "it is a call")
		cancel()
		require.NoError(t, d.Nack(io.EOF), "without reply-to the outcome is dropped")

		require.NoError(t, bus.Publish(t.Context(), &transport.Message{Topic: topic, Header: transport.Header{"reply-to": {"answers"}, "deadline": {"soon"}}}))
		require.NoError(t, bus.Publish(t.Context(), &transport.Message{Topic: topic, Header: transport.Header{"reply-to": {"no..topic"}}}))
		require.NoError(t, bus.Publish(t.Context(), &transport.Message{Topic: topic, Header: transport.Header{"deadline": {"soon"}}}))
		nothing(t, sub)
		d = next(t, replies)
		require.Equal(t, "invalid_argument", d.Header.Get("call-error"))
		require.NoError(t, d.Ack())
		nothing(t, replies)
	})
}

func TestARequestWhoseReplyIsNotPublishedComesAgain(t *testing.T) {
	for name, failure := range map[string]error{"unavailable": io.EOF, "denied": transport.CodePermissionDenied} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := newBus(t)
				var broken error
				p := transport.Handler(func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
					if broken != nil {
						return nil, broken
					}
					return nil, bus.Publish(ctx, m)
				})
				sub := respond(t, bus, p)
				done := call(t.Context(), newRequester(t, bus, bus, nil), request(""))
				d := next(t, sub)
				broken = failure
				err := d.Ack()
				require.ErrorIs(t, err, failure)
				require.ErrorIs(t, err, transport.CodeUnavailable)
				broken = nil
				d2 := next(t, sub)
				require.Equal(t, d.ID, d2.ID)
				require.Equal(t, 2, d2.Attempt)
				require.NoError(t, d2.Ack())
				require.NoError(t, (<-done).err)
			})
		})
	}
}

func TestAReplyThatCannotBeSent(t *testing.T) {
	for name, reply := range map[string]*transport.Message{
		"too large":      {Body: make([]byte, transport.DefaultMaxBytes+1)},
		"illegal header": {Header: transport.Header{"K": {"v"}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := newBus(t)
				sub := respond(t, bus, bus)
				r := newRequester(t, bus, bus, nil)
				done := call(t.Context(), r, request(""))
				require.Error(t, next(t, sub).Settle(reply, nil))
				require.Equal(t, &transport.Error{Code: transport.CodeInternal, Message: "the reply cannot be sent", Remote: true}, (<-done).err)

				done = call(t.Context(), r, request(""))
				require.Error(t, next(t, sub).Nack(transport.Errorf(transport.CodeNotFound, "%s", strings.Repeat("x", transport.DefaultMaxBytes))))
				require.Equal(t, &transport.Error{Code: transport.CodeNotFound, Remote: true}, (<-done).err)
				nothing(t, sub)
			})
		})
	}
}

func TestRespondRefusesOptions(t *testing.T) {
	bus := newBus(t)
	r := compose.NewResponder(bus, bus, nil)
	for _, opt := range []transport.SubscribeOption{transport.Group("g"), transport.From(transport.Oldest),
		transport.Require(transport.Ordered), transport.MaxAttempts(1), transport.Overflow(transport.DropOldest)} {
		_, err := r.Respond(t.Context(), topic, opt)
		require.Error(t, err)
	}
	_, err := r.Respond(t.Context(), "a..b")
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	sub, err := r.Respond(t.Context(), topic, transport.Buffer(1))
	require.NoError(t, err)
	require.Empty(t, sub.Cursor())
	require.NoError(t, sub.Close())
	_, err = sub.Next(t.Context())
	require.Equal(t, io.EOF, err)
}

func BenchmarkCall(b *testing.B) {
	bus := mem.New(nil)
	defer bus.Close()
	r := compose.NewRequester(bus, bus, nil)
	defer r.Close()
	sub, err := compose.NewResponder(bus, bus, nil).Respond(b.Context(), topic)
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() {
		done <- transport.Serve(ctx, sub, func(_ context.Context, m *transport.Message) (*transport.Message, error) { return m, nil })
	}()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Call(ctx, request("x")); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	<-done
}
