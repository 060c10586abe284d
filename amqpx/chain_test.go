package amqpx_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/transporttest"
	"github.com/intermodal-go/intermodal/transport/transporttest/pipe"
	"github.com/intermodal-go/intermodal/ws"
)

// chains are other protocols in front of the broker. Each changes a fixture of brokerFixture.
var chains = []struct {
	name  string
	front func(t testing.TB, f *transporttest.Fixture)
}{
	{"Pipe", func(t testing.TB, f *transporttest.Fixture) {
		f.Sender, f.Receiver = throughPipe(t, f.Sender), throughPipe(t, f.Receiver)
	}},
	{"WebSocket", func(t testing.TB, f *transporttest.Fixture) {
		var cuts []func()
		f.Sender, cuts = throughWebSocket(t, f.Sender, cuts)
		f.Receiver, cuts = throughWebSocket(t, f.Receiver, cuts)
		broker := f.Disrupt
		f.Disrupt = func() {
			broker()
			for _, cut := range cuts {
				cut()
			}
		}
	}},
	{"REST", func(t testing.TB, f *transporttest.Fixture) {
		client := throughREST(t, f.Sender)
		f.Sender = transport.Join(transport.Parts{Publisher: client, Caller: client})
	}},
}

// TestConformanceChains has the suite with INTERMODAL_LONG=1, else a call and an event through each chain.
func TestConformanceChains(t *testing.T) {
	for _, chain := range chains {
		t.Run(chain.name, func(t *testing.T) {
			removed := remover(t)
			fixture := func(tb testing.TB) transporttest.Fixture {
				f := brokerFixture(tb, removed, []amqpx.History{{Topics: "#", MaxBytes: historyBytes}})
				f.Retention, f.Backlog = historyMessages, historyMessages
				chain.front(tb, &f)
				return f
			}
			if os.Getenv("INTERMODAL_LONG") != "" {
				transporttest.Run(t, fixture)
				return
			}
			f := fixture(t)
			s, err := f.Receiver.Subscribe(t.Context(), "news", transport.From(transport.Oldest))
			require.NoError(t, err)
			require.NoError(t, f.Sender.Publish(t.Context(), &transport.Message{Topic: "news", Body: []byte("1")}))
			require.Equal(t, []string{"1"}, taken(t, s, 1))
			require.NoError(t, s.Close())
			r, err := f.Receiver.Respond(t.Context(), "echo")
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			served := make(chan error, 1)
			go func() {
				served <- transport.Serve(ctx, r, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
					return &transport.Message{Body: m.Body}, nil
				})
			}()
			reply, err := f.Sender.Call(within(t, 10*time.Second), &transport.Message{Topic: "echo", Body: []byte("2")})
			require.NoError(t, err)
			require.Equal(t, "2", string(reply.Body))
			cancel()
			require.NoError(t, <-served)
		})
	}
}

func throughPipe(t testing.TB, behind transport.Transport) transport.Transport {
	near, far := net.Pipe()
	s := pipe.NewServer(behind, nil)
	served := make(chan error, 1)
	go func() { served <- s.ServeConn(context.Background(), far) }()
	c := pipe.NewClient(near, nil)
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		require.NoError(t, <-served)
		require.NoError(t, s.Close())
	})
	return c
}

func throughWebSocket(t testing.TB, behind transport.Transport, cuts []func()) (transport.Transport, []func()) {
	s := ws.NewServer(behind, nil)
	web := httptest.NewServer(s)
	cutter := newCutter()
	c, err := ws.Dial(t.Context(), web.URL, &ws.ClientOptions{
		HTTPClient: cutter.client(),
		Backoff:    transport.Backoff{Min: 5 * time.Millisecond, Max: 50 * time.Millisecond},
		OnDrop:     func(*transport.Message, error) {},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		require.NoError(t, s.Close())
		web.Close()
	})
	return c, append(cuts, cutter.cut)
}

// client returns one whose connections can be cut.
func (c *cutter) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: c.dial}}
}

func throughREST(t testing.TB, behind rest.Backend) *rest.Client {
	s, err := rest.NewServer(behind, &rest.Options{MaxTimeout: 2 * time.Hour})
	require.NoError(t, err)
	web := httptest.NewServer(s)
	c, err := rest.NewClient(web.URL, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Close()
		web.Close()
		require.NoError(t, s.Shutdown(context.Background()))
	})
	return c
}
