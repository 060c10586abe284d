package rest

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
)

// A shape is what JSON a Go type takes, as far as parameters are concerned.
type shape struct {
	kind   kind
	bits   int               // of numbers
	quoted bool              // the tag says ",string"
	elem   *shape            // of lists and maps
	fields map[string]*shape // of objects, by their JSON names
}

type kind uint8

const (
	kindText   kind = iota // a string. Also of what is not known
	kindAny                // JSON, or else a string: interfaces and types with an UnmarshalJSON
	kindBytes              // a string in base64
	kindBool               //
	kindInt                //
	kindUint               //
	kindFloat              //
	kindNumber             // json.Number
	kindList               //
	kindObject             // a struct
	kindMap                // a map with strings as keys
)

var (
	textType    = reflect.TypeFor[encoding.TextUnmarshaler]()
	jsonType    = reflect.TypeFor[json.Unmarshaler]()
	numberType  = reflect.TypeFor[json.Number]()
	unknown     = &shape{kind: kindMap, elem: &shape{kind: kindText}} // a request without a type
	unknownList = &shape{kind: kindList, elem: unknown.elem}
)

// shapeOf returns the shape of a request; t may be nil.
func shapeOf(t reflect.Type) *shape {
	if t == nil {
		return unknown
	}
	return shapes{}.of(t)
}

// shapes are those that were begun: types may contain themselves.
type shapes map[reflect.Type]*shape

func (known shapes) of(t reflect.Type) *shape {
	for depth := 0; t.Kind() == reflect.Pointer && depth < 100; depth++ { // bounded for type P *P
		t = t.Elem()
	}
	if s := known[t]; s != nil {
		return s
	}
	s := &shape{}
	known[t] = s
	known.fill(s, t)
	return s
}

func (known shapes) fill(s *shape, t reflect.Type) {
	p := reflect.PointerTo(t)
	switch {
	case t == numberType:
		s.kind = kindNumber
		return
	case p.Implements(textType): // also time.Time
		s.kind = kindText
		return
	case p.Implements(jsonType):
		s.kind = kindAny
		return
	}
	switch t.Kind() {
	case reflect.Bool:
		s.kind = kindBool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		s.kind, s.bits = kindInt, t.Bits()
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		s.kind, s.bits = kindUint, t.Bits()
	case reflect.Float32, reflect.Float64:
		s.kind, s.bits = kindFloat, t.Bits()
	case reflect.String:
		s.kind = kindText
	case reflect.Slice, reflect.Array:
		if e := t.Elem(); t.Kind() == reflect.Slice && e.Kind() == reflect.Uint8 &&
			!reflect.PointerTo(e).Implements(textType) && !reflect.PointerTo(e).Implements(jsonType) {
			s.kind = kindBytes
			return
		}
		s.kind, s.elem = kindList, known.of(t.Elem())
	case reflect.Map:
		if t.Key().Kind() != reflect.String && !reflect.PointerTo(t.Key()).Implements(textType) {
			s.kind = kindAny
			return
		}
		s.kind, s.elem = kindMap, known.of(t.Elem())
	case reflect.Struct:
		s.kind = kindObject
		s.fields = known.members(t)
	default:
		s.kind = kindAny
	}
}

// members returns the members of a struct, with those of embedded structs, as encoding/json sees them: of several with one
// name the least nested wins, then the one with a tag, and else none.
func (known shapes) members(t reflect.Type) map[string]*shape {
	type found struct {
		shape  *shape
		tagged bool
		again  bool // one more of the same rank
	}
	all := map[string]*found{}
	seen := map[reflect.Type]bool{t: true}
	for level := []reflect.Type{t}; len(level) > 0; {
		var next []reflect.Type
		here := map[string]*found{}
		for _, t := range level {
			for f := range t.Fields() {
				name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
				if f.Tag.Get("json") == "-" || !f.IsExported() && !f.Anonymous {
					continue
				}
				inner := f.Type
				if inner.Kind() == reflect.Pointer {
					if inner = inner.Elem(); !f.IsExported() {
						continue // encoding/json cannot set it
					}
				}
				if f.Anonymous && name == "" && inner.Kind() == reflect.Struct {
					if !seen[inner] {
						seen[inner] = true
						next = append(next, inner)
					}
					continue
				}
				if !f.IsExported() {
					continue
				}
				tagged := name != ""
				if !tagged {
					name = f.Name
				}
				s := known.of(f.Type)
				if strings.Contains(","+options+",", ",string,") && s.kind != kindList && s.kind != kindObject {
					quoted := *s
					quoted.quoted = true
					s = &quoted
				}
				switch old := here[name]; {
				case old == nil || tagged && !old.tagged:
					here[name] = &found{shape: s, tagged: tagged}
				case tagged == old.tagged:
					old.again = true
				}
			}
		}
		for name, f := range here {
			if all[name] == nil {
				all[name] = f
			}
		}
		level = next
	}
	members := map[string]*shape{}
	for name, f := range all {
		if !f.again {
			members[name] = f.shape
		}
	}
	return members
}

// member returns the shape of the member that name leads to, and the way to it: name itself, or its words between dots
// where that is a way through objects. It is nil if there is none.
func (s *shape) member(name string) (*shape, []string) {
	switch s.kind {
	case kindMap:
		if s == unknown {
			return s.elem, []string{name}
		}
		first, after, more := strings.Cut(name, ".")
		if more && (s.elem.kind == kindObject || s.elem.kind == kindMap) {
			if m, way := s.elem.member(after); m != nil {
				return m, append([]string{first}, way...)
			}
		}
		return s.elem, []string{name}
	case kindObject:
		if m := s.fields[name]; m != nil {
			return m, []string{name}
		}
		for i := range len(name) {
			if name[i] != '.' {
				continue
			}
			if m := s.fields[name[:i]]; m != nil {
				if m, way := m.member(name[i+1:]); m != nil {
					return m, append([]string{name[:i]}, way...)
				}
			}
		}
	}
	return nil, nil
}
