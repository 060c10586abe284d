// Package compose makes more of what a transport has, on the public verbs alone.
//
//	Requester, NewResponder   calls over events
//	Failover                  one subscription over several servers
//	Redrive                   dead letters, back to their topic
//
// # Calls over events
//
// A [Requester] makes a Caller of a Publisher and a Subscriber, and [NewResponder] a Responder of a Subscriber that
// offers groups and a Publisher:
//
//	caller := compose.NewRequester(bus, bus, nil)
//	responder := compose.NewResponder(bus, bus, nil)
//	t := transport.Join(transport.Parts{Publisher: bus, Subscriber: bus, Caller: caller, Responder: responder})
//
// A request is an event on the operation's own topic, a reply one on the requester's topic "_reply.<id>":
//
//	topic: orders.place                     topic: _reply.K2F…
//	id: 5jQx…                               id: 5jQz…
//	reply-to: _reply.K2F…                   correlation-id: 17
//	correlation-id: 17                      content-type: application/json
//	deadline: 2026-01-02T15:04:05.5Z
//	content-type: application/json          {"order":1}
//
//	{"item":"tea"}
//
// Other programs may stand on either side: a request without correlation-id is answered with its ID there, and all
// that a reply needs is the correlation-id. The three headers above are the envelope's: the handler does not see them.
//
// A reply that is an error has the header "call-error" with the Code's name. The header of the [transport.Error] is
// the reply's header, and the body has the rest as JSON, whatever is empty left out:
//
//	call-error: unavailable
//	content-type: application/json
//
//	{"reason":"BUSY","message":"not now","details":[{"type":"…","value":"<base64>"}],"retryAfter":"1.500000000s"}
//
// A header that would mean something to the envelope or, in a reply, to the transport that carries it (ttl, delay,
// priority, deadline, idempotency-key, reply-to, correlation-id, call-error, call-header) is moved out of its way, and
// so is the whole header if it is too large beside the envelope: the header "call-header" says how many bytes at the
// front of the body are more headers, in the form of a URL's query. The other side puts them back.
//
// # Delivery
//
// A request is handled at least once: it is acknowledged after its reply was published, so if that fails or the
// process dies, another responder gets it again, with the same ID. Package middleware has Dedup for that. A request
// whose deadline has passed is dropped unseen; that compares the clocks of two machines. The end of the caller's ctx
// does not reach the responder. Without a responder a call can only wait.
//
// Who may publish to a topic may have replies sent anywhere: see [transport.Guard] for reply-to.
//
// # Limits
//
// A request and a reply may have 1 MiB; the envelope adds at most 300 bytes, and what it moves into the body grows to
// three times its size, so the transport below should take a little more. A requester has one subscription and one
// goroutine.
package compose
