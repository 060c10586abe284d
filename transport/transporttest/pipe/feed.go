package pipe

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// A feed is the server's end of Subscribe, Respond and Accept: one goroutine that takes from the server's transport and
// sends to the client.
type feed struct {
	v      *session
	f      *frame // that began it
	ctx    context.Context
	cancel context.CancelCauseFunc // ends the taking, not what is out

	mu     sync.Mutex
	close  func() error // of what it takes from; nil before there is that
	halted bool
	credit int                            // events that may be sent; without a group only
	more   chan struct{}                  // a token: credit or out has changed
	out    map[uint64]*transport.Delivery // a group's, by tag
	tag    uint64
	busy   int // settlings under way
}

// errStopped is the cause of a feed's end that the client has asked for.
var errStopped = errors.New("stopped by the client")

func (v *session) serveFeed(f *frame) error {
	d := &feed{v: v, f: f, more: make(chan struct{}, 1), out: map[uint64]*transport.Delivery{}}
	d.ctx, d.cancel = context.WithCancelCause(v.ctx)
	err := v.admit(f, d)
	run := map[string]func() error{"subscribe": d.subscribe, "respond": d.respond, "accept": d.accept}[f.Type]
	v.wg.Go(func() {
		defer d.cancel(nil)
		err := run()
		v.subscriptions.leave() // before the client can know
		v.answer(f.ID, nil, err)
	})
	return err
}

func (d *feed) receive(f *frame) error {
	switch f.Type {
	case "stop":
		d.halt(errStopped)
	case "credit":
		d.mu.Lock()
		d.credit = min(d.credit+f.N, d.v.s.o.MaxBuffer)
		d.mu.Unlock()
		d.signal()
	case "settle":
		d.settle(f)
	}
	return nil
}

func (d *feed) lost(error) {} // ctx ends
func (d *feed) drain()     { d.halt(errClosed) }

func (d *feed) signal() {
	select {
	case d.more <- struct{}{}:
	default:
	}
}

// halt stops the taking: once it returns, what comes goes elsewhere.
func (d *feed) halt(cause error) {
	d.cancel(cause)
	d.mu.Lock()
	d.halted = true
	stop := d.close
	d.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// activate tells the client that the feed is active, unless it does not want it any more.
func (d *feed) activate(stop func() error, cursor string, buffer int) {
	d.mu.Lock()
	d.close = stop
	d.credit = buffer
	halted := d.halted
	d.mu.Unlock()
	if halted {
		stop()
	}
	d.v.post(&frame{Type: "active", ID: d.f.ID, Cursor: cursor, N: buffer})
}

// why is the end of the feed, given the error that ended it.
func (d *feed) why(err error) error {
	if d.ctx.Err() != nil {
		err = context.Cause(d.ctx)
	}
	if err == errStopped || err == io.EOF {
		return nil
	}
	return err
}

// options returns what the client demands, as the server's transport shall see it.
func (d *feed) options() (transport.SubscribeOptions, error) {
	o := d.f.Options
	if o.Overflow == transport.Block {
		return o, errBlock
	}
	if o.Buffer == 0 {
		o.Buffer = transport.DefaultBuffer
	}
	o.Buffer = min(o.Buffer, d.v.s.o.MaxBuffer)
	return o, nil
}

func (d *feed) subscribe() error {
	o, err := d.options()
	if err != nil {
		return err
	}
	if o.Group == "" && o.Overflow == 0 {
		o.Overflow = transport.Disconnect
	}
	s, err := d.v.s.t.Subscribe(d.ctx, d.f.Topic, o)
	if err != nil {
		return err
	}
	defer s.Close()
	d.activate(s.Close, s.Cursor(), o.Buffer)
	if o.Group == "" {
		return d.events(s)
	}
	err = d.group(s)
	s.Close()
	d.v.post(&frame{Type: "eof", ID: d.f.ID, Error: publicError(err)})
	d.giveBack()
	return err
}

// events sends what s has, as far as there is credit. The client settles by itself.
func (d *feed) events(s transport.Subscription) error {
	for {
		if err := d.waitCredit(); err != nil {
			return d.why(err)
		}
		m, err := s.Next(d.ctx)
		if err != nil {
			return d.why(err)
		}
		f := d.event(m)
		if err := m.Check(d.v.max); err != nil {
			e := transport.Public(err)
			e.Header = transport.Header{"cursor": {f.Cursor}}
			return e
		}
		if err := d.v.send(d.ctx, f); err != nil {
			return d.why(err)
		}
		m.Ack()
	}
}

// waitCredit takes one credit.
func (d *feed) waitCredit() error {
	for {
		d.mu.Lock()
		ok := d.credit > 0
		if ok {
			d.credit--
		}
		d.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-d.more:
		case <-d.ctx.Done():
			return d.ctx.Err()
		}
	}
}

func (d *feed) event(m *transport.Delivery) *frame {
	f := &frame{Type: "event", ID: d.f.ID, Cursor: m.Cursor(), Attempt: m.Attempt, Missed: m.Missed}
	f.put(m.Message)
	return f
}

// group sends what s has and keeps the deliveries until the client settles them. Their number is s's Buffer.
func (d *feed) group(s transport.Subscription) error {
	for {
		m, err := s.Next(d.ctx)
		if err != nil {
			return d.why(err)
		}
		if err := m.Check(d.v.max); err != nil { // refused for good: it will never fit
			m.Nack(transport.Wrap(err, transport.CodeFailedPrecondition, "the message is too large for the subscriber"))
			continue
		}
		f := d.event(m)
		d.mu.Lock()
		d.tag++
		f.Tag = d.tag
		d.out[f.Tag] = m
		d.mu.Unlock()
		if err := d.v.send(d.ctx, f); err != nil {
			d.settle(&frame{Tag: f.Tag, Error: publicError(transport.CodeCanceled)})
			return d.why(err)
		}
	}
}

// settle settles the delivery of the server's transport, apart from the reader: that may take its time.
func (d *feed) settle(f *frame) {
	d.mu.Lock()
	m := d.out[f.Tag]
	delete(d.out, f.Tag)
	if m != nil {
		d.busy++
	}
	d.mu.Unlock()
	if m == nil {
		return
	}
	d.v.wg.Go(func() {
		m.Settle(nil, f.err())
		d.mu.Lock()
		d.busy--
		d.mu.Unlock()
		d.signal()
	})
}

// giveBack waits until what is out is settled. When the connection ends, it gives that back.
func (d *feed) giveBack() {
	for {
		d.mu.Lock()
		left := len(d.out) + d.busy
		d.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-d.more:
			continue
		case <-d.v.ctx.Done():
		}
		d.mu.Lock()
		out := d.out
		d.out = nil
		d.mu.Unlock()
		for _, m := range out {
			m.Nack(transport.CodeCanceled)
		}
		return
	}
}

// respond forwards calls, each in a goroutine of its own. Their number is the Buffer.
func (d *feed) respond() error {
	o, err := d.options()
	if err != nil {
		return err
	}
	s, err := d.v.s.t.Respond(d.ctx, d.f.Topic, o)
	if err != nil {
		return err
	}
	defer s.Close()
	d.activate(s.Close, "", o.Buffer)
	for {
		m, err := s.Next(d.ctx)
		if err != nil {
			return d.why(err)
		}
		d.v.wg.Go(func() {
			ctx, cancel := m.Context(context.Background())
			defer cancel()
			m.Settle(d.v.call(ctx, d.f.ID, m.Message))
		})
	}
}

// accept forwards streams, each in goroutines of its own.
func (d *feed) accept() error {
	l, err := d.v.s.t.Accept(d.ctx, d.f.Topic)
	if err != nil {
		return err
	}
	defer l.Close()
	d.activate(l.Close, "", 0)
	for {
		select {
		case d.v.accepted <- struct{}{}:
		case <-d.ctx.Done():
			return d.why(nil)
		}
		in, err := l.Next(d.ctx)
		if err != nil {
			d.v.accepted.leave()
			return d.why(err)
		}
		d.v.wg.Go(func() {
			defer d.v.accepted.leave()
			out, err := d.v.open(in.Context(), &frame{Type: "open", For: d.f.ID, Topic: in.Topic(), Header: in.Header()})
			if err != nil {
				in.End(err)
				return
			}
			wire.Bridge(in, out.Opener())
		})
	}
}
