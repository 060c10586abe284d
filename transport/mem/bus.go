package mem

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/internal/id"
)

// Options are the limits of a [Bus]. The zero value of a field means its default.
type Options struct {
	// MaxBytes is the largest message, as [transport.Message.Size] counts. Defaults to 1 MiB.
	MaxBytes int

	// HistoryMessages, HistoryBytes and HistoryAge bound what each topic keeps for replay and for slow subscribers;
	// the first bound that is reached counts. They default to 1024 messages, 16 MiB and 10 minutes. Age is kept to
	// within a quarter.
	HistoryMessages int
	HistoryBytes    int
	HistoryAge      time.Duration

	// PublishWait is how long a publisher waits for a subscription with the policy Block; then that subscription ends.
	// Defaults to 5 s.
	PublishWait time.Duration

	// GroupBytes bounds the unsettled messages of each group. Beyond it Publish fails with CodeResourceExhausted.
	// Defaults to 64 MiB.
	GroupBytes int
	// GroupIdle is how long a group without members lives. Defaults to 24 h.
	GroupIdle time.Duration

	// DelayedBytes bounds all messages that wait for their delay header. Beyond it Publish fails with
	// CodeResourceExhausted. Defaults to 64 MiB.
	DelayedBytes int

	// Waiting bounds the calls, and likewise the streams, of a topic that no handler has taken yet. Beyond it Call and
	// Open fail with CodeResourceExhausted. Defaults to 4096.
	Waiting int

	// MaxTopics bounds the topics that exist at once. Beyond it what would create one fails with
	// CodeResourceExhausted. Topics that nobody uses and whose history has aged away are forgotten. Defaults to 65536.
	MaxTopics int
	// Topics, if not empty, are all the topics there are: to publish or subscribe to another is CodeNotFound, to call,
	// respond, open or accept CodeUnimplemented. Topics that begin with "_reply." always exist.
	Topics []string

	// OnError is told of what nobody else would see: a message that is dropped after its last attempt or a refusal, a
	// subscription that was ended for being slow, a group that was removed for being idle. m is nil for a group. It is
	// called without locks and must not block. Defaults to nothing.
	OnError func(topic string, m *transport.Message, err error)
}

func (o *Options) withDefaults() Options {
	var d Options
	if o != nil {
		d = *o
	}
	for _, f := range []struct {
		field *int
		value int
	}{
		{&d.MaxBytes, transport.DefaultMaxBytes}, {&d.HistoryMessages, 1024}, {&d.HistoryBytes, 16 << 20},
		{&d.GroupBytes, 64 << 20}, {&d.DelayedBytes, 64 << 20}, {&d.Waiting, 4096}, {&d.MaxTopics, 65536},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{{&d.HistoryAge, 10 * time.Minute}, {&d.PublishWait, 5 * time.Second}, {&d.GroupIdle, 24 * time.Hour}} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	return d
}

// offered is what a Bus gives.
const offered = transport.AtLeastOnce | transport.Ordered | transport.Replay | transport.Groups |
	transport.DeadLetters | transport.Delays

// A Bus carries all six verbs within one process. See the package documentation. Safe for concurrent use.
type Bus struct {
	o       Options
	known   map[string]bool // nil: any topic
	mu      sync.RWMutex
	topics  map[string]*topic
	closed  bool
	sweeper *time.Timer // runs while there are topics
	delayed delays
	active  atomic.Int64 // calls and streams that are not over
	signals sync.Pool    // channels of calls that are over: each had one signal, and Call took it
}

// New returns an empty Bus. It starts no goroutine.
func New(o *Options) *Bus {
	b := &Bus{o: o.withDefaults(), topics: map[string]*topic{}}
	if len(b.o.Topics) > 0 {
		b.known = make(map[string]bool, len(b.o.Topics))
		for _, t := range b.o.Topics {
			b.known[t] = true
		}
	}
	return b
}

var errClosed = &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonClosed, Message: "the bus is closed"}

// topic returns the topic of that name. If there is none it creates it, or returns nil if create is false. unknown is
// the Code for a topic outside Options.Topics.
func (b *Bus) topic(name string, create bool, unknown transport.Code) (*topic, error) {
	b.mu.RLock()
	t, closed := b.topics[name], b.closed
	b.mu.RUnlock()
	if closed {
		return nil, errClosed
	}
	if t != nil {
		return t, nil
	}
	if err := transport.CheckTopic(name); err != nil {
		return nil, err
	}
	if b.known != nil && !b.known[name] && name[0] != '_' {
		return nil, transport.Errorf(unknown, "there is no topic %q", name)
	}
	if !create {
		return nil, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed
	}
	if t := b.topics[name]; t != nil {
		return t, nil
	}
	if len(b.topics) >= b.o.MaxTopics {
		return nil, transport.Errorf(transport.CodeResourceExhausted, "there are %d topics, the limit", b.o.MaxTopics)
	}
	t = newTopic(b, name)
	b.topics[name] = t
	if b.sweeper == nil {
		b.sweeper = time.AfterFunc(b.o.HistoryAge/4, b.sweep)
	}
	return t, nil
}

// sweep evicts what is too old and forgets topics that nobody uses.
func (b *Bus) sweep() {
	b.mu.RLock()
	topics := make([]*topic, 0, len(b.topics))
	for _, t := range b.topics {
		topics = append(topics, t)
	}
	b.mu.RUnlock()
	now := time.Now()
	for _, t := range topics {
		if t.age(now) {
			b.mu.Lock()
			if t.remove() {
				delete(b.topics, t.name)
			}
			b.mu.Unlock()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
	case len(b.topics) == 0:
		b.sweeper = nil
	default:
		b.sweeper.Reset(b.o.HistoryAge / 4)
	}
}

func (b *Bus) report(topic string, m *transport.Message, err error) {
	if b.o.OnError != nil {
		b.o.OnError(topic, m, err)
	}
}

// newEntry checks m and makes the copy that travels. The Body and the Header's values are shared with m.
func (b *Bus) newEntry(m *transport.Message) (*entry, time.Duration, error) {
	e := &entry{m: *m}
	if m.ID == "" {
		id.Put(&e.id)
		e.m.ID = unsafe.String(&e.id[0], id.Len) // e.id is never written again
	}
	if err := m.Check(b.o.MaxBytes); err != nil {
		return nil, 0, err
	}
	e.size = m.Size()
	if len(m.Header) == 0 {
		return e, 0, nil
	}
	ttl, err := m.Header.Millis(transport.HeaderTTL)
	if err != nil {
		return nil, 0, err
	}
	delay, err := m.Header.Millis(transport.HeaderDelay)
	if err != nil {
		return nil, 0, err
	}
	if ttl > 0 {
		e.expires = time.Now().Add(delay + ttl).UnixNano()
	}
	if delay > 0 {
		// The delay has been served when the message arrives: a bridge must not serve it again.
		e.m.Header = m.Header.Clone()
		e.m.Header.Del(transport.HeaderDelay)
	}
	return e, delay, nil
}

// Publish appends m to its topic's log. It waits only for subscriptions with the policy Block, at most PublishWait.
func (b *Bus) Publish(ctx context.Context, m *transport.Message) error {
	if m == nil {
		return m.Check(0)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	t, err := b.topic(m.Topic, true, transport.CodeNotFound)
	if err != nil {
		return err
	}
	e, delay, err := b.newEntry(m)
	if err != nil {
		return err
	}
	if delay > 0 {
		return b.delay(e, delay)
	}
	return t.publish(ctx, e)
}

// PublishAll appends runs of messages with the same topic under one lock.
func (b *Bus) PublishAll(ctx context.Context, ms ...*transport.Message) []error {
	errs := make([]error, len(ms))
	var run []*entry
	var at []int
	var last *topic
	flush := func() {
		if len(run) > 0 {
			for i, err := range last.publishAll(ctx, run) {
				errs[at[i]] = err
			}
			run, at = run[:0], at[:0]
		}
	}
	for i, m := range ms {
		if m == nil || ctx.Err() != nil {
			errs[i] = b.Publish(ctx, m)
			continue
		}
		if last == nil || m.Topic != last.name {
			flush()
			t, err := b.topic(m.Topic, true, transport.CodeNotFound)
			if err != nil {
				errs[i], last = err, nil
				continue
			}
			last = t
		}
		e, delay, err := b.newEntry(m)
		switch {
		case err != nil:
			errs[i] = err
		case delay > 0:
			errs[i] = b.delay(e, delay)
		default:
			run, at = append(run, e), append(at, i)
		}
	}
	flush()
	return errs
}

// Health returns nil until the Bus is closed.
func (b *Bus) Health(context.Context) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.closed {
		return errClosed
	}
	return nil
}

// Close ends everything at once: subscriptions and listeners end with io.EOF, calls and streams fail with
// CodeUnavailable, what is stored is forgotten. Deliveries that are out can still be settled. Closing twice is safe.
func (b *Bus) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	topics := b.topics
	b.topics = nil
	if b.sweeper != nil {
		b.sweeper.Stop()
	}
	b.mu.Unlock()
	b.delayed.stop()
	for _, t := range topics {
		t.close()
	}
	return nil
}

// Shutdown waits until all groups and subscriptions have settled what there is, delayed messages included, and all
// calls and streams are over, or until ctx ends; then it closes the Bus. It does not refuse new work before that, since
// handlers that finish may need the Bus. It returns ctx's error if that came first.
func (b *Bus) Shutdown(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !b.drained() {
		select {
		case <-ctx.Done():
			b.Close()
			return ctx.Err()
		case <-tick.C:
		}
	}
	return b.Close()
}

func (b *Bus) drained() bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, t := range b.topics {
		if !t.drained() {
			return false
		}
	}
	return b.active.Load() == 0 && b.delayed.empty()
}
