package transport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

// byFirst keys a message by the first word of its body.
var byFirst = transport.KeyedBy(func(m *transport.Message) string {
	key, _, _ := strings.Cut(string(m.Body), " ")
	return key
})

func TestKeyedKeepsTheOrderOfEachKey(t *testing.T) {
	for _, workers := range []int{1, 4, 32} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const keys, each = 7, 20
				s := newSub()
				for i := range each {
					for k := range keys {
						s.push(fmt.Sprintf("%d %d", k, i))
					}
				}
				s.end(io.EOF)
				rnd := rand.New(rand.NewPCG(1, uint64(workers)))
				var mu sync.Mutex
				busy := map[string]bool{}
				err := transport.Serve(t.Context(), s, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
					key, _, _ := strings.Cut(string(m.Body), " ")
					mu.Lock()
					if busy[key] {
						t.Errorf("two of key %s at once", key)
					}
					busy[key] = true
					fail, pause := rnd.IntN(3) == 0, time.Duration(rnd.IntN(100))*time.Millisecond
					mu.Unlock()
					time.Sleep(pause)
					mu.Lock()
					defer mu.Unlock()
					busy[key] = false
					if fail {
						return nil, transport.CodeUnavailable
					}
					return nil, nil
				}, byFirst, transport.Workers(workers), transport.Attempts(100))
				require.NoError(t, err)
				order := map[string][]string{}
				for _, r := range s.results() {
					f := strings.Fields(r)
					order[f[0]] = append(order[f[0]], f[1])
					require.Equal(t, "ok", f[2])
				}
				require.Len(t, order, keys)
				for _, got := range order {
					require.Len(t, got, each)
					for i, n := range got {
						require.Equal(t, fmt.Sprint(i), n)
					}
				}
			})
		})
	}
}

func TestKeyedLetsOtherKeysOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSub("a 1", "a 2", "b 1", "c 1", "b 2")
		s.end(io.EOF)
		first := true
		var told reports
		busy := &transport.Error{Code: transport.CodeUnavailable, RetryAfter: time.Minute}
		begin := time.Now()
		err := transport.Serve(t.Context(), s, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			if string(m.Body) == "a 1" && first {
				first = false
				return nil, busy
			}
			return nil, nil
		}, byFirst, transport.OnError(told.add)) // one worker: the key waits, not the worker
		require.NoError(t, err)
		require.Equal(t, []string{"b 1 ok", "c 1 ok", "b 2 ok", "a 1 ok", "a 2 ok"}, s.results())
		require.Equal(t, time.Minute, time.Since(begin), "RetryAfter is honoured, and the end of the subscription waits for it")
		require.Equal(t, []report{{s.all()[3].m, busy}}, told.all())
	})
}

func TestKeyedAttempts(t *testing.T) {
	cause := errors.New("secret")
	for _, c := range []struct {
		name  string
		err   error
		opts  []transport.ServeOption
		tries int
		want  transport.Error // but for Cause
	}{
		{"default", cause, nil, 10, transport.Error{Message: "unknown"}},
		{"one", transport.CodeUnavailable, []transport.ServeOption{transport.Attempts(1)}, 1, transport.Error{Message: "unavailable"}},
		{"text is kept", &transport.Error{Code: transport.CodeInternal, Reason: "R", Message: "text", RetryAfter: time.Hour,
			Header: transport.Header{"k": {"v"}}, Details: []transport.Detail{{Type: "t"}}, Remote: true, Cause: cause},
			[]transport.ServeOption{transport.Attempts(3)}, 3,
			transport.Error{Message: "text", Header: transport.Header{"k": {"v"}}, Details: []transport.Detail{{Type: "t"}}}},
		{"canceled by nobody", context.Canceled, []transport.ServeOption{transport.Attempts(2)}, 2, transport.Error{Message: "aborted"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSub("a 1", "a 2")
				s.end(io.EOF)
				tries := 0
				err := transport.Serve(t.Context(), s, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
					if string(m.Body) == "a 2" {
						return nil, nil
					}
					tries++
					return nil, c.err
				}, append(c.opts, byFirst)...)
				require.NoError(t, err)
				require.Equal(t, c.tries, tries)
				require.Equal(t, []string{"a 1 failed_precondition", "a 2 ok"}, s.results(), "the key goes on")
				var e *transport.Error
				require.ErrorAs(t, s.all()[0].err, &e)
				require.ErrorIs(t, e.Cause, c.err)
				require.False(t, transport.Retryable(e))
				want := c.want
				want.Code, want.Reason, want.Cause = transport.CodeFailedPrecondition, transport.ReasonAttempts, e.Cause
				require.Equal(t, &want, e)
				require.NotContains(t, transport.Public(e).Error(), "secret")
			})
		})
	}
}

func TestKeyedCountsTheTriesOfEachMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSub("a 1", "a 2")
		s.end(io.EOF)
		tries := map[string]int{}
		err := transport.Serve(t.Context(), s, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			if tries[string(m.Body)]++; tries[string(m.Body)] < 3 {
				return nil, transport.CodeUnavailable
			}
			return nil, nil
		}, byFirst, transport.Attempts(3))
		require.NoError(t, err)
		require.Equal(t, []string{"a 1 ok", "a 2 ok"}, s.results())
	})
}

func TestKeyedWaitsBetweenTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSub("a")
		s.end(io.EOF)
		var at []time.Time
		err := transport.Serve(t.Context(), s, func(context.Context, *transport.Message) (*transport.Message, error) {
			at = append(at, time.Now())
			return nil, transport.CodeUnavailable
		}, byFirst, transport.Attempts(5))
		require.NoError(t, err)
		for i := range len(at) - 1 {
			most := transport.Backoff{Jitter: -1}.Delay(i + 1)
			wait := at[i+1].Sub(at[i])
			require.LessOrEqual(t, wait, most)
			require.GreaterOrEqual(t, wait, most/2)
		}
	})
}

func TestKeyedRefusesAtOnce(t *testing.T) {
	refused := transport.Errorf(transport.CodeInvalidArgument, "no")
	s := newSub("a 1", "a 2")
	s.end(io.EOF)
	err := transport.Serve(t.Context(), s, func(context.Context, *transport.Message) (*transport.Message, error) {
		return nil, refused
	}, byFirst)
	require.NoError(t, err)
	require.Equal(t, refused, s.all()[0].err, "what is not retryable is not tried again, and settled as it is")
	require.Equal(t, refused, s.all()[1].err)
	require.Len(t, s.all(), 2)
}

func TestKeyedDoesNotRetryCalls(t *testing.T) {
	failed := transport.Errorf(transport.CodeUnavailable, "not now")
	s := newSub()
	s.pushCall("a 1", t.Context())
	s.pushCall("a 2", t.Context())
	s.end(io.EOF)
	tries := 0
	err := transport.Serve(t.Context(), s, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
		tries++
		if string(m.Body) == "a 2" {
			return m, nil
		}
		return nil, failed
	}, byFirst)
	require.NoError(t, err)
	require.Equal(t, 2, tries)
	require.Equal(t, failed, s.all()[0].err)
	require.Same(t, s.all()[1].m, s.all()[1].reply)
}

func TestKeyedGivesBackAtTheEndOfItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSub("waits 1", "waits 2", "busy 1", "busy 2", "fails 1", "fails 2")
		s.settleErr = errors.New("not taken")
		ctx, cancel := context.WithCancel(t.Context())
		finish := make(chan struct{})
		var told reports
		tries := 0
		result := start(func() error {
			return transport.Serve(ctx, s, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
				switch string(m.Body) {
				case "waits 1":
					tries++
					return nil, &transport.Error{Code: transport.CodeUnavailable, RetryAfter: 10 * time.Second}
				case "fails 1":
					<-finish
					return nil, transport.CodeUnavailable
				}
				<-finish
				return nil, nil
			}, byFirst, transport.Workers(3), transport.OnError(told.add))
		})
		synctest.Wait()
		require.Empty(t, s.all())
		closed := false
		s.mu.Lock()
		s.onSettle = func(*transport.Message) { closed = s.isClosed() }
		s.mu.Unlock()
		cancel()
		synctest.Wait()
		require.True(t, closed, "the subscription is closed first")
		require.ElementsMatch(t, []string{"waits 1 canceled", "waits 2 canceled", "busy 2 canceled", "fails 2 canceled"}, s.results(),
			"what no handler has in hand is given back at once")
		time.Sleep(20 * time.Second) // within Grace, the retry that waited would be due
		close(finish)
		require.NoError(t, <-result, "failed settling does not count")
		require.ElementsMatch(t, []string{"busy 1 ok", "fails 1 canceled"}, s.results()[4:], "no retry after the end")
		failures := 0
		for _, r := range told.all() {
			if r.err == s.settleErr {
				failures++
			}
		}
		require.Equal(t, 6, failures, "but it is reported")
		require.Equal(t, 1, tries)
		require.Len(t, s.all(), 6)
	})
}

func TestKeyedGracePassesDuringHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSub("a 1", "a 2")
		ctx, cancel := context.WithCancel(t.Context())
		finish := make(chan struct{})
		result := start(func() error {
			return transport.Serve(ctx, s, func(context.Context, *transport.Message) (*transport.Message, error) {
				<-finish
				return nil, transport.CodeUnavailable
			}, byFirst, transport.Grace(time.Second), transport.OnError(func(*transport.Message, error) {}))
		})
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-result, transport.CodeDeadlineExceeded)
		close(finish)
		synctest.Wait()
		require.Equal(t, []string{"a 2 canceled", "a 1 canceled"}, s.results())
	})
}

func TestKeyedPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSub("a 1", "bad", "a 2", "panics")
		s.end(io.EOF)
		var told reports
		tries := 0
		err := transport.Serve(t.Context(), s, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			if string(m.Body) == "panics" {
				if tries++; tries < 3 {
					panic("again")
				}
			}
			return nil, nil
		}, transport.KeyedBy(func(m *transport.Message) string {
			if string(m.Body) == "bad" {
				panic("no key")
			}
			return string(m.Body)
		}), transport.OnError(told.add))
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"a 1 ok", "bad internal", "a 2 ok", "panics ok"}, s.results())
		require.Len(t, told.all(), 3, "one of the key function, two of the handler, which was tried again")
		for _, r := range told.all() {
			require.ErrorIs(t, r.err, transport.ErrPanic)
		}
	})
}

func TestKeyedGoexitInTheKeyFunction(t *testing.T) {
	s := newSub("a", "exit", "b")
	err := transport.Serve(t.Context(), s, done, transport.KeyedBy(func(m *transport.Message) string {
		if string(m.Body) == "exit" {
			runtime.Goexit()
		}
		return ""
	}))
	require.ErrorIs(t, err, transport.CodeInternal)
	require.True(t, s.isClosed())
	require.Contains(t, s.results(), "exit internal")
	require.Len(t, s.all(), 2)
}

func TestKeyedTerminalError(t *testing.T) {
	broken := transport.Errorf(transport.CodeUnavailable, "the connection is gone")
	synctest.Test(t, func(t *testing.T) {
		s := newSub("a 1", "a 2")
		s.end(broken)
		tries := 0
		err := transport.Serve(t.Context(), s, func(context.Context, *transport.Message) (*transport.Message, error) {
			if tries++; tries == 1 {
				return nil, transport.CodeUnavailable
			}
			return nil, nil
		}, byFirst)
		require.Equal(t, broken, err)
		require.Equal(t, []string{"a 1 ok", "a 2 ok"}, s.results(), "what was handed out is handled")
	})
}
