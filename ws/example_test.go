package ws_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/coder/websocket"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/ws"
)

// A server puts a transport on the web; a client uses it, and may serve as well.
func Example() {
	bus := mem.New(nil)
	defer bus.Close()
	server := ws.NewServer(bus, nil)
	mux := http.NewServeMux()
	mux.Handle("/ws", server)
	web := httptest.NewServer(mux)
	defer web.Close()
	defer server.Shutdown(context.Background())

	ctx := context.Background()
	client, err := ws.Dial(ctx, web.URL+"/ws", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	// Events come to who has subscribed.
	chat, _ := client.Subscribe(ctx, "chat")
	client.Publish(ctx, &transport.Message{Topic: "chat", Body: []byte(`{"text":"hello"}`)})
	d, _ := chat.Next(ctx)
	fmt.Println(string(d.Body))
	d.Ack()

	// The client answers calls, although nobody can connect to it.
	worker, cancel := context.WithCancel(ctx)
	service, _ := transport.Start(worker, client,
		transport.BindCalls("upper", func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			return &transport.Message{Body: []byte(strings.ToUpper(string(m.Body)))}, nil
		}))
	reply, _ := bus.Call(ctx, &transport.Message{Topic: "upper", Body: []byte("loud")})
	fmt.Println(string(reply.Body))
	cancel()
	service.Wait()
	// Output:
	// {"text":"hello"}
	// LOUD
}

// Any JSON-RPC 2.0 client calls operations by their names.
func ExampleServer() {
	operations := transport.Mux{
		"sum": func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			return &transport.Message{Body: []byte("6")}, nil
		},
	}
	server := ws.NewServer(transport.Join(transport.Parts{Caller: operations}), nil)
	web := httptest.NewServer(server)
	defer web.Close()
	defer server.Close()

	ctx := context.Background()
	c, _, err := websocket.Dial(ctx, web.URL, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.CloseNow()
	c.Write(ctx, websocket.MessageText, []byte(`{"jsonrpc":"2.0","method":"sum","params":[1,2,3],"id":1}`))
	_, answer, _ := c.Read(ctx)
	fmt.Println(string(answer))
	// Output: {"jsonrpc":"2.0","id":1,"result":6}
}

// A guarded server knows who asks, and what each may do.
func ExampleOptions() {
	bus := mem.New(nil)
	defer bus.Close()
	guarded := transport.Guard(bus, func(ctx context.Context, a transport.Access) error {
		if p, _ := transport.PeerFrom(ctx); p.ID != "alice" {
			return transport.CodePermissionDenied
		}
		return nil
	})
	server := ws.NewServer(guarded, &ws.Options{
		Authenticate: func(r *http.Request) (transport.Peer, error) {
			switch r.Header.Get("Authorization") {
			case "Bearer a1":
				return transport.Peer{ID: "alice"}, nil
			case "Bearer b2":
				return transport.Peer{ID: "bob"}, nil
			}
			return transport.Peer{}, transport.CodeUnauthenticated
		},
	})
	web := httptest.NewServer(server)
	defer web.Close()
	defer server.Close()

	ctx := context.Background()
	for _, token := range []string{"a1", "b2", "c3"} {
		client, err := ws.Dial(ctx, web.URL, &ws.ClientOptions{Header: http.Header{"Authorization": {"Bearer " + token}}})
		if err != nil {
			fmt.Println(transport.CodeOf(err))
			continue
		}
		fmt.Println(client.Publish(ctx, &transport.Message{Topic: "news"}))
		client.Close()
	}
	// Output:
	// <nil>
	// permission_denied
	// unauthenticated
}
