package wire

import (
	"net/http"
	"net/textproto"
	"strings"

	"github.com/intermodal-go/intermodal/transport"
)

// eventFields are the HTTP fields that become headers of an event without being asked for.
var eventFields = []string{transport.HeaderContentType, transport.HeaderIdempotencyKey, transport.HeaderTraceParent,
	transport.HeaderTraceState, transport.HeaderBaggage}

// SetEvent puts all of m but its body, which is the HTTP body, into the fields of an HTTP message: the binary mode of the
// CloudEvents HTTP binding. It is as in [AppendEvent], with these differences: the attributes are the fields ce-<name>,
// percent-encoded (section 3.1.3.2 of the binding); content-type, idempotency-key, traceparent, tracestate and baggage
// are fields of their own where [SetHeader] would make them so. [ReadEvents] gets m back exactly. Fields of h that m
// does not need stay.
func SetEvent(h http.Header, m *transport.Message) {
	id := m.ID
	if id == "" {
		id = transport.NewID()
	}
	h["Ce-Specversion"] = []string{"1.0"}
	h["Ce-Id"] = []string{percentEncode(id)}
	source := string(appendSource(nil, m.Topic))
	own, isOwn := ownSource(m, []byte(source))
	if isOwn {
		source = own
	}
	h["Ce-Source"] = []string{percentEncode(source)}
	h["Ce-Type"] = []string{percentEncode(m.Topic)}
	var list []byte
	keys := make([]string, 0, 16)
	for _, k := range sortedKeys(keys, m.Header) {
		vs := m.Header[k]
		if strings.HasPrefix(k, PrefixAttribute) {
			switch name := attribute(k, vs); {
			case name == "source" && isOwn:
				continue
			case name != "" && name != "source":
				h[textproto.CanonicalMIMEHeaderKey(k)] = []string{percentEncode(vs[0])}
				continue
			}
		} else if isEventField(k) && !isEventType(vs[0]) && setField(h, k, vs) {
			continue
		}
		list = appendPairs(list, 0, k, vs)
	}
	delete(h, "Ce-Intermodalheader")
	if list != nil {
		h["Ce-Intermodalheader"] = []string{percentEncode(string(list))}
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil
	}
}

func isEventField(key string) bool {
	for _, k := range eventFields {
		if k == key {
			return true
		}
	}
	return false
}

// isEventType reports whether a content-type is one of those that make an HTTP message a CloudEvent in structured or
// batched mode (section 3 of the HTTP binding). A body of that type would be mistaken for the event.
func isEventType(contentType string) bool {
	const prefix = "application/cloudevents"
	return len(contentType) >= len(prefix) && strings.EqualFold(contentType[:len(prefix)], prefix)
}

// ReadEvents returns the events in an HTTP message. Its Content-Type says how they are in it:
//
//   - [ContentTypeEvent]: one event, the body, see [ParseEvent].
//   - [ContentTypeEvents]: the events in the body, see [ParseEvents]; it may be none.
//   - else one event with that body, in binary mode with the fields of [SetEvent]. Without ce-specversion it is a plain
//     HTTP message: then none of ce-id, ce-source and ce-type is needed but for a topic, from EventOptions.Topic or ce-type.
//
// From the fields an event takes content-type, idempotency-key, traceparent, tracestate, baggage, and what
// [EventOptions].Headers lists, as far as the event itself has none of that name; in a batch all take them but for
// content-type and idempotency-key. All ce- fields become headers of a single binary event. No other field gets into a
// header: see [PeerHeader] for Peer. In plain requests ce-intermodalheader can be written by hand, such as
// "ttl=5000,priority=7".
//
// body must not be changed any more. Errors are those of ParseEvent, and CodeInvalidArgument with status 415 for another
// form of CloudEvents, such as one in Avro.
func ReadEvents(h http.Header, body []byte, o *EventOptions) ([]*transport.Message, error) {
	opt := options(o)
	contentType := h.Get("Content-Type")
	if !isEventType(contentType) {
		m, err := readBinary(h, body, opt)
		if err != nil {
			return nil, err
		}
		return []*transport.Message{m}, nil
	}
	media, _, _ := strings.Cut(contentType, ";")
	switch media = strings.ToLower(trim(media)); media {
	case ContentTypeEvent:
		m, err := ParseEvent(body, &opt)
		if err == nil {
			err = addFields(m, h, opt, false)
		}
		if err != nil {
			return nil, err
		}
		return []*transport.Message{m}, nil
	case ContentTypeEvents:
		ms, err := ParseEvents(body, &opt)
		if err != nil {
			return nil, err
		}
		for _, m := range ms {
			if err := addFields(m, h, opt, true); err != nil {
				return nil, err
			}
		}
		return ms, nil
	}
	return nil, &transport.Error{Code: transport.CodeInvalidArgument, Message: "this form of CloudEvents is not supported",
		Header: transport.Header{HeaderStatus: {"415"}, "accept": {ContentTypeEvent + ", " + ContentTypeEvents}}}
}

func readBinary(h http.Header, body []byte, o EventOptions) (*transport.Message, error) {
	e := &event{m: transport.Message{Header: transport.Header{}, Body: body}}
	for name, lines := range h {
		k := strings.ToLower(name)
		if name, ok := strings.CutPrefix(k, PrefixAttribute); ok && name != "" {
			for _, v := range lines {
				e.attribute(name, percentDecode(v))
			}
		} else if legalKey(k) && takesField(k, o) && len(lines) > 0 {
			e.m.Header[k] = fieldValues(k, lines)
		}
	}
	if e.specVersion != "" {
		if err := e.check(); err != nil {
			return nil, err
		}
	}
	return e.finish(o)
}

// takesField reports whether an event takes the HTTP field of that name, in lower case.
func takesField(key string, o EventOptions) bool {
	if isEventField(key) {
		return true
	}
	for _, k := range o.Headers {
		if k == key {
			return !PeerField(key)
		}
	}
	return false
}

// addFields adds what the fields of an HTTP message say about an event in its body.
func addFields(m *transport.Message, h http.Header, o EventOptions, batch bool) error {
	added := false
	for name, lines := range h {
		k := strings.ToLower(name)
		if k == transport.HeaderContentType || batch && k == transport.HeaderIdempotencyKey || !legalKey(k) ||
			!takesField(k, o) || len(lines) == 0 || len(m.Header[k]) > 0 {
			continue
		}
		if m.Header == nil {
			m.Header = transport.Header{}
		}
		m.Header[k], added = fieldValues(k, lines), true
	}
	if added {
		return m.Check(o.MaxBytes)
	}
	return nil
}

// percentEncode is section 3.1.3.2 of the CloudEvents HTTP binding.
func percentEncode(v string) string {
	n := 0
	for i := 0; i < len(v); i++ {
		if !literal(v[i]) {
			n++
		}
	}
	if n == 0 {
		return v
	}
	b := make([]byte, 0, len(v)+2*n)
	for i := 0; i < len(v); i++ {
		if c := v[i]; literal(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(b)
}

func literal(c byte) bool { return '!' <= c && c <= '~' && c != '"' && c != '%' }

// percentDecode undoes percentEncode. As the binding wants it, it takes quoted strings too. What is no escape stands for
// itself, and what does not come out as UTF-8 is read as Latin-1.
func percentDecode(v string) string {
	v = unquoteField(v)
	if strings.IndexByte(v, '%') < 0 {
		return latin1(v)
	}
	b := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		if c := v[i]; c == '%' && i+2 < len(v) {
			if hi, lo := unhex(v[i+1]), unhex(v[i+2]); hi >= 0 && lo >= 0 {
				b = append(b, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		b = append(b, v[i])
	}
	return latin1(string(b))
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
