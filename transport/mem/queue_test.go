package mem

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// A queue that never runs empty keeps its order and its size.
func TestQueueDoesNotGrow(t *testing.T) {
	q := &queue[int]{limit: 100}
	r, err := q.join(0)
	require.NoError(t, err)
	require.NoError(t, q.push(0))
	for i := 1; i < 100_000; i++ {
		require.NoError(t, q.push(i))
		got, err := r.next(context.Background(), func(int) bool { return true })
		require.NoError(t, err)
		require.Equal(t, i-1, got)
	}
	require.LessOrEqual(t, cap(q.items.items), 16)
	require.Equal(t, []int{99_999}, r.close())
}
