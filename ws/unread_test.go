package ws_test

import (
	"bytes"
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

// TestClientUnread: although callers write by themselves, a server that does not read holds none of them for longer than
// its context.
func TestClientUnread(t *testing.T) {
	over := make(chan struct{})
	s := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		<-over
	}))
	defer close(over)
	c := dial(t, s.URL, nil)
	for _, size := range []int{100, 10 << 10, 1 << 19} {
		body := bytes.Repeat([]byte("x"), size)
		began := time.Now()
		for range 30 {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
			_, err := c.Call(ctx, &transport.Message{Topic: "x", Body: body})
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			ctx, cancel = context.WithTimeout(context.Background(), 5*time.Millisecond)
			err = c.Publish(ctx, &transport.Message{Topic: "x", Body: body})
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		require.Less(t, time.Since(began), 5*time.Second)
	}
}
