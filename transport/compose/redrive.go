package compose

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// RedriveOptions are the options of [Redrive]. The zero value, and nil, mean the defaults.
type RedriveOptions struct {
	// Idle is how long to wait for one more dead letter. 0 means 1 s.
	Idle time.Duration
	// Max is how many to redrive at most. 0 means 65536.
	Max int
	// Subscribe is how to subscribe to the dead letters. The default is Group("redrive") and From(Oldest): all that the
	// history has, each once, however often Redrive runs. Where a group cannot start in the past that is refused; then
	// name the group that has collected them, which is Group("redrive") with amqpx. What works everywhere is a group of
	// your own that subscribes, and may close, before the first dead letter. Without a group a dead letter is redriven
	// again by the next run.
	Subscribe []transport.SubscribeOption
}

// Redrive publishes dead letters back to the topics that they came from, with the same ID and Body and their Header
// without dead-letter-topic, -attempts, -code and -reason, and acknowledges each when that has succeeded. All
// subscribers of the topic get them, not only the group that had given them up.
//
// It returns how many it has redriven, when none came for Idle or Max is reached; when ctx ends, with ctx's error; and
// when the subscription or publishing fails, with that error. A message without a legal dead-letter-topic, and one that was
// redriven by this run and has come back, stays where it is: the error is then CodeFailedPrecondition and says how
// many there are. They count against the subscription's Buffer.
//
// Handlers behind middleware.Dedup need its SuccessesOnly, or the outcome that it remembers answers what is redriven.
func Redrive(ctx context.Context, from transport.Subscriber, to transport.Publisher, deadLetterTopic string, o *RedriveOptions) (
	n int, err error) {
	r := redrive{to: to, seen: map[string]bool{}}
	if o != nil {
		r.RedriveOptions = *o
	}
	if r.Idle <= 0 {
		r.Idle = time.Second
	}
	if r.Max <= 0 {
		r.Max = 1 << 16
	}
	byDefault := r.Subscribe == nil
	if byDefault {
		r.Subscribe = []transport.SubscribeOption{transport.Group("redrive"), transport.From(transport.Oldest)}
	}
	sub, err := from.Subscribe(ctx, deadLetterTopic, r.Subscribe...)
	if byDefault && transport.CodeOf(err) == transport.CodeUnimplemented {
		err = transport.Wrap(err, transport.CodeUnimplemented,
			"the dead letters of %q cannot be read from the oldest on: name the group that collects them", deadLetterTopic)
	}
	if err != nil {
		return 0, err
	}
	err = r.run(ctx, sub)
	closing := []error{sub.Close()} // before giving back, or they would come here again
	for _, d := range r.left {
		closing = append(closing, d.Nack(transport.CodeCanceled))
	}
	if err == nil {
		err = errors.Join(closing...)
	}
	if err == nil && len(r.left) > 0 {
		err = transport.Errorf(transport.CodeFailedPrecondition, "%d messages cannot be redriven and were left", len(r.left))
	}
	return len(r.seen), err
}

type redrive struct {
	RedriveOptions
	to   transport.Publisher
	seen map[string]bool       // topic and ID of what was redriven
	left []*transport.Delivery // what stays
}

// run redrives until there is no more.
func (r *redrive) run(ctx context.Context, sub transport.Subscription) error {
	for len(r.seen) < r.Max {
		d, err := r.next(ctx, sub)
		if d == nil {
			return err
		}
		if err := r.one(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// next returns the next dead letter; nil without an error if none came for Idle.
func (r *redrive) next(ctx context.Context, sub transport.Subscription) (*transport.Delivery, error) {
	idle, cancel := context.WithTimeout(ctx, r.Idle)
	defer cancel()
	d, err := sub.Next(idle)
	switch {
	case err == nil:
		return d, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case idle.Err() != nil:
		return nil, nil
	}
	return nil, err
}

// one redrives d, or leaves it.
func (r *redrive) one(ctx context.Context, d *transport.Delivery) error {
	topic := d.Header.Get(transport.HeaderDeadLetterTopic)
	key := topic + "\x00" + d.ID
	if transport.CheckTopic(topic) != nil || r.seen[key] {
		r.left = append(r.left, d)
		return nil
	}
	m := *d.Message
	m.Topic = topic
	m.Header = maps.Clone(d.Header)
	for _, k := range [...]string{transport.HeaderDeadLetterTopic, transport.HeaderDeadLetterAttempts,
		transport.HeaderDeadLetterCode, transport.HeaderDeadLetterReason} {
		delete(m.Header, k)
	}
	if err := r.to.Publish(ctx, &m); err != nil {
		return errors.Join(err, d.Nack(transport.CodeCanceled))
	}
	r.seen[key] = true
	return d.Ack()
}
