package transport

import (
	"context"
	"io"
	"iter"
	"maps"
)

// An Operation is the contract of a call: declared once, imported by both sides.
//
//	var Place = transport.Operation[Order, Receipt]{Topic: "shop.orders.place"}
//
// The first codec encodes what is sent; a receiver picks by content-type and answers in kind. No codecs means [JSON].
type Operation[In, Out any] struct {
	Topic  string
	Codecs []Codec
}

// Call sends in and returns the decoded reply. A reply that cannot be decoded is CodeInternal.
func (o Operation[In, Out]) Call(ctx context.Context, c Caller, in In) (out Out, err error) {
	m, err := o.Message(in)
	if err != nil {
		return out, err
	}
	r, err := c.Call(ctx, m)
	if err != nil {
		return out, err
	}
	return o.Reply(r)
}

// Message returns the request for in, with an ID and a non-nil Header, for those who want to add to it before they
// call.
func (o Operation[In, Out]) Message(in In) (*Message, error) {
	return encode(codecs(o.Codecs).first(), o.Topic, in)
}

// Reply decodes a reply.
func (o Operation[In, Out]) Reply(m *Message) (out Out, err error) {
	if _, err = codecs(o.Codecs).decode(m, &out); err != nil {
		return out, Wrap(err, CodeInternal, "the reply of %q cannot be decoded", o.Topic)
	}
	return out, nil
}

// Handler makes a Handler of f. A body that cannot be decoded is CodeInvalidArgument, with a text that says what is
// wrong, and f does not see it. An error that f got from a peer and returns as it is becomes CodeInternal, since it is
// not about f's own message: wrap it with [Wrap] to pass on another Code. f finds the message with [MessageFrom] and
// adds to the reply's header with [ReplyHeader].
func (o Operation[In, Out]) Handler(f func(context.Context, In) (Out, error)) Handler {
	if f == nil {
		return nil
	}
	cs := codecs(o.Codecs)
	return func(ctx context.Context, m *Message) (*Message, error) {
		var in In
		c, err := cs.decode(m, &in)
		if err != nil {
			return nil, err
		}
		t := &typedCall{Context: ctx, m: m}
		out, err := f(t, in)
		if err != nil {
			return nil, ownError(err)
		}
		body, err := c.Marshal(out)
		if err != nil {
			return nil, Wrap(err, CodeInternal, "the reply cannot be encoded")
		}
		h := t.reply
		if h == nil {
			h = make(Header, 1)
		}
		if h.Get(HeaderContentType) == "" {
			h[HeaderContentType] = []string{c.ContentType()}
		}
		return &Message{Header: h, Body: body}, nil
	}
}

// Bind is [BindCalls] for f.
func (o Operation[In, Out]) Bind(f func(context.Context, In) (Out, error), opts ...Option) Binding {
	return BindCalls(o.Topic, o.Handler(f), opts...)
}

// An Event is the contract of an event. See [Operation] for the codecs.
type Event[T any] struct {
	Topic  string
	Codecs []Codec
}

// Publish sends v.
func (e Event[T]) Publish(ctx context.Context, p Publisher, v T) error {
	m, err := e.Message(v)
	if err != nil {
		return err
	}
	return p.Publish(ctx, m)
}

// Message returns the message for v, with an ID and a non-nil Header, for those who want to add to it before they
// publish.
func (e Event[T]) Message(v T) (*Message, error) {
	return encode(codecs(e.Codecs).first(), e.Topic, v)
}

// Decode returns the value in m. A body that cannot be decoded is CodeInvalidArgument.
func (e Event[T]) Decode(m *Message) (v T, err error) {
	_, err = codecs(e.Codecs).decode(m, &v)
	return v, err
}

// Handler makes a Handler of f, as [Operation.Handler] does.
func (e Event[T]) Handler(f func(context.Context, T) error) Handler {
	if f == nil {
		return nil
	}
	return func(ctx context.Context, m *Message) (*Message, error) {
		v, err := e.Decode(m)
		if err != nil {
			return nil, err
		}
		if err := f(&typedCall{Context: ctx, m: m}, v); err != nil {
			return nil, ownError(err)
		}
		return nil, nil
	}
}

// Bind is [BindEvents] for f.
func (e Event[T]) Bind(f func(context.Context, T) error, opts ...Option) Binding {
	return BindEvents(e.Topic, e.Handler(f), opts...)
}

// A Duplex is the contract of a stream: the opener sends In, the acceptor sends Out. All four modes are streams: a
// side that sends one item or none is one that does so. See [Operation] for the codecs.
type Duplex[In, Out any] struct {
	Topic  string
	Codecs []Codec
}

// Open starts a stream; the headers, if any, are merged into the stream's.
func (d Duplex[In, Out]) Open(ctx context.Context, o Opener, headers ...Header) (*DuplexStream[In, Out], error) {
	c := codecs(d.Codecs).first()
	h := Header{}
	for _, more := range headers {
		maps.Copy(h, more)
	}
	h[HeaderContentType] = []string{c.ContentType()} // last: it is what the items are written in
	s, err := o.Open(ctx, d.Topic, h)
	if err != nil {
		return nil, err
	}
	return &DuplexStream[In, Out]{s, c}, nil
}

// Handler makes a StreamHandler of f. Items are encoded as the stream's content-type says.
func (d Duplex[In, Out]) Handler(f func(context.Context, *DuplexIncoming[In, Out]) error) StreamHandler {
	if f == nil {
		return nil
	}
	return func(ctx context.Context, s Incoming) error {
		c, err := codecs(d.Codecs).find(s.Header().Get(HeaderContentType))
		if err != nil {
			return err
		}
		if err := f(ctx, &DuplexIncoming[In, Out]{s, c}); err != nil {
			return ownError(err)
		}
		return nil
	}
}

// Bind is [BindStreams] for f.
func (d Duplex[In, Out]) Bind(f func(context.Context, *DuplexIncoming[In, Out]) error, opts ...Option) Binding {
	return BindStreams(d.Topic, d.Handler(f), opts...)
}

// A DuplexStream is a [Stream] of values. What it does not redefine is the Stream's.
type DuplexStream[In, Out any] struct {
	Stream
	codec Codec
}

// Send encodes and sends v.
func (s *DuplexStream[In, Out]) Send(v In) error { return sendItem(s.Stream.Send, s.codec, v) }

// Recv returns the next value. One that cannot be decoded is CodeInternal, and the stream goes on.
func (s *DuplexStream[In, Out]) Recv() (Out, error) {
	return recvItem[Out](s.Stream.Recv, s.codec, CodeInternal)
}

// All ranges over what is left to receive. An error is the last pair; a clean end has none. Leaving the loop does not
// close the stream.
func (s *DuplexStream[In, Out]) All() iter.Seq2[Out, error] { return items(s.Recv) }

// A DuplexIncoming is an [Incoming] of values. What it does not redefine is the Incoming's.
type DuplexIncoming[In, Out any] struct {
	Incoming
	codec Codec
}

// Send encodes and sends v.
func (s *DuplexIncoming[In, Out]) Send(v Out) error { return sendItem(s.Incoming.Send, s.codec, v) }

// Recv returns the next value. One that cannot be decoded is CodeInvalidArgument, and the stream goes on.
func (s *DuplexIncoming[In, Out]) Recv() (In, error) {
	return recvItem[In](s.Incoming.Recv, s.codec, CodeInvalidArgument)
}

// All ranges over what is left to receive, as [DuplexStream.All] does.
func (s *DuplexIncoming[In, Out]) All() iter.Seq2[In, error] { return items(s.Recv) }

func sendItem(send func(*Message) error, c Codec, v any) error {
	body, err := c.Marshal(v)
	if err != nil {
		return Wrap(err, CodeInternal, "the item cannot be encoded as %s", c.ContentType())
	}
	return send(&Message{Body: body})
}

func recvItem[T any](recv func() (*Message, error), c Codec, code Code) (v T, err error) {
	m, err := recv()
	if err != nil {
		return v, err
	}
	if err := c.Unmarshal(m.Body, &v); err != nil {
		return v, Wrap(err, code, "an item is not valid %s", c.ContentType())
	}
	return v, nil
}

func items[T any](recv func() (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			v, err := recv()
			if err == io.EOF || !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// ownError keeps a peer's error from being taken for the handler's own: an expired token that a worker meets must not
// refuse its job for good.
func ownError(err error) error {
	if e := first(err); e != nil && e.Remote {
		return &Error{Code: CodeInternal, RetryAfter: e.RetryAfter, Cause: err}
	}
	return err
}

// typedCall is the context of a typed function.
type typedCall struct {
	context.Context
	m     *Message
	reply Header // made when asked for
}

type typedCallKey struct{}

func (t *typedCall) Value(key any) any {
	if key == (typedCallKey{}) {
		return t
	}
	return t.Context.Value(key)
}

// MessageFrom returns the message behind a typed function, nil elsewhere. It is read-only.
func MessageFrom(ctx context.Context) *Message {
	if t, ok := ctx.Value(typedCallKey{}).(*typedCall); ok {
		return t.m
	}
	return nil
}

// ReplyHeader returns the header that a typed function adds to its reply: status, location, etag and so on. It is
// never nil; outside a call what is set there goes nowhere. It is not safe for concurrent use.
func ReplyHeader(ctx context.Context) Header {
	t, ok := ctx.Value(typedCallKey{}).(*typedCall)
	if !ok {
		return Header{}
	}
	if t.reply == nil {
		t.reply = Header{}
	}
	return t.reply
}
