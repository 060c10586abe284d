package transport_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func TestCheckTopic(t *testing.T) {
	for _, topic := range []string{"a", "orders", "orders.placed", "shop.v1.Orders.Place", "a b", "ä.ö", "a/b", "*a.b#",
		"rpcx.a", "a.rpc", "a._b", "_reply.abc", strings.Repeat("x", 200)} {
		require.NoError(t, transport.CheckTopic(topic), "%q", topic)
	}
	for _, topic := range []string{"", ".", "a.", ".a", "a..b", "*", "a.*", "a.#.b", "rpc", "rpc.x", "amq.topic", "_x",
		"_reply", "_reply.a.b", "a\nb", "a\x00", "a\x7f", "a\u0085b", "a\xffb", strings.Repeat("x", 201)} {
		err := transport.CheckTopic(topic)
		require.ErrorIs(t, err, transport.CodeInvalidArgument, "%q", topic)
	}
}
