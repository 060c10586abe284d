package ws

import (
	"context"
	"io"
	"maps"

	"github.com/intermodal-go/intermodal/transport"
)

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
	return s.note("rpc.eof")
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
