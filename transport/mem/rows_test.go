package mem_test

import (
	"context"
	"io"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

// TestSleepersWakeEachOther has more readers asleep than fit into a row.
func TestSleepersWakeEachOther(t *testing.T) {
	const n = 100

	t.Run("a handler that waits holds up nobody", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := mem.New(nil)
			ctx, cancel := context.WithCancel(background)
			var ended, begun sync.WaitGroup
			begun.Add(n)
			for range n {
				sub := subscribe(t, bus)
				ended.Go(func() {
					transport.Serve(ctx, sub, func(context.Context, *transport.Message) (*transport.Message, error) {
						begun.Done()
						begun.Wait() // for all others
						return nil, nil
					})
				})
			}
			synctest.Wait()
			require.NoError(t, bus.Publish(background, &transport.Message{Topic: "t"}))
			begun.Wait()
			cancel()
			ended.Wait()
			require.NoError(t, bus.Close())
		})
	})

	t.Run("readers that are gone are passed over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := mem.New(nil)
			short, cancel := context.WithCancel(background)
			var left, got sync.WaitGroup
			for i := range n {
				sub := subscribe(t, bus)
				switch i % 4 {
				case 0:
					left.Go(func() {
						_, err := sub.Next(short)
						assert.ErrorIs(t, err, context.Canceled)
					})
				case 1:
					left.Go(func() {
						_, err := sub.Next(background)
						assert.ErrorIs(t, err, io.EOF)
					})
					left.Go(func() {
						<-short.Done()
						sub.Close()
					})
				default:
					got.Go(func() {
						d, err := sub.Next(background)
						if assert.NoError(t, err) {
							d.Ack()
						}
					})
				}
			}
			synctest.Wait()
			cancel()
			left.Wait()
			require.NoError(t, bus.Publish(background, &transport.Message{Topic: "t"}))
			got.Wait()
			require.NoError(t, bus.Close())
		})
	})

	t.Run("readers that are gone are forgotten although nothing is published", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := mem.New(nil)
			defer bus.Close()
			stays := subscribe(t, bus)
			got := make(chan error, 1)
			go func() {
				_, err := stays.Next(background)
				got <- err
			}()
			heap := func() uint64 {
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				return m.HeapAlloc
			}
			comeAndGo := func() {
				short, cancel := context.WithCancel(background)
				var left sync.WaitGroup
				for range n {
					sub, err := bus.Subscribe(background, "t")
					require.NoError(t, err)
					left.Go(func() {
						sub.Next(short)
						sub.Close()
					})
				}
				synctest.Wait()
				cancel()
				left.Wait()
			}
			comeAndGo()
			before := heap()
			for range 200 {
				comeAndGo()
			}
			require.Less(t, heap(), before+2<<20, "20,000 subscriptions have more than 10 MB")
			require.NoError(t, bus.Publish(background, &transport.Message{Topic: "t"}))
			require.NoError(t, <-got)
		})
	})

	t.Run("readers may leave while they are woken", func(t *testing.T) {
		bus := mem.New(nil)
		defer bus.Close()
		for range 50 {
			short, cancel := context.WithCancel(background)
			var left, got sync.WaitGroup
			for i := range n {
				sub := subscribe(t, bus)
				if i%2 == 0 {
					left.Go(func() {
						if d, err := sub.Next(short); err == nil {
							d.Ack()
						}
						sub.Close()
					})
					continue
				}
				got.Go(func() {
					d, err := sub.Next(background)
					if assert.NoError(t, err) {
						d.Ack()
					}
					sub.Close()
				})
			}
			left.Go(cancel)
			require.NoError(t, bus.Publish(background, &transport.Message{Topic: "t"}))
			got.Wait()
			left.Wait()
		}
	})
}
