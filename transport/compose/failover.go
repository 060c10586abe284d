package compose

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// FailoverOptions are the options of [NewFailover]. The zero value, and nil, mean the defaults.
type FailoverOptions struct {
	// Backoff is the wait between tries to subscribe again. The first try after a loss does not wait.
	Backoff transport.Backoff
	// Attempts is how many tries in a row may lead to no message before the subscription ends with the last error. 0
	// means no limit: it tries for as long as it lives. One that held for 10 s starts the count over.
	Attempts int
	// Timeout bounds one try. 0 means 10 s.
	Timeout time.Duration
	// OnSwitch is told when a subscription goes on elsewhere. It must not block nor use the subscription.
	OnSwitch func(Switch)
}

// A Switch is the move of a subscription from one subscriber to another.
type Switch struct {
	Topic    string
	From, To int   // indexes of the subscribers; the same when it came back
	Err      error // what ended it there; io.EOF for an orderly end
	// Gap says that there is no cursor and no group to go on from: what was published in between is lost.
	Gap bool
}

// A Failover is a [transport.Subscriber] over several, which must be servers of the same backend: when one is lost, its
// subscriptions go on with the next one, from the same cursor. Safe for concurrent use.
type Failover struct {
	o    FailoverOptions
	subs []transport.Subscriber
	at   atomic.Int32 // the subscriber that worked last
}

// NewFailover returns a Failover over subs, of which it tries the first one first and the others in order.
func NewFailover(subs []transport.Subscriber, o *FailoverOptions) *Failover {
	f := &Failover{subs: slices.Clone(subs)}
	if o != nil {
		f.o = *o
	}
	if f.o.Timeout <= 0 {
		f.o.Timeout = 10 * time.Second
	}
	return f
}

// steady is how long a subscription must hold for the count of failures to start over.
const steady = 10 * time.Second

// Subscribe subscribes with the subscriber that worked last, or else with the next one that can be reached, each tried
// once. An error that another server would give as well is returned at once: those that are not [transport.Retryable].
//
// It is Next that notices a loss. It waits, within its ctx, for a goroutine that looks for another subscriber, until
// there is one or Close. An orderly end that Close did not cause is a loss too. An error that is not Retryable, and CodeResourceExhausted, which
// says that the subscriber was too slow, end it.
//
// Where there is history it goes on from the low-water mark and hands out each message once: one that comes again is
// dropped if it was settled, and it counts as settled the same way; while it is still out, it is settled with the
// delivery that is out. A redelivery, which a Nack asked for, comes as ever, but its Attempt starts over after a
// switch. Of the messages beyond a delivery that stays out, the last 65536 are known; older ones may come twice. In a
// group the group redelivers what was out. Without history and group there is a gap, which OnSwitch is told.
//
// Buffer bounds what is out, from all subscribers.
func (f *Failover) Subscribe(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	o, err := transport.Resolve(^transport.Feature(0), opts...)
	if err != nil {
		return nil, err
	}
	if len(f.subs) == 0 {
		return nil, transport.Errorf(transport.CodeInvalidArgument, "there is no subscriber to fail over to")
	}
	first := int(f.at.Load())
	for i := range f.subs {
		at := (first + i) % len(f.subs)
		var sub transport.Subscription
		sub, err = f.subscribe(ctx, at, topic, opts)
		if err == nil {
			s := &failoverSubscription{f: f, topic: topic, opts: opts, group: o.Group != "",
				slots: make(chan struct{}, o.Buffer), turn: make(chan struct{}, 1), sub: sub, at: at, next: at + 1, since: time.Now(), handed: map[string]*handed{}}
			s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !transport.Retryable(err) {
			break
		}
	}
	return nil, err
}

func (f *Failover) subscribe(ctx context.Context, at int, topic string, opts []transport.SubscribeOption) (transport.Subscription, error) {
	ctx, cancel := context.WithTimeout(ctx, f.o.Timeout)
	defer cancel()
	s, err := f.subs[at].Subscribe(ctx, topic, opts...)
	if err == nil {
		f.at.Store(int32(at))
	}
	return s, err
}

// A failoverSubscription has one inner subscription at a time.
type failoverSubscription struct {
	f     *Failover
	topic string
	opts  []transport.SubscribeOption
	group bool
	slots chan struct{}   // one element per delivery that is out or asked for
	turn  chan struct{}   // one element: its owner asks the inner subscription, so that order is that of the log
	life  context.Context // ends when err is set; with the values of Subscribe's
	end   context.CancelFunc

	mu        sync.Mutex
	err       error // it has ended
	sub       transport.Subscription
	gen       int           // of sub: how many came before
	at        int           // sub's index
	since     time.Time     // when sub began
	switching chan struct{} // closed when the goroutine that looks for the next one has ended; nil: there is none
	next      int           // index to try next, modulo
	failures  int           // tries in a row
	due       time.Time     // of the next try
	missed    uint64        // to be told with the next delivery

	// What was handed out since the low-water mark, where there is history: by cursor, and in the order of the first
	// time, which is that of the log.
	handed map[string]*handed
	order  []*handed
	prune  int // look for what can be forgotten when order has this length
}

// known bounds how many settled messages are remembered beyond the low-water mark.
const known = 1 << 16

// Next returns the next delivery, from whichever subscriber has it.
func (s *failoverSubscription) Next(ctx context.Context) (*transport.Delivery, error) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.life.Done():
		return nil, s.ended()
	}
	var d *transport.Delivery
	var err error
	select {
	case s.turn <- struct{}{}:
		d, err = s.pull(ctx)
		<-s.turn
	case <-ctx.Done():
		err = ctx.Err()
	case <-s.life.Done():
		err = s.ended()
	}
	if err != nil {
		<-s.slots
	}
	return d, err
}

func (s *failoverSubscription) pull(ctx context.Context) (*transport.Delivery, error) {
	for {
		s.mu.Lock()
		sub, gen, err := s.sub, s.gen, s.err
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
		d, err := sub.Next(ctx)
		switch {
		case err == nil:
			if d = s.take(d, gen); d != nil {
				return d, nil
			}
		case s.ended() != nil:
			return nil, s.ended()
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != io.EOF && hopeless(err):
			return nil, s.finish(err)
		default:
			select {
			case <-s.lost(gen, err):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
}

// take returns the delivery for one of the inner subscription gen, nil if it is not to be handed out.
func (s *failoverSubscription) take(d *transport.Delivery, gen int) *transport.Delivery {
	cursor := ""
	if !s.group {
		cursor = d.Cursor()
	}
	s.mu.Lock()
	s.failures, s.due = 0, time.Time{}
	h := s.handed[cursor]
	switch {
	case cursor == "":
		h = &handed{s: s}
	case gen < s.gen: // from before the switch: it comes again
		s.missed += d.Missed
		s.mu.Unlock()
		return nil
	case h == nil:
		h = &handed{s: s, cursor: cursor}
		s.remember(h)
	case gen == h.gen: // it was settled, and comes again
	default:
		h.d, h.gen = d, gen
		s.missed += d.Missed
		out, err := h.out, h.err
		s.mu.Unlock()
		if !out {
			d.Settle(nil, err) // local: without a group nobody else is to be told
		}
		return nil
	}
	h.d, h.gen, h.out = d, gen, true
	missed := d.Missed + s.missed
	s.missed = 0
	s.mu.Unlock()
	return transport.NewDelivery(h, 0, d.Message, d.Attempt, missed)
}

// remember adds h and forgets what is below the low-water mark. Under mu.
func (s *failoverSubscription) remember(h *handed) {
	if len(s.order) >= s.prune {
		s.forget()
		s.prune = max(2*len(s.order), 64)
	}
	s.handed[h.cursor] = h
	s.order = append(s.order, h)
}

// forget drops what the inner subscription knows to be settled, and what is too much. Under mu.
func (s *failoverSubscription) forget() {
	n := 0
	if mark := s.handed[s.sub.Cursor()]; mark != nil {
		for n = 1; s.order[n-1] != mark; n++ {
		}
	}
	kept := make([]*handed, 0, len(s.order)-n)
	for i, h := range s.order {
		if i < n || !h.out && len(s.order)-i > known {
			delete(s.handed, h.cursor)
		} else {
			kept = append(kept, h)
		}
	}
	s.order = kept
}

// lost sees to it that the inner subscription gen, which ended with cause, is replaced. The channel is closed then.
func (s *failoverSubscription) lost(gen int, cause error) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.switching != nil {
		return s.switching
	}
	done := make(chan struct{})
	if s.gen != gen || s.err != nil {
		close(done)
		return done
	}
	if time.Since(s.since) >= steady {
		s.failures, s.due = 0, time.Time{}
	}
	s.switching = done
	go s.failover(s.sub, s.at, cause, done)
	return done
}

// failover looks for a subscriber that takes over from old. It is a goroutine, so that a Next whose ctx is short does
// not break off what it has begun; Close ends it and waits.
func (s *failoverSubscription) failover(old transport.Subscription, from int, cause error, done chan struct{}) {
	defer func() {
		s.mu.Lock()
		s.switching = nil
		s.mu.Unlock()
		close(done)
	}()
	old.Close()
	opts, low := s.opts, old.Cursor()
	if low != "" {
		opts = append(slices.Clone(opts), transport.From(low))
	}
	err := cause
	for {
		at, ok := s.try()
		if !ok {
			s.finish(err)
			return
		}
		var sub transport.Subscription
		sub, err = s.f.subscribe(s.life, at, s.topic, opts)
		switch {
		case err == nil:
			if s.replace(sub, at) && s.f.o.OnSwitch != nil {
				s.f.o.OnSwitch(Switch{Topic: s.topic, From: from, To: at, Err: cause, Gap: low == "" && !s.group})
			}
			return
		case !transport.Retryable(err):
			s.finish(err)
			return
		}
	}
}

// try waits for the next try and returns the index to try. It is false when there were enough, or all has ended.
func (s *failoverSubscription) try() (at int, ok bool) {
	s.mu.Lock()
	enough, wait := s.f.o.Attempts > 0 && s.failures >= s.f.o.Attempts, time.Until(s.due)
	s.mu.Unlock()
	if enough {
		return 0, false
	}
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-s.life.Done():
		}
	}
	if s.life.Err() != nil {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures++
	s.due = time.Now().Add(s.f.o.Backoff.Delay(s.failures))
	at = s.next % len(s.f.subs)
	s.next = at + 1
	return at, true
}

// replace makes sub the inner subscription, unless all has ended.
func (s *failoverSubscription) replace(sub transport.Subscription, at int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		sub.Close()
		return false
	}
	s.sub, s.at, s.since = sub, at, time.Now()
	s.gen++
	return true
}

func (s *failoverSubscription) ended() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// finish ends it with err, if it has not ended, and returns the error that it ended with.
func (s *failoverSubscription) finish(err error) error {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	sub := s.sub
	err = s.err
	s.mu.Unlock()
	s.end()
	sub.Close()
	return err
}

// Cursor is the low-water mark.
func (s *failoverSubscription) Cursor() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sub.Cursor()
}

// Close ends it and waits until no subscriber is being tried.
func (s *failoverSubscription) Close() error {
	s.mu.Lock()
	if s.err == nil {
		s.err = io.EOF
	}
	sub, switching := s.sub, s.switching
	s.mu.Unlock()
	s.end()
	err := sub.Close()
	if switching != nil {
		<-switching
	}
	return err
}

// A handed is a message that was handed out. It is the [transport.Source] of its deliveries, one after the other.
type handed struct {
	s      *failoverSubscription
	cursor string

	// Under s.mu:
	d   *transport.Delivery // of the inner subscription
	gen int                 // its number
	out bool
	err error // that it was settled with
}

// Settle settles the inner delivery. If that came from a subscriber that was lost, its like from the next one is
// settled when it comes.
func (h *handed) Settle(_ uint64, reply *transport.Message, err error) error {
	s := h.s
	s.mu.Lock()
	h.out, h.err = false, err
	d, lost := h.d, h.gen != s.gen && h.cursor != ""
	s.mu.Unlock()
	<-s.slots
	serr := d.Settle(reply, err)
	if lost {
		return nil
	}
	return serr
}

func (h *handed) Cursor(uint64, *transport.Message) string { return h.cursor }

// Context implements [transport.Source]: an event brings nothing along.
func (h *handed) Context(_ uint64, parent context.Context) (context.Context, context.CancelFunc) {
	return parent, func() {}
}
