package mem_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

// TestSoak runs publishers, a group whose members fail, die and come back, and subscribers that are quick, slow and
// dying, and accounts for every message: the group settles each exactly once, as handled or as a dead letter; a
// subscriber that drops knows how many it missed; one that is cut off resumes at its cursor or is told that it cannot.
// Memory stays flat. It takes two seconds, and ten minutes with INTERMODAL_LONG=1.
func TestSoak(t *testing.T) {
	const publishers = 3
	length, capacity := 2*time.Second, 1<<23 // messages of each publisher
	if os.Getenv("INTERMODAL_LONG") != "" {
		length, capacity = 10*time.Minute, 1<<28
	}
	// GroupBytes counts what is in the messages, which are tiny here: in memory they take some 15 times as much. A group
	// that falls behind at the end must not look like a leak.
	bus := mem.New(&mem.Options{GroupBytes: 1 << 20})
	ctx, stop := context.WithTimeout(background, length)
	defer stop()

	var published [publishers]atomic.Int64
	var handled, buried [publishers]*bits
	for p := range publishers {
		handled[p], buried[p] = newBits(capacity), newBits(capacity)
	}
	number := func(m *transport.Message) (p int, n int64) {
		return int(m.Body[0]), int64(binary.BigEndian.Uint64(m.Body[1:]))
	}
	join := func(topic string, opts ...transport.SubscribeOption) transport.Subscription {
		s, err := bus.Subscribe(background, topic, opts...)
		require.NoError(t, err)
		return s
	}
	group := []transport.SubscribeOption{transport.Group("workers"), transport.DeadLetter("dead"), transport.MaxAttempts(3)}
	letters := join("dead", transport.Group("undertaker"))
	join("t", group...).Close() // the group exists before the first message

	var sending, receiving sync.WaitGroup
	for p := range publishers {
		sending.Go(func() {
			for n := int64(0); ctx.Err() == nil && n < int64(capacity); {
				m := &transport.Message{Topic: "t", Body: binary.BigEndian.AppendUint64([]byte{byte(p)}, uint64(n))}
				switch err := bus.Publish(background, m); {
				case err == nil:
					n++
					published[p].Store(n)
				case errors.Is(err, transport.CodeResourceExhausted): // the group is behind
					time.Sleep(time.Millisecond)
				default:
					t.Errorf("publish: %v", err)
					return
				}
			}
		})
	}

	// Members handle some, fail some, refuse some, and die with deliveries out, which they settle afterwards.
	drained := make(chan struct{})
	for range 4 {
		receiving.Go(func() {
			for {
				member := join("t", group...)
				life := 1 + rand.IntN(5000)
				for d, err := range transport.Deliveries(background, member) {
					if err != nil {
						t.Errorf("member: %v", err)
						return
					}
					p, n := number(d.Message)
					switch r := rand.IntN(1000); {
					case r < 5:
						d.Nack(&transport.Error{Code: transport.CodeUnavailable, RetryAfter: time.Millisecond})
					case r < 7:
						d.Nack(transport.CodeDataLoss)
					case r < 9:
						d.Nack(transport.CodeCanceled)
					default:
						if !handled[p].set(n) {
							t.Errorf("message %d of %d was delivered again after its acknowledgement", n, p)
						}
					}
					if life--; life == 0 {
						member.Close() // with this one out: the loop settles it
					}
				}
				select {
				case <-drained:
					return
				default:
				}
				if bus.Health(background) != nil {
					return
				}
			}
		})
	}
	receiving.Go(func() {
		for d, err := range transport.Deliveries(background, letters) {
			require.NoError(t, err)
			p, n := number(d.Message)
			if !buried[p].set(n) {
				t.Errorf("message %d of %d was buried twice", n, p)
			}
		}
	})

	// A subscriber that drops: what it got and what it missed is what was published since it came.
	receiving.Go(func() {
		s := join("t", transport.Overflow(transport.DropOldest))
		var got, missed uint64
		last := map[int]int64{}
		for d, err := range transport.Deliveries(background, s) {
			require.NoError(t, err)
			p, n := number(d.Message)
			if before, ok := last[p]; ok && n <= before {
				t.Errorf("message %d of %d came after %d", n, p, before)
			}
			last[p] = n
			got++
			missed += d.Missed
			if got%1000 == 0 {
				time.Sleep(10 * time.Millisecond)
			}
		}
		t.Logf("the dropping subscriber got %d and missed %d", got, missed)
	})
	// One that is cut off for being slow, and goes on.
	receiving.Go(func() {
		var resumed, lost int
		cursor := ""
		for {
			s, err := bus.Subscribe(background, "t", transport.Overflow(transport.Disconnect), transport.From(cursor))
			if errors.Is(err, transport.CodeOutOfRange) {
				lost++
				cursor = ""
				continue
			}
			if err != nil {
				break // the bus is closed
			}
			resumed++
			var ended error
			for n := 0; ended == nil; n++ {
				d, err := s.Next(background)
				if ended = err; err == nil {
					d.Ack()
					if n%500 == 0 {
						time.Sleep(time.Millisecond)
					}
				}
			}
			cursor = s.Cursor()
			s.Close()
			if ended == io.EOF {
				break
			}
			require.ErrorIs(t, ended, transport.CodeResourceExhausted)
		}
		t.Logf("the slow subscriber was connected %d times, and told %d times that its cursor is gone", resumed, lost)
	})
	// Some that come and go, with deliveries out that they never settle.
	for range 2 {
		receiving.Go(func() {
			for bus.Health(background) == nil {
				s, err := bus.Subscribe(background, "t", transport.Buffer(10))
				if err != nil {
					return
				}
				for range rand.IntN(30) {
					nctx, cancel := context.WithTimeout(background, time.Millisecond)
					s.Next(nctx)
					cancel()
				}
				s.Close()
			}
		})
	}

	// Memory, after a warm-up and at the end.
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	time.Sleep(length / 5)
	early := heap()
	<-ctx.Done()
	late := heap()
	sending.Wait()

	total := int64(0)
	for p := range publishers {
		total += published[p].Load()
	}
	require.Eventually(t, func() bool {
		settled := int64(0)
		for p := range publishers {
			settled += handled[p].count.Load() + buried[p].count.Load()
		}
		return settled == total
	}, time.Minute, 10*time.Millisecond, "every message is settled")
	close(drained)
	require.NoError(t, bus.Close())
	receiving.Wait()
	for p := range publishers {
		for n := range published[p].Load() {
			if handled[p].get(n) == buried[p].get(n) {
				t.Fatalf("message %d of %d: handled %v, buried %v", n, p, handled[p].get(n), buried[p].get(n))
			}
		}
	}
	t.Logf("%d messages in %v, %.0f a second; heap %.1f MB early, %.1f MB late", total, length,
		float64(total)/length.Seconds(), float64(early)/1e6, float64(late)/1e6)
	require.Less(t, float64(late), 1.5*float64(early)+32e6, "memory stays flat")
}

// bits is a set of numbers, of fixed size so that it does not look like a leak.
type bits struct {
	words []atomic.Uint64
	count atomic.Int64
}

func newBits(n int) *bits { return &bits{words: make([]atomic.Uint64, n/64)} }

// set is false if n was there already.
func (b *bits) set(n int64) bool {
	if b.words[n/64].Or(1<<(n%64))&(1<<(n%64)) != 0 {
		return false
	}
	b.count.Add(1)
	return true
}

func (b *bits) get(n int64) bool { return b.words[n/64].Load()&(1<<(n%64)) != 0 }
