// Package pipe carries all six verbs over one net.Conn: TCP, TLS, a Unix socket, net.Pipe. It is the worked example of
// "write your own transport", small above all, and proves the conformance suite over a wire. A [Client] is a
// transport.Transport; a [Server] puts any Transport on the other end. Both ends must have the same MaxBytes.
//
// # Wire format
//
// A frame is the length of its head and of its body, four bytes each, big-endian; then the head, a JSON object; then
// the body, which is a message's Body as it is. Names of members are those of the type frame.
//
//	00 00 00 49 00 00 00 05 {"type":"call","id":7,"topic":"echo","timeout":1000000000,"message":"a1"} hello
//	00 00 00 16 00 00 00 05 {"type":"done","id":7} hello
//
// An operation has a number, odd if the client began it and even if the server did, and lives until the other end has
// said done, which always comes and may carry an error. Each verb is the type of the frame that begins it:
//
//	begins      then, from the other end     then, from the beginner
//	publish     done
//	call        done with the reply          stop: the caller has given up
//	subscribe   active, event…, eof, done    credit, settle, stop
//	respond     active, eof, done            stop
//	accept      active, done                 stop
//	open        active, header, item…, done  item…, eof, stop: the stream is abandoned
//	ping        done
//
// The calls for a responder, and the streams for an acceptor, are operations that the server begins: call and open with
// the number of the respond or accept in for. Frames of an operation that is over are ignored, since they may have
// crossed its done. Operation 0 is the connection: its done says why it ends.
//
// # Flow control
//
// Events outside of groups need credit: the server may send as many as active says, and one more for each that the
// client reports as handed out. In a group, and for calls, active says how many may be unsettled. In a stream each side
// may send while what is in flight has less than 256 KiB, each item counted with 128 bytes more; credit gives back. At
// most 256 publishes are unanswered.
//
// # Delivery
//
// A message of a group is named by its tag and settled by the frame settle, on which the server settles the delivery
// of its own transport; settling does not wait for that. When the connection ends the server gives back what is unsettled.
// Outside of groups the client settles by itself (see [wire.Inbox]), and the server counts a delivery as settled once it
// is sent. A subscription ends with its connection, with CodeUnavailable, and can be resumed on another by its Cursor.
// What was in flight has the Reason OUTCOME_UNKNOWN, or NOT_SENT if none of it was written.
//
// # Limits
//
// A head has at most 512 KiB, a body MaxBytes. What breaks these rules ends the connection. So does a peer that does not
// read for WriteTimeout. There is no heartbeat: use TCP's keep-alive, which net.Dial and net.Listen turn on.
package pipe
