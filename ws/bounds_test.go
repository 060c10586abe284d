package ws_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/ws"
)

// TestHostileBatch has a batch whose answers are larger than a frame. Each call is answered, in a frame that is not much
// larger than a frame may be.
func TestHostileBatch(t *testing.T) {
	bus := backend(t)
	s := serve(t, bus, &ws.Options{MaxBytes: 64 << 10})
	respond(t, bus, "large", func(context.Context, *transport.Message) (*transport.Message, error) {
		return &transport.Message{Body: bytes.Repeat([]byte("x"), 60<<10)}, nil
	})
	respond(t, bus, "fails", func(context.Context, *transport.Message) (*transport.Message, error) {
		return nil, transport.Errorf(transport.CodeNotFound, "%s", strings.Repeat("x", 10<<10))
	})
	for _, topic := range []string{"large", "fails"} {
		t.Run(topic, func(t *testing.T) {
			conn := intrude(t, s)
			var calls []string
			for id := range 100 {
				calls = append(calls, fmt.Sprintf(`{"jsonrpc":"2.0","method":%q,"id":%d}`, topic, id))
			}
			io.WriteString(conn, texts("["+strings.Join(calls, ",")+"]"))
			_, payload, err := conn.next()
			require.NoError(t, err)
			require.Less(t, len(payload), 64<<10/3*4+256<<10+100*400)
			var answers []struct {
				ID    int
				Error *struct {
					Code    int
					Message string
					Data    struct{ Code string }
				}
			}
			require.NoError(t, json.Unmarshal(payload, &answers))
			var ids []int
			full := 0
			for _, a := range answers {
				ids = append(ids, a.ID)
				if a.Error != nil && a.Error.Data.Code == "resource_exhausted" {
					full++
					require.Equal(t, -32008, a.Error.Code)
					require.Equal(t, "the batch has too many bytes of answers", a.Error.Message)
				}
			}
			slices.Sort(ids)
			require.Len(t, slices.Compact(ids), 100)
			require.Greater(t, full, 50)
			require.Less(t, full, 100)
			io.WriteString(conn, texts(`{"jsonrpc":"2.0","method":"rpc.ping","id":"after"}`))
			_, payload, err = conn.next()
			require.NoError(t, err)
			require.JSONEq(t, `{"jsonrpc":"2.0","result":null,"id":"after"}`, string(payload))
		})
	}
}

// TestHostileReplies has a client that lets large replies wait. It gets what fits, and errors for the rest; then there is
// room again.
func TestHostileReplies(t *testing.T) {
	const calls = 200
	release := make(chan struct{})
	s := serve(t, &answering{release: release}, nil)
	conn := intrude(t, s)
	var all strings.Builder
	for id := range calls {
		all.WriteString(texts(fmt.Sprintf(`{"jsonrpc":"2.0","method":"large","id":%d}`, id)))
	}
	io.WriteString(conn, all.String())
	close(release) // all of them end at once
	read := func() (large, refused int) {
		_, payload, err := conn.next()
		require.NoError(t, err)
		if bytes.Contains(payload, []byte(`"code":"resource_exhausted"`)) {
			require.Contains(t, string(payload), "too many bytes of answers wait")
			return 0, 1
		}
		require.Greater(t, len(payload), 1<<20-1024)
		return 1, 0
	}
	large, refused := 0, 0
	for range calls {
		l, r := read()
		large, refused = large+l, refused+r
	}
	t.Logf("%d replies and %d errors", large, refused)
	require.GreaterOrEqual(t, large, 15)
	for range 100 { // one by one there is always room
		io.WriteString(conn, texts(`{"jsonrpc":"2.0","method":"large","id":1}`))
		l, _ := read()
		require.Equal(t, 1, l)
	}
}

// answering is a transport of calls with large replies.
type answering struct {
	mem.Bus
	release chan struct{}
}

func (a *answering) Call(context.Context, *transport.Message) (*transport.Message, error) {
	<-a.release
	return &transport.Message{Body: bytes.Repeat([]byte("x"), 1<<20-1024)}, nil
}

// reluctant is a bus whose subscriptions take their time to close.
type reluctant struct {
	*mem.Bus
	release chan struct{}
	closes  atomic.Int64
}

func (r *reluctant) Subscribe(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	s, err := r.Bus.Subscribe(ctx, topic, opts...)
	return &reluctantly{s, r}, err
}

type reluctantly struct {
	transport.Subscription
	r *reluctant
}

func (s *reluctantly) Close() error {
	s.r.closes.Add(1)
	<-s.r.release
	return s.Subscription.Close()
}

// TestHostileUnsubscribes ends one subscription again and again while that takes its time. One of the requests is
// answered in the end, and the others at once.
func TestHostileUnsubscribes(t *testing.T) {
	const n = 2000
	r := &reluctant{Bus: backend(t), release: make(chan struct{})}
	conn := intrude(t, serve(t, r, nil))
	release := sync.OnceFunc(func() { close(r.release) })
	t.Cleanup(release)
	io.WriteString(conn, texts(`{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":"t"},"id":"sub"}`))
	_, _, err := conn.next()
	require.NoError(t, err)
	before := runtime.NumGoroutine()
	go func() {
		for i := range n {
			io.WriteString(conn, texts(fmt.Sprintf(`{"jsonrpc":"2.0","method":"rpc.unsubscribe","params":{"sub":1},"id":%d}`, i)))
		}
	}()
	for range n - 1 {
		_, payload, err := conn.next()
		require.NoError(t, err)
		require.Contains(t, string(payload), `"code":"already_exists"`)
	}
	require.Less(t, runtime.NumGoroutine(), before+10)
	require.LessOrEqual(t, r.closes.Load(), int64(2)) // by the request, and by the subscription itself
	release()
	_, payload, err := conn.next()
	require.NoError(t, err)
	require.JSONEq(t, `{"jsonrpc":"2.0","result":null,"id":0}`, string(payload))
}

// lines counts what is logged.
type lines struct {
	sync.Mutex
	bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.Lock()
	defer l.Unlock()
	return l.Buffer.Write(p)
}

func (l *lines) all() []string {
	l.Lock()
	defer l.Unlock()
	return strings.Split(strings.TrimSpace(l.Buffer.String()), "\n")
}

// TestHostileLog floods the server with events that cannot be published. The log does not grow with them.
func TestHostileLog(t *testing.T) {
	var log lines
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)
	conn := intrude(t, serve(t, backend(t), nil))
	began := time.Now()
	const wrong = `{"jsonrpc":"2.0","method":"t","params":["?"],"meta":{"body":"base64"}}`
	io.WriteString(conn, texts(slices.Repeat([]string{wrong}, 5000)...)+texts(`{"jsonrpc":"2.0","method":"rpc.ping","id":1}`))
	_, _, err := conn.next()
	require.NoError(t, err)
	require.Contains(t, log.all()[0], "a body is not base64")
	require.LessOrEqual(t, len(log.all()), 1+int(time.Since(began)/time.Second))
}

// stuck is a transport that publishes nothing until its context ends.
type stuck struct {
	mem.Bus
	began chan struct{}
}

func (s *stuck) Publish(ctx context.Context, _ *transport.Message) error {
	s.began <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

func (s *stuck) PublishAll(ctx context.Context, ms ...*transport.Message) []error {
	return slices.Repeat([]error{s.Publish(ctx, ms[0])}, len(ms))
}

// TestHangUp ends a connection while its events wait. Nobody is told of each.
func TestHangUp(t *testing.T) {
	var told atomic.Int64
	s := &stuck{began: make(chan struct{}, 1000)}
	server := ws.NewServer(s, &ws.Options{OnError: func(*transport.Message, error) { told.Add(1) }})
	conn := intrude(t, listen(t, server))
	io.WriteString(conn, texts(slices.Repeat([]string{`{"jsonrpc":"2.0","method":"t"}`}, 100)...))
	<-s.began
	conn.Close()
	require.NoError(t, server.Close())
	require.Zero(t, told.Load())
}
