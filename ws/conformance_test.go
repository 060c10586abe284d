package ws_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/transport/transporttest"
	"github.com/intermodal-go/intermodal/ws"
)

const history = 500

// everything is all features.
const everything = transport.AtLeastOnce | transport.Ordered | transport.Replay | transport.Groups | transport.DeadLetters | transport.Delays

// backend returns a bus that closes with the test.
func backend(t testing.TB) *mem.Bus {
	b := mem.New(&mem.Options{HistoryMessages: history})
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// A site is an HTTP server whose connections can be cut.
type site struct {
	URL string // ws://…
	net.Listener

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// listen serves h until the test has ended.
func listen(t testing.TB, h http.Handler) *site {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &site{URL: "ws://" + l.Addr().String() + "/ws", Listener: l, conns: map[net.Conn]struct{}{}}
	hs := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(s) }()
	t.Cleanup(func() {
		hs.Close()
		<-served
	})
	return s
}

// Accept implements net.Listener.
func (s *site) Accept() (net.Conn, error) {
	nc, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &tracked{nc, s}
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	return c, nil
}

// cut closes all connections.
func (s *site) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.(*tracked).Conn.Close()
	}
	clear(s.conns)
}

type tracked struct {
	net.Conn
	s *site
}

func (c *tracked) Close() error {
	c.s.mu.Lock()
	delete(c.s.conns, c)
	c.s.mu.Unlock()
	return c.Conn.Close()
}

// serve returns the site of a server of tr.
func serve(t testing.TB, tr transport.Transport, o *ws.Options) *site {
	s := ws.NewServer(tr, o)
	l := listen(t, s)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return l
}

// dial returns a client that closes with the test.
func dial(t testing.TB, url string, o *ws.ClientOptions) *ws.Client {
	if o == nil {
		o = &ws.ClientOptions{}
	}
	if o.Backoff == (transport.Backoff{}) {
		o.Backoff = transport.Backoff{Min: 5 * time.Millisecond, Max: 50 * time.Millisecond}
	}
	if o.OnDrop == nil {
		o.OnDrop = func(*transport.Message, error) {}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := ws.Dial(ctx, url, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func fixture(sender, receiver transport.Transport) transporttest.Fixture {
	return transporttest.Fixture{Sender: sender, Receiver: receiver, Offers: everything, Retention: 2 * history,
		Backlog: 2 * history, Remote: true, Peer: true}
}

func TestConformance(t *testing.T) {
	t.Run("Bus", func(t *testing.T) {
		transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
			s := serve(t, backend(t), nil)
			f := fixture(dial(t, s.URL, nil), dial(t, s.URL, nil))
			f.Disrupt = s.cut
			return f
		})
	})
	t.Run("OneConnection", func(t *testing.T) {
		transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
			s := serve(t, backend(t), &ws.Options{Compress: true})
			c := dial(t, s.URL, &ws.ClientOptions{Compress: true})
			f := fixture(c, c)
			f.Disrupt = s.cut
			return f
		})
	})
	t.Run("Guard", func(t *testing.T) {
		allow := func(ctx context.Context, a transport.Access) error {
			if p, ok := transport.PeerFrom(ctx); !ok || p.Protocol != "ws" || p.ID != "me" {
				return transport.CodePermissionDenied
			}
			return nil
		}
		authenticate := func(r *http.Request) (transport.Peer, error) {
			if who, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
				return transport.Peer{ID: who, Expires: time.Now().Add(time.Hour)}, nil
			}
			return transport.Peer{}, transport.CodeUnauthenticated
		}
		transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
			s := serve(t, transport.Guard(backend(t), allow), &ws.Options{Authenticate: authenticate})
			o := ws.ClientOptions{Header: http.Header{"Authorization": {"Bearer me"}}}
			return fixture(dial(t, s.URL, &o), dial(t, s.URL, &o))
		})
	})
	t.Run("Chain", func(t *testing.T) {
		transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
			far := serve(t, backend(t), nil)
			near := serve(t, dial(t, far.URL, nil), nil)
			f := fixture(dial(t, near.URL, nil), dial(t, far.URL, nil))
			f.Disrupt = func() {
				near.cut()
				far.cut()
			}
			return f
		})
	})
}
