package pipe

import (
	"context"
	"io"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// A listener is the client's end of Accept.
type listener struct {
	receiving
	*wire.Backlog
	c *conn
	f *frame // that began it
}

func newListener(c *conn, f *frame) *listener {
	return &listener{Backlog: wire.NewBacklog(), c: c, f: f}
}

func (l *listener) receive(f *frame) error {
	switch f.Type {
	case "active":
		if !l.begin(nil) {
			l.End(io.EOF)
		}
	case "eof", "done":
		l.lost(f.err())
	}
	return nil
}

// open takes a stream for this acceptor.
func (l *listener) open(f *frame) error {
	s := l.c.accept(transport.WithPeer(context.Background(), l.c.peer()), f)
	if err := l.c.admit(f, s); err != nil {
		s.Cut(err)
		return err
	}
	if err := l.Push(s.Stream, func() { l.c.post(&frame{Type: "active", ID: f.ID}) }); err != nil {
		s.Break(err)
	}
	return nil
}

func (l *listener) lost(err error) {
	l.finish(err)
	l.End(orderly(err))
}

func (l *listener) drain() {
	l.c.post(&frame{Type: "stop", ID: l.f.ID})
}

// Close implements [transport.Listener]. It returns once the server has stopped.
func (l *listener) Close() error {
	l.End(io.EOF)
	l.close(l.c, l.f.ID)
	return nil
}
