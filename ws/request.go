package ws

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// A waiter waits for the response to a request of ours. Its methods are called by the reader, one of them, once. They
// do not block.
type waiter interface {
	answered(e *envelope, err error) // err is the peer's
	lost(err error)                  // the connection is gone
}

// answered hands a response to who waits for it.
func (c *conn) answered(e *envelope) {
	id := e.responseID()
	c.mu.Lock()
	w := c.waiting[id]
	delete(c.waiting, id)
	if len(c.waiting) == 0 {
		c.unread = 0
	}
	c.idle()
	c.rest.answered(c, w)
	c.mu.Unlock()
	if w == nil {
		return // it was given up
	}
	if e.err != nil {
		w.answered(e, parseError(e.err))
	} else {
		w.answered(e, nil)
	}
}

// An asked is a request of the peer's under way. Nil is a notification: it is not answered. One of its methods reply,
// done, result and refuse ends it.
type asked struct {
	c        *conn
	id       string
	all      *answers
	m        transport.Message  // of a call
	alone    bool               // nothing else was under way when it came
	reserved int                // bytes of c.unsent
	under    *limit             // left before the peer can have the response; nil: none, or it was
	cancel   context.CancelFunc // for rpc.cancel; under c.mu
}

// cancelable has cancel called when the peer gives up.
func (a *asked) cancelable(cancel context.CancelFunc) {
	if a != nil {
		a.c.mu.Lock()
		a.cancel = cancel
		a.c.mu.Unlock()
	}
}

// end sends the response and forgets the request, so that its id is free once the response is out.
func (a *asked) end(frame []byte, wait bool) error {
	c := a.c
	c.mu.Lock()
	delete(c.serving, a.id)
	c.work++ // until it is sent
	c.mu.Unlock()
	under := a.under
	a.under = nil
	err := c.respond(a.all, a.id, frame, a.reserved, under, wait)
	recycle(frame)
	c.finish()
	return err
}

// reserve makes room for a reply of n bytes, before it is encoded: a peer that does not read shall not fill the memory
// with replies.
func (a *asked) reserve(n int) error {
	if a.all != nil && !a.all.fits(n, a.c) {
		return errBatchFull
	}
	if unsent := a.c.unsent.Add(int64(n)); unsent > a.c.mostUnsent() {
		a.c.unsent.Add(-int64(n))
		return errUnsent
	}
	a.reserved = n
	return nil
}

// maxUnsent is how many bytes of answers may wait until a client reads, or a frame's if those are more.
const maxUnsent = 16 << 20

// mostUnsent is that limit. A client has none: it trusts the server.
func (c *conn) mostUnsent() int64 {
	if !c.server {
		return math.MaxInt64
	}
	return int64(max(maxUnsent, frameLimit(c.max)))
}

// awaitRoom waits, before a call begins, if many bytes of replies wait already: for its own there may be no room.
func (c *conn) awaitRoom(ctx context.Context) error {
	if c.unsent.Load() < maxUnsent/16 {
		return nil
	}
	if err := c.lockRoom(ctx); err != nil {
		return err
	}
	c.mu.Unlock()
	return nil
}

// What calls get that were done, and whose reply is too much.
var (
	errBatchFull = transport.Errorf(transport.CodeResourceExhausted, "the batch has too many bytes of answers")
	errUnsent    = transport.Errorf(transport.CodeResourceExhausted, "too many bytes of answers wait on this connection")
)

// reply answers a call. It waits for room only if there is a reply. The error is that of a reply that cannot be sent,
// or the connection's.
func (a *asked) reply(m *transport.Message, err error) error {
	if err != nil {
		return a.refuse(err, false)
	}
	if m == nil {
		return a.end(appendReply(buffer(), a.id, &transport.Message{}), false)
	}
	if err := m.Check(a.c.max); err != nil {
		a.refuse(transport.Wrap(err, transport.CodeInternal, "the reply cannot be sent"), false)
		return err
	}
	if err := a.reserve(m.Size()); err != nil {
		a.refuse(err, false)
		return err
	}
	return a.end(appendReply(slices.Grow(buffer(), m.Size()), a.id, m), true)
}

// done answers what has no result.
func (a *asked) done(err error) {
	switch {
	case a == nil:
	case err != nil:
		a.refuse(err, false)
	default:
		a.end(appendDone(buffer(), a.id), false)
	}
}

// refuse answers with an error.
func (a *asked) refuse(err error, wait bool) error {
	if a == nil {
		return nil
	}
	return a.end(appendFailure(buffer(), a.id, wire.RPCCode(transport.CodeOf(err)), err), wait)
}

// noMethod answers what cannot be called.
func (a *asked) noMethod(err error) {
	if a != nil {
		a.end(appendFailure(buffer(), a.id, rpcNoMethod, err), false)
	}
}

// fail answers with an error of JSON-RPC what is no request.
func (c *conn) fail(all *answers, id string, code int, err error) {
	frame := appendFailure(buffer(), id, code, err)
	c.respond(all, id, frame, 0, nil, false)
	recycle(frame)
}

// answers collects the responses to a batch. Nil is no batch. They have no more bytes than a frame may have; what does
// not fit is answered with errBatchFull.
type answers struct {
	mu   sync.Mutex
	left int // responses to come, and one for the batch itself
	buf  []byte
}

func (all *answers) expect() {
	if all != nil {
		all.mu.Lock()
		all.left++
		all.mu.Unlock()
	}
}

// fits reports whether n bytes more are not too many.
func (all *answers) fits(n int, c *conn) bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	return len(all.buf)+n <= frameLimit(c.max)
}

// add adds the response to id. It returns all of them once the batch is complete, else it leaves under and returns nil.
func (all *answers) add(id string, frame []byte, under *limit, c *conn) []byte {
	all.mu.Lock()
	defer all.mu.Unlock()
	if frame != nil {
		before := len(all.buf)
		if before+len(frame) > frameLimit(c.max) {
			frame = appendFailure(nil, id, wire.RPCCode(transport.CodeResourceExhausted), errBatchFull)
		}
		if before == 0 {
			all.buf = append(all.buf, '[')
		} else {
			all.buf = append(all.buf, ',')
		}
		all.buf = append(all.buf, frame...)
		c.unsent.Add(int64(len(all.buf) - before))
	}
	all.left--
	if all.left > 0 || len(all.buf) == 0 {
		under.leave()
		return nil
	}
	return append(all.buf, ']')
}

// respond sends the response to id, which is copied, or adds it to its batch, and gives back what was reserved for it,
// and its place under a limit before the peer can know. A nil frame ends the batch itself.
func (c *conn) respond(all *answers, id string, frame []byte, reserved int, under *limit, wait bool) error {
	if all == nil {
		defer c.unsent.Add(-int64(reserved))
	} else {
		whole := all.add(id, frame, under, c)
		unsent := c.unsent.Add(-int64(reserved))
		if unsent/2 > c.mostUnsent() { // replies alone cannot be so many
			c.cut(transport.Errorf(transport.CodeResourceExhausted, "too many batches are under way"))
		}
		if whole == nil {
			return nil
		}
		frame = whole
		defer c.unsent.Add(-int64(len(whole) - 1)) // without the last bracket
	}
	if !wait {
		under.leave()
		return c.post(frame, false)
	}
	return c.sendUnder(under, frame, false)
}

// cancelRequest ends the context of a request of the peer's.
func (c *conn) cancelRequest(id []byte) {
	c.mu.Lock()
	a := c.serving[string(id)]
	var cancel context.CancelFunc
	if a != nil {
		cancel = a.cancel
	}
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// nextID returns a number for a request of ours.
func (c *conn) nextID() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastID++
	return c.lastID
}

// start sends a request of ours, which is copied. The result is its place in the queue. If alone, which is a request
// that is not followed by others, the caller writes it, where that cannot block for longer than ctx.
func (c *conn) start(ctx context.Context, id uint64, w waiter, frame []byte, alone bool) (n uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := c.lockRoom(ctx); err != nil {
		return 0, err
	}
	if c.err == nil && c.draining != nil {
		err = notSent(errClosed)
	} else if n, err = c.queue(frame, false); err != nil {
		err = notSent(err)
	} else {
		if c.waiting == nil {
			c.waiting = map[uint64]waiter{}
		}
		c.waiting[id] = w
		c.unread += len(frame)
		c.rest.waits(w)
	}
	c.flush(c.server || alone && c.unread < maxUnread)
	return n, err
}

// giveUp forgets a request of ours, and tells the peer. It reports whether it was still under way.
func (c *conn) giveUp(id uint64) bool {
	c.mu.Lock()
	_, ok := c.waiting[id]
	delete(c.waiting, id)
	c.idle()
	c.mu.Unlock()
	if ok {
		c.note(append(appendUint(appendNote(buffer(), "rpc.cancel"), "id", id), closing...))
	}
	return ok
}

// lostError is the error of what the end of the connection interrupts; n is the place of its frame.
func (c *conn) lostError(err error, n uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > c.taken {
		return notSent(err)
	}
	return because(err, transport.ReasonOutcomeUnknown)
}

func notSent(err error) error { return because(err, transport.ReasonNotSent) }

// because returns err with another Reason.
func because(err error, reason string) error {
	e := *transport.Public(err)
	e.Reason, e.Cause, e.Remote = reason, err, false
	return &e
}

// errClosed is what operations get after Close and Shutdown.
var errClosed error = &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonClosed,
	Message: "the connection has been closed"}

// errGone is what a call or a stream gets whose receiver is not there any more.
var errGone error = &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent,
	Message: "the receiver has closed"}

// A call is the waiter for a reply.
type call struct {
	reply *transport.Message
	err   error
	done  chan struct{}
	max   int
	reads bool // the caller reads, until it is over
	over  bool
}

func (w *call) answered(e *envelope, err error) {
	if w.err = err; err == nil {
		w.reply = &transport.Message{}
		var f fields
		if w.err = f.parse(e.meta); w.err == nil {
			w.err = f.message(w.reply, "", e.result, false, w.max)
		}
		if w.err != nil {
			w.err = transport.Wrap(w.err, transport.CodeInternal, "the reply is not legal")
		}
	}
	w.over = true
	close(w.done)
}

func (w *call) lost(err error) {
	w.err = &lost{err}
	close(w.done)
}

// lost is the end of a connection, as an error of what was under way.
type lost struct{ error }

// call asks the peer, for its responder if sub is not 0.
func (c *conn) call(ctx context.Context, m *transport.Message, sub uint64) (*transport.Message, error) {
	if err := m.Check(c.max); err != nil {
		return nil, err
	}
	if m.ID == "" {
		copied := *m
		copied.ID = transport.NewID()
		m = &copied
	}
	var timeout time.Duration
	deadline, ok := ctx.Deadline()
	if ok {
		if timeout = time.Until(deadline); timeout <= 0 {
			return nil, context.DeadlineExceeded
		}
	}
	w := &call{done: make(chan struct{}), max: c.max}
	id := c.nextID()
	frame := appendCall(buffer(), id, m, timeout, sub)
	n, err := c.start(ctx, id, w, frame, true)
	recycle(frame)
	if err != nil {
		return nil, err
	}
	if w.reads {
		c.rest.read(ctx, c, w)
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		c.giveUp(id)
		return nil, ctx.Err()
	}
	if l, ok := w.err.(*lost); ok {
		return nil, c.lostError(l.error, n)
	}
	if ok && !time.Now().Before(deadline) && transport.CodeOf(w.err) == transport.CodeDeadlineExceeded {
		return nil, context.DeadlineExceeded // the same clock rang at the other end first
	}
	if w.err != nil {
		return nil, w.err
	}
	return w.reply, nil
}
