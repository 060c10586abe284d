package rest_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
)

var listRoute = []rest.Route{{Topic: "list", Pattern: "GET /items"}}

func TestClientPages(t *testing.T) {
	var asked []string
	c := serve(t, &rest.ClientOptions{Routes: listRoute}, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.RequestURI+" "+r.Header.Get("Accept")+r.Header.Get("X-Tenant")+r.Header.Get("Prefer"))
		page := r.URL.Query().Get("page")
		switch page {
		case "":
			w.Header().Add("Link", `<?page=0>; rel="prev", </items?page=2&q=a%2Cb>; title="a, b"; rel="last next"`)
		case "2":
			w.Header().Add("Link", `<http://`+r.Host+`/items?page=3>;rel=NEXT`)
		}
		fmt.Fprint(w, "page ", page)
	})
	m := message("list", `{"size":10}`)
	m.Header = transport.Header{"accept": {"text/x"}, "x-tenant": {"+t"}, "prefer": {"p"}}
	var got []string
	for r, err := range c.Pages(t.Context(), m) {
		require.NoError(t, err)
		got = append(got, string(r.Body))
	}
	require.Equal(t, []string{"page ", "page 2", "page 3"}, got)
	require.Equal(t, []string{"/items?size=10 text/x+tp", "/items?page=2&q=a%2Cb text/x+t", "/items?page=3 text/x+t"}, asked)

	asked = nil
	for range c.Pages(t.Context(), m) {
		break
	}
	require.Len(t, asked, 1)
}

func TestClientPagesEnd(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.Empty(t, r.Header.Get("Authorization"), "credentials are not for another origin")
		require.Empty(t, r.Header.Get("X-Key"), "nor are fields that may be such")
		fmt.Fprint(w, "other")
	}))
	defer other.Close()
	link := ""
	n := 0
	h := func(w http.ResponseWriter, r *http.Request) {
		n++
		require.Equal(t, "Bearer x", r.Header.Get("Authorization"))
		if link != "" {
			w.Header().Set("Link", "<"+strings.Replace(link, "%d", strconv.Itoa(n), 1)+`>; rel="next"`)
		}
	}
	o := rest.ClientOptions{Routes: listRoute, MaxPages: 5, Header: http.Header{"X-Key": {"secret"}}, Authorize: func(r *http.Request) error {
		r.Header.Set("Authorization", "Bearer x")
		return nil
	}}
	last := func(c *rest.Client, m *transport.Message) (pages int, err error) {
		for r, e := range c.Pages(t.Context(), m) {
			if require.NoError(t, err, "an error is the last pair"); e != nil {
				require.Nil(t, r)
			} else {
				pages++
			}
			err = e
		}
		return pages, err
	}
	c := serve(t, &o, h)
	for what, want := range map[string]struct {
		pages int
		code  transport.Code
	}{
		"":                                {1, 0},
		"/items":                          {1, transport.CodeResourceExhausted},
		"/items?n=%d":                     {5, transport.CodeResourceExhausted},
		other.URL + "/x?n=%d":             {1, transport.CodeFailedPrecondition},
		"https://example.com/":            {1, transport.CodeFailedPrecondition},
		"//example.com/":                  {1, transport.CodeFailedPrecondition},
		"http://[::1/":                    {1, transport.CodeInternal},
		"javascript:alert(1)":             {1, transport.CodeFailedPrecondition},
		"http://joe:secret@example.com/x": {1, transport.CodeFailedPrecondition},
	} {
		link = what
		pages, err := last(c, message("list", ""))
		require.Equal(t, want.pages, pages, what)
		require.Equal(t, want.code, transport.CodeOf(err), what)
	}
	o.Origins = []string{other.URL}
	link = other.URL + "/x?n=%d"
	pages, err := last(serve(t, &o, h), message("list", ""))
	require.NoError(t, err)
	require.Equal(t, 2, pages)

	_, err = last(c, nil)
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range c.Pages(ctx, message("list", "")) {
		require.Equal(t, context.Canceled, err)
	}
}
