// Package transport lets a program send and receive without knowing which protocol carries it.
//
//	          send                 receive
//	events    Publisher.Publish    Subscriber.Subscribe
//	calls     Caller.Call          Responder.Respond
//	streams   Opener.Open          Acceptor.Accept
//
// Each verb is an interface of one method, so anything can implement one and anything can wrap one. One function
// type, [Handler], serves events and calls. Receiving is pulled, with [Subscription].Next or [Deliveries]; it is pushed
// by giving the subscription to [Serve]. Typed functions come from contracts: [Operation], [Event] and [Duplex]. A
// whole application is a list of bindings that [Start] runs on any transport.
//
// # Delivery
//
// Nil from Publish means that the next hop is responsible for the message. A delivery is out until it is settled, see
// [Delivery.Settle]. A quality that a subscriber needs, such as order or replay, is demanded with [Require] and given or
// refused, never quietly missing. What is dropped is counted in [Delivery].Missed or reported.
//
// # Errors
//
// An [Error] carries a [Code] and public text and crosses the wire; the text of any other error stays in the process.
//
// # Contexts
//
// ctx bounds the call that it is given to; for Open, Serve, ServeStreams and Start it is a lifetime. Its values never
// cross a transport. What crosses is the header, the deadline, the cancellation of a call, and in process the [Peer].
//
// # Writing a transport
//
// Implement the verbs that the protocol can carry, check arguments with [CheckTopic], [Message.Check] and [Resolve],
// hand out deliveries made by [NewDelivery], and send errors as [Public] shows them. Package transporttest has the
// conformance suite, and its subpackage pipe a complete transport over one connection. Package wire has what most
// protocols need.
//
// # Limits
//
// A message has at most 1 MiB by default, its header 16 KiB, its ID 128 bytes; a topic has at most 200 bytes, a group
// 100, a cursor 128.
package transport
