package wire_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// Codes that do not come back from the bare number of a protocol, and what comes instead.
var (
	lossyHTTP = map[transport.Code]transport.Code{
		transport.CodeAlreadyExists:      transport.CodeAborted,
		transport.CodeFailedPrecondition: transport.CodeInvalidArgument,
		transport.CodeOutOfRange:         transport.CodeInvalidArgument,
		transport.CodeInternal:           transport.CodeUnknown,
		transport.CodeDataLoss:           transport.CodeUnknown,
	}
	lossyClose = map[transport.Code]transport.Code{
		transport.CodeAlreadyExists: transport.CodeAborted,
		transport.CodeDataLoss:      transport.CodeUnknown,
	}
)

func eachCode(t *testing.T, f func(t *testing.T, c transport.Code)) {
	for c := transport.CodeCanceled; c <= transport.CodeUnauthenticated; c++ {
		t.Run(c.String(), func(t *testing.T) { f(t, c) })
	}
}

func TestCodesRoundTrip(t *testing.T) {
	expect := func(c transport.Code, lossy map[transport.Code]transport.Code) transport.Code {
		if l, ok := lossy[c]; ok {
			return l
		}
		return c
	}
	eachCode(t, func(t *testing.T, c transport.Code) {
		require.Equal(t, expect(c, lossyHTTP), wire.CodeFromHTTP(wire.HTTPStatus(c)))
		require.Equal(t, c, wire.CodeFromRPC(wire.RPCCode(c)))
		require.Equal(t, c, wire.CodeFromRPC(-32000-int(c)))
		require.Equal(t, expect(c, lossyClose), wire.CodeFromClose(wire.CloseCode(c)))
		n := wire.CloseCode(c)
		require.True(t, 1000 <= n && n <= 1014 || 3000 <= n && n < 5000, "close code %d", n)
		require.NotContains(t, []int{1004, 1005, 1006}, n)
	})
}

func TestCodesNeverSucceed(t *testing.T) {
	for n := -33000; n < 6000; n++ {
		for _, c := range []transport.Code{wire.CodeFromHTTP(n), wire.CodeFromRPC(n), wire.CodeFromClose(n), wire.CodeFromAMQP(n)} {
			require.True(t, 1 <= c && c <= 16, "%d gives %d", n, c)
		}
	}
	for _, c := range []transport.Code{0, 17, 1 << 31} {
		require.Equal(t, 500, wire.HTTPStatus(c))
		require.Equal(t, wire.RPCCode(transport.CodeUnknown), wire.RPCCode(c))
		require.Equal(t, 1011, wire.CloseCode(c))
	}
}

func TestCodeFromHTTP(t *testing.T) {
	for status, c := range map[int]transport.Code{
		200: transport.CodeUnknown, 302: transport.CodeUnknown, 400: transport.CodeInvalidArgument,
		401: transport.CodeUnauthenticated, 405: transport.CodeUnimplemented, 406: transport.CodeInvalidArgument,
		408: transport.CodeDeadlineExceeded, 410: transport.CodeNotFound, 412: transport.CodeFailedPrecondition,
		413: transport.CodeResourceExhausted, 415: transport.CodeInvalidArgument, 416: transport.CodeOutOfRange,
		418: transport.CodeUnknown, 422: transport.CodeInvalidArgument, 425: transport.CodeUnavailable,
		428: transport.CodeFailedPrecondition, 451: transport.CodePermissionDenied, 502: transport.CodeUnavailable,
	} {
		require.Equal(t, c, wire.CodeFromHTTP(status), "%d", status)
	}
}

func TestCodeFromResponse(t *testing.T) {
	from := func(method, header, value string, status int) transport.Code {
		q := &http.Request{Method: method, Header: http.Header{}}
		q.Header.Set(header, value)
		return wire.CodeFromResponse(&http.Response{StatusCode: status, Request: q})
	}
	require.Equal(t, transport.CodeAlreadyExists, from("POST", "X", "", 409))
	require.Equal(t, transport.CodeAlreadyExists, from("PUT", "If-None-Match", "*", 409))
	require.Equal(t, transport.CodeAborted, from("PUT", "X", "", 409))
	require.Equal(t, transport.CodeAborted, from("PUT", "If-Match", `"1"`, 412))
	require.Equal(t, transport.CodeFailedPrecondition, from("PUT", "If-None-Match", "*", 412))
	require.Equal(t, transport.CodeAborted, wire.CodeFromResponse(&http.Response{StatusCode: 409}))
}

func TestAMQPOutcome(t *testing.T) {
	require.Equal(t, wire.AMQPAck, wire.AMQPOutcomeOf(nil))
	require.Equal(t, wire.AMQPDelay, wire.AMQPOutcomeOf(errors.New("x")))
	require.Equal(t, wire.AMQPRequeue, wire.AMQPOutcomeOf(context.Canceled))
	require.Equal(t, wire.AMQPDelay, wire.AMQPOutcomeOf(context.DeadlineExceeded))
	eachCode(t, func(t *testing.T, c transport.Code) {
		o := wire.AMQPOutcomeOf(c)
		require.Equal(t, transport.Retryable(c), o == wire.AMQPRequeue || o == wire.AMQPDelay)
		require.Equal(t, c == transport.CodeCanceled, o == wire.AMQPRequeue)
	})
	var names []string
	for _, o := range []wire.AMQPOutcome{wire.AMQPAck, wire.AMQPRequeue, wire.AMQPDelay, wire.AMQPReject} {
		names = append(names, o.String())
	}
	require.Equal(t, []string{"ack", "requeue", "delay", "reject"}, names)
}

func TestCodeFromAMQP(t *testing.T) {
	for reply, c := range map[int]transport.Code{
		200: transport.CodeUnavailable, 311: transport.CodeResourceExhausted, 312: transport.CodeUnimplemented,
		320: transport.CodeUnavailable, 403: transport.CodePermissionDenied, 404: transport.CodeNotFound,
		405: transport.CodeAborted, 406: transport.CodeFailedPrecondition, 504: transport.CodeInternal,
		530: transport.CodePermissionDenied, 540: transport.CodeUnimplemented, 541: transport.CodeInternal,
		999: transport.CodeUnknown,
	} {
		require.Equal(t, c, wire.CodeFromAMQP(reply), "%d", reply)
	}
}
