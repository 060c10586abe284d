package main

import (
	"context"
	"errors"
	"time"

	"github.com/intermodal-go/intermodal/examples/internal/broker"
	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

// A carrier is what the jobs travel on.
type carrier struct {
	transport.Transport
	name  string
	close func() error
}

// open returns the bus, or a client of the RabbitMQ broker at url.
func open(ctx context.Context, url string) (carrier, error) {
	if url == "" {
		bus := mem.New(nil)
		return carrier{bus, "Jobs in memory", bus.Close}, nil
	}
	namespace := broker.New(url, "jobs")
	client, err := namespace.Dial(ctx)
	if err != nil {
		return carrier{}, err
	}
	return carrier{client, "Jobs on RabbitMQ", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), atMost)
		defer cancel()
		return errors.Join(client.Shutdown(ctx), namespace.Remove(ctx, left()))
	}}, nil
}

// left is what there is on the broker after the story.
func left() broker.Left {
	l := broker.Left{
		Groups: [][2]string{{queue.Run(), "workers"}, {queue.Dead(), "redrive"}},
		Delays: []time.Duration{soon, never},
	}
	for attempt := range queue.MaxAttempts - 1 {
		l.Retries = append(l.Retries, backoff.Delay(attempt+1))
	}
	return l
}
