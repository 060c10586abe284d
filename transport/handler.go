package transport

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
)

// A Handler handles one message. For a call the reply goes back, where nil means an empty one; for an event it is
// dropped. An error refuses the message: see [Code] and [Retryable]. A Handler must be safe for concurrent use.
//
// A Caller's Call has the shape of a Handler, so clients, servers, bridges and middleware compose: serving client.Call
// is a gateway, and Handler(client.Call) can be wrapped by any [Middleware].
type Handler func(ctx context.Context, m *Message) (*Message, error)

// Call makes a Handler a [Caller]. A nil reply becomes an empty Message.
func (h Handler) Call(ctx context.Context, m *Message) (*Message, error) {
	r, err := h(ctx, m)
	if err != nil {
		return nil, err
	}
	if r == nil {
		r = &Message{}
	}
	return r, nil
}

// Publish makes a Handler a [Publisher]. The reply is dropped.
func (h Handler) Publish(ctx context.Context, m *Message) error {
	_, err := h(ctx, m)
	return err
}

// NoReply makes a Handler of a function that has no reply. NoReply(p.Publish) forwards to a Publisher.
func NoReply(f func(context.Context, *Message) error) Handler {
	return func(ctx context.Context, m *Message) (*Message, error) { return nil, f(ctx, m) }
}

// A Mux is a [Caller] and a [Publisher] that routes by topic. A topic that it lacks is CodeUnimplemented for calls and
// CodeNotFound for events. It must not be changed while in use.
type Mux map[string]Handler

// Call hands m to the handler of its topic.
func (x Mux) Call(ctx context.Context, m *Message) (*Message, error) {
	if m == nil {
		return nil, m.Check(0)
	}
	h := x[m.Topic]
	if h == nil {
		return nil, Errorf(CodeUnimplemented, "there is no operation %q", m.Topic)
	}
	return h.Call(ctx, m)
}

// Publish hands m to the handler of its topic.
func (x Mux) Publish(ctx context.Context, m *Message) error {
	if m == nil {
		return m.Check(0)
	}
	h := x[m.Topic]
	if h == nil {
		return Errorf(CodeNotFound, "there is no topic %q", m.Topic)
	}
	return h.Publish(ctx, m)
}

// Middleware wraps a Handler. Package middleware has the common ones.
type Middleware func(Handler) Handler

// Chain makes one Middleware of many; the first is the outermost.
func Chain(mw ...Middleware) Middleware {
	return func(h Handler) Handler {
		for i := len(mw) - 1; i >= 0; i-- {
			h = mw[i](h)
		}
		return h
	}
}

// invoke runs h; a panic becomes CodeInternal with the panic and its stack as private cause.
func invoke(ctx context.Context, h Handler, m *Message) (reply *Message, err error) {
	defer func() {
		if v := recover(); v != nil {
			reply, err = nil, Panicked(v)
		}
	}()
	return h(ctx, m)
}

// ErrPanic is in the tree of the error that stands for a panic of a handler.
var ErrPanic = errors.New("panic")

// Panicked returns the CodeInternal error that stands for the recovered value v. Its private cause matches
// [ErrPanic] and shows v and the stack. Call it in the deferred function that recovered.
func Panicked(v any) error {
	cause, ok := v.(error)
	if !ok {
		cause = fmt.Errorf("%v", v)
	}
	return &Error{Code: CodeInternal, Cause: fmt.Errorf("%w: %w\n%s", ErrPanic, cause, debug.Stack())}
}
