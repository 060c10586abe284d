package transporttest

import (
	"errors"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var settleCases = []testCase{{
	name:    "settle/ack",
	rule:    "What is acknowledged does not come again, in whatever order that is done.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		c.publish(topic, numbers(1, 10)...)
		var ds []*transport.Delivery
		for range 10 {
			ds = append(ds, c.next(s))
		}
		for i := range ds {
			c.ack(ds[(i*7+3)%10])
		}
		c.nothingFor(s, 5*c.Quiet)
	},
}, {
	name:    "settle/reply",
	rule:    "The reply to an event is dropped; it acknowledges.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		c.publish(topic, "1")
		require.NoError(c, c.next(s).Settle(&transport.Message{Body: []byte("a reply")}, nil))
		c.nothing(s)
	},
}, {
	name:    "settle/attempts",
	rule:    "A retryable error hands the same message out again, as a new Delivery with Attempt 2, 3 and so on.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		c.send(&transport.Message{Topic: topic, ID: "the-id", Header: transport.Header{"k": {"v", "w"}}, Body: []byte("body")})
		var before *transport.Delivery
		for attempt := 1; attempt <= 4; attempt++ {
			d := c.expect(s, "body")
			require.Equal(c, attempt, d.Attempt)
			require.Equal(c, "the-id", d.ID)
			require.Equal(c, topic, d.Topic)
			require.Equal(c, []string{"v", "w"}, d.Header.Values("k"))
			require.NotSame(c, before, d)
			before = d
			c.nack(d, again(time.Millisecond))
		}
		c.ack(c.expect(s, "body"))
		c.nothing(s)
	},
}, {
	name:    "settle/codes",
	rule:    "Retryable errors ask for redelivery, all others refuse for good; an error without a Code is retryable.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		var errs []error
		for code := transport.CodeUnknown; code <= transport.CodeUnauthenticated; code++ {
			errs = append(errs, &transport.Error{Code: code, RetryAfter: time.Millisecond})
		}
		errs = append(errs, fmt.Errorf("wrapped: %w", again(time.Millisecond)),
			fmt.Errorf("wrapped: %w", transport.CodeNotFound), errors.ErrUnsupported, errors.New("plain"), nil)
		for i, err := range errs {
			body := fmt.Sprint(i)
			c.publish(topic, body)
			c.nack(c.expect(s, body), err)
			if err == nil || transport.Retryable(err) { // Nack(nil) never acknowledges
				d := c.expect(s, body)
				require.Equal(c, 2, d.Attempt, "after %v", err)
				c.ack(d)
			} else {
				c.nothing(s)
			}
		}
	},
}, {
	name:    "settle/backoff",
	rule:    "Without RetryAfter redeliveries wait, longer each time: there is no hot loop.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		c.publish(topic, "1")
		start := time.Now()
		for range 3 {
			c.nack(c.expect(s, "1"), transport.CodeUnavailable)
		}
		c.ack(c.expect(s, "1"))
		require.GreaterOrEqual(c, time.Since(start), 60*time.Millisecond, "three redeliveries")
		if c.bubble {
			topic := c.topic()
			s := c.subscribe(topic)
			c.publish(topic, "1")
			var early, late time.Duration
			for i := range 8 {
				start := time.Now()
				c.nack(c.expect(s, "1"), transport.CodeUnavailable)
				c.nack(c.expect(s, "1"), transport.CodeCanceled)
				if i == 0 {
					early = time.Since(start)
				}
				late = time.Since(start)
			}
			require.Greater(c, late, 3*early)
			c.ack(c.next(s))
		}
	},
}, {
	name:    "settle/retry-after",
	rule:    "RetryAfter says when a redelivery comes: not earlier, and soon after.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		c.publish(topic, "1")
		for i, wait := range []time.Duration{20 * time.Millisecond, 400 * time.Millisecond, time.Millisecond} {
			d := c.expect(s, "1")
			start := time.Now()
			c.nack(d, again(wait))
			d = c.next(s)
			require.GreaterOrEqual(c, time.Since(start), wait)
			require.LessOrEqual(c, time.Since(start), wait+c.Latency)
			require.Equal(c, 2*i+2, d.Attempt)
			c.nack(d, again(time.Millisecond))
		}
		c.ack(c.expect(s, "1"))
	},
}, {
	name:    "settle/retries-apart",
	rule:    "Messages that wait for redelivery wait apart: each comes when it is due.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		c.publish(topic, "slow", "fast", "middle")
		waits := map[string]time.Duration{"slow": 900 * time.Millisecond, "fast": 10 * time.Millisecond, "middle": 450 * time.Millisecond}
		for _, d := range []*transport.Delivery{c.next(s), c.next(s), c.next(s)} { // all, before the first is due again
			c.nack(d, again(waits[string(d.Body)]))
		}
		require.Equal(c, []string{"fast", "middle", "slow"}, c.take(s, 3))
	},
}, {
	name:    "settle/give-back",
	rule:    "CodeCanceled gives a message back at once, and the attempt does not count.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic, transport.MaxAttempts(2))
		c.publish(topic, "1")
		c.atOnce("getting it back 10 times", func() {
			for range 10 {
				d := c.expect(s, "1")
				require.Equal(c, 1, d.Attempt)
				c.nack(d, transport.Errorf(transport.CodeCanceled, "not now"))
			}
		})
		c.nack(c.expect(s, "1"), again(time.Millisecond))
		d := c.expect(s, "1")
		require.Equal(c, 2, d.Attempt)
		c.nack(d, transport.CodeCanceled)
		d = c.expect(s, "1")
		require.Equal(c, 2, d.Attempt)
		c.ack(d)
	},
}, {
	name:    "settle/max-attempts",
	rule:    "After MaxAttempts deliveries, 10 unless demanded otherwise, a message counts as refused.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		for _, n := range []int{1, 3, transport.DefaultMaxAttempts} {
			topic := c.topic()
			opts := []transport.SubscribeOption{transport.MaxAttempts(n)}
			if n == transport.DefaultMaxAttempts {
				opts = nil
			}
			s := c.subscribe(topic, opts...)
			c.publish(topic, "1")
			for attempt := 1; attempt <= n; attempt++ {
				d := c.expect(s, "1")
				require.Equal(c, attempt, d.Attempt)
				c.nack(d, again(time.Millisecond))
			}
			c.nothing(s)
			c.publish(topic, "2")
			c.ack(c.expect(s, "2"))
		}
	},
}, {
	name:    "settle/twice",
	rule:    "The first settling counts; later ones do nothing and return nil.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		c.publish(topic, "1", "2", "3")
		one, two, three := c.next(s), c.next(s), c.next(s)
		c.ack(one)
		c.nack(one, again(0))
		c.nack(one, transport.CodeCanceled)
		c.ack(one)
		c.nack(two, again(time.Millisecond))
		c.ack(two)
		d := c.expect(s, string(two.Body))
		c.ack(two) // of the old one, not of the new one
		c.nothing(s)
		c.nack(d, transport.CodeCanceled)
		c.ack(c.expect(s, string(two.Body)))
		c.ack(three)
		c.nothing(s)
	},
}, {
	name:    "settle/concurrently",
	rule:    "Settle is safe for concurrent use: one of many counts, and others' deliveries are not touched.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		const n = 40
		topic := c.topic()
		s := c.subscribe(topic)
		c.publish(topic, numbers(1, n)...)
		var done []<-chan error
		for range n {
			d := c.next(s)
			for range 3 {
				done = append(done, async(d.Ack))
			}
		}
		for _, ch := range done {
			require.NoError(c, await(c, ch, "Ack"))
		}
		c.nothing(s)
		c.publish(topic, "after")
		c.ack(c.expect(s, "after"))
	},
}, {
	name:    "settle/buffer-kept",
	rule:    "Retries, refusals and what is given back leave room behind: a subscription never runs dry.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic, transport.Buffer(2))
		for i := range 12 {
			body := fmt.Sprint(i)
			c.publish(topic, body)
			c.nack(c.expect(s, body), again(time.Millisecond))
			c.nack(c.expect(s, body), transport.CodeCanceled)
			if d := c.expect(s, body); i%2 == 0 {
				c.nack(d, transport.CodeInvalidArgument)
			} else {
				c.ack(d)
			}
		}
		c.nothing(s)
	},
}}
