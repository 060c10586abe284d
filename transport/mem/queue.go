package mem

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/intermodal-go/intermodal/transport"
)

// A queue hands what callers bring to the receivers of a topic: calls to responders, streams to listeners. Each item
// goes to one receiver: straight to the reader that has waited longest, else it waits for one. So there is never an
// item beside a reader that could take it.
type queue[T any] struct {
	limit int

	mu        sync.Mutex
	items     fifo[T]
	waiting   fifo[*waiter[T]]
	receivers map[*receiver[T]]struct{}
	closed    bool
}

// A receiver is one end that takes from a queue.
type receiver[T any] struct {
	q      *queue[T]
	buffer int // how many may be out; 0: any number
	spare  atomic.Pointer[waiter[T]]

	// Under q.mu:
	out    int
	closed bool
}

// A waiter is a reader that waits. Whoever takes it out of the queue owes it a signal: an item, or the end.
type waiter[T any] struct {
	r     *receiver[T]
	item  chan T
	ended bool
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
	r := &receiver[T]{q: q, buffer: buffer}
	q.receivers[r] = struct{}{}
	return r, nil
}

// errNobody says that there is no receiver: nothing was handed to anybody.
var errNobody = &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent,
	Message: "nobody receives this topic"}

// push adds an item. It fails at once without a receiver.
func (q *queue[T]) push(item T) error {
	q.mu.Lock()
	if w := q.reader(nil); w != nil {
		w.r.out++
		q.mu.Unlock()
		w.item <- item
		return nil
	}
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return errClosed
	case len(q.receivers) == 0:
		return errNobody
	case q.items.len() >= q.limit:
		return transport.Errorf(transport.CodeResourceExhausted, "%d are waiting already, the limit", q.limit)
	}
	q.items.push(item)
	return nil
}

// reader takes the reader that has waited longest out of the queue, of those whose receiver has room, or of those of r.
// Under q.mu.
func (q *queue[T]) reader(r *receiver[T]) *waiter[T] {
	for i, w := range q.waiting.all() {
		if w.r == r || r == nil && w.r.room() {
			q.waiting.remove(i)
			return w
		}
	}
	return nil
}

// next takes an item that keep accepts; others are thrown away.
func (r *receiver[T]) next(ctx context.Context, keep func(T) bool) (item T, err error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	for {
		w, item, err := r.take(keep)
		if w == nil {
			return item, err
		}
		if item, err = w.wait(ctx); err != nil {
			return none, err
		}
		if keep(item) {
			r.spare.Store(w)
			return item, nil
		}
		r.settled()
	}
}

// take takes an item that waits. If there is none, the reader is put into the queue.
func (r *receiver[T]) take(keep func(T) bool) (w *waiter[T], item T, err error) {
	var none T
	q := r.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if r.closed {
		return nil, none, io.EOF
	}
	for r.room() && q.items.len() > 0 {
		if item := q.items.pop(); keep(item) {
			r.out++
			return nil, item, nil
		}
	}
	if w = r.spare.Swap(nil); w == nil {
		w = &waiter[T]{r: r, item: make(chan T, 1)}
	}
	q.waiting.push(w)
	return w, none, nil
}

// wait waits for the signal or the end of ctx. A context that cannot end saves the select. What was handed over at the
// same time counts more than the end of ctx.
func (w *waiter[T]) wait(ctx context.Context) (item T, err error) {
	if done := ctx.Done(); done == nil {
		item = <-w.item
	} else {
		select {
		case item = <-w.item:
		case <-done:
			q := w.r.q
			q.mu.Lock()
			i := slices.Index(q.waiting.all(), w)
			if i >= 0 {
				q.waiting.remove(i)
			}
			q.mu.Unlock()
			if i >= 0 {
				return item, ctx.Err()
			}
			item = <-w.item
		}
	}
	if w.ended {
		return item, io.EOF
	}
	return item, nil
}

func (r *receiver[T]) room() bool { return r.buffer == 0 || r.out < r.buffer }

// settled makes room for another item.
func (r *receiver[T]) settled() {
	q := r.q
	q.mu.Lock()
	r.out--
	if q.items.len() > 0 && r.room() {
		if w := q.reader(r); w != nil {
			item := q.items.pop()
			r.out++
			q.mu.Unlock()
			w.item <- item
			return
		}
	}
	q.mu.Unlock()
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
	return q.items.rest()
}

// end tells all readers of r. Under q.mu.
func (r *receiver[T]) end() {
	r.closed = true
	for w := r.q.reader(r); w != nil; w = r.q.reader(r) {
		var none T
		w.ended = true
		w.item <- none // never blocks: it is the first signal since w waits
	}
}

// close ends the queue and all its receivers and returns what is left.
func (q *queue[T]) close() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for r := range q.receivers {
		r.end()
	}
	clear(q.receivers)
	return q.items.rest()
}

func (q *queue[T]) unused() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.receivers) == 0 && q.items.len() == 0
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

// A fifo is a queue that keeps its memory, and that does not grow as long as it does not hold more.
type fifo[T any] struct {
	items []T
	first int // index of the first item
}

func (f *fifo[T]) len() int { return len(f.items) - f.first }
func (f *fifo[T]) all() []T { return f.items[f.first:] }

func (f *fifo[T]) push(item T) {
	if len(f.items) == cap(f.items) && f.first > len(f.items)/2 {
		n := copy(f.items, f.items[f.first:])
		clear(f.items[n:])
		f.items, f.first = f.items[:n], 0
	}
	f.items = append(f.items, item)
}

// pop returns the first item; there must be one.
func (f *fifo[T]) pop() (item T) {
	item = f.items[f.first]
	f.remove(0)
	return item
}

// remove removes the item at i of all.
func (f *fifo[T]) remove(i int) {
	var none T
	copy(f.items[f.first+1:f.first+i+1], f.items[f.first:]) // mostly nothing
	f.items[f.first] = none
	if f.first++; f.first == len(f.items) {
		f.items, f.first = f.items[:0], 0
	}
}

// rest empties the queue.
func (f *fifo[T]) rest() []T {
	left := f.all()
	*f = fifo[T]{}
	return left
}
