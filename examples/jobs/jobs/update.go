package jobs

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/intermodal-go/intermodal/transport"
)

// A State is what an [Update] tells of a job.
type State string

const (
	Started   State = "started"   // a worker begins an attempt
	Progress  State = "progress"  // see [Run.Progress]
	Failed    State = "failed"    // the attempt failed; there is another one unless the job is dead
	Succeeded State = "succeeded" // outcome: Result has what the function returned
	Canceled  State = "canceled"  // outcome: a worker dropped the job, see [Client.Cancel]
	Dead      State = "dead"      // outcome: refused, or given up on; it is a dead letter now
)

// Outcome reports whether s is the last that is told of a job, unless it is redriven.
func (s State) Outcome() bool { return s == Succeeded || s == Canceled || s == Dead }

// An Update is one step in the life of a job.
type Update struct {
	Job     string          `json:"job"` // its ID
	Func    string          `json:"func"`
	State   State           `json:"state"`
	Attempt int             `json:"attempt"`          // the last that was begun; 0 if none was, or unknown
	Done    int             `json:"done,omitempty"`   // of Total; for Progress
	Total   int             `json:"total,omitempty"`  // in the function's own unit
	Result  json.RawMessage `json:"result,omitempty"` // for Succeeded
	Error   *Failure        `json:"error,omitempty"`  // for Failed and Dead
	Missed  uint64          `json:"-"`                // updates of this job that were dropped before this one
}

// A Failure is the public part of a function's error.
type Failure struct {
	Code    transport.Code `json:"code"`
	Message string         `json:"message,omitempty"`
}

// Err returns the error that u stands for, with its Code; nil if it stands for none.
func (u Update) Err() error {
	switch {
	case u.State == Canceled:
		return &transport.Error{Code: transport.CodeCanceled, Message: "the job was canceled", Remote: true}
	case u.Error != nil:
		return &transport.Error{Code: u.Error.Code, Message: u.Error.Message, Remote: true}
	case u.State == Failed || u.State == Dead:
		return &transport.Error{Code: transport.CodeUnknown, Remote: true}
	}
	return nil
}

// failure is what a peer may see of err.
func failure(err error) *Failure {
	p := transport.Public(err)
	if p.Message == "" {
		p.Message = p.Reason
	}
	return &Failure{Code: p.Code, Message: p.Message}
}

// deadLetter is the Update that a dead letter stands for. The owner of the group wrote it, so it comes also when the
// worker has died.
func deadLetter(m *transport.Message) Update {
	f := &Failure{Message: m.Header.Get(transport.HeaderDeadLetterReason)}
	f.Code.UnmarshalText([]byte(m.Header.Get(transport.HeaderDeadLetterCode))) // never fails
	attempts, _ := strconv.Atoi(m.Header.Get(transport.HeaderDeadLetterAttempts))
	return Update{Job: m.ID, Func: m.Header.Get(HeaderFunc), State: Dead, Attempt: attempts, Error: f}
}

// A Run is one attempt at a job, as the function sees it.
type Run struct {
	Job     string // its ID
	Func    string
	Attempt int // the first is 1; 0 if the transport cannot tell
	publish func(context.Context, Update) error
}

type runKey struct{}

// From returns the attempt that ctx belongs to. Outside of a job it is the zero Run, so that a function can also be called
// directly.
func From(ctx context.Context) *Run {
	if r, ok := ctx.Value(runKey{}).(*Run); ok {
		return r
	}
	return &Run{}
}

// Progress tells those who follow the job that done of total is done. It does nothing outside of a job. An error means
// that they were not told; the job may go on.
func (r *Run) Progress(ctx context.Context, done, total int) error {
	if r.publish == nil {
		return nil
	}
	return r.publish(ctx, r.update(Progress, Update{Done: done, Total: total}))
}

// update is u as a step of this attempt.
func (r *Run) update(s State, u Update) Update {
	u.Job, u.Func, u.Attempt, u.State = r.Job, r.Func, r.Attempt, s
	return u
}
