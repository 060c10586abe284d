package mem

import (
	"context"
	"io"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/internal/window"
)

// A group is one position in the log that its members share. It outlives them.
type group struct {
	t           *topic
	name        string
	from        string // how it started, for joiners
	deadLetter  string
	maxAttempts int
	ordered     bool

	backlog atomic.Int64 // bytes of all messages that are not settled: unread, out or waiting

	mu      sync.Mutex
	waiting waitlist // members whose readers wait for messages
	reader           // reader.pos may be read without mu
	win     window.Window[outstanding]
	members map[*member]struct{}
	timer   *time.Timer
	idle    *time.Timer // runs while there are no members
	closed  bool
}

// outstanding is a message that is out or waits, and who had it last.
type outstanding struct {
	e *entry
	m *member
}

// join returns a member of the group, which it creates if need be.
func (t *topic) join(o transport.SubscribeOptions) (transport.Subscription, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed != nil {
		return nil, t.removed
	}
	i := slices.IndexFunc(t.groups, func(g *group) bool { return g.name == o.Group })
	if i < 0 {
		g, err := t.newGroup(o)
		if err != nil {
			return nil, err
		}
		return g.member(o), nil
	}
	g := t.groups[i]
	differs := ""
	switch {
	case o.MaxAttempts != 0 && o.MaxAttempts != g.maxAttempts:
		differs = "MaxAttempts"
	case o.DeadLetter != "" && o.DeadLetter != g.deadLetter:
		differs = "DeadLetter"
	case o.From != "" && o.From != g.from:
		differs = "From"
	case o.Require&transport.Ordered != 0 && !g.ordered:
		differs = "Require(Ordered)"
	}
	if differs != "" {
		return nil, transport.Errorf(transport.CodeFailedPrecondition, "the group %q exists with another %s", o.Group, differs)
	}
	return g.member(o), nil
}

// newGroup creates a group. Under t.mu.
func (t *topic) newGroup(o transport.SubscribeOptions) (*group, error) {
	pos, err := t.position(o.From)
	if err != nil {
		return nil, err
	}
	g := &group{t: t, name: o.Group, from: o.From, deadLetter: o.DeadLetter, maxAttempts: o.MaxAttempts,
		ordered: o.Require&transport.Ordered != 0, members: map[*member]struct{}{}}
	if g.maxAttempts == 0 {
		g.maxAttempts = transport.DefaultMaxAttempts
	}
	g.pos.Store(pos)
	g.chunk = t.log.chunkOf(pos)
	// What it starts with counts as its backlog.
	r := reader{chunk: g.chunk}
	for r.pos.Store(pos); ; r.pos.Add(1) {
		e, _ := r.peek(&t.log)
		if e == nil {
			break
		}
		g.backlog.Add(int64(e.size))
	}
	t.groups = append(slices.Clone(t.groups), g) // a copy: publishers walk the old slice without the lock
	t.pinned = min(t.pinned, pos)
	return g, nil
}

func (g *group) member(o transport.SubscribeOptions) *member {
	m := &member{g: g, buffer: o.Buffer}
	m.cond.L = &g.mu
	g.mu.Lock()
	g.members[m] = struct{}{}
	if g.idle != nil {
		g.idle.Stop()
		g.idle = nil
	}
	g.mu.Unlock()
	return m
}

// rouse wakes a member that waits for messages.
func (g *group) rouse() {
	if g.waiting.len.Load() > 0 {
		g.mu.Lock()
		g.waiting.wake()
		g.mu.Unlock()
	}
}

// take hands one delivery to m, in d: what is due again, else what is new. It is false if there is none. Under g.mu.
func (g *group) take(m *member, d *transport.Delivery) bool {
	if g.win.Waiting() > 0 {
		if token, ok := g.win.Again(time.Now()); ok {
			out, attempt := g.win.Get(token)
			g.out(m, d, token, out.e, attempt)
			return true
		}
	}
	if g.ordered && g.win.Len() > 0 {
		return false
	}
	for {
		e, _ := g.peek(&g.t.log) // never lost: a group's messages are not evicted
		if e == nil {
			return false
		}
		g.pos.Store(e.offset + 1)
		if e.expires != 0 && time.Now().UnixNano() >= e.expires {
			g.backlog.Add(-int64(e.size))
			continue
		}
		g.out(m, d, g.win.Add(outstanding{e, m}, 1), e, 1)
		return true
	}
}

func (g *group) out(m *member, d *transport.Delivery, token uint64, e *entry, attempt int) {
	g.win.Set(token, outstanding{e, m})
	m.out++
	d.Init(g, token, &e.m, attempt, 0)
}

// passOn wakes the next member if there is more to do, or sees to it that one wakes when there is. Under g.mu.
func (g *group) passOn() {
	if g.waiting.len.Load() == 0 {
		return
	}
	if !(g.ordered && g.win.Len() > 0) && g.pos.Load() < g.t.log.head.Load() {
		g.waiting.wake()
	} else if g.win.Waiting() > 0 {
		switch wait := time.Until(g.win.Due()); {
		case wait <= 0:
			g.waiting.wake()
		case g.timer == nil:
			g.timer = time.AfterFunc(wait, g.rouse)
		default:
			g.timer.Reset(wait)
		}
	}
}

// Context implements [transport.Source]: an event brings nothing along.
func (g *group) Context(_ uint64, parent context.Context) (context.Context, context.CancelFunc) {
	return parent, func() {}
}

// Cursor implements [transport.Source]: a group has no cursors.
func (g *group) Cursor(uint64, *transport.Message) string { return "" }

// Settle implements [transport.Source].
func (g *group) Settle(token uint64, _ *transport.Message, err error) error {
	g.mu.Lock()
	out, attempt := g.win.Get(token)
	verdict, wait := window.Judge(err, attempt, g.maxAttempts)
	var letter error
	if verdict == window.Refuse && g.deadLetter != "" && !g.closed {
		g.mu.Unlock()
		letter = g.bury(out.e, attempt, err)
		g.mu.Lock()
		if letter != nil { // it must not be lost: the next attempt ends here again
			verdict, wait = window.Retry, transport.Backoff{}.Delay(attempt)
			attempt--
		}
	}
	switch verdict {
	case window.GiveBack:
		g.win.Wait(token, time.Now(), attempt)
	case window.Retry:
		g.win.Wait(token, time.Now().Add(wait), attempt+1)
	default:
		g.win.Done(token)
		g.backlog.Add(-int64(out.e.size))
	}
	out.m.out--
	out.m.passOn()
	g.mu.Unlock()
	if verdict == window.Refuse && g.deadLetter == "" {
		g.t.bus.report(g.t.name, &out.e.m, err)
	}
	return letter
}

// bury publishes a dead letter.
func (g *group) bury(e *entry, attempts int, err error) error {
	m := e.m.Clone()
	m.Topic = g.deadLetter
	public := transport.Public(err)
	m.Header.Set(transport.HeaderDeadLetterTopic, g.t.name)
	m.Header.Set(transport.HeaderDeadLetterAttempts, strconv.Itoa(attempts))
	m.Header.Set(transport.HeaderDeadLetterCode, public.Code.String())
	reason := public.Reason
	if reason == "" {
		reason = public.Message
	}
	m.Header.Set(transport.HeaderDeadLetterReason, reason)
	// Its time was up to here; a dead letter waits for somebody to look at it.
	m.Header.Del(transport.HeaderTTL)
	t, terr := g.t.bus.topic(g.deadLetter, true, transport.CodeNotFound)
	if terr != nil {
		return terr
	}
	letter := &entry{m: *m, size: m.Size()} // not checked: the added headers may exceed the limits
	return t.publish(context.Background(), letter)
}

func (g *group) expire() {
	g.t.mu.Lock() // as join does: nobody joins in between
	g.mu.Lock()
	unused := len(g.members) == 0 && !g.closed
	g.closed = g.closed || unused
	g.mu.Unlock()
	if unused {
		g.t.forgetGroup(g)
	}
	g.t.mu.Unlock()
	if !unused {
		return
	}
	g.t.bus.report(g.t.name, nil, transport.Errorf(transport.CodeAborted,
		"the group %q was removed after %v without members, with %d bytes unsettled", g.name, g.t.bus.o.GroupIdle, g.backlog.Load()))
}

// close ends the group with the bus.
func (g *group) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	g.closed = true
	for m := range g.members {
		m.end()
	}
	clear(g.members)
	for _, t := range []*time.Timer{g.timer, g.idle} {
		if t != nil {
			t.Stop()
		}
	}
}

// A member is a subscription to a group.
type member struct {
	g      *group
	buffer int

	// Under g.mu:
	sleeper
	out    int // deliveries
	closed bool
}

func (m *member) Next(ctx context.Context) (*transport.Delivery, error) {
	d := new(transport.Delivery)
	if err := m.NextInto(ctx, d); err != nil {
		return nil, err
	}
	return d, nil
}

// NextInto implements [transport.ReusingSubscription].
func (m *member) NextInto(ctx context.Context, d *transport.Delivery) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	g := m.g
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		if m.closed {
			if m.n > 0 {
				m.rouse() // each reader wakes the next
			}
			return io.EOF
		}
		if m.out < m.buffer {
			if g.take(m, d) {
				m.passOn()
				return nil
			}
		}
		m.n++
		m.passOn() // publishers append and then look who waits; this looks after it is listed
		err := m.wait(ctx)
		m.n--
		if err != nil {
			m.passOn() // a token may have come at the same time
			return err
		}
	}
}

// passOn sees to it that readers who wait are found, and that one wakes if there is something for it. Under g.mu.
func (m *member) passOn() {
	switch {
	case m.closed:
	case m.n > 0 && m.out < m.buffer:
		m.g.waiting.add(&m.sleeper)
	default:
		m.g.waiting.remove(&m.sleeper)
	}
	m.g.passOn()
}

// Cursor is "": a group has no cursors.
func (m *member) Cursor() string { return "" }

// Close leaves the group. What is out can still be settled. A group without members lives on for GroupIdle.
func (m *member) Close() error {
	g := m.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if m.closed {
		return nil
	}
	m.end()
	delete(g.members, m)
	if len(g.members) == 0 {
		g.idle = time.AfterFunc(g.t.bus.o.GroupIdle, g.expire)
	}
	g.passOn() // it may have been woken for a message
	return nil
}

func (m *member) end() {
	m.closed = true
	m.g.waiting.remove(&m.sleeper)
	m.rouse()
}
