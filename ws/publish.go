package ws

import (
	"context"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// maxSends bounds how often an event is sent.
const maxSends = 10

// A publish is an event without an answer. It is the waiter for it.
type publish struct {
	c     *Client
	m     *transport.Message
	seq   uint64
	sends int // under c.mu: how often it may have been sent
	done  chan struct{}
	err   error // valid after done
}

// Publish implements [transport.Publisher]. When ctx ends after m was sent, the error has the Reason OUTCOME_UNKNOWN.
func (c *Client) Publish(ctx context.Context, m *transport.Message) error {
	return c.PublishAll(ctx, m)[0]
}

// PublishAll implements [transport.BatchPublisher]. It does not wait for one answer before it sends the next message.
func (c *Client) PublishAll(ctx context.Context, ms ...*transport.Message) []error {
	errs := make([]error, len(ms))
	ps := make([]*publish, len(ms))
	for i, m := range ms {
		ps[i], errs[i] = c.publish(ctx, m, len(ms) == 1)
	}
	for i, p := range ps {
		if errs[i] == nil {
			errs[i] = p.wait(ctx)
		}
	}
	return errs
}

// publish sends m, or has it sent once there is a connection. alone is that of conn.start.
func (c *Client) publish(ctx context.Context, m *transport.Message, alone bool) (*publish, error) {
	if err := check(m, c.o.MaxBytes); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case c.publishing <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p := &publish{c: c, m: named(m), done: make(chan struct{})}
	c.mu.Lock()
	if c.err != nil || c.stopping {
		err := c.err
		c.mu.Unlock()
		<-c.publishing
		if err == nil || err == errClosed {
			return nil, errClosed
		}
		return nil, notSent(err)
	}
	c.sequence++
	p.seq = c.sequence
	c.publishes[p.seq] = p
	l := c.link
	c.mu.Unlock()
	if l != nil {
		p.send(ctx, l, alone)
	}
	return p, nil
}

// send sends the event. If it cannot, the next connection will.
func (p *publish) send(ctx context.Context, l *link, alone bool) {
	p.c.mu.Lock()
	again := p.sends > 0
	p.sends++
	p.c.mu.Unlock()
	id := l.nextID()
	frame := appendText(appendRequest(buffer(), "rpc.publish", id), "topic", p.m.Topic)
	if again {
		frame = append(member(frame, "again"), "true"...)
	}
	frame = append(appendMessage(frame, p.m), closing...)
	_, err := l.start(ctx, id, p, frame, alone)
	recycle(frame)
	if err != nil {
		p.c.mu.Lock()
		p.sends--
		p.c.mu.Unlock()
	}
}

func (p *publish) answered(_ *envelope, err error) { p.finish(err) }

// lost leaves the event for the next connection, unless it may have been what ended this one.
func (p *publish) lost(err error) {
	p.c.mu.Lock()
	sends := p.sends
	p.c.mu.Unlock()
	if code := poison(err); code != 0 {
		p.finish(because(transport.Wrap(err, code, "the connection did not survive it"), transport.ReasonOutcomeUnknown))
	} else if sends >= maxSends {
		p.finish(because(err, transport.ReasonOutcomeUnknown))
	}
}

// finish ends the publish. The first end counts.
func (p *publish) finish(err error) {
	p.c.mu.Lock()
	_, ok := p.c.publishes[p.seq]
	delete(p.c.publishes, p.seq)
	p.c.mu.Unlock()
	if ok {
		p.err = err
		close(p.done)
		<-p.c.publishing
	}
}

// giveUp ends the publish with err, and the Reason that fits.
func (p *publish) giveUp(err error) error {
	p.c.mu.Lock()
	sent := p.sends > 0
	p.c.mu.Unlock()
	if sent {
		err = because(err, transport.ReasonOutcomeUnknown)
	} else if err != errClosed && transport.CodeOf(err) == transport.CodeUnavailable {
		err = notSent(err)
	}
	p.finish(err)
	<-p.done
	return p.err
}

func (p *publish) wait(ctx context.Context) error {
	for {
		p.c.mu.Lock()
		connected, changed := p.c.link != nil, p.c.changed
		p.c.mu.Unlock()
		var late <-chan time.Time
		if !connected {
			t := time.NewTimer(p.c.o.Patience)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-p.done:
			return p.err
		case <-changed:
		case <-late:
			return p.giveUp(errNoConnection)
		case <-ctx.Done():
			return p.giveUp(ctx.Err())
		}
	}
}
