package ws

import (
	"context"
	"errors"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/intermodal-go/intermodal/transport"
)

const (
	closeTimeout = time.Second // how long a closing handshake may take
	pingTimeout  = time.Minute // how long a ping is remembered
	maxQueue     = 64 << 10    // bytes that wait to be written before senders wait too
	maxPosted    = 1 << 20     // and before the connection is cut
	maxUnread    = 16 << 10    // bytes that the operating system takes without waiting for the peer
	maxBatch     = 64 << 10    // bytes of notifications in one frame
	maxObjects   = 1000        // objects in a batch that is received
)

// Close codes, RFC 6455 section 7.4.
const (
	closeNormal      = websocket.StatusNormalClosure
	closeGoingAway   = websocket.StatusGoingAway
	closeProtocol    = websocket.StatusProtocolError
	closeUnsupported = websocket.StatusUnsupportedData
	closeInvalid     = websocket.StatusInvalidFramePayloadData
	closeTooBig      = websocket.StatusMessageTooBig
	closeTryLater    = websocket.StatusTryAgainLater
)

// A conn carries JSON-RPC over a WebSocket. Its reader, one goroutine at a time, hands each object to whom it is for. It
// has no writer while there is nothing to write.
//
// Only contexts that never end reach the WebSocket library, which closes a connection when one does.
type conn struct {
	ws       *websocket.Conn
	sock     *socket
	max      int                         // Message.Size
	server   bool                        // who sends writes, since it has no writer; nothing is masked
	compress bool                        // frames may be compressed
	handle   func(e *envelope, a *asked) // takes requests and notifications; called by the reader

	ctx    context.Context // ends with the connection
	cancel context.CancelCauseFunc
	ended  chan struct{} // closed when nobody reads any more
	cause  error         // why, then: that of the WebSocket

	inline inline // of a server
	rest   *rest  // of a client whose socket allows it

	batching atomic.Bool  // notifications may be sent in a batch
	unsent   atomic.Int64 // bytes of answers that wait to be sent

	mu         sync.Mutex
	out        []byte        // frames to be written, each after a free byte
	marks      []mark        // of out
	posted     int           // bytes of out that did not wait for room
	queued     uint64        // frames put into out
	taken      uint64        // frames that were taken out
	writing    bool          // somebody writes, or nobody may any more
	room       chan struct{} // closed when out is taken; nil if nobody waits
	lastID     uint64
	lastStream uint64                // of ours: those of a client are odd
	waiting    map[uint64]waiter     // our requests under way
	unread     int                   // bytes of requests since the peer has answered all: it may not have read them
	serving    map[string]*asked     // the peer's requests under way, by their ids
	streams    map[uint64]*stream    // of both sides
	err        error                 // why the connection has ended, or is ending
	closing    *websocket.CloseError // to be sent once out is empty
	over       bool                  // nothing may begin any more
	work       int                   // what a drain waits for
	draining   chan struct{}         // closed when there is no work; nil if there is no drain

	wg    sync.WaitGroup
	pings sync.WaitGroup
}

// newConn returns a conn over w, and the socket below it.
func newConn(ctx context.Context, w *websocket.Conn, sock *socket, maxBytes int) *conn {
	c := &conn{ws: w, sock: sock, max: maxBytes, ended: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	w.SetReadLimit(int64(frameLimit(maxBytes)))
	return c
}

// frameLimit is the largest frame that a message of maxBytes can make: a body may grow by a third. A header of 16
// KiB, or an error, may grow six times.
func frameLimit(maxBytes int) int { return maxBytes/3*4 + 256<<10 }

// run reads until the connection ends, and returns when everything about it has: the operations, and their goroutines.
// The error is why it ended, never nil.
func (c *conn) run() error {
	defer c.finished() // also if a handler calls runtime.Goexit
	c.read()
	<-c.ended
	return c.cause
}

// finished waits for the end of everything about the connection.
func (c *conn) finished() {
	<-c.ended
	c.mu.Lock()
	c.over = true
	why, waiting, streams := c.err, c.waiting, maps.Clone(c.streams)
	c.waiting, c.serving = nil, nil
	c.mu.Unlock()
	c.rest.stop()
	for _, w := range waiting {
		w.lost(why)
	}
	for _, s := range streams {
		s.lost(why)
	}
	c.wg.Wait() // the closing handshake, too
	c.sock.Close()
	c.ws.CloseNow()
	c.pings.Wait() // which that ends
}

// read reads frames until the connection ends, which it sees to, or until another goroutine reads.
func (c *conn) read() {
	err := c.readFrames()
	switch {
	case err == nil:
		return
	case errors.Is(err, websocket.ErrMessageTooBig):
		c.end(closeTooBig, "", transport.Wrap(err, transport.CodeResourceExhausted, "a frame is too large"))
	case websocket.CloseStatus(err) >= 0 || c.sock.broken.Load():
		c.cut(transport.Wrap(err, transport.CodeUnavailable, "the connection was lost"))
	default: // the library has said why
		c.end(closeProtocol, "", transport.Wrap(err, transport.CodeUnavailable, "the peer broke the protocol"))
	}
	c.cause = err
	close(c.ended)
}

// readFrames reads frames until that fails. Without an error somebody else goes on.
func (c *conn) readFrames() error {
	var es []envelope
	for {
		var err error
		if es, err = c.readObjects(es); err != nil {
			return err
		}
		if !c.inline.run(c) {
			return nil
		}
		if err := c.rest.pause(c); err != nil {
			return err
		}
	}
}

// readObjects reads a frame and handles what is in it. It returns es, for the next.
func (c *conn) readObjects(es []envelope) ([]envelope, error) {
	kind, r, err := c.ws.Reader(context.Background())
	if err != nil {
		return nil, err
	}
	if kind != websocket.MessageText {
		c.end(closeUnsupported, "", transport.Errorf(transport.CodeInvalidArgument, "a frame is not text"))
	}
	buf, err := c.readFrame(r)
	if err == nil && c.alive() {
		es = c.received(es[:0], buf)
		clear(es)
	}
	recycle(buf)
	if cap(es) > 1 {
		es = nil
	}
	return es, err
}

// readFrame reads a frame to its end. What is not UTF-8 ends the connection.
func (c *conn) readFrame(r io.Reader) ([]byte, error) {
	b := buffer()
	checked := 0
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		end := len(b)
		if err == nil { // a code point may be cut in two
			end = complete(b, checked)
		}
		if !utf8.Valid(b[checked:end]) {
			c.end(closeInvalid, "", transport.Errorf(transport.CodeInvalidArgument, "a frame is not valid UTF-8"))
			b, end = b[:0], 0
		}
		checked = end
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

// complete returns the end of the last code point in b that may be complete.
func complete(b []byte, from int) int {
	for i := len(b) - 1; i >= max(from, len(b)-utf8.UTFMax); i-- {
		if utf8.RuneStart(b[i]) {
			if utf8.FullRune(b[i:]) {
				return len(b)
			}
			return i
		}
	}
	return len(b)
}

func (c *conn) alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil
}

// received handles what is in a frame. It returns es, for the next.
func (c *conn) received(es []envelope, b []byte) []envelope {
	es, batch, ok := decode(es, b)
	switch {
	case !ok:
		c.fail(nil, "", rpcParseError, transport.Errorf(transport.CodeInvalidArgument, "the frame is not JSON"))
		return es
	case batch && (len(es) == 0 || len(es) > maxObjects):
		c.fail(nil, "", rpcInvalidRequest, transport.Errorf(transport.CodeInvalidArgument,
			"a batch has 1 to %d requests, not %d", maxObjects, len(es)))
		return es
	}
	var all *answers
	if batch {
		all = &answers{left: 1}
	}
	for i := range es {
		c.object(&es[i], all)
	}
	if batch {
		c.respond(all, "", nil, 0, nil, false)
	}
	return es
}

// object handles one object, which all is for if that is not nil.
func (c *conn) object(e *envelope, all *answers) {
	switch e.kind {
	case response:
		c.answered(e)
	case notification:
		c.handle(e, nil)
	case request:
		a := &asked{c: c, id: string(e.id), all: all}
		all.expect()
		c.mu.Lock()
		_, taken := c.serving[a.id]
		if !taken {
			if c.serving == nil {
				c.serving = map[string]*asked{}
			}
			c.serving[a.id] = a
		}
		a.alone = len(c.serving) == 1 && all == nil
		c.mu.Unlock()
		if taken {
			c.fail(all, a.id, rpcInvalidRequest, transport.Errorf(transport.CodeAlreadyExists, "the id is in use"))
			return
		}
		c.handle(e, a)
	default:
		all.expect()
		c.fail(all, string(e.id), rpcInvalidRequest, transport.Errorf(transport.CodeInvalidArgument,
			"this is not a request of JSON-RPC 2.0"))
	}
}

// cut ends the connection at once. The first error is the one that counts.
func (c *conn) cut(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
		c.cancel(err)
	}
	c.mu.Unlock()
	c.sock.Close()
}

// end ends the connection when all that is queued has been written, with a close code.
func (c *conn) end(code websocket.StatusCode, reason string, err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	c.cancel(err)
	c.closing = &websocket.CloseError{Code: code, Reason: reason}
	c.sock.interrupt()
	if c.writing { // a write that hangs shall not hang longer
		time.AfterFunc(closeTimeout, func() { c.sock.Close() })
	}
	c.flush(false)
}

// spawn runs f in a goroutine of the connection, unless that has ended.
func (c *conn) spawn(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.wg.Go(f)
	}
}

// ping asks the peer for a sign of life. Nobody waits for the answer: any byte will do. Its context is not the connection's,
// with whose end the library would close the connection before the close frame has gone out.
func (c *conn) ping() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.pings.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
			defer cancel()
			c.ws.Ping(ctx)
		})
	}
}

// watch looks after the connection from time to time. silent is for how long the peer may say nothing before it is
// asked, and once more before the connection is cut; stuck is for how long a write may take.
func (c *conn) watch(silent, stuck time.Duration, pinged *time.Duration) {
	silence := c.sock.silence()
	switch {
	case c.sock.stuck() > stuck:
		c.cut(transport.Errorf(transport.CodeUnavailable, "the peer does not read"))
	case silence <= silent:
		*pinged = 0
	case *pinged == 0 || *pinged > silence: // also if we ourselves have slept
		*pinged = silence
		c.ping()
	case silence-*pinged > silent:
		c.cut(transport.Errorf(transport.CodeUnavailable, "the peer is silent"))
	}
}

// begin counts something that a drain waits for, unless that has begun.
func (c *conn) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining != nil {
		return false
	}
	c.work++
	return true
}

// finish uncounts it.
func (c *conn) finish() {
	c.mu.Lock()
	c.work--
	c.idle()
	c.mu.Unlock()
}

// idle tells drain that there is no work. Under mu.
func (c *conn) idle() {
	if c.draining != nil && c.work == 0 && len(c.waiting) == 0 && len(c.serving) == 0 {
		select {
		case <-c.draining:
		default:
			close(c.draining)
		}
	}
}

// drain lets nothing begin, and waits until there is no work or the connection has ended.
func (c *conn) drain(ctx context.Context) error {
	c.mu.Lock()
	if c.draining == nil {
		c.draining = make(chan struct{})
		c.idle()
	}
	done := c.draining
	c.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-c.ctx.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
