package jobs

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// HeaderFunc names the function that a job is for.
const HeaderFunc = "job-func"

// A Func is the contract of a function: its name, its arguments and its result. It is declared once and imported by who
// enqueues and by who works. The name is a topic, see [transport.CheckTopic]. Arguments and results travel as JSON.
//
//	var Thumbnail = jobs.Func[Picture, Image]{Name: "pictures.thumbnail"}
type Func[In, Out any] struct{ Name string }

// operation is the same contract as a call.
func (f Func[In, Out]) operation() transport.Operation[In, Out] {
	return transport.Operation[In, Out]{Topic: f.Name}
}

// Call calls the function and waits, without a queue: nothing is stored and nothing is retried. Who answers is a program
// that has started [Registry.Bindings]; within one process the Registry itself is a Caller.
func (f Func[In, Out]) Call(ctx context.Context, c transport.Caller, in In) (Out, error) {
	return f.operation().Call(ctx, c, in)
}

// Message returns the job as a message, ready to be published by anybody. Its ID is the job's.
func (f Func[In, Out]) Message(q Queue, in In, opts ...Option) (*transport.Message, error) {
	if err := transport.CheckTopic(f.Name); err != nil {
		return nil, err
	}
	m, err := f.operation().Message(in)
	if err != nil {
		return nil, err
	}
	m.Topic = q.Run()
	m.Header.Set(HeaderFunc, f.Name)
	for _, opt := range opts {
		opt(m.Header)
	}
	return m, nil
}

// Enqueue puts a job into the queue and forgets it; it returns the job's ID. See [Func.Submit] for a job that is followed.
// The queue must exist, see [Queue.Declare].
func (f Func[In, Out]) Enqueue(ctx context.Context, p transport.Publisher, q Queue, in In, opts ...Option) (
	id string, err error) {
	m, err := f.Message(q, in, opts...)
	if err != nil {
		return "", err
	}
	return m.ID, p.Publish(ctx, m)
}

// An Option says when or how a job is to run.
type Option func(transport.Header)

// After keeps the job back for d, at a resolution of milliseconds.
func After(d time.Duration) Option {
	return func(h transport.Header) { h.SetMillis(transport.HeaderDelay, d) }
}

// Priority is 0 to 9, the more urgent the higher. It is a hint: where the transport has no priorities it does nothing.
func Priority(n int) Option {
	return func(h transport.Header) { h.Set(transport.HeaderPriority, strconv.Itoa(min(max(n, 0), 9))) }
}

// Once runs one job of those with the same function and key; the others get its result. The same key with other
// arguments is refused with CodeFailedPrecondition. How long a key is known is up to [WorkOptions].Store.
func Once(key string) Option {
	return func(h transport.Header) { h.Set(transport.HeaderIdempotencyKey, key) }
}

// A Registry has the functions that a worker knows, by name. It is filled with [Register] before it is used and not
// changed after that. The zero value is empty.
type Registry struct {
	mux transport.Mux
	err error // the first registration that was wrong
}

// Register adds do under f's name. A name that is illegal or taken, and a nil do, are reported by [Work] and
// [Registry.Bindings], so that registrations can stand in a list.
func Register[In, Out any](r *Registry, f Func[In, Out], do func(context.Context, In) (Out, error)) {
	err := transport.CheckTopic(f.Name)
	switch {
	case r.err != nil:
		return
	case err != nil:
		r.err = err
	case do == nil:
		r.err = transport.Errorf(transport.CodeInvalidArgument, "the function %q is nil", f.Name)
	case r.mux[f.Name] != nil:
		r.err = transport.Errorf(transport.CodeAlreadyExists, "the function %q is registered twice", f.Name)
	}
	if r.err != nil {
		return
	}
	if r.mux == nil {
		r.mux = transport.Mux{}
	}
	r.mux[f.Name] = f.operation().Handler(do)
}

// Names returns the names in alphabetical order.
func (r *Registry) Names() []string {
	names := make([]string, 0, len(r.mux))
	for name := range r.mux {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Call makes the Registry a Caller: the function that m.Topic names runs here and now. A name that is not registered is
// CodeUnimplemented.
func (r *Registry) Call(ctx context.Context, m *transport.Message) (*transport.Message, error) {
	return r.mux.Call(ctx, m)
}

// Bindings offer the functions to who calls and waits, see [Func.Call]. They go to [transport.Start].
func (r *Registry) Bindings(opts ...transport.Option) ([]transport.Binding, error) {
	if r.err != nil {
		return nil, r.err
	}
	var bs []transport.Binding
	for _, name := range r.Names() {
		bs = append(bs, transport.BindCalls(name, r.Call, opts...))
	}
	return bs, nil
}
