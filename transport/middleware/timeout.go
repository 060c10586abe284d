package middleware

import (
	"context"
	"errors"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// Timeout ends the handler's context after d, if it has not ended before. The handler runs in the caller's goroutine
// and is waited for: one that ignores its context is not cut off.
//
// If that timeout has passed when the handler fails, its error becomes CodeDeadlineExceeded with the handler's error
// as private cause, unless that has a Code of its own other than CodeCanceled. A success stays a success. A d that is
// not positive has passed before the handler starts.
func Timeout(d time.Duration) transport.Middleware {
	return func(h transport.Handler) transport.Handler {
		return func(parent context.Context, m *transport.Message) (*transport.Message, error) {
			if end, ok := parent.Deadline(); ok && time.Until(end) <= d {
				return h(parent, m)
			}
			ctx, cancel := context.WithTimeout(parent, d)
			defer cancel()
			reply, err := h(ctx, m)
			if err != nil && ctx.Err() == context.DeadlineExceeded && parent.Err() == nil && !coded(err) {
				return nil, transport.Wrap(err, transport.CodeDeadlineExceeded, "it took longer than %v", d)
			}
			return reply, err
		}
	}
}

// coded reports whether err has a Code that says more than that a context ended.
func coded(err error) bool {
	var e *transport.Error
	var c transport.Code
	return (errors.As(err, &e) || errors.As(err, &c)) && transport.CodeOf(err) != transport.CodeCanceled
}
