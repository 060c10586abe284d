package rest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
)

type Book struct {
	ID    int    `json:"id"`
	Title string `json:"title"`
}

type ListBooks struct {
	Author string `json:"author"`
	Limit  int    `json:"limit"`
}

var (
	opGetBook   = transport.Operation[Book, Book]{Topic: "books.get"}
	opAddBook   = transport.Operation[Book, Book]{Topic: "books.add"}
	opListBooks = transport.Operation[ListBooks, []Book]{Topic: "books.list"}
	bookSold    = transport.Event[Book]{Topic: "books.sold"}
)

func library() transport.Mux {
	return transport.Mux{
		opGetBook.Topic: opGetBook.Handler(func(ctx context.Context, in Book) (Book, error) {
			if in.ID != 7 {
				return Book{}, transport.Errorf(transport.CodeNotFound, "there is no book %d", in.ID)
			}
			transport.ReplyHeader(ctx).Set("etag", `"v1"`)
			return Book{7, "Moby-Dick"}, nil
		}),
		opAddBook.Topic: opAddBook.Handler(func(ctx context.Context, in Book) (Book, error) {
			in.ID = 8
			return in, nil
		}),
		opListBooks.Topic: opListBooks.Handler(func(ctx context.Context, in ListBooks) ([]Book, error) {
			transport.ReplyHeader(ctx).Set("link", `</books?page=2>; rel="next"`)
			return []Book{{7, "Moby-Dick"}}[:min(1, in.Limit)], nil
		}),
		bookSold.Topic: bookSold.Handler(func(ctx context.Context, in Book) error {
			fmt.Println("sold:", in.ID)
			return nil
		}),
	}
}

func libraryRoutes() []rest.Route {
	add := rest.For(opAddBook, "POST /books")
	add.Location = "/books/{id}"
	return []rest.Route{rest.For(opGetBook, "GET /books/{id}"), rest.For(opListBooks, "GET /books"), add,
		rest.ForEvent(bookSold, "POST /books/{id}:sell")}
}

// show sends a request and prints the answer's status, the fields that are asked for, and the body.
func show(base, method, path, body string, fields http.Header, names ...string) {
	r, _ := http.NewRequest(method, base+path, strings.NewReader(body))
	for k := range fields {
		r.Header.Set(k, fields.Get(k))
	}
	p, err := http.DefaultClient.Do(r)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Body.Close()
	b, _ := io.ReadAll(p.Body)
	fmt.Println(strings.TrimSpace(fmt.Sprint(p.StatusCode, " ", string(b))))
	for _, name := range names {
		fmt.Println(name+":", p.Header.Get(name))
	}
}

func ExampleServer() {
	server, err := rest.NewServer(library(), &rest.Options{Routes: libraryRoutes()})
	if err != nil {
		fmt.Println(err)
		return
	}
	web := httptest.NewServer(server)
	defer web.Close()
	defer http.DefaultClient.CloseIdleConnections()
	json := http.Header{"Content-Type": {"application/json"}}

	show(web.URL, "GET", "/books/7", "", nil, "Etag")
	show(web.URL, "GET", "/books/7", "", http.Header{"If-None-Match": {`"v1"`}})
	show(web.URL, "GET", "/books/9", "", nil, "Content-Type")
	show(web.URL, "GET", "/books?author=Melville&limit=10", "", nil, "Link")
	show(web.URL, "GET", "/books?limit=ten", "", nil)
	show(web.URL, "POST", "/books", `{"title":"Typee"}`, json, "Location")
	show(web.URL, "POST", "/books/7:sell", "", nil)
	show(web.URL, "DELETE", "/books/7", "", nil, "Allow")
	show(web.URL, "POST", "/calls/books.get", `{"id":7}`, json)
	fmt.Println(server.Shutdown(context.Background()))
	// Output:
	// 200 {"id":7,"title":"Moby-Dick"}
	// Etag: "v1"
	// 304
	// 404 {"type":"about:blank","title":"Not Found","status":404,"detail":"there is no book 9","code":"not_found"}
	// Content-Type: application/problem+json
	// 200 [{"id":7,"title":"Moby-Dick"}]
	// Link: </books?page=2>; rel="next"
	// 400 {"type":"about:blank","title":"Bad Request","status":400,"detail":"query parameter \"limit\" must be an integer","code":"invalid_argument","reason":"INVALID_PARAMETER","details":[{"type":"parameter","value":"bGltaXQ="}]}
	// 201 {"id":8,"title":"Typee"}
	// Location: /books/8
	// sold: 7
	// 202
	// 405 {"type":"about:blank","title":"Method Not Allowed","status":405,"detail":"the resource has no method DELETE","code":"unimplemented"}
	// Allow: GET, HEAD, OPTIONS
	// 200 {"id":7,"title":"Moby-Dick"}
	// <nil>
}

// A call that may take long is put off when the client prefers that; the client asks for the result where Location says.
func ExampleServer_async() {
	release := make(chan struct{})
	server, _ := rest.NewServer(transport.Mux{
		"documents.process": func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			<-release
			return &transport.Message{Body: []byte("42 pages")}, nil
		},
	}, nil)
	web := httptest.NewServer(server)
	defer web.Close()
	defer http.DefaultClient.CloseIdleConnections()
	r, _ := http.NewRequest("POST", web.URL+"/calls/documents.process", strings.NewReader("a long text"))
	r.Header.Set("Prefer", "respond-async")
	p, _ := http.DefaultClient.Do(r)
	p.Body.Close()
	fmt.Println(p.StatusCode, p.Header.Get("Preference-Applied"))
	at, _ := p.Location()

	show("", "GET", at.String(), "", nil)
	close(release)
	show("", "GET", at.String(), "", http.Header{"Prefer": {"wait=10"}}) // net/http follows the 303 to the result
	// Output:
	// 202 respond-async
	// 202 {"status":"running"}
	// 200 42 pages
}

// A sender that does not know whether its request arrived sends it again with the same key.
func ExampleServer_idempotency() {
	charges := 0
	server, _ := rest.NewServer(transport.Mux{
		"charge": func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			charges++
			return &transport.Message{Body: fmt.Appendf(nil, "charge %d", charges)}, nil
		},
	}, &rest.Options{Routes: []rest.Route{{Topic: "charge", Pattern: "POST /charges", RequireKey: true}}})
	web := httptest.NewServer(server)
	defer web.Close()
	defer http.DefaultClient.CloseIdleConnections()
	key := http.Header{"Idempotency-Key": {`"8e03978e-40d5-43dd-bc93-6894a57f9324"`}}
	show(web.URL, "POST", "/charges", "10 EUR", key)
	show(web.URL, "POST", "/charges", "10 EUR", key, "Idempotency-Replayed")
	show(web.URL, "POST", "/charges", "99 EUR", key)
	// Output:
	// 200 charge 1
	// 200 charge 1
	// Idempotency-Replayed: true
	// 422 {"type":"about:blank","title":"Unprocessable Entity","status":422,"detail":"the Idempotency-Key was used for another request","code":"invalid_argument","reason":"IDEMPOTENCY_KEY_REUSED"}
}

// The server is one handler among others, and knows nothing of where it is mounted.
func ExampleNewServer() {
	server, _ := rest.NewServer(library(), &rest.Options{
		Authenticate: func(r *http.Request) (transport.Peer, error) {
			if r.Header.Get("Authorization") != "Bearer secret" {
				return transport.Peer{}, transport.CodeUnauthenticated
			}
			return transport.Peer{ID: "ann"}, nil
		},
	})
	mux := http.NewServeMux()
	mux.Handle("/api/", http.StripPrefix("/api", server))
	web := httptest.NewServer(mux)
	defer web.Close()
	defer http.DefaultClient.CloseIdleConnections()
	body := http.Header{"Content-Type": {"application/json"}}
	show(web.URL, "POST", "/api/calls/books.get", `{"id":7}`, body, "Www-Authenticate")
	body.Set("Authorization", "Bearer secret")
	show(web.URL, "POST", "/api/calls/books.get", `{"id":7}`, body)
	// Output:
	// 401 {"type":"about:blank","title":"Unauthorized","status":401,"code":"unauthenticated"}
	// Www-Authenticate: Bearer
	// 200 {"id":7,"title":"Moby-Dick"}
}
