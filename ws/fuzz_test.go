package ws_test

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/ws"
)

// exchanges are what peers say, a frame in each line; § stands for {"jsonrpc":"2.0",
var exchanges = []string{
	`§"method":"echo","params":[1],"id":1}
§"method":"echo","id":"x","meta":{"timeout":1,"id":"m","header":{"a":["b"]}}}
§"method":"rpc.cancel","params":{"id":"x"}}`,
	`§"method":"rpc.subscribe","params":{"topic":"a","credit":1},"id":1}
§"method":"rpc.publish","params":{"topic":"a","id":"1","again":true,"data":{}},"id":2}
§"method":"a","params":[]}
§"method":"rpc.credit","params":{"sub":1,"n":9007199254740991}}
§"method":"rpc.unsubscribe","params":{"sub":1},"id":3}`,
	`§"method":"rpc.subscribe","params":{"topic":"a","group":"g","buffer":1,"maxAttempts":1,"deadLetter":"d","require":["ordered"]},"id":1}
§"method":"rpc.publish","params":{"topic":"a"},"id":2}
§"method":"rpc.ack","params":{"sub":1,"tag":1,"error":{"code":"aborted","retryAfter":1e300}}}
§"method":"rpc.ack","params":{"sub":1,"tag":1}}`,
	`§"method":"rpc.respond","params":{"topic":"mine","buffer":1},"id":1}
§"method":"mine","params":[],"id":2}
§"result":{},"id":1,"meta":{"body":"base64"}}
[§"error":{"code":-32601,"message":"no"},"id":2},§"result":1,"id":2}]`,
	`§"method":"rpc.accept","params":{"topic":"mine"},"id":1}
§"method":"rpc.open","params":{"stream":3,"topic":"mine","timeout":1000},"id":2}
§"result":null,"id":1}
§"method":"rpc.header","params":{"stream":2,"header":{"a":["b"]}}}
§"method":"rpc.stream","params":{"stream":2,"data":[1]}}
§"method":"rpc.end","params":{"stream":2,"header":{},"error":{"code":"not_found"}}}`,
	`§"method":"rpc.open","params":{"stream":5,"topic":"echo","header":{"x":["y"]}},"id":1}
§"method":"rpc.stream","params":{"stream":5,"data":"hello","body":"text"}}
§"method":"rpc.credit","params":{"stream":5,"n":300000}}
§"method":"rpc.eof","params":{"stream":5}}
§"method":"rpc.stream","params":{"stream":5}}
§"method":"rpc.cancel","params":{"stream":5}}`,
	`[]
[1,{}]
[§"method":"echo","id":1},§"method":"echo","id":1},§"method":"a"},§"method":"rpc.ping","id":null}]
{"jsonrpc":"2.0"
"x"`,
	`§"method":"rpc.event","params":{"sub":1,"cursor":"c","data":1,"missed":3,"attempt":0}}
§"method":"rpc.drain","params":{"retry":1}}
§"method":"rpc.expires","params":{"in":1}}
§"method":"rpc.end","params":{"sub":1,"error":{"code":"unavailable","reason":"CLOSED"}}}
§"method":"rpc.authenticate","params":{"header":{"authorization":"x"}},"id":1}`,
}

// frames returns the frames in data, no more than some.
func frames(data []byte) [][]byte {
	data = bytes.ReplaceAll(data, []byte("§"), []byte(`{"jsonrpc":"2.0",`))
	fs := bytes.Split(data, []byte("\n"))
	return fs[:min(len(fs), 30)]
}

// FuzzSession says to a server whatever; it answers a ping after that, or has closed the connection, and serves others.
func FuzzSession(f *testing.F) {
	for _, s := range exchanges {
		f.Add([]byte(s))
	}
	b := mem.New(nil)
	s := serve(f, b, &ws.Options{WriteTimeout: 5 * time.Second})
	ctx, cancel := context.WithCancel(context.Background())
	svc, err := transport.Start(ctx, b,
		transport.BindCalls("echo", func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			return &transport.Message{Body: m.Body}, nil
		}),
		transport.BindStreams("echo", func(_ context.Context, s transport.Incoming) error {
			for {
				m, err := s.Recv()
				if err != nil {
					return nil
				}
				if err := s.Send(m); err != nil {
					return err
				}
			}
		}))
	require.NoError(f, err)
	other := dial(f, s.URL, nil)
	f.Cleanup(func() {
		cancel()
		svc.Wait()
		b.Close()
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Contains(data, []byte("ttl")) || bytes.Contains(data, []byte("delay")) {
			return // such events may take their time
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		c, _, err := websocket.Dial(ctx, s.URL, nil)
		require.NoError(t, err)
		defer c.CloseNow()
		c.SetReadLimit(1 << 22)
		for _, frame := range append(frames(data), []byte(`{"jsonrpc":"2.0","method":"rpc.ping","id":"the end"}`)) {
			if c.Write(ctx, websocket.MessageText, frame) != nil {
				break
			}
		}
		for {
			_, answer, err := c.Read(ctx)
			if err != nil {
				require.NoError(t, ctx.Err(), "neither an answer nor an end")
				break
			}
			require.True(t, utf8.Valid(answer))
			if strings.Contains(string(answer), `"the end"`) {
				break
			}
		}
		require.NoError(t, other.Health(ctx))
	})
}

// FuzzClient says to a client whatever a server might. It stays alive, and connects again if that is needed.
func FuzzClient(f *testing.F) {
	for _, s := range exchanges {
		f.Add([]byte(s))
	}
	var say chan []byte
	s := listen(f, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"intermodal.v1.json"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		var data []byte
		select {
		case data = <-say:
		default: // the second connection: it answers
		}
		for n := 1; ; n++ {
			_, frame, err := c.Read(ctx)
			if err != nil {
				return
			}
			id := idOf(string(frame))
			if id == "" {
				continue
			}
			result := `{"sub":1,"cursor":"c0","buffer":4}`
			c.Write(ctx, websocket.MessageText, []byte(`{"jsonrpc":"2.0","result":`+result+`,"id":`+id+`}`))
			if n == 4 {
				for _, frame := range frames(data) {
					c.Write(ctx, websocket.MessageText, frame)
				}
			}
		}
	}))
	f.Fuzz(func(t *testing.T, data []byte) {
		say = make(chan []byte, 1)
		say <- data
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		c, err := ws.Dial(ctx, s.URL, &ws.ClientOptions{Backoff: transport.Backoff{Min: time.Millisecond},
			OnDrop: func(*transport.Message, error) {}})
		require.NoError(t, err)
		_, err = c.Subscribe(ctx, "a", transport.Buffer(4))
		require.NoError(t, err)
		_, err = c.Subscribe(ctx, "a", transport.Group("g"), transport.Buffer(4))
		require.NoError(t, err)
		_, err = c.Respond(ctx, "a")
		require.NoError(t, err)
		_, err = c.Accept(ctx, "a")
		require.NoError(t, err)
		c.Health(ctx)
		require.NoError(t, c.Close())
		require.NoError(t, ctx.Err())
	})
}
