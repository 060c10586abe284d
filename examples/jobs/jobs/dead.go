package jobs

import (
	"context"
	"errors"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/compose"
)

// DeadLetters lists up to max dead letters, in no certain order, and leaves them where they are: it takes them out, gives
// them back, and that counts as no attempt. While it looks nobody else can. It returns earlier when none came for idle.
// max is 1 to [transport.MaxBuffer].
func DeadLetters(ctx context.Context, s transport.Subscriber, q Queue, max int, idle time.Duration) (
	us []Update, err error) {
	sub, err := s.Subscribe(ctx, q.Dead(), keeper, transport.Buffer(max))
	if err != nil {
		return nil, err
	}
	var out []*transport.Delivery
	defer func() {
		err = errors.Join(err, sub.Close()) // before giving back, or they would come here again
		for _, d := range out {
			err = errors.Join(err, d.Nack(transport.CodeCanceled))
		}
	}()
	for len(out) < max {
		wait, cancel := context.WithTimeout(ctx, idle)
		d, err := sub.Next(wait)
		cancel()
		switch {
		case err == nil:
			out, us = append(out, d), append(us, deadLetter(d.Message))
		case ctx.Err() == nil && wait.Err() != nil:
			return us, nil
		default:
			return us, err
		}
	}
	return us, nil
}

// Redrive puts up to max dead letters back into the queue, each with its ID, so that they can be followed; 0 means 65536.
// It returns how many, earlier when none came for idle. One that dies again while it runs is left, and the error is
// CodeFailedPrecondition.
func Redrive(ctx context.Context, t transport.Transport, q Queue, max int, idle time.Duration) (int, error) {
	return compose.Redrive(ctx, t, t, q.Dead(), &compose.RedriveOptions{Max: max, Idle: idle,
		Subscribe: []transport.SubscribeOption{keeper}})
}
