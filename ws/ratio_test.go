//go:build gate && !race && unix

package ws_test

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestGateRatios compares with the bare minimum in the same run, by processor time, which says more than the clock on a
// machine that others use as well. It takes the best of three. The limits are far from what a quiet machine shows, so that
// they catch a mistake and not a neighbour.
//
// A call that goes to another goroutine pays, on two processors, mostly for threads that sleep and are woken.
func TestGateRatios(t *testing.T) {
	for _, p := range []struct {
		name       string
		ours, bare func(*testing.B)
		processors int
		per        float64 // operations in one of the benchmark's
		limit      float64
	}{
		{"call against the library and JSON-RPC by hand", BenchmarkCall, BenchmarkBareCall, 1, 1, 1.5},
		{"call of a handler against the same", BenchmarkCallHandler, BenchmarkBareCall, 1, 1, 1.4},
		{"call on two processors", BenchmarkCall, BenchmarkBareCall, 2, 1, 2.8},
		{"call of a handler on two processors", BenchmarkCallHandler, BenchmarkBareCall, 2, 1, 1.5},
		{"fan-out of single events against a loop that writes", func(b *testing.B) { benchmarkFanOut(b, 1000, 1) },
			func(b *testing.B) { benchmarkBareFanOut(b, 1000, 1) }, 2, 1000, 1.6},
		{"fan-out in bursts against the same", func(b *testing.B) { benchmarkFanOut(b, 1000, 16) },
			func(b *testing.B) { benchmarkBareFanOut(b, 1000, 16) }, 2, 16000, 1.5},
	} {
		best, ours, bare := 0.0, 0.0, 0.0
		for range 3 {
			o, b := used(p.ours, p.processors)/p.per, used(p.bare, p.processors)/p.per
			if best == 0 || o/b < best {
				best, ours, bare = o/b, o, b
			}
		}
		t.Logf("%s: %.0f ns against %.0f ns, %.2f, the limit is %.1f", p.name, ours, bare, best, p.limit)
		assert.LessOrEqual(t, best, p.limit, p.name)
	}
}

// used returns the nanoseconds of processor time, of all cores, for one operation of the benchmark on so many processors.
func used(f func(*testing.B), processors int) float64 {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
	return testing.Benchmark(f).Extra["cpu-ns/op"]
}

// TestGateIdle bounds what a connection costs the server while nothing happens, and one with a subscription.
func TestGateIdle(t *testing.T) {
	t.Run("connected", func(t *testing.T) { assert.LessOrEqual(t, idle(t, "-", 1000), 12.0*1024) })
	t.Run("subscribed", func(t *testing.T) { assert.LessOrEqual(t, idle(t, "scale", 1000), 20.0*1024) })
}
