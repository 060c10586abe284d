package amqpx

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// maxHold is the longest time that an ordered group holds a message between two attempts. The broker takes back what
// is unsettled for its consumer_timeout, which is 30 minutes.
const maxHold = 15 * time.Minute

// A member is a subscription to a group: a consumer of the group's queue. The broker knows messages, not attempts, so
// members do what a group does about those: what is to come again is published to a level that returns it to the queue,
// with the number of the attempt in a header, and only then acknowledged; what is refused is published to the dead
// letters likewise. An ordered group has one active consumer, which holds what is to come again.
type member struct {
	*wire.Inbox
	c     *Client
	topic string
	group string
	g     settings
	k     *consumer
	ready chan struct{} // closed when k is set
	once  sync.Once
	wg    sync.WaitGroup // refusals of what was never handed out

	mu      sync.Mutex
	held    map[uint64]*held // what is unsettled, by tag
	closing bool
	leased  context.Context // until the connection is lost that has brought them
	expire  context.CancelFunc
	memory  memory // of what an ordered member had when the connection was lost
}

// A memory is what the broker does not know of a message that it has taken back.
type memory struct {
	id      string
	attempt int
	due     time.Time
}

// lease begins a new connection.
func (m *member) lease() { m.leased, m.expire = context.WithCancel(m.c.ctx) }

// held is an unsettled message.
type held struct {
	d        *amqp.Delivery
	m        transport.Message
	attempt  int
	deadline time.Time   // of what was never handed out
	timer    *time.Timer // it waits
	due      time.Time   // until then; ordered groups only
}

var errGroupReplay = transport.Errorf(transport.CodeUnimplemented, "a group starts now: Replay is not offered with Group")

// join returns a member of a group, which it creates if need be.
func (c *Client) join(ctx context.Context, topic string,
	so transport.SubscribeOptions) (transport.Subscription, error) {
	if so.From != "" || so.Require&transport.Replay != 0 {
		return nil, errGroupReplay
	}
	g, err := c.topology.group(ctx, topic, so)
	if err != nil {
		return nil, err
	}
	if g.ordered {
		so.Buffer = 1
	}
	m := &member{c: c, topic: topic, group: so.Group, g: g, ready: make(chan struct{}), held: map[uint64]*held{}}
	m.lease()
	m.Inbox = wire.NewInbox(so, &wire.InboxOptions{Settle: m.settle, Stale: func() { c.stats.staleAcks.Add(1) }})
	if err := c.begin(m); err != nil {
		return nil, err
	}
	f := feed{link: c.consume, queue: g.queue, prefetch: so.Buffer, deliver: m.deliver, lost: m.lost, end: m.ended}
	if g.ordered {
		// The end of the channel gives back what is unsettled before another member becomes the active one. A cancel
		// would let that one have what follows first.
		f.finish = func(_ context.Context, ch *channel) { ch.close() }
	}
	m.k, err = c.startConsumer(ctx, f)
	close(m.ready)
	if err != nil {
		m.expire()
		c.finished(m)
		return nil, err
	}
	return m, nil
}

// deliver takes a message from the queue.
func (m *member) deliver(tag uint64, d *amqp.Delivery) {
	<-m.ready
	if d.Redelivered {
		m.c.stats.redelivered.Add(1)
	}
	if m.c.topology.expired(d) {
		m.k.ack(tag)
		return
	}
	it, err := m.c.item(d, m.topic)
	it.Tag = tag
	if n, ok := d.Headers[ownAttempt].(int64); ok && n > 1 {
		it.Attempt = int(n)
		it.Deadline = never // it was handed out in time
	}
	m.mu.Lock()
	known := m.memory
	m.memory = memory{}
	same := known.id != "" && known.id == d.MessageId
	if same && known.attempt > 1 {
		it.Attempt, it.Deadline = known.attempt, never
	}
	h := &held{d: d, m: it.Message, attempt: it.Attempt, deadline: it.Deadline}
	m.held[tag] = h
	m.mu.Unlock()
	if err != nil {
		m.wg.Go(func() { m.refuse(tag, h, err) }) // it publishes, which may take a while
		return
	}
	if wait := time.Until(known.due); same && wait > 0 && m.hold(tag, h, wait) {
		return
	}
	m.Push(it) // the broker keeps the window, so there is room
}

// settle is the verdict on the message named tag.
func (m *member) settle(tag uint64, _ *transport.Message, err error) error {
	m.mu.Lock()
	h := m.held[tag]
	m.mu.Unlock()
	if h == nil {
		m.c.stats.staleAcks.Add(1)
		return errStale
	}
	switch wire.AMQPOutcomeOf(err) {
	case wire.AMQPAck:
		return m.done(tag)
	case wire.AMQPRequeue:
		return m.giveBack(tag, h)
	case wire.AMQPDelay:
		if h.attempt < m.g.maxAttempts {
			return m.retry(tag, h, err)
		}
	}
	return m.refuse(tag, h, err)
}

// done acknowledges.
func (m *member) done(tag uint64) error { return m.put(tag, m.k.ack) }

// put takes the message out of held and settles it with f.
func (m *member) put(tag uint64, f func(tag uint64) error) error {
	m.mu.Lock()
	delete(m.held, tag)
	last := m.closing && m.g.ordered && len(m.held) == 0
	m.mu.Unlock()
	err := f(tag)
	if last {
		m.k.close()
	}
	return err
}

// nack gives a message back to the queue. An ordered member that is closing does so by closing its channel.
func (m *member) nack(tag uint64) error {
	m.mu.Lock()
	closing := m.closing && m.g.ordered
	m.mu.Unlock()
	if closing {
		return m.put(tag, func(uint64) error { return nil })
	}
	return m.put(tag, m.k.nack)
}

// giveBack returns a message to the queue, uncounted.
func (m *member) giveBack(tag uint64, h *held) error {
	if !h.deadline.IsZero() && !time.Now().Before(h.deadline) {
		return m.done(tag) // its ttl is over
	}
	if m.g.ordered {
		if m.hold(tag, h, 0) {
			return nil
		}
		return m.nack(tag)
	}
	// The broker counts how often a message comes back, and puts an end to it. A new copy begins anew, at the end of the
	// queue.
	if count, _ := h.d.Headers["x-delivery-count"].(int64); count >= int64(m.g.maxAttempts+spare/2) {
		out := m.outgoing(h)
		out.exchange, out.key, out.mandatory = "", m.g.queue, true
		if m.publish(out) == nil {
			return m.done(tag)
		}
	}
	return m.nack(tag)
}

// publish publishes out, unless the connection that has brought the message is lost before: it comes again then.
func (m *member) publish(out *outgoing) error {
	m.mu.Lock()
	ctx := m.leased
	m.mu.Unlock()
	return m.c.pub.publish(ctx, out)
}

// retry makes the message come again, later and with the next attempt.
func (m *member) retry(tag uint64, h *held, err error) error {
	wait := transport.Public(err).RetryAfter
	if wait > 0 {
		wait = roundUp(wait, 2)
	} else {
		wait = roundUp(transport.Backoff{}.Delay(h.attempt), 1)
	}
	m.mu.Lock()
	h.attempt++
	m.mu.Unlock()
	if m.g.ordered {
		if m.hold(tag, h, min(wait, maxHold)) {
			return nil
		}
		return m.nack(tag) // a closed member cannot hold it; the next one counts anew
	}
	out := m.outgoing(h)
	out.msg.Headers[ownAttempt] = int64(h.attempt)
	if err := m.c.topology.retried(m.c.ctx, out, m.g.queue, wait); err != nil {
		return m.failed(tag, h, wait, err)
	}
	if err := m.publish(out); err != nil {
		return m.failed(tag, h, wait, err)
	}
	return m.done(tag)
}

// hold hands out the message here, after wait. It reports whether it can: not when the member is closing.
func (m *member) hold(tag uint64, h *held, wait time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		return false
	}
	h.deadline, h.due = time.Time{}, time.Now().Add(wait)
	h.timer = time.AfterFunc(wait, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if h.stop() && m.held[tag] == h { // else close or lost was first; they do not come in between either
			m.Push(&wire.Item{Message: h.m, Attempt: h.attempt, Tag: tag, Deadline: never})
		}
	})
	return true
}

// never keeps the Inbox from giving a ttl to what was handed out before.
var never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// refuse gives up the message: it becomes a dead letter, or is dropped and reported.
func (m *member) refuse(tag uint64, h *held, err error) error {
	if m.g.deadLetter == "" {
		if err := m.done(tag); err != nil {
			return err
		}
		m.c.o.OnDrop(&h.m, err)
		return nil
	}
	out := m.outgoing(h)
	out.exchange, out.key, out.mandatory = m.c.topology.exchange(), m.g.deadLetter, true
	public := transport.Public(err)
	reason := public.Reason
	if reason == "" {
		reason = public.Message
	}
	for key, value := range map[string]string{
		transport.HeaderDeadLetterTopic:    m.topic,
		transport.HeaderDeadLetterAttempts: strconv.Itoa(h.attempt),
		transport.HeaderDeadLetterCode:     public.Code.String(),
		transport.HeaderDeadLetterReason:   reason,
	} {
		out.msg.Headers[key] = value
	}
	delete(out.msg.Headers, transport.HeaderTTL) // a dead letter waits for somebody to look at it
	if err := m.publish(out); err != nil {
		return m.failed(tag, h, transport.Backoff{}.Delay(h.attempt), err)
	}
	return m.done(tag)
}

// failed deals with a message that could not be published: after wait it goes back to the queue, and its next member
// tries again.
func (m *member) failed(tag uint64, h *held, wait time.Duration, err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held[tag] == h {
		h.timer = time.AfterFunc(wait, func() {
			m.mu.Lock()
			ok := h.stop()
			m.mu.Unlock()
			if ok {
				m.nack(tag)
			}
		})
	}
	return err
}

// outgoing is the message of h as it came, with an ID and without what the broker has added and what was for this way
// only. Its ttl is over: it was delivered.
func (m *member) outgoing(h *held) *outgoing {
	d := h.d
	headers := maps.Clone(d.Headers)
	if headers == nil {
		headers = amqp.Table{}
	}
	maps.DeleteFunc(headers, func(key string, _ any) bool {
		return key == ownAttempt || key == ownTime || key == "x-delivery-count" || key == "x-death" ||
			strings.HasPrefix(key, "x-first-death-") || strings.HasPrefix(key, "x-last-death-")
	})
	if ttl := h.m.Header.Get(transport.HeaderTTL); ttl != "" {
		headers[transport.HeaderTTL] = ttl
	}
	return &outgoing{msg: amqp.Publishing{Headers: headers, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding,
		DeliveryMode: amqp.Persistent, Priority: d.Priority, CorrelationId: d.CorrelationId, ReplyTo: d.ReplyTo,
		MessageId: h.m.ID, Timestamp: d.Timestamp, Type: d.Type, AppId: d.AppId, Body: d.Body}}
}

// lost forgets what the connection had brought: the broker delivers it again.
func (m *member) lost() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Resume() // what hold pushes comes before, or not at all
	m.expire()
	m.lease()
	for _, h := range m.held {
		if h.stop(); m.g.ordered {
			m.memory = memory{h.d.MessageId, h.attempt, h.due}
		}
	}
	clear(m.held)
}

// stop ends the wait, and reports whether there was one: what was to be done after it is then up to the caller, since a timer
// that has fired finds none. Under mu.
func (h *held) stop() bool {
	if h.timer == nil {
		return false
	}
	h.timer.Stop()
	h.timer = nil
	return true
}

// ended is the end of the consumer.
func (m *member) ended(err error) {
	if transport.CodeOf(err) == transport.CodeNotFound {
		err = transport.Wrap(err, transport.CodeDataLoss, "the queue of the group %q was deleted", m.group)
	}
	m.mu.Lock()
	m.closing = true
	m.expire()
	m.mu.Unlock()
	m.End(err)
	m.c.finished(m)
}

// Close implements [transport.Subscription]. It waits for the broker, at most for MethodTimeout, so that others get
// what is given back.
func (m *member) Close() (err error) {
	m.once.Do(func() { err = m.close() })
	return err
}

func (m *member) close() error {
	if !m.g.ordered {
		m.k.close()
	}
	m.mu.Lock()
	m.closing = true
	var back []uint64
	for tag, h := range m.held {
		if h.stop() {
			back = append(back, tag)
		}
	}
	m.mu.Unlock()
	var errs []error
	for _, tag := range back {
		errs = append(errs, m.nack(tag))
	}
	errs = append(errs, m.Inbox.Close())
	// An ordered member stays the active one as long as something is out, so that nobody gets what follows.
	m.mu.Lock()
	idle := len(m.held) == 0
	m.mu.Unlock()
	if idle {
		m.k.close()
	}
	return errors.Join(errs...)
}

// shutdown implements running.
func (m *member) shutdown(ctx context.Context) error {
	<-m.ready
	if m.k == nil {
		return nil
	}
	m.Close()
	select {
	case <-m.k.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end implements running.
func (m *member) end() {
	<-m.ready
	if m.k != nil {
		m.k.stop()
		m.Inbox.Close()
	}
	m.wg.Wait()
}
