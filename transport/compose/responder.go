package compose

import (
	"context"
	"errors"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// ResponderOptions are the options of [NewResponder]. The zero value, and nil, mean the defaults.
type ResponderOptions struct {
	// Group is the group that shares the requests of a topic. All responders of an operation must have the same. The
	// default is "responders".
	Group string
	// Timeout bounds the publishing of one reply. 0 means 10 s.
	Timeout time.Duration
	// MaxBytes is the largest reply, as [transport.Message.Size] counts, the envelope aside. 0 means 1 MiB.
	MaxBytes int
}

// NewResponder returns a Responder over events: it takes requests from s, which must offer groups, and publishes
// replies to p.
//
// Respond joins a group of the topic, so each request goes to one responder, and requests that nobody has taken wait
// in the group. Every event on the topic is a request: one without reply-to is handed on as a call whose reply is
// dropped, and one whose deadline has passed is dropped unseen. What is no legal request is answered with
// CodeInvalidArgument and not handed on.
//
// Settling a delivery publishes the reply, then acknowledges the request. A reply that is too large or otherwise
// cannot be sent is replaced by CodeInternal, an error by its bare Code, and Settle returns why. If nothing can be
// published the request is given back, so that it comes again, to any responder, and Settle returns CodeUnavailable.
// Context has the request's deadline; nothing else tells that the caller is gone.
func NewResponder(s transport.Subscriber, p transport.Publisher, o *ResponderOptions) transport.Responder {
	r := &responder{s: s, p: p}
	if o != nil {
		r.o = *o
	}
	if r.o.Group == "" {
		r.o.Group = "responders"
	}
	if r.o.Timeout <= 0 {
		r.o.Timeout = 10 * time.Second
	}
	return r
}

type responder struct {
	o ResponderOptions
	s transport.Subscriber
	p transport.Publisher
}

func (r *responder) Respond(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	o, err := transport.ResolveRespond(opts...)
	if err != nil {
		return nil, err
	}
	sub, err := r.s.Subscribe(ctx, topic, transport.Group(r.o.Group), transport.Buffer(o.Buffer))
	if err != nil {
		return nil, err
	}
	return &requests{sub, r}, nil
}

// requests is a subscription to requests. Close and what it waits for are the group's.
type requests struct {
	transport.Subscription
	r *responder
}

// Next returns the next call.
func (s *requests) Next(ctx context.Context) (*transport.Delivery, error) {
	for {
		d, err := s.Subscription.Next(ctx)
		if err != nil {
			return nil, err
		}
		c, m, err := s.r.accept(d)
		switch {
		case err != nil && c.replyTo == "":
			d.Nack(err)
		case err != nil:
			c.Settle(0, nil, err) // if the caller cannot be told, its deadline will
		case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
			d.Ack() // if that fails it comes again, and is dropped again
		default:
			return transport.NewDelivery(c, 0, m, d.Attempt, d.Missed), nil
		}
	}
}

// accept makes a call of an event.
func (r *responder) accept(d *transport.Delivery) (*request, *transport.Message, error) {
	c := &request{r: r, d: d}
	to := d.Header.Get(transport.HeaderReplyTo)
	if to != "" {
		if err := transport.CheckTopic(to); err != nil {
			return c, nil, err
		}
		c.replyTo = to
		if c.correlation = d.Header.Get(transport.HeaderCorrelationID); c.correlation == "" {
			c.correlation = d.ID
		}
	}
	var err error
	if c.deadline, err = d.Header.Deadline(); err != nil || to == "" {
		return c, d.Message, err
	}
	m := &transport.Message{ID: d.ID, Topic: d.Topic}
	m.Header, m.Body, err = unpack(d.Message, envelopeOfRequest)
	return c, m, err
}

// A request is the [transport.Source] of one call's delivery.
type request struct {
	r           *responder
	d           *transport.Delivery // the event
	replyTo     string              // "": the reply is dropped
	correlation string
	deadline    time.Time // zero: none
}

// Settle publishes the reply and then acknowledges the request.
func (c *request) Settle(_ uint64, reply *transport.Message, err error) error {
	if c.replyTo == "" {
		return c.d.Ack()
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.r.o.Timeout)
	defer cancel()
	failed := c.publish(ctx, reply, err)
	if failed != nil && hopeless(failed) && c.publish(ctx, nil, substitute(err)) == nil {
		return errors.Join(failed, c.d.Ack()) // the caller does not wait for nothing
	}
	if failed != nil {
		// Whatever it was, it is not about the request: that must not be refused for good.
		again := transport.Wrap(failed, transport.CodeUnavailable, "the reply cannot be published")
		return errors.Join(again, c.d.Nack(again))
	}
	return c.d.Ack()
}

// publish sends the reply, or the error.
func (c *request) publish(ctx context.Context, reply *transport.Message, err error) error {
	m := &transport.Message{Topic: c.replyTo, Header: transport.Header{transport.HeaderCorrelationID: {c.correlation}}}
	switch {
	case err != nil:
		if err := packError(m, transport.Public(err)); err != nil {
			return err
		}
	case reply != nil:
		if err := reply.Check(c.r.o.MaxBytes); err != nil {
			return err
		}
		m.ID = reply.ID
		pack(m, reply.Header, reply.Body, hiddenInReply)
	}
	return c.r.p.Publish(ctx, m)
}

// hopeless reports whether publishing the same again would fail again. CodeResourceExhausted is that of a message that
// is too large.
func hopeless(err error) bool {
	return !transport.Retryable(err) || transport.CodeOf(err) == transport.CodeResourceExhausted
}

// substitute is what the caller is told when the real answer cannot be sent.
func substitute(err error) error {
	if err != nil {
		return transport.CodeOf(err)
	}
	return transport.Errorf(transport.CodeInternal, "the reply cannot be sent")
}

// Cursor is "": calls have no history.
func (c *request) Cursor(uint64, *transport.Message) string { return "" }

// Context adds the request's deadline.
func (c *request) Context(_ uint64, parent context.Context) (context.Context, context.CancelFunc) {
	if c.deadline.IsZero() {
		return context.WithCancel(parent) // not parent itself: that is the mark of an event
	}
	return context.WithDeadline(parent, c.deadline)
}
