package amqpx_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/transport"
)

func TestRoundUp(t *testing.T) {
	for _, c := range []struct {
		wait   time.Duration
		digits int
		want   time.Duration
	}{
		{0, 2, time.Millisecond}, {1, 2, time.Millisecond}, {time.Millisecond, 2, time.Millisecond},
		{1001 * time.Microsecond, 2, 2 * time.Millisecond}, {99 * time.Millisecond, 2, 99 * time.Millisecond},
		{100 * time.Millisecond, 2, 100 * time.Millisecond}, {101 * time.Millisecond, 2, 110 * time.Millisecond},
		{999 * time.Millisecond, 2, time.Second}, {1234 * time.Millisecond, 2, 1300 * time.Millisecond},
		{1234 * time.Millisecond, 1, 2 * time.Second}, {10 * time.Second, 1, 10 * time.Second},
		{time.Hour, 2, time.Hour}, {24 * time.Hour, 2, 87_000 * time.Second},
	} {
		got := amqpx.RoundUp(c.wait, c.digits)
		require.Equal(t, c.want, got, "%v with %d digits", c.wait, c.digits)
		require.Equal(t, got, amqpx.RoundUp(got, c.digits), "it stays")
	}
}

func delayed(delay, ttl time.Duration) transport.Header {
	h := transport.Header{}
	h.SetMillis(transport.HeaderDelay, delay)
	if ttl > 0 {
		h.SetMillis(transport.HeaderTTL, ttl)
	}
	return h
}

// TestDelayOutlivesPublisher closes the client that has published a delayed message.
func TestDelayOutlivesPublisher(t *testing.T) {
	ns := "t" + transport.NewID()
	s := subscribed(t, dialed(t, amqpx.Options{Namespace: ns}), "later", transport.Group("g"))
	c := dialed(t, amqpx.Options{Namespace: ns})
	start := time.Now()
	require.NoError(t, c.Publish(t.Context(), &transport.Message{Topic: "later",
		Header: delayed(300*time.Millisecond, 0), Body: []byte("1")}))
	require.NoError(t, c.Close())
	d := next(t, s)
	require.GreaterOrEqual(t, time.Since(start), 300*time.Millisecond)
	require.Empty(t, d.Header, "the delay has been served")
}

// TestDelayLevels publishes and retries with many different waits: few queues hold them all.
func TestDelayLevels(t *testing.T) {
	t.Parallel()
	c := dialed(t, amqpx.Options{})
	s := subscribed(t, c, "later", transport.Group("g"))
	var want []string
	for ms := 501; ms < 600; ms++ {
		require.NoError(t, c.Publish(t.Context(), &transport.Message{Topic: "later",
			Header: delayed(time.Duration(ms)*time.Millisecond, 0), Body: []byte(strconv.Itoa(ms))}))
		want = append(want, strconv.Itoa(ms))
	}
	require.Len(t, c.Declared(), 1+10)
	var ds []*transport.Delivery
	for range 60 {
		ds = append(ds, next(t, s))
	}
	for _, d := range ds {
		require.NoError(t, d.Nack(transport.CodeUnavailable)) // the backoff of the first attempt: up to 100 ms, with jitter
	}
	require.Less(t, len(c.Declared()), 1+10+7)
	require.ElementsMatch(t, want, taken(t, s, len(want)))
}

// TestDelayThenTTL has a ttl that is shorter than the delay: it begins when the message arrives.
func TestDelayThenTTL(t *testing.T) {
	c := dialed(t, amqpx.Options{})
	s := subscribed(t, c, "later", transport.Group("g"), transport.Buffer(1))
	all := subscribed(t, c, "later")
	send := func(body string) {
		require.NoError(t, c.Publish(t.Context(), &transport.Message{Topic: "later",
			Header: delayed(200*time.Millisecond, 150*time.Millisecond), Body: []byte(body)}))
	}
	send("in time")
	d := next(t, s)
	require.Equal(t, "in time", string(d.Body))
	require.Equal(t, "150", d.Header.Get("ttl"))
	send("too late") // while the other one is out
	require.Equal(t, []string{"in time", "too late"}, taken(t, all, 2))
	time.Sleep(200 * time.Millisecond)
	require.NoError(t, d.Ack())
	nothing(t, s)
}

// TestDelayRoundedTTL: the ttl of a delayed message begins with its arrival, though that is later than asked for.
func TestDelayRoundedTTL(t *testing.T) {
	t.Parallel()
	c := dialed(t, amqpx.Options{})
	s := subscribed(t, c, "later", transport.Group("g"))
	require.NoError(t, c.Publish(t.Context(), &transport.Message{Topic: "later",
		Header: delayed(1010*time.Millisecond, 80*time.Millisecond), Body: []byte("1")}))
	require.Equal(t, "1", string(next(t, s).Body))
}

// TestDelayOutageTTL: neither does an outage before it is written count.
func TestDelayOutageTTL(t *testing.T) {
	t.Parallel()
	ns := "t" + transport.NewID()
	cutter := newCutter()
	s := subscribed(t, dialed(t, amqpx.Options{Namespace: ns}), "later", transport.Group("g"))
	c := dialed(t, amqpx.Options{Namespace: ns, Dial: cutter.dial, Backoff: transport.Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond}})
	cutter.refuse(true)
	cutter.cut()
	back := time.AfterFunc(1500*time.Millisecond, func() { cutter.refuse(false) })
	defer back.Stop()
	require.NoError(t, c.Publish(t.Context(), &transport.Message{Topic: "later",
		Header: delayed(100*time.Millisecond, time.Second), Body: []byte("1")}))
	require.Equal(t, "1", string(next(t, s).Body))
}

// TestDelayTooLong is refused, not shortened.
func TestDelayTooLong(t *testing.T) {
	c := dialed(t, amqpx.Options{})
	err := c.Publish(t.Context(), &transport.Message{Topic: "later", Header: delayed(31*24*time.Hour, 0)})
	hasCode(t, transport.CodeUnimplemented, err)
	require.NoError(t, c.Publish(t.Context(), &transport.Message{Topic: "later", Header: delayed(30*24*time.Hour, 0)}))
}

// TestDelayOfManyAtOnce has many goroutines that need a level which is not there yet.
func TestDelayOfManyAtOnce(t *testing.T) {
	c := dialed(t, amqpx.Options{})
	s := subscribed(t, c, "later", transport.Group("g"))
	failed := make(chan error, 50)
	for range cap(failed) {
		go func() {
			failed <- c.Publish(t.Context(), &transport.Message{Topic: "later", Header: delayed(50*time.Millisecond, 0)})
		}()
	}
	for range cap(failed) {
		require.NoError(t, <-failed)
	}
	taken(t, s, cap(failed))
	nothing(t, s)
}
