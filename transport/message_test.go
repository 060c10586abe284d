package transport_test

import (
	"math"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func TestCheckTopic(t *testing.T) {
	for _, topic := range []string{"a", "orders", "orders.placed", "shop.v1.Orders.Place", "a b", "ä.ö", "a/b", "*a.b#",
		"rpcx.a", "a.rpc", "a._b", "_reply.abc", "_reply._x", "amqx", "**", "a.##", strings.Repeat("x", 200)} {
		require.NoError(t, transport.CheckTopic(topic), "%q", topic)
	}
	for _, topic := range []string{"", ".", "a.", ".a", "a..b", "*", "#", "a.*", "a.#.b", "rpc", "rpc.x", "amq", "amq.topic",
		"_", "_x", "_x.a", "_reply", "_reply.", "_reply.*", "_reply.a.b", "_replyx.a", "a\nb", "a\x00", "a\x7f", "a\u0085b",
		"ä\x01", "a\xffb", "\xc0\x80", strings.Repeat("x", 201), strings.Repeat("ä", 100) + "x"} {
		err := transport.CheckTopic(topic)
		require.ErrorIs(t, err, transport.CodeInvalidArgument, "%q", topic)
		require.NotEmpty(t, transport.Public(err).Message, "%q: the text says what is wrong", topic)
	}
}

// legalTopic is the rule of CheckTopic once more, written without an eye for speed.
func legalTopic(topic string) bool {
	if len(topic) > 200 || !utf8.ValidString(topic) || strings.ContainsFunc(topic, unicode.IsControl) {
		return false
	}
	words := strings.Split(topic, ".")
	for _, w := range words {
		if w == "" || w == "*" || w == "#" {
			return false
		}
	}
	switch first := words[0]; {
	case first == "_reply":
		return len(words) == 2
	default:
		return first != "rpc" && first != "amq" && !strings.HasPrefix(first, "_")
	}
}

func FuzzCheckTopic(f *testing.F) {
	for _, seed := range []string{"", "a", "orders.placed", "a..b", "_reply.x", "_reply.x.y", "rpc.x", "a.*", "ä\u0085", "\xff",
		strings.Repeat("x", 201)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, topic string) {
		err := transport.CheckTopic(topic)
		if legal := legalTopic(topic); legal != (err == nil) {
			t.Fatalf("%q: legal %v, CheckTopic says %v", topic, legal, err)
		}
		if err != nil && transport.CodeOf(err) != transport.CodeInvalidArgument {
			t.Fatalf("%q: %v", topic, err)
		}
	})
}

func TestCheckID(t *testing.T) {
	for _, id := range []string{"1", "a b", "ä", "a.b/c", strings.Repeat("x", 128), transport.NewID()} {
		require.NoError(t, transport.CheckID(id), "%q", id)
	}
	for _, id := range []string{"", "a\n", "\x00", "a\x7f", "\u009f", "\xff", strings.Repeat("x", 129)} {
		require.ErrorIs(t, transport.CheckID(id), transport.CodeInvalidArgument, "%q", id)
	}
}

func TestNewID(t *testing.T) {
	pattern := regexp.MustCompile(`^[A-Za-z0-9_-]{16,64}$`)
	const goroutines, each = 8, 1000
	ids := make([][]string, goroutines)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			for range each {
				ids[i] = append(ids[i], transport.NewID())
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, some := range ids {
		for _, id := range some {
			require.False(t, seen[id], "%q came twice", id)
			require.Regexp(t, pattern, id)
			require.NoError(t, transport.CheckID(id))
			require.NotEqual(t, '-', rune(id[0]), "it would look like a flag")
			seen[id] = true
		}
	}
	require.Len(t, seen, goroutines*each)
	if !raceEnabled {
		require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _ = transport.NewID() }), 1.0)
	}
}

func TestHeaderNil(t *testing.T) {
	var h transport.Header
	require.Empty(t, h.Get("a"))
	require.Nil(t, h.Values("a"))
	require.Nil(t, h.Clone())
	require.Zero(t, h.Size())
	require.NoError(t, h.Check())
	h.Del("a")
	d, err := h.Millis(transport.HeaderTTL)
	require.NoError(t, err)
	require.Zero(t, d)
	at, err := h.Deadline()
	require.NoError(t, err)
	require.True(t, at.IsZero())
}

func TestHeaderMethodsFoldCase(t *testing.T) {
	h := transport.Header{}
	h.Set("Content-Type", "text/plain")
	h.Add("X-A", "1")
	h.Add("x-a", "2")
	require.Equal(t, transport.Header{"content-type": {"text/plain"}, "x-a": {"1", "2"}}, h)
	require.Equal(t, "text/plain", h.Get("CONTENT-TYPE"))
	require.Equal(t, "1", h.Get("X-a"), "Get returns the first")
	require.Equal(t, []string{"1", "2"}, h.Values("X-A"))
	h.Set("X-A", "3")
	require.Equal(t, []string{"3"}, h.Values("x-a"), "Set replaces")
	h.Del("X-A")
	require.NotContains(t, h, "x-a")
	h["empty"] = nil
	require.Empty(t, h.Get("empty"), "a key without values counts as absent")
}

func TestHeaderClone(t *testing.T) {
	h := transport.Header{"a": {"1", "2"}, "b": {"3"}}
	c := h.Clone()
	require.Equal(t, h, c)
	c.Set("b", "other")
	c["a"][0] = "other"
	c.Add("a", "more")
	c.Set("c", "new")
	require.Equal(t, transport.Header{"a": {"1", "2"}, "b": {"3"}}, h)
}

func TestHeaderSize(t *testing.T) {
	require.Equal(t, 0, transport.Header{"key": nil}.Size())
	require.Equal(t, len("key")+len("ä"), transport.Header{"key": {"ä"}}.Size())
	require.Equal(t, 2*len("key")+len("value"), transport.Header{"key": {"value", ""}}.Size(), "a key counts once for each value")
}

func TestHeaderCheck(t *testing.T) {
	limit := transport.DefaultMaxHeaderBytes
	for _, c := range []struct {
		name string
		h    transport.Header
		code transport.Code
	}{
		{"every legal character", transport.Header{"abcxyz_.-0189": {"v"}}, 0},
		{"key of 64 bytes", transport.Header{strings.Repeat("k", 64): {"v"}}, 0},
		{"no values", transport.Header{"k": nil}, 0},
		{"empty value", transport.Header{"k": {""}}, 0},
		{"control characters in a value", transport.Header{"k": {"a\r\nb\x00"}}, 0},
		{"raw bytes under -bin", transport.Header{"k-bin": {"\xff\xfe"}}, 0},
		{"exactly the limit", transport.Header{"k": {strings.Repeat("v", limit-1)}}, 0},
		{"one over the limit", transport.Header{"k": {strings.Repeat("v", limit)}}, transport.CodeResourceExhausted},
		{"one over the limit in two values", transport.Header{"k": {strings.Repeat("v", limit-2), ""}, "l": {""}}, transport.CodeResourceExhausted},
		{"empty key", transport.Header{"": {"v"}}, transport.CodeInvalidArgument},
		{"upper case", transport.Header{"Key": {"v"}}, transport.CodeInvalidArgument},
		{"space", transport.Header{"a b": {"v"}}, transport.CodeInvalidArgument},
		{"colon", transport.Header{":path": {"v"}}, transport.CodeInvalidArgument},
		{"line break in a key", transport.Header{"a\r\nb": {"v"}}, transport.CodeInvalidArgument},
		{"not ASCII", transport.Header{"ä": {"v"}}, transport.CodeInvalidArgument},
		{"key of 65 bytes", transport.Header{strings.Repeat("k", 65): {"v"}}, transport.CodeInvalidArgument},
		{"illegal key without values", transport.Header{"K": nil}, transport.CodeInvalidArgument},
		{"value not UTF-8", transport.Header{"k": {"ok", "secret\xff"}}, transport.CodeInvalidArgument},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.h.Check()
			require.Equal(t, c.code, transport.CodeOf(err), "%v", err)
			if err != nil {
				require.NotContains(t, err.Error(), "secret", "values are not repeated")
			}
		})
	}
	require.ErrorContains(t, transport.Header{"the-key": {"\xff"}}.Check(), "the-key", "the error names the key")
}

func FuzzHeaderCheck(f *testing.F) {
	f.Add("content-type", "text/plain")
	f.Add("k-bin", "\xff")
	f.Add("K", "v")
	f.Add("", "")
	f.Add("ä", "\xff")
	legal := regexp.MustCompile(`^[a-z0-9_.-]{1,64}$`)
	f.Fuzz(func(t *testing.T, key, value string) {
		err := transport.Header{key: {value}}.Check()
		var want transport.Code
		switch {
		case !legal.MatchString(key) || strings.HasSuffix(key, "\n"):
			want = transport.CodeInvalidArgument
		case !strings.HasSuffix(key, "-bin") && !utf8.ValidString(value):
			want = transport.CodeInvalidArgument
		case len(key)+len(value) > transport.DefaultMaxHeaderBytes:
			want = transport.CodeResourceExhausted
		}
		if got := transport.CodeOf(err); got != want {
			t.Fatalf("%q: %q: %v, want %v", key, value, err, want)
		}
	})
}

func TestHeaderMillis(t *testing.T) {
	for value, want := range map[string]time.Duration{"0": 0, "1": time.Millisecond, "1500": 1500 * time.Millisecond,
		"9223372036854": 9223372036854 * time.Millisecond} {
		d, err := transport.Header{"ttl": {value}}.Millis("TTL")
		require.NoError(t, err, value)
		require.Equal(t, want, d, value)
	}
	for _, value := range []string{"", "-1", "+1", "1.5", "1s", " 1", "9223372036855", "99999999999999999999"} {
		_, err := transport.Header{"ttl": {value}}.Millis("ttl")
		require.ErrorIs(t, err, transport.CodeInvalidArgument, "%q", value)
		require.ErrorContains(t, err, "ttl", "the error names the key")
	}
	for d, want := range map[time.Duration]string{0: "0", -time.Second: "0", 1: "1", time.Millisecond: "1",
		time.Millisecond + 1: "2", time.Hour: "3600000", math.MaxInt64: "9223372036855", math.MinInt64: "0"} {
		h := transport.Header{}
		h.SetMillis("Delay", d)
		require.Equal(t, want, h.Get("delay"), "%d rounds up", int64(d))
	}
}

func TestHeaderDeadline(t *testing.T) {
	at := time.Date(2031, 2, 3, 4, 5, 6, 789, time.FixedZone("", 3600))
	h := transport.Header{}
	h.SetDeadline(at)
	require.Equal(t, "2031-02-03T03:05:06.000000789Z", h.Get(transport.HeaderDeadline), "UTC")
	got, err := h.Deadline()
	require.NoError(t, err)
	require.True(t, got.Equal(at))
	got, err = transport.Header{"deadline": {"2031-02-03T04:05:06+01:00"}}.Deadline()
	require.NoError(t, err)
	require.True(t, got.Equal(at.Truncate(time.Second)))
	for _, value := range []string{"", "tomorrow", "2031-02-03", "1700000000"} {
		_, err := transport.Header{"deadline": {value}}.Deadline()
		require.ErrorIs(t, err, transport.CodeInvalidArgument, "%q", value)
	}
}

func TestMessageCheck(t *testing.T) {
	sized := func(n int) *transport.Message { // n bytes in all
		m := &transport.Message{ID: "not counted", Topic: "topic", Header: transport.Header{"k": {"v"}}}
		m.Body = make([]byte, n-m.Size())
		return m
	}
	for _, c := range []struct {
		name string
		m    *transport.Message
		max  int
		code transport.Code
	}{
		{"empty", &transport.Message{}, 0, 0},
		{"the topic is not looked at", &transport.Message{Topic: "rpc"}, 0, 0},
		{"default limit", sized(transport.DefaultMaxBytes), 0, 0},
		{"one over the default limit", sized(transport.DefaultMaxBytes + 1), 0, transport.CodeResourceExhausted},
		{"negative is the default", sized(transport.DefaultMaxBytes + 1), -1, transport.CodeResourceExhausted},
		{"exact limit", sized(100), 100, 0},
		{"one over", sized(101), 100, transport.CodeResourceExhausted},
		{"larger limit", sized(2 << 20), 2 << 20, 0},
		{"the header has its own limit", &transport.Message{Header: transport.Header{"k": {strings.Repeat("v", 16<<10)}}}, 2 << 20, transport.CodeResourceExhausted},
		{"nil", nil, 0, transport.CodeInvalidArgument},
		{"ID", &transport.Message{ID: "a\n"}, 0, transport.CodeInvalidArgument},
		{"header", &transport.Message{Header: transport.Header{"K": {"v"}}}, 0, transport.CodeInvalidArgument},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.m.Check(c.max)
			require.Equal(t, c.code, transport.CodeOf(err), "%v", err)
		})
	}
	if m := sized(100); !raceEnabled {
		require.Zero(t, testing.AllocsPerRun(100, func() { _ = m.Check(0) }))
	}
}

func TestMessageSize(t *testing.T) {
	m := &transport.Message{ID: "id", Topic: "ab", Header: transport.Header{"k": {"vv", ""}}, Body: []byte("xyz")}
	require.Equal(t, 2+4+3, m.Size())
}

func TestMessageClone(t *testing.T) {
	m := &transport.Message{ID: "id", Topic: "a", Header: transport.Header{"k": {"v"}}, Body: []byte("body")}
	c := m.Clone()
	require.Equal(t, m, c)
	require.Same(t, &m.Body[0], &c.Body[0], "Body is shared")
	c.ID, c.Topic, c.Body = "other", "b", nil
	c.Header.Set("k", "other")
	require.Equal(t, &transport.Message{ID: "id", Topic: "a", Header: transport.Header{"k": {"v"}}, Body: []byte("body")}, m)

	c = (&transport.Message{}).Clone()
	require.NotNil(t, c.Header, "a clone's Header can be written")
	c.Header.Set("k", "v")
}
