package transport

import (
	"context"
	"errors"
	"strings"
)

// An Op is one of the six verbs.
type Op uint8

const (
	OpPublish Op = iota + 1
	OpSubscribe
	OpCall
	OpRespond
	OpOpen
	OpAccept
)

var opNames = [...]string{"none", "publish", "subscribe", "call", "respond", "open", "accept"}

// String returns the lower-case verb.
func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return "unknown"
}

// Access is what somebody wants to do.
type Access struct {
	Op      Op
	Topic   string
	Header  Header           // of the message or the stream; read-only
	Options SubscribeOptions // of Subscribe and Respond
}

// Guard returns t behind allow, which is asked before every operation. It is the one place for authorisation: give a
// server a guarded transport. allow gets the operation's context, in which [PeerFrom] finds who asks. Nil allows;
// an error refuses, as CodePermissionDenied unless it has a Code.
//
// Two options name a second topic. Guard asks OpPublish for a DeadLetter topic, and for a reply-to header that is not
// under "_reply.".
func Guard(t Transport, allow func(ctx context.Context, a Access) error) Transport {
	return &guard{t, allow}
}

type guard struct {
	t     Transport
	allow func(context.Context, Access) error
}

func (g *guard) ask(ctx context.Context, a Access) error {
	err := g.allow(ctx, a)
	if err != nil && CodeOf(err) == CodeUnknown && !errors.Is(err, CodeUnknown) {
		err = Wrap(err, CodePermissionDenied, "%s %q is not allowed", a.Op, a.Topic)
	}
	return err
}

func (g *guard) message(ctx context.Context, op Op, m *Message) error {
	if m == nil {
		return m.Check(0)
	}
	if err := g.ask(ctx, Access{Op: op, Topic: m.Topic, Header: m.Header}); err != nil {
		return err
	}
	if to := m.Header.Get(HeaderReplyTo); to != "" && !strings.HasPrefix(to, "_reply.") {
		return g.ask(ctx, Access{Op: OpPublish, Topic: to, Header: m.Header})
	}
	return nil
}

func (g *guard) Publish(ctx context.Context, m *Message) error {
	if err := g.message(ctx, OpPublish, m); err != nil {
		return err
	}
	return g.t.Publish(ctx, m)
}

// PublishAll sends those that are allowed in one go.
func (g *guard) PublishAll(ctx context.Context, ms ...*Message) []error {
	errs := make([]error, len(ms))
	allowed := make([]*Message, 0, len(ms))
	at := make([]int, 0, len(ms))
	for i, m := range ms {
		if errs[i] = g.message(ctx, OpPublish, m); errs[i] == nil {
			allowed, at = append(allowed, m), append(at, i)
		}
	}
	for i, err := range PublishAll(ctx, g.t, allowed...) {
		errs[at[i]] = err
	}
	return errs
}

func (g *guard) Call(ctx context.Context, m *Message) (*Message, error) {
	if err := g.message(ctx, OpCall, m); err != nil {
		return nil, err
	}
	return g.t.Call(ctx, m)
}

func (g *guard) options(ctx context.Context, op Op, topic string, opts []SubscribeOption) error {
	o, err := Resolve(^Feature(0), opts...)
	if err != nil {
		return err
	}
	if err := g.ask(ctx, Access{Op: op, Topic: topic, Options: o}); err != nil {
		return err
	}
	if o.DeadLetter != "" {
		return g.ask(ctx, Access{Op: OpPublish, Topic: o.DeadLetter})
	}
	return nil
}

func (g *guard) Subscribe(ctx context.Context, topic string, opts ...SubscribeOption) (Subscription, error) {
	if err := g.options(ctx, OpSubscribe, topic, opts); err != nil {
		return nil, err
	}
	return g.t.Subscribe(ctx, topic, opts...)
}

func (g *guard) Respond(ctx context.Context, topic string, opts ...SubscribeOption) (Subscription, error) {
	if err := g.options(ctx, OpRespond, topic, opts); err != nil {
		return nil, err
	}
	return g.t.Respond(ctx, topic, opts...)
}

func (g *guard) Open(ctx context.Context, topic string, h Header) (Stream, error) {
	if err := g.ask(ctx, Access{Op: OpOpen, Topic: topic, Header: h}); err != nil {
		return nil, err
	}
	return g.t.Open(ctx, topic, h)
}

func (g *guard) Accept(ctx context.Context, topic string) (Listener, error) {
	if err := g.ask(ctx, Access{Op: OpAccept, Topic: topic}); err != nil {
		return nil, err
	}
	return g.t.Accept(ctx, topic)
}

// Health asks t.
func (g *guard) Health(ctx context.Context) error { return health(ctx, g.t) }
