package transporttest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var inOrder = transport.Require(transport.Ordered)

var orderCases = []testCase{{
	name:    "order/publication",
	rule:    "Under Require(Ordered) messages come in the order of publication.",
	needs:   []need{events, ordered},
	grouped: true,
	run: func(c *env) {
		const n = 200
		topic := c.topic()
		s := c.subscribe(topic, inOrder)
		got := async(func() []string { return c.take(s, n) })
		c.publish(topic, numbers(1, n)...)
		require.Equal(c, numbers(1, n), await(c, got, "the reader"))
	},
}, {
	name:    "order/one-at-a-time",
	rule:    "Under Require(Ordered) one delivery is out at a time, whatever the Buffer.",
	needs:   []need{events, ordered},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic, inOrder, transport.Buffer(16))
		c.publish(topic, "1", "2")
		d := c.expect(s, "1")
		c.nothing(s)
		c.ack(d)
		c.ack(c.expect(s, "2"))
	},
}, {
	name:    "order/redelivery",
	rule:    "Under Require(Ordered) a message that waits for redelivery holds back all that follow it.",
	needs:   []need{events, ordered},
	grouped: true,
	run: func(c *env) {
		const wait = 100 * time.Millisecond
		topic := c.topic()
		s := c.subscribe(topic, inOrder)
		c.publish(topic, numbers(1, 5)...)
		var due time.Time
		for attempt := 1; attempt < 4; attempt++ {
			d := c.expect(s, "1")
			require.False(c, time.Now().Before(due), "it came too early")
			require.Equal(c, attempt, d.Attempt)
			due = time.Now().Add(wait)
			c.nack(d, again(wait))
		}
		d := c.expect(s, "1")
		require.Equal(c, 4, d.Attempt)
		c.ack(d)
		require.Equal(c, "2", c.take(s, 1)[0])
		c.nack(c.expect(s, "3"), again(time.Millisecond))
		require.Equal(c, []string{"3", "4", "5"}, c.take(s, 3))
	},
}, {
	name:    "order/give-back",
	rule:    "Under Require(Ordered) what is given back comes again before what follows it.",
	needs:   []need{events, ordered},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic, inOrder)
		c.publish(topic, "1", "2", "3")
		c.nack(c.expect(s, "1"), transport.CodeCanceled)
		require.Equal(c, "1", c.take(s, 1)[0])
		c.nack(c.expect(s, "2"), transport.CodeCanceled)
		require.Equal(c, []string{"2", "3"}, c.take(s, 2))
	},
}, {
	name:    "order/refused",
	rule:    "Under Require(Ordered) a message that is refused for good holds back nothing.",
	needs:   []need{events, ordered},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic, inOrder, transport.MaxAttempts(2))
		c.publish(topic, "1", "2", "3")
		c.nack(c.expect(s, "1"), transport.CodeInvalidArgument)
		c.nack(c.expect(s, "2"), again(time.Millisecond))
		c.nack(c.expect(s, "2"), again(time.Millisecond))
		c.ack(c.expect(s, "3"))
	},
}, {
	name:  "order/members",
	rule:  "Under Require(Ordered) the members of a group together have one delivery out, and keep the order.",
	needs: []need{events, ordered, groups},
	run: func(c *env) {
		topic := c.topic()
		a := c.broadcast(topic, transport.Group("g"), inOrder)
		b := c.broadcast(topic, transport.Group("g"), inOrder)
		c.publish(topic, numbers(1, 30)...)
		next := make(chan *transport.Delivery)
		for _, s := range []transport.Subscription{a, b} {
			go func() {
				for {
					d, err := s.Next(c.ctx)
					if err != nil {
						return
					}
					select {
					case next <- d:
					case <-c.ctx.Done():
						return
					}
				}
			}()
		}
		for i, want := range numbers(1, 30) {
			d := await(c, next, "the next message")
			require.Equal(c, want, string(d.Body))
			if i == 10 {
				pending(c, next, "a second delivery")
			}
			if i%7 == 3 {
				c.nack(d, again(time.Millisecond))
				d = await(c, next, "the redelivery")
				require.Equal(c, want, string(d.Body))
			}
			c.ack(d)
		}
	},
}, {
	name:    "order/overtaking",
	rule:    "Without Require(Ordered) a message that waits for redelivery is overtaken by others.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		c.publish(topic, "1")
		const wait = time.Second
		start := time.Now()
		c.nack(c.expect(s, "1"), again(wait))
		c.publish(topic, "2", "3")
		require.ElementsMatch(c, []string{"2", "3"}, c.take(s, 2))
		require.Less(c, time.Since(start), wait)
		d := c.expect(s, "1")
		require.Equal(c, 2, d.Attempt)
		c.ack(d)
	},
}}
