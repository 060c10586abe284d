package amqpx

import (
	"context"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// callArgs are the arguments of the queue of an operation's calls. It outlives its responders, so that they can connect
// again, for a minute; the last one to close deletes it. The value is no option: all clients must agree on it.
var callArgs = amqp.Table{"x-expires": int64(time.Minute / time.Millisecond)}

// callQueue is the queue of an operation's calls.
func (t *topology) callQueue(topic string) string { return t.name("call", topic) }

// A responder is the subscription to the calls of one topic.
type responder struct {
	*wire.Inbox
	c     *Client
	queue string
	ready chan struct{} // closed when k is set
	k     *consumer

	mu      sync.Mutex
	calls   map[uint64]*amqp.Delivery // what has no answer yet, by tag
	closing bool
	others  bool // somebody else takes calls from the queue; valid while closing

	once   sync.Once
	linger sync.WaitGroup
}

// Respond implements [transport.Responder]. Buffer is the prefetch: so many calls are taken from the queue of the topic
// before they are answered, the others wait there or go to another responder.
//
// A call that comes a second time, because the connection of the responder that had it was lost, may have been handled:
// it is answered with CodeUnavailable and the Reason OUTCOME_UNKNOWN, and nobody sees it. When the subscription closes,
// what it has not handed out goes to another responder, or is answered with NOT_SENT if there is none.
//
// Settling a delivery writes the reply, then the acknowledgement. The error says that the connection is lost; then the
// caller gets OUTCOME_UNKNOWN.
func (c *Client) Respond(ctx context.Context, topic string,
	opts ...transport.SubscribeOption) (transport.Subscription, error) {
	so, err := transport.ResolveRespond(opts...)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckTopic(topic); err != nil {
		return nil, err
	}
	if !c.known(topic) {
		return nil, transport.Errorf(transport.CodeUnimplemented, "there is no operation %q", topic)
	}
	r := &responder{c: c, queue: c.topology.callQueue(topic), ready: make(chan struct{}),
		calls: map[uint64]*amqp.Delivery{}}
	r.Inbox = wire.NewInbox(so, &wire.InboxOptions{Calls: true, Settle: r.settle,
		Stale: func() { c.stats.staleAcks.Add(1) }})
	if err := c.begin(r); err != nil {
		return nil, err
	}
	r.k, err = c.startConsumer(ctx, feed{
		link:     c.caller.link,
		queue:    r.queue,
		prefetch: so.Buffer,
		fleeting: true,
		attach:   r.attach,
		deliver:  func(tag uint64, d *amqp.Delivery) { r.deliver(tag, topic, d) },
		lost:     r.lost,
		end:      func(err error) { r.End(err); c.finished(r) },
	})
	close(r.ready)
	if err != nil {
		c.finished(r)
		return nil, err
	}
	return r, nil
}

func (r *responder) attach(ctx context.Context, ch *channel) (amqp.Table, error) {
	return nil, ch.do(ctx, func(ac *amqp.Channel) error {
		_, err := ac.QueueDeclare(r.queue, true, false, false, false, callArgs)
		return err
	})
}

// deliver takes a call.
func (r *responder) deliver(tag uint64, topic string, d *amqp.Delivery) {
	<-r.ready
	r.mu.Lock()
	r.calls[tag] = d
	r.mu.Unlock()
	if d.Redelivered {
		r.c.stats.redelivered.Add(1)
		r.settle(tag, nil, errRedelivered)
		return
	}
	m, err := decodeCall(d, topic)
	if err == nil && m.Size() > r.c.o.MaxBytes {
		err = transport.Errorf(transport.CodeResourceExhausted, "the call has %d bytes, the limit is %d",
			m.Size(), r.c.o.MaxBytes)
	}
	var deadline time.Time
	if err == nil {
		deadline, err = callDeadline(d, m.Header)
	}
	if err == nil {
		err = r.Push(&wire.Item{Message: m, Attempt: 1, Tag: tag, Deadline: deadline})
	}
	if err != nil {
		r.settle(tag, nil, err)
	}
}

// callDeadline returns when a request ends: our callers say it, others may have given it a time to live.
func callDeadline(d *amqp.Delivery, h transport.Header) (time.Time, error) {
	if text, ok := d.Headers[keyDeadline].(string); ok {
		h = transport.Header{transport.HeaderDeadline: {text}}
	} else if ms, err := strconv.ParseUint(d.Expiration, 10, 32); err == nil && h.Get(transport.HeaderDeadline) == "" {
		return time.Now().Add(time.Duration(ms) * time.Millisecond), nil
	}
	return h.Deadline()
}

// settle answers the call named tag.
func (r *responder) settle(tag uint64, reply *transport.Message, err error) error {
	r.mu.Lock()
	d := r.calls[tag]
	delete(r.calls, tag)
	closing, others := r.closing, r.others
	r.mu.Unlock()
	if d == nil {
		return errStale
	}
	// One write for both; and a slow one must not hold the library's locks.
	var failed error
	acked := r.k.ackWith(tag, func(ac *amqp.Channel) {
		if closing && others && reasonOf(err) == transport.ReasonNotSent {
			failed = handOver(ac, r.queue, d)
		} else {
			failed = answer(ac, d, reply, err, r.c.o.MaxBytes)
		}
	})
	if acked != nil {
		return acked
	}
	return failed
}

// ackWith acknowledges a delivery right after what f publishes on its channel, in one write. A consumer whose deliveries
// are acknowledged like this has no use for ack, which may acknowledge several at once.
func (k *consumer) ackWith(tag uint64, f func(ac *amqp.Channel)) error {
	k.mu.Lock()
	_, ok := k.open[tag]
	base, ch := k.base, k.ch
	k.mu.Unlock()
	if !ok {
		k.c.stats.staleAcks.Add(1)
		return errStale
	}
	err := ch.gather(func(ac *amqp.Channel) error {
		f(ac)
		return ac.Ack(tag-base, false)
	})
	if err != nil {
		return brokerError(err)
	}
	k.mu.Lock()
	delete(k.open, tag) // not before: when nothing is open a consumer that closes closes the channel
	k.mu.Unlock()
	k.signal()
	return nil
}

// reasonOf returns the Reason of err.
func reasonOf(err error) string {
	if e := transport.Public(err); e != nil {
		return e.Reason
	}
	return ""
}

// answer sends the reply to d, or err. A request without a reply-to has none. The error is why the reply cannot be
// sent; the caller is told that as well if it can be.
func answer(ch *amqp.Channel, d *amqp.Delivery, reply *transport.Message, err error, maxBytes int) error {
	if d.ReplyTo == "" {
		return nil
	}
	msg, failed := encodeReply(reply, err, maxBytes)
	if failed != nil {
		msg, _ = encodeReply(nil, transport.Wrap(failed, transport.CodeInternal, "the reply cannot be sent"), maxBytes)
	}
	msg.CorrelationId = d.CorrelationId
	if err := ch.Publish("", d.ReplyTo, false, false, msg); err != nil {
		return brokerError(err)
	}
	return failed
}

func encodeReply(reply *transport.Message, err error, maxBytes int) (amqp.Publishing, error) {
	if err != nil {
		return amqp.Publishing{MessageId: transport.NewID(), Type: typeError, ContentType: wire.ContentTypeProblem,
			Body: wire.AppendProblem(nil, err)}, nil
	}
	if reply == nil {
		reply = &transport.Message{}
	}
	if err := reply.Check(maxBytes); err != nil {
		return amqp.Publishing{}, err
	}
	return encodeCall(reply)
}

// handOver puts d back into the queue for another responder, as a message that was never delivered.
func handOver(ch *amqp.Channel, queue string, d *amqp.Delivery) error {
	err := ch.Publish("", queue, true, false, amqp.Publishing{Headers: d.Headers, ContentType: d.ContentType,
		ContentEncoding: d.ContentEncoding, DeliveryMode: d.DeliveryMode, Priority: d.Priority,
		CorrelationId: d.CorrelationId, ReplyTo: d.ReplyTo, Expiration: d.Expiration, MessageId: d.MessageId,
		Timestamp: d.Timestamp, Type: d.Type, AppId: d.AppId, Body: d.Body})
	if err != nil {
		return brokerError(err)
	}
	return nil
}

// lost drops what the connection had brought.
func (r *responder) lost() {
	r.Resume()
	r.mu.Lock()
	clear(r.calls)
	r.mu.Unlock()
}

var (
	errRedelivered = unknownOutcome(nil, "another responder may have handled the call")

	errClosedResponder error = &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent,
		Message: "the responder has closed"}
)

// Close implements [transport.Subscription]. It waits for the broker, at most for MethodTimeout: once it has returned,
// calls go to other responders, or fail at once if there is none.
func (r *responder) Close() (err error) {
	r.once.Do(func() {
		ctx, cancel := context.WithTimeout(r.c.ctx, r.c.o.MethodTimeout)
		defer cancel()
		r.k.close()
		ch := r.k.channel()
		r.linger.Go(func() {
			select {
			case <-ch.session.done: // then it is all over
				cancel()
			case <-ctx.Done():
			}
		})
		var q amqp.Queue
		unknown := r.c.caller.link.once(ctx, func(ac *amqp.Channel) (err error) {
			q, err = ac.QueueDeclarePassive(r.queue, true, false, false, false, nil)
			return err
		})
		returns := ch.NotifyReturn(make(chan amqp.Return, 64))
		r.linger.Go(func() { r.refuse(returns) })
		r.mu.Lock()
		r.closing, r.others = true, unknown != nil || q.Consumers > 0
		last := !r.others
		r.mu.Unlock()
		err = r.Inbox.Close()
		r.reassure() // callers that find the queue gone give up calls of which they have not heard
		if last {
			r.empty(ctx)
		}
		r.linger.Go(func() {
			tick := time.NewTicker(workingEvery)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					r.reassure()
				case <-r.k.done:
					return
				}
			}
		})
	})
	return err
}

// refuse answers the calls that were handed over and found no queue, until the channel is closed.
func (r *responder) refuse(returns <-chan amqp.Return) {
	for back := range returns {
		msg, _ := encodeReply(nil, errClosedResponder, 0)
		msg.CorrelationId = back.CorrelationId
		r.c.pub.publish(r.c.ctx, &outgoing{key: back.ReplyTo, msg: msg}) // fails only if nothing can be sent at all
	}
}

// empty answers what waits in the queue, which nobody else takes from, and deletes it. What is too much to be answered,
// or comes meanwhile, is left to caller.watch.
func (r *responder) empty(ctx context.Context) {
	end := time.Now().Add(r.c.o.MethodTimeout / 2)
	for range 3 {
		err := r.c.caller.link.once(ctx, func(ac *amqp.Channel) error {
			for time.Now().Before(end) {
				d, ok, err := ac.Get(r.queue, true)
				if err != nil {
					return err
				}
				if !ok {
					break
				}
				why := errClosedResponder
				if d.Redelivered {
					why = errRedelivered
				}
				if err := answer(ac, &d, nil, why, 0); err != nil {
					return err
				}
			}
			_, err := ac.QueueDelete(r.queue, true, true, false)
			return err
		})
		if transport.CodeOf(err) != transport.CodeFailedPrecondition {
			return
		}
	}
}

// reassure tells the callers of what is out that it will be answered, though the queue may be gone.
func (r *responder) reassure() {
	r.mu.Lock()
	var out []*amqp.Delivery
	for _, d := range r.calls {
		if d.Type == typeCall && d.ReplyTo != "" {
			out = append(out, d)
		}
	}
	r.mu.Unlock()
	ch := r.k.channel()
	for _, d := range out {
		ch.use(func(ac *amqp.Channel) error {
			return ac.Publish("", d.ReplyTo, false, false, amqp.Publishing{Type: typeWorking, CorrelationId: d.CorrelationId})
		})
	}
}

// shutdown implements running.
func (r *responder) shutdown(ctx context.Context) error {
	<-r.ready
	if r.k == nil {
		return nil // Respond has failed
	}
	r.Close()
	select {
	case <-r.k.done:
		r.linger.Wait()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end implements running.
func (r *responder) end() {
	<-r.ready
	if r.k == nil {
		return // Respond has failed
	}
	r.k.stop()
	r.linger.Wait()
}
