package pipe_test

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/transport/transporttest"
	"github.com/intermodal-go/intermodal/transport/transporttest/pipe"
)

const history = 500

// everything is all features.
const everything = transport.AtLeastOnce | transport.Ordered | transport.Replay | transport.Groups | transport.DeadLetters | transport.Delays

// backend returns a bus that closes with the test.
func backend(t testing.TB) *mem.Bus {
	b := mem.New(&mem.Options{HistoryMessages: history})
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// overPipe returns a client of a server of t, joined by a net.Pipe.
func overPipe(t testing.TB, tr transport.Transport) *pipe.Client {
	near, far := net.Pipe()
	s := pipe.NewServer(tr, nil)
	served := make(chan error, 1)
	go func() { served <- s.ServeConn(context.Background(), far) }()
	c := pipe.NewClient(near, nil)
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		require.NoError(t, <-served)
		require.NoError(t, s.Close())
	})
	return c
}

// overTCP does so over the loopback. Each client it returns has a connection of its own.
func overTCP(t testing.TB, tr transport.Transport, o *pipe.ServerOptions) (dial func() *pipe.Client) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := pipe.NewServer(tr, o)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		require.NoError(t, <-served)
	})
	return func() *pipe.Client {
		nc, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		c := pipe.NewClient(nc, nil)
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		return c
	}
}

func fixture(sender, receiver transport.Transport) transporttest.Fixture {
	return transporttest.Fixture{Sender: sender, Receiver: receiver, Offers: everything, Retention: 2 * history,
		Backlog: 2 * history, Remote: true, Peer: true}
}

func TestConformance(t *testing.T) {
	t.Run("net.Pipe", func(t *testing.T) {
		transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
			c := overPipe(t, backend(t))
			f := fixture(c, c)
			f.Synctest = true
			return f
		})
	})
	t.Run("TCP", func(t *testing.T) {
		transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
			dial := overTCP(t, backend(t), nil)
			return fixture(dial(), dial())
		})
	})
	t.Run("Guard", func(t *testing.T) {
		allow := func(ctx context.Context, a transport.Access) error {
			if p, ok := transport.PeerFrom(ctx); !ok || p.Protocol != "pipe" {
				return transport.CodePermissionDenied
			}
			return nil
		}
		transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
			b := transport.Guard(backend(t), allow)
			f := fixture(overPipe(t, b), overPipe(t, b))
			f.Synctest = true
			return f
		})
	})
	t.Run("Chain", func(t *testing.T) {
		transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
			b := backend(t)
			f := fixture(overPipe(t, overPipe(t, b)), overPipe(t, b))
			f.Synctest = true
			return f
		})
	})
}
