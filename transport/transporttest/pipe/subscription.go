package pipe

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// receiving is what subscriptions, responders and listeners of a client have in common: they become active, and end.
type receiving struct {
	mu        sync.Mutex
	active    chan error    // has one result of the beginning
	began     bool          // which was given
	abandoned bool          // before that
	ended     chan struct{} // closed when the server sends nothing more
	end, stop sync.Once
}

// activate begins the operation o with f and waits until it is active.
func (c *Client) activate(ctx context.Context, o op, r *receiving, f *frame) error {
	if err := transport.CheckTopic(f.Topic); err != nil {
		return err
	}
	r.active, r.ended = make(chan error, 1), make(chan struct{})
	if _, err := c.conn().start(ctx, o, f); err != nil {
		return err
	}
	select {
	case err := <-r.active:
		return err
	case <-ctx.Done():
	}
	r.mu.Lock()
	r.abandoned = !r.began
	r.mu.Unlock()
	if !r.abandoned { // at the same time
		return <-r.active
	}
	c.c.post(&frame{Type: "stop", ID: f.ID})
	return ctx.Err()
}

// begin says that the operation is active, or why not. It reports whether anybody wants to know.
func (r *receiving) begin(err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.began {
		r.began = true
		r.active <- err
	}
	return !r.abandoned
}

// finish says that nothing more will come.
func (r *receiving) finish(err error) {
	if err == nil {
		err = errGone
	}
	r.begin(err)
	r.end.Do(func() { close(r.ended) })
}

// orderly makes io.EOF of the end that our own Close has brought about, and of nil.
func orderly(err error) error {
	if err == nil || err == errClosed {
		return io.EOF
	}
	return err
}

// close stops the operation and waits until the server has: what is sent later goes elsewhere.
func (r *receiving) close(c *conn, id uint64) {
	r.stop.Do(func() {
		if c.post(&frame{Type: "stop", ID: id}) != nil {
			return
		}
		t := time.NewTimer(c.timeout)
		defer t.Stop()
		select {
		case <-r.ended:
		case <-t.C:
		}
	})
}

// A subscription is the client's end of Subscribe and Respond: an Inbox that the reader fills.
type subscription struct {
	*wire.Inbox // set when active
	receiving
	c      *conn
	f      *frame // that began it
	onDrop func(*transport.Message, error)
}

func (s *subscription) receive(f *frame) error {
	switch f.Type {
	case "active":
		if s.Inbox == nil {
			s.activate(f)
		}
	case "event":
		if s.Inbox == nil {
			return transport.Errorf(transport.CodeInternal, "an event came before its subscription was active")
		}
		return s.Push(&wire.Item{Message: *f.message(), Cursor: f.Cursor, Attempt: f.Attempt, Missed: f.Missed, Tag: f.Tag})
	case "eof", "done":
		s.over(f.err())
	}
	return nil
}

func (s *subscription) activate(f *frame) {
	so := s.f.Options
	so.Buffer = f.N
	o := &wire.InboxOptions{Start: f.Cursor, Dropped: s.onDrop}
	switch {
	case s.f.Type == "respond":
		o.Calls, o.Settle = true, s.reply
	case so.Group != "":
		o.Settle = func(tag uint64, _ *transport.Message, err error) error {
			return s.c.post(&frame{Type: "settle", ID: s.f.ID, Tag: tag, Error: publicError(err)})
		}
	default:
		o.Credit = func(n int) { s.c.post(&frame{Type: "credit", ID: s.f.ID, N: n}) }
	}
	s.c.mu.Lock() // drain looks from elsewhere
	s.Inbox = wire.NewInbox(so, o)
	s.c.mu.Unlock()
	if !s.begin(nil) {
		s.Inbox.Close()
	}
}

// call takes a call for this responder.
func (s *subscription) call(f *frame) error {
	p := s.c.peer()
	it := &wire.Item{Message: *f.message(), Attempt: 1, Tag: f.ID, Peer: &p}
	if f.Timeout != 0 {
		it.Deadline = time.Now().Add(f.Timeout)
	}
	if err := s.c.admit(f, &incomingCall{s, f.ID}); err != nil {
		return err
	}
	return s.Push(it)
}

// reply answers a call. Without a reply it does not wait, since Push may be who answers.
func (s *subscription) reply(tag uint64, reply *transport.Message, err error) error {
	if reply == nil {
		return s.c.refuse(tag, err)
	}
	return s.c.answer(tag, reply, err)
}

func (s *subscription) lost(err error) {
	if s.Inbox != nil {
		s.Resume() // the server has taken back what is its own
	}
	s.over(err)
}

func (s *subscription) over(err error) {
	s.finish(err)
	if s.Inbox != nil {
		s.End(orderly(err))
	}
}

func (s *subscription) drain() {
	s.c.mu.Lock()
	in := s.Inbox
	s.c.mu.Unlock()
	if in != nil {
		in.Close()
	}
	s.c.post(&frame{Type: "stop", ID: s.f.ID})
}

// Close implements [transport.Subscription]. It returns once the server has stopped.
func (s *subscription) Close() error {
	err := s.Inbox.Close()
	s.close(s.c, s.f.ID)
	return err
}

// An incomingCall is the client's end of a call that the server forwards to a responder.
type incomingCall struct {
	s  *subscription
	id uint64
}

func (o *incomingCall) receive(f *frame) error {
	if f.Type == "stop" {
		o.s.Cancel(o.id)
	}
	return nil
}

func (o *incomingCall) lost(error) {} // the responder is told
func (o *incomingCall) drain()     {}
