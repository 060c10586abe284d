package wire_test

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

var attributeName = regexp.MustCompile(`^[a-z0-9]{1,20}$`)

// requireValidEvent looks at an event as a reader of CloudEvents does.
func requireValidEvent(t *testing.T, data []byte) {
	require.True(t, utf8.Valid(data))
	var raw map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(data, &raw), "%s", data)
	members := map[string]any{}
	for name, raw := range raw {
		if name == "data" {
			continue
		}
		var v any
		require.NoError(t, json.Unmarshal(raw, &v))
		members[name] = v
		if name == "data_base64" {
			continue
		}
		require.Regexp(t, attributeName, name)
		require.IsType(t, "", v)
		require.NotEmpty(t, v, name)
	}
	require.Equal(t, "1.0", members["specversion"])
	for _, name := range []string{"id", "source", "type"} {
		require.Contains(t, members, name)
	}
	if v, ok := members["time"]; ok {
		_, err := time.Parse(time.RFC3339, v.(string))
		require.NoError(t, err)
	}
	require.False(t, raw["data"] != nil && raw["data_base64"] != nil)
}

func TestEventRandomRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	var batch []*transport.Message
	for range 1000 {
		m := randomMessage(t, r)
		before := m.Clone()
		data := wire.AppendEvent(nil, m)
		requireValidEvent(t, data)
		got, err := wire.ParseEvent(data, nil)
		require.NoError(t, err, "%s", data)
		sameMessage(t, m, got)
		got, err = wire.ParseEvent(data, &wire.EventOptions{Topic: m.Topic})
		require.NoError(t, err)
		sameMessage(t, m, got)

		h := http.Header{}
		wire.SetEvent(h, m)
		requireClean(t, h)
		for name, vs := range h {
			if name, ok := strings.CutPrefix(strings.ToLower(name), "ce-"); ok {
				require.Regexp(t, attributeName, name)
				require.NotContains(t, vs[0], " ")
			}
		}
		for _, o := range []*wire.EventOptions{nil, {Topic: m.Topic}} {
			ms, err := wire.ReadEvents(overHTTP(t, h), m.Body, o)
			require.NoError(t, err)
			require.Len(t, ms, 1)
			sameMessage(t, m, ms[0])
		}
		require.Equal(t, before, m.Clone(), "the message must not be changed")
		if len(batch) < 100 {
			batch = append(batch, m)
		}
	}
	ms, err := wire.ParseEvents(wire.AppendEvents(nil, batch...), nil)
	require.NoError(t, err)
	require.Len(t, ms, len(batch))
	for i := range ms {
		sameMessage(t, batch[i], ms[i])
	}
}

func TestAppendEvent(t *testing.T) {
	m := &transport.Message{ID: "17", Topic: "orders/ä", Body: []byte(`{"a":1, "a":2}`), Header: transport.Header{
		"content-type": {"application/json; charset=utf-8"}, "ce-subject": {"7"}, "ce-time": {"yesterday"},
		"ce-partitionkey": {"ü"}, "traceparent": {"00-1"}, "baggage": {"a=b"}, "x-tenant": {"acme inc", "b"}, "x": {}}}
	require.Equal(t, `{"specversion":"1.0","id":"17","source":"/topics/orders%2F%C3%A4","type":"orders/ä",`+
		`"partitionkey":"ü","subject":"7","datacontenttype":"application/json; charset=utf-8","traceparent":"00-1",`+
		`"intermodalheader":"baggage=a=b,ce-time=yesterday,x-tenant=acme inc,x-tenant=b","data":{"a":1, "a":2}}`,
		string(wire.AppendEvent(nil, m)))

	h := http.Header{}
	wire.SetEvent(h, m)
	require.Equal(t, http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"17"}, "Ce-Source": {"/topics/orders%252F%25C3%25A4"},
		"Ce-Type": {"orders/%C3%A4"}, "Ce-Partitionkey": {"%C3%BC"}, "Ce-Subject": {"7"}, "Traceparent": {"00-1"}, "Baggage": {"a=b"},
		"Content-Type":        {"application/json; charset=utf-8"},
		"Ce-Intermodalheader": {"ce-time=yesterday,x-tenant=acme%20inc,x-tenant=b"}}, h)

	id := regexp.MustCompile(`^{"specversion":"1.0","id":"[A-Za-z0-9_-]{16,64}","source":"/topics/x","type":"x"}$`)
	require.Regexp(t, id, string(wire.AppendEvent(nil, &transport.Message{Topic: "x"})))
	require.Equal(t, "[]", string(wire.AppendEvents(nil)))
}

func TestEventData(t *testing.T) {
	for _, c := range []struct{ contentType, body, member string }{
		{"application/json", `{"a" : [1]}`, `"data":{"a" : [1]}`},
		{"application/vnd.x+json", `null`, `"data":null`},
		{"application/json", `"x"`, `"data":"x"`},
		{"application/json", ` 1`, `"data_base64":"IDE="`},
		{"application/json", `{`, `"data_base64":"ew=="`},
		{"application/json", "\"\xff\"", `"data_base64":"Iv8i"`},
		{"text/plain", "a\n", `"data":"a\n"`},
		{"text/plain; charset=UTF-8", "1", `"data":"1"`},
		{"text/plain; charset=latin1", "1", `"data_base64":"MQ=="`},
		{"text/plain", "\xff", `"data_base64":"/w=="`},
		{"image/png", "1", `"data_base64":"MQ=="`},
		{"", "1", `"data_base64":"MQ=="`},
	} {
		m := &transport.Message{ID: "1", Topic: "x", Body: []byte(c.body), Header: transport.Header{}}
		if c.contentType != "" {
			m.Header.Set("content-type", c.contentType)
		}
		data := wire.AppendEvent(nil, m)
		require.True(t, strings.HasSuffix(string(data), c.member+"}"), "%s", data)
		got, err := wire.ParseEvent(data, nil)
		require.NoError(t, err)
		sameMessage(t, m, got)
	}
}

func TestParseForeignEvent(t *testing.T) {
	m, err := wire.ParseEvent([]byte(` { "type":"com.example.x" , "specversion":"1.0","source":"https://example.com/a b","id":"A\u002d1",
		"time":"2026-01-02T03:04:05Z","subject":null,"ok":true,"count":42,"Mixed":"case","obj":{"a":[1]},"under_score":"x","tracestate":"a=b",
		"bad name":"x","data": {"a": "\u00e9" } }`), nil)
	require.NoError(t, err)
	sameMessage(t, &transport.Message{ID: "A-1", Topic: "com.example.x", Body: []byte(`{"a": "\u00e9" }`), Header: transport.Header{
		"content-type": {"application/json"}, "ce-source": {"https://example.com/a b"}, "ce-time": {"2026-01-02T03:04:05Z"},
		"ce-ok": {"true"}, "ce-count": {"42"}, "ce-mixed": {"case"}, "ce-obj": {`{"a":[1]}`}, "ce-under_score": {"x"}, "tracestate": {"a=b"}}}, m)

	m, err = wire.ParseEvent([]byte(`{"type":"t","specversion":"1.0","source":"/topics/orders","id":"1","datacontenttype":"application/xml","data":"<a/>\n"}`),
		&wire.EventOptions{Topic: "orders"})
	require.NoError(t, err)
	sameMessage(t, &transport.Message{ID: "1", Topic: "orders", Body: []byte("<a/>\n"),
		Header: transport.Header{"content-type": {"application/xml"}, "ce-type": {"t"}}}, m)

	m, err = wire.ParseEvent([]byte(`{"type":"t","specversion":"1.0","source":"s","id":"1","data":null,"data_base64":"/w=="}`), nil)
	require.NoError(t, err)
	require.Equal(t, "\xff", string(m.Body))
}

func TestParseEventErrors(t *testing.T) {
	event := func(s string) string { return `{"specversion":"1.0","id":"1","source":"s","type":"t"` + s + `}` }
	_, err := wire.ParseEvent([]byte(event("")), nil)
	require.NoError(t, err)
	for _, s := range []string{"", "[]", "x", "null", "{}", `{"specversion":"1.0"`, `{"specversion":"0.3","id":"1","source":"s","type":"t"}`,
		`{"specversion":"1.0","source":"s","type":"t"}`, `{"specversion":"1.0","id":"1","type":"t"}`,
		`{"specversion":"1.0","id":"1","source":"s"}`, `{"specversion":1.0,"id":"1","source":"s","type":"t"}`,
		event(`,"id":7`), event(`,"id":""`), event(`,"type":"a..b"`), event(`,"type":"rpc.x"`), event(`,"id":"\n"`),
		event(`,"data":1,"data_base64":"AA=="`), event(`,"data_base64":1`), event(`,"data_base64":"!"`),
		event(`,"intermodalheader":"x"`), event(",\"x\":\"\xff\""), event(`,"id":"` + strings.Repeat("x", 129) + `"`)} {
		_, err := wire.ParseEvent([]byte(s), nil)
		require.ErrorIs(t, err, transport.CodeInvalidArgument, "%s", s)
		_, err = wire.ParseEvents([]byte("["+s+"]"), nil)
		if s != "" {
			require.ErrorIs(t, err, transport.CodeInvalidArgument, "%s", s)
		}
	}
	for _, s := range []string{event(`,"x":"` + strings.Repeat("x", 17<<10) + `"`), event(`,"data":"` + strings.Repeat("x", 1<<20) + `"`)} {
		_, err := wire.ParseEvent([]byte(s), nil)
		require.ErrorIs(t, err, transport.CodeResourceExhausted)
	}
	_, err = wire.ParseEvent([]byte(event(`,"data":"12345678901234567890"`)), &wire.EventOptions{MaxBytes: 20})
	require.ErrorIs(t, err, transport.CodeResourceExhausted)
	two := []byte("[" + event("") + "," + event("") + "]")
	_, err = wire.ParseEvents(two, &wire.EventOptions{MaxEvents: 2})
	require.NoError(t, err)
	_, err = wire.ParseEvents(two, &wire.EventOptions{MaxEvents: 1})
	require.ErrorIs(t, err, transport.CodeResourceExhausted)
	_, err = wire.ParseEvents([]byte("["+event("")+`,{"specversion":"1.0"}]`), nil)
	require.ErrorContains(t, err, "event 1 of the batch: the CloudEvent has no id")
}

func TestReadEvents(t *testing.T) {
	// A plain POST.
	h := http.Header{"Content-Type": {"text/plain"}, "X-Tenant": {"acme"}, "X-Other": {"1"}, "Idempotency-Key": {"k"},
		"Authorization": {"secret"}, "Ce-Intermodalheader": {"ttl=5000, priority=7"}, "Ce-Subject": {`"J%C3%BCrgen \"x\""`}}
	o := &wire.EventOptions{Topic: "orders", Headers: []string{"x-tenant", "authorization"}}
	ms, err := wire.ReadEvents(h, []byte("x"), o)
	require.NoError(t, err)
	require.Len(t, ms, 1)
	sameMessage(t, &transport.Message{Topic: "orders", Body: []byte("x"), Header: transport.Header{"content-type": {"text/plain"},
		"x-tenant": {"acme"}, "idempotency-key": {"k"}, "ttl": {"5000"}, "priority": {"7"}, "ce-subject": {`Jürgen "x"`}}}, ms[0])

	// Structured and batched.
	m := &transport.Message{ID: "1", Topic: "orders", Header: transport.Header{"traceparent": {"own"}}}
	h = http.Header{"Content-Type": {"application/cloudevents+json; charset=UTF-8"}, "Traceparent": {"hop"}, "Baggage": {"a=b"},
		"Idempotency-Key": {`"k"`}, "X-Tenant": {"acme"}}
	ms, err = wire.ReadEvents(h, wire.AppendEvent(nil, m), o)
	require.NoError(t, err)
	sameHeader(t, transport.Header{"traceparent": {"own"}, "baggage": {"a=b"}, "idempotency-key": {"k"}, "x-tenant": {"acme"}}, ms[0].Header)
	h.Set("Content-Type", wire.ContentTypeEvents)
	ms, err = wire.ReadEvents(h, wire.AppendEvents(nil, m, &transport.Message{ID: "2", Topic: "orders"}), o)
	require.NoError(t, err)
	require.Len(t, ms, 2)
	sameHeader(t, transport.Header{"traceparent": {"own"}, "baggage": {"a=b"}, "x-tenant": {"acme"}}, ms[0].Header)
	sameHeader(t, transport.Header{"traceparent": {"hop"}, "baggage": {"a=b"}, "x-tenant": {"acme"}}, ms[1].Header)
	ms, err = wire.ReadEvents(h, []byte(" [ ] "), o)
	require.NoError(t, err)
	require.Empty(t, ms)

	// What is no event.
	for name, h := range map[string]http.Header{
		"no topic":    {},
		"no id":       {"Ce-Specversion": {"1.0"}, "Ce-Type": {"t"}, "Ce-Source": {"s"}},
		"old":         {"Ce-Specversion": {"0.3"}, "Ce-Id": {"1"}, "Ce-Type": {"t"}, "Ce-Source": {"s"}},
		"bad topic":   {"Ce-Type": {"a..b"}},
		"bad list":    {"Ce-Type": {"t"}, "Ce-Intermodalheader": {"x"}},
		"other form":  {"Content-Type": {"application/cloudevents+avro"}},
		"no json":     {"Content-Type": {wire.ContentTypeEvent}},
		"no array":    {"Content-Type": {wire.ContentTypeEvents}},
		"control id":  {"Ce-Type": {"t"}, "Ce-Id": {"%0A"}},
		"wrong topic": {"Ce-Type": {"_x"}},
	} {
		_, err := wire.ReadEvents(h, []byte("{}"), nil)
		require.ErrorIs(t, err, transport.CodeInvalidArgument, name)
	}
	_, err = wire.ReadEvents(http.Header{"Content-Type": {"application/cloudevents+avro"}}, nil, nil)
	require.Equal(t, 415, wire.StatusOf(err))
	_, err = wire.ReadEvents(http.Header{"Ce-Type": {"t"}}, make([]byte, 100), &wire.EventOptions{MaxBytes: 50})
	require.ErrorIs(t, err, transport.CodeResourceExhausted)
	ms, err = wire.ReadEvents(http.Header{"Ce-Type": {"t"}, "Ce-X": {"100%", "%zz", "%", "%ff"}}, nil, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"100%", "%zz", "%", "ÿ"}, ms[0].Header["ce-x"])
}

func seedEvents(f *testing.F, add func([]byte)) {
	for _, s := range []string{"", "{}", "[]", "[{}]", `{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"a":[1,"}"]}}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"text/plain","data":"\ud800x"}`,
		`{"specversion":"1.0","id":"1","source":"/topics/t","type":"t","intermodalheader":"a=~AA,ce-id=1","traceparent":"x","ce-traceparent":"y"}`,
		`{"\u0069d":"1","specversion":"1.0","source":"s","type":"t","id":"2","X":1e5,"x":[null],"data_base64":"AA=="}`} {
		add([]byte(s))
		add([]byte("[" + s + "," + s + "]"))
	}
	add(wire.AppendEvent(nil, &transport.Message{ID: "1", Topic: "a.b", Body: []byte("x"), Header: transport.Header{"x-bin": {"\xff"}, "ce-time": {"x"}}}))
}

func FuzzParseEvent(f *testing.F) {
	seedEvents(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := wire.ParseEvent(data, nil)
		if err != nil {
			return
		}
		require.NoError(t, m.Check(0))
		require.NoError(t, transport.CheckTopic(m.Topic))
		again := wire.AppendEvent(nil, m)
		got, err := wire.ParseEvent(again, nil)
		require.NoError(t, err, "%s", again)
		sameMessage(t, m, got)
	})
}

func FuzzParseEvents(f *testing.F) {
	seedEvents(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, data []byte) {
		ms, err := wire.ParseEvents(data, &wire.EventOptions{MaxEvents: 4})
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(ms), 4)
		got, err := wire.ParseEvents(wire.AppendEvents(nil, ms...), nil)
		require.NoError(t, err)
		require.Len(t, got, len(ms))
		for i, m := range ms {
			require.NoError(t, m.Check(0))
			sameMessage(t, m, got[i])
		}
	})
}

func FuzzReadEvents(f *testing.F) {
	f.Add("text/plain", "1.0", "id", "src", "a.b", "a=b", "x%C3", []byte("x"))
	f.Add(wire.ContentTypeEvent, "", "", "", "", "", "", []byte(`{"specversion":"1.0","id":"1","source":"s","type":"t"}`))
	f.Add(wire.ContentTypeEvents, "", "", "", "", "", "", []byte(`[]`))
	f.Add("", "", "", "", "t", "", "", []byte(nil))
	f.Fuzz(func(t *testing.T, contentType, version, id, source, kind, list, extension string, body []byte) {
		h := http.Header{}
		for name, v := range map[string]string{"Content-Type": contentType, "Ce-Specversion": version, "Ce-Id": id, "Ce-Source": source,
			"Ce-Type": kind, "Ce-Intermodalheader": list, "Ce-Extension": extension, "Idempotency-Key": extension, "Traceparent": id} {
			if v != "" {
				h.Set(name, v)
			}
		}
		ms, err := wire.ReadEvents(h, body, nil)
		if err != nil {
			return
		}
		for _, m := range ms {
			require.NoError(t, m.Check(0))
			out := http.Header{}
			wire.SetEvent(out, m)
			requireClean(t, out)
			got, err := wire.ReadEvents(out, m.Body, nil)
			require.NoError(t, err)
			if m.ID == "" {
				got[0].ID = ""
			}
			sameMessage(t, m, got[0])
		}
	})
}
