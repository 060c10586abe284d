package pipe

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

// raw returns a frame with this head and body.
func raw(head, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(head)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(append(b, head...), body...)
}

func TestSampleInTheDoc(t *testing.T) {
	call := &frame{Type: "call", ID: 7, Topic: "echo", Message: "a1", Timeout: time.Second, Body: []byte("hello")}
	b, err := appendFrame(nil, call)
	require.NoError(t, err)
	require.Equal(t, "\x00\x00\x00\x49\x00\x00\x00\x05"+`{"type":"call","id":7,"topic":"echo","timeout":1000000000,"message":"a1"}hello`, string(b))
	b, err = appendFrame(nil, &frame{Type: "done", ID: 7, Body: []byte("hello")})
	require.NoError(t, err)
	require.Equal(t, "\x00\x00\x00\x16\x00\x00\x00\x05"+`{"type":"done","id":7}hello`, string(b))
}

func TestFramesComeBack(t *testing.T) {
	for _, f := range []*frame{
		{Type: "publish", ID: 1, Topic: "ä.b", Message: "id", Header: transport.Header{"a": {"1", "<&>\u2028"}, "raw-bin": {"\x00\xff", ""}}, Body: []byte{0, 0xff}},
		{Type: "subscribe", ID: 3, Topic: "t", Options: transport.SubscribeOptions{Group: "g", From: "c", DeadLetter: "d",
			MaxAttempts: 3, Buffer: 4, Overflow: transport.DropOldest, Require: transport.Ordered | transport.Replay}},
		{Type: "event", ID: 3, Cursor: "c", Attempt: 2, Missed: 1 << 63, Tag: 9},
		{Type: "credit", ID: 3, N: 32},
		{Type: "done", ID: 5, Error: &wireError{Code: transport.CodeAborted, Reason: "R", Message: "m",
			Details: []transport.Detail{{Type: "t", Value: []byte{1, 0}}}, RetryAfter: time.Minute, Header: transport.Header{"x-bin": {"\xfe"}}}},
	} {
		b, err := appendFrame([]byte("before"), f)
		require.NoError(t, err)
		got, err := readFrame(bytes.NewReader(b[len("before"):]), transport.DefaultMaxBytes)
		require.NoError(t, err)
		require.Equal(t, f, got)
	}
}

func TestLargestFrames(t *testing.T) {
	// Control characters are what JSON makes longest.
	header := transport.Header{"k": {strings.Repeat("\x01", transport.DefaultMaxHeaderBytes-1)}}
	text := strings.Repeat("\x01", transport.DefaultMaxHeaderBytes)
	f := &frame{Type: "done", Header: header, Error: publicError(&transport.Error{Code: 1, Message: text, Header: header})}
	require.Equal(t, text, f.Error.Message)
	b, err := appendFrame(nil, f)
	require.NoError(t, err)
	_, err = readFrame(bytes.NewReader(b), transport.DefaultMaxBytes)
	require.NoError(t, err)
	e := publicError(&transport.Error{Code: transport.CodeNotFound, Message: text + "!", RetryAfter: time.Second})
	require.Equal(t, &wireError{Code: transport.CodeNotFound, RetryAfter: time.Second}, e)
}

func TestIllegalFrames(t *testing.T) {
	for name, data := range map[string][]byte{
		"cut size":      {0, 0, 0},
		"huge head":     {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"huge body":     {0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, '{', '}'},
		"cut head":      {0, 0, 0, 9, 0, 0, 0, 0, '{'},
		"cut body":      raw(`{}`, "body")[:11],
		"no JSON":       raw(`{"type"`, ""),
		"array":         raw(`[]`, ""),
		"negative id":   raw(`{"id":-1}`, ""),
		"header key":    raw(`{"header":{"Bad Key":["x"]}}`, ""),
		"binary":        raw(`{"header":{"a-bin":["not base64!"]}}`, ""),
		"error binary":  raw(`{"error":{"header":{"a-bin":["%"]}}}`, ""),
		"error header":  raw(`{"error":{"header":{"A":["x"]}}}`, ""),
		"large header":  raw(`{"header":{"a":["`+strings.Repeat("x", 17<<10)+`"]}}`, ""),
		"message ID":    raw(`{"message":"`+strings.Repeat("x", 129)+`"}`, ""),
		"cursor":        raw(`{"cursor":"`+strings.Repeat("x", 129)+`"}`, ""),
		"credit":        raw(`{"n":-1}`, ""),
		"much too deep": raw(strings.Repeat("[", 100_000), ""),
	} {
		_, err := readFrame(bytes.NewReader(data), 1000)
		require.Error(t, err, name)
		require.NotEqual(t, io.EOF, err, name)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(raw(`{"type":"call","id":7,"topic":"echo","timeout":1000000000,"message":"a1"}`, "hello"))
	f.Add(raw(`{"type":"done","id":5,"error":{"code":"aborted","header":{"x-bin":["/g=="]},"details":[{"Type":"t","Value":"AQA="}]}}`, ""))
	f.Add(raw(`{"type":"subscribe","options":{"Group":"g","Require":3}}`, ""))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := readFrame(bytes.NewReader(data), 1<<16)
		if err != nil {
			return
		}
		b, err := appendFrame(nil, got)
		if err != nil { // JSON may be longer than it came
			require.ErrorIs(t, err, transport.CodeResourceExhausted)
			return
		}
		again, err := readFrame(bytes.NewReader(b), 1<<16)
		require.NoError(t, err)
		x, _ := json.Marshal(got)
		y, _ := json.Marshal(again)
		require.Equal(t, string(x), string(y))
		require.Equal(t, got.Body, again.Body)
	})
}

// FuzzServeConn sends whatever there is to a server and its transport, and to a client.
func FuzzServeConn(f *testing.F) {
	frames := func(heads ...string) (b []byte) {
		for _, head := range heads {
			b = append(b, raw(head, "body")...)
		}
		return b
	}
	f.Add(frames(`{"type":"subscribe","id":3,"topic":"t","options":{"Group":"g"}}`, `{"type":"publish","id":5,"topic":"t"}`,
		`{"type":"settle","id":3,"tag":1}`, `{"type":"settle","id":3,"tag":1}`, `{"type":"stop","id":3}`, `{"type":"credit","id":3,"n":9}`))
	f.Add(frames(`{"type":"respond","id":3,"topic":"t"}`, `{"type":"call","id":5,"topic":"t","timeout":1}`, `{"type":"done","id":2}`,
		`{"type":"call","id":5,"topic":"t"}`, `{"type":"stop","id":5}`))
	f.Add(frames(`{"type":"accept","id":3,"topic":"t"}`, `{"type":"open","id":5,"topic":"t"}`, `{"type":"active","id":2}`,
		`{"type":"item","id":2}`, `{"type":"item","id":5}`, `{"type":"credit","id":5,"n":9223372036854775807}`, `{"type":"eof","id":5}`,
		`{"type":"header","id":2,"header":{"a":["b"]}}`, `{"type":"done","id":5}`, `{"type":"done","id":2,"error":{"code":"ok"}}`))
	f.Add(frames(`{"type":"active","id":3}`, `{"type":"active","id":3,"n":1}`, `{"type":"event","id":3}`, `{"type":"event","id":3}`, `{"type":"call","id":2,"for":3}`))
	f.Add(frames(`{"type":"call","id":2,"for":3}`, `{"type":"open","id":4,"for":5}`, `{"type":"unknown","id":7}`, `{"type":"ping","id":9}`, `{"type":"done"}`))
	f.Add(frames(`{"type":"event","id":3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b := mem.New(nil)
		defer b.Close()
		hostile := func() net.Conn {
			near, far := net.Pipe()
			go io.Copy(io.Discard, near)
			go func() {
				near.Write(data)
				near.Close()
			}()
			return far
		}
		NewServer(b, nil).ServeConn(context.Background(), hostile())
		c := NewClient(hostile(), nil)
		sub, err := c.Subscribe(context.Background(), "t")
		if err == nil {
			for err == nil {
				_, err = sub.Next(context.Background())
			}
			sub.Close()
		}
		c.Respond(context.Background(), "t")
		c.Open(context.Background(), "t", nil)
		require.NoError(t, c.Close())
		if err != nil && err != io.EOF {
			var e *transport.Error
			require.True(t, errors.As(err, &e), "%v", err)
		}
	})
}
