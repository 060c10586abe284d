package transporttest

import (
	"errors"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var deadLettering = []need{events, feature(transport.Groups | transport.DeadLetters)}

var deadLetterCases = []testCase{{
	name:  "dead-letters/refused",
	rule:  "What a group refuses goes to its DeadLetter topic at once, with ID, Body, Header, and what happened.",
	needs: deadLettering,
	run: func(c *env) {
		topic, dead := c.topic(), c.topic()
		letters := c.broadcast(dead)
		s := c.broadcast(topic, transport.Group("g"), transport.DeadLetter(dead))
		h := transport.Header{"content-type": {"text/x"}, "multi": {"a", "b"}, "raw-bin": {"\x00\xff"}}
		c.send(&transport.Message{Topic: topic, ID: "the-id", Header: h, Body: []byte("body \x00")})
		c.atOnce("the dead letter", func() {
			c.nack(c.next(s), &transport.Error{Code: transport.CodeNotFound, Reason: "NO_SUCH_ORDER", Message: "text"})
			d := c.expect(letters, "body \x00")
			require.Equal(c, "the-id", d.ID)
			require.Equal(c, dead, d.Topic)
			for key, values := range h {
				require.Equal(c, values, d.Header.Values(key), key)
			}
			require.Equal(c, topic, d.Header.Get(transport.HeaderDeadLetterTopic))
			require.Equal(c, "1", d.Header.Get(transport.HeaderDeadLetterAttempts))
			require.Equal(c, "not_found", d.Header.Get(transport.HeaderDeadLetterCode))
			require.Equal(c, "NO_SUCH_ORDER", d.Header.Get(transport.HeaderDeadLetterReason))
			c.ack(d)
		})
		c.nothing(s)
		c.nothing(letters)
	},
}, {
	name:  "dead-letters/exhausted",
	rule:  "After MaxAttempts a message goes to the DeadLetter topic, once, and the group goes on.",
	needs: deadLettering,
	run: func(c *env) {
		topic, dead := c.topic(), c.topic()
		letters := c.broadcast(dead)
		s := c.broadcast(topic, transport.Group("g"), transport.DeadLetter(dead), transport.MaxAttempts(3))
		c.publish(topic, "1")
		id := ""
		for attempt := 1; attempt <= 3; attempt++ {
			d := c.expect(s, "1")
			require.Equal(c, attempt, d.Attempt)
			id = d.ID
			c.nothing(letters)
			c.nack(d, &transport.Error{Code: transport.CodeUnavailable, Message: "public text", RetryAfter: time.Millisecond})
		}
		d := c.expect(letters, "1")
		require.Equal(c, id, d.ID)
		require.Equal(c, "3", d.Header.Get(transport.HeaderDeadLetterAttempts))
		require.Equal(c, "unavailable", d.Header.Get(transport.HeaderDeadLetterCode))
		require.Equal(c, "public text", d.Header.Get(transport.HeaderDeadLetterReason))
		c.ack(d)
		c.publish(topic, "2")
		c.ack(c.expect(s, "2"))
		c.nothing(letters)
	},
}, {
	name:  "dead-letters/private",
	rule:  "Private text does not get into a dead letter.",
	needs: deadLettering,
	run: func(c *env) {
		topic, dead := c.topic(), c.topic()
		letters := c.broadcast(dead)
		s := c.broadcast(topic, transport.Group("g"), transport.DeadLetter(dead), transport.MaxAttempts(1))
		for _, err := range []error{errors.New(secret), fmt.Errorf(secret+": %w", transport.CodeNotFound),
			transport.Wrap(errors.New(secret), transport.CodeDataLoss, "public")} {
			c.publish(topic, "1")
			c.nack(c.next(s), err)
			d := c.next(letters)
			require.Equal(c, transport.CodeOf(err).String(), d.Header.Get(transport.HeaderDeadLetterCode))
			require.NotContains(c, fmt.Sprint(d.Header), secret)
			c.ack(d)
		}
	},
}, {
	name:  "dead-letters/of-dead-letters",
	rule:  "A dead letter is a message like any other: a group can handle it, and refuse it too.",
	needs: deadLettering,
	run: func(c *env) {
		topic, dead, deader := c.topic(), c.topic(), c.topic()
		letters := c.broadcast(deader)
		s := c.broadcast(topic, transport.Group("g"), transport.DeadLetter(dead))
		second := c.broadcast(dead, transport.Group("g"), transport.DeadLetter(deader))
		c.publish(topic, "1")
		c.nack(c.expect(s, "1"), transport.CodeInvalidArgument)
		c.nack(c.expect(second, "1"), transport.CodeDataLoss)
		d := c.expect(letters, "1")
		require.Equal(c, "data_loss", d.Header.Get(transport.HeaderDeadLetterCode))
		require.Len(c, d.Header.Values(transport.HeaderDeadLetterCode), 1)
		c.ack(d)
	},
}, {
	name:  "dead-letters/need-group",
	rule:  "DeadLetter is for groups only: without one, or with an illegal topic, it is InvalidArgument.",
	needs: []need{events, feature(transport.DeadLetters)},
	run: func(c *env) {
		ctx, cancel := c.patient()
		defer cancel()
		_, err := c.Receiver.Subscribe(ctx, c.topic(), transport.DeadLetter(c.topic()))
		c.code(err, transport.CodeInvalidArgument)
		_, err = c.Receiver.Subscribe(ctx, c.topic(), transport.Group("g"), transport.DeadLetter("a..b"))
		c.code(err, transport.CodeInvalidArgument)
	},
}}
