package transport

import (
	"context"
	"slices"
	"sync"
)

// A Binding is a verb, a topic, a handler and options: one thing that an application offers. An application is a list
// of bindings, written without knowing the transport, and [Start] runs it on any.
type Binding struct {
	op        Op // OpRespond, OpSubscribe or OpAccept
	topic     string
	handler   Handler
	streams   StreamHandler
	subscribe []SubscribeOption
	serve     []ServeOption
	err       error
}

// Op returns the receiving verb: OpRespond, OpSubscribe or OpAccept.
func (b Binding) Op() Op { return b.op }

// Topic returns the topic.
func (b Binding) Topic() string { return b.topic }

// BindCalls binds h to the calls for topic. Up to 64 run at once; see [Workers].
func BindCalls(topic string, h Handler, opts ...Option) Binding {
	b := bind(OpRespond, topic, h, opts)
	b.serve = slices.Insert(b.serve, 0, Workers(DefaultBuffer))
	return b
}

// BindEvents binds h to the events of topic.
func BindEvents(topic string, h Handler, opts ...Option) Binding {
	return bind(OpSubscribe, topic, h, opts)
}

// BindStreams binds h to the streams for topic. It takes ServeOptions only.
func BindStreams(topic string, h StreamHandler, opts ...Option) Binding {
	b := bind(OpAccept, topic, nil, opts)
	b.streams = h
	if len(b.subscribe) > 0 {
		b.err = Errorf(CodeInvalidArgument, "the binding of %q: streams have no subscribe options", topic)
	}
	return b
}

// Use wraps the handler of a binding for calls or events; the first is the outermost.
func Use(mw ...Middleware) Option { return use(mw) }

type use []Middleware

func (use) option() {}

func bind(op Op, topic string, h Handler, opts []Option) Binding {
	b := Binding{op: op, topic: topic, handler: h}
	var mw []Middleware
	for _, opt := range opts {
		switch opt := opt.(type) {
		case SubscribeOption:
			b.subscribe = append(b.subscribe, opt)
		case ServeOption:
			b.serve = append(b.serve, opt)
		case use:
			if slices.ContainsFunc(opt, func(m Middleware) bool { return m == nil }) {
				b.err = Errorf(CodeInvalidArgument, "the binding of %q has a nil middleware", topic)
			}
			mw = append(mw, opt...)
		default:
			b.err = Errorf(CodeInvalidArgument, "the binding of %q has a nil option", topic)
		}
	}
	if len(mw) == 0 {
		return b
	}
	if op == OpAccept {
		b.err = Errorf(CodeInvalidArgument, "the binding of %q: streams have no middleware", topic)
	} else if h != nil && b.err == nil {
		b.handler = Chain(mw...)(h)
	}
	return b
}

func (b Binding) check() error {
	switch {
	case b.err != nil:
		return b.err
	case b.op == 0:
		return Errorf(CodeInvalidArgument, "a binding is empty")
	case b.handler == nil && b.streams == nil:
		return Errorf(CodeInvalidArgument, "the handler of %q is nil", b.topic)
	}
	o, err := resolveServe(1, b.serve)
	if err != nil {
		return err
	}
	if b.op == OpAccept && o.keyedBy != nil {
		return errStreamKeys
	}
	return CheckTopic(b.topic)
}

// activate makes the binding receive; run serves it until ctx ends, stop takes it back before that.
func (b Binding) activate(ctx context.Context, t Transport) (run func(context.Context) error, stop func() error, err error) {
	if b.op == OpAccept {
		l, err := t.Accept(ctx, b.topic)
		if err != nil {
			return nil, nil, err
		}
		return func(ctx context.Context) error { return ServeStreams(ctx, l, b.streams, b.serve...) }, l.Close, nil
	}
	receive := t.Subscribe
	if b.op == OpRespond {
		receive = t.Respond
	}
	s, err := receive(ctx, b.topic, b.subscribe...)
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context) error { return Serve(ctx, s, b.handler, b.serve...) }, s.Close, nil
}

// Start starts bindings on t and returns once all are active, or none is. ctx is the service's life, as in [Serve]:
// when it ends, the bindings drain. The error says which binding could not be started.
func Start(ctx context.Context, t Transport, bs ...Binding) (*Service, error) {
	if t == nil {
		return nil, Errorf(CodeInvalidArgument, "the transport is nil")
	}
	for _, b := range bs {
		if err := b.check(); err != nil {
			return nil, err
		}
	}
	runs := make([]func(context.Context) error, len(bs))
	stops := make([]func() error, 0, len(bs))
	for i, b := range bs {
		run, stop, err := b.activate(ctx, t)
		if err != nil {
			for _, stop := range stops {
				stop()
			}
			return nil, Wrap(err, CodeOf(err), "cannot %s %q", b.op, b.topic)
		}
		runs[i], stops = run, append(stops, stop)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &Service{t: t, ctx: ctx, cancel: cancel, done: make(chan struct{})}
	var wg sync.WaitGroup
	for _, run := range runs {
		wg.Go(func() { s.end(run(ctx)) })
	}
	go func() {
		wg.Wait()
		cancel()
		close(s.done)
	}()
	return s, nil
}

// A Service is a set of bindings that runs. Safe for concurrent use.
type Service struct {
	t      Transport
	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex
	err    error
	done   chan struct{}
}

// end takes the result of one binding. A real error ends the others.
func (s *Service) end(err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	s.cancel()
}

func (s *Service) result() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Wait waits until all bindings have ended. It returns nil after an orderly end, else the first error, after the
// others have been shut down.
func (s *Service) Wait() error {
	<-s.done
	return s.result()
}

// Shutdown ends the service as the end of its ctx would, and waits for that: each binding drains within its Grace. If
// ctx ends first its error is returned, and the drain goes on.
func (s *Service) Shutdown(ctx context.Context) error {
	s.cancel()
	select {
	case <-s.done:
		return s.result()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Health returns nil while the service runs and its transport, if that has a Health method, is well. Else the error is
// CodeUnavailable or the transport's.
func (s *Service) Health(ctx context.Context) error {
	if s.ctx.Err() != nil {
		return Wrap(s.result(), CodeUnavailable, "the service has ended or is shutting down")
	}
	return health(ctx, s.t)
}
