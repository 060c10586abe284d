package ws

import (
	"context"
	"crypto/tls"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// maxPublishes is how many events a client may have published without an answer.
const maxPublishes = 256

// ClientOptions are the options of [Dial]. Nil is valid, and a zero field means its default.
type ClientOptions struct {
	// HTTPClient sends the handshakes. Its Timeout bounds each. Defaults to one of the client's own with the proxy of the
	// environment.
	HTTPClient *http.Client
	// TLS is for wss, if there is no HTTPClient.
	TLS *tls.Config
	// Header has fields for every handshake.
	Header http.Header
	// Authorize, if not nil, adds credentials to the header of each handshake, such as Authorization. It is asked again
	// when the server says that they are about to expire, and for a new connection. Its error counts as a handshake that
	// failed.
	Authorize func(ctx context.Context, h http.Header) error

	// MaxBytes bounds a message, by Message.Size. It should not be less than the server's. Defaults to 1 MiB.
	MaxBytes int
	// Heartbeat is how long the server may say nothing before it is asked for a pong, and after that before the connection
	// counts as broken. Defaults to 25 s.
	Heartbeat time.Duration
	// WriteTimeout bounds each write, and how long Close of a subscription waits for the server. Defaults to 10 s.
	WriteTimeout time.Duration
	// HandshakeTimeout bounds each handshake but the first, which Dial's ctx bounds. Defaults to 10 s.
	HandshakeTimeout time.Duration
	// Patience is how long an operation waits for a connection. Then it fails with CodeUnavailable. Defaults to 10 s.
	Patience time.Duration
	// Backoff is the wait before the client connects again; the first is at attempt 1. What the server asks for, by
	// Retry-After or when it drains, is added to it. Defaults to 100 ms to 10 s with full jitter.
	Backoff transport.Backoff
	// Compress offers permessage-deflate. Defaults to no compression.
	Compress bool

	// OnState is told when the state changes: with the reason, nil where there is none. One call at a time, and in order;
	// it must return soon and not close the client.
	OnState func(s State, err error)
	// OnDrop is told of each message that a subscription without a group refused for good or gave up on. It must be safe
	// for concurrent use. Defaults to logging the topic and the ID to slog.Default.
	OnDrop func(m *transport.Message, err error)
}

func (o *ClientOptions) withDefaults() ClientOptions {
	var d ClientOptions
	if o != nil {
		d = *o
	}
	if d.MaxBytes <= 0 {
		d.MaxBytes = transport.DefaultMaxBytes
	}
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&d.Heartbeat, 25 * time.Second}, {&d.WriteTimeout, 10 * time.Second}, {&d.HandshakeTimeout, 10 * time.Second},
		{&d.Patience, 10 * time.Second},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	if d.Backoff.Jitter == 0 {
		d.Backoff.Jitter = 1
	}
	if d.OnState == nil {
		d.OnState = func(State, error) {}
	}
	if d.OnDrop == nil {
		d.OnDrop = func(m *transport.Message, err error) {
			slog.Default().Error("ws: a message was dropped", "topic", m.Topic, "id", m.ID, "error", err)
		}
	}
	return d
}

// A State is what a client's connection is.
type State uint8

const (
	Connected    State = iota + 1 // all is well
	Disconnected                  // the connection is lost or drained; the client connects again
	Closed                        // for good: Close, Shutdown, or an error that trying again would not mend
)

// String returns the lower-case name.
func (s State) String() string {
	switch s {
	case Connected:
		return "connected"
	case Disconnected:
		return "disconnected"
	case Closed:
		return "closed"
	}
	return "unknown"
}

// A Client is a transport.Transport: what it does, the transport of the server at the other end does. It offers what
// that one offers, except Overflow(Block). It is safe for concurrent use.
//
// When the connection is lost it connects again, until Close or an answer that makes that useless. Meanwhile operations
// wait, for Patience. Of what was under way:
//
//   - subscriptions without a group go on from where they were, each message handed out once. If the server cannot,
//     they end, with CodeOutOfRange for a cursor that is lost. One without a cursor, since the server's transport has
//     no history, ends with CodeUnavailable.
//   - groups, responders and listeners begin anew. Deliveries that were out come again, to whoever; to settle them is
//     CodeUnavailable.
//   - publishes without an answer are sent again with the same ID, and the server does not publish twice what it had
//     accepted in the last minutes.
//   - calls fail with CodeUnavailable and the Reason OUTCOME_UNKNOWN, unless nothing was sent or they have an
//     idempotency-key: then they are sent again.
//   - streams fail.
type Client struct {
	o    ClientOptions
	url  string
	peer transport.Peer
	http *http.Client
	own  *http.Transport // of http, if it is ours

	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	publishing chan struct{} // has an element for each publish without an answer
	done       chan struct{} // closed when run has returned

	mu        sync.Mutex
	link      *link         // nil without a connection
	changed   chan struct{} // closed when link or err changes
	err       error         // why there will be no connection any more
	stopping  bool          // by Shutdown
	epoch     uint64
	sequence  uint64
	publishes map[uint64]*publish
	receivers map[receiver]struct{}
}

var (
	_ transport.Transport      = (*Client)(nil)
	_ transport.BatchPublisher = (*Client)(nil)
)

// Dial connects to the server at rawURL, of the form ws://host/path or wss://host/path; http and https mean the same.
// ctx bounds the first handshake, of which the error is that of the answer, such as CodeUnauthenticated for 401. What
// is no such URL is CodeInvalidArgument. Close the client when it is no longer used. nil options are the defaults.
func Dial(ctx context.Context, rawURL string, o *ClientOptions) (*Client, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" || u.Fragment != "" {
		return nil, transport.Errorf(transport.CodeInvalidArgument, "ws: the URL is not of the form ws://host/path")
	}
	switch u.Scheme {
	case "ws", "wss", "http", "https":
	default:
		return nil, transport.Errorf(transport.CodeInvalidArgument, "ws: the URL has not the scheme ws or wss")
	}
	c := &Client{o: o.withDefaults(), url: rawURL, peer: transport.Peer{Protocol: "ws", Addr: u.Host},
		publishing: make(chan struct{}, maxPublishes), done: make(chan struct{}), changed: make(chan struct{}),
		publishes: map[uint64]*publish{}, receivers: map[receiver]struct{}{}}
	if c.http = c.o.HTTPClient; c.http == nil {
		c.own = &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: c.o.TLS.Clone()}
		c.http = &http.Client{Transport: c.own}
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	l, err := c.connect(ctx)
	if err != nil {
		c.cancel()
		return nil, err
	}
	c.attach(l)
	go c.run(l)
	return c, nil
}

// check reports whether m may be published or called.
func check(m *transport.Message, maxBytes int) error {
	if err := m.Check(maxBytes); err != nil {
		return err
	}
	return transport.CheckTopic(m.Topic)
}

// named returns m with an ID.
func named(m *transport.Message) *transport.Message {
	if m.ID != "" {
		return m
	}
	c := *m
	c.ID = transport.NewID()
	return &c
}

// Call implements [transport.Caller].
func (c *Client) Call(ctx context.Context, m *transport.Message) (*transport.Message, error) {
	if err := check(m, c.o.MaxBytes); err != nil {
		return nil, err
	}
	m = named(m)
	for {
		l, err := c.connected(ctx)
		if err != nil {
			return nil, err
		}
		reply, err := l.call(ctx, m, 0)
		if err == nil || ctx.Err() != nil || !l.gone() || !transport.Resendable(err, m) || c.ctx.Err() != nil {
			return reply, err
		}
	}
}

// Open implements [transport.Opener]. It returns once the server's transport has opened the stream.
func (c *Client) Open(ctx context.Context, topic string, h transport.Header) (transport.Stream, error) {
	if err := transport.CheckTopic(topic); err != nil {
		return nil, err
	}
	if err := h.Check(); err != nil {
		return nil, err
	}
	for {
		l, err := c.connected(ctx)
		if err != nil {
			return nil, err
		}
		s, err := l.open(ctx, topic, h, 0)
		if err == nil {
			return s.Opener(), nil
		}
		if ctx.Err() != nil || !l.gone() || !transport.Resendable(err, nil) || c.ctx.Err() != nil {
			return nil, err
		}
	}
}

// Subscribe implements [transport.Subscriber].
func (c *Client) Subscribe(ctx context.Context, topic string,
	opts ...transport.SubscribeOption) (transport.Subscription, error) {
	o, err := transport.Resolve(^transport.Feature(0), opts...)
	if err != nil {
		return nil, err
	}
	if o.Overflow == transport.Block {
		return nil, errBlock
	}
	return c.receive(ctx, "rpc.subscribe", topic, o)
}

// Respond implements [transport.Responder].
func (c *Client) Respond(ctx context.Context, topic string,
	opts ...transport.SubscribeOption) (transport.Subscription, error) {
	o, err := transport.ResolveRespond(opts...)
	if err != nil {
		return nil, err
	}
	return c.receive(ctx, "rpc.respond", topic, o)
}

func (c *Client) receive(ctx context.Context, method, topic string,
	o transport.SubscribeOptions) (transport.Subscription, error) {
	s := &subscription{method: method, o: o}
	s.init(c, topic, s)
	if err := c.activate(ctx, s); err != nil {
		return nil, err
	}
	return s, nil
}

// Accept implements [transport.Acceptor].
func (c *Client) Accept(ctx context.Context, topic string) (transport.Listener, error) {
	l := &listener{Backlog: wire.NewBacklog()}
	l.init(c, topic, l)
	if err := c.activate(ctx, l); err != nil {
		return nil, err
	}
	return l, nil
}

// Health asks the server, which answers if its transport is well. The error is CodeUnavailable, ctx's, or the
// transport's.
func (c *Client) Health(ctx context.Context) error {
	l, err := c.connected(ctx)
	if err != nil {
		return err
	}
	return l.ask(ctx, "rpc.ping", nil, nil)
}

// Shutdown ends the client in order: nothing can be begun, subscriptions and listeners close, and what is under way,
// deliveries that are out among it, comes to its end. Then it closes the connection. If ctx ends before, the connection
// is cut and the error is ctx's.
func (c *Client) Shutdown(ctx context.Context) error {
	c.mu.Lock()
	c.stopping = true
	l, rs := c.link, slices.Collect(maps.Keys(c.receivers))
	c.mu.Unlock()
	var err error
	if l != nil {
		var closing sync.WaitGroup
		for _, r := range rs {
			closing.Go(func() { r.Close() })
		}
		stop := context.AfterFunc(ctx, func() { l.cut(errClosed) })
		closing.Wait()
		l.drain(ctx)
		if !stop() {
			err = ctx.Err()
		}
	}
	c.Close()
	return err
}

// Close ends the connection, after up to a second for what waits to be written, and waits for the client's goroutines.
// Subscriptions and listeners end with io.EOF, all else that is under way with CodeUnavailable. Closing twice is safe.
func (c *Client) Close() error {
	c.cancel()
	<-c.done
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
	return nil
}
