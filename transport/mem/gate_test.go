//go:build !race

// The race detector allocates and slows down, so these tests are not part of runs with -race.

package mem_test

import (
	"context"
	"os"
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
	require.LessOrEqual(t, allocs(func() { bus.Call(ctx, m) }), 5.0,
		"call: request, signal, delivery, the handler's cancel function, reply")
	cancel()
	require.NoError(t, <-served)
}

// TestGateRatios compares with the bare minimum in the same run. It takes the best of five, and needs an idle
// machine: set INTERMODAL_GATE=1.
func TestGateRatios(t *testing.T) {
	if os.Getenv("INTERMODAL_GATE") == "" {
		t.Skip("compares speeds, which needs an idle machine: set INTERMODAL_GATE=1")
	}
	type pair struct {
		name       string
		ours, bare func(*testing.B)
		limit      float64
	}
	for _, p := range []pair{
		{"publish against a channel", BenchmarkPublish, BenchmarkChannel, 3},
		{"call against a channel ping-pong", BenchmarkCall, BenchmarkChannelPingPong, 3},
		{"fan-out in bursts against mutexes and slices", func(b *testing.B) { benchmarkFanOut(b, 1000, 16) },
			func(b *testing.B) { benchmarkSlices(b, 1000, 16) }, 1.5},
		{"fan-out of single messages against mutexes and slices", func(b *testing.B) { benchmarkFanOut(b, 1000, 1) },
			func(b *testing.B) { benchmarkSlices(b, 1000, 1) }, 2},
	} {
		best := 0.0
		for range 5 {
			ratio := float64(testing.Benchmark(p.ours).NsPerOp()) / float64(testing.Benchmark(p.bare).NsPerOp())
			if best == 0 || ratio < best {
				best = ratio
			}
		}
		t.Logf("%s: %.2f, the limit is %.1f", p.name, best, p.limit)
		require.LessOrEqual(t, best, p.limit, p.name)
	}
}
