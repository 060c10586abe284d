package pipe

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// ServerOptions are options of [NewServer]. The limits hold for each connection; what is beyond them is refused with
// CodeResourceExhausted.
type ServerOptions struct {
	// MaxBytes bounds a message, by Message.Size. Defaults to transport.DefaultMaxBytes.
	MaxBytes int
	// WriteTimeout bounds each write: a client that does not read is cut off. Defaults to 10 s.
	WriteTimeout time.Duration
	// MaxSubscriptions bounds Subscribe, Respond and Accept together. Defaults to 256.
	MaxSubscriptions int
	// MaxCalls bounds the client's calls under way. Defaults to 256.
	MaxCalls int
	// MaxStreams bounds the streams that the client has opened, and those it has accepted. Defaults to 256 each. A
	// stream may hold MaxBytes and 256 KiB.
	MaxStreams int
	// MaxBuffer caps the Buffer of subscriptions, without an error. Defaults to 1024.
	MaxBuffer int
	// Authenticate finds out who is on the other end of a new connection, say from its TLS certificate. ServeConn's ctx
	// bounds it. The connection ends when Peer.Expires passes; Addr, Protocol and Conn are filled in where they are
	// empty. An error refuses the connection. nil lets everybody in.
	Authenticate func(ctx context.Context, nc net.Conn) (transport.Peer, error)
}

// A Server lets the clients at the other end of its connections use a transport. The contexts that this one sees have
// the Peer: Protocol is "pipe", Conn the net.Conn. It is safe for concurrent use.
type Server struct {
	t transport.Transport
	o ServerOptions

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]bool
	sessions  map[*session]bool
	running   sync.WaitGroup // ServeConn
}

// NewServer returns a server of t, which it does not own. Put a transport.Guard around t where not every client may do
// everything. nil options are the defaults.
func NewServer(t transport.Transport, o *ServerOptions) *Server {
	s := &Server{t: t, listeners: map[net.Listener]bool{}, sessions: map[*session]bool{}}
	if o != nil {
		s.o = *o
	}
	for _, limit := range []*int{&s.o.MaxSubscriptions, &s.o.MaxCalls, &s.o.MaxStreams} {
		if *limit <= 0 {
			*limit = 256
		}
	}
	if s.o.MaxBuffer <= 0 {
		s.o.MaxBuffer = 1024
	}
	return s
}

// Serve accepts connections from l and serves each, until Shutdown or Close, when it returns nil, or until l fails.
// It closes l.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.listeners[l] = true
	s.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		nc, err := l.Accept()
		if err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.listeners, l)
			if s.closed {
				return nil
			}
			return err
		}
		wg.Go(func() { s.ServeConn(context.Background(), nc) })
	}
}

// ServeConn serves the client at the other end of nc, which it owns, until the connection ends, and returns when all
// that was done for it has ended. ctx is the connection's life. The error says why it ended, nil if the client closed it
// or the server was shut down.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn) error {
	v := newSession(s, nc)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		nc.Close()
		return errClosed
	}
	s.sessions[v] = true
	s.running.Add(1)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.sessions, v)
		s.mu.Unlock()
		s.running.Done()
	}()
	defer context.AfterFunc(ctx, func() { v.cut(ctx.Err()) })()
	peer, err := s.peer(ctx, nc, v.conn)
	if err != nil {
		v.close(err)
	} else if !peer.Expires.IsZero() {
		defer time.AfterFunc(time.Until(peer.Expires), func() {
			v.close(transport.Errorf(transport.CodeUnauthenticated, "the credentials have expired"))
		}).Stop()
	}
	v.ctx, v.over = context.WithCancel(transport.WithPeer(ctx, peer))
	v.wg.Go(v.publish)
	err = v.run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// peer is who is on the other end.
func (s *Server) peer(ctx context.Context, nc net.Conn, c *conn) (p transport.Peer, err error) {
	if s.o.Authenticate != nil {
		if p, err = s.o.Authenticate(ctx, nc); err != nil {
			if transport.CodeOf(err) == transport.CodeUnknown {
				err = transport.Wrap(err, transport.CodeUnauthenticated, "the connection is not authenticated")
			}
			return p, err
		}
	}
	from := c.peer()
	if p.Addr == "" {
		p.Addr = from.Addr
	}
	if p.Protocol == "" {
		p.Protocol = from.Protocol
	}
	if p.Conn == nil {
		p.Conn = nc
	}
	return p, nil
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
// CodeUnavailable and the Reason CLOSED, and lets what is under way come to its end, deliveries that are out at clients
// among it. Then it closes the connections and returns when all is done. If ctx ends before, it cuts what is left, and
// the error is ctx's.
func (s *Server) Shutdown(ctx context.Context) error {
	errs := make(chan error)
	sessions := s.close()
	for _, v := range sessions {
		go func() { errs <- v.shutdown(ctx, errClosed) }()
	}
	var err error
	for range sessions {
		err = errors.Join(err, <-errs)
	}
	s.running.Wait()
	if err != nil {
		return ctx.Err()
	}
	return nil
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
	for l := range s.listeners {
		l.Close()
	}
	var vs []*session
	for v := range s.sessions {
		vs = append(vs, v)
	}
	return vs
}
