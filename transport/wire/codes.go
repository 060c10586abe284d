package wire

import (
	"net/http"

	"github.com/intermodal-go/intermodal/transport"
)

// codeRow is what one Code becomes in each protocol that has numbers of its own.
type codeRow struct {
	http int // RFC 9110 section 15, and 499 of nginx
	rpc  int // JSON-RPC 2.0 section 5.1, else -32000 - code
	ws   int // RFC 6455 section 7.4, else 4000 + HTTP status
}

// codeTable is indexed by Code. Row 0 stands for all that is no Code.
var codeTable = [...]codeRow{
	0:                                {500, -32002, 1011},
	transport.CodeCanceled:           {499, -32001, 1001},
	transport.CodeUnknown:            {500, -32002, 1011},
	transport.CodeInvalidArgument:    {400, -32602, 4400},
	transport.CodeDeadlineExceeded:   {504, -32004, 4408},
	transport.CodeNotFound:           {404, -32005, 4404},
	transport.CodeAlreadyExists:      {409, -32006, 4409},
	transport.CodePermissionDenied:   {403, -32007, 4403},
	transport.CodeResourceExhausted:  {429, -32008, 4429},
	transport.CodeFailedPrecondition: {400, -32009, 4412},
	transport.CodeAborted:            {409, -32010, 4409},
	transport.CodeOutOfRange:         {400, -32011, 4416},
	transport.CodeUnimplemented:      {501, -32601, 4501},
	transport.CodeInternal:           {500, -32603, 4500},
	transport.CodeUnavailable:        {503, -32014, 1013},
	transport.CodeDataLoss:           {500, -32015, 1011},
	transport.CodeUnauthenticated:    {401, -32016, 4401},
}

func row(c transport.Code) codeRow {
	if int(c) < len(codeTable) {
		return codeTable[c]
	}
	return codeTable[0]
}

// HTTPStatus returns the HTTP status for c: 4xx or 5xx always, 500 for what is no Code. See [StatusOf] for an error,
// which may ask for a finer one.
func HTTPStatus(c transport.Code) int { return row(c).http }

// CodeFromHTTP returns the Code for the HTTP status of a failed exchange whose body does not name one. It is never 0:
// a status without a row of its own, 2xx and 3xx included, is CodeUnknown. Where several codes share a status the most
// general one is taken: 400 is CodeInvalidArgument, 409 CodeAborted, 412 CodeFailedPrecondition, 500 CodeUnknown. See
// [CodeFromResponse], which knows the request too.
func CodeFromHTTP(status int) transport.Code {
	switch status {
	case 499:
		return transport.CodeCanceled
	case 400, 406, 411, 415, 422:
		return transport.CodeInvalidArgument
	case 408, 504:
		return transport.CodeDeadlineExceeded
	case 404, 410:
		return transport.CodeNotFound
	case 403, 451:
		return transport.CodePermissionDenied
	case 413, 414, 429, 431:
		return transport.CodeResourceExhausted
	case 412, 423, 428:
		return transport.CodeFailedPrecondition
	case 409:
		return transport.CodeAborted
	case 416:
		return transport.CodeOutOfRange
	case 405, 501:
		return transport.CodeUnimplemented
	case 421, 425, 502, 503:
		return transport.CodeUnavailable
	case 401:
		return transport.CodeUnauthenticated
	}
	return transport.CodeUnknown
}

// CodeFromResponse is [CodeFromHTTP] with the request at hand, as r.Request. A 409 answer to a POST, or to a PUT with
// If-None-Match: *, is CodeAlreadyExists: the request meant to create. A 412 answer to If-Match is CodeAborted: somebody
// else was faster.
func CodeFromResponse(r *http.Response) transport.Code {
	if q := r.Request; q != nil {
		switch {
		case r.StatusCode == 409 && (q.Method == "POST" || q.Method == "PUT" && q.Header.Get("If-None-Match") == "*"):
			return transport.CodeAlreadyExists
		case r.StatusCode == 412 && q.Header.Get("If-Match") != "":
			return transport.CodeAborted
		}
	}
	return CodeFromHTTP(r.StatusCode)
}

// RPCCode returns the JSON-RPC 2.0 error code for c: the standard's own where there is one, else -32000 - c, of the block
// that the standard leaves to implementations. What is no Code counts as CodeUnknown.
func RPCCode(c transport.Code) int { return row(c).rpc }

// CodeFromRPC returns the Code for the JSON-RPC error code of an error whose data does not name one. It is never 0.
// -32600, -32602 and -32700 are CodeInvalidArgument; -32800 (Language Server Protocol) and -32097 (jrpc2) are
// CodeCanceled; -32096 (jrpc2) is CodeDeadlineExceeded; a number without a meaning here, -32000 included, is CodeUnknown.
// Other users of JSON-RPC give -32001 and its neighbours meanings of their own, so trust a code in the data first.
func CodeFromRPC(n int) transport.Code {
	switch n {
	case -32600, -32602, -32700:
		return transport.CodeInvalidArgument
	case -32601:
		return transport.CodeUnimplemented
	case -32603:
		return transport.CodeInternal
	case -32800, -32097:
		return transport.CodeCanceled
	case -32096:
		return transport.CodeDeadlineExceeded
	}
	if c := -32000 - n; c > 0 && c < len(codeTable) {
		return transport.Code(c)
	}
	return transport.CodeUnknown
}

// CloseCode returns the WebSocket close code for c, for when c ends a whole connection: a failed call never does. Where
// RFC 6455 has no code it is 4000 + an HTTP status, as graphql-transport-ws has it.
func CloseCode(c transport.Code) int { return row(c).ws }

// CodeFromClose returns the Code for a WebSocket close code, one that was received or one of those that stand for a
// connection that broke, such as 1006. It is never 0: whoever waits on a closed connection has failed, so 1000 is
// CodeUnavailable. 1011 stands for several codes and is CodeUnknown, 4409 is CodeAborted. 44xx and 45xx without a row of
// their own are read as HTTP statuses.
func CodeFromClose(n int) transport.Code {
	switch n {
	case 1001:
		return transport.CodeCanceled
	case 1003, 1007:
		return transport.CodeInvalidArgument
	case 3008:
		return transport.CodeDeadlineExceeded
	case 1008, 3003:
		return transport.CodePermissionDenied
	case 1009:
		return transport.CodeResourceExhausted
	case 1010:
		return transport.CodeUnimplemented
	case 1002, 4500:
		return transport.CodeInternal
	case 1000, 1005, 1006, 1012, 1013, 1014, 1015:
		return transport.CodeUnavailable
	case 3000:
		return transport.CodeUnauthenticated
	}
	if 4400 <= n && n < 4600 {
		return CodeFromHTTP(n - 4000)
	}
	return transport.CodeUnknown
}

// An AMQPOutcome is what a consumer does with a delivery that has no reply-to. A request that has one is answered, with
// the problem document for an error, and acknowledged.
type AMQPOutcome uint8

const (
	AMQPAck     AMQPOutcome = iota // acknowledge
	AMQPRequeue                    // give back at once; the attempt does not count
	AMQPDelay                      // deliver again after Error.RetryAfter or a backoff, until the attempts are used up
	AMQPReject                     // refuse for good: a dead letter
)

// String returns "ack", "requeue", "delay" or "reject".
func (o AMQPOutcome) String() string {
	switch o {
	case AMQPAck:
		return "ack"
	case AMQPRequeue:
		return "requeue"
	case AMQPDelay:
		return "delay"
	}
	return "reject"
}

// AMQPOutcomeOf returns the outcome that a handler's err asks for. It applies the rules of Delivery.Settle: nil
// acknowledges, CodeCanceled gives back, a [transport.Retryable] error is delayed, all else is rejected.
func AMQPOutcomeOf(err error) AMQPOutcome {
	switch {
	case err == nil:
		return AMQPAck
	case transport.CodeOf(err) == transport.CodeCanceled:
		return AMQPRequeue
	case transport.Retryable(err):
		return AMQPDelay
	}
	return AMQPReject
}

// CodeFromAMQP returns the Code for a reply code of AMQP 0-9-1 (section 1.2 of its specification), as in
// connection.close, channel.close and basic.return. It is never 0: 200, an orderly close, is CodeUnavailable for whoever
// still waits. 403 is CodePermissionDenied; while logging in it means CodeUnauthenticated, which the caller knows.
// 312 and 313, a message that cannot be routed or has no consumer, are CodeUnimplemented.
func CodeFromAMQP(reply int) transport.Code {
	switch reply {
	case 200, 320:
		return transport.CodeUnavailable
	case 311, 506:
		return transport.CodeResourceExhausted
	case 312, 313, 540:
		return transport.CodeUnimplemented
	case 402, 404:
		return transport.CodeNotFound
	case 403, 530:
		return transport.CodePermissionDenied
	case 405:
		return transport.CodeAborted
	case 406:
		return transport.CodeFailedPrecondition
	case 501, 502, 503, 504, 505, 541:
		return transport.CodeInternal
	}
	return transport.CodeUnknown
}
