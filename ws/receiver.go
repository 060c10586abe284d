package ws

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// A receiver is the client's end of Subscribe, Respond or Accept. It goes from link to link. All methods but Close are
// called by the goroutine that reads the link, or that brings it up.
type receiver interface {
	begin(l *link, id uint64) []byte // the request that begins it on l
	active(l *link, f *fields)       // the server has begun it
	resume(l *link)                  // begin again, on a new link
	detach(l *link)                  // the link is gone; nil: the server has ended it there
	finish(err error)                // nothing more will come
	event(l *link, f *fields) error  // take an event
	call(l *link, e *envelope, f *fields, a *asked)
	open(l *link, f *fields, a *asked)
	Close() error
}

// receiving is what receivers have in common.
type receiving struct {
	c     *Client
	topic string
	self  receiver
	tries int // of resume, in a row

	mu   sync.Mutex
	l    *link  // where it is active; nil: nowhere
	num  uint64 // its number there
	left bool   // by Close

	leaving sync.Once
}

func (r *receiving) init(c *Client, topic string, self receiver) {
	r.c, r.topic, r.self = c, topic, self
}

// A beginning is the waiter for the answer to the request that begins a receiver on a link.
type beginning struct {
	r    receiver
	l    *link
	base *receiving
	done chan struct{} // for the first time only
	err  error

	mu        sync.Mutex
	abandoned bool
	accepted  bool // too late for that
}

// activate begins r and waits until it is active.
func (c *Client) activate(ctx context.Context, r interface {
	receiver
	common() *receiving
}) error {
	if err := transport.CheckTopic(r.common().topic); err != nil {
		return err
	}
	for {
		l, err := c.connected(ctx)
		if err != nil {
			return err
		}
		b := &beginning{r: r, l: l, base: r.common(), done: make(chan struct{})}
		if err = b.start(ctx); err == nil {
			err = b.wait(ctx)
		}
		if err == nil || ctx.Err() != nil || !l.gone() || c.ctx.Err() != nil ||
			transport.CodeOf(err) != transport.CodeUnavailable {
			return err
		}
	}
}

func (r *receiving) common() *receiving { return r }

func (b *beginning) start(ctx context.Context) error {
	id := b.l.nextID()
	frame := b.r.begin(b.l, id)
	_, err := b.l.start(ctx, id, b, frame, false)
	recycle(frame)
	return err
}

func (b *beginning) wait(ctx context.Context) error {
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
	}
	b.mu.Lock()
	b.abandoned = true
	accepted := b.accepted
	b.mu.Unlock()
	if accepted { // at the same time
		<-b.done // soon
		b.r.Close()
	}
	return ctx.Err()
}

func (b *beginning) answered(e *envelope, err error) {
	var f fields
	if err == nil {
		if err = f.parse(e.result); err == nil && (f.sub == 0 || len(f.cursor) > transport.MaxCursorBytes) {
			err = transport.Errorf(transport.CodeInternal, "the server's answer to %q is not legal", b.base.topic)
		}
	}
	b.base.mu.Lock()
	b.mu.Lock()
	gone := b.abandoned || b.base.left
	b.accepted = err == nil && !gone
	b.mu.Unlock()
	if err == nil && !gone {
		b.base.l, b.base.num = b.l, f.sub
	}
	b.base.mu.Unlock()
	switch {
	case gone && err == nil:
		b.l.unsubscribe(f.sub)
	case err == nil:
		b.base.tries = 0
		b.l.subs[f.sub] = b.r
		b.r.active(b.l, &f)
		b.base.c.remember(b.r)
	case b.done == nil && !gone:
		b.base.failed(b.l, err)
	}
	b.end(err)
}

func (b *beginning) lost(err error) { b.end(err) }

func (b *beginning) end(err error) {
	if b.done != nil {
		b.err = err
		close(b.done)
	}
}

// again begins a receiver on a new link. What cannot be sent is left to the next one.
func (r *receiving) again(l *link) {
	(&beginning{r: r.self, l: l, base: r}).start(l.c.ctx)
}

// failed handles the error of a resume: it is tried again, or it is the end.
func (r *receiving) failed(l *link, err error) {
	if !transport.Retryable(err) {
		r.c.forget(r.self)
		r.self.finish(err)
		return
	}
	r.tries++
	wait := max(r.c.o.Backoff.Delay(r.tries), transport.Public(err).RetryAfter)
	l.spawn(func() {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
			r.self.resume(l)
		case <-l.ctx.Done():
		}
	})
}

// remember has r go from link to link; forget ends that.
func (c *Client) remember(r receiver) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.receivers[r] = struct{}{}
	}
}

func (c *Client) forget(r receiver) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.receivers, r)
}

// at returns where the receiver is active; nil: nowhere.
func (r *receiving) at() (*link, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.l, r.num
}

// off says that the receiver is active nowhere.
func (r *receiving) off() {
	r.mu.Lock()
	r.l, r.num = nil, 0
	r.mu.Unlock()
}

// leave stops the receiver for good and waits until the server has: what is sent later goes elsewhere.
func (r *receiving) leave() {
	r.leaving.Do(func() {
		r.mu.Lock()
		r.left = true
		l, num := r.l, r.num
		r.mu.Unlock()
		r.c.forget(r.self)
		if l == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), r.c.o.WriteTimeout)
		defer cancel()
		l.ask(ctx, "rpc.unsubscribe", func(frame []byte) []byte { return appendUint(frame, "sub", num) },
			func() { delete(l.subs, num) })
		r.c.forget(r.self) // it may have become active meanwhile
	})
}

// unsubscribe ends a subscription that nobody wants to know of.
func (l *link) unsubscribe(sub uint64) {
	l.note(append(appendUint(appendNote(buffer(), "rpc.unsubscribe"), "sub", sub), closing...))
}

// orderly makes io.EOF of the end that our own Close has brought about, and of nil.
func orderly(err error) error {
	if err == nil || err == errClosed {
		return io.EOF
	}
	return err
}
