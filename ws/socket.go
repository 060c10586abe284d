package ws

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A socket is what lies under the WebSocket. It knows when the peer was last heard and since when a write has been
// under way, so that no read or write needs a timer of its own. Between cork and uncork it collects what is written.
//
// It writes our frames, so that they cost less. The library writes only its own, of control, each in one piece. Where
// frames may be compressed the library writes all.
type socket struct {
	rwc    io.ReadWriteCloser
	start  time.Time
	heard  atomic.Int64 // the last read, since start
	began  atomic.Int64 // the write that is under way, since start; 0 if there is none
	broken atomic.Bool  // a read or write has failed

	nc      net.Conn   // of a client, below rwc, if it is known: whose reading can be interrupted
	reading sync.Mutex // of nc's
	in      []byte     // read, and not handed out before off
	off     int
	frames  framing // of what was handed out

	mu     sync.Mutex
	corked bool
	held   []byte
	closed bool // a close frame has been written: nothing follows
}

// maxHeld is how much is collected before it is written.
const maxHeld = 16 << 10

func newSocket(rwc io.ReadWriteCloser) *socket { return &socket{rwc: rwc, start: time.Now()} }

// now is never 0.
func (s *socket) now() int64 { return int64(time.Since(s.start)) | 1 }

// Read implements io.Reader, for the library. Where reading can be interrupted, it does not go beyond the end of a frame,
// so that nothing lies in the library between frames.
func (s *socket) Read(p []byte) (int, error) {
	if s.nc == nil {
		return s.receive(p)
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.off < len(s.in) {
		n := s.frames.next(p[:copy(p, s.in[s.off:])])
		if s.off += n; s.off == len(s.in) {
			s.forget()
		}
		return n, nil
	}
	for {
		got, err := s.receive(p)
		n := s.frames.next(p[:got])
		if n < got {
			s.in = append(buffer(), p[n:got]...)
		}
		if n > 0 || err != errInterrupted {
			return n, err
		}
	}
}

// errInterrupted is what receive returns after interrupt, once.
var errInterrupted = errors.New("interrupted")

// receive reads.
func (s *socket) receive(p []byte) (int, error) {
	n, err := s.rwc.Read(p)
	if n > 0 {
		s.heard.Store(s.now())
	}
	switch {
	case err == nil:
	case s.nc != nil && errors.Is(err, os.ErrDeadlineExceeded):
		s.nc.SetReadDeadline(time.Time{})
		err = errInterrupted
	default:
		s.broken.Store(true)
	}
	return n, err
}

// interrupt lets a frame that is under way return, if reading can be interrupted.
func (s *socket) interrupt() {
	if s.nc != nil {
		s.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// maxWhole is the largest frame that is waited for.
const maxWhole = 16 << 10

// frame waits until a whole frame of text lies ready for Read. It is false if something else comes, or an interrupt. It is
// used between frames.
func (s *socket) frame() bool {
	if !s.reading.TryLock() {
		return false // the library reads: the connection ends
	}
	defer s.reading.Unlock()
	for {
		rest := s.in[s.off:]
		if head, size, ok := parseHead(rest); ok {
			if rest[0]&^reserved != final|opText || size > maxWhole {
				return false
			}
			if len(rest) >= head+int(size) {
				return true
			}
		}
		if s.in == nil {
			s.in = buffer()
		}
		if len(s.in) == cap(s.in) {
			s.in = append(s.in, 0)[:len(s.in)]
		}
		n, err := s.receive(s.in[len(s.in):cap(s.in)])
		s.in = s.in[:len(s.in)+n]
		if err != nil && n == 0 {
			if s.off == len(s.in) {
				s.forget()
			}
			return false
		}
	}
}

// whole reports whether nothing has been read beyond the last frame, where reading can be interrupted.
func (s *socket) whole() bool {
	s.reading.Lock()
	defer s.reading.Unlock()
	return s.nc != nil && s.in == nil && s.frames.between()
}

func (s *socket) forget() {
	recycle(s.in)
	s.in, s.off = nil, 0
}

// A framing follows the frames in a stream.
type framing struct {
	head []byte // of the next, as far as it is known
	left uint64 // of the payload
}

// between reports whether the stream has ended with a frame.
func (f *framing) between() bool { return len(f.head) == 0 && f.left == 0 }

// next takes what comes next in the stream, up to the end of a frame, and returns how much it has taken.
func (f *framing) next(p []byte) int {
	for i := 0; i < len(p); {
		if f.left > 0 {
			n := min(f.left, uint64(len(p)-i))
			f.left -= n
			i += int(n)
		} else {
			f.head = append(f.head, p[i])
			i++
			_, size, ok := parseHead(f.head)
			if !ok {
				continue
			}
			f.head, f.left = f.head[:0], size
		}
		if f.left == 0 {
			return i
		}
	}
	return len(p)
}

// parseHead returns the size of the head of a frame and that of its payload, if b has all of the head.
func parseHead(b []byte) (head int, payload uint64, ok bool) {
	if len(b) < 2 {
		return 0, 0, false
	}
	head, payload = 2, uint64(b[1]&0x7f)
	switch payload {
	case 126:
		head += 2
	case 127:
		head += 8
	}
	if len(b) < head {
		return 0, 0, false
	}
	switch head {
	case 4:
		payload = uint64(binary.BigEndian.Uint16(b[2:]))
	case 10:
		payload = binary.BigEndian.Uint64(b[2:])
	}
	if b[1]&0x80 != 0 {
		head += 4
	}
	return head, payload, len(b) >= head
}

// Write implements io.Writer, for the library.
func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = s.closed || len(p) > 0 && p[0] == final|opClose
	if !s.corked {
		return s.write(p)
	}
	n, err := s.collect(p)
	if s.closed && err == nil { // the library may close the socket next
		err = s.flush()
	}
	return n, err
}

// The first byte of a frame, RFC 6455 section 5.2.
const (
	final    = 0x80
	reserved = 0x70 // an extension's
	opText   = 1
	opClose  = 8
)

// text collects a frame with the payload p, which it masks, in place, if it is a client's. It is used between cork and
// uncork.
func (s *socket) text(p []byte, masked bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	if len(s.held)+maxHead > maxHeld {
		if err := s.flush(); err != nil {
			return err
		}
	}
	if s.held == nil {
		s.held = buffer()
	}
	key := uint32(0)
	if masked {
		key = rand.Uint32() // of ChaCha8: nobody can guess it
		mask(p, key)
	}
	s.held = appendHead(s.held, len(p), masked, key)
	_, err := s.collect(p)
	return err
}

// direct writes a server's frame at once, with the payload buf[start:] and the head before that, where there must be
// maxHead bytes.
func (s *socket) direct(buf []byte, start int) error {
	var b [maxHead]byte
	head := appendHead(b[:0], len(buf)-start, false, 0)
	start -= len(head)
	copy(buf[start:], head)
	s.began.Store(s.now())
	s.mu.Lock()
	defer s.mu.Unlock()
	err := net.ErrClosed
	if !s.closed {
		_, err = s.write(buf[start:])
	}
	s.began.Store(0)
	return err
}

// maxHead is the size of the largest head of a frame.
const maxHead = 14

// appendHead appends the head of a frame of text with n bytes.
func appendHead(dst []byte, n int, masked bool, key uint32) []byte {
	bit := byte(0)
	if masked {
		bit = 0x80
	}
	dst = append(dst, final|opText)
	switch {
	case n < 126:
		dst = append(dst, bit|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, bit|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, bit|127), uint64(n))
	}
	if masked {
		dst = binary.LittleEndian.AppendUint32(dst, key)
	}
	return dst
}

// mask masks p, RFC 6455 section 5.3.
func mask(p []byte, key uint32) {
	for twice := uint64(key)<<32 | uint64(key); len(p) >= 8; p = p[8:] {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^twice)
	}
	for i := range p {
		p[i] ^= byte(key >> (8 * i % 32))
	}
}

// collect holds p, or writes it if that is too much. Under mu.
func (s *socket) collect(p []byte) (int, error) {
	if len(s.held)+len(p) <= maxHeld {
		if s.held == nil {
			s.held = buffer()
		}
		s.held = append(s.held, p...)
		return len(p), nil
	}
	if nc, ok := s.rwc.(*net.TCPConn); ok && len(s.held) > 0 {
		held := s.held
		_, err := (&net.Buffers{held, p}).WriteTo(nc)
		recycle(held)
		s.held = nil
		s.broken.CompareAndSwap(false, err != nil)
		return len(p), err
	}
	if err := s.flush(); err != nil {
		return 0, err
	}
	return s.write(p)
}

func (s *socket) write(p []byte) (int, error) {
	n, err := s.rwc.Write(p)
	if err != nil {
		s.broken.Store(true)
	}
	return n, err
}

func (s *socket) flush() (err error) {
	if len(s.held) > 0 {
		_, err = s.write(s.held)
	}
	recycle(s.held)
	s.held = nil
	return err
}

// cork begins to collect.
func (s *socket) cork() {
	s.began.Store(s.now())
	s.mu.Lock()
	s.corked = true
	s.mu.Unlock()
}

// uncork writes what was collected.
func (s *socket) uncork() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = false
	err := s.flush()
	s.began.Store(0)
	return err
}

// Close closes the socket at once.
func (s *socket) Close() error { return s.rwc.Close() }

// silence is for how long the peer was not heard.
func (s *socket) silence() time.Duration { return time.Duration(s.now() - s.heard.Load()) }

// stuck is for how long a write has been under way.
func (s *socket) stuck() time.Duration {
	if began := s.began.Load(); began != 0 {
		return time.Duration(s.now() - began)
	}
	return 0
}

// Buffers are shared by all connections: one that is idle has none. A pool holds pointers; headers has those that point
// to nothing at the moment, so that to recycle a buffer allocates nothing.
var buffers, headers sync.Pool

// maxRecycled bounds the buffers that are kept.
const maxRecycled = 128 << 10

func buffer() []byte {
	h, ok := buffers.Get().(*[]byte)
	if !ok {
		return make([]byte, 0, 1024)
	}
	b := *h
	*h = nil
	headers.Put(h)
	return b[:0]
}

func recycle(b []byte) {
	if cap(b) == 0 || cap(b) > maxRecycled {
		return
	}
	h, ok := headers.Get().(*[]byte)
	if !ok {
		h = new([]byte)
	}
	*h = b
	buffers.Put(h)
}

// A hijacker gives the WebSocket library a socket with small buffers: those of net/http have 4 KiB each, for as long as
// the connection lives.
type hijacker struct {
	http.ResponseWriter
	sock *socket // once it was asked for
}

// Sizes of the buffers. A frame that is larger goes around them, in one write with its header.
const (
	readBuffer  = 512
	writeBuffer = 256 // a control frame has at most 129 bytes
)

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err == nil {
		err = rw.Writer.Flush()
	}
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	h.sock = newSocket(nc)
	c := hijacked{nc, h.sock}
	r := bufio.NewReaderSize(c, max(readBuffer, len(early)))
	if len(early) > 0 { // the client did not wait for the answer
		first := append([]byte(nil), early...)
		r.Reset(&prefix{first, c})
		r.Peek(len(first))
	}
	return c, bufio.NewReadWriter(r, bufio.NewWriterSize(c, writeBuffer)), nil
}

// A prefix is read before the rest.
type prefix struct {
	first []byte
	io.Reader
}

func (p *prefix) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Reader.Read(b)
}

// hijacked is a net.Conn that reads and writes by the socket.
type hijacked struct {
	net.Conn
	sock *socket
}

func (c hijacked) Read(p []byte) (int, error)  { return c.sock.Read(p) }
func (c hijacked) Write(p []byte) (int, error) { return c.sock.Write(p) }
func (c hijacked) Close() error                { return c.sock.Close() }
