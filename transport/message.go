package transport

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/intermodal-go/intermodal/transport/internal/id"
)

// Limits that hold on every transport. A transport may be given other sizes by its options; the lengths of names
// are fixed, because they must fit into queue names, paths and method names everywhere.
const (
	DefaultMaxBytes       = 1 << 20  // default limit of Message.Size
	DefaultMaxHeaderBytes = 16 << 10 // default limit of Header.Size
	MaxTopicBytes         = 200      // longest topic
	MaxIDBytes            = 128      // longest Message.ID
	MaxGroupBytes         = 100      // longest group name
	MaxCursorBytes        = 128      // longest cursor
)

// A Message is an event, a request, a reply or one item of a stream. It is a plain value: read-only once sent or
// received, because transports keep and share Body without copying it. Clone it to change it.
type Message struct {
	// ID is the message's identity across retries, redeliveries and bridges. If it is empty, sending assigns one to
	// the copy that travels; the sender's own Message is never written. At most 128 bytes of printable UTF-8.
	ID string
	// Topic names an event stream or an operation, see [CheckTopic]. Replies have none.
	Topic string
	// Header is the metadata. It may be nil.
	Header Header
	// Body is the payload, encoded as the content-type header says. It arrives byte for byte as it was sent.
	Body []byte
}

// Clone returns a copy of m with a Header of its own, never nil. Body is shared with m: replace it, do not write
// into it.
func (m *Message) Clone() *Message {
	c := *m
	if c.Header = m.Header.Clone(); c.Header == nil {
		c.Header = Header{}
	}
	return &c
}

// Size is what the limits count: the bytes of topic, header and body.
func (m *Message) Size() int { return len(m.Topic) + m.Header.Size() + len(m.Body) }

// Check reports whether m may be sent: a legal ID (or none), a legal header of at most [DefaultMaxHeaderBytes], and
// no more than maxBytes in all (0 means [DefaultMaxBytes]). It does not look at the topic, which replies and stream
// items lack: see [CheckTopic]. A message that is too large gets CodeResourceExhausted, all else
// CodeInvalidArgument. Every transport calls it before it sends.
func (m *Message) Check(maxBytes int) error {
	if m == nil {
		return Errorf(CodeInvalidArgument, "the message is nil")
	}
	if m.ID != "" {
		if err := CheckID(m.ID); err != nil {
			return err
		}
	}
	if len(m.Header) > 0 {
		if err := m.Header.Check(); err != nil {
			return err
		}
	}
	if maxBytes <= 0 {
		maxBytes = DefaultMaxBytes
	}
	if n := m.Size(); n > maxBytes {
		return Errorf(CodeResourceExhausted, "the message has %d bytes, the limit is %d", n, maxBytes)
	}
	return nil
}

// NewID returns a new ID. It is unique (a random prefix per process and a counter), cheap, and matches
// [A-Za-z0-9_-]{16,64}. It is no secret: whoever saw one can guess the next.
func NewID() string {
	var b [id.Len]byte
	id.Put(&b)
	return string(b[:])
}

// CheckID reports whether s may be a Message.ID: 1 to 128 bytes of valid UTF-8 without control characters.
// The error has CodeInvalidArgument.
func CheckID(s string) error {
	if s == "" || len(s) > MaxIDBytes {
		return Errorf(CodeInvalidArgument, "the message ID has %d bytes, legal are 1 to %d", len(s), MaxIDBytes)
	}
	if !printable(s) {
		return Errorf(CodeInvalidArgument, "the message ID %q is not UTF-8 without control characters", s)
	}
	return nil
}

// CheckTopic reports whether topic is legal: at most 200 bytes; words joined by single dots; each word valid UTF-8
// without control characters and not just "*" or "#". The first word is not "rpc" or "amq" and does not begin with
// "_": those are reserved. Of the reserved ones only "_reply.<id>" passes, the topic that a requester listens to.
// The error has CodeInvalidArgument and says what is wrong.
func CheckTopic(topic string) error {
	if topic == "" || len(topic) > MaxTopicBytes {
		return Errorf(CodeInvalidArgument, "the topic has %d bytes, legal are 1 to %d", len(topic), MaxTopicBytes)
	}
	if !printable(topic) {
		return Errorf(CodeInvalidArgument, "the topic %q is not UTF-8 without control characters", topic)
	}
	for word, rest, more := "", topic, true; more; {
		word, rest, more = strings.Cut(rest, ".")
		switch word {
		case "":
			return Errorf(CodeInvalidArgument, "the topic %q has an empty word", topic)
		case "*", "#":
			return Errorf(CodeInvalidArgument, "the topic %q has the word %q: there are no wildcards", topic, word)
		}
	}
	first, rest, _ := strings.Cut(topic, ".")
	if first == "rpc" || first == "amq" || first[0] == '_' {
		if first == "_reply" && rest != "" && !strings.Contains(rest, ".") {
			return nil
		}
		return Errorf(CodeInvalidArgument, "the topic %q begins with a reserved word", topic)
	}
	return nil
}

// checkGroup reports whether name may be a group: 1 to 100 bytes of UTF-8 without control characters.
func checkGroup(name string) error {
	if name == "" || len(name) > MaxGroupBytes {
		return Errorf(CodeInvalidArgument, "the group has %d bytes, legal are 1 to %d", len(name), MaxGroupBytes)
	}
	if !printable(name) {
		return Errorf(CodeInvalidArgument, "the group %q is not UTF-8 without control characters", name)
	}
	return nil
}

// printable reports whether s is valid UTF-8 without control characters (C0, DEL and C1).
func printable(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < 0x20 || c == 0x7f:
			return false
		case c >= utf8.RuneSelf:
			if !utf8.ValidString(s[i:]) {
				return false
			}
			for _, r := range s[i:] {
				if r < 0x20 || (r >= 0x7f && r < 0xa0) {
					return false
				}
			}
			return true
		}
	}
	return true
}

// Header is the metadata of a message or a stream. Keys match [a-z0-9_.-]{1,64}; the methods lower-case the keys they
// are given, a literal must be written in lower case. A value is valid UTF-8; under a key that ends in -bin it is raw
// bytes. A key without values counts as absent. A nil Header can be read, not written.
//
// Credentials, cookies and connection fields never stand in a Header: they are in [Peer].
type Header map[string][]string

// Names with a meaning of their own. Package wire documents where each sits in every protocol.
const (
	HeaderContentType    = "content-type"    // media type of Body
	HeaderIdempotencyKey = "idempotency-key" // the sender's word that repeats are one request
	HeaderReplyTo        = "reply-to"        // topic that takes the reply, for calls over events
	HeaderCorrelationID  = "correlation-id"  // copied into that reply
	HeaderDeadline       = "deadline"        // absolute end of a stored call: RFC 3339, UTC
	HeaderTTL            = "ttl"             // milliseconds after which an undelivered event is dropped
	HeaderDelay          = "delay"           // milliseconds before an event is delivered
	HeaderPriority       = "priority"        // 0 to 9, a hint
	HeaderTraceParent    = "traceparent"     // W3C Trace Context
	HeaderTraceState     = "tracestate"      // W3C Trace Context
	HeaderBaggage        = "baggage"         // W3C Baggage

	HeaderDeadLetterTopic    = "dead-letter-topic"    // where a dead letter was published first
	HeaderDeadLetterAttempts = "dead-letter-attempts" // how often it was delivered
	HeaderDeadLetterCode     = "dead-letter-code"     // Code of the last refusal
	HeaderDeadLetterReason   = "dead-letter-reason"   // its Reason or public text
)

// Get returns the first value under key, or "".
func (h Header) Get(key string) string {
	if vs := h[lower(key)]; len(vs) > 0 {
		return vs[0]
	}
	return ""
}

// Values returns all values under key. They belong to h.
func (h Header) Values(key string) []string { return h[lower(key)] }

// Set replaces the values under key by value.
func (h Header) Set(key, value string) { h[lower(key)] = []string{value} }

// Add appends value to the values under key.
func (h Header) Add(key, value string) { k := lower(key); h[k] = append(h[k], value) }

// Del removes key.
func (h Header) Del(key string) { delete(h, lower(key)) }

// Clone returns a deep copy; nil stays nil.
func (h Header) Clone() Header {
	if h == nil {
		return nil
	}
	c := make(Header, len(h))
	for k, vs := range h {
		c[k] = slices.Clone(vs)
	}
	return c
}

// Size is the bytes of all keys and values, a key counted once for each of its values.
func (h Header) Size() (n int) {
	if len(h) == 0 { // most have none, and ranging over nothing is not free
		return 0
	}
	for k, vs := range h {
		for _, v := range vs {
			n += len(k) + len(v)
		}
	}
	return n
}

// Check reports whether h is legal and has at most [DefaultMaxHeaderBytes]. The error has CodeInvalidArgument, or
// CodeResourceExhausted for the size, and names the key. Values are not repeated in it: they may be private.
func (h Header) Check() error {
	size := 0
	for k, vs := range h {
		if !legalKey(k) {
			return Errorf(CodeInvalidArgument, "the header key %q does not match [a-z0-9_.-]{1,64}", k)
		}
		raw := strings.HasSuffix(k, "-bin")
		for _, v := range vs {
			if size += len(k) + len(v); !raw && !utf8.ValidString(v) {
				return Errorf(CodeInvalidArgument, "the header %q is not UTF-8 (raw bytes go under a key that ends in -bin)", k)
			}
		}
	}
	if size > DefaultMaxHeaderBytes {
		return Errorf(CodeResourceExhausted, "the header has %d bytes, the limit is %d", size, DefaultMaxHeaderBytes)
	}
	return nil
}

// Millis returns the value under key as a whole number of milliseconds, the form of ttl and delay. It is 0 without
// the key; a value that is no such number, or negative, gets CodeInvalidArgument.
func (h Header) Millis(key string) (time.Duration, error) {
	vs := h.Values(key)
	if len(vs) == 0 {
		return 0, nil
	}
	n, err := strconv.ParseUint(vs[0], 10, 63)
	if err != nil || n > uint64(1<<63-1)/uint64(time.Millisecond) {
		return 0, Errorf(CodeInvalidArgument, "the header %q is not a whole number of milliseconds", key)
	}
	return time.Duration(n) * time.Millisecond, nil
}

// SetMillis sets key to d in milliseconds, rounded up; negative durations count as 0.
func (h Header) SetMillis(key string, d time.Duration) {
	ms := max(d, 0) / time.Millisecond
	if d > ms*time.Millisecond {
		ms++
	}
	h.Set(key, strconv.FormatInt(int64(ms), 10))
}

// Deadline returns the time in the deadline header, zero without one. A value that is not RFC 3339 gets
// CodeInvalidArgument.
func (h Header) Deadline() (time.Time, error) {
	vs := h.Values(HeaderDeadline)
	if len(vs) == 0 {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, vs[0])
	if err != nil {
		return time.Time{}, Errorf(CodeInvalidArgument, "the header %q is not an RFC 3339 time", HeaderDeadline)
	}
	return t, nil
}

// SetDeadline sets the deadline header to t.
func (h Header) SetDeadline(t time.Time) { h.Set(HeaderDeadline, t.UTC().Format(time.RFC3339Nano)) }

func lower(key string) string {
	for i := 0; i < len(key); i++ {
		if c := key[i]; 'A' <= c && c <= 'Z' {
			return strings.ToLower(key)
		}
	}
	return key
}

func legalKey(k string) bool {
	if k == "" || len(k) > 64 {
		return false
	}
	for i := 0; i < len(k); i++ {
		switch c := k[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_', c == '.', c == '-':
		default:
			return false
		}
	}
	return true
}
