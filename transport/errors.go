package transport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Code says what kind of failure an error is. The codes and their numbers are gRPC's
// (https://grpc.io/docs/guides/status-codes/); every protocol has its own table for them, in package wire. A Code is
// itself an error, so errors.Is(err, transport.CodeNotFound) works. There is no code for success: that is a nil error.
type Code uint32

const (
	CodeCanceled           Code = 1  // the caller gave up; from a handler: give the message back, uncounted
	CodeUnknown            Code = 2  // an error without a Code
	CodeInvalidArgument    Code = 3  // wrong whatever the state of the system
	CodeDeadlineExceeded   Code = 4  // the time ran out; the work may have been done
	CodeNotFound           Code = 5  // no such thing
	CodeAlreadyExists      Code = 6  // what should be created is there
	CodePermissionDenied   Code = 7  // known, but not allowed
	CodeResourceExhausted  Code = 8  // a quota, a size or a buffer is full
	CodeFailedPrecondition Code = 9  // the system is not in the state this needs
	CodeAborted            Code = 10 // a conflict: start the whole operation over
	CodeOutOfRange         Code = 11 // past the end, or a cursor that is gone
	CodeUnimplemented      Code = 12 // not offered here; matches errors.ErrUnsupported
	CodeInternal           Code = 13 // a bug on the other side
	CodeUnavailable        Code = 14 // not now
	CodeDataLoss           Code = 15 // unrecoverable
	CodeUnauthenticated    Code = 16 // no valid credentials
)

var codeNames = [...]string{"ok", "canceled", "unknown", "invalid_argument", "deadline_exceeded", "not_found",
	"already_exists", "permission_denied", "resource_exhausted", "failed_precondition", "aborted", "out_of_range",
	"unimplemented", "internal", "unavailable", "data_loss", "unauthenticated"}

// String returns the lower-case name that text protocols carry, such as "not_found".
func (c Code) String() string {
	if c < Code(len(codeNames)) {
		return codeNames[c]
	}
	return fmt.Sprintf("code_%d", uint32(c))
}

// Error makes a Code an error.
func (c Code) Error() string { return c.String() }

// Is makes CodeUnimplemented match errors.ErrUnsupported.
func (c Code) Is(target error) bool {
	return c == CodeUnimplemented && target == errors.ErrUnsupported
}

// MarshalText returns the name. What is no Code, 0 included, is written as "unknown": on a wire it stands for a failure.
func (c Code) MarshalText() ([]byte, error) {
	if c == 0 || c >= Code(len(codeNames)) {
		c = CodeUnknown
	}
	return []byte(c.String()), nil
}

// UnmarshalText takes a name. Any other text gives CodeUnknown, so that a peer's newer code is still an error.
func (c *Code) UnmarshalText(text []byte) error {
	*c = CodeUnknown
	if i := slices.Index(codeNames[:], string(text)); i > 0 {
		*c = Code(i)
	}
	return nil
}

// Reasons that the library itself gives, in Error.Reason.
const (
	ReasonNotSent        = "NOT_SENT"        // nothing left this process or reached a handler: sending again is safe
	ReasonOutcomeUnknown = "OUTCOME_UNKNOWN" // it was sent, and nobody knows what became of it
	ReasonClosed         = "CLOSED"          // used after Close or Shutdown, ours or the peer's
)

// A Detail is one more piece of an error: a type URL and its encoded value, as in google.rpc.Status.
type Detail struct {
	Type  string
	Value []byte
}

// An Error is an error that is meant for the peer. All of it but Cause and Remote crosses the wire; the text of any
// other error never leaves the process. Treat it as read-only once it is returned.
type Error struct {
	Code       Code
	Reason     string        // stable and machine-readable, UPPER_SNAKE; may be empty
	Message    string        // public text
	Details    []Detail      // for programs
	RetryAfter time.Duration // when to try again; 0: whenever
	Header     Header        // response metadata, trailers in gRPC
	Remote     bool          // it came from a peer
	Cause      error         // private
}

// Error returns code, public text, reason and cause: it is for logs of this process, not for the peer.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Code.String())
	if e.Message != "" {
		b.WriteString(": ")
		b.WriteString(e.Message)
	}
	if e.Reason != "" {
		b.WriteString(" (" + e.Reason + ")")
	}
	if e.Cause != nil {
		b.WriteString(": ")
		b.WriteString(e.Cause.Error())
	}
	return b.String()
}

// Unwrap returns Cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is matches e's own Code, and errors.ErrUnsupported if that is CodeUnimplemented.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code || e.Code.Is(target)
}

// Errorf returns an *Error with a public text. The verb %w is not accepted: what an argument wraps would become
// public with it, so such a call gives CodeInternal. Use [Wrap] for an error with a private cause.
func Errorf(code Code, format string, args ...any) error {
	if wraps(format) {
		return &Error{Code: CodeInternal, Cause: fmt.Errorf("transport: Errorf does not take %%w: "+format, args...)}
	}
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// wraps reports whether format has the verb w.
func wraps(format string) bool {
	for {
		_, verb, ok := strings.Cut(format, "%")
		verb = strings.TrimLeft(verb, "+-# 0123456789.*[]") // flags, width, precision, index
		if !ok || verb == "" {
			return false
		}
		if verb[0] == 'w' {
			return true
		}
		format = verb[1:]
	}
}

// Wrap returns an *Error with a public text and a private cause, which errors.Is and errors.As see. Like [Errorf] it
// does not take %w.
func Wrap(cause error, code Code, format string, args ...any) error {
	if wraps(format) {
		return &Error{Code: CodeInternal, Cause: fmt.Errorf("transport: Wrap does not take %%w: "+format, args...)}
	}
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Cause: cause}
}

// Public returns the part of err that may cross the wire, as the peer shall see it: with Remote set, without Cause,
// sharing nothing that a later change could reach. It is nil for nil. The first *Error or Code in err's tree counts;
// an error without one becomes its [CodeOf] and no text. It is for implementers of transports.
func Public(err error) *Error {
	if err == nil {
		return nil
	}
	e := first(err)
	if e == nil {
		return &Error{Code: CodeOf(err), Remote: true}
	}
	p := *e
	p.Code = CodeOf(e)
	p.Cause, p.Remote = nil, true
	p.Header = p.Header.Clone()
	p.Details = slices.Clone(p.Details)
	for i, d := range p.Details {
		p.Details[i].Value = slices.Clone(d.Value)
	}
	return &p
}

// CodeOf returns the Code of err: that of the first *Error or Code in its tree, else the one that
// context.Canceled, context.DeadlineExceeded or errors.ErrUnsupported stands for, else CodeUnknown. It is 0 for nil.
func CodeOf(err error) Code {
	if err == nil {
		return 0
	}
	e := first(err)
	switch {
	case e != nil:
		if e.Code == 0 || e.Code >= Code(len(codeNames)) {
			return CodeUnknown
		}
		return e.Code
	case errors.Is(err, context.Canceled):
		return CodeCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return CodeDeadlineExceeded
	case errors.Is(err, errors.ErrUnsupported):
		return CodeUnimplemented
	}
	return CodeUnknown
}

// first returns the first *Error in err's tree, or what stands for a Code that comes before it; nil if there is neither.
func first(err error) *Error {
	var c interface{ coded() *Error }
	if !errors.As(err, &c) {
		return nil
	}
	return c.coded()
}

func (e *Error) coded() *Error { return e }
func (c Code) coded() *Error   { return &Error{Code: c} }

// Retryable reports whether handling the message again may go better: whether a handler's err asks for redelivery.
// These do not: InvalidArgument, NotFound, AlreadyExists, PermissionDenied, FailedPrecondition, OutOfRange,
// Unimplemented, DataLoss, Unauthenticated. An error without a Code does. Nil does not.
func Retryable(err error) bool {
	switch CodeOf(err) {
	case 0, CodeInvalidArgument, CodeNotFound, CodeAlreadyExists, CodePermissionDenied, CodeFailedPrecondition,
		CodeOutOfRange, CodeUnimplemented, CodeDataLoss, CodeUnauthenticated:
		return false
	}
	return true
}

// Resendable reports whether a caller may send m again after err without doing the work twice: nothing was sent
// ([ReasonNotSent]), or m has an idempotency-key. It says nothing about whether that helps: see [Retryable].
func Resendable(err error, m *Message) bool {
	if err == nil {
		return false
	}
	if e := first(err); e != nil && e.Reason == ReasonNotSent {
		return true
	}
	return m != nil && m.Header.Get(HeaderIdempotencyKey) != ""
}

// retryAfter returns the wait that err asks for, 0 if none.
func retryAfter(err error) time.Duration {
	if e := first(err); e != nil {
		return e.RetryAfter
	}
	return 0
}
