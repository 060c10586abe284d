package transporttest

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var loadCases = []testCase{{
	name: "load/everything",
	rule: "All verbs at once from many goroutines, subscriptions that come and go, retries: nothing is lost or mixed up.",
	run: func(c *env) {
		var wg sync.WaitGroup
		for w := range 4 {
			if c.has(transport.OpPublish) && c.has(transport.OpSubscribe) {
				wg.Go(func() { c.loadEvents(w) })
				if c.offers(transport.Groups) {
					wg.Go(func() { c.loadGroup(w) })
				}
			}
			if c.has(transport.OpCall) && c.has(transport.OpRespond) {
				wg.Go(c.loadCalls)
			}
			if c.has(transport.OpOpen) && c.has(transport.OpAccept) {
				wg.Go(c.loadStreams)
			}
		}
		wg.Wait()
	},
}, {
	name:  "load/one-subscription",
	rule:  "A Subscription is safe for concurrent use: many take from one, settle each other's, ask for the Cursor.",
	needs: []need{events},
	run: func(c *env) {
		const n = 200
		topic := c.topic()
		s := c.broadcast(topic)
		bodies := make(chan string, n)
		var taken atomic.Int32
		var returned sync.Map
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				for {
					d, err := s.Next(c.ctx)
					if err != nil {
						return
					}
					s.Cursor()
					d.Cursor()
					if _, again := returned.LoadOrStore(d.ID, true); !again {
						d.Nack(transport.CodeCanceled) // the first time, for whoever takes it then
						continue
					}
					bodies <- string(d.Body)
					wg.Go(func() { d.Ack() })
					if taken.Add(1) == n {
						s.Close()
					}
				}
			})
		}
		c.publish(topic, numbers(1, n)...)
		var got []string
		for range n {
			got = append(got, await(c, bodies, "a message"))
		}
		s.Close()
		await(c, async(func() bool { wg.Wait(); return true }), "the readers")
		require.ElementsMatch(c, numbers(1, n), got)
	},
}}

// topicOf is topic for goroutines.
func (c *env) topicOf(what ...any) string {
	return fmt.Sprintf("test.%s.%s.%s", c.id, fmt.Sprint(what...), transport.NewID())
}

func (c *env) loadEvents(w int) {
	topic := c.topicOf("events", w)
	for range 3 {
		s := c.broadcast(topic)
		got := async(func() []string { return c.take(s, 30) })
		c.publish(topic, numbers(1, 30)...)
		require.ElementsMatch(c, numbers(1, 30), await(c, got, "the reader"))
		require.NoError(c, s.Close())
	}
}

func (c *env) loadGroup(w int) {
	const n = 60
	topic := c.topicOf("group", w)
	var mu sync.Mutex
	failed := map[string]bool{}
	done := make(chan string, 2*n)
	h := transport.NoReply(func(_ context.Context, m *transport.Message) error {
		mu.Lock()
		first := !failed[m.ID]
		failed[m.ID] = true
		mu.Unlock()
		if first && m.Body[0]%2 == 0 {
			return again(1)
		}
		done <- string(m.Body)
		return nil
	})
	for range 3 {
		c.serve(c.broadcast(topic, transport.Group("g"), transport.Buffer(3)), h, transport.Workers(2))
	}
	c.publish(topic, numbers(1, n)...)
	var got []string
	for range n {
		got = append(got, await(c, done, "a message of the group"))
	}
	require.ElementsMatch(c, numbers(1, n), got)
}

func (c *env) loadCalls() {
	topic := c.topicOf("calls")
	c.echo(topic)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 15 {
				body := fmt.Sprint(g, " ", i)
				if i%5 == 4 { // some give up
					ctx, cancel := context.WithCancel(c.ctx)
					cancelled := c.calling(ctx, topic, body)
					cancel()
					await(c, cancelled, "a cancelled call")
					continue
				}
				require.Equal(c, body, string(c.call(topic, body).Body))
			}
		})
	}
	wg.Wait()
}

func (c *env) loadStreams() {
	topic := c.topicOf("streams")
	c.serveStreams(c.accept(topic), func(_ context.Context, in transport.Incoming) error {
		for {
			m, err := in.Recv()
			if err == io.EOF {
				return nil
			}
			if err == nil {
				err = in.Send(&transport.Message{Body: m.Body})
			}
			if err != nil {
				return err
			}
		}
	})
	for round := range 4 {
		s, err := c.Sender.Open(c.ctx, topic, nil)
		require.NoError(c, err)
		for i := range 10 {
			c.put(s.Send, strconv.Itoa(i))
			require.Equal(c, strconv.Itoa(i), c.item(s.Recv))
		}
		if round%2 == 0 {
			require.NoError(c, s.CloseSend())
			c.items(s.Recv)
		}
		require.NoError(c, s.Close())
	}
}
