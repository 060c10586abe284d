package transporttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

// hang waits for the end of the case, or for longer than any case lasts.
func (w *wrapper) hang() {
	select {
	case <-w.over:
	case <-time.After(30 * time.Minute):
	}
}

// broken are transports that are wrong in one way, and the cases that must find out.
var broken = []struct {
	name   string
	caught string // by all of these, separated by spaces
	break_ func(w *wrapper)
}{
	// Events
	{"loses every message", "serve/application events/every events/live events/live-in-group", func(w *wrapper) {
		w.publish = func(context.Context, *transport.Message) error { return nil }
	}},
	{"loses one message in 100", "events/publishers load/everything load/one-subscription events/every events/every-in-group replay/racing", func(w *wrapper) {
		var n atomic.Int32
		w.publish = func(ctx context.Context, m *transport.Message) error {
			if n.Add(1)%100 == 0 {
				return nil
			}
			return w.send(ctx, m)
		}
	}},
	{"duplicates one message in 50", "events/every events/every-in-group order/publication groups/share-many", func(w *wrapper) {
		var n atomic.Int32
		w.publish = func(ctx context.Context, m *transport.Message) error {
			if n.Add(1)%50 == 0 {
				w.send(ctx, m)
			}
			return w.send(ctx, m)
		}
	}},
	{"reorders", "order/publication order/publication-in-group order/members", func(w *wrapper) {
		var mu sync.Mutex
		var held *transport.Message
		n := 0
		w.publish = func(ctx context.Context, m *transport.Message) error {
			mu.Lock()
			defer mu.Unlock()
			if n++; n%10 == 5 {
				held = m
				return nil
			}
			err := w.send(ctx, m)
			if held != nil {
				w.send(ctx, held)
				held = nil
			}
			return err
		}
	}},
	{"folds the case of topics", "events/topics calls/topics", func(w *wrapper) {
		published(func(m *transport.Message) { m.Topic = strings.ToLower(m.Topic) })(w)
		requested(func(m *transport.Message) { m.Topic = strings.ToLower(m.Topic) })(w)
	}},
	{"escapes topics so that two collide", "events/topics", func(w *wrapper) {
		escape := strings.NewReplacer(" ", "_", "/", "_", "%", "_")
		published(func(m *transport.Message) { m.Topic = escape.Replace(m.Topic) })(w)
		w.subscribe = func(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
			return w.sub(ctx, escape.Replace(topic), o)
		}
	}},
	{"has a ghost message at the end", "events/no-ghosts closing/next", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return &subscription{Subscription: s, next: func(ctx context.Context) (*transport.Delivery, error) {
			d, err := s.Next(ctx)
			if err == io.EOF {
				return transport.NewDelivery(&source{}, 0, &transport.Message{}, 1, 0), nil
			}
			return d, err
		}}
	})},
	{"returns neither delivery nor error", "events/no-ghosts closing/next closing/next-in-group", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return &subscription{Subscription: s, next: func(ctx context.Context) (*transport.Delivery, error) {
			d, err := s.Next(ctx)
			if err == io.EOF {
				err = nil
			}
			return d, err
		}}
	})},
	{"has a ghost message when others leave", "events/no-ghosts groups/independent", subscribed(func(w *wrapper, s transport.Subscription) transport.Subscription {
		return &subscription{Subscription: s, next: func(ctx context.Context) (*transport.Delivery, error) {
			d, err := s.Next(ctx)
			if errors.Is(err, context.DeadlineExceeded) {
				return transport.NewDelivery(&source{}, 0, &transport.Message{}, 1, 0), nil
			}
			return d, err
		}}
	})},
	{"is live late", "events/live events/live-in-group", func(w *wrapper) {
		w.subscribe = func(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
			return late(func() (transport.Subscription, error) { return w.sub(context.WithoutCancel(ctx), topic, o) }), nil
		}
	}},
	{"shows the past", "events/nobody replay/no-demand replay/start", demanded(func(o *transport.SubscribeOptions) {
		if o.From == "" && o.Group == "" {
			o.From = transport.Oldest
		}
	})},
	{"looks every 10 seconds", "events/idle events/idle-in-group", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return &subscription{Subscription: s, next: func(ctx context.Context) (*transport.Delivery, error) {
			for {
				now, cancel := context.WithTimeout(ctx, time.Nanosecond)
				d, err := s.Next(now)
				cancel()
				if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
					return d, err
				}
				time.Sleep(10*time.Second - time.Duration(time.Now().UnixNano())%(10*time.Second))
			}
		}}
	})},
	{"misses the third subscriber", "events/fan-out", func(w *wrapper) {
		var n atomic.Int32
		w.subscribe = func(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
			if n.Add(1) == 3 {
				topic += ".lost"
			}
			return w.sub(ctx, topic, o)
		}
	}},
	{"says that the first attempt is the second", "events/first settle/attempts", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return delivering(s, func(d *transport.Delivery) *transport.Delivery { d.Attempt++; return d })
	})},

	// Groups
	{"ignores Group", "groups/share groups/share-many groups/outlive groups/cursor", demanded(func(o *transport.SubscribeOptions) { o.Group, o.DeadLetter = "", "" })},
	{"has one group per topic", "groups/independent groups/names", demanded(func(o *transport.SubscribeOptions) {
		if o.Group != "" {
			o.Group = "g"
		}
	})},
	{"folds the case of groups", "groups/independent groups/names", demanded(func(o *transport.SubscribeOptions) { o.Group = strings.ToLower(o.Group) })},
	{"forgets a group with its last member", "groups/outlive groups/late-settle groups/give-back", func(w *wrapper) {
		var mu sync.Mutex
		members, lives := map[string]int{}, map[string]int{}
		w.subscribe = func(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
			if o.Group == "" {
				return w.sub(ctx, topic, o)
			}
			mu.Lock()
			defer mu.Unlock()
			g := topic + "|" + o.Group
			o.Group = fmt.Sprint(o.Group, lives[g])
			s, err := w.sub(ctx, topic, o)
			if err != nil {
				return nil, err
			}
			members[g]++
			return &subscription{Subscription: s, close: sync.OnceValue(func() error {
				mu.Lock()
				defer mu.Unlock()
				if members[g]--; members[g] == 0 {
					lives[g]++
				}
				return s.Close()
			})}, nil
		}
	}},
	{"lets a joiner change nothing and say nothing", "groups/settings", func(w *wrapper) {
		var made sync.Map
		w.subscribe = func(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
			if _, again := made.LoadOrStore(topic+"|"+o.Group, true); again && o.Group != "" {
				o = transport.SubscribeOptions{Group: o.Group, Buffer: o.Buffer}
			}
			return w.sub(ctx, topic, o)
		}
	}},
	{"refuses a joiner that leaves MaxAttempts unset", "groups/settings", demanded(func(o *transport.SubscribeOptions) {
		if o.Group != "" && o.MaxAttempts == 0 {
			o.MaxAttempts = transport.DefaultMaxAttempts
		}
	})},
	{"has cursors in groups", "groups/cursor", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return &subscription{Subscription: s, cursor: func() string { return s.Cursor() + "0" }}
	})},
	{"loses what it has prefetched at Close", "groups/give-back groups/churn serve/shutdown", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		var mu sync.Mutex
		var ready []*transport.Delivery
		return &subscription{Subscription: s, next: func(ctx context.Context) (*transport.Delivery, error) {
			mu.Lock()
			defer mu.Unlock()
			for len(ready) == 0 || len(ready) < 5 {
				some, cancel := ctx, context.CancelFunc(func() {})
				if len(ready) > 0 {
					some, cancel = context.WithTimeout(ctx, time.Nanosecond)
				}
				d, err := s.Next(some)
				cancel()
				if err != nil {
					if len(ready) == 0 {
						return nil, err
					}
					break
				}
				ready = append(ready, d)
			}
			d := ready[0]
			ready = ready[1:]
			return d, nil
		}, close: func() error {
			err := s.Close()
			for _, d := range ready {
				d.Ack()
			}
			return err
		}}
	})},
	{"ignores settling after Close", "groups/late-settle", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		var closed atomic.Bool
		s = delivering(s, func(d *transport.Delivery) *transport.Delivery {
			return remade(d, &source{settle: func(d *transport.Delivery, reply *transport.Message, err error) error {
				if closed.Load() {
					return nil
				}
				return d.Settle(reply, err)
			}})
		})
		return &subscription{Subscription: s, close: func() error { closed.Store(true); return s.Close() }}
	})},
	{"gives back at Close what is out", "groups/late-settle groups/give-back", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		var mu sync.Mutex
		var out []*transport.Delivery
		s = delivering(s, func(d *transport.Delivery) *transport.Delivery {
			mu.Lock()
			defer mu.Unlock()
			out = append(out, d)
			return remade(d, &source{})
		})
		return &subscription{Subscription: s, close: func() error {
			mu.Lock()
			defer mu.Unlock()
			for _, d := range out {
				d.Nack(transport.CodeCanceled)
			}
			return s.Close()
		}}
	})},

	{"ignores From in groups", "groups/start groups/settings", demanded(func(o *transport.SubscribeOptions) {
		if o.Group != "" {
			o.From = ""
		}
	})},

	// Order
	{"ignores Require(Ordered)", "order/one-at-a-time order/redelivery order/one-at-a-time-in-group order/members batches/buffer", demanded(func(o *transport.SubscribeOptions) { o.Require &^= transport.Ordered })},
	{"puts what is refused at the tail", "order/redelivery order/redelivery-in-group order/give-back settle/attempts", func(w *wrapper) {
		w.subscribe = func(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
			s, err := w.sub(ctx, topic, o)
			if err != nil {
				return nil, err
			}
			return delivering(s, func(d *transport.Delivery) *transport.Delivery {
				return remade(d, &source{settle: func(d *transport.Delivery, _ *transport.Message, err error) error {
					if err != nil {
						w.send(context.Background(), d.Message)
					}
					return d.Ack()
				}})
			}), nil
		}
	}},
	{"never lets one overtake", "overflow/buffer-retries serve/workers order/overtaking order/overtaking-in-group overflow/buffer-default", demanded(func(o *transport.SubscribeOptions) { o.Require |= transport.Ordered })},

	// Replay
	{"ignores From", "replay/every-position replay/oldest replay/foreign replay/forged replay/evicted", demanded(func(o *transport.SubscribeOptions) { o.From = "" })},
	{"is off by one with cursors", "replay/every-position replay/racing", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		var mu sync.Mutex
		last := s.Cursor()
		return delivering(s, func(d *transport.Delivery) *transport.Delivery {
			mu.Lock()
			defer mu.Unlock()
			before := last
			last = d.Cursor()
			return remade(d, &source{cursor: func(*transport.Delivery) string { return before }})
		})
	})},
	{"has a hole after a cursor", "replay/every-position replay/racing", func(w *wrapper) {
		w.subscribe = func(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
			s, err := w.sub(ctx, topic, o)
			if err == nil && o.From != "" && o.From != transport.Oldest {
				soon, cancel := context.WithTimeout(ctx, time.Nanosecond)
				defer cancel()
				if d, err := s.Next(soon); err == nil {
					d.Ack()
				}
			}
			return s, err
		}
	}},
	{"takes what is out for settled", "replay/low-water replay/after-close", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		var mu sync.Mutex
		last := s.Cursor()
		return &subscription{Subscription: delivering(s, func(d *transport.Delivery) *transport.Delivery {
			mu.Lock()
			defer mu.Unlock()
			last = d.Cursor()
			return d
		}), cursor: func() string { mu.Lock(); defer mu.Unlock(); return last }}
	})},
	{"has the highest settled one for a low-water mark", "replay/low-water", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		var mu sync.Mutex
		last := s.Cursor()
		return &subscription{Subscription: delivering(s, func(d *transport.Delivery) *transport.Delivery {
			return remade(d, &source{settle: func(d *transport.Delivery, reply *transport.Message, err error) error {
				mu.Lock()
				defer mu.Unlock()
				last = max(last, d.Cursor())
				return d.Settle(reply, err)
			}})
		}), cursor: func() string { mu.Lock(); defer mu.Unlock(); return last }}
	})},
	{"has no cursor at the start", "replay/start replay/resumed-start replay/every-position", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		start := s.Cursor()
		return &subscription{Subscription: s, cursor: func() string {
			if c := s.Cursor(); c != start {
				return c
			}
			return ""
		}}
	})},
	{"takes lost cursors for the oldest", "replay/foreign replay/forged replay/evicted replay/other-backend", func(w *wrapper) {
		w.subscribe = func(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
			s, err := w.sub(ctx, topic, o)
			if transport.CodeOf(err) == transport.CodeOutOfRange {
				o.From = transport.Oldest
				return w.sub(ctx, topic, o)
			}
			return s, err
		}
	}},
	{"calls lost cursors not found", "replay/foreign replay/forged", func(w *wrapper) {
		w.subscribe = func(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
			s, err := w.sub(ctx, topic, o)
			if transport.CodeOf(err) == transport.CodeOutOfRange {
				err = transport.CodeNotFound
			}
			return s, err
		}
	}},
	{"has cursors that need escaping", "replay/cursors replay/start", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return &subscription{Subscription: s, cursor: func() string { return s.Cursor() + "/=" }}
	})},

	// Settling
	{"does not acknowledge", "settle/ack settle/ack-in-group settle/reply", nacked(func(err error) error {
		if err == nil {
			err = again(time.Millisecond)
		}
		return err
	})},
	{"loses what is refused", "errors/panic-event settle/attempts settle/codes settle/give-back serve/deliveries", nacked(func(error) error { return nil })},
	{"always says Attempt 1", "settle/attempts settle/attempts-in-group settle/max-attempts", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return delivering(s, func(d *transport.Delivery) *transport.Delivery { d.Attempt = 1; return d })
	})},
	{"retries in a hot loop", "settle/backoff settle/backoff-in-group", nacked(func(err error) error {
		if e := transport.Public(err); transport.Retryable(err) && e.RetryAfter == 0 {
			e.RetryAfter = 1
			return e
		}
		return err
	})},
	{"ignores RetryAfter", "settle/retry-after settle/retries-apart order/redelivery", nacked(func(err error) error {
		if e := transport.Public(err); e != nil && e.Code != transport.CodeCanceled {
			e.RetryAfter = time.Millisecond
			return e
		}
		return err
	})},
	{"doubles RetryAfter and waits for all", "settle/retry-after", nacked(func(err error) error {
		if e := transport.Public(err); e != nil && e.RetryAfter > 0 {
			e.RetryAfter += 10 * time.Second
			return e
		}
		return err
	})},
	{"counts what is given back", "settle/give-back settle/give-back-in-group groups/late-settle", nacked(func(err error) error {
		if transport.CodeOf(err) == transport.CodeCanceled {
			return again(1)
		}
		return err
	})},
	{"gives back late", "settle/give-back", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return delivering(s, func(d *transport.Delivery) *transport.Delivery {
			return remade(d, &source{settle: func(d *transport.Delivery, reply *transport.Message, err error) error {
				if transport.CodeOf(err) == transport.CodeCanceled {
					time.Sleep(time.Second)
				}
				return d.Settle(reply, err)
			}})
		})
	})},
	{"ignores MaxAttempts", "settle/max-attempts settle/max-attempts-in-group dead-letters/exhausted", demanded(func(o *transport.SubscribeOptions) { o.MaxAttempts = 1000 })},
	{"redelivers whatever was refused", "settle/codes settle/codes-in-group dead-letters/refused order/refused", nacked(func(err error) error {
		if err != nil && !transport.Retryable(err) {
			return again(time.Millisecond)
		}
		return err
	})},
	{"refuses for good what has no Code", "settle/codes", nacked(func(err error) error {
		if transport.CodeOf(err) == transport.CodeUnknown {
			return transport.CodeInvalidArgument
		}
		return err
	})},
	{"ends the subscription with the first refusal", "settle/codes settle/buffer-kept", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return delivering(s, func(d *transport.Delivery) *transport.Delivery {
			return remade(d, &source{settle: func(d *transport.Delivery, reply *transport.Message, err error) error {
				serr := d.Settle(reply, err)
				if err != nil && !transport.Retryable(err) && transport.CodeOf(err) != transport.CodeCanceled {
					s.Close()
				}
				return serr
			}})
		})
	})},
	{"loses a place with each retry", "settle/buffer-kept", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		var retried atomic.Int32
		return delivering(s, func(d *transport.Delivery) *transport.Delivery {
			if d.Attempt > 1 && retried.Add(1) > 4 {
				return remade(d, &source{settle: func(*transport.Delivery, *transport.Message, error) error { return nil }})
			}
			return d
		})
	})},

	// Dead letters, delays
	{"ignores DeadLetter", "dead-letters/refused dead-letters/exhausted groups/settings", demanded(func(o *transport.SubscribeOptions) { o.DeadLetter = "" })},
	{"does not say why in a dead letter", "dead-letters/refused dead-letters/exhausted dead-letters/private", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return delivering(s, func(d *transport.Delivery) *transport.Delivery {
			m := d.Message.Clone()
			m.Header.Del(transport.HeaderDeadLetterCode)
			m.Header.Del(transport.HeaderDeadLetterReason)
			d.Message = m
			return d
		})
	})},
	{"gives a dead letter a new ID", "dead-letters/refused", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return delivering(s, func(d *transport.Delivery) *transport.Delivery {
			if d.Header.Get(transport.HeaderDeadLetterTopic) != "" {
				d.Message = d.Message.Clone()
				d.ID = transport.NewID()
			}
			return d
		})
	})},
	{"tells private text in a dead letter", "dead-letters/private", nacked(func(err error) error {
		if err != nil {
			return transport.Errorf(transport.CodeOf(err), "%v", err)
		}
		return nil
	})},
	{"adds to what a dead letter says", "dead-letters/of-dead-letters", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return delivering(s, func(d *transport.Delivery) *transport.Delivery {
			if d.Header.Get(transport.HeaderDeadLetterTopic) != "" {
				d.Message = d.Message.Clone()
				d.Header.Add(transport.HeaderDeadLetterCode, "unknown")
			}
			return d
		})
	})},
	{"ignores delay", "delays/honoured delays/honoured-in-group", published(func(m *transport.Message) { m.Header.Del("delay") })},
	{"ignores ttl", "delays/ttl delays/ttl-in-group delays/malformed", published(func(m *transport.Message) { m.Header.Del("ttl") })},

	// Overflow
	{"ignores Buffer", "overflow/buffer overflow/buffer-in-group features/options-as-one batches/buffer", demanded(func(o *transport.SubscribeOptions) { o.Buffer = 1000 })},
	{"has a Buffer of one more", "overflow/buffer overflow/buffer-default batches/buffer", demanded(func(o *transport.SubscribeOptions) { o.Buffer++ })},
	{"has a Buffer of 1", "overflow/buffer-default", demanded(func(o *transport.SubscribeOptions) { o.Buffer = 1 })},
	{"drops in silence", "overflow/drop-oldest", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return delivering(s, func(d *transport.Delivery) *transport.Delivery { d.Missed = 0; return d })
	})},
	{"drops instead of disconnecting", "overflow/disconnect", demanded(func(o *transport.SubscribeOptions) { o.Overflow = transport.DropOldest })},
	{"disconnects instead of dropping", "overflow/drop-oldest", demanded(func(o *transport.SubscribeOptions) { o.Overflow = transport.Disconnect })},
	{"loses what is beyond 500 messages", "overflow/group overflow/block", func(w *wrapper) {
		var n atomic.Int32
		w.publish = func(ctx context.Context, m *transport.Message) error {
			if n.Add(1) > 500 {
				return nil
			}
			return w.send(ctx, m)
		}
	}},
	{"drops instead of blocking", "overflow/block overflow/block-bounded overflow/block-ctx", demanded(func(o *transport.SubscribeOptions) {
		if o.Overflow != transport.Disconnect {
			o.Overflow = transport.DropOldest
		}
	})},

	// Calls
	{"returns nil for an empty reply", "calls/empty-reply calls/no-responder", func(w *wrapper) {
		w.call = func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			r, err := w.Transport.Call(ctx, m)
			if err == nil && len(r.Body) == 0 {
				return nil, nil
			}
			return r, err
		}
	}},
	{"mixes up replies", "calls/concurrent", func(w *wrapper) {
		var mu sync.Mutex
		var last *transport.Message
		w.call = func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			r, err := w.Transport.Call(ctx, m)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && last != nil {
				r, last = last, r
			} else {
				last = r
			}
			return r, err
		}
	}},
	{"waits for a responder", "calls/no-responder", func(w *wrapper) {
		w.call = func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			for {
				r, err := w.Transport.Call(ctx, m)
				if transport.CodeOf(err) != transport.CodeUnavailable || ctx.Err() != nil {
					return r, err
				}
				time.Sleep(time.Second)
			}
		}
	}},
	{"calls twice", "calls/one-responder", func(w *wrapper) {
		w.call = func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			go func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
				defer cancel()
				w.Transport.Call(ctx, m)
			}()
			return w.Transport.Call(ctx, m)
		}
	}},
	{"does not give up a call", "calls/given-up contexts/one-of-many", func(w *wrapper) {
		w.call = func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Minute)
			defer cancel()
			return w.Transport.Call(ctx, m)
		}
	}},
	{"does not carry the deadline", "calls/deadline calls/deadline-passes", responded(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return delivering(s, func(d *transport.Delivery) *transport.Delivery {
			return remade(d, &source{context: func(_ *transport.Delivery, parent context.Context) (context.Context, context.CancelFunc) {
				return context.WithCancel(parent)
			}})
		})
	})},
	{"forgets the parent of a call's context", "calls/parent", responded(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return delivering(s, func(d *transport.Delivery) *transport.Delivery {
			return remade(d, &source{context: func(d *transport.Delivery, _ context.Context) (context.Context, context.CancelFunc) {
				return d.Context(context.Background())
			}})
		})
	})},
	{"has one context for each call", "calls/contexts", responded(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return delivering(s, func(d *transport.Delivery) *transport.Delivery {
			var once sync.Once
			var ctx context.Context
			var cancel context.CancelFunc
			return remade(d, &source{context: func(d *transport.Delivery, parent context.Context) (context.Context, context.CancelFunc) {
				once.Do(func() { ctx, cancel = d.Context(parent) })
				return ctx, cancel
			}})
		})
	})},
	{"ties a call to the ctx of Next", "contexts/values", responded(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return &subscription{Subscription: s, next: func(next context.Context) (*transport.Delivery, error) {
			d, err := s.Next(next)
			if err != nil {
				return nil, err
			}
			return remade(d, &source{context: func(*transport.Delivery, context.Context) (context.Context, context.CancelFunc) {
				return context.WithCancel(next)
			}}), nil
		}}
	})},
	{"responds late", "calls/live", func(w *wrapper) {
		w.respond = func(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
			return late(func() (transport.Subscription, error) {
				return w.Transport.Respond(context.WithoutCancel(ctx), topic, opts...)
			}), nil
		}
	}},
	{"has a deadline of its own", "calls/deadline", responded(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return delivering(s, func(d *transport.Delivery) *transport.Delivery {
			return remade(d, &source{context: func(d *transport.Delivery, parent context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := d.Context(parent)
				ctx, more := context.WithTimeout(ctx, 30*time.Second)
				return ctx, func() { more(); cancel() }
			}})
		})
	})},
	{"does not cancel at the responder", "calls/cancel errors/handler-context", responded(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return delivering(s, func(d *transport.Delivery) *transport.Delivery {
			return remade(d, &source{context: func(d *transport.Delivery, parent context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := d.Context(parent)
				deadline, ok := ctx.Deadline()
				cancel()
				if ok {
					return context.WithDeadline(parent, deadline)
				}
				return context.WithTimeout(parent, 20*time.Minute)
			}})
		})
	})},
	{"hands out expired calls", "calls/expired", func(w *wrapper) {
		w.call = func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			if _, ok := ctx.Deadline(); !ok || ctx.Err() != nil {
				return w.Transport.Call(ctx, m)
			}
			r := async(func() (r result) {
				long, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Minute)
				defer cancel()
				r.reply, r.err = w.Transport.Call(long, m)
				return r
			})
			select {
			case r := <-r:
				return r.reply, r.err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}},
	{"repeats calls", "calls/no-redelivery", func(w *wrapper) {
		w.call = func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			r, err := w.Transport.Call(ctx, m)
			if transport.CodeOf(err) == transport.CodeUnavailable {
				return w.Transport.Call(ctx, m)
			}
			return r, err
		}
	}},
	{"leaves callers waiting when the responder closes", "calls/responder-closes calls/close serve/shutdown-calls", responded(func(w *wrapper, s transport.Subscription) transport.Subscription {
		return &subscription{Subscription: s, close: func() error {
			go func() { w.hang(); s.Close() }()
			return nil
		}}
	})},
	{"publishes calls", "calls/not-events", func(w *wrapper) {
		w.call = func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			w.send(ctx, m)
			return w.Transport.Call(ctx, m)
		}
	}},
	{"ignores the Buffer of a responder", "calls/buffer", func(w *wrapper) {
		w.respond = func(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
			if _, err := transport.ResolveRespond(opts...); err != nil {
				return nil, err
			}
			return w.Transport.Respond(ctx, topic)
		}
	}},
	{"ignores the options of a responder", "calls/options", func(w *wrapper) {
		w.respond = func(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
			return w.Transport.Respond(ctx, topic)
		}
	}},
	{"hides the Peer", "calls/peer", func(w *wrapper) {
		w.call = func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			return w.Transport.Call(transport.WithPeer(ctx, transport.Peer{}), m)
		}
	}},
	{"lets the last settling win", "calls/first-reply", responded(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return delivering(s, func(d *transport.Delivery) *transport.Delivery {
			return remade(d, &source{settle: func(d *transport.Delivery, reply *transport.Message, err error) error {
				return d.Settle(&transport.Message{Body: []byte("second")}, nil)
			}})
		})
	})},

	// Errors
	{"tells private text", "errors/panic errors/private", settled(responded, func(reply *transport.Message, err error) (*transport.Message, error) {
		if err != nil {
			return nil, transport.Errorf(transport.CodeOf(err), "%v", err)
		}
		return reply, nil
	})},
	{"drops Details", "errors/parts errors/part-by-part", failed(func(e *transport.Error) { e.Details = nil })},
	{"drops the second Detail", "errors/parts errors/part-by-part", failed(func(e *transport.Error) { e.Details = e.Details[:min(1, len(e.Details))] })},
	{"drops Reason", "errors/parts errors/part-by-part", failed(func(e *transport.Error) { e.Reason = "" })},
	{"drops Message", "errors/parts errors/part-by-part", failed(func(e *transport.Error) { e.Message = "" })},
	{"drops RetryAfter", "errors/parts errors/part-by-part", failed(func(e *transport.Error) { e.RetryAfter = 0 })},
	{"has RetryAfter in seconds", "errors/parts", failed(func(e *transport.Error) { e.RetryAfter = e.RetryAfter.Round(time.Second) })},
	{"drops the Header of errors", "errors/parts errors/part-by-part", failed(func(e *transport.Error) { e.Header = nil })},
	{"makes up text", "errors/private errors/part-by-part", failed(func(e *transport.Error) {
		if e.Message == "" {
			e.Message = e.Code.String()
		}
	})},
	{"knows fewer codes", "errors/codes errors/part-by-part", failed(func(e *transport.Error) {
		if e.Code == transport.CodeAborted || e.Code == transport.CodeUnknown {
			e.Code = transport.CodeInternal
		}
	})},
	{"has errors that are not Remote", "errors/parts errors/codes", func(w *wrapper) {
		w.call = func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			r, err := w.Transport.Call(ctx, m)
			var e *transport.Error
			if errors.As(err, &e) {
				local := *e
				local.Remote = false
				err = &local
			}
			return r, err
		}
	}},

	// Content
	{"drops headers", "content/headers-of-event content/trace-of-event content/bodies-of-event", published(func(m *transport.Message) { m.Header = nil })},
	{"drops the headers of requests", "content/headers-of-request calls/reply", requested(func(m *transport.Message) { m.Header = nil })},
	{"drops the headers of replies", "content/headers-of-reply calls/reply", settled(responded, func(reply *transport.Message, err error) (*transport.Message, error) {
		if reply != nil {
			reply = &transport.Message{Body: reply.Body}
		}
		return reply, err
	})},
	{"merges values", "content/headers-of-event content/headers-of-grouped-event", published(func(m *transport.Message) {
		for k, vs := range m.Header {
			m.Header[k] = []string{strings.Join(vs, ", ")}
		}
	})},
	{"keeps one value", "content/headers-of-event", published(func(m *transport.Message) {
		for k, vs := range m.Header {
			m.Header[k] = vs[:min(1, len(vs))]
		}
	})},
	{"mangles raw headers", "content/headers-of-event dead-letters/refused", published(func(m *transport.Message) {
		for k, vs := range m.Header {
			for i, v := range vs {
				vs[i] = strings.ToValidUTF8(v, "\ufffd")
			}
			m.Header[k] = vs
		}
	})},
	{"trims values", "content/headers-of-event", published(func(m *transport.Message) {
		for _, vs := range m.Header {
			for i, v := range vs {
				vs[i] = strings.TrimSpace(v)
			}
		}
	})},
	{"lets CR and LF into its header lines", "content/headers-of-event", published(func(m *transport.Message) {
		for _, vs := range m.Header {
			for i, v := range vs {
				vs[i], _, _ = strings.Cut(v, "\r\n")
			}
		}
	})},
	{"drops empty values", "content/headers-of-event", published(func(m *transport.Message) {
		for k, vs := range m.Header {
			if len(vs) == 1 && vs[0] == "" {
				m.Header.Del(k)
			}
		}
	})},
	{"takes underscores for hyphens", "content/keys-of-event", published(func(m *transport.Message) {
		h := transport.Header{}
		for k, vs := range m.Header {
			h[strings.ReplaceAll(k, "_", "-")] = vs
		}
		m.Header = h
	})},
	{"loses a reserved-looking key", "content/keys-of-request", requested(func(m *transport.Message) { m.Header.Del("id") })},
	{"adds a content-type", "content/empty-of-event content/bodies-of-event", published(func(m *transport.Message) {
		if m.Header.Get("content-type") == "" {
			m.Header.Set("content-type", "application/octet-stream")
		}
	})},
	{"trims bodies", "content/bodies-of-event", published(func(m *transport.Message) { m.Body = bytes.TrimSpace(m.Body) })},
	{"writes JSON anew", "content/bodies-of-event", published(func(m *transport.Message) {
		var v any
		if json.Unmarshal(m.Body, &v) == nil {
			m.Body, _ = json.Marshal(v)
		}
	})},
	{"carries text only", "content/bodies-of-event content/bodies-of-request streams/bodies", func(w *wrapper) {
		published(func(m *transport.Message) { m.Body = bytes.ToValidUTF8(m.Body, []byte("\ufffd")) })(w)
		requested(func(m *transport.Message) { m.Body = bytes.ToValidUTF8(m.Body, []byte("\ufffd")) })(w)
		opened(func(_ *wrapper, s transport.Stream) transport.Stream {
			return &stream{Stream: s, send: func(m *transport.Message) error {
				return s.Send(&transport.Message{Body: bytes.ToValidUTF8(m.Body, []byte("\ufffd"))})
			}}
		})(w)
	}},
	{"loses messages with an empty body", "content/empty-of-event contexts/publish", func(w *wrapper) {
		w.publish = func(ctx context.Context, m *transport.Message) error {
			if len(m.Body) == 0 {
				return nil
			}
			return w.send(ctx, m)
		}
	}},
	{"writes into the sender's message", "content/untouched-of-event", func(w *wrapper) {
		w.publish = func(ctx context.Context, m *transport.Message) error {
			if m.ID == "" {
				m.ID = transport.NewID()
			}
			return w.send(ctx, m)
		}
	}},
	{"writes into the sender's header", "content/untouched-of-request", func(w *wrapper) {
		w.call = func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			if m.Header != nil {
				m.Header.Set("content-length", "1")
				defer m.Header.Del("content-type")
			}
			return w.Transport.Call(ctx, m)
		}
	}},
	{"shares IDs", "content/ids", published(func(m *transport.Message) {
		if m.ID == "" {
			m.ID = "0"
		}
	})},
	{"gives each subscriber another ID", "content/ids", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return delivering(s, func(d *transport.Delivery) *transport.Delivery {
			d.Message = d.Message.Clone()
			d.ID = transport.NewID()
			return d
		})
	})},
	{"drops the sender's IDs", "content/ids settle/attempts", published(func(m *transport.Message) { m.ID = "" })},
	{"drops the IDs of requests", "content/call-ids calls/reply", requested(func(m *transport.Message) { m.ID = "" })},
	{"drops messages with an ID that it knows", "content/ids", func(w *wrapper) {
		var seen sync.Map
		w.publish = func(ctx context.Context, m *transport.Message) error {
			if _, again := seen.LoadOrStore(m.ID, true); again && m.ID != "" {
				return nil
			}
			return w.send(ctx, m)
		}
	}},
	{"cuts topics off", "content/topics-of-event", published(func(m *transport.Message) { m.Topic = m.Topic[:min(190, len(m.Topic))] })},
	{"has a smaller limit", "content/sizes-of-event", func(w *wrapper) {
		w.publish = func(ctx context.Context, m *transport.Message) error {
			if m.Size() >= transport.DefaultMaxBytes {
				return transport.CodeResourceExhausted
			}
			return w.send(ctx, m)
		}
	}},
	{"has no limit", "arguments/sizes batches/bad-ones", func(w *wrapper) {
		w.publish = func(ctx context.Context, m *transport.Message) error {
			if err := w.send(ctx, m); transport.CodeOf(err) != transport.CodeResourceExhausted {
				return err
			}
			return nil
		}
	}},
	{"takes illegal topics", "arguments/topics batches/bad-ones", func(w *wrapper) {
		w.publish = func(ctx context.Context, m *transport.Message) error {
			if transport.CheckTopic(m.Topic) != nil {
				return nil
			}
			return w.send(ctx, m)
		}
	}},
	{"takes illegal topics for calls", "arguments/topics", func(w *wrapper) {
		w.call = func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			if transport.CheckTopic(m.Topic) != nil {
				return nil, transport.CodeUnimplemented
			}
			return w.Transport.Call(ctx, m)
		}
	}},
	{"takes wildcards", "arguments/topics", func(w *wrapper) {
		w.accept = func(ctx context.Context, topic string) (transport.Listener, error) {
			return w.Transport.Accept(ctx, strings.ReplaceAll(topic, "*", "x"))
		}
	}},
	{"cleans up illegal headers", "arguments/messages arguments/harmless", published(func(m *transport.Message) {
		for k := range m.Header {
			if m.Header.Check() != nil {
				delete(m.Header, k)
			}
		}
	})},
	{"leaves the caller of a huge reply waiting", "arguments/reply-sizes", responded(func(w *wrapper, s transport.Subscription) transport.Subscription {
		return delivering(s, func(d *transport.Delivery) *transport.Delivery {
			return remade(d, &source{settle: func(d *transport.Delivery, reply *transport.Message, err error) error {
				if cerr := reply.Check(0); err == nil && reply != nil && cerr != nil {
					go func() { w.hang(); d.Ack() }()
					return cerr
				}
				return d.Settle(reply, err)
			}})
		})
	})},

	// Contexts
	{"ignores the ctx of Publish", "contexts/ended contexts/publish", func(w *wrapper) {
		w.publish = func(ctx context.Context, m *transport.Message) error { return w.send(context.WithoutCancel(ctx), m) }
	}},
	{"ignores the ctx of Subscribe", "contexts/ended", func(w *wrapper) {
		w.subscribe = func(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
			return w.sub(context.WithoutCancel(ctx), topic, o)
		}
	}},
	{"ignores the ctx of Next", "contexts/next events/no-ghosts", subscribed(func(w *wrapper, s transport.Subscription) transport.Subscription {
		return &subscription{Subscription: s, next: func(ctx context.Context) (*transport.Delivery, error) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Minute)
			defer cancel()
			return s.Next(ctx)
		}}
	})},
	{"is dead after a Next whose ctx ended", "contexts/next contexts/next-in-group", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		var dead atomic.Pointer[error]
		return &subscription{Subscription: s, next: func(ctx context.Context) (*transport.Delivery, error) {
			if err := dead.Load(); err != nil {
				return nil, *err
			}
			d, err := s.Next(ctx)
			if err != nil && err != io.EOF {
				dead.Store(&err)
			}
			return d, err
		}}
	})},
	{"loses what arrives while Next's ctx ends", "contexts/next-races", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return &subscription{Subscription: s, next: func(ctx context.Context) (*transport.Delivery, error) {
			d, err := s.Next(context.WithoutCancel(ctx))
			if err == nil && ctx.Err() != nil {
				d.Ack()
				return nil, ctx.Err()
			}
			return d, err
		}}
	})},
	{"lives in the ctx of Subscribe", "contexts/of-subscribe", func(w *wrapper) {
		w.subscribe = func(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
			s, err := w.sub(ctx, topic, o)
			if err == nil {
				context.AfterFunc(ctx, func() { s.Close() })
			}
			return s, err
		}
	}},
	{"cancels all calls with one", "contexts/one-of-many calls/cancel", func(w *wrapper) {
		var mu sync.Mutex
		var all []context.CancelFunc
		w.call = func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			shared, cancel := context.WithCancel(ctx)
			defer cancel()
			mu.Lock()
			all = append(all, cancel)
			mu.Unlock()
			r, err := w.Transport.Call(shared, m)
			if ctx.Err() != nil {
				mu.Lock()
				defer mu.Unlock()
				for _, cancel := range all {
					cancel()
				}
			}
			return r, err
		}
	}},
	{"closes responders when a call is cancelled", "calls/given-up", func(w *wrapper) {
		var mu sync.Mutex
		var all []io.Closer
		responded(func(_ *wrapper, s transport.Subscription) transport.Subscription {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, s)
			return s
		})(w)
		w.call = func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			r, err := w.Transport.Call(ctx, m)
			if errors.Is(err, context.Canceled) {
				mu.Lock()
				defer mu.Unlock()
				for _, s := range all {
					s.Close()
				}
			}
			return r, err
		}
	}},

	// Closing
	{"leaves a goroutine behind at Close", "closing/twice events/live", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return &subscription{Subscription: s, close: func() error {
			go time.Sleep(30 * time.Minute)
			return s.Close()
		}}
	})},
	{"hangs in Close", "closing/next closing/twice closing/does-not-wait", subscribed(func(w *wrapper, s transport.Subscription) transport.Subscription {
		return &subscription{Subscription: s, close: func() error { w.hang(); return s.Close() }}
	})},
	{"fails when closed twice", "closing/twice closing/twice-in-group", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		var closed atomic.Bool
		return &subscription{Subscription: s, close: func() error {
			if closed.Swap(true) {
				return errors.New("closed twice")
			}
			return s.Close()
		}}
	})},
	{"panics when closed twice", "closing/twice", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		c := make(chan bool)
		return &subscription{Subscription: s, close: func() (err error) {
			defer func() {
				if recover() != nil { // in a goroutine of the case it would end the test
					err = errors.New("panic")
				}
			}()
			close(c)
			return s.Close()
		}}
	})},
	{"does not wake Next at Close", "closing/next events/no-ghosts", subscribed(func(w *wrapper, s transport.Subscription) transport.Subscription {
		return &subscription{Subscription: s, close: func() error {
			go func() { w.hang(); s.Close() }()
			return nil
		}}
	})},
	{"waits for deliveries in Close", "closing/does-not-wait", subscribed(func(w *wrapper, s transport.Subscription) transport.Subscription {
		var out atomic.Int32
		s = delivering(s, func(d *transport.Delivery) *transport.Delivery {
			out.Add(1)
			return remade(d, &source{settle: func(d *transport.Delivery, reply *transport.Message, err error) error {
				out.Add(-1)
				return d.Settle(reply, err)
			}})
		})
		return &subscription{Subscription: s, close: func() error {
			for end := time.Now().Add(20 * time.Second); out.Load() > 0 && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
			return s.Close()
		}}
	})},
	{"ends with an error of its own", "closing/racing closing/while-waiting batches/end closing/next events/no-ghosts", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return &subscription{Subscription: s, next: func(ctx context.Context) (*transport.Delivery, error) {
			d, err := s.Next(ctx)
			if err == io.EOF {
				err = transport.Errorf(transport.CodeUnavailable, "closed")
			}
			return d, err
		}}
	})},
	{"closes all subscriptions with one", "closing/others events/fan-out", func(w *wrapper) {
		var mu sync.Mutex
		all := map[string][]transport.Subscription{}
		w.subscribe = func(ctx context.Context, topic string, o transport.SubscribeOptions) (transport.Subscription, error) {
			s, err := w.sub(ctx, topic, o)
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			all[topic] = append(all[topic], s)
			return &subscription{Subscription: s, close: func() error {
				mu.Lock()
				defer mu.Unlock()
				for _, s := range all[topic] {
					s.Close()
				}
				return nil
			}}, nil
		}
	}},

	// Streams
	{"loses half-close", "streams/unary streams/client streams/nothing", opened(func(_ *wrapper, s transport.Stream) transport.Stream {
		return &stream{Stream: s, closeSend: func() error { return nil }}
	})},
	{"takes half-close for the end", "streams/client streams/unary", opened(func(_ *wrapper, s transport.Stream) transport.Stream {
		return &stream{Stream: s, closeSend: s.Close}
	})},
	{"loses the header of a stream", "streams/many streams/unary", func(w *wrapper) {
		w.open = func(ctx context.Context, topic string, h transport.Header) (transport.Stream, error) {
			return w.Transport.Open(ctx, topic, nil)
		}
	}},
	{"loses the acceptor's header", "streams/metadata streams/header-at-end", opened(func(_ *wrapper, s transport.Stream) transport.Stream {
		return &stream{Stream: s, header: func() (transport.Header, error) { _, err := s.Header(); return nil, err }}
	})},
	{"takes one header from an acceptor", "streams/metadata streams/header-after-items", accepted(func(_ *wrapper, in transport.Incoming) transport.Incoming {
		var once sync.Once
		return &incoming{Incoming: in, setHeader: func(h transport.Header) (err error) {
			once.Do(func() { err = in.SetHeader(h) })
			return err
		}}
	})},
	{"loses the trailer", "streams/metadata streams/close-after-end", opened(func(_ *wrapper, s transport.Stream) transport.Stream {
		return &stream{Stream: s, trailer: func() transport.Header { return nil }}
	})},
	{"mixes header and trailer", "streams/metadata", opened(func(_ *wrapper, s transport.Stream) transport.Stream {
		return &stream{Stream: s, trailer: func() transport.Header {
			t := s.Trailer().Clone()
			if h, err := s.Header(); t != nil && err == nil {
				for k, vs := range h {
					t[k] = vs
				}
			}
			return t
		}}
	})},
	{"buffers without limit", "streams/back-pressure", opened(func(w *wrapper, s transport.Stream) transport.Stream {
		var mu sync.Mutex
		var queue []*transport.Message
		var once sync.Once
		return &stream{Stream: s, send: func(m *transport.Message) error {
			mu.Lock()
			queue = append(queue, m)
			mu.Unlock()
			once.Do(func() {
				go func() {
					for {
						mu.Lock()
						var m *transport.Message
						if len(queue) > 0 {
							m, queue = queue[0], queue[1:]
						}
						mu.Unlock()
						if m == nil {
							select {
							case <-w.over:
								return
							case <-time.After(time.Millisecond):
							}
						} else if s.Send(m) != nil {
							return
						}
					}
				}()
			})
			return nil
		}}
	})},
	{"does not tell that the opener has left", "streams/opener-leaves", opened(func(w *wrapper, s transport.Stream) transport.Stream {
		return &stream{Stream: s, close: func() error {
			go func() { w.hang(); s.Close() }()
			return nil
		}}
	})},
	{"takes leaving for a clean end", "streams/opener-leaves", accepted(func(_ *wrapper, in transport.Incoming) transport.Incoming {
		return cleanly{in}
	})},
	{"loses the code of End", "streams/errors streams/header-at-end streams/send-after-end streams/served", accepted(func(_ *wrapper, in transport.Incoming) transport.Incoming {
		return &incoming{Incoming: in, end: func(err error) error {
			if err != nil {
				err = transport.CodeUnknown
			}
			return in.End(err)
		}}
	})},
	{"tells private text of streams", "streams/errors streams/served", accepted(func(_ *wrapper, in transport.Incoming) transport.Incoming {
		return &incoming{Incoming: in, end: func(err error) error {
			if err != nil {
				err = transport.Errorf(transport.CodeOf(err), "%v", err)
			}
			return in.End(err)
		}}
	})},
	{"ends streams before their last item", "streams/server streams/both streams/client", opened(func(_ *wrapper, s transport.Stream) transport.Stream {
		var held *transport.Message
		return &stream{Stream: s, recv: func() (*transport.Message, error) {
			if held == nil {
				m, err := s.Recv()
				if err != nil {
					return nil, err
				}
				held = m
			}
			m, err := s.Recv()
			if err != nil {
				return nil, err
			}
			held, m = m, held
			return m, nil
		}}
	})},
	{"does not carry the end of Open's ctx", "streams/context streams/deadline", func(w *wrapper) {
		w.open = func(ctx context.Context, topic string, h transport.Header) (transport.Stream, error) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			return w.Transport.Open(context.WithoutCancel(ctx), topic, h)
		}
	}},
	{"does not carry the deadline of streams", "streams/deadline", accepted(func(_ *wrapper, in transport.Incoming) transport.Incoming {
		return &incoming{Incoming: in, ctx: context.WithoutCancel(in.Context())}
	})},
	{"sends into nothing after the end", "streams/send-after-end streams/acceptor-leaves", opened(func(w *wrapper, s transport.Stream) transport.Stream {
		return &stream{Stream: s, send: func(m *transport.Message) error {
			if err := s.Send(m); err != io.EOF {
				return err
			}
			select {
			case <-w.over:
				return io.EOF
			case <-time.After(time.Second): // slowly, so that the time limit comes
				return nil
			}
		}}
	})},
	{"drops the headers of items", "streams/item-headers", opened(func(_ *wrapper, s transport.Stream) transport.Stream {
		return &stream{Stream: s, send: func(m *transport.Message) error { return s.Send(&transport.Message{Body: m.Body}) }}
	})},
	{"merges small items", "streams/bodies streams/client", opened(func(_ *wrapper, s transport.Stream) transport.Stream {
		var held []byte
		n := 0
		return &stream{Stream: s, send: func(m *transport.Message) error {
			if n++; n%5 == 1 {
				held = m.Body
				return nil
			}
			m.Body, held = append(held, m.Body...), nil
			return s.Send(m)
		}}
	})},
	{"ties a stream to the ctx of Next", "streams/next-context", func(w *wrapper) {
		w.accept = func(ctx context.Context, topic string) (transport.Listener, error) {
			l, err := w.Transport.Accept(ctx, topic)
			return tiedListener{l}, err
		}
	}},
	{"hides the Peer of a stream", "streams/peer", func(w *wrapper) {
		w.open = func(ctx context.Context, topic string, h transport.Header) (transport.Stream, error) {
			return w.Transport.Open(transport.WithPeer(ctx, transport.Peer{}), topic, h)
		}
	}},
	{"waits for an acceptor", "streams/no-listener", func(w *wrapper) {
		w.open = func(ctx context.Context, topic string, h transport.Header) (transport.Stream, error) {
			for {
				s, err := w.Transport.Open(ctx, topic, h)
				if transport.CodeOf(err) != transport.CodeUnavailable || ctx.Err() != nil {
					return s, err
				}
				time.Sleep(time.Second)
			}
		}
	}},
	{"has no limit for items", "streams/sizes", opened(func(_ *wrapper, s transport.Stream) transport.Stream {
		return &stream{Stream: s, send: func(m *transport.Message) error {
			for len(m.Body) > transport.DefaultMaxBytes {
				if err := s.Send(&transport.Message{Body: m.Body[:transport.DefaultMaxBytes]}); err != nil {
					return err
				}
				m.Body = m.Body[transport.DefaultMaxBytes:]
			}
			return s.Send(m)
		}}
	})},
	{"holds up all streams for one", "streams/slow-stream", func(w *wrapper) {
		var mu sync.Mutex
		opened(func(w *wrapper, s transport.Stream) transport.Stream {
			return &stream{Stream: s, send: func(m *transport.Message) error {
				for !mu.TryLock() {
					time.Sleep(time.Millisecond)
				}
				defer mu.Unlock()
				return s.Send(m)
			}}
		})(w)
	}},
	{"loses what waits at a closing listener", "streams/listener-closes", func(w *wrapper) {
		w.accept = func(ctx context.Context, topic string) (transport.Listener, error) {
			l, err := w.Transport.Accept(ctx, topic)
			if err != nil {
				return nil, err
			}
			return &lazyListener{l, w}, nil
		}
	}},

	// Batches
	{"hands out a delivery twice in a batch", "batches/next", subscribed(func(_ *wrapper, s transport.Subscription) transport.Subscription {
		return doubled{s}
	})},
	{"fails a whole batch for one", "batches/bad-ones", func(w *wrapper) {
		w.publishAll = func(ctx context.Context, ms []*transport.Message) []error {
			errs := make([]error, len(ms))
			for _, m := range ms {
				if err := m.Check(0); err != nil {
					for i := range errs {
						errs[i] = err
					}
					return errs
				}
			}
			return transport.PublishAll(ctx, w.Transport, ms...)
		}
	}},
	{"says nothing about a batch that went well", "batches/publish", func(w *wrapper) {
		w.publishAll = func(ctx context.Context, ms []*transport.Message) []error {
			return slices.DeleteFunc(transport.PublishAll(ctx, w.Transport, ms...), func(err error) bool { return err == nil })
		}
	}},
}

// late opens a subscription after it was returned.
func late(open func() (transport.Subscription, error)) transport.Subscription {
	s := &subscription{}
	ready := make(chan struct{})
	go func() {
		defer close(ready)
		time.Sleep(10 * time.Millisecond)
		s.Subscription, _ = open()
	}()
	s.next = func(ctx context.Context) (*transport.Delivery, error) {
		select {
		case <-ready:
			return s.Subscription.Next(ctx)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.cursor = func() string { <-ready; return s.Subscription.Cursor() }
	s.close = func() error { <-ready; return s.Subscription.Close() }
	return s
}

// cleanly turns the loss of the opener into io.EOF.
type cleanly struct{ transport.Incoming }

func (c cleanly) Recv() (*transport.Message, error) {
	m, err := c.Incoming.Recv()
	if err != nil {
		err = io.EOF
	}
	return m, err
}

// tiedListener ends a stream with the ctx of the Next that returned it.
type tiedListener struct{ transport.Listener }

func (l tiedListener) Next(ctx context.Context) (transport.Incoming, error) {
	in, err := l.Listener.Next(ctx)
	if err != nil {
		return nil, err
	}
	tied, cancel := context.WithCancel(in.Context())
	context.AfterFunc(ctx, cancel)
	return &incoming{Incoming: in, ctx: tied}, nil
}

// lazyListener does not close in time.
type lazyListener struct {
	transport.Listener
	w *wrapper
}

func (l *lazyListener) Close() error {
	go func() { l.w.hang(); l.Listener.Close() }()
	return nil
}

// doubled hands out the last delivery of a batch twice.
type doubled struct{ transport.Subscription }

func (d doubled) NextAll(ctx context.Context, dst []*transport.Delivery) (int, error) {
	n, err := transport.NextAll(ctx, d.Subscription, dst)
	if n > 0 && n < len(dst) {
		dst[n] = dst[n-1]
		n++
	}
	return n, err
}

func TestBroken(t *testing.T) {
	table := map[string]testCase{}
	for _, tc := range cases() {
		table[tc.name] = tc
	}
	for _, b := range broken {
		t.Run(b.name, func(t *testing.T) {
			for _, name := range strings.Fields(b.caught) {
				tc, ok := table[name]
				require.True(t, ok, "there is no case %s", name)
				failed, text := record(t, tc, breaks(b.break_))
				require.True(t, failed, "%s does not catch a transport that %s", name, b.name)
				require.Contains(t, text, tc.rule)
			}
		})
	}
}

// The wrapper itself breaks nothing.
func TestWrapper(t *testing.T) { Run(t, breaks(func(*wrapper) {})) }
