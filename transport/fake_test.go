package transport_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"

	"github.com/intermodal-go/intermodal/transport"
)

// A queue hands out what is put into it, in order, and ends when told. It is what the fakes below have in common.
type queue[T any] struct {
	mu     sync.Mutex
	items  []T
	closed int
	err    error         // after the last item
	wake   chan struct{} // closed at every change
}

func (q *queue[T]) change(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f()
	if q.wake != nil {
		close(q.wake)
		q.wake = nil
	}
}

func (q *queue[T]) put(v T) { q.change(func() { q.items = append(q.items, v) }) }

// end ends the queue after its last item.
func (q *queue[T]) end(err error) { q.change(func() { q.err = err }) }

func (q *queue[T]) next(ctx context.Context) (v T, err error) {
	for {
		q.mu.Lock()
		switch {
		case ctx.Err() != nil:
			q.mu.Unlock()
			return v, ctx.Err()
		case q.closed > 0:
			q.mu.Unlock()
			return v, io.EOF
		case len(q.items) > 0:
			v = q.items[0]
			q.items = q.items[1:]
			q.mu.Unlock()
			return v, nil
		case q.err != nil:
			q.mu.Unlock()
			return v, q.err
		}
		if q.wake == nil {
			q.wake = make(chan struct{})
		}
		wake := q.wake
		q.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
		}
	}
}

func (q *queue[T]) Close() error {
	q.change(func() { q.closed++ })
	return nil
}

func (q *queue[T]) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed > 0
}

// settled is what became of one delivery.
type settled struct {
	m     *transport.Message
	reply *transport.Message
	err   error
}

func (s settled) String() string {
	if s.err != nil {
		return fmt.Sprintf("%s %s", s.m.Body, transport.CodeOf(s.err))
	}
	return fmt.Sprintf("%s ok", s.m.Body)
}

// sub is a Subscription that hands out what a test pushes and keeps how that is settled.
type sub struct {
	queue[*transport.Delivery]
	token     uint64
	out       map[uint64]*transport.Message
	calls     map[uint64]context.Context
	settles   []settled
	settleErr error                    // what Settle returns
	onSettle  func(*transport.Message) // before it is recorded
}

// newSub returns a subscription with one message for each body.
func newSub(bodies ...string) *sub {
	s := &sub{out: map[uint64]*transport.Message{}, calls: map[uint64]context.Context{}}
	for _, b := range bodies {
		s.push(b)
	}
	return s
}

func (s *sub) push(body string) *transport.Message { return s.pushCall(body, nil) }

// pushCall pushes a call that has the deadline, cancellation and values of ctx.
func (s *sub) pushCall(body string, ctx context.Context) *transport.Message {
	s.mu.Lock()
	s.token++
	token := s.token
	m := &transport.Message{ID: fmt.Sprintf("id-%d", token), Topic: "topic", Body: []byte(body)}
	s.out[token] = m
	if ctx != nil {
		s.calls[token] = ctx
	}
	s.mu.Unlock()
	s.put(transport.NewDelivery(source{s}, token, m, 1, 0))
	return m
}

func (s *sub) Next(ctx context.Context) (*transport.Delivery, error) { return s.next(ctx) }

func (s *sub) Cursor() string { return "" }

func (s *sub) Settle(token uint64, reply *transport.Message, err error) error {
	s.mu.Lock()
	m, hook := s.out[token], s.onSettle
	s.mu.Unlock()
	if hook != nil {
		hook(m)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settles = append(s.settles, settled{m, reply, err})
	return s.settleErr
}

// source is a sub as the Source of its deliveries: a Source's Cursor has other arguments than a Subscription's.
type source struct{ *sub }

func (s source) Cursor(token uint64, m *transport.Message) string {
	return fmt.Sprintf("cursor-%d", token)
}

func (s *sub) Context(token uint64, parent context.Context) (context.Context, context.CancelFunc) {
	s.mu.Lock()
	call := s.calls[token]
	s.mu.Unlock()
	if call == nil {
		return parent, func() {}
	}
	ctx, cancel := context.WithCancel(parent)
	if p, ok := transport.PeerFrom(call); ok {
		ctx = transport.WithPeer(ctx, p)
	}
	stop := context.AfterFunc(call, cancel)
	return ctx, func() { stop(); cancel() }
}

// all returns what was settled, in order.
func (s *sub) all() []settled {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]settled(nil), s.settles...)
}

// results returns the bodies of what was settled with their codes, in order.
func (s *sub) results() []string {
	var r []string
	for _, st := range s.all() {
		r = append(r, st.String())
	}
	return r
}

// listener is a Listener that hands out what a test puts into it.
type listener struct{ queue[transport.Incoming] }

func (l *listener) Next(ctx context.Context) (transport.Incoming, error) { return l.next(ctx) }

// line is both sides of a stream without flow control.
type line struct {
	ctx              context.Context
	cancel           context.CancelFunc
	topic            string
	header           transport.Header
	toOpener         queue[*transport.Message]
	toAcceptor       queue[*transport.Message]
	once             sync.Once
	mu               sync.Mutex
	ended            bool
	end              error // what the acceptor ended it with
	endErr           error // what End returns
	headers, trailer transport.Header
}

// newLine returns a stream whose acceptor has a context with the values and the life of ctx.
func newLine(ctx context.Context, topic string, h transport.Header) *line {
	l := &line{topic: topic, header: h, headers: transport.Header{}, trailer: transport.Header{}}
	l.ctx, l.cancel = context.WithCancel(ctx)
	return l
}

// result returns what the acceptor ended the stream with, and whether it did.
func (l *line) result() (error, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end, l.ended
}

type openerSide struct{ *line }

func (s openerSide) Send(m *transport.Message) error {
	if _, ended := s.result(); ended {
		return io.EOF
	}
	s.toAcceptor.put(m)
	return nil
}

func (s openerSide) CloseSend() error { s.toAcceptor.end(io.EOF); return nil }

func (s openerSide) Recv() (*transport.Message, error) { return s.toOpener.next(context.Background()) }

func (s openerSide) Header() (transport.Header, error) { return s.headers, nil }

func (s openerSide) Trailer() transport.Header { return s.trailer }

func (s openerSide) Close() error {
	s.cancel()
	s.toAcceptor.end(transport.CodeCanceled)
	s.toOpener.end(transport.CodeCanceled)
	return nil
}

type acceptorSide struct{ *line }

func (s acceptorSide) Context() context.Context { return s.ctx }

func (s acceptorSide) Topic() string { return s.topic }

func (s acceptorSide) Header() transport.Header { return s.header }

func (s acceptorSide) Send(m *transport.Message) error { s.toOpener.put(m); return nil }

func (s acceptorSide) Recv() (*transport.Message, error) { return s.toAcceptor.next(s.ctx) }

func (s acceptorSide) SetHeader(h transport.Header) error { maps.Copy(s.headers, h); return nil }

func (s acceptorSide) SetTrailer(h transport.Header) { maps.Copy(s.trailer, h) }

func (s acceptorSide) End(err error) error {
	s.once.Do(func() {
		s.mu.Lock()
		s.ended, s.end = true, err
		s.mu.Unlock()
		if p := transport.Public(err); p != nil {
			s.toOpener.end(p)
		} else {
			s.toOpener.end(io.EOF)
		}
	})
	if s.endErr == nil {
		s.cancel()
	}
	return s.endErr
}

// reports is an OnError that keeps what it is told.
type reports struct {
	mu  sync.Mutex
	got []report
}

type report struct {
	m   *transport.Message
	err error
}

func (r *reports) add(m *transport.Message, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, report{m, err})
}

func (r *reports) all() []report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]report(nil), r.got...)
}

// fake is a Transport that keeps what it is asked and answers with what the test gave it.
type fake struct {
	mu       sync.Mutex
	asked    []string
	err      map[string]error // by "verb topic"
	subs     map[string]*sub  // by topic, also of calls
	listener map[string]*listener
	options  transport.SubscribeOptions // of the last Subscribe or Respond
	health   error
}

func (f *fake) ask(verb, topic string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, verb+" "+topic)
	return f.err[verb+" "+topic]
}

func (f *fake) log() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

func (f *fake) Publish(_ context.Context, m *transport.Message) error {
	return f.ask("publish", m.Topic)
}

func (f *fake) Call(_ context.Context, m *transport.Message) (*transport.Message, error) {
	if err := f.ask("call", m.Topic); err != nil {
		return nil, err
	}
	return &transport.Message{Body: []byte("reply")}, nil
}

func (f *fake) receive(verb, topic string, opts []transport.SubscribeOption) (transport.Subscription, error) {
	if err := f.ask(verb, topic); err != nil {
		return nil, err
	}
	o, err := transport.Resolve(^transport.Feature(0), opts...)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.options = o
	if f.subs == nil {
		f.subs = map[string]*sub{}
	}
	if f.subs[topic] == nil {
		f.subs[topic] = newSub()
	}
	return f.subs[topic], nil
}

func (f *fake) Subscribe(_ context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	return f.receive("subscribe", topic, opts)
}

func (f *fake) Respond(_ context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	return f.receive("respond", topic, opts)
}

func (f *fake) Open(_ context.Context, topic string, h transport.Header) (transport.Stream, error) {
	if err := f.ask("open", topic); err != nil {
		return nil, err
	}
	return openerSide{&line{topic: topic, header: h}}, nil
}

func (f *fake) Accept(_ context.Context, topic string) (transport.Listener, error) {
	if err := f.ask("accept", topic); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listener == nil {
		f.listener = map[string]*listener{}
	}
	if f.listener[topic] == nil {
		f.listener[topic] = &listener{}
	}
	return f.listener[topic], nil
}

func (f *fake) Health(context.Context) error { return f.health }

// batcher is a fake with a fast path for many messages.
type batcher struct{ *fake }

func (b batcher) PublishAll(_ context.Context, ms ...*transport.Message) []error {
	var topics []string
	for _, m := range ms {
		topics = append(topics, m.Topic)
	}
	b.ask("publish all", strings.Join(topics, ","))
	errs := make([]error, len(ms))
	for i, m := range ms {
		errs[i] = b.err["publish "+m.Topic]
	}
	return errs
}
