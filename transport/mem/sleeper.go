package mem

import (
	"context"
	"slices"
	"sync/atomic"
)

// A sleeper is one receiver's readers that wait. All but wait is guarded by the lock of what they wait for.
type sleeper struct {
	sem    chan struct{} // a token for one of them; one too many costs a look
	n      int           // how many wait
	listed bool          // they wait for something that others want as well
}

func newSleeper() sleeper { return sleeper{sem: make(chan struct{}, 1)} }

// rouse gives a token.
func (s *sleeper) rouse() {
	select {
	case s.sem <- struct{}{}:
	default:
	}
}

// wait waits for a token or the end of ctx. A context that cannot end saves the select.
func (s *sleeper) wait(ctx context.Context) error {
	done := ctx.Done()
	if done == nil {
		<-s.sem
		return nil
	}
	select {
	case <-s.sem:
		return nil
	case <-done:
		return ctx.Err()
	}
}

// A waitlist has the receivers that wait for the same items, in the order they came. Its owner's lock guards it; len may
// be read without.
type waitlist struct {
	list []*sleeper
	len  atomic.Int32
}

func (w *waitlist) add(s *sleeper) {
	if !s.listed {
		s.listed = true
		w.list = append(w.list, s)
		w.len.Store(int32(len(w.list)))
	}
}

func (w *waitlist) remove(s *sleeper) {
	if s.listed {
		s.listed = false
		w.list = slices.DeleteFunc(w.list, func(other *sleeper) bool { return other == s })
		w.len.Store(int32(len(w.list)))
	}
}

// wake rouses the first.
func (w *waitlist) wake() {
	if len(w.list) == 0 {
		return
	}
	s := w.list[0]
	copy(w.list, w.list[1:]) // the list is short, and stays where it is
	w.list[len(w.list)-1] = nil
	w.list = w.list[:len(w.list)-1]
	w.len.Store(int32(len(w.list)))
	s.listed = false
	s.rouse()
}
