package middleware

import (
	"context"
	"errors"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// RetryOptions are the options of [Retry]. The zero value, and nil, mean the defaults.
type RetryOptions struct {
	// Attempts is how many tries there are, the first included. 0 means 3; below 1 there is no second one.
	Attempts int
	// Backoff is the wait between tries, unless the error has a RetryAfter: then that is the wait.
	Backoff transport.Backoff
	// MaxWait is the longest RetryAfter that is waited for; for a longer one the error is returned at once. 0 means one
	// minute.
	MaxWait time.Duration
	// If reports whether to try again after err. It must be safe for concurrent use. The default does if err is
	// [transport.Retryable] and sending again cannot do the work twice: err is [transport.Resendable], or it is an
	// error of a handler in this process, which is one that is not Remote, has not the Reason OUTCOME_UNKNOWN and is
	// neither CodeCanceled nor CodeDeadlineExceeded, since then the work may have been done.
	If func(err error, m *transport.Message) bool
}

// Retry tries again after an error that may pass. All tries have the same ID: a message without one is copied and
// given one, the caller's stays as it is. It waits between tries and stops when ctx ends, or at once when the wait
// would pass ctx's deadline. It returns the last try's error.
//
// Around an event's handler it holds the delivery meanwhile; the transport's own redelivery, which does not, is to be
// preferred there.
func Retry(o *RetryOptions) transport.Middleware {
	var r RetryOptions
	if o != nil {
		r = *o
	}
	if r.Attempts == 0 {
		r.Attempts = 3
	}
	if r.MaxWait <= 0 {
		r.MaxWait = time.Minute
	}
	if r.If == nil {
		r.If = harmless
	}
	return func(h transport.Handler) transport.Handler {
		return func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			if m.ID == "" {
				c := *m
				c.ID = transport.NewID()
				m = &c
			}
			for attempt := 1; ; attempt++ {
				reply, err := h(ctx, m)
				if err == nil || attempt >= r.Attempts || ctx.Err() != nil || !r.If(err, m) || !r.wait(ctx, attempt, err) {
					return reply, err
				}
			}
		}
	}
}

// wait waits for the next try. It is false when there is none.
func (r *RetryOptions) wait(ctx context.Context, attempt int, err error) bool {
	d := r.Backoff.Delay(attempt)
	var e *transport.Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		if d = e.RetryAfter; d > r.MaxWait {
			return false
		}
	}
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// harmless is the default of RetryOptions.If.
func harmless(err error, m *transport.Message) bool {
	if !transport.Retryable(err) {
		return false
	}
	if transport.Resendable(err, m) {
		return true
	}
	switch transport.CodeOf(err) {
	case transport.CodeCanceled, transport.CodeDeadlineExceeded:
		return false
	}
	var e *transport.Error
	return !errors.As(err, &e) || !e.Remote && e.Reason != transport.ReasonOutcomeUnknown
}
