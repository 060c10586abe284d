package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/intermodal-go/intermodal/transport"
)

// Info is what an OpenAPI document says beside the routes. A zero field means its default.
type Info struct {
	// Title and Version, which is that of the API, must be in a document. They default to "API" and "0".
	Title, Version string
	// Description may be CommonMark.
	Description string
	// Servers are the base URLs of the API, such as "https://example.com/api". Defaults to the host that the document came
	// from, without a path.
	Servers []string
	// NoAsync leaves out Prefer: respond-async and its 202, as the server does with [Options].NoAsync.
	NoAsync bool
}

// OpenAPI returns a document of OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0) that describes routes: JSON, indented,
// and the same bytes for the same arguments.
//
//   - The ID of an operation is its topic. Where a topic has more routes, those after the first add the method to it.
//   - A {path...} is documented as one parameter. Routes that OpenAPI cannot tell apart share a path, whose parameters
//     have the names of the first; of two with the same method the second becomes a sentence in the description of the
//     first. Methods that OpenAPI does not know are under "x-" and their name.
//   - What members the query has is documented for GET, HEAD and DELETE, and where Body names a member: all that are not in
//     the path. Other routes take members from the query too, but the body is their documented place. A member of an object
//     is a parameter with dots, "filter.status"; maps, lists of objects, and types that contain themselves are JSON.
//   - Structs are in components/schemas, by the names of their types. A reply has all members that are not omitempty or
//     omitzero, a request needs none: a type that is different in the two has a schema with the suffix Input for requests.
//     The description of a member is its tag jsonschema:"…". What a MarshalJSON does, or what no JSON stands for, is left
//     open: no type is an error.
//   - Errors are problem documents (RFC 9457). Beside the default those statuses are there that the route itself leads to.
//   - Where requests are answered 202 for Prefer: respond-async, GET does not mention it.
//
// The error is CodeInvalidArgument for routes that [NewServer] would refuse, and for an example that cannot be marshalled.
func OpenAPI(info Info, routes ...Route) ([]byte, error) {
	t, err := newTable(routes)
	if err != nil {
		return nil, err
	}
	d := newDocument(info)
	for _, p := range t.routes {
		if err := d.add(p); err != nil {
			return nil, transport.Wrap(err, transport.CodeInvalidArgument, "rest: the example of %q cannot be shown", p.Topic)
		}
	}
	d.Components.Schemas = d.schemas.components()
	d.Components.Schemas["Problem"] = problemSchema()
	if d.events {
		d.Components.Schemas["CloudEvent"] = eventSchema()
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(d); err != nil {
		return nil, transport.Wrap(err, transport.CodeInternal, "rest: the OpenAPI document cannot be encoded")
	}
	return b.Bytes(), nil
}

// OpenAPIUpToDate compares the document in a file with the one that [OpenAPI] returns, and returns an error that names the
// differences if there are any, or if the file is not there. How the file is formatted does not matter. It is for tests, so
// that no change of the API goes unseen:
//
//	var update = flag.Bool("update", false, "write openapi.json")
//
//	func TestOpenAPI(t *testing.T) {
//		if *update {
//			doc, err := rest.OpenAPI(info, routes...)
//			require.NoError(t, err)
//			require.NoError(t, os.WriteFile("openapi.json", doc, 0o644))
//		}
//		require.NoError(t, rest.OpenAPIUpToDate("openapi.json", info, routes...))
//	}
//
// The error is CodeFailedPrecondition, or that of OpenAPI.
func OpenAPIUpToDate(path string, info Info, routes ...Route) error {
	want, err := OpenAPI(info, routes...)
	if err != nil {
		return err
	}
	have, err := os.ReadFile(path)
	if err != nil {
		return transport.Wrap(err, transport.CodeFailedPrecondition, "rest: there is no OpenAPI document to compare")
	}
	var old, now any
	if err := unmarshalNumbers(have, &old); err != nil {
		return transport.Wrap(err, transport.CodeFailedPrecondition, "rest: %s is not JSON", path)
	}
	if err := unmarshalNumbers(want, &now); err != nil {
		return transport.Wrap(err, transport.CodeInternal, "rest: the OpenAPI document cannot be read")
	}
	all := differences(nil, "", old, now)
	if len(all) == 0 {
		return nil
	}
	const most = 20
	if n := len(all) - most; n > 0 {
		all = append(all[:most], fmt.Sprintf("and %d more", n))
	}
	return transport.Errorf(transport.CodeFailedPrecondition, "rest: %s is out of date:\n  %s", path, strings.Join(all, "\n  "))
}

func unmarshalNumbers(data []byte, v any) error {
	if !json.Valid(data) { // also what follows the first value
		return json.Unmarshal(data, v)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(v)
}

// differences appends what is different in now, by JSON pointers (RFC 6901).
func differences(all []string, at string, old, now any) []string {
	switch old := old.(type) {
	case map[string]any:
		now, ok := now.(map[string]any)
		if !ok {
			break
		}
		names := maps.Clone(old)
		maps.Copy(names, now)
		for _, name := range slices.Sorted(maps.Keys(names)) {
			was, before := old[name]
			is, after := now[name]
			at := at + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
			switch {
			case !after:
				all = append(all, at+" is only in the file")
			case !before:
				all = append(all, at+" is not in the file")
			default:
				all = differences(all, at, was, is)
			}
		}
		return all
	case []any:
		now, ok := now.([]any)
		if !ok || len(old) != len(now) {
			break
		}
		for i := range old {
			all = differences(all, at+"/"+strconv.Itoa(i), old[i], now[i])
		}
		return all
	}
	was, _ := json.Marshal(old) // they were unmarshalled
	is, _ := json.Marshal(now)
	if bytes.Equal(was, is) {
		return all
	}
	return append(all, fmt.Sprintf("%s is %s in the file, and %s now", at, bounded(string(was)), bounded(string(is))))
}

// A document is an OpenAPI object. Its fields, and those of the types below, are what we use of the standard's.
type document struct {
	OpenAPI string `json:"openapi"`
	Info    struct {
		Title       string `json:"title"`
		Version     string `json:"version"`
		Description string `json:"description,omitempty"`
	} `json:"info"`
	Servers    []docServer                         `json:"servers,omitempty"`
	Paths      map[string]map[string]*docOperation `json:"paths"`
	Components struct {
		Schemas    map[string]*jsonschema.Schema `json:"schemas"`
		Responses  map[string]*docResponse       `json:"responses"`
		Parameters map[string]*docParameter      `json:"parameters,omitempty"`
		Headers    map[string]*docHeader         `json:"headers,omitempty"`
	} `json:"components"`

	noAsync    bool
	events     bool // there are some
	schemas    *schemas
	operations map[string]bool     // their IDs
	shapes     map[string]*docPath // by the path with {} in place of all parameters
}

type docServer struct {
	URL string `json:"url"`
}

// A docPath is a path with the names that its parameters have in the document.
type docPath struct {
	path   string
	params []string
}

type docOperation struct {
	OperationID string                  `json:"operationId"`
	Summary     string                  `json:"summary,omitempty"`
	Description string                  `json:"description,omitempty"`
	Tags        []string                `json:"tags,omitempty"`
	Deprecated  bool                    `json:"deprecated,omitempty"`
	Parameters  []*docParameter         `json:"parameters,omitempty"`
	RequestBody *docBody                `json:"requestBody,omitempty"`
	Responses   map[string]*docResponse `json:"responses"`
}

type docParameter struct {
	Ref         string               `json:"$ref,omitempty"`
	Name        string               `json:"name,omitempty"`
	In          string               `json:"in,omitempty"`
	Description string               `json:"description,omitempty"`
	Required    bool                 `json:"required,omitempty"`
	Schema      *jsonschema.Schema   `json:"schema,omitempty"`
	Content     map[string]*docMedia `json:"content,omitempty"`
	Example     json.RawMessage      `json:"example,omitempty"`
}

type docBody struct {
	Content map[string]*docMedia `json:"content"`
}

type docMedia struct {
	Schema  *jsonschema.Schema `json:"schema,omitempty"`
	Example json.RawMessage    `json:"example,omitempty"`
}

type docResponse struct {
	Ref         string                `json:"$ref,omitempty"`
	Description string                `json:"description,omitempty"`
	Headers     map[string]*docHeader `json:"headers,omitempty"`
	Content     map[string]*docMedia  `json:"content,omitempty"`
}

type docHeader struct {
	Ref         string             `json:"$ref,omitempty"`
	Description string             `json:"description,omitempty"`
	Schema      *jsonschema.Schema `json:"schema,omitempty"`
}

func newDocument(info Info) *document {
	d := &document{OpenAPI: "3.1.0", Paths: map[string]map[string]*docOperation{}, noAsync: info.NoAsync,
		schemas: newSchemas("Problem", "CloudEvent"), operations: map[string]bool{}, shapes: map[string]*docPath{}}
	d.Info.Title, d.Info.Version, d.Info.Description = info.Title, info.Version, info.Description
	if info.Title == "" {
		d.Info.Title = "API"
	}
	if info.Version == "" {
		d.Info.Version = "0"
	}
	for _, u := range info.Servers {
		d.Servers = append(d.Servers, docServer{u})
	}
	d.Components.Responses = map[string]*docResponse{"Problem": {Description: "What went wrong.",
		Headers: map[string]*docHeader{"Retry-After": d.header("Retry-After")},
		Content: map[string]*docMedia{"application/problem+json": {Schema: &jsonschema.Schema{Ref: schemaRef + "Problem"}}}}}
	return d
}

// add adds an operation. The error is that of an example.
func (d *document) add(p *parsedRoute) error {
	at := d.pathOf(p)
	o, err := d.operation(p, at.params)
	if err != nil {
		return err
	}
	method := strings.ToLower(p.method)
	switch p.method {
	case "GET", "PUT", "POST", "DELETE", "PATCH":
	default:
		method = "x-" + method
	}
	if d.Paths[at.path] == nil {
		d.Paths[at.path] = map[string]*docOperation{}
	}
	if first := d.Paths[at.path][method]; first != nil {
		first.Description = sentences(first.Description, fmt.Sprintf("The path %s is another operation, %s.",
			p.Pattern[strings.IndexByte(p.Pattern, '/'):], p.Topic))
		return nil
	}
	o.OperationID = d.operationID(p)
	d.Paths[at.path][method] = o
	return nil
}

// pathOf returns the path of a route in the document.
func (d *document) pathOf(p *parsedRoute) *docPath {
	var key, path strings.Builder
	for _, s := range p.segments {
		text := url.PathEscape(s.text)
		if s.kind == literal {
			key.WriteString("/" + text)
			path.WriteString("/" + text)
		} else {
			key.WriteString("/{}")
			path.WriteString("/{" + s.text + "}")
		}
	}
	if p.action != "" {
		key.WriteString(":" + url.PathEscape(p.action))
		path.WriteString(":" + url.PathEscape(p.action))
	}
	if d.shapes[key.String()] == nil {
		d.shapes[key.String()] = &docPath{path.String(), p.params}
	}
	return d.shapes[key.String()]
}

func (d *document) operationID(p *parsedRoute) string {
	id := p.Topic
	if d.operations[id] {
		id += "." + strings.ToLower(p.method)
	}
	for n := 2; d.operations[id]; n++ {
		id = p.Topic + "." + strings.ToLower(p.method) + "." + strconv.Itoa(n)
	}
	d.operations[id] = true
	return id
}

// parameter returns a reference to a header parameter, which it adds to the components.
func (d *document) parameter(key string) *docParameter {
	if d.Components.Parameters == nil {
		d.Components.Parameters = map[string]*docParameter{}
	}
	p := headerParameters[key]
	p.In = "header"
	d.Components.Parameters[key] = &p
	return &docParameter{Ref: "#/components/parameters/" + key}
}

var headerParameters = map[string]docParameter{
	"IdempotencyKey": {Name: "Idempotency-Key", Schema: keySchema,
		Description: "A request with the key of an earlier one is not carried out again: it gets the same answer."},
	"IdempotencyKeyRequired": {Name: "Idempotency-Key", Required: true, Schema: keySchema,
		Description: "A request with the key of an earlier one is not carried out again: it gets the same answer."},
	"IfMatch": {Name: "If-Match", Required: true, Schema: &jsonschema.Schema{Type: "string"},
		Description: "The ETag of what is changed, so that nobody's change is lost."},
	"IfNoneMatch": {Name: "If-None-Match", Schema: &jsonschema.Schema{Type: "string"},
		Description: "The ETag of what the client has: if that is still right, the answer is 304."},
	"Prefer": {Name: "Prefer", Schema: &jsonschema.Schema{Type: "string"},
		Description: "respond-async asks for 202 and the URL of the result; wait=10 says how many seconds to wait."},
}

var keySchema = &jsonschema.Schema{Type: "string", MinLength: jsonschema.Ptr(1)}

// header returns a reference to a header of an answer, which it adds to the components.
func (d *document) header(name string) *docHeader {
	if d.Components.Headers == nil {
		d.Components.Headers = map[string]*docHeader{}
	}
	d.Components.Headers[name] = &docHeader{Description: answerHeaders[name], Schema: &jsonschema.Schema{Type: "string"}}
	return &docHeader{Ref: "#/components/headers/" + name}
}

var answerHeaders = map[string]string{
	"Deprecation":        "Since when the resource is deprecated (RFC 9745).",
	"ETag":               "Names the state of the resource, for If-None-Match and If-Match.",
	"Link":               "Other resources; one with rel=\"next\" is the next page (RFC 8288).",
	"Location":           "The resource that was made, or that will have the result.",
	"Preference-Applied": "What was done of what the request preferred (RFC 7240).",
	"Retry-After":        "When to try again: seconds, or a date.",
	"Sunset":             "When the resource will be gone (RFC 8594).",
}

// problemSchema describes what wire.AppendProblem writes.
func problemSchema() *jsonschema.Schema {
	text := func(description string) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Description: description}
	}
	return &jsonschema.Schema{Type: "object", Description: "A problem document (RFC 9457).",
		Required: []string{"type", "title", "status", "code"},
		Properties: map[string]*jsonschema.Schema{
			"type":     {Type: "string", Format: "uri-reference"},
			"title":    text("The status in words."),
			"status":   {Type: "integer", Format: "int32"},
			"detail":   text("What is wrong with this very request."),
			"instance": {Type: "string", Format: "uri-reference"},
			"code":     text("The kind of failure, such as not_found."),
			"reason":   text("What programs can tell failures of one kind apart by."),
			"details": {Type: "array", Items: &jsonschema.Schema{Type: "object", Required: []string{"type", "value"},
				Properties: map[string]*jsonschema.Schema{"type": text(""), "value": {Type: "string", ContentEncoding: "base64"}}}},
			"retryAfter": {Type: "number", Description: "Seconds to wait before the next attempt."},
			"header": {Type: "object", Description: "More about the failure.",
				AdditionalProperties: &jsonschema.Schema{Type: "array", Items: text("")}},
		},
		PropertyOrder: []string{"type", "title", "status", "detail", "instance", "code", "reason", "details", "retryAfter",
			"header"}}
}

// eventSchema describes what wire.ParseEvent reads.
func eventSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "object", Description: "A CloudEvent 1.0 in structured mode.",
		Required: []string{"specversion", "id", "source", "type"},
		Properties: map[string]*jsonschema.Schema{
			"specversion":     {Type: "string", Enum: []any{"1.0"}},
			"id":              {Type: "string", MinLength: jsonschema.Ptr(1)},
			"source":          {Type: "string", Format: "uri-reference", MinLength: jsonschema.Ptr(1)},
			"type":            {Type: "string", MinLength: jsonschema.Ptr(1)},
			"subject":         {Type: "string"},
			"time":            {Type: "string", Format: "date-time"},
			"datacontenttype": {Type: "string"},
			"data":            {Description: "What the body is in binary mode."},
			"data_base64":     {Type: "string", ContentEncoding: "base64"},
		},
		PropertyOrder: []string{"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data",
			"data_base64"}}
}

// sentences joins those that are not empty.
func sentences(all ...string) string {
	return strings.Join(slices.DeleteFunc(all, func(s string) bool { return s == "" }), "\n\n")
}
