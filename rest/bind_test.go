package rest

import (
	"encoding/json"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

type color struct{}

func (c *color) UnmarshalText(text []byte) error { return nil }

type odd struct{}

func (o *odd) UnmarshalJSON([]byte) error { return nil }

type Base struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Depth int    `json:"hidden"`
}

type hidden struct {
	Inner string
}

type search struct {
	Base
	hidden
	Limit   int8               `json:"limit,omitempty"`
	Count   *uint16            `json:"count"`
	Ratio   float64            `json:"ratio"`
	Small   float32            `json:"small"`
	On      bool               `json:"on"`
	Tags    []string           `json:"tags"`
	Nums    []int              `json:"nums"`
	Since   time.Time          `json:"since"`
	Wait    time.Duration      `json:"wait"`
	Color   *color             `json:"color"`
	Any     any                `json:"any"`
	Odd     odd                `json:"odd"`
	Raw     json.RawMessage    `json:"raw"`
	Num     json.Number        `json:"num"`
	Data    []byte             `json:"data"`
	Quoted  int                `json:"quoted,string"`
	QText   string             `json:"qtext,string"`
	Labels  map[string]string  `json:"labels"`
	Filter  struct{ A, B int } `json:"filter"`
	Nodes   []struct{ X int }  `json:"nodes"`
	Next    *search            `json:"next"`
	Dotted  string             `json:"a.b"`
	Skipped string             `json:"-"`
	_       string
}

func bound(t *testing.T, r Route, values []string, query, contentType, body string) (string, string, error) {
	p, err := parseRoute(r)
	require.NoError(t, err)
	b, ct, err := p.bind(values, query, contentType, []byte(body))
	return string(b), ct, err
}

func TestBindQuery(t *testing.T) {
	r := Route{Topic: "t", Pattern: "GET /s", Request: typeOf[search]()}
	for query, want := range map[string]string{
		"":                            ``,
		"unknown=1&utm=2&Limit=3":     ``,
		"limit=5":                     `{"limit":5}`,
		"limit=-128":                  `{"limit":-128}`,
		"limit=007":                   `{"limit":7}`,
		"count=65535&id=9":            `{"count":65535,"id":9}`,
		"ratio=1e300&small=-0.5":      `{"ratio":1e300,"small":-0.5}`,
		"on=true":                     `{"on":true}`,
		"on=0":                        `{"on":false}`,
		"tags=a":                      `{"tags":["a"]}`,
		"tags=a&tags=b%26c&tags=":     `{"tags":["a","b\u0026c",""]}`,
		"nums=1&nums=2":               `{"nums":[1,2]}`,
		"since=2026-01-02T03:04:05Z":  `{"since":"2026-01-02T03:04:05Z"}`,
		"wait=1000":                   `{"wait":1000}`,
		"color=red&name=J%C3%BCrgen":  `{"color":"red","name":"Jürgen"}`,
		"Inner=x":                     `{"Inner":"x"}`,
		"any=5":                       `{"any":5}`,
		"any=five":                    `{"any":"five"}`,
		"any=%225%22":                 `{"any":"5"}`,
		"any=1&any=x":                 `{"any":[1,"x"]}`,
		`odd={"a":1}&raw=[1]`:         `{"odd":{"a":1},"raw":[1]}`,
		"num=1.50":                    `{"num":1.50}`,
		"data=aGk%3D":                 `{"data":"aGk="}`,
		"quoted=5&qtext=x":            `{"qtext":"\"x\"","quoted":"5"}`,
		"labels.k=v&labels.x.y=w":     `{"labels":{"k":"v","x.y":"w"}}`,
		"filter.A=1&filter.B=2":       `{"filter":{"A":1,"B":2}}`,
		`filter={"A":1}`:              `{"filter":{"A":1}}`,
		`nodes=[{"X":1}]`:             `{"nodes":[{"X":1}]}`,
		`nodes={"X":1}&nodes={"X":2}`: `{"nodes":[{"X":1},{"X":2}]}`,
		"next.next.limit=1":           `{"next":{"next":{"limit":1}}}`,
		"a.b=c":                       `{"a.b":"c"}`,
		"_=1&Skipped=1&-=1&any=":      `{"any":""}`,
	} {
		got, ct, err := bound(t, r, nil, query, "", "")
		require.NoError(t, err, query)
		require.Equal(t, want, got, query)
		if want != "" {
			require.Equal(t, "application/json", ct)
			var v search
			require.NoError(t, json.Unmarshal([]byte(got), &v), query)
		}
	}
	for query, want := range map[string]string{
		"limit=x":                            `query parameter "limit" must be an integer`,
		"limit=":                             `query parameter "limit" must be an integer`,
		"limit=1.5":                          `query parameter "limit" must be an integer`,
		"limit=128":                          `query parameter "limit" is out of range`,
		"limit=1&limit=2":                    `query parameter "limit" must be there once`,
		"count=-1":                           `query parameter "count" must be an integer that is not negative`,
		"ratio=NaN":                          `query parameter "ratio" must be a number`,
		"ratio=0x10":                         `query parameter "ratio" must be a number`,
		"ratio=1e999":                        `query parameter "ratio" is out of range`,
		"small=1e300":                        `query parameter "small" is out of range`,
		"on=yes":                             `query parameter "on" must be true or false`,
		"nums=1&nums=b":                      `query parameter "nums" must be an integer`,
		"name=%ff":                           `query parameter "name" is not UTF-8`,
		"filter=x":                           `query parameter "filter" must be JSON`,
		"filter.A=x":                         `query parameter "filter.A" must be an integer`,
		"num=x":                              `query parameter "num" must be a number`,
		"limit=%zz":                          `the query is malformed`,
		"a;b=1":                              `the query is malformed`,
		strings.Repeat("&", 1e3):             `the query has more than 1000 parameters`,
		"filter=" + strings.Repeat("[", 1e4): `query parameter "filter" must be JSON`,
	} {
		_, _, err := bound(t, r, nil, query, "", "")
		require.ErrorIs(t, err, transport.CodeInvalidArgument, query)
		e := transport.Public(err)
		require.Equal(t, want, e.Message)
		if strings.HasPrefix(want, "query parameter") {
			require.Equal(t, ReasonParameter, e.Reason)
			require.Len(t, e.Details, 1)
		}
	}
}

func TestBindMerges(t *testing.T) {
	for _, c := range []struct {
		pattern, body  string // of the route
		values         string
		query, ct, req string
		want           string // or the error
		wantCT         string
	}{
		{"POST /s", "", "", "", "text/plain", "\x00\xff any bytes", "\x00\xff any bytes", "text/plain"},
		{"POST /s", "", "", "", "application/json", ` {"limit" : 1} `, ` {"limit" : 1} `, "application/json"},
		{"POST /s", "", "", "unknown=1", "text/plain", "x", "x", "text/plain"},
		{"POST /s", "", "", "", "application/json", "", "", ""},
		{"POST /s", "", "", "", "text/plain", "", "", "text/plain"},
		{"POST /s", "", "", "limit=1", "", "", `{"limit":1}`, "application/json"},
		{"PUT /s/{id}", "", "7", "", "application/json", `{"name":"x"}`, `{"name":"x","id":7}`, "application/json"},
		{"PUT /s/{id}", "", "7", "", "application/vnd.x+json; v=1", `{}`, `{"id":7}`, "application/vnd.x+json; v=1"},
		{"PUT /s/{id}", "", "7", "", "", `{"id":8,"ID":9,"Id":10,"name":"x"}`, `{"name":"x","id":7}`, "application/json"},
		{"PUT /s/{id}", "", "7", "id=8&name=q", "", `{"id":9,"name":"b","limit":1}`, `{"limit":1,"id":7,"name":"q"}`, "application/json"},
		{"PUT /s/{id}", "", "7", "", "", `{"name":"1","name":"2"}`, `{"name":"2","id":7}`, "application/json"},
		{"PUT /s/{id}", "", "7", "", "", `null`, `{"id":7}`, "application/json"},
		{"PUT /s/{id}", "", "7", "", "", `{"ratio":1.000000000000000000001}`, `{"ratio":1.000000000000000000001,"id":7}`, "application/json"},
		{"PUT /s/{id}", "", "x", "", "", `{}`, `path parameter "id" must be an integer`, ""},
		{"PUT /s/{id}", "", "7", "", "", `[1]`, `the body must be a JSON object`, ""},
		{"PUT /s/{id}", "", "7", "", "", `{`, `the body is not valid JSON, at byte 1`, ""},
		{"PUT /s/{id}", "", "7", "", "", "{\"name\":\"\xff\"}", `the body is not UTF-8`, ""},
		{"PUT /s/{id}", "", "7", "", "text/plain", `{}`, `the content-type is not supported here`, ""},
		{"PUT /s/{id}", "", "7", "", "", strings.Repeat("[", 1e6), `the body is nested more than 500 levels deep`, ""},
		{"POST /s", "", "", "filter.A=1", "", `{"filter":{"A":2,"B":3},"next":{"limit":1}}`, `{"next":{"limit":1},"filter":{"B":3,"A":1}}`, "application/json"},
		{"POST /s", "", "", "filter.A=1", "", `{"filter":[1]}`, `{"filter":{"A":1}}`, "application/json"},
		{"POST /s/{next.id}", "", "7", "next.id=8&next.limit=3", "", `{}`, `{"next":{"id":7,"limit":3}}`, "application/json"},
		{"DELETE /s/{id}", "-", "7", "limit=1", "", ``, `{"id":7,"limit":1}`, "application/json"},
		{"DELETE /s/{id}", "-", "7", "", "application/json", ` {} `, `{"id":7}`, "application/json"},
		{"DELETE /s/{id}", "-", "7", "", "", `{"limit":1}`, `there must be no body`, ""},
		{"GET /s", "", "", "", "application/json", ``, ``, ""},
		{"GET /s", "", "", "", "", `x`, `there must be no body`, ""},
		{"PUT /s/{id}", "filter", "7", "", "", `{"A":1}`, `{"filter":{"A":1},"id":7}`, "application/json"},
		{"PUT /s/{id}", "tags", "7", "", "application/json", `["a"]`, `{"tags":["a"],"id":7}`, "application/json"},
		{"PUT /s/{id}", "tags", "7", "", "", ``, `{"id":7}`, "application/json"},
		{"PUT /s", "tags", "", "", "application/json", `["a"]`, `{"tags":["a"]}`, "application/json"},
		{"PUT /s/{id}", "filter", "7", "", "", `{`, `the body is not valid JSON, at byte 1`, ""},
		{"PUT /s/{id}", "data", "7", "", "image/png", "\x00\xff", `{"data":"AP8=","id":7}`, "application/json"},
		{"PUT /s/{id}", "data", "7", "", "application/json", `"AP8="`, `{"data":"AP8=","id":7}`, "application/json"},
		{"PUT /s/{id}", "name", "7", "", "text/plain", "a\"b", `{"name":"a\"b","id":7}`, "application/json"},
		{"PUT /s/{id}", "name", "7", "", "text/plain", "\xff", `the body is not UTF-8`, ""},
		{"PUT /s/{id}", "filter", "7", "", "text/plain", "x", `the content-type is not supported here`, ""},
	} {
		r := Route{Topic: "t", Pattern: c.pattern, Body: c.body, Request: typeOf[search]()}
		got, ct, err := bound(t, r, strings.Fields(c.values), c.query, c.ct, c.req)
		name := c.pattern + " " + c.query + " " + c.req[:min(len(c.req), 40)]
		if err != nil {
			require.ErrorIs(t, err, transport.CodeInvalidArgument, name)
			require.Equal(t, c.want, transport.Public(err).Message, name)
			continue
		}
		require.Equal(t, c.want, got, name)
		require.Equal(t, c.wantCT, ct, name)
	}
}

func TestBindWithoutAType(t *testing.T) {
	r := Route{Topic: "t", Pattern: "PATCH /s/{id}"}
	got, _, err := bound(t, r, []string{"7"}, "a=1&b=2&b=3&c.d=4&id=9", "", `{"x":1}`)
	require.NoError(t, err)
	require.JSONEq(t, `{"x":1,"id":"7","a":"1","b":["2","3"],"c.d":"4"}`, got)
}

func TestShapeOfEmbedded(t *testing.T) {
	type A struct{ X, Y int }
	type B struct{ X, Z int }
	type tagged struct {
		A
		B
		Z     string
		Other int `json:"Y"`
		Num   struct{ A }
	}
	s := shapeOf(typeOf[tagged]())
	require.NotContains(t, s.fields, "X", "two of one rank cancel each other out, as in encoding/json")
	require.Equal(t, kindText, s.fields["Z"].kind)
	require.Equal(t, kindInt, s.fields["Y"].kind)
	require.Equal(t, kindInt, s.fields["Num"].fields["X"].kind)
	require.Equal(t, kindText, shapeOf(typeOf[time.Time]()).kind)
	require.Equal(t, kindList, shapeOf(typeOf[[3]byte]()).kind)
	require.Equal(t, kindAny, shapeOf(typeOf[map[int]string]()).kind)
}

func FuzzBind(f *testing.F) {
	f.Add(uint8(0), "7", "limit=5&tags=a&tags=b", "application/json", []byte(`{"name":"x"}`))
	f.Add(uint8(1), "x/y", "filter.A=1&labels.k=v", "text/plain", []byte("\xff"))
	f.Add(uint8(2), "", "any={}&raw=[1]&nodes=[{}]&num=1e5", "", []byte(`{"filter":{"A":1},"FILTER":{}}`))
	f.Add(uint8(3), "\x00", "a=1&a=2", "application/x+json", []byte(`{"a":{"b":{}}}`))
	f.Add(uint8(4), "1", "quoted=1&qtext=%22&since=&next.next.on=1", "", []byte(`[`))
	var routes []*parsedRoute
	for _, r := range []Route{
		{Pattern: "PUT /s/{id}", Request: typeOf[search]()},
		{Pattern: "PUT /s/{name}", Request: typeOf[search](), Body: "data"},
		{Pattern: "PUT /s/{next.name}", Request: typeOf[search]()},
		{Pattern: "PATCH /s/{id}"},
		{Pattern: "GET /s/{id}", Request: typeOf[search]()},
	} {
		r.Topic = "t"
		p, err := parseRoute(r)
		require.NoError(f, err)
		routes = append(routes, p)
	}
	f.Fuzz(func(t *testing.T, n uint8, value, query, contentType string, body []byte) {
		p := routes[int(n)%len(routes)]
		before := string(body)
		got, ct, err := p.bind([]string{value}, query, contentType, body)
		require.Equal(t, before, string(body), "the request's body is not written to")
		if err != nil {
			require.ErrorIs(t, err, transport.CodeInvalidArgument)
			return
		}
		require.True(t, isJSON(ct))
		require.True(t, json.Valid(got), "%s", got)
		var members map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(got, &members))
		if len(p.params) == 1 && p.params[0] != "next.name" {
			require.Contains(t, members, p.params[0])
		}
		q, err := url.ParseQuery(query)
		require.NoError(t, err)
		if p.shape == unknown {
			for name := range q {
				require.Contains(t, members, name)
			}
		}
	})
}
