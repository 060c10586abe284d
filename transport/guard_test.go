package transport_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func TestGuardAsksBeforeEachVerb(t *testing.T) {
	type key struct{}
	ctx := context.WithValue(transport.WithPeer(t.Context(), transport.Peer{ID: "alice"}), key{}, "value")
	for _, v := range verbs {
		t.Run(v.op.String(), func(t *testing.T) {
			f := &fake{}
			var asked []transport.Access
			var answer error
			g := transport.Guard(f, func(ctx context.Context, a transport.Access) error {
				p, _ := transport.PeerFrom(ctx)
				require.Equal(t, "alice", p.ID)
				require.Equal(t, "value", ctx.Value(key{}))
				require.Empty(t, f.log(), "the question comes first")
				asked = append(asked, a)
				return answer
			})
			require.NoError(t, v.do(ctx, g, "a"))
			require.Equal(t, []string{v.op.String() + " a"}, f.log())
			require.Len(t, asked, 1)
			require.Equal(t, v.op, asked[0].Op)
			require.Equal(t, "a", asked[0].Topic)

			for _, c := range []struct {
				name   string
				answer error
				code   transport.Code
				same   bool
			}{
				{"a coded refusal stays", transport.Errorf(transport.CodeUnauthenticated, "who are you"), transport.CodeUnauthenticated, true},
				{"so does a code", transport.CodeNotFound, transport.CodeNotFound, true},
				{"also the unknown one", transport.CodeUnknown, transport.CodeUnknown, true},
				{"and a context's error", context.Canceled, transport.CodeCanceled, true},
				{"any other is PermissionDenied", errors.New("secret rule 7"), transport.CodePermissionDenied, false},
			} {
				answer = c.answer
				err := v.do(ctx, g, "a")
				require.Equal(t, c.code, transport.CodeOf(err), c.name)
				require.ErrorIs(t, err, c.answer, c.name)
				require.Equal(t, c.same, err == c.answer, c.name)
				require.NotContains(t, transport.Public(err).Message, "secret", "the cause is private")
				require.Empty(t, f.log(), "nothing reaches the transport")
			}
		})
	}
}

func TestGuardAccess(t *testing.T) {
	h := transport.Header{"k": {"v"}}
	reply := func(to string) transport.Header { return transport.Header{transport.HeaderReplyTo: {to}} }
	opts := transport.SubscribeOptions{Group: "g", DeadLetter: "dead", Buffer: 3}
	for _, c := range []struct {
		name string
		do   func(transport.Transport) error
		want []transport.Access
	}{
		{"publish", func(tr transport.Transport) error {
			return tr.Publish(t.Context(), &transport.Message{Topic: "a", Header: h})
		}, []transport.Access{{Op: transport.OpPublish, Topic: "a", Header: h}}},
		{"publish with a reply topic", func(tr transport.Transport) error {
			return tr.Publish(t.Context(), &transport.Message{Topic: "a", Header: reply("b")})
		}, []transport.Access{{Op: transport.OpPublish, Topic: "a", Header: reply("b")}, {Op: transport.OpPublish, Topic: "b", Header: reply("b")}}},
		{"publish with a requester's reply topic", func(tr transport.Transport) error {
			return tr.Publish(t.Context(), &transport.Message{Topic: "a", Header: reply("_reply.1")})
		}, []transport.Access{{Op: transport.OpPublish, Topic: "a", Header: reply("_reply.1")}}},
		{"a name that only begins like one", func(tr transport.Transport) error {
			return tr.Publish(t.Context(), &transport.Message{Topic: "a", Header: reply("_replyx")})
		}, []transport.Access{{Op: transport.OpPublish, Topic: "a", Header: reply("_replyx")}, {Op: transport.OpPublish, Topic: "_replyx", Header: reply("_replyx")}}},
		{"call with a reply topic", func(tr transport.Transport) error {
			_, err := tr.Call(t.Context(), &transport.Message{Topic: "a", Header: reply("b")})
			return err
		}, []transport.Access{{Op: transport.OpCall, Topic: "a", Header: reply("b")}, {Op: transport.OpPublish, Topic: "b", Header: reply("b")}}},
		{"subscribe", func(tr transport.Transport) error {
			_, err := tr.Subscribe(t.Context(), "a", transport.From("c"))
			return err
		}, []transport.Access{{Op: transport.OpSubscribe, Topic: "a", Options: transport.SubscribeOptions{From: "c", Buffer: 64}}}},
		{"subscribe with dead letters", func(tr transport.Transport) error {
			_, err := tr.Subscribe(t.Context(), "a", opts)
			return err
		}, []transport.Access{{Op: transport.OpSubscribe, Topic: "a", Options: opts}, {Op: transport.OpPublish, Topic: "dead"}}},
		{"respond", func(tr transport.Transport) error {
			_, err := tr.Respond(t.Context(), "a", transport.Buffer(3))
			return err
		}, []transport.Access{{Op: transport.OpRespond, Topic: "a", Options: transport.SubscribeOptions{Buffer: 3}}}},
		{"open", func(tr transport.Transport) error {
			_, err := tr.Open(t.Context(), "a", h)
			return err
		}, []transport.Access{{Op: transport.OpOpen, Topic: "a", Header: h}}},
		{"accept", func(tr transport.Transport) error {
			_, err := tr.Accept(t.Context(), "a")
			return err
		}, []transport.Access{{Op: transport.OpAccept, Topic: "a"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for refuse := range len(c.want) + 1 { // which question is answered with no; the last round: none
				f := &fake{}
				var asked []transport.Access
				g := transport.Guard(f, func(_ context.Context, a transport.Access) error {
					asked = append(asked, a)
					if len(asked) == refuse+1 {
						return errors.New("no")
					}
					return nil
				})
				err := c.do(g)
				if refuse < len(c.want) {
					require.ErrorIs(t, err, transport.CodePermissionDenied)
					require.Equal(t, c.want[:refuse+1], asked)
					require.Empty(t, f.log())
				} else {
					require.NoError(t, err)
					require.Equal(t, c.want, asked)
					require.Len(t, f.log(), 1)
				}
			}
		})
	}
}

func TestGuardForwardsOptions(t *testing.T) {
	f := &fake{}
	g := transport.Guard(f, func(context.Context, transport.Access) error { return nil })
	_, err := g.Subscribe(t.Context(), "a", transport.Group("g"), transport.MaxAttempts(3))
	require.NoError(t, err)
	require.Equal(t, transport.SubscribeOptions{Group: "g", MaxAttempts: 3, Buffer: 64}, f.options)

	g = transport.Guard(f, func(context.Context, transport.Access) error {
		t.Error("an illegal option is no question")
		return nil
	})
	_, err = g.Subscribe(t.Context(), "a", transport.Group(""))
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	_, err = g.Respond(t.Context(), "a", nil)
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
}

func TestGuardPublishAll(t *testing.T) {
	full := transport.Errorf(transport.CodeResourceExhausted, "full")
	for _, fast := range []bool{false, true} {
		f := &fake{err: map[string]error{"publish full": full}}
		var tr transport.Transport = f
		want := []string{"publish a", "publish full", "publish b"}
		if fast {
			tr, want = batcher{f}, []string{"publish all a,full,b"}
		}
		g := transport.Guard(tr, func(_ context.Context, a transport.Access) error {
			require.Equal(t, transport.OpPublish, a.Op)
			if a.Topic == "denied" {
				return transport.CodePermissionDenied
			}
			return nil
		})
		reply := transport.Header{transport.HeaderReplyTo: {"denied"}}
		errs := transport.PublishAll(t.Context(), g, &transport.Message{Topic: "a"}, &transport.Message{Topic: "denied"},
			&transport.Message{Topic: "full"}, &transport.Message{Topic: "c", Header: reply}, &transport.Message{Topic: "b"})
		require.Equal(t, []error{nil, transport.CodePermissionDenied, full, transport.CodePermissionDenied, nil}, errs)
		require.Equal(t, want, f.log(), "those that are allowed go in one go")
	}
}

func TestOpNames(t *testing.T) {
	require.Equal(t, "none", transport.Op(0).String())
	require.Equal(t, "publish", transport.OpPublish.String())
	require.Equal(t, "accept", transport.OpAccept.String())
	require.Equal(t, "unknown", transport.Op(7).String())
}

func TestPeer(t *testing.T) {
	_, ok := transport.PeerFrom(t.Context())
	require.False(t, ok)
	p, ok := transport.PeerFrom(transport.WithPeer(transport.WithPeer(t.Context(), transport.Peer{ID: "a"}), transport.Peer{ID: "b"}))
	require.True(t, ok)
	require.Equal(t, "b", p.ID, "the innermost")
}

func TestGuardNilMessage(t *testing.T) {
	f := &fake{}
	g := transport.Guard(f, func(context.Context, transport.Access) error {
		t.Error("there is nothing to ask about")
		return nil
	})
	require.ErrorIs(t, g.Publish(t.Context(), nil), transport.CodeInvalidArgument)
	_, err := g.Call(t.Context(), nil)
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	require.ErrorIs(t, transport.PublishAll(t.Context(), g, nil, nil)[1], transport.CodeInvalidArgument)
}
