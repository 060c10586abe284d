package transporttest

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var canCancel = when("(a cancellation that reaches the responder)", func(f *Fixture) bool { return !f.NoCancel })

var callCases = []testCase{{
	name:  "calls/reply",
	rule:  "A call reaches a responder as it was sent, and the reply comes back as it was given.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		s := c.respond(topic)
		reply := async(func() *transport.Message {
			return c.request(&transport.Message{Topic: topic, ID: "the-id", Header: transport.Header{"content-type": {"text/x"}, "k": {"v"}}, Body: []byte("ping")})
		})
		d := c.expect(s, "ping")
		require.Equal(c, topic, d.Topic)
		require.Equal(c, "the-id", d.ID)
		c.sameHeader(transport.Header{"content-type": {"text/x"}, "k": {"v"}}, d.Header)
		require.Empty(c, d.Cursor())
		require.NoError(c, d.Settle(&transport.Message{Header: transport.Header{"content-type": {"text/y"}, "l": {"w"}}, Body: []byte("pong")}, nil))
		r := await(c, reply, "the call")
		require.Equal(c, "pong", string(r.Body))
		c.sameHeader(transport.Header{"content-type": {"text/y"}, "l": {"w"}}, r.Header)
	},
}, {
	name:  "calls/live",
	rule:  "Respond returns once calls are taken: one right after it is answered.",
	needs: []need{calls},
	run: func(c *env) {
		for range 10 {
			topic := c.topic()
			c.echo(topic)
			require.Equal(c, "now", string(c.call(topic, "now").Body))
		}
	},
}, {
	name:  "calls/empty-reply",
	rule:  "A nil reply arrives as an empty Message, not as nil.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		s := c.respond(topic)
		for _, settle := range []func(*transport.Delivery) error{
			(*transport.Delivery).Ack,
			func(d *transport.Delivery) error { return d.Settle(&transport.Message{}, nil) },
		} {
			reply := async(func() *transport.Message { return c.call(topic, "") })
			require.NoError(c, settle(c.next(s)))
			r := await(c, reply, "the call")
			require.Empty(c, r.Body)
			require.Empty(c, r.Header)
		}
	},
}, {
	name:  "calls/concurrent",
	rule:  "Each of many calls at once gets its own reply, in whatever order they are settled.",
	needs: []need{calls},
	run: func(c *env) {
		const n = 40
		topic := c.topic()
		s := c.respond(topic)
		for range 3 {
			var replies []<-chan *transport.Message
			for i := range n {
				replies = append(replies, async(func() *transport.Message { return c.call(topic, strconv.Itoa(i)) }))
			}
			var out []*transport.Delivery
			for range n {
				out = append(out, c.next(s))
			}
			for i := range out {
				d := out[(i*17+5)%n]
				c.reply(d, "re "+string(d.Body))
			}
			for i, r := range replies {
				require.Equal(c, fmt.Sprint("re ", i), string(await(c, r, "a call").Body))
			}
		}
	},
}, {
	name:  "calls/no-responder",
	rule:  "A call that nobody responds to fails at once with Unavailable or Unimplemented.",
	needs: []need{calls, when("(knowing that nobody responds)", func(f *Fixture) bool { return !f.Blind })},
	run: func(c *env) {
		topic := c.topic()
		c.unanswered(topic)
		s := c.respond(topic)
		reply := async(func() *transport.Message { return c.call(topic, "1") })
		c.ack(c.next(s))
		await(c, reply, "the call")
		require.NoError(c, s.Close())
		c.unanswered(topic)
		c.echo(topic)
		require.Equal(c, "2", string(c.call(topic, "2").Body))
	},
}, {
	name:  "calls/one-responder",
	rule:  "Each call goes to one responder.",
	needs: []need{calls},
	run: func(c *env) {
		const n = 60
		topic := c.topic()
		seen := make(chan string, 2*n)
		for range 3 {
			c.serve(c.respond(topic, transport.Buffer(2)), collect(seen), transport.Workers(2))
		}
		var replies []<-chan *transport.Message
		for i := range n {
			replies = append(replies, async(func() *transport.Message { return c.call(topic, strconv.Itoa(i+1)) }))
		}
		for _, r := range replies {
			await(c, r, "a call")
		}
		c.calm()
		require.Len(c, seen, n)
		var got []string
		for range n {
			got = append(got, <-seen)
		}
		require.ElementsMatch(c, numbers(1, n), got)
	},
}, {
	name:  "calls/topics",
	rule:  "Calls of different topics are not mixed up, nor are calls and events of one topic.",
	needs: []need{calls},
	run: func(c *env) {
		base := c.topic()
		topics := append(similar(base), base)
		for _, topic := range topics {
			c.serve(c.respond(topic), func(_ context.Context, m *transport.Message) (*transport.Message, error) {
				return &transport.Message{Body: []byte(topic + "|" + m.Topic)}, nil
			})
		}
		for _, topic := range topics {
			require.Equal(c, topic+"|"+topic, string(c.call(topic, "").Body))
		}
	},
}, {
	name:  "calls/not-events",
	rule:  "A responder gets no events, a subscriber no calls.",
	needs: []need{calls, events},
	run: func(c *env) {
		topic := c.topic()
		s, r := c.broadcast(topic), c.respond(topic)
		c.publish(topic, "event")
		c.ack(c.expect(s, "event"))
		reply := async(func() *transport.Message { return c.call(topic, "call") })
		c.reply(c.expect(r, "call"), "reply")
		require.Equal(c, "reply", string(await(c, reply, "the call").Body))
		c.nothing(s)
		c.nothing(r)
	},
}, {
	name:  "calls/given-up",
	rule:  "When its ctx ends Call returns the ctx's error at once; a late reply harms nothing.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		s := c.respond(topic)
		for range 3 {
			ctx, cancel := context.WithCancel(c.ctx)
			r := c.calling(ctx, topic, "given up")
			d := c.expect(s, "given up")
			cancel()
			c.atOnce("the end of Call", func() {
				require.ErrorIs(c, await(c, r, "Call after the end of its ctx").err, context.Canceled)
			})
			d.Settle(&transport.Message{Body: []byte("late")}, nil) // an error says that nobody waits
			c.ack(d)                                                // a second time, so nothing
			next := async(func() *transport.Message { return c.call(topic, "next") })
			c.reply(c.expect(s, "next"), "in time")
			require.Equal(c, "in time", string(await(c, next, "the next call").Body))
		}
		ctx, cancel := context.WithTimeout(c.ctx, c.Quiet)
		defer cancel()
		_, err := c.Sender.Call(ctx, &transport.Message{Topic: topic})
		require.ErrorIs(c, err, context.DeadlineExceeded)
	},
}, {
	name:  "calls/first-reply",
	rule:  "The first settling of a call replies, later ones do nothing.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		s := c.respond(topic)
		for i := range 5 {
			reply := async(func() *transport.Message { return c.call(topic, "") })
			d := c.next(s)
			c.reply(d, fmt.Sprint("first ", i))
			c.reply(d, "second")
			c.nack(d, transport.CodeInternal)
			require.Equal(c, fmt.Sprint("first ", i), string(await(c, reply, "the call").Body))
		}
	},
}, {
	name:  "calls/no-redelivery",
	rule:  "A call is never redelivered: whatever the error, it is the reply.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		s := c.respond(topic)
		for _, code := range []transport.Code{transport.CodeUnavailable, transport.CodeAborted, transport.CodeUnknown, transport.CodeCanceled} {
			r := c.calling(c.ctx, topic, "")
			d := c.next(s)
			require.LessOrEqual(c, d.Attempt, 1)
			c.nack(d, &transport.Error{Code: code, RetryAfter: time.Millisecond})
			c.code(await(c, r, "the call").err, code)
			c.nothing(s)
		}
	},
}, {
	name:  "calls/responder-closes",
	rule:  "When a responder closes, calls that it has not handed out fail or go to another; those that are out can be settled.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		s := c.respond(topic, transport.Buffer(1))
		first := c.calling(c.ctx, topic, "first")
		d := c.expect(s, "first")
		waiting := c.calling(c.bounded(), topic, "waiting")
		time.Sleep(c.Quiet / 5) // so that it waits
		require.NoError(c, s.Close())
		r := await(c, waiting, "the call that waited when the responder closed")
		require.Error(c, r.err)
		c.reply(d, "done")
		r = await(c, first, "the call that was out")
		require.NoError(c, r.err)
		require.Equal(c, "done", string(r.reply.Body))
		c.echo(topic)
		require.Equal(c, "x", string(c.call(topic, "x").Body))
	},
}, {
	name:  "calls/close-hands-over",
	rule:  "Calls that a closing responder has not handed out go to the responders that are left, or fail; none hangs.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		s := c.respond(topic, transport.Buffer(1))
		c.echo(topic)
		var replies []<-chan result
		for i := range 20 {
			replies = append(replies, c.calling(c.ctx, topic, strconv.Itoa(i)))
		}
		d := c.maybe(s)
		require.NoError(c, s.Close())
		if d != nil {
			c.reply(d, string(d.Body))
		}
		for i, r := range replies {
			if r := await(c, r, "a call"); r.err == nil {
				require.Equal(c, strconv.Itoa(i), string(r.reply.Body))
			}
		}
	},
}, {
	name:  "calls/deadline",
	rule:  "The deadline of a call reaches the responder's context.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		s := c.respond(topic)
		for _, limit := range []time.Duration{c.Patience, time.Hour} {
			ctx, cancel := context.WithTimeout(c.ctx, limit)
			sent := time.Now()
			r := c.calling(ctx, topic, "")
			d := c.next(s)
			dctx, done := d.Context(c.ctx)
			deadline, ok := dctx.Deadline()
			require.True(c, ok, "the responder's context has no deadline")
			require.WithinDuration(c, sent.Add(limit), deadline, c.Latency)
			done()
			c.ack(d)
			require.NoError(c, await(c, r, "the call").err)
			cancel()
		}
	},
}, {
	name:  "calls/deadline-passes",
	rule:  "When a call's deadline passes, the responder's context ends.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		s := c.respond(topic)
		ctx, cancel := context.WithTimeout(c.ctx, min(c.Latency/2, time.Second)) // in which it must arrive
		defer cancel()
		r := c.calling(ctx, topic, "")
		d := c.next(s)
		dctx, done := d.Context(c.ctx)
		defer done()
		await(c, dctx.Done(), "the responder's context")
		require.ErrorIs(c, await(c, r, "the call").err, context.DeadlineExceeded)
	},
}, {
	name:  "calls/expired",
	rule:  "A call that expired before a responder took it is dropped unseen.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		s := c.respond(topic, transport.Buffer(1))
		first := c.calling(c.ctx, topic, "first")
		d := c.expect(s, "first")
		ctx, cancel := context.WithTimeout(c.ctx, c.Quiet)
		defer cancel()
		require.ErrorIs(c, await(c, c.calling(ctx, topic, "expired"), "the call").err, context.DeadlineExceeded)
		c.calm() // the news may be slower than the reply, on another connection
		c.reply(d, "")
		require.NoError(c, await(c, first, "the first call").err)
		time.Sleep(c.Quiet / 5)
		third := c.calling(c.ctx, topic, "third")
		c.ack(c.expect(s, "third"))
		require.NoError(c, await(c, third, "the third call").err)
	},
}, {
	name:  "calls/cancel",
	rule:  "Cancelling a call ends the responder's context, and not those of other calls.",
	needs: []need{calls, canCancel},
	run: func(c *env) {
		topic := c.topic()
		s := c.respond(topic)
		ctx, cancel := context.WithCancel(c.ctx)
		defer cancel()
		cancelled := c.calling(ctx, topic, "cancelled")
		d := c.expect(s, "cancelled")
		other := c.calling(c.ctx, topic, "other")
		o := c.expect(s, "other")
		dctx, done := d.Context(c.ctx)
		defer done()
		octx, odone := o.Context(c.ctx)
		defer odone()
		require.NoError(c, dctx.Err())
		cancel()
		c.atOnce("the cancellation at the responder", func() { await(c, dctx.Done(), "the responder's context") })
		require.ErrorIs(c, await(c, cancelled, "the call").err, context.Canceled)
		pending(c, octx.Done(), "the context of the other call")
		c.ack(o)
		require.NoError(c, await(c, other, "the other call").err)
	},
}, {
	name:  "calls/parent",
	rule:  "A call's context is a child of the parent that is given: it has its values and ends with it.",
	needs: []need{calls},
	run: func(c *env) {
		type key struct{}
		topic := c.topic()
		s := c.respond(topic)
		r := c.calling(c.ctx, topic, "")
		d := c.next(s)
		parent, cancel := context.WithCancel(context.WithValue(c.ctx, key{}, "value"))
		ctx, done := d.Context(parent)
		require.Equal(c, "value", ctx.Value(key{}))
		cancel()
		await(c, ctx.Done(), "the context")
		done()
		c.ack(d)
		require.NoError(c, await(c, r, "the call").err)
	},
}, {
	name:  "calls/contexts",
	rule:  "Context may be asked for more than once: each ends with its own parent and its own cancel function.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		s := c.respond(topic)
		r := c.calling(c.ctx, topic, "")
		d := c.next(s)
		first, done := d.Context(c.ctx)
		second, secondDone := d.Context(c.ctx)
		require.NoError(c, first.Err())
		done()
		await(c, first.Done(), "the context after its cancel function")
		require.NoError(c, second.Err(), "the other context")
		secondDone()
		await(c, second.Done(), "the context after its cancel function")
		c.ack(d)
		require.NoError(c, await(c, r, "the call").err)
	},
}, {
	name:  "calls/peer",
	rule:  "Who handles a call finds the Peer in its context, and no other of the caller's values.",
	needs: []need{calls, when("Peer", func(f *Fixture) bool { return f.Peer })},
	run: func(c *env) {
		type key struct{}
		topic := c.topic()
		s := c.respond(topic)
		sent := transport.Peer{ID: "somebody", Addr: "192.0.2.1:99", Protocol: "test"}
		r := c.calling(context.WithValue(transport.WithPeer(c.ctx, sent), key{}, "value"), topic, "")
		d := c.next(s)
		ctx, done := d.Context(c.ctx)
		defer done()
		got, ok := transport.PeerFrom(ctx)
		require.True(c, ok, "there is no Peer")
		if !c.Remote {
			require.Equal(c, sent, got)
		}
		require.Nil(c, ctx.Value(key{}), "the values of a ctx do not cross")
		c.ack(d)
		require.NoError(c, await(c, r, "the call").err)
	},
}, {
	name:  "calls/buffer",
	rule:  "At most Buffer calls are out at a responder; the others wait, or go to another.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		s := c.respond(topic, transport.Buffer(2))
		var replies []<-chan result
		for i := range 5 {
			replies = append(replies, c.calling(c.ctx, topic, strconv.Itoa(i)))
		}
		out := []*transport.Delivery{c.next(s), c.next(s)}
		c.nothing(s)
		for range 3 {
			c.ack(out[0])
			out = append(out[1:], c.next(s))
		}
		c.ack(out[0])
		c.ack(out[1])
		for _, r := range replies {
			require.NoError(c, await(c, r, "a call").err)
		}
	},
}, {
	name:  "calls/idle",
	rule:  "After a long silence a call is answered as soon as ever.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		c.echo(topic)
		if c.bubble {
			time.Sleep(5 * time.Minute)
		} else {
			time.Sleep(4 * c.Quiet)
		}
		for range 3 {
			c.atOnce("the reply", func() { c.call(topic, "") })
		}
	},
}, {
	name:  "calls/close",
	rule:  "After Close a responder's Next is io.EOF.",
	needs: []need{calls},
	run: func(c *env) {
		s := c.respond(c.topic())
		end := async(func() error { _, err := s.Next(c.ctx); return err })
		pending(c, end, "Next without a call")
		require.NoError(c, s.Close())
		require.Equal(c, io.EOF, await(c, end, "Next after Close"))
		require.NoError(c, s.Close())
		_, err := s.Next(c.ctx)
		require.Equal(c, io.EOF, err)
	},
}, {
	name:  "calls/options",
	rule:  "Of the options Respond takes Buffer alone; it refuses all others.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		for what, opt := range map[string]transport.SubscribeOption{
			"Group": transport.Group("g"), "From": transport.From(transport.Oldest), "DeadLetter": transport.DeadLetter(c.topic()),
			"MaxAttempts": transport.MaxAttempts(3), "Overflow": transport.Overflow(transport.DropOldest),
			"Require": transport.Require(transport.Ordered), "Buffer(-1)": transport.Buffer(-1), "nil": nil,
		} {
			ctx, cancel := c.patient()
			s, err := c.Receiver.Respond(ctx, topic, opt)
			cancel()
			if err == nil {
				s.Close()
			}
			require.Error(c, err, "Respond with the option %s", what)
			require.Contains(c, []transport.Code{transport.CodeUnimplemented, transport.CodeInvalidArgument}, transport.CodeOf(err), "%s: %v", what, err)
		}
	},
}}

// bounded is a context for a call that may lose its responder: where calls cannot tell, its end must do.
func (c *env) bounded() context.Context {
	if !c.Blind {
		return c.ctx
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.Quiet)
	c.Cleanup(cancel)
	return ctx
}

// unanswered checks that a call fails at once.
func (c *env) unanswered(topic string) {
	c.Helper()
	c.atOnce("the failure of a call without a responder", func() {
		r := await(c, c.calling(c.ctx, topic, ""), "a call without a responder")
		require.Error(c, r.err)
		require.Nil(c, r.reply)
		require.Contains(c, []transport.Code{transport.CodeUnavailable, transport.CodeUnimplemented}, transport.CodeOf(r.err), "%v", r.err)
	})
}
