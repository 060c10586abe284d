package transport

import (
	"strings"
)

// Oldest is the cursor before the first message that the history still has.
const Oldest = "oldest"

// Defaults of [SubscribeOptions].
const (
	DefaultBuffer      = 64
	DefaultMaxAttempts = 10
)

// MaxBuffer is the largest Buffer.
const MaxBuffer = 1 << 16

// A Feature is a quality that a subscription may demand with [Require]. What is demanded is given or refused with an
// error that matches errors.ErrUnsupported, never quietly missing.
type Feature uint16

const (
	AtLeastOnce Feature = 1 << iota // a message comes until it is settled, also after a disconnect
	Ordered                         // in order of publication, one at a time, a redelivery before what follows it
	Replay                          // From works
	Groups                          // Group works
	DeadLetters                     // DeadLetter works
	Delays                          // the delay header works
)

var featureNames = [...]string{"AtLeastOnce", "Ordered", "Replay", "Groups", "DeadLetters", "Delays"}

// String lists the names, joined by "|".
func (f Feature) String() string {
	var names []string
	for i, n := range featureNames {
		if f&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, "|")
}

// A Policy says what happens to a subscriber that is too slow for the messages that wait for it.
type Policy uint8

const (
	// Block makes publishers wait, for a bounded time. In process only.
	Block Policy = iota + 1
	// DropOldest drops the oldest waiting messages and says how many in Delivery.Missed.
	DropOldest
	// Disconnect ends the subscription with CodeResourceExhausted. The error's header "cursor" has the cursor to go on
	// from, where there is history.
	Disconnect
)

var policyNames = [...]string{"default", "block", "drop-oldest", "disconnect"}

// String returns the lower-case name.
func (p Policy) String() string {
	if int(p) < len(policyNames) {
		return policyNames[p]
	}
	return "unknown"
}

// SubscribeOptions is what a subscription demands. The zero value demands nothing. It is itself a [SubscribeOption],
// whose zero fields change nothing: servers and Guard pass on what they decoded.
type SubscribeOptions struct {
	Group       string  // share messages with the group of this name
	From        string  // resume after this cursor, or Oldest; "": from now on
	DeadLetter  string  // topic for what the group gives up on; groups only
	MaxAttempts int     // deliveries before a message counts as refused; 0 means 10, or what the group has
	Buffer      int     // deliveries out unsettled, and messages held ready by a client; 0 means 64
	Overflow    Policy  // zero: Block in process, Disconnect from remote
	Require     Feature // refuse the subscription unless these are given
}

// An Option is what Bind functions take: a [SubscribeOption], a [ServeOption], or [Use].
type Option interface{ option() }

// A SubscribeOption is an option of Subscribe and Respond.
type SubscribeOption interface {
	Option
	subscribe(*SubscribeOptions)
}

func (o SubscribeOptions) option() {}

func (o SubscribeOptions) subscribe(dst *SubscribeOptions) {
	set(&dst.Group, o.Group)
	set(&dst.From, o.From)
	set(&dst.DeadLetter, o.DeadLetter)
	set(&dst.MaxAttempts, o.MaxAttempts)
	set(&dst.Buffer, o.Buffer)
	set(&dst.Overflow, o.Overflow)
	dst.Require |= o.Require
}

func set[T comparable](dst *T, v T) {
	var zero T
	if v != zero {
		*dst = v
	}
}

type subscribeFunc func(*SubscribeOptions)

func (subscribeFunc) option()                         {}
func (f subscribeFunc) subscribe(o *SubscribeOptions) { f(o) }

// Group shares the topic's messages among the subscriptions with the same name: each message goes to one of them. The
// group exists from its first subscription on and outlives them all. Its start, MaxAttempts, DeadLetter and order are
// those of the subscription that created it; a later one that demands other values is refused with
// CodeFailedPrecondition, what it leaves unset matches. 1 to 100 bytes.
func Group(name string) SubscribeOption {
	return subscribeFunc(func(o *SubscribeOptions) {
		// The empty name is illegal, not "no group": a name that was computed wrongly must not turn a worker into a
		// broadcast receiver. NUL is illegal as well, and Resolve says so.
		if o.Group = name; name == "" {
			o.Group = "\x00"
		}
	})
}

// From resumes after cursor, or at [Oldest]. A cursor that is evicted, foreign or forged is CodeOutOfRange. The empty
// cursor is no demand: what an idle subscription without history returned can be passed on.
func From(cursor string) SubscribeOption {
	return subscribeFunc(func(o *SubscribeOptions) { o.From = cursor })
}

// DeadLetter names the topic for messages that the group refused or gave up on.
func DeadLetter(topic string) SubscribeOption {
	return subscribeFunc(func(o *SubscribeOptions) { o.DeadLetter = topic })
}

// MaxAttempts bounds how often a message is delivered. The default is 10.
func MaxAttempts(n int) SubscribeOption {
	return subscribeFunc(func(o *SubscribeOptions) { o.MaxAttempts = positive(n) })
}

// Buffer bounds how many deliveries are out unsettled, and how many messages a client holds ready. The default is 64.
func Buffer(n int) SubscribeOption {
	return subscribeFunc(func(o *SubscribeOptions) { o.Buffer = positive(n) })
}

// positive keeps a 0 that was asked for apart from a field that was left alone.
func positive(n int) int {
	if n <= 0 {
		return -1
	}
	return n
}

// Overflow says what happens when the subscriber is too slow. It does not go with [Group], whose messages wait, nor does
// DropOldest with a demand for AtLeastOnce.
func Overflow(p Policy) SubscribeOption {
	return subscribeFunc(func(o *SubscribeOptions) { o.Overflow = p })
}

// Require demands features. Several calls add up.
func Require(f Feature) SubscribeOption {
	return subscribeFunc(func(o *SubscribeOptions) { o.Require |= f })
}

// Resolve applies opts, checks them, refuses what offered lacks, and fills in Buffer. MaxAttempts stays 0 if unset, so
// that joining a group can tell; so does Overflow, whose default depends on where the subscriber is. Every transport
// calls it. An illegal value is CodeInvalidArgument; a feature that is not offered is CodeUnimplemented, which matches
// errors.ErrUnsupported.
func Resolve(offered Feature, opts ...SubscribeOption) (SubscribeOptions, error) {
	var o SubscribeOptions
	for _, opt := range opts {
		if opt == nil {
			return o, Errorf(CodeInvalidArgument, "a subscribe option is nil")
		}
		opt.subscribe(&o)
	}
	if o.Group != "" {
		if err := checkGroup(o.Group); err != nil {
			return o, err
		}
	}
	if o.DeadLetter != "" {
		if o.Group == "" {
			return o, Errorf(CodeInvalidArgument, "DeadLetter needs a Group: only groups have dead letters")
		}
		if err := CheckTopic(o.DeadLetter); err != nil {
			return o, err
		}
	}
	switch {
	case len(o.From) > MaxCursorBytes || !printable(o.From):
		return o, Errorf(CodeOutOfRange, "the cursor is none of this transport's")
	case o.MaxAttempts < 0:
		return o, Errorf(CodeInvalidArgument, "MaxAttempts must be positive")
	case o.Buffer < 0:
		return o, Errorf(CodeInvalidArgument, "Buffer must be positive")
	case o.Buffer > MaxBuffer:
		return o, Errorf(CodeInvalidArgument, "Buffer is at most %d", MaxBuffer)
	case o.Overflow > Disconnect:
		return o, Errorf(CodeInvalidArgument, "there is no overflow policy %d", o.Overflow)
	case o.Overflow != 0 && o.Group != "":
		return o, Errorf(CodeInvalidArgument, "a Group has no Overflow: its messages wait")
	case o.Overflow == DropOldest && o.Require&AtLeastOnce != 0:
		return o, Errorf(CodeInvalidArgument, "Overflow(DropOldest) contradicts Require(AtLeastOnce)")
	case o.Require>>len(featureNames) != 0:
		return o, Errorf(CodeUnimplemented, "an unknown feature is required")
	}
	need := o.Require
	if o.Group != "" {
		need |= Groups
	}
	if o.From != "" {
		need |= Replay
	}
	if o.DeadLetter != "" {
		need |= DeadLetters
	}
	if lacking := need &^ offered; lacking != 0 {
		return o, Errorf(CodeUnimplemented, "this transport does not offer %v", lacking)
	}
	if o.Buffer == 0 {
		o.Buffer = DefaultBuffer
	}
	return o, nil
}

// ResolveRespond is Resolve for Respond, where Buffer is the only option.
func ResolveRespond(opts ...SubscribeOption) (SubscribeOptions, error) {
	o, err := Resolve(0, opts...)
	if CodeOf(err) == CodeUnimplemented {
		err = Errorf(CodeUnimplemented, "calls take no option but Buffer")
	}
	if err == nil && (o.MaxAttempts != 0 || o.Overflow != 0) {
		err = Errorf(CodeInvalidArgument, "a responder has no MaxAttempts and no Overflow")
	}
	return o, err
}
