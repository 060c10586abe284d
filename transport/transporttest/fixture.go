package transporttest

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// A Fixture is a transport under test and what it promises. Whatever it needs to be closed it registers with the
// Cleanup of the TB that it was made with. The zero value of a field is the strictest promise or the documented
// default.
type Fixture struct {
	// Sender publishes, calls and opens; Receiver subscribes, responds and accepts. They may be the same value. A verb
	// that is not offered answers an error that matches errors.ErrUnsupported, as the nil parts of [transport.Join] do.
	Sender, Receiver transport.Transport
	// Lacks lists the verbs that are not offered. Defaults to none.
	Lacks []transport.Op
	// Offers has the features that subscriptions may require. All others must be refused.
	Offers transport.Feature
	// MaxBytes is the limit of Message.Size. Defaults to transport.DefaultMaxBytes.
	MaxBytes int
	// Retention is a number of small messages that, once published, have surely evicted the one before them from the
	// history. 0 means that this cannot be tested.
	Retention int
	// Backlog is a number of small messages that surely overflow a subscription that takes none of them. Defaults to
	// Retention; with neither, overflow is not tested.
	Backlog int
	// Remote says that there is a wire between Sender and Receiver: the policy Block must be refused.
	Remote bool
	// Peer says that who handles a call or a stream finds a transport.Peer in its context. In process it is the one
	// in the caller's context.
	Peer bool
	// Blind says that a call cannot tell that nobody responds: then it may wait for the end of its ctx.
	Blind bool
	// NoCancel says that the end of a call's ctx cannot reach the responder.
	NoCancel bool
	// Synctest says that the fixture can be made and used within a testing/synctest bubble: it does no I/O outside of
	// it. Then all cases run in fake time, which makes them faster and the timed ones exact.
	Synctest bool
	// Disrupt cuts every connection. The transport must recover by itself. nil means that there is none to cut.
	Disrupt func()

	// Patience bounds every wait for something that must happen. Defaults to 10 s.
	Patience time.Duration
	// Latency bounds what must happen at once, such as the arrival of a message in an idle system. Defaults to 2 s.
	Latency time.Duration
	// Quiet is how long to watch that something does not happen. Defaults to 50 ms, in a bubble to 1 s.
	Quiet time.Duration
}

func (f *Fixture) setDefaults(bubble bool) {
	if f.MaxBytes == 0 {
		f.MaxBytes = transport.DefaultMaxBytes
	}
	if f.Backlog == 0 {
		f.Backlog = f.Retention
	}
	if f.Patience == 0 {
		f.Patience = 10 * time.Second
	}
	if f.Latency == 0 {
		f.Latency = 2 * time.Second
	}
	if f.Quiet == 0 {
		f.Quiet = 50 * time.Millisecond
		if bubble {
			f.Quiet = time.Second
		}
	}
}

// has reports whether the verb is offered.
func (f *Fixture) has(op transport.Op) bool { return !slices.Contains(f.Lacks, op) }

// offers reports whether all the features are offered.
func (f *Fixture) offers(feature transport.Feature) bool { return f.Offers&feature == feature }

// A testCase is one rule and the code that checks it.
type testCase struct {
	name    string // area/what
	rule    string
	needs   []need
	grouped bool // run it once more with every subscription in a group
	run     func(c *env)
	group   bool // this is that run
}

// A need returns what the fixture lacks for a case, "" if nothing.
type need func(f *Fixture) string

func verbs(ops ...transport.Op) need {
	return func(f *Fixture) string {
		for _, op := range ops {
			if !f.has(op) {
				return op.String()
			}
		}
		return ""
	}
}

func feature(features transport.Feature) need {
	return func(f *Fixture) string { return (features &^ f.Offers).String() }
}

func when(what string, holds func(f *Fixture) bool) need {
	return func(f *Fixture) string {
		if holds(f) {
			return ""
		}
		return what
	}
}

var (
	events    = verbs(transport.OpPublish, transport.OpSubscribe)
	calls     = verbs(transport.OpCall, transport.OpRespond)
	streams   = verbs(transport.OpOpen, transport.OpAccept)
	groups    = feature(transport.Groups)
	ordered   = feature(transport.Ordered)
	replay    = feature(transport.Replay)
	retention = when("Retention", func(f *Fixture) bool { return f.Retention > 0 })
	backlog   = when("Backlog", func(f *Fixture) bool { return f.Backlog > 0 })
)

// cases returns the table, the runs in groups included.
func cases() []testCase {
	var all []testCase
	for _, area := range [][]testCase{
		eventCases, groupCases, orderCases, replayCases, settleCases, deadLetterCases, delayCases, overflowCases,
		callCases, errorCases, streamCases, contentCases, argumentCases, featureCases, batchCases, contextCases,
		closingCases, serveCases, loadCases, disruptCases,
	} {
		for _, tc := range area {
			all = append(all, tc)
			if tc.grouped {
				tc.name += "-in-group"
				tc.needs = append(slices.Clone(tc.needs), groups)
				tc.group = true
				all = append(all, tc)
			}
		}
	}
	return all
}

// lacking returns what f lacks for the case, "" if it can run.
func (tc *testCase) lacking(f *Fixture) string {
	for _, n := range tc.needs {
		if what := n(f); what != "" {
			return what
		}
	}
	return ""
}

// Run holds a transport against the contract of package transport, in subtests named area/case. newFixture is called
// for each case, and once before to learn what is offered. A case has a time limit, at which all goroutines' stacks are
// printed, and fails if the closed fixture leaves goroutines behind. Cases that do not apply are listed in the log of t.
//
// A subtest must not call t.Parallel within newFixture.
func Run(t *testing.T, newFixture func(t testing.TB) Fixture) {
	t.Helper()
	f := describe(t, newFixture)
	if f.Sender == nil || f.Receiver == nil {
		t.Fatal("the fixture has no Sender or no Receiver")
	}
	f.setDefaults(f.Synctest)
	all := cases()
	var skipped []string
	for len(all) > 0 {
		area, _, _ := strings.Cut(all[0].name, "/")
		n := 1
		for n < len(all) && strings.HasPrefix(all[n].name, area+"/") {
			n++
		}
		t.Run(area, func(t *testing.T) {
			for _, tc := range all[:n] {
				if what := tc.lacking(&f); what != "" {
					skipped = append(skipped, fmt.Sprintf("%s: lacks %s", tc.name, what))
					continue
				}
				t.Run(strings.TrimPrefix(tc.name, area+"/"), func(t *testing.T) { tc.test(t, newFixture, f.Synctest) })
			}
		})
		all = all[n:]
	}
	if len(skipped) > 0 {
		t.Logf("%d of %d cases do not apply:\n\t%s", len(skipped), len(cases()), strings.Join(skipped, "\n\t"))
	}
}

// describe makes a fixture only to learn what is offered.
func describe(t *testing.T, newFixture func(t testing.TB) Fixture) Fixture {
	c := &env{TB: t}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.limited("the first fixture", caseTime, func() { c.Fixture = newFixture(c) })
	c.cancel()
	c.limited("closing the first fixture", caseTime, c.cleanup)
	if t.Failed() {
		t.FailNow()
	}
	return c.Fixture
}

// Limits of one case. In a bubble the time is fake, and a second limit guards against what never comes to rest.
const (
	caseTime   = time.Minute
	bubbleTime = time.Hour
	realTime   = 2 * time.Minute
)

func (tc *testCase) test(t *testing.T, newFixture func(testing.TB) Fixture, bubble bool) {
	if !bubble {
		tc.execute(t, newFixture, caseTime, false)
		return
	}
	defer time.AfterFunc(realTime, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("%s: not done after %v of real time", tc.name, realTime))
	}).Stop()
	defer func() {
		if p := recover(); p != nil { // a deadlock in the bubble: what hangs has been reported
			t.Errorf("%s: %v", tc.name, p)
		}
	}()
	synctest.Test(t, func(t *testing.T) { tc.execute(t, newFixture, bubbleTime, true) })
}
