package rest

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// reply answers with a success.
func (x *exchange) reply(m *transport.Message) error {
	if m == nil {
		m = &transport.Message{}
	}
	status, location := x.route.outcome(m)
	etag := ""
	if x.route.method == "GET" {
		if err := x.acceptable(m); err != nil {
			return err
		}
		if status == http.StatusOK {
			if etag = m.Header.Get(wire.HeaderETag); etag == "" {
				etag = weakETag(m.Body)
			}
			switch precondition(x.r.Header, etag, m.Header.Get("last-modified")) {
			case http.StatusNotModified:
				status = http.StatusNotModified
			case http.StatusPreconditionFailed:
				return withStatus(transport.CodeAborted, "412", "the resource is another by now")
			}
		}
	}
	h := x.w.Header()
	vary := h["Vary"]
	if hint := m.Header[wire.HeaderStatus]; hint != nil && (status == http.StatusNotModified || hint[0] == itoa(int64(status))) {
		wire.SetHeader(h, m.Header, wire.HeaderStatus)
	} else { // as mere data
		wire.SetHeader(h, m.Header)
	}
	keepVary(h, vary)
	if location != "" && h["Location"] == nil {
		h.Set("Location", location)
	}
	if x.prefer.applied != "" {
		h.Set("Preference-Applied", x.prefer.applied)
	}
	if x.route.method == "GET" {
		x.cacheable(h, etag)
	}
	if status == http.StatusNotModified {
		for name := range h {
			if !slices.Contains(notModifiedFields, name) && !strings.HasPrefix(name, "Access-Control-") {
				delete(h, name)
			}
		}
	}
	if bodyless(status) {
		x.w.WriteHeader(status)
		return nil
	}
	x.write(h, status, m.Body)
	return nil
}

// acceptable refuses what the client does not take, where no contract told before and nothing was changed.
func (x *exchange) acceptable(m *transport.Message) error {
	accept, offer := x.r.Header["Accept"], m.Header.Get(transport.HeaderContentType)
	if len(accept) == 0 || len(x.route.Types) > 0 || len(m.Body) == 0 || offer == "" {
		return nil
	}
	if _, ok := wire.Negotiate(accept, offer); !ok {
		return notAcceptable(offer)
	}
	return nil
}

// cacheable sets what caches want to know of an answer to GET.
func (x *exchange) cacheable(h http.Header, etag string) {
	keepVary(h, []string{"Accept, Accept-Encoding"})
	if h["Cache-Control"] == nil {
		control := x.route.CacheControl
		if control == "" {
			control = "no-cache"
		}
		h["Cache-Control"] = []string{control}
	}
	if etag != "" && h["Etag"] == nil {
		h["Etag"] = []string{etag}
	}
}

// write sends the header and the body.
func (x *exchange) write(h http.Header, status int, body []byte) {
	if len(body) >= minGzip && x.mayCompress(h) {
		if zipped, release, ok := compress(body); ok {
			defer release()
			body = zipped
			h["Content-Encoding"] = []string{"gzip"}
		}
	}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	x.w.WriteHeader(status)
	if x.r.Method == http.MethodHead || len(body) == 0 {
		return
	}
	if len(body) <= 4<<10 {
		x.w.Write(body) // nobody is left to be told that it failed
		return
	}
	// A client that does not read costs a bounded time. The deadline must not outlive the answer: the connection may go on
	// to serve something that lasts.
	c := http.NewResponseController(x.w)
	timed := c.SetWriteDeadline(time.Now().Add(x.s.o.WriteTimeout)) == nil
	if _, err := x.w.Write(body); err == nil && timed && c.Flush() == nil {
		c.SetWriteDeadline(time.Time{})
	}
}

// notModifiedFields are those that a 304 has (RFC 9110 section 15.4.5), and those that are not about the representation.
var notModifiedFields = []string{"Etag", "Cache-Control", "Content-Location", "Date", "Expires", "Last-Modified", "Vary",
	"Deprecation", "Sunset", "Link", "Preference-Applied"}

// mayCompress reports whether the answer with that header can be compressed. A strong entity tag names these very bytes,
// so a body that has one stays as it is.
func (x *exchange) mayCompress(h http.Header) bool {
	lines := x.r.Header["Accept-Encoding"]
	return len(lines) > 0 && acceptsGzip(lines) && compressible(h.Get("Content-Type")) &&
		!strings.HasPrefix(h.Get("Etag"), `"`) && !strings.Contains(h.Get("Cache-Control"), "no-transform")
}

// outcome returns the status of a reply and, if the reply has none, a Location.
func (p *parsedRoute) outcome(m *transport.Message) (status int, location string) {
	location = m.Header.Get(wire.HeaderLocation)
	if location == "" && p.Location != "" {
		location = expandLocation(p.Location, m.Body)
	}
	if vs := m.Header[wire.HeaderStatus]; len(vs) == 1 && len(vs[0]) == 3 {
		n, err := strconv.Atoi(vs[0])
		if err == nil && 200 <= n && n < 400 && !(bodyless(n) && len(m.Body) > 0) {
			return n, location
		}
	}
	switch {
	case p.Event && len(m.Body) == 0:
		return http.StatusAccepted, location
	case p.Status != 0 && !(bodyless(p.Status) && len(m.Body) > 0) && (len(m.Body) > 0 || location != ""):
		return p.Status, location
	case location != "":
		return http.StatusCreated, location
	case len(m.Body) == 0:
		return http.StatusNoContent, ""
	}
	return http.StatusOK, ""
}

// bodyless reports whether an answer of that status has no body.
func bodyless(status int) bool {
	return status == http.StatusNoContent || status == http.StatusResetContent || status == http.StatusNotModified
}

// expandLocation fills a template with members of a reply. It is "" if one is missing.
func expandLocation(template string, body []byte) string {
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return ""
	}
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(template, "{")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		name, after, _ := strings.Cut(after, "}")
		raw := members[name]
		var text string
		switch {
		case len(raw) == 0 || raw[0] == 'n' || raw[0] == '{' || raw[0] == '[':
			return ""
		case raw[0] != '"':
			text = string(raw)
		case json.Unmarshal(raw, &text) != nil || text == "":
			return ""
		}
		b.WriteString(strings.ReplaceAll(url.PathEscape(text), ":", "%3A"))
		template = after
	}
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// printable returns a short name as it can stand in an error.
func printable(s string) string {
	if len(s) > 30 || !isToken(s) {
		return "like that"
	}
	return s
}
