package transport

import "context"

// A Publisher sends events. Safe for concurrent use.
type Publisher interface {
	// Publish sends m to everyone who subscribes to m.Topic. Nil means that the next hop is responsible for m; with
	// nobody listening it is nil as well. m is read-only from then on; an ID that is missing is assigned to the copy
	// that travels. An error whose Reason is OUTCOME_UNKNOWN means that m may have been taken.
	Publish(ctx context.Context, m *Message) error
}

// A Caller sends requests and waits for the answer. Safe for concurrent use.
type Caller interface {
	// Call sends m to one responder of m.Topic and returns its reply, which is non-nil if and only if err is nil.
	// Without a responder it fails at once with CodeUnavailable, or CodeUnimplemented where it is known that the
	// operation does not exist. When ctx ends Call returns its error, and the responder's context ends where the
	// protocol can tell it.
	Call(ctx context.Context, m *Message) (*Message, error)
}

// A Subscriber receives events. Safe for concurrent use.
type Subscriber interface {
	// Subscribe returns once the subscription is active: what is published from then on is seen. ctx bounds the call
	// only, not the life of the Subscription. See [SubscribeOptions] for what can be demanded.
	Subscribe(ctx context.Context, topic string, opts ...SubscribeOption) (Subscription, error)
}

// A Responder receives requests. Safe for concurrent use.
type Responder interface {
	// Respond is Subscribe for calls: each call goes to one responder, and settling its Delivery replies.
	// Of the options Buffer alone has a meaning; all others are refused.
	Respond(ctx context.Context, topic string, opts ...SubscribeOption) (Subscription, error)
}

// An Opener starts streams. Safe for concurrent use.
type Opener interface {
	// Open starts a stream with one acceptor of topic. ctx lives as long as the stream: when it ends, so does the
	// stream, on both sides. h is read-only from then on.
	Open(ctx context.Context, topic string, h Header) (Stream, error)
}

// An Acceptor takes streams. Safe for concurrent use.
type Acceptor interface {
	// Accept returns once streams for topic are taken. ctx bounds the call only.
	Accept(ctx context.Context, topic string) (Listener, error)
}

// Transport is all six verbs. Ask for less wherever less will do.
type Transport interface {
	Publisher
	Subscriber
	Caller
	Responder
	Opener
	Acceptor
}

// A Subscription hands out deliveries, one call at a time: it is pulled. To be pushed to, give it to [Serve].
// Safe for concurrent use.
type Subscription interface {
	// Next waits for the next delivery. It returns ctx's own error when ctx ends, and can be called again; io.EOF
	// after an orderly end, which includes Close; any other error is terminal, and every later call returns it too.
	// While Buffer deliveries are out unsettled it waits for one to be settled.
	Next(ctx context.Context) (*Delivery, error)
	// Cursor is the low-water mark, for [From]: every message up to it is settled. At first it is where the
	// subscription started. It is "" where there is no history, and in a group.
	Cursor() string
	// Close stops the flow, so that every Next returns io.EOF, and gives back what was not handed out. Deliveries that
	// are out can still be settled; Close does not wait for them. Closing twice is safe.
	Close() error
}

// Parts are verbs to be joined. Any may be nil.
type Parts struct {
	Publisher  Publisher
	Subscriber Subscriber
	Caller     Caller
	Responder  Responder
	Opener     Opener
	Acceptor   Acceptor
}

// Join makes one Transport of parts. A verb whose part is nil answers CodeUnimplemented.
//
//	t := transport.Join(transport.Parts{Publisher: rest, Caller: rest, Subscriber: sse})
func Join(p Parts) Transport { return &joined{p} }

type joined struct{ p Parts }

func missing(verb string) error {
	return Errorf(CodeUnimplemented, "this transport does not %s", verb)
}

func (j *joined) Publish(ctx context.Context, m *Message) error {
	if j.p.Publisher == nil {
		return missing("publish")
	}
	return j.p.Publisher.Publish(ctx, m)
}

func (j *joined) PublishAll(ctx context.Context, ms ...*Message) []error {
	if j.p.Publisher == nil {
		return sameError(len(ms), missing("publish"))
	}
	return PublishAll(ctx, j.p.Publisher, ms...)
}

func (j *joined) Subscribe(ctx context.Context, topic string, opts ...SubscribeOption) (Subscription, error) {
	if j.p.Subscriber == nil {
		return nil, missing("subscribe")
	}
	return j.p.Subscriber.Subscribe(ctx, topic, opts...)
}

func (j *joined) Call(ctx context.Context, m *Message) (*Message, error) {
	if j.p.Caller == nil {
		return nil, missing("call")
	}
	return j.p.Caller.Call(ctx, m)
}

func (j *joined) Respond(ctx context.Context, topic string, opts ...SubscribeOption) (Subscription, error) {
	if j.p.Responder == nil {
		return nil, missing("respond")
	}
	return j.p.Responder.Respond(ctx, topic, opts...)
}

func (j *joined) Open(ctx context.Context, topic string, h Header) (Stream, error) {
	if j.p.Opener == nil {
		return nil, missing("open streams")
	}
	return j.p.Opener.Open(ctx, topic, h)
}

func (j *joined) Accept(ctx context.Context, topic string) (Listener, error) {
	if j.p.Acceptor == nil {
		return nil, missing("accept streams")
	}
	return j.p.Acceptor.Accept(ctx, topic)
}

// Health asks each part that has a Health method.
func (j *joined) Health(ctx context.Context) error {
	for _, part := range []any{j.p.Publisher, j.p.Subscriber, j.p.Caller, j.p.Responder, j.p.Opener, j.p.Acceptor} {
		if err := health(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// health asks t, if it has a Health method, as clients and servers that know their state have.
func health(ctx context.Context, t any) error {
	if h, ok := t.(interface{ Health(context.Context) error }); ok {
		return h.Health(ctx)
	}
	return nil
}

// A BatchPublisher has a fast path for many messages. See [PublishAll].
type BatchPublisher interface {
	PublishAll(ctx context.Context, ms ...*Message) []error
}

// A BatchSubscription has a fast path for many deliveries. See [NextAll].
type BatchSubscription interface {
	NextAll(ctx context.Context, dst []*Delivery) (int, error)
}

// A ReusingSubscription can hand out a delivery in one that was handed out before. [Serve] does so: nobody else has seen
// its deliveries, so that once settled they are free.
type ReusingSubscription interface {
	// NextInto is Next with the delivery in d, which is new or settled. After an error d is as it was.
	NextInto(ctx context.Context, d *Delivery) error
}

// PublishAll publishes ms in order. The result always has len(ms) entries: nil means that this message was accepted.
// Where p is a [BatchPublisher] it does so in one go, else one by one, each waiting for the one before.
func PublishAll(ctx context.Context, p Publisher, ms ...*Message) []error {
	if b, ok := p.(BatchPublisher); ok {
		return b.PublishAll(ctx, ms...)
	}
	errs := make([]error, len(ms))
	for i, m := range ms {
		errs[i] = p.Publish(ctx, m)
	}
	return errs
}

// NextAll waits for one delivery, then takes as many more as are ready, up to len(dst). It returns how many it put
// into dst; err is as in [Subscription].Next and non-nil only if n is 0. An empty dst is CodeInvalidArgument.
func NextAll(ctx context.Context, s Subscription, dst []*Delivery) (n int, err error) {
	if len(dst) == 0 {
		return 0, Errorf(CodeInvalidArgument, "NextAll needs room for a delivery")
	}
	if b, ok := s.(BatchSubscription); ok {
		return b.NextAll(ctx, dst)
	}
	// Without a fast path nothing tells what is ready, and to wait for a second one would hold up the first.
	if dst[0], err = s.Next(ctx); err != nil {
		return 0, err
	}
	return 1, nil
}

func sameError(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}
