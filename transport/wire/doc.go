// Package wire is for those who implement protocols: what package transport says in Go, said in HTTP, JSON-RPC, AMQP and
// CloudEvents. It does no I/O of its own but for reading and writing the HTTP bodies it is given, and leaves no goroutine
// behind. All functions are safe for concurrent use, and decoders take whatever a peer may send without panicking.
//
//   - Codes: [HTTPStatus], [RPCCode], [CloseCode], [AMQPOutcomeOf] and their reverses.
//   - Errors: [AppendProblem] and [ParseProblem]; [WriteProblem] and [ErrorFrom] over HTTP.
//   - Headers: [SetHeader] and [SplitHeader] for calls over HTTP, [AppendJSONHeader], [AppendHeaderList].
//   - Events: [AppendEvent], [AppendEvents], [SetEvent] and their reverses; [ReadEvents] for any HTTP request.
//   - HTTP: [ReadBody], [Negotiate].
//   - What a connection needs between the goroutine that reads it and the application: [Inbox] for subscriptions and calls
//     that come in, [Stream] and [Backlog] for streams, [Bridge] to join a stream to another transport's.
//
// # Codes
//
// Each Code has one number in each protocol. HTTP has fewer numbers than there are codes, and WebSocket too, so the name of
// the code stands beside the number wherever there is room for it, and wins. The reverses are for peers that send the
// number alone, and never return success. Codes without a mark come back from the bare number.
//
//	code                    HTTP        JSON-RPC   WebSocket close   AMQP consumer without reply-to
//	1  canceled             499         -32001     1001              give back at once
//	2  unknown              500         -32002     1011              again, delayed
//	3  invalid_argument     400         -32602     4400              reject
//	4  deadline_exceeded    504         -32004     4408              again, delayed
//	5  not_found            404         -32005     4404              reject
//	6  already_exists       409 (10)    -32006     4409 (10)         reject
//	7  permission_denied    403         -32007     4403              reject
//	8  resource_exhausted   429         -32008     4429              again, delayed
//	9  failed_precondition  400 (3)     -32009     4412              reject
//	10 aborted              409         -32010     4409              again, delayed
//	11 out_of_range         400 (3)     -32011     4416              reject
//	12 unimplemented        501         -32601     4501              reject
//	13 internal             500 (2)     -32603     4500              again, delayed
//	14 unavailable          503         -32014     1013              again, delayed
//	15 data_loss            500 (2)     -32015     1011 (2)          reject
//	16 unauthenticated      401         -32016     4401              reject
//
// -32001 to -32016 lie in the block that JSON-RPC leaves to implementations, 4000 to 4999 in the one that RFC 6455 leaves
// to applications.
//
// # Headers
//
// Keys with a meaning, and where each sits. "header" is the place that any other key has:
//
//   - HTTP, calls: the field of that name, or Intermodal-Header for what HTTP cannot carry, see [SetHeader];
//   - HTTP, events, and CloudEvents: the attribute intermodalheader, see [AppendEvent]. Plain HTTP requests can give a
//     server's Options.Headers a field of that name;
//   - JSON-RPC: the member header of meta, which stands beside params or result, or the member header beside data, an
//     object, see [AppendJSONHeader]. The ID is the member id there;
//   - AMQP: the headers table: a string, an array of them for several values, a byte array under a -bin key.
//
// The table:
//
//	key               HTTP                          CloudEvents       JSON-RPC  AMQP
//	(ID)              Intermodal-Id; events: ce-id  id                id member message-id
//	(Topic)           path; events: ce-type         type              method    routing key
//	content-type      Content-Type                  datacontenttype   header    content-type
//	content-encoding  Intermodal-Header             header            header    content-encoding
//	idempotency-key   Idempotency-Key, quoted       header            header    header
//	traceparent       traceparent                   traceparent       header    header
//	tracestate        tracestate                    tracestate        header    header
//	baggage           baggage                       header            header    header
//	ce-<name>         ce-<name>                     <name>            header    header
//	reply-to          header                        header            header    reply-to
//	correlation-id    header                        header            header    correlation-id
//	deadline          header                        header            header    header
//	ttl               Intermodal-Header             header            header    expiration
//	delay             header                        header            header    header
//	priority          Intermodal-Header             header            header    priority
//	dead-letter-*     header                        header            header    header
//	status            status line                   header            header    header
//	location, etag    header                        header            header    header
//	grpc-trailer-*    header                        header            header    header
//	cursor, of errors problem document              -                 problem   problem
//
// ttl and delay are decimal milliseconds, deadline is RFC 3339 in UTC, priority is 0 to 9, status is three digits. HTTP's
// own fields TTL and Priority mean something else and are not these. All other header fields of HTTP have their usual
// names and meanings as keys of calls: accept, if-match, cache-control, link, location.
//
// Credentials, cookies, fields of the connection and of the way that a request took are no headers of a message. They go
// to Peer.Header, see [PeerField]. A message that has a key of such a name all the same carries it where it is mere data.
//
// # Limits
//
// Bodies are read up to a limit before and after decompression, a batch has at most 1000 events by default, a header
// 16 KiB. Encoded, a header may be up to a third larger, and over HTTP events' attributes in Unicode up to three times.
package wire
