package amqpx_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/compose"
)

// again asks for redelivery after wait.
func again(wait time.Duration) error {
	return &transport.Error{Code: transport.CodeUnavailable, RetryAfter: wait}
}

// TestGroupLearns lets a client join a group of which it knows the name alone. What it does with messages that fail is
// what the group's creator wanted.
func TestGroupLearns(t *testing.T) {
	ns := "t" + transport.NewID()
	creator, joiner := dialed(t, amqpx.Options{Namespace: ns}), dialed(t, amqpx.Options{Namespace: ns})
	g := transport.Group("g")
	require.NoError(t, subscribed(t, creator, "jobs", g, transport.MaxAttempts(2), transport.DeadLetter("jobs.dead"),
		transport.Require(transport.Ordered)).Close())
	dead := subscribed(t, creator, "jobs.dead")
	s := subscribed(t, joiner, "jobs", g)
	published(t, creator, "jobs", "1", "2")
	require.NoError(t, next(t, s).Nack(again(time.Millisecond)))
	nothing(t, dead)
	d := next(t, s)
	require.Equal(t, 2, d.Attempt)
	nothing(t, s) // in order, though it did not ask for that
	require.NoError(t, d.Nack(again(time.Millisecond)))
	d = next(t, dead)
	require.Equal(t, "1", string(d.Body))
	require.Equal(t, "2", d.Header.Get(transport.HeaderDeadLetterAttempts))
	require.Equal(t, []string{"2"}, taken(t, s, 1))

	for _, demand := range []transport.SubscribeOption{transport.MaxAttempts(3), transport.DeadLetter("elsewhere")} {
		_, err := joiner.Subscribe(t.Context(), "jobs", g, demand)
		hasCode(t, transport.CodeFailedPrecondition, err)
	}
}

// TestGroupCannotLearn has a dead letter topic so long that the broker's error text ends before it.
func TestGroupCannotLearn(t *testing.T) {
	c := dialed(t, amqpx.Options{})
	long := transport.DeadLetter(strings.Repeat("x", transport.MaxTopicBytes))
	subscribed(t, c, "jobs", transport.Group("g"), long)
	_, err := c.Subscribe(t.Context(), "jobs", transport.Group("g"))
	hasCode(t, transport.CodeFailedPrecondition, err)
	require.ErrorContains(t, err, "name it")
	subscribed(t, c, "jobs", transport.Group("g"), long)
}

// TestGroupGivesBackForEver gives a message back more often than the broker would allow.
func TestGroupGivesBackForEver(t *testing.T) {
	c := dialed(t, amqpx.Options{})
	s := subscribed(t, c, "jobs", transport.Group("g"), transport.MaxAttempts(1))
	published(t, c, "jobs", "1")
	for range 250 {
		d := next(t, s)
		require.Equal(t, 1, d.Attempt)
		require.NoError(t, d.Nack(transport.CodeCanceled))
	}
	require.Equal(t, []string{"1"}, taken(t, s, 1))
	nothing(t, s)
}

// TestGroupAttemptsTravel counts attempts over members of different clients.
func TestGroupAttemptsTravel(t *testing.T) {
	ns := "t" + transport.NewID()
	g := []transport.SubscribeOption{transport.Group("g"), transport.MaxAttempts(3), transport.DeadLetter("dead")}
	keeper := dialed(t, amqpx.Options{Namespace: ns})
	dead := subscribed(t, keeper, "dead")
	require.NoError(t, subscribed(t, keeper, "jobs", g...).Close())
	require.NoError(t, keeper.Publish(t.Context(), &transport.Message{ID: "the-id", Topic: "jobs",
		Header: transport.Header{"k": {"v", "w"}, "ttl": {"60000"}}, Body: []byte("body")}))
	for attempt := 1; attempt <= 3; attempt++ {
		c := dialed(t, amqpx.Options{Namespace: ns})
		d := next(t, subscribed(t, c, "jobs", g...))
		require.Equal(t, attempt, d.Attempt)
		require.Equal(t, "the-id", d.ID)
		require.Equal(t, []string{"v", "w"}, d.Header.Values("k"))
		require.Equal(t, "60000", d.Header.Get("ttl"))
		require.Len(t, d.Header, 2)
		require.NoError(t, d.Nack(again(time.Millisecond)))
		require.NoError(t, c.Close())
	}
	d := next(t, dead)
	require.Equal(t, "the-id", d.ID)
	require.Equal(t, []string{"v", "w"}, d.Header.Values("k"))
	require.Empty(t, d.Header.Get("ttl"))
	require.Len(t, d.Header, 5)
}

// TestOrderedMemberCloses closes the active member of an ordered group while a message is out, or waits to come again:
// nobody gets what follows before that is settled.
func TestOrderedMemberCloses(t *testing.T) {
	t.Parallel()
	c := dialed(t, amqpx.Options{})
	ordered := []transport.SubscribeOption{transport.Group("g"), transport.Require(transport.Ordered)}
	for _, settle := range []error{nil, transport.CodeCanceled, again(time.Millisecond), transport.CodeInvalidArgument} {
		topic := "jobs." + transport.NewID()
		a, b := subscribed(t, c, topic, ordered...), subscribed(t, c, topic, ordered...)
		published(t, c, topic, numbers(1, 20)...)
		d := next(t, a)
		require.NoError(t, a.Close())
		nothing(t, b)
		require.NoError(t, d.Settle(nil, settle))
		first := 2
		if settle != nil && settle != transport.CodeInvalidArgument {
			first = 1
		}
		require.Equal(t, numbers(first, 20), taken(t, b, 21-first))
		nothing(t, b)
	}
	t.Run("waiting", func(t *testing.T) {
		a, b := subscribed(t, c, "jobs", ordered...), subscribed(t, c, "jobs", ordered...)
		published(t, c, "jobs", numbers(1, 5)...)
		require.NoError(t, next(t, a).Nack(again(time.Hour)))
		nothing(t, b)
		require.NoError(t, a.Close())
		require.Equal(t, numbers(1, 5), taken(t, b, 5))
	})
}

// TestOrderedMemberAway cuts the connection of an ordered group's member: it knows what the broker does not, the number
// of the attempt and how long the message has to wait.
func TestOrderedMemberAway(t *testing.T) {
	ns := "t" + transport.NewID()
	c, leave, back := away(t, amqpx.Options{Namespace: ns})
	s := subscribed(t, c, "jobs", transport.Group("g"), transport.Require(transport.Ordered), transport.MaxAttempts(3))
	published(t, c, "jobs", "1", "2")
	start := time.Now()
	require.NoError(t, next(t, s).Nack(again(500*time.Millisecond)))
	leave()
	back()
	d := next(t, s)
	require.Equal(t, "1", string(d.Body))
	require.Equal(t, 2, d.Attempt)
	require.GreaterOrEqual(t, time.Since(start), 500*time.Millisecond)
	leave() // while it is out
	back()
	for err := d.Nack(again(time.Millisecond)); err != nil || d.Attempt < 3; err = d.Nack(again(time.Millisecond)) {
		before := d.Attempt // a Nack may fail because the loss is noticed, or be good because it is not yet
		d = next(t, s)
		require.Equal(t, "1", string(d.Body))
		require.Contains(t, []int{before, before + 1}, d.Attempt)
	}
	for d = next(t, s); string(d.Body) == "1"; d = next(t, s) {
		d.Ack() // the last Nack was good because the loss was not noticed yet
	}
	require.Equal(t, "2", string(d.Body))
	require.NoError(t, d.Ack())
}

// TestOrderedGiveBackAndClose: an ordered member that gives back and closes leaves the message to the next one.
func TestOrderedGiveBackAndClose(t *testing.T) {
	c := dialed(t, amqpx.Options{})
	ordered := []transport.SubscribeOption{transport.Group("g"), transport.Require(transport.Ordered)}
	require.NoError(t, subscribed(t, c, "jobs", ordered...).Close())
	published(t, c, "jobs", "1")
	for range 50 { // fewer than the broker's delivery limit
		s := subscribed(t, c, "jobs", ordered...)
		require.NoError(t, next(t, s).Nack(transport.CodeCanceled))
		require.NoError(t, s.Close())
	}
}

// TestGroupTTL lets the broker drop what is too old, though the group has dead letters: these are for what failed.
func TestGroupTTL(t *testing.T) {
	c := dialed(t, amqpx.Options{})
	dead := subscribed(t, c, "dead")
	letters := subscribed(t, c, "dead", transport.Group("letters"))
	s := subscribed(t, c, "jobs", transport.Group("g"), transport.DeadLetter("dead"), transport.Buffer(1))
	published(t, c, "jobs", "first")
	d := next(t, s)
	require.NoError(t, c.Publish(t.Context(), &transport.Message{Topic: "jobs",
		Header: transport.Header{"ttl": {"20"}}, Body: []byte("short")}))
	time.Sleep(100 * time.Millisecond)
	require.NoError(t, d.Ack())
	published(t, c, "jobs", "last")
	require.Equal(t, []string{"last"}, taken(t, s, 1))
	nothing(t, dead)
	nothing(t, letters)
}

// TestDeadLettersWait refuses messages before anybody listens to dead letters: they are kept for the group redrive.
func TestDeadLettersWait(t *testing.T) {
	t.Parallel()
	c := dialed(t, amqpx.Options{})
	s := subscribed(t, c, "jobs", transport.Group("g"), transport.DeadLetter("dead"))
	published(t, c, "jobs", "1", "2")
	for range 2 {
		require.NoError(t, next(t, s).Nack(transport.CodeInvalidArgument))
	}
	n, err := compose.Redrive(t.Context(), c, c, "dead", &compose.RedriveOptions{
		Subscribe: []transport.SubscribeOption{transport.Group("redrive")}})
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.ElementsMatch(t, []string{"1", "2"}, taken(t, s, 2))
	nothing(t, s)
}

// TestUnpublishedDeadLetter refuses a message when its dead letter reaches no queue: that is an error, and the message
// comes again until it does.
func TestUnpublishedDeadLetter(t *testing.T) {
	c := dialed(t, amqpx.Options{})
	s := subscribed(t, c, "jobs", transport.Group("g"), transport.DeadLetter("dead"))
	ch, _ := bare(t)
	redrive := ""
	for _, name := range c.Declared() {
		if strings.Contains(name, "redrive") {
			redrive = name
		}
	}
	_, err := ch.QueueDelete(redrive, false, false, false)
	require.NoError(t, err)
	published(t, c, "jobs", "1")
	requireError(t, next(t, s).Nack(transport.CodeInvalidArgument), transport.CodeUnavailable, transport.ReasonNotSent)
	d := next(t, s)
	dead := subscribed(t, c, "dead")
	require.NoError(t, d.Nack(transport.CodeInvalidArgument))
	require.Equal(t, []string{"1"}, taken(t, dead, 1))
	nothing(t, s)
}

// TestGroupUnreadable takes messages that cannot be handed out: they are refused, and told of where there are no dead
// letters. The others flow.
func TestGroupUnreadable(t *testing.T) {
	var mu sync.Mutex
	dropped := map[string]transport.Code{}
	ns := "t" + transport.NewID()
	c := dialed(t, amqpx.Options{Namespace: ns, MaxBytes: 1000, OnDrop: func(m *transport.Message, err error) {
		mu.Lock()
		defer mu.Unlock()
		dropped[m.ID] = transport.CodeOf(err)
	}})
	letters := subscribed(t, dialed(t, amqpx.Options{Namespace: ns}), "dead")
	with := subscribed(t, c, "jobs", transport.Group("with"), transport.DeadLetter("dead"))
	without := subscribed(t, c, "jobs", transport.Group("without"))
	ch, _ := bare(t)
	for _, m := range []amqp.Publishing{
		{MessageId: "large", Body: make([]byte, 2000)},
		{MessageId: "header", Headers: amqp.Table{"k": strings.Repeat("v", 20<<10)}},
		{MessageId: "good", Headers: amqp.Table{"n": int32(7)}},
	} {
		require.NoError(t, ch.Publish(ns, "jobs", false, false, m))
	}
	for _, s := range []transport.Subscription{with, without} {
		d := next(t, s)
		require.Equal(t, "good", d.ID)
		require.NoError(t, d.Ack())
		nothing(t, s)
	}
	ids := map[string]bool{}
	d := next(t, letters) // the other one is not readable for anybody
	ids[d.ID] = true
	require.Equal(t, "jobs", d.Header.Get(transport.HeaderDeadLetterTopic))
	require.Equal(t, "resource_exhausted", d.Header.Get(transport.HeaderDeadLetterCode))
	require.Equal(t, map[string]bool{"large": true}, ids)
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(dropped) == 2
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, map[string]transport.Code{
		"large": transport.CodeResourceExhausted, "header": transport.CodeResourceExhausted}, dropped)
}

// TestForeignQueue is a group whose queue somebody else has made.
func TestForeignQueue(t *testing.T) {
	ch, _ := bare(t)
	q, err := ch.QueueDeclare("theirs-"+transport.NewID(), true, false, false, false, nil)
	require.NoError(t, err)
	defer ch.QueueDelete(q.Name, false, false, false)
	c := dialed(t, amqpx.Options{Queue: func(topic, group string) string {
		if topic == "jobs" && group == "theirs" {
			return q.Name
		}
		return ""
	}})
	s := subscribed(t, c, "jobs", transport.Group("theirs"), transport.MaxAttempts(2), transport.DeadLetter("dead"))
	dead := subscribed(t, c, "dead")
	require.NoError(t, ch.Publish("", q.Name, false, false, amqp.Publishing{MessageId: "m", Body: []byte("1")}))
	for attempt := 1; attempt <= 2; attempt++ {
		d := next(t, s)
		require.Equal(t, attempt, d.Attempt)
		require.Equal(t, "jobs", d.Topic)
		require.NoError(t, d.Nack(again(time.Millisecond)))
	}
	require.Equal(t, []string{"1"}, taken(t, dead, 1))
	published(t, c, "jobs", "not bound to it")
	nothing(t, s)
	_, err = c.Subscribe(t.Context(), "jobs", transport.Group("theirs"), transport.Require(transport.Ordered))
	hasCode(t, transport.CodeUnimplemented, err)
	published(t, c, "jobs", "no")
	ours := subscribed(t, c, "jobs", transport.Group("ours"))
	published(t, c, "jobs", "yes")
	require.Equal(t, []string{"yes"}, taken(t, ours, 1))
}

// TestGroupRefusesReplay: a group starts when it is made.
func TestGroupRefusesReplay(t *testing.T) {
	c := dialed(t, amqpx.Options{})
	for _, demand := range []transport.SubscribeOption{
		transport.From(transport.Oldest), transport.Require(transport.Replay)} {
		_, err := c.Subscribe(t.Context(), "jobs", transport.Group("g"), demand)
		hasCode(t, transport.CodeUnimplemented, err)
		require.ErrorContains(t, err, "a group starts now")
		_, err = c.Subscribe(t.Context(), "jobs", demand)
		hasCode(t, transport.CodeUnimplemented, err)
		require.ErrorContains(t, err, `"jobs" has no history`)
	}
	_, err := compose.Redrive(t.Context(), c, c, "dead", nil)
	hasCode(t, transport.CodeUnimplemented, err)
	require.ErrorContains(t, err, "name the group that collects them")
}

// TestShutdownWaitsForMembers ends a client while a delivery is out, and while one waits to come again.
func TestShutdownWaitsForMembers(t *testing.T) {
	ns := "t" + transport.NewID()
	c, other := dialed(t, amqpx.Options{Namespace: ns}), dialed(t, amqpx.Options{Namespace: ns})
	s := subscribed(t, c, "jobs", transport.Group("g"))
	published(t, other, "jobs", "1", "2", "3")
	out := next(t, s)
	require.Equal(t, "1", string(out.Body))
	ended := make(chan error, 1)
	go func() { ended <- c.Shutdown(t.Context()) }()
	rest := subscribed(t, other, "jobs", transport.Group("g"))
	require.ElementsMatch(t, []string{"2", "3"}, taken(t, rest, 2))
	select {
	case err := <-ended:
		require.Fail(t, "Shutdown did not wait", "%v", err)
	default:
	}
	require.NoError(t, out.Ack())
	require.NoError(t, <-ended)
	nothing(t, rest)

	c = dialed(t, amqpx.Options{Namespace: ns})
	s = subscribed(t, c, "others", transport.Group("g"))
	published(t, other, "others", "1")
	next(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, c.Shutdown(ctx), context.DeadlineExceeded)
	require.Equal(t, []string{"1"}, taken(t, subscribed(t, other, "others", transport.Group("g")), 1))
}

// TestExchangeIsDeleted loses the bindings of all queues. Whoever finds the exchange gone makes it anew, and the
// bindings of its own queues too.
func TestExchangeIsDeleted(t *testing.T) {
	ns := "t" + transport.NewID()
	c := dialed(t, amqpx.Options{Namespace: ns})
	group, all := subscribed(t, c, "news", transport.Group("g")), subscribed(t, c, "news")
	published(t, c, "news", "before")
	ch, _ := bare(t)
	require.NoError(t, ch.ExchangeDelete(ns, false, false))
	require.Eventually(t, func() bool { // it finds out
		return c.Publish(t.Context(), &transport.Message{Topic: "news", Body: []byte("after")}) == nil
	}, 10*time.Second, time.Millisecond)
	for _, s := range []transport.Subscription{group, all} {
		require.Equal(t, []string{"before", "after"}, taken(t, s, 2))
	}
}
