package main

import (
	"context"
	"sync"

	"github.com/intermodal-go/intermodal/examples/documents/document"
	"github.com/intermodal-go/intermodal/transport"
)

// process has a document processed. It has the shape of [document.ProcessDocument], whatever lies between.
type process func(context.Context, document.Request) (document.Response, error)

// A mode is a way to have it done. open starts the service at one end of a transport and returns the function for the
// other end; stop ends both.
type mode struct {
	name string
	open func(ctx context.Context, e ends, workers int) (do process, stop func(context.Context) error, err error)
}

// modes work on every transport.
var modes = []mode{
	{"call", call},
	{"job, pushed", push},
	{"job, pulled", pull},
}

// call is synchronous: the sender waits for the reply.
func call(ctx context.Context, e ends, workers int) (process, func(context.Context) error, error) {
	service, err := transport.Start(ctx, e.service, bindings(e.service, workers)...)
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context, r document.Request) (document.Response, error) {
		return Process.Call(ctx, e.client, r)
	}, service.Shutdown, nil
}

// callDeferred is call over HTTP, but no request stays open while the work is done: the server says at once where the
// result will be, and the client asks there.
func callDeferred(ctx context.Context, e ends, workers int) (process, func(context.Context) error, error) {
	service, err := transport.Start(ctx, e.service, bindings(e.service, workers)...)
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context, r document.Request) (document.Response, error) {
		m, err := Process.Message(r)
		if err != nil {
			return document.Response{}, err
		}
		m.Header.Set("prefer", "respond-async")
		reply, err := e.client.Call(ctx, m)
		if err != nil {
			return document.Response{}, err
		}
		return Process.Reply(reply)
	}, service.Shutdown, nil
}

// push is asynchronous: the sender submits a job, which is handed to a worker, and hears of the result later.
func push(ctx context.Context, e ends, workers int) (process, func(context.Context) error, error) {
	service, err := transport.Start(ctx, e.service, bindings(e.service, workers)...)
	if err != nil {
		return nil, nil, err
	}
	return submitting(ctx, e, service.Shutdown)
}

// pull is push with the initiative on the other side: workers ask for a job when they have time for one. They are of
// the same group, so pushed and pulled workers could share the jobs.
func pull(ctx context.Context, e ends, workers int) (process, func(context.Context) error, error) {
	sub, err := e.service.Subscribe(ctx, Submitted.Topic, queue)
	if err != nil {
		return nil, nil, err
	}
	var wg sync.WaitGroup
	errs := make(chan error, workers)
	for range workers {
		wg.Go(func() { errs <- work(ctx, sub, e.service) })
	}
	return submitting(ctx, e, func(context.Context) error {
		err := sub.Close()
		wg.Wait()
		for range workers {
			if werr := <-errs; err == nil {
				err = werr
			}
		}
		return err
	})
}

// work is one pulling worker. It ends when sub does.
func work(ctx context.Context, sub transport.Subscription, results transport.Publisher) error {
	handle := codes(Submitted.Handler(job(results)))
	for d, err := range transport.Deliveries(ctx, sub) {
		if err != nil {
			return err
		}
		_, err := handle(ctx, d.Message)
		if err := d.Settle(nil, err); err != nil {
			return err
		}
	}
	return nil
}

// submitting is the sender of jobs for workers that stop ends. If it cannot be started it ends them.
func submitting(ctx context.Context, e ends, stop func(context.Context) error) (process, func(context.Context) error, error) {
	s, err := newSubmitter(ctx, e.client)
	if err != nil {
		stop(ctx)
		return nil, nil, err
	}
	return s.process, func(ctx context.Context) error {
		err := stop(ctx)
		if serr := s.service.Shutdown(ctx); err == nil {
			err = serr
		}
		return err
	}, nil
}

// A submitter submits jobs and waits for what becomes of them.
type submitter struct {
	publisher transport.Publisher
	service   *transport.Service
	mu        sync.Mutex
	waiting   map[string]chan<- outcome // by ID of the job
}

type outcome struct {
	response document.Response
	err      error
}

func newSubmitter(ctx context.Context, t transport.Transport) (s *submitter, err error) {
	s = &submitter{publisher: t, waiting: map[string]chan<- outcome{}}
	s.service, err = transport.Start(ctx, t, Processed.Bind(s.processed), Failed.Bind(s.failed))
	return s, err
}

// process submits r and waits for its result.
func (s *submitter) process(ctx context.Context, r document.Request) (document.Response, error) {
	m, err := Submitted.Message(r)
	if err != nil {
		return document.Response{}, err
	}
	done := make(chan outcome, 1)
	s.mu.Lock()
	s.waiting[m.ID] = done
	s.mu.Unlock()
	defer s.settle(m.ID, outcome{}) // forgets it, if that has not happened
	if err := s.publisher.Publish(ctx, m); err != nil {
		return document.Response{}, err
	}
	select {
	case o := <-done:
		return o.response, o.err
	case <-ctx.Done():
		return document.Response{}, ctx.Err()
	}
}

// settle is idempotent: a result that comes a second time, or is another sender's, finds nobody waiting.
func (s *submitter) settle(job string, o outcome) {
	s.mu.Lock()
	done := s.waiting[job]
	delete(s.waiting, job)
	s.mu.Unlock()
	if done != nil {
		done <- o
	}
}

func (s *submitter) processed(_ context.Context, r Result) error {
	s.settle(r.Job, outcome{response: r.Response})
	return nil
}

func (s *submitter) failed(ctx context.Context, _ document.Request) error {
	m := transport.MessageFrom(ctx)
	var code transport.Code
	code.UnmarshalText([]byte(m.Header.Get(transport.HeaderDeadLetterCode))) // never fails
	s.settle(m.ID, outcome{err: transport.Errorf(code, "%s", m.Header.Get(transport.HeaderDeadLetterReason))})
	return nil
}
