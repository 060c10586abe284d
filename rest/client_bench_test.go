package rest_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
)

// echoServer answers with the request's body and does as little else as it can.
func echoServer(b testing.TB) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header()["Content-Type"] = []string{"application/json"}
		w.Header()["Etag"] = []string{`"1"`}
		w.Write(body)
	}))
	b.Cleanup(s.Close)
	return s
}

var thing = []byte(`{"id":"7","name":"a thing","tags":["x","y"]}`)

// BenchmarkBareClient is what somebody writes by hand with net/http.
func BenchmarkBareClient(b *testing.B) {
	s := echoServer(b)
	c := &http.Client{Transport: &http.Transport{}}
	defer c.CloseIdleConnections()
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithTimeout(b.Context(), 30e9)
		r, err := http.NewRequestWithContext(ctx, "POST", s.URL+"/calls/things.echo", bytes.NewReader(thing))
		require.NoError(b, err)
		r.Header.Set("Content-Type", "application/json")
		resp, err := c.Do(r)
		require.NoError(b, err)
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		require.NoError(b, err)
		resp.Body.Close()
		cancel()
		require.Len(b, body, len(thing))
	}
}

func benchmarkCall(b *testing.B, topic string) {
	c := newClient(b, echoServer(b).URL, &rest.ClientOptions{Routes: []rest.Route{
		{Topic: "things.get", Pattern: "GET /things/{id}"}, {Topic: "things.put", Pattern: "PUT /things/{id}"}}})
	m := &transport.Message{Topic: topic, Header: transport.Header{"content-type": {"application/json"}}, Body: thing}
	b.ReportAllocs()
	for b.Loop() {
		r, err := c.Call(b.Context(), m)
		require.NoError(b, err)
		require.NotNil(b, r)
	}
}

func BenchmarkClientCall(b *testing.B) { benchmarkCall(b, "things.echo") }
func BenchmarkClientPut(b *testing.B)  { benchmarkCall(b, "things.put") }
func BenchmarkClientGet(b *testing.B)  { benchmarkCall(b, "things.get") } // the body is from the cache, the server says 200

func BenchmarkClientGetFresh(b *testing.B) {
	c := newClient(b, "http://h", &rest.ClientOptions{Routes: cacheRoutes, Transport: trip(func(*http.Request) (*http.Response, error) {
		return answer(200, "body", "Cache-Control: max-age=3600", "Content-Type: application/json"), nil
	})})
	m := message("get", `{"id":7}`)
	b.ReportAllocs()
	for b.Loop() {
		_, err := c.Call(b.Context(), m)
		require.NoError(b, err)
	}
}
