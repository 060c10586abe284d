package transporttest

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var contextCases = []testCase{{
	name: "contexts/ended",
	rule: "With a ctx that has ended every verb returns its error at once, and harms nothing.",
	run: func(c *env) {
		cancelled, cancel := context.WithCancel(c.ctx)
		cancel()
		expired, cancel := context.WithDeadline(c.ctx, time.Now().Add(-time.Second))
		defer cancel()
		for _, ctx := range []context.Context{cancelled, expired} {
			c.eachVerb(ctx, c.topic(), func(op transport.Op, err error) {
				require.Error(c, err, "%s with a ctx that has ended", op)
				if op == transport.OpOpen { // which may say so at the first Recv, as the stream's status
					require.Equal(c, transport.CodeOf(ctx.Err()), transport.CodeOf(err), "%s: %v", op, err)
				} else {
					require.ErrorIs(c, err, ctx.Err(), "%s returns the error of its ctx", op)
				}
			})
		}
		c.works()
	},
}, {
	name:    "contexts/publish",
	rule:    "A Publish whose ctx has ended publishes nothing.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		ctx, cancel := context.WithCancel(c.ctx)
		cancel()
		require.ErrorIs(c, c.Sender.Publish(ctx, &transport.Message{Topic: topic, Body: []byte("no")}), context.Canceled)
		for _, err := range transport.PublishAll(ctx, c.Sender, &transport.Message{Topic: topic}, &transport.Message{Topic: topic}) {
			require.ErrorIs(c, err, context.Canceled)
		}
		c.publish(topic, "yes")
		c.ack(c.expect(s, "yes"))
		c.nothing(s)
	},
}, {
	name:    "contexts/next",
	rule:    "Next returns its ctx's own error when that ends, and can be called again: nothing is lost in between.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic)
		for i := range 10 {
			ctx, cancel := context.WithCancel(c.ctx)
			waiting := async(func() error { _, err := s.Next(ctx); return err })
			if i%2 == 0 {
				time.Sleep(time.Millisecond)
			}
			cancel()
			c.atOnce("the end of Next", func() {
				require.ErrorIs(c, await(c, waiting, "Next after the end of its ctx"), context.Canceled)
			})
			_, err := s.Next(ctx)
			require.ErrorIs(c, err, context.Canceled)
			c.publish(topic, "here")
			c.ack(c.expect(s, "here"))
		}
		c.nothing(s)
	},
}, {
	name:    "contexts/next-races",
	rule:    "A message that arrives while Next's ctx ends is handed out or stays for the next Next.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		const n = 60
		topic := c.topic()
		s := c.subscribe(topic, c.inOrder())
		var got []string
		for _, body := range numbers(1, n) {
			ctx, cancel := context.WithCancel(c.ctx)
			d := async(func() *transport.Delivery { d, _ := s.Next(ctx); return d })
			published := async(func() bool { c.publish(topic, body); return true })
			cancel()
			await(c, published, "Publish")
			if d := await(c, d, "Next"); d != nil {
				got = append(got, string(d.Body))
				c.ack(d)
			}
		}
		c.same(numbers(1, n), append(got, c.take(s, n-len(got))...))
		c.nothing(s)
	},
}, {
	name: "contexts/of-subscribe",
	rule: "The ctx of Subscribe, Respond and Accept bounds that call only, not what it returns.",
	run: func(c *env) {
		topic := c.topic()
		ctx, cancel := context.WithCancel(c.ctx)
		defer cancel()
		var sub, resp transport.Subscription
		var l transport.Listener
		var err error
		if c.has(transport.OpSubscribe) {
			sub, err = c.Receiver.Subscribe(ctx, topic)
			c.opened(sub, err, "Subscribe")
		}
		if c.has(transport.OpRespond) {
			resp, err = c.Receiver.Respond(ctx, topic)
			c.opened(resp, err, "Respond")
		}
		if c.has(transport.OpAccept) {
			l, err = c.Receiver.Accept(ctx, topic)
			require.NoError(c, err)
			defer l.Close()
		}
		cancel()
		time.Sleep(c.Quiet)
		if sub != nil && c.has(transport.OpPublish) {
			c.publish(topic, "event")
			c.ack(c.expect(sub, "event"))
		}
		if resp != nil && c.has(transport.OpCall) {
			reply := async(func() *transport.Message { return c.call(topic, "call") })
			c.reply(c.expect(resp, "call"), "reply")
			require.Equal(c, "reply", string(await(c, reply, "the call").Body))
		}
		if l != nil && c.has(transport.OpOpen) {
			s := c.open(c.ctx, topic, nil)
			in := c.incoming(l)
			c.put(s.Send, "item")
			require.Equal(c, "item", c.item(in.Recv))
		}
	},
}, {
	name: "contexts/one-of-many",
	rule: "A ctx that ends one operation never breaks another, or the connection.",
	run: func(c *env) {
		topic := c.topic()
		ctx, cancel := context.WithCancel(c.ctx)
		defer cancel()
		var victims []<-chan error
		if c.has(transport.OpCall) && c.has(transport.OpRespond) {
			s := c.respond(topic)
			victims = append(victims, async(func() error { _, err := c.Sender.Call(ctx, &transport.Message{Topic: topic}); return err }))
			c.next(s)
			slow := c.calling(c.ctx, topic, "slow")
			d := c.expect(s, "slow")
			defer func() {
				c.reply(d, "still")
				require.NoError(c, await(c, slow, "the other call").err)
			}()
		}
		if c.has(transport.OpSubscribe) {
			s := c.broadcast(topic)
			victims = append(victims, async(func() error { _, err := s.Next(ctx); return err }))
		}
		if c.has(transport.OpOpen) && c.has(transport.OpAccept) {
			l := c.accept(topic)
			s := c.open(ctx, topic, nil)
			c.incoming(l)
			victims = append(victims, async(func() error { _, err := s.Recv(); return err }))
			other, in := c.stream()
			defer func() {
				c.put(other.Send, "on")
				require.Equal(c, "on", c.item(in.Recv))
			}()
		}
		for _, v := range victims {
			pending(c, v, "an operation")
		}
		cancel()
		for _, v := range victims {
			require.Equal(c, transport.CodeCanceled, transport.CodeOf(await(c, v, "an operation whose ctx ended")))
		}
		c.calm() // so that harm shows
		c.works()
	},
}, {
	name:  "contexts/values",
	rule:  "The values of a ctx do not cross, and a delivery outlives the ctx of the Next that returned it.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		s := c.respond(topic)
		r := c.calling(c.ctx, topic, "")
		ctx, cancel := c.patient()
		d, err := s.Next(ctx)
		require.NoError(c, err)
		cancel()
		dctx, done := d.Context(c.ctx)
		defer done()
		require.NoError(c, dctx.Err())
		c.ack(d)
		require.NoError(c, await(c, r, "the call").err)
	},
}}

// works checks that what is offered still works.
func (c *env) works() {
	c.Helper()
	topic := c.topic()
	if c.has(transport.OpPublish) && c.has(transport.OpSubscribe) {
		s := c.broadcast(topic)
		c.publish(topic, "event")
		c.ack(c.expect(s, "event"))
	}
	if c.has(transport.OpCall) && c.has(transport.OpRespond) {
		c.echo(topic)
		require.Equal(c, "call", string(c.call(topic, "call").Body))
	}
	if c.has(transport.OpOpen) && c.has(transport.OpAccept) {
		s, in := c.stream()
		c.put(s.Send, "item")
		require.Equal(c, "item", c.item(in.Recv))
		require.NoError(c, in.End(nil))
		c.items(s.Recv)
	}
}
