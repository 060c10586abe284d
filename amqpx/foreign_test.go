package amqpx_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// meet connects one of our clients and one that knows AMQP only, in a namespace of the test's own.
func meet(t *testing.T) (ours *amqpx.Client, theirs *amqp.Channel, ns string) {
	url := amqptest.URL(t)
	ns = "meet" + transport.NewID()
	theirs = plainChannel(t, url)
	ours, err := amqpx.Dial(t.Context(), url, &amqpx.Options{Namespace: ns})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, ours.Close())
		remove(t, url, append(ours.Declared(), ns, ns+".call.sum"))
	})
	return ours, theirs, ns
}

func nextOf(t *testing.T, s transport.Subscription) *transport.Delivery {
	t.Helper()
	d, err := s.Next(within(t, 20*time.Second))
	require.NoError(t, err)
	return d
}

// TestForeignPublisher is a program that publishes to our exchange with headers of every type AMQP has.
func TestForeignPublisher(t *testing.T) {
	ours, theirs, ns := meet(t)
	group, err := ours.Subscribe(t.Context(), "orders", transport.Group("billing"))
	require.NoError(t, err)
	all, err := ours.Subscribe(t.Context(), "orders")
	require.NoError(t, err)

	user, err := amqp.ParseURI(amqptest.URL(t))
	require.NoError(t, err)
	body := []byte("\x00\xff not UTF-8 \x80")
	noon := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	require.NoError(t, theirs.PublishWithContext(t.Context(), ns, "orders", false, false, amqp.Publishing{
		ContentType: "application/vnd.order", ContentEncoding: "identity", Priority: 5, CorrelationId: "c-1",
		ReplyTo: "somewhere", Timestamp: noon, Type: "order.placed", UserId: user.Username, AppId: "shop", Body: body,
		Headers: amqp.Table{
			"string": "text", "empty": "", "bool": true, "int8": int8(-8), "byte": byte(8), "int16": int16(-16),
			"int32": int32(32), "int64": int64(math.MinInt64), "float32": float32(1.5), "float64": 0.1,
			"decimal": amqp.Decimal{Scale: 2, Value: 12345},
			"time":    noon, "void": nil, "bytes": []byte("plain"), "raw": []byte{0xff, 0xfe}, "raw-bin": []byte{0xff, 0xfe},
			"table": amqp.Table{"a": int32(1), "b": amqp.Table{"c": "d"}}, "array": []any{"one", int32(2), []any{"three"}},
			"latin": "caf\xe9", "control": "a\r\nb\x00c", "Upper-Case": "kept", "no key of ours": "x", "ключ": "y",
			strings.Repeat("k", 100): "z", "x-death": "forged", "x-intermodal-attempt": "9", "x-intermodal-topic": int32(3),
		}}))
	for _, s := range []transport.Subscription{group, all} {
		d := nextOf(t, s)
		require.Equal(t, body, d.Body)
		require.Equal(t, "orders", d.Topic)
		require.NoError(t, transport.CheckID(d.ID))
		require.NoError(t, d.Message.Check(0))
		for key, want := range map[string][]string{
			"string": {"text"}, "bool": {"true"}, "int8": {"-8"}, "byte": {"8"}, "int16": {"-16"}, "int32": {"32"},
			"int64": {"-9223372036854775808"}, "float32": {"1.5"}, "float64": {"0.1"}, "decimal": {"123.45"},
			"time": {"2026-11-20T12:00:00Z"}, "void": nil, "bytes": {"plain"}, "raw": {"//4="}, "raw-bin": {"\xff\xfe"},
			"table": {`{"a":1,"b":{"c":"d"}}`}, "array": {"one", "2", "three"}, "latin": {"café"}, "upper-case": {"kept"},
			"no key of ours": nil, "ключ": nil, strings.Repeat("k", 100): nil,
			"x-death": nil, "x-intermodal-attempt": nil, "x-intermodal-topic": nil,
			"content-type": {"application/vnd.order"}, "content-encoding": {"identity"}, "priority": {"5"},
			"correlation-id": {"c-1"}, "reply-to": {"somewhere"}, "type": {"order.placed"}, "app-id": {"shop"},
		} {
			require.Equal(t, want, d.Header[key], "%q", key)
		}
		require.NoError(t, d.Ack())
	}

	// What says nothing at all about itself, and what says too much.
	for _, m := range []amqp.Publishing{
		{},
		{MessageId: strings.Repeat("i", 255), Body: []byte("long")},
		{MessageId: "two\nlines", Body: []byte("control")},
		{MessageId: "their-id", Body: []byte("good"), Expiration: "60000"},
	} {
		require.NoError(t, theirs.PublishWithContext(t.Context(), ns, "orders", false, false, m))
		d := nextOf(t, group)
		require.Equal(t, string(m.Body), string(d.Body))
		require.NoError(t, transport.CheckID(d.ID))
		if m.MessageId == "their-id" {
			require.Equal(t, "their-id", d.ID)
		}
		require.Equal(t, 1, d.Attempt)
		first := d.ID
		require.NoError(t, d.Nack(&transport.Error{Code: transport.CodeUnavailable, RetryAfter: 10 * time.Millisecond}))
		d = nextOf(t, group)
		require.Equal(t, string(m.Body), string(d.Body))
		require.Equal(t, 2, d.Attempt)
		require.Equal(t, first, d.ID, "the ID stays for a retry")
		require.NoError(t, d.Ack())
	}
}

// TestForeignConsumer is a program that binds a queue of its own to our exchange.
func TestForeignConsumer(t *testing.T) {
	ours, theirs, ns := meet(t)
	q, err := theirs.QueueDeclare("", false, true, true, false, nil)
	require.NoError(t, err)
	require.NoError(t, theirs.QueueBind(q.Name, "orders", ns, false, nil))
	deliveries, err := theirs.Consume(q.Name, "", true, true, false, false, nil)
	require.NoError(t, err)

	body := []byte("\x00\xff{")
	require.NoError(t, ours.Publish(t.Context(),
		&transport.Message{ID: "id-1", Topic: "orders", Body: body, Header: transport.Header{
			"content-type": {"application/json"}, "priority": {"7"}, "correlation-id": {"c"}, "ttl": {"60000"},
			"traceparent": {"00-ab"}, "several": {"a", "b"}, "one": {"grüße"}, "key-bin": {"\xff\x00"}}}))
	d := <-deliveries
	require.Equal(t, body, d.Body)
	require.Equal(t, "id-1", d.MessageId)
	require.Equal(t, "application/json", d.ContentType)
	require.EqualValues(t, 7, d.Priority)
	require.EqualValues(t, amqp.Persistent, d.DeliveryMode)
	require.Equal(t, "c", d.CorrelationId)
	require.Equal(t, "60000", d.Expiration)
	require.WithinDuration(t, time.Now(), d.Timestamp, time.Minute)
	require.Equal(t, "orders", d.RoutingKey)
	require.Equal(t, "00-ab", d.Headers["traceparent"])
	require.Equal(t, []any{"a", "b"}, d.Headers["several"])
	require.Equal(t, "grüße", d.Headers["one"])
	require.Equal(t, []byte("\xff\x00"), d.Headers["key-bin"])

	require.NoError(t, ours.Publish(t.Context(), &transport.Message{Topic: "orders"}))
	d = <-deliveries
	require.Empty(t, d.Body)
	require.NotEmpty(t, d.MessageId, "every message has an ID")

	require.NoError(t, ours.Publish(t.Context(),
		&transport.Message{Topic: "orders", Header: transport.Header{"delay": {"50"}}}))
	d = <-deliveries
	require.Equal(t, "orders", d.RoutingKey, "a delayed one arrives in the same way")
}

// TestForeignCaller is an RPC client as the RabbitMQ tutorials write it, with a reply queue and with direct reply-to.
func TestForeignCaller(t *testing.T) {
	ours, theirs, ns := meet(t)
	s, err := ours.Respond(t.Context(), "sum")
	require.NoError(t, err)
	serveCtx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- transport.Serve(serveCtx, s, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			if len(m.Body) == 0 {
				return nil, transport.Errorf(transport.CodeInvalidArgument, "nothing to add")
			}
			return &transport.Message{Header: transport.Header{"content-type": {"text/plain"}, "unit": {"m"}},
				Body: append([]byte("sum of "), m.Body...)}, nil
		}, transport.OnError(func(*transport.Message, error) {}))
	}()
	defer func() { stop(); require.NoError(t, <-served) }()

	q, err := theirs.QueueDeclare("", false, true, true, false, nil)
	require.NoError(t, err)
	for _, replyTo := range []string{q.Name, "amq.rabbitmq.reply-to"} {
		replies, err := theirs.Consume(replyTo, "", true, false, false, false, nil)
		require.NoError(t, err)
		call := func(id, body string) amqp.Delivery {
			require.NoError(t, theirs.PublishWithContext(t.Context(), "", ns+".call.sum", false, false,
				amqp.Publishing{CorrelationId: id, ReplyTo: replyTo, Body: []byte(body)}))
			select {
			case d := <-replies:
				require.Equal(t, id, d.CorrelationId)
				return d
			case <-time.After(20 * time.Second):
				require.Fail(t, "no reply")
			}
			return amqp.Delivery{}
		}
		d := call("1", "1 2 3")
		require.Equal(t, "sum of 1 2 3", string(d.Body))
		require.Equal(t, "text/plain", d.ContentType)
		require.Equal(t, "m", d.Headers["unit"])
		d = call("2", "")
		require.Equal(t, "application/problem+json", d.ContentType)
		p := wire.ParseProblem(d.Body, 0)
		require.Equal(t, transport.CodeInvalidArgument, p.Code)
		require.Equal(t, "nothing to add", p.Message)
	}
	// One that wants no reply, and one with neither a correlation-id nor a queue that exists, disturb nobody.
	for _, m := range []amqp.Publishing{{Body: []byte("x")}, {Body: []byte("x"), ReplyTo: "no.such.queue"}} {
		require.NoError(t, theirs.PublishWithContext(t.Context(), "", ns+".call.sum", false, false, m))
	}
	r, err := ours.Call(within(t, 20*time.Second), &transport.Message{Topic: "sum", Body: []byte("4")})
	require.NoError(t, err)
	require.Equal(t, "sum of 4", string(r.Body))
}

// TestForeignResponder is an RPC server as the tutorials write it. It reads from the queue of the topic.
func TestForeignResponder(t *testing.T) {
	ours, theirs, ns := meet(t)
	_, err := theirs.QueueDeclare(ns+".call.sum", false, true, false, false, nil) // declared in its own way
	require.NoError(t, err)
	calls, err := theirs.Consume(ns+".call.sum", "server", false, false, false, false, nil)
	require.NoError(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for d := range calls {
			reply := amqp.Publishing{CorrelationId: d.CorrelationId, Body: append([]byte("their "), d.Body...)}
			if string(d.Body) != "silent" {
				theirs.PublishWithContext(context.Background(), "", d.ReplyTo, false, false, reply)
				// twice: the second is for nobody
				theirs.PublishWithContext(context.Background(), "", d.ReplyTo, false, false, reply)
			}
			d.Ack(false)
		}
	}()
	for i := range 20 {
		r, err := ours.Call(within(t, 20*time.Second), &transport.Message{Topic: "sum", Body: fmt.Append(nil, i)})
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint("their ", i), string(r.Body))
	}
	_, err = ours.Call(within(t, 300*time.Millisecond), &transport.Message{Topic: "sum", Body: []byte("silent")})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, theirs.Cancel("server", false))
	<-served
}

// tool runs a program of Debian's amqp-tools.
func tool(t *testing.T, name string, args ...string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("INTERMODAL_CI") == "1" {
			require.NoError(t, err)
		}
		t.Skipf("%s is not installed: apt-get install amqp-tools", name)
	}
	cmd := exec.CommandContext(within(t, 20*time.Second), path,
		append([]string{"--url=" + strings.TrimSuffix(amqptest.URL(t), "/")}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), "%s: %s", name, &stderr)
	return stdout.String()
}

// TestTools talks with amqp-publish, amqp-consume and amqp-get, which are written in C on librabbitmq.
func TestTools(t *testing.T) {
	ours, theirs, ns := meet(t)
	s, err := ours.Subscribe(t.Context(), "orders", transport.Group("billing"))
	require.NoError(t, err)
	tool(t, "amqp-publish", "-e", ns, "-r", "orders", "-p", "-C", "text/plain", "-H", "X-Shop: 7", "-b", "by a tool")
	d := nextOf(t, s)
	require.Equal(t, "by a tool", string(d.Body))
	require.Equal(t, "text/plain", d.Header.Get("content-type"))
	require.Equal(t, "7", strings.TrimSpace(d.Header.Get("x-shop")))
	require.NoError(t, d.Ack())

	q, err := theirs.QueueDeclare("", false, true, false, false, nil) // goes with its last consumer
	require.NoError(t, err)
	require.NoError(t, theirs.QueueBind(q.Name, "orders", ns, false, nil))
	for _, text := range []string{"one", "two", "three"} {
		require.NoError(t, ours.Publish(t.Context(), &transport.Message{Topic: "orders", Body: []byte(text)}))
	}
	require.Equal(t, "one", tool(t, "amqp-get", "-q", q.Name))
	require.Equal(t, "twothree", tool(t, "amqp-consume", "-q", q.Name, "-c", "2", "cat"))
}
