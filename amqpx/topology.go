package amqpx

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"maps"
	"strconv"
	"strings"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/intermodal-go/intermodal/transport"
)

// A topology knows the names of exchanges and queues, and declares them. All is durable and can be declared any number
// of times. What exists with other arguments is never changed.
type topology struct {
	c   *Client
	lag int // how many messages a subscription without a group and without history may be behind

	declaring chan struct{} // has an element while a level is declared

	mu       sync.Mutex
	known    map[string]uint64 // what this client has declared, and on which generation of its link at last
	bound    map[string]string // the topics of its queues
	prepared bool
}

func newTopology(c *Client) *topology {
	return &topology{c: c, lag: maxLag, declaring: make(chan struct{}, 1), known: map[string]uint64{},
		bound: map[string]string{}}
}

// maxName is the longest name. A longer one is replaced by a hash. The broker allows 255 bytes, and so has its error
// texts, from which settings are learned: they should have room for more than a name.
const maxName = 120

// name joins the namespace, a kind and words to a name. No two lists of words get the same one: words are escaped so
// that a dot only separates, but for the first, which is the rest.
func (t *topology) name(kind string, words ...string) string {
	var b strings.Builder
	b.WriteString(escapeWord(t.c.o.Namespace))
	b.WriteString("." + kind)
	for i, w := range words {
		b.WriteByte('.')
		if i > 0 {
			w = escapeWord(w)
		}
		b.WriteString(w)
	}
	if b.Len() <= maxName {
		return b.String()
	}
	sum := sha256.Sum256([]byte(b.String()))
	return escapeWord(t.c.o.Namespace) + "-" + kind + "-" + base64.RawURLEncoding.EncodeToString(sum[:])
}

var wordEscaper = strings.NewReplacer("%", "%25", ".", "%2E")

// escapeWord returns s without dots.
func escapeWord(s string) string { return wordEscaper.Replace(s) }

// exchange is the topic exchange that messages are published to, with their topic as routing key.
func (t *topology) exchange() string {
	if t.c.o.Exchange != "" {
		return t.c.o.Exchange
	}
	return t.c.o.Namespace
}

// groupQueue is the queue of a group.
func (t *topology) groupQueue(topic, group string) string { return t.name("group", topic, group) }

// isGroup reports whether a queue is that of a group of this namespace.
func (t *topology) isGroup(queue string) bool {
	rest, ours := strings.CutPrefix(queue, escapeWord(t.c.o.Namespace))
	return ours && (strings.HasPrefix(rest, ".group.") || strings.HasPrefix(rest, "-group-"))
}

// declareExchange makes sure that the topic exchange is there. One that is not ours is only looked up.
func (t *topology) declareExchange(ch *amqp.Channel) error {
	if t.c.o.Exchange != "" {
		return ch.ExchangeDeclarePassive(t.c.o.Exchange, "topic", true, false, false, false, nil)
	}
	return ch.ExchangeDeclare(t.c.o.Namespace, "topic", true, false, false, false, nil)
}

// prepare declares what there must be before anything is published on a new session. An exchange that has been deleted
// took its bindings along: they are made again for the queues that this client knows.
func (t *topology) prepare(ctx context.Context, s *session) error {
	for attempt := 1; ; attempt++ {
		err := t.restore(ctx, s)
		if err == nil || permanent(err) || s.over() || attempt == 9 {
			return err
		}
		// A node that has just started does not have all queues at once.
		if end := sleep(ctx, again.Delay(attempt)); end != nil {
			return errors.Join(end, err)
		}
	}
}

func (t *topology) restore(ctx context.Context, s *session) error {
	t.mu.Lock()
	before := t.prepared
	t.mu.Unlock()
	if before {
		err := onChannel(ctx, s, func(ac *amqp.Channel) error {
			err := ac.ExchangeDeclarePassive(t.exchange(), "topic", true, false, false, false, nil)
			if err == nil {
				err = t.declareLogs(ac)
			}
			return err
		})
		if transport.CodeOf(err) != transport.CodeNotFound {
			return err
		}
	}
	err := onChannel(ctx, s, func(ac *amqp.Channel) error {
		if err := t.declareExchange(ac); err != nil {
			return err
		}
		return t.declareLogs(ac)
	})
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.prepared = true
	bound := maps.Clone(t.bound)
	t.mu.Unlock()
	for queue, topic := range bound {
		err := onChannel(ctx, s, func(ac *amqp.Channel) error { return ac.QueueBind(queue, topic, t.exchange(), false, nil) })
		if err != nil && transport.CodeOf(err) != transport.CodeNotFound { // whose consumer sees that
			return err
		}
	}
	return nil
}

// onChannel runs f on a channel of its own.
func onChannel(ctx context.Context, s *session, f func(*amqp.Channel) error) error {
	ch, err := s.channel(ctx)
	if err != nil {
		return err
	}
	defer ch.close()
	return ch.do(ctx, f)
}

// declared reports whether name was declared on this generation.
func (t *topology) declared(name string, gen uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, ok := t.known[name]
	return ok && at == gen
}

// note remembers that name was declared on this generation.
func (t *topology) note(name string, gen uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known[name] = gen
}

// bind binds a queue to its topic, now and again whenever that has to be.
func (t *topology) bind(ch *amqp.Channel, queue, topic string) error {
	err := ch.QueueBind(queue, topic, t.exchange(), false, nil)
	if err == nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.bound[queue] = topic
	}
	return err
}

// unbound forgets a queue that is gone.
func (t *topology) unbound(queue string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.bound, queue)
}

// settings are what all members of a group have in common. They stand in the arguments of its queue and nowhere else.
type settings struct {
	queue       string
	maxAttempts int
	deadLetter  string // topic, "": none
	ordered     bool
}

// spare is how often a message of a group may come back to its queue beyond MaxAttempts: given back, or its member
// lost. Then the broker itself puts an end to it. It is the limit for messages that kill whoever handles them.
const spare = 100

// args are the arguments of a group's queue.
func (t *topology) args(s settings) amqp.Table {
	a := amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum, "x-delivery-limit": int64(s.maxAttempts + spare)}
	if s.deadLetter != "" {
		a["x-dead-letter-exchange"] = t.exchange()
		a["x-dead-letter-routing-key"] = s.deadLetter
		a["x-dead-letter-strategy"] = "at-least-once"
		a["x-overflow"] = "reject-publish" // which at-least-once demands
	}
	if s.ordered {
		a["x-single-active-consumer"] = true
	}
	return a
}

// redriveGroup is the group that keeps dead letters until somebody looks at them: the one that compose.Redrive asks
// for.
const redriveGroup = "redrive"

// group makes sure that the group is there and returns its settings: those that so demands, and for the rest those it
// has. Another demand is CodeFailedPrecondition.
func (t *topology) group(ctx context.Context, topic string, so transport.SubscribeOptions) (settings, error) {
	want := settings{queue: t.groupQueue(topic, so.Group), maxAttempts: so.MaxAttempts, deadLetter: so.DeadLetter,
		ordered: so.Require&transport.Ordered != 0}
	if want.maxAttempts == 0 {
		want.maxAttempts = transport.DefaultMaxAttempts
	}
	if t.c.o.Queue != nil {
		if name := t.c.o.Queue(topic, so.Group); name != "" {
			if want.ordered {
				return want, transport.Errorf(transport.CodeUnimplemented, "the order of a queue that exists is not known")
			}
			want.queue = name
			return want, t.keepDeadLetters(ctx, want.deadLetter)
		}
	}
	if err := t.keepDeadLetters(ctx, so.DeadLetter); err != nil {
		return want, err
	}
	var err error
	for attempt := 1; attempt <= 10; attempt++ {
		if err = t.declareGroup(ctx, topic, want); err == nil {
			return want, nil
		}
		if t.c.opening.Err() != nil {
			return want, errClosed
		}
		if permanent(err) {
			err = t.learn(&want, so, err)
		} else if end := sleep(ctx, again.Delay(attempt)); end == nil {
			continue // the connection was lost
		}
		if err != nil {
			return want, err
		}
	}
	return want, transport.Wrap(err, transport.CodeUnavailable, "the group %q cannot be declared", so.Group)
}

// keepDeadLetters sees to it that dead letters are kept before anybody listens to them.
func (t *topology) keepDeadLetters(ctx context.Context, topic string) error {
	if topic == "" || t.declared(t.groupQueue(topic, redriveGroup), t.generation()) {
		return nil
	}
	_, err := t.group(ctx, topic, transport.SubscribeOptions{Group: redriveGroup})
	return err
}

// generation is the one that declarations count in: a new connection may be one to a broker that has lost them.
func (t *topology) generation() uint64 {
	gen, _ := t.c.consume.state()
	return gen
}

func (t *topology) declareGroup(ctx context.Context, topic string, s settings) error {
	err := t.c.consume.once(ctx, func(ch *amqp.Channel) error {
		if err := t.declareExchange(ch); err != nil {
			return err
		}
		if _, err := ch.QueueDeclare(s.queue, true, false, false, false, t.args(s)); err != nil {
			return err
		}
		return t.bind(ch, s.queue, topic)
	})
	if err == nil {
		t.note(s.queue, t.generation())
	}
	return err
}

// unknownKey stands for a dead letter topic that is not known yet. It is short, because the broker repeats it.
const unknownKey = "?"

// learn changes want by what the broker says in err, as far as so allows. The broker names one argument and its current
// value. A later declaration that succeeds proves what was learned.
func (t *topology) learn(want *settings, so transport.SubscribeOptions, err error) error {
	arg, current, ok := inequivalent(err)
	if !ok {
		return err
	}
	other := func(what string) error {
		return transport.Wrap(err, transport.CodeFailedPrecondition, "the group %q exists with another %s", so.Group, what)
	}
	switch arg {
	case "x-delivery-limit":
		n, nerr := strconv.Atoi(current)
		if so.MaxAttempts != 0 || nerr != nil || n <= spare {
			return other("MaxAttempts")
		}
		want.maxAttempts = n - spare
	case "x-dead-letter-exchange":
		if so.DeadLetter != "" || current != t.exchange() {
			return other("DeadLetter")
		}
		want.deadLetter = unknownKey
	case "x-dead-letter-routing-key":
		switch {
		case so.DeadLetter != "":
			return other("DeadLetter")
		case current == "":
			return transport.Wrap(err, transport.CodeFailedPrecondition,
				"the group %q has a DeadLetter topic that is too long to be learned: name it", so.Group)
		}
		want.deadLetter = current
	case "x-dead-letter-strategy", "x-overflow":
		if so.DeadLetter != "" || want.deadLetter != "" || current == "" {
			return other("DeadLetter")
		}
		want.deadLetter = unknownKey
	case "x-single-active-consumer":
		if so.Require&transport.Ordered != 0 {
			return other("Require(Ordered)")
		}
		want.ordered = true
	default:
		return transport.Wrap(err, transport.CodeFailedPrecondition, "the queue of the group %q is none of ours", so.Group)
	}
	return nil
}

// inequivalent takes the argument and its current value, "" for none, out of the broker's refusal to declare a queue
// that exists with other arguments. A value that was cut off counts as "".
//
//	PRECONDITION_FAILED - inequivalent arg 'x' for queue 'q' in vhost '/': received '1' but current is '2'
//	…: received none but current is the value '2' of type 'long'
func inequivalent(err error) (arg, current string, ok bool) {
	var e *amqp.Error
	if !errors.As(err, &e) || e.Code != amqp.PreconditionFailed {
		return "", "", false
	}
	_, rest, ok := strings.Cut(e.Reason, "inequivalent arg '")
	if !ok {
		return "", "", false
	}
	arg, rest, _ = strings.Cut(rest, "'")
	_, rest, _ = strings.Cut(rest, " but current is ")
	rest = strings.TrimPrefix(rest, "the value ")
	if rest, ok := strings.CutPrefix(rest, "'"); ok {
		if end := strings.LastIndex(rest, "' of type '"); end >= 0 {
			return arg, rest[:end], true
		}
		if end, whole := strings.CutSuffix(rest, "'"); whole {
			return arg, end, true
		}
	}
	return arg, "", true
}
