package jobs

import (
	"context"
	"sync"
)

// cancellation asks the workers to drop a job that they have not begun.
type cancellation struct {
	Job string `json:"job"`
}

// maxCanceled is how many canceled jobs a worker knows; then the oldest is forgotten.
const maxCanceled = 4096

// canceled are the jobs that shall not begin.
type canceled struct {
	mu    sync.Mutex
	known map[string]bool
	order []string
}

func (w *worker) cancel(_ context.Context, c cancellation) error {
	w.canceled.add(c.Job)
	return nil
}

func (c *canceled) add(job string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[job] {
		return
	}
	if c.known == nil {
		c.known = map[string]bool{}
	}
	if len(c.order) == maxCanceled {
		delete(c.known, c.order[0])
		c.order = c.order[1:]
	}
	c.known[job] = true
	c.order = append(c.order, job)
}

func (c *canceled) has(job string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[job]
}
