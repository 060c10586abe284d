package ws

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
	s, err := l.accept(transport.WithPeer(context.Background(), r.c.peer), f, nil, func() {})
	if err == nil {
		if err = r.Push(s.Stream, func() { a.done(nil) }); err != nil {
			s.Cut(err)
			s.over()
		}
	}
	if err != nil {
		a.done(err)
	}
}

func (r *listener) finish(err error) { r.End(orderly(err)) }

// Close implements [transport.Listener]. It returns once the server has stopped.
func (r *listener) Close() error {
	r.End(io.EOF)
	r.leave()
	return nil
}
