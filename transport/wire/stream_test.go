package wire_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// A wired is a StreamSender that notes what is sent. Items wait for room while full.
type wired struct {
	sent chan string
	full chan struct{} // nil: there is room
}

func newWired() *wired { return &wired{sent: make(chan string, 100)} }

func (w *wired) SendItem(ctx context.Context, m *transport.Message) error {
	if w.full != nil {
		select {
		case <-w.full:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	w.sent <- "item " + string(m.Body)
	return nil
}

func (w *wired) SendCredit(n int)              { w.sent <- fmt.Sprint("credit ", n) }
func (w *wired) SendHeader(h transport.Header) { w.sent <- fmt.Sprint("header ", h) }
func (w *wired) SendEOF() error                { w.sent <- "eof"; return nil }
func (w *wired) SendCancel()                   { w.sent <- "cancel" }
func (w *wired) SendEnd(trailer transport.Header, err error, wait bool) error {
	w.sent <- fmt.Sprint("end ", trailer, " ", err, " ", wait)
	return nil
}

// says checks what was sent since the last time.
func (w *wired) says(t testing.TB, want ...string) {
	t.Helper()
	got := []string{}
	for len(w.sent) > 0 {
		got = append(got, <-w.sent)
	}
	if want == nil {
		want = []string{}
	}
	require.Equal(t, want, got)
}

func opened(t testing.TB) (*wired, *wire.Stream, transport.Stream) {
	w := newWired()
	s := wire.NewOpener(t.Context(), w, nil)
	s.Active()
	require.NoError(t, s.Opened())
	return w, s, s.Opener()
}

func accepted(t testing.TB, o *wire.StreamOptions) (*wired, *wire.Stream, transport.Incoming) {
	w := newWired()
	s := wire.NewIncoming(t.Context(), w, o)
	return w, s, s.Incoming()
}

func body(s string) *transport.Message { return &transport.Message{Body: []byte(s)} }

func received(t testing.TB, recv func() (*transport.Message, error), want string) {
	t.Helper()
	m, err := recv()
	require.NoError(t, err)
	require.Equal(t, want, string(m.Body))
}

func TestStreamOpener(t *testing.T) {
	w, s, o := opened(t)
	require.NoError(t, o.Send(body("1")))
	require.NoError(t, o.CloseSend())
	require.NoError(t, o.CloseSend(), "twice")
	require.ErrorIs(t, o.Send(body("2")), transport.CodeFailedPrecondition)
	w.says(t, "item 1", "eof")
	s.EOF()    // is not for this end
	s.Cancel() // nor is this
	s.Header(transport.Header{"a": {"1"}})
	s.Header(transport.Header{"a": {"2"}}) // the first counts
	require.NoError(t, s.Item(body("3")))
	h, err := o.Header()
	require.NoError(t, err)
	require.Equal(t, transport.Header{"a": {"1"}}, h)
	s.End(transport.Header{"t": {"4"}}, transport.CodeAborted)
	s.End(nil, nil)
	require.Nil(t, o.Trailer(), "before Recv has told the end")
	received(t, o.Recv, "3")
	_, err = o.Recv()
	require.Equal(t, transport.CodeAborted, err)
	require.Equal(t, transport.Header{"t": {"4"}}, o.Trailer())
	require.Equal(t, io.EOF, o.Send(body("5")))
	require.NoError(t, o.Close())
	require.NoError(t, o.CloseSend())
	require.Error(t, s.Context().Err())
	require.False(t, s.Cut(transport.CodeInternal), "it has ended")
	w.says(t)
}

func TestStreamIncoming(t *testing.T) {
	w, s, in := accepted(t, &wire.StreamOptions{Topic: "t", Header: transport.Header{"k": {"v"}}})
	require.Equal(t, "t", in.Topic())
	require.Equal(t, transport.Header{"k": {"v"}}, in.Header())
	require.NoError(t, in.SetHeader(transport.Header{"a": {"1"}}))
	require.ErrorIs(t, in.SetHeader(transport.Header{"A": {"1"}}), transport.CodeInvalidArgument)
	require.NoError(t, s.Item(body("1")))
	received(t, in.Recv, "1")
	require.NoError(t, in.SetHeader(transport.Header{"b": {"2"}}), "an item of the opener is no end of ours")
	require.NoError(t, in.Send(body("2")))
	require.ErrorIs(t, in.SetHeader(transport.Header{"c": {"3"}}), transport.CodeFailedPrecondition)
	s.Header(transport.Header{"x": {"1"}}) // is not for this end
	s.End(nil, nil)                        // nor is this
	s.EOF()
	require.NoError(t, s.Item(body("late")), "ignored")
	_, err := in.Recv()
	require.Equal(t, io.EOF, err)
	in.SetTrailer(transport.Header{"t": {"3"}})
	require.NoError(t, in.End(transport.CodeNotFound))
	require.NoError(t, in.End(nil), "twice")
	require.ErrorIs(t, in.Send(body("3")), transport.CodeFailedPrecondition)
	require.Error(t, in.Context().Err())
	s.Break(transport.CodeInternal)
	w.says(t, "header map[a:[1] b:[2]]", "item 2", "end map[t:[3]] not_found true")
}

func TestStreamNotOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			end  func(*wire.Stream)
			want error
			says []string
		}{
			{func(s *wire.Stream) { s.End(nil, transport.CodeNotFound) }, transport.CodeNotFound, nil},
			{func(s *wire.Stream) { s.End(nil, nil) }, transport.CodeUnavailable, nil},
			{func(s *wire.Stream) { s.Cut(transport.CodeUnavailable) }, transport.CodeUnavailable, nil},
			{func(s *wire.Stream) {}, context.DeadlineExceeded, []string{"cancel"}},
		} {
			w := newWired()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			s := wire.NewOpener(ctx, w, nil)
			done := make(chan error)
			go func() { done <- s.Opened() }()
			synctest.Wait()
			c.end(s)
			require.ErrorIs(t, <-done, c.want)
			synctest.Wait()
			w.says(t, c.says...)
			cancel()
		}
	})
}

func TestStreamCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, o := opened(t)
		large := &transport.Message{Body: make([]byte, wire.StreamWindow)} // an item more than the window holds
		require.NoError(t, o.Send(large))
		sent := make(chan error)
		send := func() { sent <- o.Send(body("x")) }
		go send()
		synctest.Wait()
		s.Credit(-5)
		s.Credit(100)
		synctest.Wait()
		require.Empty(t, sent)
		require.Len(t, w.sent, 1, "28 bytes and more than one item are missing")
		s.Credit(29)
		require.NoError(t, <-sent)
		s.Credit(1 << 40)
		require.NoError(t, o.Send(large), "no more than a window, whatever was given")
		go send()
		synctest.Wait()
		require.Empty(t, sent)
		s.Cut(transport.CodeUnavailable)
		require.Equal(t, transport.CodeUnavailable, <-sent)

		w, s, in := accepted(t, nil)
		half := &transport.Message{Body: make([]byte, wire.StreamWindow/2-128)}
		require.NoError(t, s.Item(half))
		require.NoError(t, s.Item(half))
		err := s.Item(half)
		require.ErrorIs(t, err, transport.CodeResourceExhausted)
		w.says(t)
		in.Recv()
		w.says(t, fmt.Sprint("credit ", wire.StreamWindow/2))
		s.Break(err)
		w.says(t, "end map[] "+err.Error()+" false")
		received(t, in.Recv, string(half.Body))
		_, got := in.Recv()
		require.Equal(t, err, got)
	})
}

// Whoever waits learns how the stream has ended, not that its context has.
func TestStreamEndsSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			end  func(*wire.Stream, transport.Stream)
			want error
		}{
			{func(s *wire.Stream, _ transport.Stream) { s.End(nil, transport.CodeAborted) }, io.EOF},
			{func(s *wire.Stream, _ transport.Stream) { s.Cut(transport.CodeUnavailable) }, transport.CodeUnavailable},
			{func(_ *wire.Stream, o transport.Stream) { o.Close() }, transport.CodeCanceled},
		} {
			w, s, o := opened(t)
			w.full = make(chan struct{})
			sent := make(chan error)
			go func() { sent <- o.Send(body("x")) }()
			synctest.Wait()
			c.end(s, o)
			require.ErrorIs(t, <-sent, c.want)
		}
		w, _, in := accepted(t, nil)
		w.full = make(chan struct{})
		sent := make(chan error)
		go func() { sent <- in.Send(body("x")) }()
		synctest.Wait()
		require.NoError(t, in.End(nil))
		require.ErrorIs(t, <-sent, transport.CodeFailedPrecondition)
	})
}

func TestStreamAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, o := opened(t)
		require.NoError(t, s.Item(body("1")))
		require.NoError(t, o.Close())
		require.NoError(t, o.Close())
		w.says(t, "cancel")
		received(t, o.Recv, "1")
		_, err := o.Recv()
		require.ErrorIs(t, err, transport.CodeCanceled)
		_, err = o.Header()
		require.NoError(t, err, "an item came without one")
		s.End(transport.Header{"t": {"1"}}, nil)
		require.Nil(t, o.Trailer())

		w, s, in := accepted(t, nil)
		s.Cancel()
		<-in.Context().Done()
		_, err = in.Recv()
		require.ErrorIs(t, err, transport.CodeCanceled)
		require.NoError(t, in.End(nil))
		w.says(t, "end map[] <nil> true")

		w, _, in = accepted(t, &wire.StreamOptions{Timeout: time.Second})
		_, err = in.Recv()
		require.Equal(t, context.DeadlineExceeded, err)
		w.says(t)

		ctx, cancel := context.WithCancel(t.Context())
		w = newWired()
		s = wire.NewOpener(ctx, w, nil)
		s.Active()
		require.NoError(t, s.Opened())
		cancel()
		_, err = s.Opener().Recv()
		require.Equal(t, context.Canceled, err)
		synctest.Wait()
		w.says(t, "cancel")
	})
}

func TestStreamSizes(t *testing.T) {
	w := newWired()
	s := wire.NewIncoming(t.Context(), w, &wire.StreamOptions{MaxBytes: 3})
	defer s.Cut(transport.CodeCanceled)
	require.ErrorIs(t, s.Incoming().Send(body("four")), transport.CodeResourceExhausted)
	require.NoError(t, s.Incoming().Send(body("3ch")))
	w.says(t, "item 3ch")
}

func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wire.NewBacklog()
		_, s, in := accepted(t, nil)
		active := false
		require.NoError(t, b.Push(s, func() { active = true }))
		require.True(t, active)
		got, err := b.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, in, got)

		w, s, _ := accepted(t, nil)
		require.NoError(t, b.Push(s, func() {}))
		s.Cancel()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = b.Next(ctx)
		require.Equal(t, context.DeadlineExceeded, err, "its opener has given up")
		require.Len(t, w.sent, 1, "and it is ended")
		_, err = b.Next(ctx)
		require.Equal(t, context.DeadlineExceeded, err)

		w, s, _ = accepted(t, nil)
		defer s.Cut(transport.CodeCanceled)
		for range 1024 {
			require.NoError(t, b.Push(s, func() {}))
		}
		require.ErrorIs(t, b.Push(s, func() { t.Error("not taken") }), transport.CodeResourceExhausted)
		waiting := make(chan error)
		b.End(io.EOF)
		b.End(transport.CodeInternal)
		go func() { _, err := b.Next(t.Context()); waiting <- err }()
		require.Equal(t, io.EOF, <-waiting)
		require.ErrorIs(t, s.Context().Err(), context.Canceled)
		require.Len(t, w.sent, 1, "ended once")
		require.ErrorIs(t, b.Push(s, func() { t.Error("not taken") }), transport.CodeUnavailable)
		require.NoError(t, got.End(nil), "who has a stream goes on")
	})
}

// An item that the other transport does not take ends a bridged stream.
func TestBridgeRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := mem.New(nil)
		defer bus.Close()
		l, err := bus.Accept(t.Context(), "x")
		require.NoError(t, err)
		defer l.Close()
		out, err := bus.Open(t.Context(), "x", nil)
		require.NoError(t, err)
		_, s, in := accepted(t, &wire.StreamOptions{MaxBytes: 8 << 20})
		done := make(chan struct{})
		go func() { defer close(done); wire.Bridge(in, out) }()
		require.NoError(t, s.Item(&transport.Message{Body: []byte(strings.Repeat("x", 2<<20))}))
		synctest.Wait()
		select {
		case <-done:
		default:
			t.Error("the bridge hangs")
		}
		s.Cut(transport.CodeUnavailable)
		out.Close()
		<-done
	})
}
