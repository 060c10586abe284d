package mem

import (
	"sync"
	"sync/atomic"
)

// rows are the subscriptions whose readers sleep until something is published. A publisher takes them all and wakes the
// first of each row; each that wakes wakes the one beside it, before it does anything else. So the publisher is soon done,
// all processors share the waking, and whoever is woken runs while what it needs is still in its waker's cache.
type rows struct {
	mu  sync.Mutex
	top atomic.Pointer[subscription] // the last that was added; written under mu

	size, gone int // how many there are, and how many of them have ended
}

// rowLen bounds a row: each in it waits for those before it to be scheduled.
const rowLen = 16

// A place is a subscription's in rows.
type place struct {
	placed bool          // under the subscription's lock: it has a place
	after  *subscription // likewise: whom its reader has to wake

	// Written under rows.mu; from when the rows are taken until placed is false they belong to who wakes.
	row    int           // how many are beside it
	beside *subscription // the next in its row
	below  *subscription // the first of the next row
}

// add adds s unless it is there. Under s.mu.
func (r *rows) add(s *subscription) {
	if s.placed {
		return
	}
	s.placed = true
	r.mu.Lock()
	top := r.top.Load()
	if top == nil || top.row == rowLen-1 {
		s.row, s.beside, s.below = 0, nil, top
	} else {
		s.row, s.beside, s.below = top.row+1, top, top.below
	}
	r.top.Store(s)
	r.size++
	r.mu.Unlock()
}

// maxGone is how many that have ended are left in the rows of a silent topic, or as many as there are others.
const maxGone = 64

// leave notes that one has ended, and reports whether it is time to wake all, so that those that have are forgotten.
func (r *rows) leave() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone++
	return r.gone > maxGone && r.gone > r.size/2
}

// wake takes all and wakes the first of each row.
func (r *rows) wake() {
	if r.top.Load() == nil {
		return
	}
	r.mu.Lock()
	s := r.top.Swap(nil)
	r.size, r.gone = 0, 0
	r.mu.Unlock()
	for s != nil {
		below := s.below
		s.wake()
		s = below
	}
}

// wake rouses the first reader in the row that begins with s. One that sleeps comes back to s.mu, however its sleep ends,
// and finds whom to wake; a subscription without one is passed over.
func (s *subscription) wake() {
	for asleep := false; s != nil && !asleep; {
		s.mu.Lock()
		beside := s.beside
		s.placed, s.beside, s.below = false, nil, nil // from here on s may be added again
		if asleep = s.n > 0; asleep {
			s.after = beside
			s.rouse()
		}
		s.mu.Unlock()
		s = beside
	}
}
