package transport_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

// numbers returns "1" to "n".
func numbers(n int) (s []string) {
	for i := range n {
		s = append(s, strconv.Itoa(i+1))
	}
	return s
}

func done(context.Context, *transport.Message) (*transport.Message, error) { return nil, nil }

// start runs f and returns where its result will be.
func start(f func() error) <-chan error {
	result := make(chan error, 1)
	go func() { result <- f() }()
	return result
}

func TestServePushesInOrder(t *testing.T) {
	s := newSub(numbers(20)...)
	s.end(io.EOF)
	var got []string // one worker: no lock
	err := transport.Serve(t.Context(), s, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
		got = append(got, string(m.Body))
		return m, nil
	})
	require.NoError(t, err, "io.EOF is an orderly end")
	require.Equal(t, numbers(20), got)
	require.True(t, s.isClosed(), "Serve owns the subscription")
	for _, st := range s.all() {
		require.Same(t, st.m, st.reply, "the delivery is settled with the reply")
		require.NoError(t, st.err)
	}
	require.Len(t, s.all(), 20)
}

func TestServeSettlesWithTheError(t *testing.T) {
	refused := transport.Errorf(transport.CodeNotFound, "no")
	foreign := errors.New("foreign")
	s := newSub("refused", "foreign", "ok")
	s.end(io.EOF)
	var told reports
	err := transport.Serve(t.Context(), s, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
		return nil, map[string]error{"refused": refused, "foreign": foreign}[string(m.Body)]
	}, transport.OnError(told.add))
	require.NoError(t, err)
	st := s.all()
	require.Len(t, st, 3)
	require.Equal(t, refused, st[0].err)
	require.Equal(t, foreign, st[1].err)
	require.NoError(t, st[2].err)
	require.Equal(t, []report{{st[0].m, refused}, {st[1].m, foreign}}, told.all(), "OnError is told of every error of a handler")
}

func TestServeWorkers(t *testing.T) {
	for _, c := range []struct {
		name string
		opts []transport.ServeOption
		want int
	}{
		{"default", nil, 1},
		{"one", []transport.ServeOption{transport.Workers(1)}, 1},
		{"three", []transport.ServeOption{transport.Workers(3)}, 3},
		{"more than there are messages", []transport.ServeOption{transport.Workers(100)}, 20},
		{"the last one counts", []transport.ServeOption{transport.Workers(9), transport.Workers(2)}, 2},
	} {
		for _, keyed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, keyed %v", c.name, keyed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSub(numbers(20)...)
					s.end(io.EOF)
					var running, most atomic.Int32
					release := make(chan struct{})
					opts := c.opts
					if keyed {
						opts = append(slices.Clone(opts), transport.KeyedBy(func(m *transport.Message) string { return string(m.Body) }))
					}
					result := start(func() error {
						return transport.Serve(t.Context(), s, func(context.Context, *transport.Message) (*transport.Message, error) {
							n := running.Add(1)
							defer running.Add(-1)
							for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
							}
							release <- struct{}{}
							return nil, nil
						}, opts...)
					})
					for range 20 {
						synctest.Wait()
						<-release
					}
					require.NoError(t, <-result)
					require.EqualValues(t, c.want, most.Load())
					require.Len(t, s.all(), 20)
				})
			})
		}
	}
}

func TestServeTurnsPanicsIntoInternal(t *testing.T) {
	for _, keyed := range []bool{false, true} {
		s := newSub("text", "error", "nil", "abort", "ok")
		s.end(io.EOF)
		var told reports
		opts := []transport.ServeOption{transport.OnError(told.add)}
		if keyed {
			opts = append(opts, transport.KeyedBy(func(*transport.Message) string { return "" }), transport.Attempts(1))
		}
		err := transport.Serve(t.Context(), s, panicking, opts...)
		require.NoError(t, err, "Serve goes on")
		st := s.all()
		require.Len(t, st, 5)
		require.NoError(t, st[4].err)
		require.Len(t, told.all(), 4)
		for i, st := range st[:4] {
			require.Same(t, st.m, told.all()[i].m)
			for _, err := range []error{st.err, told.all()[i].err} {
				require.ErrorIs(t, err, transport.ErrPanic)
				require.ErrorContains(t, err, "panicking(", "the stack")
				require.NotContains(t, transport.Public(err).Error(), "secret")
			}
			require.Equal(t, transport.CodeInternal, transport.CodeOf(told.all()[i].err))
			if !keyed {
				require.Equal(t, transport.CodeInternal, transport.CodeOf(st.err))
			}
		}
		require.ErrorIs(t, st[1].err, io.ErrUnexpectedEOF, "the cause is kept")
	}
}

func panicking(_ context.Context, m *transport.Message) (*transport.Message, error) {
	switch string(m.Body) {
	case "text":
		panic("secret")
	case "error":
		panic(io.ErrUnexpectedEOF)
	case "nil":
		var m *transport.Message
		return &transport.Message{Topic: m.Topic}, nil
	case "abort":
		panic(nil)
	}
	return nil, nil
}

func TestServeGoexit(t *testing.T) {
	key := transport.KeyedBy(func(m *transport.Message) string { return string(m.Body) })
	for _, c := range []struct {
		name string
		opts []transport.ServeOption
	}{
		{"one worker", nil},
		{"four workers", []transport.ServeOption{transport.Workers(4)}},
		{"keyed", []transport.ServeOption{key}},
		{"keyed, four workers", []transport.ServeOption{key, transport.Workers(4)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSub(numbers(5)...) // and no end: Goexit ends Serve
				s.settleErr = errors.New("not taken")
				var told reports
				var calls sync.Map
				err := transport.Serve(t.Context(), s, func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
					calls.Store(string(m.Body), ctx)
					if string(m.Body) == "2" {
						runtime.Goexit()
					}
					return nil, nil
				}, append(c.opts, transport.OnError(told.add))...)
				require.Equal(t, transport.CodeInternal, transport.CodeOf(err))
				require.ErrorContains(t, err, "Goexit")
				require.True(t, s.isClosed())
				handed := 0
				calls.Range(func(any, any) bool { handed++; return true })
				internal := 0
				for _, st := range s.all() {
					switch code := transport.CodeOf(st.err); code {
					case transport.CodeInternal:
						require.Equal(t, "2", string(st.m.Body))
						internal++
					case transport.CodeCanceled:
						_, ok := calls.Load(string(st.m.Body))
						require.False(t, ok, "only what no handler saw is given back")
					default:
						require.NoError(t, st.err)
						handed--
					}
				}
				require.Equal(t, 1, internal)
				require.Equal(t, 1, handed, "all that handlers saw is settled by their results")
				failures := 0
				for _, r := range told.all() {
					if errors.Is(r.err, s.settleErr) {
						failures++
					}
				}
				require.Equal(t, len(s.all()), failures, "settling that failed is reported")
				s.mu.Lock()
				defer s.mu.Unlock()
				require.Len(t, s.settles, 5-len(s.items), "nothing that was handed out is left unsettled")
			})
		})
	}
}

func TestServeRefusesWhatIsIllegal(t *testing.T) {
	key := transport.KeyedBy(func(*transport.Message) string { return "" })
	for _, c := range []struct {
		name string
		h    transport.Handler
		opts []transport.ServeOption
	}{
		{"nil handler", nil, nil},
		{"nil option", done, []transport.ServeOption{transport.Workers(1), nil}},
		{"Workers(0)", done, []transport.ServeOption{transport.Workers(0)}},
		{"Workers(-1)", done, []transport.ServeOption{transport.Workers(-1)}},
		{"negative Grace", done, []transport.ServeOption{transport.Grace(-1)}},
		{"Attempts without KeyedBy", done, []transport.ServeOption{transport.Attempts(3)}},
		{"Attempts with a nil key", done, []transport.ServeOption{transport.KeyedBy(nil), transport.Attempts(3)}},
		{"Attempts(0)", done, []transport.ServeOption{key, transport.Attempts(0)}},
		{"Attempts(-1)", done, []transport.ServeOption{key, transport.Attempts(-1)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSub("1")
			err := transport.Serve(t.Context(), s, c.h, c.opts...)
			require.ErrorIs(t, err, transport.CodeInvalidArgument)
			require.True(t, s.isClosed(), "Serve owns the subscription also then")
			require.Empty(t, s.all())
		})
	}
	require.ErrorIs(t, transport.Serve(t.Context(), nil, done), transport.CodeInvalidArgument)
}

func TestServeEndsWithItsContext(t *testing.T) {
	for _, c := range []struct {
		name  string
		grace []transport.ServeOption
		after time.Duration // when the handler ends
	}{
		{"at once", nil, 0},
		{"within the default of 30 s", nil, 30*time.Second - 1},
		{"within Grace", []transport.ServeOption{transport.Grace(time.Hour)}, time.Hour - 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSub("1", "2")
				ctx, cancel := context.WithCancel(t.Context())
				var hctx context.Context
				finish := make(chan struct{})
				result := start(func() error {
					return transport.Serve(ctx, s, func(ctx context.Context, _ *transport.Message) (*transport.Message, error) {
						hctx = ctx
						<-finish
						return nil, ctx.Err()
					}, c.grace...)
				})
				synctest.Wait()
				require.False(t, s.isClosed())
				cancel()
				synctest.Wait()
				require.True(t, s.isClosed(), "first of all the subscription is closed: that gives back what waits")
				require.Empty(t, result, "Serve waits for the handler")
				time.Sleep(c.after)
				synctest.Wait()
				require.NoError(t, hctx.Err(), "the handler's context lives on")
				finish <- struct{}{}
				require.NoError(t, <-result)
				require.Equal(t, []string{"1 ok"}, s.results(), "the second is not asked for")
				require.ErrorIs(t, hctx.Err(), context.Canceled, "no context outlives Serve")
			})
		})
	}
}

// slowClose is a subscription that takes its time to close.
type slowClose struct {
	*sub
	gate chan struct{}
}

func (s slowClose) Close() error {
	<-s.gate
	return s.sub.Close()
}

func TestServeStopsAskingWhenItsContextEnds(t *testing.T) {
	for _, keyed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := slowClose{newSub(numbers(9)...), make(chan struct{})}
			ctx, cancel := context.WithCancel(t.Context())
			var opts []transport.ServeOption
			if keyed {
				opts = append(opts, transport.KeyedBy(func(*transport.Message) string {
					cancel()
					return ""
				}))
			}
			result := start(func() error {
				return transport.Serve(ctx, s, func(context.Context, *transport.Message) (*transport.Message, error) {
					cancel()
					return nil, nil
				}, opts...)
			})
			synctest.Wait()
			close(s.gate)
			require.NoError(t, <-result)
			require.Equal(t, []string{"1 ok"}, s.results())
			require.Len(t, s.items, 8, "the rest is not asked for")
		})
	}
}

func TestServeOverrun(t *testing.T) {
	for _, c := range []struct {
		name  string
		opts  []transport.ServeOption
		after time.Duration
	}{
		{"default", nil, 30 * time.Second},
		{"Grace", []transport.ServeOption{transport.Grace(5 * time.Second)}, 5 * time.Second},
		{"none", []transport.ServeOption{transport.Grace(0)}, 0},
		{"workers", []transport.ServeOption{transport.Grace(time.Second), transport.Workers(2)}, time.Second},
		{"keyed", []transport.ServeOption{transport.Grace(time.Second), transport.KeyedBy(func(*transport.Message) string { return "" })}, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSub("1")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var told reports
				var hctx context.Context
				finish := make(chan struct{})
				result := start(func() error {
					return transport.Serve(ctx, s, func(ctx context.Context, _ *transport.Message) (*transport.Message, error) {
						hctx = ctx
						<-finish
						return nil, nil
					}, append(c.opts, transport.OnError(told.add))...)
				})
				synctest.Wait()
				begin := time.Now()
				cancel()
				err := <-result
				require.Equal(t, c.after, time.Since(begin))
				require.ErrorIs(t, err, transport.CodeDeadlineExceeded)
				require.Equal(t, []report{{nil, err}}, told.all())
				require.ErrorIs(t, hctx.Err(), context.Canceled, "the handler is told to stop, not waited for")
				require.Empty(t, s.all())
				close(finish)
				synctest.Wait()
				require.Equal(t, []string{"1 ok"}, s.results(), "a late handler still settles")
			})
		})
	}
}

func TestServeWithoutGraceIsNotOverrunWhileIdle(t *testing.T) {
	key := transport.KeyedBy(func(m *transport.Message) string { return string(m.Body) })
	for _, opts := range [][]transport.ServeOption{{}, {transport.Workers(3)}, {key, transport.Workers(3)}} {
		for range 50 {
			synctest.Test(t, func(t *testing.T) {
				s := newSub(numbers(3)...)
				ctx, cancel := context.WithCancel(t.Context())
				result := start(func() error { return transport.Serve(ctx, s, done, append(opts, transport.Grace(0))...) })
				synctest.Wait()
				cancel()
				require.NoError(t, <-result)
				require.Len(t, s.all(), 3)
			})
		}
	}
}

func TestServeAfterTheEndOfItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, opt := range []transport.ServeOption{transport.Workers(1), transport.KeyedBy(func(*transport.Message) string { return "" })} {
		s := newSub("1")
		require.NoError(t, transport.Serve(ctx, s, done, opt))
		require.True(t, s.isClosed())
		require.Empty(t, s.all())
	}
}

func TestServeWaitsForHandlersAtTheEnd(t *testing.T) {
	broken := transport.Errorf(transport.CodeUnavailable, "the connection is gone")
	for _, end := range []error{io.EOF, broken} {
		synctest.Test(t, func(t *testing.T) {
			s := newSub("1", "2")
			s.end(end)
			finish := make(chan struct{})
			result := start(func() error {
				return transport.Serve(t.Context(), s, func(context.Context, *transport.Message) (*transport.Message, error) {
					<-finish
					return nil, nil
				}, transport.Workers(4))
			})
			time.Sleep(time.Hour) // no Grace here: the context goes on
			synctest.Wait()
			require.Empty(t, result)
			close(finish)
			if end == io.EOF {
				require.NoError(t, <-result)
			} else {
				require.Equal(t, end, <-result, "the error that ended it")
			}
			require.Len(t, s.all(), 2)
			require.True(t, s.isClosed())
		})
	}
}

func TestServeCanceled(t *testing.T) {
	full := &transport.Error{Code: transport.CodeCanceled, Reason: "R", Message: "text", RetryAfter: time.Second, Remote: true}
	for _, err := range []error{context.Canceled, transport.CodeCanceled, full, fmt.Errorf("inner call: %w", context.Canceled)} {
		synctest.Test(t, func(t *testing.T) {
			h := func(context.Context, *transport.Message) (*transport.Message, error) { return nil, err }

			s := newSub("1")
			s.end(io.EOF)
			require.NoError(t, transport.Serve(t.Context(), s, h))
			got := s.all()[0].err
			require.Equal(t, transport.CodeAborted, transport.CodeOf(got), "nobody cancelled this delivery")
			require.ErrorIs(t, got, err, "the cause is kept")
			if err == error(full) {
				require.Equal(t, &transport.Error{Code: transport.CodeAborted, Reason: "R", Message: "text", RetryAfter: time.Second,
					Cause: full}, got)
			}

			// The end of Serve's context gives the message back.
			ctx, cancel := context.WithCancel(t.Context())
			s = newSub("1")
			require.NoError(t, transport.Serve(ctx, s, func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
				cancel()
				return h(ctx, m)
			}))
			require.Equal(t, err, s.all()[0].err)

			// So does the end of a call's.
			call, hangUp := context.WithCancel(t.Context())
			s = newSub()
			s.pushCall("1", call)
			s.end(io.EOF)
			require.NoError(t, transport.Serve(t.Context(), s, func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
				hangUp()
				<-ctx.Done()
				return h(ctx, m)
			}))
			require.Equal(t, err, s.all()[0].err)
		})
	}
}

func TestServeReportsFailedSettling(t *testing.T) {
	s := newSub("1", "2")
	s.settleErr = errors.New("not taken")
	s.end(io.EOF)
	var told reports
	require.NoError(t, transport.Serve(t.Context(), s, done, transport.OnError(told.add)), "it does not stop Serve")
	require.Equal(t, []report{{s.all()[0].m, s.settleErr}, {s.all()[1].m, s.settleErr}}, told.all())
}

func TestServeContext(t *testing.T) {
	type key struct{}
	ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "value"), time.Hour)
	defer cancel()
	call, hangUp := context.WithCancel(transport.WithPeer(t.Context(), transport.Peer{ID: "alice"}))
	defer hangUp()
	s := newSub("event")
	s.pushCall("call", call)
	s.end(io.EOF)
	var kept context.Context
	err := transport.Serve(ctx, s, func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
		if ctx.Value(key{}) != "value" {
			t.Errorf("%s: the values of Serve's context are gone", m.Body)
		}
		if _, ok := ctx.Deadline(); ok {
			t.Errorf("%s: the end of Serve's context is not the handlers'", m.Body)
		}
		if p, ok := transport.PeerFrom(ctx); ok != (string(m.Body) == "call") || ok && p.ID != "alice" {
			t.Errorf("%s: peer %v", m.Body, p)
		}
		kept = ctx
		return nil, nil
	})
	require.NoError(t, err)
	require.ErrorIs(t, kept.Err(), context.Canceled, "a call's context ends with the handler")
}

func TestServeCallCancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		call, hangUp := context.WithCancel(t.Context())
		s := newSub()
		s.pushCall("1", call)
		s.end(io.EOF)
		result := start(func() error {
			return transport.Serve(t.Context(), s, func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
		})
		synctest.Wait()
		require.Empty(t, s.all())
		hangUp()
		require.NoError(t, <-result)
		require.Equal(t, []string{"1 canceled"}, s.results())
	})
}

// TestServeLogs swaps the default logger, so it and its cases do not run in parallel with others.
func TestServeLogs(t *testing.T) {
	old := slog.Default()
	defer slog.SetDefault(old)
	for _, c := range []struct {
		name string
		sub  func(*sub)
		h    transport.Handler
		want []string // none: nothing is logged
	}{
		{"handler's error", nil, func(context.Context, *transport.Message) (*transport.Message, error) {
			return nil, transport.CodeNotFound
		}, nil},
		{"panic", nil, func(context.Context, *transport.Message) (*transport.Message, error) { panic("the reason") },
			[]string{"level=ERROR", "topic=topic", "id=id-1", "the reason"}},
		{"settling", func(s *sub) { s.settleErr = errors.New("not taken") }, done,
			[]string{"level=ERROR", "topic=topic", "id=id-1", `"not taken"`}},
		{"nothing", nil, done, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
			s := newSub("private")
			s.end(io.EOF)
			if c.sub != nil {
				c.sub(s)
			}
			require.NoError(t, transport.Serve(t.Context(), s, c.h))
			if c.want == nil {
				require.Empty(t, log.String())
			}
			for _, want := range c.want {
				require.Contains(t, log.String(), want)
			}
			require.NotContains(t, log.String(), "private", "bodies are not logged")
		})
	}
	t.Run("overrun", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
			ctx, cancel := context.WithCancel(t.Context())
			finish := make(chan struct{})
			err := transport.Serve(ctx, newSub("1"), func(context.Context, *transport.Message) (*transport.Message, error) {
				cancel()
				<-finish
				return nil, nil
			}, transport.Grace(time.Second))
			require.Error(t, err)
			require.Contains(t, log.String(), "level=ERROR")
			require.Contains(t, log.String(), "still running 1s after")
			require.NotContains(t, log.String(), "topic=")
			close(finish)
		})
	})
}

// unclosable is a Subscription whose Close fails.
type unclosable struct{ transport.Subscription }

func (u unclosable) Close() error {
	u.Subscription.Close()
	return errors.New("the cable is stuck")
}

// A reusing is a subscription that notes which deliveries it was given to use again before they were settled.
type reusing struct {
	mu     sync.Mutex
	left   int
	out    map[*transport.Delivery]bool // not settled
	reused int
	early  int
}

func (r *reusing) Next(context.Context) (*transport.Delivery, error) { panic("Serve has NextInto") }

func (r *reusing) NextInto(_ context.Context, d *transport.Delivery) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left--; r.left < 0 {
		return io.EOF
	}
	settled, known := r.out[d]
	if known {
		r.reused++
	}
	if known && !settled {
		r.early++
	}
	r.out[d] = false
	d.Init(reused{r, d}, 0, &transport.Message{}, 1, 0)
	return nil
}

func (r *reusing) Cursor() string { return "" }
func (r *reusing) Close() error   { return nil }

type reused struct {
	r *reusing
	d *transport.Delivery
}

func (u reused) Settle(uint64, *transport.Message, error) error {
	u.r.mu.Lock()
	defer u.r.mu.Unlock()
	u.r.out[u.d] = true
	return nil
}

func (u reused) Cursor(uint64, *transport.Message) string { return "" }

func (u reused) Context(_ uint64, parent context.Context) (context.Context, context.CancelFunc) {
	return parent, func() {}
}

// Serve uses a delivery again, and only once it is settled.
func TestServeReusesDeliveries(t *testing.T) {
	r := &reusing{left: 100, out: map[*transport.Delivery]bool{}}
	require.NoError(t, transport.Serve(context.Background(), r, func(context.Context, *transport.Message) (*transport.Message, error) {
		return nil, nil
	}, transport.Workers(4)))
	require.Zero(t, r.early)
	require.GreaterOrEqual(t, r.reused, 96)
	for _, settled := range r.out {
		require.True(t, settled)
	}
}

func TestServeReportsFailedClosing(t *testing.T) {
	s := newSub()
	s.end(io.EOF)
	var reported error
	err := transport.Serve(t.Context(), unclosable{s}, done, transport.OnError(func(m *transport.Message, err error) {
		require.Nil(t, m)
		reported = err
	}))
	require.NoError(t, err)
	require.EqualError(t, reported, "the cable is stuck")
}

func TestServeRefusesNilFunctions(t *testing.T) {
	for _, o := range []transport.ServeOption{transport.KeyedBy(nil), transport.OnError(nil)} {
		require.ErrorIs(t, transport.Serve(t.Context(), newSub(), done, o), transport.CodeInvalidArgument)
	}
}
