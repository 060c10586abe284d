package rest_test

import (
	"context"
	"net"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/transport/transporttest"
	"github.com/intermodal-go/intermodal/transport/transporttest/pipe"
)

// fixture has a client that sends to a server over the backend that behind makes of a bus; the bus itself receives.
func fixture(t testing.TB, behind func(t testing.TB, bus *mem.Bus) rest.Backend) transporttest.Fixture {
	const history = 512 // more than any case that is not about eviction has in flight
	bus := mem.New(&mem.Options{HistoryMessages: history})
	t.Cleanup(func() { bus.Close() })
	server, err := rest.NewServer(behind(t, bus), &rest.Options{MaxTimeout: 2 * time.Hour})
	require.NoError(t, err)
	web := httptest.NewServer(server)
	client, err := rest.NewClient(web.URL, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		client.Close()
		web.Close()
		require.NoError(t, server.Shutdown(context.Background()))
	})
	return transporttest.Fixture{
		Sender:   transport.Join(transport.Parts{Publisher: client, Caller: client}),
		Receiver: transport.Join(transport.Parts{Subscriber: bus, Responder: bus}),
		Lacks:    []transport.Op{transport.OpOpen, transport.OpAccept},
		Offers: transport.AtLeastOnce | transport.Ordered | transport.Replay | transport.Groups | transport.DeadLetters |
			transport.Delays,
		Retention: history,
		Disrupt:   web.CloseClientConnections,
	}
}

func TestConformance(t *testing.T) {
	transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
		return fixture(t, func(_ testing.TB, bus *mem.Bus) rest.Backend { return bus })
	})
}

// The server is a gateway: what is behind it may itself be somewhere else.
func TestConformanceThroughPipe(t *testing.T) {
	transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
		return fixture(t, func(t testing.TB, bus *mem.Bus) rest.Backend {
			near, far := net.Pipe()
			s := pipe.NewServer(bus, nil)
			served := make(chan error, 1)
			go func() { served <- s.ServeConn(context.Background(), far) }()
			c := pipe.NewClient(near, nil)
			t.Cleanup(func() {
				c.Close()
				require.NoError(t, <-served)
				require.NoError(t, s.Close())
			})
			return c
		})
	})
}
