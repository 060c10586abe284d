package wire

import (
	"context"
	"sync"

	"github.com/intermodal-go/intermodal/transport"
)

// maxBacklog is how many streams a Backlog holds ready.
const maxBacklog = 1024

// errGone is what the opener of a stream gets whose acceptor is not there any more.
var errGone error = &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent, Message: "the acceptor has gone"}

// A Backlog holds the streams that have come for an acceptor, between the goroutine that reads a connection and those
// that call Next. At most 1024 are held ready.
type Backlog struct {
	ready chan *Stream

	mu   sync.Mutex // Push beside End
	over chan struct{}
	err  error // set when over is closed
}

// NewBacklog returns an empty Backlog.
func NewBacklog() *Backlog {
	return &Backlog{ready: make(chan *Stream, maxBacklog), over: make(chan struct{})}
}

// Push takes a stream that was made by [NewIncoming]. It calls active, which tells its opener that it has it, before anybody
// can use the stream; active must not block nor use the Backlog. It never waits. The error, CodeUnavailable after the end
// and CodeResourceExhausted if too many wait, is for the opener.
func (b *Backlog) Push(s *Stream, active func()) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.err != nil:
		return errGone
	case len(b.ready) == cap(b.ready):
		return transport.Errorf(transport.CodeResourceExhausted, "the acceptor is too slow")
	}
	active()
	b.ready <- s
	return nil
}

// Next waits for a stream whose opener has not given up yet. After the end it returns that error.
func (b *Backlog) Next(ctx context.Context) (transport.Incoming, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		select {
		case <-b.over:
			return nil, b.err
		case <-ctx.Done():
		case s := <-b.ready:
			if s.ctx.Err() == nil {
				return s.Incoming(), nil
			}
			s.Break(errGone)
		}
	}
}

// End ends Next with err, and ends the streams that it has not handed out with CodeUnavailable. The first end counts.
func (b *Backlog) End(err error) {
	b.mu.Lock()
	if b.err == nil {
		b.err = err
		close(b.over)
	}
	b.mu.Unlock()
	for {
		select {
		case s := <-b.ready:
			s.Break(errGone)
		default:
			return
		}
	}
}
