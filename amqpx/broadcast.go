package amqpx

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

const (
	// maxLag is how many messages a subscription may be behind, beside those that its Inbox holds: here while it is
	// connected, in its queue while it is not.
	maxLag = 8192
	// maxLagBytes bounds the same here, by Message.Size.
	maxLagBytes = 64 << 20
	// maxLost bounds the queue of what was dropped. It is emptied all the time while the client is connected.
	maxLost = 100
	// takes is how many messages the broker sends ahead of their acknowledgements.
	takes = 256
)

// A broadcast is a subscription without a group and without history. It has a queue of its own, which outlives its
// connection for the ReconnectWindow, so that a cut loses nothing. What has arrived is acknowledged at once: it lives
// as long as the subscription does, here. If the queue was deleted meanwhile, or full, the subscription ends with
// CodeDataLoss.
//
// Whether the queue was full is seen when a connection is made. A process that stands still for a while, but not for as
// long as its connection lives without heartbeats, could overflow the queue unseen.
type broadcast struct {
	*wire.Inbox
	c      *Client
	topic  string
	queue  string
	oldest bool // drop the oldest
	k      *consumer
	ready  chan struct{} // closed when k is set

	made bool     // the queue was declared
	ids  []string // of the last messages, as many as may have been delivered without an acknowledgement
	next int      // in ids

	wg     sync.WaitGroup // refills
	behind atomic.Bool    // there is, or may be in a moment, something in lag

	mu    sync.Mutex
	lag   []*wire.Item // arrived, and no room in the Inbox
	bytes int          // of these
	err   error        // the end, after these
}

// broadcast returns a subscription without group and history.
func (c *Client) broadcast(ctx context.Context, topic string,
	so transport.SubscribeOptions) (transport.Subscription, error) {
	b := &broadcast{c: c, topic: topic, queue: c.topology.name("sub", transport.NewID()),
		oldest: so.Overflow == transport.DropOldest, ready: make(chan struct{}), ids: make([]string, takes)}
	b.Inbox = wire.NewInbox(so, &wire.InboxOptions{MaxBytes: so.Buffer * c.o.MaxBytes, Dropped: c.o.OnDrop,
		Credit: b.credit})
	if err := c.begin(b); err != nil {
		return nil, err
	}
	var err error
	b.k, err = c.startConsumer(ctx, feed{
		link: c.consume, queue: b.queue, prefetch: takes, exclusive: true,
		attach: b.attach, deliver: b.deliver, end: b.ended, alarm: b.lostQueue(), alarmed: b.dropped,
		finish: func(ctx context.Context, ch *channel) {
			ch.do(ctx, func(ac *amqp.Channel) error { // fails only with the channel; then the queues expire
				_, err := ac.QueueDelete(b.queue, false, false, false)
				if err == nil {
					_, err = ac.QueueDelete(b.lostQueue(), false, false, false)
				}
				return err
			})
		},
	})
	close(b.ready)
	if err != nil {
		b.ended(err)
		return nil, err
	}
	return b, nil
}

// lostQueue is the queue of what the other dropped.
func (b *broadcast) lostQueue() string { return b.queue + ".lost" }

// dropped is told of what went to the other queue: what was dropped because the queue was full, or because its ttl was
// over.
func (b *broadcast) dropped(d *amqp.Delivery) {
	<-b.ready
	deaths, _ := d.Headers["x-death"].([]any)
	for _, death := range deaths {
		if death, _ := death.(amqp.Table); death["queue"] == b.queue && death["reason"] == "maxlen" {
			b.stop(transport.Errorf(transport.CodeDataLoss, "the subscription's queue was full"))
			return
		}
	}
}

// attach declares the queue, the first time. Later it must still be there, and have had room.
func (b *broadcast) attach(ctx context.Context, ch *channel) (amqp.Table, error) {
	t := b.c.topology
	if !b.made {
		err := ch.do(ctx, func(ac *amqp.Channel) error {
			if err := t.declareExchange(ac); err != nil {
				return err
			}
			window := b.c.o.ReconnectWindow.Milliseconds()
			_, err := ac.QueueDeclare(b.lostQueue(), true, false, false, false, amqp.Table{
				amqp.QueueTTLArg:      window,
				amqp.QueueMaxLenArg:   int64(maxLost),
				amqp.QueueOverflowArg: "reject-publish", // the first is the one that counts
			})
			if err != nil {
				return err
			}
			_, err = ac.QueueDeclare(b.queue, true, false, false, false, amqp.Table{
				amqp.QueueTTLArg:            window,
				amqp.QueueMaxLenArg:         int64(t.lag),
				amqp.QueueOverflowArg:       "drop-head",
				"x-dead-letter-exchange":    "",
				"x-dead-letter-routing-key": b.lostQueue(),
			})
			if err != nil {
				return err
			}
			return t.bind(ac, b.queue, b.topic)
		})
		b.made = err == nil
		return nil, err
	}
	var q amqp.Queue
	err := ch.do(ctx, func(ac *amqp.Channel) (err error) {
		q, err = ac.QueueDeclarePassive(b.queue, true, false, false, false, nil)
		return err
	})
	switch {
	case err != nil && permanent(err):
		return nil, transport.Wrap(err, transport.CodeDataLoss, "the subscription's queue was deleted")
	case err == nil && q.Messages >= t.lag:
		return nil, transport.Errorf(transport.CodeDataLoss, "the subscription's queue was full")
	}
	return nil, err
}

// deliver takes a message from the queue.
func (b *broadcast) deliver(tag uint64, d *amqp.Delivery) {
	<-b.ready
	b.k.ack(tag)
	if d.Redelivered {
		b.c.stats.redelivered.Add(1)
		if b.seen(d.MessageId) {
			return
		}
	}
	b.ids[b.next] = d.MessageId
	b.next = (b.next + 1) % len(b.ids)
	if b.c.topology.expired(d) {
		return
	}
	it, err := b.c.item(d, b.topic)
	switch {
	case err != nil && it.Message.Size() > b.c.o.MaxBytes:
		b.stop(err)
	case err != nil:
		b.c.o.OnDrop(&it.Message, err)
	case b.oldest:
		b.Push(it)
	default:
		b.push(it)
	}
}

// seen reports whether a redelivered message had arrived already: its acknowledgement was lost with the connection.
func (b *broadcast) seen(id string) bool {
	if id == "" {
		return false
	}
	for i := range b.ids {
		if b.ids[i] == id {
			b.ids[i] = ""
			return true
		}
	}
	return false
}

// push hands it to the Inbox, or keeps it until there is room.
func (b *broadcast) push(it *wire.Item) {
	b.mu.Lock()
	b.behind.Store(true) // before the Inbox is asked: what gets free after that comes with a credit
	full := false
	switch {
	case b.err != nil:
	case len(b.lag) == 0 && b.Room() > 0:
		b.Push(it)
	default:
		b.bytes += it.Message.Size()
		b.lag = append(b.lag, it)
		if full = len(b.lag) > b.c.topology.lag || b.bytes > maxLagBytes; full {
			b.lag = nil
		}
	}
	b.behind.Store(len(b.lag) > 0)
	b.mu.Unlock()
	if full {
		b.stop(transport.Errorf(transport.CodeResourceExhausted, "the subscriber is too slow"))
	}
}

// credit is told when the Inbox has room. It must not use the Inbox.
func (b *broadcast) credit(int) {
	if b.behind.Load() {
		b.wg.Go(b.refill)
	}
}

// refill moves what waits into the Inbox.
func (b *broadcast) refill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.lag) > 0 && b.Room() > 0 {
		it := b.lag[0]
		b.lag[0] = nil
		b.lag = b.lag[1:]
		b.bytes -= it.Message.Size()
		b.Push(it)
	}
	b.behind.Store(len(b.lag) > 0)
	if len(b.lag) == 0 && b.err != nil {
		b.End(b.err)
	}
}

// stop ends the subscription with err once it has handed out what came before.
func (b *broadcast) stop(err error) {
	b.last(err)
	b.k.close()
}

// last sets the end, of which the first counts. nil is an orderly one.
func (b *broadcast) last(err error) {
	if err == nil {
		err = io.EOF
	}
	b.mu.Lock()
	if b.err == nil {
		b.err = err
	}
	b.mu.Unlock()
	b.refill()
}

// ended is the end of the consumer.
func (b *broadcast) ended(err error) {
	b.last(err)
	b.c.topology.unbound(b.queue)
	b.c.finished(b)
}

// Close implements [transport.Subscription]. It waits for the broker, at most for MethodTimeout, to delete the queue.
func (b *broadcast) Close() error {
	err := b.Inbox.Close()
	b.wg.Wait()
	b.k.close()
	return err
}

// shutdown implements running. What is out is settled here, so there is nothing to wait for.
func (b *broadcast) shutdown(ctx context.Context) error {
	<-b.ready
	if b.k == nil {
		return nil
	}
	b.Close()
	select {
	case <-b.k.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end implements running.
func (b *broadcast) end() {
	<-b.ready
	if b.k != nil {
		b.k.stop()
		b.Inbox.Close()
	}
	b.wg.Wait()
}
