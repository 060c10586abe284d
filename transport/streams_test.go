package transport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func TestServeStreamsEndsWithTheResult(t *testing.T) {
	refused := transport.Errorf(transport.CodeNotFound, "no")
	for _, c := range []struct {
		name string
		h    transport.StreamHandler
		code transport.Code
		told bool
	}{
		{"nil", func(context.Context, transport.Incoming) error { return nil }, 0, false},
		{"error", func(context.Context, transport.Incoming) error { return refused }, transport.CodeNotFound, true},
		{"panic", func(context.Context, transport.Incoming) error { panic("secret") }, transport.CodeInternal, true},
		{"the handler ends it itself", func(_ context.Context, s transport.Incoming) error {
			s.End(refused)
			return nil
		}, transport.CodeNotFound, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &listener{}
			lines := []*line{newLine(t.Context(), "a", transport.Header{"n": {"0"}}), newLine(t.Context(), "a", nil)}
			for _, s := range lines {
				l.put(acceptorSide{s})
			}
			l.end(io.EOF)
			var told reports
			require.NoError(t, transport.ServeStreams(t.Context(), l, c.h, transport.Workers(1), transport.OnError(told.add)))
			require.True(t, l.isClosed(), "ServeStreams owns the listener")
			for _, s := range lines {
				err, ended := s.result()
				require.True(t, ended)
				require.Equal(t, c.code, transport.CodeOf(err))
				require.Equal(t, c.name == "panic", errors.Is(err, transport.ErrPanic))
				require.Error(t, s.ctx.Err())
			}
			if !c.told {
				require.Empty(t, told.all())
				return
			}
			require.Len(t, told.all(), 2)
			require.Equal(t, "a", told.all()[0].m.Topic, "OnError gets topic and header")
			require.Equal(t, "0", told.all()[0].m.Header.Get("n"))
		})
	}
}

func TestServeStreamsGoexit(t *testing.T) {
	for _, workers := range []int{1, 4} {
		l, s := &listener{}, newLine(t.Context(), "a", nil)
		l.put(acceptorSide{s})
		var told reports
		err := transport.ServeStreams(t.Context(), l, func(context.Context, transport.Incoming) error {
			runtime.Goexit()
			return nil
		}, transport.Workers(workers), transport.OnError(told.add))
		require.Equal(t, transport.CodeInternal, transport.CodeOf(err), "as for Serve, it ends the serving")
		require.True(t, l.isClosed())
		end, ended := s.result()
		require.True(t, ended, "the stream does not hang")
		require.Equal(t, transport.CodeInternal, transport.CodeOf(end))
		require.Len(t, told.all(), 1)
	}
}

func TestServeStreamsWorkers(t *testing.T) {
	for _, c := range []struct {
		opts []transport.ServeOption
		want int
	}{
		{nil, 1024},
		{[]transport.ServeOption{transport.Workers(1)}, 1},
		{[]transport.ServeOption{transport.Workers(5)}, 5},
	} {
		t.Run(fmt.Sprint(c.want), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const streams = 1100
				l := &listener{}
				for range streams {
					l.put(acceptorSide{newLine(t.Context(), "a", nil)})
				}
				l.end(io.EOF)
				var running, handled atomic.Int32
				finish := make(chan struct{})
				result := start(func() error {
					return transport.ServeStreams(t.Context(), l, func(context.Context, transport.Incoming) error {
						if n := running.Add(1); int(n) > c.want {
							t.Errorf("%d at once", n)
						}
						defer running.Add(-1)
						handled.Add(1)
						<-finish
						return nil
					}, c.opts...)
				})
				synctest.Wait()
				require.EqualValues(t, c.want, running.Load())
				close(finish)
				require.NoError(t, <-result)
				require.EqualValues(t, streams, handled.Load())
			})
		})
	}
}

func TestServeStreamsEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := &listener{}, newLine(t.Context(), "a", nil)
		l.put(acceptorSide{s})
		ctx, cancel := context.WithCancel(t.Context())
		finish := make(chan struct{})
		var hctx context.Context
		result := start(func() error {
			return transport.ServeStreams(ctx, l, func(ctx context.Context, _ transport.Incoming) error {
				hctx = ctx
				<-finish
				return nil
			}, transport.Grace(time.Minute))
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		require.True(t, l.isClosed(), "no more streams are taken")
		time.Sleep(time.Minute - 1)
		require.NoError(t, hctx.Err(), "those that are out go on")
		close(finish)
		require.NoError(t, <-result)
		err, ended := s.result()
		require.True(t, ended)
		require.NoError(t, err)
	})
}

func TestServeStreamsOverrun(t *testing.T) {
	for _, grace := range []time.Duration{0, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			l, s := &listener{}, newLine(t.Context(), "a", nil)
			l.put(acceptorSide{s})
			ctx, cancel := context.WithCancel(t.Context())
			var told reports
			result := start(func() error {
				return transport.ServeStreams(ctx, l, func(ctx context.Context, s transport.Incoming) error {
					<-ctx.Done()
					time.Sleep(time.Second)
					return transport.CodeUnavailable
				}, transport.Grace(grace), transport.OnError(told.add))
			})
			synctest.Wait()
			begin := time.Now()
			cancel()
			err := <-result
			require.ErrorIs(t, err, transport.CodeDeadlineExceeded)
			require.Equal(t, grace, time.Since(begin))
			require.Equal(t, []report{{nil, err}}, told.all())
			require.NoError(t, s.ctx.Err(), "the handler ends the stream, not ServeStreams")
			time.Sleep(2 * time.Second)
			end, _ := s.result()
			require.Equal(t, transport.CodeUnavailable, end)
		})
	}
}

func TestServeStreamsContext(t *testing.T) {
	type key struct{}
	synctest.Test(t, func(t *testing.T) {
		for _, plain := range []bool{false, true} {
			ctx := context.WithValue(t.Context(), key{}, "value")
			in, hangUp := context.WithTimeout(transport.WithPeer(t.Context(), transport.Peer{ID: "alice"}), time.Hour)
			l, s := &listener{}, newLine(in, "a", nil)
			if plain { // a context that the standard library does not know
				s.ctx = foreignContext{s.ctx}
			}
			l.put(acceptorSide{s})
			l.end(io.EOF)
			result := start(func() error {
				return transport.ServeStreams(ctx, l, func(ctx context.Context, _ transport.Incoming) error {
					if ctx.Value(key{}) != "value" {
						t.Error("the values of ServeStreams's context are gone")
					}
					if p, _ := transport.PeerFrom(ctx); p.ID != "alice" {
						t.Error("the peer is gone")
					}
					want, _ := in.Deadline()
					if at, ok := ctx.Deadline(); !ok || !at.Equal(want) {
						t.Error("the opener's deadline is gone")
					}
					<-ctx.Done()
					return ctx.Err()
				})
			})
			synctest.Wait()
			_, ended := s.result()
			require.False(t, ended)
			hangUp()
			require.NoError(t, <-result)
			end, _ := s.result()
			require.ErrorIs(t, end, context.Canceled, "the handler's context ends with the stream")
		}
	})
}

type foreignContext struct{ context.Context }

func (c foreignContext) Value(key any) any {
	if s := fmt.Sprintf("%T", key); s == "*int" { // the key by which package context finds its own
		return nil
	}
	return c.Context.Value(key)
}

func TestServeStreamsReportsAFailedEnd(t *testing.T) {
	l, s := &listener{}, newLine(t.Context(), "a", nil)
	s.endErr = errors.New("not taken")
	l.put(acceptorSide{s})
	l.end(io.EOF)
	var told reports
	err := transport.ServeStreams(t.Context(), l, func(context.Context, transport.Incoming) error { return nil }, transport.OnError(told.add))
	require.NoError(t, err)
	require.Len(t, told.all(), 1)
	require.Equal(t, s.endErr, told.all()[0].err)
	s.cancel()
}

func TestServeStreamsTerminalError(t *testing.T) {
	broken := transport.Errorf(transport.CodeUnavailable, "gone")
	l := &listener{}
	l.end(broken)
	h := func(context.Context, transport.Incoming) error { return nil }
	require.Equal(t, broken, transport.ServeStreams(t.Context(), l, h))
	require.True(t, l.isClosed())
}

func TestServeStreamsRefusesWhatIsIllegal(t *testing.T) {
	h := func(context.Context, transport.Incoming) error { return nil }
	key := transport.KeyedBy(func(*transport.Message) string { return "" })
	for _, c := range []struct {
		name string
		h    transport.StreamHandler
		opt  transport.ServeOption
	}{
		{"nil handler", nil, transport.Workers(1)},
		{"nil option", h, nil},
		{"KeyedBy", h, key},
		{"Attempts", h, transport.Attempts(1)},
		{"Workers(0)", h, transport.Workers(0)},
		{"negative Grace", h, transport.Grace(-1)},
	} {
		l := &listener{}
		require.ErrorIs(t, transport.ServeStreams(t.Context(), l, c.h, c.opt), transport.CodeInvalidArgument, c.name)
		require.True(t, l.isClosed(), c.name)
	}
	require.ErrorIs(t, transport.ServeStreams(t.Context(), nil, h), transport.CodeInvalidArgument)
}
