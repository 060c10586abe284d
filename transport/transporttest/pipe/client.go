package pipe

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// maxPublishes is how many publishes a client may have unanswered.
const maxPublishes = 256

// ClientOptions are options of [NewClient].
type ClientOptions struct {
	// MaxBytes bounds a message, by Message.Size. Defaults to transport.DefaultMaxBytes.
	MaxBytes int
	// WriteTimeout bounds each write: a server that does not read is cut off. Defaults to 10 s.
	WriteTimeout time.Duration
	// OnDrop is told of each message that a subscription without a group refused for good or gave up on. It must be
	// safe for concurrent use. Defaults to logging the topic and the ID to slog.Default.
	OnDrop func(m *transport.Message, err error)
}

// A Client is a transport.Transport: what it does, the transport of the server at the other end does. It offers what
// that one offers, except Overflow(Block). It is safe for concurrent use.
//
// It does not reconnect: when the connection is lost everything ends with CodeUnavailable, and so do later calls.
type Client struct {
	c          *conn
	onDrop     func(*transport.Message, error)
	publishing chan struct{} // has an element for each publish without an answer
	once       sync.Once
	done       chan struct{} // closed when run has returned
}

var (
	_ transport.Transport      = (*Client)(nil)
	_ transport.BatchPublisher = (*Client)(nil)
)

// errClosed is what operations get after Close and Shutdown.
var errClosed error = &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonClosed,
	Message: "the connection has been closed"}

// NewClient returns the client of the server at the other end of nc, which it owns from then on. The first operation
// starts its two goroutines; Close or the end of the connection ends them. nil options are the defaults.
func NewClient(nc net.Conn, o *ClientOptions) *Client {
	if o == nil {
		o = &ClientOptions{}
	}
	c := &Client{onDrop: o.OnDrop, publishing: make(chan struct{}, maxPublishes), done: make(chan struct{})}
	if c.onDrop == nil {
		c.onDrop = func(m *transport.Message, err error) {
			slog.Default().Error("pipe: a message was dropped", "topic", m.Topic, "id", m.ID, "error", err)
		}
	}
	c.c = newConn(nc, 1, o.MaxBytes, o.WriteTimeout)
	c.c.begin = c.begin
	return c
}

// conn returns the connection, which runs.
func (c *Client) conn() *conn {
	c.once.Do(func() {
		go func() {
			defer close(c.done)
			c.c.run()
		}()
	})
	return c.c
}

// Publish implements [transport.Publisher]. When ctx ends after m was sent, the error has the Reason OUTCOME_UNKNOWN.
func (c *Client) Publish(ctx context.Context, m *transport.Message) error {
	return c.PublishAll(ctx, m)[0]
}

// PublishAll implements [transport.BatchPublisher]. It does not wait for one answer before it sends the next message.
func (c *Client) PublishAll(ctx context.Context, ms ...*transport.Message) []error {
	errs := make([]error, len(ms))
	requests := make([]*request, len(ms))
	for i, m := range ms {
		requests[i], errs[i] = c.publish(ctx, m)
	}
	for i, r := range requests {
		if errs[i] != nil {
			continue
		}
		if _, errs[i] = r.wait(ctx); errs[i] != nil && errs[i] == ctx.Err() {
			errs[i] = because(errs[i], transport.ReasonOutcomeUnknown)
		}
	}
	return errs
}

func (c *Client) publish(ctx context.Context, m *transport.Message) (*request, error) {
	if err := check(m, c.c.max); err != nil {
		return nil, err
	}
	select {
	case c.publishing <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	answered := func() { <-c.publishing }
	f := &frame{Type: "publish"}
	if f.put(m); f.Message == "" {
		f.Message = transport.NewID()
	}
	r, err := c.conn().request(ctx, f, answered)
	if err != nil {
		answered()
	}
	return r, err
}

// check reports whether m may be published or called.
func check(m *transport.Message, maxBytes int) error {
	if err := m.Check(maxBytes); err != nil {
		return err
	}
	return transport.CheckTopic(m.Topic)
}

// Call implements [transport.Caller].
func (c *Client) Call(ctx context.Context, m *transport.Message) (*transport.Message, error) {
	if err := check(m, c.c.max); err != nil {
		return nil, err
	}
	return c.conn().call(ctx, 0, m)
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
	return c.receive(ctx, &frame{Type: "subscribe", Topic: topic, Options: o})
}

var errBlock = transport.Errorf(transport.CodeUnimplemented, "a remote subscriber cannot make publishers wait")

// Respond implements [transport.Responder].
func (c *Client) Respond(ctx context.Context, topic string,
	opts ...transport.SubscribeOption) (transport.Subscription, error) {
	o, err := transport.ResolveRespond(opts...)
	if err != nil {
		return nil, err
	}
	return c.receive(ctx, &frame{Type: "respond", Topic: topic, Options: o})
}

func (c *Client) receive(ctx context.Context, f *frame) (transport.Subscription, error) {
	s := &subscription{c: c.c, f: f, onDrop: c.onDrop}
	if err := c.activate(ctx, s, &s.receiving, f); err != nil {
		return nil, err
	}
	return s, nil
}

// Accept implements [transport.Acceptor].
func (c *Client) Accept(ctx context.Context, topic string) (transport.Listener, error) {
	f := &frame{Type: "accept", Topic: topic}
	l := newListener(c.c, f)
	if err := c.activate(ctx, l, &l.receiving, f); err != nil {
		return nil, err
	}
	return l, nil
}

// Open implements [transport.Opener]. It returns once the server's transport has opened the stream.
func (c *Client) Open(ctx context.Context, topic string, h transport.Header) (transport.Stream, error) {
	if err := transport.CheckTopic(topic); err != nil {
		return nil, err
	}
	if err := h.Check(); err != nil {
		return nil, err
	}
	s, err := c.conn().open(ctx, &frame{Type: "open", Topic: topic, Header: h})
	if err != nil {
		return nil, err
	}
	return s.Opener(), nil
}

// begin takes what the server begins: calls for a responder of ours, and streams for an acceptor.
func (c *Client) begin(f *frame) error {
	c.c.mu.Lock()
	receiver := c.c.ops[f.For]
	c.c.mu.Unlock()
	switch f.Type {
	case "call":
		if s, ok := receiver.(*subscription); ok && s.Inbox != nil {
			return s.call(f)
		}
	case "open":
		if l, ok := receiver.(*listener); ok {
			return l.open(f)
		}
	case "stop", "item", "eof", "credit":
		return nil // what it is about is over
	default:
		return c.c.refuse(f.ID, transport.CodeUnimplemented)
	}
	return c.c.refuse(f.ID, errGone)
}

var errGone error = &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent,
	Message: "the receiver has closed"}

// Health asks the server, which answers if its transport is well. The error is CodeUnavailable, ctx's, or the
// transport's.
func (c *Client) Health(ctx context.Context) error {
	r, err := c.conn().request(ctx, &frame{Type: "ping"}, nil)
	if err == nil {
		_, err = r.wait(ctx)
	}
	return err
}

// Shutdown ends the client in order: nothing can be begun, subscriptions and listeners close, and what is under way,
// deliveries that are out among it, comes to its end and is confirmed by the server. Then it closes the connection. If
// ctx ends before, the connection is cut and the error is ctx's.
func (c *Client) Shutdown(ctx context.Context) error {
	return errors.Join(c.conn().shutdown(ctx, errClosed), c.Close())
}

// Close ends the connection, after up to a second for the frames that wait to be written, and waits for the client's
// goroutines. Subscriptions and listeners end with io.EOF, all else that is under way with CodeUnavailable. Closing
// twice is safe.
func (c *Client) Close() error {
	c.conn().close(errClosed)
	<-c.done
	return nil
}

// peer is who begins what the server begins.
func (c *conn) peer() transport.Peer {
	p := transport.Peer{Protocol: "pipe"}
	if a := c.nc.RemoteAddr(); a != nil {
		p.Addr = a.String()
	}
	return p
}
