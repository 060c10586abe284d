package transport

import (
	"errors"
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
	for {
		d, err := v.sub.Next(v.ctx)
		if err != nil {
			v.end(err)
			return
		}
		key, err := v.key(d.Message)
		if err != nil {
			v.failed(d.Message, err)
			v.settle(d, nil, err)
			continue
		}
		if !v.keys.push(key, d) {
			d.Nack(CodeCanceled)
			return
		}
		v.start(v.workKeyed) // until there are enough
	}
}

func (v *server) key(m *Message) (key string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = Panicked(p)
		}
	}()
	return v.keyedBy(m), nil
}

// workKeyed is one worker: it takes a lane's first delivery, handles it, and settles it or lets the lane wait.
func (v *server) workKeyed() {
	returned := false
	var l *lane
	var d *Delivery
	defer func() {
		if !returned { // the handler called runtime.Goexit
			d.Nack(errGoexit)
			v.keys.finish(l)
			v.end(errGoexit)
			v.sub.Close()
		}
	}()
	for {
		var ok bool
		if l, d, ok = v.keys.next(); !ok {
			break
		}
		reply, err, isCall := v.try(d)
		if err != nil && !isCall && Retryable(err) && CodeOf(err) != CodeCanceled {
			if l.tries < v.attempts {
				wait := retryAfter(err)
				if wait <= 0 {
					wait = Backoff{}.Delay(l.tries)
				}
				if v.keys.retry(l, wait) {
					continue
				}
				err = CodeCanceled // the queue was closed meanwhile
			} else {
				err = exhausted(err, l.tries)
			}
		}
		v.settle(d, reply, err)
		v.keys.finish(l)
	}
	returned = true
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

// close gives back all that no worker has in hand.
func (q *keyQueue) close() error {
	q.mu.Lock()
	q.closed, q.ready = true, nil
	var back []*Delivery
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
	q.mu.Unlock()
	var errs []error
	for _, d := range back {
		errs = append(errs, d.Nack(CodeCanceled))
	}
	return errors.Join(errs...)
}
