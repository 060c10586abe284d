package rest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// Reasons that the server itself gives.
const (
	ReasonKeyMissing = "IDEMPOTENCY_KEY_MISSING" // 400: the route wants an Idempotency-Key
	ReasonKeyInUse   = "IDEMPOTENCY_KEY_IN_USE"  // 409: the request with that key still runs
	ReasonKeyReused  = "IDEMPOTENCY_KEY_REUSED"  // 422: the key was another request's
)

// maxKeyBytes is the length of a key.
const maxKeyBytes = 255

// storeWait bounds how long a Store may take to hear of an outcome, also when the client is gone.
const storeWait = 5 * time.Second

// A storeError is that of a Store which failed.
type storeError struct{ error }

func (e *storeError) Unwrap() error { return e.error }

// parseKey reads the lines of Idempotency-Key: a string of RFC 8941, with the parameters that it may have but none of which
// is defined, or, as many clients send it, the bare key. The error is CodeInvalidArgument.
func parseKey(lines []string) (string, error) {
	bad := func(text string) (string, error) {
		return "", transport.Errorf(transport.CodeInvalidArgument, "the Idempotency-Key %s", text)
	}
	if len(lines) != 1 {
		return bad("must be there once")
	}
	line := strings.Trim(lines[0], " \t")
	if !strings.HasPrefix(line, `"`) {
		for i := 0; i < len(line); i++ {
			if line[i] <= ' ' || line[i] >= 0x7f {
				return bad("is malformed")
			}
		}
		if line == "" || len(line) > maxKeyBytes {
			return bad("must have 1 to 255 characters")
		}
		return line, nil
	}
	var key []byte
	for i := 1; i < len(line); i++ {
		switch c := line[i]; {
		case c == '"':
			if after := strings.TrimLeft(line[i+1:], " "); after != "" && after[0] != ';' {
				return bad("is malformed")
			}
			if len(key) == 0 || len(key) > maxKeyBytes {
				return bad("must have 1 to 255 characters")
			}
			return string(key), nil
		case c == '\\':
			if i++; i == len(line) || line[i] != '"' && line[i] != '\\' {
				return bad("is malformed")
			}
			key = append(key, line[i])
		case c < ' ' || c >= 0x7f:
			return bad("is malformed")
		default:
			key = append(key, c)
		}
	}
	return bad("is malformed")
}

// A claim is the right to handle a request with a key.
type claim struct {
	key   string
	print [sha256.Size]byte
	ttl   time.Duration
}

// claim makes the request the one that is handled for its Idempotency-Key. It returns nil if it has no key, or a method
// that needs none; done says that it is answered already, by the outcome of the one before.
func (x *exchange) claim(t task) (c *claim, done bool, err error) {
	if x.route.method != "POST" && x.route.method != "PATCH" && !x.route.RequireKey {
		return nil, false, nil
	}
	key := ""
	if lines := x.r.Header["Idempotency-Key"]; len(lines) > 0 {
		if key, err = parseKey(lines); err != nil {
			return nil, false, err
		}
		for _, m := range append([]*transport.Message{t.m}, t.events...) {
			if m.Header.Get(transport.HeaderIdempotencyKey) != "" {
				m.Header.Set(transport.HeaderIdempotencyKey, key) // as it stands in the field, without what may follow
			}
		}
	} else if t.events == nil { // one that cannot be a field
		key = t.m.Header.Get(transport.HeaderIdempotencyKey)
	}
	if key == "" {
		if x.route.RequireKey {
			return nil, false, &transport.Error{Code: transport.CodeInvalidArgument, Reason: ReasonKeyMissing,
				Message: "the request needs an Idempotency-Key"}
		}
		return nil, false, nil
	}
	c = &claim{key: x.storeKey(t.m.Topic, key), print: t.fingerprint(), ttl: x.s.o.MaxTimeout + storeWait}
	old, err := x.s.o.Keys.Add(x.r.Context(), c.key, &Record{Owner: x.peer.ID, Fingerprint: c.print}, c.ttl)
	switch {
	case err != nil:
		return nil, false, unavailable503(err)
	case old == nil:
		return c, false, nil
	case old.Fingerprint != c.print:
		return nil, false, withReason(ReasonKeyReused, transport.CodeInvalidArgument, "422", "the Idempotency-Key was used for another request")
	case !old.Done:
		return nil, false, withReason(ReasonKeyInUse, transport.CodeAborted, "409", "the request with this Idempotency-Key still runs")
	}
	x.w.Header().Set("Idempotency-Replayed", "true")
	if old.Err != nil {
		return nil, true, old.Err
	}
	return nil, true, x.reply(old.Reply)
}

// unavailable503 is the error of a Store.
func unavailable503(err error) error {
	if transport.CodeOf(err) == transport.CodeUnknown {
		err = transport.Wrap(&storeError{err}, transport.CodeUnavailable, "what is known of requests cannot be looked up")
	}
	return err
}

func withReason(reason string, code transport.Code, status, text string) error {
	return &transport.Error{Code: code, Reason: reason, Message: text, Header: transport.Header{wire.HeaderStatus: {status}}}
}

// storeKey is one for each principal, route and key.
func (x *exchange) storeKey(topic, key string) string {
	h := sha256.New()
	for _, s := range []string{x.peer.ID, x.route.Pattern, topic, key} {
		h.Write([]byte(itoa(int64(len(s)))))
		h.Write([]byte{0})
		h.Write([]byte(s))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// fingerprint is the same for the same request.
func (t task) fingerprint() (sum [sha256.Size]byte) {
	h := sha256.New()
	all := t.events
	if all == nil {
		all = []*transport.Message{t.m}
	}
	for _, m := range all {
		for _, s := range []string{m.Topic, m.Header.Get(transport.HeaderContentType)} {
			h.Write([]byte(itoa(int64(len(s)))))
			h.Write([]byte{0})
			h.Write([]byte(s))
		}
		h.Write([]byte(itoa(int64(len(m.Body)))))
		h.Write([]byte{0})
		h.Write(m.Body)
	}
	h.Sum(sum[:0])
	return sum
}

// finish stores the outcome of a claimed request. A failure that may go better the next time is not kept.
func (c *claim) finish(x *exchange, m, reply *transport.Message, err error) {
	if transport.Retryable(err) {
		c.release(x)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), storeWait)
	defer cancel()
	r := x.record(reply, err)
	r.Fingerprint = c.print
	if err := x.s.o.Keys.Set(ctx, c.key, r, x.s.o.KeyAge); err != nil {
		x.s.report(m, &storeError{err})
	}
}

// release lets the next request with the key be handled. c may be nil.
func (c *claim) release(x *exchange) {
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), storeWait)
	defer cancel()
	if err := x.s.o.Keys.Delete(ctx, c.key); err != nil {
		x.s.report(nil, &storeError{err})
	}
}

// record returns an outcome as it is stored: with the status and the Location that the route gives it.
func (x *exchange) record(reply *transport.Message, err error) *Record {
	r := &Record{Owner: x.peer.ID, Done: true}
	if err != nil {
		r.Err = x.public(err)
		return r
	}
	if reply == nil {
		reply = &transport.Message{}
	}
	status, location := x.route.outcome(reply)
	r.Reply = reply.Clone()
	r.Reply.Header.Set(wire.HeaderStatus, itoa(int64(status)))
	if location != "" {
		r.Reply.Header.Set(wire.HeaderLocation, location)
	}
	return r
}
