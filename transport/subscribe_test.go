package transport_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

const allFeatures = transport.AtLeastOnce | transport.Ordered | transport.Replay | transport.Groups | transport.DeadLetters | transport.Delays

func TestResolve(t *testing.T) {
	full := transport.SubscribeOptions{Group: "g", From: "c", DeadLetter: "dead", MaxAttempts: 3, Buffer: 5, Require: transport.Ordered}
	for _, c := range []struct {
		name string
		opts []transport.SubscribeOption
		want transport.SubscribeOptions // Buffer 0: the default
	}{
		{"nothing", nil, transport.SubscribeOptions{}},
		{"each", []transport.SubscribeOption{transport.Group("g"), transport.From("c"), transport.DeadLetter("dead"),
			transport.MaxAttempts(3), transport.Buffer(5), transport.Require(transport.Ordered)}, full},
		{"overflow", []transport.SubscribeOption{transport.Overflow(transport.DropOldest)}, transport.SubscribeOptions{Overflow: transport.DropOldest}},
		{"the struct is an option", []transport.SubscribeOption{full}, full},
		{"the last one counts", []transport.SubscribeOption{transport.Group("x"), full, transport.Buffer(7), transport.From(transport.Oldest)},
			transport.SubscribeOptions{Group: "g", From: "oldest", DeadLetter: "dead", MaxAttempts: 3, Buffer: 7, Require: transport.Ordered}},
		{"zero fields of the struct change nothing", []transport.SubscribeOption{full, transport.SubscribeOptions{}}, full},
		{"Require adds up", []transport.SubscribeOption{transport.Require(transport.Ordered), transport.Require(transport.Delays),
			transport.SubscribeOptions{Require: transport.AtLeastOnce}}, transport.SubscribeOptions{Require: transport.Ordered | transport.Delays | transport.AtLeastOnce}},
		{"the empty cursor is no demand", []transport.SubscribeOption{transport.From("")}, transport.SubscribeOptions{}},
		{"the empty dead letter is no demand", []transport.SubscribeOption{transport.DeadLetter("")}, transport.SubscribeOptions{}},
		{"longest group", []transport.SubscribeOption{transport.Group(strings.Repeat("g", 100))}, transport.SubscribeOptions{Group: strings.Repeat("g", 100)}},
		{"any text is a group", []transport.SubscribeOption{transport.Group("ä b/*#..")}, transport.SubscribeOptions{Group: "ä b/*#.."}},
		{"longest cursor", []transport.SubscribeOption{transport.From(strings.Repeat("c", 128))}, transport.SubscribeOptions{From: strings.Repeat("c", 128)}},
		{"largest buffer", []transport.SubscribeOption{transport.Buffer(transport.MaxBuffer)}, transport.SubscribeOptions{Buffer: transport.MaxBuffer}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := transport.Resolve(allFeatures, c.opts...)
			require.NoError(t, err)
			if c.want.Buffer == 0 {
				c.want.Buffer = transport.DefaultBuffer
			}
			require.Equal(t, c.want, got)
			again, err := transport.Resolve(allFeatures, got)
			require.NoError(t, err, "what was resolved can be passed on")
			require.Equal(t, got, again)
		})
	}
}

func TestResolveRefuses(t *testing.T) {
	group := transport.Group("g")
	for _, c := range []struct {
		name string
		opts []transport.SubscribeOption
		code transport.Code
	}{
		{"nil option", []transport.SubscribeOption{group, nil}, transport.CodeInvalidArgument},
		{"empty group", []transport.SubscribeOption{transport.Group("")}, transport.CodeInvalidArgument},
		{"long group", []transport.SubscribeOption{transport.Group(strings.Repeat("g", 101))}, transport.CodeInvalidArgument},
		{"group with a control character", []transport.SubscribeOption{transport.Group("a\nb")}, transport.CodeInvalidArgument},
		{"group not UTF-8", []transport.SubscribeOption{transport.SubscribeOptions{Group: "\xff"}}, transport.CodeInvalidArgument},
		{"dead letter without a group", []transport.SubscribeOption{transport.DeadLetter("dead")}, transport.CodeInvalidArgument},
		{"dead letter is no topic", []transport.SubscribeOption{group, transport.DeadLetter("a..b")}, transport.CodeInvalidArgument},
		{"dead letter is reserved", []transport.SubscribeOption{group, transport.DeadLetter("amq.x")}, transport.CodeInvalidArgument},
		{"MaxAttempts(0)", []transport.SubscribeOption{transport.MaxAttempts(0)}, transport.CodeInvalidArgument},
		{"MaxAttempts(-1)", []transport.SubscribeOption{transport.MaxAttempts(-1)}, transport.CodeInvalidArgument},
		{"negative MaxAttempts", []transport.SubscribeOption{transport.SubscribeOptions{MaxAttempts: -7}}, transport.CodeInvalidArgument},
		{"Buffer(0)", []transport.SubscribeOption{transport.Buffer(0)}, transport.CodeInvalidArgument},
		{"negative Buffer", []transport.SubscribeOption{transport.SubscribeOptions{Buffer: -7}}, transport.CodeInvalidArgument},
		{"Buffer too large", []transport.SubscribeOption{transport.Buffer(transport.MaxBuffer + 1)}, transport.CodeInvalidArgument},
		{"no such policy", []transport.SubscribeOption{transport.Overflow(transport.Disconnect + 1)}, transport.CodeInvalidArgument},
		{"overflow of a group", []transport.SubscribeOption{group, transport.Overflow(transport.Block)}, transport.CodeInvalidArgument},
		{"dropping at least once", []transport.SubscribeOption{transport.Overflow(transport.DropOldest), transport.Require(transport.AtLeastOnce)}, transport.CodeInvalidArgument},
		{"long cursor", []transport.SubscribeOption{transport.From(strings.Repeat("c", 129))}, transport.CodeOutOfRange},
		{"cursor with a control character", []transport.SubscribeOption{transport.From("a\r\nb")}, transport.CodeOutOfRange},
		{"cursor not UTF-8", []transport.SubscribeOption{transport.From("\xff")}, transport.CodeOutOfRange},
		{"unknown feature", []transport.SubscribeOption{transport.Require(1 << 6)}, transport.CodeUnimplemented},
		{"last bit", []transport.SubscribeOption{transport.Require(1 << 15)}, transport.CodeUnimplemented},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := transport.Resolve(^transport.Feature(0), c.opts...)
			require.Equal(t, c.code, transport.CodeOf(err), "%v", err)
			require.NotEmpty(t, transport.Public(err).Message)
			require.Equal(t, c.code == transport.CodeUnimplemented, errors.Is(err, errors.ErrUnsupported))
		})
	}
}

func TestResolveDemands(t *testing.T) {
	for _, c := range []struct {
		name string
		opts []transport.SubscribeOption
		need transport.Feature
	}{
		{"AtLeastOnce", []transport.SubscribeOption{transport.Require(transport.AtLeastOnce)}, transport.AtLeastOnce},
		{"Ordered", []transport.SubscribeOption{transport.Require(transport.Ordered)}, transport.Ordered},
		{"Replay", []transport.SubscribeOption{transport.Require(transport.Replay)}, transport.Replay},
		{"Groups", []transport.SubscribeOption{transport.Require(transport.Groups)}, transport.Groups},
		{"DeadLetters", []transport.SubscribeOption{transport.Require(transport.DeadLetters)}, transport.DeadLetters},
		{"Delays", []transport.SubscribeOption{transport.Require(transport.Delays)}, transport.Delays},
		{"From", []transport.SubscribeOption{transport.From(transport.Oldest)}, transport.Replay},
		{"Group", []transport.SubscribeOption{transport.Group("g")}, transport.Groups},
		{"DeadLetter", []transport.SubscribeOption{transport.Group("g"), transport.DeadLetter("dead")}, transport.Groups | transport.DeadLetters},
		{"all", []transport.SubscribeOption{transport.Require(allFeatures)}, allFeatures},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := transport.Resolve(c.need, c.opts...)
			require.NoError(t, err, "what is offered is given")
			for bit := transport.AtLeastOnce; bit <= transport.Delays; bit <<= 1 {
				_, err := transport.Resolve(allFeatures&^bit, c.opts...)
				if c.need&bit == 0 {
					require.NoError(t, err, "%v is not needed", bit)
					continue
				}
				require.ErrorIs(t, err, errors.ErrUnsupported, "%v", bit)
				require.ErrorIs(t, err, transport.CodeUnimplemented)
				require.ErrorContains(t, err, bit.String(), "the error names what is lacking")
			}
			_, err = transport.Resolve(0, c.opts...)
			require.ErrorIs(t, err, errors.ErrUnsupported)
		})
	}
}

func TestResolveRespond(t *testing.T) {
	o, err := transport.ResolveRespond()
	require.NoError(t, err)
	require.Equal(t, transport.SubscribeOptions{Buffer: transport.DefaultBuffer}, o)
	o, err = transport.ResolveRespond(transport.Buffer(3))
	require.NoError(t, err)
	require.Equal(t, transport.SubscribeOptions{Buffer: 3}, o)
	for _, opt := range []transport.SubscribeOption{transport.Group("g"), transport.From(transport.Oldest), transport.DeadLetter("dead"),
		transport.MaxAttempts(1), transport.Overflow(transport.Block), transport.Require(transport.Ordered), transport.Buffer(0), nil} {
		_, err := transport.ResolveRespond(opt)
		require.Error(t, err)
		require.False(t, transport.Retryable(err))
	}
	_, err = transport.ResolveRespond(transport.Group("g"))
	require.EqualError(t, err, "unimplemented: calls take no option but Buffer")
}

func TestNamesOfFeaturesAndPolicies(t *testing.T) {
	require.Equal(t, "", transport.Feature(0).String())
	require.Equal(t, "Ordered|Groups", (transport.Ordered | transport.Groups).String())
	require.Equal(t, "AtLeastOnce|Ordered|Replay|Groups|DeadLetters|Delays", allFeatures.String())
	require.Equal(t, []string{"default", "block", "drop-oldest", "disconnect", "unknown"}, []string{transport.Policy(0).String(),
		transport.Block.String(), transport.DropOldest.String(), transport.Disconnect.String(), transport.Policy(200).String()})
}
