package rest

import (
	"context"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// A callContext is the context of one call: the request's, with the peer and a deadline. All of that is made when somebody
// asks for it, which a handler that just computes never does.
type callContext struct {
	parent context.Context
	peer   *transport.Peer
	until  time.Time

	mu     sync.Mutex
	inner  context.Context // nil until it is asked for
	cancel context.CancelFunc
	over   bool
}

func (c *callContext) made() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner == nil {
		c.inner, c.cancel = context.WithDeadline(transport.WithPeer(c.parent, *c.peer), c.until)
		if c.over {
			c.cancel()
		}
	}
	return c.inner
}

// end is the CancelFunc.
func (c *callContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.cancel != nil {
		c.cancel()
	}
}

func (c *callContext) Deadline() (time.Time, bool) { return c.until, true }
func (c *callContext) Done() <-chan struct{}       { return c.made().Done() }
func (c *callContext) Err() error                  { return c.made().Err() }

// Value also leads package context to what it needs to cancel children without a goroutine.
func (c *callContext) Value(key any) any { return c.made().Value(key) }
