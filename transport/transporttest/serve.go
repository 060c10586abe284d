package transporttest

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var serveCases = []testCase{{
	name:  "serve/shutdown",
	rule:  "When Serve's ctx ends, handlers finish and what they settle counts; the rest goes back to the group, uncounted.",
	needs: []need{events, groups},
	run: func(c *env) {
		const n, workers = 20, 3
		topic := c.topic()
		ctx, cancel := context.WithCancel(c.ctx)
		defer cancel()
		started, finish := make(chan string, n), make(chan bool)
		var ended atomic.Int32
		s := c.broadcast(topic, transport.Group("g"))
		served := async(func() error {
			return transport.Serve(ctx, s, transport.NoReply(func(hctx context.Context, m *transport.Message) error {
				started <- string(m.Body)
				select {
				case <-finish:
				case <-c.ctx.Done():
				}
				ended.Add(1)
				return hctx.Err()
			}), transport.Workers(workers), transport.Grace(c.Patience), ignoreErrors)
		})
		c.publish(topic, numbers(1, n)...)
		var got []string
		for range workers {
			got = append(got, await(c, started, "a handler"))
		}
		cancel()
		pending(c, served, "Serve, with handlers at work")
		close(finish)
		require.NoError(c, await(c, served, "Serve"))
		require.EqualValues(c, workers, ended.Load())
		rest := c.broadcast(topic, transport.Group("g"))
		for range n - workers {
			d := c.next(rest)
			require.Equal(c, 1, d.Attempt)
			got = append(got, string(d.Body))
			c.ack(d)
		}
		require.ElementsMatch(c, numbers(1, n), got)
		c.nothing(rest)
	},
}, {
	name:  "serve/shutdown-calls",
	rule:  "When Serve's ctx ends, calls that a handler has are answered; the others go elsewhere or fail.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		ctx, cancel := context.WithCancel(c.ctx)
		defer cancel()
		started, finish := make(chan bool, 10), make(chan bool)
		s := c.respond(topic)
		served := async(func() error {
			return transport.Serve(ctx, s, func(context.Context, *transport.Message) (*transport.Message, error) {
				started <- true
				select {
				case <-finish:
				case <-c.ctx.Done():
				}
				return &transport.Message{Body: []byte("finished")}, nil
			}, transport.Grace(c.Patience), ignoreErrors)
		})
		first := c.calling(c.ctx, topic, "1")
		await(c, started, "the handler")
		second := c.calling(c.bounded(), topic, "2")
		time.Sleep(c.Quiet / 5)
		cancel()
		require.Error(c, await(c, second, "the call that no handler had").err)
		close(finish)
		require.NoError(c, await(c, served, "Serve"))
		r := await(c, first, "the call that a handler had")
		require.NoError(c, r.err)
		require.Equal(c, "finished", string(r.reply.Body))
	},
}, {
	name:    "serve/workers",
	rule:    "Workers handle at once, each message once.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		const workers = 4
		topic := c.topic()
		started, finish := make(chan string, 10), make(chan bool)
		c.serve(c.subscribe(topic), transport.NoReply(func(ctx context.Context, m *transport.Message) error {
			started <- string(m.Body)
			select {
			case <-finish:
			case <-ctx.Done():
			}
			return nil
		}), transport.Workers(workers))
		c.publish(topic, numbers(1, 6)...)
		var got []string
		for range workers {
			got = append(got, await(c, started, "a worker"))
		}
		pending(c, started, "a fifth worker")
		close(finish)
		for range 2 {
			got = append(got, await(c, started, "a worker"))
		}
		require.ElementsMatch(c, numbers(1, 6), got)
	},
}, {
	name:    "serve/deliveries",
	rule:    "A loop over Deliveries acknowledges what it finished and gives back what it was left with.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic, c.inOrder())
		c.publish(topic, "1", "2")
		ctx, cancel := c.patient()
		defer cancel()
		seen := ""
		for d, err := range transport.Deliveries(ctx, s) {
			require.NoError(c, err)
			if seen != "" {
				break
			}
			seen = string(d.Body)
		}
		d := c.next(s)
		require.NotEqual(c, seen, string(d.Body))
		require.Equal(c, 1, d.Attempt)
		c.ack(d)
		c.nothing(s)
	},
}, {
	name:  "serve/application",
	rule:  "An application that Start runs receives by all verbs that are offered, and Shutdown ends it.",
	needs: nil,
	run: func(c *env) {
		topic := c.topic()
		got := make(chan string, 10)
		var bindings []transport.Binding
		if c.has(transport.OpSubscribe) {
			bindings = append(bindings, transport.BindEvents(topic, collect(got)))
		}
		if c.has(transport.OpRespond) {
			bindings = append(bindings, transport.BindCalls(topic, collect(got)))
		}
		if c.has(transport.OpAccept) {
			bindings = append(bindings, transport.BindStreams(topic, func(_ context.Context, in transport.Incoming) error {
				got <- in.Topic()
				return nil
			}))
		}
		ctx, cancel := c.patient()
		defer cancel()
		svc, err := transport.Start(ctx, c.Receiver, bindings...)
		require.NoError(c, err)
		if c.has(transport.OpSubscribe) && c.has(transport.OpPublish) {
			c.publish(topic, "event")
			require.Equal(c, "event", await(c, got, "the event"))
		}
		if c.has(transport.OpRespond) && c.has(transport.OpCall) {
			c.call(topic, "call")
			require.Equal(c, "call", await(c, got, "the call"))
		}
		if c.has(transport.OpAccept) && c.has(transport.OpOpen) {
			c.items(c.open(c.ctx, topic, nil).Recv)
			require.Equal(c, topic, await(c, got, "the stream"))
		}
		require.NoError(c, svc.Health(ctx))
		require.NoError(c, svc.Shutdown(ctx))
		require.NoError(c, svc.Wait())
	},
}}
