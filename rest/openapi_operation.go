package rest

import (
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/intermodal-go/intermodal/transport/wire"
)

// An outline is an operation while it is made.
type outline struct {
	*parsedRoute
	d        *document
	in       reflect.Type // the type of the request behind its pointers, nil if unknown
	example  []member     // the members of the route's Example
	isObject bool         // so example tells what there is
	op       *docOperation
}

// operation describes a route whose parameters have the names pathNames in the document.
func (d *document) operation(p *parsedRoute, pathNames []string) (*docOperation, error) {
	o := &outline{parsedRoute: p, d: d, in: deref(p.Request), op: &docOperation{Summary: p.Summary, Tags: p.Tags,
		Deprecated: !p.Deprecated.IsZero(), Responses: map[string]*docResponse{}}}
	raw, err := example(p.Example)
	if err != nil {
		return nil, err
	}
	if o.isObject = len(raw) > 0 && raw[0] == '{'; o.isObject {
		if o.example, err = membersOf(raw); err != nil {
			return nil, err
		}
	}
	reply, err := example(p.ExampleReply)
	if err != nil {
		return nil, err
	}
	o.op.Description = sentences(p.Description,
		dated("Deprecated since ", p.Deprecated), dated("It will be gone after ", p.Sunset))
	o.path(pathNames)
	if p.inQuery() {
		o.query()
	}
	o.headers()
	o.body(raw)
	o.success(reply)
	o.failures()
	return o.op, nil
}

// inQuery reports whether the members that are not in the path are documented as parameters of the query.
func (p *parsedRoute) inQuery() bool { return p.noBody() || p.method == "DELETE" || p.Body != "" }

func dated(text string, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return text + t.UTC().Format(time.DateOnly) + "."
}

// example returns the JSON of an example, nil if there is none.
func example(v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	return json.Marshal(v)
}

func (o *outline) path(names []string) {
	for i, name := range o.params {
		p := &docParameter{Name: names[i], In: "path", Required: true, Schema: &jsonschema.Schema{Type: "string"}}
		if t, description := typeAt(o.in, o.shape, name); t != nil {
			p.Schema, p.Description = o.d.schemas.parameter(t), description
		}
		if s := o.segments[len(o.segments)-1]; s.kind == rest && i == len(o.params)-1 {
			p.Description = sentences(p.Description, "The rest of the path, slashes included.")
		}
		p.Example = o.exampleOf(name)
		o.op.Parameters = append(o.op.Parameters, p)
	}
}

// exampleOf returns the value of a parameter in the example.
func (o *outline) exampleOf(name string) json.RawMessage {
	raw := lookup(o.example, name)
	if string(raw) == "null" {
		return nil
	}
	return raw
}

// query adds the parameters of the query.
func (o *outline) query() {
	switch {
	case o.shape.kind == kindObject:
		o.queryMembers("", o.in, []reflect.Type{o.in})
	case o.shape.kind == kindMap:
		element := &jsonschema.Schema{Type: "string"}
		if o.in != nil {
			element = o.d.schemas.parameter(deref(o.in.Elem()))
		}
		o.op.Parameters = append(o.op.Parameters, &docParameter{Name: "members", In: "query",
			Description: "Any members of the request.", Schema: &jsonschema.Schema{Type: "object", AdditionalProperties: element}})
	}
}

// queryMembers adds the members of t, whose names begin with prefix. Around them are the types in outer.
func (o *outline) queryMembers(prefix string, t reflect.Type, outer []reflect.Type) {
	for _, f := range membersOfStruct(t) {
		name, inner := prefix+f.name, deref(f.t)
		if name == o.Body || slices.Contains(o.params, name) {
			continue
		}
		s := shapeOf(inner)
		p := &docParameter{Name: name, In: "query", Description: f.description}
		switch {
		case s.kind == kindObject && !slices.Contains(outer, inner):
			o.queryMembers(name+".", inner, append(slices.Clone(outer), inner))
			continue
		case s.kind == kindObject, s.kind == kindMap, s.kind == kindList && s.elem.kind != kindAny && s.elem.structured():
			p.Content = map[string]*docMedia{"application/json": {Schema: o.d.schemas.of(inner, false), Example: o.exampleOf(name)}}
		default:
			p.Schema, p.Example = o.d.schemas.parameter(inner), o.exampleOf(name)
		}
		o.op.Parameters = append(o.op.Parameters, p)
	}
}

// headers adds the fields that the server reads.
func (o *outline) headers() {
	add := func(key string) { o.op.Parameters = append(o.op.Parameters, o.d.parameter(key)) }
	switch {
	case o.RequireKey:
		add("IdempotencyKeyRequired")
	case o.takesKey():
		add("IdempotencyKey")
	}
	if o.RequireMatch {
		add("IfMatch")
	}
	if o.method == "GET" {
		add("IfNoneMatch")
	}
	if o.async() {
		add("Prefer")
	}
}

func (o *outline) takesKey() bool { return o.RequireKey || o.method == "POST" || o.method == "PATCH" }
func (o *outline) async() bool    { return !o.d.noAsync && !o.Event && o.method != "GET" }

// body adds the request's body; raw is the example of the whole request.
func (o *outline) body(raw json.RawMessage) {
	switch {
	case o.noBody() || o.method == "DELETE" && o.Body == "":
		return
	case o.Body != "":
		o.bodyMember()
	default:
		o.wholeBody(raw)
	}
	if o.op.RequestBody == nil || !o.Event {
		return
	}
	o.d.events = true
	event := &jsonschema.Schema{Ref: schemaRef + "CloudEvent"}
	o.op.RequestBody.Content[wire.ContentTypeEvent] = &docMedia{Schema: event}
	o.op.RequestBody.Content[wire.ContentTypeEvents] = &docMedia{Schema: &jsonschema.Schema{Type: "array", Items: event}}
}

func (o *outline) bodyMember() {
	content := map[string]*docMedia{}
	s, _ := o.shape.member(o.Body)
	t, description := typeAt(o.in, o.shape, o.Body)
	m := &docMedia{Schema: &jsonschema.Schema{Type: "string", Description: description}, Example: o.exampleOf(o.Body)}
	if t != nil {
		m.Schema = o.d.schemas.of(t, false)
	}
	for _, name := range o.types(true) {
		content[name] = m
	}
	if s.kind == kindBytes || s.kind == kindText {
		content["*/*"] = &docMedia{}
	}
	o.op.RequestBody = &docBody{Content: content}
}

func (o *outline) wholeBody(raw json.RawMessage) {
	var schema *jsonschema.Schema
	switch {
	case o.in != nil && o.shape.kind == kindObject:
		var inPath int
		own := o.d.schemas.object(o.in, false, func(name string) bool {
			if slices.Contains(o.params, name) {
				inPath++
				return false
			}
			return true
		})
		if schema = own; len(own.Properties) == 0 {
			return
		}
		if inPath == 0 {
			schema = o.d.schemas.of(o.in, false)
		}
	case o.in != nil:
		schema = o.d.schemas.of(o.in, false)
	}
	if o.isObject && len(o.params) > 0 {
		inPath := func(m member) bool { return slices.Contains(o.params, m.name) }
		raw = appendObject(nil, slices.DeleteFunc(slices.Clone(o.example), inPath))
	}
	o.op.RequestBody = &docBody{Content: o.content(o.types(len(o.params) > 0), schema, raw)}
}

// types are the media types of a body, or only those that are JSON: a parameter cannot be put into others.
func (o *outline) types(onlyJSON bool) []string {
	types := o.Types
	if onlyJSON {
		types = slices.DeleteFunc(slices.Clone(types), func(t string) bool { return !isJSON(t) })
	}
	switch {
	case len(types) > 0:
		return types
	case onlyJSON || o.Request != nil || o.Response != nil:
		return []string{"application/json"}
	}
	return []string{"*/*"}
}

// content says what a body of each media type looks like, as far as that is known.
func (o *outline) content(types []string, schema *jsonschema.Schema, example json.RawMessage) map[string]*docMedia {
	content := map[string]*docMedia{}
	for _, t := range types {
		content[t] = &docMedia{}
		if isJSON(t) {
			content[t] = &docMedia{Schema: schema, Example: example}
		}
	}
	return content
}

// success adds the answers that are no failures; example is that of the reply.
func (o *outline) success(example json.RawMessage) {
	headers := map[string]*docHeader{}
	if !o.Deprecated.IsZero() {
		headers["Deprecation"] = o.d.header("Deprecation")
	}
	if !o.Sunset.IsZero() {
		headers["Sunset"] = o.d.header("Sunset")
	}
	if o.Event {
		o.answer(http.StatusAccepted, headers, nil)
		return
	}
	types := o.types(false)
	if o.Response == nil || !slices.ContainsFunc(types, isJSON) { // in JSON nothing is still null
		o.answer(http.StatusNoContent, maps.Clone(headers), nil)
	}
	status := o.Status
	switch {
	case o.Response == nil && bodyless(status):
		status = 0
	case status != 0 && !bodyless(status):
	case o.Location != "":
		status = http.StatusCreated
	default:
		status = http.StatusOK
	}
	if o.async() && status != http.StatusAccepted {
		accepted := maps.Clone(headers)
		for _, name := range []string{"Location", "Preference-Applied", "Retry-After"} {
			accepted[name] = o.d.header(name)
		}
		o.answer(http.StatusAccepted, accepted, nil)
		o.op.Responses["202"].Description = "Accepted: Location will lead to the result."
	}
	if status == 0 {
		return
	}
	if o.Location != "" || status == http.StatusCreated {
		headers["Location"] = o.d.header("Location")
	}
	if o.method == "GET" && status == http.StatusOK || o.RequireMatch {
		headers["ETag"] = o.d.header("ETag")
	}
	if o.method == "GET" {
		headers["Link"] = o.d.header("Link")
	}
	var schema *jsonschema.Schema
	if o.Response != nil {
		schema = o.d.schemas.of(o.Response, true)
	}
	o.answer(status, headers, o.content(types, schema, example))
	if o.method == "GET" && status == http.StatusOK {
		o.answer(http.StatusNotModified, map[string]*docHeader{"ETag": o.d.header("ETag")}, nil)
	}
}

func (o *outline) answer(status int, headers map[string]*docHeader, content map[string]*docMedia) {
	o.op.Responses[strconv.Itoa(status)] = &docResponse{Description: http.StatusText(status),
		Headers: headers, Content: content}
}

// failures adds the statuses that the route itself leads to, and the default for all others.
func (o *outline) failures() {
	const problem = "#/components/responses/Problem"
	reasons := map[int][]string{}
	add := func(status int, more ...string) { reasons[status] = append(reasons[status], more...) }
	if len(o.params) > 0 || o.inQuery() || o.op.RequestBody != nil {
		add(http.StatusBadRequest)
	}
	if o.op.RequestBody != nil {
		add(http.StatusRequestEntityTooLarge)
		add(http.StatusUnsupportedMediaType)
	}
	if !o.Event && len(o.Types) > 0 {
		add(http.StatusNotAcceptable)
	}
	if o.takesKey() {
		add(http.StatusConflict, ReasonKeyInUse)
		add(http.StatusUnprocessableEntity, ReasonKeyReused)
	}
	if o.RequireKey {
		add(http.StatusBadRequest, ReasonKeyMissing)
	}
	if o.RequireMatch {
		add(http.StatusPreconditionFailed)
		add(http.StatusPreconditionRequired)
	}
	for _, reason := range slices.Sorted(maps.Keys(o.Statuses)) {
		add(o.Statuses[reason], reason)
	}
	for status, names := range reasons {
		text := http.StatusText(status)
		if len(names) > 0 {
			text = strings.TrimPrefix(text+": "+strings.Join(names, ", "), ": ")
		}
		o.op.Responses[strconv.Itoa(status)] = &docResponse{Ref: problem, Description: text}
	}
	o.op.Responses["default"] = &docResponse{Ref: problem}
}
