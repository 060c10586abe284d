package jobs

import (
	"context"
	"slices"
	"sync"

	"github.com/intermodal-go/intermodal/transport"
)

// Limits of a [Client].
const (
	MaxFollowed = 1 << 16 // jobs followed at once
	MaxUpdates  = 256     // updates of one job that nobody has read
)

// A Client submits jobs and hears what becomes of them. Safe for concurrent use.
type Client struct {
	publisher transport.Publisher
	queue     Queue
	service   *transport.Service
	done      chan struct{} // closed when the service has ended

	mu       sync.Mutex
	err      error                   // why it has ended
	followed map[string][]*following // by ID of the job
	n        int                     // of followings
}

// Connect declares q and listens to what is told of its jobs. It returns once that is active; ctx is the client's life, as
// in [transport.Start]. End it with Shutdown.
func Connect(ctx context.Context, t transport.Transport, q Queue) (*Client, error) {
	if err := q.Declare(ctx, t); err != nil {
		return nil, err
	}
	c := &Client{publisher: t, queue: q, done: make(chan struct{}), followed: map[string][]*following{}}
	var err error
	c.service, err = transport.Start(ctx, t,
		q.Updates().Bind(func(_ context.Context, u Update) error { c.told(u); return nil }),
		transport.BindEvents(q.Dead(), transport.NoReply(func(_ context.Context, m *transport.Message) error {
			c.told(deadLetter(m))
			return nil
		})))
	if err != nil {
		return nil, err
	}
	go func() { // Shutdown waits for it
		err := c.service.Wait()
		c.mu.Lock()
		c.err = transport.Wrap(err, transport.CodeUnavailable, "the client of the queue %q has ended", q.Name)
		c.mu.Unlock()
		close(c.done)
	}()
	return c, nil
}

// Shutdown ends the client. Who waits for a job gets CodeUnavailable; the jobs go on.
func (c *Client) Shutdown(ctx context.Context) error {
	err := c.service.Shutdown(ctx)
	if ctx.Err() == nil {
		<-c.done
	}
	return err
}

// Cancel asks the workers to drop a job that has not begun, or that waits for another attempt. It is a request to the
// workers that listen now: one that starts later does not know of it, and a job that has begun goes on. The job's outcome
// tells.
func (c *Client) Cancel(ctx context.Context, job string) error {
	return c.queue.cancel().Publish(ctx, c.publisher, cancellation{job})
}

// told passes an update on to who follows the job. An outcome ends that, so what comes twice finds nobody.
func (c *Client) told(u Update) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.followed[u.Job] {
		f.add(u)
	}
	if u.State.Outcome() {
		c.n -= len(c.followed[u.Job])
		delete(c.followed, u.Job)
	}
}

func (c *Client) follow(job string) (*following, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return nil, c.err
	case c.n == MaxFollowed:
		return nil, transport.Errorf(transport.CodeResourceExhausted, "%d jobs are followed, the limit", MaxFollowed)
	}
	f := &following{more: make(chan struct{}, 1), done: make(chan struct{})}
	c.followed[job] = append(c.followed[job], f)
	c.n++
	return f, nil
}

func (c *Client) forget(job string, f *following) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fs := c.followed[job]
	i := slices.Index(fs, f)
	if i < 0 {
		return
	}
	c.n--
	if len(fs) == 1 {
		delete(c.followed, job)
	} else {
		c.followed[job] = slices.Delete(fs, i, i+1)
	}
}
