package ws

import (
	"context"
	"time"

	"github.com/coder/websocket"

	"github.com/intermodal-go/intermodal/transport"
)

// A mark says where a frame ends in out.
type mark struct {
	end  int
	note bool // a notification that may go out in a batch
}

// queue appends frame to what is to be written, and returns its place among all frames. Under mu.
func (c *conn) queue(frame []byte, note bool) (uint64, error) {
	if c.err != nil {
		return 0, c.err
	}
	if c.out == nil {
		c.out = buffer()
	}
	c.out = append(c.out, ',')
	c.out = append(c.out, frame...)
	c.marks = append(c.marks, mark{len(c.out), note})
	c.queued++
	return c.queued, nil
}

// lockRoom locks mu when the queue has room or the connection has ended. If ctx ends before, it does not.
func (c *conn) lockRoom(ctx context.Context) error {
	for {
		c.mu.Lock()
		if len(c.out) < maxQueue || c.err != nil {
			return nil
		}
		if c.room == nil {
			c.room = make(chan struct{})
		}
		room := c.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ctx.Done():
		}
	}
}

// send queues frame, which is copied, once there is room.
func (c *conn) send(ctx context.Context, frame []byte, note bool) error {
	if err := c.lockRoom(ctx); err != nil {
		return err
	}
	_, err := c.queue(frame, note)
	c.flush(c.server)
	return err
}

// sendUnder is send for what ends something under a limit, which it leaves before the peer can have the frame: it may
// begin the next at once.
func (c *conn) sendUnder(l *limit, frame []byte, note bool) error {
	c.lockRoom(context.Background())
	_, err := c.queue(frame, note)
	l.leave()
	c.flush(c.server)
	return err
}

// headroom is for what stands before a frame that is written where it lies.
var headroom [maxHead]byte

// sendAll is send for notifications, which together go into one frame. They begin after the headroom, each after a comma,
// and end where ends says. If nothing else is to be written, that is done here, without a copy, for which bytes before and
// after them may be changed.
func (c *conn) sendAll(ctx context.Context, buf []byte, ends []int) error {
	if err := c.lockRoom(ctx); err != nil {
		return err
	}
	if c.server && !c.compress && !c.writing && c.err == nil && !c.over && len(c.out) == 0 {
		c.writing = true
		c.wg.Add(1)
		c.mu.Unlock()
		c.wrote(nil, c.sock.direct(bracket(buf, len(ends))))
		return nil
	}
	start := maxHead
	var err error
	for _, end := range ends {
		_, err = c.queue(buf[start+1:end], true)
		start = end
	}
	c.flush(c.server)
	return err
}

// bracket makes the n objects in buf, see sendAll, a batch unless there is only one. It returns where that begins.
func bracket(buf []byte, n int) ([]byte, int) {
	if n == 1 {
		return buf, maxHead + 1
	}
	buf[maxHead] = '['
	return append(buf, ']'), maxHead
}

// post queues frame, which is copied, without waiting. It is for small frames whose number is bounded by what is under
// way.
func (c *conn) post(frame []byte, note bool) error {
	c.mu.Lock()
	full := c.posted > maxPosted
	c.posted += len(frame)
	_, err := c.queue(frame, note)
	c.flush(false)
	if full {
		c.cut(transport.Errorf(transport.CodeUnavailable, "the peer does not read"))
	}
	return err
}

// note posts a notification and recycles it.
func (c *conn) note(frame []byte) error {
	err := c.post(frame, true)
	recycle(frame)
	return err
}

// flush has what is queued written, by the caller if inline. It unlocks mu.
func (c *conn) flush(inline bool) {
	if c.writing || c.over || len(c.out) == 0 && c.closing == nil {
		c.mu.Unlock()
		return
	}
	c.writing = true
	if inline && c.closing == nil {
		buf, marks := c.take()
		c.wg.Add(1)
		c.mu.Unlock()
		c.wrote(marks, c.write(buf, marks))
		return
	}
	c.wg.Go(c.writeAll)
	c.mu.Unlock()
}

// wrote is called when something has been written inline, which wg counts. What was queued meanwhile is left to a
// goroutine, and so is a close frame, even if all else is over.
func (c *conn) wrote(marks []mark, err error) {
	defer c.wg.Done()
	if err != nil {
		c.failed(err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reuse(marks)
	switch {
	case len(c.out) == 0 && c.closing == nil:
		c.writing = false
	case !c.over || c.closing != nil:
		c.wg.Go(c.writeAll)
	}
}

// failed ends the connection after a write that has failed. writing stays true: nobody shall try again.
func (c *conn) failed(err error) {
	c.mu.Lock()
	closing := c.closing != nil
	c.mu.Unlock()
	if closing {
		c.sock.Close()
		return
	}
	time.AfterFunc(closeTimeout, func() { // what the peer said before it closed is still to be read
		c.cut(transport.Wrap(err, transport.CodeUnavailable, "the connection was lost"))
	})
}

// writeAll writes until nothing is queued.
func (c *conn) writeAll() {
	c.mu.Lock()
	for len(c.out) > 0 {
		buf, marks := c.take()
		c.mu.Unlock()
		if err := c.write(buf, marks); err != nil {
			c.failed(err)
			return
		}
		c.mu.Lock()
		c.reuse(marks)
	}
	if c.closing == nil {
		c.writing = false
		c.mu.Unlock()
		return
	}
	closing := *c.closing
	c.mu.Unlock()
	t := time.AfterFunc(closeTimeout, func() { c.sock.Close() })
	defer t.Stop()
	c.ws.Close(closing.Code, closing.Reason)
}

// take takes out what is to be written. Under mu.
func (c *conn) take() ([]byte, []mark) {
	buf, marks := c.out, c.marks
	c.out, c.marks, c.posted = nil, nil, 0
	c.taken = c.queued
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
	return buf, marks
}

// reuse keeps marks that were taken. Under mu.
func (c *conn) reuse(marks []mark) {
	if c.marks == nil && cap(marks) <= 32 {
		c.marks = marks[:0]
	}
}

// text writes a frame, and may change it.
func (c *conn) text(frame []byte) error {
	if c.compress {
		return c.ws.Write(context.Background(), websocket.MessageText, frame)
	}
	return c.sock.text(frame, !c.server)
}

// write writes frames, and recycles buf.
func (c *conn) write(buf []byte, marks []mark) error {
	batching := c.batching.Load()
	buf = append(buf, 0) // for the bracket of the last batch
	c.sock.cork()
	var err error
	for i, start := 0, 0; i < len(marks) && err == nil; {
		n := 1
		for batching && marks[i].note && i+n < len(marks) && marks[i+n].note && n < maxObjects/2 &&
			marks[i+n].end-start <= maxBatch {
			n++
		}
		end := marks[i+n-1].end
		if n == 1 {
			err = c.text(buf[start+1 : end])
		} else {
			after := buf[end]
			buf[start], buf[end] = '[', ']'
			err = c.text(buf[start : end+1])
			buf[end] = after
		}
		i, start = i+n, end
	}
	if e := c.sock.uncork(); err == nil {
		err = e
	}
	recycle(buf)
	return err
}
