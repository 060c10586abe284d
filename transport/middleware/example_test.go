package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/middleware"
)

var ctx = context.Background()

func ExampleRecover() {
	h := middleware.Recover()(func(context.Context, *transport.Message) (*transport.Message, error) {
		panic("a bug")
	})
	_, err := h(ctx, &transport.Message{Topic: "orders.place"})
	fmt.Println(transport.CodeOf(err), errors.Is(err, transport.ErrPanic))
	// Output: internal true
}

func ExampleTimeout() {
	h := middleware.Timeout(time.Millisecond)(func(ctx context.Context, _ *transport.Message) (*transport.Message, error) {
		<-ctx.Done() // as a database would
		return nil, ctx.Err()
	})
	_, err := h(ctx, &transport.Message{Topic: "orders.place"})
	fmt.Println(transport.CodeOf(err))
	// Output: deadline_exceeded
}

func ExampleRetry() {
	tries := 0
	call := transport.Handler(func(context.Context, *transport.Message) (*transport.Message, error) {
		if tries++; tries < 3 {
			return nil, transport.Errorf(transport.CodeUnavailable, "not now")
		}
		return &transport.Message{Body: []byte("done")}, nil
	})
	call = middleware.Retry(&middleware.RetryOptions{Backoff: transport.Backoff{Min: time.Millisecond}})(call)
	reply, err := call.Call(ctx, &transport.Message{Topic: "orders.place"})
	fmt.Println(string(reply.Body), err, tries)
	// Output: done <nil> 3
}

func ExampleDedup() {
	n := 0
	h := middleware.Dedup(nil)(func(context.Context, *transport.Message) (*transport.Message, error) {
		n++
		return &transport.Message{Body: fmt.Appendf(nil, "order %d", n)}, nil
	})
	m := &transport.Message{Topic: "orders.place", Header: transport.Header{"idempotency-key": {"7f3a"}}}
	for range 2 {
		reply, err := h(ctx, m)
		fmt.Println(string(reply.Body), err)
	}
	// Output:
	// order 1 <nil>
	// order 1 <nil>
}

func ExampleLog() {
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr { // what differs from run to run
			if a.Key == slog.TimeKey || a.Key == "duration" {
				return slog.Attr{}
			}
			return a
		}}))
	h := middleware.Log(log, nil)(func(context.Context, *transport.Message) (*transport.Message, error) {
		return nil, transport.Errorf(transport.CodeNotFound, "no such order")
	})
	h(ctx, &transport.Message{ID: "m1", Topic: "orders.place"})
	// Output: level=WARN msg=message topic=orders.place id=m1 code=not_found
}

func ExampleLimit() {
	h := middleware.Limit(&middleware.LimitOptions{Rate: 0.001, Burst: 2})(
		func(context.Context, *transport.Message) (*transport.Message, error) { return nil, nil })
	for range 3 {
		_, err := h(ctx, &transport.Message{Topic: "orders.place"})
		fmt.Println(err)
	}
	// Output:
	// <nil>
	// <nil>
	// resource_exhausted: the rate limit is reached (NOT_SENT)
}
