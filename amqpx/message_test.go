package amqpx

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// arrive returns p as a consumer gets it. Streams drop arrays and tables.
func arrive(p amqp.Publishing, stream bool) *amqp.Delivery {
	d := &amqp.Delivery{Headers: p.Headers, ContentType: p.ContentType, ContentEncoding: p.ContentEncoding,
		DeliveryMode: p.DeliveryMode, Priority: p.Priority, CorrelationId: p.CorrelationId, ReplyTo: p.ReplyTo,
		Expiration: p.Expiration, MessageId: p.MessageId, Timestamp: p.Timestamp, Type: p.Type, AppId: p.AppId, Body: p.Body}
	if stream {
		d.Headers = amqp.Table{"x-stream-offset": int64(7)}
		for key, v := range p.Headers {
			switch v.(type) {
			case []any, amqp.Table:
			default:
				d.Headers[key] = v
			}
		}
	}
	return d
}

// trip requires that m comes back as it is, from a queue and from a stream.
func trip(t *testing.T, m *transport.Message) {
	t.Helper()
	p, err := encode(m, noon)
	require.NoError(t, err)
	require.NoError(t, p.Headers.Validate())
	require.Equal(t, amqp.Persistent, p.DeliveryMode)
	for _, stream := range []bool{false, true} {
		got, err := decode(arrive(p, stream), m.Topic)
		require.NoError(t, err)
		require.Equal(t, m.ID, got.ID)
		require.Equal(t, m.Topic, got.Topic)
		require.True(t, bytes.Equal(m.Body, got.Body))
		want := transport.Header{}
		for key, values := range m.Header {
			if len(values) > 0 {
				want[key] = values
			}
		}
		if got.Header == nil {
			got.Header = transport.Header{}
		}
		require.Equal(t, want, got.Header, "stream: %v", stream)
	}
}

func TestRoundTrip(t *testing.T) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	many := make([]string, transport.DefaultMaxHeaderBytes/2)
	for i := range many {
		many[i] = "v"
	}
	long := strings.Repeat("ö", 200) // too long for a property
	for name, h := range map[string]transport.Header{
		"none":        nil,
		"empty":       {},
		"absent":      {"a": nil, "b": {}},
		"one":         {"k": {"v"}},
		"several":     {"k": {"a", "b", "a"}, "other": {"", ""}},
		"empty value": {"k": {""}},
		"hostile":     {"k": {"a\r\nb: c\x00\x7f", "~", "a=b,c=%20"}, "l": {"\x00"}},
		"binary":      {"k-bin": {string(every)}, "l-bin": {""}, "m-bin": {"\xff", "", "text"}},
		"many":        {"k": many},
		"properties": {"content-type": {"text/plain; charset=\"utf-8\""}, "content-encoding": {"gzip"},
			"priority": {"9"}, "ttl": {"1500"}, "reply-to": {"_reply.x"}, "correlation-id": {"c/1"}, "type": {"t"},
			"app-id": {"a"}},
		"properties twice": {"content-type": {"a/b", "c/d"}, "priority": {"1", "2"}, "ttl": {"1", "2"},
			"reply-to": {"a", "b"}, "correlation-id": {"", "x"}},
		"odd properties": {"content-type": {""}, "priority": {"0"}, "ttl": {"007"}, "reply-to": {long},
			"correlation-id": {long}},
		"odder properties": {"content-type": {long}, "priority": {"high"}, "ttl": {"0"},
			"reply-to": {"amq.rabbitmq.reply-to.g1h2"}},
		"long ttl": {"ttl": {"99999999999"}},
		"of the broker": {"x-death": {"a"}, "x-stream-offset": {"1"}, "x-delivery-count": {"a", "b"},
			"x-first-death-queue": {"q"}, "x-opt-a": {"o"}, "x-exchange": {"e"}, "x-request-id": {"r"}},
		"of ours": {"x-intermodal-attempt": {"5"}, "x-intermodal-header": {"k=v"}, "x-intermodal-x-bin": {"\xff"}},
		"delayed": {"delay": {"10"}, "deadline": {"2026-05-04T12:00:00Z"}, "traceparent": {"00-1-2-3"}},
		"odd keys": {"-": {"1"}, ".": {"2"}, "_": {"3"}, strings.Repeat("k", 64): {"4"}, "0": {"5"},
			"-bin": {"\x80"}},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, h.Check())
			trip(t, &transport.Message{ID: "ü 1", Topic: "a.b", Header: h, Body: every})
			trip(t, &transport.Message{ID: "x", Topic: "a", Header: h})
		})
	}
}

func TestEncode(t *testing.T) {
	p, err := encode(&transport.Message{ID: "1", Topic: "a", Body: []byte("b"), Header: transport.Header{
		"content-type": {"text/plain"}, "priority": {"3"}, "ttl": {"2000"}, "reply-to": {"r"}, "correlation-id": {"c"},
		"one": {"v"}, "two": {"v", "w"}, "raw-bin": {"\xff"}, "raws-bin": {"\xff", "x"}}}, noon)
	require.NoError(t, err)
	require.Equal(t, amqp.Publishing{MessageId: "1", ContentType: "text/plain", Priority: 3, Expiration: "2000",
		ReplyTo: "r", CorrelationId: "c", DeliveryMode: amqp.Persistent, Timestamp: noon, Body: []byte("b"),
		Headers: amqp.Table{
			"one": "v", "two": []any{"v", "w"}, "raw-bin": []byte("\xff"), "raws-bin": []any{[]byte("\xff"), []byte("x")},
			ownTime: noon.UnixMilli(), ownList: "raws-bin=~_w,raws-bin=~eA,two=v,two=w"}}, p)

	for _, ttl := range []string{"", "x", "-1", "1.5", "1s", "99999999999999999999"} {
		_, err := encode(&transport.Message{ID: "1", Header: transport.Header{"ttl": {ttl}}}, noon)
		require.ErrorIs(t, err, transport.CodeInvalidArgument, ttl)
	}
}

// What other programs send is readable.
func TestDecodeForeign(t *testing.T) {
	d := &amqp.Delivery{ContentType: "text/\xe4", ContentEncoding: "gzip", Type: "order.placed", AppId: "shop",
		UserId: "guest", Timestamp: noon, Priority: 4, Expiration: "60000", MessageId: "m", CorrelationId: "c",
		ReplyTo: "r", Body: []byte{0, 255},
		Headers: amqp.Table{
			"bool": true, "byte": byte(200), "int8": int8(-3), "int16": int16(-300), "int32": int32(5), "int64": int64(1 << 40),
			"uint16": uint16(65000), "uint32": uint32(4e9), "float32": float32(1.25), "float64": 1e-9, "nan": math.NaN(),
			"decimal": amqp.Decimal{Scale: 2, Value: -5}, "whole": amqp.Decimal{Value: 314}, "time": noon, "nil": nil,
			"text": "t", "latin1": "\xe4", "bytes": []byte("text"), "raw": []byte{0xff}, "raw-bin": []byte{0xff},
			"text-bin": "\xff", "array": []any{"a", int32(1), nil, []any{"b", true}}, "empty": []any{}, "number-bin": int32(5),
			"table": amqp.Table{"k": []any{int64(1), noon, []byte("b"), []byte{0xff}, amqp.Decimal{Scale: 1, Value: 15},
				0.5, nil}, "\xe4": amqp.Table{}},
			"X-Request-Id": "up", "camelCase": "c", "camelcase": "exact", "with space": "no", "": "no",
			strings.Repeat("k", 65): "no", "ü": "no",
			"x-death": []any{amqp.Table{"count": int64(1)}}, "x-first-death-queue": "q", "x-delivery-count": int64(2),
			"X-Death": "no", "x-intermodal-attempt": int64(3), "x-intermodal-header": "not a list", "CC": []any{"other"},
		}}
	m, err := decode(d, "topic")
	require.NoError(t, err)
	require.Equal(t, transport.Message{ID: "m", Topic: "topic", Body: []byte{0, 255}, Header: transport.Header{
		"content-type": {"text/ä"}, "content-encoding": {"gzip"}, "type": {"order.placed"}, "app-id": {"shop"},
		"priority": {"4"}, "ttl": {"60000"}, "correlation-id": {"c"}, "reply-to": {"r"},
		"bool": {"true"}, "byte": {"200"}, "int8": {"-3"}, "int16": {"-300"}, "int32": {"5"}, "int64": {"1099511627776"},
		"uint16": {"65000"}, "uint32": {"4000000000"}, "float32": {"1.25"}, "float64": {"1e-09"}, "nan": {"NaN"},
		"decimal": {"-0.05"}, "whole": {"314"}, "time": {"2026-05-04T12:00:00Z"},
		"text": {"t"}, "latin1": {"ä"}, "bytes": {"text"}, "raw": {"/w=="}, "raw-bin": {"\xff"}, "text-bin": {"\xff"},
		"array": {"a", "1", "b", "true"}, "number-bin": {"5"},
		"table":        {`{"k":[1,"2026-05-04T12:00:00Z","b","/w==","1.5","0.5",null],"ä":{}}`},
		"x-request-id": {"up"}, "camelcase": {"exact"}, "cc": {"other"},
	}}, m)
	require.NoError(t, m.Check(0))

	m, err = decode(&amqp.Delivery{Headers: amqp.Table{"k": strings.Repeat("v", transport.DefaultMaxHeaderBytes)}}, "t")
	require.ErrorIs(t, err, transport.CodeResourceExhausted)
}

func TestDecodeIDs(t *testing.T) {
	id := func(d *amqp.Delivery) string {
		m, err := decode(d, "t")
		require.NoError(t, err)
		require.NoError(t, transport.CheckID(m.ID))
		return m.ID
	}
	bad := "a\nb"
	require.Equal(t, id(&amqp.Delivery{MessageId: bad}), id(&amqp.Delivery{MessageId: bad, Body: []byte("other")}))
	require.NotEqual(t, id(&amqp.Delivery{MessageId: bad}), id(&amqp.Delivery{MessageId: "a\rb"}))
	require.NotEqual(t, id(&amqp.Delivery{}), id(&amqp.Delivery{}), "two equal messages are two messages")
	at := func(offset int64, body string) *amqp.Delivery {
		return &amqp.Delivery{Headers: amqp.Table{"x-stream-offset": offset}, Body: []byte(body)}
	}
	require.Equal(t, id(at(7, "b")), id(at(7, "b")))
	require.NotEqual(t, id(at(7, "b")), id(at(8, "b")))
	require.NotEqual(t, id(at(7, "b")), id(at(7, "c")))
}

func FuzzRoundTrip(f *testing.F) {
	f.Add("id", "key", "v", "w", uint8(2), []byte("body"))
	f.Add("ü", "k-bin", "\xff", "", uint8(2), []byte{0})
	f.Add("x", "ttl", "1500", "2", uint8(1), []byte(nil))
	f.Add("x", "ttl", "007", "", uint8(1), []byte(nil))
	f.Add("x", "priority", "7", "0", uint8(1), []byte(nil))
	f.Add("x", "reply-to", "amq.rabbitmq.reply-to", "", uint8(1), []byte(nil))
	f.Add("x", "x-intermodal-header", "a=b", "~", uint8(3), []byte(nil))
	f.Add("x", "x-death", "a", "b", uint8(1), []byte(nil))
	f.Add("x", "content-type", strings.Repeat("x", 256), "", uint8(1), []byte(nil))
	f.Add("x", "k", "a,b=c", "%\\\"", uint8(200), []byte(nil))
	f.Fuzz(func(t *testing.T, id, key, v, w string, n uint8, body []byte) {
		m := &transport.Message{ID: id, Topic: "a.b", Header: transport.Header{key: {}, "other": {w}}, Body: body}
		for i := range int(n) {
			m.Header[key] = append(m.Header[key], []string{v, w}[i%2])
		}
		if m.Check(0) != nil || transport.CheckID(id) != nil {
			return
		}
		if _, err := m.Header.Millis(transport.HeaderTTL); err != nil {
			_, err := encode(m, noon)
			require.ErrorIs(t, err, transport.CodeInvalidArgument)
			return
		}
		trip(t, m)
	})
}

func FuzzDecode(f *testing.F) {
	f.Add("id", "text/plain", "k", "v", "1000", "c", "type", int64(1), uint8(0), []byte("body"))
	f.Add("", "", "K", "\xff", "x", "", "", int64(-1), uint8(1), []byte(nil))
	f.Add("a\nb", "\xff", "x-intermodal-header", "a=~_w,b-bin=~", "", "", "", int64(0), uint8(0), []byte(nil))
	f.Add("", "", "x-stream-offset", "", "", "", "", int64(7), uint8(2), []byte("b"))
	for kind := range uint8(12) {
		f.Add("", "", "k", "\xe4", "", "", "", int64(300), kind, []byte{0xff})
	}
	f.Fuzz(func(t *testing.T, id, contentType, key, s, expiration, correlation, typ string, n int64, kind uint8,
		b []byte) {
		values := []any{s, b, n, int32(n), n%2 == 0, float64(n) / 3, math.Float32frombits(uint32(n)), time.Unix(n%1e11, 0),
			amqp.Decimal{Scale: uint8(n), Value: int32(n >> 8)}, nil, amqp.Table{s: b, key: []any{s, n}},
			[]any{s, []any{b, nil, amqp.Table{s: n}}}}
		d := &amqp.Delivery{MessageId: id, ContentType: contentType, Expiration: expiration, CorrelationId: correlation,
			Type:     typ,
			Priority: uint8(n), Body: b, Headers: amqp.Table{key: values[int(kind)%len(values)], "other": s}}
		m, err := decode(d, "topic")
		if err != nil {
			require.ErrorIs(t, err, transport.CodeResourceExhausted)
			return
		}
		require.NoError(t, transport.CheckID(m.ID))
		require.NoError(t, m.Header.Check(), fmt.Sprint(m.Header))
		require.True(t, bytes.Equal(b, m.Body))
		if _, err := m.Header.Millis(transport.HeaderTTL); err == nil {
			trip(t, &m) // so a message can be passed on
		}
	})
}

func TestDecimal(t *testing.T) {
	for _, c := range []struct {
		d    amqp.Decimal
		want string
	}{{amqp.Decimal{}, "0"}, {amqp.Decimal{Scale: 2, Value: 314}, "3.14"}, {amqp.Decimal{Scale: 3, Value: 5}, "0.005"},
		{amqp.Decimal{Scale: 1, Value: -15}, "-1.5"},
		{amqp.Decimal{Scale: 0, Value: math.MinInt32}, strconv.Itoa(math.MinInt32)}} {
		require.Equal(t, c.want, decimal(c.d))
	}
}
