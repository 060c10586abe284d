//go:build !race && unix

// The race detector allocates and slows down, so these tests are not part of runs with -race.

package mem_test

import (
	"context"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
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

// TestGateRatios compares with the bare minimum in the same run, by processor time, which says more than the clock on a
// machine that others use as well. It takes the best of three. The limits are far from what a quiet machine shows, so that
// they catch a mistake and not a neighbour: set INTERMODAL_GATE=1.
func TestGateRatios(t *testing.T) {
	if os.Getenv("INTERMODAL_GATE") != "1" {
		t.Skip("takes a minute: set INTERMODAL_GATE=1")
	}
	for _, p := range []struct {
		name       string
		ours, bare func(*testing.B)
		per        float64 // operations in one of the benchmark's
		limit      float64
	}{
		{"publish against a channel", BenchmarkPublish, BenchmarkChannel, 1, 4},
		{"call against a channel ping-pong", BenchmarkCall, BenchmarkChannelPingPong, 1, 5},
		{"fan-out in bursts against mutexes and slices", func(b *testing.B) { benchmarkFanOut(b, 1000, 16) },
			func(b *testing.B) { benchmarkSlices(b, 1000, 16) }, 16000, 6},
		{"fan-out of single messages against mutexes and slices", func(b *testing.B) { benchmarkFanOut(b, 1000, 1) },
			func(b *testing.B) { benchmarkSlices(b, 1000, 1) }, 1000, 6},
	} {
		best, ours, bare := 0.0, 0.0, 0.0
		for range 3 {
			o, b := processorTime(p.ours)/p.per, processorTime(p.bare)/p.per
			if best == 0 || o/b < best {
				best, ours, bare = o/b, o, b
			}
		}
		t.Logf("%s: %.0f ns against %.0f ns, %.2f, the limit is %.1f", p.name, ours, bare, best, p.limit)
		assert.LessOrEqual(t, best, p.limit, p.name)
	}
}

// processorTime returns the nanoseconds of processor time, of all cores, for one operation of the benchmark.
func processorTime(f func(*testing.B)) float64 {
	var per float64
	testing.Benchmark(func(b *testing.B) {
		var before, after syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &before)
		f(b)
		syscall.Getrusage(syscall.RUSAGE_SELF, &after)
		used := after.Utime.Nano() - before.Utime.Nano() + after.Stime.Nano() - before.Stime.Nano()
		per = float64(used) / float64(b.N) // of the last and longest round
	})
	return per
}
