package compose

import (
	"context"
	"crypto/rand"
	"strconv"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// RequesterOptions are the options of [NewRequester]. The zero value, and nil, mean the defaults.
type RequesterOptions struct {
	// Timeout bounds a Call whose ctx has no deadline. 0 means 30 s.
	Timeout time.Duration
	// MaxBytes is the largest request, as [transport.Message.Size] counts, the envelope aside. 0 means 1 MiB.
	MaxBytes int
}

// A Requester is a [transport.Caller] over events: it publishes requests and matches the replies that come to a topic
// of its own. Safe for concurrent use. Close it.
type Requester struct {
	o       RequesterOptions
	p       transport.Publisher
	s       transport.Subscriber
	topic   string
	life    context.Context // ends with Close
	end     context.CancelFunc
	opening chan struct{} // a lock: who has put something in may subscribe

	mu     sync.Mutex
	sub    transport.Subscription // nil while there is none
	done   chan struct{}          // closed when sub's goroutine has ended
	calls  map[string]chan<- answer
	last   uint64 // correlation-id
	closed bool
}

// An answer is what a call returns.
type answer struct {
	reply *transport.Message
	err   error
}

// NewRequester returns a Requester that publishes to p and subscribes to its replies with s: both must reach the
// responders' transport. The first Call subscribes; if that subscription ends, calls that wait fail with
// CodeUnavailable and Reason OUTCOME_UNKNOWN, and the next one subscribes anew.
func NewRequester(p transport.Publisher, s transport.Subscriber, o *RequesterOptions) *Requester {
	// A secret, unlike a message's ID: who knows the topic can forge replies.
	r := &Requester{p: p, s: s, topic: "_reply." + rand.Text(), opening: make(chan struct{}, 1),
		calls: map[string]chan<- answer{}}
	if o != nil {
		r.o = *o
	}
	if r.o.Timeout <= 0 {
		r.o.Timeout = 30 * time.Second
	}
	r.life, r.end = context.WithCancel(context.Background())
	return r
}

// Call publishes m and waits for the reply. The request keeps m's ID or gets one; it carries the earlier of ctx's
// deadline and m's deadline header. When ctx ends Call returns its error at once, and a reply that comes later is
// dropped. Without a responder it waits until then. If ctx has no deadline it fails after Timeout with
// CodeDeadlineExceeded. A responder's error is Remote. After Close it is CodeUnavailable with Reason CLOSED.
func (r *Requester) Call(ctx context.Context, m *transport.Message) (*transport.Message, error) {
	if err := m.Check(r.o.MaxBytes); err != nil {
		return nil, err
	}
	if err := transport.CheckTopic(m.Topic); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	deadline, err := m.Header.Deadline()
	if err != nil {
		return nil, err
	}
	bounded, cancel := ctx, context.CancelFunc(nil)
	if !deadline.IsZero() {
		bounded, cancel = context.WithDeadline(ctx, deadline)
	} else if _, ok := ctx.Deadline(); !ok {
		bounded, cancel = context.WithTimeout(ctx, r.o.Timeout)
	}
	if cancel != nil {
		defer cancel()
	}
	reply, err := r.call(bounded, m)
	if err == context.DeadlineExceeded && ctx.Err() == nil && deadline.IsZero() {
		return nil, &transport.Error{Code: transport.CodeDeadlineExceeded, Reason: transport.ReasonOutcomeUnknown,
			Message: "no reply within " + r.o.Timeout.String(), Cause: err}
	}
	return reply, err
}

func (r *Requester) call(ctx context.Context, m *transport.Message) (*transport.Message, error) {
	correlation, answers, err := r.register(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.p.Publish(ctx, r.request(ctx, m, correlation)); err != nil {
		r.forget(correlation)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	select {
	case a := <-answers:
		return a.reply, a.err
	case <-ctx.Done():
		r.forget(correlation)
		return nil, ctx.Err()
	}
}

// request returns the event that carries m. ctx has a deadline.
func (r *Requester) request(ctx context.Context, m *transport.Message, correlation string) *transport.Message {
	e := &transport.Message{ID: m.ID, Topic: m.Topic, Header: make(transport.Header, len(m.Header)+3)}
	if e.ID == "" {
		e.ID = transport.NewID()
	}
	e.Header[transport.HeaderReplyTo] = []string{r.topic}
	e.Header[transport.HeaderCorrelationID] = []string{correlation}
	if deadline, ok := ctx.Deadline(); ok {
		e.Header.SetDeadline(deadline)
	}
	pack(e, m.Header, m.Body, hiddenInRequest)
	return e
}

// register enters a call, after it has made sure that its reply will be seen.
func (r *Requester) register(ctx context.Context) (string, <-chan answer, error) {
	for {
		r.mu.Lock()
		if r.closed {
			r.mu.Unlock()
			return "", nil, errClosed
		}
		if r.sub != nil {
			r.last++
			correlation := strconv.FormatUint(r.last, 10)
			answers := make(chan answer, 1)
			r.calls[correlation] = answers
			r.mu.Unlock()
			return correlation, answers, nil
		}
		r.mu.Unlock()
		if err := r.open(ctx); err != nil {
			return "", nil, err
		}
	}
}

var errClosed = &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonClosed, Message: "the requester is closed"}

func (r *Requester) forget(correlation string) {
	r.mu.Lock()
	delete(r.calls, correlation)
	r.mu.Unlock()
}

// open subscribes, unless that is done already or the Requester is closed.
func (r *Requester) open(ctx context.Context) error {
	select {
	case r.opening <- struct{}{}:
		defer func() { <-r.opening }()
	case <-ctx.Done():
		return ctx.Err()
	}
	r.mu.Lock()
	ready := r.sub != nil || r.closed
	r.mu.Unlock()
	if ready {
		return nil
	}
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.life, cancel)()
	sub, err := r.s.Subscribe(own, r.topic)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return ctx.Err()
	case r.life.Err() != nil:
		return errClosed
	default:
		return transport.Wrap(err, transport.CodeOf(err), "cannot subscribe to replies")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sub, r.done = sub, make(chan struct{})
	go r.listen(sub, r.done)
	return nil
}

// listen hands out replies until sub ends.
func (r *Requester) listen(sub transport.Subscription, done chan struct{}) {
	defer close(done)
	for {
		d, err := sub.Next(context.Background()) // Close ends it
		if err != nil {
			sub.Close()
			r.lost(err)
			return
		}
		r.answer(d.Message)
		d.Ack() // nobody is left to be told of an error; a reply that comes again is dropped
	}
}

// answer hands a reply to its call, if that still waits.
func (r *Requester) answer(m *transport.Message) {
	correlation := m.Header.Get(transport.HeaderCorrelationID)
	r.mu.Lock()
	answers, ok := r.calls[correlation]
	delete(r.calls, correlation)
	r.mu.Unlock()
	if ok {
		reply, err := unpackReply(m)
		answers <- answer{reply, err}
	}
}

// lost fails the calls that wait.
func (r *Requester) lost(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sub = nil
	for correlation, answers := range r.calls {
		delete(r.calls, correlation)
		answers <- answer{err: &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonOutcomeUnknown,
			Message: "the subscription to replies has ended", Cause: cause}}
	}
}

// Close ends the Requester: calls that wait fail with CodeUnavailable and Reason OUTCOME_UNKNOWN. It waits for the
// goroutine and returns the error of closing the subscription. Closing twice is safe.
func (r *Requester) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.end()
	r.opening <- struct{}{} // whoever subscribes is done soon: its context has ended
	r.mu.Lock()
	sub, done := r.sub, r.done
	r.mu.Unlock()
	<-r.opening
	if done == nil {
		return nil
	}
	var err error
	if sub != nil {
		err = sub.Close()
	}
	<-done
	return err
}
