package rest

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// ClientOptions are the options of [NewClient]. Nil is valid, and a zero field means its default.
type ClientOptions struct {
	// Routes say which request an operation or an event is. Of several for one topic the first is taken. What has no route
	// is sent to /calls/{topic} or /topics/{topic}.
	Routes []Route

	// Transport sends the requests. It should not decompress, which the client does within its limits. Shutdown closes its
	// idle connections. Defaults to an http.Transport of the client's own with HTTP/2, the proxy of the environment, 10 s
	// for a connection to be made, and up to 100 idle connections.
	Transport http.RoundTripper
	// Authorize, if not nil, adds credentials to each request that goes to the base URL's origin, to no other. It may set
	// fields and the query; it runs again for a re-send, and for a look into the cache. Its error ends the call: as
	// CodeUnauthenticated unless it has a Code.
	Authorize func(r *http.Request) error
	// Header has fields for every request to the base URL's origin, such as User-Agent. What a message or Authorize sets
	// replaces them.
	Header http.Header
	// DeadlineField is the field that tells the server how many milliseconds are left. Defaults to Connect-Timeout-Ms;
	// "-" sends none.
	DeadlineField string

	// Timeout bounds what has a ctx without a deadline. Defaults to 30 s; negative means that there is no bound.
	Timeout time.Duration
	// MaxBytes bounds the Size of a message, and a reply's body before and after decompression. Defaults to 1 MiB.
	MaxBytes int
	// CompressBytes is the size from which on a request's body is sent with gzip. Defaults to 0: none is. Not every server
	// takes it; ours does.
	CompressBytes int

	// Attempts is how often a request is sent at most, if it may be sent again. Defaults to 3; 1 means once.
	Attempts int
	// Backoff is the wait between attempts. A longer Retry-After goes before it.
	Backoff transport.Backoff
	// RetryBudget is how many re-sends there may be in a row, over all calls; ten successes give one back. It keeps a server
	// that fails from being asked all the more. Defaults to 10.
	RetryBudget int

	// CacheEntries and CacheBytes bound the cache of replies to GET. They default to 1000 and 16 MiB; if one is negative,
	// nothing is cached.
	CacheEntries, CacheBytes int

	// MaxPages bounds [Client.Pages]. Defaults to 1000.
	MaxPages int
	// Origins are further ones, such as "https://cdn.example.com", that the links between pages may lead to.
	Origins []string
}

// Client calls and publishes over HTTP. It is a [transport.Caller] and a [transport.BatchPublisher], and is safe for
// concurrent use.
type Client struct {
	base      *url.URL // without a slash at the end of its path
	user      *url.Userinfo
	table     *table
	transport http.RoundTripper
	authorize func(*http.Request) error
	header    http.Header
	deadline  string // canonical; "" sends none
	origins   map[string]bool
	timeout   time.Duration
	maxBytes  int
	compress  int
	attempts  int
	backoff   transport.Backoff
	budget    budget
	cache     *cache
	maxPages  int

	mu      sync.Mutex
	closed  bool // by Shutdown
	broken  bool // by its ctx, too
	flights map[*flight]struct{}
	wg      sync.WaitGroup // of flights, and of the goroutines that cancel what is given up
}

// NewClient returns a client of the server at base, such as "https://example.com/api": what the routes say, and /calls and
// /topics, are below it. A user and password in base are sent as Basic credentials, unless Authorize sets others.
//
// It does no I/O. The error is CodeInvalidArgument for a base that is no such URL, and for a route that is malformed.
func NewClient(base string, o *ClientOptions) (*Client, error) {
	if o == nil {
		o = &ClientOptions{}
	}
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, transport.Errorf(transport.CodeInvalidArgument,
			"rest: the base is not a URL of the form http://host/path or https://host/path")
	}
	t, err := newTable(o.Routes)
	if err != nil {
		return nil, err
	}
	c := &Client{
		base: &url.URL{Scheme: u.Scheme, Host: u.Host}, user: u.User, table: t, transport: o.Transport,
		authorize: o.Authorize, header: http.Header{}, deadline: http.CanonicalHeaderKey(o.DeadlineField),
		origins: map[string]bool{}, timeout: orDefault(o.Timeout, 30*time.Second),
		maxBytes: orDefault(o.MaxBytes, transport.DefaultMaxBytes), compress: o.CompressBytes,
		attempts: orDefault(o.Attempts, 3), backoff: o.Backoff, maxPages: orDefault(o.MaxPages, 1000),
		flights: map[*flight]struct{}{},
	}
	c.setBasePath(u)
	c.budget.size = float64(orDefault(o.RetryBudget, 10))
	switch c.deadline {
	case "":
		c.deadline = fieldTimeout
	case "-":
		c.deadline = ""
	}
	for name, values := range o.Header {
		c.header[http.CanonicalHeaderKey(name)] = values
	}
	for _, s := range o.Origins {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, transport.Errorf(transport.CodeInvalidArgument, "rest: %q is no origin", s)
		}
		c.origins[origin(u)] = true
	}
	if c.transport == nil {
		c.transport = newTransport()
	}
	entries, size := orDefault(o.CacheEntries, 1000), orDefault(o.CacheBytes, 16<<20)
	if entries > 0 && size > 0 {
		c.cache = newCache(entries, size)
	}
	return c, nil
}

const fieldTimeout = "Connect-Timeout-Ms"

func (c *Client) setBasePath(u *url.URL) {
	c.base.Path, c.base.RawPath = strings.TrimSuffix(u.Path, "/"), strings.TrimSuffix(u.RawPath, "/")
}

func orDefault[T int | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

// newTransport returns a transport like http.DefaultTransport that keeps more connections to one host, as all requests go
// to one, and does not decompress behind our back.
func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: 100, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
		ExpectContinueTimeout: time.Second, DisableCompression: true, MaxResponseHeaderBytes: 256 << 10,
	}
}

// Call sends m as its topic's [Route] says, or else by POST to /calls/{topic} with the body as it is, and returns the reply.
//
// With a route the request's body is a JSON object whose members fill the path. Of the others GET and DELETE send a query:
// an array repeats the name, the members of an object are name.member, null is left out. Other methods send a body; see
// Route.Body. A member that is missing in the path, or cannot stand where it should, is CodeInvalidArgument.
//
// The reply has the HTTP status in its header status unless that is 200 or 204, the fields of the answer as the other
// keys, and the body byte for byte. A redirect is not followed: it is CodeFailedPrecondition, with a location.
//
// An answer of 4xx or 5xx is an error with Remote set, see wire.ErrorFrom. If it is not in the form of RFC 9457, errors.As
// finds an [*Answer] with what the server said, which is not in the text. Other errors: CodeUnavailable with the Reason
// NOT_SENT if no connection could be made, with OUTCOME_UNKNOWN if it broke; ctx's own error if that ended.
//
// Call sends again, after a jittered wait and at most Attempts times, when the connection failed or the answer was 408, 425,
// 429, 502, 503 or 504, if that is safe: for the methods GET, PUT and DELETE, for a Route that is Idempotent, with an
// idempotency-key, or if the error says NOT_SENT. If the time that is left is too short for the wait it does not.
//
// Replies to GET are kept in a private cache as RFC 9111 has it, apart for each set of credentials, and asked for again
// with If-None-Match. A caller who sets if-none-match gets a 304 as a reply with that status. With prefer: respond-async
// an answer of 202 with a Location is waited for: the client asks there until the result comes. When ctx ends before that,
// it deletes it.
func (c *Client) Call(ctx context.Context, m *transport.Message) (*transport.Message, error) {
	if err := check(m, c.maxBytes); err != nil {
		return nil, err
	}
	q, err := c.requestFor(m)
	if err != nil {
		return nil, err
	}
	a, err := c.do(ctx, q)
	if err != nil {
		return nil, err
	}
	return a.message(c.maxBytes)
}

// Publish sends m as the [Route] of the event says, or else by POST to /topics/{topic}, in the binary mode of CloudEvents.
// Nil means that the server answered 2xx. Errors, and when it sends again, are as in [Client.Call].
func (c *Client) Publish(ctx context.Context, m *transport.Message) error {
	if err := check(m, c.maxBytes); err != nil {
		return err
	}
	q, err := c.requestForEvent(m)
	if err != nil {
		return err
	}
	_, err = c.do(ctx, q)
	return err
}

func check(m *transport.Message, maxBytes int) error {
	if m == nil {
		return m.Check(maxBytes)
	}
	if err := transport.CheckTopic(m.Topic); err != nil {
		return err
	}
	return m.Check(maxBytes)
}

// flight is one operation under way.
type flight struct {
	cancel context.CancelFunc
	cut    atomic.Bool // by Close
}

var errClosed = &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonClosed, Message: "the client is closed"}

// begin returns a context for one operation, with the default deadline if parent has none.
func (c *Client) begin(parent context.Context) (context.Context, *flight, error) {
	if err := parent.Err(); err != nil {
		return nil, nil, err
	}
	f := &flight{}
	var ctx context.Context
	if _, ok := parent.Deadline(); !ok && c.timeout > 0 {
		ctx, f.cancel = context.WithTimeout(parent, c.timeout)
	} else {
		ctx, f.cancel = context.WithCancel(parent)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		f.cancel()
		return nil, nil, errClosed
	}
	c.flights[f] = struct{}{}
	c.wg.Add(1)
	return ctx, f, nil
}

func (c *Client) end(f *flight) {
	f.cancel()
	c.mu.Lock()
	delete(c.flights, f)
	c.mu.Unlock()
	c.wg.Done()
}

// do is one operation: it sends q, with all that this may take, and returns an answer that is a success.
func (c *Client) do(ctx context.Context, q *request) (*answer, error) {
	ctx, f, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer c.end(f)
	a, err := c.exchange(ctx, q)
	if err != nil && f.cut.Load() {
		return nil, &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonOutcomeUnknown,
			Message: "the client was closed", Cause: err}
	}
	return a, err
}

func (c *Client) exchange(ctx context.Context, q *request) (*answer, error) {
	if q.cacheable() && c.cache != nil {
		return c.cached(ctx, q)
	}
	a, err := c.send(ctx, q)
	if !q.safe() && (a == nil || a.status < 400) { // without an answer nobody knows what has changed
		c.cache.invalidate(c.changed(q, a)...)
	}
	if err == nil && a.status == http.StatusAccepted && a.header.Get("Location") != "" && parsePrefer(q.header["Prefer"]).async {
		if a, err = c.result(ctx, q, a); !q.safe() {
			c.cache.invalidate(c.changed(q, a)...)
		}
	}
	return a, err
}

// Health reports whether the server can be reached: it asks for the base URL by HEAD, and takes any answer but those that
// say that it is not available.
func (c *Client) Health(ctx context.Context) error {
	u := *c.base
	if u.Path == "" {
		u.Path = "/"
	}
	ctx, f, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer c.end(f)
	a, err := c.roundTrip(ctx, &request{method: http.MethodHead, url: &u, header: c.newHeader(&u, 4)}, 1)
	if a != nil && !unavailable(a.status) {
		return nil
	}
	return err
}

// Shutdown refuses new operations, waits for those under way, and closes the idle connections. When ctx ends it breaks off
// what is left, whose outcome is then unknown, and returns ctx's error. It is safe to be called twice.
func (c *Client) Shutdown(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	done := make(chan struct{})
	go func() {
		c.wg.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		c.cut()
		<-done
		err = ctx.Err()
	}
	c.cache.clear()
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
	return err
}

// Close is Shutdown without the wait: operations under way are broken off.
func (c *Client) Close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c.Shutdown(ctx)
	return nil
}

func (c *Client) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = true
	for f := range c.flights {
		f.cut.Store(true)
		f.cancel()
	}
}

var (
	_ transport.Caller         = (*Client)(nil)
	_ transport.BatchPublisher = (*Client)(nil)
)
