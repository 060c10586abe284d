package ws

import (
	"strconv"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// A subscription is the client's end of Subscribe and Respond: an Inbox that the reader of the link fills.
type subscription struct {
	*wire.Inbox // set when active for the first time
	receiving
	method string
	o      transport.SubscribeOptions
	cursor string // to begin from

	asks     map[uint64]*asked // under mu: the calls that are not answered, by tag
	lastTag  uint64
	credited uint64 // under mu: credit that there was nobody to give to
	counted  uint64 // and of that, what was given otherwise
	credit   int    // to begin with
}

// grouped reports whether the server owns what comes: a group's messages, and calls.
func (s *subscription) grouped() bool { return s.o.Group != "" || s.method == "rpc.respond" }

func (s *subscription) begin(l *link, id uint64) []byte {
	frame := appendText(appendRequest(buffer(), s.method, id), "topic", s.topic)
	o := s.o
	if s.Inbox != nil && !s.grouped() {
		o.From = s.cursor
	}
	frame = appendOptions(frame, o)
	if !s.grouped() {
		credit := o.Buffer
		if s.Inbox != nil {
			credit = s.credit
		}
		frame = strconv.AppendInt(member(frame, "credit"), int64(credit), 10)
	}
	return append(frame, closing...)
}

func (s *subscription) active(l *link, f *fields) {
	l.batching.Store(true)
	if s.Inbox == nil {
		s.o.Buffer = max(int(min(f.buffer, transport.MaxBuffer)), 1)
		o := &wire.InboxOptions{Start: f.cursor, Dropped: s.c.o.OnDrop}
		switch {
		case s.method == "rpc.respond":
			o.Calls, o.Settle = true, s.answer
			s.asks = map[uint64]*asked{}
		case s.grouped():
			o.Settle = s.ack
		default:
			o.Credit = s.give
		}
		s.Inbox = wire.NewInbox(s.o, o)
		return
	}
	s.mu.Lock()
	n := s.credited - s.counted
	s.counted = s.credited
	s.mu.Unlock()
	if n > 0 {
		s.give(int(n))
	}
}

// give tells the server that it may send n more. It is called with the Inbox locked.
func (s *subscription) give(n int) {
	s.mu.Lock()
	l, num := s.l, s.num
	if l == nil {
		s.credited += uint64(n)
	}
	s.mu.Unlock()
	if l != nil {
		frame := appendUint(appendNote(buffer(), "rpc.credit"), "sub", num)
		l.note(append(appendUint(frame, "n", uint64(n)), closing...))
	}
}

// tagBits are those of a delivery's tag that the server gave; above them is the epoch of the link.
const tagBits = 40

func (s *subscription) event(l *link, f *fields) error {
	it := &wire.Item{Cursor: f.cursor, Attempt: f.attempt, Missed: f.missed}
	err := f.message(&it.Message, s.topic, f.data, false, s.c.o.MaxBytes)
	if err == nil && len(f.cursor) > transport.MaxCursorBytes {
		err = transport.Errorf(transport.CodeInternal, "the cursor is not legal")
	}
	if !s.grouped() {
		if err == nil {
			err = s.Push(it)
		} else if f.cursor != "" { // it will not fit when it comes again
			e := transport.Public(err)
			e.Header = transport.Header{wire.HeaderCursor: {f.cursor}}
			err = e
		}
		if err != nil {
			s.c.forget(s)
			l.unsubscribe(f.sub)
			s.End(err)
		}
		return err
	}
	if err != nil { // refused for good: it will never be legal
		l.ack(f.sub, f.tag, transport.Wrap(err, transport.CodeFailedPrecondition, "the subscriber cannot take the message"))
		return err
	}
	it.Tag = l.epoch<<tagBits | f.tag&(1<<tagBits-1)
	l.hold()
	if err = s.Push(it); err != nil {
		l.finish()
		l.cut(transport.Wrap(err, transport.CodeUnavailable, "the server broke the window of a group"))
	}
	return err
}

// hold counts something that a drain waits for.
func (l *link) hold() {
	l.mu.Lock()
	l.work++
	l.mu.Unlock()
}

// ack settles a delivery of a group.
func (l *link) ack(sub, tag uint64, err error) error {
	frame := appendUint(appendUint(appendNote(buffer(), "rpc.ack"), "sub", sub), "tag", tag)
	return l.note(append(appendProblem(frame, err), closing...))
}

// ack settles a delivery, on the link that brought it.
func (s *subscription) ack(tag uint64, _ *transport.Message, err error) error {
	l, num := s.at()
	if l == nil || l.epoch != tag>>tagBits {
		return errStale
	}
	err = l.ack(num, tag&(1<<tagBits-1), err)
	l.finish()
	return err
}

var errStale = transport.Errorf(transport.CodeUnavailable, "the connection that brought the message is gone")

// call takes a call for this responder.
func (s *subscription) call(l *link, e *envelope, f *fields, a *asked) {
	if s.asks == nil {
		a.noMethod(errGone)
		return
	}
	it := &wire.Item{Attempt: 1, Peer: &s.c.peer}
	if err := f.message(&it.Message, s.topic, e.params, true, s.c.o.MaxBytes); err != nil {
		a.done(err)
		return
	}
	if f.timeout != 0 {
		it.Deadline = time.Now().Add(f.timeout)
	}
	s.mu.Lock()
	s.lastTag++
	tag := s.lastTag
	s.asks[tag] = a
	s.mu.Unlock()
	it.Tag = tag
	a.cancelable(func() { s.Cancel(tag) })
	if err := s.Push(it); err != nil {
		s.answer(tag, nil, err)
	}
}

// answer answers a call, on the link that brought it.
func (s *subscription) answer(tag uint64, reply *transport.Message, err error) error {
	s.mu.Lock()
	a := s.asks[tag]
	delete(s.asks, tag)
	s.mu.Unlock()
	if a == nil {
		return errStale
	}
	return a.reply(reply, err)
}

func (s *subscription) open(l *link, f *fields, a *asked) { a.noMethod(errGone) }

// resume begins again: without a group from the low-water mark, with as much credit as there is room.
func (s *subscription) resume(l *link) {
	if s.grouped() {
		s.again(l)
		return
	}
	for {
		s.mu.Lock()
		before := s.credited
		s.mu.Unlock()
		s.cursor, s.credit = s.Resume()
		s.mu.Lock()
		same := s.credited == before // else it is not known what of it the credit includes
		s.counted = s.credited
		s.mu.Unlock()
		if same {
			break
		}
	}
	if s.cursor == "" {
		s.c.forget(s)
		s.finish(transport.Errorf(transport.CodeUnavailable,
			"the connection was lost, and perhaps events with it: there is no history to go on from"))
		return
	}
	s.again(l)
}

func (s *subscription) detach(l *link) {
	if s.grouped() && l != nil { // else what is out can still be settled
		s.Resume() // the server has taken back what is its own
		s.mu.Lock()
		clear(s.asks)
		s.mu.Unlock()
	}
	if l != nil || !s.grouped() {
		s.off()
	}
}

func (s *subscription) finish(err error) { s.End(orderly(err)) }

// Close implements [transport.Subscription]. It returns once the server has stopped.
func (s *subscription) Close() error {
	err := s.Inbox.Close()
	s.leave()
	return err
}
