package transport_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var (
	_ transport.Caller    = transport.Handler(nil)
	_ transport.Publisher = transport.Handler(nil)
	_ transport.Caller    = transport.Mux(nil)
	_ transport.Publisher = transport.Mux(nil)
	_ transport.Handler   = transport.Handler(nil).Call
)

func TestHandler(t *testing.T) {
	boom := errors.New("boom")
	m, reply := &transport.Message{}, &transport.Message{Body: []byte("x")}
	for _, c := range []struct {
		name  string
		h     transport.Handler
		reply *transport.Message
		err   error
	}{
		{"reply", func(context.Context, *transport.Message) (*transport.Message, error) { return reply, nil }, reply, nil},
		{"nil is an empty reply", done, &transport.Message{}, nil},
		{"error", func(context.Context, *transport.Message) (*transport.Message, error) { return nil, boom }, nil, boom},
		{"no reply beside an error", func(context.Context, *transport.Message) (*transport.Message, error) { return reply, boom }, nil, boom},
		{"NoReply", transport.NoReply(func(context.Context, *transport.Message) error { return nil }), &transport.Message{}, nil},
		{"NoReply's error", transport.NoReply(func(context.Context, *transport.Message) error { return boom }), nil, boom},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := c.h.Call(t.Context(), m)
			require.Equal(t, c.reply, r)
			require.Equal(t, c.err, err)
			require.Equal(t, c.err, c.h.Publish(t.Context(), m))

			mux := transport.Mux{"a": c.h, "nil": nil}
			r, err = mux.Call(t.Context(), &transport.Message{Topic: "a"})
			require.Equal(t, c.reply, r)
			require.Equal(t, c.err, err)
			require.Equal(t, c.err, mux.Publish(t.Context(), &transport.Message{Topic: "a"}))
		})
	}
	r, err := transport.NoReply(func(context.Context, *transport.Message) error { return nil })(t.Context(), m)
	require.NoError(t, err)
	require.Nil(t, r)
}

func TestMuxLacksTheTopic(t *testing.T) {
	for _, x := range []transport.Mux{nil, {}, {"a": done, "b": nil}} {
		r, err := x.Call(t.Context(), &transport.Message{Topic: "b"})
		require.Nil(t, r)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorContains(t, err, `"b"`)
		require.ErrorIs(t, x.Publish(t.Context(), &transport.Message{Topic: "b"}), transport.CodeNotFound)
	}
}

// tag is a middleware that leaves its name in log.
func tag(log *[]string, name string) transport.Middleware {
	return func(h transport.Handler) transport.Handler {
		return func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			*log = append(*log, name)
			return h(ctx, m)
		}
	}
}

func TestChain(t *testing.T) {
	var log []string
	h := transport.Chain(tag(&log, "outer"), transport.Chain(tag(&log, "a"), tag(&log, "b")), tag(&log, "inner"))(
		func(context.Context, *transport.Message) (*transport.Message, error) {
			log = append(log, "handler")
			return nil, nil
		})
	_, err := h(t.Context(), &transport.Message{})
	require.NoError(t, err)
	require.Equal(t, []string{"outer", "a", "b", "inner", "handler"}, log)
	r, err := transport.Chain()(transport.Handler(done).Call)(t.Context(), &transport.Message{})
	require.NoError(t, err)
	require.NotNil(t, r)
}

func TestMuxRefusesNoMessage(t *testing.T) {
	_, err := transport.Mux{}.Call(t.Context(), nil)
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	require.ErrorIs(t, transport.Mux{}.Publish(t.Context(), nil), transport.CodeInvalidArgument)
}
