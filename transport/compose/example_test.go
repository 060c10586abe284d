package compose_test

import (
	"context"
	"fmt"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/compose"
	"github.com/intermodal-go/intermodal/transport/mem"
)

var ctx = context.Background()

func ExampleRequester() {
	bus := mem.New(nil) // anything that has events and groups
	defer bus.Close()
	requester := compose.NewRequester(bus, bus, nil)
	defer requester.Close()
	t := transport.Join(transport.Parts{Caller: requester, Responder: compose.NewResponder(bus, bus, nil)})

	double := transport.Operation[int, int]{Topic: "math.double"}
	service, err := transport.Start(ctx, t, double.Bind(func(_ context.Context, n int) (int, error) { return 2 * n, nil }))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(double.Call(ctx, t, 21))
	fmt.Println(service.Shutdown(ctx))
	// Output:
	// 42 <nil>
	// <nil>
}

func ExampleNewResponder() {
	bus := mem.New(nil)
	defer bus.Close()
	sub, err := compose.NewResponder(bus, bus, nil).Respond(ctx, "greet")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()

	// A program that knows nothing of this package asks.
	answers, _ := bus.Subscribe(ctx, "answers")
	defer answers.Close()
	bus.Publish(ctx, &transport.Message{ID: "q1", Topic: "greet", Header: transport.Header{"reply-to": {"answers"}}, Body: []byte("world")})

	d, _ := sub.Next(ctx)
	d.Settle(&transport.Message{Body: append([]byte("hello "), d.Body...)}, nil)

	a, _ := answers.Next(ctx)
	fmt.Println(string(a.Body), a.Header.Get("correlation-id"))
	// Output: hello world q1
}

func ExampleFailover() {
	bus := mem.New(nil)
	defer bus.Close()
	down := subscriberFunc(func(context.Context, string, ...transport.SubscribeOption) (transport.Subscription, error) {
		return nil, transport.Errorf(transport.CodeUnavailable, "server 1 is down")
	})
	s, err := compose.NewFailover([]transport.Subscriber{down, bus}, nil).Subscribe(ctx, "scores")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	bus.Publish(ctx, &transport.Message{Topic: "scores", Body: []byte("1:0")})
	d, err := s.Next(ctx)
	fmt.Println(string(d.Body), err)
	// Output: 1:0 <nil>
}

func ExampleRedrive() {
	bus := mem.New(nil)
	defer bus.Close()
	workers, _ := bus.Subscribe(ctx, "jobs", transport.Group("workers"), transport.DeadLetter("jobs.dead"))
	defer workers.Close()
	bus.Publish(ctx, &transport.Message{Topic: "jobs", Body: []byte("resize")})
	d, _ := workers.Next(ctx)
	d.Nack(transport.Errorf(transport.CodeInvalidArgument, "a bug that is fixed by now"))

	fmt.Println(compose.Redrive(ctx, bus, bus, "jobs.dead", &compose.RedriveOptions{Idle: 200 * time.Millisecond}))
	d, _ = workers.Next(ctx)
	fmt.Println(string(d.Body), d.Ack())
	// Output:
	// 1 <nil>
	// resize <nil>
}
