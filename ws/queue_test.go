package ws

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

// objects returns what sendAll takes.
func objects(all ...string) (buf []byte, ends []int) {
	buf = append(buf, headroom[:]...)
	for _, o := range all {
		buf = append(append(buf, ','), o...)
		ends = append(ends, len(buf))
	}
	return buf, ends
}

// TestQueueSendAll sends batches at once, or after what is under way, and then together.
func TestQueueSendAll(t *testing.T) {
	r, w := net.Pipe()
	defer r.Close()
	defer w.Close()
	c := &conn{sock: newSocket(w), server: true}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	defer c.cancel(nil)
	c.batching.Store(true)
	expect := func(payload string) {
		want := string(appendHead(nil, len(payload), false, 0)) + payload
		got := make([]byte, len(want))
		_, err := io.ReadFull(r, got)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	send := func(all ...string) {
		buf, ends := objects(all...)
		require.NoError(t, c.sendAll(context.Background(), buf, ends))
		clear(buf) // it is the caller's again
	}
	large := `"` + strings.Repeat("x", maxHeld) + `"`
	for _, p := range []struct {
		all  []string
		want string
	}{
		{[]string{`{}`}, `{}`},
		{[]string{`{"a":1}`, `{"b":2}`}, `[{"a":1},{"b":2}]`},
		{[]string{large}, large},
		{[]string{`1`, strings.Repeat("2", 123), `3`}, `[1,` + strings.Repeat("2", 123) + `,3]`},
	} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			send(p.all...)
		}()
		expect(p.want)
		<-done
		require.False(t, c.writing)
	}

	done := make(chan struct{})
	go func() {
		defer close(done)
		send(`{"first":1}`)
	}()
	head := make([]byte, 1)
	_, err := io.ReadFull(r, head) // the write is under way
	require.NoError(t, err)
	send(`{"second":2}`, `{"third":3}`)
	require.NoError(t, c.post([]byte(`{"fourth":4}`), false))
	send(`{"fifth":5}`)
	rest := make([]byte, 1+len(`{"first":1}`))
	_, err = io.ReadFull(r, rest)
	require.NoError(t, err)
	require.Equal(t, "\x81\x0b"+`{"first":1}`, string(head)+string(rest))
	<-done
	expect(`[{"second":2},{"third":3}]`)
	expect(`{"fourth":4}`)
	expect(`{"fifth":5}`)
	c.wg.Wait()
	require.False(t, c.writing)
	require.Empty(t, c.out)
}

// settled is where deliveries come from that tell when they are settled.
type settled struct{ tokens []uint64 }

func (s *settled) Settle(token uint64, _ *transport.Message, err error) error {
	s.tokens = append(s.tokens, token)
	return err
}
func (s *settled) Cursor(uint64, *transport.Message) string { return "" }
func (s *settled) Context(_ uint64, parent context.Context) (context.Context, context.CancelFunc) {
	return parent, func() {}
}

// payload takes the payload of the next frame.
func (s *sink) payload() []byte {
	switch size := s.Next(2)[1]; size {
	case 126:
		return s.Next(int(binary.BigEndian.Uint16(s.Next(2))))
	case 127:
		return s.Next(int(binary.BigEndian.Uint64(s.Next(8))))
	default:
		return s.Next(int(size))
	}
}

// TestQueueBundle: events that are taken at once go out together, as far as a frame may have so many bytes.
func TestQueueBundle(t *testing.T) {
	for _, p := range []struct{ n, size, together int }{
		{1, 100, 1}, {2, 100, 2}, {16, 100, 16}, {16, 4000, 16}, {16, 5000, 12}, {16, 20 << 10, 3}, {3, 40 << 10, 1}, {3, 100 << 10, 1},
	} {
		for _, subscriptions := range []int32{1, 2} {
			var wire sink
			v := &session{conn: &conn{sock: newSocket(&wire), server: true, max: 1 << 20}}
			h := &share{}
			h.refs.Store(subscriptions)
			b := bundle{d: &feed{v: v, sub: 7, ctx: context.Background()}, shared: sharedReader{share: h}}
			var from settled
			var ms []*transport.Delivery
			for i := range p.n {
				m := &transport.Message{ID: strconv.Itoa(i), Body: []byte(`"` + strings.Repeat("x", p.size) + `"`)}
				ms = append(ms, transport.NewDelivery(&from, uint64(i), m, 1, 0))
			}
			require.NoError(t, b.send(ms))
			got := 0
			for wire.Len() > 0 {
				payload := wire.payload()
				together := min(p.together, p.n-got)
				if together == 1 {
					payload = []byte("[" + string(payload) + "]")
				} else {
					require.LessOrEqual(t, len(payload), maxBatch+1)
				}
				var events []struct {
					Params struct {
						Sub int
						ID  string
					}
				}
				require.NoError(t, json.Unmarshal(payload, &events))
				require.Len(t, events, together, "%+v", p)
				for _, e := range events {
					require.Equal(t, 7, e.Params.Sub)
					require.Equal(t, strconv.Itoa(got), e.Params.ID)
					require.EqualValues(t, got, from.tokens[got])
					got++
				}
			}
			require.Equal(t, p.n, got)
			require.Len(t, from.tokens, p.n)
		}
	}
}
