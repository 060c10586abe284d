package ws

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// A session is what the server does for one connection.
type session struct {
	*conn
	s      *Server
	asks   *http.Request // the handshake, if it may be asked again who the peer is
	until  time.Time     // when the connection is old
	ours   bool          // the peer speaks the subprotocol
	empty  chan struct{} // the server's, while this is one of its sessions
	pinged time.Duration // silence when it was asked for a pong; 0: it was not

	peer struct {
		sync.Mutex
		ctx     context.Context // has the Peer
		id      string
		expires time.Time
		warn    time.Time // when to tell that they will; zero: never, or it was told
	}

	under        struct{ publishes, subscriptions, calls, streams limit } // what is under way
	publications publications

	feeds struct {
		sync.Mutex
		last  uint64
		m     map[uint64]*feed
		slots chan struct{} // has an element for each stream that the client has accepted
	}
}

// A limit counts what is under way.
type limit struct{ n atomic.Int32 }

func (l *limit) enter(limit int) bool {
	if l.n.Add(1) <= int32(limit) {
		return true
	}
	l.n.Add(-1)
	return false
}

// leave uncounts one, unless l is nil.
func (l *limit) leave() {
	if l != nil {
		l.n.Add(-1)
	}
}

var errTooMany error = &transport.Error{Code: transport.CodeResourceExhausted, Reason: transport.ReasonNotSent,
	Message: "too many operations are under way on this connection"}

// context returns that of the operations that begin now.
func (v *session) context() context.Context {
	v.peer.Lock()
	defer v.peer.Unlock()
	return v.peer.ctx
}

// methods are ours that take knows.
var methods = map[string]bool{
	"rpc.publish": true, "rpc.subscribe": true, "rpc.respond": true, "rpc.accept": true, "rpc.unsubscribe": true,
	"rpc.ack": true, "rpc.credit": true, "rpc.stream": true, "rpc.header": true, "rpc.eof": true, "rpc.end": true,
	"rpc.cancel": true, "rpc.open": true, "rpc.ping": true, "rpc.authenticate": true,
}

func errMethod(e *envelope) error {
	return transport.Errorf(transport.CodeUnimplemented, "there is no method %q", e.method)
}

// take takes what the peer asks, a nil for a notification. It is called by the reader.
func (v *session) take(e *envelope, a *asked) {
	var f fields
	ours := strings.HasPrefix(string(e.method), "rpc.")
	raw := e.params
	if !ours {
		raw = e.meta
	} else if !methods[string(e.method)] { // whatever its params are
		a.noMethod(errMethod(e))
		return
	}
	if err := f.parse(raw); err != nil {
		a.done(err)
		return
	}
	if !ours {
		v.message(e, &f, a)
		return
	}
	switch method := string(e.method); method {
	case "rpc.publish":
		v.publish(f.topic, f.data, false, &f, a)
	case "rpc.subscribe", "rpc.respond", "rpc.accept":
		v.receive(method, &f, a)
	case "rpc.ack":
		a.done(v.feed(f.sub).settle(f.tag, parseProblem(f.err)))
	case "rpc.credit":
		if f.stream == 0 {
			a.done(v.feed(f.sub).addCredit(f.n))
			return
		}
		a.done(v.streamNote(method, &f))
	case "rpc.stream", "rpc.header", "rpc.eof", "rpc.end":
		a.done(v.streamNote(method, &f))
	case "rpc.cancel":
		if f.stream != 0 {
			v.streamNote(method, &f)
		} else if f.id != nil {
			v.cancelRequest(f.id)
		}
		a.done(nil)
	case "rpc.unsubscribe":
		v.feed(f.sub).unsubscribe(a)
	case "rpc.open":
		v.open(&f, a)
	case "rpc.ping":
		v.brief(&f, a, false, func(v *session, ctx context.Context, a *asked) { a.done(v.s.Health(ctx)) })
	case "rpc.authenticate":
		h, err := f.streamHeader()
		if a == nil || err != nil {
			a.done(err)
			return
		}
		v.brief(&f, a, false, func(v *session, ctx context.Context, a *asked) { v.authenticate(ctx, h, a) })
	}
}

// message takes a call, or an event that is not to be confirmed.
func (v *session) message(e *envelope, f *fields, a *asked) {
	topic := string(e.method)
	if err := transport.CheckTopic(topic); err != nil {
		a.noMethod(err)
		return
	}
	if a == nil {
		v.publish(topic, e.params, true, f, nil)
		return
	}
	if err := f.message(&a.m, topic, e.params, true, v.max); err != nil {
		a.done(err)
		return
	}
	v.brief(f, a, a.alone, (*session).answer)
}

// answer makes a call and answers it.
func (v *session) answer(ctx context.Context, a *asked) {
	returned := false
	defer func() {
		if !returned { // runtime.Goexit
			a.done(errExited)
		}
	}()
	reply, err := v.call(ctx, &a.m)
	returned = true
	e := transport.Public(err)
	if e != nil && e.Code == transport.CodeUnavailable && e.Reason == transport.ReasonNotSent { // nobody responds
		a.noMethod(err)
		return
	}
	a.reply(reply, err)
}

var errExited = transport.Errorf(transport.CodeInternal, "the handler has ended its goroutine")

func (v *session) call(ctx context.Context, m *transport.Message) (reply *transport.Message, err error) {
	defer func() {
		if p := recover(); p != nil { // the transport may be a Handler
			reply, err = nil, transport.Panicked(p)
		}
	}()
	if err := v.awaitRoom(ctx); err != nil {
		return nil, err
	}
	return v.s.t.Call(ctx, m)
}

// brief does something for a request that can be cancelled, apart from the reader if that is not to try whether it is
// quick.
func (v *session) brief(q *fields, a *asked, inline bool, do func(v *session, ctx context.Context, a *asked)) {
	if err := v.enter(&v.under.calls, v.s.o.MaxCalls); err != nil {
		a.done(err)
		return
	}
	ctx, cancel := v.context(), context.CancelFunc(nil)
	if q.timeout != 0 {
		ctx, cancel = context.WithTimeout(ctx, q.timeout)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	a.cancelable(cancel)
	if a != nil {
		a.under = &v.under.calls
	}
	v.wg.Add(1)
	f := func() {
		defer v.wg.Done()
		defer v.finish()
		defer func() {
			if a == nil {
				v.under.calls.leave()
			} else {
				a.under.leave() // it was not answered: runtime.Goexit
			}
		}()
		defer cancel()
		do(v, ctx, a)
	}
	if !inline || !v.inline.accept(f) {
		v.apart(f)
	}
}

// enter counts what begins; the error is why it must not.
func (v *session) enter(l *limit, limit int) error {
	if !v.begin() {
		return notSent(errClosed)
	}
	if !l.enter(limit) {
		v.finish()
		return errTooMany
	}
	return nil
}

// open opens a stream at the server's transport for one that the client has opened.
func (v *session) open(f *fields, a *asked) {
	if a == nil {
		return
	}
	if err := v.enter(&v.under.streams, v.s.o.MaxStreams); err != nil {
		a.done(err)
		return
	}
	s, err := v.accept(v.context(), f, &v.under.streams, v.finish)
	if err != nil {
		a.done(err)
		return
	}
	v.wg.Go(func() {
		in := s.Incoming()
		out, err := v.s.t.Open(in.Context(), in.Topic(), in.Header())
		if err != nil {
			s.Cut(err)
			s.over() // before the client can know
			a.done(err)
			return
		}
		a.done(nil)
		wire.Bridge(in, out)
	})
}

// receive takes rpc.subscribe, rpc.respond and rpc.accept.
func (v *session) receive(method string, f *fields, a *asked) {
	if a == nil {
		return // nobody would know its number
	}
	err := transport.CheckTopic(f.topic)
	o, e := f.options()
	if err == nil {
		err = e
	}
	if err != nil {
		a.done(err)
		return
	}
	if err := v.enter(&v.under.subscriptions, v.s.o.MaxSubscriptions); err != nil {
		a.done(err)
		return
	}
	d := &feed{v: v, topic: f.topic, o: o, credit: -1, more: make(chan struct{}, 1)}
	if f.hasCredit {
		d.credit = int(min(f.credit, transport.MaxBuffer))
	}
	d.ctx, d.cancel = context.WithCancelCause(v.context())
	a.cancelable(d.quit)
	v.feeds.Lock()
	v.feeds.last++
	d.sub = v.feeds.last
	if v.feeds.m == nil {
		v.feeds.m = map[uint64]*feed{}
	}
	v.feeds.m[d.sub] = d
	v.feeds.Unlock()
	v.wg.Go(func() {
		d.serve(method, a)
		v.feeds.Lock()
		delete(v.feeds.m, d.sub)
		v.feeds.Unlock()
		d.leave()
		v.finish()
	})
}

// slots returns the semaphore of the streams that the client has accepted.
func (v *session) slots() chan struct{} {
	v.feeds.Lock()
	defer v.feeds.Unlock()
	if v.feeds.slots == nil {
		v.feeds.slots = make(chan struct{}, v.s.o.MaxStreams)
	}
	return v.feeds.slots
}

// feed returns the feed with this number, or nil.
func (v *session) feed(sub uint64) *feed {
	v.feeds.Lock()
	defer v.feeds.Unlock()
	return v.feeds.m[sub]
}

// drainFeeds ends all subscriptions.
func (v *session) drainFeeds() {
	v.feeds.Lock()
	ds := make([]*feed, 0, len(v.feeds.m))
	for _, d := range v.feeds.m {
		ds = append(ds, d)
	}
	v.feeds.Unlock()
	for _, d := range ds {
		d.halt(errClosed)
	}
}

// authenticate asks again who the peer is, with other credentials.
func (v *session) authenticate(ctx context.Context, h transport.Header, a *asked) {
	expires, err := v.reauthenticate(ctx, h)
	if err != nil {
		a.done(err)
		return
	}
	frame := appendResult(buffer(), a.id)
	if !expires.IsZero() {
		frame = appendMillis(frame, "expires", time.Until(expires))
	}
	a.end(append(frame, closing...), false)
}

func (v *session) reauthenticate(ctx context.Context, h transport.Header) (time.Time, error) {
	if v.asks == nil {
		return time.Time{}, nil // they do not expire
	}
	r := v.asks.Clone(ctx)
	for k, vs := range h {
		r.Header[http.CanonicalHeaderKey(k)] = vs
	}
	p, err := v.s.authenticate(r)
	if err != nil {
		return time.Time{}, err
	}
	v.peer.Lock()
	defer v.peer.Unlock()
	if p.ID != v.peer.id {
		return time.Time{}, transport.Errorf(transport.CodePermissionDenied, "the credentials are somebody else's")
	}
	v.is(p)
	return p.Expires, nil
}

// is says who the peer is. Under peer's lock, or before there is anybody else.
func (v *session) is(p transport.Peer) {
	v.peer.ctx, v.peer.id, v.peer.expires, v.peer.warn = transport.WithPeer(v.ctx, p), p.ID, p.Expires, time.Time{}
	if !p.Expires.IsZero() {
		left := time.Until(p.Expires)
		v.peer.warn = p.Expires.Add(-min(warning, left/2))
	}
}

// warning is how long before the credentials expire the client is told, or half of their life.
const warning = 30 * time.Second
