package transporttest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

// recorder is a TB that writes failures down.
type recorder struct {
	testing.TB
	mu     sync.Mutex
	failed bool
	text   strings.Builder
}

func (r *recorder) Helper()           {}
func (r *recorder) Fail()             { r.write(true, "") }
func (r *recorder) Error(args ...any) { r.write(true, fmt.Sprintln(args...)) }
func (r *recorder) Log(args ...any)   { r.write(false, fmt.Sprintln(args...)) }
func (r *recorder) Errorf(format string, args ...any) {
	r.write(true, fmt.Sprintf(format+"\n", args...))
}
func (r *recorder) Logf(format string, args ...any) {
	r.write(false, fmt.Sprintf(format+"\n", args...))
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorder) write(failed bool, s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = r.failed || failed
	r.text.WriteString(s)
}

// record runs a case in a bubble and returns whether it failed, and what it said.
func record(t *testing.T, tc testCase, newFixture func(testing.TB) Fixture) (failed bool, text string) {
	t.Helper()
	r := &recorder{}
	defer func() {
		if p := recover(); p != nil { // what the broken transport left behind
			t.Errorf("%s: %v", tc.name, p)
		}
		failed, text = r.failed, r.text.String()
	}()
	synctest.Test(t, func(t *testing.T) {
		r.TB = t
		tc.execute(r, newFixture, 10*time.Minute, true)
		time.Sleep(time.Hour) // goroutines that are leaked on purpose end before that
	})
	return
}

const everything = transport.AtLeastOnce | transport.Ordered | transport.Replay | transport.Groups |
	transport.DeadLetters | transport.Delays

// healthy is the fixture that is broken in one way by each self test.
func healthy(t testing.TB) Fixture {
	const history = 512
	bus := mem.New(&mem.Options{HistoryMessages: history})
	t.Cleanup(func() { bus.Close() })
	return Fixture{Sender: bus, Receiver: bus, Offers: everything, Retention: history, Peer: true, Synctest: true}
}

// breaks makes fixtures of a transport that is broken by b.
func breaks(b func(w *wrapper)) func(testing.TB) Fixture {
	return func(t testing.TB) Fixture {
		f := healthy(t)
		w := &wrapper{Transport: f.Sender, over: make(chan struct{})}
		t.Cleanup(func() { close(w.over) })
		b(w)
		f.Sender, f.Receiver = w, w
		return f
	}
}

// wrapper is a transport whose verbs can be replaced.
type wrapper struct {
	transport.Transport
	over chan struct{} // closed when the case is over: what hangs lets go then

	publish    func(ctx context.Context, m *transport.Message) error
	publishAll func(ctx context.Context, ms []*transport.Message) []error
	subscribe  func(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error)
	call       func(ctx context.Context, m *transport.Message) (*transport.Message, error)
	respond    func(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error)
	open       func(ctx context.Context, topic string, h transport.Header) (transport.Stream, error)
	accept     func(ctx context.Context, topic string) (transport.Listener, error)
}

func (w *wrapper) Publish(ctx context.Context, m *transport.Message) error {
	if w.publish == nil || m == nil {
		return w.Transport.Publish(ctx, m)
	}
	return w.publish(ctx, m)
}

func (w *wrapper) PublishAll(ctx context.Context, ms ...*transport.Message) []error {
	if w.publishAll != nil {
		return w.publishAll(ctx, ms)
	}
	errs := make([]error, len(ms))
	for i, m := range ms {
		errs[i] = w.Publish(ctx, m)
	}
	return errs
}

func (w *wrapper) Subscribe(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	o, err := transport.Resolve(everything, opts...)
	if w.subscribe == nil || err != nil {
		return w.Transport.Subscribe(ctx, topic, opts...)
	}
	return w.subscribe(ctx, topic, o)
}

func (w *wrapper) Call(ctx context.Context, m *transport.Message) (*transport.Message, error) {
	if w.call == nil || m == nil {
		return w.Transport.Call(ctx, m)
	}
	return w.call(ctx, m)
}

func (w *wrapper) Respond(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	if w.respond == nil {
		return w.Transport.Respond(ctx, topic, opts...)
	}
	return w.respond(ctx, topic, opts...)
}

func (w *wrapper) Open(ctx context.Context, topic string, h transport.Header) (transport.Stream, error) {
	if w.open == nil {
		return w.Transport.Open(ctx, topic, h)
	}
	return w.open(ctx, topic, h)
}

func (w *wrapper) Accept(ctx context.Context, topic string) (transport.Listener, error) {
	if w.accept == nil {
		return w.Transport.Accept(ctx, topic)
	}
	return w.accept(ctx, topic)
}

// The verbs of what is wrapped, by name.

func (w *wrapper) send(ctx context.Context, m *transport.Message) error {
	return w.Transport.Publish(ctx, m)
}

func (w *wrapper) sub(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
	return w.Transport.Subscribe(ctx, topic, o)
}

// What follows breaks one thing each.

// published changes what is published.
func published(f func(m *transport.Message)) func(*wrapper) {
	return func(w *wrapper) {
		w.publish = func(ctx context.Context, m *transport.Message) error {
			c := m.Clone()
			f(c)
			return w.send(ctx, c)
		}
	}
}

// requested changes what is called with.
func requested(f func(m *transport.Message)) func(*wrapper) {
	return func(w *wrapper) {
		w.call = func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			c := m.Clone()
			f(c)
			return w.Transport.Call(ctx, c)
		}
	}
}

// demanded changes what is demanded of a subscription.
func demanded(f func(o *transport.SubscribeOptions)) func(*wrapper) {
	return func(w *wrapper) {
		w.subscribe = func(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
			f(&o)
			return w.sub(ctx, topic, o)
		}
	}
}

// subscribed wraps subscriptions.
func subscribed(f func(w *wrapper, s transport.Subscription) transport.Subscription) func(*wrapper) {
	return func(w *wrapper) {
		w.subscribe = func(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
			s, err := w.sub(ctx, topic, o)
			if err != nil {
				return nil, err
			}
			return f(w, s), nil
		}
	}
}

// responded wraps responders' subscriptions.
func responded(f func(w *wrapper, s transport.Subscription) transport.Subscription) func(*wrapper) {
	return func(w *wrapper) {
		w.respond = func(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
			s, err := w.Transport.Respond(ctx, topic, opts...)
			if err != nil {
				return nil, err
			}
			return f(w, s), nil
		}
	}
}

// subscription is one whose methods can be replaced.
type subscription struct {
	transport.Subscription
	next   func(ctx context.Context) (*transport.Delivery, error)
	cursor func() string
	close  func() error
}

func (s *subscription) Next(ctx context.Context) (*transport.Delivery, error) {
	if s.next == nil {
		return s.Subscription.Next(ctx)
	}
	return s.next(ctx)
}

func (s *subscription) Cursor() string {
	if s.cursor == nil {
		return s.Subscription.Cursor()
	}
	return s.cursor()
}

func (s *subscription) Close() error {
	if s.close == nil {
		return s.Subscription.Close()
	}
	return s.close()
}

// source is the Source of a delivery that was made of another.
type source struct {
	d       *transport.Delivery
	settle  func(d *transport.Delivery, reply *transport.Message, err error) error
	cursor  func(d *transport.Delivery) string
	context func(d *transport.Delivery, parent context.Context) (context.Context, context.CancelFunc)
}

func (s *source) Settle(_ uint64, reply *transport.Message, err error) error {
	if s.settle == nil {
		return s.d.Settle(reply, err)
	}
	return s.settle(s.d, reply, err)
}

func (s *source) Cursor(uint64, *transport.Message) string {
	if s.cursor == nil {
		return s.d.Cursor()
	}
	return s.cursor(s.d)
}

func (s *source) Context(_ uint64, parent context.Context) (context.Context, context.CancelFunc) {
	if s.context == nil {
		return s.d.Context(parent)
	}
	return s.context(s.d, parent)
}

// delivering remakes each delivery of s.
func delivering(s transport.Subscription, f func(d *transport.Delivery) *transport.Delivery) transport.Subscription {
	return &subscription{Subscription: s, next: func(ctx context.Context) (*transport.Delivery, error) {
		d, err := s.Next(ctx)
		if err != nil {
			return nil, err
		}
		return f(d), nil
	}}
}

// remade is d with another source.
func remade(d *transport.Delivery, s *source) *transport.Delivery {
	s.d = d
	return transport.NewDelivery(s, 0, d.Message, d.Attempt, d.Missed)
}

// settled changes what events, or calls, are settled with.
func settled(wrap func(func(*wrapper, transport.Subscription) transport.Subscription) func(*wrapper),
	f func(reply *transport.Message, err error) (*transport.Message, error)) func(*wrapper) {
	return wrap(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return delivering(s, func(d *transport.Delivery) *transport.Delivery {
			return remade(d, &source{settle: func(d *transport.Delivery, reply *transport.Message, err error) error {
				return d.Settle(f(reply, err))
			}})
		})
	})
}

// nacked changes the errors that events are settled with.
func nacked(f func(err error) error) func(*wrapper) {
	return settled(subscribed, func(_ *transport.Message, err error) (*transport.Message, error) { return nil, f(err) })
}

// failed changes the public part of the errors that calls are settled with.
func failed(f func(e *transport.Error)) func(*wrapper) {
	return settled(responded, func(reply *transport.Message, err error) (*transport.Message, error) {
		e := transport.Public(err)
		if e == nil {
			return reply, nil
		}
		f(e)
		return nil, e
	})
}

// opened wraps the opening side of streams, accepted the accepting side.
func opened(f func(w *wrapper, s transport.Stream) transport.Stream) func(*wrapper) {
	return func(w *wrapper) {
		w.open = func(ctx context.Context, topic string, h transport.Header) (transport.Stream, error) {
			s, err := w.Transport.Open(ctx, topic, h)
			if err != nil {
				return nil, err
			}
			return f(w, s), nil
		}
	}
}

func accepted(f func(w *wrapper, in transport.Incoming) transport.Incoming) func(*wrapper) {
	return func(w *wrapper) {
		w.accept = func(ctx context.Context, topic string) (transport.Listener, error) {
			l, err := w.Transport.Accept(ctx, topic)
			if err != nil {
				return nil, err
			}
			return &listener{l, w, f}, nil
		}
	}
}

type listener struct {
	transport.Listener
	w *wrapper
	f func(w *wrapper, in transport.Incoming) transport.Incoming
}

func (l *listener) Next(ctx context.Context) (transport.Incoming, error) {
	in, err := l.Listener.Next(ctx)
	if err != nil {
		return nil, err
	}
	return l.f(l.w, in), nil
}

// stream and incoming are ends of a stream whose methods can be replaced.
type stream struct {
	transport.Stream
	send      func(m *transport.Message) error
	closeSend func() error
	recv      func() (*transport.Message, error)
	header    func() (transport.Header, error)
	trailer   func() transport.Header
	close     func() error
}

func (s *stream) Send(m *transport.Message) error {
	if s.send == nil {
		return s.Stream.Send(m)
	}
	return s.send(m)
}

func (s *stream) CloseSend() error {
	if s.closeSend == nil {
		return s.Stream.CloseSend()
	}
	return s.closeSend()
}

func (s *stream) Recv() (*transport.Message, error) {
	if s.recv == nil {
		return s.Stream.Recv()
	}
	return s.recv()
}

func (s *stream) Header() (transport.Header, error) {
	if s.header == nil {
		return s.Stream.Header()
	}
	return s.header()
}

func (s *stream) Trailer() transport.Header {
	if s.trailer == nil {
		return s.Stream.Trailer()
	}
	return s.trailer()
}

func (s *stream) Close() error {
	if s.close == nil {
		return s.Stream.Close()
	}
	return s.close()
}

type incoming struct {
	transport.Incoming
	ctx       context.Context
	send      func(m *transport.Message) error
	setHeader func(h transport.Header) error
	end       func(err error) error
}

func (in *incoming) Context() context.Context {
	if in.ctx == nil {
		return in.Incoming.Context()
	}
	return in.ctx
}

func (in *incoming) Send(m *transport.Message) error {
	if in.send == nil {
		return in.Incoming.Send(m)
	}
	return in.send(m)
}

func (in *incoming) SetHeader(h transport.Header) error {
	if in.setHeader == nil {
		return in.Incoming.SetHeader(h)
	}
	return in.setHeader(h)
}

func (in *incoming) End(err error) error {
	if in.end == nil {
		return in.Incoming.End(err)
	}
	return in.end(err)
}
