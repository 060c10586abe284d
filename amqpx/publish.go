package amqpx

import (
	"context"
	"strings"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// Publish implements [transport.Publisher]. Nil means that the broker has taken m and, where a queue wanted it, keeps
// it safely: the publish was confirmed. It waits while there is no connection or the broker has an alarm, as long as
// ctx lives; without a deadline in ctx, for Options.ConfirmTimeout.
//
// If it was not sent, the error is CodeUnavailable with the Reason NOT_SENT. If it was sent and ctx has ended, or no
// confirm came within ConfirmTimeout, the Reason is OUTCOME_UNKNOWN. A publish that was sent when the connection was
// lost is sent again, with the same ID, before later ones. A queue that refuses m is CodeResourceExhausted: others may
// have taken it.
//
// The header delay is honoured, up to 30 days and rounded up by at most a tenth, and so is ttl; that of a delayed
// message begins with its arrival.
func (c *Client) Publish(ctx context.Context, m *transport.Message) error {
	pd, err := c.send(ctx, m, time.Now())
	if err != nil {
		return err
	}
	return pd.wait(ctx)
}

// PublishAll implements [transport.BatchPublisher]. All messages are under way, in order, before the first confirm is
// waited for.
func (c *Client) PublishAll(ctx context.Context, ms ...*transport.Message) []error {
	errs := make([]error, len(ms))
	pending := make([]*pending, len(ms))
	now := time.Now()
	for i, m := range ms {
		pending[i], errs[i] = c.send(ctx, m, now)
	}
	for i, pd := range pending {
		if errs[i] == nil {
			errs[i] = pd.wait(ctx)
		}
	}
	return errs
}

// send checks and encodes m, and starts to publish it.
func (c *Client) send(ctx context.Context, m *transport.Message, now time.Time) (*pending, error) {
	if err := m.Check(c.o.MaxBytes); err != nil {
		return nil, err
	}
	if err := transport.CheckTopic(m.Topic); err != nil {
		return nil, err
	}
	if !c.known(m.Topic) {
		return nil, transport.Errorf(transport.CodeNotFound, "there is no topic %q", m.Topic)
	}
	delay, err := m.Header.Millis(transport.HeaderDelay)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, notSent(err)
	}
	if c.closing.Load() {
		return nil, errClosed
	}
	out := &outgoing{exchange: c.topology.exchange(), key: m.Topic}
	if out.msg, err = encode(m, now.Add(delay)); err != nil {
		return nil, err
	}
	if out.msg.MessageId == "" {
		out.msg.MessageId = transport.NewID()
	}
	if delay > 0 {
		if out.msg.Expiration != "" { // or it would end the delay
			out.msg.Headers[transport.HeaderTTL], out.msg.Expiration = out.msg.Expiration, ""
		}
		if err := c.topology.delayed(ctx, out, delay); err != nil {
			return nil, err
		}
	}
	return c.pub.start(ctx, out)
}

// known reports whether the topic is one of Options.Topics, or a requester's own.
func (c *Client) known(topic string) bool {
	return c.topics == nil || c.topics[topic] || strings.HasPrefix(topic, "_reply.")
}

// Open implements [transport.Opener]: a broker has no streams between two parties. The error is CodeUnimplemented.
func (c *Client) Open(context.Context, string, transport.Header) (transport.Stream, error) {
	return nil, errStreams
}

// Accept implements [transport.Acceptor]. The error is CodeUnimplemented.
func (c *Client) Accept(context.Context, string) (transport.Listener, error) {
	return nil, errStreams
}

var errStreams = transport.Errorf(transport.CodeUnimplemented, "a broker carries no streams")
