package mem

import (
	"context"
	"io"
	"maps"
	"sync"

	"github.com/intermodal-go/intermodal/transport"
)

// streamWindow is how many items each direction of a stream holds before Send blocks.
const streamWindow = 16

// A stream is both ends of one: the opener has it as an opened, the acceptor as an accepted. Channels of items are
// never closed; closed says that no more will come, so that a Send beside a close cannot panic.
type stream struct {
	bus    *Bus
	topic  string
	header transport.Header // the opener's

	ctx    context.Context // of the acceptor: no values but the Peer
	cancel context.CancelFunc
	unhook func() bool // from the opener's ctx

	up, down direction
	opened   chan struct{} // closed when the acceptor's header is final
	ended    chan struct{} // closed when the acceptor has ended the stream
	over     chan struct{} // closed when either has, or the opener's ctx

	mu      sync.Mutex
	reply   transport.Header // the acceptor's
	trailer transport.Header
	status  error // how the acceptor ended it: nil is io.EOF
	cause   error // why it was cut off, if it was
}

// A direction is one half of a stream.
type direction struct {
	items  chan *transport.Message
	once   sync.Once
	closed chan struct{}
}

func newDirection() direction {
	return direction{items: make(chan *transport.Message, streamWindow), closed: make(chan struct{})}
}

func (d *direction) close() { d.once.Do(func() { close(d.closed) }) }

// Open hands a stream to a listener of topic. Without one it is CodeUnavailable at once.
func (b *Bus) Open(ctx context.Context, topic string, h transport.Header) (transport.Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t, err := b.topic(topic, false, transport.CodeUnimplemented)
	if err != nil {
		return nil, err
	}
	if err := h.Check(); err != nil {
		return nil, err
	}
	if t == nil {
		return nil, errNobody
	}
	s := &stream{bus: b, topic: topic, header: h, up: newDirection(), down: newDirection(),
		opened: make(chan struct{}), ended: make(chan struct{}), over: make(chan struct{})}
	base := context.Background()
	if p, ok := transport.PeerFrom(ctx); ok {
		base = transport.WithPeer(base, p)
	}
	if d, ok := ctx.Deadline(); ok {
		s.ctx, s.cancel = context.WithDeadline(base, d)
	} else {
		s.ctx, s.cancel = context.WithCancel(base)
	}
	b.active.Add(1)
	s.mu.Lock() // the function may run at once
	s.unhook = context.AfterFunc(ctx, func() { s.cut(ctx.Err()) })
	s.mu.Unlock()
	if err := t.streams.push(s); err != nil {
		s.cut(err)
		return nil, err
	}
	return opener{s}, nil
}

// Accept takes streams for topic.
func (b *Bus) Accept(ctx context.Context, name string) (transport.Listener, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := receive(b, name, 0, func(t *topic) *queue[*stream] { return &t.streams })
	if err != nil {
		return nil, err
	}
	return listener{r}, nil
}

type listener struct{ r *receiver[*stream] }

func (l listener) Next(ctx context.Context) (transport.Incoming, error) {
	s, err := l.r.next(ctx, func(s *stream) bool { return !isClosed(s.over) })
	if err != nil {
		return nil, err
	}
	return incoming{s}, nil
}

// Close stops taking streams. If it was the last listener, streams that nobody took fail with CodeUnavailable.
func (l listener) Close() error {
	for _, s := range l.r.close() {
		s.refuse(errNobody)
	}
	return nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// finish ends the stream with the acceptor's status, or because it was cut off. The first call counts.
func (s *stream) finish(status, cause error) bool {
	s.mu.Lock()
	if isClosed(s.over) {
		s.mu.Unlock()
		return false
	}
	s.status, s.cause = status, cause
	if cause == nil {
		close(s.ended)
	}
	close(s.over)
	s.openHeader()
	s.mu.Unlock()
	s.cancel()
	s.unhook()
	s.bus.active.Add(-1)
	return true
}

func (s *stream) cut(cause error)  { s.finish(nil, cause) }
func (s *stream) refuse(err error) { s.finish(transport.Public(err), nil) }

// openHeader makes the acceptor's header final. Under mu.
func (s *stream) openHeader() {
	if !isClosed(s.opened) {
		close(s.opened)
	}
}

// send puts m into d unless that was closed or the stream is over.
func (s *stream) send(d *direction, m *transport.Message) error {
	if err := m.Check(s.bus.o.MaxBytes); err != nil {
		return err
	}
	switch {
	case isClosed(s.over):
		return s.sendError()
	case isClosed(d.closed):
		return transport.Errorf(transport.CodeFailedPrecondition, "this side of the stream is closed")
	}
	m.Topic = ""
	select {
	case d.items <- m:
		return nil
	case <-s.over:
		return s.sendError()
	}
}

func (s *stream) sendError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil {
		return s.cause
	}
	return io.EOF
}

// recv takes from d: all items that were sent, then end() once no more will come.
func (s *stream) recv(d *direction, none <-chan struct{}, end func() error) (*transport.Message, error) {
	select {
	case m := <-d.items:
		return m, nil
	default:
	}
	select {
	case m := <-d.items:
		return m, nil
	case <-none:
	case <-s.over:
	}
	s.mu.Lock()
	cause := s.cause
	s.mu.Unlock()
	if cause != nil {
		return nil, cause
	}
	select {
	case m := <-d.items: // sent before the end, which came at the same time
		return m, nil
	default:
		return nil, end()
	}
}

// An opener is the opening end.
type opener struct{ s *stream }

func (o opener) Send(m *transport.Message) error { return o.s.send(&o.s.up, m) }

func (o opener) CloseSend() error {
	o.s.up.close()
	return nil
}

func (o opener) Recv() (*transport.Message, error) {
	return o.s.recv(&o.s.down, o.s.ended, func() error {
		o.s.mu.Lock()
		defer o.s.mu.Unlock()
		if o.s.status != nil {
			return o.s.status
		}
		return io.EOF
	})
}

func (o opener) Header() (transport.Header, error) {
	<-o.s.opened
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	if o.s.cause != nil && o.s.reply == nil {
		return nil, o.s.cause
	}
	return o.s.reply, nil
}

func (o opener) Trailer() transport.Header {
	if !isClosed(o.s.ended) || len(o.s.down.items) > 0 {
		return nil
	}
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	return o.s.trailer
}

func (o opener) Close() error {
	o.s.cut(transport.Errorf(transport.CodeCanceled, "the stream was closed"))
	return nil
}

// An incoming is the accepting end.
type incoming struct{ s *stream }

func (i incoming) Context() context.Context { return i.s.ctx }
func (i incoming) Topic() string            { return i.s.topic }
func (i incoming) Header() transport.Header { return i.s.header }

func (i incoming) Send(m *transport.Message) error {
	i.s.mu.Lock()
	i.s.openHeader()
	i.s.mu.Unlock()
	err := i.s.send(&i.s.down, m)
	if err == io.EOF {
		return transport.Errorf(transport.CodeFailedPrecondition, "the stream was ended")
	}
	return err
}

func (i incoming) Recv() (*transport.Message, error) {
	return i.s.recv(&i.s.up, i.s.up.closed, func() error {
		if isClosed(i.s.ended) {
			return transport.Errorf(transport.CodeFailedPrecondition, "the stream was ended")
		}
		return io.EOF
	})
}

func (i incoming) SetHeader(h transport.Header) error {
	if err := h.Check(); err != nil {
		return err
	}
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	if isClosed(i.s.opened) {
		return transport.Errorf(transport.CodeFailedPrecondition, "the header has been sent")
	}
	add(&i.s.reply, h)
	return nil
}

func (i incoming) SetTrailer(h transport.Header) {
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	if !isClosed(i.s.over) {
		add(&i.s.trailer, h)
	}
}

func add(dst *transport.Header, h transport.Header) {
	if *dst == nil {
		*dst = transport.Header{}
	}
	maps.Copy(*dst, h.Clone())
}

func (i incoming) End(err error) error {
	var status error
	if err != nil {
		status = transport.Public(err)
	}
	i.s.finish(status, nil)
	return nil
}
