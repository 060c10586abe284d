package main

import (
	"context"
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/transport/transporttest"
	"github.com/intermodal-go/intermodal/transport/transporttest/leak"
	"github.com/intermodal-go/intermodal/transport/transporttest/pipe"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestProgram(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "run", ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "Hello, Ada (Ada was greeted)\n", string(out))
}

// overTCP is the same application, with the bus in another program.
func overTCP(ctx context.Context, address string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	client := pipe.NewClient(conn, nil)
	defer client.Close()
	return hello(ctx, client)
}

func TestTheSameApplicationOverTCP(t *testing.T) {
	bus := mem.New(nil)
	defer bus.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	server := pipe.NewServer(bus, nil)
	go func() { served <- server.Serve(listener) }()

	require.NoError(t, overTCP(t.Context(), listener.Addr().String()))

	require.NoError(t, server.Close())
	require.NoError(t, <-served)
}

// untilStopped is the README's way to run a service and to end it.
func untilStopped(ctx, atMost context.Context, t transport.Transport, bindings []transport.Binding, stopped <-chan struct{}) error {
	service, err := transport.Start(ctx, t, bindings...) // until ctx ends
	if err != nil {
		return err
	}
	<-stopped
	return service.Shutdown(atMost) // takes nothing new, lets handlers finish, gives the rest back
}

func TestShutdownLetsHandlersFinish(t *testing.T) {
	bus := mem.New(nil)
	defer bus.Close()
	atMost, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	begun, finish, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
	slow := greet.Bind(func(context.Context, string) (string, error) {
		close(begun)
		<-finish
		return "at last", nil
	})
	ended := make(chan error, 1)
	go func() { ended <- untilStopped(t.Context(), atMost, bus, []transport.Binding{slow}, stopped) }()

	reply := make(chan string, 1)
	go func() {
		r, _ := greet.Call(t.Context(), eventually(bus), "Ada")
		reply <- r
	}()
	<-begun
	close(stopped)
	require.Empty(t, ended, "it waits for the handler")
	close(finish)
	require.NoError(t, <-ended)
	require.Equal(t, "at last", <-reply)
}

// eventually calls again as long as nobody responds.
func eventually(c transport.Caller) transport.Caller {
	return transport.Handler(func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
		for {
			r, err := c.Call(ctx, m)
			if transport.CodeOf(err) != transport.CodeUnavailable {
				return r, err
			}
		}
	})
}

// The README shows this as what the author of a transport writes.

const offered = transport.AtLeastOnce | transport.Ordered | transport.Replay | transport.Groups | transport.DeadLetters |
	transport.Delays

func TestConformance(t *testing.T) {
	transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
		bus := mem.New(nil)
		t.Cleanup(func() { bus.Close() })
		return transporttest.Fixture{Sender: bus, Receiver: bus, Offers: offered, Peer: true, Synctest: true}
	})
}
