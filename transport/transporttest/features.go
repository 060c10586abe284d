package transporttest

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var allFeatures = []transport.Feature{transport.AtLeastOnce, transport.Ordered, transport.Replay, transport.Groups, transport.DeadLetters, transport.Delays}

var featureCases = []testCase{{
	name:  "features/offered",
	rule:  "A feature that is offered can be required, alone and together with all others.",
	needs: []need{events},
	run: func(c *env) {
		for _, f := range append(allFeatures, c.Offers) {
			if c.offers(f) {
				topic := c.topic()
				s := c.broadcast(topic, transport.Require(f))
				c.publish(topic, "1")
				c.ack(c.expect(s, "1"))
				require.NoError(c, s.Close())
			}
		}
	},
}, {
	name:  "features/not-offered",
	rule:  "A feature that is not offered is refused when required, with an error that matches errors.ErrUnsupported.",
	needs: []need{verbs(transport.OpSubscribe)},
	run: func(c *env) {
		for _, f := range append(allFeatures, 1<<15) {
			if !c.offers(f) {
				c.refuses(fmt.Sprintf("Require(%v)", f), transport.Require(f))
				c.refuses(fmt.Sprintf("Require(%v)", f|c.Offers), transport.Require(f|c.Offers))
			}
		}
	},
}, {
	name:  "features/options",
	rule:  "The option of a feature that is not offered is refused, never ignored.",
	needs: []need{verbs(transport.OpSubscribe)},
	run: func(c *env) {
		if !c.offers(transport.Groups) {
			c.refuses("Group", transport.Group("g"))
		}
		if !c.offers(transport.Replay) {
			c.refuses("From(Oldest)", transport.From(transport.Oldest))
			c.refuses("From", transport.From("some-cursor"))
		}
		if c.offers(transport.Groups) && !c.offers(transport.DeadLetters) {
			c.refuses("DeadLetter", transport.Group("g"), transport.DeadLetter(c.topic()))
		}
	},
}, {
	name:  "features/no-cursor",
	rule:  "Without the feature Replay there are no cursors.",
	needs: []need{events, when("(the absence of Replay)", func(f *Fixture) bool { return !f.offers(transport.Replay) })},
	run: func(c *env) {
		topic := c.topic()
		s := c.broadcast(topic)
		require.Empty(c, s.Cursor())
		c.publish(topic, "1")
		d := c.next(s)
		require.Empty(c, d.Cursor())
		c.ack(d)
		require.Empty(c, s.Cursor())
	},
}, {
	name: "features/verbs",
	rule: "A verb that is not offered answers an error that matches errors.ErrUnsupported.",
	run: func(c *env) {
		lacks := c.Lacks
		c.Lacks = nil
		ctx, cancel := c.patient()
		defer cancel()
		c.eachVerb(ctx, c.topic(), func(op transport.Op, err error) {
			for _, lacking := range lacks {
				if op == lacking {
					require.True(c, unsupported(err), "%s is not offered: %v", op, err)
				}
			}
		})
	},
}, {
	name:  "features/options-as-one",
	rule:  "SubscribeOptions is an option like the others, and the later of two wins.",
	needs: []need{events},
	run: func(c *env) {
		topic := c.topic()
		s := c.broadcast(topic, transport.Buffer(9), transport.SubscribeOptions{Buffer: 2, MaxAttempts: 1})
		c.publish(topic, "1", "2", "3")
		one, two := c.next(s), c.next(s)
		c.nothing(s)
		c.nack(one, again(0)) // MaxAttempts
		c.ack(c.expect(s, "3"))
		c.ack(two)
		c.nothing(s)
	},
}}

// refuses checks that the options are refused as not offered.
func (c *env) refuses(what string, opts ...transport.SubscribeOption) {
	c.Helper()
	ctx, cancel := c.patient()
	defer cancel()
	s, err := c.Receiver.Subscribe(ctx, c.topic(), opts...)
	if err == nil {
		s.Close()
	}
	require.True(c, unsupported(err), "Subscribe with %s, which is not offered: %v", what, err)
}
