package rest

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func TestExpand(t *testing.T) {
	type ref struct {
		ID string `json:"id"`
	}
	type typed struct {
		User   ref             `json:"user"`
		Tags   []string        `json:"tags"`
		Items  []ref           `json:"items"`
		Labels map[string]int  `json:"labels"`
		Any    any             `json:"any"`
		Big    int64           `json:"big,string"`
		Text   string          `json:"text,string"`
		Raw    json.RawMessage `json:"raw"`
	}
	untyped := transport.Operation[map[string]any, any]{Topic: "t"}
	for _, tc := range []struct {
		pattern, body string // of the route
		request       string
		want          string // path?query body
	}{
		{"POST /x", "", "not JSON\x00", "/x not JSON\x00"},
		{"PUT /x/{id}", "", `{"id":7,"a":[1, 2],"b":{"c":null}}`, `/x/7 {"a":[1, 2],"b":{"c":null}}`},
		{"PUT /x/{id}", "", `{"a":1,"ID":"x","id":"y"}`, `/x/y {"a":1}`},
		{"PUT /x/{id}", "", `{"a":1,"ID":"x"}`, `/x/x {"a":1}`},
		{"PUT /x/{id}", "", `{"a":1,"id":"x","a":2}`, `/x/x {"a":2}`},
		{"POST /x/{id}:go", "", `{"id":"a:b"}`, `/x/a%3Ab:go {}`},
		{"POST /x/{id}", "-", `{"id":1.50,"n":"v"}`, `/x/1.50?n=v `},
		{"POST /x/{id}", "doc", `{"id":true,"doc":[1, 2],"n":"v"}`, `/x/true?n=v [1, 2]`},
		{"POST /x/{id}", "doc", `{"id":1}`, `/x/1 `},
		{"GET /x/{id}", "", `{"id":"a/b ü%?#&=+;","e":""}`, `/x/a%2Fb%20%C3%BC%25%3F%23&=+%3B?e= `},
		{"GET /x/{p...}", "", `{"p":"a/b c/ü"}`, `/x/a/b%20c/%C3%BC `},
		{"GET /x/{p...}", "", `{"p":""}`, `/x/ `},
		{"GET /x/{$}", "", ``, `/x/ `},
		{"GET /", "", `null`, `/ `},
		{"GET /x", "", `{"l":["a","b&",1,true],"e":[],"n":null,"o":{"p":{"q":1},"r":"s"},"x":{}}`, `/x?l=a&l=b%26&l=1&l=true&o.p.q=1&o.r=s `},
		{"DELETE /x/{id}", "", `{"id":1,"force":true}`, `/x/1?force=true `},
	} {
		p, err := parseRoute(Route{Topic: "t", Pattern: tc.pattern, Body: tc.body})
		require.NoError(t, err, tc.pattern)
		x, err := p.expand(&transport.Message{Body: []byte(tc.request)})
		require.NoError(t, err, tc.request)
		target := x.path
		if x.query != "" {
			target += "?" + x.query
		}
		require.Equal(t, tc.want, target+" "+string(x.body), tc.request)
	}
	p, err := parseRoute(Route{Topic: "t", Pattern: "GET /x/{user.id}", Request: For(transport.Operation[typed, any]{Topic: "t"}, "GET /").Request})
	require.NoError(t, err)
	x, err := p.expand(&transport.Message{Body: []byte(
		`{"user":{"id":"7"},"tags":["a"],"items":[{"id":"b"}],"labels":{"x.y":1},"any":"5","big":"12","text":"\"q\"","raw":null}`)})
	require.NoError(t, err)
	q, err := url.ParseQuery(x.query)
	require.NoError(t, err)
	require.Equal(t, url.Values{"user.id": {"7"}, "tags": {"a"}, "items": {`[{"id":"b"}]`}, "labels.x.y": {"1"}, "any": {`"5"`}, "big": {"12"}, "text": {"q"}}, q)
	require.Equal(t, "/x/7", x.path)
	require.NotEmpty(t, For(untyped, "GET /").Types)

	for _, request := range []string{`{"id":"."}`, `{"id":".."}`, `{"id":"a/../b"}`, `{"id":"\u0000"}`, `{"id":""}`, `{"id":[]}`, `{}`, `[]`, `{`, `{"id":1,"l":[null]}`, `{"id":1,"l":[{}]}`, "\xff"} {
		p, err := parseRoute(Route{Topic: "t", Pattern: "GET /x/{id}"})
		require.NoError(t, err)
		_, err = p.expand(&transport.Message{Body: []byte(request)})
		require.ErrorIs(t, err, transport.CodeInvalidArgument, request)
	}
}

// What a client makes of a request the server reads as the same request.
func FuzzExpand(f *testing.F) {
	type request struct {
		ID    string            `json:"id"`
		Path  string            `json:"path"`
		N     int               `json:"n"`
		Flag  bool              `json:"flag,omitempty"`
		Texts []string          `json:"texts,omitempty"`
		Map   map[string]string `json:"map,omitempty"`
		Any   any               `json:"any,omitempty"`
	}
	op := transport.Operation[request, any]{Topic: "t"}
	var routes []Route
	for _, pattern := range []string{"GET /things/{id}", "PUT /things/{id}", "POST /things/{id}:go", "DELETE /things/{id}/parts/{n}",
		"GET /files/{id}/{path...}", "PATCH /files/{path...}", "GET /things/fixed", "POST /all", "GET /{id}", "GET /n/{n}/{$}"} {
		routes = append(routes, For(op, pattern))
	}
	body := For(op, "POST /bodies/{id}")
	body.Body = "texts"
	routes = append(routes, body)
	table, err := newTable(routes)
	require.NoError(f, err)
	f.Add("a", "b/c", 7, "d", "e", uint8(0))
	f.Add("a:go", "/", -1, "[1]", "k.k", uint8(2))
	f.Add("fixed", "x//y/", 0, "&=+ %2F;", "", uint8(0))
	f.Add("..", "a/./b", 0, "\u2028", "true", uint8(4))
	f.Add("%2e%2e", "%", 0, "null", "\"7\"", uint8(4))
	f.Add("ü☃/?#", "..", 1<<40, "", "K", uint8(10))
	f.Fuzz(func(t *testing.T, id, path string, n int, text, key string, which uint8) {
		for _, s := range []string{id, path, text, key} {
			if !utf8.ValidString(s) { // JSON has no other strings
				return
			}
		}
		want := request{ID: id, Path: path, N: n, Flag: n > 0, Texts: []string{text, id}, Map: map[string]string{key: text, "x": id}, Any: text}
		raw, err := json.Marshal(want)
		require.NoError(t, err)
		p := table.routes[int(which)%len(table.routes)]
		x, err := p.expand(&transport.Message{Body: raw})
		if err != nil {
			require.ErrorIs(t, err, transport.CodeInvalidArgument)
			return
		}
		u, err := url.ParseRequestURI(x.path + "?" + x.query)
		require.NoError(t, err)
		at, escaped := u.Path, u.RawPath != ""
		if escaped {
			at = u.EscapedPath()
		}
		got, values, _, err := table.match(p.method, at, escaped, nil)
		require.NoError(t, err)
		require.NotNil(t, got, "%s is no route", x.path)
		if p.Pattern == "GET /things/{id}" && id == "fixed" || p.Pattern == "GET /{id}" && got.Pattern != p.Pattern {
			return // another route's literal goes first
		}
		require.Equal(t, p.Pattern, got.Pattern, x.path)
		bound, _, err := p.bind(values, u.RawQuery, "application/json", x.body)
		require.NoError(t, err, "%s?%s %s", x.path, x.query, x.body)
		var back request
		require.NoError(t, json.Unmarshal(bound, &back), "%s", bound)
		require.Equal(t, want, back, "%s?%s %s", x.path, x.query, x.body)
	})
}

func TestNextLink(t *testing.T) {
	for line, want := range map[string]string{
		``:                             "",
		`<a>; rel=next`:                "a",
		`<a>; rel="next"`:              "a",
		`<a>;REL="prev Next"`:          "a",
		`<a>; rel=prev; rel=next`:      "", // the first counts
		`<a>; rel=prev, <b>; rel=next`: "b",
		`<a,b;c>; title="x, <y>; rel=next\"";rel=next`: "a,b;c",
		`<a>; rel=nextish`:           "",
		`<a>; rel=next; anchor="#x"`: "",
		`<>; rel=next`:               "",
		`,, <a> ; rel = next`:        "a",
		`a; rel=next`:                "",
		`<a; rel=next`:               "",
		`<a>; rel="ne\xt"`:           "a",
		`<a>`:                        "",
	} {
		target, _ := nextLink([]string{line})
		require.Equal(t, want, target, line)
	}
}

func FuzzLinks(f *testing.F) {
	f.Add(`<https://example.com/?page=2>; rel="next", <x>; rel=last; title="a, \"b\""`)
	f.Add(`<a>;;;=;rel=,<b`)
	f.Add(`<`)
	f.Fuzz(func(t *testing.T, line string) {
		n := 0
		for target, params := range links(line) {
			require.NotContains(t, target, ">")
			for name := range params {
				require.Equal(t, strings.ToLower(name), name)
			}
			n++
		}
		require.LessOrEqual(t, n, strings.Count(line, "<"))
		if target, ok := nextLink([]string{line}); ok {
			require.Contains(t, line, target)
		}
	})
}

func TestCacheControl(t *testing.T) {
	none := cacheControl{maxAge: -1}
	for line, want := range map[string]cacheControl{
		"": none, "public, s-maxage=7, immutable": none,
		"no-store": {noStore: true, maxAge: -1}, "No-Cache": {noCache: true, maxAge: -1}, `no-cache="a, b"`: {noCache: true, maxAge: -1},
		"only-if-cached": {onlyIfCached: true, maxAge: -1}, "max-age=60": {maxAge: time.Minute}, `max-age="60"`: {maxAge: time.Minute},
		"max-age=60, max-age=7": {maxAge: 7 * time.Second}, "max-age=x": {}, "max-age": {}, "max-age=-1": {}, "max-age=1.5": {},
		"max-age=99999999999999999999999": {maxAge: 1 << 31 * time.Second}, `x="no-store, max-age=1"`: none, ` max-age = 5 ,`: {maxAge: 5 * time.Second},
	} {
		require.Equal(t, want, parseCacheControl([]string{line}), line)
	}
}

func FuzzCacheControl(f *testing.F) {
	f.Add(`max-age=60, no-cache="x", no-store`)
	f.Add(`max-age="`)
	f.Fuzz(func(t *testing.T, line string) {
		cc := parseCacheControl([]string{line})
		require.GreaterOrEqual(t, cc.maxAge, time.Duration(-1))
		more := parseCacheControl([]string{line, "no-store, max-age=0"})
		require.Zero(t, more.maxAge)
		require.True(t, more.noStore)
		require.Equal(t, cc.noCache, more.noCache)
	})
}
