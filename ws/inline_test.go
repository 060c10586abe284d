package ws_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/ws"
)

// handlers is a transport that calls f.
func handlers(f transport.Handler) transport.Transport {
	return transport.Join(transport.Parts{Caller: f})
}

// TestSlowHandler has handlers that wait for what comes behind their requests, on the same connection: none holds it up,
// however many handlers were quick before.
func TestSlowHandler(t *testing.T) {
	var waiting atomic.Pointer[chan struct{}]
	s := serve(t, handlers(func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
		switch m.Topic {
		case "wait":
			select {
			case <-*waiting.Load():
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		case "release":
			close(*waiting.Load())
		}
		return &transport.Message{Body: m.Body}, nil
	}), nil)
	c := dial(t, s.URL, nil)
	ctx := within(t)
	for round := range 30 {
		ch := make(chan struct{})
		waiting.Store(&ch)
		for i := range 20 * round {
			reply, err := c.Call(ctx, &transport.Message{Topic: "quick", Body: []byte(strconv.Itoa(i))})
			require.NoError(t, err)
			require.Equal(t, strconv.Itoa(i), string(reply.Body))
		}
		first := make(chan error, 1)
		go func() {
			_, err := c.Call(ctx, &transport.Message{Topic: "wait"})
			first <- err
		}()
		_, err := c.Call(ctx, &transport.Message{Topic: "release"})
		require.NoError(t, err)
		require.NoError(t, <-first)
	}
}

// TestHandlerCallsBack calls, in a handler, the caller's own responder, over the same connection.
func TestHandlerCallsBack(t *testing.T) {
	bus := backend(t)
	s := serve(t, transport.Join(transport.Parts{Responder: bus,
		Caller: transport.Handler(func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			return bus.Call(ctx, &transport.Message{Topic: "worker", Body: m.Body})
		})}), nil)
	c := dial(t, s.URL, nil)
	respond(t, c, "worker", func(_ context.Context, m *transport.Message) (*transport.Message, error) {
		return &transport.Message{Body: append(m.Body, '!')}, nil
	})
	for range 50 {
		reply, err := c.Call(within(t), &transport.Message{Topic: "boss", Body: []byte("x")})
		require.NoError(t, err)
		require.Equal(t, "x!", string(reply.Body))
	}
}

// TestHandlerExits has handlers end their goroutines: the calls are answered, the connection lives on, and Close returns.
func TestHandlerExits(t *testing.T) {
	s := serve(t, handlers(func(_ context.Context, m *transport.Message) (*transport.Message, error) {
		if m.Topic == "exit" {
			runtime.Goexit()
		}
		return &transport.Message{}, nil
	}), nil)
	c := dial(t, s.URL, nil)
	for range 20 {
		_, err := c.Call(within(t), &transport.Message{Topic: "exit"})
		require.Equal(t, transport.CodeInternal, transport.CodeOf(err))
		_, err = c.Call(within(t), &transport.Message{Topic: "stay"})
		require.NoError(t, err)
	}
}

// TestCancelReading gives up calls of a client that does nothing else: it returns at once, over TLS too, tells the
// responder, and the next call has its answer.
func TestCancelReading(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run("TLS "+strconv.FormatBool(secure), func(t *testing.T) {
			began, canceled := make(chan struct{}, 1), make(chan struct{}, 1)
			h := ws.NewServer(handlers(func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
				if m.Topic == "wait" {
					began <- struct{}{}
					<-ctx.Done()
					canceled <- struct{}{}
					return nil, ctx.Err()
				}
				return &transport.Message{Body: m.Body}, nil
			}), nil)
			web := httptest.NewUnstartedServer(h)
			o := &ws.ClientOptions{}
			if secure {
				web.StartTLS()
				o.TLS = web.Client().Transport.(*http.Transport).TLSClientConfig
			} else {
				web.Start()
			}
			t.Cleanup(web.Close)
			t.Cleanup(func() { require.NoError(t, h.Close()) })
			c := dial(t, "ws"+strings.TrimPrefix(web.URL, "http"), o)
			for i := range 10 {
				for range 10 {
					reply, err := c.Call(within(t), &transport.Message{Topic: "echo", Body: []byte(strconv.Itoa(i))})
					require.NoError(t, err)
					require.Equal(t, strconv.Itoa(i), string(reply.Body))
				}
				ctx, cancel := context.WithCancel(t.Context())
				go func() { <-began; cancel() }()
				_, err := c.Call(ctx, &transport.Message{Topic: "wait"})
				cancel()
				require.ErrorIs(t, err, context.Canceled)
				select {
				case <-canceled:
				case <-within(t).Done():
					require.Fail(t, "the responder was not told")
				}
			}
		})
	}
}

// TestRest mixes what a client does: its reader rests while calls follow one another, and nothing waits for it.
func TestRest(t *testing.T) {
	bus := backend(t)
	respond(t, bus, "echo", echo)
	var calls atomic.Int64
	s := serve(t, bus, nil)
	c := dial(t, s.URL, nil)
	ctx := within(t)
	call := func() {
		body := strconv.FormatInt(calls.Add(1), 10)
		reply, err := c.Call(ctx, &transport.Message{Topic: "echo", Body: []byte(body)})
		require.NoError(t, err)
		require.Equal(t, body, string(reply.Body))
	}
	for round := range 20 {
		for range 30 {
			call()
		}
		switch round % 4 {
		case 0: // a subscription, and an event that nobody asked for
			sub, err := c.Subscribe(ctx, "news")
			require.NoError(t, err)
			call()
			require.NoError(t, bus.Publish(ctx, &transport.Message{Topic: "news", Body: []byte("1")}))
			d, err := sub.Next(ctx)
			require.NoError(t, err)
			require.Equal(t, "1", string(d.Body))
			require.NoError(t, sub.Close())
		case 1: // callers at the same time
			done := make(chan struct{})
			for range 4 {
				go func() {
					defer func() { done <- struct{}{} }()
					for range 30 {
						call()
					}
				}()
			}
			for range 4 {
				<-done
			}
		case 2: // an event that is confirmed
			require.NoError(t, c.Publish(ctx, &transport.Message{Topic: "other"}))
		case 3: // large answers
			reply, err := c.Call(ctx, &transport.Message{Topic: "echo", Body: make([]byte, 100_000)})
			require.NoError(t, err)
			require.Len(t, reply.Body, 100_000)
		}
	}
}

// TestCutWhileResting cuts the connection of a client whose reader rests: the client notices, and calls again.
func TestCutWhileResting(t *testing.T) {
	bus := backend(t)
	respond(t, bus, "echo", echo)
	changes, onState := states()
	s := serve(t, bus, nil)
	c := dial(t, s.URL, &ws.ClientOptions{OnState: onState})
	expectState(t, changes, ws.Connected)
	for range 20 {
		for range 20 {
			_, err := c.Call(within(t), &transport.Message{Topic: "echo"})
			require.NoError(t, err)
		}
		s.cut()
		expectState(t, changes, ws.Disconnected)
		expectState(t, changes, ws.Connected)
	}
}
