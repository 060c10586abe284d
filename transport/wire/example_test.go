package wire_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

func ExampleHTTPStatus() {
	fmt.Println(wire.HTTPStatus(transport.CodeNotFound), wire.RPCCode(transport.CodeNotFound), wire.CloseCode(transport.CodeNotFound))
	fmt.Println(wire.CodeFromHTTP(503))
	// Output:
	// 404 -32005 4404
	// unavailable
}

func ExampleWriteProblem() {
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/orders/7", nil)
	wire.WriteProblem(w, r, transport.Wrap(errors.New("private"), transport.CodeNotFound, "there is no order 7"))
	fmt.Println(w.Code, w.Header().Get("Content-Type"))
	fmt.Println(w.Body)
	// Output:
	// 404 application/problem+json
	// {"type":"about:blank","title":"Not Found","status":404,"detail":"there is no order 7","code":"not_found"}
}

func ExampleParseProblem() {
	e := wire.ParseProblem([]byte(`{"title":"Out of credit","type":"https://example.com/credit"}`), 403)
	fmt.Println(e, e.Remote, e.Header)
	// Output: permission_denied: Out of credit true map[problem-type:[https://example.com/credit]]
}

func ExampleSetHeader() {
	h := http.Header{}
	wire.SetHeader(h, transport.Header{"content-type": {"application/json"}, "x-name": {"Jürgen"}, "x-hash-bin": {"\x00\xff"}})
	fmt.Println(h)
	h.Set("Authorization", "Bearer secret")
	message, peer, err := wire.SplitHeader(h)
	fmt.Println(message.Get("x-name"), peer, err)
	// Output:
	// map[Content-Type:[application/json] Intermodal-Header:[x-name=~SsO8cmdlbg] X-Hash-Bin:[AP8]]
	// Jürgen map[authorization:[Bearer secret]] <nil>
}

func ExampleAppendEvent() {
	m := &transport.Message{ID: "17", Topic: "orders.placed", Body: []byte(`{"order":7}`),
		Header: transport.Header{"content-type": {"application/json"}, "x-tenant": {"acme"}}}
	fmt.Printf("%s\n", wire.AppendEvent(nil, m))
	// Output: {"specversion":"1.0","id":"17","source":"/topics/orders.placed","type":"orders.placed","datacontenttype":"application/json","intermodalheader":"x-tenant=acme","data":{"order":7}}
}

func ExampleParseEvent() {
	m, err := wire.ParseEvent([]byte(`{"specversion":"1.0","id":"17","source":"/shop","type":"orders.placed","subject":"7","data":{"n": 1}}`), nil)
	fmt.Println(m.ID, m.Topic, m.Header, string(m.Body), err)
	// Output: 17 orders.placed map[ce-source:[/shop] ce-subject:[7] content-type:[application/json]] {"n": 1} <nil>
}

func ExampleReadEvents() {
	r := httptest.NewRequest("POST", "/topics/orders.placed", nil)
	r.Header.Set("Content-Type", "text/plain")
	r.Header.Set("Ce-Intermodalheader", "ttl=5000,priority=7")
	ms, err := wire.ReadEvents(r.Header, []byte("hello"), &wire.EventOptions{Topic: "orders.placed"})
	fmt.Println(len(ms), ms[0].Header, err)
	// Output: 1 map[content-type:[text/plain] priority:[7] ttl:[5000]] <nil>
}

func ExampleNegotiate() {
	offers := []string{wire.ContentTypeEvents, "text/event-stream"}
	fmt.Println(wire.Negotiate([]string{"text/event-stream"}, offers...)) // a browser's EventSource
	fmt.Println(wire.Negotiate([]string{"*/*"}, offers...))               // curl
	fmt.Println(wire.Negotiate([]string{"image/png"}, offers...))
	// Output:
	// text/event-stream true
	// application/cloudevents-batch+json true
	//  false
}
