package transporttest

import (
	"context"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var argumentCases = []testCase{{
	name: "arguments/topics",
	rule: "Every verb refuses an illegal topic with InvalidArgument.",
	run: func(c *env) {
		ctx, cancel := c.patient()
		defer cancel()
		for _, topic := range []string{"", ".", "a.", ".a", "a..b", "*", "#", "a.*", "a.#.b", "rpc", "rpc.x", "amq", "amq.topic",
			"_x", "_x.y", "_reply", "_reply.a.b", "a\nb", "a\r\nb: c", "a\x00", "a\x7f", "a\u0085b", "a\xffb", strings.Repeat("x", transport.MaxTopicBytes+1)} {
			c.eachVerb(ctx, topic, func(op transport.Op, err error) {
				require.Error(c, err, "%s took the topic %q", op, topic)
				require.Equal(c, transport.CodeInvalidArgument.String(), transport.CodeOf(err).String(), "%s of the topic %q: %v", op, topic, err)
			})
		}
	},
}, {
	name: "arguments/messages",
	rule: "Publish and Call refuse an illegal ID or header with InvalidArgument, and a nil message.",
	run: func(c *env) {
		long := strings.Repeat("i", transport.MaxIDBytes+1)
		bad := map[string]*transport.Message{
			"nil": nil, "an ID of 129 bytes": {ID: long}, "an ID with a control character": {ID: "a\nb"}, "an ID that is not UTF-8": {ID: "\xff"},
			"no key": {Header: transport.Header{"": {"v"}}}, "a value that is not UTF-8": {Header: transport.Header{"k": {"v", "\xff"}}},
		}
		for _, key := range []string{"Upper", "a b", "a:b", "a\n", "a\x00", "ä", "a/b", "a*", strings.Repeat("k", 65)} {
			bad["the key "+key] = &transport.Message{Header: transport.Header{key: {"v"}}}
		}
		topic := c.topic()
		ctx, cancel := c.patient()
		defer cancel()
		for what, m := range bad {
			if m != nil {
				m.Topic = topic
			}
			if c.has(transport.OpPublish) {
				err := c.Sender.Publish(ctx, m)
				require.Equal(c, transport.CodeInvalidArgument.String(), transport.CodeOf(err).String(), "Publish with %s: %v", what, err)
			}
			if c.has(transport.OpCall) {
				_, err := c.Sender.Call(ctx, m)
				require.Equal(c, transport.CodeInvalidArgument.String(), transport.CodeOf(err).String(), "Call with %s: %v", what, err)
			}
			if c.has(transport.OpOpen) && m != nil && m.Header != nil {
				_, err := c.Sender.Open(ctx, topic, m.Header)
				require.Equal(c, transport.CodeInvalidArgument.String(), transport.CodeOf(err).String(), "Open with %s: %v", what, err)
			}
		}
	},
}, {
	name:  "arguments/harmless",
	rule:  "An illegal message is refused alone: the subscription, the responder and what follows are not harmed.",
	needs: []need{events},
	run: func(c *env) {
		topic := c.topic()
		s := c.broadcast(topic)
		for _, m := range []*transport.Message{
			{Topic: topic, ID: "\x00"}, {Topic: topic, Header: transport.Header{"K": {"v"}}}, {Topic: topic, Body: make([]byte, c.MaxBytes+1)},
		} {
			require.Error(c, c.Sender.Publish(c.ctx, m))
			c.publish(topic, "on")
			c.ack(c.expect(s, "on"))
		}
		c.nothing(s)
	},
}, {
	name: "arguments/sizes",
	rule: "A message one byte over the limit is ResourceExhausted, whatever the byte is in; so is a header over its own.",
	run: func(c *env) {
		topic := c.topic()
		full := c.MaxBytes - len(topic)
		over := []*transport.Message{
			{Topic: topic, Body: make([]byte, full+1)},
			{Topic: topic, Header: transport.Header{"k": {"v"}}, Body: make([]byte, full-1)},
			{Topic: topic, Header: transport.Header{"k": {strings.Repeat("v", transport.DefaultMaxHeaderBytes)}}},
			{Topic: topic, Body: make([]byte, 4*c.MaxBytes)},
		}
		if c.has(transport.OpRespond) && c.has(transport.OpCall) {
			c.echo(topic)
		}
		ctx, cancel := c.patient()
		defer cancel()
		for i, m := range over {
			if c.has(transport.OpPublish) {
				err := c.Sender.Publish(ctx, m)
				require.Equal(c, transport.CodeResourceExhausted.String(), transport.CodeOf(err).String(), "Publish of message %d: %v", i, err)
			}
			if c.has(transport.OpCall) {
				_, err := c.Sender.Call(ctx, m)
				require.Equal(c, transport.CodeResourceExhausted.String(), transport.CodeOf(err).String(), "Call with message %d: %v", i, err)
			}
		}
	},
}, {
	name:  "arguments/reply-sizes",
	rule:  "A reply over the limit, or an illegal one, is an error for the caller, who does not wait in vain.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		s := c.respond(topic)
		for _, reply := range []*transport.Message{
			{Body: make([]byte, c.MaxBytes+1)},
			{Header: transport.Header{"k": {strings.Repeat("v", transport.DefaultMaxHeaderBytes)}}},
			{Header: transport.Header{"Bad Key": {"v"}}},
			{Header: transport.Header{"k": {"\xff"}}},
		} {
			r := c.calling(c.ctx, topic, "")
			c.next(s).Settle(reply, nil) // it may say so too
			require.Error(c, await(c, r, "the call with an illegal reply").err)
		}
		r := c.calling(c.ctx, topic, "")
		c.reply(c.next(s), "legal")
		require.NoError(c, await(c, r, "the next call").err)
	},
}, {
	name:  "arguments/options",
	rule:  "Subscribe refuses illegal options with InvalidArgument.",
	needs: []need{events},
	run: func(c *env) {
		bad := map[string]transport.SubscribeOption{
			"nil": nil, "MaxAttempts(0)": transport.MaxAttempts(0), "MaxAttempts(-1)": transport.MaxAttempts(-1),
			"Buffer(0)": transport.Buffer(0), "Buffer(-1)": transport.Buffer(-1), "Overflow(77)": transport.Overflow(77),
			"an empty group": transport.Group(""), "a group of 101 bytes": transport.Group(strings.Repeat("g", transport.MaxGroupBytes+1)),
			"a group with a control character": transport.Group("a\nb"), "a group that is not UTF-8": transport.Group("\xff"),
		}
		ctx, cancel := c.patient()
		defer cancel()
		for what, opt := range bad {
			_, err := c.Receiver.Subscribe(ctx, c.topic(), opt)
			require.Equal(c, transport.CodeInvalidArgument.String(), transport.CodeOf(err).String(), "Subscribe with %s: %v", what, err)
		}
	},
}}

// eachVerb runs each verb that is offered on topic and passes on what it returns.
func (c *env) eachVerb(ctx context.Context, topic string, f func(op transport.Op, err error)) {
	c.Helper()
	for op, do := range map[transport.Op]func() error{
		transport.OpPublish:   func() error { return c.Sender.Publish(ctx, &transport.Message{Topic: topic}) },
		transport.OpCall:      func() error { _, err := c.Sender.Call(ctx, &transport.Message{Topic: topic}); return err },
		transport.OpOpen:      func() error { return ending(c.Sender.Open(ctx, topic, nil)) },
		transport.OpSubscribe: func() error { return closing(c.Receiver.Subscribe(ctx, topic)) },
		transport.OpRespond:   func() error { return closing(c.Receiver.Respond(ctx, topic)) },
		transport.OpAccept:    func() error { return closing(c.Receiver.Accept(ctx, topic)) },
	} {
		if c.has(op) {
			f(op, do())
		}
	}
}

// ending closes what should not have been opened, or was opened in vain, and returns the error of either.
func ending(s transport.Stream, err error) error {
	if err == nil {
		_, err = s.Recv()
		s.Close()
	}
	return err
}

func closing[S interface{ Close() error }](s S, err error) error {
	if err == nil {
		s.Close()
	}
	return err
}
