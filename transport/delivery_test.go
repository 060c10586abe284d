package transport_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func TestSettleFirstCounts(t *testing.T) {
	boom, late := errors.New("boom"), errors.New("late")
	reply := &transport.Message{Body: []byte("reply")}
	for _, c := range []struct {
		name   string
		settle func(*transport.Delivery) error
		reply  *transport.Message
		err    error
	}{
		{"Settle with a reply", func(d *transport.Delivery) error { return d.Settle(reply, nil) }, reply, nil},
		{"Settle with an error", func(d *transport.Delivery) error { return d.Settle(nil, boom) }, nil, boom},
		{"Ack", (*transport.Delivery).Ack, nil, nil},
		{"Nack", func(d *transport.Delivery) error { return d.Nack(boom) }, nil, boom},
		{"Nack never acknowledges", func(d *transport.Delivery) error { return d.Nack(nil) }, nil, transport.CodeUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSub()
			m := s.push("a")
			d, err := s.Next(t.Context())
			require.NoError(t, err)
			require.NoError(t, c.settle(d))
			require.NoError(t, d.Ack())
			require.NoError(t, d.Nack(late))
			require.NoError(t, d.Settle(reply, late))
			require.Equal(t, []settled{{m, c.reply, c.err}}, s.all())
		})
	}
}

func TestSettleReturnsTheAnswerOnce(t *testing.T) {
	s := newSub()
	s.settleErr = errors.New("not taken")
	s.push("a")
	d, err := s.Next(t.Context())
	require.NoError(t, err)
	require.Equal(t, s.settleErr, d.Ack())
	require.NoError(t, d.Ack())
}

func TestSettleConcurrently(t *testing.T) {
	s := newSub()
	const n = 1000
	ds := make([]*transport.Delivery, n)
	for i := range ds {
		s.push("a")
		var err error
		ds[i], err = s.Next(t.Context())
		require.NoError(t, err)
	}
	// Goroutines in step settle the same delivery at the same time.
	const goroutines = 2
	var wg sync.WaitGroup
	var arrived atomic.Int64
	for range goroutines {
		wg.Go(func() {
			for i, d := range ds {
				arrived.Add(1)
				for n := 1; arrived.Load() < int64((i+1)*goroutines); n++ {
					if n%1000 == 0 {
						runtime.Gosched()
					}
				}
				_ = d.Nack(nil)
			}
		})
	}
	wg.Wait()
	require.Len(t, s.all(), n, "one for each delivery")
}

func TestDeliveryAsksItsSource(t *testing.T) {
	m := &transport.Message{Topic: "a", Body: []byte("x")}
	s := newSub()
	d := transport.NewDelivery(source{s}, 7, m, 3, 4)
	require.Same(t, m, d.Message)
	require.Equal(t, "a", d.Topic)
	require.Equal(t, 3, d.Attempt)
	require.EqualValues(t, 4, d.Missed)
	require.Equal(t, "cursor-7", d.Cursor())

	parent := t.Context()
	ctx, cancel := d.Context(parent)
	require.Equal(t, parent, ctx, "an event's context is its parent")
	cancel()
	require.NoError(t, parent.Err())

	callCtx, endCall := context.WithCancel(t.Context())
	call := s.pushCall("a", callCtx)
	s.mu.Lock()
	token := s.token
	s.mu.Unlock()
	ctx, cancel = transport.NewDelivery(source{s}, token, call, 1, 0).Context(parent)
	defer cancel()
	require.NoError(t, ctx.Err())
	endCall()
	<-ctx.Done()
	require.NoError(t, parent.Err(), "the call's cancellation is its own")
}

func TestNewDeliveryIsOneAllocation(t *testing.T) {
	src := source{newSub()}
	m := &transport.Message{}
	var d *transport.Delivery
	allocs := testing.AllocsPerRun(1000, func() { d = transport.NewDelivery(src, 1, m, 1, 0) })
	if !raceEnabled {
		require.LessOrEqual(t, allocs, 1.0)
	}
	require.NotNil(t, d)
}

func BenchmarkNewDelivery(b *testing.B) {
	b.ReportAllocs()
	src, m := source{newSub()}, &transport.Message{}
	for b.Loop() {
		sink = transport.NewDelivery(src, 1, m, 1, 0)
	}
}

var sink *transport.Delivery
