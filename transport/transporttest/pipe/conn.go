package pipe

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

const (
	defaultWriteTimeout = 10 * time.Second
	closeTimeout        = time.Second // how long Close lets the last frames go out
	maxQueue            = 256 << 10   // bytes that wait to be written before senders wait too
	maxPosted           = 8 << 20     // and before the connection is cut
)

// An op is one end of an operation. Its methods do not block.
type op interface {
	// receive takes a frame of the operation; after done there is none. It is called by the reader. An error cuts the
	// connection.
	receive(f *frame) error
	// lost is called instead of a done when the connection is gone.
	lost(err error)
	// drain asks the operation to come to its end; it may be called at any time.
	drain()
}

// A conn carries operations over a net.Conn. A reader gives each frame to its operation, a writer writes what is queued.
type conn struct {
	nc      net.Conn
	max     int                  // Message.Size
	timeout time.Duration        // of a write
	begin   func(f *frame) error // takes the operations that the peer begins; called by the reader
	over    func()               // called when the connection has ended

	mu       sync.Mutex
	work     sync.Cond     // for the writer: there is something in out, or an end
	out      []byte        // frames to be written
	room     chan struct{} // closed when the writer has taken out
	queued   uint64        // frames put into out
	written  uint64        // frames that the writer took
	ops      map[uint64]op
	lastID   uint64
	err      error         // why the connection has ended, or is ending
	closing  bool          // the writer shall close the connection once out is empty
	draining chan struct{} // closed when ops is empty; nil before shutdown

	dead chan struct{} // closed when err is set
	wg   sync.WaitGroup
}

// newConn returns a conn whose own operations have the numbers after first, in steps of two.
func newConn(nc net.Conn, first uint64, maxBytes int, timeout time.Duration) *conn {
	c := &conn{nc: nc, max: maxBytes, timeout: timeout, lastID: first, ops: map[uint64]op{},
		room: make(chan struct{}), dead: make(chan struct{})}
	c.work.L = &c.mu
	if c.max <= 0 {
		c.max = transport.DefaultMaxBytes
	}
	if c.timeout <= 0 {
		c.timeout = defaultWriteTimeout
	}
	return c
}

// run reads until the connection ends, and returns when everything about it has: the writer, the operations and their
// goroutines. The error is why it ended, nil if either side closed it in order.
func (c *conn) run() error {
	c.wg.Go(c.write)
	err := c.read()
	c.cut(transport.Wrap(err, transport.CodeUnavailable, "the connection was lost"))
	if c.over != nil {
		c.over()
	}
	c.mu.Lock()
	ops, why := c.ops, c.err
	c.ops = map[uint64]op{}
	c.idle()
	c.mu.Unlock()
	for _, o := range ops {
		o.lost(why)
	}
	c.wg.Wait()
	if err == io.EOF || transport.Public(why).Reason == transport.ReasonClosed {
		return nil
	}
	return why
}

func (c *conn) read() error {
	r := bufio.NewReader(c.nc)
	for {
		f, err := readFrame(r, c.max)
		if err != nil {
			return err
		}
		c.mu.Lock()
		o, mine := c.ops[f.ID], f.ID%2 == c.lastID%2
		if o != nil && mine && f.Type == "done" {
			c.forget(f.ID)
		}
		closing := c.closing
		c.mu.Unlock()
		switch {
		case closing: // nothing counts any more, but the writer is still at it
		case f.ID == 0:
			c.cut(f.err())
			return errors.New("the peer has ended the connection")
		case o != nil:
			err = o.receive(f)
		case !mine:
			err = c.begin(f)
		}
		if err != nil {
			c.cut(transport.Wrap(err, transport.CodeUnavailable, "the peer broke the protocol"))
			return err
		}
	}
}

func (c *conn) write() {
	var spare []byte
	c.mu.Lock()
	for {
		for len(c.out) == 0 && !c.closing && c.err == nil {
			c.work.Wait()
		}
		if len(c.out) == 0 || c.err != nil && !c.closing {
			break
		}
		timeout := c.timeout
		if c.closing {
			timeout = min(timeout, closeTimeout)
		}
		c.nc.SetWriteDeadline(time.Now().Add(timeout))
		buf := c.out
		c.out, c.written = spare[:0], c.queued
		close(c.room)
		c.room = make(chan struct{})
		c.mu.Unlock()
		_, err := c.nc.Write(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.cut(transport.Wrap(err, transport.CodeUnavailable, "the peer does not read"))
		} else if err != nil { // the peer has closed; what it said before is still to be read
			c.nc.SetReadDeadline(time.Now().Add(closeTimeout))
		}
		if spare = buf; cap(spare) > maxQueue {
			spare = nil
		}
		c.mu.Lock()
		if err != nil {
			break
		}
	}
	closing := c.closing
	c.mu.Unlock()
	if closing {
		c.nc.Close()
	}
}

// cut ends the connection at once. The first error is the one that counts.
func (c *conn) cut(err error) {
	c.end(err, false)
	c.nc.Close()
}

// close ends the connection when all that is queued has been written, and after that why.
func (c *conn) close(err error) { c.end(err, true) }

func (c *conn) end(err error, flush bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		if err == nil {
			err = transport.Errorf(transport.CodeUnavailable, "the connection has ended")
		}
		if flush {
			c.queue(&frame{Type: "done", Error: publicError(err)})
		}
		c.err, c.closing = err, flush
		if flush { // a write that hangs shall not hang longer
			c.nc.SetWriteDeadline(time.Now().Add(closeTimeout))
		}
		close(c.dead)
	}
	c.work.Broadcast()
}

// queue appends f to what is to be written, and returns its place among all frames.
func (c *conn) queue(f *frame) (n uint64, err error) {
	if c.err != nil {
		return 0, c.err
	}
	if c.out, err = appendFrame(c.out, f); err != nil {
		return 0, err
	}
	c.queued++
	c.work.Signal()
	return c.queued, nil
}

// lockRoom locks mu when the queue has room or the connection has ended. If ctx ends before, it does not.
func (c *conn) lockRoom(ctx context.Context) error {
	for {
		c.mu.Lock()
		if len(c.out) < maxQueue || c.err != nil {
			return nil
		}
		room := c.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.dead:
		}
	}
}

// send queues f and waits for room before.
func (c *conn) send(ctx context.Context, f *frame) error {
	if err := c.lockRoom(ctx); err != nil {
		return err
	}
	defer c.mu.Unlock()
	_, err := c.queue(f)
	return err
}

// post queues f without waiting. It is for small frames whose number is bounded by the operations of the peer.
func (c *conn) post(f *frame) error {
	c.mu.Lock()
	_, err := c.queue(f)
	full := len(c.out) > maxPosted
	c.mu.Unlock()
	if full {
		c.cut(transport.Errorf(transport.CodeUnavailable, "the peer does not read"))
	}
	return err
}

// start begins an operation of ours with f, to which it gives the number. The result is the place of f in the queue.
func (c *conn) start(ctx context.Context, o op, f *frame) (n uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := c.lockRoom(ctx); err != nil {
		return 0, err
	}
	defer c.mu.Unlock()
	if c.err == nil && c.draining != nil {
		return 0, errClosed
	}
	f.ID = c.lastID + 2
	if n, err = c.queue(f); err != nil {
		if c.err != nil && err != errClosed {
			err = notSent(err)
		}
		return 0, err
	}
	c.lastID += 2
	c.ops[f.ID] = o
	return n, nil
}

// admit registers an operation that the peer has begun with f.
func (c *conn) admit(f *frame, o op) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.ops[f.ID] = o
	return nil
}

// finish ends an operation that the peer began: f is its done.
func (c *conn) finish(id uint64, f *frame) error {
	f.Type, f.ID = "done", id
	err := c.send(context.Background(), f)
	c.mu.Lock()
	c.forget(id)
	c.mu.Unlock()
	return err
}

// refuse ends an operation that the peer began, without waiting.
func (c *conn) refuse(id uint64, err error) error {
	perr := c.post(&frame{Type: "done", ID: id, Error: publicError(err)})
	c.mu.Lock()
	c.forget(id)
	c.mu.Unlock()
	return perr
}

// answer finishes a call, or whatever else has a reply or an error.
func (c *conn) answer(id uint64, reply *transport.Message, err error) error {
	f := &frame{Error: publicError(err)}
	var illegal error
	if err == nil && reply != nil {
		if illegal = reply.Check(c.max); illegal == nil {
			f.put(reply)
			f.Topic = ""
		} else {
			f.Error = publicError(transport.Wrap(illegal, transport.CodeInternal, "the reply cannot be sent"))
		}
	}
	if err := c.finish(id, f); err != nil {
		return err
	}
	return illegal
}

// forget drops an operation. Under mu.
func (c *conn) forget(id uint64) {
	delete(c.ops, id)
	c.idle()
}

// idle tells shutdown that no operation is left. Under mu.
func (c *conn) idle() {
	if c.draining != nil && len(c.ops) == 0 {
		select {
		case <-c.draining:
		default:
			close(c.draining)
		}
	}
}

// shutdown lets no operation begin, waits for the end of those there are, and closes the connection. If ctx ends
// first it cuts it.
func (c *conn) shutdown(ctx context.Context, why error) error {
	c.mu.Lock()
	if c.draining == nil {
		c.draining = make(chan struct{})
	}
	done := c.draining
	ops := make([]op, 0, len(c.ops))
	for _, o := range c.ops {
		ops = append(ops, o)
	}
	c.idle()
	c.mu.Unlock()
	for _, o := range ops {
		o.drain()
	}
	select {
	case <-done:
		c.close(why)
		return nil
	case <-c.dead:
		return nil
	case <-ctx.Done():
		c.cut(why)
		return ctx.Err()
	}
}

func (c *conn) shuttingDown() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining != nil
}

// lostError is the error of an operation that the end of the connection interrupts; n is the place of its frame.
func (c *conn) lostError(err error, n uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > c.written {
		return notSent(err)
	}
	return because(err, transport.ReasonOutcomeUnknown)
}

func notSent(err error) error { return because(err, transport.ReasonNotSent) }

// because returns err with another Reason.
func because(err error, reason string) error {
	e := *transport.Public(err)
	e.Reason, e.Cause, e.Remote = reason, err, false
	return &e
}

// A request is an operation of ours that ends with its done.
type request struct {
	c      *conn
	n      uint64 // place in the queue
	result chan result
	after  func() // called when it is over
}

type result struct {
	f   *frame
	err error
}

func (r *request) receive(f *frame) error {
	if f.Type == "done" {
		r.end(result{f, f.err()})
	}
	return nil
}

func (r *request) lost(err error) { r.end(result{err: err}) }
func (r *request) drain()         {}

func (r *request) end(res result) {
	if r.after != nil {
		r.after()
	}
	r.result <- res
}

// request begins an operation that ends with its done.
func (c *conn) request(ctx context.Context, f *frame, after func()) (*request, error) {
	r := &request{c: c, result: make(chan result, 1), after: after}
	n, err := c.start(ctx, r, f)
	r.n = n
	return r, err
}

// wait waits for the end.
func (r *request) wait(ctx context.Context) (*frame, error) {
	select {
	case res := <-r.result:
		if res.f == nil {
			return nil, r.c.lostError(res.err, r.n)
		}
		return res.f, res.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// call asks the peer, for its respond if that is not 0.
func (c *conn) call(ctx context.Context, responder uint64, m *transport.Message) (*transport.Message, error) {
	if err := m.Check(c.max); err != nil {
		return nil, err
	}
	f := &frame{Type: "call", For: responder}
	if f.put(m); f.Message == "" {
		f.Message = transport.NewID()
	}
	deadline, ok := ctx.Deadline()
	if ok {
		if f.Timeout = time.Until(deadline); f.Timeout <= 0 {
			return nil, context.DeadlineExceeded
		}
	}
	r, err := c.request(ctx, f, nil)
	if err != nil {
		return nil, err
	}
	reply, err := r.wait(ctx)
	switch {
	case err == nil:
		return reply.message(), nil
	case ctx.Err() != nil:
		c.post(&frame{Type: "stop", ID: f.ID})
		return nil, ctx.Err()
	case ok && !time.Now().Before(deadline) && transport.CodeOf(err) == transport.CodeDeadlineExceeded:
		return nil, context.DeadlineExceeded // the same clock rang at the other end first
	}
	return nil, err
}

// withTimeout returns ctx with the time that is left according to f.
func (c *conn) withTimeout(ctx context.Context, f *frame) (context.Context, context.CancelFunc) {
	if f.Timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, f.Timeout)
}
