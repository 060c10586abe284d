package rest

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/intermodal-go/intermodal/transport"
)

// A segment is what stands between two slashes of a pattern.
type segment struct {
	kind segmentKind
	text string // of a literal, decoded; of the others the parameter's name
}

type segmentKind uint8

const (
	literal segmentKind = iota
	param               // {name}: one segment, not empty
	rest                // {name...}: what is left of the path, slashes and all, perhaps nothing; always last
)

// A parsedRoute is a Route whose pattern has been read.
type parsedRoute struct {
	Route
	method   string
	segments []segment // of "/a/{b}": a, b; a path that ends in "/{$}" ends in an empty literal
	action   string    // "cancel" of "/orders/{id}:cancel", where the last segment is a param; else ""
	params   []string  // the names of the parameters, in the order of the path
	shape    *shape    // of the request
	do       endpoint  // of the server; nil in a client's table
}

// A table is all routes of a server or a client.
type table struct {
	routes []*parsedRoute
	root   node
}

// A node is a place in the tree of all paths: what may follow, and which routes end here.
type node struct {
	literals map[string]*node
	param    *node
	rest     methods
	actions  map[string]methods // of the params that are the segment that led here, by what follows their last colon
	methods  methods
}

// methods are the routes of one path, by method.
type methods map[string]*parsedRoute

// newTable reads the patterns. The error is CodeInvalidArgument and names the route.
func newTable(routes []Route) (*table, error) {
	t := &table{}
	for _, r := range routes {
		p, err := parseRoute(r)
		if err == nil {
			err = t.add(p)
		}
		if err != nil {
			return nil, transport.Wrap(err, transport.CodeInvalidArgument, "rest: the route %q of %q", r.Pattern, r.Topic)
		}
	}
	return t, nil
}

// find returns the first route of topic, which is the one that a client uses; nil without one.
func (t *table) find(topic string, event bool) *parsedRoute {
	for _, r := range t.routes {
		if r.Topic == topic && r.Event == event {
			return r
		}
	}
	return nil
}

func parseRoute(r Route) (*parsedRoute, error) {
	if err := transport.CheckTopic(r.Topic); err != nil {
		return nil, err
	}
	p, err := parsePattern(r.Pattern)
	if err != nil {
		return nil, err
	}
	p.Route, p.shape = r, shapeOf(r.Request)
	for _, name := range append(slices.Clone(p.params), r.Body) {
		if s, _ := p.shape.member(name); s == nil && name != "" && name != "-" {
			return nil, fmt.Errorf("the request has no member %q", name)
		}
	}
	switch {
	case r.Event && p.method == "GET":
		return nil, fmt.Errorf("GET is safe and cannot publish")
	case r.Event && (r.Status != 0 || r.Location != ""):
		return nil, fmt.Errorf("an event is answered 202: it has no status and no location")
	case r.Status != 0 && (r.Status < 200 || r.Status > 299):
		return nil, fmt.Errorf("the status %d is no success", r.Status)
	case p.method == "GET" && r.Body != "" && r.Body != "-":
		return nil, fmt.Errorf("GET has no body")
	case strings.Contains(r.Body, "."):
		return nil, fmt.Errorf("the body can be a member of the request, not a member of a member")
	}
	for reason, status := range r.Statuses {
		if status < 400 || status > 599 {
			return nil, fmt.Errorf("the status %d of %s is no failure", status, reason)
		}
	}
	return p, nil
}

func parsePattern(pattern string) (*parsedRoute, error) {
	method, path, ok := strings.Cut(pattern, " ")
	path = strings.TrimLeft(path, " ")
	switch {
	case !ok || !isToken(method):
		return nil, fmt.Errorf("a pattern is a method, a space and a path")
	case method == "HEAD" || method == "OPTIONS" || method == "CONNECT" || method == "TRACE":
		return nil, fmt.Errorf("%s cannot be a route: HEAD comes with GET, OPTIONS with every path", method)
	case path == "" || path[0] != '/':
		return nil, fmt.Errorf("the path does not begin with a slash")
	case path != "/" && strings.HasSuffix(path, "/"):
		return nil, fmt.Errorf("the path ends in a slash: write /{$} for just that, or {name...} for what is below")
	}
	p := &parsedRoute{method: method}
	for more, s := true, ""; more; {
		s, path, more = strings.Cut(path[1:], "/")
		if more {
			path = "/" + path
		}
		if err := p.addSegment(s, !more); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *parsedRoute) addSegment(s string, last bool) error {
	open := strings.IndexByte(s, '{')
	if open < 0 {
		text, err := url.PathUnescape(s)
		switch {
		case err != nil || !utf8.ValidString(text):
			return fmt.Errorf("the segment %q is not valid", s)
		case text == "." || text == ".." || s == "" && (!last || len(p.segments) > 0):
			return fmt.Errorf("the path has an empty segment or one of dots")
		}
		p.segments = append(p.segments, segment{literal, text})
		return nil
	}
	if s == "{$}" && last {
		p.segments = append(p.segments, segment{literal, ""})
		return nil
	}
	end := strings.IndexByte(s, '}')
	if open != 0 || end < 0 {
		return fmt.Errorf("the segment %q is neither a text nor {name}, {name...}, {name}:action, or {$} at the end", s)
	}
	name, isRest := strings.CutSuffix(s[1:end], "...")
	if after := s[end+1:]; after != "" {
		action, err := url.PathUnescape(strings.TrimPrefix(after, ":"))
		if after[0] != ':' || action == "" || err != nil || strings.ContainsAny(action, "{}:/") || !last || isRest {
			return fmt.Errorf("the segment %q: only a last {name} can be followed by something, an :action", s)
		}
		p.action = action
	}
	switch {
	case !isName(name):
		return fmt.Errorf("%q is no name of a parameter", name)
	case isRest && !last:
		return fmt.Errorf("{%s...} is not at the end", name)
	case slices.Contains(p.params, name):
		return fmt.Errorf("the parameter %q is there twice", name)
	}
	kind := param
	if isRest {
		kind = rest
	}
	p.params = append(p.params, name)
	p.segments = append(p.segments, segment{kind, name})
	return nil
}

// isName reports whether s may be the name of a parameter: Go identifiers joined by dots, hyphens allowed inside.
func isName(s string) bool {
	for word := range strings.SplitSeq(s, ".") {
		if word == "" {
			return false
		}
		for i, r := range word {
			if r != '_' && !unicode.IsLetter(r) && (i == 0 || r != '-' && !unicode.IsDigit(r)) {
				return false
			}
		}
	}
	return true
}

// isToken is RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// add puts p into the tree. Two routes must not be reached by the very same requests.
func (t *table) add(p *parsedRoute) error {
	n := &t.root
	for _, s := range p.segments {
		switch s.kind {
		case literal:
			next := n.literals[s.text]
			if next == nil {
				next = &node{}
				if n.literals == nil {
					n.literals = map[string]*node{}
				}
				n.literals[s.text] = next
			}
			n = next
		case param:
			if n.param == nil {
				n.param = &node{}
			}
			n = n.param
		}
	}
	at := &n.methods
	switch {
	case p.action != "":
		if n.actions == nil {
			n.actions = map[string]methods{}
		}
		if n.actions[p.action] == nil {
			n.actions[p.action] = methods{}
		}
		m := n.actions[p.action]
		at = &m
	case len(p.segments) > 0 && p.segments[len(p.segments)-1].kind == rest:
		at = &n.rest
	}
	if *at == nil {
		*at = methods{}
	}
	if old := (*at)[p.method]; old != nil {
		return fmt.Errorf("it takes the same requests as %q", old.Pattern)
	}
	(*at)[p.method] = p
	t.routes = append(t.routes, p)
	return nil
}

// match returns the route for a request and the values of its parameters, appended to dst. The path is that of URL.Path, or, if escaped is
// set, of URL.EscapedPath. From left to right a literal goes before a parameter with an action, that before one without,
// and that before {name...}; a HEAD request takes the route of GET. Without a route for method it returns nil and the
// methods that the path has.
//
// The error is CodeInvalidArgument for a path that no client should send: with segments of dots, NUL, or no UTF-8.
func (t *table) match(method, path string, escaped bool, dst []string) (*parsedRoute, []string, []string, error) {
	if method == "HEAD" {
		method = "GET"
	}
	if path == "" || path[0] != '/' {
		return nil, nil, nil, nil
	}
	if strings.Contains(path, "/.") || escaped {
		if err := checkDots(path, escaped); err != nil {
			return nil, nil, nil, err
		}
	}
	m := matcher{method: method, escaped: escaped, values: dst}
	r := m.walk(&t.root, path[1:])
	if r == nil {
		return nil, nil, slices.Sorted(maps.Keys(m.allowed)), nil
	}
	for i, v := range m.values {
		if escaped {
			var err error
			if v, err = url.PathUnescape(v); err != nil {
				return nil, nil, nil, badPath("escapes")
			}
			m.values[i] = v
		}
		if !utf8.ValidString(v) || strings.IndexByte(v, 0) >= 0 {
			return nil, nil, nil, badPath("characters")
		}
	}
	return r, m.values, nil, nil
}

func badPath(what string) error {
	return transport.Errorf(transport.CodeInvalidArgument, "the path has %s that are not allowed", what)
}

// checkDots refuses segments "." and "..", also those that are made by escapes: whoever takes a part of the path for the
// name of a file must not be led astray.
func checkDots(path string, escaped bool) error {
	if escaped {
		decoded, err := url.PathUnescape(path)
		if err != nil {
			return badPath("escapes")
		}
		path = decoded
	}
	for s := range strings.SplitSeq(path, "/") {
		if s == "." || s == ".." {
			return badPath("segments of dots")
		}
	}
	return nil
}

// A matcher is one search. The tree has no node twice, so it looks at each at most once.
type matcher struct {
	method  string
	escaped bool
	values  []string
	allowed map[string]bool
}

func (m *matcher) walk(n *node, path string) *parsedRoute {
	s, after, more := strings.Cut(path, "/")
	text := s
	if m.escaped && strings.IndexByte(s, '%') >= 0 {
		text, _ = url.PathUnescape(s)
	}
	if next := n.literals[text]; next != nil {
		if r := m.follow(next, after, more); r != nil {
			return r
		}
	}
	if next := n.param; next != nil && s != "" {
		if i := strings.LastIndexByte(s, ':'); i > 0 && !more && next.actions != nil {
			action := s[i+1:]
			if m.escaped {
				action, _ = url.PathUnescape(action)
			}
			m.values = append(m.values, s[:i])
			if r := m.pick(next.actions[action]); r != nil {
				return r
			}
			m.values = m.values[:len(m.values)-1]
		}
		m.values = append(m.values, s)
		if r := m.follow(next, after, more); r != nil {
			return r
		}
		m.values = m.values[:len(m.values)-1]
	}
	if n.rest != nil {
		m.values = append(m.values, path)
		if r := m.pick(n.rest); r != nil {
			return r
		}
		m.values = m.values[:len(m.values)-1]
	}
	return nil
}

func (m *matcher) follow(n *node, after string, more bool) *parsedRoute {
	if more {
		return m.walk(n, after)
	}
	return m.pick(n.methods)
}

// pick returns the route for the method, or notes which methods there are.
func (m *matcher) pick(ms methods) *parsedRoute {
	if r := ms[m.method]; r != nil {
		return r
	}
	for method := range ms {
		if m.allowed == nil {
			m.allowed = map[string]bool{"OPTIONS": true}
		}
		m.allowed[method] = true
		if method == "GET" {
			m.allowed["HEAD"] = true
		}
	}
	return nil
}
