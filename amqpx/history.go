package amqpx

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// A History keeps the messages of some topics in a stream of the broker (https://www.rabbitmq.com/docs/streams), in the
// order of their arrival, so that subscriptions to them offer Replay. Clients that name the same Topics must agree on
// the rest: a stream is never changed.
//
// Publishers should name the History as well. After a restart RabbitMQ 3.10 has its exchanges before its streams: for a
// moment it routes past a stream, and confirms all the same. A client that names the History publishes only when the
// stream is there: Dial waits for that, and so does each new connection.
type History struct {
	// Topics is the pattern of the topics, as a binding to a topic exchange has it: words joined by dots, where * stands
	// for one word and # for any number of them. Where a topic matches several entries, it is read from the first.
	Topics string
	// MaxBytes bounds what is kept. It goes in segments of a quarter of MaxBytes, at most 500 MB: when one is full, the
	// oldest that are too much or too old are deleted. It must be many times the size of the largest message, since a
	// subscription goes on only while the last message it has got is still there. Defaults to 1 GiB.
	MaxBytes int64
	// MaxAge is how long messages are kept at least, if MaxBytes allows it. In whole seconds, rounded up; 0: any time.
	MaxAge time.Duration
}

// maxSegment is the broker's own default for the size of a segment.
const maxSegment = 500_000_000

// check reports whether h is legal.
func (h *History) check() error {
	words := strings.Split(h.Topics, ".")
	for i, w := range words {
		if w == "*" || w == "#" {
			words[i] = "x"
		}
	}
	if err := transport.CheckTopic(strings.Join(words, ".")); err != nil {
		return transport.Wrap(err, transport.CodeInvalidArgument, "History.Topics is no pattern of topics: %q", h.Topics)
	}
	if h.MaxBytes < 0 || h.MaxAge < 0 {
		return transport.Errorf(transport.CodeInvalidArgument, "a limit of the History of %q is negative", h.Topics)
	}
	return nil
}

// matches reports whether a topic is one of the pattern.
func matches(pattern, topic []string) bool {
	switch {
	case len(pattern) == 0:
		return len(topic) == 0
	case pattern[0] == "#":
		return matches(pattern[1:], topic) || len(topic) > 0 && matches(pattern, topic[1:])
	}
	return len(topic) > 0 && (pattern[0] == "*" || pattern[0] == topic[0]) && matches(pattern[1:], topic[1:])
}

// history reports whether a topic has a history.
func (c *Client) history(topic string) bool { return c.historyOf(topic) != nil }

func (c *Client) historyOf(topic string) *History {
	words := strings.Split(topic, ".")
	for i := range c.o.History {
		if h := &c.o.History[i]; matches(strings.Split(h.Topics, "."), words) {
			return h
		}
	}
	return nil
}

// logQueue is the stream that keeps the topics of a pattern.
func (t *topology) logQueue(pattern string) string { return t.name("log", pattern) }

// declareLog makes sure that the stream of h is there.
func (t *topology) declareLog(ch *amqp.Channel, h *History) error {
	size := h.MaxBytes
	if size == 0 {
		size = 1 << 30
	}
	args := amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeStream, amqp.StreamMaxLenBytesArg: size,
		amqp.StreamMaxSegmentSizeBytesArg: min(max(size/4, 1), maxSegment)}
	if h.MaxAge > 0 {
		args[amqp.StreamMaxAgeArg] = fmt.Sprintf("%ds", (h.MaxAge+time.Second-1)/time.Second)
	}
	queue := t.logQueue(h.Topics)
	t.note(queue, 0)
	if _, err := ch.QueueDeclare(queue, true, false, false, false, args); err != nil {
		return err
	}
	return ch.QueueBind(queue, h.Topics, t.exchange(), false, nil)
}

// declareLogs makes sure that all streams are there.
func (t *topology) declareLogs(ch *amqp.Channel) error {
	for i := range t.c.o.History {
		if err := t.declareLog(ch, &t.c.o.History[i]); err != nil {
			return err
		}
	}
	return nil
}

const (
	// promptAfter is how long a stream may be silent before a mark is sent to see where its end is, and promptMax the
	// longest wait for another.
	promptAfter, promptMax = 100 * time.Millisecond, 5 * time.Second
	// skipMax is how many messages of other topics are skipped before the low-water mark follows.
	skipMax = 32
)

// A reader is a subscription without a group to a topic with a history. The stream itself is what waits: the broker
// sends as many messages as there is room for, and an acknowledgement does nothing but make room.
//
// Wherever it starts, and again after each loss of the connection, the first message tells whether the place is right:
// see cursor. A stream whose end has been reached says nothing, though. So there are marks: messages to nobody, sent
// straight to the stream. All readers skip them, but they are positions like any other.
type reader struct {
	*wire.Inbox // set once the start is known
	c           *Client
	topic       string
	h           *History
	stream      string
	so          transport.SubscribeOptions
	ctx         context.Context
	cancel      context.CancelFunc
	wg          sync.WaitGroup // prompt
	ready       chan struct{}  // closed when k is set
	k           *consumer
	started     chan error    // has one result of the beginning
	id          string        // of the marks that it begins at
	found       chan struct{} // closed when the place is found; one for each channel
	beyond      atomic.Bool   // the place is beyond the end
	room        chan struct{} // a token: the Inbox may have room

	// Used by one goroutine at a time, the consumer's:
	at      string // the cursor to attach at, transport.Oldest, or "" for the end
	placed  bool   // the place is found on this channel
	deaf    bool   // until the next channel
	over    bool   // and for good
	last    int64  // offset of the last delivery
	skipped int    // since the last Advance or Push
}

// replay subscribes to a topic with a history.
func (c *Client) replay(ctx context.Context, topic string,
	so transport.SubscribeOptions) (transport.Subscription, error) {
	if so.From != "" && so.From != transport.Oldest {
		if _, err := parseCursor(so.From); err != nil {
			return nil, err
		}
	}
	h := c.historyOf(topic)
	r := &reader{c: c, topic: topic, h: h, stream: c.topology.logQueue(h.Topics), so: so, at: so.From,
		id: transport.NewID(), ready: make(chan struct{}), started: make(chan error, 1), room: make(chan struct{}, 1)}
	r.ctx, r.cancel = context.WithCancel(c.ctx)
	if err := c.begin(r); err != nil {
		r.cancel()
		return nil, err
	}
	k, err := c.startConsumer(ctx, feed{link: c.stream, queue: r.stream, prefetch: so.Buffer,
		attach: r.attach, deliver: r.deliver, end: r.ended})
	if err != nil {
		r.cancel()
		close(r.ready)
		r.wg.Wait()
		c.finished(r)
		return nil, err
	}
	r.k = k
	close(r.ready)
	late := time.NewTimer(c.o.ConfirmTimeout)
	defer late.Stop()
	select {
	case err = <-r.started:
	case <-ctx.Done():
		err = ctx.Err()
	case <-late.C:
		err = transport.Errorf(transport.CodeUnavailable, "the broker did not show where the history of %q ends", topic)
	}
	if err != nil {
		r.end()
		return nil, err
	}
	return r, nil
}

// attach implements feed.attach: it says where to read.
func (r *reader) attach(ctx context.Context, ch *channel) (amqp.Table, error) {
	if r.beyond.Load() {
		return nil, errLost
	}
	if r.Inbox != nil {
		r.at, _ = r.Resume()
	}
	err := ch.do(ctx, func(ac *amqp.Channel) error {
		if err := r.c.topology.declareExchange(ac); err != nil {
			return err
		}
		return r.c.topology.declareLog(ac, r.h)
	})
	if err != nil {
		return nil, err
	}
	r.settled() // of a channel that did not get as far
	r.placed, r.deaf, r.found = false, false, make(chan struct{})
	found := r.found
	switch r.at {
	case "":
		r.wg.Go(func() { r.prompt(found, 0, func(ctx context.Context) { r.mark(ctx, r.id) }) })
		return from("next"), nil
	case transport.Oldest:
		r.wg.Go(func() { r.prompt(found, promptAfter, func(ctx context.Context) { r.mark(ctx, r.id) }) })
		return from("first"), nil
	}
	at, err := parseCursor(r.at)
	if err != nil {
		return nil, err
	}
	r.wg.Go(func() { r.prompt(found, promptAfter, func(ctx context.Context) { r.measure(ctx, at.offset) }) })
	return from(at.offset), nil
}

// from are the arguments of a consumer that begins at a place: "first", "next", "last" for the newest chunk, or an
// offset.
func from(place any) amqp.Table { return amqp.Table{"x-stream-offset": place} }

// settled tells prompt that the place is found, or that nobody looks for it any more.
func (r *reader) settled() {
	if r.found != nil {
		close(r.found)
		r.found = nil
	}
}

// prompt acts until the place is found.
func (r *reader) prompt(found <-chan struct{}, wait time.Duration, act func(context.Context)) {
	<-r.ready // a mark that is sent before the channel is attached is not seen
	for {
		select {
		case <-time.After(wait):
		case <-found:
			return
		case <-r.ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(r.ctx, promptMax)
		act(ctx)
		cancel()
		wait = min(max(2*wait, 2*promptAfter), promptMax)
	}
}

// mark sends a mark. An error is no harm: another will be sent.
func (r *reader) mark(ctx context.Context, id string) {
	r.c.pub.publish(ctx, &outgoing{key: r.stream, mandatory: true, msg: amqp.Publishing{MessageId: id,
		DeliveryMode: amqp.Persistent, Timestamp: time.Now(), Headers: amqp.Table{ownMark: true}}})
}

// measure sends a mark and finds out whether it comes to lie before an offset, which is then beyond the end: who reads
// from there sees no mark.
func (r *reader) measure(ctx context.Context, offset int64) {
	before := false
	id := transport.NewID() // not r.id: in a new stream it would pass for the mark that the reader began at
	err := r.peek(ctx, "last", func(next func() (amqp.Delivery, bool)) {
		r.mark(ctx, id)
		for d, ok := next(); ok; d, ok = next() {
			if o, _ := d.Headers["x-stream-offset"].(int64); o >= offset {
				return
			}
			if before = isMark(&d) && d.MessageId == id; before || d.Ack(false) != nil {
				return
			}
		}
	})
	if err == nil && before {
		r.beyond.Store(true)
		r.k.channel().close() // attach tells
	}
}

// peek reads the stream on a channel of its own. It takes no longer than MethodTimeout: then next has no more.
func (r *reader) peek(ctx context.Context, place any, read func(next func() (amqp.Delivery, bool))) error {
	ctx, cancel := context.WithTimeout(ctx, r.c.o.MethodTimeout)
	defer cancel()
	s, err := r.c.stream.session(ctx)
	if err != nil {
		return err
	}
	ch, err := s.channel(ctx)
	if err != nil {
		return err
	}
	defer func() { go ch.close() }()
	var ds <-chan amqp.Delivery
	err = ch.do(ctx, func(ac *amqp.Channel) (err error) {
		if err = ac.Qos(64, 0, false); err == nil {
			ds, err = ac.Consume(r.stream, "", false, false, false, false, from(place))
		}
		return err
	})
	if err != nil {
		return err
	}
	read(func() (d amqp.Delivery, ok bool) {
		select {
		case d, ok = <-ds:
		case <-ctx.Done():
		}
		return d, ok
	})
	return nil
}

// isMark reports whether d is a mark.
func isMark(d *amqp.Delivery) bool {
	mark, _ := d.Headers[ownMark].(bool)
	return mark
}

// deliver implements feed.deliver.
func (r *reader) deliver(_ uint64, d *amqp.Delivery) {
	<-r.ready
	if r.deaf || r.over {
		return
	}
	offset, ok := d.Headers["x-stream-offset"].(int64)
	if !ok {
		r.finish(transport.Errorf(transport.CodeFailedPrecondition, "the queue of the history of %q is no stream", r.topic))
		return
	}
	here := cursor{offset: offset}
	if !r.placed {
		if !r.place(here, d) {
			r.k.ackNext(1)
			return
		}
	} else if offset != r.last+1 && !r.unbroken() {
		return
	}
	r.last = offset
	if isMark(d) || d.RoutingKey != r.topic {
		r.skip(here, d)
		return
	}
	here.sum = sumOf(r.topic, r.stream, d)
	r.push(here, d)
}

// place compares the first messages of a channel with where the reader wants to be. It reports whether d is to be
// handled.
func (r *reader) place(here cursor, d *amqp.Delivery) bool {
	here.sum = sumOf(r.topic, r.stream, d)
	handle := false
	switch r.at {
	case "":
		if !isMark(d) || d.MessageId != r.id {
			return false // it was published before the subscription was active
		}
		r.start(here.String())
	case transport.Oldest:
		handle = !isMark(d)
		here.before = handle
		r.start(here.String())
	default:
		at, _ := parseCursor(r.at) // attach has checked it
		handle = at.before
		here.before = at.before
		if here != at {
			r.finish(errLost)
			return false
		}
		if r.Inbox == nil {
			r.start(r.at)
		}
	}
	r.placed, r.last, r.skipped = true, here.offset, 0
	r.settled()
	return handle
}

// start makes the Inbox: Subscribe can return.
func (r *reader) start(cursor string) {
	o := &wire.InboxOptions{Start: cursor, MaxBytes: r.so.Buffer * r.c.o.MaxBytes, Dropped: r.c.o.OnDrop, Credit: r.credit}
	if r.so.Overflow == transport.DropOldest {
		o.Credit = nil // it drops what it has no room for, and says how much: all must come
	}
	r.Inbox = wire.NewInbox(r.so, o)
	r.started <- nil
}

// credit implements InboxOptions.Credit.
func (r *reader) credit(n int) {
	r.k.ackNext(n)
	select {
	case r.room <- struct{}{}:
	default:
	}
}

// skip passes over a message that is none of the topic's.
func (r *reader) skip(here cursor, d *amqp.Delivery) {
	r.k.ackNext(1)
	if r.skipped++; r.skipped >= skipMax || isMark(d) {
		here.sum = sumOf(r.topic, r.stream, d)
		r.Advance(here.String())
		r.skipped = 0
	}
}

// push hands a message to the Inbox.
func (r *reader) push(here cursor, d *amqp.Delivery) {
	it, err := r.c.item(d, r.topic)
	if err != nil {
		r.finish(&transport.Error{Code: transport.CodeResourceExhausted, Message: transport.Public(err).Message, Cause: err,
			Header: transport.Header{wire.HeaderCursor: {here.String()}}})
		return
	}
	if published, ok := d.Headers[ownTime].(int64); ok && !it.Deadline.IsZero() { // a stream sees to no ttl itself
		ttl, _ := it.Message.Header.Millis(transport.HeaderTTL)
		it.Deadline = time.UnixMilli(published).Add(ttl)
	}
	it.Cursor = here.String()
	r.skipped = 0
	if r.so.Overflow == transport.DropOldest {
		r.k.ackNext(1)
	}
	// The broker sends whole chunks, so more than there is room for. They wait where they are.
	for r.so.Overflow != transport.DropOldest && r.Room() == 0 {
		select {
		case <-r.room:
		case <-r.ctx.Done():
			return
		}
	}
	if err := r.Push(it); err != nil {
		r.finish(err)
	}
}

// unbroken is asked when offsets are missing. The broker itself leaves some out, where one segment ends and the next
// begins. But if the last message has gone as well then so has what was between: the subscriber was too slow.
func (r *reader) unbroken() bool {
	first := int64(-1)
	err := r.peek(r.ctx, r.last, func(next func() (amqp.Delivery, bool)) {
		if d, ok := next(); ok {
			first, _ = d.Headers["x-stream-offset"].(int64)
		}
	})
	switch {
	case err != nil || first < 0: // nothing is known: start over from the low-water mark
		r.deaf = true
		r.k.channel().close()
		return false
	case first != r.last:
		r.finish(&transport.Error{Code: transport.CodeResourceExhausted,
			Message: "the subscriber is too slow: the history has been deleted before it was read",
			Header:  transport.Header{wire.HeaderCursor: {r.Cursor()}}})
		return false
	}
	return true
}

// finish ends the subscription from within.
func (r *reader) finish(err error) {
	r.over = true
	r.tell(err)
	r.k.cancel()
}

// tell says why nothing more comes.
func (r *reader) tell(err error) {
	if r.Inbox != nil {
		r.End(err)
		return
	}
	if err == nil {
		err = errClosed
	}
	select {
	case r.started <- err:
	default:
	}
}

// ended implements feed.end.
func (r *reader) ended(err error) {
	r.settled()
	if !r.over {
		r.tell(err)
	}
	r.c.finished(r)
}

// Close implements [transport.Subscription].
func (r *reader) Close() error {
	r.Inbox.Close() // first: nothing more is handed out
	r.end()
	return nil
}

// shutdown implements running. Settling is local: there is nothing to wait for.
func (r *reader) shutdown(context.Context) error {
	r.end()
	return nil
}

// end implements running.
func (r *reader) end() {
	r.cancel()
	<-r.ready
	if r.k != nil {
		r.k.stop()
	}
	r.wg.Wait()
	if r.Inbox != nil {
		r.Inbox.Close()
	}
}
