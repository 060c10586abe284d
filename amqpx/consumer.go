package amqpx

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// A feed is what a consumer takes from and hands to. All funcs but end are called by one goroutine at a time.
type feed struct {
	link      *link
	queue     string
	prefetch  int  // deliveries unsettled at once; RabbitMQ sends no more
	exclusive bool // nobody else may consume: wait until the broker has noticed that the last connection is gone
	fleeting  bool // others may delete the queue while nobody consumes: attach makes it anew
	// alarm is another queue, of messages that alarmed is told of, beside all else. "": there is none.
	alarm   string
	alarmed func(d *amqp.Delivery)
	// attach prepares a new channel, before qos and consume, and returns consume's arguments. It is called first within
	// startConsumer, with its ctx, and again after each loss. nil: nothing to do. It may use ch.do.
	attach func(ctx context.Context, ch *channel) (amqp.Table, error)
	// deliver takes a delivery. tag is its name for ack, nack and settled; d.DeliveryTag is not.
	deliver func(tag uint64, d *amqp.Delivery)
	// finish ends the flow when the consumer is closed; what is settled was written before. nil: basic.cancel.
	finish func(ctx context.Context, ch *channel)
	// lost tells that the channel is gone: what is unsettled is the broker's again. nil: nobody cares.
	lost func()
	// end tells that nothing comes any more: nil after close, else why. It is called once, last, and only if startConsumer
	// returned nil.
	end func(err error)
}

// A consumer takes deliveries from one queue for as long as it lives, over any number of channels and sessions. Its
// tags count on from one channel to the next, so that a late acknowledgement is known by its tag and never reaches a
// channel that it does not belong to: there the same number would be another message.
//
// It has two goroutines. One opens channels and hands out deliveries. The other writes acknowledgements, so that a
// broker that reads slowly does not hold up what has arrived.
type consumer struct {
	c      *Client
	f      feed
	name   string // the consumer tag
	ctx    context.Context
	cancel context.CancelFunc // stops everything at once
	done   chan struct{}      // closed when both goroutines have ended
	wake   chan struct{}      // a token: there is something to write

	writing sync.Mutex // held while acknowledgements are written; taken before mu

	mu       sync.Mutex
	ch       *channel
	base     uint64              // tags up to this one belong to channels that are gone
	last     uint64              // the newest tag
	open     map[uint64]struct{} // tags that are not settled
	order    []uint64            // the same, in order; those that are not in open are skipped
	acks     []uint64            // settled, to be written
	nacks    []uint64            // likewise, to go back to the queue
	attached bool
	closing  bool
	dry      bool // nothing more will be delivered

	alarms <-chan amqp.Delivery // the goroutine's that hands out
}

// maxPrefetch is the most that basic.qos can say; 0 would be no limit.
const maxPrefetch = 1<<16 - 1

// startConsumer starts a consumer and returns once it is attached. It tries as long as ctx lives, or until the error
// is one that will not go away.
func (c *Client) startConsumer(ctx context.Context, f feed) (*consumer, error) {
	k := &consumer{c: c, f: f, name: transport.NewID(), done: make(chan struct{}), wake: make(chan struct{}, 1),
		open: map[uint64]struct{}{}}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.opening, cancel)() // Close and Shutdown wait for what was begun
	deliveries, err := k.attach(ctx)
	if err != nil {
		if c.opening.Err() != nil {
			err = errClosed
		}
		return nil, err
	}
	k.ctx, k.cancel = context.WithCancel(c.ctx)
	go k.run(deliveries)
	return k, nil
}

// attach opens a channel on the live session and consumes. It tries again until ctx ends or the error is permanent.
func (k *consumer) attach(ctx context.Context) (<-chan amqp.Delivery, error) {
	for attempt := 1; ; attempt++ {
		s, err := k.f.link.session(ctx)
		if err != nil {
			return nil, err // ctx has ended or the client is closed
		}
		deliveries, err := k.try(ctx, s)
		if err == nil || permanent(err) && !(k.f.fleeting && transport.CodeOf(err) == transport.CodeNotFound) {
			return deliveries, err
		}
		if end := sleep(ctx, again.Delay(attempt)); end != nil {
			return nil, errors.Join(end, err)
		}
	}
}

func (k *consumer) try(ctx context.Context, s *session) (<-chan amqp.Delivery, error) {
	ch, err := s.channel(ctx)
	if err != nil {
		return nil, err
	}
	var args amqp.Table
	if k.f.attach != nil {
		args, err = k.f.attach(ctx, ch)
	}
	var deliveries, alarms <-chan amqp.Delivery
	if err == nil {
		err = ch.do(ctx, func(ac *amqp.Channel) (err error) {
			if k.f.alarm != "" {
				if alarms, err = ac.Consume(k.f.alarm, "", true, false, false, false, nil); err != nil {
					return err
				}
			}
			if err = ac.Qos(min(k.f.prefetch, maxPrefetch), 0, false); err == nil {
				deliveries, err = ac.Consume(k.f.queue, k.name, false, k.f.exclusive, false, false, args)
			}
			return err
		})
	}
	k.mu.Lock()
	if err == nil && k.closing {
		err = errClosed
	}
	if err == nil {
		k.ch, k.attached = ch, true
	}
	k.mu.Unlock()
	if err != nil {
		ch.close()
		return nil, err
	}
	k.alarms = alarms
	return deliveries, nil
}

// permanent reports whether an error of the broker will be the same next time.
func permanent(err error) bool {
	var e *amqp.Error
	if errors.As(err, &e) {
		switch e.Code {
		case amqp.PreconditionFailed: // a stream that is not up yet has no replica, which passes
			return !strings.Contains(e.Reason, "does not have a replica")
		case amqp.NotAllowed, amqp.NotImplemented:
			return true
		case amqp.AccessRefused: // an exclusive consumer may be one of ours that is on its way out
			return !strings.Contains(e.Reason, "in exclusive use")
		case amqp.NotFound: // the other kind, of a queue whose node is down, passes
			return strings.Contains(e.Reason, "no queue") || strings.Contains(e.Reason, "no exchange")
		}
	}
	switch transport.CodeOf(err) {
	case transport.CodeDataLoss, transport.CodeOutOfRange, transport.CodeFailedPrecondition,
		transport.CodeInvalidArgument, transport.CodeUnimplemented:
		return true
	}
	return false
}

// run hands out deliveries, and attaches again after each loss, until close or a permanent error.
func (k *consumer) run(deliveries <-chan amqp.Delivery) {
	defer close(k.done)
	defer k.cancel()
	for attempt := 1; ; attempt++ {
		since := time.Now()
		err := k.serve(deliveries)
		if k.f.lost != nil {
			k.f.lost()
		}
		if time.Since(since) > steady {
			attempt = 1
		}
		// A channel that the broker closes again and again must not be a hot loop. For connections the link sees to it.
		if err == nil && attempt > 1 && !k.channel().session.over() {
			err = sleep(k.ctx, again.Delay(attempt))
		}
		if err == nil {
			deliveries, err = k.attach(k.ctx)
		}
		if err != nil {
			if k.ended() {
				err = nil
			}
			k.f.end(err)
			return
		}
	}
}

// again is the wait before another attempt to consume, or to declare.
var again = transport.Backoff{Min: 10 * time.Millisecond, Max: 5 * time.Second}

// sleep waits for d. The error is that of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// serve hands out deliveries until the channel is gone. After close that is when all that is out is settled, and the
// error is errClosed.
func (k *consumer) serve(deliveries <-chan amqp.Delivery) (err error) {
	ch := k.ch
	stop := context.AfterFunc(k.ctx, func() {
		k.flush(ch)
		ch.close()
	})
	gone := make(chan struct{})
	var writer, watcher sync.WaitGroup
	writer.Go(func() { k.write(ch, gone) })
	if alarms := k.alarms; alarms != nil {
		watcher.Go(func() {
			for d := range alarms {
				k.f.alarmed(&d)
			}
		})
	}
	for d := range deliveries {
		k.f.deliver(k.took(d.DeliveryTag), &d)
	}
	k.mu.Lock()
	if k.dry = k.closing; k.dry {
		err = errClosed
	} else {
		k.attached = false // close need not wait any more
	}
	k.mu.Unlock()
	if k.signal(); err == nil {
		close(gone)
	}
	writer.Wait()
	if stop() {
		ch.close()
	} else {
		<-ch.done
	}
	watcher.Wait() // the library ends it with the channel
	k.forget()
	return err
}

// ended reports whether close or stop was called.
func (k *consumer) ended() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.closing || k.ctx.Err() != nil
}

// took gives a delivery its tag.
func (k *consumer) took(deliveryTag uint64) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	tag := k.base + deliveryTag
	k.last = max(k.last, tag)
	k.open[tag] = struct{}{}
	if k.order = append(k.order, tag); len(k.order) > 2*len(k.open)+64 {
		k.compact()
	}
	return tag
}

// compact removes what is settled from order.
func (k *consumer) compact() {
	kept := k.order[:0]
	for _, tag := range k.order {
		if _, ok := k.open[tag]; ok {
			kept = append(kept, tag)
		}
	}
	k.order = kept
}

// forget drops all that the channel has brought: the broker has taken it back.
func (k *consumer) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.base = k.last
	k.acks, k.nacks, k.order = nil, nil, nil
	clear(k.open)
}

var errStale = &transport.Error{Code: transport.CodeUnavailable,
	Message: "the connection that brought the message is gone"}

// ack settles a delivery for good. It does not wait for the broker. A tag of an earlier channel is CodeUnavailable: the
// message comes again.
func (k *consumer) ack(tag uint64) error { return k.settle(tag, &k.acks) }

// nack gives a delivery back to the queue.
func (k *consumer) nack(tag uint64) error { return k.settle(tag, &k.nacks) }

func (k *consumer) settle(tag uint64, list *[]uint64) error {
	k.mu.Lock()
	_, ok := k.open[tag]
	if ok {
		delete(k.open, tag)
		*list = append(*list, tag)
	}
	k.mu.Unlock()
	if !ok {
		k.c.stats.staleAcks.Add(1)
		return errStale
	}
	k.signal()
	return nil
}

// ackNext acknowledges the n oldest deliveries. It is for feeds that settle in order, where acknowledging makes room.
func (k *consumer) ackNext(n int) {
	k.mu.Lock()
	for ; n > 0 && len(k.order) > 0; k.order = k.order[1:] {
		if tag := k.order[0]; k.isOpen(tag) {
			delete(k.open, tag)
			k.acks = append(k.acks, tag)
			n--
		}
	}
	k.mu.Unlock()
	k.signal()
}

func (k *consumer) isOpen(tag uint64) bool {
	_, ok := k.open[tag]
	return ok
}

func (k *consumer) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// write writes acknowledgements until gone or ch is closed, or until nothing is left after close.
func (k *consumer) write(ch *channel, gone <-chan struct{}) {
	for !k.flush(ch) {
		select {
		case <-k.wake:
		case <-ch.done:
			return
		case <-gone:
			return
		}
	}
}

// flush writes what is settled. It reports whether that was the last: nothing is left after close, or ch is lost.
func (k *consumer) flush(ch *channel) (last bool) {
	k.writing.Lock()
	defer k.writing.Unlock()
	k.mu.Lock()
	base, acks, nacks := k.base, k.acks, k.nacks
	k.acks, k.nacks = nil, nil
	for len(k.order) > 0 && !k.isOpen(k.order[0]) {
		k.order = k.order[1:]
	}
	oldest := k.last + 1
	if len(k.order) > 0 {
		oldest = k.order[0]
	}
	last = k.dry && len(k.open) == 0
	k.mu.Unlock()
	return writeAcks(ch, base, acks, nacks, oldest) != nil || last
}

// writeAcks writes one acknowledgement for all that are older than the oldest that is still out, and one for each of
// the others.
func writeAcks(ch *channel, base uint64, acks, nacks []uint64, oldest uint64) error {
	if len(acks)+len(nacks) == 0 {
		return nil
	}
	return ch.gather(func(ac *amqp.Channel) error {
		for _, tag := range nacks { // first: the acknowledgement of many would include them
			if err := ac.Nack(tag-base, false, true); err != nil {
				return err
			}
		}
		newest, n := uint64(0), 0
		for _, tag := range acks {
			if tag < oldest {
				newest, n = max(newest, tag), n+1
			} else if err := ac.Ack(tag-base, false); err != nil {
				return err
			}
		}
		if n > 0 {
			return ac.Ack(newest-base, n > 1)
		}
		return nil
	})
}

// channel is the newest channel. It may be gone.
func (k *consumer) channel() *channel {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ch
}

// close ends the flow: when it returns the broker sends nothing more, and deliver gets only what had arrived. What is
// out can be settled until the channel is lost; then, or when all is settled, the consumer ends. Twice is safe.
func (k *consumer) close() {
	k.mu.Lock()
	ch, first, attached := k.ch, !k.closing, k.attached
	k.closing = true
	k.mu.Unlock()
	switch {
	case !first:
	case !attached:
		k.cancel() // nothing is out
	default:
		finish := k.f.finish
		if finish == nil {
			finish = func(ctx context.Context, ch *channel) {
				ch.do(ctx, func(ac *amqp.Channel) error { return ac.Cancel(k.name, false) }) // fails only with the channel
			}
		}
		k.flush(ch)
		finish(k.ctx, ch)
	}
}

// stop ends the consumer at once and waits for it: what is out goes back to the queue.
func (k *consumer) stop() {
	k.mu.Lock()
	k.closing = true
	k.mu.Unlock()
	k.cancel()
	<-k.done
}

// item makes an Item of a delivery. Its ttl counts from its publication where that is known. The error refuses the
// message for good: it cannot be read, or it is too large. The Item is there all the same.
func (c *Client) item(d *amqp.Delivery, topic string) (*wire.Item, error) {
	m, err := decode(d, topic)
	if n := m.Size(); err == nil && n > c.o.MaxBytes {
		err = transport.Errorf(transport.CodeResourceExhausted, "the message has %d bytes, the limit is %d", n, c.o.MaxBytes)
	}
	it := &wire.Item{Message: m, Attempt: 1}
	if ttl, terr := m.Header.Millis(transport.HeaderTTL); terr == nil && ttl > 0 {
		it.Deadline = time.Now().Add(ttl)
		// The broker sees to the ttl of what has an expiration. A delayed message has none.
		if published, ok := d.Headers[ownTime].(int64); ok && d.Expiration == "" {
			it.Deadline = time.UnixMilli(published).Add(ttl)
		}
	}
	return it, err
}

// expired reports whether the broker has dead-lettered d out of a group because its ttl was over: that is no dead
// letter, but the broker makes no difference.
func (t *topology) expired(d *amqp.Delivery) bool {
	if d.Headers["x-first-death-reason"] == nil {
		return false
	}
	deaths, _ := d.Headers["x-death"].([]any)
	for _, v := range deaths {
		death, _ := v.(amqp.Table)
		queue, _ := death["queue"].(string)
		if death["reason"] == "expired" && t.isGroup(queue) {
			return true
		}
	}
	return false
}

// Subscribe implements [transport.Subscriber]. See the package documentation for what each kind of subscription offers.
func (c *Client) Subscribe(ctx context.Context, topic string,
	opts ...transport.SubscribeOption) (transport.Subscription, error) {
	if err := transport.CheckTopic(topic); err != nil {
		return nil, err
	}
	offered := offers
	history := c.history(topic)
	if history {
		offered |= transport.Replay
	}
	so, err := transport.Resolve(offered, opts...)
	switch {
	case err != nil:
		if _, e := transport.Resolve(offered|transport.Replay, opts...); e != nil {
			return nil, err
		}
		if so.Group != "" {
			return nil, errGroupReplay
		}
		return nil, transport.Errorf(transport.CodeUnimplemented, "the topic %q has no history: see Options.History", topic)
	case !c.known(topic):
		return nil, transport.Errorf(transport.CodeNotFound, "there is no topic %q", topic)
	case so.DeadLetter != "" && !c.known(so.DeadLetter):
		return nil, transport.Errorf(transport.CodeNotFound, "there is no topic %q", so.DeadLetter)
	case so.Overflow == transport.Block:
		return nil, transport.Errorf(transport.CodeUnimplemented, "a remote subscriber cannot make publishers wait")
	case so.Group != "":
		return c.join(ctx, topic, so)
	case history:
		return c.replay(ctx, topic, so)
	}
	return c.broadcast(ctx, topic, so)
}

// offers is what every subscription can have. Replay comes with a history.
const offers = transport.AtLeastOnce | transport.Ordered | transport.Groups | transport.DeadLetters | transport.Delays
