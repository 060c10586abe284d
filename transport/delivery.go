package transport

import (
	"context"
	"sync/atomic"
)

// A Delivery is a message that a subscription handed out, until it is settled. It must not be copied.
//
// Settling a call replies to it. Settling an event acknowledges it, asks for it again or refuses it: for a group that
// travels to the side that owns the group, else it is local. See [Delivery.Settle].
type Delivery struct {
	*Message
	// Attempt is 1 for the first delivery of the message and grows with each redelivery; 0 if unknown.
	Attempt int
	// Missed is how many messages were dropped right before this one. Only Overflow(DropOldest) drops.
	Missed uint64

	source  Source
	token   uint64
	settled atomic.Bool
}

// A Source is where deliveries come from, for implementers of transports: usually a second type over the Subscription.
// token is the one that was given to [NewDelivery]. Safe for concurrent use.
type Source interface {
	// Settle is called at most once per delivery. It must apply the rules of Delivery.Settle.
	Settle(token uint64, reply *Message, err error) error
	// Cursor builds Delivery.Cursor.
	Cursor(token uint64, m *Message) string
	// Context builds Delivery.Context. For an event it returns parent itself and a function that does nothing; for a
	// call it returns another context each time: that is how Serve tells them apart.
	Context(token uint64, parent context.Context) (context.Context, context.CancelFunc)
}

// NewDelivery is for implementers of transports. It is one allocation, the Delivery.
func NewDelivery(s Source, token uint64, m *Message, attempt int, missed uint64) *Delivery {
	d := new(Delivery)
	d.Init(s, token, m, attempt, missed)
	return d
}

// Init is NewDelivery for implementers that have the Delivery already: within what they allocate for the message anyway,
// or from a [ReusingSubscription]'s NextInto.
func (d *Delivery) Init(s Source, token uint64, m *Message, attempt int, missed uint64) {
	d.Message, d.Attempt, d.Missed, d.source, d.token = m, attempt, missed, s, token
	d.settled = atomic.Bool{} // nobody else has d yet, and a store in order would cost
}

// Context returns parent with what came with a call: its deadline, its cancellation and the [Peer]. For an event it is
// parent itself. Call cancel when the handler is done. It may be asked for more than once.
func (d *Delivery) Context(parent context.Context) (ctx context.Context, cancel context.CancelFunc) {
	return d.source.Context(d.token, parent)
}

// Cursor is the position just after this message, for [From]. It is "" where there is no history. It is built when
// asked for.
func (d *Delivery) Cursor() string { return d.source.Cursor(d.token, d.Message) }

// Settle ends the delivery. The first call counts, later ones do nothing and return nil. For a call it sends the
// reply (nil: an empty one) or the error, always, and there is no redelivery. For an event:
//
//   - nil acknowledges it;
//   - a [Retryable] error asks for it again, with Attempt + 1, after the error's RetryAfter or else an exponential
//     backoff with jitter; after MaxAttempts it counts as refused;
//   - CodeCanceled gives it back at once, and the attempt does not count;
//   - any other error refuses it for good: it goes to the group's dead letters, or is dropped and reported.
//
// The result is the transport's answer: an error means that settling may not have taken effect, so that an event may
// be delivered again.
func (d *Delivery) Settle(reply *Message, err error) error {
	if !d.settled.CompareAndSwap(false, true) {
		return nil
	}
	return d.source.Settle(d.token, reply, err)
}

// Ack is Settle(nil, nil).
func (d *Delivery) Ack() error { return d.Settle(nil, nil) }

// Nack is Settle(nil, err). A nil err is CodeUnknown: a Nack never acknowledges.
func (d *Delivery) Nack(err error) error {
	if err == nil {
		err = CodeUnknown
	}
	return d.Settle(nil, err)
}
