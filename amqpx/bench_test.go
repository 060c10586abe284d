package amqpx_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/transport"
)

// Each benchmark stands beside the same work done by bare amqp091-go, on the same queue of the same broker: quorum, 200
// bytes, persistent, confirmed. Compare within one run only.

var benchBody = make([]byte, 200)

// bench is a group's queue, with our client, and with a bare channel in confirm mode.
type bench struct {
	ns, queue string
	ours      *amqpx.Client
	bare      *amqp.Channel
}

func newBench(b *testing.B) *bench {
	url := amqptest.URL(b)
	x := &bench{ns: "bench" + transport.NewID()}
	x.queue = x.ns + ".group.load.g"
	var err error
	x.ours, err = amqpx.Dial(b.Context(), url, &amqpx.Options{Namespace: x.ns})
	require.NoError(b, err)
	s, err := x.ours.Subscribe(b.Context(), "load", transport.Group("g")) // so that the queue exists
	require.NoError(b, err)
	require.NoError(b, s.Close())
	c, err := amqp.Dial(url)
	require.NoError(b, err)
	x.bare, err = c.Channel()
	require.NoError(b, err)
	require.NoError(b, x.bare.Confirm(false))
	b.Cleanup(func() {
		x.ours.Close()
		x.bare.QueueDelete(x.queue, false, false, false)
		x.bare.QueueDelete(x.ns+".call.echo", false, false, false)
		x.bare.ExchangeDelete(x.ns, false, false)
		c.Close()
	})
	return x
}

// publishBare publishes without waiting for the confirm.
func (x *bench) publishBare(b *testing.B) *amqp.DeferredConfirmation {
	confirm, err := x.bare.PublishWithDeferredConfirmWithContext(b.Context(), x.ns, "load", false, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, MessageId: transport.NewID(), Body: benchBody})
	if err != nil {
		b.Fatal(err)
	}
	return confirm
}

func waitBare(b *testing.B, confirm *amqp.DeferredConfirmation) {
	if ok, err := confirm.WaitContext(context.Background()); err != nil || !ok {
		b.Error(ok, err)
	}
}

// parallel runs f b.N times from n goroutines.
func parallel(b *testing.B, n int, f func()) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				f()
			}
		})
	}
	wg.Wait()
}

func BenchmarkPublish64(b *testing.B) {
	b.Run("ours", publish64)
	b.Run("bare", publish64Bare)
}

func publish64(b *testing.B) {
	x := newBench(b)
	b.ReportAllocs()
	b.ResetTimer()
	parallel(b, 64, func() {
		if err := x.ours.Publish(b.Context(), &transport.Message{Topic: "load", Body: benchBody}); err != nil {
			b.Error(err)
		}
	})
	b.StopTimer()
}

func publish64Bare(b *testing.B) {
	x := newBench(b)
	b.ReportAllocs()
	b.ResetTimer()
	parallel(b, 64, func() { waitBare(b, x.publishBare(b)) })
	b.StopTimer()
}

// BenchmarkPublishAll publishes batches from one goroutine; an operation is one message.
func BenchmarkPublishAll(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(strconv.Itoa(n)+"/ours", func(b *testing.B) { publishAll(b, n) })
		b.Run(strconv.Itoa(n)+"/bare", func(b *testing.B) { publishAllBare(b, n) })
	}
}

func publishAll(b *testing.B, n int) {
	x := newBench(b)
	ms := make([]*transport.Message, n)
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; left -= n {
		for i := range ms {
			ms[i] = &transport.Message{Topic: "load", Body: benchBody}
		}
		for _, err := range transport.PublishAll(b.Context(), x.ours, ms[:min(n, left)]...) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	b.StopTimer()
}

func publishAllBare(b *testing.B, n int) {
	x := newBench(b)
	confirms := make([]*amqp.DeferredConfirmation, n)
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; left -= n {
		k := min(n, left)
		for i := range k {
			confirms[i] = x.publishBare(b)
		}
		for _, c := range confirms[:k] {
			waitBare(b, c)
		}
	}
	b.StopTimer()
}

// BenchmarkConsume takes messages that wait in the queue and acknowledges each.
func BenchmarkConsume(b *testing.B) {
	for _, prefetch := range []int{64, 500} {
		b.Run(strconv.Itoa(prefetch)+"/ours", func(b *testing.B) { consume(b, prefetch) })
		b.Run(strconv.Itoa(prefetch)+"/bare", func(b *testing.B) { consumeBare(b, prefetch) })
	}
}

// fill puts n messages into the queue.
func (x *bench) fill(b *testing.B, n int) {
	confirms := make(chan *amqp.DeferredConfirmation, 500)
	var wg sync.WaitGroup
	wg.Go(func() {
		for c := range confirms {
			waitBare(b, c)
		}
	})
	for range n {
		confirms <- x.publishBare(b)
	}
	close(confirms)
	wg.Wait()
}

func consume(b *testing.B, prefetch int) {
	x := newBench(b)
	x.fill(b, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	s, err := x.ours.Subscribe(b.Context(), "load", transport.Group("g"), transport.Buffer(prefetch))
	require.NoError(b, err)
	for range b.N {
		d, err := s.Next(b.Context())
		if err == nil {
			err = d.Ack()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	s.Close()
}

func consumeBare(b *testing.B, prefetch int) {
	x := newBench(b)
	x.fill(b, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	require.NoError(b, x.bare.Qos(prefetch, 0, false))
	deliveries, err := x.bare.Consume(x.queue, "bench", false, false, false, false, nil)
	require.NoError(b, err)
	for range b.N {
		d := <-deliveries
		if err := d.Ack(false); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	require.NoError(b, x.bare.Cancel("bench", false))
}

// BenchmarkCall calls an echo, in order and from 16 goroutines.
func BenchmarkCall(b *testing.B) {
	for _, n := range []int{1, 16} {
		b.Run(strconv.Itoa(n)+"/ours", func(b *testing.B) { call(b, n) })
		b.Run(strconv.Itoa(n)+"/bare", func(b *testing.B) { callBare(b, n) })
	}
}

func call(b *testing.B, n int) {
	x := newBench(b)
	server, err := amqpx.Dial(b.Context(), amqptest.URL(b), &amqpx.Options{Namespace: x.ns})
	require.NoError(b, err)
	defer server.Close()
	s, err := server.Respond(b.Context(), "echo")
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(b.Context())
	served := make(chan error, 1)
	go func() {
		served <- transport.Serve(ctx, s, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			return &transport.Message{Body: m.Body}, nil
		})
	}()
	b.ReportAllocs()
	b.ResetTimer()
	parallel(b, n, func() {
		if _, err := x.ours.Call(b.Context(), &transport.Message{Topic: "echo", Body: benchBody}); err != nil {
			b.Error(err)
		}
	})
	b.StopTimer()
	cancel()
	require.NoError(b, <-served)
}

// callBare is what the tutorials show, with direct reply-to and a map of those who wait.
func callBare(b *testing.B, n int) {
	x := newBench(b)
	url := amqptest.URL(b)
	c, err := amqp.Dial(url)
	require.NoError(b, err)
	server, err := c.Channel()
	require.NoError(b, err)
	q, err := server.QueueDeclare(x.ns+".call.echo", true, false, false, false, nil)
	require.NoError(b, err)
	require.NoError(b, server.Qos(64, 0, false))
	requests, err := server.Consume(q.Name, "", false, false, false, false, nil)
	require.NoError(b, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for d := range requests {
			server.PublishWithContext(b.Context(), "", d.ReplyTo, false, false,
				amqp.Publishing{CorrelationId: d.CorrelationId, MessageId: transport.NewID(), Body: d.Body})
			d.Ack(false)
		}
	}()
	defer func() { c.Close(); <-served }()

	conn, err := amqp.Dial(url)
	require.NoError(b, err)
	client, err := conn.Channel()
	require.NoError(b, err)
	replies, err := client.Consume("amq.rabbitmq.reply-to", "", true, false, false, false, nil)
	require.NoError(b, err)
	var waiting sync.Map
	dispatched := make(chan struct{})
	go func() {
		defer close(dispatched)
		for d := range replies {
			if w, ok := waiting.LoadAndDelete(d.CorrelationId); ok {
				w.(chan amqp.Delivery) <- d
			}
		}
	}()
	defer func() { conn.Close(); <-dispatched }()
	b.ReportAllocs()
	b.ResetTimer()
	parallel(b, n, func() {
		id := transport.NewID()
		w := make(chan amqp.Delivery, 1)
		waiting.Store(id, w)
		if err := client.PublishWithContext(b.Context(), "", q.Name, true, false, amqp.Publishing{CorrelationId: id,
			MessageId: id, ReplyTo: "amq.rabbitmq.reply-to", Body: benchBody}); err != nil {
			b.Error(err)
		}
		<-w
	})
	b.StopTimer()
}
