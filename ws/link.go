package ws

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// A link is one connection of a client.
type link struct {
	*conn
	c       *Client
	epoch   uint64              // counts links; the tags of deliveries tell by it which link brought them
	subs    map[uint64]receiver // by the server's numbers; the reader's own
	leaving atomic.Bool         // the server goes away
	retry   atomic.Int64        // when to come back then
	pinged  time.Duration
}

var errNoConnection error = &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent,
	Message: "there is no connection"}

// connect makes a connection.
func (c *Client) connect(ctx context.Context) (*link, error) {
	h := c.o.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	if c.o.Authorize != nil {
		if err := c.o.Authorize(ctx, h); err != nil {
			if transport.CodeOf(err) == transport.CodeUnknown {
				err = transport.Wrap(err, transport.CodeUnauthenticated, "there are no credentials")
			}
			return nil, err
		}
	}
	tap := &tap{next: c.http.Transport}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { tap.nc = i.Conn }})
	client := *c.http
	client.Transport = tap
	o := &websocket.DialOptions{HTTPClient: &client, HTTPHeader: h, Subprotocols: []string{subprotocol}}
	if c.o.Compress {
		o.CompressionMode = websocket.CompressionNoContextTakeover
	}
	w, resp, err := websocket.Dial(ctx, c.url, o)
	if err != nil {
		return nil, handshakeError(ctx, resp, err)
	}
	c.mu.Lock()
	c.epoch++
	l := &link{conn: newConn(context.Background(), w, tap.sock, c.o.MaxBytes), c: c, epoch: c.epoch,
		subs: map[uint64]receiver{}}
	c.mu.Unlock()
	l.lastStream = 1 // ours are odd
	l.compress, l.handle = c.o.Compress, l.take
	if tap.nc != nil {
		l.rest = newRest(func() bool { return len(l.subs) > 0 })
	}
	return l, nil
}

// A tap puts a socket under the connection that a handshake makes.
type tap struct {
	next http.RoundTripper
	nc   net.Conn // of the last request, if the RoundTripper tells
	sock *socket
}

// RoundTrip implements http.RoundTripper.
func (t *tap) RoundTrip(r *http.Request) (*http.Response, error) {
	next := t.next
	if next == nil {
		next = http.DefaultTransport
	}
	resp, err := next.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
		if rwc, ok := resp.Body.(io.ReadWriteCloser); ok {
			t.sock = newSocket(rwc)
			t.sock.nc = t.nc
			resp.Body = t.sock
		}
	}
	return resp, err
}

// handshakeError is the error of a handshake that failed.
func handshakeError(ctx context.Context, resp *http.Response, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case resp == nil:
		return transport.Wrap(err, transport.CodeUnavailable, "the server cannot be reached")
	case resp.StatusCode == http.StatusSwitchingProtocols:
		return transport.Wrap(err, transport.CodeUnavailable, "the server's handshake is not legal")
	}
	var body []byte
	if resp.Body != nil {
		body, _ = io.ReadAll(resp.Body) // the library keeps 1 KiB
	}
	e := wire.ErrorFrom(resp, body)
	if e.Reason == "" {
		e.Reason = transport.ReasonNotSent
	}
	return e
}

// attach makes l the client's link: first goes what the last one has left over, in order.
func (c *Client) attach(l *link) {
	l.spawn(l.tend)
	var rs []receiver
	for last := uint64(0); rs == nil; {
		c.mu.Lock()
		ps := slices.SortedFunc(maps.Values(c.publishes), func(a, b *publish) int { return cmp.Compare(a.seq, b.seq) })
		ps = slices.DeleteFunc(ps, func(p *publish) bool { return p.seq <= last })
		if len(ps) == 0 {
			rs = append(slices.Collect(maps.Keys(c.receivers)), nil)
			c.link = l
			c.change()
		}
		c.mu.Unlock()
		for _, p := range ps {
			p.send(c.ctx, l, false)
			last = p.seq
		}
	}
	for _, r := range rs[:len(rs)-1] {
		r.resume(l)
	}
	c.o.OnState(Connected, nil)
}

// change wakes who waits for a change. Under mu.
func (c *Client) change() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// run keeps the client connected until Close, or until there is no use.
func (c *Client) run(l *link) {
	defer close(c.done)
	defer c.cancel()
	attempt, refused := 0, 0
	for {
		began := time.Now()
		stop := context.AfterFunc(c.ctx, l.stop)
		err := l.run()
		stop()
		wait, final := c.detach(l, err)
		if time.Since(began) > 10*time.Second {
			attempt = 0
		}
		for l = nil; l == nil; {
			if c.ctx.Err() != nil {
				final = errClosed
			}
			if final != nil {
				c.finish(final)
				return
			}
			attempt++
			if !c.sleep(wait + c.o.Backoff.Delay(attempt)) {
				continue
			}
			ctx, cancel := context.WithTimeout(c.ctx, c.o.HandshakeTimeout)
			l, err = c.connect(ctx)
			cancel()
			wait = 0
			if err == nil {
				refused = 0
				break
			}
			wait = transport.Public(err).RetryAfter
			switch transport.CodeOf(err) {
			case transport.CodeUnauthenticated, transport.CodePermissionDenied:
				if refused++; refused > 1 {
					final = err
				}
			}
		}
		c.attach(l)
	}
}

// stop ends the link because the client was closed.
func (l *link) stop() { l.end(closeNormal, "", errClosed) }

// sleep reports whether d has passed before Close.
func (c *Client) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// detach takes the link away, which has ended with err. It returns how long the server wants to be left alone, or why
// there is no use in connecting again.
func (c *Client) detach(l *link, err error) (wait time.Duration, final error) {
	c.mu.Lock()
	if c.link == l {
		c.link = nil
		c.change()
	}
	wait = time.Duration(l.retry.Load())
	rs := slices.Collect(maps.Keys(c.receivers))
	c.mu.Unlock()
	for _, r := range rs {
		r.detach(l)
	}
	var closed websocket.CloseError
	if errors.As(err, &closed) {
		code := int(closed.Code)
		if ms, ok := strings.CutPrefix(closed.Reason, "retry="); ok {
			if n, err := strconv.ParseUint(ms, 10, 31); err == nil {
				wait = max(wait, time.Duration(n)*time.Millisecond)
			}
		}
		if 3500 <= code && code < 4000 || 4500 <= code && code < 5000 {
			final = transport.Wrap(err, wire.CodeFromClose(code), "the server has closed the connection for good, with %d", code)
		}
	}
	if c.ctx.Err() == nil && final == nil {
		c.o.OnState(Disconnected, l.why())
	}
	return wait, final
}

// finish ends everything for good.
func (c *Client) finish(why error) {
	c.mu.Lock()
	c.err = why
	c.change()
	rs, ps := c.receivers, slices.Collect(maps.Values(c.publishes))
	c.receivers = map[receiver]struct{}{}
	c.mu.Unlock()
	for r := range rs {
		r.finish(why)
	}
	for _, p := range ps {
		p.giveUp(why)
	}
	if why == errClosed {
		why = nil
	}
	c.o.OnState(Closed, why)
}

// connected returns the link, for which it waits.
func (c *Client) connected(ctx context.Context) (*link, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var late <-chan time.Time
	for {
		c.mu.Lock()
		l, changed, err, stopping := c.link, c.changed, c.err, c.stopping
		c.mu.Unlock()
		switch {
		case err != nil && err != errClosed:
			return nil, notSent(err)
		case stopping || c.ctx.Err() != nil:
			return nil, errClosed
		case l != nil && !l.gone():
			return l, nil
		}
		if late == nil {
			t := time.NewTimer(c.o.Patience)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-changed:
		case <-late:
			return nil, errNoConnection
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.ctx.Done():
		}
	}
}

// gone reports whether the link takes nothing more.
func (l *link) gone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err != nil || l.draining != nil || l.leaving.Load()
}

// why is why the link has ended.
func (l *link) why() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// tend looks after the link as long as it lives.
func (l *link) tend() {
	t := time.NewTicker(watchInterval(l.c.o.Heartbeat, l.c.o.WriteTimeout))
	defer t.Stop()
	for {
		select {
		case <-t.C:
			l.watch(l.c.o.Heartbeat, l.c.o.WriteTimeout, &l.pinged)
		case <-l.ctx.Done():
			return
		}
	}
}

// clientMethods are ours that a link's take knows.
var clientMethods = map[string]bool{
	"rpc.event": true, "rpc.end": true, "rpc.stream": true, "rpc.header": true, "rpc.eof": true, "rpc.credit": true,
	"rpc.cancel": true, "rpc.open": true, "rpc.ping": true, "rpc.drain": true, "rpc.expires": true,
}

// take takes what the server sends. It is called by the reader.
func (l *link) take(e *envelope, a *asked) {
	var f fields
	raw := e.params
	if !strings.HasPrefix(string(e.method), "rpc.") {
		raw = e.meta
	} else if !clientMethods[string(e.method)] { // whatever its params are
		a.noMethod(errMethod(e))
		return
	}
	if err := f.parse(raw); err != nil {
		a.done(err)
		return
	}
	switch method := string(e.method); method {
	case "rpc.event":
		if r := l.subs[f.sub]; r != nil {
			a.done(r.event(l, &f))
		} else if f.tag != 0 { // of a group, and on its way when nobody wanted it any more
			l.ack(f.sub, f.tag, transport.CodeCanceled)
			a.done(nil)
		} else {
			a.done(nil)
		}
	case "rpc.end":
		if f.stream != 0 {
			a.done(l.streamNote(method, &f))
			return
		}
		r := l.subs[f.sub]
		delete(l.subs, f.sub)
		if r != nil {
			l.ended(r, parseProblem(f.err))
		}
		a.done(nil)
	case "rpc.stream", "rpc.header", "rpc.eof", "rpc.credit":
		a.done(l.streamNote(method, &f))
	case "rpc.cancel":
		if f.stream != 0 {
			l.streamNote(method, &f)
		} else if f.id != nil {
			l.cancelRequest(f.id)
		}
		a.done(nil)
	case "rpc.open":
		r := l.subs[f.sub]
		if a == nil || r == nil {
			a.noMethod(errGone)
			return
		}
		r.open(l, &f, a)
	case "rpc.ping":
		a.done(nil)
	case "rpc.drain":
		l.leave(f.retry)
		a.done(nil)
	case "rpc.expires":
		l.spawn(l.authenticate)
		a.done(nil)
	default:
		r := l.subs[f.sub]
		if a == nil || r == nil {
			a.noMethod(errGone)
			return
		}
		r.call(l, e, &f, a)
	}
}

// ended ends a receiver that the server has ended. If that goes away, it goes on elsewhere.
func (l *link) ended(r receiver, err error) {
	var e *transport.Error
	if l.leaving.Load() && errors.As(err, &e) && e.Reason == transport.ReasonClosed {
		r.detach(nil)
		return
	}
	l.c.forget(r)
	r.finish(err)
}

// leave has the client look for another connection: the server goes away.
func (l *link) leave(retry time.Duration) {
	l.retry.Store(int64(retry))
	l.leaving.Store(true)
	l.spawn(func() {
		ctx, cancel := context.WithTimeout(l.ctx, l.c.o.Patience)
		defer cancel()
		l.drain(ctx) // else the server ends it
		l.end(closeNormal, "", transport.Errorf(transport.CodeUnavailable, "the server goes away"))
	})
}

// authenticate renews the credentials.
func (l *link) authenticate() {
	if l.c.o.Authorize == nil {
		return
	}
	ctx, cancel := context.WithTimeout(l.ctx, l.c.o.HandshakeTimeout)
	defer cancel()
	h := http.Header{}
	if l.c.o.Authorize(ctx, h) != nil {
		return // the server closes the connection, and then it is tried again
	}
	header := transport.Header{}
	for k, vs := range h {
		header[strings.ToLower(k)] = vs
	}
	l.ask(ctx, "rpc.authenticate", func(frame []byte) []byte { return appendHeader(frame, header) }, nil)
}

// A simple is the waiter for an answer that says no more than that.
type simple struct {
	err   error
	after func()
	done  chan struct{}
}

func (w *simple) answered(_ *envelope, err error) {
	if w.after != nil {
		w.after()
	}
	w.lost(err)
}

func (w *simple) lost(err error) {
	w.err = err
	close(w.done)
}

// ask sends a request whose result is of no interest. after, if not nil, is called by the reader.
func (l *link) ask(ctx context.Context, method string, params func([]byte) []byte, after func()) error {
	id := l.nextID()
	frame := appendRequest(buffer(), method, id)
	if params != nil {
		frame = params(frame)
	}
	w := &simple{after: after, done: make(chan struct{})}
	frame = append(frame, closing...)
	_, err := l.start(ctx, id, w, frame, false)
	recycle(frame)
	if err != nil {
		return err
	}
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		l.giveUp(id)
		return ctx.Err()
	}
}

// poison returns the Code of the end of a connection that may be due to what was sent on it, else 0.
func poison(err error) transport.Code {
	switch n := websocket.CloseStatus(err); n {
	case closeProtocol, closeUnsupported, closeInvalid, closeTooBig:
		return wire.CodeFromClose(int(n))
	}
	return 0
}
