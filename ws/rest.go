package ws

import (
	"context"
	"time"
)

// A client whose calls follow one another lets its reader rest: the caller reads its answer itself, since to be woken by
// the reader costs as much as the rest of a call. The reader goes on when no call has come for a while, when there are
// callers that wait, and when anything comes that is not a whole frame of text: so a caller never waits for more than its
// context allows, nor anything for a caller.
type rest struct {
	busy   func() bool   // something may come at any time; asked by the reader
	resume chan struct{} // a token: the reader goes on

	// Whose turn it is to read, under conn.mu:
	free  bool // the reader rests, and no caller reads
	turns uint64
	timer *time.Timer // while free; it may be late
	timed bool
	seen  uint64 // turns when it was started

	// Of whoever reads:
	es     []envelope
	err    error         // that a caller has met
	called bool          // the last frame answered a call
	last   time.Duration // when one has
	tired  int           // answers until the reader may rest
}

const (
	lull    = 2 * time.Millisecond // after that no call follows
	crowded = 100                  // answers after which it is tried again whether callers come one by one
)

func newRest(busy func() bool) *rest { return &rest{busy: busy, resume: make(chan struct{}, 1)} }

// answered notes what was answered. Under mu, by whoever reads.
func (r *rest) answered(c *conn, w waiter) {
	if r == nil {
		return
	}
	_, call := w.(*call)
	now := time.Duration(c.sock.heard.Load())
	r.called = call && now-r.last < lull
	r.last = now
	if r.tired > 0 {
		r.tired--
	}
}

// pause is called by the reader after each frame, and returns when it shall read on, or fail with the error.
func (r *rest) pause(c *conn) error {
	if r == nil || !r.called || r.tired > 0 {
		return nil
	}
	r.called = false
	if r.busy() || !c.sock.whole() {
		return nil
	}
	c.mu.Lock()
	if c.err != nil || c.draining != nil || len(c.waiting) > 0 || len(c.serving) > 0 || len(c.streams) > 0 {
		c.mu.Unlock()
		return nil
	}
	r.release(c)
	c.mu.Unlock()
	select {
	case <-r.resume:
	case <-c.ctx.Done():
		if !r.take(c) {
			<-r.resume // from the caller that reads
		}
	}
	return r.err
}

// take takes the turn if nobody has it.
func (r *rest) take(c *conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	free := r.free
	r.free = false
	return free
}

// release lets the next who calls read. Under mu.
func (r *rest) release(c *conn) {
	r.free = true
	if !r.timed {
		r.timed, r.seen = true, r.turns
		if r.timer == nil {
			r.timer = time.AfterFunc(lull, func() { r.idle(c) })
		} else {
			r.timer.Reset(lull)
		}
	}
}

// idle has the reader go on if nobody calls any more.
func (r *rest) idle(c *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.timed = false
	switch {
	case !r.free: // who has the turn starts the timer again
	case r.turns != r.seen:
		r.release(c)
	default:
		r.wake()
	}
}

// wake has the reader go on, which rests. Under mu.
func (r *rest) wake() {
	r.free = false
	r.resume <- struct{}{}
}

// waits gives the turn to w if that is a call and the turn is free, else to the reader. Under mu.
func (r *rest) waits(w waiter) {
	if r == nil || !r.free {
		return
	}
	if w, ok := w.(*call); ok {
		r.free, w.reads = false, true
		r.turns++
		return
	}
	r.wake()
}

// read reads until w is over, as far as that is possible without waiting for longer than ctx.
func (r *rest) read(ctx context.Context, c *conn, w *call) {
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, c.sock.interrupt)()
	}
	ready := true
	for r.err == nil && !w.over && ready {
		if ready = c.sock.frame(); ready {
			r.es, r.err = c.readObjects(r.es)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if ready && r.err == nil && c.err == nil && len(c.waiting) == 0 && c.sock.whole() {
		r.release(c)
		return
	}
	if len(c.waiting) > 0 {
		r.tired = crowded
	}
	r.wake()
}

// stop ends what the rest has begun.
func (r *rest) stop() {
	if r != nil && r.timer != nil {
		r.timer.Stop()
	}
}
