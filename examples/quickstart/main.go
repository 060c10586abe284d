// Quickstart is the first program of the README.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

var (
	greet   = transport.Operation[string, string]{Topic: "hello.greet"} // a call: the sender waits for the answer
	greeted = transport.Event[string]{Topic: "hello.greeted"}           // an event: the sender goes on
)

// hello is the application. It does not know which transport carries it.
func hello(ctx context.Context, t transport.Transport) error {
	heard := make(chan string, 1)
	service, err := transport.Start(ctx, t,
		greet.Bind(func(ctx context.Context, name string) (string, error) {
			return "Hello, " + name, greeted.Publish(ctx, t, name)
		}),
		greeted.Bind(func(_ context.Context, name string) error { heard <- name; return nil }),
	)
	if err != nil {
		return err
	}
	reply, err := greet.Call(ctx, t, "Ada")
	if err != nil {
		return err
	}
	fmt.Printf("%s (%s was greeted)\n", reply, <-heard)
	return service.Shutdown(ctx)
}

func main() {
	if err := hello(context.Background(), mem.New(nil)); err != nil {
		log.Fatal(err)
	}
}
