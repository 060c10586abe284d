package amqpx

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/intermodal-go/intermodal/transport"
)

const (
	burst    = 64                    // messages that are written in one go, at most
	enough   = 64 << 10              // bytes that are enough for one go
	patience = 20 * time.Millisecond // how long a confirm may be late before the later ones are looked at
)

// A publisher publishes on one channel in confirm mode. Messages wait in a queue, are written in its order, and stay in
// flight until they are confirmed. When the channel is lost, what was in flight goes back to the front of the queue.
type publisher struct {
	c     *Client
	l     *link
	slots chan struct{} // one for each pending; its capacity is the window
	wake  chan struct{} // a token: the writer shall look
	sent  chan struct{} // a token: something is in flight
	stop  context.CancelFunc
	ctx   context.Context // until close
	wg    sync.WaitGroup

	mu      sync.Mutex
	queue   pendings // to be written
	flight  pendings // written, or being written
	orphans int      // given up in flight on this channel: nobody waits for their confirms
	newest  uint64   // the newest delivery tag that was confirmed on this channel
	missing bool     // a confirm on this channel seems to be lost
	closing bool
	idle    chan struct{} // closed when closing and nothing is pending
}

// outgoing is a message to be published.
type outgoing struct {
	exchange, key string
	mandatory     bool          // it must reach a queue
	delay         time.Duration // after which its ttl begins; 0: it has none, or begins at once
	msg           amqp.Publishing
}

// A pending is a publish that is not confirmed.
type pending struct {
	p    *publisher
	out  *outgoing
	done chan struct{}
	err  error // read it after done

	// The rest is guarded by p.mu.
	confirm    *amqp.DeferredConfirmation // in flight and written
	due        time.Time                  // when its confirm is overdue, in flight
	limit      time.Time                  // when it is given up in the queue; zero: when ctx ends
	list       *pendings                  // where it is; nil: nowhere
	prev, next *pending
	writes     int // how often it was written
	returned   bool
	suspect    bool // the broker has closed a channel over it, or over another that was in flight with it
	missed     bool // its confirm seemed to be lost; that is believed once
}

func newPublisher(c *Client, l *link) *publisher {
	p := &publisher{c: c, l: l, slots: make(chan struct{}, c.o.Window), wake: make(chan struct{}, 1),
		sent: make(chan struct{}, 1), idle: make(chan struct{})}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

// begin starts the publisher's goroutines.
func (p *publisher) begin() {
	p.wg.Go(p.run)
	p.wg.Go(p.expire)
}

// publish publishes out and waits for the confirm. The error is CodeUnavailable with the Reason NOT_SENT if out was not
// written or found no queue; if the outcome is unknown that is the Reason. The end of ctx can be found in it.
func (p *publisher) publish(ctx context.Context, out *outgoing) error {
	pd, err := p.start(ctx, out)
	if err != nil {
		return err
	}
	return pd.wait(ctx)
}

// start puts out into the queue, once the window has room. out must not change from then on.
func (p *publisher) start(ctx context.Context, out *outgoing) (*pending, error) {
	if len(out.exchange) > 255 || len(out.key) > 255 {
		return nil, transport.Errorf(transport.CodeInvalidArgument, "an exchange or a routing key has more than 255 bytes")
	}
	if err := ctx.Err(); err != nil {
		return nil, notSent(err)
	}
	select {
	case p.slots <- struct{}{}:
	default:
		if err := p.room(ctx); err != nil {
			return nil, err
		}
	}
	pd := &pending{p: p, out: out, done: make(chan struct{})}
	if _, bounded := ctx.Deadline(); !bounded {
		pd.limit = time.Now().Add(p.c.o.ConfirmTimeout)
	}
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		<-p.slots
		return nil, errClosed
	}
	p.queue.push(pd)
	p.mu.Unlock()
	p.poke()
	return pd, nil
}

// room waits for a slot.
func (p *publisher) room(ctx context.Context) error {
	var late <-chan time.Time
	if _, bounded := ctx.Deadline(); !bounded {
		t := time.NewTimer(p.c.o.ConfirmTimeout)
		defer t.Stop()
		late = t.C
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return notSent(ctx.Err())
	case <-late:
		return notSent(nil)
	case <-p.ctx.Done():
		return errClosed
	}
}

// wait waits for the confirm. If ctx ends before, the message is not sent any more; it may have been.
func (pd *pending) wait(ctx context.Context) error {
	select {
	case <-pd.done:
	case <-ctx.Done():
		pd.p.abandon(pd, ctx.Err())
		<-pd.done
	}
	return pd.err
}

func notSent(cause error) error {
	return &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent,
		Message: "the broker could not be given the message in time", Cause: cause}
}

func unknown(cause error) error {
	code := transport.CodeUnavailable
	if errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded) {
		code = transport.CodeOf(cause)
	}
	return &transport.Error{Code: code, Reason: transport.ReasonOutcomeUnknown,
		Message: "the broker did not confirm the message", Cause: cause}
}

// poke makes the writer look.
func (p *publisher) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// inFlight is how many publishes are pending.
func (p *publisher) inFlight() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queue.n + p.flight.n
}

// end ends pd with err. p.mu is held.
func (p *publisher) end(pd *pending, err error) {
	if pd.list != nil {
		pd.list.remove(pd)
	}
	pd.err = err
	close(pd.done)
	<-p.slots
	if p.flight.n == 0 && p.queue.n > 0 {
		p.poke() // a suspect may wait for that
	}
	if p.closing && p.queue.n+p.flight.n == 0 {
		close(p.idle)
	}
}

// abandon ends pd because nobody waits for it any more.
func (p *publisher) abandon(pd *pending, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pd.list != nil {
		p.giveUp(pd, cause)
	}
}

// giveUp ends pd, whose outcome is unknown if it was ever written. p.mu is held.
func (p *publisher) giveUp(pd *pending, cause error) {
	if pd.list == &p.flight {
		p.orphans++
	}
	if pd.writes > 0 {
		p.end(pd, unknown(cause))
	} else {
		p.end(pd, notSent(cause))
	}
}

// run opens a channel whenever there is none, and writes to it.
func (p *publisher) run() {
	for attempt := 1; p.ctx.Err() == nil; attempt++ {
		ch, returns, err := p.open()
		if err == nil {
			since := time.Now()
			var confirming sync.WaitGroup
			confirming.Go(func() { p.collect(ch, returns) })
			p.write(ch)
			if ch.close(); ch.err() == nil { // an alarm has come between
				ch.session.cut()
				<-ch.done
			}
			confirming.Wait()
			p.recall(ch.err())
			if time.Since(since) > steady {
				attempt = 1
			}
			if attempt == 1 {
				continue
			}
		} else if refused(err) {
			p.refuse(err)
			attempt = 0
			select {
			case <-p.wake: // it is tried again for who comes next, who is answered at once
			case <-p.ctx.Done():
			}
			continue
		}
		sleep(p.ctx, p.c.o.Backoff.Delay(attempt))
	}
}

// refused reports whether the broker does not let us publish: there is no exchange, or no right.
func refused(err error) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Server && e.Recover && !transport.Retryable(err)
}

// refuse ends what is in the queue.
func (p *publisher) refuse(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.queue.first != nil {
		p.end(p.queue.first, err)
	}
}

// open opens a channel in confirm mode.
func (p *publisher) open() (*channel, chan amqp.Return, error) {
	s, err := p.l.session(p.ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := p.c.topology.prepare(p.ctx, s); err != nil {
		return nil, nil, err
	}
	ch, err := s.channel(p.ctx)
	if err != nil {
		return nil, nil, err
	}
	// As many can be returned as are in flight, so that the library never waits for room.
	returns := ch.NotifyReturn(make(chan amqp.Return, cap(p.slots)))
	if err := ch.do(p.ctx, func(ch *amqp.Channel) error { return ch.Confirm(false) }); err != nil {
		ch.close()
		return nil, nil, err
	}
	return ch, returns, nil
}

// write writes what is in the queue to ch until that is lost.
func (p *publisher) write(ch *channel) {
	batch := make([]*pending, 0, burst)
	for {
		batch = p.take(ch, batch[:0])
		if len(batch) == 0 {
			select {
			case <-p.wake:
				if p.spent() {
					return
				}
				continue
			case <-ch.done:
			case <-p.ctx.Done():
			}
			return
		}
		if !p.writeAll(ch, batch) || p.spent() {
			return
		}
	}
}

// spent reports whether the channel should be replaced: a confirm seems to be lost, or so many messages, which are
// still counted there, were given up without one.
func (p *publisher) spent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.missing || p.orphans > cap(p.slots)
}

// take moves what is next in the queue into flight.
func (p *publisher) take(ch *channel, batch []*pending) []*pending {
	if ch.session.blocked.Load() {
		return batch
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if first := p.queue.first; first != nil && first.suspect && p.flight.n > 0 {
		return batch // it goes alone, so that the guilty one is found
	}
	bytes := 0
	for pd := p.queue.first; pd != nil && len(batch) < cap(batch) && bytes < enough; pd = p.queue.first {
		bytes += len(pd.out.msg.Body)
		p.queue.remove(pd)
		p.flight.push(pd)
		pd.writes++
		if batch = append(batch, pd); pd.suspect {
			break
		}
	}
	return batch
}

// writeAll writes a batch, and reports whether ch is still good.
func (p *publisher) writeAll(ch *channel, batch []*pending) bool {
	var confirms [burst]*amqp.DeferredConfirmation
	var err error
	n := 0
	ch.session.socket.cork()
	for ; n < len(batch) && err == nil; n++ {
		o := batch[n].out
		if o.delay > 0 {
			o.msg.Headers[ownTime] = time.Now().Add(o.delay).UnixMilli()
		}
		confirms[n], err = ch.PublishWithDeferredConfirm(o.exchange, o.key, o.mandatory, false, o.msg)
	}
	// The library knows that a connection has ended before it says so of its channels.
	lost := ch.session.socket.uncork() != nil || ch.IsClosed() || errors.Is(err, amqp.ErrClosed)
	due := time.Now().Add(p.c.o.ConfirmTimeout)
	p.mu.Lock()
	for i, pd := range batch {
		if pd.list != &p.flight {
			continue // given up meanwhile
		}
		switch {
		case confirms[i] != nil:
			pd.confirm, pd.due = confirms[i], due
			if pd.writes > 1 {
				p.c.stats.republished.Add(1)
			}
		case i == n-1 && !lost:
			p.end(pd, transport.Wrap(err, transport.CodeInternal, "the message cannot be written"))
		}
	}
	for i := len(batch) - 1; i >= 0 && err != nil; i-- { // what was not written comes first again
		if pd := batch[i]; pd.list == &p.flight && pd.confirm == nil {
			pd.writes--
			p.flight.remove(pd)
			p.queue.pushFront(pd)
		}
	}
	p.mu.Unlock()
	select {
	case p.sent <- struct{}{}:
	default:
	}
	return !lost
}

// collect ends what is confirmed, until ch is lost. Confirms usually come in the order of the messages. Where they do
// not, because queues are not equally fast or one has no leader, the later ones are found after a little patience.
func (p *publisher) collect(ch *channel, returns <-chan amqp.Return) {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		oldest := p.oldest()
		if oldest == nil {
			select {
			case <-p.sent:
			case <-ch.done:
				return
			}
			continue
		}
		late.Reset(patience)
		all := false
		select {
		case <-oldest.Done():
		case <-late.C:
			all = true
		}
		if !p.settle(ch, returns, all) {
			return
		}
	}
}

// oldest returns the confirm that should come next, nil if none is to come.
func (p *publisher) oldest() *amqp.DeferredConfirmation {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flight.first == nil {
		return nil
	}
	return p.flight.first.confirm
}

// settle ends what has its confirm, in order up to the first that has not, or all. It reports whether ch is open.
func (p *publisher) settle(ch *channel, returns <-chan amqp.Return, all bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.takeBack(returns) // also those of messages that were given up
	for pd, next := p.flight.first, (*pending)(nil); pd != nil && pd.confirm != nil; pd = next {
		next = pd.next
		select {
		case <-pd.confirm.Done():
		default:
			if !all {
				return true
			}
			continue
		}
		if !pd.confirm.Acked() && ch.IsClosed() {
			return false // closing the channel makes every confirm false
		}
		p.newest = max(p.newest, pd.confirm.DeliveryTag)
		switch {
		case !pd.confirm.Acked():
			p.end(pd, errRefused)
		case pd.out.mandatory && p.isReturned(pd, returns):
			p.c.stats.returned.Add(1)
			p.end(pd, errReturned)
		default:
			p.end(pd, nil)
		}
	}
	return true
}

var (
	errRefused = transport.Errorf(transport.CodeResourceExhausted,
		"the broker did not take the message: a queue is full, or not available")
	errReturned error = &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent,
		Message: "nobody receives the message"}
)

// isReturned reports whether pd, which is confirmed, came back: that is told before its confirm.
func (p *publisher) isReturned(pd *pending, returns <-chan amqp.Return) bool {
	p.takeBack(returns)
	return pd.returned
}

// takeBack marks what came back. p.mu is held.
func (p *publisher) takeBack(returns <-chan amqp.Return) {
	for len(returns) > 0 {
		r := <-returns
		for pd := p.flight.first; pd != nil; pd = pd.next {
			if o := pd.out; o.mandatory && !pd.returned && o.msg.MessageId == r.MessageId && o.key == r.RoutingKey {
				pd.returned = true
				break
			}
		}
	}
}

// recall puts what is in flight back into the queue, in front, because its channel was lost. why is the reason.
func (p *publisher) recall(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var e *amqp.Error
	closed := errors.As(why, &e) && e.Server && e.Code != amqp.ConnectionForced // the broker did not like something
	alone := p.flight.n == 1 && p.orphans == 0
	p.orphans, p.newest, p.missing = 0, 0, false
	for pd, prev := p.flight.last, (*pending)(nil); pd != nil; pd = prev {
		prev = pd.prev
		if pd.confirm != nil {
			<-pd.confirm.Done() // all are, or will be in a moment
			if pd.confirm.Acked() && !pd.out.mandatory {
				p.end(pd, nil)
				continue
			}
		}
		if closed && blames(e, pd, alone) {
			p.end(pd, why)
			continue
		}
		pd.confirm, pd.returned = nil, false
		p.flight.remove(pd)
		p.queue.pushFront(pd)
	}
}

// blames reports whether the broker has closed the channel (or the connection) over pd, for e. A 404 or 403 names the
// exchange that it is about. Otherwise all that were in flight are suspects, until one was in flight alone.
func blames(e *amqp.Error, pd *pending, alone bool) bool {
	if strings.Contains(e.Reason, "exchange '") {
		return strings.Contains(e.Reason, "exchange '"+pd.out.exchange+"'")
	}
	guilty := alone && pd.suspect
	pd.suspect = true
	return guilty
}

// expire gives up what has waited too long.
func (p *publisher) expire() {
	tick := time.NewTicker(min(max(p.c.o.ConfirmTimeout/16, time.Millisecond), time.Second))
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			p.overdue(now)
		case <-p.ctx.Done():
			return
		}
	}
}

func (p *publisher) overdue(now time.Time) {
	_, blocked := p.l.state()
	p.mu.Lock()
	defer p.mu.Unlock()
	for pd, next := p.flight.first, (*pending)(nil); pd != nil; pd = next {
		next = pd.next
		switch {
		case !pd.due.IsZero() && now.After(pd.due):
			p.giveUp(pd, nil)
		case !blocked && !pd.missed && pd.confirm != nil && pd.confirm.DeliveryTag < p.newest &&
			now.After(pd.due.Add(-p.c.o.ConfirmTimeout*3/4)):
			// Later ones were confirmed. RabbitMQ can lose a confirm, so all that is in flight is sent again.
			pd.missed, p.missing = true, true
			p.poke()
		}
	}
	for pd, next := p.queue.first, (*pending)(nil); pd != nil; pd = next {
		next = pd.next
		if !pd.limit.IsZero() && now.After(pd.limit) {
			p.giveUp(pd, nil)
		}
	}
}

// shut lets nothing start any more. p.mu is held.
func (p *publisher) shut() {
	if p.closing {
		return
	}
	if p.closing = true; p.queue.n+p.flight.n == 0 {
		close(p.idle)
	}
}

// drain lets nothing start any more, and waits for what is pending while ctx lives.
func (p *publisher) drain(ctx context.Context) error {
	p.mu.Lock()
	p.shut()
	p.mu.Unlock()
	select {
	case <-p.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close ends what is pending, and waits for the goroutines.
func (p *publisher) close() {
	p.stop()
	if s := p.l.current(); s != nil && s.blocked.Load() {
		s.cut() // a write may wait for the end of the alarm
	}
	p.wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut()
	for _, list := range []*pendings{&p.flight, &p.queue} {
		for list.first != nil {
			if pd := list.first; pd.writes > 0 {
				p.end(pd, unknown(errClosed))
			} else {
				p.end(pd, errClosed)
			}
		}
	}
}

// pendings is a list. A pending is in one at most.
type pendings struct {
	first, last *pending
	n           int
}

func (l *pendings) push(pd *pending) {
	pd.list, pd.prev, pd.next = l, l.last, nil
	if l.last != nil {
		l.last.next = pd
	} else {
		l.first = pd
	}
	l.last = pd
	l.n++
}

func (l *pendings) pushFront(pd *pending) {
	pd.list, pd.prev, pd.next = l, nil, l.first
	if l.first != nil {
		l.first.prev = pd
	} else {
		l.last = pd
	}
	l.first = pd
	l.n++
}

func (l *pendings) remove(pd *pending) {
	if pd.prev != nil {
		pd.prev.next = pd.next
	} else {
		l.first = pd.next
	}
	if pd.next != nil {
		pd.next.prev = pd.prev
	} else {
		l.last = pd.prev
	}
	pd.list, pd.prev, pd.next = nil, nil, nil
	l.n--
}
