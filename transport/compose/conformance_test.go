package compose_test

import (
	"testing"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/compose"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/transport/transporttest"
)

const offered = transport.AtLeastOnce | transport.Ordered | transport.Replay | transport.Groups |
	transport.DeadLetters | transport.Delays

// Calls travel over a bus of their own, so that its events are not taken for them, with room for the envelope.
func TestCallsConform(t *testing.T) {
	transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
		events := mem.New(nil)
		carrier := mem.New(&mem.Options{MaxBytes: transport.DefaultMaxBytes + 64<<10})
		caller := compose.NewRequester(carrier, carrier, nil)
		t.Cleanup(func() {
			caller.Close()
			carrier.Close()
			events.Close()
		})
		x := transport.Join(transport.Parts{Publisher: events, Subscriber: events,
			Caller: caller, Responder: compose.NewResponder(carrier, carrier, nil)})
		return transporttest.Fixture{Sender: x, Receiver: x, Lacks: []transport.Op{transport.OpOpen, transport.OpAccept},
			Offers: offered, Blind: true, NoCancel: true, Synctest: true}
	})
}

// A subscription through a Failover is like any other, also when its server goes down.
func TestFailoverConforms(t *testing.T) {
	transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
		bus := mem.New(nil)
		t.Cleanup(func() { bus.Close() })
		nodes := []*node{{Subscriber: bus}, {Subscriber: bus}}
		x := transport.Join(transport.Parts{Publisher: bus,
			Subscriber: compose.NewFailover([]transport.Subscriber{nodes[0], nodes[1]}, nil)})
		return transporttest.Fixture{Sender: x, Receiver: x, Lacks: []transport.Op{transport.OpCall,
			transport.OpRespond, transport.OpOpen, transport.OpAccept}, Offers: offered, Retention: 2000, Synctest: true,
			Disrupt: func() {
				for _, n := range nodes {
					n.fail(lost)
					n.fail(nil)
				}
			}}
	})
}
