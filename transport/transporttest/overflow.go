package transporttest

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var overflowCases = []testCase{{
	name:    "overflow/buffer",
	rule:    "At most Buffer deliveries are out unsettled: Next waits, and goes on after each settling.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic, transport.Buffer(3))
		c.publish(topic, numbers(1, 10)...)
		out := []*transport.Delivery{c.next(s), c.next(s), c.next(s)}
		c.nothing(s)
		for range 7 {
			waiting := async(func() *transport.Delivery { return c.next(s) })
			pending(c, waiting, "Next while Buffer deliveries are out")
			c.ack(out[0])
			out = append(out[1:], await(c, waiting, "Next after a settling"))
		}
		for _, d := range out {
			c.ack(d)
		}
		c.nothing(s)
	},
}, {
	name:    "overflow/buffer-retries",
	rule:    "A message that waits for redelivery is unsettled: it counts against Buffer.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic, transport.Buffer(2))
		c.publish(topic, numbers(1, 3)...)
		one := c.next(s)
		c.nack(one, again(time.Second))
		two := c.next(s)
		require.NotEqual(c, string(one.Body), string(two.Body), "others overtake")
		c.ack(two)
		require.ElementsMatch(c, []string{string(one.Body), "3"}, c.take(s, 2))
	},
}, {
	name:    "overflow/buffer-default",
	rule:    "Without the option Buffer 64 deliveries may be out.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		c.publish(topic, numbers(1, transport.DefaultBuffer+1)...)
		var out []*transport.Delivery
		for range transport.DefaultBuffer {
			out = append(out, c.next(s))
		}
		c.nothing(s)
		for _, d := range out {
			c.ack(d)
		}
		c.ack(c.next(s))
	},
}, {
	name:  "overflow/drop-oldest",
	rule:  "Under Overflow(DropOldest) the oldest are dropped, and Missed says exactly how many and where.",
	needs: []need{events, backlog},
	run: func(c *env) {
		topic := c.topic()
		s, ok := c.policy(topic, transport.DropOldest)
		if !ok {
			return
		}
		n := c.Backlog + 100
		c.publish(topic, numbers(1, n)...)
		at, missed := 0, 0
		for at < n {
			d := c.next(s)
			i, err := strconv.Atoi(string(d.Body))
			require.NoError(c, err)
			require.Equal(c, i-at-1, int(d.Missed), "missed between %d and %d", at, i)
			at, missed = i, missed+int(d.Missed)
			c.ack(d)
		}
		require.Positive(c, missed, "Backlog is too small to overflow the subscription")
		c.nothing(s)
		c.publish(topic, "after")
		d := c.expect(s, "after")
		require.Zero(c, d.Missed)
		c.ack(d)
	},
}, {
	name:  "overflow/disconnect",
	rule:  "Under Overflow(Disconnect) a slow subscription ends with ResourceExhausted, and says the cursor to go on from.",
	needs: []need{events, backlog},
	run: func(c *env) {
		topic := c.topic()
		s, ok := c.policy(topic, transport.Disconnect)
		if !ok {
			return
		}
		n := c.Backlog + 100
		c.publish(topic, numbers(1, n)...)
		at, err := c.readToEnd(s, n)
		c.code(err, transport.CodeResourceExhausted)
		_, again := s.Next(c.ctx)
		require.Equal(c, err, again, "a terminal error stays")
		if !c.offers(transport.Replay) {
			return
		}
		var e *transport.Error
		require.ErrorAs(c, err, &e)
		cursor := e.Header.Get("cursor")
		c.legalCursor(cursor)
		ctx, cancel := c.patient()
		defer cancel()
		s, err = c.Receiver.Subscribe(ctx, topic, transport.From(cursor), c.inOrder())
		if err != nil { // what it was too slow for may be gone from the history
			c.code(err, transport.CodeOutOfRange)
			return
		}
		s = c.opened(s, err)
		if at < n {
			c.ack(c.expect(s, strconv.Itoa(at+1)))
		}
	},
}, {
	name:  "overflow/block",
	rule:  "In process a slow subscription makes publishers wait by default, and nobody loses anything.",
	needs: []need{events, backlog, when("(a fixture in process)", func(f *Fixture) bool { return !f.Remote })},
	run: func(c *env) {
		n := c.Backlog + 100
		for _, opts := range [][]transport.SubscribeOption{nil, {transport.Overflow(transport.Block)}} {
			topic := c.topic()
			s := c.broadcast(topic, append(opts, transport.Buffer(4))...)
			published := async(func() bool { c.publish(topic, numbers(1, n)...); return true })
			pending(c, published, "the publisher")
			for _, want := range numbers(1, n) {
				d := c.next(s)
				require.Equal(c, want, string(d.Body))
				require.Zero(c, d.Missed)
				c.ack(d)
			}
			await(c, published, "the publisher")
		}
	},
}, {
	name:  "overflow/block-bounded",
	rule:  "Publishers wait for a bounded time; then the subscription that reads nothing ends with ResourceExhausted.",
	needs: []need{events, backlog, when("(a fixture in process)", func(f *Fixture) bool { return !f.Remote })},
	run: func(c *env) {
		topic := c.topic()
		stuck := c.broadcast(topic, transport.Overflow(transport.Block))
		n := c.Backlog + 100
		other := c.broadcast(topic)
		got := async(func() []string { return c.take(other, n) })
		c.publish(topic, numbers(1, n)...)
		require.ElementsMatch(c, numbers(1, n), await(c, got, "the other subscription"))
		_, err := c.readToEnd(stuck, n)
		c.code(err, transport.CodeResourceExhausted)
	},
}, {
	name:  "overflow/block-ctx",
	rule:  "A publisher that waits for a slow subscription stops waiting when its ctx ends.",
	needs: []need{events, backlog, when("(a fixture in process)", func(f *Fixture) bool { return !f.Remote })},
	run: func(c *env) {
		topic := c.topic()
		c.broadcast(topic, transport.Overflow(transport.Block))
		ctx, cancel := context.WithTimeout(c.ctx, c.Quiet)
		defer cancel()
		c.atOnce("the end of Publish", func() {
			for range c.Backlog + 100 {
				if err := c.Sender.Publish(ctx, &transport.Message{Topic: topic}); err != nil {
					require.ErrorIs(c, err, context.DeadlineExceeded)
					return
				}
			}
			c.Fatalf("Publish did not wait")
		})
	},
}, {
	name:  "overflow/no-remote-block",
	rule:  "A remote subscriber cannot make publishers wait: the policy Block is refused.",
	needs: []need{events, when("Remote", func(f *Fixture) bool { return f.Remote })},
	run: func(c *env) {
		ctx, cancel := c.patient()
		defer cancel()
		_, err := c.Receiver.Subscribe(ctx, c.topic(), transport.Overflow(transport.Block))
		require.True(c, unsupported(err), "Overflow(Block) from remote: %v", err)
	},
}, {
	name:  "overflow/slow-remote",
	rule:  "A remote subscription that reads nothing holds up neither publishers nor other subscriptions.",
	needs: []need{events, backlog, when("Remote", func(f *Fixture) bool { return f.Remote })},
	run: func(c *env) {
		topic := c.topic()
		c.broadcast(topic)
		s := c.broadcast(topic, c.inOrder())
		n := c.Backlog + 100
		for i := range n { // in step, so that this one is never slow
			c.atOnce("publishing and receiving", func() {
				c.publish(topic, strconv.Itoa(i))
				c.ack(c.expect(s, strconv.Itoa(i)))
			})
		}
	},
}, {
	name:  "overflow/group",
	rule:  "A group whose members are slow keeps its messages, or Publish fails: it never drops them in silence.",
	needs: []need{events, groups, backlog},
	run: func(c *env) {
		topic := c.topic()
		s := c.broadcast(topic, transport.Group("g"), transport.Buffer(4))
		accepted := 0
		for i := range c.Backlog + 100 {
			ctx, cancel := c.patient()
			err := c.Sender.Publish(ctx, &transport.Message{Topic: topic, Body: []byte(strconv.Itoa(i + 1))})
			cancel()
			if err != nil {
				c.code(err, transport.CodeResourceExhausted)
				break
			}
			accepted++
		}
		require.ElementsMatch(c, numbers(1, accepted), c.take(s, accepted))
		c.nothing(s)
	},
}}

// policy subscribes with p, or reports that it is honestly refused.
func (c *env) policy(topic string, p transport.Policy) (transport.Subscription, bool) {
	c.Helper()
	ctx, cancel := c.patient()
	defer cancel()
	s, err := c.Receiver.Subscribe(ctx, topic, transport.Overflow(p), transport.Buffer(4))
	if unsupported(err) {
		return nil, false
	}
	return c.opened(s, err, "Subscribe with Overflow(%v)", p), true
}

// readToEnd acknowledges until the subscription ends, at most n messages, which must be 1, 2 and so on. It returns the
// last one and the error.
func (c *env) readToEnd(s transport.Subscription, n int) (last int, err error) {
	c.Helper()
	for {
		ctx, cancel := c.patient()
		d, err := s.Next(ctx)
		cancel()
		if err != nil {
			require.False(c, errors.Is(err, context.DeadlineExceeded) && c.ctx.Err() == nil, "the subscription neither goes on nor ends, after %d of %d", last, n)
			return last, err
		}
		last++
		require.LessOrEqual(c, last, n)
		require.Equal(c, strconv.Itoa(last), string(d.Body), "no hole before the end")
		c.ack(d)
	}
}
