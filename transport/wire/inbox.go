package wire

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/internal/window"
)

// maxSeen bounds how many cursors an Inbox remembers to recognise what a resumed subscription sends again.
const maxSeen = 4096

// An Item is a message as it arrived, with what came along. Push takes it over: set the exported fields before, and
// leave it alone after. It is the one allocation of a received message; the Delivery is the other.
//
// Cursor is a string that the protocol cuts out of what it has read anyway. It should not keep a large buffer alive.
type Item struct {
	Message transport.Message
	Cursor  string // position just after Message; "" without history, and in a group
	Attempt int    // as the server counts; 0: unknown, which counts as 1 for a subscription without a group
	Missed  uint64 // as the server counts
	Tag     uint64 // the server's name for a delivery of a group or for a call

	// Deadline is when a call ends, or when an event is dropped unless it was handed out; zero: never. For an event with a
	// ttl header, Push sets it if it is zero, as if the message had just been published.
	Deadline time.Time
	Peer     *transport.Peer // who calls; nil: unknown

	h held
}

// held is what an Inbox knows of an Item. It is the Source of the Item's deliveries, within the same allocation.
type held struct {
	item     *Item
	in       *Inbox
	serial   uint64 // in the order of Push
	epoch    uint64 // the connection that brought it
	out      bool
	canceled bool
	cancel   context.CancelFunc // of the last Context of a call
	delivery transport.Delivery // the first
}

// InboxOptions are what an Inbox needs to know of its protocol. A func must be safe for concurrent use.
type InboxOptions struct {
	// Start is the cursor where the subscription started, as the server said; "" without history.
	Start string
	// MaxBytes bounds the messages that are held ready, by Message.Size, in a subscription without a group. One message is
	// held whatever its size. Defaults to Buffer times transport.DefaultMaxBytes.
	MaxBytes int
	// Calls says that the items are calls: the Inbox is Respond's.
	Calls bool
	// Settle sends the answer to a call, or the verdict on a group's message, to the server that named it tag. It is
	// required for calls and groups, and must be nil for the rest, which the Inbox settles by itself. It may be called by
	// Push, Cancel, Next and Close as well, never with the Inbox locked.
	Settle func(tag uint64, reply *transport.Message, err error) error
	// Credit tells that n more items may be pushed: so many were handed out or dropped since the last time. It comes once
	// for every half of Buffer. It is not called for calls and groups, where settling makes room. It is called with the
	// Inbox locked, so that it is in order with Resume: it must not block nor use the Inbox.
	Credit func(n int)
	// Dropped is told of a message that was refused for good, or given up after MaxAttempts. nil: nobody is told.
	Dropped func(m *transport.Message, err error)
	// Stale is told each time that something was settled whose connection is gone, so that Settle was not called for it.
	// nil: nobody is told.
	Stale func()
	// Closed tells the server, once, when Close is called. Its error is Close's.
	Closed func() error
}

// An Inbox is the receiving half of a client's subscription, between the goroutine that reads a connection and those
// that call Next. It implements [transport.Subscription] and [transport.BatchSubscription]. It has no goroutine.
//
// Items are pushed and never wait. At most Buffer are held ready and as many are out; what is more than that is
// overflow. Without a group the policy decides: DropOldest drops the oldest that is ready and counts it in Missed of the
// next; else the subscription ends with CodeResourceExhausted, with the low-water mark in Error.Header "cursor". In a
// group, and for calls, the server's window is Buffer items unsettled, so that overflow is the server's fault.
//
// Without a group a delivery is settled here, by the rules of [transport.Delivery.Settle]: it comes again, or is
// dropped and told to Dropped. Under Require(Ordered) one is out at a time, and one that waits holds back the rest.
//
// After a reconnect, [Inbox.Resume] says where to go on, and what is then sent again is dropped.
type Inbox struct {
	o        InboxOptions
	buffer   int
	attempts int
	policy   transport.Policy
	ordered  bool
	wake     chan struct{} // a token: somebody shall look

	mu      sync.Mutex
	items   window.Window[*Item] // all that is unsettled: ready, out, or waiting to come again
	ready   fifo[uint64]         // tokens of items
	bytes   int                  // of what is ready
	serial  uint64
	epoch   uint64
	live    int // unsettled in the eyes of the server; groups and calls only
	owed    int // credit not yet given
	dropped uint64
	calls   map[uint64]*Item // by tag

	low    string         // the low-water mark
	seen   fifo[position] // pushed since
	replay map[string]bool

	err      error // why nothing more comes
	over     bool  // and it has been said
	overflow bool
	closed   bool
}

// position is a place in the sequence of pushed items.
type position struct {
	serial uint64
	cursor string
}

// NewInbox returns the Inbox of a subscription with the options so, which [transport.Resolve] has filled in. Of these
// Buffer is what the server has granted.
func NewInbox(so transport.SubscribeOptions, o *InboxOptions) *Inbox {
	in := &Inbox{
		buffer:   so.Buffer,
		attempts: so.MaxAttempts,
		policy:   so.Overflow,
		ordered:  so.Require&transport.Ordered != 0,
		wake:     make(chan struct{}, 1),
	}
	if o != nil {
		in.o = *o
	}
	if in.buffer <= 0 {
		in.buffer = transport.DefaultBuffer
	}
	if in.attempts <= 0 {
		in.attempts = transport.DefaultMaxAttempts
	}
	if in.o.MaxBytes <= 0 {
		in.o.MaxBytes = in.buffer * transport.DefaultMaxBytes
	}
	if in.remote() {
		in.ordered = false // the owner of the group sees to it
	} else {
		in.low = in.o.Start
	}
	if in.o.Calls {
		in.calls = map[uint64]*Item{}
	}
	return in
}

// remote reports whether the server owns what is pushed: calls, and the messages of a group.
func (in *Inbox) remote() bool { return in.o.Settle != nil }

// Push takes an item that has arrived. It never waits. The error is CodeResourceExhausted, for overflow: in a group and
// for calls the server broke its window, and nothing was taken; else the subscription has ended with this error. What
// arrives after the end is given back or dropped, and the error is nil.
func (in *Inbox) Push(it *Item) error {
	in.mu.Lock()
	if in.err != nil {
		in.mu.Unlock()
		if in.remote() {
			in.o.Settle(it.Tag, nil, in.givenBack())
		}
		return nil
	}
	if in.replay[it.Cursor] {
		delete(in.replay, it.Cursor)
		in.credit(1)
		in.mu.Unlock()
		return nil
	}
	if err := in.admit(it); err != nil {
		in.mu.Unlock()
		return err
	}
	if !in.o.Calls && it.Deadline.IsZero() {
		if ttl, err := it.Message.Header.Millis(transport.HeaderTTL); err == nil && ttl > 0 {
			it.Deadline = time.Now().Add(ttl)
		}
	}
	in.serial++
	it.h = held{item: it, in: in, serial: in.serial, epoch: in.epoch}
	in.ready.push(in.items.Add(it, it.Attempt))
	if it.Cursor != "" && !in.remote() {
		in.see(it.Cursor)
	}
	in.signal()
	in.mu.Unlock()
	return nil
}

// admit makes room for it.
func (in *Inbox) admit(it *Item) error {
	if in.remote() {
		if in.live >= in.buffer {
			return transport.Errorf(transport.CodeResourceExhausted, "more than %d deliveries are unsettled", in.buffer)
		}
		in.live++
		if in.calls != nil {
			in.calls[it.Tag] = it
		}
		return nil
	}
	it.Attempt = max(it.Attempt, 1)
	size := it.Message.Size()
	for in.ready.len() > 0 && (in.ready.len() >= in.buffer || in.bytes+size > in.o.MaxBytes) {
		if in.policy != transport.DropOldest {
			in.overflow = true
			in.end(transport.Errorf(transport.CodeResourceExhausted, "the subscriber is too slow"))
			return in.err
		}
		token, old := in.popReady()
		in.dropped += old.Missed + 1
		in.done(token)
	}
	in.bytes += size
	return nil
}

// popReady removes the first item that is ready.
func (in *Inbox) popReady() (uint64, *Item) {
	token := in.ready.pop()
	it, _ := in.items.Get(token)
	if !in.remote() {
		in.bytes -= it.Message.Size()
		in.credit(1)
	}
	return token, it
}

func (in *Inbox) credit(n int) {
	if in.owed += n; in.o.Credit != nil && in.owed >= (in.buffer+1)/2 {
		in.o.Credit(in.owed)
		in.owed = 0
	}
}

// Advance tells that the server has nothing more up to cursor: the low-water mark gets there once everything pushed
// before is settled. It is for protocols that send a position without a message.
func (in *Inbox) Advance(cursor string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if cursor != "" && !in.remote() && in.err == nil {
		in.serial++
		in.see(cursor)
		in.trim()
	}
}

// see remembers the position after the item that has the newest serial.
func (in *Inbox) see(cursor string) {
	if in.seen.len() >= maxSeen+in.buffer {
		in.seen.pop() // a resume would hand it out again; better than to hold up or to lose anything
	}
	in.seen.push(position{in.serial, cursor})
}

// done forgets an item and moves the low-water mark.
func (in *Inbox) done(token uint64) {
	in.items.Done(token)
	in.trim()
}

func (in *Inbox) trim() {
	oldest, ok := in.items.Oldest()
	for in.seen.len() > 0 && (!ok || in.seen.first().serial < oldest.h.serial) {
		in.low = in.seen.pop().cursor
	}
}

// Room is how many more items can be pushed without overflow, by their number.
func (in *Inbox) Room() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.room()
}

func (in *Inbox) room() int {
	if in.remote() {
		return in.buffer - in.live
	}
	return in.buffer - in.ready.len()
}

// Resume starts over on a new connection. It returns the low-water mark, which is the cursor to go on from, and how many
// items may be pushed before Credit gives more. What the server then sends again is recognised by its cursor and
// dropped: each message is handed out once. (Only the newest 4096 positions past one that stays unsettled are
// remembered; what is older may come twice, it is never lost.)
//
// In a group, and for calls, the server has taken back all that the old connection brought. What is ready is dropped,
// contexts of calls end, and settling what is out is CodeUnavailable. To end a subscription whose connection is lost,
// call Resume, then End.
func (in *Inbox) Resume() (cursor string, room int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.owed = 0
	if in.remote() {
		for in.ready.len() > 0 {
			in.items.Done(in.ready.pop())
		}
		in.epoch++
		in.live = 0
		for _, it := range in.calls {
			it.h.end()
		}
		clear(in.calls)
		return "", in.room()
	}
	in.replay = make(map[string]bool, in.seen.len())
	for _, p := range in.seen.all() {
		in.replay[p.cursor] = true
	}
	return in.low, in.room()
}

// Cancel ends the call with this tag because its caller has given up: a call that is ready is dropped unseen, and
// answered with CodeCanceled; the context of one that is out ends. Either no longer counts for the server's window.
// An unknown tag does nothing.
func (in *Inbox) Cancel(tag uint64) {
	in.mu.Lock()
	it := in.calls[tag]
	if it == nil || it.h.canceled {
		in.mu.Unlock()
		return
	}
	in.live--
	it.h.end()
	if !it.h.out {
		delete(in.calls, tag)
		in.mu.Unlock()
		in.o.Settle(tag, nil, transport.CodeCanceled)
		return
	}
	in.mu.Unlock()
}

// end ends the context of a call.
func (h *held) end() {
	h.canceled = true
	if h.cancel != nil {
		h.cancel()
	}
}

// End tells that nothing more will come: what is ready is still handed out, then Next returns err, or io.EOF if err is
// nil. What waits to come again is not waited for: it stays unsettled, so the low-water mark is before it. If err is
// an Error with a cursor in its header, that is replaced by the low-water mark where something is unsettled by the time
// Next returns it. The first end counts, and Close is one.
func (in *Inbox) End(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.end(err)
}

func (in *Inbox) end(err error) {
	if in.err != nil {
		return
	}
	if in.err = err; err == nil {
		in.err = io.EOF
	}
	in.replay = nil
	in.signal()
}

// Close implements [transport.Subscription].
func (in *Inbox) Close() error {
	in.mu.Lock()
	if in.closed {
		in.mu.Unlock()
		return nil
	}
	in.closed, in.over = true, true
	in.end(nil)
	var back []uint64
	for in.remote() && in.ready.len() > 0 {
		token, it := in.popReady()
		in.items.Done(token)
		if !it.h.canceled {
			in.live--
			delete(in.calls, it.Tag)
			back = append(back, it.Tag)
		}
	}
	in.mu.Unlock()
	var errs []error
	for _, tag := range back {
		errs = append(errs, in.o.Settle(tag, nil, in.givenBack()))
	}
	if in.o.Closed != nil {
		errs = append(errs, in.o.Closed())
	}
	return errors.Join(errs...)
}

// givenBack is what settles an item that nobody will see here.
func (in *Inbox) givenBack() error {
	if in.o.Calls {
		return &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent,
			Message: "the responder has closed"}
	}
	return transport.CodeCanceled
}

// Cursor implements [transport.Subscription].
func (in *Inbox) Cursor() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.low
}

// Next implements [transport.Subscription].
func (in *Inbox) Next(ctx context.Context) (*transport.Delivery, error) {
	var one [1]*transport.Delivery
	_, err := in.next(ctx, one[:])
	return one[0], err
}

// NextAll implements [transport.BatchSubscription].
func (in *Inbox) NextAll(ctx context.Context, dst []*transport.Delivery) (int, error) {
	if len(dst) == 0 {
		return 0, transport.Errorf(transport.CodeInvalidArgument, "NextAll needs room for a delivery")
	}
	return in.next(ctx, dst)
}

func (in *Inbox) next(ctx context.Context, dst []*transport.Delivery) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	for {
		n, due, err := in.take(dst)
		if n > 0 || err != nil {
			return n, err
		}
		if err := in.wait(ctx, due); err != nil {
			return 0, err
		}
	}
}

// wait waits for a token, or for due if that is not zero.
func (in *Inbox) wait(ctx context.Context, due time.Time) error {
	var timer <-chan time.Time
	if !due.IsZero() {
		left := time.Until(due)
		if left <= 0 {
			return nil
		}
		t := time.NewTimer(left)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-in.wake: // whoever has the token must look, even if ctx has ended meanwhile
	case <-timer:
	case <-ctx.Done():
		in.signal() // somebody else must mind the timer now
		return ctx.Err()
	}
	return nil
}

// signal leaves a token for one of those that wait. Whoever takes it leaves another if there may be more to do.
func (in *Inbox) signal() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// take fills dst with what may be handed out now. If that is nothing, due is when something will come again, zero for
// never; err is the end.
func (in *Inbox) take(dst []*transport.Delivery) (n int, due time.Time, err error) {
	var late []uint64
	in.mu.Lock()
	for n < len(dst) && !in.over {
		token, again, ok := in.choose()
		if !ok {
			break
		}
		it, attempt := in.items.Get(token)
		if !again && (it.h.canceled || it.expired()) {
			in.done(token)
			in.dropped += it.Missed
			if in.remote() && !it.h.canceled {
				in.live--
				delete(in.calls, it.Tag)
				late = append(late, it.Tag)
			}
			continue
		}
		missed := uint64(0)
		if !again {
			missed, in.dropped = it.Missed+in.dropped, 0
		}
		it.h.out = true
		if again {
			dst[n] = transport.NewDelivery(&it.h, token, &it.Message, attempt, missed)
		} else {
			it.h.delivery.Init(&it.h, token, &it.Message, attempt, missed)
			dst[n] = &it.h.delivery
		}
		n++
	}
	if n == 0 {
		if err = in.ended(); err == nil && in.items.Waiting() > 0 {
			due = in.items.Due()
		}
	}
	if in.ready.len() > 0 || in.items.Waiting() > 0 || in.err != nil {
		if n > 0 || err != nil {
			in.signal()
		}
	}
	in.mu.Unlock()
	for _, tag := range late {
		if in.o.Calls {
			in.o.Settle(tag, nil, transport.CodeDeadlineExceeded)
		} else {
			in.o.Settle(tag, nil, transport.CodeCanceled) // the group's owner drops it then
		}
	}
	return n, due, err
}

// choose takes the item to hand out next: one that comes again if it is due, else the first that is ready.
func (in *Inbox) choose() (token uint64, again, ok bool) {
	waiting := in.items.Waiting()
	out := in.items.Len() - in.ready.len() - waiting
	if in.ordered && out > 0 {
		return 0, false, false
	}
	if waiting > 0 {
		if token, ok := in.items.Again(time.Now()); ok {
			return token, true, true
		}
		if in.ordered {
			return 0, false, false
		}
	}
	if in.ready.len() == 0 || out+waiting >= in.buffer {
		return 0, false, false
	}
	token, _ = in.popReady()
	return token, false, true
}

// ended returns the end once it is to be told, and from then on.
func (in *Inbox) ended() error {
	if in.err == nil || !in.over && in.ready.len() > 0 && !(in.ordered && in.items.Waiting() > 0) {
		return nil
	}
	if !in.over {
		in.over = true
		var e *transport.Error
		if errors.As(in.err, &e) && (in.overflow || in.items.Len() > 0 && e.Header.Get(HeaderCursor) != "") {
			c := *e
			if c.Header = e.Header.Clone(); c.Header == nil {
				c.Header = transport.Header{}
			}
			if c.Header.Del(HeaderCursor); in.low != "" {
				c.Header.Set(HeaderCursor, in.low)
			}
			in.err = &c
		}
	}
	return in.err
}

// expired reports whether a call or an event has come too late.
func (it *Item) expired() bool {
	return !it.Deadline.IsZero() && !time.Now().Before(it.Deadline)
}

// Cursor implements [transport.Source]. It is valid after Settle as well.
func (h *held) Cursor(uint64, *transport.Message) string { return h.item.Cursor }

// Settle implements [transport.Source].
func (h *held) Settle(token uint64, reply *transport.Message, err error) error {
	it, in := h.item, h.in
	if in.remote() {
		return in.settleRemote(token, it, reply, err)
	}
	in.mu.Lock()
	_, attempt := in.items.Get(token)
	verdict, wait := window.Judge(err, attempt, in.attempts)
	switch verdict {
	case window.GiveBack:
		in.items.Wait(token, time.Now(), attempt)
	case window.Retry:
		in.items.Wait(token, time.Now().Add(wait), attempt+1)
	default:
		in.done(token)
	}
	in.signal()
	in.mu.Unlock()
	if verdict == window.Refuse && in.o.Dropped != nil {
		in.o.Dropped(&it.Message, err)
	}
	return nil
}

func (in *Inbox) settleRemote(token uint64, it *Item, reply *transport.Message, err error) error {
	in.mu.Lock()
	stale := it.h.epoch != in.epoch
	in.items.Done(token)
	if !stale {
		if !it.h.canceled {
			in.live--
		}
		delete(in.calls, it.Tag)
	}
	in.signal()
	in.mu.Unlock()
	if stale {
		if in.o.Stale != nil {
			in.o.Stale()
		}
		return transport.Errorf(transport.CodeUnavailable, "the connection that brought the message is gone")
	}
	return in.o.Settle(it.Tag, reply, err)
}

// Context implements [transport.Source].
func (h *held) Context(_ uint64, parent context.Context) (context.Context, context.CancelFunc) {
	it := h.item
	if !h.in.o.Calls {
		return parent, func() {}
	}
	if it.Peer != nil {
		parent = transport.WithPeer(parent, *it.Peer)
	}
	var ctx context.Context
	var cancel context.CancelFunc
	if it.Deadline.IsZero() {
		ctx, cancel = context.WithCancel(parent)
	} else {
		ctx, cancel = context.WithDeadline(parent, it.Deadline)
	}
	h.in.mu.Lock()
	defer h.in.mu.Unlock()
	if h.cancel = cancel; h.canceled {
		cancel()
	}
	return ctx, cancel
}

// fifo is a queue that keeps its memory.
type fifo[T any] struct {
	items []T
	head  int
}

func (q *fifo[T]) len() int  { return len(q.items) - q.head }
func (q *fifo[T]) all() []T  { return q.items[q.head:] }
func (q *fifo[T]) first() *T { return &q.items[q.head] }

func (q *fifo[T]) push(v T) {
	if len(q.items) == cap(q.items) && q.head > len(q.items)/2 {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, v)
}

func (q *fifo[T]) pop() T {
	var zero T
	v := q.items[q.head]
	q.items[q.head] = zero
	if q.head++; q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return v
}
