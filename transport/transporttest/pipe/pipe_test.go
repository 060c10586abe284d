package pipe_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/transport/transporttest/pipe"
)

// joined returns a client and a server over a net.Pipe, and the client's end of that. The goroutines end with the test.
func joined(t testing.TB, tr transport.Transport, o *pipe.ServerOptions) (*pipe.Client, *pipe.Server, net.Conn) {
	near, far := net.Pipe()
	s := pipe.NewServer(tr, o)
	served := make(chan error, 1)
	go func() { served <- s.ServeConn(context.Background(), far) }()
	c := pipe.NewClient(near, nil)
	t.Cleanup(func() {
		c.Close()
		<-served
		s.Close()
	})
	return c, s, near
}

func code(t testing.TB, err error, want transport.Code, reason string) {
	t.Helper()
	var e *transport.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, want.String(), e.Code.String(), "%v", err)
	require.Equal(t, reason, e.Reason, "%v", err)
}

func async[T any](f func() T) <-chan T {
	done := make(chan T, 1)
	go func() { done <- f() }()
	return done
}

// When the connection is cut, everything ends and says how.
func TestCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backend(t)
		c, _, nc := joined(t, b, nil)
		ctx := t.Context()

		group, err := c.Subscribe(ctx, "events", transport.Group("g"))
		require.NoError(t, err)
		alone, err := c.Subscribe(ctx, "events")
		require.NoError(t, err)
		calls, err := c.Respond(ctx, "calls")
		require.NoError(t, err)
		streams, err := c.Accept(ctx, "streams")
		require.NoError(t, err)
		for i := range 3 {
			require.NoError(t, b.Publish(ctx, &transport.Message{Topic: "events", Body: []byte(strconv.Itoa(i))}))
		}
		out, err := group.Next(ctx)
		require.NoError(t, err)
		first, err := alone.Next(ctx)
		require.NoError(t, err)
		require.NoError(t, first.Ack())
		synctest.Wait() // the others have arrived as well

		called := async(func() error { _, err := b.Call(ctx, &transport.Message{Topic: "calls"}); return err })
		call, err := calls.Next(ctx)
		require.NoError(t, err)
		callCtx, cancel := call.Context(ctx)
		defer cancel()
		backCalls, err := b.Respond(ctx, "back")
		require.NoError(t, err)
		calling := async(func() error { _, err := c.Call(ctx, &transport.Message{Topic: "back"}); return err })
		backCall, err := backCalls.Next(ctx)
		require.NoError(t, err)
		backCtx, cancel := backCall.Context(ctx)
		defer cancel()
		opened, err := b.Open(ctx, "streams", nil)
		require.NoError(t, err)
		in, err := streams.Next(ctx)
		require.NoError(t, err)

		require.NoError(t, nc.Close())
		code(t, <-calling, transport.CodeUnavailable, transport.ReasonOutcomeUnknown)
		code(t, <-called, transport.CodeUnavailable, transport.ReasonOutcomeUnknown)
		<-callCtx.Done()
		<-backCtx.Done()
		<-in.Context().Done()
		_, err = in.Recv()
		require.ErrorIs(t, err, transport.CodeUnavailable)
		_, err = opened.Recv()
		require.Error(t, err)
		require.NotEqual(t, io.EOF, err)
		in.End(nil)
		_, err = streams.Next(ctx)
		require.ErrorIs(t, err, transport.CodeUnavailable)
		_, err = calls.Next(ctx)
		require.ErrorIs(t, err, transport.CodeUnavailable)
		require.Error(t, call.Ack())
		_, err = group.Next(ctx)
		require.ErrorIs(t, err, transport.CodeUnavailable)
		require.Error(t, out.Ack(), "the server has given it back")
		_, err = alone.Next(ctx)
		require.NoError(t, err, "what has arrived is handed out")
		last, err := alone.Next(ctx)
		require.NoError(t, err)
		require.NoError(t, last.Ack())
		_, err = alone.Next(ctx)
		require.ErrorIs(t, err, transport.CodeUnavailable)
		_, err = c.Call(ctx, &transport.Message{Topic: "back"})
		code(t, err, transport.CodeUnavailable, transport.ReasonNotSent)

		c, _, _ = joined(t, b, nil)
		alone, err = c.Subscribe(ctx, "events", transport.From(alone.Cursor()))
		require.NoError(t, err)
		d, err := alone.Next(ctx)
		require.NoError(t, err)
		require.Equal(t, "1", string(d.Body), "the low-water mark")
		group, err = c.Subscribe(ctx, "events", transport.Group("g"))
		require.NoError(t, err)
		for i := range 3 {
			d, err = group.Next(ctx)
			require.NoError(t, err)
			require.Equal(t, strconv.Itoa(i), string(d.Body))
			require.Equal(t, 1, d.Attempt, "given back, so not counted")
			require.NoError(t, d.Ack())
		}
	})
}

// A server that does not read: what no byte was written of is not sent.
func TestNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := pipe.NewClient(near, &pipe.ClientOptions{WriteTimeout: time.Minute})
		call := func() error { _, err := c.Call(t.Context(), &transport.Message{Topic: "t"}); return err }
		first := async(call)
		synctest.Wait()
		second := async(call)
		synctest.Wait()
		start := time.Now()
		code(t, <-first, transport.CodeUnavailable, transport.ReasonOutcomeUnknown)
		code(t, <-second, transport.CodeUnavailable, transport.ReasonNotSent)
		require.Equal(t, time.Minute, time.Since(start), "WriteTimeout")
		require.NoError(t, c.Close())
		require.NoError(t, far.Close())
	})
}

func TestSlowReadersOfMuchAreCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := pipe.NewClient(near, nil)
		body := make([]byte, 1<<19)
		var errs []<-chan error
		for range 5 {
			errs = append(errs, async(func() error { return c.Publish(t.Context(), &transport.Message{Topic: "t", Body: body}) }))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		synctest.Wait()
		require.Equal(t, context.DeadlineExceeded, c.Publish(ctx, &transport.Message{Topic: "t"}), "it waits for room")
		for _, err := range errs {
			require.ErrorIs(t, <-err, transport.CodeUnavailable)
		}
		require.NoError(t, c.Close())
		require.NoError(t, far.Close())
	})
}

func TestPublishGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := pipe.NewClient(near, nil)
		go io.Copy(io.Discard, far)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := c.Publish(ctx, &transport.Message{Topic: "t"})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		code(t, err, transport.CodeDeadlineExceeded, transport.ReasonOutcomeUnknown)
		require.NoError(t, c.Close())
	})
}

// counting counts what a server takes from its transport.
type counting struct {
	transport.Transport
	taken atomic.Int32
}

func (c *counting) Subscribe(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	s, err := c.Transport.Subscribe(ctx, topic, opts...)
	return &countingSubscription{s, c}, err
}

type countingSubscription struct {
	transport.Subscription
	c *counting
}

func (s *countingSubscription) Next(ctx context.Context) (*transport.Delivery, error) {
	d, err := s.Subscription.Next(ctx)
	if err == nil {
		s.c.taken.Add(1)
	}
	return d, err
}

func TestServerDoesNotReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &counting{Transport: backend(t)}
		c, _, _ := joined(t, b, nil)
		s, err := c.Subscribe(t.Context(), "t", transport.Buffer(4))
		require.NoError(t, err)
		for range 100 {
			require.NoError(t, c.Publish(t.Context(), &transport.Message{Topic: "t"}))
		}
		synctest.Wait()
		require.EqualValues(t, 4, b.taken.Load())
		for i := range 100 {
			d, err := s.Next(t.Context())
			require.NoError(t, err)
			require.NoError(t, d.Ack())
			synctest.Wait()
			require.LessOrEqual(t, int(b.taken.Load()), i+1+4)
		}
		require.EqualValues(t, 100, b.taken.Load())
	})
}

func TestBufferIsCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backend(t)
		c, _, _ := joined(t, b, &pipe.ServerOptions{MaxBuffer: 2})
		for _, opts := range [][]transport.SubscribeOption{{transport.Buffer(50)}, {transport.Buffer(50), transport.Group("g")}} {
			s, err := c.Subscribe(t.Context(), "t", opts...)
			require.NoError(t, err)
			for range 20 {
				require.NoError(t, b.Publish(t.Context(), &transport.Message{Topic: "t"}))
			}
			for range 20 {
				d, err := s.Next(t.Context())
				require.NoError(t, err)
				require.NoError(t, d.Ack())
			}
		}
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backend(t)
		c, _, _ := joined(t, b, &pipe.ServerOptions{MaxCalls: 1, MaxSubscriptions: 1, MaxStreams: 1})
		ctx := t.Context()
		calls, err := b.Respond(ctx, "t")
		require.NoError(t, err)
		streams, err := b.Accept(ctx, "t")
		require.NoError(t, err)
		for range 2 {
			first := async(func() error { _, err := c.Call(ctx, &transport.Message{Topic: "t"}); return err })
			d, err := calls.Next(ctx)
			require.NoError(t, err)
			_, err = c.Call(ctx, &transport.Message{Topic: "t"})
			require.ErrorIs(t, err, transport.CodeResourceExhausted)
			require.NoError(t, d.Ack())
			require.NoError(t, <-first)
			synctest.Wait()

			sub, err := c.Subscribe(ctx, "t")
			require.NoError(t, err)
			_, err = c.Respond(ctx, "u")
			require.ErrorIs(t, err, transport.CodeResourceExhausted)
			require.NoError(t, sub.Close())
			synctest.Wait()

			s, err := c.Open(ctx, "t", nil)
			require.NoError(t, err)
			in, err := streams.Next(ctx)
			require.NoError(t, err)
			_, err = c.Open(ctx, "t", nil)
			require.ErrorIs(t, err, transport.CodeResourceExhausted)
			require.NoError(t, in.End(nil))
			_, err = s.Recv()
			require.Equal(t, io.EOF, err)
			synctest.Wait()
		}
	})
}

// A message that the connection cannot carry does not stop the others.
func TestTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mem.New(nil)
		defer b.Close()
		ctx := t.Context()
		near, far := net.Pipe()
		s := pipe.NewServer(b, &pipe.ServerOptions{MaxBytes: 1000})
		served := async(func() error { return s.ServeConn(context.Background(), far) })
		c := pipe.NewClient(near, &pipe.ClientOptions{MaxBytes: 1000})
		dead, err := b.Subscribe(ctx, "dead")
		require.NoError(t, err)
		group, err := c.Subscribe(ctx, "t", transport.Group("g"), transport.DeadLetter("dead"))
		require.NoError(t, err)
		alone, err := c.Subscribe(ctx, "t")
		require.NoError(t, err)
		large := &transport.Message{Topic: "t", Body: make([]byte, 1000)}
		require.ErrorIs(t, c.Publish(ctx, large), transport.CodeResourceExhausted)
		require.NoError(t, b.Publish(ctx, large))
		require.NoError(t, b.Publish(ctx, &transport.Message{Topic: "t", Body: []byte("small")}))
		d, err := group.Next(ctx)
		require.NoError(t, err)
		require.Equal(t, "small", string(d.Body))
		d, err = dead.Next(ctx)
		require.NoError(t, err)
		require.Len(t, d.Body, 1000)
		_, err = alone.Next(ctx)
		require.ErrorIs(t, err, transport.CodeResourceExhausted)
		var e *transport.Error
		require.ErrorAs(t, err, &e)
		alone, err = c.Subscribe(ctx, "t", transport.From(e.Header.Get("cursor")))
		require.NoError(t, err)
		d, err = alone.Next(ctx)
		require.NoError(t, err)
		require.Equal(t, "small", string(d.Body))

		calls, err := b.Respond(ctx, "c")
		require.NoError(t, err)
		called := async(func() error { _, err := c.Call(ctx, &transport.Message{Topic: "c"}); return err })
		d, err = calls.Next(ctx)
		require.NoError(t, err)
		require.NoError(t, d.Settle(&transport.Message{Body: make([]byte, 1001)}, nil))
		require.ErrorIs(t, <-called, transport.CodeInternal)
		require.NoError(t, c.Close())
		require.NoError(t, <-served)
	})
}

func TestServerShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backend(t)
		c, s, _ := joined(t, b, nil)
		ctx := t.Context()
		require.NoError(t, s.Health(ctx))
		group, err := c.Subscribe(ctx, "t", transport.Group("g"), transport.Buffer(2))
		require.NoError(t, err)
		alone, err := c.Subscribe(ctx, "t")
		require.NoError(t, err)
		for range 2 {
			require.NoError(t, c.Publish(ctx, &transport.Message{Topic: "t"}))
		}
		d, err := group.Next(ctx)
		require.NoError(t, err)
		calls, err := b.Respond(ctx, "c")
		require.NoError(t, err)
		called := async(func() error { _, err := c.Call(ctx, &transport.Message{Topic: "c"}); return err })
		call, err := calls.Next(ctx)
		require.NoError(t, err)
		synctest.Wait() // all has arrived

		down := async(func() error { return s.Shutdown(ctx) })
		synctest.Wait()
		require.ErrorIs(t, s.Health(ctx), transport.CodeUnavailable)
		code(t, c.Publish(ctx, &transport.Message{Topic: "t"}), transport.CodeUnavailable, transport.ReasonNotSent)
		for range 2 {
			_, err = alone.Next(ctx)
			require.NoError(t, err)
		}
		_, err = alone.Next(ctx)
		code(t, err, transport.CodeUnavailable, transport.ReasonClosed)
		second, err := group.Next(ctx)
		require.NoError(t, err, "what has arrived is handed out")
		_, err = group.Next(ctx)
		code(t, err, transport.CodeUnavailable, transport.ReasonClosed)
		select {
		case <-down:
			t.Fatal("there are a call and two deliveries out")
		default:
		}
		require.NoError(t, call.Ack())
		require.NoError(t, <-called)
		require.NoError(t, d.Ack())
		require.NoError(t, second.Nack(transport.CodeCanceled))
		require.NoError(t, <-down)
		group, err = b.Subscribe(ctx, "t", transport.Group("g"))
		require.NoError(t, err)
		d, err = group.Next(ctx)
		require.NoError(t, err)
		require.Equal(t, second.ID, d.ID, "the first was acknowledged")
	})
}

func TestShutdownIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backend(t)
		c, s, _ := joined(t, b, nil)
		_, err := b.Respond(t.Context(), "c")
		require.NoError(t, err)
		called := async(func() error { _, err := c.Call(t.Context(), &transport.Message{Topic: "c"}); return err })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Equal(t, context.DeadlineExceeded, s.Shutdown(ctx))
		code(t, <-called, transport.CodeUnavailable, transport.ReasonOutcomeUnknown)
	})
}

func TestClientShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backend(t)
		c, _, _ := joined(t, b, nil)
		ctx := t.Context()
		group, err := c.Subscribe(ctx, "t", transport.Group("g"))
		require.NoError(t, err)
		calls, err := c.Respond(ctx, "c")
		require.NoError(t, err)
		streams, err := c.Accept(ctx, "s")
		require.NoError(t, err)
		for range 2 {
			require.NoError(t, c.Publish(ctx, &transport.Message{Topic: "t"}))
		}
		d, err := group.Next(ctx)
		require.NoError(t, err)
		called := async(func() error { _, err := b.Call(ctx, &transport.Message{Topic: "c"}); return err })
		call, err := calls.Next(ctx)
		require.NoError(t, err)
		down := async(func() error { return c.Shutdown(ctx) })
		synctest.Wait()
		_, err = group.Next(ctx)
		require.Equal(t, io.EOF, err)
		_, err = streams.Next(ctx)
		require.Equal(t, io.EOF, err)
		code(t, c.Publish(ctx, &transport.Message{Topic: "t"}), transport.CodeUnavailable, transport.ReasonClosed)
		require.NoError(t, d.Ack())
		require.NoError(t, call.Ack())
		require.NoError(t, <-called)
		require.NoError(t, <-down)
		group, err = b.Subscribe(ctx, "t", transport.Group("g"))
		require.NoError(t, err)
		again, err := group.Next(ctx)
		require.NoError(t, err)
		require.NotEqual(t, d.ID, again.ID)
		require.Equal(t, 1, again.Attempt)
	})
}

func TestAuthenticate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backend(t)
		expires := time.Now().Add(time.Hour)
		allow := true
		o := &pipe.ServerOptions{Authenticate: func(ctx context.Context, nc net.Conn) (transport.Peer, error) {
			if !allow {
				return transport.Peer{}, errors.New("private")
			}
			return transport.Peer{ID: "somebody", Expires: expires}, nil
		}}
		guarded := transport.Guard(b, func(ctx context.Context, a transport.Access) error {
			if p, _ := transport.PeerFrom(ctx); p.ID != "somebody" || p.Protocol != "pipe" || p.Addr == "" || p.Conn == nil {
				return fmt.Errorf("unexpected peer: %v", p)
			}
			return nil
		})
		c, _, _ := joined(t, guarded, o)
		require.NoError(t, c.Publish(t.Context(), &transport.Message{Topic: "t"}))
		s, err := c.Subscribe(t.Context(), "t")
		require.NoError(t, err)
		_, err = s.Next(t.Context())
		code(t, err, transport.CodeUnauthenticated, "")
		require.Equal(t, expires, time.Now())

		allow = false
		c, _, _ = joined(t, guarded, o)
		_, err = c.Subscribe(t.Context(), "t")
		require.ErrorIs(t, err, transport.CodeUnauthenticated)
		require.NotContains(t, err.Error(), "private")
	})
}

func TestServeConnContext(t *testing.T) {
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	b := backend(t)
	s := pipe.NewServer(b, nil)
	served := async(func() error { return s.ServeConn(ctx, far) })
	c := pipe.NewClient(near, nil)
	require.NoError(t, c.Health(ctx))
	cancel()
	require.Equal(t, context.Canceled, <-served)
	require.ErrorIs(t, c.Health(t.Context()), transport.CodeUnavailable)
	require.NoError(t, c.Close())
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.ServeConn(t.Context(), far), transport.CodeUnavailable)
}

func TestHealth(t *testing.T) {
	b := mem.New(nil)
	c, _, _ := joined(t, b, nil)
	require.NoError(t, c.Health(t.Context()))
	require.NoError(t, b.Close())
	require.ErrorIs(t, c.Health(t.Context()), transport.CodeUnavailable)
	require.NoError(t, c.Close())
	code(t, c.Health(t.Context()), transport.CodeUnavailable, transport.ReasonClosed)
}

// What a handler behind Join does must not reach the process.
func TestPanic(t *testing.T) {
	tr := transport.Join(transport.Parts{Caller: transport.Mux{"t": func(context.Context, *transport.Message) (*transport.Message, error) {
		panic("private")
	}}})
	c, _, _ := joined(t, tr, nil)
	_, err := c.Call(t.Context(), &transport.Message{Topic: "t"})
	require.ErrorIs(t, err, transport.CodeInternal)
	require.NotContains(t, err.Error(), "private")
	require.ErrorIs(t, c.Publish(t.Context(), &transport.Message{Topic: "t"}), errors.ErrUnsupported)
	_, err = c.Open(t.Context(), "t", nil)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = c.Accept(t.Context(), "t")
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

func TestPublishAllKeepsTheOrder(t *testing.T) {
	b := mem.New(&mem.Options{HistoryMessages: 4096})
	dial := overTCP(t, b, nil)
	c := dial()
	s, err := c.Subscribe(t.Context(), "t", transport.Require(transport.Ordered|transport.AtLeastOnce))
	require.NoError(t, err)
	var ms []*transport.Message
	for i := range 2000 {
		ms = append(ms, &transport.Message{Topic: "t", Body: []byte(strconv.Itoa(i))})
	}
	ms[7] = &transport.Message{Topic: "an..illegal topic"}
	errs := async(func() []error { return c.PublishAll(t.Context(), ms...) })
	for i := range ms {
		if i == 7 {
			continue
		}
		d, err := s.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(i), string(d.Body))
		require.NoError(t, d.Ack())
	}
	for i, err := range <-errs {
		if i == 7 {
			require.ErrorIs(t, err, transport.CodeInvalidArgument)
		} else {
			require.NoError(t, err)
		}
	}
	require.Empty(t, ms[0].ID)
	require.NoError(t, b.Close())
}

// slow waits before it subscribes and accepts, whatever its ctx says.
type slow struct{ transport.Transport }

func (s slow) Subscribe(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	time.Sleep(time.Second)
	return s.Transport.Subscribe(context.WithoutCancel(ctx), topic, opts...)
}

func (s slow) Accept(ctx context.Context, topic string) (transport.Listener, error) {
	time.Sleep(time.Second)
	return s.Transport.Accept(context.WithoutCancel(ctx), topic)
}

func TestGivenUpBeforeActive(t *testing.T) {
	for _, wait := range []time.Duration{time.Second / 2, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			b := backend(t)
			c, s, _ := joined(t, slow{b}, nil)
			group, err := b.Subscribe(t.Context(), "t", transport.Group("g")) // which exists from now on
			require.NoError(t, err)
			require.NoError(t, group.Close())
			for range 10 { // the stop and the active may cross
				ctx, cancel := context.WithTimeout(t.Context(), wait)
				sub, err := c.Subscribe(ctx, "t", transport.Group("g"))
				cancel()
				if err == nil {
					require.NoError(t, sub.Close())
				}
				ctx, cancel = context.WithTimeout(t.Context(), wait)
				l, err := c.Accept(ctx, "t")
				cancel()
				if err == nil {
					require.NoError(t, l.Close())
				}
				require.NoError(t, b.Publish(t.Context(), &transport.Message{Topic: "t"}))
				st, err := b.Open(t.Context(), "t", nil)
				if err == nil {
					_, err = st.Recv()
				}
				require.Error(t, err)
			}
			require.NoError(t, s.Shutdown(t.Context()), "nothing is left")
			group, err = b.Subscribe(t.Context(), "t", transport.Group("g"))
			require.NoError(t, err)
			for range 10 {
				d, err := group.Next(t.Context())
				require.NoError(t, err)
				require.NoError(t, d.Ack())
			}
		})
	}
}

// Whatever breaks the protocol ends the connection, and nothing else.
func TestHostileClients(t *testing.T) {
	b := backend(t)
	dial := overTCP(t, b, nil)
	good := dial()
	require.NoError(t, good.Health(t.Context()))
	near, far := net.Pipe()
	s := pipe.NewServer(b, nil)
	served := async(func() error { return s.ServeConn(context.Background(), far) })
	_, err := near.Write([]byte(strings.Repeat("GET / HTTP/1.1\r\n", 2)[:16]))
	require.NoError(t, err)
	require.ErrorIs(t, <-served, transport.CodeUnavailable)
	require.NoError(t, good.Health(t.Context()))
}
