package pipe

import (
	"context"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// A stream is one end of a stream: the operation that brings it frames, and its wire.StreamSender.
type stream struct {
	*wire.Stream
	c     *conn
	id    uint64
	under limit // of those that the client has opened; nil: none
}

// open opens a stream at the peer with f and waits until that has it.
func (c *conn) open(ctx context.Context, f *frame) (*stream, error) {
	if d, ok := ctx.Deadline(); ok {
		if f.Timeout = time.Until(d); f.Timeout <= 0 {
			return nil, context.DeadlineExceeded
		}
	}
	s := &stream{c: c}
	s.Stream = wire.NewOpener(ctx, s, &wire.StreamOptions{MaxBytes: c.max})
	_, err := c.start(ctx, s, f)
	if err != nil {
		s.Cut(err)
		return nil, err
	}
	s.id = f.ID
	return s, s.Opened()
}

// accept returns the acceptor's end of the stream that f opens.
func (c *conn) accept(ctx context.Context, f *frame) *stream {
	s := &stream{c: c, id: f.ID}
	s.Stream = wire.NewIncoming(ctx, s, &wire.StreamOptions{MaxBytes: c.max, Topic: f.Topic, Header: f.Header, Timeout: f.Timeout})
	return s
}

func (s *stream) receive(f *frame) error {
	switch f.Type {
	case "active":
		s.Active()
	case "header":
		s.Header(f.Header)
	case "credit":
		s.Credit(f.N)
	case "item":
		return s.Item(f.message())
	case "eof":
		s.EOF()
	case "stop":
		s.Cancel()
	case "done":
		s.End(f.Header, f.err())
	}
	return nil
}

func (s *stream) lost(err error) { s.Cut(because(err, transport.ReasonOutcomeUnknown)) }
func (s *stream) drain()         {}

// SendItem implements [wire.StreamSender].
func (s *stream) SendItem(ctx context.Context, m *transport.Message) error {
	f := &frame{Type: "item", ID: s.id}
	f.put(m)
	f.Topic = ""
	return s.c.send(ctx, f)
}

// SendCredit implements [wire.StreamSender].
func (s *stream) SendCredit(n int) { s.c.post(&frame{Type: "credit", ID: s.id, N: n}) }

// SendHeader implements [wire.StreamSender].
func (s *stream) SendHeader(h transport.Header) {
	s.c.post(&frame{Type: "header", ID: s.id, Header: h})
}

// SendEOF implements [wire.StreamSender].
func (s *stream) SendEOF() error { return s.c.post(&frame{Type: "eof", ID: s.id}) }

// SendCancel implements [wire.StreamSender].
func (s *stream) SendCancel() { s.c.post(&frame{Type: "stop", ID: s.id}) }

// SendEnd implements [wire.StreamSender].
func (s *stream) SendEnd(trailer transport.Header, err error, wait bool) error {
	if s.under != nil {
		s.under.leave() // before the client can know
	}
	if wait {
		return s.c.finish(s.id, &frame{Header: trailer, Error: publicError(err)})
	}
	return s.c.refuse(s.id, err)
}
