package mem

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// A sleeper is one receiver's readers that wait. The lock of what they wait for guards it all. A token wakes one of
// them; one too many costs a look.
type sleeper struct {
	n      int  // how many wait
	listed bool // they wait for something that others want as well

	token bool          // for those whose context cannot end, as Serve's: a condition wakes them for less than a channel
	cond  sync.Cond     // there is a token
	sem   chan struct{} // the same token for the others; nil until there is one
}

// rouse gives a token.
func (s *sleeper) rouse() {
	s.token = true
	s.cond.Signal()
	if s.sem != nil {
		select {
		case s.sem <- struct{}{}:
		default:
		}
	}
}

// wait waits for a token or the end of ctx. It releases the lock meanwhile.
func (s *sleeper) wait(ctx context.Context) error {
	if done := ctx.Done(); done != nil && !s.token {
		if s.sem == nil {
			s.sem = make(chan struct{}, 1)
		}
		s.cond.L.Unlock()
		var err error
		select {
		case <-s.sem:
		case <-done:
			err = ctx.Err()
		}
		if s.cond.L.Lock(); err == nil {
			s.token = false
		}
		return err
	}
	for !s.token {
		s.cond.Wait()
	}
	s.token = false
	return nil
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
