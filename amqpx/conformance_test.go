package amqpx_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/transport/transporttest"
)

// lag is how many messages a subscription without a history may be behind in these tests.
const lag = 512

// without is what is offered for topics without a history.
const without = transport.AtLeastOnce | transport.Ordered | transport.Groups | transport.DeadLetters | transport.Delays

func TestConformance(t *testing.T) {
	removed := remover(t)
	transporttest.Run(t, func(tb testing.TB) transporttest.Fixture { return brokerFixture(tb, removed, nil) })
}

// TestConformanceHistory is the same with a history for all topics, which few messages overflow.
func TestConformanceHistory(t *testing.T) {
	removed := remover(t)
	transporttest.Run(t, func(tb testing.TB) transporttest.Fixture {
		f := brokerFixture(tb, removed, []amqpx.History{{Topics: "#", MaxBytes: historyBytes}})
		f.Retention, f.Backlog = historyMessages, historyMessages
		return f
	})
}

// TestConformanceMirror is a Mirror over a topic's history, with nothing else between: what it lacks, its upstream has.
func TestConformanceMirror(t *testing.T) {
	removed := remover(t)
	transporttest.Run(t, func(tb testing.TB) transporttest.Fixture {
		f := brokerFixture(tb, removed, []amqpx.History{{Topics: "#", MaxBytes: historyBytes}})
		m := mem.NewMirror(f.Receiver, &mem.MirrorOptions{
			HistoryMessages: 256, OnError: func(string, *transport.Message, error) {}})
		tb.Cleanup(func() { require.NoError(tb, m.Close()) })
		f.Receiver = transport.Join(transport.Parts{Subscriber: m, Responder: f.Receiver})
		f.Backlog, f.Retention = 512, historyMessages
		f.Remote = false
		return f
	})
}

// historyBytes is what the history keeps in these tests, a bit more or less, and historyMessages so many that it surely
// does not keep the one before them. It must be many times the size of a message, historyMax.
const historyBytes, historyMessages, historyMax = 200_000, 2000, 32 << 10

// brokerFixture is two clients with a namespace of their own on the broker that tests share. In the end what they have
// declared goes to removed.
func brokerFixture(tb testing.TB, removed chan<- []string, history []amqpx.History) transporttest.Fixture {
	url := amqptest.URL(tb)
	cutter := newCutter()
	o := &amqpx.Options{
		Namespace: "t" + transport.NewID(),
		History:   history,
		Backoff:   transport.Backoff{Min: time.Millisecond, Max: 100 * time.Millisecond},
		Dial:      cutter.dial,
		OnDrop:    func(*transport.Message, error) {},
	}
	if history != nil {
		o.MaxBytes = historyMax
	}
	ctx, cancel := context.WithTimeout(tb.Context(), 10*time.Second)
	defer cancel()
	var clients [2]*amqpx.Client
	var errs [2]error
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() { clients[i], errs[i] = amqpx.Dial(ctx, url, o) })
	}
	wg.Wait()
	require.NoError(tb, errors.Join(errs[:]...))
	for _, c := range clients {
		c.SetLag(lag)
	}
	tb.Cleanup(func() {
		for _, c := range clients {
			require.NoError(tb, c.Close())
		}
		removed <- append(append(clients[0].Declared(), clients[1].Declared()...), o.Namespace)
	})
	f := transporttest.Fixture{Sender: clients[0], Receiver: clients[1],
		Offers: without, Backlog: lag + 2*transport.DefaultBuffer, Remote: true, NoCancel: true,
		Latency: 10 * time.Second, // on a busy machine
		Lacks:   []transport.Op{transport.OpOpen, transport.OpAccept}, Disrupt: cutter.cut}
	if history != nil {
		f.Offers |= transport.Replay
		f.MaxBytes = historyMax
	}
	return f
}

// A cutter cuts the connections that were made with it.
type cutter struct {
	mu      sync.Mutex
	conns   map[net.Conn]struct{}
	refuses bool // makes none
}

func newCutter() *cutter { return &cutter{conns: map[net.Conn]struct{}{}} }

func (c *cutter) refuse(refuses bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuses = refuses
}

func (c *cutter) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuses {
		return nil, errors.New("there is no network")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err == nil {
		c.conns[conn] = struct{}{}
	}
	return conn, err
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		conn.Close()
	}
	clear(c.conns)
}

// remove deletes queues and exchanges of these names.
func remove(t testing.TB, url string, names []string) {
	conn, err := amqp.Dial(url)
	require.NoError(t, err)
	defer conn.Close()
	ch, err := conn.Channel()
	require.NoError(t, err)
	require.NoError(t, removeBy(ch, names))
}

func removeBy(ch *amqp.Channel, names []string) error {
	for _, name := range names {
		if _, err := ch.QueueDelete(name, false, false, false); err != nil {
			return err
		}
		if err := ch.ExchangeDelete(name, false, false); err != nil {
			return err
		}
	}
	return nil
}

// remover does the same in the background with the names that are sent to what it returns: no case has to wait for the
// end of the queues of the one before.
func remover(t testing.TB) chan<- []string {
	ch, _ := bare(t)
	names, done := make(chan []string, 10), make(chan error, 1)
	go func() {
		var errs []error
		for ns := range names {
			errs = append(errs, removeBy(ch, ns))
		}
		done <- errors.Join(errs...)
	}()
	t.Cleanup(func() {
		close(names)
		require.NoError(t, <-done)
	})
	return names
}
