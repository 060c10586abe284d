package jobs

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/middleware"
)

// WorkOptions are the options of [Work]. The zero value, and nil, mean the defaults.
type WorkOptions struct {
	// Workers is how many jobs run at once. 0 means 4.
	Workers int
	// Backoff is the wait before the next attempt, unless the function's error has a RetryAfter. The zero Backoff leaves it
	// to the transport, which waits a little longer each time.
	Backoff transport.Backoff
	// Timeout is how long one attempt may take; then its context ends. 0 means 5 minutes.
	Timeout time.Duration
	// Store remembers which jobs have succeeded. Workers in several processes need one that they share. The default is
	// in memory: 65536 jobs, 64 MiB of results, 24 hours.
	Store middleware.Store
	// OnError is told of every error of a function, of panics, and of updates that could not be published. It must be
	// safe for concurrent use. Without it panics and what fails besides the functions are logged to slog.Default.
	OnError func(m *transport.Message, err error)
}

// Work starts a worker: it takes jobs from q and runs the functions in r. It returns once it is active; ctx is its life,
// as in [transport.Start], and Shutdown lets jobs finish that have begun and leaves the others to the next worker.
//
//   - A function's error asks for another attempt if it is [transport.Retryable], after a growing wait. Any other, and the
//     last attempt's, makes the job a dead letter.
//   - A panic counts as CodeInternal.
//   - A name that is not in r is CodeUnimplemented, and arguments that cannot be decoded are CodeInvalidArgument. Neither
//     is tried again: another worker would know no more.
//   - A job is acknowledged when its result has been published.
func Work(ctx context.Context, t transport.Transport, q Queue, r *Registry, o *WorkOptions) (*transport.Service, error) {
	w := &worker{publisher: t, queue: q}
	if o != nil {
		w.WorkOptions = *o
	}
	if w.Workers == 0 {
		w.Workers = 4
	}
	if w.Timeout == 0 {
		w.Timeout = 5 * time.Minute
	}
	if w.Store == nil {
		w.Store = middleware.NewMemoryStore(nil)
	}
	if r.err != nil {
		return nil, r.err
	}
	if err := q.Declare(ctx, t); err != nil {
		return nil, err
	}
	// The lease is the longer one, so that it is Timeout that ends the function. Only successes are remembered, because a
	// refused job is a dead letter, and has to run when it is redriven.
	dedup := middleware.Dedup(&middleware.DedupOptions{Store: w.Store, Lease: 2 * w.Timeout, SuccessesOnly: true, OnError: w.OnError})
	w.run = transport.Chain(dedup, middleware.Timeout(w.Timeout), middleware.Recover())(r.Call)
	opts := []transport.Option{q.workers(), transport.Workers(w.Workers), transport.Buffer(w.Workers)}
	if w.OnError != nil {
		opts = append(opts, transport.OnError(w.OnError))
	}
	return transport.Start(ctx, transport.Join(transport.Parts{Subscriber: counting{t}, Responder: t}),
		q.cancel().Bind(w.cancel), // before the jobs come
		transport.BindEvents(q.Run(), transport.NoReply(w.handle), opts...))
}

type worker struct {
	WorkOptions
	publisher transport.Publisher
	queue     Queue
	run       transport.Handler
	canceled  canceled
}

// handle is one attempt at a job.
func (w *worker) handle(ctx context.Context, m *transport.Message) error {
	attempt, _ := strconv.Atoi(m.Header.Get(headerAttempt))
	run := &Run{Job: m.ID, Func: m.Header.Get(HeaderFunc), Attempt: attempt, publish: w.publish}
	if w.canceled.has(m.ID) {
		run.Attempt = max(attempt-1, 0) // this one does not begin
		return w.publish(ctx, run.update(Canceled, Update{}))
	}
	if err := w.publish(ctx, run.update(Started, Update{})); err != nil {
		return err // who cannot tell of the beginning could not tell of the end
	}
	c := *m
	c.Topic = run.Func // what the Registry routes by
	reply, err := w.run(context.WithValue(ctx, runKey{}, run), &c)
	if err != nil {
		if perr := w.publish(ctx, run.update(Failed, Update{Error: failure(err)})); perr != nil {
			w.report(m, perr)
		}
		return w.later(err, attempt)
	}
	// If this fails the job comes again, and Dedup has the result.
	return w.publish(ctx, run.update(Succeeded, Update{Result: reply.Body}))
}

// publish tells of a job. An error asks for another attempt, whatever the transport's says, or gives the job back if ctx
// has ended.
func (w *worker) publish(ctx context.Context, u Update) error {
	err := w.queue.Updates().Publish(ctx, w.publisher, u)
	if err == nil || ctx.Err() != nil {
		return err
	}
	return transport.Wrap(err, transport.CodeUnavailable, "the update %q could not be published", u.State)
}

// report tells of an error that stops nothing.
func (w *worker) report(m *transport.Message, err error) {
	if w.OnError != nil {
		w.OnError(m, err)
		return
	}
	slog.Default().Error("jobs: work", "topic", m.Topic, "id", m.ID, "error", err)
}

// later adds the wait to an error that asks for another attempt.
func (w *worker) later(err error, attempt int) error {
	e := transport.Public(err)
	if w.Backoff == (transport.Backoff{}) || !transport.Retryable(err) || e.RetryAfter > 0 {
		return err
	}
	e.RetryAfter, e.Remote, e.Cause = w.Backoff.Delay(attempt), false, err
	return e
}
