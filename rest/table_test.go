package rest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func TestMatch(t *testing.T) {
	var routes []Route
	for _, p := range []string{
		"GET /{$}", "GET /users", "GET /users/{$}", "GET /users/me", "GET /users/{id}", "DELETE /users/{id}",
		"POST /users/{id}:lock", "POST /users/{id}:send-mail", "POST /users/{id}", "POST /users:batch",
		"GET /users/{id}/orders/{order}", "GET /users/me/orders/all", "GET /files/{path...}", "GET /files/{name}/meta",
		"GET /a%2Fb/ü", "PURGE /{any...}",
	} {
		routes = append(routes, Route{Topic: "t", Pattern: p})
	}
	table, err := newTable(routes)
	require.NoError(t, err)
	for _, c := range []struct {
		method, path string // escaped
		want         string // the pattern, or the methods there are, or an error
		values       string
	}{
		{"GET", "/", "GET /{$}", ""},
		{"GET", "/users", "GET /users", ""},
		{"HEAD", "/users", "GET /users", ""},
		{"GET", "/users/", "GET /users/{$}", ""},
		{"GET", "/users/me", "GET /users/me", ""},
		{"DELETE", "/users/me", "DELETE /users/{id}", "me"},
		{"GET", "/users/7", "GET /users/{id}", "7"},
		{"GET", "/users/a%2Fb", "GET /users/{id}", "a/b"},
		{"GET", "/users/%C3%BC%20x", "GET /users/{id}", "ü x"},
		{"GET", "/users/a+b", "GET /users/{id}", "a+b"},
		{"GET", "/users/a:b", "GET /users/{id}", "a:b"},
		{"POST", "/users/7:lock", "POST /users/{id}:lock", "7"},
		{"POST", "/users/7:send-mail", "POST /users/{id}:send-mail", "7"},
		{"POST", "/users/7:8:lock", "POST /users/{id}:lock", "7:8"},
		{"POST", "/users/7%3Alock", "POST /users/{id}", "7:lock"},
		{"POST", "/users/:lock", "POST /users/{id}", ":lock"},
		{"POST", "/users/7:other", "POST /users/{id}", "7:other"},
		{"POST", "/users:batch", "POST /users:batch", ""},
		{"GET", "/users:batch", "OPTIONS POST PURGE", ""},
		{"PUT", "/users/7", "DELETE GET HEAD OPTIONS POST PURGE", ""},
		{"PUT", "/users/me", "DELETE GET HEAD OPTIONS POST PURGE", ""},
		{"GET", "/users/me/orders/9", "GET /users/{id}/orders/{order}", "me 9"},
		{"GET", "/users/me/orders/all", "GET /users/me/orders/all", ""},
		{"GET", "/users//orders/9", "OPTIONS PURGE", ""},
		{"GET", "/files/a/b/c", "GET /files/{path...}", "a/b/c"},
		{"GET", "/files/", "GET /files/{path...}", ""},
		{"GET", "/files", "OPTIONS PURGE", ""},
		{"GET", "/files/a//b/", "GET /files/{path...}", "a//b/"},
		{"GET", "/files/x/meta", "GET /files/{name}/meta", "x"},
		{"GET", "/files/x/meta/y", "GET /files/{path...}", "x/meta/y"},
		{"GET", "/a%2fb/%c3%bc", "GET /a%2Fb/ü", ""},
		{"GET", "/a/b/ü", "OPTIONS PURGE", ""},
		{"PURGE", "/users/7/x", "PURGE /{any...}", "users/7/x"},
		{"GET", "", "", ""},
		{"GET", "*", "", ""},
		{"GET", "/files/../x", "segments of dots", ""},
		{"GET", "/files/%2e%2e/x", "segments of dots", ""},
		{"GET", "/files/a%2f..%2fb", "segments of dots", ""},
		{"GET", "/users/.", "segments of dots", ""},
		{"GET", "/users/.x", "GET /users/{id}", ".x"},
		{"GET", "/users/%00", "characters", ""},
		{"GET", "/users/%ff", "characters", ""},
		{"GET", "/users/%zz", "escapes", ""},
	} {
		r, values, allowed, err := table.match(c.method, c.path, true, nil)
		name := c.method + " " + c.path
		switch {
		case err != nil:
			require.ErrorIs(t, err, transport.CodeInvalidArgument, name)
			require.Equal(t, "invalid_argument: the path has "+c.want+" that are not allowed", err.Error(), name)
		case r == nil:
			require.Equal(t, c.want, strings.Join(allowed, " "), name)
		default:
			require.Equal(t, c.want, r.Pattern, name)
			require.Equal(t, c.values, strings.Join(values, " "), name)
		}
	}
	r, values, _, err := table.match("GET", "/users/%2F", false, nil) // a decoded path is not decoded again
	require.NoError(t, err)
	require.Equal(t, []string{"%2F"}, values)
	require.Equal(t, "GET /users/{id}", r.Pattern)
}

func TestRoutesThatCannotBe(t *testing.T) {
	type request struct {
		ID string `json:"id"`
	}
	with := func(r Route) Route {
		if r.Topic == "" {
			r.Topic = "t"
		}
		return r
	}
	for want, r := range map[string]Route{
		"a pattern is a method, a space and a path":              {Pattern: "/users"},
		"a pattern is a method, a space and a path ":             {Pattern: "GE(T /users"},
		"HEAD cannot be a route":                                 {Pattern: "HEAD /users"},
		"the path does not begin with a slash":                   {Pattern: "GET users"},
		"the path ends in a slash":                               {Pattern: "GET /users/"},
		"the path has an empty segment or one of dots":           {Pattern: "GET /a//b"},
		"the path has an empty segment or one of dots ":          {Pattern: "GET /a/../b"},
		"the segment \"x{id}\" is neither":                       {Pattern: "GET /x{id}"},
		"the segment \"{id\" is neither":                         {Pattern: "GET /{id"},
		"\"\" is no name of a parameter":                         {Pattern: "GET /{}"},
		"\"1a\" is no name of a parameter":                       {Pattern: "GET /{1a}"},
		"the parameter \"id\" is there twice":                    {Pattern: "GET /{id}/{id}"},
		"{id...} is not at the end":                              {Pattern: "GET /{id...}/x"},
		"the segment \"{id}x\": only":                            {Pattern: "GET /{id}x"},
		"the segment \"{id}:x\": only":                           {Pattern: "GET /{id}:x/y"},
		"the segment \"{id}:\": only":                            {Pattern: "GET /{id}:"},
		"the segment \"%zz\" is not valid":                       {Pattern: "GET /%zz"},
		"GET is safe and cannot publish":                         {Pattern: "GET /x", Event: true},
		"GET has no body":                                        {Pattern: "GET /x", Body: "x"},
		"the status 404 is no success":                           {Pattern: "GET /x", Status: 404},
		"an event is answered 202":                               {Pattern: "POST /x", Event: true, Status: 200},
		"the status 200 of R is no failure":                      {Pattern: "GET /x", Statuses: map[string]int{"R": 200}},
		"the request has no member \"other\"":                    For(transport.Operation[request, int]{Topic: "t"}, "GET /{other}"),
		"the request has no member \"body\"":                     {Pattern: "POST /x", Body: "body", Request: typeOf[request]()},
		"invalid_argument: the topic \"a..b\" has an empty word": {Topic: "a..b", Pattern: "GET /x"},
	} {
		_, err := newTable([]Route{with(r)})
		require.ErrorIs(t, err, transport.CodeInvalidArgument, want)
		require.Contains(t, err.Error(), strings.TrimSpace(want))
	}
	_, err := newTable([]Route{{Topic: "t", Pattern: "GET /{a}/x"}, {Topic: "t", Pattern: "GET /{b}/x"}})
	require.ErrorContains(t, err, `it takes the same requests as "GET /{a}/x"`)
	_, err = newTable([]Route{{Topic: "t", Pattern: "GET /a%20b"}, {Topic: "t", Pattern: "GET /a%20b"}})
	require.ErrorContains(t, err, "it takes the same requests")
}

func TestFindTakesTheFirst(t *testing.T) {
	table, err := newTable([]Route{{Topic: "t", Pattern: "POST /e", Event: true}, {Topic: "t", Pattern: "GET /v2"}, {Topic: "t", Pattern: "GET /v1"}})
	require.NoError(t, err)
	require.Equal(t, "GET /v2", table.find("t", false).Pattern)
	require.Equal(t, "POST /e", table.find("t", true).Pattern)
	require.Nil(t, table.find("u", false))
}

type self *self

func TestOddRoutes(t *testing.T) {
	_, err := newTable([]Route{{Topic: "t", Pattern: "POST /t", Body: "user.name"}})
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	_, err = newTable([]Route{For(transport.Operation[self, self]{Topic: "t"}, "POST /t")})
	require.NoError(t, err)
}
