package amqpx_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/transport"
)

// slowly dials connections on which what the broker says is read only after a while.
func slowly(t *testing.T, wait time.Duration) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return &slowConn{Conn: c, wait: wait, since: time.Now()}, err
	}
}

type slowConn struct {
	net.Conn
	wait  time.Duration
	since time.Time
}

func (c *slowConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil && time.Since(c.since) > c.wait {
		time.Sleep(c.wait)
	}
	return n, err
}

// A watcher collects states.
type watcher struct {
	mu     sync.Mutex
	states []amqpx.State
}

func (w *watcher) see(s amqpx.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states = append(w.states, s)
}

func (w *watcher) of(role string) (ss []amqpx.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.states {
		if s.Role == role {
			ss = append(ss, s)
		}
	}
	return ss
}

func TestStates(t *testing.T) {
	p := newTap(t, nil)
	relay := amqptest.NewRelay(t, amqptest.URL(t))
	var w watcher
	c := p.client(relay.URL(), amqpx.Options{OnState: w.see})
	require.NoError(t, c.Health(t.Context()))
	require.Equal(t, 1, relay.Cut(), "the other connections are made when they are needed")
	require.Eventually(t, func() bool { return c.Stats().Generation == 2 }, 10*time.Second, time.Millisecond)
	require.NoError(t, c.Health(t.Context()))
	relay.Refuse()
	relay.Cut()
	require.Eventually(t, func() bool { return len(w.of("publish")) >= 6 }, 10*time.Second, time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := c.Health(ctx)
	require.ErrorIs(t, err, transport.CodeUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	relay.Resume()
	require.Eventually(t, func() bool { return c.Health(t.Context()) == nil }, 10*time.Second, time.Millisecond)
	require.NoError(t, c.Close())
	require.ErrorIs(t, c.Health(t.Context()), transport.CodeUnavailable)

	states := w.of("publish")
	for i, want := range []amqpx.State{{Connected: true, Generation: 1}, {Generation: 1}, {Connected: true, Generation: 2},
		{Generation: 2}, {Generation: 2}} {
		require.Equal(t, want.Connected, states[i].Connected)
		require.Equal(t, want.Generation, states[i].Generation)
		if want.Connected {
			require.NoError(t, states[i].Err)
		} else {
			require.ErrorIs(t, states[i].Err, transport.CodeUnavailable)
		}
	}
	last := states[len(states)-1]
	require.False(t, last.Connected)
	require.Equal(t, uint64(3), last.Generation)
	require.Equal(t, transport.ReasonClosed, reason(last.Err))
}

// A method that hangs ends by its ctx without harm, and cuts the connection when MethodTimeout is over.
func TestHungMethod(t *testing.T) {
	p := newTap(t, nil)
	relay := amqptest.NewRelay(t, amqptest.URL(t))
	c := p.client(relay.URL(), amqpx.Options{MethodTimeout: 300 * time.Millisecond})
	relay.Stall()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, c.Health(ctx), context.DeadlineExceeded)
	relay.Resume()
	require.NoError(t, c.Health(t.Context()))
	require.EqualValues(t, 1, c.Stats().Generation, "the end of a ctx harms nothing")

	relay.Stall()
	began := time.Now()
	require.ErrorIs(t, c.Health(t.Context()), transport.CodeUnavailable)
	require.Less(t, time.Since(began), 5*time.Second)
	relay.Resume()
	require.NoError(t, c.Publish(t.Context(), &transport.Message{Topic: "a"}))
	require.EqualValues(t, 2, c.Stats().Generation)

	relay.Stall()
	began = time.Now()
	require.NoError(t, c.Close())
	require.Less(t, time.Since(began), 5*time.Second, "Close is bounded")
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	p := newTap(t, nil)
	good := amqptest.URL(t)
	u, err := url.Parse(good)
	require.NoError(t, err)
	right, _ := u.User.Password()
	plain := func(password string) []amqp.Authentication {
		return []amqp.Authentication{&amqp.PlainAuth{Username: u.User.Username(), Password: password}}
	}
	_, err = amqpx.Dial(t.Context(), good, &amqpx.Options{SASL: plain("wrong-secret")})
	require.ErrorIs(t, err, transport.CodeUnauthenticated)
	require.NotContains(t, err.Error(), "wrong-secret")
	u.User = url.UserPassword(u.User.Username(), "wrong-secret")
	sasl := plain(right)
	c, err := amqpx.Dial(t.Context(), u.String(), &amqpx.Options{Namespace: p.ns, SASL: sasl})
	require.NoError(t, err, "SASL is used instead of the URL")
	require.NoError(t, c.Close())
	require.Equal(t, plain(right), sasl, "and is not written to")

	_, err = amqpx.Dial(t.Context(), u.String(), nil)
	require.ErrorIs(t, err, transport.CodeUnauthenticated)
	require.NotContains(t, err.Error(), "wrong-secret")
}

// TLS is the standard library's: its configuration decides whom to trust.
func TestTLS(t *testing.T) {
	p := newTap(t, nil)
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	u, err := url.Parse(amqptest.URL(t))
	require.NoError(t, err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: web.TLS.Certificates})
	require.NoError(t, err)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	to := u.Host
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer client.Close()
				broker, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				wg.Go(func() { io.Copy(client, broker); client.Close() })
				io.Copy(broker, client)
				broker.Close()
			})
		}
	})
	u.Scheme, u.Host = "amqps", l.Addr().String()
	_, err = amqpx.Dial(t.Context(), u.String(), nil)
	require.ErrorIs(t, err, transport.CodeUnauthenticated)
	require.True(t, errors.As(err, new(*tls.CertificateVerificationError)))

	pool := x509.NewCertPool()
	pool.AddCert(web.Certificate())
	config := &tls.Config{RootCAs: pool}
	c, err := amqpx.Dial(t.Context(), u.String(), &amqpx.Options{Namespace: p.ns, TLS: config})
	require.NoError(t, err)
	require.Empty(t, config.ServerName, "the caller's configuration is not written to")
	require.NoError(t, c.Publish(t.Context(), &transport.Message{Topic: "a"}))
	require.NoError(t, c.Close())
}

func TestOptions(t *testing.T) {
	for _, o := range []amqpx.Options{
		{Namespace: string(make([]byte, 41))}, {Exchange: string(make([]byte, 256))}, {Window: -1}, {MaxBytes: -1},
		{ConfirmTimeout: -1}, {MethodTimeout: -1}, {DialTimeout: -1}, {ReconnectWindow: -1}, {Topics: []string{"a..b"}},
	} {
		_, err := amqpx.Dial(t.Context(), "amqp://127.0.0.1:1", &o)
		require.ErrorIs(t, err, transport.CodeInvalidArgument, "%+v", o)
	}
}

func TestStreamsAreRefused(t *testing.T) {
	p := newTap(t, nil)
	c := p.client(amqptest.URL(t), amqpx.Options{})
	_, err := c.Open(t.Context(), "a", nil)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = c.Accept(t.Context(), "a")
	require.ErrorIs(t, err, errors.ErrUnsupported)
}
