// Package transporttest is the conformance suite: it holds a transport against the contract of package transport, by
// the same rules for all.
//
//	func TestConformance(t *testing.T) {
//		transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
//			bus := mem.New(nil)
//			server := acme.NewServer(bus, nil)
//			client := acme.NewClient(server.Addr(), nil)
//			t.Cleanup(func() { client.Close(); server.Close(); bus.Close() })
//			return transporttest.Fixture{
//				Sender:   client,
//				Receiver: client,
//				Offers:   transport.Ordered | transport.Replay,
//				Remote:   true,
//				Disrupt:  server.DropConnections,
//			}
//		})
//	}
//
// Each case is a subtest named area/case, such as TestConformance/replay/low-water, gets a [Fixture] of its own and says
// which rule it checks when it fails.
//
// # What is offered, and what is not
//
// A [Fixture] says which verbs, features and limits there are. What is offered must work. What is not must be refused
// with an error that matches errors.ErrUnsupported: there are cases for that as well, so a fixture that promises little
// does not pass by that alone. Cases that do not apply are listed in the log, see them with go test -v.
//
// # One direction
//
// A transport that carries only some verbs is tested against a backend that has the others: the Sender of a
// subscribe-only protocol is the bus behind its server, the Receiver of a request-response protocol likewise. Name the
// verbs that are missing in Lacks, and use [transport.Join] to leave them out.
//
// # Time
//
// A fixture that does no I/O should set Synctest: all cases then run in fake time. Without it cases wait for real time,
// mostly milliseconds; on slow links raise Patience and Latency.
package transporttest
