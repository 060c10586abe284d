package ws_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/ws"
)

// observed is a bus that tells of its subscriptions.
type observed struct {
	*mem.Bus
	made chan transport.Subscription
}

func (o *observed) Subscribe(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	s, err := o.Bus.Subscribe(ctx, topic, opts...)
	o.made <- s
	return s, err
}

// TestFeedLarge publishes 16 large events at once to a client that does not read. The server encodes one after another as
// they can be sent, not all of them before it sends the first.
func TestFeedLarge(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared %t", shared), func(t *testing.T) {
			bus := mem.New(&mem.Options{HistoryBytes: 64 << 20})
			t.Cleanup(func() { require.NoError(t, bus.Close()) })
			o := &observed{bus, make(chan transport.Subscription, 2)}
			s := serve(t, o, nil)
			const request = `{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":"large"},"id":1}`
			if shared {
				other := intrude(t, s)
				io.WriteString(other, texts(request))
				_, _, err := other.next()
				require.NoError(t, err)
				go io.Copy(io.Discard, other)
				<-o.made
			}
			conn := intrude(t, s)
			io.WriteString(conn, texts(request))
			_, _, err := conn.next()
			require.NoError(t, err)
			sub := <-o.made
			start := sub.Cursor()
			const n, size = 16, 1<<20 - 1<<10
			for _, err := range bus.PublishAll(t.Context(), program("large", 1, n, size)...) {
				require.NoError(t, err)
			}
			require.Eventually(t, func() bool { return sub.Cursor() != start }, 10*time.Second, time.Millisecond,
				"the first is settled once it is sent, although the last cannot be sent yet")
			settled := sub.Cursor()
			for i := range n {
				_, payload, err := conn.next()
				require.NoError(t, err)
				_, last, err := follow(payload, i)
				require.NoError(t, err)
				require.Equal(t, i+1, last, "it has a frame of its own")
				if i == n-1 {
					require.NotContains(t, string(payload[:200]), fmt.Sprintf("%q", settled))
				}
			}
		})
	}
}

// TestFeedTooLarge publishes an event that cannot be sent among others. Those before it come, and then the end, with the
// cursor after it.
func TestFeedTooLarge(t *testing.T) {
	for _, others := range []int{0, 1} {
		t.Run(fmt.Sprintf("%d others", others), func(t *testing.T) {
			bus := backend(t)
			o := &observed{bus, make(chan transport.Subscription, 2)}
			s := serve(t, o, &ws.Options{MaxBytes: 1000})
			var conns []*intruder
			for range others + 1 {
				conn := intrude(t, s)
				io.WriteString(conn, texts(`{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":"t"},"id":1}`))
				_, _, err := conn.next()
				require.NoError(t, err)
				<-o.made
				conns = append(conns, conn)
			}
			own, err := bus.Subscribe(t.Context(), "t")
			require.NoError(t, err)
			ms := program("t", 1, 4, 100)
			ms[2].Body = []byte(`"` + strings.Repeat("x", 2000) + `"`)
			for _, err := range bus.PublishAll(t.Context(), ms...) {
				require.NoError(t, err)
			}
			cursor := ""
			for range 3 {
				d, err := own.Next(t.Context())
				require.NoError(t, err)
				cursor = d.Cursor()
			}
			require.NoError(t, own.Close())
			for _, conn := range conns {
				all := ""
				for !strings.Contains(all, `"method":"rpc.end"`) {
					_, payload, err := conn.next()
					require.NoError(t, err)
					all += string(payload)
				}
				events, last, err := follow([]byte(all), 0)
				require.NoError(t, err)
				require.Equal(t, 2, events)
				require.Equal(t, 2, last)
				require.Contains(t, all, `"code":"resource_exhausted"`)
				require.Contains(t, all, cursor)
			}
		})
	}
}
