package wire_test

import (
	"bufio"
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// overHTTP writes h as HTTP/1.1 does and reads it back.
func overHTTP(t *testing.T, h http.Header) http.Header {
	var b bytes.Buffer
	b.WriteString("POST /x HTTP/1.1\r\nHost: x\r\n")
	require.NoError(t, h.Write(&b))
	b.WriteString("\r\n")
	r, err := http.ReadRequest(bufio.NewReader(&b))
	require.NoError(t, err)
	return r.Header
}

func requireClean(t *testing.T, h http.Header) {
	for name, vs := range h {
		for _, v := range vs {
			if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("%s: %q", name, v)
			}
		}
	}
}

func TestSetHeader(t *testing.T) {
	h := http.Header{"X-Before": {"stays"}}
	wire.SetHeader(h, transport.Header{
		"content-type":    {"application/json"},
		"idempotency-key": {`a"b`},
		"x-tag":           {"a", "b c"},
		"x-bin":           {"\x00\xff"},
		"empty":           {""},
		"none":            {},
		"authorization":   {"secret"},
		"x.y":             {"1", "ü"},
		"status":          {"201"},
		"etag":            {`"7"`},
	}, "etag")
	require.Equal(t, http.Header{
		"X-Before":          {"stays"},
		"Content-Type":      {"application/json"},
		"Idempotency-Key":   {`"a\"b"`},
		"X-Tag":             {"a", "b c"},
		"X-Bin":             {"AP8"},
		"Intermodal-Header": {"authorization=secret,empty=~,status=201,x.y=1,x.y=~w7w"},
	}, h)

	h = http.Header{}
	wire.SetHeader(h, nil)
	require.Equal(t, http.Header{"Content-Type": nil}, h)
}

func TestHeaderRandomRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 1000 {
		want := randomHeader(r)
		h := http.Header{}
		wire.SetHeader(h, want)
		requireClean(t, h)
		got, peer, err := wire.SplitHeader(overHTTP(t, h))
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Empty(t, peer)

		got, err = wire.ParseHeaderList(string(wire.AppendHeaderList([]byte(nil), want)))
		require.NoError(t, err)
		sameHeader(t, want, got)

		got, err = wire.ParseJSONHeader(wire.AppendJSONHeader(nil, want))
		require.NoError(t, err)
		sameHeader(t, want, got)
	}
}

// The same through net/http itself, where fields that it sets are the peer's.
func TestHeaderOverNetHTTP(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h, peer, err := wire.SplitHeader(r.Header)
			if err != nil || peer.Get("authorization") != "Bearer real" || h.Get("authorization") == "Bearer real" {
				w.WriteHeader(500)
				return
			}
			wire.SetHeader(w.Header(), h)
		}))
		s.EnableHTTP2 = h2
		s.StartTLS()
		r := rand.New(rand.NewPCG(3, 3))
		for range 30 {
			want := randomHeader(r)
			q, err := http.NewRequest("POST", s.URL, strings.NewReader("x"))
			require.NoError(t, err)
			wire.SetHeader(q.Header, want)
			q.Header.Set("Authorization", "Bearer real")
			a, err := s.Client().Do(q)
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, a.Body)
			require.NoError(t, err)
			require.NoError(t, a.Body.Close())
			require.Equal(t, 200, a.StatusCode)
			require.Equal(t, h2, a.ProtoMajor == 2)
			got, _, err := wire.SplitHeader(a.Header)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
		s.Client().CloseIdleConnections()
		s.Close()
	}
}

func TestSplitForeignHeader(t *testing.T) {
	message, peer, err := wire.SplitHeader(http.Header{
		"Authorization":     {"Bearer x"},
		"Cookie":            {"a=b"},
		"Connection":        {"keep-alive, X-Hop"},
		"X-Hop":             {"1"},
		"X-Forwarded-For":   {"1.2.3.4"},
		"User-Agent":        {"curl"},
		"Sec-Fetch-Mode":    {"cors"},
		"Accept":            {"*/*"},
		"X_under.score":     {"kept"},
		"X-Latin":           {"caf\xe9"},
		"X-Utf8":            {"café"},
		"X-Bin":             {"AP8=, AQ", "not base64!"},
		"Idempotency-Key":   {"plain"},
		"Bad!Name":          {"dropped"},
		"Empty":             {},
		"Intermodal-Header": {"ttl=5000, Priority=7 ,,", "accept=text/plain"},
	})
	require.NoError(t, err)
	require.Equal(t, transport.Header{"accept": {"text/plain"}, "x_under.score": {"kept"}, "x-latin": {"café"}, "x-utf8": {"café"},
		"x-bin": {"\x00\xff", "\x01", "not base64!"}, "idempotency-key": {"plain"}, "ttl": {"5000"}, "priority": {"7"}}, message)
	require.Equal(t, transport.Header{"authorization": {"Bearer x"}, "cookie": {"a=b"}, "connection": {"keep-alive, X-Hop"},
		"x-hop": {"1"}, "x-forwarded-for": {"1.2.3.4"}, "user-agent": {"curl"}, "sec-fetch-mode": {"cors"}}, peer)

	_, _, err = wire.SplitHeader(http.Header{"Intermodal-Header": {"x"}})
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	_, _, err = wire.SplitHeader(http.Header{"X": {strings.Repeat("x", 17<<10)}})
	require.ErrorIs(t, err, transport.CodeResourceExhausted)
}

func TestParseHeaderListErrors(t *testing.T) {
	for _, s := range []string{"x", "=1", "ü=1", "a b=1", "x=~!", "x=~_w", "x=\xff", strings.Repeat("k", 65) + "=1"} {
		_, err := wire.ParseHeaderList(s)
		require.ErrorIs(t, err, transport.CodeInvalidArgument, "%q", s)
	}
	h, err := wire.ParseHeaderList(" , ")
	require.NoError(t, err)
	require.Nil(t, h)
	_, err = wire.ParseHeaderList("x=" + strings.Repeat("x", 17<<10))
	require.ErrorIs(t, err, transport.CodeResourceExhausted)
	require.Equal(t, "abc", string(wire.AppendHeaderList([]byte("abc"), nil)))
	require.Equal(t, `{"x":"y=1,z=2`, string(wire.AppendHeaderList([]byte(`{"x":"`), transport.Header{"z": {"2"}, "y": {"1"}})))
}

func TestParseJSONHeaderErrors(t *testing.T) {
	for _, s := range []string{"", "x", "[]", `"x"`, "7", `{"X":"1"}`, `{"":"1"}`, `{"x-bin":["!"]}`, `{"x":`} {
		_, err := wire.ParseJSONHeader([]byte(s))
		require.ErrorIs(t, err, transport.CodeInvalidArgument, "%q", s)
	}
	h, err := wire.ParseJSONHeader([]byte(` {"a" : [ "1" , 2 ] , "b" : "x" , "c" : null , "d" : [] , "e":{"f":1} } `))
	require.NoError(t, err)
	require.Equal(t, transport.Header{"a": {"1", "2"}, "b": {"x"}, "e": {`{"f":1}`}}, h)
	h, err = wire.ParseJSONHeader([]byte("null"))
	require.NoError(t, err)
	require.Nil(t, h)
}

func FuzzParseHeaderList(f *testing.F) {
	for _, s := range []string{"", "a=b", "a=~AA,b=c", "ttl=5000, x-bin=~_w", "=", ",,", "~=~", "x==~"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := wire.ParseHeaderList(s)
		if err != nil {
			return
		}
		require.NoError(t, h.Check())
		again, err := wire.ParseHeaderList(string(wire.AppendHeaderList(nil, h)))
		require.NoError(t, err)
		require.Equal(t, h, again)
	})
}

func FuzzParseJSONHeader(f *testing.F) {
	for _, s := range []string{"{}", `{"a":["b","\u0000"],"x-bin":["AA=="]}`, `{"a":1}`, "null", `{"\u0061":[]}`, `{"a":{"b":["c"]}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := wire.ParseJSONHeader(data)
		if err != nil {
			return
		}
		require.NoError(t, h.Check())
		again, err := wire.ParseJSONHeader(wire.AppendJSONHeader(nil, h))
		require.NoError(t, err)
		require.Equal(t, h, again)
	})
}

func FuzzSplitHeader(f *testing.F) {
	f.Add("X-A", "b", "Connection", "x-a")
	f.Add("X-Bin", "AA==, AQ", "Intermodal-Header", "x=~AA")
	f.Add("Idempotency-Key", `"a\"b"`, "Intermodal-Header", "x-bin=~_w,authorization=x")
	f.Add("Ce-Id", "\xff", "Idempotency-Key", `"\`)
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		h := http.Header{}
		h.Add(name1, value1)
		h.Add(name2, value2)
		message, peer, err := wire.SplitHeader(h)
		if err != nil {
			return
		}
		require.NoError(t, message.Check())
		require.LessOrEqual(t, peer.Size(), 2*(len(name1)+len(value1)+len(name2)+len(value2)))
		out := http.Header{}
		wire.SetHeader(out, message)
		requireClean(t, out)
		again, _, err := wire.SplitHeader(out)
		require.NoError(t, err)
		require.Equal(t, message, again)
	})
}
