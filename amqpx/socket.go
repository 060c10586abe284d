package amqpx

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A socket is a TCP connection whose writes are bounded in time and can be gathered: a burst of messages costs one
// write to the kernel. While one takes long, as in an alarm of the broker, others do not wait for it but are gathered
// as well. So the library can go on with its heartbeats: without them it would take the connection for dead.
type socket struct {
	net.Conn
	timeout time.Duration
	open    atomic.Bool // the handshake, which has a limit of its own, is done

	mu      sync.Mutex
	patient func() bool // a write may take longer than timeout; nil: never
	corked  bool
	writing bool   // somebody writes, and goes on until buf is empty
	buf     []byte // gathered
	spare   []byte // memory for the next buf
	failed  error
}

// maxSpare is how much memory is kept for the next burst.
const maxSpare = 256 << 10

// Write implements net.Conn. What is gathered counts as written; an error shows later.
func (s *socket) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return 0, s.failed
	}
	if s.corked || s.writing {
		s.buf = append(s.buf, b...)
		return len(b), nil
	}
	s.write(b)
	s.flush()
	if s.failed != nil {
		return 0, s.failed
	}
	return len(b), nil
}

// cork gathers what is written until uncork.
func (s *socket) cork() {
	s.mu.Lock()
	s.corked = true
	s.mu.Unlock()
}

// uncork writes what was gathered.
func (s *socket) uncork() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = false
	if !s.writing {
		s.flush()
	}
	return s.failed
}

// flush writes what is gathered. s.mu is held.
func (s *socket) flush() {
	for len(s.buf) > 0 && s.failed == nil {
		b := s.buf
		s.buf = s.spare[:0]
		if s.write(b); cap(b) <= maxSpare {
			s.spare = b
		}
	}
}

// write writes b. s.mu is held, but not meanwhile.
func (s *socket) write(b []byte) {
	s.writing = true
	patient := s.patient
	s.mu.Unlock()
	var err error
	for more := true; more; {
		if s.open.Load() {
			s.SetWriteDeadline(time.Now().Add(s.timeout))
		}
		var n int
		n, err = s.Conn.Write(b)
		b = b[n:]
		more = errors.Is(err, os.ErrDeadlineExceeded) && patient != nil && patient()
	}
	if err != nil {
		s.Conn.Close()
	}
	s.mu.Lock()
	s.writing = false
	if err != nil {
		s.failed = err
	}
}

// setPatient says when a write may take longer than timeout.
func (s *socket) setPatient(f func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.patient = f
}
