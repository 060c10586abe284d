package ws_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/ws"
)

// Opcodes, with FIN.
const (
	opText   = 0x81
	opBinary = 0x82
	opClose  = 0x88
	opPing   = 0x89
	opPong   = 0x8a
	fin      = 0x80
)

// frame returns a masked frame. head is its first byte.
func frame(head byte, payload string) string { return masked(head, len(payload)) + mask(payload) }

// masked returns the head of a frame that says it has n bytes.
func masked(head byte, n int) string {
	b := []byte{head}
	switch {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	return string(append(b, mask4...))
}

const mask4 = "\x11\x22\x33\x44"

func mask(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] ^= mask4[i%4]
	}
	return string(b)
}

// texts returns text frames.
func texts(all ...string) string {
	var b strings.Builder
	for _, s := range all {
		b.WriteString(frame(opText, s))
	}
	return b.String()
}

// goodbye is the payload of a close frame.
func goodbye(code int, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason
}

// A intruder is a client that says what it likes.
type intruder struct {
	net.Conn
	r *bufio.Reader
}

// handshake is a good one, with a field more.
func handshake(field string) string {
	return "GET /ws HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + field + "\r\n"
}

const version13 = "Sec-WebSocket-Version: 13\r\n"

// reach connects without a handshake.
func reach(t testing.TB, s *site) *intruder {
	nc, err := net.Dial("tcp", s.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close() })
	require.NoError(t, nc.SetDeadline(time.Now().Add(20*time.Second)))
	return &intruder{nc, bufio.NewReaderSize(nc, 512)}
}

// intrude makes a WebSocket.
func intrude(t testing.TB, s *site) *intruder {
	c := reach(t, s)
	io.WriteString(c, handshake(version13))
	resp, err := http.ReadResponse(c.r, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	return c
}

// next reads a frame.
func (c *intruder) next() (head byte, payload []byte, err error) {
	var h [2]byte
	if _, err := io.ReadFull(c.r, h[:]); err != nil {
		return 0, nil, err
	}
	n := uint64(h[1])
	if n >= 126 {
		size := make([]byte, 8)
		if _, err := io.ReadFull(c.r, size[8-2<<(2*(n-126)):]); err != nil {
			return 0, nil, err
		}
		n = binary.BigEndian.Uint64(size)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(c.r, payload)
	return h[0], payload, err
}

// transcript reads until the connection ends, or the server waits for a close frame, and says what came. It answers a
// close frame.
func (c *intruder) transcript() string {
	var said []string
	for {
		head, payload, err := c.next()
		switch {
		case err == io.EOF:
			return strings.Join(append(said, "end"), ", ")
		case err != nil:
			return strings.Join(append(said, err.Error()), ", ")
		case head == opText:
			said = append(said, string(payload))
		case head == opPong:
			said = append(said, "pong "+string(payload))
		case head == opClose && len(payload) >= 2:
			io.WriteString(c, frame(opClose, string(payload[:2])))
			return strings.Join(append(said, fmt.Sprint(binary.BigEndian.Uint16(payload))), ", ")
		case head == opClose:
			return strings.Join(append(said, "close"), ", ")
		default:
			said = append(said, fmt.Sprintf("%#x %q", head, payload))
		}
	}
}

// A witness is an ordinary client that uses the same server at the same time. It demands an answer to each call in time.
type witness struct {
	stop  chan struct{}
	done  chan error
	calls atomic.Int64
	worst atomic.Int64
}

// inTime is for a machine that does other things as well.
const inTime = 3 * time.Second

func witnessed(t testing.TB, s *site) *witness {
	c := dial(t, s.URL, nil)
	w := &witness{stop: make(chan struct{}), done: make(chan error, 1)}
	go func() {
		for {
			ctx, cancel := context.WithTimeout(context.Background(), inTime)
			began := time.Now()
			reply, err := c.Call(ctx, &transport.Message{Topic: "echo", Body: []byte(`{"still":"there"}`)})
			cancel()
			if err == nil && string(reply.Body) != `{"still":"there"}` {
				err = fmt.Errorf("the reply is %s", reply.Body)
			}
			if err != nil {
				w.done <- err
				return
			}
			w.calls.Add(1)
			w.worst.Store(max(w.worst.Load(), int64(time.Since(began))))
			select {
			case <-w.stop:
				w.done <- nil
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return w
}

// content waits for one more answer, and ends the witness.
func (w *witness) content(t testing.TB) {
	close(w.stop)
	require.NoError(t, <-w.done, "another client was disturbed")
	t.Logf("another client had %d answers meanwhile, the slowest in %v", w.calls.Load(), time.Duration(w.worst.Load()))
}

// theatre is a server with a responder at "echo", which an ordinary client uses until the test ends.
func theatre(t *testing.T, o *ws.Options) *site {
	bus := backend(t)
	s := serve(t, bus, o)
	respond(t, bus, "echo", echo)
	w := witnessed(t, s)
	t.Cleanup(func() { w.content(t) })
	return s
}

// echo answers with the body of the call, and with an ID because a bus would give one.
func echo(_ context.Context, m *transport.Message) (*transport.Message, error) {
	return &transport.Message{ID: "reply", Body: m.Body}, nil
}

// respond serves a topic until the test ends.
func respond(t testing.TB, r transport.Responder, topic string, h transport.Handler) {
	sub, err := r.Respond(context.Background(), topic)
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- transport.Serve(context.Background(), sub, h) }()
	t.Cleanup(func() {
		require.NoError(t, sub.Close())
		require.NoError(t, <-served)
	})
}

// TestHostileFrames says what RFC 6455 and Unicode forbid, and what they allow although it is odd, and looks at what
// comes back: texts, pongs, and at last the close code, or "end" where there is none.
func TestHostileFrames(t *testing.T) {
	s := theatre(t, &ws.Options{MaxBytes: 64 << 10})
	const (
		call   = `{"jsonrpc":"2.0","method":"echo","params":{"a":"ä"},"id":1}`
		answer = `{"jsonrpc":"2.0","id":1,"result":{"a":"ä"},"meta":{"id":"reply"}}`
	)
	cut := strings.Index(call, "ä") + 1 // within the code point
	bye := frame(opClose, goodbye(1000, ""))
	huge := strings.Repeat("x", 1<<20)
	for _, c := range []struct{ name, say, hear string }{
		{"nothing wrong", texts(call), answer + ", 1000"},
		{"fragments, a ping between, a code point in two", frame(1, call[:cut]) + frame(opPing, "p") + frame(fin, call[cut:]),
			"pong p, " + answer + ", 1000"},
		{"empty fragments", frame(1, "") + frame(0, "") + frame(0, call) + frame(fin, ""), answer + ", 1000"},
		{"a byte in each fragment", frame(1, "") + func() (all string) {
			for _, b := range []byte(call) {
				all += frame(0, string([]byte{b}))
			}
			return all
		}() + frame(fin, ""), answer + ", 1000"},
		{"a pong nobody asked for", frame(opPong, "hello") + texts(call), answer + ", 1000"},
		{"a ping of 125 bytes", frame(opPing, huge[:125]), "pong " + huge[:125] + ", 1000"},

		{"invalid UTF-8", texts(`{"jsonrpc":"2.0","method":"echo","params":["` + "\xff" + `"]}`), "1007"},
		{"an overlong code point", texts("\"\xc0\xaf\""), "1007"},
		{"a surrogate", texts("\"\xed\xa0\x80\""), "1007"},
		{"beyond Unicode", texts("\"\xf4\x90\x80\x80\""), "1007"},
		{"a code point that does not end", texts("\"\xe2\x82"), "1007"},
		{"invalid UTF-8 in the second fragment", frame(1, `"a`) + frame(fin, "\xfe\""), "1007"},
		{"a code point whose end, in the next fragment, is wrong", frame(1, "\"\xe2") + frame(fin, "\x28\xa1\""), "1007"},
		{"invalid UTF-8, and the message does not end", frame(1, "\"\xff") + frame(0, "more"), "1007"},
		{"the same after 4 KiB", frame(1, huge[:4096]+"\xff"+huge[:4096]), "1007"},

		{"a reserved bit", frame(opText|0x40, call), "1002"},
		{"another", frame(opText|0x20, call), "1002"},
		{"the third", frame(opText|0x10, call), "1002"},
		{"a reserved opcode", frame(fin|3, call), "1002"},
		{"a reserved control opcode", frame(fin|0xb, call), "1002"},
		{"no mask", string([]byte{opText, byte(len(call))}) + call, "1002"},
		{"a continuation of nothing", frame(fin, call), "1002"},
		{"a continuation of what has ended", texts(`{"jsonrpc":"2.0","method":"t"}`) + frame(fin, call), "1002"},
		{"a new message within a message", frame(1, call[:9]) + texts(call), "1002"},
		{"a ping in fragments", frame(9, "p"), "1002"},
		{"a ping of 126 bytes", frame(opPing, huge[:126]), "1002"},
		{"a length beyond 2^63", "\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff" + mask4, "1002"},

		{"no close code", frame(opClose, ""), "close"},
		{"a close code of one byte", frame(opClose, "\x03"), "1002"},
		{"close code 999", frame(opClose, goodbye(999, "")), "1002"},
		{"close code 1005", frame(opClose, goodbye(1005, "")), "1002"},
		{"close code 1006", frame(opClose, goodbye(1006, "")), "1002"},
		{"close code 1015", frame(opClose, goodbye(1015, "")), "1002"},
		{"close code 2999", frame(opClose, goodbye(2999, "")), "1002"},
		{"close code 5000", frame(opClose, goodbye(5000, "")), "1002"},
		{"close code 4999", frame(opClose, goodbye(4999, "so long")), "4999"},
		{"a close frame in fragments", frame(8, goodbye(1000, "")), "1002"},
		{"a close reason of 124 bytes", frame(opClose, goodbye(1000, huge[:124])), "1002"},
		{"more after the close frame", bye + texts(call), "1000"},

		{"binary", frame(opBinary, call), "1003"},
		{"a huge frame", texts(huge), "1009"},
		{"a huge message in fragments", frame(1, huge[:200<<10]) + frame(0, huge[:200<<10]) + frame(fin, huge), "1009"},
		{"a declared length of 2^62 and some of it", "\x81\xff\x40\x00\x00\x00\x00\x00\x00\x00" + mask4 + mask(huge), "1009"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn := intrude(t, s)
			said := make(chan struct{})
			go func() { // the server may have heard enough before the end
				defer close(said)
				io.WriteString(conn, c.say)
			}()
			var heard string
			if hear, ok := strings.CutSuffix(c.hear, ", 1000"); ok { // says goodbye itself, once the answers are there
				var said []string
				for range strings.Count(hear, ", ") + 1 {
					head, payload, err := conn.next()
					require.NoError(t, err)
					said = append(said, map[byte]string{opText: "", opPong: "pong "}[head]+string(payload))
				}
				io.WriteString(conn, bye)
				heard = strings.Join(said, ", ") + ", " + conn.transcript()
			} else {
				heard = conn.transcript()
			}
			conn.Close()
			<-said
			require.Equal(t, c.hear, heard)
		})
	}
}

// TestHostileHandshakes expects the right status, and that what is no handshake becomes no connection.
func TestHostileHandshakes(t *testing.T) {
	s := theatre(t, nil)
	without := func(field string) string {
		lines := strings.SplitAfter(handshake(version13), "\r\n")
		for i, l := range lines {
			if strings.HasPrefix(l, field+":") {
				lines[i] = ""
			}
		}
		return strings.Join(lines, "")
	}
	for _, c := range []struct {
		name, say string
		status    int
	}{
		{"nothing wrong", handshake(version13), 101},
		{"the same host's origin", handshake(version13 + "Origin: http://example.com\r\n"), 101},
		{"a subprotocol that nobody knows", handshake(version13 + "Sec-WebSocket-Protocol: soap\r\n"), 101},
		{"an extension that nobody knows", handshake(version13 + "Sec-WebSocket-Extensions: x-teleport\r\n"), 101},
		{"another origin", handshake(version13 + "Origin: https://evil.example\r\n"), 403},
		{"an origin that only begins well", handshake(version13 + "Origin: http://example.com.evil.example\r\n"), 403},
		{"the origin null", handshake(version13 + "Origin: null\r\n"), 403},
		{"an origin that is no URL", handshake(version13 + "Origin: ://%zz\r\n"), 403},
		{"no version", handshake(""), 426},
		{"version 8", handshake("Sec-WebSocket-Version: 8\r\n"), 426},
		{"no upgrade", without("Upgrade"), 426},
		{"no connection", without("Connection"), 426},
		{"no key", without("Sec-WebSocket-Key"), 400},
		{"a short key", strings.Replace(handshake(version13), "dGhl", "", 1), 400},
		{"two keys", handshake(version13 + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400},
		{"POST", strings.Replace(handshake(version13), "GET", "POST", 1), 405},
		{"HTTP/1.0", strings.Replace(handshake(version13), "HTTP/1.1", "HTTP/1.0", 1), 426},
		{"a header without end", handshake(version13 + "X: " + strings.Repeat("x", 2<<20)), 431},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn := reach(t, s)
			go io.WriteString(conn, c.say)
			resp, err := http.ReadResponse(conn.r, nil)
			require.NoError(t, err)
			require.Equal(t, c.status, resp.StatusCode)
			if strings.Contains(c.name, "version") {
				require.Equal(t, "13", resp.Header.Get("Sec-Websocket-Version"))
			}
			if c.status == 426 {
				require.Equal(t, "websocket", strings.ToLower(resp.Header.Get("Upgrade") + "websocket")[:9])
			}
			if c.status == 101 {
				require.Equal(t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", resp.Header.Get("Sec-WebSocket-Accept"))
				require.Empty(t, resp.Header.Get("Sec-WebSocket-Protocol"))
				require.Empty(t, resp.Header.Get("Sec-WebSocket-Extensions"))
			}
			conn.Close()
		})
	}
	t.Run("a handshake that does not end", func(t *testing.T) {
		conn := reach(t, s)
		io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: example.com\r\nConnec")
	})
}

// TestHostileSilence has clients stop in the middle. They are cut off when the heartbeat is over.
func TestHostileSilence(t *testing.T) {
	s := theatre(t, &ws.Options{Heartbeat: 300 * time.Millisecond, WriteTimeout: 300 * time.Millisecond})
	const subscribe = `{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":"t"},"id":1}`
	for _, c := range []struct{ name, say string }{
		{"at once", ""},
		{"in a head", "\x81"},
		{"in a length", "\x81\xff\x00\x00"},
		{"in a mask", "\x81\x85\x01"},
		{"in a payload", masked(opText, 1000) + "abc"},
		{"in a payload of 2^62", "\x81\xff\x40\x00\x00\x00\x00\x00\x00\x00" + mask4 + "abc"},
		{"between fragments", frame(1, "{")},
		{"in a ping", masked(opPing, 100) + "abc"},
		{"in a close frame", masked(opClose, 100) + "a"},
		{"after subscribing", texts(subscribe)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn := intrude(t, s)
			began := time.Now()
			io.WriteString(conn, c.say)
			for {
				if _, _, err := conn.next(); err != nil {
					require.ErrorIs(t, err, io.EOF)
					break
				}
			}
			require.Less(t, time.Since(began), 5*time.Second)
		})
	}
}

// A gauge finds out the most memory and goroutines there are at a time.
type gauge struct {
	heap, routines uint64 // before
	most           struct{ heap, routines uint64 }
	stop, done     chan struct{}
}

func usage() (heap, routines uint64) {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/sched/goroutines:goroutines"}}
	metrics.Read(s)
	return s[0].Value.Uint64(), s[1].Value.Uint64()
}

func measure() *gauge {
	runtime.GC()
	g := &gauge{stop: make(chan struct{}), done: make(chan struct{})}
	g.heap, g.routines = usage()
	go func() {
		defer close(g.done)
		t := time.NewTicker(5 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-g.stop:
				return
			}
			heap, routines := usage()
			g.most.heap, g.most.routines = max(g.most.heap, heap), max(g.most.routines, routines)
		}
	}()
	return g
}

// end returns the most there was, beyond what there was before.
func (g *gauge) end() (heap, routines int) {
	close(g.stop)
	<-g.done
	return int(g.most.heap) - int(g.heap), int(g.most.routines) - int(g.routines)
}

// TestHostileFloods has clients ask for as much as they can, and read the answers or not. What the server holds for them
// is bounded, and in the end it is all gone.
func TestHostileFloods(t *testing.T) {
	request := func(method, params string) func(int) string {
		return func(i int) string {
			return texts(fmt.Sprintf(`{"jsonrpc":"2.0","method":%q,"params":%s,"id":%d}`, method,
				strings.ReplaceAll(params, "#", fmt.Sprint(i)), i+1))
		}
	}
	note := func(method, params string) func(int) string {
		return func(i int) string {
			return texts(fmt.Sprintf(`{"jsonrpc":"2.0","method":%q,"params":%s}`, method,
				strings.ReplaceAll(params, "#", fmt.Sprint(i))))
		}
	}
	const body = `{"some":"body of an ordinary size","number":#}`
	deep := texts(`{"jsonrpc":"2.0","method":"echo","params":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `,"id":1}`)
	batch := texts("[" + strings.Repeat(`{"jsonrpc":"2.0","method":"echo","id":7},`, 999) + `1]`)
	larger := texts("[" + strings.Repeat(`{"jsonrpc":"2.0","method":"echo","id":7},`, 20_000) + `1]`)
	nonsense := texts("[" + strings.Repeat(`1,`, 999) + `1]`)
	for _, f := range []struct {
		name string
		n    int
		say  func(i int) string
	}{
		{"subscribes", 2000, request("rpc.subscribe", `{"topic":"t#"}`)},
		{"subscribes to one topic", 2000, request("rpc.subscribe", `{"topic":"t","credit":1000000000}`)},
		{"group subscribes", 2000, request("rpc.subscribe", `{"topic":"t","group":"g#"}`)},
		{"responders", 2000, request("rpc.respond", `{"topic":"r#"}`)},
		{"acceptors", 2000, request("rpc.accept", `{"topic":"a#"}`)},
		{"subscribes and unsubscribes", 2000, func(i int) string {
			return request("rpc.subscribe", `{"topic":"t"}`)(2*i) + request("rpc.unsubscribe", fmt.Sprintf(`{"sub":%d}`, i+1))(2*i+1)
		}},
		{"unsubscribes of one subscription", 5000, func(i int) string {
			if i == 0 {
				return request("rpc.subscribe", `{"topic":"t"}`)(0)
			}
			return request("rpc.unsubscribe", `{"sub":1}`)(i)
		}},
		{"opens", 2000, func(i int) string {
			return request("rpc.open", fmt.Sprintf(`{"stream":%d,"topic":"nobody"}`, 2*i+1))(i)
		}},
		{"opens that are accepted, and items", 2000, func(i int) string {
			return request("rpc.open", fmt.Sprintf(`{"stream":%d,"topic":"accepted"}`, 2*i+1))(i) +
				strings.Repeat(note("rpc.stream", fmt.Sprintf(`{"stream":%d,"data":%q}`, 2*i+1, strings.Repeat("x", 1000)))(0), 5)
		}},
		{"items beyond the window", 5000, func(i int) string {
			if i == 0 {
				return request("rpc.open", `{"stream":1,"topic":"accepted"}`)(0)
			}
			return note("rpc.stream", `{"stream":1,"data":{"n":#}}`)(i)
		}},
		{"one stream again and again", 2000, request("rpc.open", `{"stream":1,"topic":"accepted"}`)},
		{"calls", 15_000, request("echo", body)},
		{"calls that are not answered", 15_000, request("never", body)},
		{"calls nobody answers", 15_000, request("nobody", body)},
		{"calls with one id", 5000, func(int) string { return request("never", body)(0) }},
		{"calls of 64 KiB", 200, request("echo", `{"x":"`+strings.Repeat("x", 64<<10)+`"}`)},
		{"calls and cancels", 5000, func(i int) string {
			return request("never", body)(i) + note("rpc.cancel", fmt.Sprintf(`{"id":%d}`, i+1))(0)
		}},
		{"events", 5000, note("t", body)},
		{"publishes", 5000, request("rpc.publish", `{"topic":"t","id":"#","data":1}`)},
		{"publishes again", 5000, request("rpc.publish", `{"topic":"t","id":"one","again":true,"data":1}`)},
		{"health", 15_000, request("rpc.ping", `{}`)},
		{"authentications", 5000, request("rpc.authenticate", `{"header":{"authorization":"#"}}`)},
		{"pings", 15_000, func(int) string { return frame(opPing, strings.Repeat("p", 125)) }},
		{"pongs", 5000, func(int) string { return frame(opPong, strings.Repeat("p", 125)) }},
		{"credits", 5000, note("rpc.credit", `{"sub":1,"n":9007199254740991}`)},
		{"credits of a stream", 5000, note("rpc.credit", `{"stream":1,"n":9007199254740991}`)},
		{"acknowledgements", 15_000, request("rpc.ack", `{"sub":1,"tag":#}`)},
		{"answers to nothing", 5000, func(i int) string { return texts(fmt.Sprintf(`{"jsonrpc":"2.0","result":1,"id":%d}`, i)) }},
		{"nesting", 20, func(int) string { return deep }},
		{"batches with one id", 20, func(int) string { return batch }},
		{"batches that are too large", 5, func(int) string { return larger }},
		{"batches of nonsense", 50, func(int) string { return nonsense }},
		{"batches with huge answers", 2, func(int) string {
			var calls []string
			for id := range 1000 {
				calls = append(calls, fmt.Sprintf(`{"jsonrpc":"2.0","method":"large","id":%d}`, id))
			}
			return texts("[" + strings.Join(calls, ",") + "]")
		}},
		{"batches with huge answers that do not end", 200, func(i int) string {
			return texts(fmt.Sprintf(`[{"jsonrpc":"2.0","method":"same","id":%d},{"jsonrpc":"2.0","method":"never","id":%d}]`, 2*i, 2*i+1))
		}},
		{"batches of nonsense that do not end", 300, func(i int) string {
			return texts("[" + strings.Repeat("1,", 999) + fmt.Sprintf(`{"jsonrpc":"2.0","method":"never","id":%d}]`, i))
		}},
		{"calls with huge replies", 2000, request("same", `{}`)},
		{"nonsense", 15_000, func(int) string { return texts("nonsense") }},
		{"empty fragments", 100_000, func(i int) string { return frame(0, "")[:6*min(i, 1)] + frame(1, "")[:6*(1-min(i, 1))] }},
	} {
		for _, reads := range []bool{true, false} {
			name := f.name
			if !reads {
				name += ", without reading"
			}
			t.Run(name, func(t *testing.T) { flood(t, f.n, f.say, reads) })
		}
	}
}

func flood(t *testing.T, n int, say func(int) string, reads bool) {
	bus := backend(t)
	release := make(chan struct{})
	s := serve(t, bus, &ws.Options{WriteTimeout: 500 * time.Millisecond, OnError: func(*transport.Message, error) {}})
	respond(t, bus, "echo", echo)
	respond(t, bus, "large", func(context.Context, *transport.Message) (*transport.Message, error) {
		return &transport.Message{Body: bytes.Repeat([]byte("x"), 1<<20)}, nil
	})
	same := bytes.Repeat([]byte("x"), 1<<20) // so that what is measured is the server's alone
	respond(t, bus, "same", func(context.Context, *transport.Message) (*transport.Message, error) {
		return &transport.Message{Body: same}, nil
	})
	respond(t, bus, "never", func(ctx context.Context, _ *transport.Message) (*transport.Message, error) {
		select {
		case <-ctx.Done():
		case <-release:
		}
		return nil, ctx.Err()
	})
	defer close(release)
	l, err := bus.Accept(context.Background(), "accepted")
	require.NoError(t, err)
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			if _, err := l.Next(context.Background()); err != nil { // and does nothing with it
				return
			}
		}
	}()
	defer func() {
		l.Close()
		<-accepted
	}()

	w := witnessed(t, s)
	g := measure()
	conn := intrude(t, s)
	if !reads {
		conn.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		if reads {
			io.Copy(io.Discard, conn.r)
		}
	}()
	var buf bytes.Buffer
	conn.SetWriteDeadline(time.Now().Add(3 * time.Second))
	said := 0
	for i := range n {
		buf.WriteString(say(i))
		if buf.Len() >= 32<<10 || i == n-1 {
			if _, err := conn.Write(buf.Bytes()); err != nil {
				break // the server has had enough
			}
			said = i + 1
			buf.Reset()
		}
	}
	enough := w.calls.Load() + 20 // time for the server to come to what was said last
	require.Eventually(t, func() bool { return w.calls.Load() > enough }, 20*time.Second, time.Millisecond)
	if reads && said == n {
		io.WriteString(conn, frame(opClose, ""))
		<-read
	}
	conn.Close()
	<-read
	w.content(t)
	heap, routines := g.end()
	t.Logf("said %d of %d; at most %.1f MB and %d goroutines more", said, n, float64(heap)/1e6, routines)
	require.Less(t, heap, 96<<20)
	require.Less(t, routines, 1500)
}

// TestHostileSlowReader floods a subscriber that does not read. It is cut off, or is told what it has missed once it
// reads, and nobody else waits for it.
func TestHostileSlowReader(t *testing.T) {
	const events = 2000
	for _, c := range []struct {
		name, options string
		timeout       time.Duration
		check         func(t *testing.T, c *intruder)
	}{
		{"is told of the end", ``, time.Minute, func(t *testing.T, c *intruder) {
			for {
				_, payload, err := c.next()
				require.NoError(t, err)
				if bytes.Contains(payload, []byte("rpc.end")) {
					require.Contains(t, string(payload), `"code":"resource_exhausted"`)
					return
				}
			}
		}},
		{"is told what it has missed", `,"overflow":"drop-oldest"`, time.Minute, func(t *testing.T, c *intruder) {
			for got := 0; got < events; {
				_, payload, err := c.next()
				require.NoError(t, err)
				var batch []json.RawMessage
				if json.Unmarshal(payload, &batch) != nil {
					batch = []json.RawMessage{payload}
				}
				for _, b := range batch {
					var e struct{ Params struct{ Missed int } }
					require.NoError(t, json.Unmarshal(b, &e))
					got += 1 + e.Params.Missed
				}
			}
		}},
		{"is cut off", `,"overflow":"drop-oldest"`, 300 * time.Millisecond, func(t *testing.T, c *intruder) {
			require.Eventually(t, func() bool {
				_, err := io.WriteString(c, frame(opPong, ""))
				return err != nil
			}, 10*time.Second, 10*time.Millisecond)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bus := backend(t)
			s := serve(t, bus, &ws.Options{WriteTimeout: c.timeout})
			quick, err := dial(t, s.URL, nil).Subscribe(within(t), "t", transport.Buffer(256))
			require.NoError(t, err)
			g := measure()
			conn := intrude(t, s)
			io.WriteString(conn, texts(`{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":"t"`+c.options+`},"id":1}`))
			_, _, err = conn.next()
			require.NoError(t, err)
			m := &transport.Message{Topic: "t", Body: bytes.Repeat([]byte("x"), 10<<10)}
			worst := time.Duration(0)
			for i := range events {
				began := time.Now()
				require.NoError(t, bus.Publish(within(t), m))
				d, err := quick.Next(within(t))
				require.NoError(t, err, i)
				require.NoError(t, d.Ack())
				worst = max(worst, time.Since(began))
			}
			c.check(t, conn)
			heap, _ := g.end()
			t.Logf("the slowest event of another subscriber took %v; at most %.1f MB more", worst, float64(heap)/1e6)
			require.Less(t, worst, inTime)
			require.Less(t, heap, 64<<20)
		})
	}
}
