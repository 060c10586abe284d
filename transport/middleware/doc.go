// Package middleware has the wrappers that most handlers need. Each is a [transport.Middleware], a function from
// Handler to Handler, so each also works on the sending side: a Caller's Call is a Handler, and [transport.NoReply]
// makes one of a Publisher's Publish.
//
//	Recover    a panic becomes an error
//	Timeout    bounds the handler's context
//	Retry      tries again after an error that may pass
//	Dedup      handles each message once and replays the outcome to its duplicates
//	Log        one record per message
//	Limit      how many at once, how many per second
//
// # Order
//
// The first of [transport.Chain] and [transport.Use] is the outermost. Around a handler:
//
//	transport.Use(middleware.Log(nil, nil), middleware.Limit(limits), middleware.Dedup(nil),
//		middleware.Timeout(10*time.Second), middleware.Recover())
//
// Log sees what the others refuse. Limit refuses before Dedup claims. Dedup remembers what Timeout and Recover made of
// the outcome: a refusal too, unless it has SuccessesOnly, as handlers of what is redriven need. Retry is rarely needed there, because a transport redelivers events by itself; it would stand between
// Dedup and Timeout, so that each try has the whole timeout. Around a client:
//
//	call := transport.Chain(middleware.Log(nil, nil), middleware.Retry(nil), middleware.Limit(limits),
//		middleware.Timeout(time.Second))(client.Call)
//
// There Retry waits as long as Limit's refusal asks for, and Timeout bounds each try while ctx bounds them all. A try
// that Timeout ended is sent again only with an idempotency-key: the work may have been done.
//
// # Sharing
//
// What one call of Limit or Dedup returns has one state: all handlers that it wraps share it. All are safe for
// concurrent use, none starts a goroutine, and none writes into a Message.
package middleware
