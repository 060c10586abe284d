package amqpx_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/transport"
)

// victim is the node that the tests of faults share, one after the other. It goes with the test binary.
var (
	victim  = sync.OnceValues(func() (*amqptest.Node, error) { return amqptest.Start(context.Background(), nil) })
	harming sync.Mutex
)

// newVictim returns the node, for this test alone. When the test ends, it is brought up again if it is down.
func newVictim(t *testing.T) *amqptest.Node {
	harming.Lock()
	t.Cleanup(harming.Unlock)
	n, err := victim()
	if err != nil {
		amqptest.New(t, nil) // skips, or fails, as it should
	}
	t.Cleanup(func() {
		c, err := amqp.Dial(n.URL())
		if err != nil {
			require.NoError(t, n.Restart(context.Background()))
			return
		}
		c.Close()
	})
	return n
}

// faulty connects with a namespace of its own, unless o has one, and options that notice faults early.
func faulty(t *testing.T, url string, o amqpx.Options) *amqpx.Client {
	if o.Namespace == "" {
		o.Namespace = "f" + transport.NewID()
	}
	o.ConfirmTimeout = 15 * time.Second
	o.Backoff = transport.Backoff{Min: 20 * time.Millisecond, Max: time.Second}
	if o.Heartbeat == 0 {
		o.Heartbeat = 2 * time.Second
	}
	c, err := amqpx.Dial(t.Context(), url, &o)
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Close()
		remove(t, url, append(c.Declared(), o.Namespace))
	})
	return c
}

func long() bool { return os.Getenv("INTERMODAL_LONG") == "1" }

// A tally is what became of each message of a test, by ID.
type tally struct {
	mu    sync.Mutex
	sent  map[string]*trip
	got   map[string]map[string][]*handed // by reader and ID
	cuts  []time.Time
	wrong []string

	unknown int // outcomes of Publish
}

// A trip is the time from before Publish to after.
type trip struct {
	from, to time.Time
	err      error
}

// handed is the time from the delivery to after it was settled.
type handed struct {
	from, to time.Time
	attempt  int
}

func newTally() *tally {
	return &tally{sent: map[string]*trip{}, got: map[string]map[string][]*handed{}}
}

func (y *tally) complain(format string, args ...any) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if len(y.wrong) < 20 {
		y.wrong = append(y.wrong, fmt.Sprintf(format, args...))
	}
}

// cut notes that connections are lost now.
func (y *tally) cut() {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.cuts = append(y.cuts, time.Now())
}

func (y *tally) confirmed() (n int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, p := range y.sent {
		if !p.to.IsZero() && p.err == nil {
			n++
		}
	}
	return n
}

// missing returns the confirmed messages that a reader did not get.
func (y *tally) missing(reader string) (ids []string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for id, p := range y.sent {
		if !p.to.IsZero() && p.err == nil && y.got[reader][id] == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// message makes the nth message. Its body tells its ID.
func (y *tally) message(topic, id string) *transport.Message {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.sent[id] = &trip{from: time.Now()}
	return &transport.Message{ID: id, Topic: topic, Body: []byte(id)}
}

// published notes the outcome. That it is unknown is possible: a broker may owe a confirm for ever.
func (y *tally) published(id string, err error) {
	var e *transport.Error
	if err != nil && (!errors.As(err, &e) || e.Reason != transport.ReasonOutcomeUnknown) {
		y.complain("publish %s: %v", id, err)
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	y.sent[id].to, y.sent[id].err = time.Now(), err
	if err != nil {
		y.unknown++
	}
}

// publish publishes until stop is closed: singles goroutines one message after the other, and one in batches.
func (y *tally) publish(ctx context.Context, p transport.Publisher, topic string, singles int, stop <-chan struct{}) {
	// A restart takes a while, longer than the broker has for a confirm.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	stopped := func() bool {
		select {
		case <-stop:
			return true
		case <-ctx.Done():
			return true
		default:
			return false
		}
	}
	for i := range singles {
		wg.Go(func() {
			for n := 0; !stopped(); n++ {
				m := y.message(topic, fmt.Sprintf("single-%d-%d", i, n))
				err := p.Publish(ctx, m)
				y.published(m.ID, err)
				time.Sleep(time.Millisecond) // pace: the broker shall not be the bottleneck
			}
		})
	}
	wg.Go(func() {
		for n := 0; !stopped(); n++ {
			var ms []*transport.Message
			for k := range 50 {
				ms = append(ms, y.message(topic, fmt.Sprintf("batch-%d-%d", n, k)))
			}
			for k, err := range transport.PublishAll(ctx, p, ms...) {
				y.published(ms[k].ID, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
}

// read acknowledges all that s brings until ctx ends.
func (y *tally) read(ctx context.Context, reader string, s transport.Subscription) {
	y.mu.Lock()
	y.got[reader] = map[string][]*handed{}
	y.mu.Unlock()
	for {
		d, err := s.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				y.complain("%s: %v", reader, err)
			}
			return
		}
		if d.ID != string(d.Body) {
			y.complain("%s got %s under the ID %s", reader, d.Body, d.ID)
		}
		h := &handed{from: time.Now(), attempt: d.Attempt}
		y.mu.Lock()
		y.got[reader][d.ID] = append(y.got[reader][d.ID], h)
		y.mu.Unlock()
		d.Ack() // that it could not reach the broker shows in a repetition
		y.mu.Lock()
		h.to = time.Now()
		y.mu.Unlock()
	}
}

// inFlightMax is how many messages can be without their confirm at a cut, and how many without their acknowledgement:
// those of 8 goroutines and a batch of 50, and the largest prefetch.
const inFlightMax = 58 + 256

// check waits until every reader has every confirmed message. What was repeated must have been in flight at a cut: its
// confirm, or its acknowledgement, for which a second is allowed.
func (y *tally) check(t *testing.T, readers ...string) {
	t.Helper()
	for _, r := range readers {
		left := len(y.missing(r))
		for progress := time.Now(); left > 0 && time.Since(progress) < 30*time.Second; {
			time.Sleep(50 * time.Millisecond) // looking is not cheap
			if n := len(y.missing(r)); n != left {
				left, progress = n, time.Now()
			}
		}
		y.mu.Lock()
		wrong := slices.Clone(y.wrong)
		y.mu.Unlock()
		require.Empty(t, wrong)
		missing := y.missing(r)
		require.Empty(t, missing[:min(len(missing), 10)],
			"%d of %d confirmed messages are lost for %s, which got the last one %v",
			len(missing), y.confirmed(), r, y.last(r))
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	require.Less(t, y.unknown, 10, "unknown outcomes")
	for _, r := range readers {
		repeated := 0
		for id, hs := range y.got[r] {
			require.NotNil(t, y.sent[id], "%s got %s, which was never sent", r, id)
			repeated += len(hs) - 1
			for _, again := range hs[1:] {
				require.True(t, y.inFlight(y.sent[id], hs[0]),
					"%s got %s again at %v (attempt %d), but nothing of it was in flight at a cut: %+v, %+v, %v",
					r, id, again.from, again.attempt, y.sent[id], hs[0], y.cuts)
			}
		}
		require.LessOrEqual(t, repeated, len(y.cuts)*inFlightMax, r)
		t.Logf("%s: %d messages, 0 lost, %d repeated, %d of unknown outcome, over %d cuts", r, len(y.got[r]), repeated,
			y.unknown, len(y.cuts))
	}
}

// last says when the reader got its last message.
func (y *tally) last(reader string) string {
	y.mu.Lock()
	defer y.mu.Unlock()
	var last time.Time
	for _, hs := range y.got[reader] {
		if at := hs[len(hs)-1].from; at.After(last) {
			last = at
		}
	}
	for i, cut := range y.cuts {
		if last.Before(cut) {
			return fmt.Sprintf("%v before cut %d of %d", cut.Sub(last), i+1, len(y.cuts))
		}
	}
	return fmt.Sprintf("%v ago, after all %d cuts", time.Since(last), len(y.cuts))
}

func (y *tally) inFlight(p *trip, h *handed) bool {
	return slices.ContainsFunc(y.cuts, func(cut time.Time) bool {
		publishing := p.from.Before(cut) && !p.to.Before(cut)
		settling := h.from.Before(cut.Add(time.Second)) && h.to.Add(time.Second).After(cut)
		return publishing || settling
	})
}

// TestKill kills the broker in the middle of confirmed publishing and consuming. After its restart all goes on by
// itself.
func TestKill(t *testing.T) {
	t.Parallel()
	node := amqptest.New(t, nil)
	ns := "kill" + transport.NewID()
	history := []amqpx.History{{Topics: "#"}}
	// The publisher must know of the history: right after a restart the broker confirms what is not in the stream yet.
	publisher := faulty(t, node.URL(), amqpx.Options{Namespace: ns, History: history})
	worker := faulty(t, node.URL(), amqpx.Options{Namespace: ns})
	reader := faulty(t, node.URL(), amqpx.Options{Namespace: ns, History: history})

	y := newTally()
	readCtx, stopReading := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stopReading()
	subscribe := func(name string, c *amqpx.Client, opts ...transport.SubscribeOption) transport.Subscription {
		s, err := c.Subscribe(t.Context(), "load", opts...)
		require.NoError(t, err)
		readers.Go(func() { y.read(readCtx, name, s) })
		return s
	}
	subscribe("group", worker, transport.Group("g"))
	subscribe("group of one", publisher, transport.Group("ordered"), transport.Require(transport.Ordered))
	subscribe("broadcast", worker)
	stream := subscribe("history", reader)
	// A queue that was just declared does not survive a kill, in any version (rabbitmq-server #15725).
	time.Sleep(2500 * time.Millisecond)

	stop := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() { y.publish(t.Context(), publisher, "load", 8, stop) })
	waitFor(t, func() bool { return y.confirmed() > 500 })
	y.cut()
	require.NoError(t, node.Kill())
	y.cut() // what began meanwhile was in flight too
	atKill := y.confirmed()
	require.NoError(t, node.Restart(t.Context()))
	waitFor(t, func() bool { return y.confirmed() > atKill+500 })
	close(stop)
	publishing.Wait()
	y.check(t, "group", "group of one", "broadcast", "history")

	cursor := stream.Cursor()
	stopReading()
	readers.Wait()
	st := publisher.Stats()
	require.Greater(t, st.Generation, uint64(1))
	require.Zero(t, st.InFlight)
	t.Logf("%+v", st)

	// Another client goes on from the cursor, after another kill.
	require.NoError(t, publisher.Publish(t.Context(), &transport.Message{ID: "last", Topic: "load"}))
	require.NoError(t, node.Kill())
	require.NoError(t, node.Restart(t.Context()))
	var other *amqpx.Client
	waitFor(t, func() bool {
		c, err := amqpx.Dial(t.Context(), node.URL(), &amqpx.Options{Namespace: ns, History: history})
		other = c
		return err == nil
	})
	defer other.Close()
	s, err := other.Subscribe(t.Context(), "load", transport.From(cursor))
	require.NoError(t, err)
	d, err := s.Next(t.Context())
	require.NoError(t, err)
	require.Equal(t, "last", d.ID)
	all, err := other.Subscribe(t.Context(), "load", transport.From(transport.Oldest))
	require.NoError(t, err)
	seen := map[string]bool{}
	for d := (*transport.Delivery)(nil); d == nil || d.ID != "last"; {
		d, err = all.Next(t.Context())
		require.NoError(t, err)
		seen[d.ID] = true
		require.NoError(t, d.Ack())
	}
	for id := range y.sent {
		require.True(t, seen[id], "%s is not in the history", id)
	}
}

// TestCuts resets all connections again and again under load, ten times, and a hundred times with INTERMODAL_LONG=1.
func TestCuts(t *testing.T) {
	t.Parallel()
	cuts := 10
	if long() {
		cuts = 100
	}
	url := amqptest.URL(t)
	relay := amqptest.NewRelay(t, url)
	ns := "cuts" + transport.NewID()
	history := []amqpx.History{{Topics: "load"}}
	publisher := faulty(t, relay.URL(), amqpx.Options{Namespace: ns, History: history})
	worker := faulty(t, relay.URL(), amqpx.Options{Namespace: ns})

	y := newTally()
	readCtx, stopReading := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stopReading()
	subscribe := func(name string, c *amqpx.Client, opts ...transport.SubscribeOption) {
		s, err := c.Subscribe(t.Context(), "load", opts...)
		require.NoError(t, err)
		readers.Go(func() { y.read(readCtx, name, s) })
	}
	subscribe("group", worker, transport.Group("g"))
	subscribe("group of one", worker, transport.Group("ordered"), transport.Require(transport.Ordered))
	subscribe("broadcast", worker)
	subscribe("history", publisher)

	stop := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() { y.publish(t.Context(), publisher, "load", 8, stop) })
	for range cuts {
		before := y.confirmed() // 58 are in flight at most, so that a hundred need a new connection
		waitFor(t, func() bool { return y.confirmed() > before+100 })
		time.Sleep(rand.N(200 * time.Millisecond)) // anywhere in the traffic
		y.cut()
		require.NotZero(t, relay.Cut())
	}
	before := y.confirmed()
	waitFor(t, func() bool { return y.confirmed() > before+50 })
	close(stop)
	publishing.Wait()
	y.check(t, "group", "group of one", "broadcast", "history")
	t.Logf("publisher %+v, worker %+v", publisher.Stats(), worker.Stats())
	require.EqualValues(t, cuts+1, publisher.Stats().Generation)
	stopReading()
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, 60*time.Second, 10*time.Millisecond)
}

// TestLateAcknowledgement settles a message after its connection was lost. On the new one its tag is another message's,
// which must stay unsettled.
func TestLateAcknowledgement(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"any order", "ordered"} {
		t.Run(kind, func(t *testing.T) {
			url := amqptest.URL(t)
			relay := amqptest.NewRelay(t, url)
			ns := "late" + transport.NewID()
			direct := faulty(t, url, amqpx.Options{Namespace: ns})
			connected := make(chan amqpx.State, 100)
			worker := faulty(t, relay.URL(), amqpx.Options{Namespace: ns, OnState: func(s amqpx.State) {
				if s.Connected && s.Role == "consume" {
					connected <- s
				}
			}})
			opts := []transport.SubscribeOption{transport.Group("g"), transport.Buffer(5)}
			if kind == "ordered" {
				opts = append(opts, transport.Require(transport.Ordered))
			}
			s, err := worker.Subscribe(t.Context(), "late", opts...)
			require.NoError(t, err)
			<-connected
			for i := range 10 {
				require.NoError(t, direct.Publish(t.Context(), &transport.Message{ID: "m" + strconv.Itoa(i), Topic: "late"}))
			}
			next := func(s transport.Subscription) *transport.Delivery {
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				defer cancel()
				d, err := s.Next(ctx)
				require.NoError(t, err)
				return d
			}
			for i := range 2 {
				d := next(s)
				require.Equal(t, "m"+strconv.Itoa(i), d.ID)
				require.NoError(t, d.Ack())
			}
			held := next(s)
			require.Equal(t, "m2", held.ID)
			require.NotZero(t, relay.Cut())
			<-connected
			// The consumer is attached again, and the tags of what it brings are those of earlier messages.
			waitFor(t, func() bool { return worker.Stats().Redelivered > 0 })
			err = held.Ack()
			t.Logf("acknowledging the held one: %v", err)
			if err != nil {
				require.Equal(t, transport.CodeUnavailable, transport.CodeOf(err))
				require.EqualValues(t, 1, worker.Stats().StaleAcks)
			}
			next(s) // it goes on
			require.NoError(t, s.Close())
			require.NoError(t, worker.Close())

			// All but the first two, and the held one if its acknowledgement was good, are still there.
			want := map[string]bool{}
			for i := 3; i < 10; i++ {
				want["m"+strconv.Itoa(i)] = true
			}
			if err != nil {
				want["m2"] = true
			}
			rest, err := direct.Subscribe(t.Context(), "late", transport.Group("g"))
			require.NoError(t, err)
			for len(want) > 0 {
				d := next(rest)
				require.NoError(t, d.Ack())
				delete(want, d.ID)
			}
		})
	}
}

// TestSilentNetwork stops all bytes without closing a connection. It is noticed within three heartbeats, and what was
// waiting goes on when the network does.
func TestSilentNetwork(t *testing.T) {
	t.Parallel()
	url := amqptest.URL(t)
	relay := amqptest.NewRelay(t, url)
	lost := make(chan amqpx.State, 100)
	c := faulty(t, relay.URL(), amqpx.Options{Heartbeat: time.Second, DialTimeout: time.Second,
		OnState: func(s amqpx.State) {
			if !s.Connected {
				lost <- s
			}
		}})
	s, err := c.Subscribe(t.Context(), "quiet", transport.Group("g"))
	require.NoError(t, err)
	require.NoError(t, c.Publish(t.Context(), &transport.Message{ID: "before", Topic: "quiet"}))
	d, err := s.Next(t.Context())
	require.NoError(t, err)
	require.NoError(t, d.Ack())

	relay.Stall()
	began := time.Now()
	published := make(chan error, 1)
	go func() { published <- c.Publish(t.Context(), &transport.Message{ID: "during", Topic: "quiet"}) }()
	roles := map[string]bool{}
	for len(roles) < 2 {
		select {
		case st := <-lost:
			require.Error(t, st.Err)
			t.Log(time.Since(began), st.Role, st.Err)
			roles[st.Role] = true
		case <-time.After(15 * time.Second):
			require.Fail(t, "the silence is not noticed", "only by %v", roles)
		}
	}
	require.Less(t, time.Since(began), 6*time.Second) // three heartbeats, and what a busy machine takes

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err = c.Publish(ctx, &transport.Message{Topic: "quiet"})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var e *transport.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, transport.ReasonNotSent, e.Reason)
	require.Error(t, c.Health(ctx))

	relay.Resume()
	require.NoError(t, <-published)
	for id := ""; id != "during"; {
		d, err := s.Next(t.Context())
		require.NoError(t, err)
		require.NoError(t, d.Ack())
		id = d.ID
	}
	require.NoError(t, c.Health(t.Context()))
}

// TestBurst publishes faster than a subscription without a group and without history can read: it gets all, or is told.
func TestBurst(t *testing.T) {
	t.Parallel()
	c := faulty(t, amqptest.URL(t), amqpx.Options{Window: 5000})
	s, err := c.Subscribe(t.Context(), "burst")
	require.NoError(t, err)
	const publishers, batches, size = 4, 20, 500
	var publishing sync.WaitGroup
	defer publishing.Wait()
	for p := range publishers {
		publishing.Go(func() {
			for b := range batches {
				ms := make([]*transport.Message, size)
				for i := range ms {
					ms[i] = &transport.Message{ID: fmt.Sprintf("%d-%d-%d", p, b, i), Topic: "burst"}
				}
				for _, err := range c.PublishAll(t.Context(), ms...) {
					if err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	seen := map[string]bool{}
	for len(seen) < publishers*batches*size {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		d, err := s.Next(ctx)
		cancel()
		if code := transport.CodeOf(err); code == transport.CodeDataLoss || code == transport.CodeResourceExhausted {
			t.Logf("it was told after %d messages: %v", len(seen), err)
			return
		}
		require.NoError(t, err, "%d messages came, the others are lost and nobody is told", len(seen))
		require.False(t, seen[d.ID], "%s came twice", d.ID)
		seen[d.ID] = true
		require.NoError(t, d.Ack())
	}
}

// TestPausedNetwork stops the bytes to a subscription without a group and without history for so long that its queue
// overflows, and not long enough for the connection to be given up. That something is missing must not stay unknown.
func TestPausedNetwork(t *testing.T) {
	t.Parallel()
	url := amqptest.URL(t)
	relay := amqptest.NewRelay(t, url)
	ns := "paused" + transport.NewID()
	publisher := faulty(t, url, amqpx.Options{Namespace: ns})
	reader := faulty(t, relay.URL(), amqpx.Options{Namespace: ns, Heartbeat: 30 * time.Second, MethodTimeout: time.Minute})
	reader.SetLag(1000)
	s, err := reader.Subscribe(t.Context(), "news")
	require.NoError(t, err)
	relay.Stall()
	const n = 3000
	ms := make([]*transport.Message, n)
	for i := range ms {
		ms[i] = &transport.Message{ID: strconv.Itoa(i), Topic: "news"}
	}
	for _, err := range publisher.PublishAll(t.Context(), ms...) {
		require.NoError(t, err)
	}
	relay.Resume()
	for i := range n {
		d, err := s.Next(within(t, 20*time.Second))
		if transport.CodeOf(err) == transport.CodeDataLoss {
			t.Logf("it was told after %d messages: %v", i, err)
			return
		}
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(i), d.ID, "messages are missing, and nobody is told")
		require.NoError(t, d.Ack())
	}
}
