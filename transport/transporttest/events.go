package transporttest

import (
	"fmt"
	"io"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var eventCases = []testCase{{
	name:    "events/live",
	rule:    "Subscribe returns once the subscription is active: what is published right after it is seen.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		for range 20 {
			topic := c.topic()
			s := c.subscribe(topic)
			c.publish(topic, "at once")
			c.ack(c.expect(s, "at once"))
			require.NoError(c, s.Close())
		}
	},
}, {
	name:    "events/every",
	rule:    "Every message arrives, and arrives once.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		const n = 400
		topic := c.topic()
		s := c.subscribe(topic)
		got := async(func() []string { return c.take(s, n) })
		c.publish(topic, numbers(1, n)...)
		require.ElementsMatch(c, numbers(1, n), await(c, got, "the reader"))
		c.nothing(s)
	},
}, {
	name:    "events/publishers",
	rule:    "Publish is safe for concurrent use: what many publish at once arrives once.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		const publishers, each = 8, 25
		topic := c.topic()
		s := c.subscribe(topic)
		var want []string
		for p := range publishers {
			for i := range each {
				want = append(want, fmt.Sprint(p, " ", i))
			}
			defer await(c, async(func() bool {
				for i := range each {
					c.publish(topic, fmt.Sprint(p, " ", i))
				}
				return true
			}), "a publisher")
		}
		require.ElementsMatch(c, want, c.take(s, len(want)))
		c.nothing(s)
	},
}, {
	name:  "events/fan-out",
	rule:  "Every subscription gets every message once; one that has ended or is slow keeps none from the others.",
	needs: []need{events},
	run: func(c *env) {
		topic := c.topic()
		idle := c.broadcast(topic) // never reads
		gone := c.broadcast(topic)
		var subs []transport.Subscription
		for range 5 {
			subs = append(subs, c.broadcast(topic))
		}
		require.NoError(c, gone.Close())
		c.publish(topic, numbers(1, 20)...)
		for _, s := range subs {
			require.ElementsMatch(c, numbers(1, 20), c.take(s, 20))
			c.nothing(s)
		}
		c.next(idle)
	},
}, {
	name:  "events/nobody",
	rule:  "Publish with nobody listening is nil, and concerns nobody who comes later.",
	needs: []need{events},
	run: func(c *env) {
		topic := c.topic()
		c.publish(topic, "unheard")
		c.calm()
		s := c.broadcast(topic)
		c.nothing(s)
		c.publish(topic, "heard")
		c.ack(c.expect(s, "heard"))
		require.NoError(c, s.Close())
		c.publish(topic, "unheard again")
		c.calm()
		c.nothing(c.broadcast(topic))
	},
}, {
	name:    "events/topics",
	rule:    "Topics are not mixed up, however they are written; there are no wildcards, prefixes or letter case.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		base := c.topic()
		topics := append(similar(base), base)
		subs := make([]transport.Subscription, len(topics))
		for i, topic := range topics {
			subs[i] = c.subscribe(topic)
		}
		for _, topic := range topics {
			c.publish(topic, topic)
		}
		for i, topic := range topics {
			d := c.expect(subs[i], topic)
			require.Equal(c, topic, d.Topic)
			c.ack(d)
		}
		for _, s := range subs {
			c.nothingFor(s, c.Quiet/10)
		}
	},
}, {
	name:    "events/no-ghosts",
	rule:    "What comes out of Next was published: no empty message when others come and go, or at the end.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		for range 3 {
			other := c.subscribe(topic)
			c.nothingFor(other, c.Quiet/10)
			require.NoError(c, other.Close())
		}
		c.nothing(s)
		c.publish(topic, "real")
		c.ack(c.expect(s, "real"))
		end := async(func() error { _, err := s.Next(c.ctx); return err })
		pending(c, end, "Next without a message")
		require.NoError(c, s.Close())
		require.Equal(c, io.EOF, await(c, end, "Next after Close"))
	},
}, {
	name:    "events/idle",
	rule:    "After a long silence a message arrives as soon as ever.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		silence := 4 * c.Quiet
		if c.bubble {
			silence = 5*time.Minute + 7*time.Second
		}
		for i := range 3 {
			body := fmt.Sprint(i)
			d := async(func() *transport.Delivery { d, _ := s.Next(c.ctx); return d })
			time.Sleep(silence / time.Duration(i+1))
			c.atOnce("the arrival", func() {
				c.publish(topic, body)
				d := await(c, d, "the message")
				require.NotNil(c, d)
				require.Equal(c, body, string(d.Body))
				c.ack(d)
			})
		}
	},
}, {
	name:    "events/first",
	rule:    "The first delivery of a message says Attempt 1 and Missed 0, and its context is the parent.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		c.publish(topic, "a", "b")
		for range 2 {
			d := c.next(s)
			require.Equal(c, 1, d.Attempt)
			require.Zero(c, d.Missed)
			ctx, cancel := d.Context(c.ctx)
			require.Equal(c, c.ctx, ctx)
			cancel()
			require.NoError(c, c.ctx.Err(), "the cancel function of an event does nothing")
			c.ack(d)
		}
	},
}}

// similar returns legal topics that careless escaping, folding or matching takes for base, or for each other.
func similar(base string) []string {
	var topics []string
	for _, suffix := range []string{".x", ".X", ".x.y", ".x/y", ".x%2Fy", ".x y", ".x+y", ".x%20y", ".x_y", ".x-y", ".x*",
		".x#", ".x?", ".x&y", ".x:y", ".ä", ".a\u0308", ".%C3%A4", ".x\\y", ".x\"y", ".xy", " "} {
		topics = append(topics, base+suffix)
	}
	return topics
}
