package transport_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

// gobCodec is a second codec, with a content-type that has a parameter-free name and a structured suffix.
type gobCodec struct{}

func (gobCodec) ContentType() string { return "application/gob" }

func (gobCodec) Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(v)
	return b.Bytes(), err
}

func (gobCodec) Unmarshal(data []byte, v any) error {
	if len(data) > 0 && data[0] == '!' {
		return transport.Errorf(transport.CodeDataLoss, "the body is torn")
	}
	return gob.NewDecoder(bytes.NewReader(data)).Decode(v)
}

type base struct {
	Count int `json:"count"`
}

type order struct {
	base
	Item  string             `json:"item"`
	At    time.Time          `json:"at,omitzero"`
	Extra map[string]int     `json:"extra,omitempty"`
	Inner struct{ Deep int } `json:"inner,omitzero"`
	Bad   func()             `json:"-"`
}

type receipt struct{ Text string }

var (
	place = transport.Operation[order, receipt]{Topic: "orders.place"}
	both  = transport.Operation[receipt, receipt]{Topic: "texts.echo", Codecs: []transport.Codec{gobCodec{}, transport.JSON}}
)

func encoded(t *testing.T, c transport.Codec, v any) []byte {
	b, err := c.Marshal(v)
	require.NoError(t, err)
	return b
}

func TestOperationCall(t *testing.T) {
	h := place.Handler(func(ctx context.Context, o order) (receipt, error) {
		m := transport.MessageFrom(ctx)
		if m == nil || m.Topic != "orders.place" || m.ID == "" {
			t.Errorf("MessageFrom: %v", m)
		}
		return receipt{fmt.Sprintf("%d %s", o.Count, o.Item)}, nil
	})
	out, err := place.Call(t.Context(), h, order{base: base{2}, Item: "tea"})
	require.NoError(t, err)
	require.Equal(t, receipt{"2 tea"}, out)
}

func TestOperationMessage(t *testing.T) {
	m, err := place.Message(order{Item: "tea"})
	require.NoError(t, err)
	require.NoError(t, transport.CheckID(m.ID))
	require.Equal(t, "orders.place", m.Topic)
	require.Equal(t, transport.Header{"content-type": {"application/json"}}, m.Header)
	require.JSONEq(t, `{"count":0,"item":"tea"}`, string(m.Body))
	again, err := place.Message(order{})
	require.NoError(t, err)
	require.NotEqual(t, m.ID, again.ID)

	m, err = both.Message(receipt{"x"})
	require.NoError(t, err)
	require.Equal(t, "application/gob", m.Header.Get("content-type"), "the first codec encodes")
}

func TestOperationCannotEncode(t *testing.T) {
	bad := transport.Operation[func(), func()]{Topic: "a"}
	c := transport.Handler(func(context.Context, *transport.Message) (*transport.Message, error) {
		t.Error("nothing is sent")
		return nil, nil
	})
	_, err := bad.Call(t.Context(), c, func() {})
	require.ErrorIs(t, err, transport.CodeInternal)
	require.ErrorContains(t, err, "func()")
	require.NotContains(t, transport.Public(err).Message, "func()")

	reply := transport.Operation[int, func()]{Topic: "a"}
	_, err = reply.Handler(func(context.Context, int) (func(), error) { return nil, nil })(t.Context(), &transport.Message{})
	require.ErrorIs(t, err, transport.CodeInternal)
	require.NotContains(t, transport.Public(err).Message, "func()")
}

func TestOperationPicksTheCodec(t *testing.T) {
	h := both.Handler(func(_ context.Context, r receipt) (receipt, error) { return r, nil })
	inJSON, inGob := encoded(t, transport.JSON, receipt{"x"}), encoded(t, gobCodec{}, receipt{"x"})
	for _, c := range []struct {
		contentType string
		body        []byte
		reply       string // content-type
		err         string // public text
	}{
		{"application/gob", inGob, "application/gob", ""},
		{"", inGob, "application/gob", ""},
		{"application/json", inJSON, "application/json", ""},
		{"application/json; charset=utf-8", inJSON, "application/json", ""},
		{"Application/JSON", inJSON, "application/json", ""},
		{" application/json ;q=1", inJSON, "application/json", ""},
		{"application/vnd.shop.v1+json", inJSON, "application/json", ""},
		{"application/vnd.shop.v1+json; charset=utf-8", inJSON, "application/json", ""},
		{"application/x+y+gob", inGob, "application/gob", ""},
		{"text/plain", inJSON, "", `the content-type "text/plain" is not accepted here`},
		{"application/json5", inJSON, "", `the content-type "application/json5" is not accepted here`},
		{"application/vnd+xml; a=b", inJSON, "", `the content-type "application/vnd+xml" is not accepted here`},
		{"application/x+", inJSON, "", `the content-type "application/x+" is not accepted here`},
		{"application/json;;", inJSON, "", `the content-type "application/json;;" is malformed`},
		{"application/", inJSON, "", `the content-type "application/" is malformed`},
		{"a/b/c", inJSON, "", `the content-type "a/b/c" is malformed`},
		{";", inJSON, "", `the content-type ";" is malformed`},
	} {
		t.Run(c.contentType, func(t *testing.T) {
			m := &transport.Message{Body: c.body}
			if c.contentType != "" {
				m.Header = transport.Header{"content-type": {c.contentType}}
			}
			r, err := h(t.Context(), m)
			if c.err != "" {
				require.Nil(t, r)
				require.ErrorIs(t, err, transport.CodeInvalidArgument)
				require.Equal(t, c.err, transport.Public(err).Message)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.reply, r.Header.Get("content-type"), "it answers in kind")
			got, err := both.Reply(r)
			require.NoError(t, err)
			require.Equal(t, receipt{"x"}, got)
		})
	}
}

func TestOperationUndecodable(t *testing.T) {
	h := place.Handler(func(context.Context, order) (receipt, error) {
		t.Error("the function does not see it")
		return receipt{}, nil
	})
	for body, want := range map[string]string{
		``:                      "the body is not valid JSON, at byte 0",
		`{"item":`:              "the body is not valid JSON, at byte 8",
		`{"item":"a"} x`:        "the body is not valid JSON, at byte 14",
		`{"item":3}`:            `the member "item" cannot be a JSON number, at byte 9`,
		`{"count":"many"}`:      `the member "count" cannot be a JSON string, at byte 15`,
		`{"count":1.5}`:         `the member "count" cannot be a JSON number 1.5, at byte 12`,
		`{"extra":{"a":true}}`:  `the member "extra" cannot be a JSON bool, at byte 18`,
		`{"inner":{"Deep":[]}}`: `the member "Deep" cannot be a JSON array, at byte 18`,
		`[]`:                    "the body cannot be a JSON array",
		`"text"`:                "the body cannot be a JSON string",
		`{"at":"yesterday"}`:    "the body is not valid application/json",
	} {
		m := &transport.Message{Header: transport.Header{"content-type": {"application/json"}}, Body: []byte(body)}
		r, err := h(t.Context(), m)
		require.Nil(t, r)
		require.ErrorIs(t, err, transport.CodeInvalidArgument, "%s", body)
		require.Equal(t, want, transport.Public(err).Message, "%s", body)
	}
	require.ErrorContains(t, h.Publish(t.Context(), &transport.Message{Body: []byte("x")}), "not valid JSON", "the first codec without a content-type")

	// A codec's own *Error is shown, the text of any other is not.
	torn := both.Handler(func(context.Context, receipt) (receipt, error) { return receipt{}, nil })
	_, err := torn(t.Context(), &transport.Message{Body: []byte("!")})
	require.ErrorIs(t, err, transport.CodeDataLoss)
	_, err = torn(t.Context(), &transport.Message{Body: []byte("?")})
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	require.Equal(t, "the body is not valid application/gob", transport.Public(err).Message)
}

func TestOperationEmptyBody(t *testing.T) {
	out, err := place.Reply(&transport.Message{})
	require.NoError(t, err, "an empty reply is the zero value")
	require.Zero(t, out)

	empty := transport.Handler(done)
	out, err = place.Call(t.Context(), empty, order{})
	require.NoError(t, err)
	require.Zero(t, out)

	r, err := both.Handler(func(_ context.Context, r receipt) (receipt, error) { return r, nil })(t.Context(), &transport.Message{})
	require.NoError(t, err)
	require.Equal(t, "application/gob", r.Header.Get("content-type"))

	_, err = place.Reply(&transport.Message{Header: transport.Header{"content-type": {"application/json"}}})
	require.ErrorIs(t, err, transport.CodeInternal, "with a content-type it claims to be a document")
}

func TestOperationReplyUndecodable(t *testing.T) {
	for _, m := range []*transport.Message{
		{Body: []byte("{")},
		{Header: transport.Header{"content-type": {"text/html"}}, Body: []byte("<html>")},
		{Header: transport.Header{"content-type": {";"}}, Body: []byte("{}")},
	} {
		_, err := place.Reply(m)
		require.Equal(t, transport.CodeInternal, transport.CodeOf(err), "it is not the caller's argument that is wrong")
		require.ErrorContains(t, err, `"orders.place"`)
	}
}

func TestOperationErrors(t *testing.T) {
	own := transport.Errorf(transport.CodeNotFound, "no such order")
	foreign := errors.New("secret")
	remote := &transport.Error{Code: transport.CodeUnauthenticated, Reason: "EXPIRED", Message: "your token", RetryAfter: time.Second, Remote: true}
	for _, c := range []struct {
		name string
		err  error
		want error // nil: the same
	}{
		{"own", own, nil},
		{"code", transport.CodeNotFound, nil},
		{"foreign", foreign, nil},
		{"canceled", context.Canceled, nil},
		{"a peer's", remote, &transport.Error{Code: transport.CodeInternal, RetryAfter: time.Second, Cause: remote}},
		{"a peer's under fmt.Errorf", fmt.Errorf("x: %w", remote), &transport.Error{Code: transport.CodeInternal, RetryAfter: time.Second,
			Cause: fmt.Errorf("x: %w", remote)}},
		{"a peer's, wrapped on purpose", transport.Wrap(remote, transport.CodeFailedPrecondition, "log in"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.want
			if want == nil {
				want = c.err
			}
			r, err := place.Handler(func(context.Context, order) (receipt, error) { return receipt{"x"}, c.err })(t.Context(), &transport.Message{})
			require.Nil(t, r)
			require.Equal(t, want, err)

			e := transport.Event[order]{Topic: "a"}
			require.Equal(t, want, e.Handler(func(context.Context, order) error { return c.err }).Publish(t.Context(), &transport.Message{}))

			d := transport.Duplex[order, receipt]{Topic: "a"}
			l := newLine(t.Context(), "a", nil)
			defer l.cancel()
			require.Equal(t, want, d.Handler(func(context.Context, *transport.DuplexIncoming[order, receipt]) error { return c.err })(t.Context(), acceptorSide{l}))
		})
	}
	// What a Caller answers is not touched on the way to the caller.
	_, err := place.Call(t.Context(), transport.Handler(func(context.Context, *transport.Message) (*transport.Message, error) { return nil, remote }), order{})
	require.Equal(t, error(remote), err)
}

func TestReplyHeader(t *testing.T) {
	h := place.Handler(func(ctx context.Context, o order) (receipt, error) {
		ctx, cancel := context.WithCancel(ctx) // also in a context made from it
		defer cancel()
		transport.ReplyHeader(ctx).Set("Location", "/orders/1")
		transport.ReplyHeader(ctx).Add("etag", "a")
		if o.Item == "html" {
			transport.ReplyHeader(ctx).Set("content-type", "text/html")
		}
		return receipt{}, nil
	})
	r, err := h(t.Context(), &transport.Message{})
	require.NoError(t, err)
	require.Equal(t, transport.Header{"location": {"/orders/1"}, "etag": {"a"}, "content-type": {"application/json"}}, r.Header)
	m, err := place.Message(order{Item: "html"})
	require.NoError(t, err)
	r, err = h(t.Context(), m)
	require.NoError(t, err)
	require.Equal(t, []string{"text/html"}, r.Header["content-type"], "the function may say otherwise")

	outside := transport.ReplyHeader(t.Context())
	require.NotNil(t, outside)
	outside.Set("goes", "nowhere")
	require.Empty(t, transport.ReplyHeader(t.Context()))
	require.Nil(t, transport.MessageFrom(t.Context()))
}

func TestTypedContext(t *testing.T) {
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	event := transport.Event[string]{Topic: "a"}
	h := event.Handler(func(ctx context.Context, _ string) error {
		require.Equal(t, "value", ctx.Value(key{}))
		require.Equal(t, "m", transport.MessageFrom(ctx).ID)
		transport.ReplyHeader(ctx).Set("goes", "nowhere")
		// A typed function inside sees its own message.
		inner := place.Handler(func(ctx context.Context, _ order) (receipt, error) {
			require.Equal(t, "value", ctx.Value(key{}))
			require.Equal(t, "inner", transport.MessageFrom(ctx).ID)
			return receipt{}, nil
		})
		r, err := inner(ctx, &transport.Message{ID: "inner"})
		require.NoError(t, err)
		require.Empty(t, r.Header.Get("goes"))
		cancel()
		return ctx.Err()
	})
	require.ErrorIs(t, h.Publish(ctx, &transport.Message{ID: "m"}), context.Canceled)
}

func TestContractsOfNil(t *testing.T) {
	require.Nil(t, place.Handler(nil))
	require.Nil(t, transport.Event[int]{}.Handler(nil))
	require.Nil(t, transport.Duplex[int, int]{}.Handler(nil))
}

func TestEvent(t *testing.T) {
	e := transport.Event[order]{Topic: "orders.placed", Codecs: []transport.Codec{transport.JSON, gobCodec{}}}
	var sent *transport.Message
	p := transport.NoReply(func(_ context.Context, m *transport.Message) error { sent = m; return nil })
	require.NoError(t, e.Publish(t.Context(), p, order{Item: "tea"}))
	require.Equal(t, "orders.placed", sent.Topic)
	require.NoError(t, transport.CheckID(sent.ID))
	require.Equal(t, transport.Header{"content-type": {"application/json"}}, sent.Header)

	v, err := e.Decode(sent)
	require.NoError(t, err)
	require.Equal(t, "tea", v.Item)
	var seen order
	r, err := e.Handler(func(_ context.Context, o order) error { seen = o; return nil })(t.Context(), sent)
	require.NoError(t, err)
	require.Nil(t, r, "an event has no reply")
	require.Equal(t, v, seen)

	m, err := e.Message(order{Item: "tea"})
	require.NoError(t, err)
	m.Header.Set("traceparent", "x")
	require.NotEqual(t, sent.ID, m.ID)

	_, err = e.Decode(&transport.Message{Body: []byte("{")})
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	require.ErrorIs(t, e.Handler(func(context.Context, order) error { return nil }).Publish(t.Context(), &transport.Message{Body: []byte("{")}),
		transport.CodeInvalidArgument)

	failed := transport.NoReply(func(context.Context, *transport.Message) error { return transport.CodeUnavailable })
	require.Equal(t, transport.CodeUnavailable, e.Publish(t.Context(), failed, order{}))
	require.ErrorIs(t, transport.Event[func()]{}.Publish(t.Context(), p, nil), transport.CodeInternal)
}

// opener opens one stream, a line that the test has the other side of.
type opener struct{ *line }

func (o opener) Open(_ context.Context, topic string, h transport.Header) (transport.Stream, error) {
	o.topic, o.header = topic, h
	return openerSide(o), nil
}

func TestDuplex(t *testing.T) {
	d := transport.Duplex[order, receipt]{Topic: "orders.stream", Codecs: []transport.Codec{transport.JSON, gobCodec{}}}
	l := newLine(t.Context(), "", nil)
	s, err := d.Open(t.Context(), opener{l}, transport.Header{"a": {"1"}, "b": {"1"}}, transport.Header{"b": {"2"}})
	require.NoError(t, err)
	require.Equal(t, "orders.stream", l.topic)
	require.Equal(t, transport.Header{"content-type": {"application/json"}, "a": {"1"}, "b": {"2"}}, l.header)

	for _, item := range []string{"x", "y"} {
		require.NoError(t, s.Send(order{Item: item}))
	}
	require.NoError(t, s.CloseSend())
	h := d.Handler(func(_ context.Context, in *transport.DuplexIncoming[order, receipt]) error {
		for o, err := range in.All() {
			require.NoError(t, err)
			require.NoError(t, in.Send(receipt{o.Item + "!"}))
		}
		return nil
	})
	err = h(t.Context(), acceptorSide{l})
	require.NoError(t, err)
	require.NoError(t, acceptorSide{l}.End(err))
	var got []string
	for r, err := range s.All() {
		require.NoError(t, err)
		got = append(got, r.Text)
	}
	require.Equal(t, []string{"x!", "y!"}, got)
	_, err = s.Recv()
	require.Equal(t, io.EOF, err)
	require.Equal(t, io.EOF, s.Send(order{}))
}

func TestDuplexCodecs(t *testing.T) {
	d := transport.Duplex[receipt, receipt]{Topic: "a", Codecs: []transport.Codec{transport.JSON, gobCodec{}}}
	for contentType, want := range map[string]transport.Codec{"": transport.JSON, "application/gob; a=b": gobCodec{}, "application/x+gob": gobCodec{},
		"text/plain": nil, ";": nil} {
		l := newLine(t.Context(), "a", transport.Header{"content-type": {contentType}})
		err := d.Handler(func(_ context.Context, in *transport.DuplexIncoming[receipt, receipt]) error {
			return in.Send(receipt{"x"})
		})(t.Context(), acceptorSide{l})
		l.cancel()
		if want == nil {
			require.ErrorIs(t, err, transport.CodeInvalidArgument, contentType)
			continue
		}
		require.NoError(t, err)
		m, err := openerSide{l}.Recv()
		require.NoError(t, err)
		require.Equal(t, encoded(t, want, receipt{"x"}), m.Body, "items are encoded as the stream's content-type says")
	}
}

func TestDuplexUndecodable(t *testing.T) {
	d := transport.Duplex[order, receipt]{Topic: "a"}
	l := newLine(t.Context(), "a", nil)
	defer l.cancel()
	s, err := d.Open(t.Context(), opener{l})
	require.NoError(t, err)
	bad, good := &transport.Message{Body: []byte(`{"item":3,"Text":3}`)}, &transport.Message{Body: []byte(`{"item":"x","Text":"x"}`)}
	for _, m := range []*transport.Message{bad, good, bad, good} {
		l.toOpener.put(m)
		l.toAcceptor.put(m)
	}
	_, err = s.Recv()
	require.Equal(t, transport.CodeInternal, transport.CodeOf(err))
	r, err := s.Recv()
	require.NoError(t, err, "the stream goes on")
	require.Equal(t, "x", r.Text)
	pairs := 0
	for r, err := range s.All() {
		require.ErrorIs(t, err, transport.CodeInternal)
		require.Zero(t, r)
		pairs++
	}
	require.Equal(t, 1, pairs, "an error is the last pair")

	require.NoError(t, d.Handler(func(_ context.Context, in *transport.DuplexIncoming[order, receipt]) error {
		_, err := in.Recv()
		require.Equal(t, transport.CodeInvalidArgument, transport.CodeOf(err))
		require.NotContains(t, transport.Public(err).Message, "order", "no Go types")
		o, err := in.Recv()
		require.NoError(t, err)
		require.Equal(t, "x", o.Item)
		return nil
	})(t.Context(), acceptorSide{l}))

	bare := transport.Duplex[func(), func()]{Topic: "a"}
	fs, err := bare.Open(t.Context(), opener{l})
	require.NoError(t, err)
	require.ErrorIs(t, fs.Send(nil), transport.CodeInternal)
}

func TestDuplexAllLeaves(t *testing.T) {
	d := transport.Duplex[int, int]{Topic: "a"}
	l := newLine(t.Context(), "a", nil)
	defer l.cancel()
	s, err := d.Open(t.Context(), opener{l})
	require.NoError(t, err)
	for i := range 3 {
		l.toOpener.put(&transport.Message{Body: []byte(fmt.Sprint(i))})
	}
	for v, err := range s.All() {
		require.NoError(t, err)
		require.Equal(t, 0, v)
		break
	}
	require.NoError(t, s.Send(1), "leaving the loop does not close the stream")
	require.NoError(t, acceptorSide{l}.End(transport.Errorf(transport.CodeAborted, "enough")))
	var got []int
	var last error
	for v, err := range s.All() {
		if last = err; err == nil {
			got = append(got, v)
		}
	}
	require.Equal(t, []int{1, 2}, got)
	require.ErrorIs(t, last, transport.CodeAborted)
}

func TestDuplexOpenFails(t *testing.T) {
	d := transport.Duplex[int, int]{Topic: "a"}
	_, err := d.Open(t.Context(), transport.Join(transport.Parts{}))
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

func TestContractsBind(t *testing.T) {
	for _, c := range []struct {
		b     transport.Binding
		op    transport.Op
		topic string
	}{
		{place.Bind(func(context.Context, order) (receipt, error) { return receipt{}, nil }), transport.OpRespond, "orders.place"},
		{transport.Event[int]{Topic: "e"}.Bind(func(context.Context, int) error { return nil }), transport.OpSubscribe, "e"},
		{transport.Duplex[int, int]{Topic: "d"}.Bind(func(context.Context, *transport.DuplexIncoming[int, int]) error { return nil }), transport.OpAccept, "d"},
	} {
		require.Equal(t, c.op, c.b.Op())
		require.Equal(t, c.topic, c.b.Topic())
	}
}

func TestJSONIsEncodingJSON(t *testing.T) {
	require.Equal(t, "application/json", transport.JSON.ContentType())
	b, err := transport.JSON.Marshal(map[string]any{"a": 1})
	require.NoError(t, err)
	require.Equal(t, `{"a":1}`, string(b))
	var v struct{ A int }
	require.NoError(t, transport.JSON.Unmarshal([]byte(`{"a":1,"a":2,"unknown":[]}`), &v))
	require.Equal(t, 2, v.A)
	var invalid *json.InvalidUnmarshalError
	require.ErrorAs(t, transport.JSON.Unmarshal([]byte("1"), nil), &invalid)
}

// FuzzOperation feeds a contract's handler whatever a peer may send: what cannot be decoded is the peer's fault.
func FuzzOperation(f *testing.F) {
	f.Add("", []byte(`{"item":"tea","count":1}`))
	f.Add("application/json; charset=utf-8", []byte(`[]`))
	f.Add("application/x+json", []byte(`{"at":"x"}`))
	f.Add(";", []byte(nil))
	h := place.Handler(func(context.Context, order) (receipt, error) { return receipt{}, nil })
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		r, err := h(context.Background(), &transport.Message{Header: transport.Header{"content-type": {contentType}}, Body: body})
		if err == nil && r == nil || err != nil && transport.CodeOf(err) != transport.CodeInvalidArgument {
			t.Fatalf("%q: %q: %v, %v", contentType, body, r, err)
		}
	})
}
