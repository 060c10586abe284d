// Package rest carries calls and events over HTTP as resources and verbs, with nothing on the wire that curl, a browser or an
// OpenAPI tool does not know.
//
//	routes := []rest.Route{rest.For(shop.GetUser, "GET /users/{id}"), rest.ForEvent(shop.Placed, "POST /orders")}
//	server, err := rest.NewServer(backend, &rest.Options{Routes: routes})
//	client, err := rest.NewClient("https://api.example.com", &rest.ClientOptions{Routes: routes})
//
// A [Route] binds a topic to a method and a path. One table of them drives the server's mux, the client's URLs and the
// [OpenAPI] document. Besides, every operation is at POST /calls/{topic} and every topic at POST /topics/{topic}. GET
// /topics/{topic} is not used here: give a mux "POST /topics/{topic}" if something else serves it.
//
// # Wire format
//
//	PUT /users/7?notify=true HTTP/1.1              HTTP/1.1 200 OK
//	Content-Type: application/json                 Content-Type: application/json
//	If-Match: "v1"                                 Etag: "v2"
//
//	{"name":"Ann"}                                 {"id":7,"name":"Ann"}
//
// The handler of that gets {"name":"Ann","id":7,"notify":true}. There is no envelope: the body is the message's body, its
// header is in the fields (see package wire), its ID in Intermodal-Id, escaped as in a path, and for events in ce-id. Where
// nothing is to be merged the body passes byte for byte, whatever its type.
//
// # Binding
//
// What is in the path goes before what is in the query, and that before the body. The names are those of the request's JSON
// members; "filter.status" is a member of a member. The Go type of the request says what is a number or a boolean, and that
// a list is a repeated name; without a type all are strings. Members that have no form in a query, such as a list of
// objects, are JSON there. Parameters that the request does not have are ignored. What is of the wrong type is 400 with
// [ReasonParameter]. Path, query and merged bodies are UTF-8, a path has no segments of dots, JSON is at most 500 levels deep.
//
// # Statuses
//
//   - 200; 201 with a Location; 204 without a body; 202 for events and deferred calls; 304. A reply says otherwise by its
//     header status (2xx or 3xx), a Route by Status and Location.
//   - Errors are problem documents (RFC 9457) with the status of their Code, see package wire, or the one in their header
//     status, or in Route.Statuses. The texts of other errors stay in the process; see Options.OnError.
//   - Our own: 400, 401 with WWW-Authenticate, 404, 405 with Allow, 406, 408 for a slow body, 412, 413, 414, 415 with Accept or
//     Accept-Encoding, 428 for Route.RequireMatch, 431, 503 with Retry-After when there is too much to do, or while draining,
//     then with Connection: close.
//
// HEAD is served by GET, OPTIONS by every path. Of a batch of events that was taken in part, the error's header failed has
// the places of those that were not.
//
// # Conditional requests
//
// An answer to GET has an ETag: the reply's, or a weak one made of the body. On GET and HEAD the server evaluates If-Match,
// If-Unmodified-Since, If-None-Match and If-Modified-Since in the order of RFC 9110 section 13.2.2. For all other methods
// they are the handler's, who alone can compare and change in one step: it finds them in the message's header, and refuses
// with CodeAborted and the header status 412.
//
// Bodies from 1 KiB are compressed with gzip if that is accepted and pays. Not where the reply has a strong etag, which names
// these very bytes: give a weak one.
//
// # Time
//
// A call ends when the client leaves, or at the deadline: Grpc-Timeout, Connect-Timeout-Ms, or Prefer: wait=N in seconds, up
// to Options.MaxTimeout; else Options.Timeout.
//
// With Prefer: respond-async (RFC 7240) a call goes on behind a 202, whose Location answers 202 while it runs and then 303 to
// /async/{id}/result, which is what the call would have been answered with. GET with Prefer: wait=N waits there. DELETE
// cancels the call or drops the result. With wait=N in the first request an outcome within that time is the answer itself.
// Only who asked gets the result, by Peer.ID. It is kept for Options.ResultAge, then it is 410; an unknown one is 404. Jobs
// run in the server that took them, under a context of its own for at most Options.JobTimeout.
//
// # Idempotency-Key
//
// A POST or PATCH with that field (draft-ietf-httpapi-idempotency-key-header-07) is handled once: who sends it again gets the
// same status, fields and body, marked Idempotency-Replayed: true; 409 while the first still runs; 422 if its type or body is
// another. Keys are apart by Peer.ID, route and topic. An error that is [transport.Retryable] is not kept, so that sending
// again helps. A call with a key goes on when the client leaves: it will be asked for again.
//
// # Delivery
//
// Publish returns nil when the server's backend has taken the event. Nothing is deduplicated by ID; use an idempotency-key.
//
// # Limits
//
// See [Options] and [ClientOptions]: all sizes, times and counts are bounded, with defaults. Of http.Server set
// ReadHeaderTimeout and IdleTimeout; ReadTimeout and WriteTimeout are per request here, where the ResponseWriter lets
// http.ResponseController do it. HTTP/1.0, 1.1 and 2 work, the latter over TLS or, with http.Protocols, in clear text.
package rest
