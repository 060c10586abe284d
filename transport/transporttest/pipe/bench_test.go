package pipe_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

func BenchmarkCall(b *testing.B) {
	bus := mem.New(nil)
	defer bus.Close()
	c := overTCP(b, bus, nil)()
	s, err := bus.Respond(b.Context(), "t")
	require.NoError(b, err)
	go transport.Serve(b.Context(), s, func(_ context.Context, m *transport.Message) (*transport.Message, error) { return m, nil })
	m := &transport.Message{Topic: "t", Body: make([]byte, 100)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Call(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPublish(b *testing.B) {
	bus := mem.New(nil)
	defer bus.Close()
	c := overTCP(b, bus, nil)()
	m := &transport.Message{Topic: "t", Body: make([]byte, 100)}
	b.Run("one by one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := c.Publish(b.Context(), m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("PublishAll of 64", func(b *testing.B) {
		ms := make([]*transport.Message, 64)
		for i := range ms {
			ms[i] = m
		}
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			if n++; n%len(ms) == 0 {
				for _, err := range c.PublishAll(b.Context(), ms...) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		}
	})
}

// BenchmarkEvents publishes to the bus and receives over the connection.
func BenchmarkEvents(b *testing.B) {
	for _, opts := range [][]transport.SubscribeOption{nil, {transport.Group("g")}} {
		name := "alone"
		if opts != nil {
			name = "group"
		}
		b.Run(name, func(b *testing.B) {
			bus := mem.New(nil)
			defer bus.Close()
			c := overTCP(b, bus, nil)()
			s, err := c.Subscribe(b.Context(), "t", opts...)
			require.NoError(b, err)
			m := &transport.Message{Topic: "t", Body: make([]byte, 100)}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if n%64 == 0 {
					for range 64 {
						if err := bus.Publish(b.Context(), m); err != nil {
							b.Fatal(err)
						}
					}
				}
				n++
				d, err := s.Next(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				d.Ack()
			}
		})
	}
}
