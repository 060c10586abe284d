package amqpx

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// Keys of the headers table that are ours alone. They never become keys of a Message.
const (
	ownPrefix  = "x-intermodal-"
	ownAttempt = ownPrefix + "attempt" // number of the delivery to come, from 2 on: an integer
	ownTopic   = ownPrefix + "topic"   // the topic of a delayed message
	ownTime    = ownPrefix + "time"    // when a message with a ttl was published: milliseconds since 1970
	ownMark    = ownPrefix + "mark"    // it only marks a place in a stream
	ownList    = ownPrefix + "header"  // what the table cannot carry, as wire.AppendHeaderList writes it
)

const (
	maxShort  = 255            // longest text property (AMQP 0-9-1, section 4.2.5.3)
	maxArray  = 1000           // values in an array; the library refuses to read more than 8192
	maxExpiry = math.MaxUint32 // longest expiration in milliseconds that RabbitMQ takes
)

// The keys that have a property of their own.
const (
	headerEncoding = "content-encoding"
	headerType     = "type"
	headerAppID    = "app-id"
)

// encode returns the publishing for m, which has an ID. It is persistent. What has a property of its own sits there;
// all else is in the headers table: a string, an array of them for several values, a byte array under a -bin key.
//
// Streams drop arrays, and some names belong to the broker. So keys with several values stand in one list of ours as
// well, and keys of such a name there alone.
//
// now is the time of publication. The error is CodeInvalidArgument, for a ttl that is none.
func encode(m *transport.Message, now time.Time) (amqp.Publishing, error) {
	p := amqp.Publishing{MessageId: m.ID, DeliveryMode: amqp.Persistent, Timestamp: now, Body: m.Body}
	if len(m.Header) == 0 {
		return p, nil
	}
	var list transport.Header
	for key, values := range m.Header {
		if len(values) == 0 {
			continue
		}
		if len(values) == 1 && setProperty(&p, key, values[0]) {
			continue
		}
		if p.Headers == nil {
			p.Headers = make(amqp.Table, len(m.Header)+1)
		}
		reserved := brokerKey(key)
		if reserved || len(values) > 1 {
			if list == nil {
				list = transport.Header{}
			}
			list[key] = values
		}
		if !reserved && len(values) <= maxArray {
			p.Headers[key] = tableValue(key, values)
		}
	}
	if list != nil {
		p.Headers[ownList] = string(wire.AppendHeaderList(nil, list))
	}
	ttl, err := m.Header.Millis(transport.HeaderTTL)
	if err != nil {
		return p, err
	}
	if ttl > 0 {
		if p.Headers == nil {
			p.Headers = make(amqp.Table, 1)
		}
		p.Headers[ownTime] = now.UnixMilli()
	}
	return p, nil
}

// setProperty puts value into the property for key, if there is one that can hold it so that it comes back the same.
func setProperty(p *amqp.Publishing, key, value string) bool {
	if value == "" || len(value) > maxShort {
		return false
	}
	switch key {
	case transport.HeaderContentType:
		p.ContentType = value
	case headerEncoding:
		p.ContentEncoding = value
	case transport.HeaderCorrelationID:
		p.CorrelationId = value
	case transport.HeaderReplyTo:
		if strings.HasPrefix(value, directReply) {
			return false // the broker would take it for its own, and close the channel
		}
		p.ReplyTo = value
	case transport.HeaderPriority:
		if len(value) != 1 || value < "1" || value > "9" {
			return false
		}
		p.Priority = value[0] - '0'
	case transport.HeaderTTL:
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil || n == 0 || n > maxExpiry || value[0] == '0' {
			return false
		}
		p.Expiration = value
	default:
		return false
	}
	return true
}

// brokerKey reports whether the broker, one of its plugins or this package gives key a meaning in the headers table.
func brokerKey(key string) bool {
	rest, ok := strings.CutPrefix(key, "x-")
	if !ok {
		return false
	}
	switch rest {
	case "death", "delivery-count", "acquired-count", "stream-offset", "exchange", "routing-key", "delay", "match", "cc",
		"received-from", "shovelled", "stream-filter-value":
		return true
	}
	return strings.HasPrefix(key, ownPrefix) || strings.HasPrefix(rest, "first-death-") ||
		strings.HasPrefix(rest, "last-death-") || strings.HasPrefix(rest, "opt-")
}

func tableValue(key string, values []string) any {
	one := func(v string) any {
		if strings.HasSuffix(key, "-bin") {
			return []byte(v)
		}
		return v
	}
	if len(values) == 1 {
		return one(values[0])
	}
	array := make([]any, len(values))
	for i, v := range values {
		array[i] = one(v)
	}
	return array
}

// decode returns the message in d, as one of topic. Body is shared with d. It takes what any program may have sent:
//
//   - Values of other types become text: numbers, booleans, times as RFC 3339, tables as JSON; bytes that are not UTF-8
//     become base64, text that is not is read as Latin-1. An array gives several values, nested ones are flattened; one
//     without a value is absent.
//   - Keys are lower-cased. What is no legal key even then is dropped, and so is what the broker has put there.
//   - Of the properties type and app-id become headers of that name.
//   - An illegal message-id is replaced by a hash of it. Without one, a message in a stream gets a hash of its offset
//     and content; any other one gets a new ID for each delivery, because two equal messages must not be taken for one.
//
// The error is CodeResourceExhausted, for a header that is larger than transport.DefaultMaxHeaderBytes.
func decode(d *amqp.Delivery, topic string) (transport.Message, error) {
	m := transport.Message{ID: d.MessageId, Topic: topic, Body: d.Body}
	if m.ID == "" || transport.CheckID(m.ID) != nil {
		m.ID = foreignID(d)
	}
	var odd []string // keys that are not legal as they are
	for key, v := range d.Headers {
		if plainKey(key) {
			take(&m, key, v)
		} else {
			odd = append(odd, key)
		}
	}
	slices.Sort(odd)
	for _, key := range odd {
		if k := strings.ToLower(key); plainKey(k) && m.Header[k] == nil {
			take(&m, k, d.Headers[key])
		}
	}
	property(&m, transport.HeaderContentType, d.ContentType)
	property(&m, headerEncoding, d.ContentEncoding)
	property(&m, transport.HeaderCorrelationID, d.CorrelationId)
	property(&m, transport.HeaderReplyTo, d.ReplyTo)
	property(&m, transport.HeaderTTL, d.Expiration)
	if !strings.HasPrefix(d.Type, "intermodal.") {
		property(&m, headerType, d.Type)
	}
	property(&m, headerAppID, d.AppId)
	if d.Priority > 0 {
		property(&m, transport.HeaderPriority, strconv.Itoa(int(d.Priority)))
	}
	if list, ok := d.Headers[ownList].(string); ok {
		if more, err := wire.ParseHeaderList(list); err == nil {
			for key, values := range more {
				put(&m, key, values)
			}
		}
	}
	return m, m.Header.Check()
}

// put sets a key of m's header, which most messages do not have.
func put(m *transport.Message, key string, values []string) {
	if m.Header == nil {
		m.Header = make(transport.Header, 4)
	}
	m.Header[key] = values
}

// take adds an entry of the headers table to m, unless it is the broker's or ours.
func take(m *transport.Message, key string, v any) {
	if brokerKey(key) {
		return
	}
	if values := appendText(nil, key, v); len(values) > 0 {
		put(m, key, values)
	}
}

// property adds a property to m, unless the table has that key.
func property(m *transport.Message, key, value string) {
	if value != "" && m.Header[key] == nil {
		put(m, key, []string{text(value)})
	}
}

// foreignID returns the ID of a message without a legal one.
func foreignID(d *amqp.Delivery) string {
	hash := sha256.New()
	if d.MessageId != "" {
		hash.Write([]byte(d.MessageId))
	} else if offset, ok := d.Headers["x-stream-offset"].(int64); ok {
		fmt.Fprintf(hash, "%d %q %q %d ", offset, d.Exchange, d.RoutingKey, d.Timestamp.Unix())
		hash.Write(d.Body)
	} else {
		return transport.NewID()
	}
	return "h" + base64.RawURLEncoding.EncodeToString(hash.Sum(nil)[:18])
}

// plainKey is the rule of transport.Header.
func plainKey(k string) bool {
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

// appendText appends the values that v stands for under key.
func appendText(values []string, key string, v any) []string {
	switch v := v.(type) {
	case nil:
		return values
	case []any:
		for _, e := range v {
			values = appendText(values, key, e)
		}
		return values
	case string:
		if strings.HasSuffix(key, "-bin") {
			return append(values, v)
		}
		return append(values, text(v))
	case []byte:
		switch {
		case strings.HasSuffix(key, "-bin") || utf8.Valid(v):
			return append(values, string(v))
		}
		return append(values, base64.StdEncoding.EncodeToString(v))
	case amqp.Table:
		b, err := json.Marshal(readable(v))
		if err != nil { // cannot be: readable has only what JSON has
			return values
		}
		return append(values, string(b))
	case time.Time, float32, float64, amqp.Decimal:
		return append(values, fmt.Sprint(readable(v)))
	}
	return append(values, fmt.Sprint(v))
}

// readable returns v in types that JSON has.
func readable(v any) any {
	switch v := v.(type) {
	case amqp.Table:
		m := make(map[string]any, len(v))
		for key, e := range v {
			m[text(key)] = readable(e)
		}
		return m
	case []any:
		a := make([]any, len(v))
		for i, e := range v {
			a[i] = readable(e)
		}
		return a
	case []byte:
		if utf8.Valid(v) {
			return string(v)
		}
	case string:
		return text(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339)
	case amqp.Decimal:
		return decimal(v)
	case float32:
		return readable(float64(v))
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64) // text: JSON has no NaN
	}
	return v
}

// decimal returns the digits of d with the point where its scale says.
func decimal(d amqp.Decimal) string {
	digits := strconv.FormatInt(int64(d.Value), 10)
	sign := ""
	if d.Value < 0 {
		sign, digits = "-", digits[1:]
	}
	if missing := int(d.Scale) + 1 - len(digits); missing > 0 {
		digits = strings.Repeat("0", missing) + digits
	}
	if d.Scale == 0 {
		return sign + digits
	}
	point := len(digits) - int(d.Scale)
	return sign + digits[:point] + "." + digits[point:]
}

// text returns s, from Latin-1 if it is not UTF-8.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	b := make([]byte, 0, len(s)+8)
	for i := 0; i < len(s); i++ {
		b = utf8.AppendRune(b, rune(s[i]))
	}
	return string(b)
}
