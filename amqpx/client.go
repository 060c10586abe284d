package amqpx

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/intermodal-go/intermodal/transport"
)

// Options are options of [Dial]. The zero value of a field is the documented default.
type Options struct {
	// Namespace is the name of the topic exchange, and the beginning of the names of all queues and other exchanges that
	// the client declares. Clients with the same Namespace on one virtual host share topics. At most 40 bytes. Defaults to
	// "intermodal".
	Namespace string
	// Exchange names an existing topic exchange to use instead of one of our own. It is never declared, only looked up.
	Exchange string
	// Queue names the existing queue of a group, which is then neither declared nor bound. "" means one of our own.
	Queue func(topic, group string) string
	// Topics lists the topics there are, if not empty: to publish or subscribe to another one is CodeNotFound, to call or
	// respond CodeUnimplemented. Topics that begin with "_reply." always exist. Defaults to any topic.
	Topics []string
	// History lists the topics that have a history, and so offer Replay. Defaults to none.
	History []History
	// ReconnectWindow is how long the queue of a subscription without a group and without history is kept while its
	// client is away. Defaults to 2 minutes.
	ReconnectWindow time.Duration

	// MaxBytes bounds a message, by Message.Size. Defaults to transport.DefaultMaxBytes.
	MaxBytes int
	// Window bounds how many publishes are unconfirmed. More wait, by their ctx. Defaults to 1000.
	Window int
	// ConfirmTimeout bounds the wait for the broker's confirm of a publish that was written; then its outcome is unknown.
	// A publish without a confirm for a quarter of it, while later ones were confirmed, is sent again, once, on a new
	// channel, with all that is in flight.
	// A publish whose ctx has no deadline waits no longer than this for a connection. Defaults to 30 s.
	ConfirmTimeout time.Duration
	// MethodTimeout bounds each exchange with the broker, and each write. A connection on which one takes longer is cut,
	// and made anew. Defaults to 10 s.
	MethodTimeout time.Duration
	// DialTimeout bounds each attempt to connect, handshakes included. Defaults to 10 s.
	DialTimeout time.Duration
	// Backoff is the wait between attempts to connect. Its Jitter defaults to 1 (full jitter).
	Backoff transport.Backoff

	// TLS is the configuration for an amqps URL. It is cloned. Defaults to what the URL says, see amqp091.ParseURI.
	TLS *tls.Config
	// SASL are the mechanisms to log in with, the first that the broker knows. Defaults to the URL's user and password.
	SASL []amqp.Authentication
	// Heartbeat is the interval between heartbeats. A peer that is silent for one and a half of them is dead. The URL's
	// heartbeat parameter wins. Defaults to 10 s.
	Heartbeat time.Duration
	// Name is the connections' name as the broker's tools show it; each connection adds its role. Defaults to
	// "intermodal".
	Name string
	// Dial makes the TCP connections. Defaults to that of net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// OnState is told of each connection made and lost, and each failed attempt but that of Dial. It is called by the
	// goroutine that owns the connection, and by Dial, so it must not wait, nor use the client. It must be safe for
	// concurrent use: each role has its own. nil: nobody is told.
	OnState func(State)
	// OnDrop is told of each message that was refused for good or given up. It must be safe for concurrent use.
	// Defaults to logging the topic and the ID to slog.Default.
	OnDrop func(m *transport.Message, err error)
}

// defaults returns o with all defaults filled in.
func (o *Options) defaults() Options {
	var r Options
	if o != nil {
		r = *o
	}
	set(&r.Namespace, "intermodal")
	set(&r.ReconnectWindow, 2*time.Minute)
	set(&r.MaxBytes, transport.DefaultMaxBytes)
	set(&r.Window, 1000)
	set(&r.ConfirmTimeout, 30*time.Second)
	set(&r.MethodTimeout, 10*time.Second)
	set(&r.DialTimeout, 10*time.Second)
	set(&r.Backoff.Jitter, 1)
	set(&r.Heartbeat, 10*time.Second)
	set(&r.Name, "intermodal")
	if r.Dial == nil {
		r.Dial = (&net.Dialer{}).DialContext
	}
	if r.OnState == nil {
		r.OnState = func(State) {}
	}
	if r.OnDrop == nil {
		r.OnDrop = func(m *transport.Message, err error) {
			slog.Default().Error("amqpx: a message was dropped", "topic", m.Topic, "id", m.ID, "error", err)
		}
	}
	return r
}

// set gives *p the value v if it has none.
func set[T int | time.Duration | float64 | string](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// check reports whether the options are legal.
func (o *Options) check() error {
	switch {
	case len(o.Namespace) > 40:
		return transport.Errorf(transport.CodeInvalidArgument, "Namespace has %d bytes, the limit is 40", len(o.Namespace))
	case len(o.Exchange) > 255:
		return transport.Errorf(transport.CodeInvalidArgument, "Exchange has %d bytes, the limit is 255", len(o.Exchange))
	case o.MaxBytes < 0 || o.Window < 0 || o.ConfirmTimeout < 0 || o.MethodTimeout < 0 || o.DialTimeout < 0 ||
		o.ReconnectWindow < 0:
		return transport.Errorf(transport.CodeInvalidArgument, "an option is negative")
	}
	for i := range o.History {
		if err := o.History[i].check(); err != nil {
			return err
		}
	}
	return nil
}

// State is what became of one connection.
type State struct {
	Role       string // "publish", "consume", "stream" or "call": each role has its own connection
	Connected  bool
	Generation uint64 // of the connection, 1 for the first of its role; while there is none, of the last one
	Err        error  // why it was lost or could not be made; nil while connected
}

// Stats are figures of a Client.
type Stats struct {
	Generation  uint64 // connections made for publishing; 1 as long as none was lost
	Blocked     bool   // the broker has an alarm (memory, disk) and takes no messages
	InFlight    int    // publishes that wait for a connection or a confirm
	Republished uint64 // unconfirmed publishes that were sent again on a new connection, with the same ID
	Returned    uint64 // mandatory publishes that found no queue
	Redelivered uint64 // deliveries that the broker marked as redelivered
	StaleAcks   uint64 // acknowledgements that came after the connection of their delivery was lost, and were dropped
}

// counters are what Stats counts.
type counters struct {
	republished, returned, redelivered, staleAcks atomic.Uint64
}

// A Client is a transport over a RabbitMQ broker: Publish, Subscribe, Call and Respond. Open and Accept are refused. It
// connects again by itself for as long as it lives. It is safe for concurrent use.
type Client struct {
	url                      string  // has the password in it
	o                        Options // resolved
	publish, consume, stream *link
	pub                      *publisher
	caller                   *caller
	stats                    counters
	topology                 *topology
	topics                   map[string]bool // nil: any

	ctx    context.Context // until Close; the links live longer, so that what runs can end in order
	cancel context.CancelFunc

	closing atomic.Bool     // nothing can be begun
	opening context.Context // ends then: what is being begun is given up
	shut    context.CancelFunc
	mu      sync.Mutex
	running map[running]struct{}
}

// running is what lives in a client until it is closed: a subscription or a responder.
type running interface {
	// shutdown stops the flow, gives back what was not handed out, and waits for the deliveries that are out, at most
	// until ctx ends.
	shutdown(ctx context.Context) error
	// end ends it now: Next returns io.EOF. It waits for its goroutines.
	end()
}

var (
	_ transport.Publisher      = (*Client)(nil)
	_ transport.BatchPublisher = (*Client)(nil)
)

// errClosed is what operations get after Close and Shutdown.
var errClosed error = &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonClosed,
	Message: "the client has been closed"}

// Dial connects to the broker at url, such as amqp://user:password@host:5672/vhost (the virtual host / is written %2f
// or left out; amqps for TLS). It makes the first connection, the one for publishing, in one attempt; those for
// consuming, for streams and for calls are made when they are needed. From then on lost connections are made again, for
// ever. It declares the exchange and the streams of History.
//
// An unreachable broker is CodeUnavailable, wrong credentials are CodeUnauthenticated, a virtual host or an
// Options.Exchange that does not exist is CodeNotFound, one that is not allowed CodePermissionDenied, an exchange or a
// stream that exists in another way CodeFailedPrecondition, an illegal url or option CodeInvalidArgument. No error has
// the password in it. nil options are the defaults.
func Dial(ctx context.Context, url string, o *Options) (*Client, error) {
	c := &Client{url: url, o: o.defaults(), running: map[running]struct{}{}}
	if err := c.o.check(); err != nil {
		return nil, err
	}
	if _, err := amqp.ParseURI(url); err != nil { // whose text repeats the url, with the password
		return nil, transport.Errorf(transport.CodeInvalidArgument, "the URL is not one of AMQP")
	}
	if len(c.o.Topics) > 0 {
		c.topics = make(map[string]bool, len(c.o.Topics))
		for _, t := range c.o.Topics {
			if err := transport.CheckTopic(t); err != nil {
				return nil, err
			}
			c.topics[t] = true
		}
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.opening, c.shut = context.WithCancel(c.ctx)
	c.publish, c.consume, c.stream = newLink(c, "publish"), newLink(c, "consume"), newLink(c, "stream")
	c.topology = newTopology(c)
	c.caller = newCaller(c)
	c.pub = newPublisher(c, c.publish)
	err := c.publish.connect(ctx)
	for attempt, ready := 1, false; err == nil && !ready; attempt++ {
		// Foreign programs find the exchange; what cannot be declared is better known now.
		var s *session
		if s, err = c.publish.session(ctx); err != nil {
			break
		}
		err = c.topology.prepare(ctx, s)
		if ready = err == nil; brokerFailed(err) && attempt < 3 { // it has closed the connection, which is made again
			err = sleep(ctx, again.Delay(attempt))
		}
	}
	if err != nil {
		c.cancel()
		c.publish.close()
		return nil, err
	}
	c.pub.begin()
	return c, nil
}

// brokerFailed reports whether err is an error inside of the broker, as when it is asked to declare a stream while it deletes
// others (RabbitMQ 3.10): the next attempt may be good.
func brokerFailed(err error) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Code == amqp.InternalError
}

// links are the connections, one for each role.
func (c *Client) links() []*link { return []*link{c.publish, c.consume, c.stream, c.caller.link} }

// begin registers r. It fails once the client is closing.
func (c *Client) begin(r running) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing.Load() {
		return errClosed
	}
	c.running[r] = struct{}{}
	return nil
}

// finished forgets r, which has ended. It may be called more than once.
func (c *Client) finished(r running) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.running, r)
}

// close lets nothing begin any more, and returns what runs.
func (c *Client) close() (rs []running) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing.Store(true)
	c.shut()
	for r := range c.running {
		rs = append(rs, r)
	}
	return rs
}

// Stats returns the figures of now.
func (c *Client) Stats() Stats {
	s := Stats{
		InFlight:    c.pub.inFlight(),
		Republished: c.stats.republished.Load(),
		Returned:    c.stats.returned.Load(),
		Redelivered: c.stats.redelivered.Load(),
		StaleAcks:   c.stats.staleAcks.Load(),
	}
	s.Generation, s.Blocked = c.publish.state()
	return s
}

// Health asks the broker over each connection that is in use, and returns nil if all answer. While the broker is
// blocked by an alarm, or a connection is lost and not made again before ctx ends, it is CodeUnavailable.
func (c *Client) Health(ctx context.Context) error {
	if c.closing.Load() {
		return errClosed
	}
	for _, l := range c.links() {
		if !l.used() {
			continue
		}
		if _, blocked := l.state(); blocked { // and would not answer
			return transport.Errorf(transport.CodeUnavailable, "the broker takes no messages: it has an alarm")
		}
		if err := l.once(ctx, func(*amqp.Channel) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

// Shutdown ends the client in order: nothing can be begun, subscriptions and responders stop their flow and give back
// what was not handed out, deliveries that are out are waited for, and so are the confirms of what was published. Then
// it closes. If ctx ends before, the rest is cut off, as by Close, and the error is ctx's.
func (c *Client) Shutdown(ctx context.Context) error {
	rs := c.close()
	errs := make([]error, len(rs))
	var wg sync.WaitGroup
	for i, r := range rs {
		wg.Go(func() { errs[i] = r.shutdown(ctx) })
	}
	wg.Wait()
	errs = append(errs, c.pub.drain(ctx)) // last: settling publishes retries and replies
	return errors.Join(append(errs, c.Close())...)
}

// Close ends the client. Subscriptions and responders end with io.EOF, what is under way with CodeUnavailable: a
// publish that was sent and has no confirm yet with the Reason OUTCOME_UNKNOWN. What is unsettled is delivered again by
// the broker, to others. Close waits for the client's goroutines; each exchange with the broker that this takes is
// bounded by MethodTimeout. Closing twice is safe.
func (c *Client) Close() error {
	c.cancel()
	var wg sync.WaitGroup
	for _, r := range c.close() {
		wg.Go(r.end)
	}
	wg.Wait()
	c.pub.close()
	for _, l := range c.links() {
		wg.Go(l.close)
	}
	wg.Wait()
	return nil
}
