package mem_test

import (
	"context"
	"testing"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/transport/transporttest"
)

const all = transport.AtLeastOnce | transport.Ordered | transport.Replay | transport.Groups | transport.DeadLetters |
	transport.Delays

// busFixture is a bus with a short history, so that cursors can be lost and subscribers be slow.
func busFixture(t testing.TB) transporttest.Fixture {
	const history = 512 // more than any case that is not about eviction has in flight
	bus := mem.New(&mem.Options{HistoryMessages: history})
	t.Cleanup(func() { bus.Close() })
	return transporttest.Fixture{Sender: bus, Receiver: bus, Offers: all, Retention: history, Peer: true, Synctest: true}
}

func TestConformance(t *testing.T) { transporttest.Run(t, busFixture) }

func TestConformanceGuarded(t *testing.T) {
	transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
		f := busFixture(t)
		g := transport.Guard(f.Sender, func(context.Context, transport.Access) error { return nil })
		f.Sender, f.Receiver = g, g
		return f
	})
}

// Subscriptions are the mirror's, all else is the bus's.
func TestConformanceMirror(t *testing.T) {
	transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
		f := busFixture(t)
		m := mem.NewMirror(f.Sender, &mem.MirrorOptions{HistoryMessages: f.Retention})
		t.Cleanup(func() { m.Close() })
		f.Backlog = 3 * f.Retention // the cache comes on top
		f.Receiver = transport.Join(transport.Parts{Subscriber: m, Responder: f.Sender, Acceptor: f.Sender})
		return f
	})
}
