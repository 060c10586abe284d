package pipe

import (
	"context"
	"net"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// A session is what the server does for one connection.
type session struct {
	*conn
	s         *Server
	ctx       context.Context // ends with the connection; has the Peer
	publishes chan *frame

	publishing, subscriptions, calls, streams, accepted limit
}

func newSession(s *Server, nc net.Conn) *session {
	v := &session{
		conn:          newConn(nc, 0, s.o.MaxBytes, s.o.WriteTimeout),
		s:             s,
		publishes:     make(chan *frame, maxPublishes),
		publishing:    make(limit, maxPublishes),
		subscriptions: make(limit, s.o.MaxSubscriptions),
		calls:         make(limit, s.o.MaxCalls),
		streams:       make(limit, s.o.MaxStreams),
		accepted:      make(limit, s.o.MaxStreams),
	}
	v.begin = v.beginOp
	return v
}

// A limit is a semaphore.
type limit chan struct{}

func (l limit) enter() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}

func (l limit) leave() { <-l }

var errTooMany = transport.Errorf(transport.CodeResourceExhausted, "too many operations are under way on this connection")

// beginOp takes what the client begins.
func (v *session) beginOp(f *frame) error {
	var kind limit
	var serve func(*frame) error
	switch f.Type {
	case "publish":
		kind, serve = v.publishing, v.servePublish
	case "call":
		kind, serve = v.calls, v.serveCall
	case "ping":
		kind, serve = v.calls, v.servePing
	case "open":
		kind, serve = v.streams, v.serveStream
	case "subscribe", "respond", "accept":
		kind, serve = v.subscriptions, v.serveFeed
	case "stop", "settle", "credit", "item", "eof":
		return nil // what it is about is over
	default:
		return v.refuse(f.ID, transport.Errorf(transport.CodeUnimplemented, "there is no such operation"))
	}
	if v.shuttingDown() {
		return v.refuse(f.ID, notSent(errClosed))
	}
	if !kind.enter() {
		return v.refuse(f.ID, errTooMany)
	}
	return serve(f)
}

// brief is a publish, a call or a ping.
type brief struct{ cancel context.CancelFunc }

func (o brief) receive(f *frame) error {
	if f.Type == "stop" {
		o.cancel()
	}
	return nil
}

func (o brief) lost(error) { o.cancel() }
func (o brief) drain()     {}

// servePublish queues f: there is room for all that publishing lets in.
func (v *session) servePublish(f *frame) error {
	if err := v.admit(f, brief{func() {}}); err != nil {
		return err
	}
	v.publishes <- f
	return nil
}

// publish is the goroutine that publishes for the connection, so that the order stays.
func (v *session) publish() {
	for {
		var fs []*frame
		select {
		case f := <-v.publishes:
			fs = append(fs, f)
		case <-v.ctx.Done():
			return
		}
		for more := true; more; {
			select {
			case f := <-v.publishes:
				fs = append(fs, f)
			default:
				more = false
			}
		}
		ms := make([]*transport.Message, len(fs))
		for i, f := range fs {
			ms[i] = f.message()
		}
		for i, err := range transport.PublishAll(v.ctx, v.s.t, ms...) {
			v.publishing.leave() // before the client can know
			v.answer(fs[i].ID, nil, err)
		}
	}
}

// serveCall and servePing have a goroutine each.

func (v *session) serveCall(f *frame) error {
	return v.serveBrief(f, func(ctx context.Context) (reply *transport.Message, err error) {
		defer func() {
			if p := recover(); p != nil { // the transport may be a Handler
				reply, err = nil, transport.Panicked(p)
			}
		}()
		return v.s.t.Call(ctx, f.message())
	})
}

func (v *session) servePing(f *frame) error {
	return v.serveBrief(f, func(ctx context.Context) (*transport.Message, error) { return nil, v.s.Health(ctx) })
}

func (v *session) serveBrief(f *frame, serve func(context.Context) (*transport.Message, error)) error {
	ctx, cancel := v.withTimeout(v.ctx, f)
	err := v.admit(f, brief{cancel})
	v.wg.Go(func() {
		defer cancel()
		reply, err := serve(ctx)
		v.calls.leave() // before the client can know
		v.answer(f.ID, reply, err)
	})
	return err
}

// serveStream opens a stream at the server's transport for one that the client has opened.
func (v *session) serveStream(f *frame) error {
	s := v.accept(v.ctx, f)
	s.under = v.streams
	err := v.admit(f, s)
	v.wg.Go(func() {
		in := s.Incoming()
		out, err := v.s.t.Open(in.Context(), f.Topic, f.Header)
		if err != nil {
			in.End(err)
			return
		}
		v.post(&frame{Type: "active", ID: f.ID})
		wire.Bridge(in, out)
	})
	return err
}
