package pipe

import (
	"context"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

const (
	streamWindow = 256 << 10 // bytes in flight in each direction, one item more not counted
	itemCost     = 128       // bytes that an item counts beyond its own
)

// A stream is one end of a stream, as an opener or as an incoming.
type stream struct {
	c      *conn
	id     uint64
	ctx    context.Context // the opener's; the acceptor's has the Peer
	cancel context.CancelFunc
	topic  string           // acceptor only, as is the next
	header transport.Header // the opener's

	mu       sync.Mutex
	change   sync.Cond
	items    []*transport.Message
	held     int              // cost of items
	eaten    int              // and of those taken, for which no credit was given yet
	credit   int              // what we may send
	sent     bool             // we send no more: CloseSend or End
	received bool             // the peer sends no more
	active   bool             // opener only: the other end has the stream
	status   error            // received from the acceptor: io.EOF or its error
	cause    error            // why the stream was cut off
	told     bool             // Recv has returned status
	reply    transport.Header // the acceptor's header
	replied  bool             // which is final
	trailer  transport.Header
}

func newStream(c *conn, id uint64) *stream {
	s := &stream{c: c, id: id, credit: streamWindow}
	s.change.L = &s.mu
	return s
}

// open opens a stream at the peer with f and waits until that has it.
func (c *conn) open(ctx context.Context, f *frame) (*stream, error) {
	if d, ok := ctx.Deadline(); ok {
		if f.Timeout = time.Until(d); f.Timeout <= 0 {
			return nil, context.DeadlineExceeded
		}
	}
	s := newStream(c, 0)
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.mu.Lock() // the reader may know the number before we do
	_, err := c.start(ctx, s, f)
	s.id = f.ID
	s.mu.Unlock()
	if err != nil {
		s.cancel()
		return nil, err
	}
	context.AfterFunc(s.ctx, func() { s.abandon(ctx.Err()) })
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.active && s.status == nil && s.cause == nil {
		s.change.Wait()
	}
	switch {
	case s.active: // and perhaps over by now
		return s, nil
	case s.cause != nil:
		return nil, s.cause
	case s.status == io.EOF:
		return nil, errGone
	}
	return nil, s.status
}

// accept makes s the acceptor's end of the stream that f opens. The values of base are its context's.
func (s *stream) accept(base context.Context, f *frame) {
	s.topic, s.header = f.Topic, f.Header
	s.ctx, s.cancel = s.c.withTimeout(base, f)
	context.AfterFunc(s.ctx, func() { s.cut(s.ctx.Err()) })
}

func (s *stream) receive(f *frame) error {
	s.mu.Lock()
	cut := false
	switch f.Type {
	case "active":
		s.active = true
	case "header":
		s.reply, s.replied = f.Header, true
	case "credit":
		s.credit = min(s.credit+f.N, streamWindow)
	case "item":
		m := f.message()
		s.replied = true
		if s.received || s.cause != nil {
			break
		}
		if s.held >= streamWindow {
			s.mu.Unlock()
			return transport.Errorf(transport.CodeResourceExhausted, "more items came than the stream's window allows")
		}
		s.items = append(s.items, m)
		s.held += cost(m)
	case "eof":
		s.received = true
	case "stop":
		cut = true
	case "done":
		if s.received, s.replied, s.trailer = true, true, f.Header; s.cause == nil {
			if s.status = f.err(); s.status == nil {
				s.status = io.EOF
			}
		}
		defer s.cancel()
	}
	s.change.Broadcast()
	s.mu.Unlock()
	if cut {
		s.cut(transport.Errorf(transport.CodeCanceled, "the opener has abandoned the stream"))
	}
	return nil
}

func cost(m *transport.Message) int { return m.Size() + itemCost }

func (s *stream) lost(err error) { s.cut(because(err, transport.ReasonOutcomeUnknown)) }
func (s *stream) drain()         {}

// cut ends the stream on this side, unless it has ended. It reports whether it did.
func (s *stream) cut(cause error) bool {
	s.mu.Lock()
	ended := s.cause != nil || s.status != nil
	if !ended {
		s.cause = cause
		s.change.Broadcast()
	}
	s.mu.Unlock()
	s.cancel()
	return !ended
}

// abandon is cut for the opener: it tells the acceptor.
func (s *stream) abandon(cause error) {
	if s.cut(cause) {
		s.c.post(&frame{Type: "stop", ID: s.id})
	}
}

// send waits for credit and sends an item.
func (s *stream) send(m *transport.Message) error {
	if err := m.Check(s.c.max); err != nil {
		return err
	}
	s.mu.Lock()
	for s.credit <= 0 && !s.sent && s.cause == nil && s.status == nil {
		s.change.Wait()
	}
	var err error
	switch {
	case s.cause != nil:
		err = s.cause
	case s.status != nil:
		err = io.EOF
	case s.sent:
		err = transport.Errorf(transport.CodeFailedPrecondition, "this side of the stream is closed")
	}
	s.credit -= cost(m)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	f := &frame{Type: "item", ID: s.id}
	f.put(m)
	f.Topic = ""
	return s.c.send(s.ctx, f)
}

// recv returns what was received, then how it ended.
func (s *stream) recv() (*transport.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.items) == 0 && !s.received && s.cause == nil {
		s.change.Wait()
	}
	switch {
	case len(s.items) > 0:
		m := s.items[0]
		s.items[0], s.items = nil, s.items[1:]
		s.held -= cost(m)
		if s.eaten += cost(m); s.eaten >= streamWindow/2 && !s.received {
			s.c.post(&frame{Type: "credit", ID: s.id, N: s.eaten})
			s.eaten = 0
		}
		return m, nil
	case s.cause != nil:
		return nil, s.cause
	case s.status != nil:
		s.told = true
		return nil, s.status
	}
	return nil, io.EOF // the opener has closed its side
}

// refuse ends an acceptor's stream that nobody has seen.
func (s *stream) refuse(err error) {
	s.cut(err)
	s.c.refuse(s.id, err)
}

// end is the acceptor's: it ends the stream with a header if that has not gone out, the trailer and err.
func (s *stream) end(err error) error {
	s.sendHeader()
	s.mu.Lock()
	if s.sent {
		s.mu.Unlock()
		return nil
	}
	s.sent = true
	if s.cause == nil {
		s.cause = transport.Errorf(transport.CodeFailedPrecondition, "the stream was ended")
	}
	trailer := s.trailer
	s.change.Broadcast()
	s.mu.Unlock()
	s.cancel()
	return s.c.finish(s.id, &frame{Header: trailer, Error: publicError(err)})
}

// sendHeader sends the acceptor's header, once.
func (s *stream) sendHeader() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.replied && len(s.reply) > 0 {
		s.c.post(&frame{Type: "header", ID: s.id, Header: s.reply})
	}
	s.replied = true
}

// An opener is the opening end of a stream.
type opener struct{ s *stream }

// Send implements [transport.Stream].
func (o opener) Send(m *transport.Message) error { return o.s.send(m) }

// CloseSend implements [transport.Stream].
func (o opener) CloseSend() error {
	s := o.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent || s.cause != nil || s.status != nil {
		return nil
	}
	s.sent = true
	s.change.Broadcast()
	return s.c.post(&frame{Type: "eof", ID: s.id})
}

// Recv implements [transport.Stream].
func (o opener) Recv() (*transport.Message, error) { return o.s.recv() }

// Header implements [transport.Stream].
func (o opener) Header() (transport.Header, error) {
	s := o.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.replied && s.cause == nil {
		s.change.Wait()
	}
	if !s.replied {
		return nil, s.cause
	}
	return s.reply, nil
}

// Trailer implements [transport.Stream].
func (o opener) Trailer() transport.Header {
	s := o.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.told {
		return nil
	}
	return s.trailer
}

// Close implements [transport.Stream].
func (o opener) Close() error {
	o.s.abandon(transport.Errorf(transport.CodeCanceled, "the stream was closed"))
	return nil
}

// An incoming is the accepting end of a stream.
type incoming struct{ s *stream }

// Context implements [transport.Incoming].
func (i incoming) Context() context.Context { return i.s.ctx }

// Topic implements [transport.Incoming].
func (i incoming) Topic() string { return i.s.topic }

// Header implements [transport.Incoming].
func (i incoming) Header() transport.Header { return i.s.header }

// Send implements [transport.Incoming].
func (i incoming) Send(m *transport.Message) error {
	i.s.sendHeader()
	return i.s.send(m)
}

// Recv implements [transport.Incoming].
func (i incoming) Recv() (*transport.Message, error) { return i.s.recv() }

// SetHeader implements [transport.Incoming].
func (i incoming) SetHeader(h transport.Header) error {
	if err := h.Check(); err != nil {
		return err
	}
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	if i.s.replied {
		return transport.Errorf(transport.CodeFailedPrecondition, "the header has gone out")
	}
	merge(&i.s.reply, h)
	return nil
}

// SetTrailer implements [transport.Incoming].
func (i incoming) SetTrailer(h transport.Header) {
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	merge(&i.s.trailer, h)
}

func merge(dst *transport.Header, h transport.Header) {
	if *dst == nil {
		*dst = transport.Header{}
	}
	maps.Copy(*dst, h.Clone())
}

// End implements [transport.Incoming].
func (i incoming) End(err error) error { return i.s.end(err) }

// bridge joins a stream that came in to one that was opened for it, until either has ended.
func bridge(in transport.Incoming, out transport.Stream) {
	up := make(chan struct{})
	go func() {
		defer close(up)
		for {
			m, err := in.Recv()
			switch {
			case err == io.EOF:
				out.CloseSend()
				return
			case err != nil:
				out.Close()
				return
			}
			if out.Send(m) != nil {
				return // the other direction knows why
			}
		}
	}()
	err := down(in, out)
	if in.Context().Err() != nil { // which has closed out
		err = in.Context().Err()
	}
	in.End(err)
	out.Close()
	<-up
}

// down carries what the acceptor says.
func down(in transport.Incoming, out transport.Stream) error {
	for first := true; ; first = false {
		m, err := out.Recv()
		if first {
			if h, err := out.Header(); err == nil && len(h) > 0 {
				in.SetHeader(h)
			}
		}
		if err != nil {
			in.SetTrailer(out.Trailer())
			if err == io.EOF {
				return nil
			}
			return err
		}
		if err := in.Send(m); err != nil {
			return err
		}
	}
}
