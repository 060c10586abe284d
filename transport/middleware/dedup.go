package middleware

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"log/slog"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// storeWait bounds how long a Store may take to hear of an outcome, also after the message's context has ended. The
// claim lasts that much longer than the handler.
const storeWait = 5 * time.Second

// DedupOptions are the options of [Dedup]. The zero value, and nil, mean the defaults.
type DedupOptions struct {
	// Store remembers the outcomes. The default is a [NewMemoryStore] of Dedup's own.
	Store Store
	// Lease is how long a message may be in work: Dedup ends the handler's context after it, as [Timeout] does. The
	// claim in the Store lasts 5 s longer; then a crashed process is waited for no more. 0 means 5 minutes.
	Lease time.Duration
	// SuccessesOnly remembers no errors. It is for events whose dead letters are sent back (compose.Redrive), which keep
	// their ID: else the refusal would be replayed to them.
	SuccessesOnly bool
	// OnError is told when an outcome could not be stored, so that a duplicate may run again. It must be safe for
	// concurrent use. Without it that is logged to slog.Default, by topic and ID.
	OnError func(m *transport.Message, err error)
}

// Dedup handles each message once. Messages are the same if they have the same topic, come from the same
// [transport.Peer].ID, and have the same idempotency-key header or, without one, the same ID. A message that has
// neither is always handled.
//
// A success and, unless SuccessesOnly is set, an error that is not [transport.Retryable] are remembered and replayed:
// duplicates share the reply, which is read-only, and get the public part of the error. After another error or a panic
// nothing is remembered, so that a redelivery runs again. A duplicate of a message that is in work waits for it, until its own ctx ends. The
// same key with another body is refused with CodeFailedPrecondition. If the Store fails, the message is refused with
// its Code, or else CodeUnavailable, and not handled.
//
// Dedup does not make a handler atomic: if the process dies between the work and its record, the work is done twice.
func Dedup(o *DedupOptions) transport.Middleware {
	var d DedupOptions
	if o != nil {
		d = *o
	}
	if d.Store == nil {
		d.Store = NewMemoryStore(nil)
	}
	if d.Lease <= 0 {
		d.Lease = 5 * time.Minute
	}
	if d.OnError == nil {
		d.OnError = func(m *transport.Message, err error) {
			slog.Default().Error("middleware: dedup", "topic", m.Topic, "id", m.ID, "error", err)
		}
	}
	return func(h transport.Handler) transport.Handler {
		leased := Timeout(d.Lease)(h)
		return func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			key := dedupKey(ctx, m)
			if key == "" {
				return h(ctx, m)
			}
			return d.once(ctx, m, key, leased)
		}
	}
}

func (d *DedupOptions) once(ctx context.Context, m *transport.Message, key string, h transport.Handler) (
	reply *transport.Message, err error) {
	owner := transport.NewID()
	r, err := d.Store.Claim(ctx, key, owner, d.Lease+storeWait)
	if err != nil {
		if transport.CodeOf(err) == transport.CodeUnknown {
			err = transport.Wrap(err, transport.CodeUnavailable, "the store of known messages does not answer")
		}
		return nil, err
	}
	fingerprint := sha256.Sum256(m.Body)
	if r != nil {
		return r.replay(fingerprint)
	}
	var outcome *Record
	defer func() { d.settle(ctx, m, key, owner, outcome) }() // also when h panics
	reply, err = h(ctx, m)
	if err == nil || !d.SuccessesOnly && !transport.Retryable(err) {
		outcome = &Record{Fingerprint: fingerprint, Reply: reply, Err: public(err)}
	}
	return reply, err
}

// settle stores the outcome, or lets the next one run where there is none.
func (d *DedupOptions) settle(ctx context.Context, m *transport.Message, key, owner string, outcome *Record) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeWait)
	defer cancel()
	var err error
	if outcome != nil {
		err = d.Store.Complete(ctx, key, owner, outcome)
	} else {
		err = d.Store.Release(ctx, key, owner)
	}
	if err != nil {
		d.OnError(m, err)
	}
}

// replay is the outcome for a duplicate.
func (r *Record) replay(fingerprint [sha256.Size]byte) (*transport.Message, error) {
	switch {
	case r.Fingerprint != fingerprint:
		return nil, transport.Errorf(transport.CodeFailedPrecondition, "this key was used before, with another body")
	case r.Err != nil:
		return nil, r.Err
	}
	return r.Reply, nil
}

// public is the part of err that a Store can keep: what a peer may see, and whether it came from one.
func public(err error) *transport.Error {
	p := transport.Public(err)
	if p != nil {
		var e *transport.Error
		p.Remote = errors.As(err, &e) && e.Remote
	}
	return p
}

// dedupKey returns the identity of m, "" if it has none. It is a hash, so that its length is fixed and no two
// identities have the same one.
func dedupKey(ctx context.Context, m *transport.Message) string {
	kind, name := "key", m.Header.Get(transport.HeaderIdempotencyKey)
	if name == "" {
		kind, name = "id", m.ID
	}
	if name == "" {
		return ""
	}
	peer, _ := transport.PeerFrom(ctx)
	var stack [512]byte
	all := stack[:0]
	for _, part := range [...]string{kind, m.Topic, peer.ID, name} {
		all = binary.BigEndian.AppendUint64(all, uint64(len(part)))
		all = append(all, part...)
	}
	sum := sha256.Sum256(all)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
