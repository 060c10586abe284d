package wire

import (
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/intermodal-go/intermodal/transport"
)

// Media types of CloudEvents 1.0: one event, and a batch.
const (
	ContentTypeEvent  = "application/cloudevents+json"
	ContentTypeEvents = "application/cloudevents-batch+json"
)

// DefaultMaxEvents is the default limit of events in a batch.
const DefaultMaxEvents = 1000

// AppendEvent appends m as an event in the JSON format of CloudEvents 1.0. [ParseEvent] gets m back exactly.
//
//	{"specversion":"1.0","id":"17","source":"/topics/orders.placed","type":"orders.placed",
//	 "datacontenttype":"application/json","intermodalheader":"x-tenant=acme","data":{"order":7}}
//
// id is m.ID, or a new one if that is empty; type is m.Topic. A header ce-<name> is the attribute of that name (subject,
// time, dataschema, extensions), if <name> matches [a-z0-9]{1,20} and it has a single value that the attribute may have.
// source is the header ce-source, else "/topics/" and the topic, so that source and id together name the message as
// CloudEvents wants it. content-type is datacontenttype; traceparent and tracestate are the attributes of the
// distributed tracing extension. All other headers are in the attribute [AttributeHeader], as in [AppendHeaderList].
//
// The body is the member data, appended as it is, if content-type says JSON and it is valid JSON in UTF-8 without space
// around it; text in UTF-8 under a text type is a JSON string; all else is in data_base64; an empty body is left out.
//
// m must have passed Message.Check and CheckTopic.
func AppendEvent(dst []byte, m *transport.Message) []byte {
	id := m.ID
	if id == "" {
		id = transport.NewID()
	}
	dst = append(dst, `{"specversion":"1.0","id":`...)
	dst = appendString(dst, id)
	dst = append(dst, `,"source":`...)
	var buf [64]byte
	source := appendSource(buf[:0], m.Topic)
	if s, ok := ownSource(m, source); ok {
		dst = appendString(dst, s)
	} else {
		dst = appendString(dst, source)
	}
	dst = append(dst, `,"type":`...)
	dst = appendString(dst, m.Topic)
	contentType := ""
	keys := make([]string, 0, 16)
	keys = sortedKeys(keys, m.Header)
	rest := 0 // keys[:rest] are those of AttributeHeader
	for _, k := range keys {
		name := attribute(k, m.Header[k])
		switch name {
		case "":
			keys[rest] = k
			rest++
			continue
		case "source":
			if _, ok := ownSource(m, source); !ok {
				keys[rest] = k
				rest++
			}
			continue
		case "datacontenttype":
			contentType = m.Header[k][0]
		}
		dst = append(dst, ',', '"')
		dst = append(dst, name...)
		dst = append(dst, '"', ':')
		dst = appendString(dst, m.Header[k][0])
	}
	if rest > 0 {
		dst = append(dst, `,"intermodalheader":"`...)
		start := len(dst)
		for _, k := range keys[:rest] {
			dst = appendPairs(dst, start, k, m.Header[k]) // needs no escaping
		}
		dst = append(dst, '"')
	}
	return append(appendData(dst, contentType, m.Body), '}')
}

// AppendEvents appends ms as a JSON batch of CloudEvents 1.0, an array of what [AppendEvent] writes.
func AppendEvents(dst []byte, ms ...*transport.Message) []byte {
	dst = append(dst, '[')
	for i, m := range ms {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendEvent(dst, m)
	}
	return append(dst, ']')
}

// appendSource appends the source of events of a topic: a relative reference with the topic as one path segment.
func appendSource(dst []byte, topic string) []byte {
	dst = append(dst, "/topics/"...)
	for i := 0; i < len(topic); i++ {
		c := topic[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return dst
}

const upperHex = "0123456789ABCDEF"

// ownSource returns the header ce-source if it can be the event's source. One that equals the topic's source cannot: a
// reader would take it for the absence of the header.
func ownSource(m *transport.Message, topicSource []byte) (string, bool) {
	const key = "ce-source"
	if vs := m.Header[key]; attribute(key, vs) == "source" && vs[0] != string(topicSource) {
		return vs[0], true
	}
	return "", false
}

// attribute returns the name of the CloudEvents attribute that the header key with these values is, "" if it is none.
func attribute(key string, values []string) string {
	if len(values) != 1 {
		return ""
	}
	v := values[0]
	name, ok := strings.CutPrefix(key, PrefixAttribute)
	if !ok {
		switch key {
		case transport.HeaderContentType:
			if isMediaType(v) {
				return "datacontenttype"
			}
		case transport.HeaderTraceParent, transport.HeaderTraceState:
			if isAttributeText(v) {
				return key
			}
		}
		return ""
	}
	if name == "" || len(name) > 20 || !isAttributeText(v) {
		return ""
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9') {
			return ""
		}
	}
	switch name {
	case "specversion", "id", "type", "datacontenttype", "data", AttributeHeader, transport.HeaderTraceParent,
		transport.HeaderTraceState: // these say something else
		return ""
	case "time":
		if _, err := time.Parse(time.RFC3339Nano, v); err != nil {
			return ""
		}
	case "source", "dataschema":
		if u, err := url.Parse(v); err != nil || name == "dataschema" && !u.IsAbs() {
			return ""
		}
	}
	return name
}

// isAttributeText reports whether v is a String of the CloudEvents type system, and not empty: Unicode without control
// and non-characters.
func isAttributeText(v string) bool {
	if v == "" || !utf8.ValidString(v) {
		return false
	}
	for _, r := range v {
		if r < 0x20 || 0x7f <= r && r < 0xa0 || 0xfdd0 <= r && r <= 0xfdef || r&0xfffe == 0xfffe {
			return false
		}
	}
	return true
}

func isMediaType(v string) bool {
	if v == "application/json" {
		return true
	}
	media, _, err := mime.ParseMediaType(v)
	return err == nil && strings.Contains(media, "/") && isAttributeText(v)
}

// dataForm is how the member data holds a body.
type dataForm uint8

const (
	dataBinary dataForm = iota // not at all: data_base64
	dataJSON                   // as it is
	dataText                   // as a JSON string
)

// formOf returns the form for a content-type.
func formOf(contentType string) dataForm {
	media, params, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(trim(media))
	switch {
	case strings.HasSuffix(media, "/json"), strings.HasSuffix(media, "+json"):
		return dataJSON
	case !strings.HasPrefix(media, "text/"):
	case trim(params) == "", strings.EqualFold(trim(params), "charset=utf-8"):
		return dataText
	}
	return dataBinary
}

func appendData(dst []byte, contentType string, body []byte) []byte {
	if len(body) == 0 {
		return dst
	}
	form := formOf(contentType)
	switch {
	case form == dataJSON && !isSpace(body[0]) && !isSpace(body[len(body)-1]) && utf8.Valid(body) && json.Valid(body):
		return append(append(dst, `,"data":`...), body...)
	case form == dataText && utf8.Valid(body):
		return appendString(append(dst, `,"data":`...), body)
	}
	dst = append(dst, `,"data_base64":"`...)
	return append(base64.StdEncoding.AppendEncode(dst, body), '"')
}

// EventOptions are the options of the functions that decode events. Nil is valid.
type EventOptions struct {
	// Topic is the topic that the events were sent to. An event of another type keeps that as the header ce-type.
	// Defaults to the type of each event.
	Topic string
	// Headers are the names, in lower case, of HTTP fields that become headers of the same name, beside those that
	// [ReadEvents] names. A [PeerField] cannot.
	Headers []string
	// MaxBytes bounds the Size of each message. Defaults to 1 MiB.
	MaxBytes int
	// MaxEvents bounds the number of events in a batch. Defaults to 1000.
	MaxEvents int
}

// ParseEvent reads an event in the JSON format, ours or anybody's. What [AppendEvent] says about attributes holds in
// reverse, and: an attribute without another place is the header ce-<name>, in lower case, where a number or a boolean
// is its text. data without a datacontenttype has the content-type application/json, as CloudEvents has it. An attribute
// whose name is no legal key is dropped. The body is part of data, which must not be changed any more.
//
// The message is legal, see Message.Check and CheckTopic. Errors are CodeInvalidArgument for what is no CloudEvent 1.0,
// or one whose id or type is no legal ID or topic, and CodeResourceExhausted for a message that is too large.
func ParseEvent(data []byte, o *EventOptions) (*transport.Message, error) {
	if err := checkJSON(data, '{'); err != nil {
		return nil, err
	}
	return parseEvent(trimSpace(data), options(o))
}

// ParseEvents reads a JSON batch, each event as [ParseEvent] does. One bad event fails the batch, as do too many, with
// CodeResourceExhausted.
func ParseEvents(data []byte, o *EventOptions) ([]*transport.Message, error) {
	if err := checkJSON(data, '['); err != nil {
		return nil, err
	}
	opt := options(o)
	n := 0
	for range elements(trimSpace(data)) {
		if n++; n > opt.MaxEvents {
			return nil, transport.Errorf(transport.CodeResourceExhausted, "the batch has more than %d events", opt.MaxEvents)
		}
	}
	ms := make([]*transport.Message, 0, n)
	for raw := range elements(trimSpace(data)) {
		m, err := parseEvent(raw, opt)
		if err != nil {
			return nil, transport.Wrap(err, transport.CodeOf(err), "event %d of the batch: %s", len(ms),
				transport.Public(err).Message)
		}
		ms = append(ms, m)
	}
	return ms, nil
}

func options(o *EventOptions) EventOptions {
	opt := EventOptions{}
	if o != nil {
		opt = *o
	}
	if opt.MaxEvents <= 0 {
		opt.MaxEvents = DefaultMaxEvents
	}
	return opt
}

// checkJSON reports whether data is a JSON text that begins with open.
func checkJSON(data []byte, open byte) error {
	if t := trimSpace(data); len(t) == 0 || t[0] != open || !utf8.Valid(t) || !json.Valid(t) {
		return transport.Errorf(transport.CodeInvalidArgument, "the body is not a JSON text that begins with %q", open)
	}
	return nil
}

func badEvent(what string) error {
	return transport.Errorf(transport.CodeInvalidArgument, "the CloudEvent %s", what)
}

// event is a message on its way in.
type event struct {
	m                         transport.Message
	specVersion, source, kind string
	list                      []string // AttributeHeader
}

// attribute takes an attribute other than datacontenttype, which depends on the format.
func (e *event) attribute(name, value string) {
	switch name {
	case "specversion":
		e.specVersion = value
	case "id":
		e.m.ID = value
	case "source":
		e.source = value
	case "type":
		e.kind = value
	case AttributeHeader:
		e.list = append(e.list, value)
	default:
		e.extension(name, value)
	}
}

// extension takes an attribute as a header.
func (e *event) extension(name, value string) {
	if key := PrefixAttribute + name; legalKey(key) {
		e.m.Header[key] = append(e.m.Header[key], value)
	}
}

// traceKeys are the attributes of the distributed tracing extension, which have headers without a prefix.
var traceKeys = [...]string{transport.HeaderTraceParent, transport.HeaderTraceState}

// finish makes the message, once all attributes are there.
func (e *event) finish(o EventOptions) (*transport.Message, error) {
	m := &e.m
	for _, k := range traceKeys {
		if vs := m.Header[PrefixAttribute+k]; len(vs) > 0 && len(m.Header[k]) == 0 {
			m.Header[k] = vs
			delete(m.Header, PrefixAttribute+k)
		}
	}
	m.Topic = o.Topic
	if m.Topic == "" {
		m.Topic = e.kind
	} else if e.kind != "" && e.kind != m.Topic {
		m.Header["ce-type"] = []string{e.kind}
	}
	if e.source != "" {
		var buf [64]byte
		if e.source != string(appendSource(buf[:0], m.Topic)) {
			m.Header["ce-source"] = []string{e.source}
		}
	}
	if err := parseLists(m.Header, e.list); err != nil {
		return nil, err
	}
	if len(m.Header) == 0 {
		m.Header = nil
	}
	if err := transport.CheckTopic(m.Topic); err != nil {
		return nil, err
	}
	if err := m.Check(o.MaxBytes); err != nil {
		return nil, err
	}
	return m, nil
}

// check reports whether the event has what CloudEvents requires.
func (e *event) check() error {
	switch {
	case e.specVersion != "1.0":
		return badEvent("has another specversion than 1.0")
	case e.m.ID == "":
		return badEvent("has no id")
	case e.source == "":
		return badEvent("has no source")
	case e.kind == "":
		return badEvent("has no type")
	}
	return nil
}

func parseEvent(b []byte, o EventOptions) (*transport.Message, error) {
	if b[0] != '{' {
		return nil, badEvent("is not a JSON object")
	}
	e := &event{m: transport.Message{Header: transport.Header{}}}
	var data, inBase64 []byte
	for name, raw := range members(b) {
		switch string(name) {
		case "data":
			data = raw
			continue
		case "data_base64":
			inBase64 = raw
			continue
		}
		v, ok := scalar(raw)
		if !ok {
			continue
		}
		switch string(name) {
		case "datacontenttype":
			if v != "" {
				e.m.Header[transport.HeaderContentType] = []string{v}
			}
		case "specversion", "id", "source", "type", AttributeHeader:
			if raw[0] != '"' {
				return nil, badEvent("has an attribute " + string(name) + " that is no string")
			}
			e.attribute(string(name), v)
		default:
			e.extension(strings.ToLower(string(name)), v)
		}
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	var err error
	switch {
	case inBase64 != nil && inBase64[0] != 'n':
		if data != nil && data[0] != 'n' {
			return nil, badEvent("has data and data_base64")
		}
		if inBase64[0] != '"' {
			return nil, badEvent("has data_base64 that is no string")
		}
		if e.m.Body, err = base64.StdEncoding.DecodeString(unquote(inBase64)); err != nil {
			return nil, badEvent("has data_base64 that is no base64")
		}
	case data != nil:
		contentType := e.m.Header[transport.HeaderContentType]
		if contentType == nil {
			contentType = []string{"application/json"}
			e.m.Header[transport.HeaderContentType] = contentType
		}
		if e.m.Body = data; data[0] == '"' && formOf(contentType[0]) != dataJSON {
			e.m.Body = []byte(unquote(data))
		}
	}
	return e.finish(o)
}
