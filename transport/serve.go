package transport

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultGrace is how long Serve lets handlers finish after its ctx has ended.
const DefaultGrace = 30 * time.Second

// A ServeOption is an option of [Serve] and [ServeStreams].
type ServeOption interface {
	Option
	serve(*serveOptions)
}

type serveOptions struct {
	workers  int // 0: the default of the function
	keyedBy  func(*Message) string
	attempts int // 0: the default
	grace    time.Duration
	onError  func(*Message, error)
	err      error // an option that makes no sense
}

type serveFunc func(*serveOptions)

func (serveFunc) option()                 {}
func (f serveFunc) serve(o *serveOptions) { f(o) }

// Workers bounds how many handlers run at once. The default is 1 for [Serve], which keeps events in order, 64 for
// [BindCalls], and 1024 for [ServeStreams]. Goroutines are started as they are needed.
func Workers(n int) ServeOption {
	return serveFunc(func(o *serveOptions) { o.workers = positive(n) })
}

// KeyedBy keeps the order among messages with the same key within one Serve, while other keys go on. A retryable
// error is then retried by Serve itself: the delivery stays unsettled and its key waits, for at most [Attempts]. A call
// is not retried. How many messages may wait is bounded by the subscription's Buffer.
func KeyedBy(key func(*Message) string) ServeOption {
	return serveFunc(func(o *serveOptions) {
		if o.keyedBy = key; key == nil {
			o.err = Errorf(CodeInvalidArgument, "KeyedBy needs a function")
		}
	})
}

// Attempts bounds the tries under [KeyedBy], after which the message is refused. The default is 10.
func Attempts(n int) ServeOption {
	return serveFunc(func(o *serveOptions) { o.attempts = positive(n) })
}

// Grace is how long handlers may go on after the end of Serve's ctx. The default is 30 s; 0 is allowed.
func Grace(d time.Duration) ServeOption {
	return serveFunc(func(o *serveOptions) { o.grace = d })
}

// OnError is told of every error that a handler returns, of panics ([ErrPanic]), of settling and closing that failed, and
// of handlers that outlive Grace. m is nil for what is about no message. f must be safe for concurrent use. Without it
// all but the errors that handlers return are logged to slog.Default, by topic and ID.
func OnError(f func(m *Message, err error)) ServeOption {
	return serveFunc(func(o *serveOptions) {
		if o.onError = f; f == nil {
			o.err = Errorf(CodeInvalidArgument, "OnError needs a function")
		}
	})
}

func resolveServe(workers int, opts []ServeOption) (serveOptions, error) {
	o := serveOptions{grace: DefaultGrace}
	for _, opt := range opts {
		if opt == nil {
			return o, Errorf(CodeInvalidArgument, "a serve option is nil")
		}
		opt.serve(&o)
	}
	switch {
	case o.err != nil:
		return o, o.err
	case o.workers < 0:
		return o, Errorf(CodeInvalidArgument, "Workers must be positive")
	case o.attempts < 0:
		return o, Errorf(CodeInvalidArgument, "Attempts must be positive")
	case o.attempts > 0 && o.keyedBy == nil:
		return o, Errorf(CodeInvalidArgument, "Attempts needs KeyedBy: else the transport counts, see MaxAttempts")
	case o.grace < 0:
		return o, Errorf(CodeInvalidArgument, "Grace must not be negative")
	}
	if o.workers == 0 {
		o.workers = workers
	}
	if o.attempts == 0 {
		o.attempts = DefaultMaxAttempts
	}
	return o, nil
}

// report tells of an error that nobody else will see.
func (o *serveOptions) report(m *Message, err error) {
	if o.onError != nil {
		o.onError(m, err)
		return
	}
	attrs := []any{slog.Any("error", err)}
	if m != nil {
		attrs = append(attrs, slog.String("topic", m.Topic), slog.String("id", m.ID))
	}
	slog.Default().Error("transport: serve", attrs...)
}

// failed tells OnError of a handler's error; without OnError only of a panic.
func (o *serveOptions) failed(m *Message, err error) {
	if o.onError != nil || errors.Is(err, ErrPanic) {
		o.report(m, err)
	}
}

// errGoexit stands for a handler that ended its goroutine.
var errGoexit = &Error{Code: CodeInternal, Cause: errors.New("the handler called runtime.Goexit")}

// Serve pushes: it pulls from s and hands each message to h, settling with h's result. It blocks until s ends or ctx
// does, and owns s: it closes it.
//
// When ctx ends, Serve stops asking, closes s, which gives back what was not handed out, and lets handlers finish with
// a context that lives up to [Grace] longer; then it returns nil. A handler that is still running after that is
// reported and not waited for, and Serve returns CodeDeadlineExceeded. It returns nil after an orderly end of s and
// otherwise the error that ended it.
//
// The handlers' context has ctx's values and, for a call, the call's deadline, cancellation and [Peer]. A panic is
// CodeInternal. CodeCanceled from a handler gives an event back uncounted if ctx or the delivery's context has
// ended, else it is turned into CodeAborted.
func Serve(ctx context.Context, s Subscription, h Handler, opts ...ServeOption) error {
	if s == nil {
		return Errorf(CodeInvalidArgument, "the subscription is nil")
	}
	o, err := resolveServe(1, opts)
	if err == nil && h == nil {
		err = Errorf(CodeInvalidArgument, "the handler is nil")
	}
	if err != nil {
		return errors.Join(err, s.Close())
	}
	v := &server{serveOptions: o, sub: s, close: s.Close, h: h, ctx: ctx, next: context.WithoutCancel(ctx), done: make(chan struct{})}
	v.hctx, v.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer v.cancel()
	if o.keyedBy != nil {
		v.keys = newKeyQueue()
		v.start(v.dispatch)
	} else {
		v.start(v.work)
	}
	return v.wait()
}

// server is one Serve or ServeStreams. Its goroutines are counted by running; done is closed when the last has ended.
type server struct {
	serveOptions
	sub   Subscription
	close func() error // the subscription's or the listener's
	h     Handler
	ctx   context.Context // Serve's
	hctx  context.Context // the handlers'
	next  context.Context // Next's: endless, since closing s ends Next, and a wait that cannot end is cheaper
	keys  *keyQueue       // with KeyedBy

	cancel   context.CancelFunc // of hctx
	idle     atomic.Int32       // workers in Next
	handling atomic.Int32       // handlers that run; negative once Grace is over
	mu       sync.Mutex
	running  int // goroutines
	err      error
	done     chan struct{}
}

// graceOver is added to handling at the end of Grace: whoever begins after that sees it, and Serve sees how many began
// before.
const graceOver = math.MinInt32

// begin counts a handler in. It is false once Grace is over.
func (v *server) begin() bool { return v.handling.Add(1) > 0 }

func (v *server) finish() { v.handling.Add(-1) }

// left ends the server if a worker did not return: a handler called runtime.Goexit.
func (v *server) left(returned bool) {
	if !returned {
		v.end(errGoexit)
		v.close()
	}
}

// start runs f in a goroutine of its own, unless the limit of workers is reached (the dispatcher is no worker).
func (v *server) start(f func()) bool {
	limit := v.workers
	if v.keys != nil {
		limit++
	}
	v.mu.Lock()
	if v.running >= limit {
		v.mu.Unlock()
		return false
	}
	v.running++
	v.mu.Unlock()
	go func() {
		defer v.exit()
		f()
	}()
	return true
}

func (v *server) exit() {
	v.mu.Lock()
	v.running--
	last := v.running == 0
	v.mu.Unlock()
	if last {
		close(v.done)
	}
}

// end records why s ended; the first real error stays.
func (v *server) end(err error) {
	if err == io.EOF || v.ctx.Err() != nil {
		return
	}
	v.mu.Lock()
	if v.err == nil {
		v.err = err
	}
	v.mu.Unlock()
}

// wait is the caller's half: it waits for the goroutines, and bounds that once ctx has ended.
func (v *server) wait() error {
	select {
	case <-v.done:
	case <-v.ctx.Done():
	}
	if err := v.close(); err != nil {
		v.report(nil, err)
	}
	if v.keys != nil {
		for _, d := range v.keys.close() {
			v.settle(d, nil, CodeCanceled)
		}
	}
	if v.grace > 0 {
		t := time.NewTimer(v.grace)
		defer t.Stop()
		select {
		case <-v.done:
			return v.result()
		case <-t.C:
		}
	}
	v.cancel()
	if v.handling.Add(graceOver) == graceOver {
		<-v.done // there are only workers on their way out of Next
		return v.result()
	}
	err := Errorf(CodeDeadlineExceeded, "handlers were still running %v after the end of Serve's context", v.grace)
	v.report(nil, err)
	return err
}

func (v *server) result() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.err
}

// work is one worker: it pulls, makes sure that somebody else pulls while it handles, handles, settles.
func (v *server) work() {
	returned := false
	defer func() { v.left(returned) }()
	many := v.workers > 1
	var d *Delivery
	r, reuses := v.sub.(ReusingSubscription)
	if reuses {
		d = new(Delivery) // one for all, each of which is settled before the next
	}
	for v.ctx.Err() == nil {
		if many {
			v.idle.Add(1)
		}
		var err error
		if reuses {
			err = r.NextInto(v.next, d)
		} else {
			d, err = v.sub.Next(v.next)
		}
		alone := many && v.idle.Add(-1) == 0
		if err != nil {
			v.end(err)
			break
		}
		if alone {
			v.start(v.work)
		}
		v.handle(d)
	}
	returned = true
}

func (v *server) handle(d *Delivery) {
	defer v.finish()
	if !v.begin() {
		v.settle(d, nil, CodeCanceled)
		return
	}
	reply, err, _ := v.try(d)
	v.settle(d, reply, err)
}

// try runs the handler once. The error is what to settle with. If the handler calls runtime.Goexit, try settles itself.
func (v *server) try(d *Delivery) (reply *Message, err error, isCall bool) {
	ctx, cancel := d.Context(v.hctx)
	returned := false
	defer func() {
		if !returned {
			v.failed(d.Message, errGoexit)
			v.settle(d, nil, errGoexit)
		}
		cancel()
	}()
	reply, err = invoke(ctx, v.h, d.Message)
	returned = true
	if err != nil {
		v.failed(d.Message, err)
		err = aborted(err, ctx.Err() != nil || v.ctx.Err() != nil)
	}
	return reply, err, ctx != v.hctx // an event's context is its parent
}

// aborted turns CodeCanceled into CodeAborted unless a context has ended: else a handler whose inner call was
// cancelled would have its message back at once, for ever and uncounted.
func aborted(err error, ended bool) error {
	if ended || CodeOf(err) != CodeCanceled {
		return err
	}
	e := *Public(err)
	e.Code, e.Cause, e.Remote = CodeAborted, err, false
	return &e
}

func (v *server) settle(d *Delivery, reply *Message, err error) {
	if serr := d.Settle(reply, err); serr != nil {
		v.report(d.Message, serr)
	}
}

var errStreamKeys = Errorf(CodeInvalidArgument, "streams have no keys")

// ServeStreams hands each stream of l to h, in a goroutine of its own, and ends the stream with h's result. It blocks
// until l ends or ctx does, and owns l. The end of ctx, [Workers] and [Grace] mean what they mean for [Serve]; at the
// end of Grace the handlers' contexts end. [KeyedBy] is refused with CodeInvalidArgument.
//
// The handlers' context ends with the stream, and has the opener's deadline, the [Peer], and ctx's values.
func ServeStreams(ctx context.Context, l Listener, h StreamHandler, opts ...ServeOption) error {
	if l == nil {
		return Errorf(CodeInvalidArgument, "the listener is nil")
	}
	o, err := resolveServe(1024, opts)
	switch {
	case err != nil:
	case h == nil:
		err = Errorf(CodeInvalidArgument, "the handler is nil")
	case o.keyedBy != nil:
		err = errStreamKeys
	}
	if err != nil {
		return errors.Join(err, l.Close())
	}
	v := &server{serveOptions: o, close: l.Close, ctx: ctx, next: context.WithoutCancel(ctx), done: make(chan struct{})}
	v.hctx, v.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer v.cancel()
	var accept func()
	accept = func() {
		returned := false
		defer func() { v.left(returned) }()
		for {
			v.idle.Add(1)
			in, err := l.Next(v.next)
			idle := v.idle.Add(-1)
			if err != nil {
				v.end(err)
				break
			}
			if idle == 0 && v.workers > 1 {
				v.start(accept)
			}
			v.stream(in, h)
		}
		returned = true
	}
	v.start(accept)
	return v.wait()
}

func (v *server) stream(in Incoming, h StreamHandler) {
	defer v.finish()
	if !v.begin() {
		in.End(&Error{Code: CodeUnavailable, Reason: ReasonNotSent, Message: "this acceptor is shutting down"})
		return
	}
	ctx, cancel := context.WithCancel(streamContext{in.Context(), v.hctx})
	defer context.AfterFunc(v.hctx, cancel)()
	defer cancel()
	err := error(errGoexit)
	defer func() { // also when h panics or calls runtime.Goexit
		if p := recover(); p != nil {
			err = Panicked(p)
		}
		m := &Message{Topic: in.Topic(), Header: in.Header()}
		if err != nil {
			v.failed(m, err)
		}
		if eerr := in.End(err); eerr != nil && in.Context().Err() == nil {
			v.report(m, eerr)
		}
	}()
	err = h(ctx, in)
}

// streamContext is the stream's context with more values.
type streamContext struct {
	context.Context
	values context.Context
}

func (c streamContext) Value(key any) any {
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.values.Value(key)
}

// Deliveries pulls: it ranges over s. Finishing the loop's body acknowledges the delivery unless the body settled it;
// leaving the loop gives it back. An error is the last pair, with a nil Delivery; an orderly end has none. The
// subscription stays open, so that the loop can be entered again.
//
//	for d, err := range transport.Deliveries(ctx, sub) {
//		if err != nil {
//			return err
//		}
//		…
//	}
func Deliveries(ctx context.Context, s Subscription) iter.Seq2[*Delivery, error] {
	return func(yield func(*Delivery, error) bool) {
		for {
			d, err := s.Next(ctx)
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if err := visit(d, yield); err != nil {
				if err != errLeft {
					yield(nil, err)
				}
				return
			}
		}
	}
}

var errLeft = errors.New("the loop was left")

func visit(d *Delivery, yield func(*Delivery, error) bool) error {
	finished := false
	defer func() {
		if !finished {
			d.Nack(CodeCanceled)
		}
	}()
	if !yield(d, nil) {
		return errLeft
	}
	finished = true
	return d.Ack()
}
