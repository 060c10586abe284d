package js_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/ws"
	"github.com/intermodal-go/intermodal/ws/js"
)

// A chat: the page in testdata/chat.html loads the client, which talks to the server.
func Example() {
	bus := mem.New(nil)
	defer bus.Close()
	server := ws.NewServer(bus, nil)
	defer server.Close()

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, "testdata/chat.html")
	})
	mux.Handle("GET /js/", http.StripPrefix("/js/", http.FileServerFS(js.Files)))
	mux.Handle("/ws", server)
	site := httptest.NewServer(mux) // a program has http.ListenAndServe
	defer site.Close()

	for _, path := range []string{"/", "/js/intermodal.js"} {
		resp, err := http.Get(site.URL + path)
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
		fmt.Println(path, resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	// Output:
	// / 200 text/html; charset=utf-8
	// /js/intermodal.js 200 text/javascript; charset=utf-8
}
