package compose

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func TestPackAndUnpackAnyHeader(t *testing.T) {
	body := []byte{0, 0xff, '&', '='}
	for name, h := range map[string]transport.Header{
		"none":      nil,
		"plain":     {"content-type": {"text/plain"}, "k": {"a", "b"}},
		"raw":       {"k-bin": {"\xff\x00"}},
		"envelope":  {"correlation-id": {"mine"}, "call-header": {"4"}, "call-error": {"x"}, "reply-to": {"a.b"}},
		"carrier":   {"ttl": {"1"}, "delay": {"5000"}, "priority": {"9"}, "deadline": {"never"}, "idempotency-key": {"k"}},
		"hidden":    {"delay": {"a=b&c=%", "", "\u00e4"}, "k": {"v"}},
		"too large": {"k": {strings.Repeat("v", transport.DefaultMaxHeaderBytes-1)}},
	} {
		for what, sides := range map[string][2][]string{
			"request": {hiddenInRequest, envelopeOfRequest},
			"reply":   {hiddenInReply, envelopeOfReply},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				m := &transport.Message{Header: transport.Header{transport.HeaderCorrelationID: {"17"}}}
				if what == "request" {
					m.Header[transport.HeaderReplyTo] = []string{"_reply.x"}
				}
				pack(m, h, body, sides[0])
				require.NoError(t, m.Check(0))
				require.Equal(t, "17", m.Header.Get(transport.HeaderCorrelationID))
				for _, k := range sides[0] {
					if k != headerHeader && k != transport.HeaderReplyTo && k != transport.HeaderCorrelationID {
						require.NotContains(t, m.Header, k)
					}
				}
				got, gotBody, err := unpack(m, sides[1])
				require.NoError(t, err)
				require.Equal(t, len(h), len(got))
				for k, vs := range h {
					require.Equal(t, vs, got[k])
				}
				require.Equal(t, body, gotBody)
			})
		}
	}
}

func TestUnpackMalformed(t *testing.T) {
	for name, m := range map[string]*transport.Message{
		"no number":     {Header: transport.Header{headerHeader: {"x"}}},
		"negative":      {Header: transport.Header{headerHeader: {"-1"}}},
		"past the body": {Header: transport.Header{headerHeader: {"2"}}, Body: []byte("a")},
		"huge":          {Header: transport.Header{headerHeader: {"99999999999999999999"}}, Body: []byte("a")},
		"no query":      {Header: transport.Header{headerHeader: {"3"}}, Body: []byte("%zz")},
		"illegal key":   {Header: transport.Header{headerHeader: {"3"}}, Body: []byte("A=b")},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := unpack(m, envelopeOfRequest)
			require.ErrorIs(t, err, transport.CodeInvalidArgument)
			_, err = unpackReply(m)
			require.ErrorIs(t, err, transport.CodeInternal)
			m.Header[headerError] = []string{"not_found"}
			_, err = unpackReply(m)
			require.Equal(t, &transport.Error{Code: transport.CodeNotFound, Remote: true}, err, "the Code is what is left")
		})
	}
}

func TestErrorsRoundTrip(t *testing.T) {
	for name, e := range map[string]*transport.Error{
		"bare": {Code: transport.CodeNotFound},
		"full": {Code: transport.CodeUnavailable, Reason: "BUSY", Message: "not \"now\" <\u00e4>", RetryAfter: 90*time.Second + 1,
			Details: []transport.Detail{{Type: "type.googleapis.com/x", Value: []byte{0, 0xff}}, {Type: "y"}},
			Header:  transport.Header{"content-type": {"mine"}, "ttl": {"x"}, "k-bin": {"\xff"}}},
		"details": {Code: transport.CodeAborted, Details: []transport.Detail{{Type: "t", Value: []byte("v")}}},
	} {
		t.Run(name, func(t *testing.T) {
			m := &transport.Message{Header: transport.Header{transport.HeaderCorrelationID: {"1"}}}
			require.NoError(t, packError(m, e))
			require.NoError(t, m.Check(0))
			reply, err := unpackReply(m)
			require.Nil(t, reply)
			want := *e
			want.Remote = true
			require.Equal(t, &want, err)
		})
	}
}

func TestErrorsKeepWhatIsPrivate(t *testing.T) {
	m := &transport.Message{Header: transport.Header{}}
	err := transport.Wrap(errors.New("secret"), transport.CodeInternal, "public")
	require.NoError(t, packError(m, transport.Public(err)))
	require.NotContains(t, string(m.Body), "secret")
}

func FuzzUnpackReply(f *testing.F) {
	f.Add("", "", []byte("body"))
	f.Add("", "7", []byte("a=b&c=dbody"))
	f.Add("not_found", "", []byte(`{"reason":"R","message":"m","details":[{"type":"t","value":"AA=="}],"retryAfter":"1.5s"}`))
	f.Add("ok", "3", []byte(`a=b{"retryAfter":"-1s"}`))
	f.Add("what", "-1", []byte(`%`))
	f.Fuzz(func(t *testing.T, code, length string, body []byte) {
		m := &transport.Message{Header: transport.Header{transport.HeaderCorrelationID: {"1"}}, Body: body}
		if code != "" {
			m.Header[headerError] = []string{code}
		}
		if length != "" {
			m.Header[headerHeader] = []string{length}
		}
		before := bytes.Clone(body)
		reply, err := unpackReply(m)
		require.Equal(t, before, body)
		require.Equal(t, reply == nil, err != nil)
		if err != nil {
			var e *transport.Error
			require.ErrorAs(t, err, &e)
			require.True(t, e.Remote)
			require.NotZero(t, e.Code)
			require.GreaterOrEqual(t, e.RetryAfter, time.Duration(0))
		} else if length != "" {
			require.NoError(t, reply.Header.Check())
		}
	})
}
