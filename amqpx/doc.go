// Package amqpx carries events and calls over a RabbitMQ broker, by AMQP 0-9-1. [Dial] returns a [Client], which
// publishes, subscribes, calls and responds; streams between two parties are refused, as a broker has none. The broker
// is the server: there is none in this package.
//
//	Publish                       to a topic exchange, confirmed
//	Subscribe, with Group         a quorum queue that the members share, with retries and dead letters
//	Subscribe, without a group    a queue of its own; on a topic with a History, a place in a stream
//	Call, Respond                 direct reply-to, and a classic queue for each operation
//
// What is on the wire is plain AMQP. A program that knows nothing of this package publishes to the topic exchange with
// the topic as routing key, consumes from queues that it binds there, calls with reply-to and correlation-id, and
// answers so.
//
// # Messages
//
//	Message          AMQP
//	ID               message-id
//	Topic            routing key
//	Body             body, byte for byte
//	content-type     content-type
//	content-encoding content-encoding
//	reply-to         reply-to
//	correlation-id   correlation-id
//	priority         priority, 1 to 9
//	ttl              expiration
//	other headers    headers table: a string, an array of strings for several values, a byte array under a -bin key
//
// So an event with two headers, one of them with two values, is this on the wire:
//
//	exchange      intermodal
//	routing key   orders.placed
//	message-id    TIVKiObAoyeW--------8T
//	content-type  application/json
//	delivery-mode 2
//	timestamp     1795214503
//	headers       tenant: "a", tags: ["x", "y"], x-intermodal-header: "…"
//	body          {"order":17}
//
// Messages are persistent and have a timestamp. A value that its property cannot hold is in the table. Keys that begin
// with x-intermodal- are ours: the number of the attempt, the time of publication of a message with a ttl, and once
// more, as one string, what streams drop (arrays) and what the broker would take for its own (x-death and the like).
//
// What other programs send is taken as it is: header values of any type become text (numbers in decimal, times as RFC
// 3339, tables as JSON, bytes that are no text as base64), keys are lower-cased, those that are illegal even then are
// dropped. The properties type and app-id become headers. A message without a message-id gets a new ID with each
// delivery, since two equal messages must not be taken for one; in a stream its ID is a hash of its offset and content.
//
// # Connections
//
// A client has a connection for each of publishing, consuming, streams and calls, made when it is needed: a publisher
// that the broker holds up does not hold up the rest. A lost connection is made again, for as long as the client lives,
// with waits of [Options].Backoff, and every operation waits for it as long as its own ctx lives. [Options].OnState is
// told, [Client.Stats] counts, [Client.Health] asks the broker. The library's own recovery is not used.
//
// No wait is without a limit. A method that the broker does not answer within MethodTimeout cuts the connection, a
// write that does not get on as well, and so does silence for one and a half heartbeats. A ctx that ends only ends its
// operation.
//
// # Publishing
//
// Nil from Publish means that the broker has confirmed the message: each queue that wanted it has it on disk, quorum
// queues on a majority of nodes. Confirms are pipelined: many goroutines, or PublishAll, share one channel and wait
// together, up to [Options].Window messages. What was written and not confirmed when the connection was lost is written
// again on the next one, in order, before what is new, with the same ID: it may come twice, and it is not lost. The
// same happens, once, to a message whose confirm does not come while later ones are confirmed.
//
// Two things are the broker's: a queue that was declared in the last seconds before it is killed can be lost with what is
// in it (github.com/rabbitmq/rabbitmq-server/issues/15725), and a stream misses what is published right after a restart
// unless the publisher names it in its [Options].History too.
//
// While the broker has an alarm for memory or disk it takes no messages: publishers wait, as during an outage, and
// Stats.Blocked is true. What came to its end before it was written is CodeUnavailable with the Reason NOT_SENT, what
// was written and has no confirm has OUTCOME_UNKNOWN. A message that a queue refuses is CodeResourceExhausted, an
// exchange that is missing CodeNotFound, one that is not allowed CodePermissionDenied.
//
// # Topology
//
// All names begin with [Options].Namespace, n here. What exists is used, never changed; what exists with other
// arguments is CodeFailedPrecondition. A topic or a pattern stands in a name as it is; in the namespace and in the name
// of a group a percent sign is %25 and a dot %2E, so that the group workers.eu of orders.placed has the queue
// n.group.orders.placed.workers%2Eeu. A name of more than 120 bytes is replaced by a hash.
//
//	n                      topic exchange, or the one that Options.Exchange names
//	n.group.<topic>.<name> quorum queue of a group, bound with the topic, or the one that Options.Queue names
//	n.sub.<id>             queue of one subscription without a group and without history
//	n.sub.<id>.lost        what that one had no room for, so that the loss is seen
//	n.log.<pattern>        stream of a History, bound with its pattern
//	n.call.<topic>         classic queue of an operation's calls, with the argument x-expires = 60000
//	n.delay.<ms>.<day>     fanout exchange and quorum queue: back to the topic exchange after so many milliseconds
//	n.retry.<ms>.<day>     the same, back to the queue that the routing key names
//
// An exchange that somebody deletes takes all bindings along. The client that finds it gone makes it anew, and the
// bindings of its own queues; the other clients do not know.
//
// # Groups
//
// A group begins when it is first subscribed to: From, and Require(Replay), are refused. Its settings stand in the
// arguments of its queue. Who joins and leaves them open adopts them; for that the broker's text must have room for the
// name of the DeadLetter topic (some 60 bytes, more if the queue's name is short), or else it has to be named, and the
// error says so.
//
// The members see to attempts. A retry is published to a queue that holds it for the time of its wait, with the number
// of the attempt in the header x-intermodal-attempt, and confirmed; then the original is acknowledged. A crash in
// between makes it come twice. A dead letter is published to its topic likewise, and keeps what the message was:
// foreign headers too. The topic's group "redrive" is made along with the demand for it, so that dead letters are kept
// before anybody listens. Settling with an error therefore waits for the broker. If that fails, Settle says so, and the
// message comes again after the wait. Without DeadLetter what is refused is acknowledged and told to [Options].OnDrop.
//
// What a member gives back, by CodeCanceled or Close, does not count as an attempt. The broker counts it all the same,
// and every lost connection too, and gives a message up that has come back MaxAttempts+100 times: it becomes a dead
// letter as the broker makes them, with x-death instead of our headers, or is gone without a DeadLetter. That is for
// messages that kill whoever handles them. Before it comes to that by giving back alone, the member puts a fresh copy
// at the end of the queue.
//
// Under Require(Ordered) the queue has a single active consumer, which has one message at a time. Retries wait there,
// at most 15 minutes, since the broker takes back what is unsettled for 30 (its consumer_timeout; that holds for all
// groups). They are counted there as well, over lost connections too, but another member that takes over counts anew. A
// member that was closed stays the active one until its delivery is settled.
//
// The broker drops messages whose ttl is over, at the head of the queue. One that was delivered has no ttl any more.
// priority is passed on and changes nothing: quorum queues have no order but that of arrival.
//
// Settling a delivery whose connection was lost is CodeUnavailable: the message comes again. A queue that somebody
// deletes ends its subscriptions with CodeDataLoss.
//
// With a queue of Options.Queue all is as above, but that it is neither declared nor bound, its settings are those that
// each member demands, Require(Ordered) is refused, and the broker's own limit is whatever it is.
//
// # Subscriptions without a group
//
// On a topic without history each has a queue of its own, which goes with Close, and [Options].ReconnectWindow after
// its connection was lost. So a cut loses nothing, and repeats nothing: AtLeastOnce is offered. A subscription that was
// away for longer, or whose queue had 8192 messages by then, ends with CodeDataLoss. So does one whose queue was full
// while the network stood still and the connection lived on: what is dropped goes to a second queue, n.sub.<id>.lost,
// which the client watches. There is no cursor: Replay is refused.
//
// What arrives is acknowledged at once and settled here. A subscriber may be 8192 messages or 64 MiB behind, beside
// those in its Buffer; then it ends with CodeResourceExhausted. With Overflow(DropOldest) the Buffer is all there is.
//
// # History
//
// The topics of a [History] are kept in a stream. A subscription without a group to one of them reads the stream and
// offers Replay; it needs no queue of its own. The messages wait in the stream and not in the client, so that a slow
// subscriber is one that the deletion of old segments overtakes: it ends with CodeResourceExhausted. Under
// Overflow(DropOldest) the Buffer is all that waits, and Missed says what was dropped.
//
// A cursor is a hash of the message at an offset and that offset. To go on from it the client reads at the offset, and
// the first message must have the hash: so an evicted cursor, one of another topic, namespace or broker, a forged one,
// and one of a stream that was deleted and made anew are all CodeOutOfRange. The same happens after each lost
// connection, from the low-water mark: what was handed out does not come again, and if the place is gone the
// subscription ends with CodeOutOfRange. Equal messages without message-id and timestamp cannot be told apart.
//
// A stream does not say where it ends. So Subscribe publishes a mark where it must know: an empty message with the
// header x-intermodal-mark, straight to the stream. It costs some 100 bytes of the history for each subscription that
// starts from now on. Other programs that read the stream should skip marks.
//
// Several topics in one stream share its retention, and who reads one topic is sent them all: patterns should not be
// wider than what is read together. A ttl counts from the publication. A message that is larger than the subscriber's
// MaxBytes ends its subscription with CodeResourceExhausted and the next cursor.
//
// # Calls
//
// A request goes straight to the queue of its topic, with reply-to, correlation-id, the type intermodal.call, the time
// that is left as expiration, and mandatory; the reply comes straight back by direct reply-to. Both are transient. The
// body of an error is a problem document (RFC 9457), and the property type is intermodal.error. The caller's deadline
// travels as a time of day, so the clocks should agree; the end of its ctx alone does not reach the responder.
//
// The queue goes with its last responder: then calls fail at once, with the Reason NOT_SENT. If that one is lost and
// not closed, the queue is kept for 5 s with a caller, a minute without, so that the responder can connect again. A
// request is handled once or not at all: one that the broker delivers a second time is answered with OUTCOME_UNKNOWN. A
// request cannot tell what becomes of its queue, so callers look, once a second, after queues for which calls have
// waited as long. A responder that has closed and is still at work says so every 10 s, by a message of the type
// intermodal.working with the correlation-id, to callers whose request has the type intermodal.call.
//
// Programs that know nothing of this answer from the same queue, declared with the same argument, and acknowledge after
// the reply; they call with any reply-to. A request without one is handled and not answered.
//
// # Delays
//
// A message with a delay, and one that waits for a retry, is in a quorum queue of the broker: no client need live for
// it. Waits are rounded up to two digits, those of a backoff to one, so that few queues serve them all. A RetryAfter
// that a handler spreads at random can still make up to 90 levels between one power of ten and the next. A level is
// made for each day on which it is needed and lives for its delay and two days more: if a message cannot be handed on
// within the second of these, because its queue was deleted or has no leader, it is gone with the level.
//
// # Limits
//
// A subscription or a responder has a channel of its own, and RabbitMQ allows some 2000 channels on a connection
// (channel_max, 2047): so many subscriptions a client can have of those with a queue, as many that read streams, and as
// many responders. More need another Client.
//
// Credentials are in the URL or in [Options].SASL; they are in no error, no state and no log.
//
// The package was tried with RabbitMQ 3.10.8 alone, a single node. It uses quorum queues with at-least-once dead
// letters and streams, so it needs 3.10 at least.
package amqpx
