package mem

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// A topic is a log with its readers. Locks are taken in the order subscription or group, then topic, then nothing:
// what a publisher has to do to a reader it does after it has released the topic.
type topic struct {
	bus   *Bus
	name  string
	feed  *feed  // where the messages come from, in a Mirror
	epoch string // begins every cursor: a topic that was forgotten and made anew refuses the old ones

	sleepers rows // readers of the log that sleep
	// What a blocked publisher waits for: that every blocking reader has passed this offset. 0: nobody waits.
	want atomic.Uint64

	mu      sync.Mutex
	log     log
	marks   []mark
	subs    map[*subscription]struct{}
	groups  []*group
	space   chan struct{} // closed when a reader has made room; nil: nobody waits
	removed error         // non-nil once the topic is gone
	// Lower bounds, since readers only advance: of the position of every blocking subscription, and of every group.
	blocked, pinned uint64

	calls   queue[*call]
	streams queue[*stream]
}

// A mark says that the log ended at offset at that time.
type mark struct {
	offset uint64
	at     time.Time
}

func newTopic(b *Bus, name string) *topic {
	t := &topic{bus: b, name: name, epoch: transport.NewID(), subs: map[*subscription]struct{}{}}
	t.log.init(1) // so that 0 is before everything
	t.calls.limit, t.streams.limit = b.o.Waiting, b.o.Waiting
	return t
}

func (t *topic) publish(ctx context.Context, e *entry) error {
	t.mu.Lock()
	err := t.append(ctx, e)
	groups := t.groups
	t.mu.Unlock()
	if err == errRemoved && t.feed == nil { // swept in between
		nt, err := t.bus.topic(t.name, true, transport.CodeNotFound)
		if err != nil {
			return err
		}
		return nt.publish(ctx, e)
	}
	t.wake(groups)
	return err
}

func (t *topic) publishAll(ctx context.Context, es []*entry) []error {
	errs := make([]error, len(es))
	t.mu.Lock()
	for i, e := range es {
		errs[i] = t.append(ctx, e)
	}
	groups := t.groups
	t.mu.Unlock()
	t.wake(groups)
	for i, err := range errs {
		if err == errRemoved && t.feed == nil { // what a feed brings is for its own readers
			errs[i] = t.publish(ctx, es[i])
		}
	}
	return errs
}

// wake rouses the readers that sleep. groups is the slice as it was under the lock; it is replaced, never changed.
func (t *topic) wake(groups []*group) {
	t.sleepers.wake()
	for _, g := range groups {
		g.rouse()
	}
}

var errRemoved = transport.Errorf(transport.CodeUnavailable, "the topic was removed")

// append appends e. It is called under t.mu and returns under it, but may release it to wait for room.
func (t *topic) append(ctx context.Context, e *entry) error {
	var waited time.Time
	for {
		if t.removed != nil {
			return t.removed
		}
		for _, g := range t.groups {
			if n := g.backlog.Load(); n > 0 && n+int64(e.size) > int64(t.bus.o.GroupBytes) {
				return transport.Errorf(transport.CodeResourceExhausted, "the group %q has %d bytes unsettled, the limit is %d", g.name, n, t.bus.o.GroupBytes)
			}
		}
		if t.makeRoom(e.size) {
			break
		}
		if err := t.waitForRoom(ctx, &waited); err != nil {
			return err
		}
	}
	for _, g := range t.groups {
		g.backlog.Add(int64(e.size))
	}
	t.log.append(e)
	if t.feed != nil {
		t.feed.appended(e)
	}
	return nil
}

// evict drops the oldest message.
func (t *topic) evict() {
	e := t.log.evict()
	if t.feed != nil {
		t.feed.evicted(e)
	}
}

// makeRoom evicts until a message of size bytes fits into the history. It is false if a blocking subscription has not
// read the oldest message yet. What a group has not read is kept beyond the limits, within GroupBytes.
func (t *topic) makeRoom(size int) bool {
	l, o := &t.log, &t.bus.o
	for l.len() > 0 && (l.len() >= o.HistoryMessages || l.bytes+size > o.HistoryBytes) {
		if l.base >= t.pinned {
			if t.pinned = t.lowest(true); l.base >= t.pinned {
				return true
			}
		}
		if l.base >= t.blocked {
			if t.blocked = t.lowest(false); l.base >= t.blocked {
				return false
			}
		}
		t.evict()
	}
	return true
}

const never = ^uint64(0)

// lowest is the lowest position of all groups, or of all blocking subscriptions.
func (t *topic) lowest(groups bool) uint64 {
	low := never
	if groups {
		for _, g := range t.groups {
			low = min(low, g.pos.Load())
		}
		return low
	}
	for s := range t.subs {
		if s.o.Overflow == transport.Block {
			low = min(low, s.pos.Load())
		}
	}
	return low
}

// waitForRoom waits until a blocking reader has advanced. After PublishWait it ends those that have not. waited is when
// the publisher began to wait.
func (t *topic) waitForRoom(ctx context.Context, waited *time.Time) error {
	now := time.Now()
	if waited.IsZero() {
		*waited = now
	}
	left := t.bus.o.PublishWait - now.Sub(*waited)
	if left <= 0 {
		t.endSlow()
		*waited = time.Time{}
		return nil
	}
	if t.space == nil {
		t.space = make(chan struct{})
	}
	space := t.space
	// A reader that is busy makes room for many at a time, so that publisher and reader do not wake each other for
	// every message.
	t.want.Store(min(t.log.base+uint64(t.bus.o.HistoryMessages)/4+1, t.log.head.Load()))
	if t.blocked = t.lowest(false); t.blocked > t.log.base {
		return nil // one has advanced before it could see want
	}
	t.mu.Unlock()
	defer t.mu.Lock()
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-space:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// advanced is called by a blocking reader after it has moved to pos, or with never before it sleeps.
func (t *topic) advanced(pos uint64) {
	if w := t.want.Load(); w == 0 || pos < w {
		return
	}
	t.mu.Lock()
	t.room()
	t.mu.Unlock()
}

// room wakes blocked publishers. Under t.mu.
func (t *topic) room() {
	if t.space != nil {
		close(t.space)
		t.space = nil
		t.want.Store(0)
	}
}

// endSlow ends the blocking subscriptions that hold up publishers. Under t.mu, which it releases meanwhile.
func (t *topic) endSlow() {
	var slow []*subscription
	for s := range t.subs {
		if s.o.Overflow == transport.Block && s.pos.Load() <= t.log.base {
			slow = append(slow, s)
		}
	}
	t.mu.Unlock()
	for _, s := range slow {
		s.overflow("publishers have waited %v for it", t.bus.o.PublishWait)
	}
	t.mu.Lock()
}

// age evicts what is older than HistoryAge and reports whether the topic may be removed.
func (t *topic) age(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	head := t.log.head.Load()
	t.marks = append(t.marks, mark{head, now})
	low := min(t.lowest(true), t.lowest(false))
	for len(t.marks) > 0 && now.Sub(t.marks[0].at) >= t.bus.o.HistoryAge {
		for t.log.base < min(t.marks[0].offset, low) {
			t.evict()
		}
		t.marks = t.marks[1:]
	}
	return t.unused()
}

// unused reports whether nobody would miss the topic. Under t.mu.
func (t *topic) unused() bool {
	return t.feed == nil && t.log.len() == 0 && len(t.subs) == 0 && len(t.groups) == 0 && t.space == nil &&
		t.calls.unused() && t.streams.unused() && len(t.marks) > 0 && t.marks[0].offset == t.log.head.Load()
}

// remove makes the topic refuse whoever still holds it, unless it is in use.
func (t *topic) remove() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.unused() {
		return false
	}
	t.removed = errRemoved
	return true
}

func (t *topic) close() {
	t.mu.Lock()
	t.removed = errClosed
	t.room()
	subs := make([]*subscription, 0, len(t.subs))
	for s := range t.subs {
		subs = append(subs, s)
	}
	groups := t.groups
	t.groups = nil
	t.mu.Unlock()
	for _, s := range subs {
		s.Close()
	}
	for _, g := range groups {
		g.close()
	}
	for _, c := range t.calls.close() {
		c.finish(nil, errClosed)
	}
	for _, s := range t.streams.close() {
		s.refuse(errClosed)
	}
}

func (t *topic) drained() bool {
	t.mu.Lock()
	subs, groups := slices.Collect(maps.Keys(t.subs)), t.groups
	t.mu.Unlock()
	return !slices.ContainsFunc(subs, func(s *subscription) bool { return !s.drained() }) &&
		!slices.ContainsFunc(groups, func(g *group) bool { return g.backlog.Load() > 0 })
}

// cursor is the position after offset: the topic's epoch and the offset, in letters that need no escaping in a URL.
func (t *topic) cursor(offset uint64) string {
	return t.epoch + "." + strconv.FormatUint(offset, 36)
}

// after is the cursor of e, and before that of the message before it.
func (t *topic) after(e *entry) string {
	if t.feed != nil {
		return t.feed.after(e)
	}
	return t.cursor(e.offset)
}

func (t *topic) before(e *entry) string {
	if t.feed != nil {
		return t.feed.before(e)
	}
	return t.cursor(e.offset - 1)
}

// position returns the offset to read first for From. Under t.mu.
func (t *topic) position(from string) (uint64, error) {
	if from == "" {
		return t.log.head.Load(), nil
	}
	if t.feed != nil {
		return t.feed.position(from)
	}
	switch from {
	case transport.Oldest:
		return t.log.base, nil
	}
	epoch, number, _ := strings.Cut(from, ".")
	offset, err := strconv.ParseUint(number, 36, 64)
	switch {
	case err != nil || epoch != t.epoch || offset >= t.log.head.Load() || t.cursor(offset) != from:
		return 0, transport.Errorf(transport.CodeOutOfRange, "the cursor is none of topic %q", t.name)
	case offset+1 < t.log.base:
		return 0, transport.Errorf(transport.CodeOutOfRange, "the cursor of topic %q is older than its history", t.name)
	}
	return offset + 1, nil
}

func (t *topic) forget(s *subscription) {
	t.mu.Lock()
	delete(t.subs, s)
	t.room() // it may have held up publishers
	t.mu.Unlock()
}

// forgetGroup takes g out. Under t.mu.
func (t *topic) forgetGroup(g *group) {
	// A copy: publishers walk the old slice without the lock.
	t.groups = slices.DeleteFunc(slices.Clone(t.groups), func(other *group) bool { return other == g })
}
