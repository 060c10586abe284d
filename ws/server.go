package ws

import (
	"context"
	"crypto/tls"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// Options are the options of [NewServer]. Nil is valid, and a zero field means its default. What is beyond a limit
// for a connection is refused with CodeResourceExhausted and the Reason NOT_SENT.
type Options struct {
	// Authenticate says who sent the handshake, or refuses it: with 401 unless the error has another Code. It is asked
	// again for rpc.authenticate, with the fields that the client gives instead of those of the handshake, and must then
	// name the same Peer.ID. When Peer.Expires passes, the connection ends with 4401. Addr, Conn (*tls.ConnectionState, if
	// there is TLS) and Header are filled in where they are empty. It must be safe for concurrent use. Defaults to nobody
	// being asked: then Peer.ID is "".
	Authenticate func(r *http.Request) (transport.Peer, error)
	// Origins are those of other sites whose pages may connect: a host, perhaps with a port, or scheme://host; "*" in it
	// matches anything (see path.Match). The server's own host always may, and so may what sends no Origin, as programs
	// do. "*" alone lets everybody in; then credentials must not be cookies.
	Origins []string

	// MaxBytes bounds a message, by Message.Size. A frame may be a third larger, and 256 KiB. Defaults to 1 MiB.
	MaxBytes int
	// MaxConnections bounds the connections; more are refused with 503. Defaults to 65536.
	MaxConnections int
	// MaxSubscriptions bounds Subscribe, Respond and Accept together, for a connection. Defaults to 256.
	MaxSubscriptions int
	// MaxCalls bounds the calls under way that a client has made. Defaults to 256. When 16 MiB of replies, or a frame's if
	// that is more, wait for the client to read, a call that is done is answered with CodeResourceExhausted instead of its
	// reply; calls do not begin while 1 MiB waits.
	MaxCalls int
	// MaxPublishes bounds the events that wait to be published for a client. Notifications beyond it wait, and hold up
	// the connection, for WriteTimeout at most; then it is closed with 1013. Defaults to 1024.
	MaxPublishes int
	// MaxStreams bounds the streams that a client has opened, and those that it has accepted. Defaults to 256 each. A
	// stream may hold MaxBytes and 256 KiB.
	MaxStreams int
	// MaxBuffer caps the Buffer of subscriptions, without an error. Defaults to 1024.
	MaxBuffer int

	// Heartbeat is how long a client may say nothing before it is asked for a pong, and after that before it is cut off.
	// Defaults to 25 s, which keeps most proxies from cutting it off.
	Heartbeat time.Duration
	// WriteTimeout bounds each write: a client that does not read is cut off. Defaults to 10 s.
	WriteTimeout time.Duration
	// MaxAge is how long a connection lives before it is drained as by Shutdown, less up to a fifth of it at random.
	// Defaults to 0: for ever.
	MaxAge time.Duration
	// DrainTimeout bounds the drain of a connection at MaxAge. Defaults to 30 s.
	DrainTimeout time.Duration
	// DrainSpread is over which time clients come back after Shutdown. Defaults to a millisecond for each connection.
	DrainSpread time.Duration
	// Compress offers permessage-deflate, without context takeover, for frames of 512 bytes or more. A connection then
	// costs up to 1 MB more while it writes. Defaults to no compression.
	Compress bool

	// OnError is told of events published by notifications that could not be, since nobody else is; not of those that
	// still wait when their own connection ends. It must be safe for concurrent use. Defaults to logging the topic and the
	// ID to slog.Default, at most once a second, with the number of those in between.
	OnError func(m *transport.Message, err error)
}

func (o *Options) withDefaults() Options {
	var d Options
	if o != nil {
		d = *o
	}
	for _, f := range []struct {
		field *int
		value int
	}{
		{&d.MaxBytes, transport.DefaultMaxBytes}, {&d.MaxConnections, 65536}, {&d.MaxSubscriptions, 256}, {&d.MaxCalls, 256},
		{&d.MaxPublishes, 1024}, {&d.MaxStreams, 256}, {&d.MaxBuffer, 1024},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&d.Heartbeat, 25 * time.Second}, {&d.WriteTimeout, 10 * time.Second}, {&d.DrainTimeout, 30 * time.Second},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	if d.OnError == nil {
		d.OnError = logger()
	}
	return d
}

// logger returns the default OnError. It may be a client's fault that an event is not published, and no client shall
// fill the log.
func logger() func(m *transport.Message, err error) {
	var mu sync.Mutex
	var last time.Time
	more := 0
	return func(m *transport.Message, err error) {
		mu.Lock()
		defer mu.Unlock()
		if !last.IsZero() && time.Since(last) < time.Second {
			more++
			return
		}
		slog.Default().Error("ws: an event was not published", "topic", m.Topic, "id", m.ID, "error", err, "more", more)
		last, more = time.Now(), 0
	}
}

// A Server lets the clients at the other end of WebSockets use a transport. It is an http.Handler and does not
// listen: mount it in a mux. The contexts that the transport sees have the Peer: Protocol is "ws". It is safe for
// concurrent use.
type Server struct {
	t      transport.Transport
	o      Options
	window *window
	shares shares

	mu       sync.Mutex
	closed   bool
	arriving int // handshakes under way
	sessions map[*session]struct{}
	empty    chan struct{} // closed when the last session is gone; nil if there is none
	minder   minder
	work     chan func()    // takes calls where a goroutine waits for one; nil ends that
	running  sync.WaitGroup // connections, handshakes, calls and the goroutine that watches
}

// NewServer returns a server of t, which it does not own. Put a transport.Guard around t where not every client may do
// everything. nil options are the defaults.
func NewServer(t transport.Transport, o *Options) *Server {
	s := &Server{t: t, o: o.withDefaults(), window: newWindow(), sessions: map[*session]struct{}{},
		work: make(chan func())}
	s.minder.running = &s.running
	return s
}

// ServeHTTP makes a connection of the handshake, and returns: the connection goes on by itself. What is no handshake is
// answered with 426.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := s.arrive(); err != nil {
		wire.WriteProblem(w, r, err)
		return
	}
	defer s.running.Done()
	v, err := s.handshake(w, r)
	s.mu.Lock()
	s.arriving--
	if v == nil {
		s.mu.Unlock()
		if err != nil {
			if wire.StatusOf(err) == http.StatusUnauthorized {
				w.Header().Set("Www-Authenticate", "Bearer")
			}
			wire.WriteProblem(w, r, err)
		}
		return
	}
	s.sessions[v] = struct{}{}
	closed := s.closed
	if s.empty == nil {
		s.empty = make(chan struct{})
		empty := s.empty
		s.running.Go(func() { s.watch(empty) })
	}
	v.empty = s.empty
	s.running.Go(func() { s.serve(v) })
	s.mu.Unlock()
	if closed { // meanwhile
		v.end(closeGoingAway, "", errClosed)
	}
}

// arrive counts a handshake in, or says why there can be no more.
func (s *Server) arrive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent, RetryAfter: time.Second,
		Message: "the server is shutting down"}
	switch {
	case s.closed:
		return e
	case len(s.sessions)+s.arriving >= s.o.MaxConnections:
		e.Message = "too many connections"
		return e
	}
	s.arriving++
	s.running.Add(1)
	return nil
}

// handshake returns the session, or the error to answer with; neither if the answer has been given.
func (s *Server) handshake(w http.ResponseWriter, r *http.Request) (*session, error) {
	var peer transport.Peer
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") { // else the library refuses it
		if r.Header.Get("Sec-Websocket-Version") != "13" { // which the library calls a bad request
			w.Header().Set("Sec-Websocket-Version", "13")
			http.Error(w, "the version of WebSocket is 13", http.StatusUpgradeRequired)
			return nil, nil
		}
		var err error
		if peer, err = s.authenticate(r); err != nil {
			return nil, err
		}
	}
	h := &hijacker{ResponseWriter: w}
	o := &websocket.AcceptOptions{Subprotocols: []string{subprotocol}, OriginPatterns: s.o.Origins}
	for _, origin := range s.o.Origins {
		o.InsecureSkipVerify = o.InsecureSkipVerify || origin == "*"
	}
	if s.o.Compress {
		o.CompressionMode = websocket.CompressionNoContextTakeover
	}
	c, err := websocket.Accept(h, r, o)
	if err != nil {
		return nil, nil
	}
	v := &session{conn: newConn(context.Background(), c, h.sock, s.o.MaxBytes), s: s, ours: c.Subprotocol() == subprotocol}
	v.server, v.compress, v.handle, v.inline.minder = true, s.o.Compress, v.take, &s.minder
	v.is(peer)
	if !peer.Expires.IsZero() {
		v.asks = r.Clone(context.Background())
		v.asks.Body, v.asks.Response = nil, nil
	}
	if s.o.MaxAge > 0 {
		v.until = time.Now().Add(s.o.MaxAge - time.Duration(rand.Int64N(int64(s.o.MaxAge)/5+1)))
	}
	return v, nil
}

// authenticate finds out who sent r.
func (s *Server) authenticate(r *http.Request) (p transport.Peer, err error) {
	if s.o.Authenticate != nil {
		defer func() {
			if v := recover(); v != nil {
				err = transport.Panicked(v)
			}
		}()
		if p, err = s.o.Authenticate(r); err != nil {
			if transport.CodeOf(err) == transport.CodeUnknown {
				err = transport.Wrap(err, transport.CodeUnauthenticated, "the credentials are not valid")
			}
			return p, err
		}
		if !p.Expires.IsZero() && !time.Now().Before(p.Expires) {
			return p, transport.Errorf(transport.CodeUnauthenticated, "the credentials have expired")
		}
	}
	if p.Addr == "" {
		p.Addr = r.RemoteAddr
	}
	if p.Conn == nil && r.TLS != nil {
		p.Conn = (*tls.ConnectionState)(r.TLS)
	}
	if p.Header == nil {
		p.Header = wire.PeerHeader(r.Header)
	}
	p.Protocol = "ws"
	return p, nil
}

// serve runs a connection until it has ended.
func (s *Server) serve(v *session) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, v)
		if len(s.sessions) == 0 {
			close(s.empty)
			s.empty = nil
		}
	}()
	v.run()
}

// watchInterval is how often connections are looked after.
func watchInterval(heartbeat, writeTimeout time.Duration) time.Duration {
	return max(min(heartbeat, writeTimeout, 4*time.Second)/4, time.Millisecond)
}

// watch looks after all connections, with one timer, as long as there are any.
func (s *Server) watch(empty <-chan struct{}) {
	t := time.NewTicker(watchInterval(s.o.Heartbeat, s.o.WriteTimeout))
	defer t.Stop()
	for {
		select {
		case <-t.C:
			s.dismiss()
		case <-empty:
			return
		}
		s.mu.Lock()
		vs := make([]*session, 0, len(s.sessions))
		for v := range s.sessions {
			vs = append(vs, v)
		}
		s.mu.Unlock()
		now := time.Now()
		for _, v := range vs {
			v.watch(s.o.Heartbeat, s.o.WriteTimeout, &v.pinged)
			v.age(now)
		}
	}
}

// age ends a session whose time has come.
func (v *session) age(now time.Time) {
	if !v.until.IsZero() && now.After(v.until) {
		v.until = time.Time{}
		v.spawn(func() {
			ctx, cancel := context.WithTimeout(context.Background(), v.s.o.DrainTimeout)
			defer cancel()
			v.shutdown(ctx, 0)
		})
	}
	v.peer.Lock()
	left := v.peer.expires.Sub(now)
	expired := !v.peer.expires.IsZero() && left <= 0
	warn := !v.peer.warn.IsZero() && !now.Before(v.peer.warn)
	if warn {
		v.peer.warn = time.Time{}
	}
	v.peer.Unlock()
	switch {
	case expired:
		v.end(websocket.StatusCode(wire.CloseCode(transport.CodeUnauthenticated)), "the credentials have expired",
			transport.Errorf(transport.CodeUnauthenticated, "the credentials have expired"))
	case warn && v.ours:
		v.note(append(appendMillis(appendNote(buffer(), "rpc.expires"), "in", left), closing...))
	}
}

// shutdown ends the session in order: subscriptions end, and what is under way comes to its end. If ctx ends first it
// cuts the connection. retry is when the client shall come back.
func (v *session) shutdown(ctx context.Context, retry time.Duration) error {
	reason := ""
	if retry > 0 {
		reason = "retry=" + strconv.FormatInt(retry.Milliseconds(), 10)
	}
	if v.ours {
		v.note(append(appendMillis(appendNote(buffer(), "rpc.drain"), "retry", retry), closing...))
	}
	v.spawn(v.drainFeeds)
	err := v.drain(ctx)
	if err != nil {
		v.cut(errClosed)
		return err
	}
	v.end(closeGoingAway, reason, errClosed)
	return nil
}

// lost reports an event that could not be published if nobody asked for an answer.
func (v *session) lost(a *asked, m *transport.Message, err error) {
	if a != nil || err == nil {
		return
	}
	if v.ctx.Err() != nil && (err == errClosed || transport.CodeOf(err) == transport.CodeCanceled) {
		return // it has waited until the end of the connection
	}
	v.s.o.OnError(m, err)
}

// Health returns nil while the server runs and its transport, if that has a Health method, is well.
func (s *Server) Health(ctx context.Context) error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return errClosed
	}
	if h, ok := s.t.(interface{ Health(context.Context) error }); ok {
		return h.Health(ctx)
	}
	return nil
}

// Shutdown ends the server in order: it accepts no connection and no new operation, ends subscriptions with
// CodeUnavailable and the Reason CLOSED, and lets what is under way come to its end, deliveries that are out at
// clients among it. Then it closes each connection with 1001, and a hint when to come back, and returns when all is
// done. If ctx ends before, it cuts what is left, and the error is ctx's. An http.Server's own Shutdown knows nothing
// of WebSockets.
func (s *Server) Shutdown(ctx context.Context) error {
	vs := s.close()
	spread := s.o.DrainSpread
	if spread <= 0 {
		spread = time.Duration(len(vs)) * time.Millisecond
	}
	errs := make(chan error, len(vs))
	for _, v := range vs {
		retry := time.Duration(rand.Int64N(int64(spread) + 1))
		go func() { errs <- v.shutdown(ctx, retry) }()
	}
	var err error
	for range vs {
		if e := <-errs; e != nil {
			err = e
		}
	}
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
		for _, v := range vs {
			v.cut(errClosed)
		}
		<-done
	}
	return err
}

// Close cuts all connections and returns when all that was done for them has ended.
func (s *Server) Close() error {
	for _, v := range s.close() {
		v.cut(errClosed)
	}
	s.running.Wait()
	return nil
}

// close lets nothing new in.
func (s *Server) close() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	vs := make([]*session, 0, len(s.sessions))
	for v := range s.sessions {
		vs = append(vs, v)
	}
	return vs
}
