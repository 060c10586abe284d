package ws_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/ws"
)

// A change is what OnState was told.
type change struct {
	ws.State
	err error
}

func states() (chan change, func(ws.State, error)) {
	c := make(chan change, 100)
	return c, func(s ws.State, err error) { c <- change{s, err} }
}

func expectState(t testing.TB, c <-chan change, s ws.State) error {
	t.Helper()
	select {
	case got := <-c:
		require.Equal(t, s, got.State, "%v", got.err)
		return got.err
	case <-time.After(10 * time.Second):
		require.Fail(t, "the state does not change", "%v", s)
		return nil
	}
}

// script serves WebSockets by f, which is given the number of the connection; the first is 1.
func script(t testing.TB, f func(n int, p *peer)) *site {
	var n atomic.Int32
	return listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(n.Add(1))
		if n == 2 && r.URL.Query().Has("refuse") {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(503)
			return
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"intermodal.v1.json"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		f(n, &peer{t, c, context.Background()})
	}))
}

// request reads a frame.
func (p *peer) request() (r struct {
	Method string
	ID     int
	Params struct {
		Topic, ID, From string
		Again           bool
		Credit          *int
		Header          map[string][]string
	}
}) {
	if _, b, err := p.Read(p.ctx); err == nil {
		json.Unmarshal(b, &r)
	}
	return r
}

func (p *peer) result(id int, result string) {
	p.Write(p.ctx, websocket.MessageText, fmt.Appendf(nil, `{"jsonrpc":"2.0","result":%s,"id":%d}`, result, id))
}

func TestReconnect(t *testing.T) {
	b := backend(t)
	s := serve(t, b, nil)
	changes, onState := states()
	c := dial(t, s.URL, &ws.ClientOptions{OnState: onState})
	ctx := within(t)
	expectState(t, changes, ws.Connected)
	sub, err := c.Subscribe(ctx, "chat", transport.Buffer(4))
	require.NoError(t, err)
	next := func(want string) *transport.Delivery {
		t.Helper()
		d, err := sub.Next(ctx)
		require.NoError(t, err)
		require.Equal(t, want, string(d.Body))
		return d
	}
	publish := func(bodies ...string) {
		for _, body := range bodies {
			require.NoError(t, b.Publish(ctx, &transport.Message{Topic: "chat", Body: []byte(body)}))
		}
	}
	// Some settled, one out, some ready: nothing comes twice, nothing is lost.
	publish("1", "2", "3", "4", "5", "6", "7", "8")
	require.NoError(t, next("1").Ack())
	held := next("2")
	require.NoError(t, next("3").Ack())
	for range 3 {
		s.cut()
		require.ErrorIs(t, expectState(t, changes, ws.Disconnected), transport.CodeUnavailable)
		expectState(t, changes, ws.Connected)
	}
	publish("9")
	for i := 4; i <= 9; i++ {
		require.NoError(t, next(fmt.Sprint(i)).Ack())
	}
	require.NoError(t, held.Ack()) // what is local is settled locally
	require.NoError(t, c.Close())
	require.NoError(t, expectState(t, changes, ws.Closed))
	_, err = sub.Next(ctx)
	require.Equal(t, io.EOF, err)
	require.ErrorIs(t, c.Publish(ctx, &transport.Message{Topic: "chat"}), transport.CodeUnavailable)
}

// TestResend: publishes without an answer are sent again, in order, with the same ID.
func TestResend(t *testing.T) {
	seen := make(chan string, 10)
	s := script(t, func(n int, p *peer) {
		for i := 0; ; i++ {
			r := p.request()
			if r.Method == "" || n == 1 && i == 2 {
				return
			}
			seen <- fmt.Sprint(n, r.Params.ID, r.Params.Again)
			if n > 1 {
				p.result(r.ID, "null")
			}
		}
	})
	c := dial(t, s.URL, nil)
	errs := c.PublishAll(within(t), &transport.Message{ID: "a", Topic: "x"}, &transport.Message{ID: "b", Topic: "x"},
		&transport.Message{ID: "c", Topic: "x"})
	require.Equal(t, []error{nil, nil, nil}, errs)
	for _, want := range []string{"1a false", "1b false", "2a true", "2b true", "2c true"} {
		require.Equal(t, strings.Replace(want, " ", "", 1), strings.ReplaceAll(<-seen, " ", ""))
	}
}

// TestDedup: the server takes what is sent again once, also if the first one is still being published.
func TestDedup(t *testing.T) {
	var count atomic.Int32
	hold, began := make(chan struct{}), make(chan struct{}, 10)
	b := transport.Join(transport.Parts{Publisher: transport.Handler(func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
		count.Add(1)
		began <- struct{}{}
		<-hold
		if m.ID == "bad" {
			return nil, transport.CodeUnavailable
		}
		return nil, nil
	})})
	s := serve(t, b, nil)
	p, q := connect(t, s.URL, nil), connect(t, s.URL, nil)
	frame := func(id string, again bool) string {
		return fmt.Sprintf(`{"jsonrpc":"2.0","method":"rpc.publish","params":{"topic":"x","id":%q,"again":%t},"id":1}`, id, again)
	}
	p.send(frame("a", false))
	<-began
	q.send(frame("a", true))
	p.ask(`{"jsonrpc":"2.0","method":"rpc.ping","id":2}`, `{"jsonrpc":"2.0","result":null,"id":2}`)
	close(hold)
	require.JSONEq(t, `{"jsonrpc":"2.0","result":null,"id":1}`, p.recv())
	require.JSONEq(t, `{"jsonrpc":"2.0","result":null,"id":1}`, q.recv())
	require.EqualValues(t, 1, count.Load())
	q.ask(frame("a", true), `{"jsonrpc":"2.0","result":null,"id":1}`)
	require.EqualValues(t, 1, count.Load())
	q.ask(frame("a", false), `{"jsonrpc":"2.0","result":null,"id":1}`) // not marked: it is meant
	require.EqualValues(t, 2, count.Load())
	q.ask(frame("b", true), `{"jsonrpc":"2.0","result":null,"id":1}`) // the first one did not get here
	require.EqualValues(t, 3, count.Load())
	q.ask(frame("bad", false), `{"jsonrpc":"2.0","error":{"code":-32014,"data":"unavailable"},"id":1}`)
	q.ask(frame("bad", true), `{"jsonrpc":"2.0","error":{"code":-32014,"data":"unavailable"},"id":1}`) // what failed is tried
	require.EqualValues(t, 5, count.Load())
}

// TestDedupWaiting: an event that waits on a connection which its client holds for lost, and is sent again on another, is
// published once.
func TestDedupWaiting(t *testing.T) {
	var count atomic.Int32
	hold, began := make(chan struct{}), make(chan struct{}, 10)
	b := transport.Join(transport.Parts{Publisher: transport.Handler(func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
		if m.ID == "first" {
			began <- struct{}{}
			<-hold
		} else {
			count.Add(1)
		}
		return nil, nil
	})})
	s := serve(t, b, nil)
	p, q := connect(t, s.URL, nil), connect(t, s.URL, nil)
	frame := func(id string, again bool, n int) string {
		return fmt.Sprintf(`{"jsonrpc":"2.0","method":"rpc.publish","params":{"topic":"x","id":%q,"again":%t},"id":%d}`, id, again, n)
	}
	p.send(frame("first", false, 1))
	<-began
	p.send(frame("a", false, 2))
	p.ask(`{"jsonrpc":"2.0","method":"rpc.ping","id":3}`, `{"jsonrpc":"2.0","result":null,"id":3}`) // the server has it, and it waits
	q.send(frame("a", true, 1))
	require.JSONEq(t, `{"jsonrpc":"2.0","result":null,"id":1}`, q.recv())
	close(hold)
	p.recv()
	p.recv()
	require.EqualValues(t, 1, count.Load())
}

// TestGroupGivenBack: what a group hands to a subscription that was closed while it began again is given back.
func TestGroupGivenBack(t *testing.T) {
	asked, closed, acks := make(chan struct{}), make(chan struct{}), make(chan string, 10)
	s := script(t, func(n int, p *peer) {
		r := p.request()
		if n == 1 {
			p.result(r.ID, `{"sub":1,"buffer":4}`)
			p.Close(1012, "")
			return
		}
		close(asked)
		<-closed
		p.result(r.ID, `{"sub":3,"buffer":4}`)
		p.send(`{"jsonrpc":"2.0","method":"rpc.event","params":{"sub":3,"tag":1,"data":1}}`)
		for {
			_, b, err := p.Read(p.ctx)
			if err != nil {
				return
			}
			acks <- string(b)
		}
	})
	c := dial(t, s.URL, nil)
	sub, err := c.Subscribe(within(t), "x", transport.Group("g"))
	require.NoError(t, err)
	<-asked
	require.NoError(t, sub.Close())
	close(closed)
	require.Contains(t, <-acks, "rpc.unsubscribe")
	select {
	case ack := <-acks:
		require.Contains(t, ack, "rpc.ack")
		require.Contains(t, ack, "canceled")
	case <-within(t).Done():
		require.Fail(t, "the message is held until the connection ends")
	}
}

// TestGroupAbandoned: the same with a ctx that ends at any time while a subscription begins.
func TestGroupAbandoned(t *testing.T) {
	bus := backend(t)
	s := serve(t, bus, nil)
	c := dial(t, s.URL, nil)
	ctx := context.Background()
	keep, err := bus.Subscribe(ctx, "jobs", transport.Group("g"))
	require.NoError(t, err)
	defer keep.Close()
	stuck, ended := 0, 0
	const rounds = 200
	for i := range rounds {
		short, cancel := context.WithCancel(ctx)
		go func() {
			time.Sleep(time.Duration(i) * time.Microsecond)
			cancel()
		}()
		sub, err := c.Subscribe(short, "jobs", transport.Group("g"))
		if err == nil {
			sub.Close()
			cancel()
		} else {
			ended++
		}
		require.NoError(t, bus.Publish(ctx, &transport.Message{Topic: "jobs", Body: fmt.Append(nil, i)}))
		wait, stop := context.WithTimeout(ctx, 5*time.Second)
		d, err := keep.Next(wait)
		stop()
		if err != nil {
			stuck++
			continue
		}
		d.Ack()
	}
	t.Logf("%d of %d messages did not come; %d subscribes ended by ctx", stuck, rounds, ended)
	require.Zero(t, stuck)
}

// TestRetryAfter: the client comes back when it is told to.
func TestRetryAfter(t *testing.T) {
	at := make(chan time.Time, 10)
	s := script(t, func(n int, p *peer) {
		at <- time.Now()
		switch n {
		case 1:
			p.Close(1012, "")
		case 3:
			p.Close(1001, "retry=700")
		}
		p.request()
	})
	dial(t, s.URL+"?refuse", nil)
	first, second, third := <-at, <-at, <-at
	require.Greater(t, second.Sub(first), time.Second) // Retry-After of the handshake between them
	require.Greater(t, third.Sub(second), 700*time.Millisecond)
}

// TestFinal: some close codes are the end.
func TestFinal(t *testing.T) {
	s := script(t, func(n int, p *peer) {
		p.request()
		p.Close(4503, "go away")
	})
	changes, onState := states()
	c := dial(t, s.URL, &ws.ClientOptions{OnState: onState})
	expectState(t, changes, ws.Connected)
	_, err := c.Call(within(t), &transport.Message{Topic: "x"})
	require.ErrorIs(t, err, transport.CodeUnavailable)
	require.ErrorIs(t, expectState(t, changes, ws.Closed), transport.CodeUnavailable)
	_, err = c.Subscribe(within(t), "x")
	require.ErrorIs(t, err, transport.CodeUnavailable)
	require.True(t, transport.Resendable(err, nil))
	require.Error(t, c.Publish(within(t), &transport.Message{Topic: "x"}))
}

// TestRefusedForGood: credentials that are refused twice are the end.
func TestRefusedForGood(t *testing.T) {
	var refuse atomic.Bool
	s := serve(t, backend(t), &ws.Options{Authenticate: func(*http.Request) (transport.Peer, error) {
		if refuse.Load() {
			return transport.Peer{}, transport.CodeUnauthenticated
		}
		return transport.Peer{}, nil
	}})
	changes, onState := states()
	c := dial(t, s.URL, &ws.ClientOptions{OnState: onState})
	expectState(t, changes, ws.Connected)
	sub, err := c.Subscribe(within(t), "x")
	require.NoError(t, err)
	refuse.Store(true)
	s.cut()
	expectState(t, changes, ws.Disconnected)
	require.ErrorIs(t, expectState(t, changes, ws.Closed), transport.CodeUnauthenticated)
	_, err = sub.Next(within(t))
	require.ErrorIs(t, err, transport.CodeUnauthenticated)
}

// TestPatience: without a connection operations do not wait for ever.
func TestPatience(t *testing.T) {
	s := serve(t, backend(t), nil)
	changes, onState := states()
	c := dial(t, s.URL, &ws.ClientOptions{OnState: onState, Patience: 50 * time.Millisecond})
	expectState(t, changes, ws.Connected)
	s.Listener.Close()
	s.cut()
	expectState(t, changes, ws.Disconnected)
	err := c.Publish(within(t), &transport.Message{Topic: "x"})
	require.ErrorIs(t, err, transport.CodeUnavailable)
	require.True(t, transport.Resendable(err, nil))
	_, err = c.Call(within(t), &transport.Message{Topic: "x"})
	require.True(t, transport.Resendable(err, nil))
	_, err = c.Subscribe(within(t), "x")
	require.True(t, transport.Resendable(err, nil))
	require.ErrorIs(t, c.Health(within(t)), transport.CodeUnavailable)
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, err = c.Open(ctx, "x", nil)
	require.Equal(t, context.DeadlineExceeded, err)
}

// TestLostCursor: a subscription whose place in the history is gone ends, and says so.
func TestLostCursor(t *testing.T) {
	first, second := backend(t), mem.New(nil)
	defer second.Close()
	var now atomic.Pointer[ws.Server]
	a, b := ws.NewServer(first, nil), ws.NewServer(second, nil)
	now.Store(a)
	s := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { now.Load().ServeHTTP(w, r) }))
	defer b.Close()
	defer a.Close()
	c := dial(t, s.URL, nil)
	ctx := within(t)
	sub, err := c.Subscribe(ctx, "chat")
	require.NoError(t, err)
	now.Store(b)
	s.cut()
	_, err = sub.Next(ctx)
	require.ErrorIs(t, err, transport.CodeOutOfRange)
	_, err = c.Subscribe(ctx, "chat") // the client itself goes on
	require.NoError(t, err)
}

// forgetful has no history: its subscriptions have no cursors.
type forgetful struct{ transport.Transport }

func (f forgetful) Subscribe(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	s, err := f.Transport.Subscribe(ctx, topic, opts...)
	if err != nil {
		return nil, err
	}
	return blind{s}, nil
}

type blind struct{ transport.Subscription }

func (blind) Cursor() string { return "" }

// TestNoHistory: what cannot be resumed ends, rather than to lose events without a word.
func TestNoHistory(t *testing.T) {
	s := serve(t, forgetful{backend(t)}, nil)
	c := dial(t, s.URL, nil)
	sub, err := c.Subscribe(within(t), "chat")
	require.NoError(t, err)
	s.cut()
	_, err = sub.Next(within(t))
	require.ErrorIs(t, err, transport.CodeUnavailable)
}

// TestResubscribeLater: a server that is not ready yet is asked again.
func TestResubscribeLater(t *testing.T) {
	credits := make(chan int, 10)
	s := script(t, func(n int, p *peer) {
		for i := 0; ; i++ {
			r := p.request()
			switch {
			case r.Method == "":
				return
			case r.Method != "rpc.subscribe":
			case n == 2 && i == 0:
				p.send(fmt.Sprintf(`{"jsonrpc":"2.0","error":{"code":-32014,"message":"not yet"},"id":%d}`, r.ID))
			default:
				credits <- *r.Params.Credit
				p.result(r.ID, `{"sub":3,"cursor":"c0","buffer":4}`)
				if n == 1 {
					p.send(`{"jsonrpc":"2.0","method":"rpc.event","params":{"sub":3,"cursor":"c1","data":1}}`)
					p.Close(1012, "")
				} else {
					require.Equal(t, "c0", r.Params.From)
					p.send(`[{"jsonrpc":"2.0","method":"rpc.event","params":{"sub":3,"cursor":"c1","data":1}},
						{"jsonrpc":"2.0","method":"rpc.event","params":{"sub":3,"cursor":"c2","data":2}},
						{"jsonrpc":"2.0","method":"rpc.end","params":{"sub":3}}]`)
				}
			}
		}
	})
	c := dial(t, s.URL, nil)
	sub, err := c.Subscribe(within(t), "x", transport.Buffer(4))
	require.NoError(t, err)
	require.Equal(t, 4, <-credits)
	require.Equal(t, 3, <-credits) // one is held ready
	for _, want := range []string{"1", "2"} {
		d, err := sub.Next(within(t))
		require.NoError(t, err)
		require.Equal(t, want, string(d.Body))
		require.NoError(t, d.Ack())
	}
	_, err = sub.Next(within(t))
	require.Equal(t, io.EOF, err)
}

// TestPoison: an event that ends the connection is not sent again for ever.
func TestPoison(t *testing.T) {
	s := serve(t, backend(t), &ws.Options{MaxBytes: 1000})
	c := dial(t, s.URL, &ws.ClientOptions{MaxBytes: 10 << 20})
	err := c.Publish(within(t), &transport.Message{Topic: "x", Body: make([]byte, 1<<20)})
	require.ErrorIs(t, err, transport.CodeResourceExhausted)
	require.NoError(t, c.Publish(within(t), &transport.Message{Topic: "x"}))
}

// TestServerAsks has a server that asks its client for what that does not have, and sends what nobody wants.
func TestServerAsks(t *testing.T) {
	answers := make(chan string, 10)
	s := script(t, func(_ int, p *peer) {
		for _, frame := range []string{
			`{"jsonrpc":"2.0","method":"rpc.nonsense","params":["x"],"id":1}`,
			`{"jsonrpc":"2.0","method":"rpc.ping","params":{},"id":2}`,
			`{"jsonrpc":"2.0","method":"rpc.event","params":{"sub":7,"data":1}}`,
			`{"jsonrpc":"2.0","method":"shop.order","params":{},"id":3}`,
			`{"jsonrpc":"2.0","method":"rpc.open","params":{"sub":7,"stream":2},"id":4}`,
		} {
			p.Write(p.ctx, websocket.MessageText, []byte(frame))
		}
		for {
			_, b, err := p.Read(p.ctx)
			if err != nil {
				return
			}
			answers <- string(b)
		}
	})
	dial(t, s.URL, nil)
	for _, want := range []string{`"code":-32601`, `"result":null`, `"code":-32601`, `"code":-32601`} {
		select {
		case got := <-answers:
			require.Contains(t, got, want)
		case <-within(t).Done():
			require.Fail(t, "there is no answer", want)
		}
	}
}

// TestResendable: a call that may be sent again is; any other fails.
func TestResendable(t *testing.T) {
	s := script(t, func(n int, p *peer) {
		r := p.request()
		if n == 1 || r.Method == "" || r.Method == "y" {
			return
		}
		p.result(r.ID, "7")
		p.request()
	})
	c := dial(t, s.URL, nil)
	reply, err := c.Call(within(t), &transport.Message{Topic: "x", Header: transport.Header{"idempotency-key": {"k"}}})
	require.NoError(t, err)
	require.Equal(t, "7", string(reply.Body))
	_, err = c.Call(within(t), &transport.Message{Topic: "y"})
	require.ErrorIs(t, err, transport.CodeUnavailable)
	require.Equal(t, transport.ReasonOutcomeUnknown, transport.Public(err).Reason)
}

// TestDrain: at Shutdown nothing that is under way is lost, and clients go to another server by themselves.
func TestDrain(t *testing.T) {
	b := backend(t)
	servers := []*ws.Server{ws.NewServer(b, nil), ws.NewServer(b, nil)}
	var n atomic.Int32
	s := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { servers[n.Load()].ServeHTTP(w, r) }))
	defer servers[1].Close()
	changes, onState := states()
	c := dial(t, s.URL, &ws.ClientOptions{OnState: onState})
	p := connect(t, s.URL, nil)
	expectState(t, changes, ws.Connected)
	ctx := within(t)
	events, err := c.Subscribe(ctx, "chat")
	require.NoError(t, err)
	jobs, err := c.Subscribe(ctx, "jobs", transport.Group("g"))
	require.NoError(t, err)
	responder, err := c.Respond(ctx, "slow")
	require.NoError(t, err)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer responder.Close()
	wg.Go(func() {
		transport.Serve(ctx, responder, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			return &transport.Message{Body: m.Body}, nil
		})
	})
	require.NoError(t, b.Publish(ctx, &transport.Message{Topic: "jobs"}))
	job, err := jobs.Next(ctx)
	require.NoError(t, err)

	down := make(chan error, 1)
	n.Store(1)
	go func() { down <- servers[0].Shutdown(ctx) }()
	reason := p.closed(websocket.StatusGoingAway).Reason
	if reason != "" {
		require.Regexp(t, `^retry=\d+$`, reason)
	}
	select {
	case err := <-down:
		require.Fail(t, "Shutdown does not wait for a delivery that is out", "%v", err)
	case <-changes:
		require.Fail(t, "the connection was cut")
	case <-time.After(50 * time.Millisecond):
	}
	require.NoError(t, job.Ack())
	require.NoError(t, <-down)
	expectState(t, changes, ws.Disconnected)
	expectState(t, changes, ws.Connected)
	require.NoError(t, c.Publish(ctx, &transport.Message{Topic: "chat", Body: []byte("1")}))
	d, err := events.Next(ctx)
	require.NoError(t, err)
	require.Equal(t, "1", string(d.Body))
	require.Eventually(t, func() bool {
		r, err := c.Call(ctx, &transport.Message{Topic: "slow", Body: []byte("2")})
		return err == nil && string(r.Body) == "2"
	}, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, b.Publish(ctx, &transport.Message{Topic: "jobs", Body: []byte("3")}))
	job, err = jobs.Next(ctx)
	require.NoError(t, err)
	require.Equal(t, "3", string(job.Body)) // the first one was settled
	require.NoError(t, job.Ack())
	dial(t, s.URL, nil)
	n.Store(0)
	_, err = ws.Dial(ctx, s.URL, nil)
	require.ErrorIs(t, err, transport.CodeUnavailable)
	require.Equal(t, time.Second, transport.Public(err).RetryAfter)
	require.ErrorIs(t, servers[0].Health(ctx), transport.CodeUnavailable)
}

// TestMaxAge: connections do not live for ever, and nobody notices.
func TestMaxAge(t *testing.T) {
	s := serve(t, backend(t), &ws.Options{MaxAge: 100 * time.Millisecond, Heartbeat: 40 * time.Millisecond})
	changes, onState := states()
	c := dial(t, s.URL, &ws.ClientOptions{OnState: onState})
	ctx := within(t)
	sub, err := c.Subscribe(ctx, "chat")
	require.NoError(t, err)
	expectState(t, changes, ws.Connected)
	for i := range 3 {
		expectState(t, changes, ws.Disconnected)
		require.NoError(t, c.Publish(ctx, &transport.Message{Topic: "chat", Body: fmt.Append(nil, i)}))
		expectState(t, changes, ws.Connected)
		d, err := sub.Next(ctx)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), string(d.Body))
		require.NoError(t, d.Ack())
	}
}

// TestExpiry: credentials are renewed in band by who can, and end the connection of who does not.
func TestExpiry(t *testing.T) {
	var mu sync.Mutex
	var tokens []string
	o := ws.Options{Heartbeat: time.Second, Authenticate: func(r *http.Request) (transport.Peer, error) {
		mu.Lock()
		defer mu.Unlock()
		token := r.Header.Get("Authorization")
		tokens = append(tokens, token)
		if token == "somebody else" {
			return transport.Peer{ID: token, Expires: time.Now().Add(time.Hour)}, nil
		}
		return transport.Peer{ID: "me", Expires: time.Now().Add(1500 * time.Millisecond)}, nil
	}}
	ids := make(chan string, 100)
	handler := transport.Handler(func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
		p, _ := transport.PeerFrom(ctx)
		ids <- p.ID
		return nil, nil
	})
	s := serve(t, transport.Join(transport.Parts{Caller: handler}), &o)
	changes, onState := states()
	var n atomic.Int32
	c := dial(t, s.URL, &ws.ClientOptions{OnState: onState, Authorize: func(_ context.Context, h http.Header) error {
		h.Set("Authorization", fmt.Sprint("token ", n.Add(1)))
		return nil
	}})
	p := connect(t, s.URL, nil)
	p.ask(`{"jsonrpc":"2.0","method":"rpc.authenticate","params":{"header":{"authorization":"somebody else"}},"id":1}`,
		`{"jsonrpc":"2.0","error":{"code":-32007,"data":"permission_denied"},"id":1}`)
	p.send(`{"jsonrpc":"2.0","method":"rpc.authenticate","params":{"header":{"authorization":"x"}},"id":1}`)
	require.Regexp(t, `"expires":(1[0-5]\d\d|\d{1,3})\}`, p.recv())
	p.closed(4401)
	require.Eventually(t, func() bool { return n.Load() >= 4 }, 20*time.Second, 10*time.Millisecond)
	expectState(t, changes, ws.Connected)
	require.Empty(t, changes) // all on the first connection
	_, err := c.Call(within(t), &transport.Message{Topic: "x"})
	require.NoError(t, err)
	require.Equal(t, "me", <-ids)
	mu.Lock()
	defer mu.Unlock()
	require.Contains(t, tokens, "token 3")
}

// TestHeartbeat: who says nothing is asked, and who does not answer is cut off.
func TestHeartbeat(t *testing.T) {
	s := serve(t, backend(t), &ws.Options{Heartbeat: 40 * time.Millisecond})
	began := time.Now()
	p := connect(t, s.URL, nil) // it does not read, so it does not answer
	require.Eventually(t, func() bool { return s.open() == 0 }, 10*time.Second, 5*time.Millisecond)
	require.Greater(t, time.Since(began), 60*time.Millisecond)
	p.CloseNow()

	s = serve(t, backend(t), &ws.Options{Heartbeat: 500 * time.Millisecond})
	q := connect(t, s.URL, nil) // it reads, and answers
	go q.Read(q.ctx)
	c := dial(t, s.URL, &ws.ClientOptions{Heartbeat: 400 * time.Millisecond})
	require.Never(t, func() bool { return s.open() != 2 }, 2*time.Second, 10*time.Millisecond)
	require.NoError(t, c.Health(within(t)))

	silent := script(t, func(n int, p *peer) { <-within(t).Done() })
	changes, onState := states()
	dial(t, silent.URL, &ws.ClientOptions{Heartbeat: 20 * time.Millisecond, OnState: onState})
	expectState(t, changes, ws.Connected)
	expectState(t, changes, ws.Disconnected)
	silent.cut()
}

// open is how many connections there are.
func (s *site) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// TestShutdown: a client comes to its end in order.
func TestShutdown(t *testing.T) {
	b := backend(t)
	s := serve(t, b, nil)
	c := dial(t, s.URL, nil)
	ctx := within(t)
	jobs, err := c.Subscribe(ctx, "jobs", transport.Group("g"), transport.Buffer(1))
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, b.Publish(ctx, &transport.Message{Topic: "jobs"}))
	}
	job, err := jobs.Next(ctx)
	require.NoError(t, err)
	down := make(chan error, 1)
	go func() { down <- c.Shutdown(ctx) }()
	_, err = jobs.Next(ctx)
	require.Equal(t, io.EOF, err)
	require.Eventually(t, func() bool { return c.Health(ctx) != nil }, 10*time.Second, time.Millisecond)
	select {
	case err := <-down:
		require.Fail(t, "Shutdown does not wait for a delivery that is out", "%v", err)
	case <-time.After(50 * time.Millisecond):
	}
	require.NoError(t, job.Ack())
	require.NoError(t, <-down)
	again, err := b.Subscribe(ctx, "jobs", transport.Group("g"))
	require.NoError(t, err)
	defer again.Close()
	for range 2 {
		d, err := again.Next(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, d.Attempt) // given back
		require.NoError(t, d.Ack())
	}
}

// TestLimits: what is too much for one connection is refused, and a connection too many as well.
func TestLimits(t *testing.T) {
	b := backend(t)
	s := serve(t, b, &ws.Options{MaxConnections: 2, MaxSubscriptions: 2, MaxCalls: 1, MaxStreams: 1, MaxBuffer: 3})
	p, c := connect(t, s.URL, nil), dial(t, s.URL, nil)
	ctx := within(t)
	_, err := ws.Dial(ctx, s.URL, nil)
	require.ErrorIs(t, err, transport.CodeUnavailable)
	for i := range 2 {
		p.ask(fmt.Sprintf(`{"jsonrpc":"2.0","method":"rpc.respond","params":{"topic":"x"},"id":%d}`, i),
			fmt.Sprintf(`{"jsonrpc":"2.0","result":{"sub":%d,"buffer":3},"id":%d}`, i+1, i))
	}
	p.ask(`{"jsonrpc":"2.0","method":"rpc.accept","params":{"topic":"x"},"id":1}`,
		`{"jsonrpc":"2.0","error":{"code":-32008,"data":"resource_exhausted"},"id":1}`)
	p.ask(`{"jsonrpc":"2.0","method":"rpc.unsubscribe","params":{"sub":2},"id":1}`, `{"jsonrpc":"2.0","result":null,"id":1}`)
	p.ask(`{"jsonrpc":"2.0","method":"rpc.accept","params":{"topic":"x"},"id":1}`, `{"jsonrpc":"2.0","result":{"sub":3},"id":1}`)

	first, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := c.Call(first, &transport.Message{Topic: "x"})
		done <- err
	}()
	require.Contains(t, p.recv(), `"method":"x"`)
	_, err = c.Call(ctx, &transport.Message{Topic: "x"})
	require.ErrorIs(t, err, transport.CodeResourceExhausted)
	cancel()
	require.Equal(t, context.Canceled, <-done)
	require.Contains(t, p.recv(), `"rpc.cancel"`)

	st, err := c.Open(ctx, "x", nil)
	require.NoError(t, err)
	p.send(fmt.Sprintf(`{"jsonrpc":"2.0","result":null,"id":%s}`, idOf(p.recv())))
	_, err = c.Open(ctx, "x", nil)
	require.ErrorIs(t, err, transport.CodeResourceExhausted)
	require.NoError(t, st.Close())
}

// idOf returns the id of a request.
func idOf(frame string) string {
	var r struct{ ID json.RawMessage }
	json.Unmarshal([]byte(frame), &r)
	return string(r.ID)
}
