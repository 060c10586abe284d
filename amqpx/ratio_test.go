//go:build gate && !race

package amqpx_test

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx/amqptest"
)

// TestGateRatios compares with bare amqp091-go in the same run, by the clock, since the broker is the one that works.
// The two take turns, and the best round of each counts: it is the one that neighbours have disturbed least. It takes
// some minutes, so it is built with -tags gate only.
func TestGateRatios(t *testing.T) {
	amqptest.URL(t)
	time := flag.Lookup("test.benchtime")
	before := time.Value.String()
	defer time.Value.Set(before)
	for _, p := range []struct {
		name       string
		n          string // operations in a round
		ours, bare func(*testing.B)
	}{
		{"publish from 64 goroutines", "10000x", publish64, publish64Bare},
		{"publish batches of 100 from one", "10000x", func(b *testing.B) { publishAll(b, 100) },
			func(b *testing.B) { publishAllBare(b, 100) }},
		{"publish batches of 1000 from one", "10000x", func(b *testing.B) { publishAll(b, 1000) },
			func(b *testing.B) { publishAllBare(b, 1000) }},
		{"consume, prefetch 64", "10000x", func(b *testing.B) { consume(b, 64) }, func(b *testing.B) { consumeBare(b, 64) }},
		{"consume, prefetch 500", "10000x", func(b *testing.B) { consume(b, 500) },
			func(b *testing.B) { consumeBare(b, 500) }},
		{"call, one after the other", "1000x", func(b *testing.B) { call(b, 1) }, func(b *testing.B) { callBare(b, 1) }},
		{"call from 16 goroutines", "5000x", func(b *testing.B) { call(b, 16) }, func(b *testing.B) { callBare(b, 16) }},
	} {
		require.NoError(t, time.Value.Set(p.n))
		ours, bare := 0.0, 0.0
		for range 10 {
			ours, bare = max(ours, rate(t, p.ours)), max(bare, rate(t, p.bare))
		}
		t.Logf("%s: %.0f/s against %.0f/s, %.2f", p.name, ours, bare, ours/bare)
		assert.GreaterOrEqual(t, ours/bare, 0.9, p.name)
	}
}

// rate returns the operations in a second.
func rate(t *testing.T, f func(*testing.B)) float64 {
	r := testing.Benchmark(f)
	if r.N == 0 {
		t.Fatal("the benchmark has failed")
	}
	return float64(r.N) / r.T.Seconds()
}
