// Package window keeps account of deliveries: what is out, what waits to be handed out again, and what is the oldest
// of both. The in-memory bus and the clients' Inbox share it.
package window

import (
	"container/heap"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// A Window holds unsettled values in the order they were first handed out. The zero Window is empty. It must not be
// copied, and is not safe for concurrent use: its owner's lock guards it.
type Window[T any] struct {
	slots   []slot[T]
	free    int // index+1 of the first free slot
	oldest  int // index+1 of the first unsettled slot
	newest  int // index+1 of the last one
	count   int
	serial  uint64
	waiting retries
	first   [1]slot[T] // where slots begins: a reader that keeps up needs no more
}

type slot[T any] struct {
	v          T
	serial     uint64
	attempt    int
	prev, next int // index+1
}

// Len is how many values are unsettled: out or waiting.
func (w *Window[T]) Len() int { return w.count }

// Add puts v at the end, as out with the given attempt, and returns its token.
func (w *Window[T]) Add(v T, attempt int) (token uint64) {
	i := w.free
	if i == 0 {
		if w.slots == nil {
			w.slots = w.first[:0]
		}
		w.slots = append(w.slots, slot[T]{})
		i = len(w.slots)
	} else {
		w.free = w.slots[i-1].next
	}
	w.serial++
	w.slots[i-1] = slot[T]{v: v, serial: w.serial, attempt: attempt, prev: w.newest}
	if w.newest != 0 {
		w.slots[w.newest-1].next = i
	} else {
		w.oldest = i
	}
	w.newest = i
	w.count++
	return uint64(i - 1)
}

// Get returns the value of token and the number of its current attempt.
func (w *Window[T]) Get(token uint64) (v T, attempt int) {
	s := &w.slots[token]
	return s.v, s.attempt
}

// Set changes the value of token.
func (w *Window[T]) Set(token uint64, v T) { w.slots[token].v = v }

// Done removes token, which must be out.
func (w *Window[T]) Done(token uint64) {
	i := int(token) + 1
	s := &w.slots[token]
	if s.prev != 0 {
		w.slots[s.prev-1].next = s.next
	} else {
		w.oldest = s.next
	}
	if s.next != 0 {
		w.slots[s.next-1].prev = s.prev
	} else {
		w.newest = s.prev
	}
	*s = slot[T]{next: w.free}
	w.free = i
	w.count--
}

// Wait makes token, which is out, wait until due; then it comes with the given attempt.
func (w *Window[T]) Wait(token uint64, due time.Time, attempt int) {
	w.slots[token].attempt = attempt
	heap.Push(&w.waiting, retry{due, w.slots[token].serial, token})
}

// Waiting is how many wait.
func (w *Window[T]) Waiting() int { return len(w.waiting) }

// Due returns the earliest time at which something that waits is due. Waiting must not be 0.
func (w *Window[T]) Due() time.Time { return w.waiting[0].due }

// Again hands out what is due at now, the earliest first, and of equal times the oldest.
func (w *Window[T]) Again(now time.Time) (token uint64, ok bool) {
	if len(w.waiting) == 0 || w.waiting[0].due.After(now) {
		return 0, false
	}
	return heap.Pop(&w.waiting).(retry).token, true
}

// Oldest returns the first unsettled value.
func (w *Window[T]) Oldest() (v T, ok bool) {
	if w.oldest == 0 {
		return v, false
	}
	return w.slots[w.oldest-1].v, true
}

type retry struct {
	due    time.Time
	serial uint64
	token  uint64
}

type retries []retry

func (r retries) Len() int { return len(r) }
func (r retries) Less(i, j int) bool {
	if c := r[i].due.Compare(r[j].due); c != 0 {
		return c < 0
	}
	return r[i].serial < r[j].serial
}
func (r retries) Swap(i, j int) { r[i], r[j] = r[j], r[i] }
func (r *retries) Push(x any)   { *r = append(*r, x.(retry)) }
func (r *retries) Pop() any {
	old := *r
	x := old[len(old)-1]
	*r = old[:len(old)-1]
	return x
}

// A Verdict is what settling an event asks for.
type Verdict int

const (
	Ack      Verdict = iota // done
	GiveBack                // at once, and the attempt does not count
	Retry                   // later, with the next attempt
	Refuse                  // not again
)

// Judge applies the rules of Delivery.Settle to an event: what err asks for after the given attempt, and for Retry how
// long to wait.
func Judge(err error, attempt, maxAttempts int) (Verdict, time.Duration) {
	switch {
	case err == nil:
		return Ack, 0
	case transport.CodeOf(err) == transport.CodeCanceled:
		return GiveBack, 0
	case !transport.Retryable(err) || attempt >= maxAttempts:
		return Refuse, 0
	}
	if e := transport.Public(err); e.RetryAfter > 0 {
		return Retry, e.RetryAfter
	}
	return Retry, transport.Backoff{}.Delay(attempt)
}
