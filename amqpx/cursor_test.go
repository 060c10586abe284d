package amqpx

import (
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func TestCursor(t *testing.T) {
	d := amqp.Delivery{Exchange: "e", RoutingKey: "k", MessageId: "id", Body: []byte("body")}
	for _, c := range []cursor{{}, {before: true}, {offset: 1<<63 - 1}, {sum: sumOf("t", "s", &d), offset: 4711}} {
		text := c.String()
		require.LessOrEqual(t, len(text), transport.MaxCursorBytes)
		got, err := parseCursor(text)
		require.NoError(t, err)
		require.Equal(t, c, got)
	}
	require.Equal(t, "aAAAAAAAAAAAAAAAA-7", cursor{offset: 7}.String(), "cursors outlive a release")
}

func TestParseCursor(t *testing.T) {
	good := cursor{offset: 12}.String()
	for _, text := range []string{"", "a", "12", transport.Oldest, good[1:], "c" + good[1:], good + "x", good + " ",
		" " + good, strings.Replace(good, "-", "_", 1), good[:len(good)-2], "aAAAAAAAAAAAAAAA\n-7",
		"aAAAAAAAAAAAAAAA=-7", "aAAAAAAAAAAAAAAA+-7",
		"aAAAAAAAAAAAAAAAA-07", "aAAAAAAAAAAAAAAAA--7", "aAAAAAAAAAAAAAAAA-+7", "aAAAAAAAAAAAAAAAA-9223372036854775808",
		"aAAAAAAAAAAAAAAAA-" + strings.Repeat("1", 100)} {
		_, err := parseCursor(text)
		require.ErrorIs(t, err, transport.CodeOutOfRange, "%q", text)
	}
}

// TestSum changes each part of what a cursor is a hash of.
func TestSum(t *testing.T) {
	base := func() amqp.Delivery {
		return amqp.Delivery{Exchange: "e", RoutingKey: "k", MessageId: "id", Timestamp: time.Unix(1, 0),
			Body: []byte("body")}
	}
	d := base()
	seen := map[sum]string{sumOf("t", "s", &d): "nothing"}
	add := func(what string, s sum) {
		require.Empty(t, seen[s], "%s makes no difference", what)
		seen[s] = what
	}
	add("the topic", sumOf("u", "s", &d))
	add("the stream", sumOf("t", "r", &d))
	for what, change := range map[string]func(*amqp.Delivery){
		"the exchange":    func(d *amqp.Delivery) { d.Exchange = "" },
		"the routing key": func(d *amqp.Delivery) { d.RoutingKey = "ki"; d.MessageId = "d" },
		"the ID":          func(d *amqp.Delivery) { d.MessageId = "" },
		"the time":        func(d *amqp.Delivery) { d.Timestamp = time.Unix(2, 0) },
		"no time":         func(d *amqp.Delivery) { d.Timestamp = time.Time{} },
		"the body":        func(d *amqp.Delivery) { d.Body = nil },
	} {
		d := base()
		change(&d)
		add(what, sumOf("t", "s", &d))
	}
}

// FuzzCursor holds that no text is taken that would be written in another way.
func FuzzCursor(f *testing.F) {
	for _, seed := range []string{"", "aAAAAAAAAAAAAAAAA-7", "b_-_-_-_-_-_-_-_--0",
		"aAAAAAAAAAAAAAAAA-9223372036854775807",
		"aAAAAAAAAAAAAAAAA-9223372036854775808", "aAAAAAAA\r\nAAAAAAA-7", transport.Oldest, "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseCursor(text)
		if err != nil {
			require.ErrorIs(t, err, transport.CodeOutOfRange)
			return
		}
		require.Equal(t, text, c.String())
		require.GreaterOrEqual(t, c.offset, int64(0))
	})
}

func TestMatches(t *testing.T) {
	for pattern, topics := range map[string]map[string]bool{
		"#":       {"a": true, "a.b": true, "a.b.c": true},
		"*":       {"a": true, "a.b": false},
		"a":       {"a": true, "b": false, "a.b": false},
		"a.*":     {"a": false, "a.b": true, "a.b.c": false, "b.b": false},
		"a.#":     {"a": true, "a.b": true, "a.b.c": true, "b": false, "ab": false},
		"#.z":     {"z": true, "a.z": true, "a.b.z": true, "z.a": false},
		"a.#.z":   {"a.z": true, "a.b.c.z": true, "a": false, "z": false},
		"*.b.#":   {"a.b": true, "a.b.c": true, "b": false, "a.c": false},
		"#.b.#.c": {"b.c": true, "a.b.x.y.c": true, "b": false},
	} {
		for topic, want := range topics {
			require.Equal(t, want, matches(strings.Split(pattern, "."), strings.Split(topic, ".")), "%s against %s", topic,
				pattern)
		}
	}
}
