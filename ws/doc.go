// Package ws carries all six verbs over one WebSocket, in both directions: a browser, or a worker behind NAT, is an equal
// of any service. A [Server] puts a transport on the web, as an http.Handler; a [Client] is a transport.Transport that
// keeps its connection alive by itself.
//
// The protocol is JSON-RPC 2.0 (https://www.jsonrpc.org/specification) in text frames (RFC 6455), under the subprotocol
// "intermodal.v1.json", or none. A method is a topic, so that any JSON-RPC client calls our operations by name, alone and
// in batches, and publishes with notifications. Methods that begin with "rpc.", which JSON-RPC reserves for this, do all
// else.
//
// # Messages
//
// A message is its body and its metadata. Here is a call, its reply, and an event that needs no confirmation:
//
//	{"jsonrpc":"2.0","method":"orders.place","params":{"item":7},"id":1,"meta":{"id":"a1","timeout":5000}}
//	{"jsonrpc":"2.0","result":{"order":12},"id":1,"meta":{"header":{"etag":["\"3\""]}}}
//	{"jsonrpc":"2.0","method":"chat","params":{"text":"hello"}}
//
// The body is the value of params, of result, or, in our own methods, of data. A body that is JSON, without space around
// it, and whose content-type is JSON or absent stands there byte for byte. Params must be an object or an array, as
// JSON-RPC has it. Any other body is written as the member body says, which is one of the metadata:
//
//	body      params       result or data
//	absent    the body     the body; an empty one if there is no data
//	"text"    ["hello"]    "hello"             it is a string
//	"base64"  ["aGVsbG8="] "aGVsbG8="          the string decodes to it, in padded standard base64
//	"none"    absent       null                it is empty; absent params are always an empty body
//
// The other metadata are id (Message.ID), header (an object of arrays of strings, see wire.AppendJSONHeader; a single
// string is taken as well) and, of requests, timeout: what is left of the caller's time. Times are whole milliseconds.
// All metadata are members of meta, which a native peer ignores and leaves out, when the message is the params or the
// result. In our own methods, where it is data, they are members beside data. In the tables below … stands for the
// members of a message: id, header, body, data. A topic is not repeated where it is known.
//
// # Requests
//
// Both ends send requests, with ids of their own: a number or a string of at most 128 bytes, and not in use by another
// request under way. A single request is answered by a single object, a batch by an array once all of it is done, as the
// specification says. Ours are sent singly. The answers of a batch have as many bytes as a frame may have, see
// Options.MaxBytes; in place of one that does not fit is an error with the code resource_exhausted.
//
//	method            params                           result
//	<topic>           the body                         the reply's body: a call
//	rpc.ping          -                                null; the server's transport is well
//	rpc.publish       topic … again                    null, once the server's transport has taken the event
//	rpc.subscribe     topic, options, credit           sub, cursor, buffer
//	rpc.respond       topic buffer                     sub, buffer
//	rpc.accept        topic                            sub
//	rpc.unsubscribe   sub                              null; nothing comes after it. While another one is under way:
//	                                                   the error already_exists
//	rpc.authenticate  header                           expires: time left, 0 or absent for ever
//	rpc.open          stream topic header timeout sub  null, once there is an acceptor, as the transport sees it
//
// The server sends calls, rpc.open and rpc.ping; a client sends all. A call or an rpc.open from the server has in sub, a
// member of meta or params, the rpc.respond or rpc.accept that it is for.
//
// again is true when an event that was not confirmed is sent once more, on a new connection, with the same id: the server
// then looks whether it has it already. rpc.authenticate renews credentials before they expire: header has fields that
// replace those of the handshake, as {"authorization":"Bearer …"}.
//
// # Notifications
//
//	method       from    params
//	<topic>      client  the body: an event
//	rpc.event    server  sub cursor tag attempt missed …
//	rpc.ack      client  sub tag error      settles an event of a group
//	rpc.credit   both    sub n, or stream n more may be sent
//	rpc.end      both    sub error          the subscription has ended
//	                     stream header error: the acceptor has ended the stream, header is the trailer
//	rpc.cancel   both    id, or stream      the caller, or the opener, has given up
//	rpc.stream   both    stream …           an item
//	rpc.header   both    stream header      the acceptor's header, before its first item
//	rpc.eof      both    stream             the opener sends no more
//	rpc.expires  server  in                 the credentials expire; only with the subprotocol
//	rpc.drain    server  retry              the server goes away; only with the subprotocol
//
// Notifications that are waiting go out together as one batch in one frame, at most 64 KiB of them. The server does so
// only to a peer that has subscribed. A notification that makes no sense, or is about something that is over, is ignored;
// each may also be sent as a request, and is then answered with null or an error.
//
// # Subscriptions
//
// The options of rpc.subscribe are group, from (a cursor, or "oldest"), deadLetter, maxAttempts, buffer, overflow
// ("disconnect" or "drop-oldest") and require (an array of "at-least-once", "ordered", "replay", "groups",
// "dead-letters", "delays"). All may be absent.
//
//	{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":"chat","from":"5f2-17"},"id":2}
//	{"jsonrpc":"2.0","result":{"sub":1,"cursor":"5f2-17","buffer":64},"id":2}
//	{"jsonrpc":"2.0","method":"rpc.event","params":{"sub":1,"cursor":"5f2-18","id":"b7","data":{"text":"hello"}}}
//
// sub, a positive number that the server chooses, names the subscription on this connection. cursor is the position after
// the event, or at the start; it may be absent. missed is how many events were dropped right before this one, 0 if
// absent, attempt counts deliveries, 1 if absent, 0 if unknown. Without a group the client settles by itself. If
// rpc.subscribe has credit, the server sends so many events, at most buffer, and then one more for each that rpc.credit
// gives; without, it sends what it has, as fast as the connection takes it. What waits for either is in the server's
// transport, so that overflow is its policy.
//
// To resume after a reconnect subscribe again, from the cursor up to which all is handled. A cursor that is lost is
// refused with the code out_of_range: there is a gap, and the client decides where to go on.
//
// In a group each event has a tag, a number that is unique in the subscription. At most buffer of them are unsettled.
// rpc.ack settles: without error it acknowledges, else error has the member code, and is any problem document; see
// transport.Delivery.Settle for what the codes do. What is unsettled when the connection ends is delivered again, to
// whoever is in the group. After rpc.unsubscribe and rpc.end what is out can still be settled.
//
// At most buffer calls for a responder are unanswered, not counting those cancelled.
//
// # Streams
//
// The opener chooses the number of a stream: a client odd ones, the server even ones, none twice. It may send once
// rpc.open is answered. rpc.end from the acceptor ends a stream, and so does rpc.cancel from the opener. Each side may
// send while what is in flight has less than 256 KiB; an item counts as the bytes of header and body (Message.Size) and
// 128 more; rpc.credit gives back the same number. A stream that breaks this rule is ended. So a slow stream holds up
// nothing but itself.
//
// # Errors
//
// An error has the number of wire.RPCCode, and the problem document of wire.AppendProblem as data, whose member code has
// the exact Code; in rpc.ack and rpc.end error is that document alone. An error without such data is read by
// wire.CodeFromRPC.
//
//	{"jsonrpc":"2.0","error":{"code":-32601,"message":"there is no operation \"x\"","data":{"code":"unimplemented",…}},"id":1}
//
// A frame that is no JSON is answered with -32700 and the id null, what is no request with -32600, an empty batch too. A
// method that is no topic, that the server knows not to exist, or that nobody responds to, is -32601.
//
// # The connection
//
// Either end sends a WebSocket ping after Heartbeat without a byte, and gives up after twice that. Frames are text in
// valid UTF-8. The close codes:
//
//	code        means                                       a Client
//	1000        closed in order                             reconnects, if it was the server
//	1001        the server goes away; the reason may be     reconnects after that time
//	            "retry=<milliseconds>"
//	1002, 1003  no WebSocket, no text                       reconnects
//	1007        no UTF-8                                    reconnects; publishes under way fail
//	1009        a frame is too large                        reconnects; publishes under way fail
//	1013        too busy                                    reconnects
//	4401        the credentials have expired                reconnects, with new ones
//	3500-3999, 4500-4999                                    gives up
//
// All other codes, and a connection that breaks, are reconnected. See [Client] for what becomes of what was under way.
//
// There is no writer while there is nothing to write, no timer for a connection, and no buffer of one that is idle: it
// costs a server about 9 KiB of heap and stack, and 7 KiB more with a subscription of a mem.Bus.
//
// A call to a handler that is quick wakes no goroutine. The server's reader runs the handler itself if nothing else is
// under way on the connection; one that takes longer than a millisecond or two is left behind, and another goroutine
// reads. A Client's reader rests while calls follow one another, and each caller reads its own answer; the reader goes on
// when that is not enough, after two milliseconds without a call at the latest.
//
// A server that drains answers new requests with unavailable and the reason NOT_SENT, ends subscriptions with the reason
// CLOSED, lets the rest come to its end, and closes with 1001. Each client gets another retry, so that they do not all
// come back at once. A Client lets what is under way come to its end for Patience, and goes on elsewhere.
package ws
