package broker_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/examples/internal/broker"
	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/transporttest/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestNothingIsLeft(t *testing.T) {
	node := amqptest.New(t, nil)
	list := func() (names []string) {
		for _, what := range []string{"list_queues", "list_exchanges"} {
			out, err := node.Ctl(t.Context(), what, "name", "--formatter", "json")
			require.NoError(t, err)
			var rows []struct{ Name string }
			require.NoError(t, json.Unmarshal(out, &rows), "%s", out)
			for _, row := range rows {
				names = append(names, row.Name)
			}
		}
		return names
	}
	before := list()

	n := broker.New(node.URL(), "test")
	client, err := n.Dial(t.Context())
	require.NoError(t, err)
	other, err := n.Dial(t.Context())
	require.NoError(t, err)
	everyone, err := other.Subscribe(t.Context(), "a.b")
	require.NoError(t, err)
	sub, err := client.Subscribe(t.Context(), "a.b", transport.Group("c.d 100%"), transport.DeadLetter("a.dead"))
	require.NoError(t, err)
	wait := 30 * time.Millisecond
	m := &transport.Message{Topic: "a.b", Header: transport.Header{}}
	m.Header.SetMillis(transport.HeaderDelay, wait)
	require.NoError(t, other.Publish(t.Context(), m))
	d, err := sub.Next(t.Context())
	require.NoError(t, err)
	require.NoError(t, d.Nack(&transport.Error{Code: transport.CodeUnavailable, RetryAfter: wait}))
	d, err = sub.Next(t.Context())
	require.NoError(t, err)
	require.NoError(t, d.Ack())
	require.NoError(t, sub.Close())
	require.NoError(t, everyone.Close())
	require.NoError(t, client.Shutdown(t.Context()))
	require.NoError(t, other.Shutdown(t.Context()))
	require.Greater(t, len(list()), len(before), "queues are durable")

	require.NoError(t, n.Remove(t.Context(), broker.Left{Groups: [][2]string{{"a.b", "c.d 100%"}, {"a.dead", "redrive"}},
		Delays: []time.Duration{wait}, Retries: []time.Duration{wait}}))
	require.ElementsMatch(t, before, list())
}
