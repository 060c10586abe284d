package ws

import (
	"sync"
	"sync/atomic"
	"time"
)

// The reader of a server's connection runs a handler itself when nothing else is under way there: to wake another
// goroutine costs more than many handlers take. A handler that takes long must not hold up what comes behind its request:
// the minder has another goroutine read on then, and the handlers of that connection run apart for a while.
type inline struct {
	minder  *minder // nil: nothing runs here
	next    func()  // to be run when the frame is done with; the reader's own
	apart   int     // how many more run apart; the reader's own, as is penalty
	penalty int     // how many did after the last that was not quick
	turn    atomic.Uint64
	minded  atomic.Bool
	seen    uint64 // the minder's: turn at the last look
}

const (
	quick      = 100 * time.Microsecond // after what takes longer, others run apart
	patience   = time.Millisecond       // who has taken so long, and at most twice that, reads no more
	minPenalty = 16                     // how many run apart then; twice as many the next time, and so on
	maxPenalty = 4096
)

// accept takes f to be run by the reader, if it may.
func (in *inline) accept(f func()) bool {
	if in.minder == nil {
		return false
	}
	if in.apart > 0 {
		in.apart--
		return false
	}
	in.next = f
	return true
}

// run runs what was accepted. It is false if another goroutine reads meanwhile.
func (in *inline) run(c *conn) (mine bool) {
	f := in.next
	if f == nil {
		return true
	}
	in.next = nil
	turn := in.turn.Add(1) // odd: whoever makes it even reads on
	in.minder.mind(c)
	began, returned := time.Now(), false
	defer func() {
		switch mine = in.turn.CompareAndSwap(turn, turn+1); {
		case !mine:
		case !returned: // runtime.Goexit
			c.wg.Go(c.read)
		case time.Since(began) > quick:
			in.slow()
		default:
			in.penalty = 0
		}
	}()
	f()
	returned = true
	return
}

// slow lets some run apart. It is called by the reader, or for the next.
func (in *inline) slow() {
	in.penalty = min(max(2*in.penalty, minPenalty), maxPenalty)
	in.apart = in.penalty
}

// A minder looks after the connections whose readers have run handlers of late.
type minder struct {
	running *sync.WaitGroup // the server's

	mu    sync.Mutex
	conns []*conn
	on    bool
}

func (m *minder) mind(c *conn) {
	if c.inline.minded.Load() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.inline.minded.Load() {
		return
	}
	c.inline.minded.Store(true)
	m.conns = append(m.conns, c)
	if !m.on {
		m.on = true
		m.running.Go(m.run)
	}
}

func (m *minder) run() {
	for m.look() {
		time.Sleep(patience)
	}
}

// look has somebody else read where a handler was under way at the last look, and forgets connections that have run
// none since. It is false if there is nothing left to mind.
func (m *minder) look() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := m.conns[:0]
	for _, c := range m.conns {
		in := &c.inline
		switch turn := in.turn.Load(); {
		case turn != in.seen:
			in.seen = turn
		case turn%2 == 0:
			in.minded.Store(false)
			if in.turn.Load() == turn {
				continue // its reader sees that it is not minded
			}
			in.minded.Store(true)
		case in.turn.CompareAndSwap(turn, turn+1):
			in.slow()
			c.wg.Go(c.read)
		}
		kept = append(kept, c)
	}
	clear(m.conns[len(kept):])
	m.conns, m.on = kept, len(kept) > 0
	return m.on
}
