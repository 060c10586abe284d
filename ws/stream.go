package ws

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// A stream is one end of a stream that a conn knows by its number, and its wire.StreamSender.
type stream struct {
	*wire.Stream
	c     *conn
	id    uint64
	mine  bool                  // the opening end
	after func()                // accepting end only: called once it is over
	under atomic.Pointer[limit] // left before the peer can know that it is over
}

// open opens a stream at the peer, for its accept if sub is not 0, and waits until that has it.
func (c *conn) open(ctx context.Context, topic string, h transport.Header, sub uint64) (*stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var timeout time.Duration
	if d, ok := ctx.Deadline(); ok {
		if timeout = time.Until(d); timeout <= 0 {
			return nil, context.DeadlineExceeded
		}
	}
	s := &stream{c: c, mine: true}
	s.Stream = wire.NewOpener(ctx, s, &wire.StreamOptions{MaxBytes: c.max})
	c.mu.Lock()
	c.lastStream += 2
	s.id = c.lastStream
	err := c.addStream(s)
	c.mu.Unlock()
	if err != nil {
		s.Cut(err)
		return nil, notSent(err)
	}
	id := c.nextID()
	frame := appendRequest(buffer(), "rpc.open", id)
	frame = appendUint(frame, "stream", s.id)
	frame = appendText(frame, "topic", topic)
	frame = appendHeader(frame, h)
	frame = appendMillis(frame, "timeout", timeout)
	frame = append(appendUint(frame, "sub", sub), closing...)
	_, err = c.start(ctx, id, (*opening)(s), frame, false)
	recycle(frame)
	if err != nil {
		s.Cut(err)
		s.over()
		return nil, err
	}
	if err := s.Opened(); err != nil {
		return nil, err
	}
	return s, nil
}

// opening is the waiter for the answer to rpc.open.
type opening stream

func (o *opening) answered(_ *envelope, err error) {
	s := (*stream)(o)
	if err == nil {
		s.Active()
		return
	}
	s.End(nil, err)
	s.over()
}

func (o *opening) lost(err error) {} // the stream is told

// addStream registers s. Under mu.
func (c *conn) addStream(s *stream) error {
	if c.err != nil {
		return c.err
	}
	if c.streams == nil {
		c.streams = map[uint64]*stream{}
	}
	if c.streams[s.id] != nil || s.id == 0 {
		return transport.Errorf(transport.CodeInvalidArgument, "the stream %d cannot be opened", s.id)
	}
	c.streams[s.id] = s
	c.work++
	return nil
}

// over forgets the stream, which has ended.
func (s *stream) over() {
	s.c.mu.Lock()
	known := s.c.streams[s.id] == s
	if known {
		delete(s.c.streams, s.id)
	}
	s.c.mu.Unlock()
	if known {
		s.under.Swap(nil).leave()
		s.c.finish()
		if s.after != nil {
			s.after()
		}
	}
}

// accept makes a stream of what f opens. The values of base are its context's. after is called, and the limit left, once
// it is over, also if there is an error.
func (c *conn) accept(base context.Context, f *fields, under *limit, after func()) (*stream, error) {
	h, err := f.streamHeader()
	if err == nil {
		err = transport.CheckTopic(f.topic)
	}
	if err != nil {
		under.leave()
		after()
		return nil, err
	}
	s := &stream{c: c, id: f.stream, after: after}
	s.under.Store(under)
	s.Stream = wire.NewIncoming(base, s, &wire.StreamOptions{MaxBytes: c.max, Topic: f.topic, Header: h, Timeout: f.timeout})
	c.mu.Lock()
	if f.stream%2 == c.lastStream%2 {
		err = transport.Errorf(transport.CodeInvalidArgument, "the number of the stream is ours")
	} else {
		err = c.addStream(s)
	}
	c.mu.Unlock()
	if err != nil {
		s.Cut(err)
		under.leave()
		after()
		return nil, err
	}
	return s, nil
}

// streamHeader returns the header in f.
func (f *fields) streamHeader() (h transport.Header, err error) {
	if f.header == nil {
		return nil, nil
	}
	m := transport.Message{}
	err = (&fields{header: f.header}).message(&m, "", nil, false, 0)
	return m.Header, err
}

// streamNote takes a notification about a stream. What is over is ignored. A peer that breaks the rules ends the stream.
func (c *conn) streamNote(method string, f *fields) error {
	c.mu.Lock()
	s := c.streams[f.stream]
	c.mu.Unlock()
	if s == nil {
		return nil
	}
	err := s.receive(method, f)
	if err != nil {
		s.Break(err)
	}
	return err
}

func (s *stream) receive(method string, f *fields) error {
	switch method {
	case "rpc.stream":
		m := &transport.Message{}
		if err := f.message(m, "", f.data, false, s.c.max); err != nil {
			return err
		}
		return s.Item(m)
	case "rpc.credit":
		s.Credit(int(min(f.n, wire.StreamWindow)))
	case "rpc.eof":
		s.EOF()
	case "rpc.cancel":
		s.Cancel()
	case "rpc.header", "rpc.end":
		h, err := f.streamHeader()
		if err != nil {
			return err
		}
		if method == "rpc.header" {
			s.Header(h)
		} else if s.mine {
			s.End(h, parseProblem(f.err))
			s.over()
		}
	}
	return nil
}

func (s *stream) lost(err error) {
	s.Cut(because(err, transport.ReasonOutcomeUnknown))
	s.over()
}

// begin begins a notification about the stream.
func (s *stream) begin(method string) []byte {
	return appendUint(appendNote(buffer(), method), "stream", s.id)
}

// SendItem implements [wire.StreamSender].
func (s *stream) SendItem(ctx context.Context, m *transport.Message) error {
	frame := append(appendMessage(s.begin("rpc.stream"), m), closing...)
	err := s.c.send(ctx, frame, true)
	recycle(frame)
	return err
}

// SendCredit implements [wire.StreamSender].
func (s *stream) SendCredit(n int) {
	s.c.note(append(appendUint(s.begin("rpc.credit"), "n", uint64(n)), closing...))
}

// SendHeader implements [wire.StreamSender].
func (s *stream) SendHeader(h transport.Header) {
	s.c.note(append(appendHeader(s.begin("rpc.header"), h), closing...))
}

// SendEOF implements [wire.StreamSender].
func (s *stream) SendEOF() error { return s.c.note(append(s.begin("rpc.eof"), closing...)) }

// SendCancel implements [wire.StreamSender].
func (s *stream) SendCancel() {
	s.c.note(append(s.begin("rpc.cancel"), closing...))
	s.over()
}

// SendEnd implements [wire.StreamSender].
func (s *stream) SendEnd(trailer transport.Header, err error, wait bool) error {
	frame := append(appendProblem(appendHeader(s.begin("rpc.end"), trailer), err), closing...)
	var failed error
	under := s.under.Swap(nil)
	if wait {
		failed = s.c.sendUnder(under, frame, true)
	} else {
		under.leave()
		failed = s.c.post(frame, true)
	}
	recycle(frame)
	s.over()
	return failed
}
