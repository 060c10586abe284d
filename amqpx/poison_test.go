package amqpx_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/transport"
)

// TestPoison mixes messages that can never be handled among good ones. They are dead-lettered, with what there is to
// know about them; the others flow.
func TestPoison(t *testing.T) {
	t.Parallel()
	node := newVictim(t)
	ns := "poison" + transport.NewID()
	client := faulty(t, node.URL(), amqpx.Options{Namespace: ns, MaxBytes: 2000})
	type order struct{ N int }
	orders := transport.Event[order]{Topic: "orders"}
	s, err := client.Subscribe(t.Context(), "orders", transport.Group("g"), transport.MaxAttempts(3),
		transport.DeadLetter("orders.dead"),
		transport.Buffer(4))
	require.NoError(t, err)

	const n = 50
	theirs := plainChannel(t, node.URL())
	poison := map[string]string{ // by ID: the code that its dead letter has
		"not JSON": "invalid_argument", "always fails": "unknown", "panics": "internal", "refused": "permission_denied",
		"too large": "resource_exhausted",
	}
	foreign := func(m amqp.Publishing) {
		require.NoError(t, theirs.PublishWithContext(t.Context(), ns, "orders", false, false, m))
	}
	for i := range n {
		switch i {
		case 5:
			foreign(amqp.Publishing{MessageId: "not JSON", ContentType: "application/json", Body: []byte("{\xff")})
		case 10:
			foreign(amqp.Publishing{MessageId: "always fails", Body: []byte(`{"N":-1}`), Headers: amqp.Table{"keep": "me"}})
		case 15:
			foreign(amqp.Publishing{MessageId: "panics", Body: []byte(`{"N":-2}`)})
		case 20:
			foreign(amqp.Publishing{MessageId: "refused", Body: []byte(`{"N":-3}`)})
		case 25:
			foreign(amqp.Publishing{MessageId: "too large", Body: []byte(strings.Repeat(" ", 3000) + `{"N":0}`)})
		}
		require.NoError(t, orders.Publish(t.Context(), client, order{i}))
	}

	var mu sync.Mutex
	good, tries := map[int]int{}, map[int]int{}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- transport.Serve(ctx, s, orders.Handler(func(_ context.Context, o order) error {
			mu.Lock()
			defer mu.Unlock()
			if o.N >= 0 {
				good[o.N]++
				return nil
			}
			switch tries[o.N]++; o.N {
			case -2:
				panic("poison")
			case -3:
				return transport.Errorf(transport.CodePermissionDenied, "not for us")
			}
			return errors.New("always")
		}), transport.Workers(2), transport.OnError(func(*transport.Message, error) {}))
	}()
	waitFor(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(good) == n
	})

	roomy := faulty(t, node.URL(), amqpx.Options{Namespace: ns}) // or the dead letter would be too large as well
	dead, err := roomy.Subscribe(t.Context(), "orders.dead", transport.Group("redrive"))
	require.NoError(t, err)
	for len(poison) > 0 {
		d := nextOf(t, dead)
		code, known := poison[d.ID]
		require.True(t, known, "%s", d.ID)
		require.Equal(t, code, d.Header.Get(transport.HeaderDeadLetterCode), d.ID)
		require.Equal(t, "orders", d.Header.Get(transport.HeaderDeadLetterTopic))
		attempts := map[bool]string{true: "3", false: "1"}[d.ID == "always fails" || d.ID == "panics"]
		require.Equal(t, attempts, d.Header.Get(transport.HeaderDeadLetterAttempts), d.ID)
		if d.ID == "always fails" {
			require.Equal(t, "me", d.Header.Get("keep"))
			require.Equal(t, `{"N":-1}`, string(d.Body))
		}
		require.NoError(t, d.Ack())
		delete(poison, d.ID)
	}
	stop()
	require.NoError(t, <-served)
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, map[int]int{-1: 3, -2: 3, -3: 1}, tries)
	for i := range n {
		require.Equal(t, 1, good[i])
	}
	require.Empty(t, messages(t, node, ns), "nothing is left in any queue")
}

// messages returns how many each queue with part in its name has, empty ones left out.
func messages(t *testing.T, node interface {
	Ctl(context.Context, ...string) ([]byte, error)
}, part string) map[string]int {
	left := map[string]int{}
	waitOr := func() bool {
		clear(left)
		out, err := node.Ctl(t.Context(), "list_queues", "name", "messages", "--formatter", "json")
		require.NoError(t, err)
		var rows []struct {
			Name     string
			Messages int
		}
		require.NoError(t, json.Unmarshal(out, &rows), "%s", out)
		for _, r := range rows {
			if strings.Contains(r.Name, part) && r.Messages > 0 {
				left[r.Name] = r.Messages
			}
		}
		return len(left) == 0
	}
	for range 10 { // the counts lag behind
		if waitOr() {
			break
		}
	}
	return left
}

// TestPoisonOfTheProcess is a message that kills whoever handles it: nobody settles it. The broker counts for us, and
// gives it up after MaxAttempts and a hundred more.
func TestPoisonOfTheProcess(t *testing.T) {
	t.Parallel()
	url := amqptest.URL(t)
	ns := "killer" + transport.NewID()
	client := faulty(t, url, amqpx.Options{Namespace: ns})
	opts := []transport.SubscribeOption{transport.Group("g"), transport.MaxAttempts(1), transport.DeadLetter("dead")}
	s, err := client.Subscribe(t.Context(), "work", opts...)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, client.Publish(t.Context(), &transport.Message{ID: "killer", Topic: "work"}))
	dead, err := client.Subscribe(t.Context(), "dead", transport.Group("redrive"))
	require.NoError(t, err)
	for i := range 150 {
		ctx, cancel := context.WithCancel(t.Context())
		died := make(chan bool, 1)
		go func() {
			d, err := dead.Next(ctx)
			if err == nil {
				d.Ack()
			}
			died <- err == nil && d.ID == "killer"
		}()
		c, err := amqpx.Dial(t.Context(), url, &amqpx.Options{Namespace: ns})
		require.NoError(t, err)
		s, err := c.Subscribe(t.Context(), "work", opts...)
		require.NoError(t, err)
		next, stop := context.WithTimeout(t.Context(), 5e9)
		_, err = s.Next(next)
		stop()
		c.Close() // the connection is gone, and nothing was settled
		cancel()
		if <-died {
			require.Greater(t, i, 50)
			t.Logf("given up after %d deliveries", i)
			return
		}
		require.NoError(t, err, fmt.Sprint(i))
	}
	require.Fail(t, "it goes round for ever")
}
