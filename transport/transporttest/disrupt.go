package transporttest

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var disrupted = when("Disrupt", func(f *Fixture) bool { return f.Disrupt != nil })

var disruptCases = []testCase{{
	name:  "disrupt/idle",
	rule:  "After every connection was cut, subscriptions go on and all verbs work again.",
	needs: []need{disrupted, events},
	run: func(c *env) {
		topic := c.topic()
		s := c.broadcast(topic, c.lasting())
		for i := range 3 {
			c.Disrupt()
			c.publishStubbornly(topic, strconv.Itoa(i))
			c.until(s, strconv.Itoa(i))
		}
		c.poll("all verbs", c.usable)
	},
}, {
	name:  "disrupt/replay",
	rule:  "An ungrouped subscription with Replay goes on from where it was: nothing is lost, nothing comes twice.",
	needs: []need{disrupted, events, replay},
	run: func(c *env) {
		const n = 150
		topic := c.topic()
		s := c.broadcast(topic, wantReplay, c.inOrder())
		published := c.publishThroughCuts(topic, n)
		got := map[string]int{}
		for len(got) < n {
			d := c.next(s)
			got[string(d.Body)]++
			d.Ack()
		}
		unsure := await(c, published, "the publisher")
		for d := c.maybe(s); d != nil; d = c.maybe(s) {
			got[string(d.Body)]++
			d.Ack()
		}
		for body, times := range got {
			if !unsure[body] {
				require.Equal(c, 1, times, "message %s came more than once", body)
			}
		}
	},
}, {
	name:  "disrupt/group",
	rule:  "A group loses nothing that was accepted: what was out when the connection was cut comes again.",
	needs: []need{disrupted, events, feature(transport.Groups | transport.AtLeastOnce)},
	run: func(c *env) {
		const n = 150
		topic := c.topic()
		var mu sync.Mutex
		seen := map[string]bool{}
		for range 2 {
			s := c.broadcast(topic, transport.Group("g"), transport.Require(transport.AtLeastOnce), transport.Buffer(8), transport.MaxAttempts(1000))
			c.serve(s, transport.NoReply(func(_ context.Context, m *transport.Message) error {
				mu.Lock()
				defer mu.Unlock()
				seen[string(m.Body)] = true
				return nil
			}), transport.Workers(2))
		}
		await(c, c.publishThroughCuts(topic, n), "the publisher")
		c.poll("all messages", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(seen) == n
		})
	},
}, {
	name:  "disrupt/unsettled",
	rule:  "A delivery of a group that was out when the connection was cut can be settled or comes again; none is lost.",
	needs: []need{disrupted, events, feature(transport.Groups | transport.AtLeastOnce)},
	run: func(c *env) {
		topic := c.topic()
		s := c.broadcast(topic, transport.Group("g"), transport.MaxAttempts(1000))
		c.publish(topic, "1", "2", "3")
		held := []*transport.Delivery{c.next(s), c.next(s), c.next(s)}
		c.Disrupt()
		time.Sleep(c.Quiet)
		settled := map[string]bool{}
		for _, d := range held {
			if d.Ack() == nil {
				settled[string(d.Body)] = true
			}
		}
		c.publishStubbornly(topic, "end")
		for len(settled) < 4 { // "end" included
			d := c.next(s)
			if d.Ack() == nil {
				settled[string(d.Body)] = true
			}
		}
		for d := c.maybe(s); d != nil; d = c.maybe(s) { // what came again, for good
			d.Ack()
		}
	},
}, {
	name:  "disrupt/calls",
	rule:  "A call that is cut off fails with an error or succeeds; it is handled twice only if it may be sent again.",
	needs: []need{disrupted, calls},
	run: func(c *env) {
		topic := c.topic()
		var mu sync.Mutex
		handled := map[string]int{}
		c.serve(c.respond(topic), func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			mu.Lock()
			handled[string(m.Body)]++
			if handled[string(m.Body)] == 1 && len(handled)%20 == 7 {
				go c.Disrupt()
			}
			mu.Unlock()
			time.Sleep(5 * time.Millisecond) // so that some are at work when it happens
			return &transport.Message{Body: m.Body}, nil
		}, transport.Workers(8))
		var succeeded atomic.Int32
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 25 {
					body := strconv.Itoa(g*1000 + i)
					ctx, cancel := c.patient()
					r, err := c.Sender.Call(ctx, &transport.Message{Topic: topic, Body: []byte(body)})
					cancel()
					if err == nil {
						require.Equal(c, body, string(r.Body))
						succeeded.Add(1)
						continue
					}
					require.False(c, errors.Is(err, context.DeadlineExceeded), "a call that is cut off does not hang")
					mu.Lock()
					n := handled[body]
					mu.Unlock()
					if transport.Resendable(err, nil) {
						require.Zero(c, n, "%v says that nothing was sent", err)
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		c.calm()
		mu.Lock()
		for body, n := range handled {
			require.Equal(c, 1, n, "call %s was handled more than once", body)
		}
		mu.Unlock()
		require.Positive(c, succeeded.Load())
		c.poll("a call", func() bool {
			ctx, cancel := c.patient()
			defer cancel()
			_, err := c.Sender.Call(ctx, &transport.Message{Topic: topic, Body: []byte("after")})
			return err == nil
		})
	},
}, {
	name:  "disrupt/streams",
	rule:  "A stream that is cut off ends with an error on both sides: neither hangs, and it is no clean end.",
	needs: []need{disrupted, streams},
	run: func(c *env) {
		s, in := c.stream()
		c.put(s.Send, "1")
		require.Equal(c, "1", c.item(in.Recv))
		ours := async(func() error { _, err := s.Recv(); return err })
		theirs := async(func() error { _, err := in.Recv(); return err })
		pending(c, ours, "Recv")
		c.Disrupt()
		for _, ch := range []<-chan error{ours, theirs} {
			err := await(c, ch, "Recv of a stream that was cut off")
			require.Error(c, err)
			require.NotEqual(c, io.EOF, err)
		}
		c.ended(in)
	},
}}

// publishThroughCuts publishes 1 to n, each until it is accepted, while connections are cut. It returns those that may
// have been taken more than once.
func (c *env) publishThroughCuts(topic string, n int) <-chan map[string]bool {
	return async(func() map[string]bool {
		unsure := map[string]bool{}
		for i := 1; i <= n; i++ {
			if i%(n/3) == n/6 {
				c.Disrupt()
			}
			if c.publishStubbornly(topic, strconv.Itoa(i)) {
				unsure[strconv.Itoa(i)] = true
			}
		}
		return unsure
	})
}

// publishStubbornly publishes until it is accepted, and reports whether an earlier try may have been taken.
func (c *env) publishStubbornly(topic, body string) (unsure bool) {
	c.Helper()
	m := &transport.Message{ID: transport.NewID(), Topic: topic, Body: []byte(body)}
	for end := time.Now().Add(c.Patience); ; time.Sleep(5 * time.Millisecond) {
		ctx, cancel := c.patient()
		err := c.Sender.Publish(ctx, m)
		cancel()
		if err == nil {
			return unsure
		}
		unsure = unsure || !transport.Resendable(err, nil)
		if time.Now().After(end) {
			c.Fatalf("Publish does not recover: %v", err)
		}
	}
}

// usable tries all verbs that are offered.
func (c *env) usable() bool {
	topic := c.topic()
	ctx, cancel := context.WithTimeout(c.ctx, c.Latency)
	defer cancel()
	if c.has(transport.OpPublish) && c.has(transport.OpSubscribe) {
		s, err := c.Receiver.Subscribe(ctx, topic)
		if err != nil {
			return false
		}
		defer s.Close()
		if c.Sender.Publish(ctx, &transport.Message{Topic: topic}) != nil {
			return false
		}
		d, err := s.Next(ctx)
		if err != nil || d.Ack() != nil {
			return false
		}
	}
	if c.has(transport.OpCall) && c.has(transport.OpRespond) {
		s, err := c.Receiver.Respond(ctx, topic)
		if err != nil {
			return false
		}
		defer s.Close()
		r := c.calling(ctx, topic, "")
		d, err := s.Next(ctx)
		if err != nil || d.Ack() != nil || (<-r).err != nil {
			return false
		}
	}
	if c.has(transport.OpOpen) && c.has(transport.OpAccept) {
		l, err := c.Receiver.Accept(ctx, topic)
		if err != nil {
			return false
		}
		defer l.Close()
		s, err := c.Sender.Open(ctx, topic, nil)
		if err != nil {
			return false
		}
		defer s.Close()
		in, err := l.Next(ctx)
		if err != nil || in.End(nil) != nil {
			return false
		}
		if _, err := s.Recv(); err != io.EOF {
			return false
		}
	}
	return true
}

// lasting requires what a subscription needs to lose nothing.
func (c *env) lasting() transport.SubscribeOption {
	return transport.Require(c.Offers & (transport.Replay | transport.AtLeastOnce))
}

// until takes deliveries until this one comes.
func (c *env) until(s transport.Subscription, body string) {
	c.Helper()
	for {
		d := c.next(s)
		d.Ack()
		if string(d.Body) == body {
			return
		}
	}
}

// poll waits for ok.
func (c *env) poll(what string, ok func() bool) {
	c.Helper()
	for end := time.Now().Add(c.Patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			c.Fatalf("%s: not there after %v", what, c.Patience)
		}
	}
}
