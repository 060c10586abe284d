package rest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
)

// Any HTTP API will do: here is one that was written without this package.
func ExampleNewClient() {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"name":%q}`, r.Method+" "+r.URL.String())
	}))
	defer api.Close()

	type getUser struct {
		ID     string   `json:"id"`
		Fields []string `json:"fields,omitempty"`
	}
	type user struct {
		Name string `json:"name"`
	}
	get := transport.Operation[getUser, user]{Topic: "users.get"}

	client, err := rest.NewClient(api.URL, &rest.ClientOptions{Routes: []rest.Route{rest.For(get, "GET /users/{id}")}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	u, err := get.Call(context.Background(), client, getUser{ID: "a/b", Fields: []string{"name", "mail"}})
	fmt.Println(u.Name, err)
	// Output: GET /users/a%2Fb?fields=name&fields=mail <nil>
}

func ExampleClient_Pages() {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("page") == "" {
			w.Header().Set("Link", `</items?page=2>; rel="next"`)
		}
		io.WriteString(w, "the items of "+r.URL.String())
	}))
	defer api.Close()
	client, err := rest.NewClient(api.URL, &rest.ClientOptions{Routes: []rest.Route{{Topic: "items.list", Pattern: "GET /items"}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	for page, err := range client.Pages(context.Background(), &transport.Message{Topic: "items.list"}) {
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Println(string(page.Body))
	}
	// Output:
	// the items of /items
	// the items of /items?page=2
}
