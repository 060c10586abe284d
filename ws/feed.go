package ws

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// A feed is the server's end of Subscribe, Respond and Accept: one goroutine that takes from the server's transport and
// sends to the client.
type feed struct {
	v      *session
	sub    uint64
	topic  string
	o      transport.SubscribeOptions
	ctx    context.Context
	cancel context.CancelCauseFunc // ends the taking, not what is out

	mu      sync.Mutex
	stop    func() error // of what it takes from; nil before there is that
	halted  bool
	quitted bool                           // the client has asked for the end
	stopped bool                           // nothing more will be sent
	left    bool                           // MaxSubscriptions does not count it any more
	credit  int                            // events that may be sent, without a group; -1: any number
	more    chan struct{}                  // a token: credit or out has changed
	out     map[uint64]*transport.Delivery // a group's, by tag
	tag     uint64
	busy    int    // settlings under way
	leaving *asked // rpc.unsubscribe, to be answered when the feed has stopped
}

// errStopped is the cause of a feed's end that the client has asked for.
var errStopped = errors.New("stopped by the client")

// errNoSub is what requests get that are about no subscription.
var errNoSub = transport.Errorf(transport.CodeNotFound, "there is no such subscription")

// serve runs the feed until it has ended and nothing of it is out.
func (d *feed) serve(method string, a *asked) {
	defer d.cancel(nil)
	run := d.subscribe
	switch method {
	case "rpc.respond":
		run = d.respond
	case "rpc.accept":
		run = d.accept
	}
	d.ended(run(a))
	d.giveBack()
}

// activate tells the client that the feed is active.
func (d *feed) activate(a *asked, stop func() error, cursor string, window int) {
	d.mu.Lock()
	d.stop = stop
	halted := d.halted
	d.mu.Unlock()
	a.cancelable(nil)
	if halted {
		stop()
	}
	frame := appendUint(appendResult(buffer(), a.id), "sub", d.sub)
	frame = appendText(frame, "cursor", cursor)
	frame = append(appendUint(frame, "buffer", uint64(window)), closing...)
	a.end(frame, false)
}

// halt stops the taking: once it returns, what comes goes elsewhere.
func (d *feed) halt(cause error) {
	d.cancel(cause)
	d.mu.Lock()
	d.halted = true
	stop := d.stop
	d.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// quit halts the feed for the client, apart from the reader: the transport may take its time.
func (d *feed) quit() {
	d.mu.Lock()
	first := !d.quitted
	d.quitted = true
	d.mu.Unlock()
	if first {
		d.v.wg.Go(func() { d.halt(errStopped) })
	}
}

var errLeaving = transport.Errorf(transport.CodeAlreadyExists, "another rpc.unsubscribe of it is under way")

// unsubscribe stops the feed and answers once it has.
func (d *feed) unsubscribe(a *asked) {
	if d == nil {
		a.done(nil)
		return
	}
	d.mu.Lock()
	stopped, again := d.stopped, d.leaving != nil
	if !stopped && !again {
		d.leaving = a
	}
	d.mu.Unlock()
	switch {
	case stopped:
		a.done(nil)
	case again:
		a.done(errLeaving)
	default:
		d.quit()
	}
}

// ended tells the client that nothing more will come.
func (d *feed) ended(err error) {
	d.mu.Lock()
	active, leaving, out := d.stop != nil, d.leaving, len(d.out)+d.busy
	d.stopped, d.leaving = true, nil
	d.mu.Unlock()
	if out == 0 {
		d.leave()
	}
	if active && err != errStopped {
		frame := appendUint(appendNote(buffer(), "rpc.end"), "sub", d.sub)
		d.v.note(append(appendProblem(frame, err), closing...))
	}
	leaving.done(nil)
}

// leave uncounts the feed, once, and before the client can know: it may begin another at once.
func (d *feed) leave() {
	d.mu.Lock()
	left := d.left
	d.left = true
	d.mu.Unlock()
	if !left {
		d.v.under.subscriptions.leave()
	}
}

// refuse answers that there will be no feed.
func (d *feed) refuse(a *asked, err error) error {
	d.leave()
	a.done(err)
	return err
}

// why is the end of the feed, given the error that ended it.
func (d *feed) why(err error) error {
	if d.ctx.Err() != nil {
		err = context.Cause(d.ctx)
	}
	if err == io.EOF {
		return nil
	}
	return err
}

func (d *feed) signal() {
	select {
	case d.more <- struct{}{}:
	default:
	}
}

// addCredit lets the feed send more.
func (d *feed) addCredit(n uint64) error {
	if d == nil {
		return errNoSub
	}
	d.mu.Lock()
	if d.credit >= 0 {
		d.credit = min(d.credit+int(min(n, transport.MaxBuffer)), transport.MaxBuffer)
	}
	d.mu.Unlock()
	d.signal()
	return nil
}

var errBlock = transport.Errorf(transport.CodeUnimplemented, "a remote subscriber cannot make publishers wait")

// options returns what the client demands, as the server's transport shall see it.
func (d *feed) options() (transport.SubscribeOptions, error) {
	o := d.o
	if o.Overflow == transport.Block {
		return o, errBlock
	}
	if o.Buffer == 0 {
		o.Buffer = transport.DefaultBuffer
	}
	o.Buffer = min(o.Buffer, d.v.s.o.MaxBuffer)
	return o, nil
}

func (d *feed) subscribe(a *asked) error {
	o, err := d.options()
	if err != nil {
		return d.refuse(a, err)
	}
	if o.Group == "" && o.Overflow == 0 {
		o.Overflow = transport.Disconnect
	}
	s, err := d.v.s.t.Subscribe(d.ctx, d.topic, o)
	if err != nil {
		return d.refuse(a, d.why(err))
	}
	defer s.Close()
	d.v.batching.Store(true)
	d.mu.Lock()
	d.credit = min(d.credit, o.Buffer)
	d.mu.Unlock()
	d.activate(a, s.Close, s.Cursor(), o.Buffer)
	if o.Group == "" {
		return d.events(s)
	}
	return d.group(s)
}

// burst is how many events are taken and sent at once.
const burst = 16

// eventPrefix begins an event.
var eventPrefix = string(appendNote(nil, "rpc.event")) + `"sub":`

// appendOwn appends the beginning of an event, the members that are not shared, and a comma.
func appendOwn(dst []byte, sub uint64, m *transport.Delivery, tag uint64) []byte {
	dst = strconv.AppendUint(append(dst, eventPrefix...), sub, 10)
	if tag != 0 || m.Attempt != 1 || m.Missed != 0 {
		dst = appendUint(dst, "tag", tag)
		if m.Attempt != 1 {
			dst = strconv.AppendInt(member(dst, "attempt"), int64(max(m.Attempt, 0)), 10)
		}
		dst = appendUint(dst, "missed", m.Missed)
	}
	return append(dst, ',')
}

// events sends what s has, as far as there is credit. The client settles by itself.
func (d *feed) events(s transport.Subscription) error {
	h := d.v.s.shares.acquire(d.topic)
	defer d.v.s.shares.release(d.topic, h)
	b := bundle{d: d, shared: sharedReader{share: h}}
	next := transport.NextAll
	if d.limited() {
		next = d.next
	}
	ctx, stop := d.untilEnd(s)
	defer stop()
	ms := make([]*transport.Delivery, burst)
	for {
		n, err := next(ctx, s, ms)
		if err != nil {
			return d.why(err)
		}
		err = b.send(ms[:n])
		clear(ms)
		if err != nil {
			return err
		}
	}
}

// A bundle is the events that a feed sends at once.
type bundle struct {
	d      *feed
	shared sharedReader
	ends   [burst]int
}

// send sends ms, and settles what it has sent. It bundles no more than go into one frame, so that it holds no more than
// that, and one event.
func (b *bundle) send(ms []*transport.Delivery) error {
	buf := append(buffer(), headroom[:]...)
	defer func() { recycle(buf) }()
	first, n := 0, 0 // of what is in buf
	for _, m := range ms {
		start := len(buf)
		var err error
		buf, err = b.append(buf, m)
		if n > 0 && (err != nil || len(buf)-maxHead > maxBatch) {
			if err := b.d.v.sendAll(b.d.ctx, buf[:start], b.ends[:n]); err != nil {
				return b.d.why(err)
			}
			settle(ms[first : first+n])
			first, n = first+n, 0
			buf = append(buf[:maxHead], buf[start:]...)
		}
		if err != nil {
			e := transport.Public(err)
			e.Header = transport.Header{"cursor": {m.Cursor()}}
			return e
		}
		b.ends[n] = len(buf)
		n++
	}
	if err := b.d.v.sendAll(b.d.ctx, buf, b.ends[:n]); err != nil {
		return b.d.why(err)
	}
	settle(ms[first : first+n])
	return nil
}

func settle(ms []*transport.Delivery) {
	for _, m := range ms {
		m.Ack()
	}
}

// append appends an event after a comma. If there is an error, dst is as it was.
func (b *bundle) append(dst []byte, m *transport.Delivery) ([]byte, error) {
	start := len(dst)
	dst, err := b.shared.appendEvent(appendOwn(append(dst, ','), b.d.sub, m, 0), m, b.d.v.max)
	if err != nil {
		dst = dst[:start]
	}
	return dst, err
}

// limited reports whether credit counts. That does not change.
func (d *feed) limited() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.credit >= 0
}

// untilEnd closes s when ctx ends, until stop is called. So s can be waited for with a context that does not end, which
// costs less each time.
func (d *feed) untilEnd(s transport.Subscription) (ctx context.Context, stop func()) {
	var closing sync.WaitGroup
	closing.Add(1)
	cancel := context.AfterFunc(d.ctx, func() {
		defer closing.Done()
		s.Close()
	})
	return context.WithoutCancel(d.ctx), func() {
		if !cancel() {
			closing.Wait()
		}
	}
}

// next takes events as far as there is credit.
func (d *feed) next(ctx context.Context, s transport.Subscription, ms []*transport.Delivery) (int, error) {
	n, err := d.takeCredit(len(ms))
	if err != nil {
		return 0, err
	}
	credit := n
	n, err = transport.NextAll(ctx, s, ms[:n])
	d.mu.Lock()
	d.credit += credit - n // for those that did not come
	d.mu.Unlock()
	return n, err
}

// takeCredit waits for credit, and takes at most so much.
func (d *feed) takeCredit(most int) (int, error) {
	for {
		d.mu.Lock()
		n := min(most, d.credit)
		d.credit -= n
		d.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		select {
		case <-d.more:
		case <-d.ctx.Done():
			return 0, d.ctx.Err()
		}
	}
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
		d.mu.Lock()
		d.tag++
		tag := d.tag
		if d.out == nil {
			d.out = map[uint64]*transport.Delivery{}
		}
		d.out[tag] = m
		d.mu.Unlock()
		frame := appendEventTail(appendOwn(buffer(), d.sub, m, tag), m)
		err = d.v.send(d.ctx, frame, true)
		recycle(frame)
		if err != nil {
			d.settle(tag, transport.CodeCanceled)
			return d.why(err)
		}
	}
}

// settle settles the delivery of the server's transport, apart from the reader: that may take its time.
func (d *feed) settle(tag uint64, err error) error {
	if d == nil {
		return errNoSub
	}
	d.mu.Lock()
	m := d.out[tag]
	delete(d.out, tag)
	if m != nil {
		d.busy++
	}
	d.mu.Unlock()
	if m == nil {
		return transport.Errorf(transport.CodeNotFound, "nothing with this tag is out")
	}
	d.v.wg.Go(func() {
		m.Settle(nil, err)
		d.mu.Lock()
		d.busy--
		d.mu.Unlock()
		d.signal()
	})
	return nil
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
func (d *feed) respond(a *asked) error {
	o, err := d.options()
	var s transport.Subscription
	if err == nil {
		s, err = d.v.s.t.Respond(d.ctx, d.topic, o)
	}
	if err != nil {
		return d.refuse(a, d.why(err))
	}
	defer s.Close()
	d.activate(a, s.Close, "", o.Buffer)
	for {
		m, err := s.Next(d.ctx)
		if err != nil {
			return d.why(err)
		}
		d.forward(func() {
			ctx, cancel := m.Context(context.Background())
			defer cancel()
			m.Settle(d.v.conn.call(ctx, m.Message, d.sub))
		})
	}
}

// forward does something that a drain waits for.
func (d *feed) forward(do func()) {
	d.v.mu.Lock()
	d.v.work++
	d.v.mu.Unlock()
	d.v.wg.Go(func() {
		defer d.v.finish()
		do()
	})
}

// accept forwards streams, each in goroutines of its own.
func (d *feed) accept(a *asked) error {
	l, err := d.v.s.t.Accept(d.ctx, d.topic)
	if err != nil {
		return d.refuse(a, d.why(err))
	}
	defer l.Close()
	d.activate(a, l.Close, "", 0)
	slots := d.v.slots()
	for {
		select {
		case slots <- struct{}{}:
		case <-d.ctx.Done():
			return d.why(nil)
		}
		in, err := l.Next(d.ctx)
		if err != nil {
			<-slots
			return d.why(err)
		}
		d.forward(func() {
			defer func() { <-slots }()
			out, err := d.v.conn.open(in.Context(), in.Topic(), in.Header(), d.sub)
			if err != nil {
				in.End(err)
				return
			}
			wire.Bridge(in, out.Opener())
		})
	}
}
