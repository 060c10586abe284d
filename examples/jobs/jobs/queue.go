package jobs

import (
	"context"
	"errors"

	"github.com/intermodal-go/intermodal/transport"
)

// A Queue is the contract between those who enqueue and those who work: where the jobs are, and how often one is tried.
type Queue struct {
	// Name is what the queue's topics begin with: Name.run, Name.updates, Name.cancel and Name.dead.
	Name string
	// MaxAttempts is how often a job is handed out before it is dead. 0 means 10, or what the queue was declared with;
	// another value than that is refused with CodeFailedPrecondition.
	MaxAttempts int
}

// Run is the topic of the jobs.
func (q Queue) Run() string { return q.Name + ".run" }

// Dead is the topic of the jobs that were refused or given up on.
func (q Queue) Dead() string { return q.Name + ".dead" }

// Updates is what becomes of the jobs.
func (q Queue) Updates() transport.Event[Update] {
	return transport.Event[Update]{Topic: q.Name + ".updates"}
}

func (q Queue) cancel() transport.Event[cancellation] {
	return transport.Event[cancellation]{Topic: q.Name + ".cancel"}
}

// keeper is the group that keeps dead letters until somebody redrives them.
var keeper = transport.Group("redrive")

// workers is the group of the workers.
func (q Queue) workers() transport.SubscribeOptions {
	return transport.SubscribeOptions{Group: "workers", MaxAttempts: q.MaxAttempts, DeadLetter: q.Dead()}
}

// Declare makes the queue exist. A group takes what is published from its first subscription on and outlives it, so jobs
// wait from then on, whether there is a worker or not. [Connect] and [Work] declare; declaring twice is harmless. A
// transport without groups or dead letters refuses with an error that matches errors.ErrUnsupported.
func (q Queue) Declare(ctx context.Context, s transport.Subscriber) error {
	dead, err := s.Subscribe(ctx, q.Dead(), keeper, transport.Buffer(1)) // first: there must be somebody to keep them
	if err != nil {
		return err
	}
	run, err := s.Subscribe(ctx, q.Run(), q.workers(), transport.Buffer(1))
	if err != nil {
		return errors.Join(err, dead.Close())
	}
	return errors.Join(run.Close(), dead.Close())
}
