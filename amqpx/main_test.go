package amqpx_test

import (
	"flag"
	"testing"

	"github.com/intermodal-go/intermodal/transport/transporttest/leak"
)

// TestMain lets many tests run beside each other: they wait for a broker, not for a processor. Those that are short,
// must not be late, or look at the goroutines of the whole process, are not parallel, and so run before.
func TestMain(m *testing.M) {
	flag.Set("test.parallel", "6") // the command line has the last word
	leak.Main(m)
}
