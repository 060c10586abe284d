package wire

import (
	"context"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// StreamWindow is how many bytes may be in flight in each direction of a [Stream], each item counted by [StreamItemSize].
// The item that fills it may be larger than what is left.
const StreamWindow = 256 << 10

// StreamItemSize is what m takes of a [StreamWindow]: its Size, without the topic, which does not cross, and 128 bytes.
func StreamItemSize(m *transport.Message) int { return m.Header.Size() + len(m.Body) + 128 }

// A StreamSender carries what a [Stream] says to its other end. The methods are safe for concurrent use. SendCredit,
// SendHeader and SendEOF are called with the Stream locked, so that they are in order: they must not block nor use it.
type StreamSender interface {
	// SendItem sends an item, which it may not keep. It may wait for room in the connection, as long as ctx allows, which
	// ends with the stream.
	SendItem(ctx context.Context, m *transport.Message) error
	// SendCredit lets the other end send n bytes more.
	SendCredit(n int)
	// SendHeader sends the acceptor's header, at most once and before all items.
	SendHeader(h transport.Header)
	// SendEOF says, at most once, that the opener sends no more items.
	SendEOF() error
	// SendCancel says, at most once, that the opener has abandoned the stream. It must not block.
	SendCancel()
	// SendEnd says, at most once, that the acceptor has ended the stream, with its trailer and error. It may wait for room in
	// the connection if wait, and must not block else.
	SendEnd(trailer transport.Header, err error, wait bool) error
}

// StreamOptions say what a [Stream] is.
type StreamOptions struct {
	// MaxBytes bounds the messages that are sent, see [transport.Message.Check]. Defaults to [transport.DefaultMaxBytes].
	MaxBytes int
	// Topic and Header are what the opener has sent. Only for the accepting end.
	Topic  string
	Header transport.Header
	// Timeout is what the opener's deadline leaves; 0: none. Only for the accepting end.
	Timeout time.Duration
}

// A Stream is one end of a stream that crosses a connection: between the goroutine that reads that and those that use the
// stream. It has no goroutine, and nothing that the reader calls waits.
//
// The opening end is made by [NewOpener]. Once what opens the stream has been sent, [Stream.Opened] waits until the other
// end has it; then [Stream.Opener] is what an application gets. The accepting end is made by [NewIncoming], and
// [Stream.Incoming] is what an application gets. What arrives is told by Active, Item, Credit, Header, EOF, Cancel and End;
// what does not fit the end that it came to, or comes when that is over, is ignored.
type Stream struct {
	to       StreamSender
	o        StreamOptions
	incoming bool
	ctx      context.Context // the opener's; the acceptor's has the Peer
	cancel   context.CancelFunc

	mu       sync.Mutex
	change   sync.Cond
	items    []*transport.Message
	held     int              // size of items
	eaten    int              // and of those taken, for which no credit was given yet
	credit   int              // what we may send
	sent     bool             // we send no more: CloseSend or End
	received bool             // the other end sends no more
	active   bool             // opener only: the other end has the stream
	status   error            // received from the acceptor: io.EOF or its error
	cause    error            // why the stream was cut off
	told     bool             // Recv has returned status
	reply    transport.Header // the acceptor's header
	replied  bool             // which is final
	trailer  transport.Header
}

func newStream(to StreamSender, o *StreamOptions) *Stream {
	s := &Stream{to: to, credit: StreamWindow}
	if o != nil {
		s.o = *o
	}
	if s.o.MaxBytes <= 0 {
		s.o.MaxBytes = transport.DefaultMaxBytes
	}
	s.change.L = &s.mu
	return s
}

// NewOpener returns the opening end of a stream, which is abandoned when ctx ends. Call Opened next.
func NewOpener(ctx context.Context, to StreamSender, o *StreamOptions) *Stream {
	s := newStream(to, o)
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s
}

// NewIncoming returns the accepting end of a stream. Its context has the values of ctx, and ends with that too.
func NewIncoming(ctx context.Context, to StreamSender, o *StreamOptions) *Stream {
	s := newStream(to, o)
	s.incoming = true
	if s.o.Timeout > 0 {
		s.ctx, s.cancel = context.WithTimeout(ctx, s.o.Timeout)
	} else {
		s.ctx, s.cancel = context.WithCancel(ctx)
	}
	context.AfterFunc(s.ctx, func() { s.Cut(s.ctx.Err()) })
	return s
}

// Opened waits until the other end has the stream, and returns the error if it does not get it. Call it once, when what
// opens the stream has been sent: from then on a ctx that ends abandons the stream.
func (s *Stream) Opened() error {
	context.AfterFunc(s.ctx, func() { s.abandon(s.ctx.Err()) })
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.active && s.status == nil && s.cause == nil {
		s.change.Wait()
	}
	switch {
	case s.active: // and perhaps over by now
		return nil
	case s.cause != nil:
		return s.cause
	case s.status == io.EOF:
		return errGone
	}
	return s.status
}

// Opener returns the stream for the application that has opened it.
func (s *Stream) Opener() transport.Stream { return opener{s} }

// Incoming returns the stream for the application that accepts it.
func (s *Stream) Incoming() transport.Incoming { return incoming{s} }

// Context returns the context of the stream, which ends with it.
func (s *Stream) Context() context.Context { return s.ctx }

// Active tells that the other end has the stream.
func (s *Stream) Active() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = true
	s.change.Broadcast()
}

// Item takes an item, and the Message over. The error is CodeResourceExhausted, if the other end has sent more than the
// window allows: nothing was taken, and the stream should be ended, see [Stream.Break].
func (s *Stream) Item(m *transport.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.received || s.cause != nil {
		return nil
	}
	if s.held >= StreamWindow {
		return transport.Errorf(transport.CodeResourceExhausted, "more items came than the stream's window allows")
	}
	if !s.incoming {
		s.replied = true // a header would have come before
	}
	s.items = append(s.items, m)
	s.held += StreamItemSize(m)
	s.change.Broadcast()
	return nil
}

// Credit tells that n bytes more may be sent. More than the window is no more than the window.
func (s *Stream) Credit(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credit = min(s.credit+min(max(n, 0), StreamWindow), StreamWindow)
	s.change.Broadcast()
}

// Header takes the acceptor's header.
func (s *Stream) Header(h transport.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.incoming && !s.replied {
		s.reply, s.replied = h, true
		s.change.Broadcast()
	}
}

// EOF tells that the opener sends no more items.
func (s *Stream) EOF() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.incoming {
		s.received = true
		s.change.Broadcast()
	}
}

// Cancel tells that the opener has abandoned the stream.
func (s *Stream) Cancel() {
	if s.incoming {
		s.Cut(transport.Errorf(transport.CodeCanceled, "the opener has abandoned the stream"))
	}
}

// End takes the acceptor's trailer and error.
func (s *Stream) End(trailer transport.Header, err error) {
	if s.incoming {
		return
	}
	if err == nil {
		err = io.EOF
	}
	s.mu.Lock()
	if s.cause == nil && s.status == nil {
		s.status, s.trailer = err, trailer
		s.received, s.replied = true, true
		s.change.Broadcast()
	}
	s.mu.Unlock()
	s.cancel()
}

// Cut ends the stream on this side alone, unless it has ended: the connection is lost, or was never asked. What has
// arrived can still be received; then Recv returns cause. It reports whether the stream had not ended.
func (s *Stream) Cut(cause error) bool {
	s.mu.Lock()
	ended := s.cause != nil || s.status != nil
	if !ended {
		s.cause = cause
		s.change.Broadcast()
	}
	s.mu.Unlock()
	s.cancel()
	return !ended
}

// Break ends the stream on both sides because of err, if an application does not have it yet or the other end breaks the
// rules: the opener abandons it, the acceptor ends it. It does not wait.
func (s *Stream) Break(err error) {
	if s.incoming {
		s.Cut(err)
		s.end(nil, err, false)
	} else {
		s.abandon(err)
	}
}

// abandon is Cut for the opener: it tells the acceptor.
func (s *Stream) abandon(cause error) {
	if s.Cut(cause) {
		s.to.SendCancel()
	}
}

// send waits for credit and sends an item.
func (s *Stream) send(m *transport.Message) error {
	if err := m.Check(s.o.MaxBytes); err != nil {
		return err
	}
	s.mu.Lock()
	for s.credit <= 0 && !s.sent && s.cause == nil && s.status == nil {
		s.change.Wait()
	}
	err := s.ended()
	if err == nil && s.sent {
		err = transport.Errorf(transport.CodeFailedPrecondition, "this side of the stream is closed")
	}
	if err == nil {
		s.credit -= StreamItemSize(m)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.to.SendItem(s.ctx, m); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if why := s.ended(); why != nil { // which has ended ctx
			return why
		}
		return err
	}
	return nil
}

// ended is what Send returns once the stream is over. Under mu.
func (s *Stream) ended() error {
	switch {
	case s.cause != nil:
		return s.cause
	case s.status != nil:
		return io.EOF
	}
	return nil
}

// recv returns what was received, then how it ended.
func (s *Stream) recv() (*transport.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.items) == 0 && !s.received && s.cause == nil {
		s.change.Wait()
	}
	switch {
	case len(s.items) > 0:
		m := s.items[0]
		s.items[0], s.items = nil, s.items[1:]
		s.held -= StreamItemSize(m)
		if s.eaten += StreamItemSize(m); s.eaten >= StreamWindow/2 && !s.received {
			s.to.SendCredit(s.eaten)
			s.eaten = 0
		}
		return m, nil
	case s.cause != nil:
		return nil, s.cause
	case s.status != nil:
		s.told = true
		return nil, s.status
	}
	return nil, io.EOF // the opener has closed its side
}

// end sends the acceptor's end, once.
func (s *Stream) end(trailer transport.Header, err error, wait bool) error {
	s.mu.Lock()
	sent := s.sent
	s.sent = true
	s.mu.Unlock()
	if sent {
		return nil
	}
	return s.to.SendEnd(trailer, err, wait)
}

// sendHeader sends the acceptor's header, once.
func (s *Stream) sendHeader() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.replied && len(s.reply) > 0 {
		s.to.SendHeader(s.reply)
	}
	s.replied = true
}

// An opener is the opening end.
type opener struct{ s *Stream }

// Send implements [transport.Stream].
func (o opener) Send(m *transport.Message) error { return o.s.send(m) }

// CloseSend implements [transport.Stream].
func (o opener) CloseSend() error {
	s := o.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent || s.cause != nil || s.status != nil {
		return nil
	}
	s.sent = true
	s.change.Broadcast()
	return s.to.SendEOF()
}

// Recv implements [transport.Stream].
func (o opener) Recv() (*transport.Message, error) { return o.s.recv() }

// Header implements [transport.Stream].
func (o opener) Header() (transport.Header, error) {
	s := o.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.replied && s.cause == nil {
		s.change.Wait()
	}
	if !s.replied {
		return nil, s.cause
	}
	return s.reply, nil
}

// Trailer implements [transport.Stream].
func (o opener) Trailer() transport.Header {
	s := o.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.told {
		return nil
	}
	return s.trailer
}

// Close implements [transport.Stream].
func (o opener) Close() error {
	o.s.abandon(transport.Errorf(transport.CodeCanceled, "the stream was closed"))
	return nil
}

// An incoming is the accepting end.
type incoming struct{ s *Stream }

// Context implements [transport.Incoming].
func (i incoming) Context() context.Context { return i.s.ctx }

// Topic implements [transport.Incoming].
func (i incoming) Topic() string { return i.s.o.Topic }

// Header implements [transport.Incoming].
func (i incoming) Header() transport.Header { return i.s.o.Header }

// Send implements [transport.Incoming].
func (i incoming) Send(m *transport.Message) error {
	i.s.sendHeader()
	return i.s.send(m)
}

// Recv implements [transport.Incoming].
func (i incoming) Recv() (*transport.Message, error) { return i.s.recv() }

// SetHeader implements [transport.Incoming].
func (i incoming) SetHeader(h transport.Header) error {
	if err := h.Check(); err != nil {
		return err
	}
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	if i.s.replied {
		return transport.Errorf(transport.CodeFailedPrecondition, "the header has gone out")
	}
	merge(&i.s.reply, h)
	return nil
}

// SetTrailer implements [transport.Incoming].
func (i incoming) SetTrailer(h transport.Header) {
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	merge(&i.s.trailer, h)
}

func merge(dst *transport.Header, h transport.Header) {
	if *dst == nil {
		*dst = transport.Header{}
	}
	maps.Copy(*dst, h.Clone())
}

// End implements [transport.Incoming].
func (i incoming) End(err error) error {
	s := i.s
	s.sendHeader()
	s.mu.Lock()
	if s.cause == nil {
		s.cause = transport.Errorf(transport.CodeFailedPrecondition, "the stream was ended")
	}
	trailer := s.trailer
	s.change.Broadcast()
	s.mu.Unlock()
	s.cancel()
	return s.end(trailer, err, true)
}
