package rest

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// A Backend takes what comes in by HTTP: a transport, a client of another protocol, or a [transport.Mux].
type Backend interface {
	transport.Caller
	transport.Publisher
}

// Options are the options of [NewServer]. Nil is valid, and a zero field means its default.
type Options struct {
	// Routes are the resources. Beside them there are POST /calls/{topic} and POST /topics/{topic}.
	Routes []Route
	// RoutesOnly leaves those two out, so that nothing but Routes can be reached.
	RoutesOnly bool
	// Info, if not nil, has the [OpenAPI] document of Routes served at GET /openapi.json, with NoAsync as it is here.
	Info *Info
	// Authenticate says who sent a request, or refuses it: with 401 unless the error has another Code. An error's header
	// www-authenticate replaces the challenge "Bearer". It may read all of the request but the body. It is not asked for
	// OPTIONS. Defaults to nobody being asked: then Peer.ID is "".
	Authenticate func(r *http.Request) (transport.Peer, error)
	// Headers are more HTTP fields that events take into their header. Calls take all; none takes a [wire.PeerField].
	Headers []string
	// CORS, if not nil, lets pages of other origins in.
	CORS *CORS

	// MaxBytes bounds the Size of a message, and a body before and after decompression. Defaults to 1 MiB.
	MaxBytes int
	// MaxHeaderBytes bounds the fields of a request, cookies and all (431), and its target (414). Of them a message's
	// header may be 16 KiB. The http.Server has a limit of its own, which comes first. Defaults to 32 KiB.
	MaxHeaderBytes int
	// MaxEvents bounds the events in one request. Defaults to 1000.
	MaxEvents int
	// Calls bounds the requests in flight; more are answered 503. Defaults to 1024. So the server holds at most Calls times
	// MaxBytes of bodies.
	Calls int

	// Timeout is how long a request without a deadline may take. Defaults to 30 s.
	Timeout time.Duration
	// MaxTimeout bounds the deadline that a client may ask for. Defaults to 5 minutes.
	MaxTimeout time.Duration
	// ReadTimeout is how long a body may take to arrive (408). Defaults to 30 s. The time for the header is the
	// http.Server's ReadHeaderTimeout.
	ReadTimeout time.Duration
	// WriteTimeout is how long a client may take to read a large answer before the connection is cut. Defaults to 30 s.
	WriteTimeout time.Duration

	// NoAsync leaves /async out, and ignores Prefer: respond-async.
	NoAsync bool
	// Jobs bounds the calls that run behind a 202; more are answered 503. Defaults to 256.
	Jobs int
	// JobTimeout is how long such a call may take. Defaults to 15 minutes.
	JobTimeout time.Duration
	// Results keeps their replies. Defaults to a [NewMemoryStore].
	Results Store
	// ResultAge is how long Results keeps a reply. Defaults to an hour.
	ResultAge time.Duration
	// Keys keeps the outcomes of requests with an Idempotency-Key, apart by Peer.ID: without Authenticate who guesses a key
	// gets its answer. Defaults to a [NewMemoryStore].
	Keys Store
	// KeyAge is how long Keys keeps an outcome. Defaults to 24 hours.
	KeyAge time.Duration

	// OnError is told of every error that is answered by a 5xx status, with its private cause, and of what could not be
	// stored; m is nil where there is no message yet. It must be safe for concurrent use. Defaults to slog.Default for
	// panics and what could not be stored, by topic and ID.
	OnError func(m *transport.Message, err error)
}

// withDefaults returns a copy in which nothing is missing.
func (o *Options) withDefaults() Options {
	var d Options
	if o != nil {
		d = *o
	}
	for _, f := range []struct {
		field *int
		value int
	}{
		{&d.MaxBytes, transport.DefaultMaxBytes}, {&d.MaxHeaderBytes, 32 << 10}, {&d.MaxEvents, 1000},
		{&d.Calls, 1024}, {&d.Jobs, 256},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&d.Timeout, 30 * time.Second}, {&d.MaxTimeout, 5 * time.Minute}, {&d.ReadTimeout, 30 * time.Second},
		{&d.WriteTimeout, 30 * time.Second}, {&d.JobTimeout, 15 * time.Minute}, {&d.ResultAge, time.Hour},
		{&d.KeyAge, 24 * time.Hour},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	if d.Results == nil {
		d.Results = NewMemoryStore(nil)
	}
	if d.Keys == nil {
		d.Keys = NewMemoryStore(nil)
	}
	d.Headers = slices.Clone(d.Headers)
	for i, name := range d.Headers {
		d.Headers[i] = strings.ToLower(name)
	}
	return d
}

// A Server puts a backend on the wire as HTTP resources. It is an http.Handler and does not listen: mount it in an
// http.Server or a mux, with http.StripPrefix where it is not at the root. Safe for concurrent use.
type Server struct {
	o       Options
	backend Backend
	table   *table
	methods []string // of all routes
	cors    *cors
	doc     []byte          // of OpenAPI
	base    context.Context // of the jobs
	cancel  context.CancelFunc

	mu       sync.Mutex
	calls    int // in flight
	jobs     map[string]*job
	running  int // jobs, those included that were taken from the map
	draining bool
	drain    chan struct{} // closed when the drain begins
	idle     chan struct{} // closed when it is over
}

// NewServer returns a server for b. The error is CodeInvalidArgument for routes and options that cannot be.
func NewServer(b Backend, o *Options) (*Server, error) {
	if b == nil {
		return nil, transport.Errorf(transport.CodeInvalidArgument, "rest: the backend is nil")
	}
	s := &Server{o: o.withDefaults(), backend: b, jobs: map[string]*job{},
		drain: make(chan struct{}), idle: make(chan struct{})}
	for _, name := range s.o.Headers {
		if wire.PeerField(name) || !isToken(name) {
			return nil, transport.Errorf(transport.CodeInvalidArgument, "rest: %q cannot be in a message's header", name)
		}
	}
	var err error
	if s.cors, err = newCORS(s.o.CORS); err != nil {
		return nil, err
	}
	if s.table, err = newTable(s.o.Routes); err != nil {
		return nil, err
	}
	if s.o.Info != nil {
		info := *s.o.Info
		info.NoAsync = s.o.NoAsync
		if s.doc, err = OpenAPI(info, s.o.Routes...); err != nil {
			return nil, err
		}
	}
	for _, r := range s.table.routes {
		r.do = (*exchange).call
		if r.Event {
			r.do = (*exchange).publish
		}
	}
	if err := s.addOwn(); err != nil {
		return nil, err
	}
	for _, r := range s.table.routes {
		if !slices.Contains(s.methods, r.method) {
			s.methods = append(s.methods, r.method)
		}
	}
	s.methods = append(s.methods, "OPTIONS")
	if slices.Contains(s.methods, "GET") {
		s.methods = append(s.methods, "HEAD")
	}
	slices.Sort(s.methods)
	s.base, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// addOwn adds the server's own routes to those that were declared.
func (s *Server) addOwn() error {
	type own struct {
		Route
		do endpoint
	}
	var all []own
	if !s.o.RoutesOnly {
		all = append(all, own{Route{Pattern: "POST /calls/{topic}"}, (*exchange).call},
			own{Route{Pattern: "POST /topics/{topic}", Event: true}, (*exchange).publish})
	}
	if !s.o.NoAsync {
		all = append(all, own{Route{Pattern: "GET /async/{id}", CacheControl: "no-store"}, (*exchange).jobStatus},
			own{Route{Pattern: "DELETE /async/{id}"}, (*exchange).cancelJob},
			own{Route{Pattern: "GET /async/{id}/result", CacheControl: "no-store"}, (*exchange).jobResult})
	}
	if s.doc != nil {
		all = append(all, own{Route{Pattern: "GET /openapi.json"}, (*exchange).openAPI})
	}
	for _, o := range all {
		p, err := parsePattern(o.Pattern)
		if err != nil {
			return err
		}
		p.Route, p.do, p.shape = o.Route, o.do, unknown
		if err := s.table.add(p); err != nil {
			return transport.Wrap(err, transport.CodeInvalidArgument, "rest: a route stands in the place of %q: see RoutesOnly, NoAsync and Info", o.Pattern)
		}
	}
	return nil
}

// An endpoint answers, or returns the error to answer with.
type endpoint func(*exchange) error

// An exchange is one request and its answer.
type exchange struct {
	s         *Server
	w         http.ResponseWriter
	r         *http.Request
	route     *parsedRoute // nil before it is known
	values    []string     // of the route's parameters
	peer      transport.Peer
	prefer    preferences
	bodyTaken bool
	ctx       callContext
	buf       [4]string // room for values
	reading   sync.Mutex
	read      bool // nobody reads the body any more
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{s: s, w: w, r: r, bodyTaken: r.Body == nil || r.Body == http.NoBody}
	if err := s.begin(); err != nil {
		if s.cors != nil {
			s.cors.allow(w.Header(), r)
		}
		if s.isDraining() {
			w.Header().Set("Connection", "close")
		}
		x.fail(nil, err)
		return
	}
	defer s.end()
	if err := x.serve(); err != nil {
		x.fail(nil, err)
	}
}

// begin counts a request in, or says why there can be no more.
func (s *Server) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent, RetryAfter: time.Second,
			Message: "the server is shutting down"}
	case s.calls >= s.o.Calls:
		return &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent, RetryAfter: time.Second,
			Message: "too many requests are in flight"}
	}
	s.calls++
	return nil
}

func (s *Server) end() {
	s.mu.Lock()
	s.calls--
	s.checkIdle()
	s.mu.Unlock()
}

// checkIdle tells Shutdown when nothing is left. s.mu is held.
func (s *Server) checkIdle() {
	if s.draining && s.calls == 0 && s.running == 0 {
		select {
		case <-s.idle:
		default:
			close(s.idle)
		}
	}
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// Shutdown ends the server in order: new requests are answered 503 and Connection: close, and it waits for those in flight
// and for the jobs behind a 202. If ctx ends first, the jobs are cancelled and ctx's error is returned. Shut the
// http.Server down after it, or at the same time: that waits for its connections, which this does not know.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.draining {
		s.draining = true
		close(s.drain)
	}
	s.checkIdle()
	s.mu.Unlock()
	defer s.cancel()
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Health returns nil while the server takes requests and its backend, if that has a Health method, is well.
func (s *Server) Health(ctx context.Context) error {
	if s.isDraining() {
		return transport.Errorf(transport.CodeUnavailable, "the server is shutting down")
	}
	if h, ok := s.backend.(interface{ Health(context.Context) error }); ok {
		return h.Health(ctx)
	}
	return nil
}

// serve finds the endpoint.
func (x *exchange) serve() error {
	s, r, h := x.s, x.r, x.w.Header()
	preflight := s.cors != nil && s.cors.allow(h, r)
	if len(r.RequestURI) > s.o.MaxHeaderBytes {
		return tooLarge("414", "the target of the request has more than %d bytes", s.o.MaxHeaderBytes)
	}
	size := 0
	for name, lines := range r.Header {
		for _, line := range lines {
			size += len(name) + len(line)
		}
	}
	if size > s.o.MaxHeaderBytes {
		return tooLarge("431", "the fields of the request have more than %d bytes", s.o.MaxHeaderBytes)
	}
	if r.Method == http.MethodOptions {
		return x.options(preflight)
	}
	if err := x.authenticate(); err != nil {
		return err
	}
	path, escaped := r.URL.Path, r.URL.RawPath != ""
	if escaped {
		path = r.URL.EscapedPath()
	}
	route, values, allowed, err := s.table.match(r.Method, path, escaped, x.buf[:0])
	switch {
	case err != nil:
		return err
	case route == nil && len(allowed) > 0:
		h.Set("Allow", strings.Join(allowed, ", "))
		return withStatus(transport.CodeUnimplemented, "405", "the resource has no method %s", printable(r.Method))
	case route == nil:
		return transport.Errorf(transport.CodeNotFound, "there is no such resource")
	}
	x.route, x.values = route, values
	if !route.Deprecated.IsZero() {
		h.Set("Deprecation", "@"+itoa(route.Deprecated.Unix()))
	}
	if !route.Sunset.IsZero() {
		h.Set("Sunset", route.Sunset.UTC().Format(http.TimeFormat))
	}
	if lines := r.Header["Prefer"]; lines != nil {
		x.prefer = parsePrefer(lines)
	}
	return route.do(x)
}

// options answers an OPTIONS request: what methods there are, and whether another origin's page may use them.
func (x *exchange) options(preflight bool) error {
	h, allowed := x.w.Header(), x.s.methods
	if path, escaped := x.r.URL.Path, x.r.URL.RawPath != ""; path != "*" {
		if escaped {
			path = x.r.URL.EscapedPath()
		}
		var err error
		if _, _, allowed, err = x.s.table.match(http.MethodOptions, path, escaped, nil); err != nil {
			return err
		}
		if len(allowed) == 0 {
			return transport.Errorf(transport.CodeNotFound, "there is no such resource")
		}
	}
	h.Set("Allow", strings.Join(allowed, ", "))
	if preflight {
		x.s.cors.preflight(h, allowed)
	}
	x.w.WriteHeader(http.StatusNoContent)
	return nil
}

// openAPI answers with the document.
func (x *exchange) openAPI() error {
	return x.reply(&transport.Message{Body: x.s.doc, Header: transport.Header{transport.HeaderContentType: {"application/json"}}})
}

// authenticate finds out who the peer is.
func (x *exchange) authenticate() (err error) {
	r := x.r
	if x.s.o.Authenticate != nil {
		defer func() {
			if v := recover(); v != nil {
				err = transport.Panicked(v)
			}
		}()
		if x.peer, err = x.s.o.Authenticate(r); err != nil {
			if transport.CodeOf(err) == transport.CodeUnknown {
				err = transport.Wrap(err, transport.CodeUnauthenticated, "the credentials are not valid")
			}
			return err
		}
		if t := x.peer.Expires; !t.IsZero() && !time.Now().Before(t) {
			return transport.Errorf(transport.CodeUnauthenticated, "the credentials have expired")
		}
	}
	p := &x.peer
	if p.Addr == "" {
		p.Addr = r.RemoteAddr
	}
	if p.Conn == nil && r.TLS != nil {
		p.Conn = (*tls.ConnectionState)(r.TLS)
	}
	p.Protocol = "rest"
	return nil
}

// context returns the context of a call that the exchange's request asks for. It ends when the client is gone, unless
// detached, and at the deadline.
func (x *exchange) context(detached bool) (*callContext, error) {
	d, ok, err := timeout(x.r.Header)
	switch {
	case err != nil:
		return nil, err
	case !ok && x.prefer.wait > 0 && !x.prefer.async:
		d, ok = x.prefer.wait, true
		x.prefer.applied = "wait=" + itoa(int64(d/time.Second))
	}
	if !ok {
		d = x.s.o.Timeout
	}
	x.ctx.parent, x.ctx.peer, x.ctx.until = x.r.Context(), &x.peer, time.Now().Add(min(d, x.s.o.MaxTimeout))
	if detached {
		x.ctx.parent = context.WithoutCancel(x.ctx.parent)
	}
	return &x.ctx, nil
}

// fail answers with err, which is about m.
func (x *exchange) fail(m *transport.Message, err error) {
	e := x.public(err)
	status := wire.StatusOf(e)
	h := x.w.Header()
	switch status {
	case http.StatusUnauthorized:
		challenge := e.Header.Get("www-authenticate")
		if challenge == "" || strings.ContainsAny(challenge, "\r\n\x00") {
			challenge = "Bearer"
		}
		h.Set("Www-Authenticate", challenge)
		e.Header.Del("www-authenticate")
	case http.StatusRequestTimeout:
		h.Set("Connection", "close")
	case http.StatusUnsupportedMediaType:
		if x.r.Header.Get("Content-Encoding") != "" {
			h.Set("Accept-Encoding", "gzip")
		}
	}
	if status >= 500 {
		x.s.report(m, err)
	}
	if !x.bodyTaken {
		x.readBefore(time.Now().Add(drainTimeout))
	}
	vary := h["Vary"]
	wire.WriteProblem(varied{x.w, vary}, x.r, e)
}

// varied keeps what Vary had before an error's header replaced it.
type varied struct {
	http.ResponseWriter
	vary []string
}

func (v varied) WriteHeader(status int) {
	keepVary(v.Header(), v.vary)
	v.ResponseWriter.WriteHeader(status)
}

// keepVary adds the lines that are missing in Vary.
func keepVary(h http.Header, lines []string) {
	for _, line := range lines {
		if !slices.Contains(h["Vary"], line) {
			h.Add("Vary", line)
		}
	}
}

// public returns what the client may know of err, with the status that the route has for its reason.
func (x *exchange) public(err error) *transport.Error {
	e := transport.Public(err)
	if x.route == nil || e.Reason == "" {
		return e
	}
	if status := x.route.Statuses[e.Reason]; status != 0 {
		if e.Header == nil {
			e.Header = transport.Header{}
		}
		e.Header.Set(wire.HeaderStatus, itoa(int64(status)))
	}
	return e
}

// report tells of an error that the client is told little of.
func (s *Server) report(m *transport.Message, err error) {
	if s.o.OnError != nil {
		s.o.OnError(m, err)
		return
	}
	var lost *storeError
	if !errors.Is(err, transport.ErrPanic) && !errors.As(err, &lost) {
		return
	}
	attrs := []any{slog.Any("error", err)}
	if m != nil {
		attrs = append(attrs, slog.String("topic", m.Topic), slog.String("id", m.ID))
	}
	slog.Default().Error("rest: server", attrs...)
}

func withStatus(code transport.Code, status, format string, args ...any) error {
	e := transport.Errorf(code, format, args...).(*transport.Error)
	e.Header = transport.Header{wire.HeaderStatus: {status}}
	return e
}

func tooLarge(status, format string, args ...any) error {
	return withStatus(transport.CodeResourceExhausted, status, format, args...)
}
