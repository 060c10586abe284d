package rest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
)

// An origin is a server without a network that counts what it was asked.
type origin struct {
	fields []string // of each answer
	etag   string
	body   string
	asked  []string // method, path, and the condition
}

func (o *origin) RoundTrip(r *http.Request) (*http.Response, error) {
	tag := r.Header.Get("If-None-Match")
	o.asked = append(o.asked, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+tag))
	if o.etag != "" && tag == o.etag {
		return answer(304, "", append(o.fields, "Etag: "+o.etag)...), nil
	}
	fields := append([]string{"Content-Type: text/x"}, o.fields...)
	if o.etag != "" {
		fields = append(fields, "Etag: "+o.etag)
	}
	return answer(200, o.body, fields...), nil
}

var cacheRoutes = []rest.Route{
	{Topic: "get", Pattern: "GET /things/{id}"}, {Topic: "put", Pattern: "PUT /things/{id}"}, {Topic: "create", Pattern: "POST /things"},
	{Topic: "delete", Pattern: "DELETE /things/{id}"},
}

// getFunc asks for a thing, with header fields as "name: value", and returns the body, and what the origin was asked.
type getFunc func(thing string, fields ...string) (string, []string)

// cacheTest runs f in fake time.
func cacheTest(t *testing.T, o *origin, opts rest.ClientOptions, f func(t *testing.T, c *rest.Client, get getFunc)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		opts.Routes, opts.Transport = cacheRoutes, o
		c := newClient(t, "http://h", &opts)
		f(t, c, func(thing string, fields ...string) (string, []string) {
			t.Helper()
			m := message("get", fmt.Sprintf(`{"id":%q}`, thing))
			m.Header = transport.Header{}
			for _, f := range fields {
				name, value, _ := strings.Cut(f, ": ")
				m.Header.Add(name, value)
			}
			o.asked = nil
			r, err := c.Call(t.Context(), m)
			require.NoError(t, err)
			require.Equal(t, "text/x", r.Header.Get("content-type"))
			require.Empty(t, r.Header.Get("status"))
			return string(r.Body), o.asked
		})
	})
}

func TestClientCacheValidates(t *testing.T) {
	o := &origin{etag: `"1"`, body: "one", fields: []string{"Cache-Control: no-cache, max-age=100"}}
	cacheTest(t, o, rest.ClientOptions{}, func(t *testing.T, c *rest.Client, get getFunc) {
		for i, asked := range []string{"GET /things/a", `GET /things/a "1"`, `GET /things/a "1"`} {
			body, got := get("a")
			require.Equal(t, "one", body, i)
			require.Equal(t, []string{asked}, got)
		}
		o.etag, o.body = `"2"`, "two"
		body, got := get("a")
		require.Equal(t, "two", body)
		require.Equal(t, []string{`GET /things/a "1"`}, got)
		_, got = get("a")
		require.Equal(t, []string{`GET /things/a "2"`}, got)
		_, got = get("b")
		require.Equal(t, []string{"GET /things/b"}, got)
	})
}

func TestClientCacheFreshness(t *testing.T) {
	o := &origin{etag: `"1"`, body: "one", fields: []string{"Cache-Control: max-age=60, s-maxage=1", "Age: 10"}}
	cacheTest(t, o, rest.ClientOptions{}, func(t *testing.T, c *rest.Client, get getFunc) {
		get("a")
		time.Sleep(49 * time.Second)
		body, got := get("a")
		require.Equal(t, "one", body)
		require.Empty(t, got, "it is fresh")
		_, got = get("a", "cache-control: max-age=58")
		require.Len(t, got, 1, "the caller wants a younger one, and the age was 59 s")
		time.Sleep(49 * time.Second)
		_, got = get("a")
		require.Empty(t, got, "304 made it fresh again")
		_, got = get("a", "cache-control: no-cache")
		require.Equal(t, []string{`GET /things/a "1"`}, got)
		time.Sleep(50 * time.Second)
		_, got = get("a")
		require.Equal(t, []string{`GET /things/a "1"`}, got)
		o.fields = []string{"Cache-Control: no-store"}
		get("b")
		_, got = get("b")
		require.Equal(t, []string{"GET /things/b"}, got)
		o.fields = []string{"Expires: " + time.Now().Add(time.Minute).UTC().Format(http.TimeFormat), "Date: " + time.Now().UTC().Format(http.TimeFormat)}
		o.etag = ""
		get("c")
		_, got = get("c")
		require.Empty(t, got)
		time.Sleep(time.Minute)
		_, got = get("c")
		require.Equal(t, []string{"GET /things/c"}, got)
		_, err := c.Call(t.Context(), &transport.Message{Topic: "get", Body: []byte(`{"id":"x"}`), Header: transport.Header{"cache-control": {"only-if-cached"}}})
		require.ErrorIs(t, err, transport.CodeUnavailable)
	})
}

func TestClientCacheRefreshesHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		c := newClient(t, "http://h", &rest.ClientOptions{Routes: cacheRoutes, Transport: trip(func(r *http.Request) (*http.Response, error) {
			if n++; r.Header.Get("If-None-Match") != "" {
				return answer(304, "", `Etag: W/"1"`, fmt.Sprint("X-N: ", n), "Content-Type: text/wrong"), nil
			}
			return answer(200, "body", `Etag: "1"`, fmt.Sprint("X-N: ", n), "X-Kept: yes", "Content-Type: text/x"), nil
		})})
		for i := range 4 {
			r, err := c.Call(t.Context(), message("get", `{"id":1}`))
			require.NoError(t, err)
			tag := `"1"`
			if i > 0 {
				tag = `W/"1"`
			}
			require.Equal(t, transport.Header{"etag": {tag}, "x-n": {fmt.Sprint(i + 1)}, "x-kept": {"yes"}, "content-type": {"text/x"}}, r.Header)
			require.Equal(t, "body", string(r.Body))
		}
	})
}

func TestClientCacheVary(t *testing.T) {
	o := &origin{body: "x", fields: []string{"Cache-Control: max-age=60", "Vary: Accept-Language, Accept-Encoding", "Vary: x-tenant"}}
	cacheTest(t, o, rest.ClientOptions{}, func(t *testing.T, c *rest.Client, get getFunc) {
		for _, fields := range [][]string{{}, {"accept-language: de"}, {"accept-language: en"}, {"accept-language: en", "x-tenant: a"}} {
			_, got := get("a", fields...)
			require.Len(t, got, 1)
		}
		for _, fields := range [][]string{{}, {"accept-language: de", "x-other: z"}, {"accept-language: en", "x-tenant: a"}} {
			_, got := get("a", fields...)
			require.Empty(t, got)
		}
		o.fields = []string{"Cache-Control: max-age=60", "Vary: *"}
		get("b")
		_, got := get("b")
		require.Len(t, got, 1)
	})
}

func TestClientCacheCredentials(t *testing.T) {
	user := "joe"
	o := &origin{body: "x", fields: []string{"Cache-Control: private, max-age=60"}}
	opts := rest.ClientOptions{Authorize: func(r *http.Request) error {
		r.Header.Set("X-Tenant-Secret", user)
		return nil
	}}
	cacheTest(t, o, opts, func(t *testing.T, c *rest.Client, get getFunc) {
		for _, user = range []string{"joe", "jane"} {
			_, got := get("a")
			require.Len(t, got, 1, "each has a cache of their own")
		}
		for _, user = range []string{"joe", "jane"} {
			_, got := get("a")
			require.Empty(t, got)
		}
	})
}

func TestClientCacheInvalidation(t *testing.T) {
	o := &origin{body: "x", fields: []string{"Cache-Control: max-age=600"}}
	cacheTest(t, o, rest.ClientOptions{}, func(t *testing.T, c *rest.Client, get getFunc) {
		do := func(topic, body string) {
			_, err := c.Call(t.Context(), message(topic, body))
			require.NoError(t, err)
		}
		get("a")
		get("b")
		do("put", `{"id":"a","name":"n"}`)
		_, got := get("a")
		require.Len(t, got, 1)
		_, got = get("b")
		require.Empty(t, got)
		do("delete", `{"id":"a","force":true}`)
		_, got = get("a")
		require.Len(t, got, 1)
		o.fields = append(o.fields, "Location: /things/b")
		do("create", `{}`)
		_, got = get("b")
		require.Len(t, got, 1)
	})
}

func TestClientCacheBounds(t *testing.T) {
	o := &origin{body: strings.Repeat("x", 1000), fields: []string{"Cache-Control: max-age=600"}}
	for name, opts := range map[string]rest.ClientOptions{"entries": {CacheEntries: 3}, "bytes": {CacheBytes: 3 * 1900}} {
		t.Run(name, func(t *testing.T) {
			cacheTest(t, o, opts, func(t *testing.T, c *rest.Client, get getFunc) {
				for _, thing := range []string{"a", "b", "c", "a", "d"} {
					get(thing)
				}
				for thing, want := range map[string]int{"a": 0, "c": 0, "d": 0} {
					_, got := get(thing)
					require.Len(t, got, want, thing)
				}
				_, got := get("b")
				require.Len(t, got, 1, "it was not used for the longest time")
			})
		})
	}
	cacheTest(t, o, rest.ClientOptions{CacheEntries: -1}, func(t *testing.T, c *rest.Client, get getFunc) {
		get("a")
		_, got := get("a")
		require.Len(t, got, 1)
	})
}

// A write that is answered while a read is under way may have changed what that read brings.
func TestClientCacheRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gets := 0
		var c *rest.Client
		c = newClient(t, "http://h", &rest.ClientOptions{Routes: cacheRoutes, Transport: trip(func(r *http.Request) (*http.Response, error) {
			if r.Method == "GET" {
				if gets++; gets == 1 {
					_, err := c.Call(r.Context(), message("put", `{"id":1}`))
					require.NoError(t, err)
				}
			}
			return answer(200, "x", "Cache-Control: max-age=600"), nil
		})})
		for _, want := range []int{1, 2, 2} {
			_, err := c.Call(t.Context(), message("get", `{"id":1}`))
			require.NoError(t, err)
			require.Equal(t, want, gets)
		}
	})
}
