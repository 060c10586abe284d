package middleware

import (
	"context"

	"github.com/intermodal-go/intermodal/transport"
)

// Recover turns a panic of the handler into the error of [transport.Panicked]: CodeInternal, with the panic and its
// stack as private cause, matching [transport.ErrPanic]. Serve recovers as well; Recover does so where no Serve is,
// and inside of other middleware, so that they see an error. It does not catch runtime.Goexit.
func Recover() transport.Middleware {
	return func(h transport.Handler) transport.Handler {
		return func(ctx context.Context, m *transport.Message) (reply *transport.Message, err error) {
			defer func() {
				if v := recover(); v != nil {
					reply, err = nil, transport.Panicked(v)
				}
			}()
			return h(ctx, m)
		}
	}
}
