package rest

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// CORS lets browsers use the server from pages of other origins (https://fetch.spec.whatwg.org/#http-cors-protocol).
// Without it no such page can read an answer.
type CORS struct {
	// Origins are those that may, such as "https://app.example.com", or "*" for all.
	Origins []string
	// Headers are the fields that such pages may send beside the usual ones: "*" for all but Authorization, which must
	// always be named. The default is Content-Type, Authorization, Idempotency-Key, Prefer, If-Match, If-None-Match,
	// Intermodal-Header, Intermodal-Id, Traceparent and Tracestate.
	Headers []string
	// Expose are the fields of an answer that such pages may see beside the harmless ones: "*" for all. The default is
	// ETag, Link, Location, Retry-After, Preference-Applied, Intermodal-Header, Deprecation and Sunset.
	Expose []string
	// Credentials lets cookies and client certificates through. It cannot be combined with "*".
	Credentials bool
	// MaxAge is how long a browser may remember what is allowed. 0 means 10 minutes.
	MaxAge time.Duration
}

// A cors is a CORS, made ready.
type cors struct {
	CORS
	all             bool
	headers, expose string
	maxAge          string
}

func newCORS(o *CORS) (*cors, error) {
	if o == nil {
		return nil, nil
	}
	c := &cors{CORS: *o, all: slices.Contains(o.Origins, "*")}
	if c.Credentials && (c.all || slices.Contains(o.Headers, "*") || slices.Contains(o.Expose, "*")) {
		return nil, transport.Errorf(transport.CodeInvalidArgument, `rest: CORS with credentials cannot allow "*"`)
	}
	if len(c.Origins) == 0 {
		return nil, transport.Errorf(transport.CodeInvalidArgument, "rest: CORS without origins")
	}
	for _, list := range [][]string{o.Origins, o.Headers, o.Expose} {
		for _, item := range list {
			if item == "" || strings.ContainsAny(item, ", \r\n\x00") {
				return nil, transport.Errorf(transport.CodeInvalidArgument, "rest: CORS cannot use %q", item)
			}
		}
	}
	if c.Headers == nil {
		c.Headers = []string{"Content-Type", "Authorization", "Idempotency-Key", "Prefer", "If-Match", "If-None-Match",
			"Intermodal-Header", "Intermodal-Id", "Traceparent", "Tracestate"}
	}
	if c.Expose == nil {
		c.Expose = []string{"ETag", "Link", "Location", "Retry-After", "Preference-Applied", "Intermodal-Header",
			"Deprecation", "Sunset"}
	}
	if c.MaxAge <= 0 {
		c.MaxAge = 10 * time.Minute
	}
	c.headers, c.expose = strings.Join(c.Headers, ", "), strings.Join(c.Expose, ", ")
	c.maxAge = strconv.Itoa(int(c.MaxAge / time.Second))
	return c, nil
}

// allow sets the fields that let the page see the answer. It reports whether r is a preflight that is allowed: the answer
// to that needs the methods too.
func (c *cors) allow(h http.Header, r *http.Request) (preflight bool) {
	if !c.all {
		h.Add("Vary", "Origin")
	}
	origin := r.Header.Get("Origin")
	switch {
	case origin == "":
		return false
	case c.all:
		h.Set("Access-Control-Allow-Origin", "*")
	case slices.Contains(c.Origins, origin):
		h.Set("Access-Control-Allow-Origin", origin)
		if c.Credentials {
			h.Set("Access-Control-Allow-Credentials", "true")
		}
	default:
		return false
	}
	if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
		return true
	}
	h.Set("Access-Control-Expose-Headers", c.expose)
	return false
}

// preflight says what requests to a path may be like.
func (c *cors) preflight(h http.Header, allowed []string) {
	h.Set("Access-Control-Allow-Methods", strings.Join(allowed, ", "))
	h.Set("Access-Control-Allow-Headers", c.headers)
	h.Set("Access-Control-Max-Age", c.maxAge)
}
