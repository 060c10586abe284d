package wire_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

// Keys that a protocol may give a meaning of its own, and plain ones.
var oddKeys = []string{"content-type", "idempotency-key", "traceparent", "tracestate", "baggage", "status", "location",
	"etag", "ttl", "priority", "deadline", "host", "authorization", "cookie", "connection", "close", "content-length",
	"content-encoding", "transfer-encoding", "trailer", "te", "upgrade", "date", "user-agent", "pragma", "expect",
	"intermodal-header", "ce-", "ce-id", "ce-source", "ce-type", "ce-specversion", "ce-time", "ce-subject",
	"ce-dataschema", "ce-datacontenttype", "ce-data", "ce-data_base64", "ce-intermodalheader", "ce-traceparent", "ce-x-y",
	"ce-partitionkey", "ce-averyveryverylongattributename", "-", "-bin", "x-bin", "x_y-bin", "ce-x-bin", "x.y", "x_y", "x",
	"proxy-x", "sec-x", "grpc-trailer-x", "accept", "retry-after", "range", "if-match", "problem-type"}

var oddValues = []string{"", " ", "x", "7", "~x", "~", "a b", " a", "a ", "a,b", `"q"`, `"`, `\`, "100%", "%41", "a=b&c;d",
	"Jürgen", "日本", "\x00", "a\r\nb: c", "\n", "\t", "\x7f", "\u0085", "\ufeff", "\ufffe", "\U0001f600", "true", "null",
	"application/json", "Application/JSON; charset=utf-8", "text/plain", "text/plain; charset=latin1",
	"application/cloudevents+json", "image/png", "https://example.com/x", "/topics/orders.placed", "urn:x:y", "::bad::",
	"2026-01-02T03:04:05Z", "404", "1.0"}

var oddBodies = []string{"", "{}", `{"a":1,"a":2}`, " {}", "{}\n", "null", `"text"`, "text\r\n\x00", "\xff\xfe", `"` + "\xff" + `"`,
	"[1.0,1e400,-0]", "true", `{"big":12345678901234567890}`, "<a/>", "\u2028", `"\ud800"`, "]"}

func pick(r *rand.Rand, s []string) string { return s[r.IntN(len(s))] }

func randomValue(r *rand.Rand) string {
	if r.IntN(4) > 0 {
		return pick(r, oddValues)
	}
	b := make([]rune, r.IntN(40))
	for i := range b {
		switch r.IntN(3) {
		case 0:
			b[i] = rune(r.IntN(128))
		case 1:
			b[i] = rune(' ' + r.IntN(95))
		default:
			b[i] = rune(r.IntN(0x10000))
		}
	}
	return strings.ToValidUTF8(string(b), "?")
}

func randomBytes(r *rand.Rand) string {
	b := make([]byte, r.IntN(20))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func randomHeader(r *rand.Rand) transport.Header {
	h := transport.Header{}
	for range r.IntN(8) {
		k := pick(r, oddKeys)
		if r.IntN(4) == 0 {
			b := make([]byte, 1+r.IntN(64))
			for i := range b {
				b[i] = "abcdefghijklmnopqrstuvwxyz0123456789_.-"[r.IntN(39)]
			}
			k = string(b)
		}
		h.Del(k)
		for range 1 + max(0, r.IntN(5)-2) {
			if v := randomBytes(r); strings.HasSuffix(k, "-bin") {
				h.Add(k, v)
			} else {
				h.Add(k, randomValue(r))
			}
		}
	}
	return h
}

func randomMessage(t *testing.T, r *rand.Rand) *transport.Message {
	m := &transport.Message{ID: "id-" + randomID(r), Topic: pick(r, []string{"orders.placed", "a b/c", "ä.ö\"\\%", "x\ufeff"}),
		Header: randomHeader(r), Body: []byte(pick(r, oddBodies))}
	if r.IntN(2) == 0 {
		m.Header.Set("content-type", pick(r, oddValues))
	}
	if r.IntN(8) == 0 {
		m.Body = []byte(randomBytes(r))
	}
	require.NoError(t, m.Check(0))
	require.NoError(t, transport.CheckTopic(m.Topic))
	return m
}

func randomID(r *rand.Rand) string {
	for {
		if v := randomValue(r); v != "" && transport.CheckID("id-"+v) == nil && utf8.ValidString(v) {
			return v
		}
	}
}

// sameHeader compares headers as messages do: nil and empty are one, and so are a key without values and no key.
func sameHeader(t *testing.T, want, got transport.Header) {
	t.Helper()
	if len(want) == 0 && len(got) == 0 {
		return
	}
	require.Equal(t, want, got)
}

func sameMessage(t *testing.T, want, got *transport.Message) {
	t.Helper()
	require.Equal(t, want.ID, got.ID)
	require.Equal(t, want.Topic, got.Topic)
	sameHeader(t, want.Header, got.Header)
	require.True(t, bytes.Equal(want.Body, got.Body), "body %q became %q", want.Body, got.Body)
}
