package amqpx

import (
	"context"
	"errors"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/intermodal-go/intermodal/transport"
)

// A level is a queue that holds messages for one length of time, and a fanout exchange in front of it. What has waited
// is dead-lettered by the broker, which keeps the routing key: to the topic exchange, or straight to the queue that the
// key names. A queue for each length, because a queue lets go from its head only: with a time per message a long wait
// would hold up a short one. Lengths are rounded up, so that there are few levels.
//
// A quorum queue with at-least-once dead lettering loses nothing on the way. But declaring it again does not renew its
// x-expires, so a level lives for a fixed time: its name has the day on which it may be filled, and it expires when the
// last message that can be in it is long gone.
const (
	levelDelay = "delay" // to the topic exchange
	levelRetry = "retry" // to a queue

	// levelLife is how long a level lives beyond its delay: the day of its name, and one for clocks that differ and for
	// what cannot be handed on at once.
	levelLife = 48 * time.Hour
	// maxDelay is the longest delay: with levelLife, what the broker takes for x-expires.
	maxDelay = 30 * 24 * time.Hour
)

// delayed readies out to arrive at its topic after delay: it declares the level and changes out's exchange. Its ttl
// begins then, counted from when it is written: that may take a while. The delay is at most 30 days, and may be longer by
// a tenth.
func (t *topology) delayed(ctx context.Context, out *outgoing, delay time.Duration) error {
	if delay > maxDelay {
		return transport.Errorf(transport.CodeUnimplemented, "a delay of more than 30 days")
	}
	delay = roundUp(delay, 2)
	level, err := t.level(ctx, levelDelay, delay)
	if err != nil {
		return err
	}
	out.exchange = level
	if out.msg.Headers[ownTime] != nil {
		out.delay = delay
	}
	delete(out.msg.Headers, transport.HeaderDelay) // it will be served by then: a bridge must not do it again
	return nil
}

// retried readies out to arrive at the queue after wait.
func (t *topology) retried(ctx context.Context, out *outgoing, queue string, wait time.Duration) error {
	level, err := t.level(ctx, levelRetry, min(wait, maxDelay))
	if err != nil {
		return err
	}
	out.exchange, out.key, out.mandatory = level, queue, true
	return nil
}

// level makes sure that there is a level of this kind and length for today and returns the name of its exchange, which
// is also that of its queue. It waits for a connection like a publish does, and its errors are like those of one.
func (t *topology) level(ctx context.Context, kind string, wait time.Duration) (string, error) {
	ms := wait.Milliseconds()
	name := t.name(kind, strconv.FormatInt(ms, 10), time.Now().UTC().Format("20060102"))
	if gen, _ := t.c.publish.state(); t.declared(name, gen) {
		return name, nil
	}
	ctx, cancel := context.WithTimeout(ctx, t.c.o.ConfirmTimeout)
	defer cancel()
	select {
	case t.declaring <- struct{}{}:
		defer func() { <-t.declaring }()
	case <-ctx.Done():
		return "", notSent(ctx.Err())
	}
	args := amqp.Table{
		amqp.QueueTypeArg:        amqp.QueueTypeQuorum,
		amqp.QueueMessageTTLArg:  ms,
		amqp.QueueTTLArg:         (wait + levelLife).Milliseconds(),
		"x-dead-letter-exchange": "",
		"x-dead-letter-strategy": "at-least-once",
		"x-overflow":             "reject-publish",
	}
	if kind == levelDelay {
		args["x-dead-letter-exchange"] = t.exchange()
	}
	for attempt := 1; ; attempt++ {
		gen, _ := t.c.publish.state()
		if t.declared(name, gen) { // by who declared before
			return name, nil
		}
		err := t.c.publish.once(ctx, func(ch *amqp.Channel) error {
			if _, err := ch.QueueDeclare(name, true, false, false, false, args); err != nil {
				return err
			}
			if err := ch.ExchangeDeclare(name, "fanout", true, true, false, false, nil); err != nil {
				return err
			}
			return ch.QueueBind(name, "", name, false, nil)
		})
		if err == nil {
			t.note(name, gen)
			return name, nil
		}
		if t.c.ctx.Err() != nil || permanent(err) {
			return "", err
		}
		if end := sleep(ctx, again.Delay(attempt)); end != nil {
			return "", notSent(errors.Join(end, err))
		}
	}
}

// roundUp rounds d up to a whole number of milliseconds with so many significant digits, at least 1 ms.
func roundUp(d time.Duration, digits int) time.Duration {
	limit := time.Duration(1)
	for range digits {
		limit *= 10
	}
	unit := time.Millisecond
	for d > limit*unit {
		unit *= 10
	}
	return max((d + unit - 1).Truncate(unit), unit)
}
