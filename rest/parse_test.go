package rest

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func TestParsePrefer(t *testing.T) {
	for line, want := range map[string]preferences{
		"":                                   {},
		"respond-async":                      {async: true},
		"Respond-Async , wait=10":            {async: true, waits: true, wait: 10 * time.Second},
		`wait="5"`:                           {waits: true, wait: 5 * time.Second},
		"wait=5, wait=6":                     {waits: true, wait: 5 * time.Second},
		"wait=x, wait=-1, wait, wait=6":      {waits: true, wait: 6 * time.Second},
		`foo="a, respond-async"`:             {},
		"respond-async; x=y, return=minimal": {async: true},
		"wait=99999999999":                   {},
		`"respond-async`:                     {},
		"wait = 7":                           {waits: true, wait: 7 * time.Second},
	} {
		require.Equal(t, want, parsePrefer([]string{line}), line)
	}
	require.Equal(t, preferences{async: true, waits: true, wait: time.Second}, parsePrefer([]string{"respond-async", "wait=1"}))
}

func TestTimeout(t *testing.T) {
	for _, c := range []struct {
		grpc, connect string
		want          time.Duration
		ok, bad       bool
	}{
		{"", "", 0, false, false},
		{"100m", "", 100 * time.Millisecond, true, false},
		{"2S", "", 2 * time.Second, true, false},
		{"3M", "", 3 * time.Minute, true, false},
		{"1H", "", time.Hour, true, false},
		{"5u", "", 5 * time.Microsecond, true, false},
		{"7n", "", 7, true, false},
		{"99999999H", "", 1<<63 - 1 - (1<<63-1)%time.Hour, true, false},
		{"", "1500", 1500 * time.Millisecond, true, false},
		{"1S", "1500", time.Second, true, false},
		{"2S", "1500", 1500 * time.Millisecond, true, false},
		{"", "0", 0, true, false},
		{"S", "", 0, false, true},
		{"1", "", 0, false, true},
		{"-1S", "", 0, false, true},
		{"123456789S", "", 0, false, true},
		{"1x", "", 0, false, true},
		{"", "x", 0, false, true},
		{"", "12345678901", 0, false, true},
	} {
		h := http.Header{}
		if c.grpc != "" {
			h.Set("Grpc-Timeout", c.grpc)
		}
		if c.connect != "" {
			h.Set("Connect-Timeout-Ms", c.connect)
		}
		d, ok, err := timeout(h)
		require.Equal(t, c.bad, err != nil, "%v", h)
		require.Equal(t, c.want, d, "%v", h)
		require.Equal(t, c.ok, ok, "%v", h)
	}
}

func TestParseKey(t *testing.T) {
	for line, want := range map[string]string{
		`"8e03978e"`:             "8e03978e",
		`8e03978e`:               "8e03978e",
		` "a b" `:                "a b",
		`"a\"b\\c"`:              `a"b\c`,
		`"k";x=1`:                "k",
		`""`:                     "-",
		``:                       "-",
		`"a`:                     "-",
		`"a" b`:                  "-",
		`"a\b"`:                  "-",
		`"a\`:                    "-",
		"\"\x7f\"":               "-",
		`a b`:                    "-",
		`ü`:                      "-",
		strings.Repeat("k", 256): "-",
		strings.Repeat("k", 255): strings.Repeat("k", 255),
	} {
		key, err := parseKey([]string{line})
		if want == "-" {
			require.ErrorIs(t, err, transport.CodeInvalidArgument, line)
			continue
		}
		require.NoError(t, err, line)
		require.Equal(t, want, key)
	}
	_, err := parseKey([]string{"a", "b"})
	require.Error(t, err)
}

func TestMatchETag(t *testing.T) {
	for _, c := range []struct {
		lines, etag  string
		strong, weak bool
	}{
		{`"a"`, `"a"`, true, true},
		{`"a"`, `"b"`, false, false},
		{`W/"a"`, `"a"`, false, true},
		{`"a"`, `W/"a"`, false, true},
		{`W/"a"`, `W/"a"`, false, true},
		{`"x", W/"y" ,"a"`, `"a"`, true, true},
		{`"x,a", "a"`, `"a"`, true, true},
		{`,, "a"`, `"a"`, true, true},
		{`*`, `"a"`, true, true},
		{` * `, ``, true, true},
		{`a`, `"a"`, false, false},
		{`w/"a"`, `"a"`, false, false},
		{`"a`, `"a"`, false, false},
		{`"b" x "a"`, `"a"`, false, false},
		{`""`, `""`, true, true},
		{``, ``, false, false},
	} {
		require.Equal(t, c.strong, matchETag([]string{c.lines}, c.etag, true), "%v", c)
		require.Equal(t, c.weak, matchETag([]string{c.lines}, c.etag, false), "%v", c)
	}
	require.True(t, matchETag([]string{`"x"`, `"a"`}, `"a"`, true))
}

func TestPrecondition(t *testing.T) {
	const early, at, late = "Mon, 05 Jan 2026 10:00:00 GMT", "Tue, 06 Jan 2026 10:00:00 GMT", "Wed, 07 Jan 2026 10:00:00 GMT"
	for name, c := range map[string]struct {
		fields map[string]string
		want   int
	}{
		"nothing":                         {nil, 0},
		"If-Match holds":                  {map[string]string{"If-Match": `"v1"`}, 0},
		"If-Match fails":                  {map[string]string{"If-Match": `"v2"`}, 412},
		"If-Match is strong":              {map[string]string{"If-Match": `W/"v1"`}, 412},
		"If-Match goes before the date":   {map[string]string{"If-Match": `"v1"`, "If-Unmodified-Since": early}, 0},
		"unmodified":                      {map[string]string{"If-Unmodified-Since": at}, 0},
		"modified":                        {map[string]string{"If-Unmodified-Since": early}, 412},
		"a date that is none":             {map[string]string{"If-Unmodified-Since": "yesterday"}, 0},
		"If-None-Match fails":             {map[string]string{"If-None-Match": `"v0", W/"v1"`}, 304},
		"If-None-Match star":              {map[string]string{"If-None-Match": `*`}, 304},
		"If-None-Match holds":             {map[string]string{"If-None-Match": `"v2"`, "If-Modified-Since": late}, 0},
		"not modified since":              {map[string]string{"If-Modified-Since": at}, 304},
		"modified since":                  {map[string]string{"If-Modified-Since": early}, 0},
		"412 goes before 304":             {map[string]string{"If-Match": `"v2"`, "If-None-Match": `"v1"`}, 412},
		"both If-Match and If-None-Match": {map[string]string{"If-Match": `"v1"`, "If-None-Match": `"v1"`}, 304},
	} {
		h := http.Header{}
		for k, v := range c.fields {
			h.Set(k, v)
		}
		require.Equal(t, c.want, precondition(h, `"v1"`, at), name)
	}
	require.Zero(t, precondition(http.Header{"If-Unmodified-Since": {early}, "If-Modified-Since": {late}}, `"v1"`, ""), "no date is known")
}

func TestWeakETag(t *testing.T) {
	require.True(t, isETag(weakETag(nil)))
	require.Equal(t, weakETag([]byte("a")), weakETag([]byte("a")))
	require.NotEqual(t, weakETag([]byte("a")), weakETag([]byte("b")))
}

func TestAcceptsGzip(t *testing.T) {
	for line, want := range map[string]bool{
		"gzip": true, "GZIP, br": true, "br, gzip;q=0.5": true, "*": true, "x-gzip": true, "gzip;q=1.000": true,
		"": false, "br": false, "gzip;q=0": false, "gzip; q=0.000": false, "*;q=0": false, "identity": false,
		"gzip;q=0, *": false, "gzip, *;q=0": true,
	} {
		require.Equal(t, want, acceptsGzip([]string{line}), line)
	}
}

func TestCompressible(t *testing.T) {
	for media, want := range map[string]bool{
		"text/html": true, "application/json; charset=utf-8": true, "application/vnd.api+json": true, "image/svg+xml": true,
		"image/png": false, "application/zip": false, "": false, "text/event-stream": false, "application/octet-stream": false, ";": false,
	} {
		require.Equal(t, want, compressible(media), media)
	}
}

func TestJobID(t *testing.T) {
	id := newJobID()
	made, ok := jobTime(id)
	require.True(t, ok)
	require.WithinDuration(t, time.Now(), made, 2*time.Second)
	require.NotEqual(t, id, newJobID())
	for _, bad := range []string{"", "x", id + "A", "!" + id[1:]} {
		_, ok := jobTime(bad)
		require.False(t, ok, bad)
	}
}

func TestExpandLocation(t *testing.T) {
	for _, c := range [][3]string{
		{"/users/{id}", `{"id":7}`, "/users/7"},
		{"/users/{id}/x/{name}", `{"id":"a/b:c","name":"ü ?"}`, "/users/a%2Fb%3Ac/x/%C3%BC%20%3F"},
		{"/users/{id}", `{}`, ""}, {"/users/{id}", `{"id":null}`, ""}, {"/users/{id}", `{"id":[1]}`, ""}, {"/users/{id}", `x`, ""},
		{"/fixed", `{}`, "/fixed"},
	} {
		require.Equal(t, c[2], expandLocation(c[0], []byte(c[1])), c[0]+c[1])
	}
}

func FuzzFields(f *testing.F) {
	for _, s := range []string{`"a", W/"b"`, `*`, `respond-async, wait=10`, `"key";x=1`, `"\`, "gzip;q=0.5, *", "100m", "W/", `foo="a\`} {
		f.Add(s, `"a"`)
	}
	f.Fuzz(func(t *testing.T, line, etag string) {
		lines := []string{line}
		if matchETag(lines, etag, true) && isETag(etag) {
			require.True(t, matchETag(lines, etag, false), "what matches strongly matches weakly")
		}
		if isETag(etag) {
			require.True(t, matchETag([]string{etag}, etag, false))
		}
		p := parsePrefer(lines)
		require.GreaterOrEqual(t, p.wait, time.Duration(0))
		if key, err := parseKey(lines); err == nil {
			require.NotEmpty(t, key)
			require.LessOrEqual(t, len(key), maxKeyBytes)
		}
		acceptsGzip(lines)
		if d, _, err := timeout(http.Header{"Grpc-Timeout": lines}); err == nil {
			require.GreaterOrEqual(t, d, time.Duration(0))
		}
		jobTime(line)
	})
}
