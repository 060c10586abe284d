package rest_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
)

var updateOpenAPI = flag.Bool("update", false, "write testdata/openapi.json")

type (
	User struct {
		ID      string    `json:"id" jsonschema:"The server gives it."`
		Name    string    `json:"name"`
		Email   *string   `json:"email"`
		Created time.Time `json:"created"`
		Manager *User     `json:"manager,omitempty"`
	}
	UserID struct {
		ID string `json:"id"`
	}
	ListUsers struct {
		Paging
		Name   string     `json:"name" jsonschema:"Only users whose name begins so."`
		Roles  []string   `json:"roles"`
		Since  *time.Time `json:"since"`
		Active bool       `json:"active"`
		Filter struct {
			Status string `json:"status"`
			Levels []int8 `json:"levels"`
		} `json:"filter"`
		Labels map[string]string `json:"labels"`
	}
	Paging struct {
		After string `json:"after"`
		Limit int32  `json:"limit" jsonschema:"At most so many."`
	}
	Page[T any] struct {
		Items []T    `json:"items"`
		Next  string `json:"next,omitempty"`
	}
	Order struct {
		ID       int64      `json:"id,string"`
		User     string     `json:"user"`
		Lines    []Line     `json:"lines"`
		Shipping Address    `json:"shipping"`
		Extra    any        `json:"extra,omitempty"`
		Status   string     `json:"status"`
		Price    float64    `json:"price"`
		Weights  [2]float32 `json:"weights"`
	}
	Line struct {
		SKU      string `json:"sku"`
		Quantity uint16 `json:"quantity"`
	}
	Address struct {
		Street, City string
	}
	PlaceOrder struct {
		User     string  `json:"user"`
		Lines    []Line  `json:"lines"`
		Shipping Address `json:"shipping"`
		DryRun   bool    `json:"dryRun,omitempty"`
	}
	OrderID struct {
		User string `json:"user"`
		ID   int64  `json:"id"`
	}
	CancelOrder struct {
		ID     int64  `json:"id"`
		Reason string `json:"reason,omitempty"`
	}
	File struct {
		Path    string `json:"path"`
		Content []byte `json:"content"`
		Public  bool   `json:"public"`
	}
	Placed struct {
		Order int64     `json:"order"`
		At    time.Time `json:"at"`
	}
)

var shopInfo = rest.Info{Title: "Shop", Version: "1.2.0", Description: "Users, orders, files.",
	Servers: []string{"https://shop.example.com/api"}}

// shop is an API as somebody might have it.
func shopRoutes() []rest.Route {
	list := rest.For(transport.Operation[ListUsers, Page[User]]{Topic: "users.list"}, "GET /users")
	list.Summary, list.Tags = "Lists users", []string{"users"}

	get := rest.For(transport.Operation[UserID, User]{Topic: "users.get"}, "GET /users/{id}")
	get.Summary, get.Tags = "Returns a user", []string{"users"}
	get.Example = UserID{"ada"}
	get.ExampleReply = User{ID: "ada", Name: "Ada", Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}

	create := rest.For(transport.Operation[User, User]{Topic: "users.create"}, "POST /users")
	create.Location, create.RequireKey, create.Tags = "/users/{id}", true, []string{"users"}
	create.Statuses = map[string]int{"EMAIL_TAKEN": 409, "NO_SUCH_DOMAIN": 422}

	replace := rest.For(transport.Operation[User, User]{Topic: "users.replace"}, "PUT /users/{id}")
	replace.RequireMatch, replace.Tags = true, []string{"users"}
	replace.Example = User{ID: "ada", Name: "Ada Lovelace"}

	remove := rest.For(transport.Operation[UserID, struct{}]{Topic: "users.remove"}, "DELETE /users/{id}")
	remove.Response, remove.Tags = nil, []string{"users"}

	place := rest.For(transport.Operation[PlaceOrder, Order]{Topic: "orders.place"}, "POST /users/{user}/orders")
	place.Location, place.Tags = "/users/{user}/orders/{id}", []string{"orders"}
	place.Example = PlaceOrder{User: "ada", Lines: []Line{{"A-7", 2}}, Shipping: Address{"St James's Square", "London"}}

	get2 := rest.For(transport.Operation[OrderID, Order]{Topic: "orders.get"}, "GET /users/{user}/orders/{id}")
	get2.Tags = []string{"orders"}

	cancel := rest.For(transport.Operation[CancelOrder, Order]{Topic: "orders.cancel"}, "POST /orders/{id}:cancel")
	cancel.Idempotent, cancel.Tags = true, []string{"orders"}

	put := rest.For(transport.Operation[File, struct{}]{Topic: "files.put"}, "PUT /files/{path...}")
	put.Body, put.Description, put.Tags = "content", "Stores a file.", []string{"files"}

	read := rest.Route{Topic: "files.read", Pattern: "GET /files/{name...}", Tags: []string{"files"}}

	event := rest.ForEvent(transport.Event[Placed]{Topic: "orders.placed"}, "POST /events/orders.placed")
	event.Tags = []string{"orders"}

	old := rest.For(transport.Operation[UserID, User]{Topic: "users.get"}, "GET /v1/users/{id}")
	old.Deprecated, old.Sunset = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	old.Summary, old.Tags = "Returns a user", []string{"users"}

	return []rest.Route{list, get, create, replace, remove, place, get2, cancel, put, read, event, old}
}

func TestOpenAPIGolden(t *testing.T) {
	path := filepath.Join("testdata", "openapi.json")
	if *updateOpenAPI {
		doc, err := rest.OpenAPI(shopInfo, shopRoutes()...)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, doc, 0o644))
	}
	require.NoError(t, rest.OpenAPIUpToDate(path, shopInfo, shopRoutes()...))
	doc, err := os.ReadFile(path)
	require.NoError(t, err)
	for range 20 {
		again, err := rest.OpenAPI(shopInfo, shopRoutes()...)
		require.NoError(t, err)
		require.Equal(t, string(doc), string(again))
	}
}

// tree is a JSON value, to look into.
type docTree struct {
	t *testing.T
	v any
}

func describeAPI(t *testing.T, info rest.Info, routes ...rest.Route) docTree {
	t.Helper()
	doc, err := rest.OpenAPI(info, routes...)
	require.NoError(t, err)
	d := docTree{t: t}
	require.NoError(t, json.Unmarshal(doc, &d.v))
	return d
}

// at returns what is under the names; nil if it is not there.
func (d docTree) at(names ...string) any {
	v := d.v
	for _, name := range names {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

// json compares what is under the names with JSON.
func (d docTree) json(want string, names ...string) {
	d.t.Helper()
	have, err := json.Marshal(d.at(names...))
	require.NoError(d.t, err)
	require.JSONEq(d.t, want, string(have), "%v", names)
}

// parameters returns the names of an operation's parameters, those that are references by their names.
func (d docTree) parameters(path, method string) (names []string) {
	d.t.Helper()
	all, _ := d.at("paths", path, method, "parameters").([]any)
	for _, v := range all {
		p := v.(map[string]any)
		if ref, ok := p["$ref"].(string); ok {
			names = append(names, ref[strings.LastIndexByte(ref, '/')+1:])
			continue
		}
		names = append(names, p["in"].(string)+" "+p["name"].(string))
	}
	return names
}

type Text string

func (Text) MarshalText() ([]byte, error)  { return nil, nil }
func (*Text) UnmarshalText(b []byte) error { return nil }

type Label string
type Opaque struct{ A int }

func (*Opaque) MarshalJSON() ([]byte, error) { return []byte("7"), nil }

type loop *loop
type NodeList []*Node
type Node struct {
	Children NodeList         `json:"children"`
	ByName   map[string]*Node `json:"byName,omitempty"`
	Pair     [2]*Node         `json:"pair"`
}
type Endless map[string]Endless
type innerPart struct {
	A      int    `json:"a"`
	Shared string `json:"shared"`
	Twice  string `json:"twice"`
}
type Other struct {
	Shared int    `json:"shared"`
	Twice  string `json:"twice"`
	B      bool   `json:"b"`
}
type Embedding struct {
	innerPart
	*Other
	Shared time.Duration `json:"shared"`
	*Embedding
	Label  `json:"named"`
	hidden string
}

func TestOpenAPISchemas(t *testing.T) {
	schema := func(in, out reflect.Type) docTree {
		return describeAPI(t, rest.Info{}, rest.Route{Topic: "x", Pattern: "POST /x", Request: in, Response: out})
	}
	reply := []string{"paths", "/x", "post", "responses", "200", "content", "application/json", "schema"}
	request := []string{"paths", "/x", "post", "requestBody", "content", "application/json", "schema"}

	for _, c := range []struct {
		t              reflect.Type
		reply, request string // "" is like the reply
	}{
		{reflect.TypeFor[string](), `{"type":"string"}`, ""},
		{reflect.TypeFor[bool](), `{"type":"boolean"}`, ""},
		{reflect.TypeFor[int](), `{"type":"integer","format":"int64"}`, ""},
		{reflect.TypeFor[int8](), `{"type":"integer","format":"int8","minimum":-128,"maximum":127}`, ""},
		{reflect.TypeFor[uint64](), `{"type":"integer","format":"uint64","minimum":0}`, ""},
		{reflect.TypeFor[float32](), `{"type":"number","format":"float"}`, ""},
		{reflect.TypeFor[time.Duration](), `{"type":"integer","format":"int64"}`, ""},
		{reflect.TypeFor[time.Time](), `{"type":"string","format":"date-time"}`, ""},
		{reflect.TypeFor[**string](), `{"type":["string","null"]}`, `{"type":"string"}`},
		{reflect.TypeFor[[]byte](), `{"type":["string","null"],"contentEncoding":"base64"}`, `{"type":"string","contentEncoding":"base64"}`},
		{reflect.TypeFor[[2]byte](), `{"type":"array","minItems":2,"maxItems":2,"items":{"type":"integer","format":"uint8","minimum":0,"maximum":255}}`, ""},
		{reflect.TypeFor[[]int32](), `{"type":["array","null"],"items":{"type":"integer","format":"int32","minimum":-2147483648,"maximum":2147483647}}`,
			`{"type":"array","items":{"type":"integer","format":"int32","minimum":-2147483648,"maximum":2147483647}}`},
		{reflect.TypeFor[map[int]bool](), `{"type":["object","null"],"additionalProperties":{"type":"boolean"}}`,
			`{"type":"object","additionalProperties":{"type":"boolean"}}`},
		{reflect.TypeFor[map[Text]bool](), `{"type":["object","null"],"additionalProperties":{"type":"boolean"}}`,
			`{"type":"object","additionalProperties":{"type":"boolean"}}`},
		{reflect.TypeFor[json.Number](), `{"type":"number"}`, ""},
		{reflect.TypeFor[netip.Addr](), `{"type":"string"}`, ""},
		{reflect.TypeFor[*Text](), `{"type":["string","null"]}`, `{"type":"string"}`},
		{reflect.TypeFor[struct {
			N int  `json:",string"`
			T Text `json:"t"`
			U *int `json:"-"`
		}](), `{"type":"object","properties":{"N":{"type":"string"},"t":{"type":"string"}},"required":["N","t"]}`,
			`{"type":"object","properties":{"N":{"type":"string"},"t":{"type":"string"}}}`},
	} {
		d := schema(c.t, c.t)
		d.json(c.reply, reply...)
		if c.request == "" {
			c.request = c.reply
		}
		d.json(c.request, request...)
	}

	for _, open := range []reflect.Type{reflect.TypeFor[any](), reflect.TypeFor[json.RawMessage](), reflect.TypeFor[big.Int](),
		reflect.TypeFor[func()](), reflect.TypeFor[chan int](), reflect.TypeFor[complex64](), reflect.TypeFor[error](),
		reflect.TypeFor[map[[2]int]string](), reflect.TypeFor[fmt.Stringer]()} {
		schema(open, open).json(`{"description":"Any JSON value."}`, reply...)
	}
	schema(nil, reflect.TypeFor[loop]()).json(`{"description":"Any JSON value."}`, reply...)
	schema(nil, reflect.TypeFor[Opaque]()).json(`{"description":"Any JSON value."}`, reply...)
	schema(reflect.TypeFor[Opaque](), nil).json(`{"type":"object","properties":{"A":{"type":"integer","format":"int64"}}}`, "components", "schemas", "Opaque")

	d := schema(reflect.TypeFor[Node](), reflect.TypeFor[Endless]())
	d.json(`{"$ref":"#/components/schemas/Node"}`, request...)
	d.json(`{"type":"object","properties":{
		"children":{"$ref":"#/components/schemas/NodeList"},
		"byName":{"type":"object","additionalProperties":{"anyOf":[{"$ref":"#/components/schemas/Node"},{"type":"null"}]}},
		"pair":{"type":"array","minItems":2,"maxItems":2,"items":{"anyOf":[{"$ref":"#/components/schemas/Node"},{"type":"null"}]}}}}`,
		"components", "schemas", "Node")
	d.json(`{"anyOf":[{"$ref":"#/components/schemas/Endless"},{"type":"null"}]}`, reply...)
	d.json(`{"type":"object","additionalProperties":{"anyOf":[{"$ref":"#/components/schemas/Endless"},{"type":"null"}]}}`,
		"components", "schemas", "Endless")

	// Of two members "shared" the outer one counts, of two "twice" that are as deep none.
	schema(nil, reflect.TypeFor[Embedding]()).json(`{"type":"object","required":["a","shared","named"],"properties":{
		"a":{"type":"integer","format":"int64"},"b":{"type":"boolean"},"shared":{"type":"integer","format":"int64"},"named":{"type":"string"}}}`,
		"components", "schemas", "Embedding")
}

// What the schema of a type says agrees with what encoding/json writes.
func TestOpenAPIMembersAreThoseOfJSON(t *testing.T) {
	value := Embedding{Other: &Other{}, hidden: "x"}
	written, err := json.Marshal(value)
	require.NoError(t, err)
	var members map[string]any
	require.NoError(t, json.Unmarshal(written, &members))
	d := describeAPI(t, rest.Info{}, rest.Route{Topic: "x", Pattern: "GET /x", Response: reflect.TypeOf(value)})
	properties := d.at("components", "schemas", "Embedding", "properties").(map[string]any)
	require.Len(t, properties, len(members))
	for name := range members {
		require.Contains(t, properties, name)
	}
}

func TestOpenAPIRequestsDiffer(t *testing.T) {
	type leaf struct {
		A string `json:"a,omitempty"`
	}
	type middle struct {
		Leaf *leaf `json:"leaf,omitempty"`
		M    map[string]struct {
			X int `json:"x"`
		} `json:"m,omitempty"`
	}
	type top struct {
		Middle middle `json:"middle,omitempty"`
		Leaf   leaf   `json:"leaf,omitempty"`
	}
	d := describeAPI(t, rest.Info{}, rest.For(transport.Operation[top, top]{Topic: "x"}, "POST /x"))
	require.ElementsMatch(t, []string{"Problem", "leaf", "middle", "middleInput", "top", "topInput"}, namesIn(d.at("components", "schemas")))
	d.json(`{"$ref":"#/components/schemas/middleInput"}`, "components", "schemas", "topInput", "properties", "middle")
	d.json(`{"$ref":"#/components/schemas/leaf"}`, "components", "schemas", "topInput", "properties", "leaf")
	d.json(`{"$ref":"#/components/schemas/middle"}`, "components", "schemas", "top", "properties", "middle")
}

func namesIn(v any) (names []string) {
	m, _ := v.(map[string]any)
	for name := range m {
		names = append(names, name)
	}
	return names
}

func TestOpenAPINames(t *testing.T) {
	type Problem struct{ A string }
	type User struct{ B string }
	type pair[A, B any] struct {
		First  A
		Second B
	}
	d := describeAPI(t, rest.Info{}, rest.For(transport.Operation[struct {
		P Problem
		U User
		G pair[Page[User], map[string]*big.Int]
	}, Page[ShopUser]]{Topic: "x"}, "POST /x"))
	require.ElementsMatch(t, []string{"Problem", "rest_test.Problem", "User", "rest_test.User", "Page_User", "rest_test.Page_User",
		"pair_Page_User_map_string_Int"}, namesIn(d.at("components", "schemas")))
}

type ShopUser = User

func TestOpenAPIParameters(t *testing.T) {
	d := describeAPI(t, rest.Info{NoAsync: true}, shopRoutes()...)
	require.Equal(t, []string{"query after", "query limit", "query name", "query roles", "query since", "query active",
		"query filter.status", "query filter.levels", "query labels", "IfNoneMatch"}, d.parameters("/users", "get"))
	require.Equal(t, []string{"path id", "IfMatch"}, d.parameters("/users/{id}", "put"))
	require.Equal(t, []string{"path id"}, d.parameters("/users/{id}", "delete"))
	require.Equal(t, []string{"IdempotencyKeyRequired"}, d.parameters("/users", "post"))
	require.Equal(t, []string{"path path", "query public"}, d.parameters("/files/{path}", "put"))
	require.Equal(t, []string{"path path", "query members", "IfNoneMatch"}, d.parameters("/files/{path}", "get"))
	require.Equal(t, []string{"path id", "IdempotencyKey"}, d.parameters("/orders/{id}:cancel", "post"))
	require.Equal(t, []string{"IdempotencyKey"}, d.parameters("/events/orders.placed", "post"))

	type request struct {
		User struct {
			ID   uint8 `json:"id" jsonschema:"Who."`
			Name string
		} `json:"user"`
		Any    any
		Anys   []any
		Lines  []Line
		Self   *Node
		N      int `json:",string"`
		When   time.Time
		Tag    Text
		Number json.Number
		Blob   []byte
		Blobs  [][]byte
		Weight float64 `jsonschema:"minimum=3"`
	}
	d = describeAPI(t, rest.Info{NoAsync: true}, rest.For(transport.Operation[request, string]{Topic: "x"}, "DELETE /x/{user.id}"))
	require.Equal(t, []string{"path user.id", "query user.Name", "query Any", "query Anys", "query Lines", "query Self.children",
		"query Self.byName", "query Self.pair", "query N", "query When", "query Tag", "query Number", "query Blob", "query Blobs",
		"query Weight"}, d.parameters("/x/{user.id}", "delete"))
	want := map[string]string{
		"user.id":       `{"name":"user.id","in":"path","required":true,"description":"Who.","schema":{"type":"integer","format":"uint8","minimum":0,"maximum":255}}`,
		"Any":           `{"name":"Any","in":"query","schema":{"description":"Any JSON value. What is none is a string."}}`,
		"Anys":          `{"name":"Anys","in":"query","schema":{"type":"array","items":{"description":"Any JSON value. What is none is a string."}}}`,
		"Lines":         `{"name":"Lines","in":"query","content":{"application/json":{"schema":{"type":"array","items":{"$ref":"#/components/schemas/Line"}}}}}`,
		"Self.children": `{"name":"Self.children","in":"query","content":{"application/json":{"schema":{"$ref":"#/components/schemas/NodeList"}}}}`,
		"N":             `{"name":"N","in":"query","schema":{"type":"integer","format":"int64"}}`,
		"When":          `{"name":"When","in":"query","schema":{"type":"string","format":"date-time"}}`,
		"Tag":           `{"name":"Tag","in":"query","schema":{"type":"string"}}`,
		"Number":        `{"name":"Number","in":"query","schema":{"type":"number"}}`,
		"Blob":          `{"name":"Blob","in":"query","schema":{"type":"string","contentEncoding":"base64"}}`,
		"Blobs":         `{"name":"Blobs","in":"query","schema":{"type":"array","items":{"type":"string","contentEncoding":"base64"}}}`,
		"Weight":        `{"name":"Weight","in":"query","schema":{"type":"number","format":"double"}}`,
	}
	for _, v := range d.at("paths", "/x/{user.id}", "delete", "parameters").([]any) {
		p := v.(map[string]any)
		if s, ok := want[p["name"].(string)]; ok {
			docTree{t, p}.json(s)
			delete(want, p["name"].(string))
		}
	}
	require.Empty(t, want)

	// An object in a path is JSON, and null is no example.
	d = describeAPI(t, rest.Info{NoAsync: true}, rest.Route{Topic: "x", Pattern: "GET /{User}", Request: reflect.TypeFor[struct{ User *Address }](),
		Example: struct{ User *Address }{}})
	d.json(`[{"name":"User","in":"path","required":true,"schema":{"type":"string","contentMediaType":"application/json"}},
		{"$ref":"#/components/parameters/IfNoneMatch"}]`, "paths", "/{User}", "get", "parameters")

	// A request that contains itself is JSON from there on; one without a type takes anything.
	d = describeAPI(t, rest.Info{}, rest.Route{Topic: "x", Pattern: "GET /x", Request: reflect.TypeFor[User]()},
		rest.Route{Topic: "y", Pattern: "GET /y/{z}"}, rest.Route{Topic: "z", Pattern: "GET /z", Request: reflect.TypeFor[map[string]int8]()})
	require.Equal(t, []string{"query id", "query name", "query email", "query created", "query manager", "IfNoneMatch"}, d.parameters("/x", "get"))
	require.Equal(t, []string{"path z", "query members", "IfNoneMatch"}, d.parameters("/y/{z}", "get"))
	require.Equal(t, []string{"query members", "IfNoneMatch"}, d.parameters("/z", "get"))
}

func TestOpenAPIBodies(t *testing.T) {
	d := describeAPI(t, rest.Info{}, shopRoutes()...)
	require.Nil(t, d.at("paths", "/users/{id}", "delete", "requestBody"))
	require.Nil(t, d.at("paths", "/users", "get", "requestBody"))
	d.json(`{"$ref":"#/components/schemas/UserInput"}`, "paths", "/users", "post", "requestBody", "content", "application/json", "schema")
	// What is in the path is not in the body.
	require.ElementsMatch(t, []string{"lines", "shipping", "dryRun"},
		namesIn(d.at("paths", "/users/{user}/orders", "post", "requestBody", "content", "application/json", "schema", "properties")))
	d.json(`{"lines":[{"sku":"A-7","quantity":2}],"shipping":{"Street":"St James's Square","City":"London"}}`,
		"paths", "/users/{user}/orders", "post", "requestBody", "content", "application/json", "example")
	// A member that is bytes may be of any type.
	d.json(`{"content":{"*/*":{},"application/json":{"schema":{"type":"string","contentEncoding":"base64"}}}}`,
		"paths", "/files/{path}", "put", "requestBody")
	require.ElementsMatch(t, []string{"application/json", "application/cloudevents+json", "application/cloudevents-batch+json"},
		namesIn(d.at("paths", "/events/orders.placed", "post", "requestBody", "content")))

	type note struct {
		ID   string `json:"id"`
		Text string `json:"text" jsonschema:"What to say."`
		Line Line   `json:"line"`
	}
	in := reflect.TypeFor[note]()
	d = describeAPI(t, rest.Info{},
		rest.Route{Topic: "a", Pattern: "POST /a", Types: []string{"application/json", "application/x-protobuf"}, Request: in},
		rest.Route{Topic: "b", Pattern: "POST /b/{id}", Types: []string{"application/json", "application/x-protobuf"}, Request: in},
		rest.Route{Topic: "c", Pattern: "POST /c", Request: in, Body: "text", Example: note{Text: "hello"}},
		rest.Route{Topic: "d", Pattern: "POST /d", Request: in, Body: "line"},
		rest.Route{Topic: "e", Pattern: "POST /e", Request: in, Body: "-"},
		rest.Route{Topic: "f", Pattern: "POST /f"},
		rest.Route{Topic: "g", Pattern: "POST /g/{id}:do", Request: reflect.TypeFor[UserID]()},
		rest.Route{Topic: "h", Pattern: "POST /h", Request: reflect.TypeFor[[]string]()})
	content := func(path string) any { return d.at("paths", path, "post", "requestBody", "content") }
	require.ElementsMatch(t, []string{"application/json", "application/x-protobuf"}, namesIn(content("/a")))
	require.Equal(t, map[string]any{}, content("/a").(map[string]any)["application/x-protobuf"])
	require.Equal(t, []string{"application/json"}, namesIn(content("/b/{id}")), "a parameter cannot be put into protobuf")
	d.json(`{"*/*":{},"application/json":{"schema":{"type":"string"},"example":"hello"}}`, "paths", "/c", "post", "requestBody", "content")
	d.json(`{"application/json":{"schema":{"$ref":"#/components/schemas/Line"}}}`, "paths", "/d", "post", "requestBody", "content")
	require.Equal(t, []string{"query id", "query text", "query line.sku", "query line.quantity"}, d.parameters("/e", "post")[:4])
	require.Nil(t, content("/e"))
	d.json(`{"*/*":{}}`, "paths", "/f", "post", "requestBody", "content")
	require.Nil(t, content("/g/{id}:do"))
	d.json(`{"application/json":{"schema":{"type":"array","items":{"type":"string"}}}}`, "paths", "/h", "post", "requestBody", "content")
}

func TestOpenAPIAnswers(t *testing.T) {
	d := describeAPI(t, rest.Info{}, shopRoutes()...)
	statuses := func(path, method string) []string { return namesIn(d.at("paths", path, method, "responses")) }
	require.ElementsMatch(t, []string{"200", "304", "400", "406", "default"}, statuses("/users/{id}", "get"))
	require.ElementsMatch(t, []string{"201", "202", "400", "406", "409", "413", "415", "422", "default"}, statuses("/users", "post"))
	require.ElementsMatch(t, []string{"200", "202", "400", "406", "412", "413", "415", "428", "default"}, statuses("/users/{id}", "put"))
	require.ElementsMatch(t, []string{"200", "202", "204", "400", "406", "default"}, statuses("/users/{id}", "delete"))
	require.ElementsMatch(t, []string{"202", "400", "409", "413", "415", "422", "default"}, statuses("/events/orders.placed", "post"))
	d.json(`{"$ref":"#/components/responses/Problem","description":"Conflict: IDEMPOTENCY_KEY_IN_USE, EMAIL_TAKEN"}`,
		"paths", "/users", "post", "responses", "409")
	require.ElementsMatch(t, []string{"Location"}, namesIn(d.at("paths", "/users", "post", "responses", "201", "headers")))
	require.ElementsMatch(t, []string{"ETag", "Link", "Deprecation", "Sunset"},
		namesIn(d.at("paths", "/v1/users/{id}", "get", "responses", "200", "headers")))
	require.Equal(t, true, d.at("paths", "/v1/users/{id}", "get", "deprecated"))
	require.Equal(t, "Deprecated since 2026-01-01.\n\nIt will be gone after 2027-01-01.", d.at("paths", "/v1/users/{id}", "get", "description"))

	in := reflect.TypeFor[UserID]()
	d = describeAPI(t, rest.Info{NoAsync: true},
		rest.Route{Topic: "a", Pattern: "POST /a", Response: in, Status: 202},
		rest.Route{Topic: "b", Pattern: "POST /b", Status: 204},
		rest.Route{Topic: "c", Pattern: "POST /c", Response: in, Status: 204},
		rest.Route{Topic: "d", Pattern: "POST /d", Response: in, Types: []string{"application/x-protobuf"}},
		rest.Route{Topic: "e", Pattern: "PUT /e", Statuses: map[string]int{"ODD": 499}})
	require.ElementsMatch(t, []string{"202", "400", "409", "413", "415", "422", "default"}, statuses("/a", "post"))
	require.Contains(t, statuses("/b", "post"), "204")
	require.NotContains(t, statuses("/b", "post"), "200")
	require.Contains(t, statuses("/c", "post"), "200")
	require.NotContains(t, statuses("/c", "post"), "204")
	require.Subset(t, statuses("/d", "post"), []string{"200", "204"})
	d.json(`"ODD"`, "paths", "/e", "put", "responses", "499", "description")
}

func TestOpenAPIPaths(t *testing.T) {
	d := describeAPI(t, rest.Info{},
		rest.Route{Topic: "a", Pattern: "GET /"},
		rest.Route{Topic: "a", Pattern: "GET /x/{$}"},
		rest.Route{Topic: "a", Pattern: "GET /x%2Fy/é"},
		rest.Route{Topic: "a", Pattern: "POST /x/{id}"},
		rest.Route{Topic: "a", Pattern: "PUT /x/{user-id}"},
		rest.Route{Topic: "b", Pattern: "GET /x/{id}", Description: "One."},
		rest.Route{Topic: "c", Pattern: "GET /x/{path...}"},
		rest.Route{Topic: "d", Pattern: "PURGE /x/{id}"})
	require.ElementsMatch(t, []string{"/", "/x/", "/x%2Fy/%C3%A9", "/x/{id}"}, namesIn(d.at("paths")))
	require.ElementsMatch(t, []string{"get", "post", "put", "x-purge"}, namesIn(d.at("paths", "/x/{id}")))
	require.Equal(t, "a", d.at("paths", "/", "get", "operationId"))
	require.Equal(t, "a.get", d.at("paths", "/x/", "get", "operationId"))
	require.Equal(t, "a.get.2", d.at("paths", "/x%2Fy/%C3%A9", "get", "operationId"))
	require.Equal(t, "a.post", d.at("paths", "/x/{id}", "post", "operationId"))
	require.Equal(t, "path id", d.parameters("/x/{id}", "put")[0])
	require.Equal(t, "One.\n\nThe path /x/{path...} is another operation, c.", d.at("paths", "/x/{id}", "get", "description"))
}

func TestOpenAPIInfo(t *testing.T) {
	d := describeAPI(t, rest.Info{})
	require.Equal(t, "3.1.0", d.at("openapi"))
	d.json(`{"title":"API","version":"0"}`, "info")
	d.json(`{}`, "paths")
	require.Nil(t, d.at("servers"))
}

func TestOpenAPIErrors(t *testing.T) {
	for _, r := range []rest.Route{
		{Topic: "x", Pattern: "nonsense"},
		{Topic: "", Pattern: "GET /x"},
		{Topic: "x", Pattern: "GET /x", Example: func() {}},
		{Topic: "x", Pattern: "GET /x", ExampleReply: make(chan int)},
	} {
		_, err := rest.OpenAPI(rest.Info{}, r)
		require.ErrorIs(t, err, transport.CodeInvalidArgument, "%+v", r)
	}
}

func TestOpenAPIUpToDate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "openapi.json")
	require.ErrorIs(t, rest.OpenAPIUpToDate(path, shopInfo, shopRoutes()...), transport.CodeFailedPrecondition)
	doc, err := rest.OpenAPI(shopInfo, shopRoutes()...)
	require.NoError(t, err)

	// Its form does not matter.
	var v any
	require.NoError(t, json.Unmarshal(doc, &v))
	compact, err := json.Marshal(v)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, compact, 0o600))
	require.NoError(t, rest.OpenAPIUpToDate(path, shopInfo, shopRoutes()...))

	routes := shopRoutes()
	routes[0].Summary = "Lists all users"
	routes = append(routes, rest.Route{Topic: "new", Pattern: "GET /new/~"})
	info := shopInfo
	info.Servers = nil
	err = rest.OpenAPIUpToDate(path, info, routes...)
	require.ErrorIs(t, err, transport.CodeFailedPrecondition)
	require.ErrorContains(t, err, "is out of date:\n"+
		"  /paths/~1new~1~0 is not in the file\n"+
		`  /paths/~1users/get/summary is "Lists users" in the file, and "Lists all users" now`+"\n"+
		"  /servers is only in the file")

	_, err = rest.OpenAPI(info)
	require.NoError(t, err)
	require.ErrorContains(t, rest.OpenAPIUpToDate(path, rest.Info{}), "/info/description is only in the file")

	require.NoError(t, os.WriteFile(path, []byte(`{"components":[],"info":[1,2],"openapi":{"a":1},"paths":{}}`), 0o600))
	require.ErrorContains(t, rest.OpenAPIUpToDate(path, rest.Info{}), `/openapi is {"a":1} in the file, and "3.1.0" now`)
	require.NoError(t, os.WriteFile(path, append(doc, '}'), 0o600))
	require.ErrorContains(t, rest.OpenAPIUpToDate(path, shopInfo, shopRoutes()...), "is not JSON")
}
