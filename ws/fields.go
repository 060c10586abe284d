package ws

import (
	"math"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// fields are the members of meta, and of the params and results of our own methods. What is absent is zero.
type fields struct {
	sub, stream, tag, n, missed uint64
	credit, buffer, maxAttempts uint64
	timeout, in, retry, expires time.Duration
	attempt                     int // 1 if absent
	hasCredit, again            bool
	form                        form
	topic, cursor               string
	group, from, deadLetter     string
	overflow                    transport.Policy
	require                     transport.Feature
	id, header, data, err       []byte // raw
}

// parse reads an object; nil has no members.
func (f *fields) parse(raw []byte) error {
	f.attempt = 1
	if raw == nil {
		return nil
	}
	if raw[0] != '{' {
		return transport.Errorf(transport.CodeInvalidArgument, "the params are not an object")
	}
	for w := walk(raw, 0); w.next(); {
		if err := f.set(w.name, w.value); err != nil {
			return err
		}
	}
	return nil
}

func (f *fields) set(name, v []byte) (err error) {
	if v[0] == 'n' && string(name) != "data" {
		return nil // null is absent
	}
	number := func(dst *uint64) {
		n, ok := parseUint(v)
		if *dst = n; !ok {
			err = transport.Errorf(transport.CodeInvalidArgument, "the member %q is not a whole number", name)
		}
	}
	millis := func(dst *time.Duration) {
		var n uint64
		number(&n)
		*dst = time.Duration(min(n, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
	}
	text := func(dst *string) {
		if !isString(v) {
			err = transport.Errorf(transport.CodeInvalidArgument, "the member %q is not a string", name)
			return
		}
		*dst = unquote(v)
	}
	switch string(name) {
	case "sub":
		number(&f.sub)
	case "cursor":
		text(&f.cursor)
	case "id":
		f.id = v
	case "header":
		f.header = v
	case "data":
		f.data = v
	case "tag":
		number(&f.tag)
	case "attempt":
		var n uint64
		number(&n)
		f.attempt = int(min(n, math.MaxInt32))
	case "missed":
		number(&f.missed)
	case "stream":
		number(&f.stream)
	case "n":
		number(&f.n)
	case "topic":
		text(&f.topic)
	case "timeout":
		millis(&f.timeout)
	case "body":
		var s string
		text(&s)
		for i, name := range formNames {
			if s == name {
				f.form = form(i)
				return err
			}
		}
		return transport.Errorf(transport.CodeInvalidArgument, "there is no body %q", s)
	case "error":
		f.err = v
	case "again":
		f.again = string(v) == "true"
	case "credit":
		number(&f.credit)
		f.hasCredit = true
	case "buffer":
		number(&f.buffer)
	case "group":
		if text(&f.group); err == nil && f.group == "" { // computed wrongly: it must not become a broadcast
			err = transport.Errorf(transport.CodeInvalidArgument, "the group has no name")
		}
	case "from":
		text(&f.from)
	case "deadLetter":
		text(&f.deadLetter)
	case "maxAttempts":
		number(&f.maxAttempts)
	case "overflow":
		err = f.setOverflow(v)
	case "require":
		err = f.setRequire(v)
	case "in":
		millis(&f.in)
	case "retry":
		millis(&f.retry)
	case "expires":
		millis(&f.expires)
	}
	return err
}

func (f *fields) setOverflow(v []byte) error {
	for p := transport.Block; p <= transport.Disconnect; p++ {
		if isString(v) && unquote(v) == p.String() {
			f.overflow = p
			return nil
		}
	}
	return transport.Errorf(transport.CodeInvalidArgument, "there is no such overflow policy")
}

// features are the names of features, by their bits.
var features = [...]string{"at-least-once", "ordered", "replay", "groups", "dead-letters", "delays"}

func (f *fields) setRequire(v []byte) error {
	if v[0] != '[' {
		return transport.Errorf(transport.CodeInvalidArgument, "require is not an array of names")
	}
next:
	for w := walk(v, 0); w.next(); {
		if !isString(w.value) {
			return transport.Errorf(transport.CodeInvalidArgument, "require is not an array of names")
		}
		name := unquote(w.value)
		for i, known := range features {
			if name == known {
				f.require |= 1 << i
				continue next
			}
		}
		return transport.Errorf(transport.CodeUnimplemented, "an unknown feature is required")
	}
	return nil
}

// options returns those of a subscription.
func (f *fields) options() (o transport.SubscribeOptions, err error) {
	if f.maxAttempts > math.MaxInt32 || f.buffer > transport.MaxBuffer {
		return o, transport.Errorf(transport.CodeInvalidArgument, "an option is out of range")
	}
	return transport.SubscribeOptions{Group: f.group, From: f.from, DeadLetter: f.deadLetter,
		MaxAttempts: int(f.maxAttempts), Buffer: int(f.buffer), Overflow: f.overflow, Require: f.require}, nil
}

// appendOptions appends what options reads.
func appendOptions(dst []byte, o transport.SubscribeOptions) []byte {
	dst = appendText(dst, "group", o.Group)
	dst = appendText(dst, "from", o.From)
	dst = appendText(dst, "deadLetter", o.DeadLetter)
	dst = appendUint(dst, "maxAttempts", uint64(o.MaxAttempts))
	dst = appendUint(dst, "buffer", uint64(o.Buffer))
	if o.Overflow != 0 {
		dst = appendText(dst, "overflow", o.Overflow.String())
	}
	if o.Require != 0 {
		dst = append(member(dst, "require"), '[')
		for i, name := range features {
			if o.Require&(1<<i) == 0 {
				continue
			}
			if dst[len(dst)-1] != '[' {
				dst = append(dst, ',')
			}
			dst = appendString(dst, name)
		}
		dst = append(dst, ']')
	}
	return dst
}

// message returns the message in f, whose body is raw; params says that it is the params of a topic's method.
func (f *fields) message(m *transport.Message, topic string, raw []byte, params bool, maxBytes int) (err error) {
	m.Topic = topic
	if f.id != nil {
		if !isString(f.id) {
			return transport.Errorf(transport.CodeInvalidArgument, "the id of the message is not a string")
		}
		m.ID = unquote(f.id)
	}
	if f.header != nil {
		if m.Header, err = wire.ParseJSONHeader(f.header); err != nil {
			return err
		}
	}
	if params && f.form != formJSON && raw != nil {
		w := walk(raw, 0)
		if raw[0] != '[' || !w.next() {
			return transport.Errorf(transport.CodeInvalidArgument, "the params are not an array of one string")
		}
		raw = w.value
	}
	if m.Body, err = parseBody(raw, f.form); err != nil {
		return err
	}
	return m.Check(maxBytes)
}
