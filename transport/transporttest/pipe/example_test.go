package pipe_test

import (
	"context"
	"fmt"
	"net"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/transport/transporttest/pipe"
)

// A bus in this process, used through a connection as if it were here.
func Example() {
	ctx := context.Background()
	bus := mem.New(nil)
	defer bus.Close()
	server := pipe.NewServer(bus, nil)
	defer server.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go server.Serve(l)

	greet := transport.Operation[string, string]{Topic: "greet"}
	service, err := transport.Start(ctx, bus, greet.Bind(func(ctx context.Context, name string) (string, error) {
		p, _ := transport.PeerFrom(ctx)
		return "Hello, " + name + ", over " + p.Protocol + "!", nil
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer service.Shutdown(ctx)

	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	client := pipe.NewClient(nc, nil)
	defer client.Close()
	reply, err := greet.Call(ctx, client, "Ada")
	fmt.Println(reply, err)
	// Output: Hello, Ada, over pipe! <nil>
}
