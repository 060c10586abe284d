package amqpx_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/transport"
)

// A confirmless connection loses the next confirm of the broker when it is armed.
type confirmless struct {
	net.Conn
	in    *bufio.Reader
	armed *atomic.Bool
	lost  chan<- struct{}
	rest  []byte // of a frame
}

func (c *confirmless) Read(b []byte) (int, error) {
	for len(c.rest) == 0 {
		head, err := c.in.Peek(7) // type, channel, size (AMQP 0-9-1, 4.2.3)
		if err != nil {
			return 0, err
		}
		frame := make([]byte, 8+binary.BigEndian.Uint32(head[3:]))
		if _, err := io.ReadFull(c.in, frame); err != nil {
			return 0, err
		}
		ack := frame[0] == 1 && binary.BigEndian.Uint32(frame[7:]) == 60<<16|80 // a method: basic.ack
		if ack && c.armed.CompareAndSwap(true, false) {
			c.lost <- struct{}{}
			continue
		}
		c.rest = frame
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// TestLostConfirm has a confirm lost on a connection that goes on: the message is sent again long before its
// ConfirmTimeout.
func TestLostConfirm(t *testing.T) {
	t.Parallel()
	p := newTap(t, nil)
	var armed atomic.Bool
	lost := make(chan struct{}, 1)
	c := p.client(amqptest.URL(t), amqpx.Options{ConfirmTimeout: 20 * time.Second,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return &confirmless{Conn: conn, in: bufio.NewReader(conn), armed: &armed, lost: lost}, err
		}})
	armed.Store(true)
	first := make(chan error, 1)
	start := time.Now()
	go func() { first <- c.Publish(t.Context(), &transport.Message{ID: "first", Topic: "a"}) }()
	<-lost
	require.NoError(t, c.Publish(t.Context(), &transport.Message{ID: "second", Topic: "a"}))
	require.NoError(t, <-first)
	require.Less(t, time.Since(start), 15*time.Second)
	stats := c.Stats()
	require.EqualValues(t, 1, stats.Republished)
	require.EqualValues(t, 1, stats.Generation, "on the same connection")
	var ids []string
	for _, d := range p.take(3) {
		ids = append(ids, d.MessageId)
	}
	require.Equal(t, []string{"first", "second", "first"}, ids)
}
