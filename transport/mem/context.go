package mem

import (
	"context"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// merged is a handler's context for a call: the parent's values and the caller's Peer, and it ends with either. A
// handler that never asks for Done pays for no timer and no goroutine.
type merged struct {
	context.Context                 // the parent
	caller          context.Context // its values do not cross

	mu       sync.Mutex
	canceled bool
	done     chan struct{} // made when asked for
	stops    [2]func() bool
}

func (c *merged) init(parent, caller context.Context) {
	if p, ok := transport.PeerFrom(caller); ok {
		parent = transport.WithPeer(parent, p)
	}
	c.Context, c.caller = parent, caller
}

func (c *merged) Deadline() (time.Time, bool) {
	d, ok := c.caller.Deadline()
	if p, pok := c.Context.Deadline(); pok && (!ok || p.Before(d)) {
		return p, true
	}
	return d, ok
}

func (c *merged) Err() error {
	if err := c.caller.Err(); err != nil {
		return err
	}
	if err := c.Context.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.canceled {
		return context.Canceled
	}
	return nil
}

func (c *merged) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done != nil {
		return c.done
	}
	c.done = make(chan struct{})
	if c.canceled {
		close(c.done)
		return c.done
	}
	for i, ctx := range []context.Context{c.Context, c.caller} {
		if ctx.Done() != nil {
			c.stops[i] = context.AfterFunc(ctx, c.cancel)
		}
	}
	return c.done
}

// cancel ends the context and lets go of the others.
func (c *merged) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.canceled {
		return
	}
	c.canceled = true
	for _, stop := range c.stops {
		if stop != nil {
			stop()
		}
	}
	if c.done != nil {
		close(c.done)
	}
}
