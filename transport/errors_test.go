package transport_test

import (
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

// codes has every Code with its gRPC number, its name, and whether it is retryable.
var codes = []struct {
	code      transport.Code
	number    uint32
	name      string
	retryable bool
}{
	{transport.CodeCanceled, 1, "canceled", true},
	{transport.CodeUnknown, 2, "unknown", true},
	{transport.CodeInvalidArgument, 3, "invalid_argument", false},
	{transport.CodeDeadlineExceeded, 4, "deadline_exceeded", true},
	{transport.CodeNotFound, 5, "not_found", false},
	{transport.CodeAlreadyExists, 6, "already_exists", false},
	{transport.CodePermissionDenied, 7, "permission_denied", false},
	{transport.CodeResourceExhausted, 8, "resource_exhausted", true},
	{transport.CodeFailedPrecondition, 9, "failed_precondition", false},
	{transport.CodeAborted, 10, "aborted", true},
	{transport.CodeOutOfRange, 11, "out_of_range", false},
	{transport.CodeUnimplemented, 12, "unimplemented", false},
	{transport.CodeInternal, 13, "internal", true},
	{transport.CodeUnavailable, 14, "unavailable", true},
	{transport.CodeDataLoss, 15, "data_loss", false},
	{transport.CodeUnauthenticated, 16, "unauthenticated", false},
}

var (
	_ encoding.TextMarshaler   = transport.CodeUnknown
	_ encoding.TextUnmarshaler = new(transport.Code)
)

func TestCodes(t *testing.T) {
	require.Len(t, codes, 16)
	for _, c := range codes {
		t.Run(c.name, func(t *testing.T) {
			require.EqualValues(t, c.number, c.code)
			require.Equal(t, c.name, c.code.String())
			require.EqualError(t, c.code, c.name)
			text, err := c.code.MarshalText()
			require.NoError(t, err)
			require.Equal(t, c.name, string(text))
			var got transport.Code
			require.NoError(t, got.UnmarshalText(text))
			require.Equal(t, c.code, got)

			require.Equal(t, c.code, transport.CodeOf(c.code))
			e := &transport.Error{Code: c.code}
			require.ErrorIs(t, e, c.code)
			require.Equal(t, c.code, transport.CodeOf(fmt.Errorf("more: %w", e)))
			unimplemented := c.code == transport.CodeUnimplemented
			require.Equal(t, unimplemented, errors.Is(c.code, errors.ErrUnsupported))
			require.Equal(t, unimplemented, errors.Is(e, errors.ErrUnsupported))
			for _, other := range codes {
				if other.code != c.code {
					require.NotErrorIs(t, e, other.code)
				}
			}

			for _, err := range []error{c.code, e, fmt.Errorf("more: %w", e), transport.Errorf(c.code, "x")} {
				require.Equal(t, c.retryable, transport.Retryable(err), "%v", err)
			}
		})
	}
	require.Equal(t, "code_17", transport.Code(17).String())
	require.Equal(t, "code_4294967295", transport.Code(math.MaxUint32).String())
}

func TestCodeUnmarshalUnknown(t *testing.T) {
	for _, text := range []string{"", "ok", "NOT_FOUND", "not found", "code_17", "newer"} {
		c := transport.CodeNotFound
		require.NoError(t, c.UnmarshalText([]byte(text)))
		require.Equal(t, transport.CodeUnknown, c, "%q", text)
	}
	var v struct{ Code transport.Code }
	require.NoError(t, json.Unmarshal([]byte(`{"Code":"aborted"}`), &v))
	require.Equal(t, transport.CodeAborted, v.Code)
}

func FuzzCodeUnmarshalText(f *testing.F) {
	for _, c := range codes {
		f.Add([]byte(c.name))
	}
	f.Add([]byte("ok"))
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var c transport.Code
		if err := c.UnmarshalText(text); err != nil {
			t.Fatal(err)
		}
		if c < 1 || c > 16 || c != transport.CodeUnknown && c.String() != string(text) {
			t.Fatalf("%q gives %d (%v)", text, c, c)
		}
	})
}

type typedError struct{ s string }

func (e *typedError) Error() string { return e.s }

func TestCodeOf(t *testing.T) {
	notFound := transport.Errorf(transport.CodeNotFound, "gone")
	for _, c := range []struct {
		name string
		err  error
		want transport.Code
	}{
		{"nil", nil, 0},
		{"foreign", io.ErrUnexpectedEOF, transport.CodeUnknown},
		{"code", transport.CodeAborted, transport.CodeAborted},
		{"error", notFound, transport.CodeNotFound},
		{"wrapped error", fmt.Errorf("a: %w", fmt.Errorf("b: %w", notFound)), transport.CodeNotFound},
		{"wrapped code", fmt.Errorf("a: %w", transport.CodeAborted), transport.CodeAborted},
		{"the outermost counts", transport.Wrap(notFound, transport.CodeInternal, "x"), transport.CodeInternal},
		{"joined", errors.Join(io.EOF, notFound), transport.CodeNotFound},
		{"the first of two errors", errors.Join(notFound, transport.Errorf(transport.CodeInternal, "x")), transport.CodeNotFound},
		{"an error before a code", errors.Join(notFound, transport.CodeInternal), transport.CodeNotFound},
		{"a code before an error", errors.Join(transport.CodeInternal, notFound), transport.CodeInternal},
		{"two %w", fmt.Errorf("%w and %w", transport.CodeInternal, notFound), transport.CodeInternal},
		{"canceled", context.Canceled, transport.CodeCanceled},
		{"wrapped deadline", fmt.Errorf("a: %w", context.DeadlineExceeded), transport.CodeDeadlineExceeded},
		{"unsupported", fmt.Errorf("a: %w", errors.ErrUnsupported), transport.CodeUnimplemented},
		{"a code counts before a context's error", transport.Wrap(context.Canceled, transport.CodeInternal, "x"), transport.CodeInternal},
		{"timeout of the system", os.ErrDeadlineExceeded, transport.CodeUnknown},
		{"error without code", &transport.Error{}, transport.CodeUnknown},
		{"error without code, with a cause that has one", &transport.Error{Cause: notFound}, transport.CodeUnknown},
		{"code out of range", transport.Code(17), transport.CodeUnknown},
		{"huge code", &transport.Error{Code: math.MaxUint32}, transport.CodeUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, transport.CodeOf(c.err))
			if c.err != nil {
				require.Equal(t, c.want, transport.Public(c.err).Code, "Public agrees")
			}
		})
	}
}

func TestErrorText(t *testing.T) {
	for want, err := range map[string]error{
		"not_found":                               &transport.Error{Code: transport.CodeNotFound},
		"not_found: no user":                      transport.Errorf(transport.CodeNotFound, "no %s", "user"),
		"aborted: again (BUSY)":                   &transport.Error{Code: transport.CodeAborted, Message: "again", Reason: "BUSY"},
		"internal (X): EOF":                       &transport.Error{Code: transport.CodeInternal, Reason: "X", Cause: io.EOF},
		"unavailable: no database 7: EOF":         transport.Wrap(io.EOF, transport.CodeUnavailable, "no database %d", 7),
		"invalid_argument: 100% and %w are taken": transport.Errorf(transport.CodeInvalidArgument, "100%% and %%w are taken"),
	} {
		require.EqualError(t, err, want)
	}
}

func TestWrap(t *testing.T) {
	cause := &typedError{"secret"}
	err := transport.Wrap(fmt.Errorf("deep: %w", cause), transport.CodeUnavailable, "no database")
	require.ErrorIs(t, err, transport.CodeUnavailable)
	require.ErrorIs(t, err, cause)
	var as *typedError
	require.ErrorAs(t, err, &as)
	require.Same(t, cause, as)
	var e *transport.Error
	require.ErrorAs(t, fmt.Errorf("more: %w", err), &e)
	require.Equal(t, "no database", e.Message)
	require.ErrorContains(t, err, "secret", "logs of this process see the cause")

	unwrapped := transport.Wrap(transport.CodeNotFound, transport.CodeInternal, "x")
	require.ErrorIs(t, unwrapped, transport.CodeInternal)
	require.ErrorIs(t, unwrapped, transport.CodeNotFound, "errors.Is sees the cause")
	require.NoError(t, errors.Unwrap(transport.Wrap(nil, transport.CodeInternal, "x")))
}

func TestErrorfRefusesWrapping(t *testing.T) {
	secret := errors.New("secret")
	for _, format := range []string{"%w", "a %w b", "%[1]w", "%+w", "100%% %w", "%%%w", "%-10.3w"} {
		err := transport.Errorf(transport.CodeNotFound, format, secret)
		require.Equal(t, transport.CodeInternal, transport.CodeOf(err), "%q", format)
		require.NotContains(t, transport.Public(err).Error(), "secret", "%q", format)
	}
	for _, format := range []string{"%v", "%%w %v", "%d%%", "100% wide %v", "%"} {
		if err := transport.Errorf(transport.CodeNotFound, format, 1); format != "100% wide %v" {
			require.Equal(t, transport.CodeNotFound, transport.CodeOf(err), "%q", format)
		}
	}
}

func TestPublic(t *testing.T) {
	require.Nil(t, transport.Public(nil))

	full := &transport.Error{Code: transport.CodeAborted, Reason: "BUSY", Message: "again",
		Details: []transport.Detail{{Type: "t", Value: []byte("v")}}, RetryAfter: time.Second,
		Header: transport.Header{"k": {"v"}}, Cause: errors.New("secret")}
	p := transport.Public(fmt.Errorf("private: %w", full))
	require.Equal(t, &transport.Error{Code: transport.CodeAborted, Reason: "BUSY", Message: "again",
		Details: []transport.Detail{{Type: "t", Value: []byte("v")}}, RetryAfter: time.Second,
		Header: transport.Header{"k": {"v"}}, Remote: true}, p)

	// Neither side sees what the other changes.
	p.Details[0].Value[0] = 'X'
	p.Details[0].Type = "X"
	p.Header["k"][0] = "X"
	p.Header.Set("new", "X")
	require.Equal(t, []transport.Detail{{Type: "t", Value: []byte("v")}}, full.Details)
	require.Equal(t, transport.Header{"k": {"v"}}, full.Header)
	require.False(t, full.Remote)
	require.EqualError(t, full.Cause, "secret")

	for _, err := range []error{io.ErrUnexpectedEOF, transport.CodeNotFound, fmt.Errorf("secret: %w", transport.CodeNotFound),
		context.Canceled, fmt.Errorf("secret: %w", errors.ErrUnsupported), errors.Join(transport.CodeNotFound, full)} {
		require.Equal(t, &transport.Error{Code: transport.CodeOf(err), Remote: true}, transport.Public(err),
			"nothing but the code of %v", err)
	}
	require.Equal(t, transport.CodeUnknown, transport.Public(&transport.Error{Code: 99}).Code)
}

func TestRetryableWithoutCode(t *testing.T) {
	require.False(t, transport.Retryable(nil))
	require.True(t, transport.Retryable(io.EOF))
	require.True(t, transport.Retryable(context.DeadlineExceeded))
	require.True(t, transport.Retryable(context.Canceled))
	require.True(t, transport.Retryable(&transport.Error{Code: 99}))
	require.False(t, transport.Retryable(errors.ErrUnsupported))
	require.False(t, transport.Retryable(transport.Wrap(io.EOF, transport.CodeNotFound, "")))
	require.True(t, transport.Retryable(transport.Wrap(transport.CodeNotFound, transport.CodeInternal, "")))
}

func TestResendable(t *testing.T) {
	notSent := &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent}
	unknown := &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonOutcomeUnknown}
	plain := &transport.Message{}
	keyed := &transport.Message{Header: transport.Header{transport.HeaderIdempotencyKey: {"k"}}}
	for _, c := range []struct {
		name string
		err  error
		m    *transport.Message
		want bool
	}{
		{"nil error", nil, keyed, false},
		{"not sent", notSent, plain, true},
		{"not sent, wrapped", fmt.Errorf("x: %w", notSent), plain, true},
		{"not sent, nil message", notSent, nil, true},
		{"outcome unknown", unknown, plain, false},
		{"outcome unknown with a key", unknown, keyed, true},
		{"any error with a key", io.EOF, keyed, true},
		{"any error", io.EOF, plain, false},
		{"any error, nil message", io.EOF, nil, false},
		{"empty key", io.EOF, &transport.Message{Header: transport.Header{transport.HeaderIdempotencyKey: {""}}}, false},
		{"an ID is no promise", io.EOF, &transport.Message{ID: "id"}, false},
	} {
		require.Equal(t, c.want, transport.Resendable(c.err, c.m), c.name)
	}
}

func TestPanicked(t *testing.T) {
	cause := &typedError{"secret"}
	err := transport.Panicked(cause)
	require.Equal(t, transport.CodeInternal, transport.CodeOf(err))
	require.ErrorIs(t, err, transport.ErrPanic)
	require.ErrorIs(t, err, cause)
	require.ErrorContains(t, err, "TestPanicked", "the stack")
	require.Equal(t, "internal", transport.Public(err).Error(), "nothing of it is public")
	require.ErrorContains(t, transport.Panicked("text"), "text")
}

func TestBackoff(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name string
		b    transport.Backoff
		want []time.Duration // without jitter, from attempt 1 on
	}{
		{"zero value", transport.Backoff{}, []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 10000 * ms, 10000 * ms}},
		{"bounds", transport.Backoff{Min: 3 * ms, Max: 10 * ms}, []time.Duration{3 * ms, 6 * ms, 10 * ms, 10 * ms}},
		{"Min above Max", transport.Backoff{Min: time.Minute, Max: time.Second}, []time.Duration{time.Second, time.Second}},
		{"no overflow", transport.Backoff{Min: math.MaxInt64/2 + 1, Max: math.MaxInt64}, []time.Duration{math.MaxInt64/2 + 1, math.MaxInt64, math.MaxInt64}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i, want := range c.want {
				b := c.b
				b.Jitter = -1
				require.Equal(t, want, b.Delay(i+1), "attempt %d, no jitter", i+1)
				for _, jitter := range []float64{0, 0.1, 1, 7} {
					b.Jitter = jitter
					share := min(jitter, 1)
					if jitter == 0 {
						share = 0.5
					}
					lo, distinct := time.Duration(float64(want)*(1-share)), map[time.Duration]bool{}
					for range 50 {
						d := b.Delay(i + 1)
						require.LessOrEqual(t, d, want, "attempt %d, jitter %v", i+1, jitter)
						require.GreaterOrEqual(t, d, max(lo-1, 0), "attempt %d, jitter %v", i+1, jitter)
						distinct[d] = true
					}
					require.Greater(t, len(distinct), 1, "the jitter is random")
				}
			}
		})
	}
	require.Equal(t, 100*ms, transport.Backoff{Jitter: -1}.Delay(0))
	require.Equal(t, 100*ms, transport.Backoff{Jitter: -1}.Delay(-5))
	require.Equal(t, 10*time.Second, transport.Backoff{Jitter: -1}.Delay(math.MaxInt))
}

func TestWrapRefusesToPublishItsCause(t *testing.T) {
	private := errors.New("private")
	format := "no user: %w" // a variable, since vet refuses it too
	err := transport.Wrap(private, transport.CodeNotFound, format, private)
	require.ErrorIs(t, err, transport.CodeInternal)
	require.Empty(t, transport.Public(err).Message)
}

func TestWhatIsNoCodeIsWrittenAsAFailure(t *testing.T) {
	for _, c := range []transport.Code{0, 17, 1 << 31} {
		text, err := c.MarshalText()
		require.NoError(t, err)
		require.Equal(t, "unknown", string(text))
	}
}
