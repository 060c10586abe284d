package amqpx

import (
	"fmt"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func TestNames(t *testing.T) {
	named := func(namespace string) *topology { return newTopology(&Client{o: Options{Namespace: namespace}}) }
	require.Equal(t, "shop.group.orders.created.billing", named("shop").groupQueue("orders.created", "billing"))
	require.Equal(t, "a%2Eb.group.x.50%25%2Ey", named("a.b").groupQueue("x", "50%.y"))

	words := []string{"a", "b", "a.b", "b.a", "a.b.c", "a%2Eb", "a%2eb", "%2E", "A", "group", "a.group", "group.a", "ä",
		strings.Repeat("x", 100), strings.Repeat("x", 99) + "y", strings.Repeat("ü.", 50) + "z"}
	seen := map[string]string{}
	for _, namespace := range []string{"n", "n.group.a", "n.group", "intermodal"} {
		topology := named(namespace)
		for _, topic := range words {
			for _, group := range words {
				name := topology.groupQueue(topic, group)
				require.LessOrEqual(t, len(name), maxName)
				what := fmt.Sprintf("%q %q %q", namespace, topic, group)
				require.Empty(t, seen[name], "%s has the name of another: %s", what, name)
				seen[name] = what
				require.True(t, topology.isGroup(name))
			}
			for _, kind := range []string{"call", "log", "sub"} {
				name := topology.name(kind, topic)
				require.Empty(t, seen[name], name)
				seen[name] = kind + topic
				require.False(t, topology.isGroup(name))
			}
		}
	}
}

func refusal(reason string) error {
	return brokerError(&amqp.Error{Code: amqp.PreconditionFailed, Server: true, Reason: reason})
}

func TestInequivalent(t *testing.T) {
	const begin = "PRECONDITION_FAILED - inequivalent arg 'x-y' for queue 'it's %s but current is' in vhost '/': received "
	for _, c := range []struct{ rest, current string }{
		{"'104' but current is '110'", "110"},
		{"none but current is the value '110' of type 'long'", "110"},
		{"the value 'a' of type 'longstr' but current is none", ""},
		{"'?' but current is 'it's a 'topic''", "it's a 'topic'"},
		{"none but current is the value 'it's a topic' of type 'longstr'", "it's a topic"},
		{"none but current is the value 'cut o...", ""},
		{"none but curre...", ""},
		{"", ""},
	} {
		// A name that looks like a part of the text makes what is learned wrong, and then no declaration succeeds.
		arg, current, ok := inequivalent(refusal(strings.Replace(begin, " but current is", "", 1) + c.rest))
		require.True(t, ok)
		require.Equal(t, "x-y", arg)
		require.Equal(t, c.current, current, c.rest)
	}
	for _, err := range []error{nil, transport.CodeNotFound, refusal("PRECONDITION_FAILED - unknown delivery tag 1"),
		brokerError(&amqp.Error{Code: amqp.NotFound, Server: true, Reason: "inequivalent arg 'x'"})} {
		_, _, ok := inequivalent(err)
		require.False(t, ok)
	}
}

// FuzzInequivalent feeds any text of the broker to what learns from it.
func FuzzInequivalent(f *testing.F) {
	f.Add("inequivalent arg 'x-delivery-limit' for queue 'q' in vhost '/': " +
		"received none but current is the value '110' of type 'long'")
	f.Add("inequivalent arg 'x-dead-letter-exchange' for queue 'q' in vhost '/': received none but current is 'n'")
	f.Add("inequivalent arg 'x-dead-letter-routing-key' for queue 'q' in vhost '/': received '?' but current is 'dead'")
	f.Add("inequivalent arg 'x-single-active-consumer' for queue 'q' in vhost '/': received none but current is 'true'")
	f.Add("inequivalent arg '")
	topology := newTopology(&Client{o: Options{Namespace: "n"}})
	f.Fuzz(func(t *testing.T, reason string) {
		want := settings{maxAttempts: 3}
		if topology.learn(&want, transport.SubscribeOptions{Group: "g"}, refusal(reason)) == nil {
			require.Positive(t, want.maxAttempts)
			require.NoError(t, topology.args(want).Validate())
		}
		demanded := settings{maxAttempts: 3, deadLetter: "dead", ordered: true}
		before := demanded
		so := transport.SubscribeOptions{Group: "g", MaxAttempts: 3, DeadLetter: "dead", Require: transport.Ordered}
		require.Error(t, topology.learn(&demanded, so, refusal(reason)), "what is demanded is never given up")
		require.Equal(t, before, demanded)
	})
}
