// Package mem is the transport within one process: a [Bus] carries all six verbs. It is the default backend of every
// server, and the reference for what the rules mean. [NewMirror] puts a cache of the same kind before another
// Subscriber.
//
// # How it works
//
// Each topic is a log. A subscription is a position in it, so that fan-out to n subscribers costs one append and n
// wake-ups, replay comes free, and a slow reader batches by itself. Reading takes no lock of the topic. A wake-up happens
// only when a reader sleeps, and readers that are woken wake others, so that a publisher is soon done. Groups are
// positions too, shared by their members. Calls and streams are handed from caller to responder without a log.
//
// # Delivery
//
// Every [transport.Feature] is offered. What is published is kept in memory: nil from Publish means that the message is
// in the log, and it is lost with the process.
//
//   - A subscription without a group settles on its own. A message that waits for redelivery takes one place of Buffer;
//     the others overtake it, unless Ordered was required, which hands out one message at a time.
//   - A group's messages stay until they are settled, beyond the history's limits and within GroupBytes. A dead letter
//     is published before its message counts as settled; if that fails the message is handed out again.
//   - The history is bounded by messages, bytes and age. A subscriber that falls behind it is handled by its Overflow:
//     Block, the default, holds publishers up for at most PublishWait and then ends that subscription; DropOldest
//     jumps ahead and counts what it missed; Disconnect ends the subscription. The error has the Code ResourceExhausted
//     and, in its header "cursor", where to go on.
//   - Replies and errors cross as they would on a wire: only what [transport.Public] shows.
//   - delay and ttl are honoured. The delay header is taken off on arrival. priority changes nothing.
//
// # Cursors
//
// A cursor is the topic's epoch and an offset. A topic that nobody uses and whose history has aged away is forgotten;
// its cursors are CodeOutOfRange from then on, like those of another process.
//
// # Limits
//
// See [Options]. Each direction of a stream holds 16 items before Send blocks.
package mem
