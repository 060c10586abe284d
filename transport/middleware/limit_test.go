package middleware_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/middleware"
)

func requireRefused(t *testing.T, err error, after time.Duration) {
	t.Helper()
	var e *transport.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, transport.CodeResourceExhausted, e.Code)
	require.Equal(t, transport.ReasonNotSent, e.Reason)
	require.Equal(t, after, e.RetryAfter)
}

// sleeps is a handler that takes a second.
func sleeps(context.Context, *transport.Message) (*transport.Message, error) {
	time.Sleep(time.Second)
	return nil, nil
}

func TestLimitConcurrencyRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := middleware.Limit(&middleware.LimitOptions{Concurrency: 1})(sleeps)
		go h(t.Context(), message("1"))
		synctest.Wait()
		_, err := h(t.Context(), message("2"))
		requireRefused(t, err, 0)
		time.Sleep(time.Second)
		synctest.Wait()
		_, err = h(t.Context(), message("3"))
		require.NoError(t, err)
	})
}

func TestLimitConcurrencyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, most := 0, 0
		h := middleware.Limit(&middleware.LimitOptions{Concurrency: 2, Waiting: 4})(
			func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
				mu.Lock()
				running++
				most = max(most, running)
				mu.Unlock()
				defer func() { mu.Lock(); running--; mu.Unlock() }()
				return sleeps(ctx, m)
			})
		start := time.Now()
		var wg sync.WaitGroup
		var refused int
		for range 7 {
			wg.Go(func() {
				if _, err := h(t.Context(), message("1")); err != nil {
					mu.Lock()
					refused++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		require.Equal(t, 2, most)
		require.Equal(t, 1, refused, "no more than Waiting wait")
		require.Equal(t, 3*time.Second, time.Since(start))
	})
}

func TestLimitWaitEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := middleware.Limit(&middleware.LimitOptions{Concurrency: 1, Rate: 1, Burst: 2, Waiting: 1})(sleeps)
		go h(t.Context(), message("1"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := h(ctx, message("2"))
		require.Equal(t, context.DeadlineExceeded, err)
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		for range 2 { // the token that led to nothing was given back
			_, err = h(t.Context(), message("3"))
			require.NoError(t, err)
		}
	})
}

func TestLimitSlotIsGivenBackAfterAPanic(t *testing.T) {
	h := middleware.Limit(&middleware.LimitOptions{Concurrency: 1})(
		func(context.Context, *transport.Message) (*transport.Message, error) { panic("x") })
	for range 2 {
		require.PanicsWithValue(t, "x", func() { h(t.Context(), message("1")) })
	}
}

func TestLimitRateRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner, n := fails()
		h := middleware.Limit(&middleware.LimitOptions{Rate: 2, Burst: 3})(inner)
		call := func() error { _, err := h(t.Context(), message("1")); return err }
		for range 3 {
			require.NoError(t, call())
		}
		for range 2 { // a refusal takes nothing
			requireRefused(t, call(), 500*time.Millisecond)
		}
		time.Sleep(500 * time.Millisecond)
		require.NoError(t, call())
		requireRefused(t, call(), 500*time.Millisecond)
		time.Sleep(time.Hour)
		for range 3 {
			require.NoError(t, call())
		}
		require.Error(t, call(), "a pause saves no more than Burst")
		require.Equal(t, int32(7), n.Load())
	})
}

func TestLimitRateWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner, n := fails()
		h := middleware.Limit(&middleware.LimitOptions{Rate: 1, Waiting: 3})(inner)
		start := time.Now()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				_, err := h(t.Context(), message("1"))
				require.NoError(t, err)
			})
			synctest.Wait()
		}
		_, err := h(t.Context(), message("5"))
		requireRefused(t, err, 4*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = h(ctx, message("6"))
		requireRefused(t, err, 4*time.Second)
		wg.Wait()
		require.Equal(t, 3*time.Second, time.Since(start))
		require.Equal(t, int32(4), n.Load())
	})
}

func TestLimitRateWaitEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner, _ := fails()
		h := middleware.Limit(&middleware.LimitOptions{Rate: 1, Waiting: 1})(inner)
		_, err := h(t.Context(), message("1"))
		require.NoError(t, err)
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(500*time.Millisecond, func() { cancel(gone) })
		_, err = h(ctx, message("2"))
		require.Equal(t, context.Canceled, err)
		time.Sleep(500 * time.Millisecond)
		_, err = h(t.Context(), message("3"))
		require.NoError(t, err, "the promised token was given back")
	})
}

func TestLimitNothing(t *testing.T) {
	inner, n := fails()
	h := middleware.Limit(nil)(inner)
	for range 100 {
		_, err := h(t.Context(), message("1"))
		require.NoError(t, err)
	}
	require.Equal(t, int32(100), n.Load())
}
