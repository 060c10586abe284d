package amqptest

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
)

// shared is the node of this test binary. It goes when the binary ends, as every node does.
var shared = sync.OnceValues(func() (*Node, error) { return Start(context.Background(), nil) })

// URL returns the address of a broker that tests share: the value of AMQP_URL if that is set, else that of one private
// node, which the test binary starts on first use and which goes with it. Tests must not stop this broker, and use
// names of their own in it.
//
// Where RabbitMQ is not installed, URL skips the test and says how to get one; with INTERMODAL_CI=1 it fails the test.
func URL(tb testing.TB) string {
	tb.Helper()
	if url := os.Getenv("AMQP_URL"); url != "" {
		return url
	}
	n, err := shared()
	check(tb, err)
	return n.URL()
}

// New starts a node for the test alone, and stops it when the test ends. It skips as [URL] does, whatever AMQP_URL is.
func New(tb testing.TB, o *Options) *Node {
	tb.Helper()
	n, err := Start(tb.Context(), o)
	check(tb, err)
	tb.Cleanup(func() {
		if err := n.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return n
}

func check(tb testing.TB, err error) {
	tb.Helper()
	switch {
	case errors.Is(err, ErrNotInstalled) && os.Getenv("INTERMODAL_CI") != "1":
		tb.Skipf("%v; or set AMQP_URL to the address of a broker for tests", err)
	case err != nil:
		tb.Fatal(err)
	}
}
