//go:build gate && !race && unix

package mem_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestGateRatios compares with the bare minimum in the same run, by processor time, which says more than the clock on a
// machine that others use as well. It takes the best of three. The limits are far from what a quiet machine shows, so that
// they catch a mistake and not a neighbour. It takes a minute, so it is built with -tags gate only.
func TestGateRatios(t *testing.T) {
	for _, p := range []struct {
		name       string
		ours, bare func(*testing.B)
		per        float64 // operations in one of the benchmark's
		limit      float64
	}{
		{"publish against a channel", BenchmarkPublish, BenchmarkChannel, 1, 4},
		{"publish against a log made for it", BenchmarkPublish, BenchmarkPlainLog, 1, 3},
		{"call against a channel ping-pong", BenchmarkCall, BenchmarkChannelPingPong, 1, 4.5},
		{"call against a program made for it", BenchmarkCall, BenchmarkPlainCall, 1, 2},
		{"fan-out in bursts against mutexes and slices", func(b *testing.B) { benchmarkFanOut(b, 1000, 16) },
			func(b *testing.B) { benchmarkSlices(b, 1000, 16) }, 16000, 2},
		{"fan-out of single messages against mutexes and slices", func(b *testing.B) { benchmarkFanOut(b, 1000, 1) },
			func(b *testing.B) { benchmarkSlices(b, 1000, 1) }, 1000, 3},
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
