package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/middleware"
)

func message(id string) *transport.Message {
	return &transport.Message{ID: id, Topic: "t", Body: []byte("body")}
}

// fails returns a handler that fails with errs in turn and then succeeds, and a count of its calls.
func fails(errs ...error) (transport.Handler, *atomic.Int32) {
	var n atomic.Int32
	return func(context.Context, *transport.Message) (*transport.Message, error) {
		if i := int(n.Add(1)); i <= len(errs) {
			return nil, errs[i-1]
		}
		return &transport.Message{Body: []byte("done")}, nil
	}, &n
}

// waits is a handler that waits for the end of its context.
func waits(ctx context.Context, _ *transport.Message) (*transport.Message, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestRecover(t *testing.T) {
	h := middleware.Recover()(func(context.Context, *transport.Message) (*transport.Message, error) { panic("secret") })
	reply, err := h(t.Context(), message("1"))
	require.Nil(t, reply)
	require.ErrorIs(t, err, transport.CodeInternal)
	require.ErrorIs(t, err, transport.ErrPanic)
	require.Empty(t, transport.Public(err).Message)

	h, _ = fails()
	reply, err = middleware.Recover()(h)(t.Context(), message("1"))
	require.NoError(t, err)
	require.Equal(t, "done", string(reply.Body))
}

func TestTimeoutEndsTheHandlersContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := middleware.Timeout(time.Second)(waits)(t.Context(), message("1"))
		require.ErrorIs(t, err, transport.CodeDeadlineExceeded)
		require.ErrorIs(t, err, context.DeadlineExceeded, "the handler's error is the cause")
		require.Equal(t, time.Second, time.Since(start))
	})
}

func TestTimeoutErrors(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code transport.Code
	}{
		"uncoded":  {io.ErrUnexpectedEOF, transport.CodeDeadlineExceeded},
		"canceled": {transport.CodeCanceled, transport.CodeDeadlineExceeded},
		"coded":    {transport.CodeNotFound, transport.CodeNotFound},
		"success":  {nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := middleware.Timeout(time.Second)(func(ctx context.Context, _ *transport.Message) (*transport.Message, error) {
					<-ctx.Done()
					return nil, c.err
				})
				_, err := h(t.Context(), message("1"))
				require.Equal(t, c.code, transport.CodeOf(err))
			})
		})
	}
}

func TestTimeoutLeavesOtherEndsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := middleware.Timeout(time.Minute)(waits)(ctx, message("1"))
		require.Equal(t, context.DeadlineExceeded, err, "the caller's own deadline came first")

		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err = middleware.Timeout(time.Minute)(waits)(ctx, message("1"))
		require.Equal(t, context.Canceled, err)

		h, _ := fails(io.ErrUnexpectedEOF)
		_, err = middleware.Timeout(time.Minute)(h)(t.Context(), message("1"))
		require.Equal(t, io.ErrUnexpectedEOF, err, "the timeout has not passed")
	})
}

func TestRetry(t *testing.T) {
	unavailable := transport.Errorf(transport.CodeUnavailable, "not now")
	keyed := func(id string) *transport.Message {
		m := message(id)
		m.Header = transport.Header{transport.HeaderIdempotencyKey: {"k"}}
		return m
	}
	for name, c := range map[string]struct {
		m     *transport.Message
		errs  []error
		tries int32
		code  transport.Code
	}{
		"success":                {message("1"), nil, 1, 0},
		"second try":             {message("1"), []error{unavailable}, 2, 0},
		"uncoded":                {message("1"), []error{io.ErrUnexpectedEOF}, 2, 0},
		"three tries at most":    {message("1"), []error{io.EOF, io.EOF, unavailable}, 3, transport.CodeUnavailable},
		"not retryable":          {message("1"), []error{transport.CodeNotFound}, 1, transport.CodeNotFound},
		"not retryable, keyed":   {keyed("1"), []error{transport.CodeNotFound}, 1, transport.CodeNotFound},
		"remote":                 {message("1"), []error{transport.Public(unavailable)}, 1, transport.CodeUnavailable},
		"remote, keyed":          {keyed("1"), []error{transport.Public(unavailable)}, 2, 0},
		"remote, not sent":       {message("1"), []error{&transport.Error{Code: transport.CodeUnavailable, Remote: true, Reason: transport.ReasonNotSent}}, 2, 0},
		"unknown outcome":        {message("1"), []error{&transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonOutcomeUnknown}}, 1, transport.CodeUnavailable},
		"unknown outcome, keyed": {keyed("1"), []error{&transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonOutcomeUnknown}}, 2, 0},
		"timeout":                {message("1"), []error{context.DeadlineExceeded}, 1, transport.CodeDeadlineExceeded},
		"timeout, keyed":         {keyed("1"), []error{context.DeadlineExceeded}, 2, 0},
		"canceled":               {message("1"), []error{transport.CodeCanceled}, 1, transport.CodeCanceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, n := fails(c.errs...)
				_, err := middleware.Retry(nil)(h)(t.Context(), c.m)
				require.Equal(t, c.code, transport.CodeOf(err), "%v", err)
				require.Equal(t, c.tries, n.Load())
			})
		})
	}
}

func TestRetryFixesTheID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := message("")
		var ids []string
		h := middleware.Retry(nil)(func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			ids = append(ids, m.ID)
			return nil, io.EOF
		})
		_, err := h(t.Context(), m)
		require.Equal(t, io.EOF, err)
		require.Len(t, ids, 3)
		require.NoError(t, transport.CheckID(ids[0]))
		require.Equal(t, ids[0], ids[1])
		require.Equal(t, ids[0], ids[2])
		require.Empty(t, m.ID, "the caller's message is not written")
	})
}

func TestRetryWaits(t *testing.T) {
	after := func(d time.Duration) error { return &transport.Error{Code: transport.CodeUnavailable, RetryAfter: d} }
	backoff := transport.Backoff{Min: time.Second, Jitter: -1}
	for name, c := range map[string]struct {
		errs    []error
		timeout time.Duration
		took    time.Duration
		tries   int32
	}{
		"backoff":                      {[]error{io.EOF, io.EOF}, time.Hour, 3 * time.Second, 3},
		"RetryAfter":                   {[]error{after(20 * time.Second), io.EOF}, time.Hour, 22 * time.Second, 3},
		"RetryAfter beyond MaxWait":    {[]error{after(2 * time.Minute)}, time.Hour, 0, 1},
		"RetryAfter past the deadline": {[]error{after(20 * time.Second)}, 20 * time.Second, 0, 1},
		"backoff past the deadline":    {[]error{io.EOF, io.EOF}, 2 * time.Second, time.Second, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), c.timeout)
				defer cancel()
				h, n := fails(c.errs...)
				start := time.Now()
				_, err := middleware.Retry(&middleware.RetryOptions{Backoff: backoff})(h)(ctx, message("1"))
				require.Equal(t, c.took, time.Since(start))
				require.Equal(t, c.tries, n.Load())
				if int(c.tries) <= len(c.errs) {
					require.Equal(t, c.errs[c.tries-1], err)
				}
			})
		})
	}
}

func TestRetryStopsWhenTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		h, n := fails(io.EOF, io.EOF)
		_, err := middleware.Retry(&middleware.RetryOptions{Backoff: transport.Backoff{Min: time.Minute}})(h)(ctx, message("1"))
		require.Equal(t, io.EOF, err, "the last error")
		require.Equal(t, int32(1), n.Load())
	})
}

func TestRetryOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, n := fails(io.EOF, io.EOF, io.EOF, io.EOF)
		_, err := middleware.Retry(&middleware.RetryOptions{Attempts: 5})(h)(t.Context(), message("1"))
		require.NoError(t, err)
		require.Equal(t, int32(5), n.Load())

		h, n = fails(io.EOF)
		_, err = middleware.Retry(&middleware.RetryOptions{Attempts: -1})(h)(t.Context(), message("1"))
		require.Equal(t, io.EOF, err)
		require.Equal(t, int32(1), n.Load())

		m := message("1")
		h, n = fails(transport.CodeNotFound)
		_, err = middleware.Retry(&middleware.RetryOptions{If: func(err error, got *transport.Message) bool {
			return err == transport.CodeNotFound && got == m
		}})(h)(t.Context(), m)
		require.NoError(t, err)
		require.Equal(t, int32(2), n.Load())
	})
}

// A try that Timeout ended on the sending side may have done the work: it is not sent again.
func TestRetryOverTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n int
		h := transport.Chain(middleware.Retry(nil), middleware.Timeout(time.Second))(
			func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
				n++
				return waits(ctx, m)
			})
		_, err := h(t.Context(), message("1"))
		require.ErrorIs(t, err, transport.CodeDeadlineExceeded)
		require.Equal(t, 1, n)
		m := message("1")
		m.Header = transport.Header{transport.HeaderIdempotencyKey: {"k"}}
		_, err = h(t.Context(), m)
		require.ErrorIs(t, err, transport.CodeDeadlineExceeded)
		require.Equal(t, 4, n)
	})
}

func TestLog(t *testing.T) {
	secret := transport.Wrap(errors.New("secret"), transport.CodeNotFound, "no such order")
	for name, c := range map[string]struct {
		o    *middleware.LogOptions
		err  error
		want string
	}{
		"success": {nil, nil, "level=INFO msg=message topic=t id=1 duration=1s code=ok\n"},
		"refusal": {nil, secret, "level=WARN msg=message topic=t id=1 duration=1s code=not_found\n"},
		"uncoded": {nil, errors.New("secret"), "level=ERROR msg=message topic=t id=1 duration=1s code=unknown\n"},
		"errors": {&middleware.LogOptions{Errors: true}, secret,
			"level=WARN msg=message topic=t id=1 duration=1s code=not_found error=\"not_found: no such order: secret\"\n"},
		"disabled": {&middleware.LogOptions{Level: func(error) slog.Level { return slog.LevelDebug }}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var b bytes.Buffer
				h := middleware.Log(logger(&b), c.o)(func(context.Context, *transport.Message) (*transport.Message, error) {
					time.Sleep(time.Second)
					return nil, c.err
				})
				m := message("1")
				m.Header = transport.Header{"authorization": {"secret"}}
				_, err := h(t.Context(), m)
				require.Equal(t, c.err, err)
				require.Equal(t, c.want, b.String())
			})
		})
	}
}

func TestLogOfAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		h := middleware.Log(logger(&b), nil)(func(context.Context, *transport.Message) (*transport.Message, error) { panic("x") })
		require.PanicsWithValue(t, "x", func() { h(t.Context(), message("1")) })
		require.Equal(t, "level=ERROR msg=message topic=t id=1 duration=0s code=internal\n", b.String())
	})
}

// logger writes text without the time.
func logger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}
