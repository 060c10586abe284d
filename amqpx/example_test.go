package amqpx_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/transport"
)

// A subscriber that keeps its cursor goes on where it was, on any server.
func ExampleHistory() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := amqpx.Dial(ctx, "amqp://localhost", &amqpx.Options{
		History: []amqpx.History{{Topics: "orders.#", MaxBytes: 10 << 30, MaxAge: 7 * 24 * time.Hour}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	cursor := "" // from now on; transport.Oldest for all there is
	s, err := c.Subscribe(ctx, "orders.placed", transport.From(cursor), transport.Require(transport.Replay))
	if err != nil {
		log.Fatal(err) // CodeOutOfRange: the cursor is older than the history
	}
	for d, err := range transport.Deliveries(ctx, s) {
		if err != nil {
			log.Print(err)
			break
		}
		fmt.Printf("%s\n", d.Body)
		cursor = d.Cursor() // to be stored with what was made of the message
	}
}

// An operation of which any number of processes may be responders.
func ExampleClient_Call() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := amqpx.Dial(ctx, "amqp://localhost", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	add := transport.Operation[[]int, int]{Topic: "math.add"}
	service, err := transport.Start(ctx, transport.Join(transport.Parts{Responder: c}),
		add.Bind(func(_ context.Context, in []int) (sum int, err error) {
			for _, n := range in {
				sum += n
			}
			return sum, nil
		}))
	if err != nil {
		log.Fatal(err)
	}
	defer service.Shutdown(ctx)

	sum, err := add.Call(ctx, c, []int{2, 3})
	fmt.Println(sum, err)
}
