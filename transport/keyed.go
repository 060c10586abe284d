package transport

import (
	"sync"
	"time"
)

// ReasonAttempts is the Reason of the refusal after the last try under [KeyedBy].
const ReasonAttempts = "ATTEMPTS_EXHAUSTED"

// keyQueue holds the deliveries of one Serve by key. A lane is ready when its first delivery is neither being handled
// nor waiting for its next try. What all lanes hold is bounded by the subscription's Buffer.
type keyQueue struct {
	mu      sync.Mutex
	wake    *sync.Cond
	lanes   map[string]*lane
	ready   []*lane
	drained bool // nothing will be pushed
	closed  bool // and what is left was given back
}

type lane struct {
	key   string
	queue []*Delivery
	tries int  // of the first
	busy  bool // a worker has the first
}

func newKeyQueue() *keyQueue {
	q := &keyQueue{lanes: map[string]*lane{}}
	q.wake = sync.NewCond(&q.mu)
	return q
}

// dispatch pulls for all workers and sorts by key.
func (v *server) dispatch() {
	defer v.keys.drain()
	returned := false
	defer func() { v.left(returned) }()
	for v.ctx.Err() == nil {
		d, err := v.sub.Next(v.next)
		if err != nil {
			v.end(err)
			break
		}
		key, err := v.key(d)
		if err != nil {
			continue
		}
		if !v.keys.push(key, d) {
			v.settle(d, nil, CodeCanceled)
			break
		}
		v.start(v.workKeyed) // until there are enough
	}
	returned = true
}

// key returns d's key; without one d is refused.
func (v *server) key(d *Delivery) (key string, err error) {
	err = errGoexit
	defer func() {
		if p := recover(); p != nil {
			err = Panicked(p)
		}
		if err != nil {
			v.failed(d.Message, err)
			v.settle(d, nil, err)
		}
	}()
	return v.keyedBy(d.Message), nil
}

// workKeyed is one worker: it takes whatever lane is ready.
func (v *server) workKeyed() {
	returned := false
	defer func() { v.left(returned) }()
	for {
		l, d, ok := v.keys.next()
		if !ok {
			break
		}
		v.handleKeyed(l, d)
	}
	returned = true
}

// handleKeyed handles l's first delivery, and settles it or lets the lane wait.
func (v *server) handleKeyed(l *lane, d *Delivery) {
	waits := false
	defer func() { // also when the handler calls runtime.Goexit
		if !waits {
			v.keys.finish(l)
		}
	}()
	defer v.finish()
	if !v.begin() {
		v.settle(d, nil, CodeCanceled)
		return
	}
	reply, err, isCall := v.try(d)
	if err != nil && !isCall && Retryable(err) && CodeOf(err) != CodeCanceled {
		if l.tries < v.attempts {
			wait := retryAfter(err)
			if wait <= 0 {
				wait = Backoff{}.Delay(l.tries)
			}
			if waits = v.keys.retry(l, wait); waits {
				return
			}
			err = CodeCanceled // the queue was closed meanwhile
		} else {
			err = exhausted(err, l.tries)
		}
	}
	v.settle(d, reply, err)
}

// exhausted makes err one that refuses for good.
func exhausted(err error, tries int) error {
	e := *Public(err)
	e.Code, e.Reason, e.RetryAfter, e.Cause, e.Remote = CodeFailedPrecondition, ReasonAttempts, 0, err, false
	if e.Message == "" {
		e.Message = CodeOf(err).String()
	}
	return &e
}

// push appends d to its lane. It is false once the queue is closed.
func (q *keyQueue) push(key string, d *Delivery) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	l := q.lanes[key]
	if l == nil {
		l = &lane{key: key}
		q.lanes[key] = l
		q.makeReady(l)
	}
	l.queue = append(l.queue, d)
	return true
}

func (q *keyQueue) makeReady(l *lane) {
	q.ready = append(q.ready, l)
	q.wake.Signal()
}

// next waits for a lane that is ready. It is false when there will be none.
func (q *keyQueue) next() (*lane, *Delivery, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.ready) == 0 {
		if q.closed || q.drained && len(q.lanes) == 0 {
			return nil, nil, false
		}
		q.wake.Wait()
	}
	l := q.ready[0]
	q.ready = q.ready[1:]
	l.busy = true
	l.tries++
	return l, l.queue[0], true
}

// finish removes the first delivery of l, which has been settled.
func (q *keyQueue) finish(l *lane) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l.queue = l.queue[1:]
	l.busy, l.tries = false, 0
	if len(l.queue) > 0 && !q.closed {
		q.makeReady(l)
		return
	}
	delete(q.lanes, l.key)
	if len(q.lanes) == 0 {
		q.wake.Broadcast() // those that wait for the drain
	}
}

// retry makes l ready again after wait. It is false once the queue is closed.
func (q *keyQueue) retry(l *lane, wait time.Duration) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	l.busy = false
	time.AfterFunc(wait, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if !q.closed {
			q.makeReady(l)
		}
	})
	return true
}

// drain lets the workers go once all lanes are empty.
func (q *keyQueue) drain() {
	q.mu.Lock()
	q.drained = true
	q.wake.Broadcast()
	q.mu.Unlock()
}

// close returns all that no worker has in hand, to be given back.
func (q *keyQueue) close() (back []*Delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.ready = true, nil
	for _, l := range q.lanes {
		if l.busy {
			back = append(back, l.queue[1:]...)
			l.queue = l.queue[:1]
		} else {
			back = append(back, l.queue...)
			delete(q.lanes, l.key)
		}
	}
	q.wake.Broadcast()
	return back
}
