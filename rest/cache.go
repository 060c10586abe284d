package rest

import (
	"container/list"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// stored is a reply to a GET that is kept. It is never changed: a validation replaces it.
type stored struct {
	key    string              // of the request: its URL and its credentials
	path   string              // the URL without its query, for invalidation
	vary   map[string][]string // the request's fields that Vary named; nil: absent
	answer *answer
	etag   string
	// validate says that it is never served without a question to the server.
	validate bool
	age      time.Duration // when it was received
	received time.Time
	fresh    time.Duration
}

// ageAt returns how old the reply is.
func (e *stored) ageAt(now time.Time) time.Duration { return e.age + now.Sub(e.received) }

// usable reports whether it may be served without a question.
func (e *stored) usable(now time.Time, want cacheControl) bool {
	age := e.ageAt(now)
	return !e.validate && !want.noCache && age < e.fresh && (want.maxAge < 0 || age <= want.maxAge)
}

// matches reports whether a request with the header h selects it (RFC 9111 section 4.1).
func (e *stored) matches(h http.Header) bool {
	for name, values := range e.vary {
		if !slices.Equal(h[name], values) {
			return false
		}
	}
	return true
}

// size is an estimate of the memory that the stored takes.
func (e *stored) size() int {
	n := 512 + len(e.key) + len(e.path) + len(e.answer.body)
	for _, h := range []http.Header{e.vary, e.answer.header} {
		for k, vs := range h {
			n += 64 + len(k)
			for _, v := range vs {
				n += 16 + len(v)
			}
		}
	}
	return n
}

// cache is a private cache of replies to GET (RFC 9111), which forgets what was not used for the longest time. It is safe
// for concurrent use. A nil cache is always empty.
type cache struct {
	maxEntries, maxBytes int

	mu     sync.Mutex
	lru    list.List // of *stored, the last used one first
	byKey  map[string][]*list.Element
	byPath map[string]map[*list.Element]bool
	bytes  int
	writes uint64 // counts invalidations
}

func newCache(maxEntries, maxBytes int) *cache {
	return &cache{maxEntries: maxEntries, maxBytes: maxBytes, byKey: map[string][]*list.Element{},
		byPath: map[string]map[*list.Element]bool{}}
}

// get returns what is stored for a request, nil if there is none. version is for put.
func (c *cache) get(key string, h http.Header) (e *stored, version uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, el := range c.byKey[key] {
		if e := el.Value.(*stored); e.matches(h) {
			c.lru.MoveToFront(el)
			return e, c.writes
		}
	}
	return nil, c.writes
}

// put stores e, which may be nil, in the place of what the request selects. If anything was invalidated since version, e
// may be out of date already, and the place stays empty.
func (c *cache) put(key string, h http.Header, e *stored, version uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, el := range slices.Clone(c.byKey[key]) {
		if el.Value.(*stored).matches(h) {
			c.remove(el)
		}
	}
	if e == nil || c.writes != version || e.size() > c.maxBytes {
		return
	}
	el := c.lru.PushFront(e)
	c.byKey[e.key] = append(c.byKey[e.key], el)
	if c.byPath[e.path] == nil {
		c.byPath[e.path] = map[*list.Element]bool{}
	}
	c.byPath[e.path][el] = true
	c.bytes += e.size()
	for c.bytes > c.maxBytes || c.lru.Len() > c.maxEntries {
		c.remove(c.lru.Back())
	}
}

// invalidate drops the entries of the paths, whatever their query and credentials (RFC 9111 section 4.4).
func (c *cache) invalidate(paths ...string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	for _, path := range paths {
		for el := range c.byPath[path] {
			c.remove(el)
		}
	}
}

// clear drops everything.
func (c *cache) clear() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	c.lru.Init()
	clear(c.byKey)
	clear(c.byPath)
	c.bytes = 0
}

func (c *cache) remove(el *list.Element) {
	e := c.lru.Remove(el).(*stored)
	c.bytes -= e.size()
	if rest := slices.DeleteFunc(c.byKey[e.key], func(x *list.Element) bool { return x == el }); len(rest) > 0 {
		c.byKey[e.key] = rest
	} else {
		delete(c.byKey, e.key)
	}
	delete(c.byPath[e.path], el)
	if len(c.byPath[e.path]) == 0 {
		delete(c.byPath, e.path)
	}
}

// newStored returns the stored for an answer, nil if it must not be stored or would be of no use: only replies with the
// status 200 are kept, and of those the ones that have an ETag or are fresh for some time.
func newStored(key, path string, request http.Header, a *answer, sent, received time.Time) *stored {
	cc := parseCacheControl(a.header["Cache-Control"])
	e := &stored{key: key, path: path, answer: a, etag: a.header.Get("Etag"), validate: cc.noCache,
		age: initialAge(a.header, sent, received), received: received, fresh: lifetime(a.header, cc, received)}
	if a.status != http.StatusOK || cc.noStore || e.etag == "" && (e.validate || e.fresh <= e.age) {
		return nil
	}
	for _, line := range a.header["Vary"] {
		for name := range strings.SplitSeq(line, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			switch name {
			case "*":
				return nil
			case "", "Accept-Encoding": // what is stored is not encoded
				continue
			}
			if e.vary == nil {
				e.vary = map[string][]string{}
			}
			e.vary[name] = slices.Clone(request[name])
		}
	}
	return e
}

// refreshed returns the answer of e with the fields of a 304 (RFC 9111 section 3.2).
func (e *stored) refreshed(h http.Header) *answer {
	merged := e.answer.header.Clone()
	for name, values := range h {
		switch name {
		case "Content-Length", "Content-Encoding", "Content-Type", "Content-Range", "Transfer-Encoding", "Connection", "Trailer":
		default:
			merged[name] = values
		}
	}
	return &answer{status: e.answer.status, header: merged, body: e.answer.body}
}
