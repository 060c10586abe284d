package rest

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// send sends q until there is an answer that is a success, or another attempt would not be right.
func (c *Client) send(ctx context.Context, q *request) (*answer, error) {
	for n := 1; ; n++ {
		a, err := c.roundTrip(ctx, q, n)
		if err == nil {
			c.budget.refill()
			return a, nil
		}
		if n >= c.attempts || !q.again(n, a, err) {
			return a, err
		}
		wait := max(c.backoff.Delay(n), retryAfter(err))
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait || !c.budget.take() {
			return a, err
		}
		if sleep(ctx, wait) != nil {
			return nil, ctx.Err()
		}
	}
}

// again reports whether q may and should be sent again after err, the n-th time; a is the answer, or nil.
func (q *request) again(n int, a *answer, err error) bool {
	switch _, partly := failures(err); {
	case n > 1 && transport.Public(err).Reason == ReasonKeyInUse: // by what was sent before, whose answer was lost
		return true
	case a != nil && !passing(a.status), partly:
		return false
	case a == nil && (transport.CodeOf(err) != transport.CodeUnavailable || untrusted(err)):
		return false
	}
	return q.repeatable() || transport.Resendable(err, q.m)
}

// passing reports whether a status may be another one soon.
func passing(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return unavailable(status)
}

func unavailable(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

func retryAfter(err error) time.Duration {
	var e *transport.Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}

// sleep waits for d, or returns ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// budget is a token bucket that bounds re-sends to a share of the requests, as in gRPC's retry throttling: each takes one
// token, each success gives a tenth back.
type budget struct {
	size float64 // 0 or less: none at all

	mu    sync.Mutex
	spent float64
}

func (b *budget) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spent+1 > b.size {
		return false
	}
	b.spent++
	return true
}

func (b *budget) refill() {
	b.mu.Lock()
	b.spent = max(b.spent-0.1, 0)
	b.mu.Unlock()
}
