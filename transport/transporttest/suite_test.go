package transporttest

import (
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

// poor offers events and no feature, from remote.
func poor(t testing.TB) Fixture {
	f := breaks(func(w *wrapper) {
		w.publish = func(ctx context.Context, m *transport.Message) error {
			for _, key := range []string{transport.HeaderDelay, transport.HeaderTTL} {
				if len(m.Header.Values(key)) > 0 {
					return transport.Errorf(transport.CodeUnimplemented, "there is no %s here", key)
				}
			}
			return w.send(ctx, m)
		}
		w.subscribe = func(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
			o, err := transport.Resolve(0, o)
			switch {
			case err != nil:
				return nil, err
			case o.Overflow == transport.Block:
				return nil, transport.Errorf(transport.CodeUnimplemented, "publishers do not wait")
			case o.Overflow == 0:
				o.Overflow = transport.Disconnect
			}
			s, err := w.sub(ctx, topic, o)
			if err != nil {
				return nil, err
			}
			none := func(*transport.Delivery) string { return "" }
			return &subscription{Subscription: delivering(s, func(d *transport.Delivery) *transport.Delivery {
				return remade(d, &source{cursor: none})
			}), cursor: func() string { return "" }}, nil
		}
	})(t)
	f.Offers, f.Remote, f.Peer = 0, true, false
	f.Lacks = []transport.Op{transport.OpCall, transport.OpRespond, transport.OpOpen, transport.OpAccept}
	f.Sender = transport.Join(transport.Parts{Publisher: f.Sender})
	f.Receiver = transport.Join(transport.Parts{Subscriber: f.Receiver})
	return f
}

// A transport that offers little passes, if it refuses the rest.
func TestPoor(t *testing.T) { Run(t, poor) }

func TestDishonest(t *testing.T) {
	for _, d := range []struct {
		name, caught string
		fixture      func(t testing.TB) Fixture
	}{
		{"gives what it does not offer", "features/not-offered features/options features/no-cursor delays/refused", func(t testing.TB) Fixture {
			f := healthy(t)
			f.Offers = 0
			return f
		}},
		{"refuses what it offers", "features/offered", func(t testing.TB) Fixture {
			f := poor(t)
			f.Offers = transport.Ordered
			return f
		}},
		{"has a verb that it says it lacks", "features/verbs", func(t testing.TB) Fixture {
			f := healthy(t)
			f.Lacks = []transport.Op{transport.OpCall}
			return f
		}},
		{"lacks a verb with the wrong error", "features/verbs", func(t testing.TB) Fixture {
			f := breaks(func(w *wrapper) {
				w.call = func(context.Context, *transport.Message) (*transport.Message, error) { return nil, io.ErrClosedPipe }
			})(t)
			f.Lacks = []transport.Op{transport.OpCall}
			return f
		}},
		{"lets remote subscribers block", "overflow/no-remote-block overflow/slow-remote", func(t testing.TB) Fixture {
			f := healthy(t)
			f.Remote = true
			return f
		}},
	} {
		t.Run(d.name, func(t *testing.T) {
			for _, name := range strings.Fields(d.caught) {
				failed, _ := record(t, find(t, name), d.fixture)
				require.True(t, failed, "%s does not catch a transport that %s", name, d.name)
			}
		})
	}
}

func find(t *testing.T, name string) testCase {
	for _, tc := range cases() {
		if tc.name == name {
			return tc
		}
	}
	t.Fatalf("there is no case %s", name)
	return testCase{}
}

// flaky is a bus behind connections that Disrupt cuts: calls in flight fail, streams end, what a group has out comes
// again. bad makes it wrong.
func flaky(bad string) func(t testing.TB) Fixture {
	return func(t testing.TB) Fixture {
		var mu sync.Mutex
		var cuts []func()
		onCut := func(f func()) {
			mu.Lock()
			defer mu.Unlock()
			cuts = append(cuts, f)
		}
		lost := &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonOutcomeUnknown, Message: "the connection is lost"}
		f := breaks(func(w *wrapper) {
			down := false
			onCut(func() { down = true })
			w.publish = func(ctx context.Context, m *transport.Message) error {
				mu.Lock()
				fails := down
				down = false
				mu.Unlock()
				if fails && bad == "loses what it accepted" {
					return nil
				}
				if fails {
					return &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent}
				}
				return w.send(ctx, m)
			}
			w.subscribe = func(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
				s, err := w.sub(ctx, topic, o)
				if err != nil {
					return nil, err
				}
				if bad == "ends subscriptions" {
					onCut(func() { s.Close() })
				}
				if o.Group == "" {
					if bad == "repeats what it handed out" {
						return repeating(s, onCut), nil
					}
					return s, nil
				}
				return delivering(s, func(d *transport.Delivery) *transport.Delivery {
					onCut(func() {
						if bad == "loses what is out" {
							d.Ack()
						} else {
							d.Nack(transport.CodeCanceled)
						}
					})
					var once sync.Once
					return remade(d, &source{settle: func(d *transport.Delivery, reply *transport.Message, err error) (serr error) {
						serr = lost
						if bad == "loses what is out" {
							return lost
						}
						once.Do(func() { serr = d.Settle(reply, err) })
						return serr
					}})
				}), nil
			}
			w.call = func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
				ctx, cancel := context.WithCancelCause(ctx)
				defer cancel(nil)
				if bad != "lets calls hang" {
					onCut(func() { cancel(lost) })
				} else if m.Topic != "" {
					hung := make(chan struct{})
					onCut(func() { close(hung) })
					r := async(func() (r result) { r.reply, r.err = w.Transport.Call(ctx, m); return r })
					select {
					case r := <-r:
						return r.reply, r.err
					case <-hung:
						<-ctx.Done()
						return nil, ctx.Err()
					}
				}
				r, err := w.Transport.Call(ctx, m)
				if cause := context.Cause(ctx); err != nil && cause == error(lost) {
					if bad == "calls again" {
						return w.Transport.Call(context.WithoutCancel(ctx), m)
					}
					return nil, lost
				}
				return r, err
			}
			w.open = func(ctx context.Context, topic string, h transport.Header) (transport.Stream, error) {
				s, err := w.Transport.Open(ctx, topic, h)
				if err == nil && bad != "lets streams hang" {
					onCut(func() { s.Close() })
				}
				return s, err
			}
		})(t)
		f.Disrupt = func() {
			mu.Lock()
			defer mu.Unlock()
			now := cuts[1:]
			cuts[0]()
			cuts = cuts[:1]
			for _, cut := range now {
				cut()
			}
		}
		return f
	}
}

// repeating hands the last delivery before a cut out again.
func repeating(s transport.Subscription, onCut func(func())) transport.Subscription {
	var mu sync.Mutex
	var last, again *transport.Message
	return &subscription{Subscription: s, next: func(ctx context.Context) (*transport.Delivery, error) {
		mu.Lock()
		m := again
		again = nil
		mu.Unlock()
		if m != nil {
			return transport.NewDelivery(nothing{}, 0, m, 1, 0), nil
		}
		d, err := s.Next(ctx)
		if err == nil {
			mu.Lock()
			last = d.Message
			mu.Unlock()
			onCut(func() {
				mu.Lock()
				defer mu.Unlock()
				again = last
			})
		}
		return d, err
	}}
}

// nothing is a source that settles nothing.
type nothing struct{}

func (nothing) Settle(uint64, *transport.Message, error) error { return nil }
func (nothing) Cursor(uint64, *transport.Message) string       { return "" }
func (nothing) Context(_ uint64, parent context.Context) (context.Context, context.CancelFunc) {
	return parent, func() {}
}

func TestDisrupted(t *testing.T) {
	for _, tc := range disruptCases {
		failed, text := record(t, tc, flaky(""))
		require.False(t, failed, "%s", text)
	}
	for bad, caught := range map[string]string{
		"loses what it accepted":     "disrupt/idle disrupt/replay disrupt/group",
		"ends subscriptions":         "disrupt/idle disrupt/replay",
		"repeats what it handed out": "disrupt/replay",
		"loses what is out":          "disrupt/unsettled",
		"lets calls hang":            "disrupt/calls",
		"calls again":                "disrupt/calls",
		"lets streams hang":          "disrupt/streams",
	} {
		for _, name := range strings.Fields(caught) {
			failed, _ := record(t, find(t, name), flaky(bad))
			require.True(t, failed, "%s does not catch a transport that %s", name, bad)
		}
	}
}

// What the frame of a case reports by itself, in real time.
func TestExecute(t *testing.T) {
	run := func(limit time.Duration, f func(c *env)) string {
		r := &recorder{TB: t}
		tc := testCase{name: "area/case", rule: "Some rule.", run: f}
		tc.execute(r, func(testing.TB) Fixture { return Fixture{Patience: 10 * time.Millisecond} }, limit, false)
		return r.text.String()
	}
	over := make(chan bool)
	defer close(over)
	text := run(50*time.Millisecond, func(*env) { <-over })
	require.Contains(t, text, "area/case: not done after 50ms")
	require.Contains(t, text, "TestExecute.func", "the stacks")
	require.Contains(t, text, "goroutines left behind")
	require.Empty(t, run(time.Minute, func(c *env) { c.Cleanup(func() { require.Error(t, c.Context().Err()) }) }))
	require.Contains(t, run(time.Minute, func(c *env) { c.Fatalf("said %d", 1); panic("unreachable") }), "said 1")
	require.Contains(t, run(time.Minute, func(c *env) { c.Cleanup(func() { c.Error("late") }) }), "late")
	require.Contains(t, run(time.Minute, func(*env) { panic("oh") }), "panic: oh")
	require.Contains(t, run(time.Minute, func(c *env) { c.Fail() }), "the rule: Some rule.")
	require.Contains(t, run(time.Minute, func(c *env) { await(c, make(chan bool), "the thing") }), "the thing: not done")
	require.Contains(t, run(time.Second, func(c *env) { c.Cleanup(func() { time.Sleep(400 * time.Millisecond) }) }), "closing after area/case: not done")
}

// Run lists what does not apply.
func TestRunSummary(t *testing.T) {
	if os.Getenv("TRANSPORTTEST_SUMMARY") != "" {
		Run(t, poor)
		return
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, "-test.run=^TestRunSummary$", "-test.v")
	cmd.Env = append(os.Environ(), "TRANSPORTTEST_SUMMARY=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(out), "cases do not apply")
	require.Contains(t, string(out), "calls/reply: lacks call")
	require.Contains(t, string(out), "--- PASS: TestRunSummary/features/not-offered")
}
