package window_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/internal/window"
)

func TestOldestIsTheLowWaterMark(t *testing.T) {
	var w window.Window[int]
	tokens := map[int]uint64{}
	for i := range 200 {
		tokens[i] = w.Add(i, 1)
	}
	left := rand.Perm(200)
	for n, i := range left {
		v, attempt := w.Get(tokens[i])
		require.Equal(t, i, v)
		require.Equal(t, 1, attempt)
		w.Done(tokens[i])
		lowest := 200
		for _, j := range left[n+1:] {
			lowest = min(lowest, j)
		}
		got, ok := w.Oldest()
		require.Equal(t, lowest < 200, ok)
		if ok {
			require.Equal(t, lowest, got)
		}
		require.Equal(t, 199-n, w.Len())
	}
}

func TestSlotsAreReused(t *testing.T) {
	var w window.Window[int]
	first := w.Add(1, 1)
	w.Done(first)
	require.Equal(t, first, w.Add(2, 1))
	require.Zero(t, testing.AllocsPerRun(100, func() { w.Done(w.Add(3, 1)) }))
}

func TestAgainIsByTimeThenByAge(t *testing.T) {
	var w window.Window[string]
	now := time.Unix(1, 0)
	a, b, c := w.Add("a", 1), w.Add("b", 1), w.Add("c", 1)
	w.Wait(c, now, 1)
	w.Wait(b, now.Add(time.Second), 2)
	w.Wait(a, now, 2)
	require.Equal(t, 3, w.Waiting())
	require.Equal(t, now, w.Due())
	for _, want := range []string{"a", "c"} {
		token, ok := w.Again(now)
		require.True(t, ok)
		v, _ := w.Get(token)
		require.Equal(t, want, v)
	}
	_, ok := w.Again(now)
	require.False(t, ok)
	token, ok := w.Again(now.Add(time.Second))
	require.True(t, ok)
	_, attempt := w.Get(token)
	require.Equal(t, 2, attempt)
	require.Equal(t, 3, w.Len())
}

func TestJudge(t *testing.T) {
	plain := errors.New("plain")
	for _, c := range []struct {
		err     error
		attempt int
		want    window.Verdict
	}{
		{nil, 1, window.Ack},
		{transport.CodeCanceled, 10, window.GiveBack},
		{plain, 9, window.Retry},
		{plain, 10, window.Refuse},
		{transport.CodeNotFound, 1, window.Refuse},
	} {
		got, _ := window.Judge(c.err, c.attempt, 10)
		require.Equal(t, c.want, got, "%v", c)
	}
	_, wait := window.Judge(&transport.Error{Code: transport.CodeUnavailable, RetryAfter: time.Minute}, 1, 10)
	require.Equal(t, time.Minute, wait)
}
