package amqpx

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// steady is how long a connection must have lived for the next attempt to count as the first.
const steady = 10 * time.Second

// A link is a connection for one role that is made again whenever it is lost. Its goroutine starts when it is first
// used.
type link struct {
	c    *Client
	role string

	ctx    context.Context // until close
	cancel context.CancelFunc
	start  sync.Once
	done   chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	begun   bool
	cur     *session      // nil: there is none
	changed chan struct{} // closed with the next change of cur or last
	last    error         // of the last attempt, or why the last session ended
	gen     uint64        // of the last session
}

func newLink(c *Client, role string) *link {
	l := &link{c: c, role: role, done: make(chan struct{}), changed: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// connect makes the first connection, in one attempt, and starts the goroutine if that succeeds.
func (l *link) connect(ctx context.Context) error {
	s, err := l.dial(ctx)
	if err != nil {
		return err
	}
	l.set(s, nil)
	l.start.Do(func() { l.begin(s) })
	return nil
}

func (l *link) begin(s *session) {
	l.mu.Lock()
	l.begun = true
	l.mu.Unlock()
	go l.run(s)
}

// run keeps a session alive until close. s is the first one, or nil.
func (l *link) run(s *session) {
	defer close(l.done)
	for attempt := 1; ; attempt++ {
		var err error
		if s == nil {
			if s, err = l.dial(l.ctx); err == nil {
				l.set(s, nil)
			}
		}
		if err == nil {
			since := time.Now()
			select {
			case <-s.done:
			case <-l.ctx.Done():
				s.close()
			}
			if err, s = s.err, nil; time.Since(since) > steady {
				attempt = 1
			}
		}
		l.set(nil, err)
		if l.ctx.Err() != nil || sleep(l.ctx, l.c.o.Backoff.Delay(attempt)) != nil {
			return
		}
	}
}

// set makes s the session and tells who waits.
func (l *link) set(s *session, err error) {
	l.mu.Lock()
	if s != nil {
		l.gen = s.gen
	}
	l.cur, l.last = s, err
	st := State{Role: l.role, Connected: s != nil, Generation: l.gen, Err: err}
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	l.c.o.OnState(st)
}

// current returns the session, nil if there is none.
func (l *link) current() *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cur
}

// session returns the live session, and waits for one while ctx lives.
func (l *link) session(ctx context.Context) (*session, error) {
	if err := ctx.Err(); err != nil {
		return nil, l.noSession(err, nil)
	}
	if l.ctx.Err() != nil {
		return nil, errClosed
	}
	l.start.Do(func() { l.begin(nil) })
	for {
		l.mu.Lock()
		s, changed, last := l.cur, l.changed, l.last
		l.mu.Unlock()
		if s != nil && !s.over() {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, l.noSession(ctx.Err(), last)
		case <-l.ctx.Done():
			return nil, errClosed
		}
	}
}

func (l *link) noSession(end, last error) error {
	return &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent,
		Message: "there is no connection to the broker", Cause: errors.Join(end, last)}
}

// used reports whether the link was ever asked for a session.
func (l *link) used() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun
}

// state returns the generation, and whether the broker has blocked the connection.
func (l *link) state() (gen uint64, blocked bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gen, l.cur != nil && l.cur.blocked.Load()
}

// close ends the connection in order, and waits for the goroutine.
func (l *link) close() {
	l.cancel()
	l.start.Do(func() { close(l.done) })
	<-l.done
}

// dial makes one connection. Its errors are for the user.
func (l *link) dial(ctx context.Context) (*session, error) {
	o := &l.c.o
	ctx, cancel := context.WithTimeout(ctx, o.DialTimeout)
	defer cancel()
	var nc *socket
	config := amqp.Config{
		SASL:       o.SASL,
		Heartbeat:  o.Heartbeat,
		Properties: amqp.NewConnectionProperties(),
		Dial: func(network, addr string) (net.Conn, error) {
			conn, err := o.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			nc = &socket{Conn: conn, timeout: o.MethodTimeout}
			context.AfterFunc(ctx, func() {
				if !nc.open.Load() {
					conn.Close() // the handshake is not done
				}
			})
			return nc, nil
		},
	}
	config.Properties.SetClientConnectionName(o.Name + " " + l.role)
	if o.TLS != nil {
		config.TLSClientConfig = o.TLS.Clone()
	}
	conn, err := amqp.DialConfig(l.c.url, config)
	if err == nil {
		nc.open.Store(true)
		err = ctx.Err() // which may have ended, and closed it, right before
	}
	if err != nil {
		if nc != nil {
			nc.Close()
		}
		return nil, dialError(err, ctx.Err())
	}
	l.mu.Lock()
	gen := l.gen + 1
	l.mu.Unlock()
	s := &session{link: l, gen: gen, conn: conn, socket: nc, done: make(chan struct{})}
	nc.setPatient(s.patient)
	go s.watch(conn.NotifyClose(make(chan *amqp.Error, 1)), conn.NotifyBlocked(make(chan amqp.Blocking, 4)))
	return s, nil
}

// dialError says why there is no connection. end is the error of the attempt's context.
func dialError(err, end error) error {
	var e *amqp.Error
	switch {
	case errors.Is(err, amqp.ErrCredentials), errors.Is(err, amqp.ErrSASL):
		// RabbitMQ hangs up 3 seconds later, without a word.
		return transport.Wrap(errors.Join(err, end), transport.CodeUnauthenticated,
			"the broker does not accept the credentials")
	case end != nil:
		return transport.Wrap(errors.Join(end, err), transport.CodeUnavailable, "the broker does not answer in time")
	case errors.As(err, &e) && e.Server && e.Code == amqp.AccessRefused:
		return transport.Wrap(err, transport.CodeUnauthenticated, "the broker does not accept the credentials")
	case errors.As(err, &e) && e.Server && e.Code == amqp.NotAllowed && strings.Contains(e.Reason, "not found"):
		return transport.Wrap(err, transport.CodeNotFound, "the virtual host does not exist")
	case errors.As(err, &e) && (e.Server && e.Code == amqp.NotAllowed || e == amqp.ErrVhost):
		return transport.Wrap(err, transport.CodePermissionDenied, "the broker refuses access to the virtual host")
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return transport.Wrap(err, transport.CodeUnauthenticated, "the broker's certificate is not accepted")
	}
	return transport.Wrap(err, transport.CodeUnavailable, "the broker cannot be reached")
}

// A session is one connection from its opening to its loss.
type session struct {
	link    *link
	gen     uint64 // 1 for the first of its link: it fences acknowledgements
	conn    *amqp.Connection
	socket  *socket
	blocked atomic.Bool

	done chan struct{} // closed when the connection is lost
	err  error         // why; read it after done
}

// watch notes what the broker says of the connection, until that ends.
func (s *session) watch(closes chan *amqp.Error, blocks chan amqp.Blocking) {
	for {
		select {
		case b, ok := <-blocks:
			if !ok {
				blocks = nil
				continue
			}
			s.blocked.Store(b.Active)
			s.link.c.pub.poke()
		case e := <-closes:
			s.err = errClosed
			if e != nil {
				s.err = brokerError(e)
			}
			s.socket.Close()
			close(s.done)
			return
		}
	}
}

// over reports whether the connection is lost.
func (s *session) over() bool {
	select {
	case <-s.done:
		return true
	default:
		return s.conn.IsClosed()
	}
}

// cut closes the TCP connection: what hangs fails.
func (s *session) cut() { s.socket.Close() }

// close ends the connection in order, within MethodTimeout.
func (s *session) close() {
	if s.blocked.Load() {
		s.cut() // it answers nothing
	}
	t := time.AfterFunc(s.link.c.o.MethodTimeout, s.cut)
	s.conn.CloseDeadline(time.Now().Add(s.link.c.o.MethodTimeout))
	t.Stop()
	<-s.done
}

// patient reports whether the broker reads nothing because of an alarm: that nothing moves is no sign of a dead
// connection then. Nobody waits for that when the client ends.
func (s *session) patient() bool { return s.blocked.Load() && s.link.c.ctx.Err() == nil }

// errAlarm is what synchronous methods get that the broker does not read.
var errAlarm error = &transport.Error{Code: transport.CodeUnavailable,
	Message: "the broker has an alarm and reads nothing"}

// aside runs f, a method that may hang, in a goroutine of its own, and waits for at most MethodTimeout. Then the
// connection is cut, or, during an alarm, the error is errAlarm. When nobody waits for f any more, late is called once
// it has come to its end.
func (s *session) aside(ctx context.Context, f func() error, late func()) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	result := make(chan error)
	finished, gone := make(chan struct{}), make(chan struct{})
	go s.guard(finished)
	go func() {
		err := f()
		close(finished)
		select {
		case result <- err:
		case <-gone:
			late()
		}
	}()
	slow := time.NewTimer(s.link.c.o.MethodTimeout)
	defer slow.Stop()
	for {
		select {
		case err := <-result:
			return err
		case <-ctx.Done():
			close(gone)
			return ctx.Err()
		case <-slow.C:
			if s.patient() {
				close(gone)
				return errAlarm
			} // else guard cuts the connection now, and f ends
		}
	}
}

// guard cuts the connection when what should finish does not.
func (s *session) guard(finished <-chan struct{}) {
	t := time.NewTicker(s.link.c.o.MethodTimeout)
	defer t.Stop()
	for {
		select {
		case <-finished:
			return
		case <-t.C:
			if !s.patient() {
				s.cut()
				return
			}
		}
	}
}

// channel opens a channel.
func (s *session) channel(ctx context.Context) (*channel, error) {
	var ch *amqp.Channel
	err := s.aside(ctx, func() (err error) {
		ch, err = s.conn.Channel()
		return err
	}, func() {
		if ch != nil {
			ch.Close()
		}
	})
	if err != nil {
		if ctx.Err() == nil && err != errAlarm {
			err = s.explain(err)
		}
		return nil, err
	}
	c := &channel{Channel: ch, session: s, done: make(chan struct{})}
	go c.watch(ch.NotifyClose(make(chan *amqp.Error, 1)))
	return c, nil
}

// explain translates an error of the library: one of a closed connection tells why that was closed.
func (s *session) explain(err error) error {
	if errors.Is(err, amqp.ErrClosed) {
		select {
		case <-s.done:
			return s.err
		default:
		}
	}
	return brokerError(err)
}

// A channel is an AMQP channel of a session. Nothing may be written to it once channel.close is: RabbitMQ would take
// that for an error and close the connection, with all its other channels. So what more than one goroutine may do goes
// through use.
type channel struct {
	*amqp.Channel
	session *session
	done    chan struct{} // closed with the channel
	why     error         // read it after done

	using   sync.RWMutex // held for reading while the channel is used
	closing bool         // guarded by using
}

// use runs f while nobody closes the channel.
func (ch *channel) use(f func(*amqp.Channel) error) error {
	ch.using.RLock()
	defer ch.using.RUnlock()
	if ch.closing {
		return amqp.ErrClosed
	}
	return f(ch.Channel)
}

// gather is use, and what f writes goes out in one piece. The lock comes first: who waited for it with the socket corked
// would keep back the method that the channel's end waits for.
func (ch *channel) gather(f func(*amqp.Channel) error) error {
	return ch.use(func(ac *amqp.Channel) error {
		ch.session.socket.cork()
		err := f(ac)
		if lost := ch.session.socket.uncork(); lost != nil {
			return lost
		}
		return err
	})
}

func (ch *channel) watch(closes chan *amqp.Error) {
	ch.why = errClosed
	if e := <-closes; e != nil {
		ch.why = brokerError(e)
	}
	close(ch.done)
}

// err returns why the channel was closed, nil while it is open.
func (ch *channel) err() error {
	select {
	case <-ch.done:
		return ch.why
	default:
		return nil
	}
}

// do runs f, a synchronous method, for at most MethodTimeout. After a 404, 406 or the like the broker has closed the
// channel. If ctx ends first, its error is returned and the channel must not be used for another method.
func (ch *channel) do(ctx context.Context, f func(*amqp.Channel) error) error {
	err := ch.session.aside(ctx, func() error { return ch.use(f) }, func() {})
	if err == nil || err == errAlarm || ctx.Err() != nil && err == ctx.Err() {
		return err
	}
	if errors.Is(err, amqp.ErrClosed) {
		if why := ch.err(); why != nil {
			return why
		}
	}
	return ch.session.explain(err)
}

// close closes the channel, once nobody uses it, and waits for that, but not for the end of an alarm.
func (ch *channel) close() {
	shut := func() error {
		ch.using.Lock()
		ch.closing = true
		ch.using.Unlock()
		return ch.Channel.Close()
	}
	if ch.session.aside(context.Background(), shut, func() {}) != errAlarm {
		<-ch.done
	}
}

// once runs f on a channel of its own: for declaring, where a refusal closes the channel.
func (l *link) once(ctx context.Context, f func(*amqp.Channel) error) error {
	s, err := l.session(ctx)
	if err != nil {
		return err
	}
	ch, err := s.channel(ctx)
	if err != nil {
		return err
	}
	defer func() { go ch.close() }()
	return ch.do(ctx, f)
}

// brokerError translates an error of the library, or of the broker. The broker's text stays private: it names queues
// and users. errors.As finds the *amqp.Error.
func brokerError(err error) error {
	var e *amqp.Error
	if !errors.As(err, &e) {
		return transport.Wrap(err, transport.CodeUnavailable, "the connection to the broker is lost")
	}
	code := wire.CodeFromAMQP(e.Code)
	switch {
	case !e.Server: // the library's own: it has lost the connection
		return transport.Wrap(err, transport.CodeUnavailable, "the connection to the broker is lost")
	case strings.Contains(e.Reason, "down or inaccessible"), // a 404 that passes
		strings.Contains(e.Reason, "does not have a replica"): // and a 406: a stream that is not up yet
		code = transport.CodeUnavailable
	}
	return transport.Wrap(err, code, "the broker refused: %v", code)
}
