package ws

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

const (
	streamWindow = 256 << 10 // bytes in flight in each direction, one item more not counted
	itemCost     = 128       // bytes that an item counts beyond its own
)

// A stream is one end of a stream, as an opener or as an incoming.
type stream struct {
	c      *conn
	id     uint64
	ctx    context.Context // the opener's; the acceptor's has the Peer
	cancel context.CancelFunc
	topic  string           // acceptor only, as is the next
	header transport.Header // the opener's
	after  func()           // acceptor only: called once it is over

	mu       sync.Mutex
	change   sync.Cond
	items    []*transport.Message
	held     int              // cost of items
	eaten    int              // and of those taken, for which no credit was given yet
	credit   int              // what we may send
	sent     bool             // we send no more: CloseSend or End
	received bool             // the peer sends no more
	active   bool             // opener only: the other end has the stream
	status   error            // received from the acceptor: io.EOF or its error
	cause    error            // why the stream was cut off
	told     bool             // Recv has returned status
	reply    transport.Header // the acceptor's header
	replied  bool             // which is final
	trailer  transport.Header
}

func newStream(c *conn, id uint64) *stream {
	s := &stream{c: c, id: id, credit: streamWindow}
	s.change.L = &s.mu
	return s
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
	c.mu.Lock()
	c.lastStream += 2
	s := newStream(c, c.lastStream)
	err := c.addStream(s)
	c.mu.Unlock()
	if err != nil {
		return nil, notSent(err)
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	context.AfterFunc(s.ctx, func() { s.abandon(ctx.Err()) })
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
		s.cut(err)
		s.over()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.active && s.status == nil && s.cause == nil {
		s.change.Wait()
	}
	switch {
	case s.active: // and perhaps over by now
		return s, nil
	case s.cause != nil:
		return nil, s.cause
	case s.status == io.EOF:
		return nil, errGone
	}
	return nil, s.status
}

// opening is the waiter for the answer to rpc.open.
type opening stream

func (o *opening) answered(_ *envelope, err error) {
	s := (*stream)(o)
	s.mu.Lock()
	if err == nil {
		s.active = true
	} else if s.status == nil {
		s.status = err
	}
	s.change.Broadcast()
	s.mu.Unlock()
	if err != nil {
		s.over()
	}
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

// over forgets the stream.
func (s *stream) over() {
	s.cancel()
	s.c.mu.Lock()
	known := s.c.streams[s.id] == s
	if known {
		delete(s.c.streams, s.id)
	}
	s.c.mu.Unlock()
	if known {
		s.c.finish()
		if s.after != nil {
			s.after()
		}
	}
}

// accept makes a stream of what f opens. The values of base are its context's. after is called once it is over, also if
// there is an error.
func (c *conn) accept(base context.Context, f *fields, after func()) (*stream, error) {
	s := newStream(c, f.stream)
	s.topic, s.after = f.topic, after
	var err error
	if s.header, err = f.streamHeader(); err == nil {
		err = transport.CheckTopic(f.topic)
	}
	if err == nil {
		c.mu.Lock()
		if f.stream%2 == c.lastStream%2 {
			err = transport.Errorf(transport.CodeInvalidArgument, "the number of the stream is ours")
		} else {
			err = c.addStream(s)
		}
		c.mu.Unlock()
	}
	if err != nil {
		after()
		return nil, err
	}
	if f.timeout == 0 {
		s.ctx, s.cancel = context.WithCancel(base)
	} else {
		s.ctx, s.cancel = context.WithTimeout(base, f.timeout)
	}
	context.AfterFunc(s.ctx, func() { s.cut(s.ctx.Err()) })
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

// streamNote takes a notification about a stream. What is over is ignored.
func (c *conn) streamNote(method string, f *fields) error {
	c.mu.Lock()
	s := c.streams[f.stream]
	mine := f.stream%2 == c.lastStream%2
	c.mu.Unlock()
	if s == nil {
		return nil
	}
	err := s.receive(method, f, mine)
	if err != nil {
		s.breakOff(err, mine)
	}
	return err
}

// breakOff ends a stream whose peer breaks the rules.
func (s *stream) breakOff(err error, mine bool) {
	if mine {
		s.abandon(err)
	} else {
		s.refuse(err)
	}
}

func (s *stream) receive(method string, f *fields, mine bool) (err error) {
	var h transport.Header
	var m transport.Message
	switch method {
	case "rpc.stream":
		err = f.message(&m, "", f.data, false, s.c.max)
	case "rpc.header", "rpc.end":
		h, err = f.streamHeader()
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	cut, end := false, false
	switch method {
	case "rpc.stream":
		s.replied = true
		if s.received || s.cause != nil {
			break
		}
		if s.held >= streamWindow {
			err = transport.Errorf(transport.CodeResourceExhausted, "more items came than the stream's window allows")
			break
		}
		s.items = append(s.items, &m)
		s.held += cost(&m)
	case "rpc.credit":
		s.credit = min(s.credit+int(min(f.n, streamWindow)), streamWindow)
	case "rpc.header":
		if mine && !s.replied {
			s.reply, s.replied = h, true
		}
	case "rpc.eof":
		s.received = s.received || !mine
	case "rpc.cancel":
		cut = !mine
	case "rpc.end":
		if end = mine && s.status == nil; end {
			s.received, s.replied, s.trailer = true, true, h
			if s.cause == nil {
				if s.status = parseProblem(f.err); s.status == nil {
					s.status = io.EOF
				}
			}
		}
	}
	s.change.Broadcast()
	s.mu.Unlock()
	if cut {
		s.cut(transport.Errorf(transport.CodeCanceled, "the opener has abandoned the stream"))
	}
	if end {
		s.over()
	}
	return err
}

func cost(m *transport.Message) int { return m.Size() + itemCost }

func (s *stream) lost(err error) {
	s.cut(because(err, transport.ReasonOutcomeUnknown))
	s.over()
}

// cut ends the stream on this side, unless it has ended. It reports whether it did.
func (s *stream) cut(cause error) bool {
	s.mu.Lock()
	ended := s.cause != nil || s.status != nil
	if !ended {
		s.cause = cause
		s.change.Broadcast()
	}
	s.mu.Unlock()
	s.cancel()
	return !ended
}

// abandon is cut for the opener: it tells the acceptor.
func (s *stream) abandon(cause error) {
	if s.cut(cause) {
		s.note("rpc.cancel")
		s.over()
	}
}

// note posts a notification with nothing but the number.
func (s *stream) note(method string) error {
	return s.c.note(append(appendUint(appendNote(buffer(), method), "stream", s.id), closing...))
}

// send waits for credit and sends an item.
func (s *stream) send(m *transport.Message) error {
	if err := m.Check(s.c.max); err != nil {
		return err
	}
	s.mu.Lock()
	for s.credit <= 0 && !s.sent && s.cause == nil && s.status == nil {
		s.change.Wait()
	}
	var err error
	switch {
	case s.cause != nil:
		err = s.cause
	case s.status != nil:
		err = io.EOF
	case s.sent:
		err = transport.Errorf(transport.CodeFailedPrecondition, "this side of the stream is closed")
	}
	s.credit -= cost(m)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	frame := appendUint(appendNote(buffer(), "rpc.stream"), "stream", s.id)
	frame = append(appendMessage(frame, m), closing...)
	err = s.c.send(s.ctx, frame, true)
	recycle(frame)
	return err
}

// recv returns what was received, then how it ended.
func (s *stream) recv() (*transport.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.items) == 0 && !s.received && s.cause == nil {
		s.change.Wait()
	}
	switch {
	case len(s.items) > 0:
		m := s.items[0]
		s.items[0], s.items = nil, s.items[1:]
		s.held -= cost(m)
		if s.eaten += cost(m); s.eaten >= streamWindow/2 && !s.received {
			frame := appendUint(appendNote(buffer(), "rpc.credit"), "stream", s.id)
			s.c.note(append(appendUint(frame, "n", uint64(s.eaten)), closing...))
			s.eaten = 0
		}
		return m, nil
	case s.cause != nil:
		return nil, s.cause
	case s.status != nil:
		s.told = true
		return nil, s.status
	}
	return nil, io.EOF // the opener has closed its side
}

// refuse ends an acceptor's stream that nobody has seen.
func (s *stream) refuse(err error) {
	s.cut(err)
	s.finish(nil, err, false)
}

// end is the acceptor's: it ends the stream with a header if that has not gone out, the trailer and err.
func (s *stream) end(err error) error {
	s.sendHeader()
	s.mu.Lock()
	if s.cause == nil {
		s.cause = transport.Errorf(transport.CodeFailedPrecondition, "the stream was ended")
	}
	trailer := s.trailer
	s.change.Broadcast()
	s.mu.Unlock()
	s.cancel()
	return s.finish(trailer, err, true)
}

// finish sends rpc.end, once.
func (s *stream) finish(trailer transport.Header, err error, wait bool) error {
	s.mu.Lock()
	ended := s.sent
	s.sent = true
	s.mu.Unlock()
	if ended {
		return nil
	}
	frame := appendUint(appendNote(buffer(), "rpc.end"), "stream", s.id)
	frame = append(appendProblem(appendHeader(frame, trailer), err), closing...)
	var failed error
	if wait {
		failed = s.c.send(context.Background(), frame, true)
	} else {
		failed = s.c.post(frame, true)
	}
	recycle(frame)
	s.over()
	return failed
}

// sendHeader sends the acceptor's header, once.
func (s *stream) sendHeader() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.replied && len(s.reply) > 0 {
		s.c.note(append(appendHeader(appendUint(appendNote(buffer(), "rpc.header"), "stream", s.id), s.reply), closing...))
	}
	s.replied = true
}
