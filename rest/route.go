package rest

import (
	"reflect"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// A Route says how an operation or an event looks as a resource: a verb, a path, and how the two sides of HTTP bind to
// the request and the reply. One table of routes drives the server's mux, the client's URLs, and the OpenAPI document.
// [For] and [ForEvent] make one from a contract; change its fields before it is used.
type Route struct {
	// Topic is the operation or the event.
	Topic string
	// Pattern is a method and a path, much as in http.ServeMux: "GET /users/{id}", "GET /files/{path...}",
	// "GET /users/{$}" for a path that ends in a slash. The last segment may end in an action,
	// "POST /orders/{id}:cancel". There is no host and no trailing slash, GET serves HEAD as well, and where two patterns
	// match, the one that has a literal first, from left to right, goes before the other. The name of a parameter is that
	// of a member of the request, or the way to one, "user.id".
	Pattern string
	// Event makes the route publish instead of call; it answers 202.
	Event bool

	// Body names the member of the request that the body is. "" means the whole request, "-" that there is no body, as
	// always with GET. Path parameters go before query parameters, and both before what the body says. If the member is
	// a []byte or a string, the body may be of any media type.
	Body string
	// Types are the media types that bodies may have; a request of the first needs none to be named. Others are refused,
	// with 415, or 406 if it is the reply that the client would not accept. [For] takes them from the codecs. None means
	// that any body reaches the handler.
	Types []string
	// Status is that of a success with a body; a status header in the reply goes before it. 0 means 200, and 201 if the
	// reply has a location. A success without a body is 204.
	Status int
	// Location is a path template for the Location of a 201, filled from the members of the reply: "/users/{id}". The
	// reply's own location header goes before it.
	Location string
	// CacheControl is the Cache-Control of successes to GET, unless the reply has its own. "" means "no-cache": caches
	// may keep it but must ask, which the ETag makes cheap.
	CacheControl string

	// Idempotent says that a POST or PATCH may be sent again. GET, HEAD, PUT and DELETE always are.
	Idempotent bool
	// RequireKey refuses requests without an Idempotency-Key (400).
	RequireKey bool
	// RequireMatch refuses requests without If-Match (428): no lost updates.
	RequireMatch bool
	// Statuses maps the Reason of an error to an HTTP status, where the table of package wire is too coarse.
	Statuses map[string]int

	// Deprecated and Sunset, if not zero, are announced in the headers of those names (RFC 9745, RFC 8594).
	Deprecated, Sunset time.Time

	// For the OpenAPI document.
	Summary, Description string
	Tags                 []string
	// Request and Response are the Go types, nil if unknown. They also tell which parameters are numbers.
	Request, Response reflect.Type
	// Example and ExampleReply, if not nil, are shown as they marshal.
	Example, ExampleReply any
}

// For returns the route of an operation.
func For[In, Out any](op transport.Operation[In, Out], pattern string) Route {
	return Route{Topic: op.Topic, Pattern: pattern, Types: types(op.Codecs),
		Request: reflect.TypeFor[In](), Response: reflect.TypeFor[Out]()}
}

// ForEvent returns the route that publishes an event.
func ForEvent[T any](e transport.Event[T], pattern string) Route {
	return Route{Topic: e.Topic, Pattern: pattern, Event: true, Types: types(e.Codecs), Request: reflect.TypeFor[T]()}
}

// types are the media types of a contract's codecs.
func types(codecs []transport.Codec) []string {
	if len(codecs) == 0 {
		return []string{transport.JSON.ContentType()}
	}
	ts := make([]string, len(codecs))
	for i, c := range codecs {
		ts[i] = c.ContentType()
	}
	return ts
}
