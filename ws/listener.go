package ws

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
	streams chan *stream

	closing sync.Mutex
	over    chan struct{} // closed when err is set
	err     error
}

func (r *listener) begin(l *link, id uint64) []byte {
	return append(appendText(appendRequest(buffer(), "rpc.accept", id), "topic", r.topic), closing...)
}

func (r *listener) active(*link, *fields)                          {}
func (r *listener) resume(l *link)                                 { r.again(l) }
func (r *listener) detach(*link)                                   { r.off() }
func (r *listener) event(*link, *fields) error                     { return errNoSub }
func (r *listener) call(_ *link, _ *envelope, _ *fields, a *asked) { a.noMethod(errGone) }

// open takes a stream for this acceptor.
func (r *listener) open(l *link, f *fields, a *asked) {
	s, err := l.accept(transport.WithPeer(context.Background(), r.c.peer), f, func() {})
	if err != nil {
		a.done(err)
		return
	}
	r.closing.Lock()
	defer r.closing.Unlock()
	switch {
	case r.err != nil:
		err = errGone
	case len(r.streams) == cap(r.streams):
		err = transport.Errorf(transport.CodeResourceExhausted, "the acceptor is too slow")
	}
	a.done(err) // first: whoever takes s may end it at once
	if err != nil {
		s.cut(err)
		s.over()
		return
	}
	r.streams <- s
}

func (r *listener) finish(err error) { r.stopped(orderly(err)) }

// stopped ends Next, and refuses what it has not handed out.
func (r *listener) stopped(err error) {
	r.closing.Lock()
	if r.err == nil {
		r.err = err
		close(r.over)
	}
	r.closing.Unlock()
	for {
		select {
		case s := <-r.streams:
			s.refuse(errGone)
		default:
			return
		}
	}
}

// Next implements [transport.Listener].
func (r *listener) Next(ctx context.Context) (transport.Incoming, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		select {
		case <-r.over:
			return nil, r.err
		case <-ctx.Done():
		case s := <-r.streams:
			if s.ctx.Err() == nil {
				return incoming{s}, nil
			}
			s.refuse(nil) // its opener has given up
		}
	}
}

// Close implements [transport.Listener]. It returns once the server has stopped.
func (r *listener) Close() error {
	r.stopped(io.EOF)
	r.leave()
	return nil
}
