package main

import (
	"context"
	"errors"

	"github.com/intermodal-go/intermodal/examples/documents/document"
	"github.com/intermodal-go/intermodal/transport"
)

// The contracts: what the program that offers the service and the one that uses it have to agree on.
var (
	// Process is the document read at once: the sender waits for the answer.
	Process = transport.Operation[document.Request, document.Response]{Topic: "documents.process"}
	// Submitted is the document read later, as a job. The ID of the message is the job's.
	Submitted = transport.Event[document.Request]{Topic: "documents.submitted"}
	// Processed tells of a job that is done.
	Processed = transport.Event[Result]{Topic: "documents.processed"}
	// Failed has the jobs that were refused or given up on, as they were submitted.
	Failed = transport.Event[document.Request]{Topic: "documents.failed"}
)

// A Result is what became of a job.
type Result struct {
	Job      string            `json:"job"` // ID of the message that submitted it
	Response document.Response `json:"response"`
}

// queue makes workers share the jobs, pushed or pulled. A job that fails three times is put aside.
var queue = transport.SubscribeOptions{Group: "documents.workers", MaxAttempts: 3, DeadLetter: Failed.Topic}

// bindings are the service: the same function bound to calls and to jobs. It does not know on which transport it runs.
func bindings(results transport.Publisher, workers int) []transport.Binding {
	return []transport.Binding{
		Process.Bind(document.ProcessDocument, transport.Use(codes), transport.Workers(workers)),
		Submitted.Bind(job(results), transport.Use(codes), transport.Workers(workers), queue),
	}
}

// job makes a job of the function: what it returns is published. A job may come twice, after a crash say, and so may
// its result: who waits for it goes by the ID.
func job(results transport.Publisher) func(context.Context, document.Request) error {
	return func(ctx context.Context, r document.Request) error {
		resp, err := document.ProcessDocument(ctx, r)
		if err != nil {
			return err
		}
		return Processed.Publish(ctx, results, Result{Job: transport.MessageFrom(ctx).ID, Response: resp})
	}
}

// codes gives the errors of the business the Code and the text that a peer sees. It stands here and not in the function,
// which knows nothing of peers. All three say that the document is wrong whenever it comes, so that no job is retried.
func codes(next transport.Handler) transport.Handler {
	return func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
		reply, err := next(ctx, m)
		for _, refusal := range []error{document.ErrEmpty, document.ErrTooLarge, document.ErrNotText} {
			if errors.Is(err, refusal) {
				return nil, transport.Wrap(err, transport.CodeInvalidArgument, "%v", refusal)
			}
		}
		return reply, err
	}
}
