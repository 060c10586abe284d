//go:build !race

// The race detector allocates and slows down, so these tests are not part of runs with -race.

package mem_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

// TestGateAllocations bounds allocations, which do not depend on the machine.
func TestGateAllocations(t *testing.T) {
	bus := mem.New(nil)
	defer bus.Close()
	m := &transport.Message{Topic: "t", Body: body}
	allocs := func(f func()) float64 { return testing.AllocsPerRun(2000, f) }

	sub := subscribe(t, bus)
	require.LessOrEqual(t, allocs(func() {
		bus.Publish(background, m)
		d, _ := sub.Next(background)
		d.Ack()
	}), 2.0, "publish, next, ack: the copy that travels and the delivery")
	require.NoError(t, sub.Close())

	sub = subscribe(t, bus, transport.Group("g"))
	require.LessOrEqual(t, allocs(func() {
		bus.Publish(background, m)
		d, _ := sub.Next(background)
		d.Ack()
	}), 2.0, "the same in a group")

	r, err := bus.Respond(background, "t")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(background)
	served := make(chan error)
	go func() {
		served <- transport.Serve(ctx, r, func(context.Context, *transport.Message) (*transport.Message, error) { return nil, nil })
	}()
	require.LessOrEqual(t, allocs(func() { bus.Call(ctx, m) }), 3.0, "call: request, the handler's cancel function, reply")
	cancel()
	require.NoError(t, <-served)

	for _, opts := range [][]transport.SubscribeOption{nil, {transport.Group("h")}} {
		sub = subscribe(t, bus, opts...)
		ctx, cancel := context.WithCancel(background)
		handled := make(chan struct{})
		go func() {
			served <- transport.Serve(ctx, sub, func(context.Context, *transport.Message) (*transport.Message, error) {
				handled <- struct{}{}
				return nil, nil
			})
		}()
		require.LessOrEqual(t, allocs(func() { bus.Publish(background, m); <-handled }), 1.0, "publish, handler, settled: the copy that travels")
		cancel()
		require.NoError(t, <-served)
	}
}
