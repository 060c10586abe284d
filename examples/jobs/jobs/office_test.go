package jobs_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/examples/internal/broker"
	"github.com/intermodal-go/intermodal/examples/jobs/jobs"
	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/transport/transporttest/leak"
	"github.com/intermodal-go/intermodal/transport/transporttest/pipe"
)

func TestMain(m *testing.M) { leak.Main(m) }

var (
	queue  = jobs.Queue{Name: "office", MaxAttempts: 3}
	double = jobs.Func[int, int]{Name: "math.double"}
)

// office is a transport with a client of the queue.
type office struct {
	*testing.T
	transport.Transport
	client *jobs.Client
}

// inOffice runs f in memory, within a bubble of fake time. All that it starts is shut down after it.
func inOffice(t *testing.T, f func(t *testing.T, o *office)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		bus := mem.New(nil)
		t.Cleanup(func() { require.NoError(t, bus.Close()) })
		f(t, newOffice(t, bus))
	})
}

// everywhere runs f on each transport.
func everywhere(t *testing.T, f func(t *testing.T, o *office)) {
	t.Run("memory", func(t *testing.T) { inOffice(t, f) })
	t.Run("pipe", func(t *testing.T) { f(t, newOffice(t, connection(t))) })
	t.Run("RabbitMQ", func(t *testing.T) {
		client, _ := rabbitMQ(t)
		f(t, newOffice(t, client))
	})
}

func newOffice(t *testing.T, on transport.Transport) *office {
	client, err := jobs.Connect(t.Context(), on, queue)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Shutdown(context.Background())) })
	return &office{T: t, Transport: on, client: client}
}

// connection is a client of a bus behind a connection.
func connection(t *testing.T) transport.Transport {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	bus := mem.New(nil)
	server := pipe.NewServer(bus, nil)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	client := pipe.NewClient(conn, nil)
	t.Cleanup(func() {
		require.NoError(t, client.Close())
		require.NoError(t, server.Close())
		require.NoError(t, <-served)
		require.NoError(t, bus.Close())
	})
	return client
}

// backoff is that of the workers, and with it what they leave on a broker is known.
var backoff = transport.Backoff{Min: 20 * time.Millisecond, Jitter: -1}

// rabbitMQ is a client of a broker.
func rabbitMQ(t *testing.T) (client *amqpx.Client, namespace *broker.Namespace) {
	namespace = broker.New(amqptest.URL(t), "test")
	client, err := namespace.Dial(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, client.Shutdown(ctx))
		require.NoError(t, namespace.Remove(ctx, broker.Left{
			Groups:  [][2]string{{queue.Run(), "workers"}, {queue.Dead(), "redrive"}},
			Delays:  []time.Duration{delay},
			Retries: []time.Duration{backoff.Delay(1), backoff.Delay(2)},
		}))
	})
	return client, namespace
}

// delay is the one that jobs are given on a broker.
const delay = 100 * time.Millisecond

// work starts a worker that ends with the test.
func (o *office) work(t transport.Transport, opts *jobs.WorkOptions, register ...func(*jobs.Registry)) *transport.Service {
	o.Helper()
	if opts == nil {
		opts = &jobs.WorkOptions{}
	}
	if opts.Backoff == (transport.Backoff{}) {
		opts.Backoff = backoff
	}
	r := &jobs.Registry{}
	for _, f := range register {
		f(r)
	}
	w, err := jobs.Work(o.T.Context(), t, queue, r, opts)
	require.NoError(o.T, err)
	o.Cleanup(func() { require.NoError(o.T, w.Shutdown(context.Background())) })
	return w
}

// doubles registers double with f around it.
func doubles(f func(ctx context.Context, n int) error) func(*jobs.Registry) {
	return func(r *jobs.Registry) {
		jobs.Register(r, double, func(ctx context.Context, n int) (int, error) { return 2 * n, f(ctx, n) })
	}
}

func fine(context.Context, int) error { return nil }

func (o *office) submit(n int, opts ...jobs.Option) *jobs.Job[int] {
	o.Helper()
	j, err := double.Submit(o.T.Context(), o.client, n, opts...)
	require.NoError(o.T, err)
	return j
}

// result waits for a job that must succeed at this attempt.
func (o *office) result(j *jobs.Job[int], attempt, want int) {
	o.Helper()
	got, err := j.Wait(o.T.Context())
	require.NoError(o.T, err)
	require.Equal(o.T, want, got)
	require.Equal(o.T, jobs.Succeeded, j.Last().State)
	require.Equal(o.T, attempt, j.Last().Attempt)
}

// dead waits for a job that must be given up on after this attempt.
func (o *office) dead(j *jobs.Job[int], attempt int, code transport.Code, text string) {
	o.Helper()
	_, err := j.Wait(o.T.Context())
	require.ErrorIs(o.T, err, code)
	var e *transport.Error
	require.ErrorAs(o.T, err, &e)
	require.Equal(o.T, text, e.Message)
	require.Equal(o.T, jobs.Dead, j.Last().State)
	require.Equal(o.T, attempt, j.Last().Attempt)
}

var busy = transport.Errorf(transport.CodeUnavailable, "busy")
