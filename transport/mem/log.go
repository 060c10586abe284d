package mem

import (
	"sync/atomic"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/internal/id"
)

// An entry is a message in a log. The ID that the bus assigns lies in the same allocation as the travelling copy.
type entry struct {
	m       transport.Message
	offset  uint64
	size    int
	expires int64 // Unix nanoseconds, 0: never
	id      [id.Len]byte
}

// A log is a topic's history: a list of chunks. One writer appends and evicts under the topic's lock; readers go along
// the chunks without any lock. A slot is nil before its message is written and after it was evicted, and head tells
// which. Eviction clears the slot, so that a reader that stands still pins at most the chunks' slots, never messages.
type log struct {
	head  atomic.Uint64 // offset of the next message
	base  uint64        // offset of the oldest message that is kept, head if none
	bytes int
	first *chunk // has base
	last  *chunk // has head - 1
}

const chunkLen = 64

type chunk struct {
	start uint64 // offset of slots[0]
	slots [chunkLen]atomic.Pointer[entry]
	next  atomic.Pointer[chunk]
}

// init makes the log empty, with first as the first offset.
func (l *log) init(first uint64) {
	l.head.Store(first)
	l.base = first
	l.first = &chunk{start: first}
	l.last = l.first
}

func (l *log) append(e *entry) {
	e.offset = l.head.Load()
	i := e.offset - l.last.start
	if i == chunkLen {
		c := &chunk{start: e.offset}
		l.last.next.Store(c)
		l.last, i = c, 0
	}
	l.last.slots[i].Store(e)
	l.bytes += e.size
	l.head.Store(e.offset + 1) // publishes the slot
}

// evict drops the oldest message and returns it.
func (l *log) evict() *entry {
	slot := &l.first.slots[l.base-l.first.start]
	e := slot.Load()
	l.bytes -= e.size
	slot.Store(nil)
	l.base++
	if l.base-l.first.start == chunkLen {
		if next := l.first.next.Load(); next != nil {
			l.first = next
		} else { // base is head: the next append starts a chunk
			l.first = &chunk{start: l.base}
			l.last.next.Store(l.first)
			l.last = l.first
		}
	}
	return e
}

// prepend puts es before the oldest message.
func (l *log) prepend(es []*entry) {
	for i := len(es) - 1; i >= 0; i-- {
		if l.base == l.first.start {
			c := &chunk{start: l.first.start - chunkLen}
			c.next.Store(l.first)
			l.first = c
		}
		l.base--
		es[i].offset = l.base
		l.first.slots[l.base-l.first.start].Store(es[i])
		l.bytes += es[i].size
	}
}

func (l *log) len() int { return int(l.head.Load() - l.base) }

// chunkOf returns the chunk that has offset, which must be between base and head. It walks from the oldest.
func (l *log) chunkOf(offset uint64) *chunk {
	c := l.first
	for offset-c.start >= chunkLen {
		next := c.next.Load()
		if next == nil {
			break // offset is head, and its chunk comes with it
		}
		c = next
	}
	return c
}

// A reader is a position in a log.
type reader struct {
	pos   atomic.Uint64 // of the next message to read; written by the owner, read by publishers
	chunk *chunk
}

// peek returns the message at pos. It is nil if there is none yet, or it was evicted: then lost is true.
func (r *reader) peek(l *log) (e *entry, lost bool) {
	pos := r.pos.Load()
	if pos >= l.head.Load() {
		return nil, false
	}
	for pos-r.chunk.start >= chunkLen {
		r.chunk = r.chunk.next.Load() // there, since pos is below head
	}
	e = r.chunk.slots[pos-r.chunk.start].Load()
	return e, e == nil
}
