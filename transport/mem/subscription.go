package mem

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/internal/window"
)

// Subscribe returns a position in the topic's log, or a member of a group. It offers every [transport.Feature].
func (b *Bus) Subscribe(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o, err := transport.Resolve(offered, opts...)
	if err != nil {
		return nil, err
	}
	if o.DeadLetter != "" && b.known != nil && !b.known[o.DeadLetter] {
		return nil, transport.Errorf(transport.CodeNotFound, "there is no topic %q", o.DeadLetter)
	}
	for {
		t, err := b.topic(topic, true, transport.CodeNotFound)
		if err != nil {
			return nil, err
		}
		var s transport.Subscription
		if o.Group != "" {
			s, err = t.join(o)
		} else {
			s, err = t.subscribe(o)
		}
		if err != errRemoved {
			return s, err
		}
	}
}

func (t *topic) subscribe(o transport.SubscribeOptions) (transport.Subscription, error) {
	if o.Overflow == 0 {
		o.Overflow = transport.Block
	}
	if o.MaxAttempts == 0 {
		o.MaxAttempts = transport.DefaultMaxAttempts
	}
	s := &subscription{t: t, o: o}
	s.cond.L = &s.mu
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed != nil {
		return nil, t.removed
	}
	pos, err := t.position(o.From)
	if err != nil {
		return nil, err
	}
	s.pos.Store(pos)
	s.chunk = t.log.chunkOf(pos)
	if t.feed != nil {
		s.start = t.feed.cursorAt(pos)
	}
	t.subs[s] = struct{}{}
	if o.Overflow == transport.Block {
		t.blocked = min(t.blocked, pos)
	}
	if t.feed != nil {
		t.feed.enter()
	}
	return s, nil
}

// A subscription is a position in a log. It settles on its own: nobody else sees what becomes of a delivery.
type subscription struct {
	t *topic
	o transport.SubscribeOptions

	mu     sync.Mutex
	reader // reader.pos may be read without mu
	sleeper
	place
	win    window.Window[*entry]
	missed uint64 // to be told with the next delivery
	last   *entry // the last that was read, if the topic is a mirror's
	start  string // the cursor it started from, likewise
	timer  *time.Timer
	final  error // how it ends once it has read everything
	err    error // it has ended
}

func (s *subscription) Next(ctx context.Context) (*transport.Delivery, error) {
	d := new(transport.Delivery)
	if err := s.NextInto(ctx, d); err != nil {
		return nil, err
	}
	return d, nil
}

// NextInto implements [transport.ReusingSubscription].
func (s *subscription) NextInto(ctx context.Context, d *transport.Delivery) error {
	_, err := s.next(ctx, []*transport.Delivery{d})
	return err
}

// NextAll implements [transport.BatchSubscription].
func (s *subscription) NextAll(ctx context.Context, dst []*transport.Delivery) (int, error) {
	clear(dst)
	return s.next(ctx, dst)
}

// next fills dst, whose deliveries it uses where there are any.
func (s *subscription) next(ctx context.Context, dst []*transport.Delivery) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	for {
		n, overflow := s.take(dst)
		err, finished := s.err, n == 0 && s.finished()
		if n == 0 && err == nil && !overflow && !finished && s.after == nil {
			if err = s.sleep(ctx); err == nil {
				continue
			}
		}
		s.passOn() // after an error too: a token may have come at the same time and was meant for this reader
		after := s.after
		s.after = nil
		s.mu.Unlock()
		after.wake() // first of all: what a handler does must not hold up others
		switch {
		case n > 0:
			if s.o.Overflow == transport.Block {
				s.t.advanced(s.pos.Load())
			}
			return n, nil
		case err != nil:
			return 0, err
		case overflow:
			s.overflow("it was too slow for the topic's history")
		case finished:
			s.end(func() error { return s.final })
		}
		s.mu.Lock()
	}
}

// passOn keeps the readers that sleep from sleeping too long: a token wakes one of them, who passes it on if there is
// more to do. Under mu.
func (s *subscription) passOn() {
	if s.n == 0 {
		return
	}
	if s.err != nil || s.finished() || !s.full() && s.pos.Load() < s.t.log.head.Load() {
		s.rouse()
	} else if s.win.Waiting() > 0 {
		switch wait := time.Until(s.win.Due()); {
		case wait <= 0:
			s.rouse()
		case s.timer == nil:
			s.timer = time.AfterFunc(wait, s.due)
		default:
			s.timer.Reset(wait)
		}
	}
}

// due gives a token when the time of a redelivery has come.
func (s *subscription) due() {
	s.mu.Lock()
	s.rouse()
	s.mu.Unlock()
}

// sleep waits for a token. Whoever settles, publishes, closes or reaches a redelivery's time gives one. While the
// window is full, publishers need not. Under mu, which it releases meanwhile.
func (s *subscription) sleep(ctx context.Context) error {
	if s.o.Overflow == transport.Block {
		s.t.advanced(never)
	}
	if !s.full() {
		s.t.sleepers.add(s)
	}
	s.n++
	s.passOn() // publishers append and then look who sleeps; this looks after it is listed
	err := s.wait(ctx)
	s.n--
	return err
}

// full reports whether nothing new may be handed out. Under mu.
func (s *subscription) full() bool {
	return s.win.Len() >= s.o.Buffer || s.o.Require&transport.Ordered != 0 && s.win.Len() > 0
}

// take hands out what is due again, then what is new. overflow is true if messages that Disconnect does not forgive
// were evicted. Under mu.
func (s *subscription) take(dst []*transport.Delivery) (n int, overflow bool) {
	if s.err != nil {
		return 0, false
	}
	for ; n < len(dst) && s.win.Waiting() > 0; n++ {
		token, ok := s.win.Again(time.Now())
		if !ok {
			break
		}
		e, attempt := s.win.Get(token)
		dst[n] = s.delivery(dst[n], token, e, attempt)
	}
	for n < len(dst) && !s.full() {
		e, lost := s.peek(&s.t.log)
		if lost {
			if s.o.Overflow != transport.DropOldest {
				return n, n == 0
			}
			s.skip()
			continue
		}
		if e == nil {
			break
		}
		s.pos.Store(e.offset + 1)
		if s.t.feed != nil {
			s.last = e
		}
		if e.expires != 0 && time.Now().UnixNano() >= e.expires {
			continue
		}
		dst[n] = s.delivery(dst[n], s.win.Add(e, 1), e, 1)
		n++
	}
	return n, false
}

// delivery makes d the delivery of e, or a new one if it is nil.
func (s *subscription) delivery(d *transport.Delivery, slot uint64, e *entry, attempt int) *transport.Delivery {
	if d == nil {
		d = new(transport.Delivery)
	}
	missed := s.missed
	s.missed = 0
	if s.t.feed != nil {
		d.Init(&mirroredSource{s, e}, slot, &e.m, attempt, missed)
	} else {
		d.Init((*source)(s), e.offset<<slotBits|slot, &e.m, attempt, missed)
	}
	return d
}

// drained reports whether everything was read and settled.
func (s *subscription) drained() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pos.Load() >= s.t.log.head.Load() && s.win.Len() == 0
}

// skip moves to the oldest message that is left and counts those in between. Under mu.
func (s *subscription) skip() {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if base := s.t.log.base; base > s.pos.Load() {
		s.missed += base - s.pos.Load()
		s.chunk = s.t.log.first
		s.pos.Store(base)
	}
}

// A source is the subscription as its deliveries see it.
type source subscription

// Context returns parent: an event brings nothing along.
func (s *source) Context(_ uint64, parent context.Context) (context.Context, context.CancelFunc) {
	return parent, func() {}
}

// Cursor is the position after the delivery.
func (s *source) Cursor(token uint64, _ *transport.Message) string {
	return s.t.cursor(token >> slotBits)
}

// Settle applies the rules of Delivery.Settle.
func (src *source) Settle(token uint64, _ *transport.Message, err error) error {
	s := (*subscription)(src)
	s.mu.Lock()
	slot := token & slotMask
	e, attempt := s.win.Get(slot)
	verdict, wait := window.Judge(err, attempt, s.o.MaxAttempts)
	switch verdict {
	case window.GiveBack:
		s.win.Wait(slot, time.Now(), attempt)
	case window.Retry:
		s.win.Wait(slot, time.Now().Add(wait), attempt+1)
	default:
		s.win.Done(slot)
	}
	if s.n > 0 {
		s.rouse()
	}
	s.mu.Unlock()
	if verdict == window.Refuse {
		s.t.bus.report(s.t.name, &e.m, err)
	}
	return nil
}

// A token is the offset of the message, for its cursor, and its slot in the window.
const (
	slotBits = 16
	slotMask = transport.MaxBuffer - 1
)

// Cursor is the low-water mark.
func (s *subscription) Cursor() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.low()
}

// low is the cursor of the low-water mark. Under mu.
func (s *subscription) low() string {
	if e, ok := s.win.Oldest(); ok {
		return s.t.before(e)
	}
	switch {
	case s.t.feed == nil:
		return s.t.cursor(s.pos.Load() - 1)
	case s.last != nil:
		return s.t.after(s.last)
	}
	return s.start
}

// Close ends the subscription. What is out can still be settled, which moves the low-water mark on.
func (s *subscription) Close() error {
	s.end(func() error { return io.EOF })
	return nil
}

// overflow ends the subscription for being slow.
func (s *subscription) overflow(why string, args ...any) {
	var err *transport.Error
	ended := s.end(func() error {
		err = transport.Errorf(transport.CodeResourceExhausted, "the subscription was ended: "+why, args...).(*transport.Error)
		err.Header = transport.Header{"cursor": {s.low()}}
		return err
	})
	if ended {
		s.t.bus.report(s.t.name, nil, err)
	}
}

// finished reports whether there is nothing more to hand out, ever. Under mu.
func (s *subscription) finished() bool {
	return s.final != nil && s.pos.Load() >= s.t.log.head.Load() && s.win.Waiting() == 0
}

// finish ends the subscription with err once it has read everything.
func (s *subscription) finish(err error) {
	s.mu.Lock()
	s.final = err
	if s.n > 0 {
		s.rouse()
	}
	s.mu.Unlock()
}

func (s *subscription) end(why func() error) bool {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return false
	}
	s.err = why()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.passOn()
	crowded := s.placed && s.t.sleepers.leave()
	s.mu.Unlock()
	if crowded {
		s.t.sleepers.wake()
	}
	s.t.forget(s)
	if s.t.feed != nil {
		s.t.feed.leave()
	}
	return true
}
