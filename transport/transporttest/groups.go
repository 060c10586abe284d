package transporttest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var grouping = []need{events, groups}

var groupCases = []testCase{{
	name:  "groups/share",
	rule:  "Each message goes to one member of a group.",
	needs: grouping,
	run: func(c *env) {
		topic := c.topic()
		var members []transport.Subscription
		for range 3 {
			members = append(members, c.broadcast(topic, transport.Group("g"), transport.Buffer(1)))
		}
		c.publish(topic, numbers(1, 3)...)
		var got []string
		for _, m := range members { // with one out at each, all get one
			d := c.next(m)
			got = append(got, string(d.Body))
			defer c.ack(d)
		}
		require.ElementsMatch(c, numbers(1, 3), got)
		for _, m := range members {
			c.nothingFor(m, c.Quiet/3)
		}
	},
}, {
	name:  "groups/share-many",
	rule:  "However many messages and members, none is lost and none goes to two.",
	needs: grouping,
	run: func(c *env) {
		const n = 300
		topic := c.topic()
		got := make(chan string, n+10)
		for range 4 {
			c.serve(c.broadcast(topic, transport.Group("g"), transport.Buffer(4)), collect(got))
		}
		c.publish(topic, numbers(1, n)...)
		var bodies []string
		for range n {
			bodies = append(bodies, await(c, got, "a message"))
		}
		require.ElementsMatch(c, numbers(1, n), bodies)
		pending(c, got, "a message that was not published")
	},
}, {
	name:  "groups/independent",
	rule:  "Groups are independent of each other, of broadcast subscribers, and of groups of the same name elsewhere.",
	needs: grouping,
	run: func(c *env) {
		topic, elsewhere := c.topic(), c.topic()
		subs := []transport.Subscription{
			c.broadcast(topic),
			c.broadcast(topic, transport.Group("a")),
			c.broadcast(topic, transport.Group("A")),
			c.broadcast(topic, transport.Group("b")),
		}
		other := c.broadcast(elsewhere, transport.Group("a"))
		c.publish(topic, numbers(1, 10)...)
		for _, s := range subs {
			require.ElementsMatch(c, numbers(1, 10), c.take(s, 10))
		}
		for _, s := range append(subs, other) {
			c.nothingFor(s, c.Quiet/3)
		}
	},
}, {
	name:  "groups/names",
	rule:  "A group name is 1 to 100 bytes of UTF-8 without control characters, and no two are mixed up.",
	needs: grouping,
	run: func(c *env) {
		topic := c.topic()
		names := []string{"g", "G", "g h", "g_h", "g%20h", "g+h", "g/h", "g.h", "*", "#", "ä", "a\u0308", "_g", "rpc",
			strings.Repeat("x", transport.MaxGroupBytes), strings.Repeat("ü", transport.MaxGroupBytes/2)}
		var subs []transport.Subscription
		for _, name := range names {
			subs = append(subs, c.broadcast(topic, transport.Group(name)))
		}
		c.publish(topic, "one")
		for i, s := range subs {
			d := c.next(s)
			require.Equal(c, "one", string(d.Body), "group %q", names[i])
			c.ack(d)
		}
	},
}, {
	name:  "groups/outlive",
	rule:  "A group outlives its subscriptions: what is published between two members arrives at the second.",
	needs: grouping,
	run: func(c *env) {
		topic := c.topic()
		first := c.broadcast(topic, transport.Group("g"))
		c.publish(topic, "1")
		require.Equal(c, []string{"1"}, c.take(first, 1))
		require.NoError(c, first.Close())
		c.publish(topic, numbers(2, 11)...)
		second := c.broadcast(topic, transport.Group("g"))
		require.ElementsMatch(c, numbers(2, 11), c.take(second, 10))
		c.nothing(second)
	},
}, {
	name:  "groups/start",
	rule:  "A group starts with its first subscription; a From of that one is honoured or refused.",
	needs: append([]need{replay}, grouping...),
	run: func(c *env) {
		topic := c.topic()
		c.publish(topic, "1", "2")
		c.calm()
		now := c.broadcast(topic, transport.Group("now"))
		ctx, cancel := c.patient()
		defer cancel()
		s, err := c.Receiver.Subscribe(ctx, topic, transport.Group("old"), transport.From(transport.Oldest))
		c.publish(topic, "3")
		require.Equal(c, []string{"3"}, c.take(now, 1))
		if unsupported(err) {
			return
		}
		old := c.opened(s, err, "Subscribe with Group and From")
		require.ElementsMatch(c, numbers(1, 3), c.take(old, 3))
		c.nothing(old)
	},
}, {
	name:  "groups/settings",
	rule:  "The first subscription fixes the group's settings: another demand is FailedPrecondition, an unset one matches.",
	needs: grouping,
	run: func(c *env) {
		topic, dead := c.topic(), c.topic()
		demands := map[string]transport.SubscribeOption{
			"MaxAttempts": transport.MaxAttempts(4), "other MaxAttempts": transport.MaxAttempts(5),
		}
		if c.offers(transport.DeadLetters) {
			demands["DeadLetter"] = transport.DeadLetter(dead)
			demands["other DeadLetter"] = transport.DeadLetter(c.topic())
		}
		if c.offers(transport.Ordered) {
			demands["Ordered"] = transport.Require(transport.Ordered)
		}
		if c.offers(transport.Replay) {
			demands["From"] = transport.From(transport.Oldest)
		}
		for name, demand := range demands {
			group := transport.Group("made by " + name)
			ctx, cancel := c.patient()
			s, err := c.Receiver.Subscribe(ctx, topic, group, demand)
			cancel()
			if unsupported(err) && name == "From" {
				continue
			}
			c.opened(s, err, "the group with %s", name)
			c.broadcast(topic, group)         // unset matches
			c.broadcast(topic, group, demand) // and so does the same
			if other := demands["other "+name]; other != nil {
				c.mismatch(topic, group, other, "other "+name)
			}
		}
		plain := transport.Group("plain")
		s := c.broadcast(topic, plain)
		for name, demand := range demands {
			c.mismatch(topic, plain, demand, name)
		}
		c.broadcast(topic, plain, transport.Buffer(3)) // each member's own
		c.publish(topic, "unharmed")
		require.NoError(c, s.Close())
	},
}, {
	name:  "groups/cursor",
	rule:  "In a group Cursor is \"\".",
	needs: grouping,
	run: func(c *env) {
		topic := c.topic()
		s := c.broadcast(topic, transport.Group("g"))
		require.Empty(c, s.Cursor())
		c.publish(topic, "1")
		c.take(s, 1)
		require.Empty(c, s.Cursor())
	},
}, {
	name:  "groups/late-settle",
	rule:  "What a closed member has out can still be settled, and is not given to another before that.",
	needs: grouping,
	run: func(c *env) {
		topic := c.topic()
		a := c.broadcast(topic, transport.Group("g"))
		c.publish(topic, "keep", "return", "retry")
		byBody := map[string]*transport.Delivery{}
		for range 3 {
			d := c.next(a)
			byBody[string(d.Body)] = d
		}
		require.NoError(c, a.Close())
		b := c.broadcast(topic, transport.Group("g"))
		c.nothing(b)
		c.ack(byBody["keep"])
		c.nack(byBody["return"], transport.CodeCanceled)
		d := c.expect(b, "return")
		require.Equal(c, 1, d.Attempt)
		c.ack(d)
		c.nack(byBody["retry"], again(time.Millisecond))
		d = c.expect(b, "retry")
		require.Equal(c, 2, d.Attempt)
		c.ack(d)
		c.nothing(b)
	},
}, {
	name:  "groups/give-back",
	rule:  "Close gives back what was not handed out: others get it, uncounted.",
	needs: grouping,
	run: func(c *env) {
		topic := c.topic()
		a := c.broadcast(topic, transport.Group("g"))
		c.publish(topic, numbers(1, 20)...)
		first := c.next(a)
		require.NoError(c, a.Close())
		b := c.broadcast(topic, transport.Group("g"))
		got := []string{string(first.Body)}
		for range 19 {
			d := c.next(b)
			require.Equal(c, 1, d.Attempt, "message %s was not handed out before", d.Body)
			got = append(got, string(d.Body))
			c.ack(d)
		}
		require.ElementsMatch(c, numbers(1, 20), got)
		c.ack(first)
		c.nothing(b)
	},
}, {
	name:  "groups/redelivery",
	rule:  "A redelivery goes to any member that has room.",
	needs: grouping,
	run: func(c *env) {
		topic := c.topic()
		a := c.broadcast(topic, transport.Group("g"), transport.Buffer(1))
		c.publish(topic, "1")
		c.nack(c.expect(a, "1"), again(time.Millisecond))
		require.NoError(c, a.Close())
		d := c.expect(c.broadcast(topic, transport.Group("g")), "1")
		require.Equal(c, 2, d.Attempt)
		c.ack(d)
	},
}, {
	name:  "groups/stuck-member",
	rule:  "A member that does not settle holds up no more than it has out.",
	needs: grouping,
	run: func(c *env) {
		topic := c.topic()
		stuck := c.broadcast(topic, transport.Group("g"), transport.Buffer(1))
		c.publish(topic, "0")
		out := c.next(stuck)
		busy := c.broadcast(topic, transport.Group("g"))
		c.publish(topic, numbers(1, 20)...)
		got := c.take(busy, 19)
		c.ack(out)
		require.NoError(c, stuck.Close()) // it may have had one ready
		require.ElementsMatch(c, numbers(1, 20), append(got, c.take(busy, 1)...))
	},
}, {
	name:  "groups/churn",
	rule:  "Members that come and go all the time lose nothing and handle nothing twice.",
	needs: grouping,
	run: func(c *env) {
		const n = 200
		topic := c.topic()
		keep := c.broadcast(topic, transport.Group("g"), transport.Buffer(2))
		published := async(func() bool { c.publish(topic, numbers(1, n)...); return true })
		var got []string
		for len(got) < n-10 {
			s := c.broadcast(topic, transport.Group("g"), transport.Buffer(8))
			for range 5 {
				ctx, cancel := c.patient()
				d, err := s.Next(ctx)
				cancel()
				require.NoError(c, err, "after %d of %d messages", len(got), n)
				require.Equal(c, 1, d.Attempt)
				got = append(got, string(d.Body))
				c.ack(d)
			}
			require.NoError(c, s.Close())
			if len(got)%20 == 0 { // the one that never reads must not have them all
				require.NoError(c, keep.Close())
				keep = c.broadcast(topic, transport.Group("g"), transport.Buffer(2))
			}
		}
		await(c, published, "the publisher")
		require.NoError(c, keep.Close())
		last := c.broadcast(topic, transport.Group("g"))
		got = append(got, c.take(last, n-len(got))...)
		c.nothing(last)
		slices.Sort(got)
		want := numbers(1, n)
		slices.Sort(want)
		require.Equal(c, want, got)
	},
}}

// mismatch checks that the group exists with other settings.
func (c *env) mismatch(topic string, group, demand transport.SubscribeOption, what string) {
	c.Helper()
	ctx, cancel := c.patient()
	defer cancel()
	s, err := c.Receiver.Subscribe(ctx, topic, group, demand)
	if err == nil {
		s.Close()
		c.Fatalf("a group that was made without %s must refuse it", what)
	}
	if unsupported(err) && strings.Contains(fmt.Sprint(what), "From") {
		return
	}
	c.code(err, transport.CodeFailedPrecondition)
}
