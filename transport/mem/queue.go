package mem

import (
	"context"
	"io"
	"sync"

	"github.com/intermodal-go/intermodal/transport"
)

// A queue hands what callers bring to the receivers of a topic: calls to responders, streams to listeners. Each item
// goes to one receiver.
type queue[T any] struct {
	limit int

	mu        sync.Mutex
	items     []T
	first     int // index of the first item
	receivers map[*receiver[T]]struct{}
	waiting   waitlist
	closed    bool
}

// A receiver is one end that takes from a queue.
type receiver[T any] struct {
	q      *queue[T]
	buffer int // how many may be out; 0: any number

	// Under q.mu:
	sleeper
	out    int
	closed bool
}

// join adds a receiver.
func (q *queue[T]) join(buffer int) (*receiver[T], error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, errClosed
	}
	if q.receivers == nil {
		q.receivers = map[*receiver[T]]struct{}{}
	}
	r := &receiver[T]{q: q, buffer: buffer, sleeper: newSleeper()}
	q.receivers[r] = struct{}{}
	return r, nil
}

// errNobody says that there is no receiver: nothing was handed to anybody.
var errNobody = &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent,
	Message: "nobody receives this topic"}

// push adds an item. It fails at once without a receiver.
func (q *queue[T]) push(item T) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return errClosed
	case len(q.receivers) == 0:
		return errNobody
	case q.len() >= q.limit:
		return transport.Errorf(transport.CodeResourceExhausted, "%d are waiting already, the limit", q.limit)
	}
	if len(q.items) == cap(q.items) && q.first > len(q.items)/2 { // else one that never runs empty would grow for ever
		n := copy(q.items, q.items[q.first:])
		clear(q.items[n:])
		q.items, q.first = q.items[:n], 0
	}
	q.items = append(q.items, item)
	q.waiting.wake()
	return nil
}

func (q *queue[T]) len() int { return len(q.items) - q.first }

// pop returns the first item; there must be one.
func (q *queue[T]) pop() (item T) {
	var none T
	item, q.items[q.first] = q.items[q.first], none
	if q.first++; q.first == len(q.items) {
		q.items, q.first = q.items[:0], 0
	}
	return item
}

// next takes an item that keep accepts; others are thrown away.
func (r *receiver[T]) next(ctx context.Context, keep func(T) bool) (item T, err error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	q := r.q
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if r.closed {
			if r.n > 0 {
				r.rouse() // each reader wakes the next
			}
			return none, io.EOF
		}
		for r.room() && q.len() > 0 {
			if item := q.pop(); keep(item) {
				r.out++
				r.passOn()
				return item, nil
			}
		}
		r.n++
		r.passOn()
		q.mu.Unlock()
		err := r.wait(ctx)
		q.mu.Lock()
		r.n--
		if err != nil {
			r.passOn() // a token may have come at the same time
			return none, err
		}
	}
}

func (r *receiver[T]) room() bool { return r.buffer == 0 || r.out < r.buffer }

// passOn sees to it that readers who wait are found, and that one wakes if there is something to take. Under q.mu.
func (r *receiver[T]) passOn() {
	switch {
	case r.closed:
	case r.n > 0 && r.room():
		r.q.waiting.add(&r.sleeper)
	default:
		r.q.waiting.remove(&r.sleeper)
	}
	if r.q.len() > 0 {
		r.q.waiting.wake()
	}
}

// settled makes room for another item.
func (r *receiver[T]) settled() {
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	r.out--
	if r.n > 0 {
		r.passOn()
	}
}

// close takes the receiver out and returns the items that nobody is left for.
func (r *receiver[T]) close() []T {
	q := r.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if r.closed {
		return nil
	}
	r.end()
	delete(q.receivers, r)
	if len(q.receivers) > 0 {
		return nil
	}
	return q.rest()
}

func (r *receiver[T]) end() {
	r.closed = true
	r.q.waiting.remove(&r.sleeper)
	r.rouse()
	if r.q.len() > 0 {
		r.q.waiting.wake() // it may have been woken for an item
	}
}

func (q *queue[T]) rest() []T {
	left := q.items[q.first:]
	q.items, q.first = nil, 0
	return left
}

// close ends the queue and all its receivers and returns what is left.
func (q *queue[T]) close() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	left := q.rest()
	for r := range q.receivers {
		r.end()
	}
	clear(q.receivers)
	return left
}

func (q *queue[T]) unused() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.receivers) == 0 && q.len() == 0
}

// receive joins a queue of the topic. It holds the topic's lock, so that the topic cannot be swept in between.
func receive[T any](b *Bus, name string, buffer int, of func(*topic) *queue[T]) (*receiver[T], error) {
	for {
		t, err := b.topic(name, true, transport.CodeUnimplemented)
		if err != nil {
			return nil, err
		}
		t.mu.Lock()
		if err = t.removed; err == nil {
			r, err := of(t).join(buffer)
			t.mu.Unlock()
			return r, err
		}
		t.mu.Unlock()
		if err != errRemoved {
			return nil, err
		}
	}
}
