package middleware

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// LimitOptions are the options of [Limit]. The zero value, and nil, limit nothing.
type LimitOptions struct {
	// Concurrency is how many handlers run at once. 0 means no limit.
	Concurrency int
	// Rate is how many messages per second are let through in the long run. 0 means no limit.
	Rate float64
	// Burst is how many messages Rate lets through at once after a pause. 0 means one second's worth, at least 1.
	Burst int
	// Waiting is how many messages may wait for their turn, in order, each until its context ends. 0 means none: what
	// exceeds a limit is refused at once.
	Waiting int
}

// Limit bounds how many messages are handled at once and how many per second. A message that exceeds a limit waits if
// [LimitOptions].Waiting has room and its context's deadline lets it; else it is refused with CodeResourceExhausted
// and Reason NOT_SENT, since no handler has seen it. A refusal by Rate carries RetryAfter. If ctx ends while it waits,
// ctx's error is returned.
//
// A refused event is redelivered and each delivery counts as an attempt: around a handler of events let messages wait,
// at least as many as Serve has Workers.
func Limit(o *LimitOptions) transport.Middleware {
	var l limiter
	if o != nil {
		l.room = int64(o.Waiting)
		if o.Concurrency > 0 {
			l.slots = make(chan struct{}, o.Concurrency)
		}
		if o.Rate > 0 && !math.IsInf(o.Rate, 1) {
			burst := float64(o.Burst)
			if o.Burst <= 0 {
				burst = max(1, math.Floor(o.Rate))
			}
			l.bucket = &bucket{rate: o.Rate, burst: burst, tokens: burst, at: time.Now()}
		}
	}
	return func(h transport.Handler) transport.Handler {
		return func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			if err := l.enter(ctx); err != nil {
				return nil, err
			}
			defer l.leave()
			return h(ctx, m)
		}
	}
}

type limiter struct {
	slots   chan struct{} // one element per handler that runs; nil: no limit
	bucket  *bucket       // nil: no limit
	room    int64
	waiting atomic.Int64
}

// enter takes a token, then a slot. A token that led to no slot is given back.
func (l *limiter) enter(ctx context.Context) error {
	if l.bucket != nil {
		if err := l.token(ctx); err != nil {
			return err
		}
	}
	if l.slots == nil {
		return nil
	}
	err := l.slot(ctx)
	if err != nil && l.bucket != nil {
		l.bucket.giveBack()
	}
	return err
}

func (l *limiter) leave() {
	if l.slots != nil {
		<-l.slots
	}
}

func (l *limiter) token(ctx context.Context) error {
	wait := l.bucket.take()
	if wait == 0 {
		return nil
	}
	if end, ok := ctx.Deadline(); ok && time.Until(end) < wait || !l.queue() {
		l.bucket.giveBack()
		return refused(wait, "the rate limit is reached")
	}
	defer l.waiting.Add(-1)
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		l.bucket.giveBack()
		return ctx.Err()
	}
}

func (l *limiter) slot(ctx context.Context) error {
	select {
	case l.slots <- struct{}{}:
		return nil
	default:
	}
	if !l.queue() {
		return refused(0, "too many messages are being handled")
	}
	defer l.waiting.Add(-1)
	select {
	case l.slots <- struct{}{}: // channels serve those that wait in order
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// queue reports whether one more may wait, and counts it if so.
func (l *limiter) queue() bool {
	if l.waiting.Add(1) <= l.room {
		return true
	}
	l.waiting.Add(-1)
	return false
}

func refused(after time.Duration, text string) error {
	return &transport.Error{Code: transport.CodeResourceExhausted, Reason: transport.ReasonNotSent, Message: text,
		RetryAfter: after}
}

// bucket is a token bucket. tokens below 0 are promised to those that wait.
type bucket struct {
	rate, burst float64
	mu          sync.Mutex
	tokens      float64
	at          time.Time // when tokens was true
}

// take takes a token and returns how long to wait until it is there.
func (b *bucket) take() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.tokens = min(b.burst, b.tokens+now.Sub(b.at).Seconds()*b.rate) - 1
	b.at = now
	// Half a nanosecond of rounding must not make a message wait.
	if wait := -b.tokens / b.rate; wait >= 1e-9 {
		return time.Duration(min(math.Ceil(wait*1e9), math.MaxInt64/2))
	}
	return 0
}

func (b *bucket) giveBack() {
	b.mu.Lock()
	b.tokens = min(b.burst, b.tokens+1)
	b.mu.Unlock()
}
