package transporttest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var delayCases = []testCase{{
	name:    "delays/honoured",
	rule:    "A message with a delay header comes not earlier, and soon after; others overtake it.",
	needs:   []need{events, feature(transport.Delays)},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic, transport.Require(transport.Delays))
		start := time.Now()
		for _, ms := range []string{"1500", "800"} {
			c.send(&transport.Message{Topic: topic, ID: "id-" + ms, Header: transport.Header{"delay": {ms}, "k": {"v"}}, Body: []byte(ms)})
		}
		c.publish(topic, "now")
		c.ack(c.expect(s, "now"))
		for _, ms := range []time.Duration{800, 1500} {
			d := c.next(s)
			require.GreaterOrEqual(c, time.Since(start), ms*time.Millisecond, "the delay of %q", d.Body)
			require.LessOrEqual(c, time.Since(start), ms*time.Millisecond+c.Latency)
			require.Equal(c, "id-"+string(d.Body), d.ID)
			require.Equal(c, "v", d.Header.Get("k"))
			require.Equal(c, 1, d.Attempt)
			c.ack(d)
		}
		c.nothing(s)
	},
}, {
	name:  "delays/refused",
	rule:  "Without the feature Delays, Publish refuses a delay header: it is never ignored.",
	needs: []need{events, when("(the absence of Delays)", func(f *Fixture) bool { return !f.offers(transport.Delays) })},
	run: func(c *env) {
		ctx, cancel := c.patient()
		defer cancel()
		err := c.Sender.Publish(ctx, &transport.Message{Topic: c.topic(), Header: transport.Header{"delay": {"1000"}}})
		require.True(c, unsupported(err), "Publish with a delay header: %v", err)
	},
}, {
	name:  "delays/malformed",
	rule:  "A delay or ttl that is no whole number of milliseconds is InvalidArgument, or the header is refused.",
	needs: []need{events},
	run: func(c *env) {
		for _, key := range []string{transport.HeaderDelay, transport.HeaderTTL} {
			for _, value := range []string{"", "x", "-1", "1.5", "1s", "99999999999999999999"} {
				ctx, cancel := c.patient()
				err := c.Sender.Publish(ctx, &transport.Message{Topic: c.topic(), Header: transport.Header{key: {value}}})
				cancel()
				if !unsupported(err) {
					c.code(err, transport.CodeInvalidArgument)
				}
			}
		}
	},
}, {
	name:    "delays/ttl",
	rule:    "A message whose ttl has passed is dropped undelivered, or Publish refuses the ttl header.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		s := c.subscribe(topic, transport.Buffer(1))
		c.publish(topic, "first")
		d := c.expect(s, "first") // holds up what follows
		ctx, cancel := c.patient()
		defer cancel()
		err := c.Sender.Publish(ctx, &transport.Message{Topic: topic, Header: transport.Header{"ttl": {"10"}}, Body: []byte("short")})
		if unsupported(err) {
			c.ack(d)
			return
		}
		require.NoError(c, err)
		c.send(&transport.Message{Topic: topic, Header: transport.Header{"ttl": {"3600000"}}, Body: []byte("long")})
		time.Sleep(4 * c.Quiet) // wherever it waits by now: it may have been on its way for a while
		c.ack(d)
		c.ack(c.expect(s, "long"))
		c.nothing(s)
	},
}}
