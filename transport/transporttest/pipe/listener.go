package pipe

import (
	"context"
	"io"
	"sync"

	"github.com/intermodal-go/intermodal/transport"
)

// maxWaiting is how many streams a listener of a client holds ready.
const maxWaiting = 1024

// A listener is the client's end of Accept.
type listener struct {
	receiving
	c       *conn
	f       *frame // that began it
	streams chan *stream

	closing sync.Mutex
	over    chan struct{} // closed when err is set
	err     error
}

func newListener(c *conn, f *frame) *listener {
	return &listener{c: c, f: f, streams: make(chan *stream, maxWaiting), over: make(chan struct{})}
}

func (l *listener) receive(f *frame) error {
	switch f.Type {
	case "active":
		if !l.begin(nil) {
			l.stopped(io.EOF)
		}
	case "eof", "done":
		l.lost(f.err())
	}
	return nil
}

// open takes a stream for this acceptor.
func (l *listener) open(f *frame) error {
	s := newStream(l.c, f.ID)
	s.accept(transport.WithPeer(context.Background(), l.c.peer()), f)
	if err := l.c.admit(f, s); err != nil {
		return err
	}
	l.closing.Lock()
	defer l.closing.Unlock()
	switch {
	case l.err != nil:
		s.refuse(errGone)
	case len(l.streams) == cap(l.streams):
		s.refuse(transport.Errorf(transport.CodeResourceExhausted, "the acceptor is too slow"))
	default:
		l.c.post(&frame{Type: "active", ID: f.ID}) // first: whoever takes s may end it at once
		l.streams <- s
	}
	return nil
}

func (l *listener) lost(err error) {
	l.finish(err)
	l.stopped(orderly(err))
}

// stopped ends Next, and refuses what it has not handed out.
func (l *listener) stopped(err error) {
	l.closing.Lock()
	if l.err == nil {
		l.err = err
		close(l.over)
	}
	l.closing.Unlock()
	for {
		select {
		case s := <-l.streams:
			s.refuse(errGone)
		default:
			return
		}
	}
}

func (l *listener) drain() {
	l.c.post(&frame{Type: "stop", ID: l.f.ID})
}

// Next implements [transport.Listener].
func (l *listener) Next(ctx context.Context) (transport.Incoming, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		select {
		case <-l.over:
			return nil, l.err
		case <-ctx.Done():
		case s := <-l.streams:
			if s.ctx.Err() == nil {
				return incoming{s}, nil
			}
			s.refuse(nil) // its opener has given up
		}
	}
}

// Close implements [transport.Listener]. It returns once the server has stopped.
func (l *listener) Close() error {
	l.stopped(io.EOF)
	l.close(l.c, l.f.ID)
	return nil
}
