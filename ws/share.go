package ws

import (
	"sync"
	"sync/atomic"

	"github.com/intermodal-go/intermodal/transport"
)

const (
	sharedEvents = 32        // of a topic, kept encoded
	sharedBytes  = 512 << 10 // and no larger than this
)

// A share has the newest events of a topic as they are on the wire, so that each is encoded once for all subscriptions
// that are about as fast as each other.
type share struct {
	refs atomic.Int32 // subscriptions
	ring [sharedEvents]atomic.Pointer[encoded]

	mu     sync.Mutex // of those that encode
	oldest int        // in ring: overwritten next
}

// An encoded is the rest of an event, see appendEventTail.
type encoded struct {
	m    *transport.Message // by identity: a backend hands out the same to all
	tail []byte
	err  error // why it cannot be sent
}

// shares are those of a server, by topic.
type shares struct {
	mu sync.Mutex
	m  map[string]*share
}

func (s *shares) acquire(topic string) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.m[topic]
	if h == nil {
		h = &share{}
		if s.m == nil {
			s.m = map[string]*share{}
		}
		s.m[topic] = h
	}
	h.refs.Add(1)
	return h
}

func (s *shares) release(topic string, h *share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.refs.Add(-1) == 0 {
		delete(s.m, topic)
	}
}

// A sharedReader is a subscription's place in a share.
type sharedReader struct {
	*share
	next int // in ring, where the next event is most likely
}

// find returns what is known of m.
func (h *sharedReader) find(m *transport.Message) *encoded {
	for range sharedEvents {
		i := h.next % sharedEvents
		h.next = i + 1
		if e := h.ring[i].Load(); e != nil && e.m == m {
			return e
		}
	}
	return nil
}

// appendEvent appends the rest of d.
func (h *sharedReader) appendEvent(dst []byte, d *transport.Delivery, maxBytes int) ([]byte, error) {
	if h.refs.Load() == 1 {
		if err := d.Check(maxBytes); err != nil {
			return dst, err
		}
		return appendEventTail(dst, d), nil
	}
	e := h.find(d.Message)
	if e == nil {
		h.mu.Lock()
		if e = h.find(d.Message); e == nil {
			e = &encoded{m: d.Message}
			if e.err = d.Check(maxBytes); e.err == nil {
				e.tail = appendEventTail(make([]byte, 0, len(d.Body)+128), d)
			}
			if len(e.tail) <= sharedBytes {
				h.ring[h.oldest].Store(e)
				h.oldest = (h.oldest + 1) % sharedEvents
				h.next = h.oldest
			}
		}
		h.mu.Unlock()
	}
	return append(dst, e.tail...), e.err
}

// appendEventTail appends the rest of an event, after the members that each subscription has of its own and a comma.
// The id always stands there, so that there is a member after the comma.
func appendEventTail(dst []byte, d *transport.Delivery) []byte {
	dst = append(dst, `"id":`...)
	dst = appendString(dst, d.ID)
	dst = appendText(dst, "cursor", d.Cursor())
	dst = appendContent(dst, d.Message)
	return append(dst, closing...)
}
