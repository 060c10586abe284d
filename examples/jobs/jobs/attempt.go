package jobs

import (
	"context"
	"strconv"

	"github.com/intermodal-go/intermodal/transport"
)

// headerAttempt shows a handler which attempt it is. It stands in the worker's copy only.
const headerAttempt = "job-attempt"

// counting writes each delivery's Attempt into its header, where a Handler can see it.
type counting struct{ transport.Subscriber }

func (c counting) Subscribe(ctx context.Context, topic string, opts ...transport.SubscribeOption) (
	transport.Subscription, error) {
	s, err := c.Subscriber.Subscribe(ctx, topic, opts...)
	if err != nil {
		return nil, err
	}
	return countingSubscription{s}, nil
}

type countingSubscription struct{ transport.Subscription }

func (s countingSubscription) Next(ctx context.Context) (*transport.Delivery, error) {
	d, err := s.Subscription.Next(ctx)
	if err == nil {
		d.Message = d.Message.Clone()
		d.Message.Header.Set(headerAttempt, strconv.Itoa(d.Attempt))
	}
	return d, err
}
