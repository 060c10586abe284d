package amqpx_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/transport"
)

// within gives a context for one step, which must not hang.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// plainChannel is a channel of a program that knows nothing of this package.
func plainChannel(t *testing.T, url string) *amqp.Channel {
	c, err := amqp.Dial(url)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	ch, err := c.Channel()
	require.NoError(t, err)
	return ch
}

func hasCode(t *testing.T, want transport.Code, err error) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, want, transport.CodeOf(err), "%v", err)
}

func TestDialErrors(t *testing.T) {
	t.Parallel()
	broker := amqptest.URL(t)
	with := func(change func(*url.URL)) string {
		u, err := url.Parse(broker)
		require.NoError(t, err)
		change(u)
		return u.String()
	}
	silent := amqptest.NewRelay(t, broker)
	silent.Stall()
	closing := amqptest.NewRelay(t, broker)
	closing.Refuse()
	web, err := net.Listen("tcp", "127.0.0.1:0") // answers, but in no AMQP
	require.NoError(t, err)
	served := make(chan struct{})
	t.Cleanup(func() { web.Close(); <-served })
	go func() {
		defer close(served)
		for {
			c, err := web.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"))
			c.Close()
		}
	}()
	for _, c := range []struct {
		name string
		url  string
		code transport.Code
	}{
		{"wrong password", with(func(u *url.URL) { u.User = url.UserPassword("guest", "secret-word") }),
			transport.CodeUnauthenticated},
		{"unknown user", with(func(u *url.URL) { u.User = url.UserPassword("nobody", "secret-word") }),
			transport.CodeUnauthenticated},
		{"unknown virtual host", with(func(u *url.URL) { u.Path = "/nowhere" }), transport.CodeNotFound},
		{"nobody listens", with(func(u *url.URL) {
			u.Host = "127.0.0.1:1"
			u.User = url.UserPassword("guest", "secret-word")
		}), transport.CodeUnavailable},
		{"unknown host", with(func(u *url.URL) {
			u.Host = "no-such-host.invalid:5672"
			u.User = url.UserPassword("guest", "secret-word")
		}), transport.CodeUnavailable},
		{"a host that says nothing", silent.URL(), transport.CodeUnavailable},
		{"a host that hangs up", closing.URL(), transport.CodeUnavailable},
		{"not AMQP", "amqp://guest:secret-word@" + web.Addr().String(), transport.CodeUnavailable},
		{"another scheme", "http://guest:secret-word@localhost/", transport.CodeInvalidArgument},
		{"no URL", "amqp://guest:secret-word@[::1/", transport.CodeInvalidArgument},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			client, err := amqpx.Dial(within(t, 20*time.Second), c.url, &amqpx.Options{DialTimeout: 2 * time.Second})
			require.Nil(t, client)
			hasCode(t, c.code, err)
			require.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), "secret-word")
			require.Less(t, time.Since(began), 8*time.Second)
			t.Log(err)
		})
	}
	t.Run("ctx", func(t *testing.T) {
		_, err := amqpx.Dial(within(t, 100*time.Millisecond), silent.URL(), nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// TestBlocked sets off the broker's alarms: publishers feel back pressure, consumers go on.
func TestBlocked(t *testing.T) {
	t.Parallel()
	node := newVictim(t)
	for _, c := range []struct {
		alarm    string
		set, end []string
	}{
		{"memory", []string{"set_vm_memory_high_watermark", "absolute", "1MB"},
			[]string{"set_vm_memory_high_watermark", "absolute", "1GB"}},
		{"disk", []string{"set_disk_free_limit", "100000GB"}, []string{"set_disk_free_limit", "50MB"}},
	} {
		t.Run(c.alarm, func(t *testing.T) {
			client := faulty(t, node.URL(), amqpx.Options{})
			s, err := client.Subscribe(t.Context(), "work", transport.Group("g"))
			require.NoError(t, err)
			for i := range 10 {
				require.NoError(t, client.Publish(t.Context(), &transport.Message{ID: fmt.Sprint("before ", i), Topic: "work"}))
			}
			over := false
			end := func() {
				if !over {
					_, err := node.Ctl(context.Background(), c.end...)
					require.NoError(t, err)
				}
				over = true
			}
			defer end()
			_, err = node.Ctl(t.Context(), c.set...)
			require.NoError(t, err)

			// The broker tells only who publishes. It may have taken what it was told then, nobody knows.
			began := time.Now()
			var e *transport.Error
			for i := 0; !client.Stats().Blocked; i++ {
				if err := client.Publish(within(t, 200*time.Millisecond),
					&transport.Message{ID: fmt.Sprint("unsure ", i), Topic: "work"}); err != nil {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.ErrorAs(t, err, &e)
					require.Equal(t, transport.ReasonOutcomeUnknown, e.Reason)
				}
				require.Less(t, time.Since(began), 20*time.Second)
			}
			hasCode(t, transport.CodeUnavailable, client.Health(within(t, 5*time.Second)))
			// From now on nothing is written.
			err = client.Publish(within(t, 300*time.Millisecond), &transport.Message{ID: "second", Topic: "work"})
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorAs(t, err, &e)
			require.Equal(t, transport.ReasonNotSent, e.Reason)
			require.Less(t, time.Since(began), 10*time.Second)
			waiting := make(chan error, 1)
			go func() { waiting <- client.Publish(t.Context(), &transport.Message{ID: "patient", Topic: "work"}) }()

			for i := range 10 { // consuming goes on
				d, err := s.Next(within(t, 5*time.Second))
				require.NoError(t, err)
				require.Equal(t, fmt.Sprint("before ", i), d.ID)
				require.NoError(t, d.Ack())
			}
			other, err := client.Subscribe(within(t, 5*time.Second), "other", transport.Group("g"))
			require.NoError(t, err, "subscribing too")
			require.NoError(t, other.Close())

			end()
			require.NoError(t, <-waiting)
			for id := ""; id != "patient"; {
				d, err := s.Next(within(t, 5*time.Second))
				require.NoError(t, err)
				require.NoError(t, d.Ack())
				id = d.ID
				require.NotEqual(t, "second", id, "it was not sent")
			}
			require.False(t, client.Stats().Blocked)
			require.NoError(t, client.Health(t.Context()))
			require.EqualValues(t, 1, client.Stats().Generation, "an alarm is no reason to hang up")
		})
	}
}

// TestBlockedWithMuchToSay has more to write than fits into the buffers on the way when the broker stops reading. That
// is no dead connection.
func TestBlockedWithMuchToSay(t *testing.T) {
	t.Parallel()
	node := newVictim(t)
	client := faulty(t, node.URL(), amqpx.Options{MethodTimeout: time.Second})
	s, err := client.Subscribe(t.Context(), "work", transport.Group("g"))
	require.NoError(t, err)
	_, err = node.Ctl(t.Context(), "set_disk_free_limit", "100000GB")
	require.NoError(t, err)
	body := make([]byte, 512<<10)
	done := make(chan []error, 1)
	const n = 64
	go func() {
		var ms []*transport.Message
		for i := range n {
			ms = append(ms, &transport.Message{ID: fmt.Sprint(i), Topic: "work", Body: body})
		}
		done <- client.PublishAll(t.Context(), ms...)
	}()
	waitFor(t, func() bool { return client.Stats().Blocked })
	time.Sleep(5 * time.Second) // the alarm lasts much longer than MethodTimeout
	generation := client.Stats().Generation
	_, err = node.Ctl(t.Context(), "set_disk_free_limit", "50MB")
	require.NoError(t, err)
	for _, err := range <-done {
		require.NoError(t, err)
	}
	for i := range n {
		d, err := s.Next(within(t, 10*time.Second))
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), d.ID, "in order, and once")
		require.NoError(t, d.Ack())
	}
	require.EqualValues(t, 1, generation, "the connection was made anew, though it was only slow")
}

// queues lists the names of the queues that have part in their name.
func queues(t *testing.T, node *amqptest.Node, part string) (names []string) {
	out, err := node.Ctl(t.Context(), "list_queues", "name", "--formatter", "json")
	require.NoError(t, err)
	var rows []struct{ Name string }
	require.NoError(t, json.Unmarshal(out, &rows), "%s", out)
	for _, r := range rows {
		if strings.Contains(r.Name, part) {
			names = append(names, r.Name)
		}
	}
	return names
}

// TestDeletedQueue deletes queues under their consumers: whoever loses messages by it is told.
func TestDeletedQueue(t *testing.T) {
	t.Parallel()
	node := newVictim(t)
	for _, c := range []struct {
		name    string
		history []amqpx.History
		opts    []transport.SubscribeOption
		code    transport.Code
	}{
		{"group", nil, []transport.SubscribeOption{transport.Group("g")}, transport.CodeDataLoss},
		{"broadcast", nil, nil, transport.CodeDataLoss},
		{"history", []amqpx.History{{Topics: "doomed"}}, nil, transport.CodeOutOfRange}, // there is no such cursor any more
	} {
		t.Run(c.name, func(t *testing.T) {
			ns := "deleted" + transport.NewID()
			client := faulty(t, node.URL(), amqpx.Options{Namespace: ns, History: c.history})
			s, err := client.Subscribe(t.Context(), "doomed", c.opts...)
			require.NoError(t, err)
			found := slices.DeleteFunc(queues(t, node, ns), func(name string) bool { return strings.HasSuffix(name, ".lost") })
			require.Len(t, found, 1)
			_, err = plainChannel(t, node.URL()).QueueDelete(found[0], false, false, false)
			require.NoError(t, err)
			_, err = s.Next(within(t, 10*time.Second))
			hasCode(t, c.code, err)
			t.Log(err)
			_, again := s.Next(t.Context())
			require.Equal(t, err, again)
			require.NoError(t, s.Close())

			// The client itself is sound: it makes the queue anew for who asks.
			s, err = client.Subscribe(within(t, 10*time.Second), "doomed", c.opts...)
			require.NoError(t, err)
			require.NoError(t, client.Publish(t.Context(), &transport.Message{ID: "new", Topic: "doomed"}))
			d, err := s.Next(within(t, 10*time.Second))
			require.NoError(t, err)
			require.Equal(t, "new", d.ID)
		})
	}
}

// TestDeletedExchange deletes the exchange. Bindings go with it, so what is published then would reach nobody.
func TestDeletedExchange(t *testing.T) {
	t.Parallel()
	node := newVictim(t)
	ns := "gone" + transport.NewID()
	client := faulty(t, node.URL(), amqpx.Options{Namespace: ns})
	s, err := client.Subscribe(t.Context(), "news", transport.Group("g"))
	require.NoError(t, err)
	require.NoError(t, plainChannel(t, node.URL()).ExchangeDelete(ns, false, false))
	err = client.Publish(within(t, 10*time.Second), &transport.Message{ID: "one", Topic: "news"})
	require.NotErrorIs(t, err, context.DeadlineExceeded, "no hang")
	t.Logf("publish: %v", err)
	if err == nil {
		d, err := s.Next(within(t, 10*time.Second))
		require.NoError(t, err, "a publish that succeeds into a new exchange must reach the group")
		require.Equal(t, "one", d.ID)
	} else {
		hasCode(t, transport.CodeNotFound, err)
	}
}

// TestMissingExchange uses an exchange that somebody else should have made.
func TestMissingExchange(t *testing.T) {
	t.Parallel()
	node := newVictim(t)
	name := "theirs" + transport.NewID()
	o := amqpx.Options{Namespace: "n" + transport.NewID(), Exchange: name}
	client, err := amqpx.Dial(within(t, 10*time.Second), node.URL(), &o)
	if err == nil {
		defer client.Close()
		err = client.Publish(within(t, 10*time.Second), &transport.Message{Topic: "news"})
		hasCode(t, transport.CodeNotFound, err)
		_, err = client.Subscribe(within(t, 10*time.Second), "news", transport.Group("g"))
	}
	hasCode(t, transport.CodeNotFound, err)
	t.Log(err)
	ch := plainChannel(t, node.URL())
	require.NoError(t, ch.ExchangeDeclare(name, "topic", false, false, false, false, nil))
	if client == nil {
		client, err = amqpx.Dial(within(t, 10*time.Second), node.URL(), &o)
		require.NoError(t, err)
		defer client.Close()
	}
	s, err := client.Subscribe(within(t, 10*time.Second), "news", transport.Group("g"))
	require.NoError(t, err)
	require.NoError(t, client.Publish(within(t, 10*time.Second), &transport.Message{ID: "one", Topic: "news"}))
	d, err := s.Next(within(t, 10*time.Second))
	require.NoError(t, err)
	require.Equal(t, "one", d.ID)

	// It exists now, and is of another kind than what we would declare: it is used as it is, never declared.
	require.NoError(t, ch.ExchangeDeclarePassive(name, "topic", false, false, false, false, nil))
}

// TestClosedChannel lets the broker close a consumer's channel, since a message is held for longer than it allows
// (consumer_timeout). The message comes again, and the late acknowledgement settles nothing.
func TestClosedChannel(t *testing.T) {
	t.Parallel()
	node := newVictim(t)
	set := func(timeout, tick int) {
		_, err := node.Ctl(context.Background(), "eval", fmt.Sprintf("application:set_env(rabbit, consumer_timeout, %d), "+
			"application:set_env(rabbit, channel_tick_interval, %d).", timeout, tick))
		require.NoError(t, err)
	}
	set(1000, 1000)
	defer set(1800000, 60000)
	ns := "timeout" + transport.NewID()
	client := faulty(t, node.URL(), amqpx.Options{Namespace: ns})
	s, err := client.Subscribe(t.Context(), "slow", transport.Group("g"))
	require.NoError(t, err)
	require.NoError(t, client.Publish(t.Context(), &transport.Message{ID: "slow", Topic: "slow"}))
	held, err := s.Next(within(t, 10*time.Second))
	require.NoError(t, err)
	again, err := s.Next(within(t, 30*time.Second))
	require.NoError(t, err)
	require.Equal(t, "slow", again.ID)
	require.NoError(t, client.Publish(t.Context(), &transport.Message{ID: "quick", Topic: "slow"}))
	hasCode(t, transport.CodeUnavailable, held.Ack())
	require.EqualValues(t, 1, client.Stats().StaleAcks)
	require.NoError(t, again.Ack())
	d, err := s.Next(within(t, 10*time.Second))
	require.NoError(t, err)
	require.Equal(t, "quick", d.ID)
	require.NoError(t, d.Ack())
	require.NoError(t, s.Close())
	require.EqualValues(t, 1, client.Stats().Generation, "the connection was sound")
}

// TestMismatch finds a queue that others have declared in another way: that is reported, and the queue stays as it is.
func TestMismatch(t *testing.T) {
	t.Parallel()
	node := newVictim(t)
	ns := "mismatch" + transport.NewID()
	client := faulty(t, node.URL(), amqpx.Options{Namespace: ns})
	s, err := client.Subscribe(t.Context(), "t", transport.Group("g"))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	found := queues(t, node, ns)
	require.Len(t, found, 1)
	ch := plainChannel(t, node.URL())
	_, err = ch.QueueDelete(found[0], false, false, false)
	require.NoError(t, err)
	_, err = ch.QueueDeclare(found[0], true, false, false, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeClassic})
	require.NoError(t, err)
	other := faulty(t, node.URL(), amqpx.Options{Namespace: ns})
	_, err = other.Subscribe(within(t, 10*time.Second), "t", transport.Group("g"))
	hasCode(t, transport.CodeFailedPrecondition, err)
	t.Log(err)
	_, err = ch.QueueDeclarePassive(found[0], true, false, false, false, nil)
	require.NoError(t, err, "it is still there")
	require.NoError(t, other.Publish(within(t, 5*time.Second), &transport.Message{Topic: "t"}), "the client is still good")
}
