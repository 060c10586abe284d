package ws

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func TestScan(t *testing.T) {
	for _, s := range []string{`0`, `-0`, `1.5e-7`, `1E+2`, `"a\"\\\/\b\f\n\r\t\u00eF"`, `"12345678"`, `"1234567\n"`, `{}`, `[]`, `[[],{}]`,
		`{"a":1,"b":[true,false,null]}`, ` [ 1 , { "a" : { } } ] `, strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)} {
		b := []byte(s)
		require.Equal(t, len(b), space(b, scan(b, 0)), s)
		require.True(t, json.Valid(b), s)
	}
	for _, s := range []string{``, ` `, `-`, `.5`, `1.`, `1e`, `1e+`, `tru`, `nul`, `"`, `"\`, `"\x"`, `"\u12"`, `"\u123g"`, "\"\n\"", `{`, `[`,
		`{a:1}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `[1,]`, `[,]`, `[1 2]`, `{"a":1 "b":2}`, `[1}`, `{"a":1]`,
		strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1)} {
		require.Negative(t, scan([]byte(s), 0), s)
	}
	for _, s := range []string{`01`, `1x`, `{}}`, `[]]`, `""""`} { // the rest is for the caller
		require.Less(t, scan([]byte(s), 0), len(s), s)
	}
}

// FuzzScan holds scan against encoding/json.
func FuzzScan(f *testing.F) {
	for _, s := range []string{`{"a":[1,-2.5e+3,true,false,null,"x\u0041\n"]}`, `[`, `"\ud800"`, ` 0 `, `{"a":{"b":[[]]}}`, "\"12345678\x1f\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if !utf8.Valid(b) || bytes.Count(b, []byte("["))+bytes.Count(b, []byte("{")) > maxDepth {
			return
		}
		end := scan(b, 0)
		require.Equal(t, json.Valid(b), end >= 0 && space(b, end) == len(b), "%q", b)
	})
}

// bodies are messages with the forms that their bodies have as params, and as anything else.
var bodies = []struct {
	m             transport.Message
	params, other form
}{
	{transport.Message{}, formNone, formNone},
	{transport.Message{Body: []byte(`{"a":1}`)}, formJSON, formJSON},
	{transport.Message{Body: []byte(`[ 1, 2 ]`)}, formJSON, formJSON},
	{transport.Message{Body: []byte(`7`)}, formText, formJSON},
	{transport.Message{Body: []byte(`null`)}, formText, formJSON},
	{transport.Message{Body: []byte(`"x"`)}, formText, formJSON},
	{transport.Message{Body: []byte(`{"a":1} `)}, formText, formText},
	{transport.Message{Body: []byte("\n{}")}, formText, formText},
	{transport.Message{Body: []byte(`{"a":1,}`)}, formText, formText},
	{transport.Message{Body: []byte("{\"a\":\"\xff\"}")}, formBase64, formBase64},
	{transport.Message{Body: []byte("hällo \u2028 \x7f")}, formText, formText},
	{transport.Message{Body: []byte("\x00\x01\x02\x03\x04")}, formBase64, formBase64},
	{transport.Message{Body: bytes.Repeat([]byte{1}, 100)}, formBase64, formBase64},
	{transport.Message{Body: []byte(`{"a":1}`), Header: transport.Header{"content-type": {"text/plain"}}}, formText, formText},
	{transport.Message{Body: []byte(`{"a":1}`), Header: transport.Header{"content-type": {"Application/Problem+JSON; charset=utf-8"}}}, formJSON, formJSON},
	{transport.Message{Body: []byte(`{}`), ID: "a\"b", Header: transport.Header{"x": {"1", "2"}, "y-bin": {"\xff"}}}, formJSON, formJSON},
	{transport.Message{Body: []byte(strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1))}, formText, formText},
}

// only decodes a frame of one object.
func only(t testing.TB, frame []byte, k kind) envelope {
	require.True(t, json.Valid(frame), "%s", frame)
	es, batch, ok := decode(nil, frame)
	require.True(t, ok)
	require.False(t, batch)
	require.Len(t, es, 1)
	require.Equal(t, k, es[0].kind)
	return es[0]
}

func TestMessages(t *testing.T) {
	for i, c := range bodies {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			require.Equal(t, c.params, formOf(&c.m, true))
			require.Equal(t, c.other, formOf(&c.m, false))
			m := c.m
			m.Topic = "a.\"b\""

			e := only(t, appendCall(nil, 7, &m, 1500*time.Microsecond, 3), request)
			require.Equal(t, m.Topic, string(e.method))
			require.Equal(t, "7", string(e.id))
			var f fields
			require.NoError(t, f.parse(e.meta))
			require.Equal(t, 2*time.Millisecond, f.timeout) // rounded up
			require.EqualValues(t, 3, f.sub)
			var got transport.Message
			require.NoError(t, f.message(&got, m.Topic, e.params, true, 0))
			require.Equal(t, m, got)

			e = only(t, appendReply(nil, `"id"`, &c.m), response)
			require.Equal(t, `"id"`, string(e.id))
			f, got = fields{}, transport.Message{}
			require.NoError(t, f.parse(e.meta))
			require.NoError(t, f.message(&got, "", e.result, false, 0))
			require.Equal(t, c.m, got)

			frame := append(appendMessage(appendNote(nil, "rpc.stream"), &c.m), closing...)
			e = only(t, frame, notification)
			f, got = fields{}, transport.Message{}
			require.NoError(t, f.parse(e.params))
			require.NoError(t, f.message(&got, "", f.data, false, 0))
			require.Equal(t, c.m, got)
		})
	}
}

func TestFields(t *testing.T) {
	o := transport.SubscribeOptions{Group: "g", From: "c", DeadLetter: "d", MaxAttempts: 3, Buffer: 4, Overflow: transport.DropOldest,
		Require: transport.Ordered | transport.Delays}
	e := only(t, append(appendOptions(appendRequest(nil, "rpc.subscribe", 1), o), closing...), request)
	var f fields
	require.NoError(t, f.parse(e.params))
	got, err := f.options()
	require.NoError(t, err)
	require.Equal(t, o, got)
	require.False(t, f.hasCredit)
	require.Equal(t, 1, f.attempt)

	for _, s := range []string{`[]`, `{"sub":-1}`, `{"sub":1.5}`, `{"sub":"1"}`, `{"sub":99999999999999999999}`, `{"cursor":1}`,
		`{"body":"x"}`, `{"body":1}`, `{"overflow":1}`, `{"overflow":"default"}`, `{"require":"ordered"}`, `{"require":[1]}`} {
		require.Error(t, new(fields).parse([]byte(s)), s)
	}
	require.NoError(t, new(fields).parse([]byte(`{"sub":null,"what":{},"require":[],"again":1,"credit":0}`)))
	for _, s := range []string{`{"maxAttempts":9999999999}`, `{"buffer":65537}`} {
		f = fields{}
		require.NoError(t, f.parse([]byte(s)))
		_, err = f.options()
		require.ErrorIs(t, err, transport.CodeInvalidArgument)
	}
}

func TestErrors(t *testing.T) {
	full := &transport.Error{Code: transport.CodeNotFound, Reason: "GONE", Message: "no \"x\"", RetryAfter: 1500 * time.Millisecond,
		Details: []transport.Detail{{Type: "t", Value: []byte{1}}}, Header: transport.Header{"x": {"y"}}, Remote: true}
	e := only(t, appendFailure(nil, "", -32005, full), response)
	require.Equal(t, "null", string(e.id))
	require.Equal(t, full, parseError(e.err))

	big := &transport.Error{Code: transport.CodeNotFound, Message: strings.Repeat("x", 20<<10), RetryAfter: time.Second, Remote: true}
	e = only(t, appendFailure(nil, "1", -32005, big), response)
	require.Equal(t, &transport.Error{Code: transport.CodeNotFound, RetryAfter: time.Second, Remote: true}, parseError(e.err))

	for s, want := range map[string]*transport.Error{
		`{"code":-32601,"message":"Method not found"}`:             {Code: transport.CodeUnimplemented, Message: "Method not found"},
		`{"code":-32700,"message":"Parse error","data":[1]}`:       {Code: transport.CodeInvalidArgument, Message: "Parse error"},
		`{"code":7,"message":"own","data":{"code":7,"detail":""}}`: {Code: transport.CodeUnknown, Message: "own"},
		`{"code":"x","message":1}`:                                 {Code: transport.CodeUnknown},
		`"no"`:                                                     {Code: transport.CodeUnknown},
		`{"data":{"code":"aborted","detail":"again"}}`:             {Code: transport.CodeAborted, Message: "again"},
	} {
		want.Remote = true
		require.Equal(t, want, parseError([]byte(s)), s)
	}
	require.NoError(t, parseProblem(nil))
	require.NoError(t, parseProblem([]byte("null")))
	require.ErrorIs(t, parseProblem([]byte(`{"code":"not_found"}`)), transport.CodeNotFound)
	require.ErrorIs(t, parseProblem([]byte(`7`)), transport.CodeUnknown)
}

// FuzzFrame decodes what a peer may send, all the way down.
func FuzzFrame(f *testing.F) {
	for _, c := range bodies {
		f.Add(appendCall(nil, 1, &c.m, time.Second, 2))
		f.Add(appendReply(nil, "1", &c.m))
		f.Add(append(appendMessage(appendUint(appendNote(nil, "rpc.event"), "sub", 1), &c.m), closing...))
	}
	f.Add(appendFailure(nil, "1", -32005, transport.Errorf(transport.CodeNotFound, "x")))
	f.Add([]byte(`[{"jsonrpc":"2.0","method":"rpc.ack","params":{"sub":1,"tag":2,"error":{"code":"aborted"}}},1,{}]`))
	f.Add([]byte(`{"jsonrpc":"2.0","method":"\u0061","params":null,"id":null,"meta":null,"error":null,"result":null}`))
	f.Add([]byte(`{"jsonrpc":"2.0","error":{"code":1e9,"data":{"code":"","header":{"a":[null]}}},"id":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !utf8.Valid(b) {
			return // such a frame has ended the connection
		}
		es, _, ok := decode(nil, b)
		if !ok {
			return
		}
		require.True(t, json.Valid(b), "%q", b)
		for _, e := range es {
			if e.err != nil {
				require.NoError(t, parseError(e.err).Header.Check())
			}
			e.responseID()
			for _, raw := range [][]byte{e.params, e.meta, e.result} {
				var f fields
				if f.parse(raw) != nil {
					continue
				}
				f.options()
				if f.err != nil {
					parseProblem(f.err)
				}
				f.streamHeader()
				for _, body := range [][]byte{f.data, e.result} {
					again(t, &f, body, false)
				}
				again(t, &f, e.params, true)
			}
		}
	})
}

// again reads a message, and reads it again from what it is written as.
func again(t *testing.T, f *fields, raw []byte, params bool) {
	var m, second transport.Message
	if f.message(&m, "", raw, params, 0) != nil {
		return
	}
	frame := append(appendMessage(appendNote(nil, "rpc.stream"), &m), closing...)
	e := only(t, frame, notification)
	g := fields{}
	require.NoError(t, g.parse(e.params))
	require.NoError(t, g.message(&second, "", g.data, false, 0))
	if len(m.Body) == 0 {
		m.Body = nil
	}
	require.Equal(t, m, second)
}

func TestUTF8(t *testing.T) {
	s := []byte("aé\u20ac\U0001f600")
	for cut := range s {
		end := complete(s[:cut], 0)
		require.True(t, utf8.Valid(s[:end]))
		require.Less(t, cut-end, utf8.UTFMax)
	}
	for _, bad := range []string{"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80", "a\x80"} {
		require.False(t, utf8.Valid([]byte(bad)[:complete([]byte(bad), 0)]), "%q", bad)
	}
}

func TestWindow(t *testing.T) {
	w := newWindow()
	a := w.key("", "t", "a")
	require.NotEqual(t, a, w.key("t", "", "a"))
	require.Equal(t, a, w.key("", "t", "a"))
	done, wait := w.seen(a)
	require.False(t, done)
	require.Nil(t, wait)
	w.begin(a, false)
	done, wait = w.seen(a)
	require.False(t, done)
	require.NotNil(t, wait)
	w.finish(a, nil)
	<-wait
	done, wait = w.seen(a)
	require.True(t, done)
	require.Nil(t, wait)
	for i := range windowEvents { // a half later it is still there, and after a whole one it is not
		w.begin(uint64(i), false)
	}
	done, _ = w.seen(a)
	require.True(t, done)
	for i := range windowEvents + 1 {
		w.begin(uint64(i)+windowEvents, false)
	}
	done, _ = w.seen(a)
	require.False(t, done)
	require.LessOrEqual(t, len(w.new)+len(w.old), 2*windowEvents)
	w.begin(a, false)
	w.finish(a, transport.CodeAborted)
	done, wait = w.seen(a)
	require.False(t, done)
	require.Nil(t, wait)
}
