package ws

import (
	"context"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

// TestPingAndEnd: a connection that ends while it sends a ping still says why.
func TestPingAndEnd(t *testing.T) {
	bus := mem.New(nil)
	defer bus.Close()
	s := NewServer(bus, nil)
	defer s.Close()
	web := httptest.NewServer(s)
	defer web.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sessions := func() []*session {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Collect(maps.Keys(s.sessions))
	}
	for range 100 {
		c, _, err := websocket.Dial(ctx, web.URL, nil)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return len(sessions()) == 1 }, time.Minute, time.Millisecond)
		v := sessions()[0]
		v.ping()
		v.end(4401, "", transport.CodeUnauthenticated)
		_, _, err = c.Read(ctx)
		require.EqualValues(t, 4401, websocket.CloseStatus(err), "%v", err)
		require.Eventually(t, func() bool { return len(sessions()) == 0 }, time.Minute, time.Millisecond)
	}
}

// A gate holds back what is written while it is shut.
type gate struct {
	net.Conn
	shut    *atomic.Bool
	waiting chan<- struct{}
	open    <-chan struct{}
}

func (g *gate) Write(b []byte) (int, error) {
	if g.shut.Load() {
		g.waiting <- struct{}{}
		<-g.open
	}
	return g.Conn.Write(b)
}

// TestEndWhileWriting: a client that is closed while a caller writes finishes that, and still says goodbye.
func TestEndWhileWriting(t *testing.T) {
	said := make(chan error, 1)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for err == nil {
			_, _, err = c.Read(context.Background())
		}
		said <- err
	}))
	defer web.Close()
	var shut atomic.Bool
	waiting, open := make(chan struct{}, 10), make(chan struct{})
	through := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return &gate{c, &shut, waiting, open}, err
	}}
	defer through.CloseIdleConnections()
	c, err := Dial(t.Context(), web.URL, &ClientOptions{HTTPClient: &http.Client{Transport: through}})
	require.NoError(t, err)
	shut.Store(true)
	called := make(chan error, 1)
	go func() { _, err := c.Call(t.Context(), &transport.Message{Topic: "x"}); called <- err }()
	<-waiting
	l := c.link
	closed := make(chan error, 1)
	go func() { closed <- c.Close() }()
	<-l.ctx.Done()
	require.Never(t, func() bool { return len(closed) > 0 }, 20*time.Millisecond, 5*time.Millisecond)
	shut.Store(false)
	close(open)
	require.Equal(t, websocket.StatusNormalClosure, websocket.CloseStatus(<-said))
	require.NoError(t, <-closed)
	require.ErrorIs(t, <-called, transport.CodeUnavailable)
}
