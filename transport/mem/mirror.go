package mem

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/intermodal-go/intermodal/transport"
)

// MirrorOptions are the limits of a [Mirror]. The zero value of a field means its default.
type MirrorOptions struct {
	// HistoryMessages, HistoryBytes, HistoryAge and PublishWait are those of [Options], for the cache of each topic.
	// HistoryMessages defaults to 4096 here: whoever comes back with a cursor is served from the cache. PublishWait
	// defaults to 2 s: it must be shorter than the upstream's patience, or a reader that is stuck here costs the mirror
	// its upstream subscription.
	HistoryMessages int
	HistoryBytes    int
	HistoryAge      time.Duration
	PublishWait     time.Duration

	// Linger is how long the upstream subscription and the cache of a topic outlive the last local subscription.
	// Defaults to 1 minute.
	Linger time.Duration
	// Direct bounds the subscriptions that start further back than the cache can reach. Each has an upstream
	// subscription of its own; beyond that Subscribe fails with CodeResourceExhausted and a RetryAfter. Defaults to 4.
	Direct int
	// OnError is that of [Options].
	OnError func(topic string, m *transport.Message, err error)
}

// A Mirror is a Subscriber that keeps one upstream subscription per topic for any number of local ones. It hands on the
// upstream's cursors, so that a subscriber may come back at any other server of the same upstream.
//
// A subscription without a group reads from the mirror's cache. It waits for the live upstream subscription, so that
// what is published from then on is seen; what was published shortly before and is still on its way may be seen as
// well. A cursor that is not in the cache is fetched: one upstream read at a time goes from that cursor to the start of
// the cache, and all who wait for older messages look again when it is done. A cursor is found by equality alone. A
// demand that the upstream refuses is refused here. A subscription to a group is the upstream's own.
//
// Settling is local: a message counts as delivered upstream once it is in the cache. When the upstream subscription
// ends, the local ones end with the same error after what they have not read. Safe for concurrent use.
type Mirror struct {
	up     transport.Subscriber
	o      MirrorOptions
	bus    *Bus // holds the topics' logs; nobody publishes to it but the feeds
	direct chan struct{}

	mu     sync.Mutex
	feeds  map[string]*feed
	closed bool
	wg     sync.WaitGroup // of the feeds' goroutines
}

// NewMirror returns a Mirror of upstream. It does not own upstream. It opens nothing before the first Subscribe.
func NewMirror(upstream transport.Subscriber, o *MirrorOptions) *Mirror {
	var d MirrorOptions
	if o != nil {
		d = *o
	}
	if d.HistoryMessages <= 0 {
		d.HistoryMessages = 4096
	}
	if d.PublishWait <= 0 {
		d.PublishWait = 2 * time.Second
	}
	if d.Linger <= 0 {
		d.Linger = time.Minute
	}
	if d.Direct <= 0 {
		d.Direct = 4
	}
	bus := New(&Options{HistoryMessages: d.HistoryMessages, HistoryBytes: d.HistoryBytes, HistoryAge: d.HistoryAge,
		PublishWait: d.PublishWait, OnError: d.OnError, MaxBytes: 1 << 30}) // upstream has checked the sizes
	return &Mirror{up: upstream, o: d, bus: bus, direct: make(chan struct{}, d.Direct), feeds: map[string]*feed{}}
}

// Subscribe implements [transport.Subscriber].
func (m *Mirror) Subscribe(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o, err := transport.Resolve(^transport.Feature(0), opts...)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckTopic(topic); err != nil {
		return nil, err
	}
	if o.Group != "" {
		return m.up.Subscribe(ctx, topic, o)
	}
	for {
		f, err := m.feed(ctx, topic)
		if err != nil {
			return nil, err
		}
		if err := f.demand(ctx, o.Require); err != nil {
			return nil, err
		}
		s, err := f.t.subscribe(o)
		if err == errNotCached {
			if err = f.fill(ctx, o.From); err == nil {
				continue
			}
			if err == errTooOld {
				return m.subscribeDirect(ctx, topic, o)
			}
		}
		if err != errRemoved { // else the feed ended in between
			return s, err
		}
	}
}

// subscribeDirect passes o on to the upstream.
func (m *Mirror) subscribeDirect(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
	select {
	case m.direct <- struct{}{}:
	default:
		return nil, &transport.Error{Code: transport.CodeResourceExhausted, RetryAfter: time.Second,
			Message: "too many subscriptions read messages that are older than the cache"}
	}
	s, err := m.up.Subscribe(ctx, topic, o)
	if err != nil {
		<-m.direct
		return nil, err
	}
	return &directSubscription{Subscription: s, release: sync.OnceFunc(func() { <-m.direct })}, nil
}

type directSubscription struct {
	transport.Subscription
	release func()
}

func (s *directSubscription) NextAll(ctx context.Context, dst []*transport.Delivery) (int, error) {
	return transport.NextAll(ctx, s.Subscription, dst)
}

func (s *directSubscription) Close() error {
	defer s.release()
	return s.Subscription.Close()
}

// Health asks the upstream, if it has a Health method.
func (m *Mirror) Health(ctx context.Context) error {
	if h, ok := m.up.(interface{ Health(context.Context) error }); ok {
		return h.Health(ctx)
	}
	return nil
}

// Close ends all local subscriptions with io.EOF and the upstream ones, and waits for that. Closing twice is safe.
func (m *Mirror) Close() error {
	m.mu.Lock()
	m.closed = true
	feeds := make([]*feed, 0, len(m.feeds))
	for _, f := range m.feeds {
		feeds = append(feeds, f)
	}
	m.mu.Unlock()
	for _, f := range feeds {
		if <-f.ready; f.err == nil { // else it has never run
			f.stop()
		}
	}
	m.wg.Wait()
	return m.bus.Close()
}

// feed returns the topic's feed, which it starts if need be. Who comes while it starts waits for that.
func (m *Mirror) feed(ctx context.Context, topic string) (*feed, error) {
	for {
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			return nil, errClosed
		}
		f := m.feeds[topic]
		if f == nil {
			f = &feed{m: m, name: topic, ready: make(chan struct{}), filling: make(chan struct{}, 1)}
			m.feeds[topic] = f
			m.mu.Unlock()
			f.open(ctx)
			return f, f.err
		}
		m.mu.Unlock()
		select {
		case <-f.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if f.err == nil {
			return f, nil
		}
		if ctx.Err() == nil && (errors.Is(f.err, context.Canceled) || errors.Is(f.err, context.DeadlineExceeded)) {
			continue // whoever started it gave up, this one has not
		}
		return nil, f.err
	}
}

// A feed copies one upstream subscription into the log of a topic.
type feed struct {
	m    *Mirror
	name string

	ready chan struct{} // closed when what follows is set
	err   error         // why it could not start
	t     *topic
	sub   transport.Subscription
	stop  func() // ends run

	filling chan struct{} // a lock that a ctx can give up on: one fill at a time
	unacked atomic.Int64  // messages that are not acknowledged upstream; those in the log are, if it is 0

	// Under t.mu:
	demanded transport.Feature // what the upstream has agreed to
	users    int               // local subscriptions
	linger   *time.Timer       // runs while there are none
	newest   position          // after the last message of the log
	index    map[string]uint64 // by cursor: the offset to read next. Made for the first From
	oldest   bool              // the log begins where the upstream's history did
}

// A position is something with a cursor: a delivery, or where a subscription started.
type position interface{ Cursor() string }

type startPosition string

func (p startPosition) Cursor() string { return string(p) }

// A mirrored is an entry that knows the upstream's cursors on both of its sides. The entry comes first: a log of a feed
// has entries of this kind only, and the feed gets back from one to the other.
type mirrored struct {
	entry
	at, prev position
	cursor   atomic.Pointer[string] // at's, once somebody asked
}

func (e *entry) mirrored() *mirrored { return (*mirrored)(unsafe.Pointer(e)) }

func (f *feed) after(e *entry) string {
	m := e.mirrored()
	if c := m.cursor.Load(); c != nil {
		return *c
	}
	c := m.at.Cursor()
	m.cursor.Store(&c)
	return c
}

func (f *feed) before(e *entry) string { return e.mirrored().prev.Cursor() }

// mirroredSource is a subscription as one of its deliveries sees it.
type mirroredSource struct {
	s *subscription
	e *entry
}

func (s *mirroredSource) Context(_ uint64, parent context.Context) (context.Context, context.CancelFunc) {
	return parent, func() {}
}

func (s *mirroredSource) Cursor(uint64, *transport.Message) string { return s.s.t.feed.after(s.e) }

func (s *mirroredSource) Settle(slot uint64, reply *transport.Message, err error) error {
	return (*source)(s.s).Settle(slot, reply, err)
}

// firstOffset leaves room to prepend.
const firstOffset = 1 << 40

// open subscribes upstream and starts to copy. ctx bounds the call.
func (f *feed) open(ctx context.Context) {
	defer close(f.ready)
	sub, err := f.m.up.Subscribe(ctx, f.name, transport.Buffer(1024))
	if err == nil {
		f.t, err = f.m.bus.topic(f.name, true, transport.CodeNotFound)
		if err != nil {
			sub.Close()
		}
	}
	if err != nil {
		f.err = err
		f.remove()
		return
	}
	f.sub, f.newest = sub, startPosition(sub.Cursor())
	f.t.mu.Lock()
	f.t.feed = f
	f.t.log.init(firstOffset)
	f.linger = time.AfterFunc(f.m.o.Linger, f.idle) // in case the Subscribe that wants it fails
	f.t.mu.Unlock()
	runCtx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	f.m.wg.Go(func() { f.run(runCtx) })
}

// remove takes the feed out of the mirror, so that the next Subscribe starts another: with a topic of its own, so the old
// one goes first.
func (f *feed) remove() {
	if f.t != nil {
		f.m.bus.mu.Lock()
		if f.m.bus.topics[f.name] == f.t {
			delete(f.m.bus.topics, f.name)
		}
		f.m.bus.mu.Unlock()
	}
	f.m.mu.Lock()
	if f.m.feeds[f.name] == f {
		delete(f.m.feeds, f.name)
	}
	f.m.mu.Unlock()
}

// run copies until the upstream ends or the feed is stopped.
func (f *feed) run(ctx context.Context) {
	batch := make([]*transport.Delivery, 64)
	entries := make([]*entry, 0, len(batch))
	prev := f.newest
	var err error
	for {
		var n int
		if n, err = transport.NextAll(ctx, f.sub, batch); err != nil {
			break
		}
		for _, d := range batch[:n] {
			entries = append(entries, newMirrored(d, prev))
			prev = d
		}
		f.unacked.Store(int64(n))
		f.t.publishAll(ctx, entries) // fails only when the feed is stopped
		for i, d := range batch[:n] {
			d.Ack()
			batch[i], entries[i] = nil, nil
		}
		f.unacked.Store(0)
		entries = entries[:0]
	}
	f.sub.Close()
	if ctx.Err() != nil {
		err = io.EOF // it was stopped
	}
	f.t.mu.Lock()
	f.linger.Stop()
	f.t.removed = errRemoved
	subs := make([]*subscription, 0, len(f.t.subs))
	for s := range f.t.subs {
		subs = append(subs, s)
	}
	f.t.room()
	f.t.mu.Unlock()
	f.remove()
	for _, s := range subs {
		s.finish(err)
	}
}

func newMirrored(d *transport.Delivery, prev position) *entry {
	m := &mirrored{entry: entry{m: *d.Message, size: d.Size()}, at: d, prev: prev}
	if ttl, err := d.Header.Millis(transport.HeaderTTL); err == nil && ttl > 0 {
		m.expires = time.Now().Add(ttl).UnixNano() // what is left of it is not known: it starts anew, as at any hop
	}
	return &m.entry
}

// enter counts a local subscription. Under t.mu.
func (f *feed) enter() {
	f.users++
	f.linger.Stop()
}

func (f *feed) leave() {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	if f.users--; f.users == 0 && f.t.removed == nil {
		f.linger.Reset(f.m.o.Linger)
	}
}

// idle stops a feed that nobody has used for a while.
func (f *feed) idle() {
	f.t.mu.Lock()
	unused := f.users == 0 && f.t.removed == nil
	if unused {
		f.t.removed = errRemoved
	}
	f.t.mu.Unlock()
	if unused {
		f.remove()
		f.stop()
	}
}

// demand makes sure that the upstream gives what is required.
func (f *feed) demand(ctx context.Context, need transport.Feature) error {
	f.t.mu.Lock()
	known := need&^f.demanded == 0
	f.t.mu.Unlock()
	if known {
		return nil
	}
	probe, err := f.m.up.Subscribe(ctx, f.name, transport.Require(need))
	if err != nil {
		return err
	}
	f.t.mu.Lock()
	f.demanded |= need
	f.t.mu.Unlock()
	return probe.Close()
}

var (
	errNotCached = errors.New("mem: the cursor is not in the cache")
	errTooOld    = errors.New("mem: the cursor is further back than the cache can reach")
)

// at returns the message at offset, nil if there is none. Under t.mu.
func (f *feed) at(offset uint64) *entry {
	r := reader{chunk: f.t.log.chunkOf(offset)}
	r.pos.Store(offset)
	e, _ := r.peek(&f.t.log)
	return e
}

// cursorAt is the cursor before the message at offset, which is between the log's base and its head. Under t.mu.
func (f *feed) cursorAt(offset uint64) string {
	if e := f.at(offset); e != nil {
		return f.before(e)
	}
	return f.newest.Cursor()
}

// position is topic.position for the cursors of the upstream. Under t.mu.
func (f *feed) position(from string) (uint64, error) {
	l := &f.t.log
	if f.index == nil {
		f.index = map[string]uint64{}
		for o := l.base; o < l.head.Load(); o++ {
			f.index[f.after(f.at(o))] = o + 1
		}
	}
	if from == transport.Oldest && f.oldest || from == f.cursorAt(l.base) {
		return l.base, nil
	}
	if o, ok := f.index[from]; ok && from != "" {
		return o, nil
	}
	// Upstream may have moved on without a message of the topic, so that its newest position is that of none.
	if f.unacked.Load() == 0 && from != "" && from == f.sub.Cursor() {
		return l.head.Load(), nil
	}
	return 0, errNotCached
}

// appended and evicted keep the account of the log's ends. Under t.mu.
func (f *feed) appended(e *entry) {
	f.newest = e.mirrored().at
	if f.index != nil {
		f.index[f.after(e)] = e.offset + 1
	}
}

func (f *feed) evicted(e *entry) {
	f.oldest = false
	if f.index != nil {
		delete(f.index, f.after(e))
	}
}

// fill reads upstream from a cursor up to the start of the cache and puts what it read before it. One goes at a time,
// since the next one may find its cursor in what this one brought.
func (f *feed) fill(ctx context.Context, from string) error {
	select {
	case f.filling <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-f.filling }()
	f.t.mu.Lock()
	_, err := f.t.position(from)
	gone := f.t.removed
	f.t.mu.Unlock()
	if err == nil || gone != nil {
		return nil
	}
	sub, err := f.m.up.Subscribe(ctx, f.name, transport.From(from), transport.Buffer(1024))
	if err != nil {
		return err
	}
	defer sub.Close()
	prev := position(startPosition(sub.Cursor()))
	var read []*entry
	for size := 0; ; {
		// Once read has all up to a message of the cache, or up to the cache's start, the rest is there.
		if f.join(from, prev.Cursor(), read) {
			return nil
		}
		if o := &f.m.bus.o; len(read) >= o.HistoryMessages || size >= o.HistoryBytes {
			return errTooOld
		}
		d, err := f.next(ctx, sub)
		if err != nil {
			return err
		}
		if d == nil { // nothing comes now, but it may have moved on all the same
			if f.join(from, sub.Cursor(), read) {
				return nil
			}
			continue
		}
		read = append(read, newMirrored(d, prev))
		size += d.Size()
		prev = d
		d.Ack()
	}
}

// next returns the next delivery, or nil if none comes soon.
func (f *feed) next(ctx context.Context, sub transport.Subscription) (*transport.Delivery, error) {
	soon, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	d, err := sub.Next(soon)
	if err != nil && soon.Err() != nil && ctx.Err() == nil && errors.Is(err, soon.Err()) {
		return nil, nil
	}
	return d, err
}

// join puts read before the cache if the cursor at its end is one of the cache's.
func (f *feed) join(from, end string, read []*entry) bool {
	t := f.t
	t.mu.Lock()
	defer t.mu.Unlock()
	next, err := f.position(end)
	if err != nil {
		return t.removed != nil // then the caller finds out
	}
	first := next - uint64(len(read)) // where what was read belongs; from base on it is in the cache already
	if first < t.log.base {
		n := int(t.log.base - first)
		t.log.prepend(read[:n])
		for _, e := range read[:n] {
			f.index[f.after(e)] = e.offset + 1
		}
	}
	if from == transport.Oldest {
		f.oldest = first == t.log.base
	} else {
		f.index[from] = first
	}
	return true
}
