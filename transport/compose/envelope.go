package compose

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// Headers of the envelope beside reply-to, correlation-id and deadline.
const (
	headerError  = "call-error"  // the Code's name, in a reply that is an error
	headerHeader = "call-header" // how many bytes at the front of the body are more headers
)

// What a message's own header must not say in its event, because the envelope says it or the carrier would heed it.
var (
	envelopeOfRequest = []string{transport.HeaderReplyTo, transport.HeaderCorrelationID, transport.HeaderDeadline, headerHeader}
	envelopeOfReply   = []string{transport.HeaderCorrelationID, headerError, headerHeader}

	hiddenInRequest = envelopeOfRequest
	hiddenInReply   = []string{transport.HeaderReplyTo, transport.HeaderCorrelationID, transport.HeaderDeadline,
		transport.HeaderTTL, transport.HeaderDelay, transport.HeaderPriority, transport.HeaderIdempotencyKey,
		headerError, headerHeader}
	hiddenInError = append([]string{transport.HeaderContentType}, hiddenInReply...)
)

// pack puts h and body into the event m, whose Header has the envelope. Of h it moves what is hidden to the front of
// the body, or all of it where there is no room beside the envelope.
func pack(m *transport.Message, h transport.Header, body []byte, hidden []string) {
	m.Body = body
	all := m.Header.Size()+h.Size()+len(headerHeader)+8 > transport.DefaultMaxHeaderBytes
	var moved url.Values
	for k, vs := range h {
		switch {
		case len(vs) == 0:
		case all || slices.Contains(hidden, k):
			if moved == nil {
				moved = url.Values{}
			}
			moved[k] = vs
		default:
			m.Header[k] = vs
		}
	}
	if moved == nil {
		return
	}
	front := moved.Encode()
	m.Header[headerHeader] = []string{strconv.Itoa(len(front))}
	m.Body = append(append(make([]byte, 0, len(front)+len(body)), front...), body...)
}

// unpack is the reverse of pack. Neither m nor what it shares is written. The error is CodeInvalidArgument.
func unpack(m *transport.Message, envelope []string) (h transport.Header, body []byte, err error) {
	for k, vs := range m.Header {
		if !slices.Contains(envelope, k) {
			if h == nil {
				h = make(transport.Header, len(m.Header))
			}
			h[k] = vs
		}
	}
	length := m.Header.Get(headerHeader)
	if length == "" {
		return h, m.Body, nil
	}
	n, err := strconv.ParseUint(length, 10, 31)
	if err != nil || n > uint64(len(m.Body)) {
		return nil, nil, transport.Errorf(transport.CodeInvalidArgument, "the header %q is not a length within the body", headerHeader)
	}
	moved, err := url.ParseQuery(string(m.Body[:n]))
	if err != nil {
		return nil, nil, transport.Wrap(err, transport.CodeInvalidArgument, "the headers in the body are malformed")
	}
	if h == nil {
		h = make(transport.Header, len(moved))
	}
	for k, vs := range moved {
		h[k] = vs
	}
	if err := h.Check(); err != nil {
		return nil, nil, err
	}
	return h, m.Body[n:], nil
}

// errorBody is the body of an error's reply.
type errorBody struct {
	Reason     string        `json:"reason,omitempty"`
	Message    string        `json:"message,omitempty"`
	Details    []errorDetail `json:"details,omitempty"`
	RetryAfter string        `json:"retryAfter,omitempty"` // seconds, in the form of protobuf's JSON: "1.500000000s"
}

type errorDetail struct {
	Type  string `json:"type"`
	Value []byte `json:"value"`
}

// packError puts e into the event m, whose Header has the envelope.
func packError(m *transport.Message, e *transport.Error) error {
	b := errorBody{Reason: e.Reason, Message: e.Message}
	for _, d := range e.Details {
		b.Details = append(b.Details, errorDetail(d))
	}
	if e.RetryAfter > 0 {
		b.RetryAfter = fmt.Sprintf("%d.%09ds", e.RetryAfter/time.Second, e.RetryAfter%time.Second)
	}
	body, err := json.Marshal(b)
	if err != nil {
		return err
	}
	m.Header[headerError] = []string{e.Code.String()}
	m.Header[transport.HeaderContentType] = []string{"application/json"}
	pack(m, e.Header, body, hiddenInError)
	return nil
}

// unpackReply returns what the event m says: a reply or an error, which is Remote. What cannot be decoded is
// CodeInternal, or an error that has its Code only.
func unpackReply(m *transport.Message) (*transport.Message, error) {
	code, failed := m.Header[headerError]
	envelope := envelopeOfReply
	if failed {
		envelope = hiddenInError // the content-type of the body is not the error's
	}
	h, body, err := unpack(m, envelope)
	if !failed {
		if err != nil {
			return nil, &transport.Error{Code: transport.CodeInternal, Message: "the reply is malformed", Remote: true, Cause: err}
		}
		return &transport.Message{ID: m.ID, Header: h, Body: body}, nil
	}
	e := &transport.Error{Code: transport.CodeUnknown, Remote: true}
	if len(code) > 0 {
		e.Code.UnmarshalText([]byte(code[0]))
	}
	var b errorBody
	if err != nil || json.Unmarshal(body, &b) != nil {
		return nil, e
	}
	e.Reason, e.Message, e.Header = b.Reason, b.Message, h
	for _, d := range b.Details {
		e.Details = append(e.Details, transport.Detail(d))
	}
	if d, err := time.ParseDuration(b.RetryAfter); err == nil && d > 0 {
		e.RetryAfter = d
	}
	return nil, e
}
