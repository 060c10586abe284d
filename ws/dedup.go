package ws

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of a window: what is older, or more than this ago, may be published once more if it is sent again.
const (
	windowEvents = 32 << 10 // in each of its two halves
	windowAge    = 2 * time.Minute
)

// A window remembers which events were accepted of late, so that one that a client sends again, because the answer was
// lost with its connection, is not published twice.
type window struct {
	seed   maphash.Seed
	resent atomic.Uint64 // events that were sent again; changed under mu

	mu     sync.Mutex
	new    map[uint64]event
	old    map[uint64]event
	since  time.Time                // when new was begun
	waited map[uint64]chan struct{} // closed when the event is done
}

// An event is what is known of one.
type event struct {
	done  bool
	again uint64 // its place among those that were sent again; 0: it was not
}

func newWindow() *window {
	return &window{seed: maphash.MakeSeed(), new: map[uint64]event{}, waited: map[uint64]chan struct{}{}}
}

// key stands for an event of a peer.
func (w *window) key(peer, topic, id string) uint64 {
	return maphash.Comparable(w.seed, [3]string{peer, topic, id})
}

// begin says that an event is about to be published, because it was sent again or for the first time.
func (w *window) begin(key uint64, again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); len(w.new) >= windowEvents || now.Sub(w.since) > windowAge {
		w.old, w.new, w.since = w.new, make(map[uint64]event), now
	}
	var e event
	if again {
		e.again = w.resent.Add(1)
	}
	w.new[key] = e
}

// finish says what became of it. What failed is forgotten.
func (w *window) finish(key uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		e, ok := w.new[key]
		if !ok {
			e = w.old[key]
		}
		e.done = true
		w.new[key] = e
	} else {
		delete(w.new, key)
		delete(w.old, key)
	}
	if c := w.waited[key]; c != nil {
		delete(w.waited, key)
		close(c)
	}
}

// seen reports whether the event was accepted. If it is being published, wait is closed when that is over.
func (w *window) seen(key uint64) (done bool, wait <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e, known := w.new[key]
	if !known {
		e, known = w.old[key]
	}
	if e.done || !known {
		return e.done, nil
	}
	if w.waited[key] == nil {
		w.waited[key] = make(chan struct{})
	}
	return false, w.waited[key]
}

// now is a point in time for overtaken.
func (w *window) now() uint64 { return w.resent.Load() }

// overtaken reports whether the event was sent again after then, and begun: what came first has waited for longer.
func (w *window) overtaken(key, then uint64) bool {
	if w.resent.Load() == then {
		return false // as nearly always
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	e, known := w.new[key]
	if !known {
		e = w.old[key]
	}
	return e.again > then
}
