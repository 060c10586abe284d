package middleware

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// A Record is the outcome of a message. It is read-only once it is stored. All of it survives encoding/gob, for stores
// outside of this process.
type Record struct {
	Fingerprint [sha256.Size]byte  // SHA-256 of the message's body
	Reply       *transport.Message // nil for none
	Err         *transport.Error   // nil for success; without Cause
}

// A Store remembers outcomes for [Dedup]. key has 43 characters of [A-Za-z0-9_-], owner at most 64 of them and is
// another one in each claim. An error without a Code counts as CodeUnavailable. Safe for concurrent use.
type Store interface {
	// Claim returns the Record under key if there is one. Else it returns nil, and the key is owner's until Complete,
	// Release, or the end of the lease. While the key is another owner's it waits, at most until ctx ends: then it
	// returns ctx's error.
	Claim(ctx context.Context, key, owner string, lease time.Duration) (*Record, error)
	// Complete stores r, if the key is still owner's; else it returns CodeAborted.
	Complete(ctx context.Context, key, owner string, r *Record) error
	// Release gives the key back, if it is still owner's; else it does nothing.
	Release(ctx context.Context, key, owner string) error
}

// MemoryOptions are the options of [NewMemoryStore]. The zero value, and nil, mean the defaults.
type MemoryOptions struct {
	// Entries is how many messages are known, those in work included. 0 means 65536.
	Entries int
	// Bytes is how much their records may take, by [transport.Message.Size] and 256 for each entry. 0 means 64 MiB.
	Bytes int
	// TTL is how long a record is kept. It should exceed the time in which a sender may send again. 0 means 24 hours.
	TTL time.Duration
}

// NewMemoryStore returns a Store in this process's memory. When it is full the oldest record goes first. If all
// entries are in work, Claim returns CodeResourceExhausted and the message is not handled. A record larger than Bytes
// is not kept: Complete returns CodeResourceExhausted and a duplicate runs again.
func NewMemoryStore(o *MemoryOptions) Store {
	s := &memoryStore{entries: map[string]*memoryEntry{}}
	if o != nil {
		s.MemoryOptions = *o
	}
	if s.Entries <= 0 {
		s.Entries = 1 << 16
	}
	if s.Bytes <= 0 {
		s.Bytes = 64 << 20
	}
	if s.TTL <= 0 {
		s.TTL = 24 * time.Hour
	}
	s.oldest.prev, s.oldest.next = &s.oldest, &s.oldest
	return s
}

// memoryStore keeps the completed entries in a ring in the order of their completion, which is that of their expiry.
type memoryStore struct {
	MemoryOptions
	mu      sync.Mutex
	entries map[string]*memoryEntry
	oldest  memoryEntry // the ring's anchor: next is the oldest
	bytes   int
}

type memoryEntry struct {
	key, owner string
	until      time.Time     // end of the lease, or of the record
	record     *Record       // nil while in work
	done       chan struct{} // closed at the end of the work; nil if nobody waits
	size       int
	prev, next *memoryEntry // in the ring
}

func (s *memoryStore) Claim(ctx context.Context, key, owner string, lease time.Duration) (*Record, error) {
	for {
		r, done, wait, err := s.claim(key, owner, lease)
		if done == nil {
			return r, err
		}
		t := time.NewTimer(wait)
		select {
		case <-done:
		case <-t.C:
		case <-ctx.Done():
			err = ctx.Err()
		}
		t.Stop()
		if err != nil {
			return nil, err
		}
	}
}

// claim is one try. A done that is not nil says what to wait for, and for how long at most.
func (s *memoryStore) claim(key, owner string, lease time.Duration) (r *Record, done <-chan struct{},
	wait time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for e := s.oldest.next; e != &s.oldest && !now.Before(e.until); e = s.oldest.next {
		s.remove(e)
	}
	e := s.entries[key]
	switch {
	case e == nil:
		if len(s.entries) >= s.Entries && !s.evict() {
			return nil, nil, 0, transport.Errorf(transport.CodeResourceExhausted, "too many messages are in work")
		}
		s.entries[key] = &memoryEntry{key: key, owner: owner, until: now.Add(lease)}
	case e.record != nil:
		return e.record, nil, 0, nil
	case now.Before(e.until):
		if e.done == nil {
			e.done = make(chan struct{})
		}
		return nil, e.done, e.until.Sub(now), nil
	default: // the lease is over
		e.owner, e.until = owner, now.Add(lease)
	}
	return nil, nil, 0, nil
}

func (s *memoryStore) Complete(_ context.Context, key, owner string, r *Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	if e == nil || e.record != nil || e.owner != owner {
		return transport.Errorf(transport.CodeAborted, "the lease was over before the message was handled")
	}
	size := r.size()
	if size > s.Bytes {
		s.remove(e)
		return transport.Errorf(transport.CodeResourceExhausted, "the record has %d bytes, the limit is %d", size, s.Bytes)
	}
	for s.bytes+size > s.Bytes && s.evict() {
	}
	s.bytes += size
	e.record, e.size, e.until = r, size, time.Now().Add(s.TTL)
	e.prev, e.next = s.oldest.prev, &s.oldest
	e.prev.next, e.next.prev = e, e
	e.wake()
	return nil
}

func (s *memoryStore) Release(_ context.Context, key, owner string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil && e.record == nil && e.owner == owner {
		s.remove(e)
	}
	return nil
}

// evict removes the oldest record, if there is one.
func (s *memoryStore) evict() bool {
	e := s.oldest.next
	if e == &s.oldest {
		return false
	}
	s.remove(e)
	return true
}

func (s *memoryStore) remove(e *memoryEntry) {
	delete(s.entries, e.key)
	if e.record != nil {
		e.prev.next, e.next.prev = e.next, e.prev
		s.bytes -= e.size
	}
	e.wake()
}

func (e *memoryEntry) wake() {
	if e.done != nil {
		close(e.done)
		e.done = nil
	}
}

// size is what Bytes counts.
func (r *Record) size() int {
	n := 256
	if r.Reply != nil {
		n += r.Reply.Size() + len(r.Reply.ID)
	}
	if r.Err != nil {
		n += len(r.Err.Message) + len(r.Err.Reason) + r.Err.Header.Size()
		for _, d := range r.Err.Details {
			n += len(d.Type) + len(d.Value)
		}
	}
	return n
}
