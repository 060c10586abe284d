package transporttest

import (
	"context"
	"fmt"
	"io"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var batchCases = []testCase{{
	name:    "batches/publish",
	rule:    "PublishAll has one result for each message, and what it accepted arrives, in order where that is offered.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		const n = 150
		topic := c.topic()
		s := c.subscribe(topic, c.inOrder())
		got := async(func() []string { return c.take(s, n) })
		var ms []*transport.Message
		for _, body := range numbers(1, n) {
			ms = append(ms, &transport.Message{Topic: topic, Body: []byte(body)})
		}
		ctx, cancel := c.patient()
		defer cancel()
		require.Equal(c, make([]error, n), transport.PublishAll(ctx, c.Sender, ms...))
		c.same(numbers(1, n), await(c, got, "the reader"))
		require.Empty(c, transport.PublishAll(ctx, c.Sender))
	},
}, {
	name:  "batches/bad-ones",
	rule:  "A bad message in a batch is refused alone; each topic gets its own.",
	needs: []need{events},
	run: func(c *env) {
		a, b := c.topic(), c.topic()
		sa, sb := c.broadcast(a), c.broadcast(b)
		ms := []*transport.Message{
			{Topic: a, Body: []byte("1")},
			{Topic: "a..b"},
			{Topic: b, Body: []byte("1")},
			{Topic: a, Body: make([]byte, c.MaxBytes+1)},
			nil,
			{Topic: a, Body: []byte("2")},
			{Topic: a, Header: transport.Header{"Bad": {"v"}}},
			{Topic: b, Body: []byte("2")},
		}
		ctx, cancel := c.patient()
		defer cancel()
		errs := transport.PublishAll(ctx, c.Sender, ms...)
		require.Len(c, errs, len(ms))
		for i, want := range []transport.Code{0, transport.CodeInvalidArgument, 0, transport.CodeResourceExhausted,
			transport.CodeInvalidArgument, 0, transport.CodeInvalidArgument, 0} {
			require.Equal(c, want, transport.CodeOf(errs[i]), "message %d: %v", i, errs[i])
		}
		require.ElementsMatch(c, numbers(1, 2), c.take(sa, 2))
		require.ElementsMatch(c, numbers(1, 2), c.take(sb, 2))
		c.nothing(sa)
		c.nothing(sb)
	},
}, {
	name:    "batches/next",
	rule:    "NextAll waits for one delivery, hands out each message once, and no more than asked for.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		const n = 30
		topic := c.topic()
		s := c.subscribe(topic)
		c.publish(topic, numbers(1, n)...)
		var got []string
		dst := make([]*transport.Delivery, 7)
		for len(got) < n {
			ctx, cancel := c.patient()
			k, err := transport.NextAll(ctx, s, dst)
			cancel()
			require.NoError(c, err)
			require.Positive(c, k)
			require.LessOrEqual(c, k, len(dst))
			for _, d := range dst[:k] {
				require.NotNil(c, d)
				got = append(got, string(d.Body))
				c.ack(d)
			}
		}
		require.ElementsMatch(c, numbers(1, n), got)
		ctx, cancel := context.WithTimeout(c.ctx, c.Quiet)
		defer cancel()
		k, err := transport.NextAll(ctx, s, dst)
		require.Zero(c, k)
		require.ErrorIs(c, err, context.DeadlineExceeded)
		_, err = transport.NextAll(c.ctx, s, nil)
		c.code(err, transport.CodeInvalidArgument)
	},
}, {
	name:    "batches/buffer",
	rule:    "NextAll hands out no more than Buffer allows, and under Require(Ordered) one.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		for limit, opt := range map[int]transport.SubscribeOption{4: transport.Buffer(4), 1: c.inOrder()} {
			if limit == 1 && !c.offers(transport.Ordered) {
				continue
			}
			topic := c.topic()
			s := c.subscribe(topic, opt)
			c.publish(topic, numbers(1, 10)...)
			dst := make([]*transport.Delivery, 10)
			out := 0
			for out < limit {
				ctx, cancel := c.patient()
				k, err := transport.NextAll(ctx, s, dst[out:])
				cancel()
				require.NoError(c, err)
				out += k
			}
			require.Equal(c, limit, out, "%s", fmt.Sprint("the limit is ", limit))
			c.nothing(s)
			for _, d := range dst[:out] {
				c.ack(d)
			}
			c.take(s, 10-limit)
		}
	},
}, {
	name:    "batches/end",
	rule:    "NextAll ends as Next does.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		s := c.subscribe(c.topic())
		end := async(func() error {
			_, err := transport.NextAll(c.ctx, s, make([]*transport.Delivery, 3))
			return err
		})
		pending(c, end, "NextAll without a message")
		require.NoError(c, s.Close())
		require.Equal(c, io.EOF, await(c, end, "NextAll after Close"))
	},
}}
