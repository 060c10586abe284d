package transporttest

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var replaying = []need{events, replay}

// wantReplay asks for cursors, so that a transport whose history costs something knows.
var wantReplay = transport.Require(transport.Replay)

var replayCases = []testCase{{
	name:  "replay/every-position",
	rule:  "From a delivery's Cursor come exactly the messages after it.",
	needs: replaying,
	run: func(c *env) {
		const n = 12
		topic := c.topic()
		s := c.broadcast(topic, wantReplay, c.inOrder())
		cursors := []string{s.Cursor()}
		c.publish(topic, numbers(1, n)...)
		for range n {
			d := c.next(s)
			cursors = append(cursors, d.Cursor())
			c.ack(d)
		}
		c.publish(topic, fmt.Sprint(n+1))
		for i, cursor := range cursors {
			c.resumes(topic, cursor, numbers(i+1, n+1)...)
		}
	},
}, {
	name:  "replay/oldest",
	rule:  "From(Oldest) starts with the oldest message there is, then goes on with what is published.",
	needs: replaying,
	run: func(c *env) {
		topic := c.topic()
		c.broadcast(topic, wantReplay, transport.Overflow(transport.Disconnect))
		c.publish(topic, numbers(1, 5)...)
		s := c.broadcast(topic, transport.From(transport.Oldest), c.inOrder())
		c.same(numbers(1, 5), c.take(s, 5))
		c.publish(topic, "6")
		require.Equal(c, []string{"6"}, c.take(s, 1))
		c.nothing(s)
	},
}, {
	name:  "replay/start",
	rule:  "Before any message a subscription's Cursor is its start: From it comes all that was published since.",
	needs: replaying,
	run: func(c *env) {
		topic := c.topic()
		empty := c.broadcast(topic, wantReplay)
		c.legalCursor(empty.Cursor())
		c.publish(topic, "1", "2")
		c.calm()
		later := c.broadcast(topic, wantReplay)
		c.legalCursor(later.Cursor())
		fromEmpty, fromLater := empty.Cursor(), later.Cursor() // nothing was taken yet
		require.NoError(c, empty.Close())
		require.NoError(c, later.Close())
		c.publish(topic, "3")
		c.resumes(topic, fromEmpty, "1", "2", "3")
		c.resumes(topic, fromLater, "3")
	},
}, {
	name:  "replay/resumed-start",
	rule:  "A subscription From a cursor has that position as its Cursor until something is settled.",
	needs: replaying,
	run: func(c *env) {
		topic := c.topic()
		s := c.broadcast(topic, wantReplay, c.inOrder())
		c.publish(topic, "1", "2", "3")
		d := c.expect(s, "1")
		c.ack(d)
		again := c.broadcast(topic, transport.From(d.Cursor()))
		c.resumes(topic, again.Cursor(), "2", "3")
		oldest := c.broadcast(topic, transport.From(transport.Oldest))
		c.resumes(topic, oldest.Cursor(), "1", "2", "3")
	},
}, {
	name:  "replay/cursors",
	rule:  "A cursor is URL-safe and has at most 128 bytes; redeliveries have the same.",
	needs: replaying,
	run: func(c *env) {
		for _, topic := range []string{c.topic(), strings.Repeat("ü ", 20) + c.topic()} {
			s := c.broadcast(topic, wantReplay)
			c.legalCursor(s.Cursor())
			c.publish(topic, "1")
			d := c.next(s)
			cursor := d.Cursor()
			c.legalCursor(cursor)
			c.nack(d, transport.CodeCanceled)
			d = c.next(s)
			require.Equal(c, cursor, d.Cursor())
			c.ack(d)
			c.legalCursor(s.Cursor())
		}
	},
}, {
	name:  "replay/low-water",
	rule:  "A subscription's Cursor is the low-water mark: it passes a message only once all before it are settled.",
	needs: replaying,
	run: func(c *env) {
		topic := c.topic()
		s := c.broadcast(topic, wantReplay)
		c.publish(topic, numbers(1, 5)...)
		var ds [5]*transport.Delivery
		for i := range ds {
			ds[i] = c.expect(s, strconv.Itoa(i+1))
		}
		c.resumes(topic, s.Cursor(), numbers(1, 5)...)
		c.ack(ds[1])
		c.ack(ds[2])
		c.resumes(topic, s.Cursor(), numbers(1, 5)...)
		c.nack(ds[0], transport.CodeCanceled) // again, so not settled
		c.resumes(topic, s.Cursor(), numbers(1, 5)...)
		c.nack(c.expect(s, "1"), transport.CodeInvalidArgument) // refused for good is settled
		c.resumes(topic, s.Cursor(), "4", "5")
		c.ack(ds[4])
		c.resumes(topic, s.Cursor(), "4", "5")
		c.ack(ds[3])
		c.publish(topic, "6")
		c.resumes(topic, s.Cursor(), "6")
	},
}, {
	name:  "replay/after-close",
	rule:  "Close settles nothing: From the Cursor of a closed subscription come the messages that were out.",
	needs: replaying,
	run: func(c *env) {
		topic := c.topic()
		s := c.broadcast(topic, wantReplay)
		c.publish(topic, "1", "2", "3")
		c.ack(c.expect(s, "1"))
		late := c.expect(s, "2")
		require.NoError(c, s.Close())
		c.resumes(topic, s.Cursor(), "2", "3")
		c.ack(late)
		c.resumes(topic, s.Cursor(), "3")
	},
}, {
	name:  "replay/racing",
	rule:  "Whoever resumes while others publish gets neither a hole nor a duplicate.",
	needs: replaying,
	run: func(c *env) {
		const n = 300
		topic := c.topic()
		s := c.broadcast(topic, wantReplay, c.inOrder())
		start := s.Cursor()
		published := async(func() bool {
			for i := 1; i <= n; i++ {
				c.publish(topic, strconv.Itoa(i))
			}
			return true
		})
		var readers []<-chan []string
		cursor := start
		for i := range n {
			d := c.next(s)
			if i%30 == 0 {
				from, rest := cursor, n-i
				readers = append(readers, async(func() []string {
					s := c.broadcast(topic, transport.From(from), c.inOrder())
					defer s.Close()
					return c.take(s, rest)
				}))
			}
			cursor = d.Cursor()
			c.ack(d)
		}
		await(c, published, "the publisher")
		for i, r := range readers {
			c.same(numbers(i*30+1, n), await(c, r, "a reader"))
		}
	},
}, {
	name:  "replay/foreign",
	rule:  "A cursor belongs to one topic: elsewhere it is OutOfRange.",
	needs: replaying,
	run: func(c *env) {
		topic, other := c.topic(), c.topic()
		s, o := c.broadcast(topic, wantReplay), c.broadcast(other, wantReplay)
		start := s.Cursor()
		c.publish(topic, numbers(1, 3)...)
		c.publish(other, numbers(1, 3)...)
		d := c.next(s)
		c.lost(other, start)
		c.lost(other, d.Cursor())
		c.lost(c.topic(), d.Cursor())
		c.ack(d)
		c.lost(other, s.Cursor())
		c.take(o, 3) // unharmed
	},
}, {
	name:  "replay/forged",
	rule:  "A cursor that this transport never made is OutOfRange, never silence.",
	needs: replaying,
	run: func(c *env) {
		topic := c.topic()
		s := c.broadcast(topic, wantReplay)
		start := s.Cursor()
		c.publish(topic, numbers(1, 3)...)
		cursor := c.next(s).Cursor()
		for _, forged := range []string{"0", "1", "-1", "x", "newest", "OLDEST", "oldest ", " ", "nil", "\x00", "\xff", "\r\nid: 1",
			cursor + "x", cursor + " ", cursor + ".1", "x" + cursor, " " + cursor, cursor + cursor, start + cursor,
			strings.Repeat("z", transport.MaxCursorBytes), strings.Repeat("1", transport.MaxCursorBytes),
			strings.Repeat("z", transport.MaxCursorBytes+1), strings.Repeat("z", 1<<16)} {
			c.lost(topic, forged)
		}
	},
}, {
	name:  "replay/evicted",
	rule:  "A cursor before what the history still has is OutOfRange; From(Oldest) starts with what there is.",
	needs: append([]need{retention}, replaying...),
	run: func(c *env) {
		topic := c.topic()
		s := c.broadcast(topic, wantReplay)
		start := s.Cursor()
		c.publish(topic, "1")
		cursor := c.next(s).Cursor()
		require.NoError(c, s.Close())
		n := c.Retention + 2
		c.publish(topic, numbers(2, n)...)
		c.calm()
		c.lost(topic, start)
		c.lost(topic, cursor)
		s = c.broadcast(topic, transport.From(transport.Oldest), c.inOrder())
		d := c.next(s)
		first, err := strconv.Atoi(string(d.Body))
		require.NoError(c, err)
		require.Greater(c, first, 2)
		c.ack(d)
		c.same(numbers(first+1, n), c.take(s, n-first))
	},
}, {
	name:  "replay/other-backend",
	rule:  "A cursor belongs to one backend: a server that was started anew does not know it.",
	needs: replaying,
	run: func(c *env) {
		other := &env{TB: c, bubble: c.bubble, id: c.id, ctx: c.ctx, cancel: c.cancel}
		other.Fixture = c.fresh(c)
		other.setDefaults(c.bubble)
		defer other.cleanup()
		topic := c.topic()
		here, there := c.broadcast(topic, wantReplay), other.broadcast(topic, wantReplay)
		start := here.Cursor()
		c.publish(topic, "1")
		cursor := c.next(here).Cursor()
		other.publish(topic, "here?")
		if d := c.maybe(here); d != nil {
			c.ack(d)
			return // both have the same backend
		}
		other.next(there)
		other.lost(topic, start)
		other.lost(topic, cursor)
	},
}, {
	name:  "replay/no-demand",
	rule:  "The empty cursor is no demand: From(\"\") starts with what is published from now on.",
	needs: []need{events},
	run: func(c *env) {
		topic := c.topic()
		c.publish(topic, "1")
		c.calm()
		s := c.broadcast(topic, transport.From(""))
		c.publish(topic, "2")
		c.ack(c.expect(s, "2"))
	},
}}

// resumes checks that exactly these messages come from cursor.
func (c *env) resumes(topic, cursor string, want ...string) {
	c.Helper()
	require.NotEmpty(c, cursor)
	s := c.broadcast(topic, transport.From(cursor), c.inOrder())
	c.same(want, c.take(s, len(want)))
	c.nothingFor(s, c.Quiet/5)
	require.NoError(c, s.Close())
}

// lost checks that the cursor is refused.
func (c *env) lost(topic, cursor string) {
	c.Helper()
	ctx, cancel := c.patient()
	defer cancel()
	s, err := c.Receiver.Subscribe(ctx, topic, transport.From(cursor))
	if err == nil {
		s.Close()
		c.Fatalf("Subscribe took the cursor %.200q", cursor)
	}
	c.code(err, transport.CodeOutOfRange)
}

var urlSafe = regexp.MustCompile(`^[A-Za-z0-9._~-]+$`)

func (c *env) legalCursor(cursor string) {
	c.Helper()
	require.Regexp(c, urlSafe, cursor, "the cursor")
	require.LessOrEqual(c, len(cursor), transport.MaxCursorBytes, "the bytes of the cursor %q", cursor)
}

// maybe returns a delivery if one comes soon, else nil.
func (c *env) maybe(s transport.Subscription) *transport.Delivery {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, c.Quiet)
	defer cancel()
	d, err := s.Next(ctx)
	if err != nil {
		require.ErrorIs(c, err, context.DeadlineExceeded)
		return nil
	}
	return d
}
