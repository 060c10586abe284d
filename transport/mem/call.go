package mem

import (
	"context"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/internal/id"
)

// Call hands m to a responder of its topic and waits for the reply. Without a responder it is CodeUnavailable at once,
// with the Reason NOT_SENT.
func (b *Bus) Call(ctx context.Context, m *transport.Message) (*transport.Message, error) {
	if m == nil {
		return nil, m.Check(0)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t, err := b.topic(m.Topic, false, transport.CodeUnimplemented)
	if err != nil {
		return nil, err
	}
	if err := m.Check(b.o.MaxBytes); err != nil {
		return nil, err
	}
	deadline, err := m.Header.Deadline()
	if err != nil {
		return nil, err
	}
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		if ctx, cancel = context.WithDeadline(ctx, deadline); deadline.Before(time.Now()) {
			cancel()
			return nil, context.DeadlineExceeded
		}
		defer cancel()
	}
	if t == nil {
		return nil, errNobody
	}
	c := &call{bus: b, ctx: ctx, m: *m, done: b.signal()}
	if m.ID == "" {
		id.Put(&c.id)
		c.m.ID = unsafe.String(&c.id[0], id.Len) // c.id is never written again
	}
	b.active.Add(1)
	if err := t.calls.push(c); err != nil {
		b.active.Add(-1)
		return nil, err
	}
	if never := ctx.Done(); never == nil {
		<-c.done
	} else {
		select {
		case <-c.done:
		case <-never:
			// Whoever finishes the call first has it; if that was the responder, its answer counts.
			c.finish(nil, ctx.Err())
			<-c.done
		}
	}
	b.signals.Put(c.done)
	if c.err != nil {
		if err := ctx.Err(); err != nil {
			return nil, err // rather than what the responder made of it
		}
	}
	return c.reply, c.err
}

// signal returns the channel of a call that is over, or a new one.
func (b *Bus) signal() chan struct{} {
	if c, ok := b.signals.Get().(chan struct{}); ok {
		return c
	}
	return make(chan struct{}, 1)
}

// A call is a request on its way. It is its own delivery, and that delivery's [transport.Source].
type call struct {
	delivery transport.Delivery
	bus      *Bus
	ctx      context.Context // the caller's
	m        transport.Message
	id       [id.Len]byte
	receiver *receiver[*call] // who took it
	merged   merged           // the handler's context: the first to be asked for
	asked    atomic.Bool

	finished atomic.Bool
	done     chan struct{} // gets a signal once reply and err are set
	reply    *transport.Message
	err      error
}

// finish ends the call; the first to do so decides how.
func (c *call) finish(reply *transport.Message, err error) {
	if c.finished.CompareAndSwap(false, true) {
		c.reply, c.err = reply, err
		c.bus.active.Add(-1)
		c.done <- struct{}{}
	}
}

// Settle implements [transport.Source].
func (c *call) Settle(_ uint64, reply *transport.Message, err error) error {
	c.receiver.settled() // before the caller wakes: what comes after that makes the two compete for a processor
	if err != nil {
		c.finish(nil, transport.Public(err))
		return nil
	}
	if reply != nil {
		if err := reply.Check(c.bus.o.MaxBytes); err != nil {
			c.finish(nil, transport.Public(transport.Wrap(err, transport.CodeInternal, "the reply cannot be sent")))
			return err
		}
		if reply.ID != "" && reply.Topic == "" {
			c.finish(reply, nil)
			return nil
		}
	}
	r := &struct {
		m  transport.Message
		id [id.Len]byte
	}{}
	if reply != nil {
		r.m = *reply
		r.m.Topic = ""
	}
	if r.m.ID == "" {
		id.Put(&r.id)
		r.m.ID = unsafe.String(&r.id[0], id.Len) // r.id is never written again
	}
	c.finish(&r.m, nil)
	return nil
}

// Cursor implements [transport.Source]: calls have no history.
func (c *call) Cursor(uint64, *transport.Message) string { return "" }

// Context implements [transport.Source].
func (c *call) Context(_ uint64, parent context.Context) (context.Context, context.CancelFunc) {
	ctx := &c.merged
	if !c.asked.CompareAndSwap(false, true) {
		ctx = new(merged) // each has its own parent and its own end
	}
	ctx.init(parent, c.ctx)
	return ctx, ctx.cancel
}

// Respond takes calls. Of the options Buffer is allowed, the number of calls that are out.
func (b *Bus) Respond(ctx context.Context, name string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o, err := transport.ResolveRespond(opts...)
	if err != nil {
		return nil, err
	}
	r, err := receive(b, name, o.Buffer, func(t *topic) *queue[*call] { return &t.calls })
	if err != nil {
		return nil, err
	}
	return responder{r}, nil
}

// A responder is a subscription to calls.
type responder struct{ r *receiver[*call] }

func (s responder) Next(ctx context.Context) (*transport.Delivery, error) {
	c, err := s.r.next(ctx, func(c *call) bool { return c.ctx.Err() == nil })
	if err != nil {
		return nil, err
	}
	c.receiver = s.r
	c.delivery.Init(c, 0, &c.m, 1, 0)
	return &c.delivery, nil
}

// Cursor is "": calls have no history.
func (s responder) Cursor() string { return "" }

// Close stops taking calls. If it was the last responder, calls that nobody took fail with CodeUnavailable.
func (s responder) Close() error {
	for _, c := range s.r.close() {
		c.finish(nil, errNobody)
	}
	return nil
}
