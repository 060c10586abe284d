package transport_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func ended(context.Context, transport.Incoming) error { return nil }

func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		var handled atomic.Int32
		h := func(context.Context, *transport.Message) (*transport.Message, error) {
			handled.Add(1)
			return nil, nil
		}
		s, err := transport.Start(t.Context(), f,
			transport.BindCalls("calls", h, transport.Buffer(3)),
			transport.BindEvents("events", h, transport.Group("g"), transport.Workers(2)),
			transport.BindStreams("streams", func(context.Context, transport.Incoming) error {
				handled.Add(1)
				return nil
			}, transport.Workers(2)))
		require.NoError(t, err)
		require.Equal(t, []string{"respond calls", "subscribe events", "accept streams"}, f.log(), "all are active")
		require.Equal(t, transport.SubscribeOptions{Group: "g", Buffer: 64}, f.options)
		require.NoError(t, s.Health(t.Context()))

		f.subs["calls"].push("1")
		f.subs["events"].push("2")
		l := newLine(t.Context(), "streams", nil)
		f.listener["streams"].put(acceptorSide{l})
		synctest.Wait()
		require.EqualValues(t, 3, handled.Load())
		require.NoError(t, s.Shutdown(t.Context()))
		require.NoError(t, s.Wait())
		require.NoError(t, s.Shutdown(t.Context()), "twice is safe")
		require.True(t, f.subs["calls"].isClosed() && f.subs["events"].isClosed() && f.listener["streams"].isClosed())
		require.ErrorIs(t, s.Health(t.Context()), transport.CodeUnavailable)
	})
}

func TestStartNothing(t *testing.T) {
	s, err := transport.Start(t.Context(), &fake{})
	require.NoError(t, err)
	require.NoError(t, s.Wait())
	require.ErrorIs(t, s.Health(t.Context()), transport.CodeUnavailable)
}

func TestStartAllOrNone(t *testing.T) {
	refused := transport.Wrap(errors.New("secret"), transport.CodePermissionDenied, "not you")
	for _, last := range []transport.Binding{transport.BindEvents("last", done), transport.BindCalls("last", done), transport.BindStreams("last", ended)} {
		t.Run(last.Op().String(), func(t *testing.T) {
			f := &fake{err: map[string]error{last.Op().String() + " last": refused}}
			s, err := transport.Start(t.Context(), f, transport.BindEvents("events", done), transport.BindCalls("calls", done),
				transport.BindStreams("streams", ended), last, transport.BindEvents("never", done))
			require.Nil(t, s)
			require.ErrorIs(t, err, transport.CodePermissionDenied)
			require.ErrorIs(t, err, refused)
			require.ErrorContains(t, err, last.Op().String()+` "last"`, "the error says which")
			require.NotContains(t, transport.Public(err).Message, "secret")
			require.True(t, f.subs["events"].isClosed() && f.subs["calls"].isClosed() && f.listener["streams"].isClosed(),
				"the earlier ones are closed")
			require.NotContains(t, f.log(), "subscribe never")
		})
	}
	_, err := transport.Start(t.Context(), transport.Join(transport.Parts{}), transport.BindEvents("a", done))
	require.ErrorIs(t, err, errors.ErrUnsupported, "a demand that is not met can be told apart")
}

func TestStartRefusesBadBindings(t *testing.T) {
	typed := transport.Operation[int, int]{Topic: "a"}
	for _, c := range []struct {
		name string
		b    transport.Binding
	}{
		{"empty", transport.Binding{}},
		{"nil handler of calls", transport.BindCalls("a", nil)},
		{"nil handler of events", transport.BindEvents("a", nil)},
		{"nil handler of streams", transport.BindStreams("a", nil)},
		{"nil handler under middleware", transport.BindEvents("a", nil, transport.Use(tag(new([]string), "x")))},
		{"nil typed function", typed.Bind(nil)},
		{"nil option", transport.BindEvents("a", done, transport.Workers(1), nil)},
		{"nil option of streams", transport.BindStreams("a", ended, nil)},
		{"nil middleware", transport.BindCalls("a", done, transport.Use(nil))},
		{"middleware that gives nil", transport.BindCalls("a", done, transport.Use(func(transport.Handler) transport.Handler { return nil }))},
		{"stream with a subscribe option", transport.BindStreams("a", ended, transport.Buffer(3))},
		{"stream with middleware", transport.BindStreams("a", ended, transport.Use(tag(new([]string), "x")))},
		{"stream with a key", transport.BindStreams("a", ended, transport.KeyedBy(func(*transport.Message) string { return "" }))},
		{"illegal topic", transport.BindEvents("a..b", done)},
		{"no topic", transport.BindStreams("", ended)},
		{"illegal serve option", transport.BindEvents("a", done, transport.Workers(0))},
		{"illegal serve option of calls", transport.BindCalls("a", done, transport.Attempts(3))},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fake{}
			s, err := transport.Start(t.Context(), f, transport.BindEvents("good", done), c.b)
			require.ErrorIs(t, err, transport.CodeInvalidArgument)
			require.Nil(t, s)
			require.Empty(t, f.log(), "nothing was started")
		})
	}
	_, err := transport.Start(t.Context(), nil)
	require.ErrorIs(t, err, transport.CodeInvalidArgument)

	f := &fake{}
	_, err = transport.Start(t.Context(), f, transport.BindEvents("good", done), transport.BindEvents("a", done, transport.Group("")))
	require.ErrorIs(t, err, transport.CodeInvalidArgument, "the transport refuses an illegal demand")
	require.True(t, f.subs["good"].isClosed())
}

func TestUse(t *testing.T) {
	var log []string
	f := &fake{}
	h := func(context.Context, *transport.Message) (*transport.Message, error) {
		log = append(log, "handler")
		return nil, nil
	}
	mw := []transport.Middleware{tag(&log, "c"), tag(&log, "d")}
	s, err := transport.Start(t.Context(), f,
		transport.BindEvents("a", h, transport.Use(tag(&log, "a"), tag(&log, "b")), transport.Workers(1), transport.Use(mw...)))
	require.NoError(t, err)
	f.subs["a"].push("1")
	f.subs["a"].end(io.EOF)
	require.NoError(t, s.Wait())
	require.Equal(t, []string{"a", "b", "c", "d", "handler"}, log, "the first is the outermost")
}

func TestBindWorkers(t *testing.T) {
	for _, c := range []struct {
		name string
		bind func(string, transport.Handler, ...transport.Option) transport.Binding
		opts []transport.Option
		want int32
	}{
		{"calls", transport.BindCalls, nil, 64},
		{"calls with Workers", transport.BindCalls, []transport.Option{transport.Workers(3)}, 3},
		{"events", transport.BindEvents, nil, 1},
		{"events with Workers", transport.BindEvents, []transport.Option{transport.Workers(3)}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{subs: map[string]*sub{"a": newSub(numbers(100)...)}}
				f.subs["a"].end(io.EOF)
				var running atomic.Int32
				release := make(chan struct{})
				s, err := transport.Start(t.Context(), f, c.bind("a", func(context.Context, *transport.Message) (*transport.Message, error) {
					running.Add(1)
					<-release
					return nil, nil
				}, c.opts...))
				require.NoError(t, err)
				synctest.Wait()
				require.Equal(t, c.want, running.Load())
				close(release)
				require.NoError(t, s.Wait())
				require.Len(t, f.subs["a"].all(), 100)
			})
		})
	}
}

func TestServiceFirstErrorEndsTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := transport.Errorf(transport.CodeUnavailable, "gone")
		f := &fake{}
		finish := make(chan struct{})
		s, err := transport.Start(t.Context(), f, transport.BindEvents("bad", done), transport.BindStreams("streams", ended),
			transport.BindCalls("busy", func(ctx context.Context, _ *transport.Message) (*transport.Message, error) {
				<-finish
				return nil, ctx.Err()
			}), transport.BindEvents("over", done))
		require.NoError(t, err)
		f.subs["busy"].push("1")
		f.subs["over"].end(io.EOF)
		synctest.Wait()
		require.NoError(t, s.Health(t.Context()), "an orderly end of one is no end of the others")
		f.subs["bad"].end(broken)
		synctest.Wait()
		require.True(t, f.subs["busy"].isClosed() && f.listener["streams"].isClosed())
		health := s.Health(t.Context())
		require.ErrorIs(t, health, transport.CodeUnavailable)
		require.ErrorIs(t, health, broken, "Health tells why")
		result := start(s.Wait)
		synctest.Wait()
		require.Empty(t, result, "the others drain")
		close(finish)
		require.Equal(t, broken, <-result)
		require.Equal(t, []string{"1 ok"}, f.subs["busy"].results())
		require.Equal(t, broken, s.Shutdown(t.Context()))
	})
}

func TestServiceShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		finish := make(chan struct{})
		s, err := transport.Start(t.Context(), f, transport.BindEvents("a", func(context.Context, *transport.Message) (*transport.Message, error) {
			<-finish
			return nil, nil
		}))
		require.NoError(t, err)
		f.subs["a"].push("1")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Equal(t, context.DeadlineExceeded, s.Shutdown(ctx), "its own context ends first")
		require.True(t, f.subs["a"].isClosed(), "the drain goes on")
		close(finish)
		require.NoError(t, s.Wait())
		require.Equal(t, []string{"1 ok"}, f.subs["a"].results())
	})
}

func TestServiceOverrun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		finish := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		s, err := transport.Start(ctx, f, transport.BindEvents("a", func(context.Context, *transport.Message) (*transport.Message, error) {
			<-finish
			return nil, nil
		}, transport.Grace(time.Second), transport.OnError(func(*transport.Message, error) {})))
		require.NoError(t, err)
		f.subs["a"].push("1")
		synctest.Wait()
		cancel() // the end of Start's context is a shutdown
		require.ErrorIs(t, s.Wait(), transport.CodeDeadlineExceeded)
		close(finish)
	})
}

func TestServiceHealth(t *testing.T) {
	f := &fake{}
	s, err := transport.Start(t.Context(), f, transport.BindEvents("a", done))
	require.NoError(t, err)
	require.NoError(t, s.Health(t.Context()))
	f.health = transport.Errorf(transport.CodeUnavailable, "no connection")
	require.Equal(t, f.health, s.Health(t.Context()), "the transport's own")
	require.NoError(t, s.Shutdown(t.Context()))
}
