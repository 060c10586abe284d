package ws_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/ws"
)

// A peer is a native peer: a WebSocket without anything of ours.
type peer struct {
	testing.TB
	*websocket.Conn
	ctx context.Context
}

func connect(t testing.TB, url string, o *websocket.DialOptions) *peer {
	ctx := within(t)
	c, _, err := websocket.Dial(ctx, url, o)
	require.NoError(t, err)
	c.SetReadLimit(4 << 20)
	t.Cleanup(func() { c.CloseNow() })
	return &peer{t, c, ctx}
}

func (p *peer) send(frames ...string) {
	p.Helper()
	for _, f := range frames {
		require.NoError(p, p.Write(p.ctx, websocket.MessageText, []byte(f)))
	}
}

func (p *peer) recv() string {
	p.Helper()
	kind, b, err := p.Read(p.ctx)
	require.NoError(p, err)
	require.Equal(p, websocket.MessageText, kind)
	require.True(p, json.Valid(b), "%s", b)
	return string(b)
}

// ask sends a frame and expects the answer, from which the members of error.data but code are taken.
func (p *peer) ask(frame, answer string) {
	p.Helper()
	p.send(frame)
	require.JSONEq(p, answer, p.brief(p.recv()))
}

// brief leaves of errors the number and the code.
func (p *peer) brief(frame string) string {
	var v any
	require.NoError(p, json.Unmarshal([]byte(frame), &v))
	all, ok := v.([]any)
	if !ok {
		all = []any{v}
	}
	for _, v := range all {
		if e, ok := v.(map[string]any)["error"].(map[string]any); ok {
			require.NotEmpty(p, e["message"])
			if data, ok := e["data"].(map[string]any); ok {
				e["data"] = data["code"]
			}
			delete(e, "message")
		}
	}
	b, err := json.Marshal(v)
	require.NoError(p, err)
	return string(b)
}

// closed expects the close code.
func (p *peer) closed(code websocket.StatusCode) websocket.CloseError {
	p.Helper()
	for {
		_, _, err := p.Read(p.ctx)
		if err == nil {
			continue // what was on its way
		}
		var c websocket.CloseError
		require.ErrorAs(p, err, &c)
		require.Equal(p, code, c.Code)
		return c
	}
}

func reply(body string) (*transport.Message, error) {
	return &transport.Message{Body: []byte(body)}, nil
}

// operations are those of the examples in the specification of JSON-RPC, section 7, and some more.
func operations(events chan<- string) transport.Transport {
	calls := transport.Mux{
		"subtract": func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			var a []int
			var o struct{ Minuend, Subtrahend int }
			if json.Unmarshal(m.Body, &a) == nil && len(a) == 2 {
				o.Minuend, o.Subtrahend = a[0], a[1]
			} else if err := json.Unmarshal(m.Body, &o); err != nil {
				return nil, transport.Wrap(err, transport.CodeInvalidArgument, "two numbers are needed")
			}
			return reply(fmt.Sprint(o.Minuend - o.Subtrahend))
		},
		"sum": func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			var a []int
			if err := json.Unmarshal(m.Body, &a); err != nil {
				return nil, transport.CodeInvalidArgument
			}
			n := 0
			for _, i := range a {
				n += i
			}
			return reply(fmt.Sprint(n))
		},
		"get_data": func(context.Context, *transport.Message) (*transport.Message, error) { return reply(`["hello",5]`) },
		"nothing":  func(context.Context, *transport.Message) (*transport.Message, error) { return nil, nil },
		"text": func(context.Context, *transport.Message) (*transport.Message, error) {
			return &transport.Message{Header: transport.Header{"content-type": {"text/plain"}}, Body: []byte("hello")}, nil
		},
		"bytes": func(context.Context, *transport.Message) (*transport.Message, error) { return reply("\xff\x00") },
		"spaced": func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			return &transport.Message{Body: m.Body}, nil
		},
		"missing": func(context.Context, *transport.Message) (*transport.Message, error) {
			return nil, transport.Errorf(transport.CodeNotFound, "there is no order 7")
		},
		"secret": func(context.Context, *transport.Message) (*transport.Message, error) {
			return nil, fmt.Errorf("the password is 1234")
		},
		"panics": func(context.Context, *transport.Message) (*transport.Message, error) { panic("oh") },
		"meta": func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			d, ok := ctx.Deadline()
			return reply(fmt.Sprintf(`{"id":%q,"x":%q,"deadline":%t}`, m.ID, m.Header.Get("x"), ok && time.Until(d) < time.Minute))
		},
		"waits": func(ctx context.Context, _ *transport.Message) (*transport.Message, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}
	publish := transport.Handler(func(_ context.Context, m *transport.Message) (*transport.Message, error) {
		if m.Topic == "refused" {
			return nil, transport.CodePermissionDenied
		}
		events <- m.Topic + " " + string(m.Body)
		return nil, nil
	})
	return transport.Join(transport.Parts{Caller: calls, Publisher: publish})
}

// TestSpecification has the examples of the specification, section 7.
func TestSpecification(t *testing.T) {
	events := make(chan string, 10)
	p := connect(t, serve(t, operations(events), nil).URL, nil)
	for _, c := range [][2]string{
		{`{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}`, `{"jsonrpc": "2.0", "result": 19, "id": 1}`},
		{`{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}`, `{"jsonrpc": "2.0", "result": -19, "id": 2}`},
		{`{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": "3"}`,
			`{"jsonrpc": "2.0", "result": 19, "id": "3"}`},
		{`{"jsonrpc": "2.0", "method": "foobar", "id": "1"}`,
			`{"jsonrpc": "2.0", "error": {"code": -32601, "data": "unimplemented"}, "id": "1"}`},
		{`{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]`,
			`{"jsonrpc": "2.0", "error": {"code": -32700, "data": "invalid_argument"}, "id": null}`},
		{`{"jsonrpc": "2.0", "method": 1, "params": "bar"}`,
			`{"jsonrpc": "2.0", "error": {"code": -32600, "data": "invalid_argument"}, "id": null}`},
		{`[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},{"jsonrpc": "2.0", "method"]`,
			`{"jsonrpc": "2.0", "error": {"code": -32700, "data": "invalid_argument"}, "id": null}`},
		{`[]`, `{"jsonrpc": "2.0", "error": {"code": -32600, "data": "invalid_argument"}, "id": null}`},
		{`[1]`, `[{"jsonrpc": "2.0", "error": {"code": -32600, "data": "invalid_argument"}, "id": null}]`},
		{`[1,2,3]`, `[{"jsonrpc": "2.0", "error": {"code": -32600, "data": "invalid_argument"}, "id": null},
			{"jsonrpc": "2.0", "error": {"code": -32600, "data": "invalid_argument"}, "id": null},
			{"jsonrpc": "2.0", "error": {"code": -32600, "data": "invalid_argument"}, "id": null}]`},
	} {
		p.ask(c[0], c[1])
	}
	p.send(`{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}`, `{"jsonrpc": "2.0", "method": "foobar"}`)
	require.Equal(t, "update [1,2,3,4,5]", <-events)
	require.Equal(t, "foobar ", <-events)

	p.send(`[
		{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
		{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
		{"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
		{"foo": "boo"},
		{"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
		{"jsonrpc": "2.0", "method": "get_data", "id": "9"}
	]`)
	require.Equal(t, "notify_hello [7]", <-events)
	var got []any
	require.NoError(t, json.Unmarshal([]byte(p.brief(p.recv())), &got))
	var want []any
	require.NoError(t, json.Unmarshal([]byte(`[
		{"jsonrpc": "2.0", "result": 7, "id": "1"},
		{"jsonrpc": "2.0", "result": 19, "id": "2"},
		{"jsonrpc": "2.0", "error": {"code": -32600, "data": "invalid_argument"}, "id": null},
		{"jsonrpc": "2.0", "error": {"code": -32601, "data": "unimplemented"}, "id": "5"},
		{"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}
	]`), &want))
	require.ElementsMatch(t, want, got)

	p.send(`[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]`)
	require.Equal(t, "notify_sum [1,2,4]", <-events)
	require.Equal(t, "notify_hello [7]", <-events)
	p.ask(`{"jsonrpc":"2.0","method":"rpc.ping","id":0}`, `{"jsonrpc":"2.0","result":null,"id":0}`) // nothing else came
}

// TestRequests has what the specification leaves open, and what is ours.
func TestRequests(t *testing.T) {
	events := make(chan string, 10)
	lost := make(chan string, 10)
	o := ws.Options{OnError: func(m *transport.Message, err error) { lost <- m.Topic + " " + transport.CodeOf(err).String() }}
	p := connect(t, serve(t, operations(events), &o).URL, nil)
	long := strings.Repeat("x", 200)
	for _, c := range [][2]string{
		// What is no request.
		{`{"method":"sum","params":[1],"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32600,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"1.0","method":"sum","id":1}`, `{"jsonrpc":"2.0","error":{"code":-32600,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"2.0","id":1}`, `{"jsonrpc":"2.0","error":{"code":-32600,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"sum","params":7,"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32600,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"sum","id":[1]}`, `{"jsonrpc":"2.0","error":{"code":-32600,"data":"invalid_argument"},"id":null}`},
		{`{"jsonrpc":"2.0","method":"sum","id":"` + long + `"}`, `{"jsonrpc":"2.0","error":{"code":-32600,"data":"invalid_argument"},"id":null}`},
		{`"hello"`, `{"jsonrpc":"2.0","error":{"code":-32600,"data":"invalid_argument"},"id":null}`},
		{``, `{"jsonrpc":"2.0","error":{"code":-32700,"data":"invalid_argument"},"id":null}`},
		{`{} {}`, `{"jsonrpc":"2.0","error":{"code":-32700,"data":"invalid_argument"},"id":null}`},
		{`{"jsonrpc":"2.0","method":"sum","id":01}`, `{"jsonrpc":"2.0","error":{"code":-32700,"data":"invalid_argument"},"id":null}`},
		// Ids.
		{`{"jsonrpc":"2.0","method":"sum","params":[1],"id":null}`, `{"jsonrpc":"2.0","result":1,"id":null}`},
		{`{"jsonrpc":"2.0","method":"sum","params":[1],"id":-1.5e3}`, `{"jsonrpc":"2.0","result":1,"id":-1.5e3}`},
		{`{"jsonrpc":"2.0","method":"sum","params":[1],"id":"\u00e9\n"}`, `{"jsonrpc":"2.0","result":1,"id":"é\n"}`},
		{` {"id" : 1 , "params":[1], "method" :"su\u006d","jsonrpc":"2.0","more":[{}]} `, `{"jsonrpc":"2.0","result":1,"id":1}`},
		// Methods.
		{`{"jsonrpc":"2.0","method":"","id":1}`, `{"jsonrpc":"2.0","error":{"code":-32601,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"a..b","id":1}`, `{"jsonrpc":"2.0","error":{"code":-32601,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"_x","id":1}`, `{"jsonrpc":"2.0","error":{"code":-32601,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"rpc.nothing","id":1}`, `{"jsonrpc":"2.0","error":{"code":-32601,"data":"unimplemented"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"rpc.nothing","params":["?"],"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32601,"data":"unimplemented"},"id":1}`},
		// Errors.
		{`{"jsonrpc":"2.0","method":"missing","id":1}`, `{"jsonrpc":"2.0","error":{"code":-32005,"data":"not_found"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"secret","id":1}`, `{"jsonrpc":"2.0","error":{"code":-32002,"data":"unknown"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"panics","id":1}`, `{"jsonrpc":"2.0","error":{"code":-32603,"data":"internal"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"sum","params":{},"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32602,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"waits","id":1,"meta":{"timeout":1}}`, `{"jsonrpc":"2.0","error":{"code":-32004,"data":"deadline_exceeded"},"id":1}`},
		// Bodies.
		{`{"jsonrpc":"2.0","method":"nothing","params":null,"id":1}`, `{"jsonrpc":"2.0","result":null,"id":1,"meta":{"body":"none"}}`},
		{`{"jsonrpc":"2.0","method":"text","id":1}`, `{"jsonrpc":"2.0","result":"hello","id":1,"meta":{"body":"text","header":{"content-type":["text/plain"]}}}`},
		{`{"jsonrpc":"2.0","method":"bytes","id":1}`, `{"jsonrpc":"2.0","result":"/wA=","id":1,"meta":{"body":"base64"}}`},
		{`{"jsonrpc":"2.0","method":"spaced","params":["[1]\n"],"id":1,"meta":{"body":"text"}}`, `{"jsonrpc":"2.0","result":"[1]\n","id":1,"meta":{"body":"text"}}`},
		{`{"jsonrpc":"2.0","method":"spaced","params":["WzFd"],"id":1,"meta":{"body":"base64"}}`, `{"jsonrpc":"2.0","result":[1],"id":1}`},
		{`{"jsonrpc":"2.0","method":"spaced","params":["?"],"id":1,"meta":{"body":"base64"}}`, `{"jsonrpc":"2.0","error":{"code":-32602,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"spaced","params":{},"id":1,"meta":{"body":"text"}}`, `{"jsonrpc":"2.0","error":{"code":-32602,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"spaced","params":{},"id":1,"meta":{"body":"morse"}}`, `{"jsonrpc":"2.0","error":{"code":-32602,"data":"invalid_argument"},"id":1}`},
		// Metadata.
		{`{"jsonrpc":"2.0","method":"meta","id":1,"meta":{"id":"m1","header":{"x":"y"},"timeout":5000}}`, `{"jsonrpc":"2.0","result":{"id":"m1","x":"y","deadline":true},"id":1}`},
		{`{"jsonrpc":"2.0","method":"meta","id":1,"meta":7}`, `{"jsonrpc":"2.0","result":{"id":"","x":"","deadline":false},"id":1}`},
		{`{"jsonrpc":"2.0","method":"meta","id":1,"meta":{"header":{"X!":"y"}}}`, `{"jsonrpc":"2.0","error":{"code":-32602,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"meta","id":1,"meta":{"id":7}}`, `{"jsonrpc":"2.0","error":{"code":-32602,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"meta","id":1,"meta":{"timeout":-1}}`, `{"jsonrpc":"2.0","error":{"code":-32602,"data":"invalid_argument"},"id":1}`},
		// Our own methods.
		{`{"jsonrpc":"2.0","method":"rpc.publish","params":{"topic":"news","data":[1]},"id":1}`, `{"jsonrpc":"2.0","result":null,"id":1}`},
		{`{"jsonrpc":"2.0","method":"rpc.publish","params":{"topic":"refused"},"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32007,"data":"permission_denied"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"rpc.publish","params":{"topic":"rpc.x"},"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32602,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"rpc.publish","params":["news"],"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32602,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":"news"},"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32601,"data":"unimplemented"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":"news","overflow":"block"},"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32601,"data":"unimplemented"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":"news","group":""},"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32602,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":"news","require":["speed"]},"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32601,"data":"unimplemented"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":"news","buffer":70000},"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32602,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"rpc.ack","params":{"sub":7,"tag":1},"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32005,"data":"not_found"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"rpc.credit","params":{"sub":7,"n":1},"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32005,"data":"not_found"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"rpc.unsubscribe","params":{"sub":7},"id":1}`, `{"jsonrpc":"2.0","result":null,"id":1}`},
		{`{"jsonrpc":"2.0","method":"rpc.stream","params":{"stream":7},"id":1}`, `{"jsonrpc":"2.0","result":null,"id":1}`},
		{`{"jsonrpc":"2.0","method":"rpc.open","params":{"stream":2,"topic":"x"},"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32602,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"rpc.open","params":{"topic":"x"},"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32602,"data":"invalid_argument"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"rpc.authenticate","id":1}`, `{"jsonrpc":"2.0","result":{},"id":1}`},
	} {
		p.ask(c[0], c[1])
	}
	require.Equal(t, "news [1]", <-events)

	p.send(`{"jsonrpc":"2.0","method":"waits","id":"w"}`)
	p.ask(`{"jsonrpc":"2.0","method":"sum","params":[1],"id":"w"}`,
		`{"jsonrpc":"2.0","error":{"code":-32600,"data":"already_exists"},"id":"w"}`) // in use
	p.ask(`{"jsonrpc":"2.0","method":"rpc.cancel","params":{"id":"w"}}`,
		`{"jsonrpc":"2.0","error":{"code":-32001,"data":"canceled"},"id":"w"}`)

	// Responses to nothing, and notifications of ours that make no sense, are ignored.
	p.send(`{"jsonrpc":"2.0","result":1,"id":7}`, `{"jsonrpc":"2.0","error":{"code":1,"message":"no"},"id":null}`,
		`{"jsonrpc":"2.0","method":"rpc.nothing"}`, `{"jsonrpc":"2.0","method":"rpc.ack","params":[1]}`,
		`{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":"news"}}`, `{"jsonrpc":"2.0","method":"rpc.open"}`)
	p.ask(`{"jsonrpc":"2.0","method":"rpc.ping","id":1}`, `{"jsonrpc":"2.0","result":null,"id":1}`)

	// What nobody is told is reported.
	p.send(`{"jsonrpc":"2.0","method":"refused","params":[1]}`)
	require.Equal(t, "refused permission_denied", <-lost)
	p.send(`{"jsonrpc":"2.0","method":"news","params":[1],"meta":{"header":{"!":"x"}}}`)
	require.Equal(t, "news invalid_argument", <-lost)
}

// TestNoResponder: that nobody responds is the same to a JSON-RPC client as that there is no method.
func TestNoResponder(t *testing.T) {
	p := connect(t, serve(t, backend(t), nil).URL, nil)
	p.ask(`{"jsonrpc":"2.0","method":"nobody","id":1}`, `{"jsonrpc":"2.0","error":{"code":-32601,"data":"unavailable"},"id":1}`)
}

// TestNativeSubscriber has a browser's client: no credit, one notification for each event or several in a batch.
func TestNativeSubscriber(t *testing.T) {
	b := backend(t)
	p := connect(t, serve(t, b, nil).URL, nil)
	p.send(`{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":"chat"},"id":1}`)
	var sub struct {
		Result struct {
			Sub    int
			Cursor string
			Buffer int
		}
	}
	require.NoError(t, json.Unmarshal([]byte(p.recv()), &sub))
	require.Positive(t, sub.Result.Sub)
	require.NotEmpty(t, sub.Result.Cursor)
	require.Equal(t, 64, sub.Result.Buffer)
	const n = 400
	for i := range n {
		require.NoError(t, b.Publish(p.ctx, &transport.Message{Topic: "chat", Body: fmt.Appendf(nil, `{"i":%d}`, i)}))
	}
	type event struct {
		Method string
		Params struct {
			Sub    int
			ID     string
			Cursor string
			Data   json.RawMessage
		}
	}
	cursor := ""
	for i := 0; i < n; {
		frame := p.recv()
		if frame[0] != '[' {
			frame = "[" + frame + "]"
		}
		var es []event
		require.NoError(t, json.Unmarshal([]byte(frame), &es))
		for _, e := range es {
			require.Equal(t, "rpc.event", e.Method)
			require.Equal(t, sub.Result.Sub, e.Params.Sub)
			require.NotEmpty(t, e.Params.ID)
			require.Equal(t, fmt.Sprintf(`{"i":%d}`, i), string(e.Params.Data))
			if i++; i == n/2 {
				cursor = e.Params.Cursor
			}
		}
	}
	// Another one goes on from a cursor, one event at a time.
	p.send(fmt.Sprintf(`{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":"chat","from":%q,"credit":1},"id":2}`, cursor))
	require.Contains(t, p.recv(), cursor)
	require.Contains(t, p.recv(), fmt.Sprintf(`{"i":%d}`, n/2))
	p.send(`{"jsonrpc":"2.0","method":"rpc.credit","params":{"sub":2,"n":1}}`)
	require.Contains(t, p.recv(), fmt.Sprintf(`{"i":%d}`, n/2+1))
	p.ask(`{"jsonrpc":"2.0","method":"rpc.unsubscribe","params":{"sub":2},"id":3}`, `{"jsonrpc":"2.0","result":null,"id":3}`)
	p.ask(`{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":"chat","from":"gone-1"},"id":4}`,
		`{"jsonrpc":"2.0","error":{"code":-32011,"data":"out_of_range"},"id":4}`)
}

// TestNativeResponder has a worker that speaks no more than the protocol asks.
func TestNativeResponder(t *testing.T) {
	s := serve(t, backend(t), nil)
	p, c := connect(t, s.URL, nil), dial(t, s.URL, nil)
	p.ask(`{"jsonrpc":"2.0","method":"rpc.respond","params":{"topic":"greet","buffer":2},"id":1}`,
		`{"jsonrpc":"2.0","result":{"sub":1,"buffer":2},"id":1}`)
	type request struct {
		Method string
		ID     int
		Params json.RawMessage
		Meta   struct {
			ID      string
			Sub     int
			Timeout int
		}
	}
	next := func() (r request) {
		require.NoError(t, json.Unmarshal([]byte(p.recv()), &r))
		return r
	}
	call := func(body string) <-chan string {
		out := make(chan string, 1)
		ctx := p.ctx
		go func() {
			r, err := c.Call(ctx, &transport.Message{Topic: "greet", Body: []byte(body)})
			if err != nil {
				out <- err.Error()
				return
			}
			out <- string(r.Body)
		}()
		return out
	}
	answer := call(`{"name":"Bob"}`)
	r := next()
	require.Equal(t, "greet", r.Method)
	require.Equal(t, `{"name":"Bob"}`, string(r.Params))
	require.Equal(t, 1, r.Meta.Sub)
	require.Positive(t, r.Meta.Timeout)
	p.send(fmt.Sprintf(`{"jsonrpc":"2.0","result":{"text":"Hi Bob"},"id":%d}`, r.ID))
	require.Equal(t, `{"text":"Hi Bob"}`, <-answer)

	answer = call(`[]`)
	r = next()
	p.send(fmt.Sprintf(`[{"jsonrpc":"2.0","error":{"code":-32005,"message":"nobody of that name"},"id":%d}]`, r.ID))
	require.Equal(t, "not_found: nobody of that name", <-answer)

	answer = call(`[]`)
	r = next()
	p.send(fmt.Sprintf(`{"jsonrpc":"2.0","result":7,"id":%d,"meta":{"body":"text"}}`, r.ID))
	require.Contains(t, <-answer, "internal: the reply is not legal")

	ctx, cancel := context.WithCancel(p.ctx)
	done := make(chan error, 1)
	go func() {
		_, err := c.Call(ctx, &transport.Message{Topic: "greet"})
		done <- err
	}()
	r = next()
	cancel()
	require.Equal(t, context.Canceled, <-done)
	require.JSONEq(t, fmt.Sprintf(`{"jsonrpc":"2.0","method":"rpc.cancel","params":{"id":%d}}`, r.ID), p.recv())
}

// TestNativeGroup has a member of a group that acknowledges.
func TestNativeGroup(t *testing.T) {
	b := backend(t)
	p := connect(t, serve(t, b, nil).URL, nil)
	p.ask(`{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":"jobs","group":"g","buffer":1,"maxAttempts":2,"deadLetter":"dead"},"id":1}`,
		`{"jsonrpc":"2.0","result":{"sub":1,"buffer":1},"id":1}`)
	dead, err := b.Subscribe(p.ctx, "dead")
	require.NoError(t, err)
	defer dead.Close()
	for _, id := range []string{"a", "b"} {
		require.NoError(t, b.Publish(p.ctx, &transport.Message{ID: id, Topic: "jobs"}))
	}
	event := func(tag, attempt int, id string) {
		t.Helper()
		var e struct {
			Params struct {
				Tag, Attempt int
				ID           string
			}
		}
		e.Params.Attempt = 1
		require.NoError(t, json.Unmarshal([]byte(p.recv()), &e))
		require.Equal(t, []any{tag, attempt, id}, []any{e.Params.Tag, e.Params.Attempt, e.Params.ID})
	}
	event(1, 1, "a")
	p.ask(`{"jsonrpc":"2.0","method":"rpc.ping","id":1}`, `{"jsonrpc":"2.0","result":null,"id":1}`) // one at a time
	p.send(`{"jsonrpc":"2.0","method":"rpc.ack","params":{"sub":1,"tag":1,"error":{"code":"unavailable","retryAfter":0.01}}}`)
	event(2, 1, "b")
	p.send(`{"jsonrpc":"2.0","method":"rpc.ack","params":{"sub":1,"tag":2}}`)
	event(3, 2, "a")
	p.send(`{"jsonrpc":"2.0","method":"rpc.ack","params":{"sub":1,"tag":3,"error":{"code":"unavailable"}}}`)
	d, err := dead.Next(p.ctx)
	require.NoError(t, err)
	require.Equal(t, "a", d.ID)

	// What is out when the connection ends comes again.
	require.NoError(t, b.Publish(p.ctx, &transport.Message{ID: "c", Topic: "jobs"}))
	event(4, 1, "c")
	p.CloseNow()
	again, err := b.Subscribe(p.ctx, "jobs", transport.Group("g"))
	require.NoError(t, err)
	defer again.Close()
	d, err = again.Next(p.ctx)
	require.NoError(t, err)
	require.Equal(t, "c", d.ID)
	require.NoError(t, d.Ack())
}

// TestCloseCodes has what ends a connection.
func TestCloseCodes(t *testing.T) {
	s := serve(t, backend(t), &ws.Options{MaxBytes: 1000})
	for name, c := range map[string]struct {
		kind websocket.MessageType
		body string
		code websocket.StatusCode
	}{
		"Binary":   {websocket.MessageBinary, `{}`, websocket.StatusUnsupportedData},
		"UTF-8":    {websocket.MessageText, "{\"a\":\"\xff\"}", websocket.StatusInvalidFramePayloadData},
		"CutUTF-8": {websocket.MessageText, "\"\xe2\x82", websocket.StatusInvalidFramePayloadData},
		"TooLarge": {websocket.MessageText, strings.Repeat(" ", 1<<20), websocket.StatusMessageTooBig},
	} {
		t.Run(name, func(t *testing.T) {
			p := connect(t, s.URL, nil)
			require.NoError(t, p.Write(p.ctx, c.kind, []byte(c.body)))
			p.closed(c.code)
		})
	}
	p := connect(t, s.URL, nil) // a little too large is no reason to close
	p.ask(`{"jsonrpc":"2.0","method":"rpc.publish","params":{"topic":"x","data":["`+strings.Repeat("x", 1000)+`"]},"id":1}`,
		`{"jsonrpc":"2.0","error":{"code":-32008,"data":"resource_exhausted"},"id":1}`)
	require.NoError(t, p.Close(websocket.StatusNormalClosure, ""))
}

// TestHandshake has what is refused before there is a connection.
func TestHandshake(t *testing.T) {
	s := serve(t, backend(t), &ws.Options{Origins: []string{"*.example.com", "https://other.example"},
		Authenticate: func(r *http.Request) (transport.Peer, error) {
			switch r.URL.Query().Get("token") {
			case "":
				return transport.Peer{}, nil
			case "slow":
				return transport.Peer{}, &transport.Error{Code: transport.CodeResourceExhausted, RetryAfter: 3 * time.Second}
			case "old":
				return transport.Peer{Expires: time.Now()}, nil
			}
			return transport.Peer{}, fmt.Errorf("a private text")
		}})
	url := "http" + strings.TrimPrefix(s.URL, "ws")
	upgrade := func(url string, set ...string) *http.Response {
		r, err := http.NewRequestWithContext(within(t), "GET", url, nil)
		require.NoError(t, err)
		r.Header = http.Header{"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"WebSocket"}, "Sec-Websocket-Version": {"13"},
			"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
		for i := 0; i < len(set); i += 2 {
			r.Header.Set(set[i], set[i+1])
		}
		resp, err := http.DefaultTransport.RoundTrip(r)
		require.NoError(t, err)
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	r := upgrade(url)
	require.Equal(t, 101, r.StatusCode)
	require.Equal(t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", r.Header.Get("Sec-Websocket-Accept")) // RFC 6455 section 1.3
	require.Empty(t, r.Header.Get("Sec-Websocket-Protocol"))
	require.Empty(t, r.Header.Get("Sec-Websocket-Extensions"))
	r = upgrade(url, "Sec-Websocket-Protocol", "chat, intermodal.v1.json", "Sec-Websocket-Extensions", "permessage-deflate")
	require.Equal(t, "intermodal.v1.json", r.Header.Get("Sec-Websocket-Protocol"))
	require.Empty(t, r.Header.Get("Sec-Websocket-Extensions"))
	r = upgrade(url, "Sec-Websocket-Version", "8")
	require.Equal(t, 426, r.StatusCode)
	require.Equal(t, "13", r.Header.Get("Sec-Websocket-Version"))
	require.Equal(t, 426, upgrade(url, "Upgrade", "h2c").StatusCode)
	require.Equal(t, 400, upgrade(url, "Sec-Websocket-Key", "x").StatusCode)
	for origin, status := range map[string]int{"https://www.example.com": 101, "https://other.example": 101, url: 101,
		"http://other.example": 403, "https://example.org": 403, "null": 403} {
		require.Equal(t, status, upgrade(url, "Origin", origin).StatusCode, origin)
	}
	r = upgrade(url + "?token=bad")
	require.Equal(t, 401, r.StatusCode)
	require.Equal(t, "Bearer", r.Header.Get("Www-Authenticate"))
	r = upgrade(url + "?token=slow")
	require.Equal(t, 429, r.StatusCode)
	require.Equal(t, "3", r.Header.Get("Retry-After"))

	for query, code := range map[string]transport.Code{"bad": transport.CodeUnauthenticated, "old": transport.CodeUnauthenticated,
		"slow": transport.CodeResourceExhausted} {
		_, err := ws.Dial(within(t), s.URL+"?token="+query, nil)
		require.ErrorIs(t, err, code)
		require.True(t, transport.Resendable(err, nil))
		require.NotContains(t, err.Error(), "private")
	}
	for _, bad := range []string{"", "ws://", "tcp://host/", "ws://host/#x", "://"} {
		_, err := ws.Dial(within(t), bad, nil)
		require.ErrorIs(t, err, transport.CodeInvalidArgument, bad)
	}
	_, err := ws.Dial(within(t), "ws://127.0.0.1:1/", nil)
	require.ErrorIs(t, err, transport.CodeUnavailable)
}
