package transport

import (
	"math/rand/v2"
	"time"
)

// Backoff is how long to wait between attempts: Min, doubled each time, at most Max. The zero Backoff is a good
// default.
type Backoff struct {
	Min    time.Duration // first wait; 0 means 100 ms
	Max    time.Duration // longest wait; 0 means 10 s
	Jitter float64       // share of the wait that is random, up to 1 (full jitter); 0 means 0.5, negative none
}

// Delay returns the wait after the given attempt; the first is 1.
func (b Backoff) Delay(attempt int) time.Duration {
	lo, hi, jitter := b.Min, b.Max, min(b.Jitter, 1)
	if lo <= 0 {
		lo = 100 * time.Millisecond
	}
	if hi <= 0 {
		hi = 10 * time.Second
	}
	if jitter == 0 {
		jitter = 0.5
	}
	d := min(lo, hi)
	for ; attempt > 1 && d < hi; attempt-- {
		d += min(d, hi-d) // twice d without overflow
	}
	if jitter > 0 {
		d -= time.Duration(jitter * rand.Float64() * float64(d))
	}
	return d
}
