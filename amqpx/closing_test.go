package amqpx_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/transport"
)

// TestClosingKeepsConnections closes subscriptions of all kinds while messages arrive. What is written to a channel
// after its channel.close makes RabbitMQ close the connection, and so disturbs all others.
func TestClosingKeepsConnections(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		history []amqpx.History
		opts    []transport.SubscribeOption
	}{
		{"broadcast", nil, nil},
		{"group", nil, []transport.SubscribeOption{transport.Group("g"), transport.Buffer(3)}},
		{"ordered group", nil, []transport.SubscribeOption{transport.Group("g"), transport.Require(transport.Ordered)}},
		{"history", []amqpx.History{{Topics: "#", MaxBytes: historyBytes}}, []transport.SubscribeOption{transport.Buffer(2)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, ns := amqptest.URL(t), "c"+transport.NewID()
			var lost atomic.Value
			client, err := amqpx.Dial(t.Context(), url, &amqpx.Options{Namespace: ns, History: c.history,
				OnState: func(s amqpx.State) {
					// RabbitMQ 3.10.8 at times fails by itself (541) when members of a group come and go that fast.
					var e *amqp.Error
					if errors.As(s.Err, &e) && e.Code == amqp.ChannelError {
						lost.CompareAndSwap(nil, s.Role+": "+s.Err.Error())
					}
				}})
			require.NoError(t, err)
			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				for ctx.Err() == nil {
					client.PublishAll(ctx, numbered(1, 20)...)
				}
			})
			for range 4 {
				wg.Go(func() {
					for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
						s, err := client.Subscribe(t.Context(), "a.b", c.opts...)
						if !errorFree(t, err) {
							return
						}
						var reader sync.WaitGroup
						reader.Go(func() {
							for d, err := s.Next(t.Context()); err == nil; d, err = s.Next(t.Context()) {
								d.Ack()
							}
						})
						short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
						<-short.Done() // some messages flow
						cancel()
						errorFree(t, s.Close())
						reader.Wait()
					}
				})
			}
			time.AfterFunc(2*time.Second, stop)
			wg.Wait()
			require.Nil(t, lost.Load(), "a connection was lost")
			require.NoError(t, client.Close())
			remove(t, url, append(client.Declared(), ns))
		})
	}
}

// errorFree reports whether err is nil, and fails the test if not. It is for goroutines.
func errorFree(t *testing.T, err error) bool {
	if err != nil {
		t.Error(err)
	}
	return err == nil
}

// TestCloseWhileBeginning: Close and Shutdown end what is being begun and waits for a connection.
func TestCloseWhileBeginning(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(c *amqpx.Client) error{
		"broadcast": func(c *amqpx.Client) error { _, err := c.Subscribe(context.Background(), "a"); return err },
		"history":   func(c *amqpx.Client) error { _, err := c.Subscribe(context.Background(), "h"); return err },
		"group": func(c *amqpx.Client) error {
			_, err := c.Subscribe(context.Background(), "a", transport.Group("g"))
			return err
		},
		"respond": func(c *amqpx.Client) error { _, err := c.Respond(context.Background(), "a"); return err },
	} {
		for _, inOrder := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " ", inOrder), func(t *testing.T) {
				t.Parallel()
				cutter := newCutter()
				var w watcher
				c := dialed(t, amqpx.Options{Dial: cutter.dial, History: []amqpx.History{{Topics: "h"}}, OnState: w.see,
					Backoff: transport.Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond}})
				cutter.refuse(true)
				begun := make(chan error, 1)
				go func() { begun <- begin(c) }()
				waitFor(t, func() bool { return len(w.of("consume"))+len(w.of("stream"))+len(w.of("call")) > 0 })
				began := time.Now()
				if inOrder {
					require.NoError(t, c.Shutdown(t.Context()))
				} else {
					require.NoError(t, c.Close())
				}
				require.ErrorIs(t, <-begun, transport.CodeUnavailable)
				require.Less(t, time.Since(began), 5*time.Second)
			})
		}
	}
}
