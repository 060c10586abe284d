package transporttest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

// A carrier is one way that a message can travel: it sends m and returns what arrives.
type carrier struct {
	name string
	need need
	send func(c *env, topic string) func(m *transport.Message) *transport.Message
}

var carriers = []carrier{{"event", events, func(c *env, topic string) func(*transport.Message) *transport.Message {
	s := c.broadcast(topic)
	return func(m *transport.Message) *transport.Message {
		c.Helper()
		c.send(m)
		d := c.next(s)
		c.ack(d)
		return d.Message
	}
}}, {"grouped-event", func(f *Fixture) string { return events(f) + groups(f) }, func(c *env, topic string) func(*transport.Message) *transport.Message {
	s := c.broadcast(topic, transport.Group("g"))
	return func(m *transport.Message) *transport.Message {
		c.Helper()
		c.send(m)
		d := c.next(s)
		c.ack(d)
		return d.Message
	}
}}, {"request", calls, func(c *env, topic string) func(*transport.Message) *transport.Message {
	s := c.respond(topic)
	return func(m *transport.Message) *transport.Message {
		c.Helper()
		r := async(func() *transport.Message { return c.request(m) })
		d := c.next(s)
		c.ack(d)
		await(c, r, "the call")
		return d.Message
	}
}}, {"reply", calls, func(c *env, topic string) func(*transport.Message) *transport.Message {
	s := c.respond(topic)
	return func(m *transport.Message) *transport.Message {
		c.Helper()
		r := async(func() *transport.Message { return c.request(&transport.Message{Topic: topic}) })
		require.NoError(c, c.next(s).Settle(&transport.Message{Header: m.Header, Body: m.Body}, nil))
		got := *await(c, r, "the call")
		got.ID, got.Topic = m.ID, m.Topic // a reply has none
		return &got
	}
}}}

var contentCases = slices.Concat(perCarrier("content/bodies", "A body arrives byte for byte.", func(c *env, carry func(*transport.Message) *transport.Message, topic string) {
	for _, body := range []string{"x", every256(), strings.Repeat(every256(), 100), "\r\n", "\n", " \t ", "\r\n.\r\n", "data: x\n\nid: 7\n\n",
		"{\"a\": 1.0,  \"b\":\"<&>\\u00e9\", \"a\":2e0}\n", "[]", "null", "\"", "\xff\xfe", "\xef\xbb\xbfBOM", "\x00", "aGk=", "a=b&c=%20", "<xml/>", "ü☃😀"} {
		for _, contentType := range []string{"", "application/json", "text/plain; charset=\"utf-8\"", "application/octet-stream", "application/cloudevents+json"} {
			m := &transport.Message{Topic: topic, Body: []byte(body)}
			if contentType != "" {
				m.Header = transport.Header{"content-type": {contentType}}
			}
			got := carry(m)
			require.Equal(c, []byte(body), got.Body, "content-type %q", contentType)
			c.sameHeader(m.Header, got.Header)
		}
	}
}), perCarrier("content/empty", "A message without body and header is a message; an absent content-type stays absent.", func(c *env, carry func(*transport.Message) *transport.Message, topic string) {
	for _, body := range [][]byte{nil, {}} {
		for _, h := range []transport.Header{nil, {}, {"k": {"v"}}, {"content-type": {"application/json"}}} {
			got := carry(&transport.Message{Topic: topic, Header: h, Body: body})
			require.Empty(c, got.Body)
			require.Equal(c, topic, got.Topic)
			c.sameHeader(h, got.Header)
		}
	}
}), perCarrier("content/headers", "A header arrives value for value: hostile text, raw bytes, several values, empty ones.", func(c *env, carry func(*transport.Message) *transport.Message, topic string) {
	all := transport.Header{}
	for i, values := range [][]string{
		{"v"}, {"a", "b", "a"}, {"a, b", "c"}, {""}, {"", ""}, {" padded\t"}, {`"quoted" and 'quoted'`}, {`back\slash`, `\"`},
		{"a\r\nx-injected: b"}, {"\n\n"}, {"ünïcode ☃ 😀"}, {"%41%00%"}, {"a=b; c=d, e"}, {"=?utf-8?q?x?="}, {"<&>"}, {"\u0085\u2028"},
		{"\x01\x1f\x7f"}, {"null"}, {"0"}, {"true"}, {strings.Repeat("long ", 800)}, {"[\"a\"]"}, {"aGk"}, {"é", "e\u0301"},
	} {
		h := transport.Header{"k": values}
		c.sameHeader(h, carry(&transport.Message{Topic: topic, Header: h}).Header)
		all[fmt.Sprint("key-", i)] = values
	}
	for _, values := range [][]string{{"\x00"}, {"\xff\xfe\r\n"}, {every256()}, {""}, {"a", "\x80", "a"}, {"text"}, {"a,b"}} {
		h := transport.Header{"raw-bin": values}
		c.sameHeader(h, carry(&transport.Message{Topic: topic, Header: h}).Header)
	}
	c.sameHeader(all, carry(&transport.Message{Topic: topic, Header: all, Body: []byte("body")}).Header)
}), perCarrier("content/keys", "Header keys are not mixed up; one without values is absent.", func(c *env, carry func(*transport.Message) *transport.Message, topic string) {
	h := transport.Header{"a-b": {"1"}, "a_b": {"2"}, "a.b": {"3"}, "a--b": {"4"}, "ab": {"5"}, "0": {"6"}, "x": {"7"}, "z9.-_": {"8"},
		strings.Repeat("k", 64): {"9"}, "id": {"10"}, "topic": {"11"}, "data": {"12"}, "body": {"13"}, "error": {"14"}, "type": {"15"},
		"source": {"16"}, "ce-x": {"17"}, "x-bin": {"18"}, "subject": {"19"}, "time": {"20"}, "method": {"21"}, "params": {"22"}}
	c.sameHeader(h, carry(&transport.Message{Topic: topic, Header: h}).Header)
	h["absent"], h["nil"] = []string{}, nil
	got := carry(&transport.Message{Topic: topic, Header: h}).Header
	require.Empty(c, got.Values("absent"))
	require.Empty(c, got.Values("nil"))
}), perCarrier("content/trace", "Trace context, baggage and the idempotency-key arrive as they are.", func(c *env, carry func(*transport.Message) *transport.Message, topic string) {
	h := transport.Header{"traceparent": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, "tracestate": {"a=1,b=2"},
		"baggage": {"user=x%20y;p=1,k=v"}, "idempotency-key": {"8e03978e-40d5-43dd-bc93-6894a57f9324"}}
	c.sameHeader(h, carry(&transport.Message{Topic: topic, Header: h}).Header)
}), perCarrier("content/sizes", "A message may fill the limit exactly, and a header its own.", func(c *env, carry func(*transport.Message) *transport.Message, topic string) {
	h := transport.Header{"k": {"value"}}
	m := &transport.Message{Topic: topic, Header: h}
	m.Body = []byte(strings.Repeat("\x00\"x", c.MaxBytes/3+1))[:c.MaxBytes-m.Size()]
	require.Equal(c, c.MaxBytes, m.Size())
	got := carry(m)
	require.Equal(c, len(m.Body), len(got.Body))
	require.True(c, string(m.Body) == string(got.Body), "the body is changed")
	c.sameHeader(h, got.Header)
	if transport.DefaultMaxHeaderBytes < c.MaxBytes/2 {
		h = transport.Header{"k": {strings.Repeat("v", transport.DefaultMaxHeaderBytes-1)}}
		c.sameHeader(h, carry(&transport.Message{Topic: topic, Header: h}).Header)
	}
}), perCarrier("content/untouched", "Sending changes nothing in the sender's message.", func(c *env, carry func(*transport.Message) *transport.Message, topic string) {
	for _, m := range []*transport.Message{
		{Topic: topic},
		{Topic: topic, Header: transport.Header{}, Body: []byte{}},
		{Topic: topic, ID: "own", Header: transport.Header{"k": {"v"}, "content-type": {"text/x"}, "none": nil}, Body: []byte("body")},
	} {
		before := *m
		before.Header, before.Body = m.Header.Clone(), append([]byte(nil), m.Body...)
		carry(m)
		require.Equal(c, before.ID, m.ID)
		require.Equal(c, before.Topic, m.Topic)
		require.Equal(c, before.Header, m.Header)
		require.Equal(c, string(before.Body), string(m.Body))
	}
}), perCarrier("content/topics", "Every legal topic is carried, up to the limit of 200 bytes.", func(c *env, carry func(*transport.Message) *transport.Message, topic string) {
	got := carry(&transport.Message{Topic: topic, Body: []byte("here")})
	require.Equal(c, "here", string(got.Body))
	require.Equal(c, topic, got.Topic)
}, legalTopics...), []testCase{{
	name:  "content/ids",
	rule:  "A message without an ID gets one, unique and the same for all; one that has an ID keeps it.",
	needs: []need{events},
	run: func(c *env) {
		topic := c.topic()
		a, b := c.broadcast(topic), c.broadcast(topic)
		seen := map[string]bool{}
		for range 100 {
			c.publish(topic, "x")
			d := c.next(a)
			require.NoError(c, transport.CheckID(d.ID), "the ID that was assigned")
			require.False(c, seen[d.ID], "the ID %q was there before", d.ID)
			require.Equal(c, d.ID, c.take1(b).ID)
			seen[d.ID] = true
			c.ack(d)
		}
		for _, id := range []string{"x", "0", "with space", "a/b?c=d&e#f%20", "\"quoted\"", "ünïcode ☃", strings.Repeat("i", transport.MaxIDBytes)} {
			for range 2 { // the same ID again is another message: only re-sends are deduplicated
				c.send(&transport.Message{Topic: topic, ID: id, Body: []byte("own")})
				require.Equal(c, id, c.take1(a).ID)
				require.Equal(c, id, c.take1(b).ID)
			}
		}
	},
}, {
	name:  "content/call-ids",
	rule:  "A request without an ID gets one, and a given one is kept.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		s := c.respond(topic)
		seen := map[string]bool{}
		for _, id := range []string{"", "", "", "own", "ünïcode /?&", strings.Repeat("i", transport.MaxIDBytes), "own"} {
			r := async(func() *transport.Message { return c.request(&transport.Message{Topic: topic, ID: id}) })
			d := c.next(s)
			require.NoError(c, transport.CheckID(d.ID))
			if id != "" {
				require.Equal(c, id, d.ID)
			} else {
				require.False(c, seen[d.ID])
			}
			seen[d.ID] = true
			c.ack(d)
			await(c, r, "the call")
		}
	},
}})

// legalTopics are appended to a unique word; "" stands for the longest legal topic.
var legalTopics = []string{".a", " b", "/c", "%2F", "?q=1&r#f", ".*x", ".#x", ".+", "\"'`", "\\", ".ü.☃.😀", ".rpc.amq._x", ":1", ".MiXed", "~!@$^()[]{}|;,<>=", ""}

// perCarrier makes one case for each way that a message can travel. With suffixes the check is run for each topic.
func perCarrier(name, rule string, check func(c *env, carry func(*transport.Message) *transport.Message, topic string), suffixes ...string) []testCase {
	var all []testCase
	for _, k := range carriers {
		all = append(all, testCase{name: name + "-of-" + k.name, rule: rule, needs: []need{k.need}, run: func(c *env) {
			if len(suffixes) == 0 {
				topic := c.topic()
				check(c, k.send(c, topic), topic)
			}
			for _, suffix := range suffixes {
				topic := c.topic() + suffix
				if suffix == "" {
					topic += strings.Repeat("x", transport.MaxTopicBytes-len(topic))
				}
				check(c, k.send(c, topic), topic)
			}
		}})
	}
	return all
}

// take1 acknowledges the next delivery.
func (c *env) take1(s transport.Subscription) *transport.Delivery {
	c.Helper()
	d := c.next(s)
	c.ack(d)
	return d
}

// sameHeader checks that got has exactly want's values; keys without values do not count.
func (c *env) sameHeader(want, got transport.Header) {
	c.Helper()
	for key, values := range want {
		if len(values) > 0 {
			require.Equal(c, values, got.Values(key), "the header %q", key)
		}
	}
	for key, values := range got {
		if len(want[key]) == 0 && len(values) > 0 {
			c.Fatalf("the header %q with %.100q was not sent", key, values)
		}
	}
}

// every256 has each byte once.
func every256() string {
	var b strings.Builder
	for i := range 256 {
		b.WriteByte(byte(i))
	}
	return b.String()
}
