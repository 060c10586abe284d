package amqpx

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// directReply is the pseudo-queue of direct reply-to (https://www.rabbitmq.com/docs/direct-reply-to): what is sent to
// the address that the broker puts in its place goes straight to the channel that published the request.
const directReply = "amq.rabbitmq.reply-to"

// Values of the property type. A reply has none. It is a property because a table in each message would cost as much as
// all the rest of it.
const (
	typeCall    = "intermodal.call"    // a request, whose caller understands typeWorking
	typeError   = "intermodal.error"   // the body is a problem document
	typeWorking = "intermodal.working" // the reply will come, though the queue is gone: see caller.watch
)

// keyDeadline is a key of a request's table that is ours alone: as the deadline header; from the caller's ctx.
const keyDeadline = "x-intermodal-deadline"

const (
	// watchEvery is how often the queues of pending calls are looked at, and how old a call must be to be looked after.
	watchEvery = time.Second
	// watchMax is how many queues one look takes in at most.
	watchMax = 64
	// abandonedAfter is how long a queue may have calls and no consumer: a responder may be connecting again.
	abandonedAfter = 5 * time.Second
	// workingEvery is how often a responder that has closed says that it is still at work, and workingFor how long a
	// caller believes it.
	workingEvery, workingFor = 10 * time.Second, 30 * time.Second
	// aloneMax is the largest body that is sent by Call itself if nothing else is under way.
	aloneMax = 16 << 10
	// writeMax is how many requests become one write at most.
	writeMax = 64
	// maxExpiration is the longest time to live that RabbitMQ takes, 49 days.
	maxExpiration = (1<<32 - 1) * time.Millisecond
)

// errNobody is what a call gets that finds no queue.
var errNobody error = &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent,
	Message: "nobody responds"}

// unknownOutcome is what a call gets that was sent and lost sight of.
func unknownOutcome(cause error, text string) error {
	return &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonOutcomeUnknown, Message: text,
		Cause: cause}
}

// A caller makes the client's calls: all on one channel, whose connection it shares with the responders and nobody
// else. An alarm of the broker holds up a connection that publishes, and that one must not hold up acknowledgements of
// events; and a reply and the acknowledgement of its request must be written in this order.
//
// It has three goroutines, from the first call on: one writes requests, so that a Call whose ctx ends does not wait for
// the socket; one takes what comes back; one watches over the queues of the calls that wait.
type caller struct {
	c        *Client
	link     *link
	first    sync.Once
	refused  error // set by first: the client was closing
	ctx      context.Context
	cancel   context.CancelFunc
	done     chan struct{}
	requests chan *request // taken while there is a connection

	mu      sync.Mutex
	ch      *channel            // nil: there is none
	last    uint64              // correlation ID
	pending map[string]*request // what was sent, by correlation ID
	calm    chan struct{}       // closed and made anew when pending becomes empty
}

// A request is one Call on its way.
type request struct {
	queue string
	msg   amqp.Publishing
	done  chan struct{} // closed when reply and err are set

	// Under caller.mu:
	given bool      // its Call has returned
	heard time.Time // when it was sent, or until when its responder is believed to be at work
	reply *transport.Message
	err   error
}

func newCaller(c *Client) *caller {
	k := &caller{c: c, link: newLink(c, "call"), done: make(chan struct{}), requests: make(chan *request),
		pending: map[string]*request{}, calm: make(chan struct{})}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k
}

// Call implements [transport.Caller]. The request goes to the queue of the topic, from which one responder takes it;
// the reply comes straight back. While there is no connection Call waits for one, until ctx ends.
//
// Without a responder it is CodeUnavailable with the Reason NOT_SENT at once. If the connection is lost before the
// reply has come, the responder's connection is lost before it has replied, or the last responder has vanished for 5 s,
// it is CodeUnavailable with the Reason OUTCOME_UNKNOWN. The end of ctx is not told to the responder, which has its
// deadline alone: a call that nobody took by then is dropped by the broker.
func (c *Client) Call(ctx context.Context, m *transport.Message) (*transport.Message, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := m.Check(c.o.MaxBytes); err != nil {
		return nil, err
	}
	if err := transport.CheckTopic(m.Topic); err != nil {
		return nil, err
	}
	if !c.known(m.Topic) {
		return nil, transport.Errorf(transport.CodeUnimplemented, "there is no operation %q", m.Topic)
	}
	deadline, err := m.Header.Deadline()
	if err != nil {
		return nil, err
	}
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	msg, err := encodeRequest(ctx, m)
	if err != nil {
		return nil, err
	}
	return c.caller.call(ctx, &request{queue: c.topology.callQueue(m.Topic), msg: msg, done: make(chan struct{})})
}

// encodeRequest returns m as a request that ends with ctx.
func encodeRequest(ctx context.Context, m *transport.Message) (amqp.Publishing, error) {
	msg, err := encodeCall(m)
	if err != nil {
		return msg, err
	}
	msg.ReplyTo, msg.Type = directReply, typeCall
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		if left <= 0 {
			return msg, context.DeadlineExceeded
		}
		h := transport.Header{}
		h.SetDeadline(deadline)
		if msg.Headers == nil {
			msg.Headers = make(amqp.Table, 1)
		}
		msg.Headers[keyDeadline] = h.Get(transport.HeaderDeadline)
		h.SetMillis(transport.HeaderTTL, min(left, maxExpiration))
		msg.Expiration = h.Get(transport.HeaderTTL)
	}
	return msg, nil
}

// start starts the goroutines with the first call. The error says that the client is closed.
func (k *caller) start() error {
	k.first.Do(func() {
		if k.refused = k.c.begin(k); k.refused == nil {
			go k.run()
		}
	})
	return k.refused
}

// call sends r and waits for the reply.
func (k *caller) call(ctx context.Context, r *request) (*transport.Message, error) {
	if err := k.start(); err != nil {
		return nil, err
	}
	if !k.sendAlone(r) {
		select {
		case k.requests <- r:
		case <-ctx.Done():
			return nil, k.link.noSession(ctx.Err(), nil)
		case <-k.ctx.Done():
			return nil, errClosed
		}
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if !k.giveUp(r) {
			<-r.done // the reply was there at the same time
			break
		}
		return nil, ctx.Err()
	}
	if r.err != nil && ctx.Err() != nil {
		return nil, ctx.Err() // rather than what the responder made of it
	}
	return r.reply, r.err
}

// giveUp forgets r. It reports whether that has no result yet.
func (k *caller) giveUp(r *request) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r.reply != nil || r.err != nil {
		return false
	}
	r.given = true
	k.forget(r.msg.CorrelationId)
	return true
}

// forget takes a request out of pending. Under mu.
func (k *caller) forget(id string) {
	if delete(k.pending, id); len(k.pending) == 0 {
		close(k.calm)
		k.calm = make(chan struct{})
	}
}

// finish ends the request with this correlation ID, if it is still waited for.
func (k *caller) finish(id string, reply *transport.Message, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r := k.pending[id]; r != nil {
		r.reply, r.err = reply, err
		k.forget(id)
		close(r.done)
	}
}

// run serves one session after the other.
func (k *caller) run() {
	defer close(k.done)
	backoff := transport.Backoff{Min: 10 * time.Millisecond, Max: 5 * time.Second}
	for attempt := 1; ; attempt++ {
		s, err := k.link.session(k.ctx)
		if err != nil {
			return // closed
		}
		if k.serve(s) {
			attempt = 1
		}
		select {
		case <-time.After(backoff.Delay(attempt)):
		case <-k.ctx.Done():
			return
		}
	}
}

// serve makes calls on s until that is lost. It reports whether there were any.
func (k *caller) serve(s *session) (worked bool) {
	ch, err := s.channel(k.ctx)
	if err != nil {
		return false
	}
	defer ch.close()
	returns := ch.NotifyReturn(make(chan amqp.Return, 64))
	var replies <-chan amqp.Delivery
	err = ch.do(k.ctx, func(ac *amqp.Channel) (err error) {
		replies, err = ac.Consume(directReply, "", true, false, false, false, nil)
		return err
	})
	if err != nil {
		return false
	}
	k.mu.Lock()
	k.ch = ch
	k.mu.Unlock()
	ctx, cancel := context.WithCancel(k.ctx)
	var wg sync.WaitGroup
	wg.Go(func() { k.write(ctx, ch) })
	wg.Go(func() { k.watch(ctx) })
	for open := true; open; {
		select {
		case d, ok := <-replies:
			if open = ok; ok {
				k.take(&d)
			}
		case r, ok := <-returns:
			if open = ok; ok {
				k.c.stats.returned.Add(1)
				k.finish(r.CorrelationId, nil, errNobody)
			}
		case <-ctx.Done():
			open = false
		}
	}
	cancel()
	wg.Wait()
	k.lost(ch)
	return true
}

// lost fails all that is pending: the replies would come to a channel that is gone.
func (k *caller) lost(ch *channel) {
	err := unknownOutcome(ch.err(), "the connection was lost before the reply had come")
	if k.ctx.Err() != nil {
		err = &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonOutcomeUnknown,
			Message: "the client was closed before the reply had come", Cause: errClosed}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ch = nil
	for id, r := range k.pending {
		r.err = err
		k.forget(id)
		close(r.done)
	}
}

// write sends requests until the channel is gone.
func (k *caller) write(ctx context.Context, ch *channel) {
	for {
		select {
		case r := <-k.requests:
			ch.session.socket.cork()
			k.send(ch, r)
			for more, n := true, 1; more && n < writeMax; n++ {
				select {
				case r := <-k.requests:
					k.send(ch, r)
				default:
					more = false
				}
			}
			ch.session.socket.uncork() // its error comes with the end of the channel
		case <-ctx.Done():
			return
		}
	}
}

// sendAlone sends r at once if it is small and nothing else is under way. Then the socket has room for it, so that
// nobody waits, and a goroutine less has to be woken. It reports whether it did.
func (k *caller) sendAlone(r *request) bool {
	k.mu.Lock()
	ch := k.ch
	alone := ch != nil && len(k.pending) == 0 && len(r.msg.Body) <= aloneMax
	if alone {
		k.register(r)
	}
	k.mu.Unlock()
	if alone {
		ch.session.socket.cork()
		k.publish(ch, r)
		ch.session.socket.uncork()
	}
	return alone
}

func (k *caller) send(ch *channel, r *request) {
	k.mu.Lock()
	given := r.given
	if !given {
		k.register(r)
	}
	k.mu.Unlock()
	if !given {
		k.publish(ch, r)
	}
}

// register gives r its correlation ID. Under mu.
func (k *caller) register(r *request) {
	k.last++
	r.msg.CorrelationId, r.heard = strconv.FormatUint(k.last, 36), time.Now()
	k.pending[r.msg.CorrelationId] = r
}

func (k *caller) publish(ch *channel, r *request) {
	id := r.msg.CorrelationId
	switch err := ch.Publish("", r.queue, true, false, r.msg); {
	case err == nil:
	case errors.Is(err, amqp.ErrClosed): // at least the message's end was not written
		k.finish(id, nil, &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent,
			Message: "the connection to the broker is lost", Cause: err})
	default:
		k.finish(id, nil, unknownOutcome(err, "the request may have been sent"))
	}
}

// take takes what a responder has sent. What nobody waits for any more is dropped.
func (k *caller) take(d *amqp.Delivery) {
	switch d.Type {
	case typeWorking:
		k.mu.Lock()
		if r := k.pending[d.CorrelationId]; r != nil {
			r.heard = time.Now().Add(workingFor)
		}
		k.mu.Unlock()
	case typeError:
		k.finish(d.CorrelationId, nil, wire.ParseProblem(d.Body, 0))
	default:
		m, err := decodeCall(d, "")
		if err == nil && m.Size() > k.c.o.MaxBytes {
			err = transport.Errorf(transport.CodeResourceExhausted, "the reply has %d bytes, the limit is %d",
				m.Size(), k.c.o.MaxBytes)
		}
		if err != nil {
			k.finish(d.CorrelationId, nil, err)
			return
		}
		k.finish(d.CorrelationId, &m, nil)
	}
}

// watch fails calls that nobody can answer any more, since a request that was delivered to a queue is told nothing of
// what becomes of that. It asks the broker, every second and for each queue that calls have waited for as long: a queue
// that is gone has taken its requests along; one without a consumer is given some seconds, then it is deleted, so that
// the next calls fail at once. Calls whose responder has said that it is at work are let alone.
func (k *caller) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	unused := map[string]time.Time{} // since when
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		waiting := k.waiting()
		for queue := range unused {
			if !waiting[queue] {
				delete(unused, queue)
			}
		}
		for queue := range waiting {
			k.look(ctx, queue, unused)
		}
	}
}

// waiting returns the queues of calls that have waited for a while.
func (k *caller) waiting() map[string]bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	queues := map[string]bool{}
	now := time.Now()
	for _, r := range k.pending {
		if now.Sub(r.heard) >= watchEvery && len(queues) < watchMax {
			queues[r.queue] = true
		}
	}
	return queues
}

// look looks at one queue.
func (k *caller) look(ctx context.Context, queue string, unused map[string]time.Time) {
	now := time.Now()
	var q amqp.Queue
	err := k.link.once(ctx, func(ac *amqp.Channel) (err error) {
		q, err = ac.QueueDeclarePassive(queue, true, false, false, false, nil)
		return err
	})
	switch {
	case transport.CodeOf(err) == transport.CodeNotFound:
		k.abandon(queue, now)
	case err != nil:
	case q.Consumers > 0:
		delete(unused, queue)
	case unused[queue].IsZero():
		unused[queue] = now
	case now.Sub(unused[queue]) >= abandonedAfter:
		now = time.Now()
		if k.link.once(ctx, func(ac *amqp.Channel) error {
			_, err := ac.QueueDelete(queue, true, false, false)
			return err
		}) == nil {
			delete(unused, queue)
			k.abandon(queue, now)
		}
	}
}

// abandon fails the calls that were sent to the queue before a time.
func (k *caller) abandon(queue string, before time.Time) {
	err := unknownOutcome(nil, "the responders have vanished")
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, r := range k.pending {
		if r.queue == queue && r.heard.Before(before) {
			r.err = err
			k.forget(id)
			close(r.done)
		}
	}
}

// shutdown implements running: it waits for the calls that are under way.
func (k *caller) shutdown(ctx context.Context) error {
	for {
		k.mu.Lock()
		n, calm := len(k.pending), k.calm
		k.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-calm:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// end implements running. The link is closed with the client's others.
func (k *caller) end() {
	k.cancel()
	<-k.done
}

// callKeys have a place of their own in an AMQP message, which a call needs for itself: they go into the table.
var callKeys = [...]string{transport.HeaderReplyTo, transport.HeaderCorrelationID, transport.HeaderTTL}

// encodeCall returns a request or a reply. It is not persistent: nobody waits for it after a restart of the broker.
func encodeCall(m *transport.Message) (amqp.Publishing, error) {
	c := *m
	if c.ID == "" {
		c.ID = transport.NewID()
	}
	var inTable amqp.Table
	for _, key := range callKeys {
		if vs := c.Header.Values(key); len(vs) == 1 { // several are in the table anyway
			if inTable == nil {
				c.Header, inTable = maps.Clone(c.Header), amqp.Table{}
			}
			delete(c.Header, key)
			inTable[key] = vs[0]
		}
	}
	msg, err := encode(&c, time.Now())
	if err != nil {
		return msg, err
	}
	if msg.Headers == nil {
		msg.Headers = inTable
	} else {
		maps.Copy(msg.Headers, inTable)
	}
	msg.DeliveryMode = amqp.Transient
	return msg, nil
}

// decodeCall is the reverse.
func decodeCall(d *amqp.Delivery, topic string) (transport.Message, error) {
	c := *d
	c.ReplyTo, c.CorrelationId, c.Expiration = "", "", ""
	return decode(&c, topic)
}
