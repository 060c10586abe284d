package openapitest

import (
	"bytes"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/oapi-codegen/oapi-codegen/v2/pkg/codegen"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/rest"
	client "github.com/intermodal-go/intermodal/rest/openapitest/internal/shop"
)

var update = flag.Bool("update", false, "write the document and the client anew")

var (
	documentFile = filepath.Join("internal", "shop", "openapi.json")
	clientFile   = filepath.Join("internal", "shop", "shop.gen.go")
)

// generate makes a client of a document.
func generate(t *testing.T, doc []byte) string {
	t.Helper()
	spec, err := openapi3.NewLoader().LoadFromData(doc)
	require.NoError(t, err)
	code, err := codegen.Generate(spec, codegen.Configuration{PackageName: "shop",
		Generate: codegen.GenerateOptions{Client: true, Models: true}}.UpdateDefaults())
	require.NoError(t, err)
	return code
}

func TestDocumentAndClientAreUpToDate(t *testing.T) {
	if *update {
		require.NoError(t, os.WriteFile(documentFile, document(t), 0o644))
		require.NoError(t, os.WriteFile(clientFile, []byte(generate(t, document(t))), 0o644))
	}
	require.NoError(t, rest.OpenAPIUpToDate(documentFile, info, routes()...))
	code, err := os.ReadFile(clientFile)
	require.NoError(t, err)
	require.True(t, generate(t, document(t)) == string(code), "the generated client is out of date: go test -update .")
}

func ptr[T any](v T) *T { return &v }

// A client that was generated from the document gets right answers, without a word about the server.
func TestGeneratedClient(t *testing.T) {
	s := &shop{}
	ctx := t.Context()
	h := &http.Client{}
	defer h.CloseIdleConnections()
	c, err := client.NewClientWithResponses(serve(t, s), client.WithHTTPClient(h))
	require.NoError(t, err)

	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	list, err := c.UsersListWithResponse(ctx, &client.UsersListParams{After: ptr("a/b&c"), Limit: ptr(int32(5)), Name: ptr("Ä da"),
		Roles: &[]string{"x", "y z"}, Since: &since, Active: ptr(true), FilterStatus: ptr("new"), FilterLevels: &[]int8{-1, 7},
		Labels: &map[string]string{"k": "v"}})
	require.NoError(t, err)
	require.Equal(t, 200, list.StatusCode(), "%s", list.Body)
	asked := list.JSON200.Asked
	require.Equal(t, client.ListUsers{After: ptr("a/b&c"), Limit: ptr(int32(5)), Name: ptr("Ä da"), Roles: &[]string{"x", "y z"},
		Since: &since, Active: ptr(true), Labels: &map[string]string{"k": "v"}, Filter: asked.Filter}, asked)
	require.Equal(t, "new", *asked.Filter.Status)
	require.Equal(t, []int8{-1, 7}, *asked.Filter.Levels)
	require.Len(t, *list.JSON200.Items, 1)

	got, err := c.UsersGetWithResponse(ctx, "ada", nil)
	require.NoError(t, err)
	require.Equal(t, &client.User{Id: "ada", Name: "Ada", Email: &adasMail, Created: since,
		Manager: &client.User{Id: "boss", Name: "Boss"}}, got.JSON200)
	etag := got.HTTPResponse.Header.Get("ETag")
	again, err := c.UsersGetWithResponse(ctx, "ada", &client.UsersGetParams{IfNoneMatch: &etag})
	require.NoError(t, err)
	require.Equal(t, 304, again.StatusCode())
	missing, err := c.UsersGetWithResponse(ctx, "eve/x:y", nil)
	require.NoError(t, err)
	require.Equal(t, 404, missing.StatusCode(), "%s", missing.Body)
	problem := missing.ApplicationproblemJSONDefault
	require.Equal(t, "NO_USER", *problem.Reason)
	require.Equal(t, "not_found", problem.Code)
	require.Equal(t, "eve/x:y", string((*problem.Details)[0].Value))
	//lint:ignore SA1019 that it is deprecated is what is tested
	old, err := c.UsersGetGetWithResponse(ctx, "ada", nil)
	require.NoError(t, err)
	require.Equal(t, "Ada", old.JSON200.Name)
	require.Equal(t, "@1767225600", old.HTTPResponse.Header.Get("Deprecation"))

	created, err := c.UsersCreateWithResponse(ctx, &client.UsersCreateParams{IdempotencyKey: "k1"}, client.UserInput{Name: ptr("Bob")})
	require.NoError(t, err)
	require.Equal(t, "bob", created.JSON201.Id)
	require.Equal(t, "/users/bob", created.HTTPResponse.Header.Get("Location"))
	taken, err := c.UsersCreateWithResponse(ctx, &client.UsersCreateParams{IdempotencyKey: "k2"}, client.UserInput{Name: ptr("Ada")})
	require.NoError(t, err)
	require.Equal(t, "TAKEN", *taken.ApplicationproblemJSON409.Reason)
	later, err := c.UsersCreateWithResponse(ctx, &client.UsersCreateParams{IdempotencyKey: "k3", Prefer: ptr("respond-async")}, client.UserInput{Name: ptr("Eve")})
	require.NoError(t, err)
	require.Equal(t, 202, later.StatusCode())

	replaced, err := c.UsersReplaceWithResponse(ctx, "ada", &client.UsersReplaceParams{IfMatch: `"7"`}, client.UsersReplaceJSONRequestBody{Name: ptr("A.")})
	require.NoError(t, err)
	require.Equal(t, "ada", replaced.JSON200.Id)
	require.Equal(t, `"8"`, replaced.HTTPResponse.Header.Get("ETag"))
	removed, err := c.UsersRemoveWithResponse(ctx, "ada", nil)
	require.NoError(t, err)
	require.Equal(t, 200, removed.StatusCode())

	placed, err := c.OrdersPlaceWithResponse(ctx, "ada lovelace", nil, client.OrdersPlaceJSONRequestBody{
		Lines: &[]client.LineInput{{Sku: ptr("A-7"), Quantity: ptr(uint16(2))}}, DryRun: ptr(true)})
	require.NoError(t, err)
	require.Equal(t, "ada lovelace", placed.JSON200.User)
	require.Equal(t, []client.Line{{Sku: "A-7", Quantity: 2}}, *placed.JSON200.Lines)
	require.Equal(t, map[string]any{"dry": true}, placed.JSON200.Note)
	cancelled, err := c.OrdersCancelWithResponse(ctx, 1<<60, nil, client.OrdersCancelJSONRequestBody{Reason: ptr("late")})
	require.NoError(t, err)
	require.Equal(t, int64(1<<60), cancelled.JSON200.Id)
	require.Equal(t, "late", cancelled.JSON200.User)
	require.Equal(t, "raw", string(*cancelled.JSON200.Raw))
	shipped, err := c.OrdersCancelWithResponse(ctx, 9, nil, client.OrdersCancelJSONRequestBody{})
	require.NoError(t, err)
	require.Equal(t, "SHIPPED", *shipped.ApplicationproblemJSON409.Reason)
	require.Equal(t, float32(1.5), *shipped.ApplicationproblemJSON409.RetryAfter)

	stored, err := c.FilesPutWithBodyWithResponse(ctx, "docs/a:b.txt", &client.FilesPutParams{Public: ptr(true)}, "text/plain", bytes.NewReader([]byte("hello")))
	require.NoError(t, err)
	require.Equal(t, &client.Stored{Path: "docs/a:b.txt", Bytes: 5, Public: true}, stored.JSON200)
	read, err := c.FilesReadWithResponse(ctx, "docs/a", nil)
	require.NoError(t, err)
	require.JSONEq(t, `{"name":"docs/a"}`, string(read.Body))

	published, err := c.OrdersPlacedWithResponse(ctx, nil, client.Placed{Order: ptr(int64(7)), At: &since})
	require.NoError(t, err)
	require.Equal(t, 202, published.StatusCode())
	batch, err := c.OrdersPlacedWithApplicationCloudeventsBatchPlusJSONBodyWithResponse(ctx, nil, []client.CloudEvent{
		{Specversion: "1.0", Id: "1", Source: "/x", Type: "orders.placed", Data: map[string]any{"order": 8}},
		{Specversion: "1.0", Id: "2", Source: "/x", Type: "orders.placed", Data: map[string]any{"order": 9}}})
	require.NoError(t, err)
	require.Equal(t, 202, batch.StatusCode(), "%s", batch.Body)
	require.Equal(t, []Placed{{7, since}, {Order: 8}, {Order: 9}}, s.events)
}
