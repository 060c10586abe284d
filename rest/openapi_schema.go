package rest

import (
	"bytes"
	"encoding"
	"encoding/json"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
)

const schemaRef = "#/components/schemas/"

// schemas makes the schemas of Go types. Those of composite types with a name, which may contain themselves, are
// components.
type schemas struct {
	names   map[string]bool // that are taken
	all     map[schemaKey]*component
	order   []*component
	current *component // that is being made
}

// A schemaKey is a type as it is in replies, which encoding/json writes, or in requests, which it reads.
type schemaKey struct {
	t     reflect.Type
	reply bool
}

type component struct {
	schemaKey
	schema *jsonschema.Schema
	uses   []schemaKey          // in it
	refs   []*jsonschema.Schema // to it
}

func newSchemas(reserved ...string) *schemas {
	g := &schemas{names: map[string]bool{}, all: map[schemaKey]*component{}}
	for _, name := range reserved {
		g.names[name] = true
	}
	return g
}

var (
	timeType          = reflect.TypeFor[time.Time]()
	rawType           = reflect.TypeFor[json.RawMessage]()
	jsonMarshalerType = reflect.TypeFor[json.Marshaler]()
	textMarshalerType = reflect.TypeFor[encoding.TextMarshaler]()
)

// of returns the schema of a value of type t, which may be nil where its type can be.
func (g *schemas) of(t reflect.Type, reply bool) *jsonschema.Schema {
	return orNull(g.some(t, reply), t, reply)
}

// orNull returns s, and null as well if encoding/json writes that for a nil of type t. Requests may have null anywhere; it
// is worth saying for pointers only.
func orNull(s *jsonschema.Schema, t reflect.Type, reply bool) *jsonschema.Schema {
	switch k := t.Kind(); {
	case k == reflect.Pointer, reply && (k == reflect.Slice || k == reflect.Map):
	default:
		return s
	}
	switch {
	case s.Ref != "":
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{s, {Type: "null"}}}
	case s.Type != "":
		s.Type, s.Types = "", []string{s.Type, "null"}
	}
	return s
}

// some returns the schema of a value of type t that is not nil.
func (g *schemas) some(t reflect.Type, reply bool) *jsonschema.Schema {
	t = deref(t)
	p := reflect.PointerTo(t)
	switch {
	case t == timeType:
		return &jsonschema.Schema{Type: "string", Format: "date-time"}
	case t == numberType:
		return &jsonschema.Schema{Type: "number"}
	case t == rawType, reply && p.Implements(jsonMarshalerType), !reply && p.Implements(jsonType):
		return anything()
	case reply && p.Implements(textMarshalerType), !reply && p.Implements(textType):
		return &jsonschema.Schema{Type: "string"}
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Slice, reflect.Array, reflect.Map:
		if t.Name() != "" && !isBytes(t) {
			return g.ref(schemaKey{t, reply})
		}
		return g.composite(t, reply)
	}
	return basic(t)
}

// ref returns a reference to a component, which is made if there is none. Its name is known in the end.
func (g *schemas) ref(k schemaKey) *jsonschema.Schema {
	c := g.all[k]
	if c == nil {
		c = &component{schemaKey: k}
		g.all[k] = c
		g.order = append(g.order, c)
		outer := g.current
		g.current = c
		c.schema = g.composite(k.t, k.reply)
		g.current = outer
	}
	if g.current != nil {
		g.current.uses = append(g.current.uses, k)
	}
	s := &jsonschema.Schema{Ref: schemaRef}
	c.refs = append(c.refs, s)
	return s
}

func (g *schemas) composite(t reflect.Type, reply bool) *jsonschema.Schema {
	switch k := t.Kind(); {
	case k == reflect.Struct:
		return g.object(t, reply, func(string) bool { return true })
	case k == reflect.Map:
		switch t.Key().Kind() {
		case reflect.String, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
			reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		default:
			if !t.Key().Implements(textMarshalerType) {
				return anything()
			}
		}
		return &jsonschema.Schema{Type: "object", AdditionalProperties: g.of(t.Elem(), reply)}
	case isBytes(t):
		return &jsonschema.Schema{Type: "string", ContentEncoding: "base64"}
	case k == reflect.Array:
		n := t.Len()
		return &jsonschema.Schema{Type: "array", Items: g.of(t.Elem(), reply), MinItems: &n, MaxItems: &n}
	}
	return &jsonschema.Schema{Type: "array", Items: g.of(t.Elem(), reply)}
}

// object returns the schema of a struct, with the members that keep wants.
func (g *schemas) object(t reflect.Type, reply bool, keep func(name string) bool) *jsonschema.Schema {
	o := &jsonschema.Schema{Type: "object"}
	for _, f := range membersOfStruct(t) {
		if !keep(f.name) {
			continue
		}
		s := g.some(f.t, reply)
		if f.quoted {
			s = &jsonschema.Schema{Type: "string"}
		}
		if !f.optional {
			s = orNull(s, f.t, reply)
		}
		if f.description != "" {
			s.Description = f.description
		}
		if o.Properties == nil {
			o.Properties = map[string]*jsonschema.Schema{}
		}
		o.Properties[f.name] = s
		o.PropertyOrder = append(o.PropertyOrder, f.name)
		if reply && !f.optional {
			o.Required = append(o.Required, f.name)
		}
	}
	return o
}

// basic returns the schema of a type that consists of nothing else.
func basic(t reflect.Type) *jsonschema.Schema {
	k := t.Kind()
	if k == reflect.Interface || k == reflect.Pointer {
		return anything()
	}
	s, err := jsonschema.ForType(t, nil)
	if err != nil { // no JSON stands for it
		return anything()
	}
	switch {
	case s.Type == "integer":
		s.Format = map[reflect.Kind]string{reflect.Int: "int64", reflect.Uint: "uint64", reflect.Uintptr: "uint64"}[k]
		if s.Format == "" {
			s.Format = k.String()
		}
	case k == reflect.Float32:
		s.Format = "float"
	case k == reflect.Float64:
		s.Format = "double"
	}
	return s
}

func anything() *jsonschema.Schema { return &jsonschema.Schema{Description: "Any JSON value."} }

// parameter returns the schema of a value in a path or a query, where t is no pointer: see shape.convert.
func (g *schemas) parameter(t reflect.Type) *jsonschema.Schema {
	switch s := shapeOf(t); {
	case s.kind == kindText && t == timeType:
		return &jsonschema.Schema{Type: "string", Format: "date-time"}
	case s.kind == kindText:
		return &jsonschema.Schema{Type: "string"}
	case s.kind == kindNumber:
		return &jsonschema.Schema{Type: "number"}
	case s.kind == kindAny:
		return &jsonschema.Schema{Description: "Any JSON value. What is none is a string."}
	case s.kind == kindBytes:
		return &jsonschema.Schema{Type: "string", ContentEncoding: "base64"}
	case s.kind == kindList:
		return &jsonschema.Schema{Type: "array", Items: g.parameter(deref(t.Elem()))}
	case s.structured():
		return &jsonschema.Schema{Type: "string", ContentMediaType: "application/json"}
	}
	return basic(t)
}

// components names the components and returns them by their names. A type that is not the same in requests and replies is
// there twice.
func (g *schemas) components() map[string]*jsonschema.Schema {
	names := map[reflect.Type]string{}
	for _, c := range g.order {
		if names[c.t] == "" {
			names[c.t] = g.name(c.t)
		}
		c.refer(names[c.t])
	}
	differ := map[reflect.Type]bool{}
	for _, c := range g.order {
		if twin := g.all[schemaKey{c.t, true}]; !c.reply && twin != nil {
			request, _ := json.Marshal(c.schema)
			reply, _ := json.Marshal(twin.schema)
			differ[c.t] = !bytes.Equal(request, reply)
		}
	}
	for more := true; more; { // what contains one that differs does so too
		more = false
		for _, c := range g.order {
			_, both := differ[c.t]
			if both && !differ[c.t] && slices.ContainsFunc(c.uses, func(k schemaKey) bool { return differ[k.t] }) {
				differ[c.t], more = true, true
			}
		}
	}
	all := map[string]*jsonschema.Schema{}
	for _, c := range g.order {
		name := names[c.t]
		if differ[c.t] && !c.reply {
			name = g.unique(name + "Input")
			c.refer(name)
		}
		all[name] = c.schema
	}
	return all
}

func (c *component) refer(name string) {
	for _, s := range c.refs {
		s.Ref = schemaRef + name
	}
}

var (
	localType   = regexp.MustCompile(`·\d+`) // what reflect adds to the name of one that a function declares
	noComponent = regexp.MustCompile(`[^A-Za-z0-9_-]+`)
)

// name returns the name of a type: with its package, if it is taken without, and with a number, if it is taken so too.
func (g *schemas) name(t reflect.Type) string {
	apart := func(r rune) bool { return strings.ContainsRune("[],*{} ;", r) }
	words := strings.FieldsFunc(localType.ReplaceAllString(t.Name(), ""), apart)
	for i, w := range words { // the arguments of a generic type have their packages
		w = path.Base(w)
		words[i] = w[strings.LastIndexByte(w, '.')+1:]
	}
	name := strings.Trim(noComponent.ReplaceAllString(strings.Join(words, "_"), "_"), "_")
	if name == "" {
		name = "Type"
	}
	if g.names[name] {
		name = noComponent.ReplaceAllString(path.Base(t.PkgPath()), "_") + "." + name
	}
	return g.unique(name)
}

func (g *schemas) unique(name string) string {
	free := name
	for n := 2; g.names[free]; n++ {
		free = name + strconv.Itoa(n)
	}
	g.names[free] = true
	return free
}

// isBytes reports whether encoding/json writes t as base64.
func isBytes(t reflect.Type) bool {
	if t.Kind() != reflect.Slice || t.Elem().Kind() != reflect.Uint8 {
		return false
	}
	p := reflect.PointerTo(t.Elem())
	return !p.Implements(jsonMarshalerType) && !p.Implements(textMarshalerType)
}

// deref returns what a pointer of type t leads to; nil stays nil. A type may be a pointer to itself, so there is an end.
func deref(t reflect.Type) reflect.Type {
	for range 32 {
		if t == nil || t.Kind() != reflect.Pointer {
			break
		}
		t = t.Elem()
	}
	return t
}

// typeAt returns the type and the description of the member that name leads to from t, nil if they are not known. The
// shape is t's.
func typeAt(t reflect.Type, s *shape, name string) (reflect.Type, string) {
	_, way := s.member(name)
	description := ""
	for _, step := range way {
		if t = deref(t); t == nil {
			return nil, ""
		}
		if t.Kind() == reflect.Map {
			t, description = t.Elem(), ""
			continue
		}
		all := membersOfStruct(t)
		i := slices.IndexFunc(all, func(f structMember) bool { return f.name == step })
		if i < 0 {
			return nil, ""
		}
		t, description = all[i].t, all[i].description
	}
	return deref(t), description
}

// A structMember is a member of a struct as encoding/json sees it.
type structMember struct {
	name        string
	t           reflect.Type
	description string
	quoted      bool // the tag says ",string"
	optional    bool // it may be missing in what is written
	tagged      bool
	depth       int
}

// membersOfStruct returns the members of t in their order, with those of embedded structs: of several with one name the
// least nested counts, then the one with a tag, and else none.
func membersOfStruct(t reflect.Type) []structMember {
	all := structMembers(nil, deref(t), nil, false)
	best := map[string]structMember{}
	again := map[string]bool{}
	for _, f := range all {
		switch b, ok := best[f.name]; {
		case !ok, f.depth < b.depth, f.depth == b.depth && f.tagged && !b.tagged:
			best[f.name], again[f.name] = f, false
		case f.depth == b.depth && f.tagged == b.tagged:
			again[f.name] = true
		}
	}
	return slices.DeleteFunc(all, func(f structMember) bool {
		b := best[f.name]
		return again[f.name] || f.depth != b.depth || f.tagged != b.tagged
	})
}

// notDescription is what jsonschema-go keeps for later versions of its tag, and others use: key=value.
var notDescription = regexp.MustCompile(`^[^ \t\n]*=`)

// structMembers appends the members of t that are written, dominated or not. It is embedded in the types in outer, perhaps
// by a pointer.
func structMembers(all []structMember, t reflect.Type, outer []reflect.Type, optional bool) []structMember {
	if t.Kind() != reflect.Struct || slices.Contains(outer, t) {
		return all
	}
	outer = append(slices.Clone(outer), t)
	for f := range t.Fields() {
		tag := f.Tag.Get("json")
		inner := deref(f.Type)
		if tag == "-" || !f.IsExported() && !(f.Anonymous && inner.Kind() == reflect.Struct) {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if f.Anonymous && name == "" && inner.Kind() == reflect.Struct {
			all = structMembers(all, inner, outer, optional || inner != f.Type)
			continue
		}
		if !f.IsExported() {
			continue
		}
		m := structMember{name: name, t: f.Type, tagged: name != "", depth: len(outer), optional: optional}
		if name == "" {
			m.name = f.Name
		}
		if text := f.Tag.Get("jsonschema"); !notDescription.MatchString(text) {
			m.description = text
		}
		for option := range strings.SplitSeq(options, ",") {
			switch option {
			case "omitempty", "omitzero":
				m.optional = true
			case "string":
				k := inner.Kind()
				m.quoted = k == reflect.String || reflect.Bool <= k && k <= reflect.Float64
			}
		}
		all = append(all, m)
	}
	return all
}
