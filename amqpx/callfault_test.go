package amqpx_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/transport"
)

// TestCallsOverKill calls all the time while the broker is killed and comes back. Each call ends, with its own reply or
// with CodeUnavailable; none is handled twice; and calls work again by themselves.
func TestCallsOverKill(t *testing.T) {
	t.Parallel()
	node := newVictim(t)
	testCalls(t, node.URL(), func(before func(int64)) {
		before(200)
		require.NoError(t, node.Kill())
		require.NoError(t, node.Restart(t.Context()))
	})
}

// TestCallsOverCuts does the same with a network that resets connections.
func TestCallsOverCuts(t *testing.T) {
	t.Parallel()
	cuts := 10
	if long() {
		cuts = 100
	}
	relay := amqptest.NewRelay(t, amqptest.URL(t))
	testCalls(t, relay.URL(), func(before func(int64)) {
		for range cuts {
			before(50)
			require.NotZero(t, relay.Cut())
		}
	})
}

func testCalls(t *testing.T, url string, fault func(before func(int64))) {
	ns := "calls" + transport.NewID()
	caller := faulty(t, url, amqpx.Options{Namespace: ns})
	worker := faulty(t, url, amqpx.Options{Namespace: ns})
	s, err := worker.Respond(t.Context(), "echo")
	require.NoError(t, err)
	var handled sync.Map // ID to the number of times
	serveCtx, stopServing := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- transport.Serve(serveCtx, s, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			n, _ := handled.LoadOrStore(m.ID, new(atomic.Int64))
			n.(*atomic.Int64).Add(1)
			return &transport.Message{Body: []byte(m.ID)}, nil
		}, transport.Workers(16), transport.OnError(func(*transport.Message, error) {}))
	}()

	var good, failed atomic.Int64
	var wrong sync.Map
	callCtx, stopCalling := context.WithCancel(t.Context())
	var calling sync.WaitGroup
	for i := range 16 {
		calling.Go(func() {
			for n := 0; callCtx.Err() == nil; n++ {
				id := fmt.Sprintf("call-%d-%d", i, n)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				began := time.Now()
				r, err := caller.Call(ctx, &transport.Message{ID: id, Topic: "echo"})
				cancel()
				var e *transport.Error
				switch {
				case err == nil && string(r.Body) == id:
					good.Add(1)
				case err == nil:
					wrong.Store(id, "the reply to "+string(r.Body))
				case !errors.As(err, &e) || e.Code != transport.CodeUnavailable:
					wrong.Store(id, fmt.Sprintf("after %v: %v", time.Since(began), err))
				case e.Reason != transport.ReasonNotSent && e.Reason != transport.ReasonOutcomeUnknown:
					wrong.Store(id, err)
				default:
					failed.Add(1)
					if _, was := handled.Load(id); was && e.Reason == transport.ReasonNotSent {
						wrong.Store(id, "NOT_SENT, but it was handled")
					}
					time.Sleep(10 * time.Millisecond) // no hot loop during the outage
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	before := func(n int64) {
		from := good.Load()
		waitFor(t, func() bool { return good.Load() >= from+n })
	}
	fault(before)
	before(200)
	stopCalling()
	calling.Wait()
	t.Logf("%d calls were answered, %d failed; caller %+v", good.Load(), failed.Load(), caller.Stats())
	wrong.Range(func(id, why any) bool { t.Errorf("%v: %v", id, why); return true })
	handled.Range(func(id, n any) bool {
		if n := n.(*atomic.Int64).Load(); n != 1 {
			t.Errorf("%v was handled %d times", id, n)
		}
		return true
	})
	stopServing()
	require.NoError(t, <-served)
}
