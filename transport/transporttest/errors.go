package transporttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

// secret must not cross a wire.
const secret = "password=hunter2"

// rich has everything that an error can carry.
func rich(code transport.Code) *transport.Error {
	return &transport.Error{
		Code:    code,
		Reason:  "STOCK_EMPTY",
		Message: "text with ünïcode, \"quotes\", 100%, <tags> & a\nline",
		Details: []transport.Detail{
			{Type: "type.googleapis.com/test.Item", Value: []byte{0, 1, 0xff, '\n'}},
			{Type: "type.googleapis.com/test.Other", Value: []byte{8, 1}},
		},
		RetryAfter: 1500 * time.Millisecond,
		Header:     transport.Header{"k": {"v", "w"}, "raw-bin": {"\x00\xff"}},
		Cause:      errors.New(secret),
	}
}

var errorCases = []testCase{{
	name:  "errors/codes",
	rule:  "Each of the 16 codes arrives as itself, alone and in an *Error, for whatever an error is called.",
	needs: []need{calls},
	run: func(c *env) {
		fail := c.failing()
		for code := transport.CodeCanceled; code <= transport.CodeUnauthenticated; code++ {
			for _, err := range []error{code, transport.Errorf(code, "text"), fmt.Errorf("wrapped: %w", code)} {
				e := fail(err)
				require.Equal(c, code.String(), e.Code.String())
				require.ErrorIs(c, e, code)
			}
		}
		require.ErrorIs(c, fail(errors.ErrUnsupported), errors.ErrUnsupported)
		c.code(fail(context.DeadlineExceeded), transport.CodeDeadlineExceeded)
		c.code(fail(transport.Code(999)), transport.CodeUnknown)
		c.code(fail(&transport.Error{}), transport.CodeUnknown)
	},
}, {
	name:  "errors/parts",
	rule:  "Code, Reason, Message, Details, RetryAfter and Header of an error cross; it is Remote then, and has no Cause.",
	needs: []need{calls},
	run: func(c *env) {
		fail := c.failing()
		for _, code := range []transport.Code{transport.CodeResourceExhausted, transport.CodeNotFound, transport.CodeUnavailable} {
			sent := rich(code)
			for _, err := range []error{sent, fmt.Errorf(secret+": %w", sent), errors.Join(errors.New(secret), sent)} {
				c.sameError(sent, fail(err))
			}
		}
	},
}, {
	name:  "errors/part-by-part",
	rule:  "Each part of an error crosses without the others.",
	needs: []need{calls},
	run: func(c *env) {
		fail := c.failing()
		all := rich(transport.CodeAborted)
		for _, sent := range []*transport.Error{
			{Code: transport.CodeAborted, Reason: all.Reason},
			{Code: transport.CodeAborted, Message: all.Message},
			{Code: transport.CodeAborted, Details: all.Details},
			{Code: transport.CodeAborted, RetryAfter: all.RetryAfter},
			{Code: transport.CodeAborted, Header: all.Header},
			{Code: transport.CodeAborted, Message: " "},
			{Code: transport.CodeAborted, RetryAfter: time.Millisecond},
			{Code: transport.CodeAborted, RetryAfter: 24 * time.Hour},
		} {
			c.sameError(sent, fail(sent))
		}
	},
}, {
	name:  "errors/private",
	rule:  "Private text does not cross: not of causes, of errors that wrap, or of errors without a Code.",
	needs: []need{calls},
	run: func(c *env) {
		fail := c.failing()
		for _, err := range []error{
			errors.New(secret),
			fmt.Errorf(secret+": %w", io.ErrUnexpectedEOF),
			fmt.Errorf(secret+": %w", transport.CodeNotFound),
			fmt.Errorf(secret+": %w", context.DeadlineExceeded),
			transport.Wrap(errors.New(secret), transport.CodeInternal, "public"),
			transport.Wrap(transport.Errorf(transport.CodeNotFound, secret), transport.CodeInternal, "public"),
			errors.Join(errors.New(secret), transport.Errorf(transport.CodeInternal, "public")),
		} {
			e := fail(err)
			require.Equal(c, transport.CodeOf(err).String(), e.Code.String())
			require.NotContains(c, fmt.Sprintf("%v %+v %#v", e, *e, *e), secret)
			if own := new(transport.Error); errors.As(err, &own) {
				require.Equal(c, "public", e.Message)
			} else {
				require.Empty(c, e.Message)
			}
		}
	},
}, {
	name:  "errors/panic",
	rule:  "A handler's panic is CodeInternal without any text, and the next call is served.",
	needs: []need{calls},
	run: func(c *env) {
		topic := c.topic()
		c.serve(c.respond(topic), func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			if string(m.Body) == "panic" {
				panic(secret)
			}
			return nil, nil
		})
		r := await(c, c.calling(c.ctx, topic, "panic"), "the call")
		c.code(r.err, transport.CodeInternal)
		require.NotContains(c, fmt.Sprintf("%+v", r.err), secret)
		c.call(topic, "on")
	},
}, {
	name:    "errors/panic-event",
	rule:    "A handler's panic is a failed attempt: the event comes again.",
	needs:   []need{events},
	grouped: true,
	run: func(c *env) {
		topic := c.topic()
		done := make(chan string, 1)
		n := 0
		c.serve(c.subscribe(topic), transport.NoReply(func(_ context.Context, m *transport.Message) error {
			if n++; n == 1 {
				panic(secret)
			}
			done <- string(m.Body)
			return nil
		}))
		c.publish(topic, "1")
		require.Equal(c, "1", await(c, done, "the event after a panic"))
	},
}, {
	name:  "errors/handler-context",
	rule:  "A handler that gives up because the call was cancelled harms nothing.",
	needs: []need{calls, canCancel},
	run: func(c *env) {
		topic := c.topic()
		started, ended := make(chan bool, 1), make(chan bool, 1)
		c.serve(c.respond(topic), func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			if string(m.Body) != "wait" {
				return nil, nil
			}
			started <- true
			<-ctx.Done()
			ended <- true
			return nil, ctx.Err()
		})
		ctx, cancel := context.WithCancel(c.ctx)
		defer cancel()
		r := c.calling(ctx, topic, "wait")
		await(c, started, "the handler")
		cancel()
		require.ErrorIs(c, await(c, r, "the call").err, context.Canceled)
		await(c, ended, "the end of the handler's context")
		c.call(topic, "on")
	},
}}

// failing returns a function that calls a responder which settles with err, and returns what the caller gets.
func (c *env) failing() func(err error) *transport.Error {
	topic := c.topic()
	s := c.respond(topic)
	return func(err error) *transport.Error {
		c.Helper()
		ch := c.calling(c.ctx, topic, "")
		c.nack(c.next(s), err)
		r := await(c, ch, "the call")
		require.Error(c, r.err)
		require.Nil(c, r.reply, "reply and error at once")
		var e *transport.Error
		require.ErrorAs(c, r.err, &e, "the caller gets an *Error for %v", err)
		require.True(c, e.Remote, "an error from a peer is Remote: %v", e)
		require.NoError(c, e.Cause)
		return e
	}
}

func (c *env) sameError(want, got *transport.Error) {
	c.Helper()
	require.Equal(c, want.Code.String(), got.Code.String())
	require.Equal(c, want.Reason, got.Reason, "Reason")
	require.Equal(c, want.Message, got.Message, "Message")
	require.Equal(c, len(want.Details), len(got.Details), "Details")
	for i, d := range want.Details {
		require.Equal(c, d.Type, got.Details[i].Type)
		require.Equal(c, d.Value, got.Details[i].Value)
	}
	require.Equal(c, want.RetryAfter, got.RetryAfter, "RetryAfter")
	c.sameHeader(want.Header, got.Header)
}
