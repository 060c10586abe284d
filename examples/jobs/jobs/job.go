package jobs

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"

	"github.com/intermodal-go/intermodal/transport"
)

// following is what was told of one job.
type following struct {
	more chan struct{} // has an element if something was added
	done chan struct{} // closed with the outcome

	mu     sync.Mutex
	last   Update
	unread []Update
}

func (f *following) add(u Update) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.unread) == MaxUpdates {
		f.unread[1].Missed += f.unread[0].Missed + 1
		f.unread = f.unread[1:]
	}
	f.last, f.unread = u, append(f.unread, u)
	if u.State.Outcome() {
		close(f.done)
	}
	select {
	case f.more <- struct{}{}:
	default:
	}
}

// next returns the oldest that nobody has read. It is io.EOF after the outcome, and errNothingYet before.
func (f *following) next() (u Update, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case len(f.unread) > 0:
		u, f.unread = f.unread[0], f.unread[1:]
		return u, nil
	case f.last.State.Outcome():
		return u, io.EOF
	}
	return u, errNothingYet
}

var errNothingYet = errors.New("nothing yet")

// A Job is a job that is followed, until its outcome is known. To see what becomes of a dead one that is redriven, follow
// it again before that. Safe for concurrent use.
type Job[Out any] struct {
	ID string
	c  *Client
	f  *following
	op interface {
		Reply(*transport.Message) (Out, error)
	}
}

// Submit puts a job into the client's queue and follows it.
func (f Func[In, Out]) Submit(ctx context.Context, c *Client, in In, opts ...Option) (*Job[Out], error) {
	m, err := f.Message(c.queue, in, opts...)
	if err != nil {
		return nil, err
	}
	j, err := f.Follow(c, m.ID) // first, or the outcome may be missed
	if err != nil {
		return nil, err
	}
	if err := c.publisher.Publish(ctx, m); err != nil {
		j.Forget()
		return nil, err
	}
	return j, nil
}

// Follow follows a job that somebody has enqueued, from now on. What was told before is not known.
func (f Func[In, Out]) Follow(c *Client, id string) (*Job[Out], error) {
	following, err := c.follow(id)
	if err != nil {
		return nil, err
	}
	return &Job[Out]{ID: id, c: c, f: following, op: f.operation()}, nil
}

// Wait waits for the outcome and returns what the function returned, or its error with its Code. The function's private
// text stays with the worker. It can be called again.
func (j *Job[Out]) Wait(ctx context.Context) (out Out, err error) {
	select {
	case <-j.f.done:
	case <-ctx.Done():
		err = ctx.Err()
	case <-j.c.done:
		err = j.c.err
	}
	u := j.Last()
	if u.State.Outcome() { // also if ctx has ended at the same time
		err = u.Err()
	}
	if err != nil {
		return out, err
	}
	return j.op.Reply(&transport.Message{Body: u.Result, Header: transport.Header{
		transport.HeaderContentType: {transport.JSON.ContentType()}}})
}

// Last returns the newest update, the zero Update if there was none.
func (j *Job[Out]) Last() Update {
	j.f.mu.Lock()
	defer j.f.mu.Unlock()
	return j.f.last
}

// Updates ranges over what is told of the job, up to and with its outcome. An error is the last pair: ctx's, or that the
// client has ended. Each update is seen by one loop.
func (j *Job[Out]) Updates(ctx context.Context) iter.Seq2[Update, error] {
	return func(yield func(Update, error) bool) {
		for {
			u, err := j.next(ctx)
			if err == io.EOF || !yield(u, err) || err != nil || u.State.Outcome() {
				return
			}
		}
	}
}

// next waits for the next update; io.EOF after the outcome.
func (j *Job[Out]) next(ctx context.Context) (Update, error) {
	for {
		u, err := j.f.next()
		if err != errNothingYet {
			return u, err
		}
		select {
		case <-j.f.more:
		case <-j.f.done:
		case <-ctx.Done():
			return Update{}, ctx.Err()
		case <-j.c.done:
			return Update{}, j.c.err
		}
	}
}

// Cancel is [Client.Cancel] for this job.
func (j *Job[Out]) Cancel(ctx context.Context) error { return j.c.Cancel(ctx, j.ID) }

// Forget stops following. The job goes on. It is needed only for a job whose outcome nobody waits for.
func (j *Job[Out]) Forget() { j.c.forget(j.ID, j.f) }
