package rest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
)

// What follows is a client of an API that knows nothing of this package, in the style that GitHub documents for its REST
// API: contracts and routes are all that it takes.

type (
	issue struct {
		Number int      `json:"number,omitempty"`
		Title  string   `json:"title"`
		Labels []string `json:"labels,omitempty"`
	}
	repo struct {
		Owner string `json:"owner"`
		Repo  string `json:"repo"`
	}
	listIssues struct {
		repo
		State   string   `json:"state,omitempty"`
		Labels  []string `json:"labels,omitempty"`
		PerPage int      `json:"per_page,omitempty"`
	}
	getIssue struct {
		repo
		Number int `json:"issue_number"`
	}
	createIssue struct {
		repo
		Title string `json:"title,omitempty"`
	}
	getContents struct {
		repo
		Path string `json:"path"`
		Ref  string `json:"ref,omitempty"`
	}
)

var (
	list     = transport.Operation[listIssues, []issue]{Topic: "github.issues.list"}
	get      = transport.Operation[getIssue, issue]{Topic: "github.issues.get"}
	create   = transport.Operation[createIssue, issue]{Topic: "github.issues.create"}
	lock     = transport.Operation[getIssue, struct{}]{Topic: "github.issues.lock"}
	contents = transport.Operation[getContents, string]{Topic: "github.repos.contents"}
)

func githubRoutes() []rest.Route {
	locking := rest.For(lock, "PUT /repos/{owner}/{repo}/issues/{issue_number}/lock")
	locking.Body = "-"
	return []rest.Route{
		rest.For(list, "GET /repos/{owner}/{repo}/issues"),
		rest.For(get, "GET /repos/{owner}/{repo}/issues/{issue_number}"),
		rest.For(create, "POST /repos/{owner}/{repo}/issues"),
		locking,
		rest.For(contents, "GET /repos/{owner}/{repo}/contents/{path...}"),
	}
}

// github answers as api.github.com would.
func github(t *testing.T) http.Handler {
	mux := http.NewServeMux()
	fail := func(w http.ResponseWriter, status int, message string, errs ...map[string]string) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]any{"message": message, "errors": errs, "documentation_url": "https://docs.github.com/rest"})
	}
	send := func(w http.ResponseWriter, status int, v any) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(v)
	}
	const base = "/repos/{owner}/{repo}"
	mux.HandleFunc("GET "+base+"/issues", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		require.Equal(t, "open", q.Get("state"))
		require.Equal(t, []string{"bug", "help wanted"}, q["labels"])
		page, _ := strconv.Atoi(q.Get("page"))
		if page = max(page, 1); page < 3 {
			q.Set("page", strconv.Itoa(page+1))
			next := "http://" + r.Host + r.URL.Path + "?" + q.Encode()
			w.Header().Set("Link", fmt.Sprintf(`<%s>; rel="next", <%s>; rel="last"`, next, next))
		}
		send(w, 200, []issue{{Number: page, Title: r.PathValue("owner") + "/" + r.PathValue("repo")}})
	})
	mux.HandleFunc("GET "+base+"/issues/{n}", func(w http.ResponseWriter, r *http.Request) {
		switch n := r.PathValue("n"); n {
		case "404":
			fail(w, 404, "Not Found")
		case "403":
			w.Header().Set("X-Ratelimit-Remaining", "0")
			w.Header().Set("Retry-After", "60")
			fail(w, 403, "API rate limit exceeded")
		default:
			w.Header().Set("Etag", `W/"abc"`)
			w.Header().Set("Cache-Control", "private, max-age=0, s-maxage=60")
			w.Header().Set("Vary", "Accept, Authorization, Cookie, X-GitHub-OTP")
			if r.Header.Get("If-None-Match") == `W/"abc"` {
				w.Header().Set("X-Validated", "yes")
				w.WriteHeader(304)
				return
			}
			number, _ := strconv.Atoi(n)
			send(w, 200, issue{Number: number, Title: "an issue"})
		}
	})
	mux.HandleFunc("POST "+base+"/issues", func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		require.NoError(t, json.NewDecoder(r.Body).Decode(&body))
		require.NotContains(t, body, "owner", "what is in the path is not in the body")
		if body["title"] == nil {
			fail(w, 422, "Validation Failed", map[string]string{"resource": "Issue", "field": "title", "code": "missing_field"})
			return
		}
		w.Header().Set("Location", "https://api.github.com/repos/o/r/issues/8")
		send(w, 201, issue{Number: 8, Title: fmt.Sprint(body["title"])})
	})
	mux.HandleFunc("PUT "+base+"/issues/{n}/lock", func(w http.ResponseWriter, r *http.Request) {
		require.Zero(t, r.ContentLength)
		require.Empty(t, r.Header.Get("Content-Type"))
		w.WriteHeader(204)
	})
	mux.HandleFunc("GET "+base+"/contents/{path...}", func(w http.ResponseWriter, r *http.Request) {
		send(w, 200, r.PathValue("path")+"@"+r.URL.Query().Get("ref"))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "application/vnd.github+json", r.Header.Get("Accept"))
		require.Equal(t, "2022-11-28", r.Header.Get("X-Github-Api-Version"))
		if r.Header.Get("Authorization") != "Bearer token" {
			fail(w, 401, "Bad credentials")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func TestClientOfForeignAPI(t *testing.T) {
	server := httptest.NewServer(github(t))
	defer server.Close()
	token := "token"
	c := newClient(t, server.URL, &rest.ClientOptions{
		Routes: githubRoutes(),
		Header: http.Header{"Accept": {"application/vnd.github+json"}, "X-GitHub-Api-Version": {"2022-11-28"}},
		Authorize: func(r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+token)
			return nil
		},
	})
	ctx := t.Context()
	where := repo{"go lang", "go"}

	m, err := list.Message(listIssues{repo: where, State: "open", Labels: []string{"bug", "help wanted"}})
	require.NoError(t, err)
	var numbers []int
	for page, err := range c.Pages(ctx, m) {
		require.NoError(t, err)
		issues, err := list.Reply(page)
		require.NoError(t, err)
		require.Equal(t, "go lang/go", issues[0].Title)
		numbers = append(numbers, issues[0].Number)
	}
	require.Equal(t, []int{1, 2, 3}, numbers)

	m, err = get.Message(getIssue{where, 7})
	require.NoError(t, err)
	for _, validated := range []string{"", "yes"} {
		r, err := c.Call(ctx, m)
		require.NoError(t, err)
		require.Equal(t, validated, r.Header.Get("x-validated"))
		v, err := get.Reply(r)
		require.NoError(t, err)
		require.Equal(t, issue{Number: 7, Title: "an issue"}, v)
	}

	made, err := create.Call(ctx, c, createIssue{where, "new"})
	require.NoError(t, err)
	require.Equal(t, 8, made.Number)
	_, err = lock.Call(ctx, c, getIssue{where, 8})
	require.NoError(t, err)
	text, err := contents.Call(ctx, c, getContents{where, "docs/a b/ü%.md", "v1/x"})
	require.NoError(t, err)
	require.Equal(t, "docs/a b/ü%.md@v1/x", text)

	_, err = create.Call(ctx, c, createIssue{repo: where})
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	require.Equal(t, "422", asError(t, err).Header.Get("status"))
	var a *rest.Answer
	require.ErrorAs(t, err, &a)
	var said struct {
		Errors []struct{ Field, Code string }
	}
	require.NoError(t, json.Unmarshal(a.Body, &said))
	require.Equal(t, "missing_field", said.Errors[0].Code)

	_, err = get.Call(ctx, c, getIssue{where, 404})
	require.ErrorIs(t, err, transport.CodeNotFound)
	_, err = get.Call(ctx, c, getIssue{where, 403})
	require.ErrorIs(t, err, transport.CodePermissionDenied)
	e := asError(t, err)
	require.Equal(t, time.Minute, e.RetryAfter)
	require.Equal(t, "0", e.Header.Get("x-ratelimit-remaining"))
	token = "old"
	_, err = get.Call(ctx, c, getIssue{where, 7})
	require.ErrorIs(t, err, transport.CodeUnauthenticated)
	require.True(t, errors.As(err, &a))
}
