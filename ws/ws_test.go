package ws_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestVerbs(t *testing.T) {
	s := serve(t, backend(t), nil)
	c := dial(t, s.URL, nil)
	ctx := within(t)
	sub, err := c.Subscribe(ctx, "chat")
	require.NoError(t, err)
	require.NoError(t, c.Publish(ctx, &transport.Message{Topic: "chat", Body: []byte(`{"a":1}`)}))
	d, err := sub.Next(ctx)
	require.NoError(t, err)
	require.Equal(t, `{"a":1}`, string(d.Body))
	require.NoError(t, d.Ack())
	require.NoError(t, sub.Close())

	r, err := c.Respond(ctx, "echo")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		done <- transport.Serve(ctx, r, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			return &transport.Message{Body: m.Body}, nil
		})
	}()
	reply, err := c.Call(ctx, &transport.Message{Topic: "echo", Body: []byte("hello")})
	require.NoError(t, err)
	require.Equal(t, "hello", string(reply.Body))
	require.NoError(t, r.Close())
	require.NoError(t, <-done)
}
