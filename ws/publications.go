package ws

import (
	"context"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// publications are what waits to be published, in order.
type publications struct {
	sync.Mutex
	list    []publication
	bytes   int           // of list
	running bool          // a goroutine takes from list
	taken   chan struct{} // closed when list is taken; nil if nobody waits
}

// maxPublishBytes is how many bytes wait to be published before the connection waits too.
const maxPublishBytes = 4 << 20

// A publication is an event that the peer has published.
type publication struct {
	m     transport.Message
	a     *asked // nil if nobody wants to know
	again bool
	came  uint64 // see window.now
}

// publish queues an event; there is a goroutine that publishes as long as there is something. What is too much is
// refused; a notification cannot be, and a large body should not be, so then the whole connection waits, as it would
// for a full socket.
func (v *session) publish(topic string, raw []byte, params bool, f *fields, a *asked) {
	err := transport.CheckTopic(topic)
	p := publication{a: a, again: f.again}
	if err == nil {
		err = f.message(&p.m, topic, raw, params, v.max)
	}
	if err == nil {
		err = v.awaitPublishing(a != nil)
	}
	if err == nil {
		err = v.enter(&v.under.publishes, v.s.o.MaxPublishes)
	}
	if err != nil {
		a.done(err)
		v.lost(a, &p.m, err)
		return
	}
	if a != nil {
		p.came = v.s.window.now()
	}
	q := &v.publications
	q.Lock()
	q.list = append(q.list, p)
	q.bytes += p.m.Size()
	start := !q.running
	q.running = true
	q.Unlock()
	if start {
		v.wg.Go(v.publishAll)
	}
}

// awaitPublishing waits until there is room for one more, at most for WriteTimeout.
func (v *session) awaitPublishing(refusable bool) error {
	q := &v.publications
	var late <-chan time.Time
	for {
		q.Lock()
		if q.bytes < maxPublishBytes && (refusable || len(q.list) < v.s.o.MaxPublishes/2) {
			q.Unlock()
			return nil
		}
		if q.taken == nil {
			q.taken = make(chan struct{})
		}
		taken := q.taken
		q.Unlock()
		if late == nil {
			t := time.NewTimer(v.s.o.WriteTimeout)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-taken:
		case <-v.ctx.Done():
			return errClosed
		case <-late:
			v.end(closeTryLater, "", transport.Errorf(transport.CodeUnavailable, "the transport is too slow"))
			return errTooMany
		}
	}
}

// publishAll publishes until nothing waits, so that the order stays.
func (v *session) publishAll() {
	for {
		q := &v.publications
		q.Lock()
		ps := q.list
		q.list, q.bytes = nil, 0
		if q.taken != nil {
			close(q.taken)
			q.taken = nil
		}
		if len(ps) == 0 {
			q.running = false
			q.Unlock()
			return
		}
		q.Unlock()
		v.publishBatch(ps)
	}
}

// publishBatch publishes what was not accepted before, and answers.
func (v *session) publishBatch(ps []publication) {
	ctx := v.context()
	v.peer.Lock()
	id := v.peer.id
	v.peer.Unlock()
	ms := make([]*transport.Message, 0, len(ps))
	from := make([]*publication, 0, len(ps))
	keys := make([]uint64, 0, len(ps))
	flush := func() {
		for i, err := range v.publishMessages(ctx, ms) {
			if keys[i] != 0 {
				v.s.window.finish(keys[i], err)
			}
			v.published(from[i], err)
		}
		ms, from, keys = ms[:0], from[:0], keys[:0]
	}
	for i := range ps {
		p := &ps[i]
		key := uint64(0)
		if p.a != nil && p.m.ID != "" {
			key = v.s.window.key(id, p.m.Topic, p.m.ID)
			if p.again || v.s.window.overtaken(key, p.came) {
				flush() // it may be among those
				if v.accepted(ctx, key) {
					v.published(p, nil)
					continue
				}
			}
			v.s.window.begin(key, p.again)
		}
		ms, from, keys = append(ms, &p.m), append(from, p), append(keys, key)
	}
	flush()
}

// accepted reports whether the event was accepted before. If it is being published, it waits for that.
func (v *session) accepted(ctx context.Context, key uint64) bool {
	for {
		done, wait := v.s.window.seen(key)
		if wait == nil {
			return done
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return false
		}
	}
}

func (v *session) publishMessages(ctx context.Context, ms []*transport.Message) (errs []error) {
	if len(ms) == 0 {
		return nil
	}
	defer func() {
		if p := recover(); p != nil { // the transport may be a Handler
			errs = make([]error, len(ms))
			for i := range errs {
				errs[i] = transport.Panicked(p)
			}
		}
	}()
	return transport.PublishAll(ctx, v.s.t, ms...)
}

func (v *session) published(p *publication, err error) {
	v.under.publishes.leave() // before the client can know
	p.a.done(err)
	v.lost(p.a, &p.m, err)
	v.finish()
}
