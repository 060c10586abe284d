package transport_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

// verbs has each verb as a function, in the form that lets a test go over all.
var verbs = []struct {
	op transport.Op
	do func(ctx context.Context, t transport.Transport, topic string) error
}{
	{transport.OpPublish, func(ctx context.Context, t transport.Transport, topic string) error {
		return t.Publish(ctx, &transport.Message{Topic: topic})
	}},
	{transport.OpSubscribe, func(ctx context.Context, t transport.Transport, topic string) error {
		s, err := t.Subscribe(ctx, topic)
		if (s == nil) != (err != nil) {
			return errors.New("neither a subscription nor an error, or both")
		}
		return err
	}},
	{transport.OpCall, func(ctx context.Context, t transport.Transport, topic string) error {
		r, err := t.Call(ctx, &transport.Message{Topic: topic})
		if (r == nil) != (err != nil) {
			return errors.New("neither a reply nor an error, or both")
		}
		return err
	}},
	{transport.OpRespond, func(ctx context.Context, t transport.Transport, topic string) error {
		s, err := t.Respond(ctx, topic)
		if (s == nil) != (err != nil) {
			return errors.New("neither a subscription nor an error, or both")
		}
		return err
	}},
	{transport.OpOpen, func(ctx context.Context, t transport.Transport, topic string) error {
		s, err := t.Open(ctx, topic, nil)
		if (s == nil) != (err != nil) {
			return errors.New("neither a stream nor an error, or both")
		}
		return err
	}},
	{transport.OpAccept, func(ctx context.Context, t transport.Transport, topic string) error {
		l, err := t.Accept(ctx, topic)
		if (l == nil) != (err != nil) {
			return errors.New("neither a listener nor an error, or both")
		}
		return err
	}},
}

func TestJoin(t *testing.T) {
	refused := transport.Errorf(transport.CodeNotFound, "no")
	for i, v := range verbs {
		t.Run(v.op.String(), func(t *testing.T) {
			f := &fake{err: map[string]error{v.op.String() + " refused": refused}}
			alone := []transport.Parts{{Publisher: f}, {Subscriber: f}, {Caller: f}, {Responder: f}, {Opener: f}, {Acceptor: f}}
			for j, parts := range alone {
				err := v.do(t.Context(), transport.Join(parts), "a")
				if i == j {
					require.NoError(t, err)
					require.Equal(t, []string{v.op.String() + " a"}, f.log())
					require.Equal(t, refused, v.do(t.Context(), transport.Join(parts), "refused"))
					f.log()
				} else {
					require.ErrorIs(t, err, errors.ErrUnsupported)
					require.ErrorIs(t, err, transport.CodeUnimplemented)
					require.ErrorContains(t, err, v.op.String())
					require.Empty(t, f.log())
				}
			}
		})
	}
}

func TestJoinForwardsOptions(t *testing.T) {
	f := &fake{}
	j := transport.Join(transport.Parts{Subscriber: f, Responder: f})
	_, err := j.Subscribe(t.Context(), "a", transport.Group("g"), transport.Buffer(3))
	require.NoError(t, err)
	require.Equal(t, transport.SubscribeOptions{Group: "g", Buffer: 3}, f.options)
	_, err = j.Respond(t.Context(), "a", transport.Buffer(4))
	require.NoError(t, err)
	require.Equal(t, transport.SubscribeOptions{Buffer: 4}, f.options)
}

func TestPublishAll(t *testing.T) {
	full := transport.Errorf(transport.CodeResourceExhausted, "full")
	f := &fake{err: map[string]error{"publish b": full}}
	ms := []*transport.Message{{Topic: "a"}, {Topic: "b"}, {Topic: "c"}}
	for _, c := range []struct {
		name string
		p    transport.Publisher
		want []string
	}{
		{"one by one", f, []string{"publish a", "publish b", "publish c"}},
		{"in one go", batcher{f}, []string{"publish all a,b,c"}},
		{"joined, one by one", transport.Join(transport.Parts{Publisher: f}), []string{"publish a", "publish b", "publish c"}},
		{"joined, in one go", transport.Join(transport.Parts{Publisher: batcher{f}}), []string{"publish all a,b,c"}},
		{"a handler", transport.Handler(func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			return nil, f.Publish(ctx, m)
		}), []string{"publish a", "publish b", "publish c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, []error{nil, full, nil}, transport.PublishAll(t.Context(), c.p, ms...), "one result for each")
			require.Equal(t, c.want, f.log())
			require.Empty(t, transport.PublishAll(t.Context(), c.p))
			f.log()
		})
	}
	errs := transport.PublishAll(t.Context(), transport.Join(transport.Parts{}), ms...)
	require.Len(t, errs, 3)
	for _, err := range errs {
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
}

// batchSub has a fast path for many deliveries.
type batchSub struct{ *sub }

func (s batchSub) NextAll(ctx context.Context, dst []*transport.Delivery) (n int, err error) {
	for n < len(dst) && (n == 0 || len(s.items) > 0) {
		if dst[n], err = s.Next(ctx); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func TestNextAll(t *testing.T) {
	for _, fast := range []bool{false, true} {
		plain := newSub(numbers(5)...)
		plain.end(transport.CodeAborted)
		var s transport.Subscription = plain
		if fast {
			s = batchSub{plain}
		}
		_, err := transport.NextAll(t.Context(), s, nil)
		require.ErrorIs(t, err, transport.CodeInvalidArgument)
		dst := make([]*transport.Delivery, 3)
		var got []string
		for len(got) < 5 {
			n, err := transport.NextAll(t.Context(), s, dst)
			require.NoError(t, err)
			require.Positive(t, n)
			for _, d := range dst[:n] {
				got = append(got, string(d.Body))
			}
			if fast {
				require.Equal(t, min(3, 5-(len(got)-n)), n)
			}
		}
		require.Equal(t, numbers(5), got)
		n, err := transport.NextAll(t.Context(), s, dst)
		require.Zero(t, n)
		require.Equal(t, transport.CodeAborted, err)
	}
}

func TestJoinHealth(t *testing.T) {
	healthy := func(tr transport.Transport) error {
		return tr.(interface{ Health(context.Context) error }).Health(t.Context())
	}
	sick := &fake{health: transport.CodeUnavailable}
	require.NoError(t, healthy(transport.Join(transport.Parts{})))
	require.NoError(t, healthy(transport.Join(transport.Parts{Publisher: transport.Mux{}, Caller: &fake{}})))
	for _, p := range []transport.Parts{{Publisher: sick}, {Subscriber: sick}, {Caller: sick}, {Responder: sick}, {Opener: sick}, {Acceptor: sick}} {
		require.ErrorIs(t, healthy(transport.Join(p)), transport.CodeUnavailable)
		require.ErrorIs(t, healthy(transport.Guard(transport.Join(p), nil)), transport.CodeUnavailable)
	}
	require.NoError(t, healthy(transport.Guard(struct{ transport.Transport }{sick}, nil)), "not every transport has Health")
}
