package transporttest

import (
	"context"
	"io"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var closingCases = []testCase{{
	name:    "closing/next",
	rule:    "Close ends every Next that waits with io.EOF, and every later one.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		var waiting []<-chan error
		for range 4 {
			waiting = append(waiting, async(func() error { _, err := s.Next(c.ctx); return err }))
		}
		pending(c, waiting[0], "Next without a message")
		c.atOnce("Close", func() {
			require.NoError(c, await(c, async(s.Close), "Close"))
			for _, w := range waiting {
				require.Equal(c, io.EOF, await(c, w, "Next after Close"))
			}
		})
		c.publish(topic, "unseen")
		for range 3 {
			_, err := s.Next(c.ctx)
			require.Equal(c, io.EOF, err, "io.EOF stays")
		}
	},
}, {
	name:    "closing/twice",
	rule:    "Close twice, or many times at once, is safe and without error.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		c.publish(topic, numbers(1, 5)...)
		c.next(s)
		var done []<-chan error
		for range 8 {
			done = append(done, async(s.Close))
		}
		for _, d := range done {
			require.NoError(c, await(c, d, "Close"))
		}
		require.NoError(c, await(c, async(s.Close), "Close"))
	},
}, {
	name:    "closing/does-not-wait",
	rule:    "Close does not wait for deliveries that are out; they can be settled after it.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		c.publish(topic, numbers(1, 4)...)
		ds := []*transport.Delivery{c.next(s), c.next(s), c.next(s)}
		c.atOnce("Close", func() { require.NoError(c, await(c, async(s.Close), "Close with deliveries out")) })
		c.ack(ds[0])
		c.nack(ds[1], transport.CodeInvalidArgument)
		c.nack(ds[2], again(time.Millisecond))
		c.ack(ds[0])
		_, err := s.Next(c.ctx)
		require.Equal(c, io.EOF, err, "nothing comes out of a closed subscription")
	},
}, {
	name:    "closing/while-waiting",
	rule:    "Close while messages wait for redelivery, or for room, is safe.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic, transport.Buffer(2))
		c.publish(topic, numbers(1, 5)...)
		c.nack(c.next(s), again(20*time.Millisecond))
		c.next(s)
		waiting := async(func() error { _, err := s.Next(c.ctx); return err })
		require.NoError(c, await(c, async(s.Close), "Close"))
		if err := await(c, waiting, "Next"); err != nil {
			require.Equal(c, io.EOF, err)
		}
		time.Sleep(30 * time.Millisecond)
		_, err := s.Next(c.ctx)
		require.Equal(c, io.EOF, err)
	},
}, {
	name:  "closing/others",
	rule:  "Closing one subscription does not touch the others.",
	needs: []need{events},
	run: func(c *env) {
		topic := c.topic()
		keep := c.broadcast(topic)
		for range 10 {
			s := c.broadcast(topic)
			c.publish(topic, "1")
			require.NoError(c, s.Close())
			c.ack(c.expect(keep, "1"))
		}
		c.nothing(keep)
	},
}, {
	name:    "closing/racing",
	rule:    "Close while others publish, take and settle neither hangs nor panics.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		ctx, cancel := context.WithCancel(c.ctx)
		defer cancel()
		publisher := async(func() bool {
			for ctx.Err() == nil {
				c.Sender.Publish(ctx, &transport.Message{Topic: topic})
				time.Sleep(100 * time.Microsecond)
			}
			return true
		})
		for range 20 {
			s := c.subscribe(topic)
			reader := async(func() error {
				for {
					d, err := s.Next(c.ctx)
					if err != nil {
						return err
					}
					d.Ack()
				}
			})
			time.Sleep(time.Millisecond)
			require.NoError(c, await(c, async(s.Close), "Close"))
			require.Equal(c, io.EOF, await(c, reader, "the reader"))
		}
		cancel()
		await(c, publisher, "the publisher")
	},
}}
