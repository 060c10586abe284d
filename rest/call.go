package rest

import (
	"context"
	"errors"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// A task is what a request asks the backend for: one call, or some events.
type task struct {
	m      *transport.Message // the call, or the first event
	events []*transport.Message
}

// invoke runs t. A panic of the backend becomes an error.
func (s *Server) invoke(ctx context.Context, t task) (reply *transport.Message, err error) {
	defer func() {
		if v := recover(); v != nil {
			reply, err = nil, transport.Panicked(v)
		}
	}()
	switch {
	case t.events == nil:
		return s.backend.Call(ctx, t.m)
	case len(t.events) == 1:
		return nil, s.backend.Publish(ctx, t.m)
	}
	var failed []string
	for i, e := range transport.PublishAll(ctx, s.backend, t.events...) {
		if e != nil {
			if err == nil {
				err = e
			}
			failed = append(failed, strconv.Itoa(i))
		}
	}
	if err != nil {
		e := transport.Public(err)
		e.Cause = err
		if e.Header == nil {
			e.Header = transport.Header{}
		}
		e.Header["failed"] = []string{strings.Join(failed, " ")}
		err = e
	}
	return nil, err
}

// call is the endpoint of a call.
func (x *exchange) call() error {
	header, peer, err := splitHeader(x.r.Header)
	if err != nil {
		return err
	}
	if x.peer.Header == nil {
		x.peer.Header = peer
	}
	m := &transport.Message{Topic: x.route.Topic, Header: header}
	if m.Topic == "" {
		m.Topic = x.values[0]
		if err := transport.CheckTopic(m.Topic); err != nil {
			return err
		}
	}
	if id := header[keyID]; id != nil {
		m.ID = unescapeID(id[0])
		delete(header, keyID)
	}
	if m.Body, err = x.body(); err != nil {
		return err
	}
	if x.route.Topic != "" {
		if err := x.bind(m); err != nil {
			return err
		}
		if err := x.negotiate(m); err != nil {
			return err
		}
	}
	if err := x.check(m); err != nil {
		return err
	}
	return x.run(task{m: m})
}

// publish is the endpoint of events.
func (x *exchange) publish() error {
	if x.peer.Header == nil {
		x.peer.Header = wire.PeerHeader(x.r.Header)
	}
	topic := x.route.Topic
	if topic == "" {
		topic = x.values[0]
		if err := transport.CheckTopic(topic); err != nil {
			return err
		}
	}
	body, err := x.body()
	if err != nil {
		return err
	}
	ms, err := wire.ReadEvents(x.r.Header, body,
		&wire.EventOptions{Topic: topic, Headers: x.s.o.Headers, MaxBytes: x.s.o.MaxBytes, MaxEvents: x.s.o.MaxEvents})
	if err != nil {
		return err
	}
	for _, m := range ms {
		if x.route.Topic != "" {
			if err := x.bind(m); err != nil {
				return err
			}
		}
		if err := x.check(m); err != nil {
			return err
		}
	}
	if len(ms) == 0 { // an empty batch is no reason to ask anybody
		return x.reply(&transport.Message{})
	}
	return x.run(task{ms[0], ms})
}

// splitHeader is wire.SplitHeader, where the ID does not count.
func splitHeader(h http.Header) (header, peer transport.Header, err error) {
	header, peer, err = wire.SplitHeader(h)
	if transport.CodeOf(err) == transport.CodeResourceExhausted && h[fieldID] != nil {
		without := maps.Clone(h)
		delete(without, fieldID)
		if header, peer, err = wire.SplitHeader(without); err == nil {
			header[keyID] = h[fieldID]
		}
	}
	if transport.CodeOf(err) == transport.CodeResourceExhausted {
		e := transport.Public(err)
		e.Header = transport.Header{wire.HeaderStatus: {"431"}}
		err = e
	}
	return header, peer, err
}

// body reads the request's body, within its time.
func (x *exchange) body() ([]byte, error) {
	r := x.r
	if x.bodyTaken {
		return nil, nil
	}
	x.bodyTaken = true
	// Mostly the body is there already: a timer that is stopped costs less than a deadline that is set and lifted again.
	late := time.AfterFunc(x.s.o.ReadTimeout, x.cutBody)
	b, err := wire.ReadBody(r.Body, contentEncoding(r.Header), r.ContentLength, x.s.o.MaxBytes)
	switch {
	case !late.Stop():
		x.reading.Lock() // cutBody may not use the ResponseWriter when the request is over
		x.read = true
		x.reading.Unlock()
		return nil, withStatus(transport.CodeDeadlineExceeded, "408", "the body did not arrive in time")
	case err == nil:
		return b, nil
	case transport.CodeOf(err) == transport.CodeUnavailable: // chunks that are none, or the client is gone
		err = transport.Wrap(err, transport.CodeInvalidArgument, "the body broke off")
	}
	x.readBefore(time.Now().Add(drainTimeout))
	return nil, err
}

// cutBody ends the reading of a body that is too slow. The connection cannot be used any more.
func (x *exchange) cutBody() {
	x.reading.Lock()
	defer x.reading.Unlock()
	if !x.read {
		x.readBefore(time.Unix(1, 0))
	}
}

// readBefore sets the deadline of what the client may still send, where the ResponseWriter can.
func (x *exchange) readBefore(t time.Time) { http.NewResponseController(x.w).SetReadDeadline(t) }

// drainTimeout is how long net/http may read what nobody wants, to keep the connection.
const drainTimeout = 5 * time.Second

func contentEncoding(h http.Header) string {
	switch lines := h["Content-Encoding"]; len(lines) {
	case 0:
		return ""
	case 1:
		return lines[0]
	default:
		return strings.Join(lines, ", ")
	}
}

// check reports whether m may be handed on.
func (x *exchange) check(m *transport.Message) error {
	if err := checkDepth(m.Header.Get(transport.HeaderContentType), m.Body); err != nil {
		return err
	}
	if n := m.Size(); n > x.s.o.MaxBytes {
		return tooLarge("413", "the message has %d bytes, the limit is %d", n, x.s.o.MaxBytes)
	}
	return nil
}

// bind puts the request's parameters into m's body.
func (x *exchange) bind(m *transport.Message) error {
	p, contentType := x.route, m.Header.Get(transport.HeaderContentType)
	if len(m.Body) > 0 && !p.noBody() && !p.takes(contentType) {
		return unsupported(p.Types)
	}
	body, bound, err := p.bind(x.values, x.r.URL.RawQuery, contentType, m.Body)
	if err != nil {
		return err
	}
	m.Body = body
	switch {
	case bound == contentType:
	case bound == "":
		m.Header.Del(transport.HeaderContentType)
	default:
		if m.Header == nil {
			m.Header = transport.Header{}
		}
		m.Header.Set(transport.HeaderContentType, bound)
	}
	return nil
}

// takes reports whether the body may be of that media type. As with contracts, application/vnd.x+json is JSON.
func (p *parsedRoute) takes(contentType string) bool {
	if len(p.Types) == 0 || contentType == "" || slices.Contains(p.Types, contentType) {
		return true
	}
	if p.Body != "" && p.Body != "-" {
		if s, _ := p.shape.member(p.Body); s.kind == kindBytes || s.kind == kindText {
			return true
		}
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	i := strings.LastIndexByte(media, '+')
	return slices.ContainsFunc(p.Types, func(t string) bool {
		return t == media || i >= 0 && strings.HasSuffix(t, "/"+media[i+1:])
	})
}

// negotiate refuses a request whose reply would be of a type that the client does not take. A contract answers in kind.
func (x *exchange) negotiate(m *transport.Message) error {
	accept := x.r.Header["Accept"]
	if len(accept) == 0 || len(x.route.Types) == 0 {
		return nil
	}
	offer := m.Header.Get(transport.HeaderContentType)
	if offer == "" {
		offer = x.route.Types[0]
	}
	if _, ok := wire.Negotiate(accept, offer); !ok {
		return notAcceptable(offer)
	}
	return nil
}

func notAcceptable(offer string) error {
	return withStatus(transport.CodeInvalidArgument, "406", "the reply would be %s", offer)
}

// run does what the request asks for, at once or behind a 202, and answers.
func (x *exchange) run(t task) error {
	if x.route.RequireMatch && x.r.Header.Get("If-Match") == "" {
		return withStatus(transport.CodeFailedPrecondition, "428", "the request needs an If-Match")
	}
	c, done, err := x.claim(t)
	if done || err != nil {
		return err
	}
	if x.prefer.async && !x.s.o.NoAsync && t.events == nil && x.r.Method != http.MethodHead {
		return x.runAsync(t, c)
	}
	ctx, err := x.context(c != nil)
	if err != nil {
		c.release(x)
		return err
	}
	defer ctx.end()
	if c == nil {
		reply, err := x.s.invoke(ctx, t)
		return x.answer(t.m, reply, err)
	}
	over := false
	defer func() { // also when the backend calls runtime.Goexit
		if !over {
			c.release(x)
		}
	}()
	reply, err := x.s.invoke(ctx, t)
	over = true
	c.finish(x, t.m, reply, err) // before the answer: who has that may ask again at once
	return x.answer(t.m, reply, err)
}

var errGoexit = transport.Wrap(errors.New("the backend called runtime.Goexit"), transport.CodeInternal, "")

// answer answers with the outcome of a task.
func (x *exchange) answer(m, reply *transport.Message, err error) error {
	if err != nil {
		x.fail(m, err)
		return nil
	}
	return x.reply(reply)
}
