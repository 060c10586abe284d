package rest

import (
	"container/list"
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// A Record is what became of a request, or that it still runs. It is read-only once it is stored, and survives encoding by
// gob and JSON, for stores outside of this process.
type Record struct {
	// Owner is the Peer.ID of who asked.
	Owner string
	// Fingerprint is the SHA-256 of the request.
	Fingerprint [sha256.Size]byte
	// Done says that the request is over, with Reply or Err.
	Done  bool
	Reply *transport.Message
	Err   *transport.Error // without Cause
}

// A Store remembers records: results that clients fetch later, and outcomes by Idempotency-Key. Servers that share a Store
// share both. Keys have at most 64 characters of [A-Za-z0-9_-]. An error without a Code counts as CodeUnavailable. Safe for
// concurrent use.
type Store interface {
	// Add stores r under key for ttl if nothing is there, and returns nil; else it returns what is there.
	Add(ctx context.Context, key string, r *Record, ttl time.Duration) (*Record, error)
	// Set stores r under key for ttl, in place of what may be there.
	Set(ctx context.Context, key string, r *Record, ttl time.Duration) error
	// Get returns the Record under key, or nil.
	Get(ctx context.Context, key string) (*Record, error)
	// Delete removes what is under key, if there is something.
	Delete(ctx context.Context, key string) error
}

// MemoryOptions are the options of [NewMemoryStore]. The zero value, and nil, mean the defaults.
type MemoryOptions struct {
	// Entries is how many records are kept. 0 means 10,000.
	Entries int
	// Bytes is how much they may take: [transport.Message.Size], and 256 for each record. 0 means 64 MiB.
	Bytes int
}

// NewMemoryStore returns a Store in this process's memory. When it is full, the oldest records that are done go first. If
// none is done, or a record is larger than Bytes, it answers CodeResourceExhausted.
func NewMemoryStore(o *MemoryOptions) Store {
	s := &memoryStore{entries: map[string]*list.Element{}}
	if o != nil {
		s.MemoryOptions = *o
	}
	if s.Entries <= 0 {
		s.Entries = 10_000
	}
	if s.Bytes <= 0 {
		s.Bytes = 64 << 20
	}
	return s
}

// memoryStore has its entries in the order in which they were stored: those that are done, and those that are not.
type memoryStore struct {
	MemoryOptions
	mu            sync.Mutex
	entries       map[string]*list.Element
	done, running list.List
	bytes         int
}

type kept struct {
	key    string
	record *Record
	until  time.Time
	size   int
}

func (s *memoryStore) Add(_ context.Context, key string, r *Record, ttl time.Duration) (*Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.get(key); old != nil {
		return old, nil
	}
	return nil, s.set(key, r, ttl)
}

func (s *memoryStore) Set(_ context.Context, key string, r *Record, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set(key, r, ttl)
}

func (s *memoryStore) Get(_ context.Context, key string) (*Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(key), nil
}

func (s *memoryStore) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil {
		s.remove(e)
	}
	return nil
}

func (s *memoryStore) get(key string) *Record {
	e := s.entries[key]
	if e == nil {
		return nil
	}
	if v := e.Value.(*kept); time.Now().Before(v.until) {
		return v.record
	}
	s.remove(e)
	return nil
}

func (s *memoryStore) set(key string, r *Record, ttl time.Duration) error {
	if e := s.entries[key]; e != nil {
		s.remove(e)
	}
	now := time.Now()
	v := &kept{key, r, now.Add(ttl), len(key) + r.size()}
	for _, l := range []*list.List{&s.done, &s.running} {
		for e := l.Front(); e != nil && !now.Before(e.Value.(*kept).until); e = l.Front() {
			s.remove(e)
		}
	}
	for len(s.entries) >= s.Entries || s.bytes+v.size > s.Bytes {
		e := s.done.Front()
		if e == nil || v.size > s.Bytes {
			return transport.Errorf(transport.CodeResourceExhausted, "too much is kept already")
		}
		s.remove(e)
	}
	s.bytes += v.size
	s.entries[key] = s.listOf(v).PushBack(v)
	return nil
}

func (s *memoryStore) remove(e *list.Element) {
	v := e.Value.(*kept)
	s.listOf(v).Remove(e)
	delete(s.entries, v.key)
	s.bytes -= v.size
}

func (s *memoryStore) listOf(v *kept) *list.List {
	if v.record.Done {
		return &s.done
	}
	return &s.running
}

// size is what Bytes counts.
func (r *Record) size() int {
	n := 256 + len(r.Owner)
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
