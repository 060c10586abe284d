package rest

import (
	"context"
	"iter"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// Pages calls m and yields its reply, then follows the Link with the relation "next" of each reply (RFC 8288) by GET, with
// the header fields that m gave, until there is none. An error is the last pair.
//
// A link leads to the base URL's origin, or to one in [ClientOptions].Origins, where Authorize and Header do not apply;
// else it is CodeFailedPrecondition. More pages than ClientOptions.MaxPages are CodeResourceExhausted, and so is a link to a
// page that was there before. The default timeout is that of each page.
func (c *Client) Pages(ctx context.Context, m *transport.Message) iter.Seq2[*transport.Message, error] {
	return func(yield func(*transport.Message, error) bool) {
		if err := check(m, c.maxBytes); err != nil {
			yield(nil, err)
			return
		}
		q, err := c.requestFor(m)
		seen := map[string]bool{}
		for err == nil {
			var a *answer
			var reply *transport.Message
			if a, err = c.do(ctx, q); err == nil {
				reply, err = a.message(c.maxBytes)
			}
			if err != nil {
				break
			}
			next, ok := nextLink(a.header["Link"])
			if !yield(reply, nil) || !ok {
				return
			}
			seen[q.url.String()] = true
			q, err = c.nextPage(q, next, seen)
		}
		yield(nil, err)
	}
}

// nextPage returns the request for the page that link leads to from q.
func (c *Client) nextPage(q *request, link string, seen map[string]bool) (*request, error) {
	u, err := q.url.Parse(link)
	if err != nil {
		return nil, transport.Wrap(err, transport.CodeInternal, "the link to the next page is no URL")
	}
	u.Fragment, u.RawFragment = "", ""
	switch {
	case !c.isHome(u) && !c.origins[origin(u)]:
		return nil, transport.Errorf(transport.CodeFailedPrecondition, "the link to the next page leads to another origin")
	case seen[u.String()]:
		return nil, transport.Errorf(transport.CodeResourceExhausted, "the link to the next page leads back")
	case len(seen) >= c.maxPages:
		return nil, transport.Errorf(transport.CodeResourceExhausted, "there are more than %d pages", c.maxPages)
	}
	return c.follow(q.m, u), nil
}

// follow returns a GET request for u with what m says about the representation that it wants.
func (c *Client) follow(m *transport.Message, u *url.URL) *request {
	h := c.newHeader(u, len(m.Header))
	wire.SetHeader(h, m.Header, transport.HeaderContentType, transport.HeaderIdempotencyKey, "prefer", "range",
		"if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range")
	return &request{m: m, method: http.MethodGet, url: u, header: h}
}

// origin is the scheme, host and port of a URL.
func origin(u *url.URL) string {
	port := u.Port()
	scheme := strings.ToLower(u.Scheme)
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[scheme]
	}
	return scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// isHome reports whether u has the origin of the base URL, which alone gets credentials.
func (c *Client) isHome(u *url.URL) bool {
	return u.Host == c.base.Host && u.Scheme == c.base.Scheme || origin(u) == origin(c.base)
}

// nextLink returns the target of the first link with the relation "next".
func nextLink(lines []string) (target string, ok bool) {
	for _, line := range lines {
		for target, params := range links(line) {
			for rel := range strings.FieldsSeq(params["rel"]) {
				if _, elsewhere := params["anchor"]; strings.EqualFold(rel, "next") && !elsewhere {
					return target, true
				}
			}
		}
	}
	return "", false
}

// links yields the links in a Link field: the target, and the parameters by their names in lower case, the first of each
// name (RFC 8288 section 3 and appendix B.2). What follows something malformed is left out.
func links(line string) iter.Seq2[string, map[string]string] {
	return func(yield func(string, map[string]string) bool) {
		for {
			line = strings.TrimLeft(line, " \t,")
			end := strings.IndexByte(line, '>')
			if end < 0 || line[0] != '<' {
				return
			}
			target := textproto.TrimString(line[1:end])
			var list string
			list, line = cutItem(line[end+1:])
			params := map[string]string{}
			for param := range listItems(list, ';') {
				name, value, _ := strings.Cut(param, "=")
				name = strings.ToLower(textproto.TrimString(name))
				if _, again := params[name]; name != "" && !again {
					params[name] = unquote(textproto.TrimString(value))
				}
			}
			if !yield(target, params) {
				return
			}
		}
	}
}

// cutItem cuts a list at its first comma that is not in quotes.
func cutItem(list string) (item, rest string) {
	quoted := false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == ',' && !quoted:
			return list[:i], list[i+1:]
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		}
	}
	return list, ""
}

// unquote returns the content of a quoted string; what is none is returned as it is.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	s = s[1 : len(s)-1]
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}
