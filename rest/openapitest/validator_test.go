package openapitest

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/rest"
)

// load reads a document as kin-openapi does, which checks references, names, examples and much else.
func load(t *testing.T, doc []byte) *openapi3.T {
	t.Helper()
	d, err := openapi3.NewLoader().LoadFromData(doc)
	require.NoError(t, err)
	require.True(t, d.IsOpenAPI31OrLater())
	require.NoError(t, d.Validate(t.Context(), openapi3.EnableExamplesValidation()))
	return d
}

func document(t *testing.T) []byte {
	t.Helper()
	doc, err := rest.OpenAPI(info, routes()...)
	require.NoError(t, err)
	return doc
}

// The schema of documents is the standard's own, https://spec.openapis.org/oas/3.1/schema/2022-10-07; those in a document
// are checked against that of JSON Schema 2020-12.
func TestDocumentsAreValid(t *testing.T) {
	golden, err := os.ReadFile(filepath.Join("..", "testdata", "openapi.json"))
	require.NoError(t, err)
	empty, err := rest.OpenAPI(rest.Info{})
	require.NoError(t, err)
	standard, err := os.ReadFile(filepath.Join("testdata", "openapi-3.1-2022-10-07.schema.json"))
	require.NoError(t, err)
	for _, doc := range [][]byte{golden, empty, document(t)} {
		load(t, doc)
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
		require.NoError(t, err)
		meta, err := jsonschema.UnmarshalJSON(bytes.NewReader(standard))
		require.NoError(t, err)
		c := jsonschema.NewCompiler()
		c.DefaultDraft(jsonschema.Draft2020)
		c.AssertFormat()
		require.NoError(t, c.AddResource("standard.json", meta))
		require.NoError(t, c.AddResource("openapi.json", v))
		s, err := c.Compile("standard.json")
		require.NoError(t, err)
		require.NoError(t, s.Validate(v))

		found := 0
		walk(v, "", func(pointer string) {
			found++
			_, err := c.Compile("openapi.json#" + pointer)
			require.NoError(t, err)
		})
		require.Positive(t, found)
	}
}

// walk calls f with where the schemas of a document are.
func walk(v any, at string, f func(pointer string)) {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			at := at + "/" + strings.NewReplacer("~", "~0", "/", "~1", "%", "%25", "{", "%7B", "}", "%7D").Replace(name)
			if name == "schema" || strings.HasPrefix(at, "/components/schemas/") {
				f(at)
				continue
			}
			walk(inner, at, f)
		}
	case []any:
		for i, inner := range v {
			walk(inner, at+"/"+strconv.Itoa(i), f)
		}
	}
}

// An exchange is a request, and the status that it must be answered with.
type exchange struct {
	method, target, body string
	fields               []string // Name: value
	status               int
	// undocumented says that the document does not allow the request, invalid that it does not even show the path.
	undocumented bool
}

const key = "Idempotency-Key: k1"

var exchanges = []exchange{
	{method: "GET", target: "/users", status: 200},
	{method: "GET", target: "/users?name=nobody", status: 200}, // its list is null
	{method: "GET", target: "/users?name=A&limit=3&roles=a&roles=b&active=true&since=2026-01-02T03:04:05Z&filter.status=x&filter.levels=-1&filter.levels=2&after=z", status: 200},
	{method: "GET", target: "/users?labels=%7B%22a%22%3A%22b%22%7D", status: 200},
	{method: "GET", target: "/users?limit=many", status: 400, undocumented: true},
	{method: "GET", target: "/users?limit=3000000000", status: 400, undocumented: true},
	{method: "GET", target: "/users?filter.levels=300", status: 400, undocumented: true},
	{method: "GET", target: "/users?active=yes", status: 400, undocumented: true},
	{method: "GET", target: "/users?since=yesterday", status: 400, undocumented: true},
	{method: "GET", target: "/users?labels=%7B%22a%22%3A7%7D", status: 400, undocumented: true},
	{method: "GET", target: "/users", status: 406, fields: []string{"Accept: image/png"}},

	{method: "GET", target: "/users/ada", status: 200},
	{method: "GET", target: "/users/ada", status: 304, fields: []string{"If-None-Match: *"}},
	{method: "GET", target: "/users/eve", status: 404},
	{method: "GET", target: "/v1/users/ada", status: 200},
	{method: "DELETE", target: "/users/ada", status: 200},

	{method: "POST", target: "/users", body: `{"name":"Bob"}`, fields: []string{key}, status: 201},
	{method: "POST", target: "/users", body: `{"name":"Bob","email":null,"manager":{"name":"Ada"}}`, fields: []string{"Idempotency-Key: k2"}, status: 201},
	{method: "POST", target: "/users", body: `{"name":"Ada"}`, fields: []string{"Idempotency-Key: k3"}, status: 409},
	{method: "POST", target: "/users", body: `{"name":"Eve"}`, fields: []string{key}, status: 422},
	{method: "POST", target: "/users", body: `{"name":7}`, fields: []string{"Idempotency-Key: k4"}, status: 400, undocumented: true},
	{method: "POST", target: "/users", body: `{"manager":{"created":"now"}}`, fields: []string{"Idempotency-Key: k5"}, status: 400, undocumented: true},
	{method: "POST", target: "/users", body: `{"name":"Bob"}`, status: 400, undocumented: true},
	{method: "POST", target: "/users", body: `<user/>`, fields: []string{"Idempotency-Key: k6", "Content-Type: text/xml"}, status: 415, undocumented: true},
	{method: "POST", target: "/users", body: `{"name":"Eve"}`, fields: []string{"Idempotency-Key: k7", "Prefer: respond-async"}, status: 202},

	{method: "PUT", target: "/users/ada", body: `{"name":"Ada Lovelace"}`, fields: []string{`If-Match: "7"`}, status: 200},
	{method: "PUT", target: "/users/ada", body: `{"name":"Ada Lovelace"}`, fields: []string{`If-Match: "6"`}, status: 412},
	{method: "PUT", target: "/users/ada", body: `{"name":"Ada Lovelace"}`, status: 428, undocumented: true},

	{method: "POST", target: "/users/ada/orders", body: `{"lines":[{"sku":"A-7","quantity":2}]}`, status: 200},
	{method: "POST", target: "/users/ada/orders", status: 200},
	{method: "POST", target: "/users/ada/orders", body: `{"lines":[{"quantity":-1}]}`, status: 400, undocumented: true},
	{method: "POST", target: "/orders/7:cancel", body: `{"reason":"late"}`, status: 200},
	{method: "POST", target: "/orders/9:cancel", status: 409},
	{method: "POST", target: "/orders/x:cancel", status: 400, undocumented: true},

	{method: "PUT", target: "/files/readme?public=true", body: "\x00\xff", fields: []string{"Content-Type: image/png"}, status: 200},
	{method: "PUT", target: "/files/docs%2Freadme", body: `"AP8="`, status: 200},
	{method: "PUT", target: "/files/readme?public=maybe", body: `"AP8="`, status: 400, undocumented: true},
	{method: "GET", target: "/files/readme?any=thing", status: 200},

	{method: "POST", target: "/events/orders.placed", body: `{"order":7}`, status: 202},
	{method: "POST", target: "/events/orders.placed", status: 202, fields: []string{"Content-Type: application/cloudevents+json"},
		body: `{"specversion":"1.0","id":"1","source":"/x","type":"orders.placed","data":{"order":8}}`},
	{method: "POST", target: "/events/orders.placed", status: 202, fields: []string{"Content-Type: application/cloudevents-batch+json"},
		body: `[{"specversion":"1.0","id":"2","source":"/x","type":"orders.placed","data":{"order":9,"at":"2026-01-02T03:04:05Z"}}]`},
	{method: "POST", target: "/events/orders.placed", status: 400, fields: []string{"Content-Type: application/cloudevents+json"},
		body: `{"specversion":"1.0","source":"/x"}`, undocumented: true},
	{method: "POST", target: "/events/orders.placed", body: `{"order":"7"}`, status: 400, undocumented: true},
}

func TestServerShowsTheDocument(t *testing.T) {
	h := &http.Client{}
	defer h.CloseIdleConnections()
	a, err := h.Get(serve(t, &shop{}) + "/openapi.json")
	require.NoError(t, err)
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	require.NoError(t, err)
	require.Equal(t, 200, a.StatusCode)
	require.Equal(t, string(document(t)), string(body))
}

// The server accepts what the document says, refuses what it does not say, and answers as it says.
func TestServerKeepsItsWord(t *testing.T) {
	d := load(t, document(t))
	base := serve(t, &shop{})
	d.Servers = openapi3.Servers{{URL: base}}
	router, err := gorillamux.NewRouter(d)
	require.NoError(t, err)
	h := &http.Client{}
	defer h.CloseIdleConnections()
	for _, x := range exchanges {
		t.Run(x.method+" "+x.target, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), x.method, base+x.target, strings.NewReader(x.body))
			require.NoError(t, err)
			if x.body != "" {
				r.Header.Set("Content-Type", "application/json")
			}
			for _, f := range x.fields {
				name, value, _ := strings.Cut(f, ": ")
				r.Header.Set(name, value)
			}
			in := input(t, router, r)
			err = openapi3filter.ValidateRequest(t.Context(), in)
			if x.undocumented {
				require.Error(t, err, "the document allows it")
			} else {
				require.NoError(t, err)
			}
			r.Body = io.NopCloser(strings.NewReader(x.body))
			a, err := h.Do(r)
			require.NoError(t, err)
			defer a.Body.Close()
			body, err := io.ReadAll(a.Body)
			require.NoError(t, err)
			require.Equal(t, x.status, a.StatusCode, "%s", body)
			out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: a.StatusCode, Header: a.Header,
				Options: in.Options}
			out.SetBodyBytes(body)
			require.NoError(t, openapi3filter.ValidateResponse(t.Context(), out), "%s", body)
		})
	}
}

func input(t *testing.T, router routers.Router, r *http.Request) *openapi3filter.RequestValidationInput {
	t.Helper()
	route, params, err := router.FindRoute(r)
	require.NoError(t, err)
	return &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{IncludeResponseStatus: true, RejectWhenRequestBodyNotSpecified: true, MultiError: true}}
}

// A witness that nods at everything proves nothing.
func TestWrongAnswersAreSeen(t *testing.T) {
	d := load(t, document(t))
	router, err := gorillamux.NewRouter(d)
	require.NoError(t, err)
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://localhost/users/ada", nil)
	require.NoError(t, err)
	in := input(t, router, r)
	for _, c := range []struct {
		contentType, body string
		status            int
		ok                bool
	}{
		{"application/json", `{"id":"ada","name":"Ada","email":null,"created":"2026-01-02T03:04:05Z"}`, 200, true},
		{"application/json", `{"id":"ada","name":"Ada","email":null,"created":"then"}`, 200, false},
		{"application/json", `{"id":"ada","email":null,"created":"2026-01-02T03:04:05Z"}`, 200, false},
		{"application/json", `{"id":"ada","name":null,"email":null,"created":"2026-01-02T03:04:05Z"}`, 200, false},
		{"text/plain", `Ada`, 200, false},
		{"application/problem+json", `{"type":"about:blank","title":"Gone","status":410,"code":"not_found"}`, 410, true},
		{"application/problem+json", `{"title":"Gone"}`, 410, false},
		{"application/json", `{}`, 410, false},
	} {
		out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: c.status,
			Header: http.Header{"Content-Type": {c.contentType}}, Options: in.Options}
		out.SetBodyBytes([]byte(c.body))
		err := openapi3filter.ValidateResponse(t.Context(), out)
		require.Equal(t, c.ok, err == nil, "%s: %v", c.body, err)
	}
}
