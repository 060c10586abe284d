package wire_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

var (
	_ transport.Subscription      = (*wire.Inbox)(nil)
	_ transport.BatchSubscription = (*wire.Inbox)(nil)
)

// item is the nth message of a topic; its cursor is n.
func item(n int) *wire.Item {
	return &wire.Item{Message: transport.Message{Topic: "t", Body: []byte(strconv.Itoa(n))}, Cursor: strconv.Itoa(n), Tag: uint64(n)}
}

func push(t testing.TB, in *wire.Inbox, from, to int) {
	t.Helper()
	for n := from; n <= to; n++ {
		require.NoError(t, in.Push(item(n)))
	}
}

func next(t testing.TB, in *wire.Inbox, body string) *transport.Delivery {
	t.Helper()
	d, err := in.Next(t.Context())
	require.NoError(t, err)
	require.Equal(t, body, string(d.Body))
	return d
}

// nothing checks that there is no delivery now.
func nothing(t testing.TB, in *wire.Inbox) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := in.Next(ctx)
	require.Equal(t, context.DeadlineExceeded, err)
}

func TestInboxLowWaterMark(t *testing.T) {
	in := wire.NewInbox(transport.SubscribeOptions{}, &wire.InboxOptions{Start: "start"})
	require.Equal(t, "start", in.Cursor())
	push(t, in, 1, 3)
	require.Equal(t, "start", in.Cursor())
	one, two, three := next(t, in, "1"), next(t, in, "2"), next(t, in, "3")
	require.NoError(t, two.Ack())
	require.Equal(t, "start", in.Cursor())
	require.NoError(t, one.Ack())
	require.Equal(t, "2", in.Cursor())
	in.Advance("9")
	require.Equal(t, "2", in.Cursor())
	require.NoError(t, three.Nack(transport.CodeNotFound))
	require.Equal(t, "9", in.Cursor())
	in.Advance("10")
	require.Equal(t, "10", in.Cursor())
	require.Equal(t, "2", two.Cursor(), "a settled delivery has its cursor still")
}

func TestInboxBuffer(t *testing.T) {
	in := wire.NewInbox(transport.SubscribeOptions{Buffer: 2}, nil)
	push(t, in, 1, 2)
	one := next(t, in, "1")
	two := next(t, in, "2")
	require.Equal(t, 2, in.Room())
	push(t, in, 3, 4)
	require.Zero(t, in.Room())
	nothing(t, in)
	require.NoError(t, two.Nack(&transport.Error{Code: transport.CodeAborted, RetryAfter: time.Hour}))
	nothing(t, in) // what waits is unsettled
	require.NoError(t, one.Ack())
	next(t, in, "3")
	nothing(t, in)
}

func TestInboxNextAll(t *testing.T) {
	in := wire.NewInbox(transport.SubscribeOptions{Buffer: 3}, nil)
	_, err := in.NextAll(t.Context(), nil)
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	push(t, in, 1, 3)
	dst := make([]*transport.Delivery, 2)
	n, err := in.NextAll(t.Context(), dst)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	n, err = in.NextAll(t.Context(), dst)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, "3", string(dst[0].Body))
	require.NoError(t, in.Close())
	_, err = in.NextAll(t.Context(), dst)
	require.Equal(t, io.EOF, err)
}

func TestInboxDisconnects(t *testing.T) {
	in := wire.NewInbox(transport.SubscribeOptions{Buffer: 2}, nil)
	push(t, in, 1, 2)
	err := in.Push(item(3))
	require.ErrorIs(t, err, transport.CodeResourceExhausted)
	require.NoError(t, in.Push(item(4)), "after the end")
	require.NoError(t, next(t, in, "1").Ack())
	next(t, in, "2")
	for range 2 {
		_, err = in.Next(t.Context())
		require.ErrorIs(t, err, transport.CodeResourceExhausted)
		var e *transport.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, "1", e.Header.Get(wire.HeaderCursor))
	}
}

func TestInboxBytes(t *testing.T) {
	in := wire.NewInbox(transport.SubscribeOptions{Buffer: 9}, &wire.InboxOptions{MaxBytes: 5})
	push(t, in, 1, 1)
	push(t, in, 2, 2) // 2 bytes each: topic and body
	require.ErrorIs(t, in.Push(item(3)), transport.CodeResourceExhausted)

	in = wire.NewInbox(transport.SubscribeOptions{}, &wire.InboxOptions{MaxBytes: 1})
	push(t, in, 1, 1)
	next(t, in, "1")
	push(t, in, 2, 2)
	next(t, in, "2")
}

func TestInboxDropsOldest(t *testing.T) {
	credits := 0
	in := wire.NewInbox(transport.SubscribeOptions{Buffer: 2, Overflow: transport.DropOldest}, &wire.InboxOptions{
		Credit: func(n int) { credits += n },
	})
	push(t, in, 1, 4)
	it := item(5)
	it.Missed = 10
	require.NoError(t, in.Push(it))
	four := next(t, in, "4")
	require.EqualValues(t, 3, four.Missed)
	five := next(t, in, "5")
	require.EqualValues(t, 10, five.Missed)
	require.Equal(t, "3", in.Cursor(), "what was dropped is behind")
	require.Equal(t, 5, credits)
	push(t, in, 6, 6)
	require.NoError(t, four.Ack())
	require.Zero(t, next(t, in, "6").Missed)
}

func TestInboxRedelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dropped []error
		in := wire.NewInbox(transport.SubscribeOptions{MaxAttempts: 3}, &wire.InboxOptions{
			Dropped: func(m *transport.Message, err error) { dropped = append(dropped, err) },
		})
		push(t, in, 1, 2)
		start := time.Now()
		d := next(t, in, "1")
		require.Equal(t, 1, d.Attempt)
		require.NoError(t, d.Nack(&transport.Error{Code: transport.CodeUnavailable, RetryAfter: time.Minute}))
		require.NoError(t, d.Ack(), "the first settling counts")
		require.NoError(t, next(t, in, "2").Ack(), "others overtake")
		d = next(t, in, "1")
		require.Equal(t, time.Minute, time.Since(start))
		require.Equal(t, 2, d.Attempt)
		require.NoError(t, d.Nack(transport.CodeCanceled))
		d = next(t, in, "1")
		require.Equal(t, time.Minute, time.Since(start), "given back, it comes at once")
		require.Equal(t, 2, d.Attempt)
		require.NoError(t, d.Nack(errors.New("private")))
		d = next(t, in, "1")
		require.Greater(t, time.Since(start), time.Minute)
		require.LessOrEqual(t, time.Since(start), time.Minute+transport.Backoff{Jitter: -1}.Delay(2))
		require.Equal(t, 3, d.Attempt)
		require.Empty(t, dropped)
		require.Empty(t, in.Cursor())
		require.NoError(t, d.Nack(transport.CodeUnavailable))
		require.Equal(t, []error{transport.CodeUnavailable}, dropped)
		require.Equal(t, "2", in.Cursor())
		nothing(t, in)
	})
}

func TestInboxOrdered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := wire.NewInbox(transport.SubscribeOptions{Require: transport.Ordered}, nil)
		push(t, in, 1, 3)
		d := next(t, in, "1")
		nothing(t, in)
		require.NoError(t, d.Nack(&transport.Error{Code: transport.CodeUnavailable, RetryAfter: time.Minute}))
		nothing(t, in)
		start := time.Now()
		d = next(t, in, "1")
		require.InDelta(t, time.Minute, time.Since(start), float64(time.Second))
		require.NoError(t, d.Nack(transport.CodeCanceled))
		require.NoError(t, next(t, in, "1").Ack())
		d = next(t, in, "2")
		require.NoError(t, d.Nack(&transport.Error{Code: transport.CodeUnavailable, RetryAfter: time.Minute}))
		in.End(transport.CodeUnavailable)
		_, err := in.Next(t.Context())
		require.Equal(t, transport.CodeUnavailable, err, "3 cannot come before 2")
		require.Equal(t, "1", in.Cursor())
	})
}

// The one that minds the timer of a redelivery may leave; then another does.
func TestInboxTimerIsHandedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := wire.NewInbox(transport.SubscribeOptions{}, nil)
		push(t, in, 1, 1)
		d := next(t, in, "1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got := make(chan *transport.Delivery, 3)
		for _, ctx := range []context.Context{t.Context(), ctx, t.Context()} {
			go func() {
				d, err := in.Next(ctx)
				if err == nil || err == io.EOF {
					got <- d
				}
			}()
			synctest.Wait()
		}
		start := time.Now()
		require.NoError(t, d.Nack(&transport.Error{Code: transport.CodeUnavailable, RetryAfter: time.Minute}))
		<-got
		require.Equal(t, time.Minute, time.Since(start))
		require.NoError(t, in.Close())
		require.Nil(t, <-got, "io.EOF")
		synctest.Wait()
	})
}

func TestInboxContextEnds(t *testing.T) {
	in := wire.NewInbox(transport.SubscribeOptions{}, nil)
	push(t, in, 1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := in.Next(ctx)
	require.Equal(t, context.Canceled, err)
	d := next(t, in, "1")
	got, done := d.Context(ctx)
	require.Equal(t, ctx, got)
	done()
}

func TestInboxEnd(t *testing.T) {
	ended := &transport.Error{Code: transport.CodeResourceExhausted, Remote: true, Header: transport.Header{"cursor": {"77"}}}
	for _, settle := range []bool{true, false} {
		in := wire.NewInbox(transport.SubscribeOptions{}, &wire.InboxOptions{Start: "0"})
		push(t, in, 1, 2)
		in.End(ended)
		in.End(nil)
		push(t, in, 3, 3)
		one, two := next(t, in, "1"), next(t, in, "2")
		want := "77"
		if settle {
			require.NoError(t, two.Ack())
		} else {
			require.NoError(t, one.Ack())
			want = "1"
		}
		if settle {
			require.NoError(t, one.Ack())
		}
		_, err := in.Next(t.Context())
		require.ErrorIs(t, err, transport.CodeResourceExhausted)
		var e *transport.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, want, e.Header.Get("cursor"))
		require.NoError(t, two.Ack())
		_, again := in.Next(t.Context())
		require.Equal(t, err, again)
		require.NoError(t, in.Close())
		_, again = in.Next(t.Context())
		require.Equal(t, err, again)
	}
	require.Equal(t, "77", ended.Header.Get("cursor"))

	in := wire.NewInbox(transport.SubscribeOptions{}, nil)
	in.End(nil)
	_, err := in.Next(t.Context())
	require.Equal(t, io.EOF, err)
}

func TestInboxClose(t *testing.T) {
	in := wire.NewInbox(transport.SubscribeOptions{}, &wire.InboxOptions{Start: "0", Closed: func() error { return io.ErrClosedPipe }})
	push(t, in, 1, 2)
	d := next(t, in, "1")
	require.ErrorIs(t, in.Close(), io.ErrClosedPipe)
	require.NoError(t, in.Close())
	_, err := in.Next(t.Context())
	require.Equal(t, io.EOF, err)
	require.NoError(t, in.Push(item(3)))
	require.NoError(t, d.Ack())
	require.Equal(t, "1", in.Cursor(), "2 was not handed out")
}

// settled records what an Inbox tells the server.
type settled struct {
	sync.Mutex
	log []string
	err error
}

func (s *settled) settle(tag uint64, reply *transport.Message, err error) error {
	s.Lock()
	defer s.Unlock()
	entry := fmt.Sprint(tag)
	if reply != nil {
		entry += " " + string(reply.Body)
	}
	if err != nil {
		entry += " " + transport.CodeOf(err).String()
	}
	s.log = append(s.log, entry)
	return s.err
}

func TestInboxGroup(t *testing.T) {
	var s settled
	in := wire.NewInbox(transport.SubscribeOptions{Group: "g", Buffer: 3}, &wire.InboxOptions{Start: "0", Settle: s.settle})
	push(t, in, 1, 3)
	require.ErrorIs(t, in.Push(item(4)), transport.CodeResourceExhausted, "the server broke its window")
	one, two := next(t, in, "1"), next(t, in, "2")
	require.Empty(t, in.Cursor())
	require.NoError(t, one.Nack(transport.CodeAborted))
	require.Equal(t, 1, in.Room())
	push(t, in, 5, 5)
	require.NoError(t, in.Close())
	require.NoError(t, in.Push(item(6)))
	s.err = io.ErrShortWrite
	require.Equal(t, io.ErrShortWrite, two.Ack())
	require.Equal(t, []string{"1 aborted", "3 canceled", "5 canceled", "6 canceled", "2"}, s.log)
}

func TestInboxGroupResumes(t *testing.T) {
	var s settled
	in := wire.NewInbox(transport.SubscribeOptions{Group: "g", Buffer: 2}, &wire.InboxOptions{Settle: s.settle})
	push(t, in, 1, 2)
	one := next(t, in, "1")
	cursor, room := in.Resume()
	require.Empty(t, cursor)
	require.Equal(t, 2, room)
	push(t, in, 1, 2) // its tag means another delivery now
	require.ErrorIs(t, one.Ack(), transport.CodeUnavailable)
	require.Empty(t, s.log)
	require.NoError(t, next(t, in, "1").Ack())
	require.NoError(t, next(t, in, "2").Ack())
	require.Equal(t, []string{"1", "2"}, s.log)
	in.Resume()
	in.End(transport.CodeUnavailable)
	_, err := in.Next(t.Context())
	require.Equal(t, transport.CodeUnavailable, err)
}

func TestInboxCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s settled
		in := wire.NewInbox(transport.SubscribeOptions{Buffer: 3}, &wire.InboxOptions{Calls: true, Settle: s.settle})
		calls := []*wire.Item{item(0), item(1), item(2)}
		calls[0].Peer = &transport.Peer{ID: "somebody"}
		calls[0].Deadline = time.Now().Add(time.Minute)
		calls[2].Deadline = time.Now().Add(time.Hour)
		for _, c := range calls {
			require.NoError(t, in.Push(c))
		}
		in.Cancel(1) // still ready
		in.Cancel(1)
		in.Cancel(99)
		require.Equal(t, []string{"1 canceled"}, s.log)
		push(t, in, 3, 3)
		d := next(t, in, "0")
		ctx, cancel := d.Context(t.Context())
		defer cancel()
		p, _ := transport.PeerFrom(ctx)
		require.Equal(t, "somebody", p.ID)
		deadline, ok := ctx.Deadline()
		require.True(t, ok)
		require.Equal(t, calls[0].Deadline, deadline)
		require.NoError(t, ctx.Err())
		in.Cancel(0)
		require.Equal(t, context.Canceled, ctx.Err())
		ctx, cancel = d.Context(t.Context())
		require.Equal(t, context.Canceled, ctx.Err())
		cancel()
		require.Equal(t, 1, in.Room(), "nobody waits for 0 and 1")
		time.Sleep(time.Hour) // 2 expires unseen
		d3 := next(t, in, "3")
		require.Equal(t, []string{"1 canceled", "2 deadline_exceeded"}, s.log)
		require.NoError(t, d.Ack())
		require.NoError(t, d3.Settle(&transport.Message{Body: []byte("reply")}, nil))
		require.Equal(t, 3, in.Room())
		push(t, in, 4, 5)
		d = next(t, in, "4")
		ctx, cancel = d.Context(t.Context())
		defer cancel()
		require.NoError(t, in.Close())
		require.NoError(t, ctx.Err(), "what is out can still be settled")
		require.NoError(t, d.Ack())
		require.Equal(t, []string{"0", "3 reply", "5 unavailable", "4"}, s.log[2:])
	})
}

func TestInboxCallsEndWithTheConnection(t *testing.T) {
	var s settled
	in := wire.NewInbox(transport.SubscribeOptions{}, &wire.InboxOptions{Calls: true, Settle: s.settle})
	push(t, in, 1, 2)
	d := next(t, in, "1")
	ctx, cancel := d.Context(t.Context())
	defer cancel()
	in.Resume()
	require.Equal(t, context.Canceled, ctx.Err())
	nothing(t, in)
	require.ErrorIs(t, d.Ack(), transport.CodeUnavailable)
	require.Empty(t, s.log)
}

func TestInboxResumes(t *testing.T) {
	in := wire.NewInbox(transport.SubscribeOptions{Buffer: 8}, &wire.InboxOptions{Start: "0"})
	push(t, in, 1, 6)
	require.NoError(t, next(t, in, "1").Ack())
	two := next(t, in, "2")
	require.NoError(t, next(t, in, "3").Ack())
	require.NoError(t, two.Nack(&transport.Error{Code: transport.CodeAborted, RetryAfter: time.Hour}))
	four := next(t, in, "4")
	cursor, room := in.Resume()
	require.Equal(t, "1", cursor)
	require.Equal(t, 6, room)
	push(t, in, 2, 3)
	in.Resume() // and again, in the middle
	for n := 2; n <= 8; n++ {
		if n != 5 { // a message whose time to live is over
			push(t, in, n, n)
		}
	}
	for _, body := range []string{"5", "6", "7", "8"} {
		require.NoError(t, next(t, in, body).Ack())
	}
	nothing(t, in)
	require.NoError(t, four.Ack())
	require.Equal(t, "1", in.Cursor())
}

func TestInboxCredit(t *testing.T) {
	credit := 0
	in := wire.NewInbox(transport.SubscribeOptions{Buffer: 5}, &wire.InboxOptions{Credit: func(n int) { credit += n }})
	room := in.Room()
	for n := 1; n <= 1000; n++ {
		require.Positive(t, room+credit, "a server that has credit for what it may send is never stuck")
		credit--
		push(t, in, n, n)
		require.NoError(t, next(t, in, strconv.Itoa(n)).Ack())
	}
}

// impatient is a context that ends between Next's first look and its wait.
type impatient struct {
	context.Context
	asked bool
}

func (c *impatient) Err() error {
	if !c.asked {
		c.asked = true
		return nil
	}
	return c.Context.Err()
}

// FuzzInbox runs the operations in script against a log and a naive model of what is unsettled.
func FuzzInbox(f *testing.F) {
	f.Add([]byte("pnpnpanpnrppnab"), false)
	f.Add([]byte("pppnnnnppppacabrnnnnaaaa"), true)
	f.Add([]byte("ppppppppnnnnzzzzrnnnnzznnaa"), false)
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		script := make([]byte, 300)
		for i := range script {
			script[i] = "ppppnnnnaabbzr"[r.IntN(14)]
		}
		f.Add(script, r.IntN(2) == 0)
	}
	f.Fuzz(func(t *testing.T, script []byte, ordered bool) {
		const buffer = 4
		so := transport.SubscribeOptions{Buffer: buffer}
		if ordered {
			so.Require = transport.Ordered
		}
		credit := 0
		in := wire.NewInbox(so, &wire.InboxOptions{Start: "0", Credit: func(n int) { credit += n }})
		sent, credits := 0, buffer    // what the server sent last
		newest, given := 0, 0         // newest ever sent, and handed out
		unsettled := map[int]bool{}   // handed out, not settled for good
		var out []*transport.Delivery // unsettled and not waiting
		taken := map[int]int{}        // how often each was handed out
		again := map[int]int{}        // how often it was given back
		low := func() int {
			for n := 1; n <= given; n++ {
				if unsettled[n] {
					return n - 1
				}
			}
			return given
		}
		take := func() bool {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			d, err := in.Next(&impatient{Context: ctx})
			if err != nil {
				return false
			}
			n, _ := strconv.Atoi(string(d.Body))
			if !unsettled[n] {
				require.Equal(t, given+1, n, "handed out in order")
				given = n
			}
			unsettled[n] = true
			taken[n]++
			require.Equal(t, again[n]+1, taken[n], "each once, but for what was given back")
			out = append(out, d)
			return true
		}
		settle := func(op byte) {
			if len(out) == 0 {
				return
			}
			i := int(op) % len(out)
			d := out[i]
			out = append(out[:i], out[i+1:]...)
			n, _ := strconv.Atoi(string(d.Body))
			if op == 'z' {
				again[n]++
				require.NoError(t, d.Nack(transport.CodeCanceled))
				return
			}
			delete(unsettled, n)
			require.NoError(t, d.Ack())
		}
		for _, op := range script {
			switch op {
			case 'p':
				if credits+credit > 0 {
					credit--
					sent++
					newest = max(newest, sent)
					require.NoError(t, in.Push(item(sent)))
				}
			case 'n':
				waiting := len(unsettled) > len(out)
				possible := waiting || newest > given && len(unsettled) < buffer
				if ordered && len(out) > 0 {
					possible = false
				}
				require.Equal(t, possible && (waiting || newest > given), take())
			case 'r':
				cursor, room := in.Resume()
				require.Equal(t, strconv.Itoa(low()), cursor)
				sent, credits, credit = low(), room, 0
			default:
				settle(op)
			}
			require.Equal(t, strconv.Itoa(low()), in.Cursor())
			require.LessOrEqual(t, len(out), buffer)
		}
		for len(out) > 0 || take() {
			settle('a')
		}
		require.Equal(t, newest, given, "nothing is lost")
		require.Equal(t, strconv.Itoa(newest), in.Cursor())
	})
}

// Many workers, some of which give up waiting, and a server with credit.
func TestInboxConcurrently(t *testing.T) {
	const n, buffer = 3000, 8
	credits := make(chan int, n)
	in := wire.NewInbox(transport.SubscribeOptions{Buffer: buffer, Require: transport.AtLeastOnce}, &wire.InboxOptions{
		Start: "0", Credit: func(n int) { credits <- n },
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		have := buffer
		for i := 1; i <= n; i++ {
			for have == 0 {
				have += <-credits
			}
			have--
			require.NoError(t, in.Push(item(i)))
		}
	})
	var acked [n + 1]atomic.Int32
	var left atomic.Int32
	left.Store(n)
	for w := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			var dst [3]*transport.Delivery
			for {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(300))*time.Microsecond)
				k, err := in.NextAll(ctx, dst[:1+r.IntN(3)])
				cancel()
				if err == io.EOF {
					return
				}
				for _, d := range dst[:k] {
					switch i, _ := strconv.Atoi(string(d.Body)); r.IntN(8) {
					case 0:
						d.Nack(transport.CodeCanceled)
					case 1:
						d.Nack(&transport.Error{Code: transport.CodeAborted, RetryAfter: time.Microsecond})
					default:
						acked[i].Add(1)
						d.Ack()
						if left.Add(-1) == 0 {
							in.Close()
						}
					}
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, strconv.Itoa(n), in.Cursor())
	for i := 1; i <= n; i++ {
		require.EqualValues(t, 1, acked[i].Load())
	}
}

func BenchmarkInbox(b *testing.B) {
	b.ReportAllocs()
	in := wire.NewInbox(transport.SubscribeOptions{}, &wire.InboxOptions{Credit: func(int) {}})
	body := []byte("body")
	for b.Loop() {
		if err := in.Push(&wire.Item{Message: transport.Message{Topic: "t", Body: body}, Cursor: "cursor"}); err != nil {
			b.Fatal(err)
		}
		d, err := in.Next(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		d.Ack()
	}
}

func TestInboxDropsWhatExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s settled
		for _, o := range []*wire.InboxOptions{{}, {Settle: s.settle}} {
			in := wire.NewInbox(transport.SubscribeOptions{}, o)
			it := item(1)
			it.Message.Header = transport.Header{"ttl": {"60000"}}
			require.NoError(t, in.Push(it))
			push(t, in, 2, 2)
			it = item(3)
			it.Message.Header = transport.Header{"ttl": {"60000"}}
			require.NoError(t, in.Push(it))
			time.Sleep(time.Minute)
			require.NoError(t, next(t, in, "2").Ack())
			nothing(t, in)
			if o.Settle == nil {
				require.Equal(t, "3", in.Cursor())
			}
		}
		require.Equal(t, []string{"1 canceled", "2", "3 canceled"}, s.log)
	})
}

// A wake-up that reaches someone who gives up at that moment is passed on.
func TestInboxWakesAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := wire.NewInbox(transport.SubscribeOptions{}, nil)
		got := make(chan error, 2)
		wait := func(ctx context.Context) {
			d, err := in.Next(ctx)
			if err == nil {
				err = d.Ack()
			}
			got <- err
		}
		for n := range 300 {
			ctx, cancel := context.WithCancel(t.Context())
			go wait(ctx)
			go wait(t.Context())
			synctest.Wait()
			go cancel()
			go in.Push(item(n))
			synctest.Wait()
			if len(got) == 1 {
				require.NoError(t, <-got, "the message waits, and so does somebody for it")
				push(t, in, n, n) // the one who gave up was faster
			} else {
				<-got
			}
			<-got
		}
	})
}
