package mem_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

// body is a small payload.
var body = make([]byte, 100)

// BenchmarkPublish is publish → handler → settled: one publisher, one Serve.
func BenchmarkPublish(b *testing.B) {
	bus := mem.New(nil)
	defer bus.Close()
	benchmarkServe(b, bus, bus)
}

// serveEvents starts a Serve that counts to n.
func serveEvents(tb testing.TB, s transport.Subscriber, n int, opts ...transport.SubscribeOption) (wait func()) {
	sub, err := s.Subscribe(context.Background(), "bench", opts...)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	all, ended := make(chan struct{}), make(chan struct{})
	count := 0
	go func() {
		defer close(ended)
		transport.Serve(ctx, sub, func(context.Context, *transport.Message) (*transport.Message, error) {
			if count++; count == n {
				close(all)
			}
			return nil, nil
		})
	}()
	return func() {
		<-all
		cancel()
		<-ended
	}
}

func benchmarkServe(b *testing.B, p transport.Publisher, s transport.Subscriber, opts ...transport.SubscribeOption) {
	b.ReportAllocs()
	ctx := context.Background()
	wait := serveEvents(b, s, b.N, opts...)
	m := &transport.Message{Topic: "bench", Body: body}
	b.ResetTimer()
	for range b.N {
		if err := p.Publish(ctx, m); err != nil {
			b.Fatal(err)
		}
	}
	wait()
}

// BenchmarkPublishGroup is the same to a group of one.
func BenchmarkPublishGroup(b *testing.B) {
	bus := mem.New(nil)
	defer bus.Close()
	benchmarkServe(b, bus, bus, transport.Group("g"))
}

// BenchmarkPublishAll is the same in batches of 64.
func BenchmarkPublishAll(b *testing.B) {
	b.ReportAllocs()
	bus := mem.New(nil)
	defer bus.Close()
	wait := serveEvents(b, bus, b.N)
	ms := make([]*transport.Message, 64)
	for i := range ms {
		ms[i] = &transport.Message{Topic: "bench", Body: body}
	}
	b.ResetTimer()
	for n := b.N; n > 0; {
		k := min(n, len(ms))
		bus.PublishAll(context.Background(), ms[:k]...)
		n -= k
	}
	wait()
}

// BenchmarkChannel is the bare minimum to compare with: one allocation per message, through a buffered channel.
func BenchmarkChannel(b *testing.B) {
	b.ReportAllocs()
	ch := make(chan *transport.Message, 1024)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range ch {
		}
	}()
	for range b.N {
		ch <- &transport.Message{Topic: "bench", Body: body}
	}
	close(ch)
	<-done
}

// BenchmarkMutexSlice is the other: a mutex, a slice and a condition.
func BenchmarkMutexSlice(b *testing.B) {
	b.ReportAllocs()
	var mu sync.Mutex
	cond := sync.NewCond(&mu)
	var queue []*transport.Message
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; n < b.N; n++ {
			mu.Lock()
			for len(queue) == 0 {
				cond.Wait()
			}
			queue = queue[1:]
			mu.Unlock()
		}
	}()
	for range b.N {
		m := &transport.Message{Topic: "bench", Body: body}
		mu.Lock()
		queue = append(queue, m)
		cond.Signal()
		mu.Unlock()
	}
	<-done
}

// BenchmarkPlainLog is a program made for this alone that does what a bus cannot do without: it copies the message and
// gives it an ID, keeps it for replay, wakes the reader, hands out something to settle, and moves the low-water mark.
func BenchmarkPlainLog(b *testing.B) {
	b.ReportAllocs()
	const history = 1024
	type delivery struct {
		m      *transport.Message
		offset int
	}
	var mu sync.Mutex
	wake := make(chan struct{}, 1)
	var ring [history]*transport.Message
	head, settled := 0, 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for pos := 0; pos < b.N; {
			mu.Lock()
			if pos == head {
				mu.Unlock()
				<-wake
				continue
			}
			d := &delivery{ring[pos%history], pos}
			mu.Unlock()
			pos++
			mu.Lock()
			settled = d.offset + 1
			mu.Unlock()
		}
	}()
	m := &transport.Message{Topic: "bench", Body: body}
	for range b.N {
		travels := *m
		travels.ID = transport.NewID()
		for {
			mu.Lock()
			if head-settled < history {
				break
			}
			mu.Unlock()
			runtime.Gosched()
		}
		ring[head%history] = &travels
		head++
		mu.Unlock()
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	<-done
}

// BenchmarkCall is call → handler → reply.
func BenchmarkCall(b *testing.B) {
	b.ReportAllocs()
	bus := mem.New(nil)
	defer bus.Close()
	sub, err := bus.Respond(context.Background(), "bench")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		transport.Serve(ctx, sub, func(_ context.Context, m *transport.Message) (*transport.Message, error) { return m, nil })
	}()
	m := &transport.Message{Topic: "bench", Body: body}
	b.ResetTimer()
	for range b.N {
		if _, err := bus.Call(ctx, m); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	<-ended
}

// BenchmarkChannelPingPong is the bare minimum for a call.
func BenchmarkChannelPingPong(b *testing.B) {
	b.ReportAllocs()
	ping, pong := make(chan *transport.Message), make(chan *transport.Message)
	go func() {
		for m := range ping {
			pong <- m
		}
		close(pong)
	}()
	m := &transport.Message{Topic: "bench", Body: body}
	for range b.N {
		ping <- m
		<-pong
	}
	close(ping)
	<-pong
}

// BenchmarkPlainCall is a program made for this alone that does what a call cannot do without: it copies the request and
// gives it an ID, waits for the reply or the end of ctx, and hands the responder something that replies.
func BenchmarkPlainCall(b *testing.B) {
	b.ReportAllocs()
	type call struct {
		ctx   context.Context
		m     transport.Message
		reply *transport.Message
		done  chan struct{}
	}
	calls := make(chan *call)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for c := range calls {
			if c.ctx.Err() == nil {
				reply := c.m
				reply.ID = transport.NewID()
				c.reply = &reply
			}
			c.done <- struct{}{}
		}
	}()
	m := &transport.Message{Topic: "bench", Body: body}
	b.ResetTimer()
	for range b.N {
		c := &call{ctx: ctx, m: *m, done: make(chan struct{}, 1)}
		c.m.ID = transport.NewID()
		calls <- c
		select {
		case <-c.done:
		case <-ctx.Done():
		}
	}
	close(calls)
	<-ended
}

// BenchmarkFanOut publishes to 1,000 subscribers, each a Serve in its own goroutine, and waits until all have settled:
// bursts of 16 messages, and single ones. ns/delivery is per subscriber and message.
func BenchmarkFanOut(b *testing.B) {
	for _, burst := range []int{16, 1} {
		b.Run(fmt.Sprintf("burst=%d", burst), func(b *testing.B) { benchmarkFanOut(b, 1000, burst) })
	}
}

func benchmarkFanOut(b *testing.B, subscribers, burst int) {
	b.ReportAllocs()
	bus := mem.New(nil)
	defer bus.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var ended, got sync.WaitGroup
	for range subscribers {
		sub, err := bus.Subscribe(ctx, "bench")
		if err != nil {
			b.Fatal(err)
		}
		ended.Go(func() {
			transport.Serve(ctx, sub, func(context.Context, *transport.Message) (*transport.Message, error) {
				got.Done()
				return nil, nil
			})
		})
	}
	m := &transport.Message{Topic: "bench", Body: body}
	b.ResetTimer()
	for range b.N {
		got.Add(subscribers * burst)
		for range burst {
			if err := bus.Publish(ctx, m); err != nil {
				b.Fatal(err)
			}
		}
		got.Wait()
	}
	b.StopTimer()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(subscribers*burst), "ns/delivery")
	cancel()
	ended.Wait()
}

// BenchmarkFanOutSlices is what a plain program would do: a mutex, a slice and a condition per subscriber.
func BenchmarkFanOutSlices(b *testing.B) {
	for _, burst := range []int{16, 1} {
		b.Run(fmt.Sprintf("burst=%d", burst), func(b *testing.B) { benchmarkSlices(b, 1000, burst) })
	}
}

func benchmarkSlices(b *testing.B, subscribers, burst int) {
	b.ReportAllocs()
	type inbox struct {
		sync.Mutex
		wake  *sync.Cond
		queue []*transport.Message
		ended bool
	}
	var ended, got sync.WaitGroup
	boxes := make([]*inbox, subscribers)
	for i := range boxes {
		in := &inbox{}
		in.wake = sync.NewCond(in)
		boxes[i] = in
		ended.Go(func() {
			in.Lock()
			defer in.Unlock()
			for {
				for len(in.queue) == 0 {
					if in.ended {
						return
					}
					in.wake.Wait()
				}
				in.queue = in.queue[1:]
				in.Unlock()
				got.Done()
				in.Lock()
			}
		})
	}
	b.ResetTimer()
	for range b.N {
		got.Add(subscribers * burst)
		for range burst {
			m := &transport.Message{Topic: "bench", Body: body}
			for _, in := range boxes {
				in.Lock()
				in.queue = append(in.queue, m)
				in.Unlock()
				in.wake.Signal()
			}
		}
		got.Wait()
	}
	b.StopTimer()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(subscribers*burst), "ns/delivery")
	for _, in := range boxes {
		in.Lock()
		in.ended = true
		in.Unlock()
		in.wake.Signal()
	}
	ended.Wait()
}
