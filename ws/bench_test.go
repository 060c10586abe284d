//go:build unix

package ws_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

// A purchase is what calls say and answer.
type purchase struct {
	Item int      `json:"item"`
	Name string   `json:"name"`
	Tags []string `json:"tags"`
}

var purchased = purchase{7, "a name of ordinary length", []string{"a", "b"}}

// BenchmarkCall is a call of a client, through a server and a bus, to a responder. Both ends read and write JSON.
func BenchmarkCall(b *testing.B) {
	bus := backend(b)
	s := serve(b, bus, nil)
	respond(b, bus, "purchase", func(_ context.Context, m *transport.Message) (*transport.Message, error) {
		var p purchase
		if err := json.Unmarshal(m.Body, &p); err != nil {
			return nil, err
		}
		body, err := json.Marshal(p)
		return &transport.Message{Body: body}, err
	})
	benchmarkCall(b, dial(b, s.URL, nil))
}

func benchmarkCall(b *testing.B, c transport.Caller) {
	b.ReportAllocs()
	defer spent(b)()
	for b.Loop() {
		body, err := json.Marshal(purchased)
		if err != nil {
			b.Fatal(err)
		}
		reply, err := c.Call(context.Background(), &transport.Message{Topic: "purchase", Body: body})
		if err != nil {
			b.Fatal(err)
		}
		var p purchase
		if err := json.Unmarshal(reply.Body, &p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCallHandler is the same without a bus.
func BenchmarkCallHandler(b *testing.B) {
	s := serve(b, transport.Join(transport.Parts{Caller: transport.Handler(
		func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			var p purchase
			if err := json.Unmarshal(m.Body, &p); err != nil {
				return nil, err
			}
			body, err := json.Marshal(p)
			return &transport.Message{Body: body}, err
		})}), nil)
	benchmarkCall(b, dial(b, s.URL, nil))
}

// BenchmarkBareCall is the bare minimum to compare with: the WebSocket library alone, with the JSON-RPC that a program
// would write by hand.
func BenchmarkBareCall(b *testing.B) {
	type request struct {
		JSONRPC string   `json:"jsonrpc"`
		Method  string   `json:"method"`
		ID      int      `json:"id"`
		Params  purchase `json:"params"`
	}
	type response struct {
		JSONRPC string   `json:"jsonrpc"`
		ID      int      `json:"id"`
		Result  purchase `json:"result"`
	}
	ctx := context.Background()
	s := listen(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			var q request
			if wsjson.Read(ctx, c, &q) != nil || wsjson.Write(ctx, c, response{"2.0", q.ID, q.Params}) != nil {
				return
			}
		}
	}))
	c, _, err := websocket.Dial(ctx, s.URL, nil)
	require.NoError(b, err)
	defer c.CloseNow()
	b.ReportAllocs()
	defer spent(b)()
	id := 0
	for b.Loop() {
		id++
		if err := wsjson.Write(ctx, c, request{"2.0", "purchase", id, purchased}); err != nil {
			b.Fatal(err)
		}
		var p response
		if err := wsjson.Read(ctx, c, &p); err != nil || p.ID != id {
			b.Fatal(err)
		}
	}
}

// BenchmarkBareEcho is less than that: nothing but the body crosses.
func BenchmarkBareEcho(b *testing.B) {
	ctx := context.Background()
	s := listen(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			var p purchase
			if wsjson.Read(ctx, c, &p) != nil || wsjson.Write(ctx, c, p) != nil {
				return
			}
		}
	}))
	c, _, err := websocket.Dial(ctx, s.URL, nil)
	require.NoError(b, err)
	defer c.CloseNow()
	b.ReportAllocs()
	defer spent(b)()
	for b.Loop() {
		if err := wsjson.Write(ctx, c, purchased); err != nil {
			b.Fatal(err)
		}
		var p purchase
		if err := wsjson.Read(ctx, c, &p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFanOut publishes bursts to many connections, whose clients are another process. An operation is a burst. It
// reports the processor time and the allocations of this process for each event that a client has received.
func BenchmarkFanOut(b *testing.B) {
	for _, burst := range []int{1, 16} {
		b.Run(fmt.Sprintf("%d connections, bursts of %d", scale(), burst), func(b *testing.B) {
			benchmarkFanOut(b, scale(), burst)
		})
	}
}

func benchmarkFanOut(b *testing.B, n, burst int) {
	bus := backend(b)
	s := serve(b, bus, nil)
	all := gather(b, s, "fan", n)
	benchmarkBursts(b, n, burst, all, func(ms []*transport.Message) {
		for _, err := range bus.PublishAll(context.Background(), ms...) {
			require.NoError(b, err)
		}
	})
}

func benchmarkBursts(b *testing.B, n, burst int, all *audience, publish func(ms []*transport.Message)) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := processor()
	defer spent(b)()
	sent := 0
	for b.Loop() {
		publish(program("fan", sent+1, burst, 150))
		sent += burst
		all.await(n * sent)
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64((processor()-began).Nanoseconds())/float64(n*sent), "cpu-ns/event")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(n*sent), "allocs/event")
}

// BenchmarkBareFanOut is the bare minimum to compare with: a loop that writes the burst, made into one frame for all, to
// one connection after another. Nothing is queued, so that one client that is slow would hold up all.
func BenchmarkBareFanOut(b *testing.B) {
	for _, burst := range []int{1, 16} {
		b.Run(fmt.Sprintf("%d connections, bursts of %d", scale(), burst), func(b *testing.B) {
			benchmarkBareFanOut(b, scale(), burst)
		})
	}
}

func benchmarkBareFanOut(b *testing.B, n, burst int) {
	conns := make(chan *websocket.Conn, n)
	s := listen(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		if _, _, err := c.Read(context.Background()); err != nil {
			return
		}
		c.Write(context.Background(), websocket.MessageText, []byte(`{"result":1}`))
		conns <- c
	}))
	all := gather(b, s, "fan", n)
	all.await(0)
	clients := make([]*websocket.Conn, n)
	for i := range clients {
		clients[i] = <-conns
		defer clients[i].CloseNow()
	}
	benchmarkBursts(b, n, burst, all, func(ms []*transport.Message) {
		frame := []byte("[")
		for i, m := range ms {
			if i > 0 {
				frame = append(frame, ',')
			}
			frame = fmt.Appendf(frame, `{"jsonrpc":"2.0","method":"rpc.event","params":{"sub":1,"id":%q,"cursor":%q,"data":%s}}`,
				transport.NewID(), transport.NewID(), m.Body)
		}
		frame = append(frame, ']')
		for _, c := range clients {
			if err := c.Write(context.Background(), websocket.MessageText, frame); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// spent returns a function that reports the processor time of this process for each operation since.
func spent(b *testing.B) func() {
	before := processor()
	return func() { b.ReportMetric(float64((processor()-before).Nanoseconds())/float64(b.N), "cpu-ns/op") }
}

// processor returns the processor time of this process.
func processor() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
