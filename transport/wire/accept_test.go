package wire_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport/wire"
)

func TestNegotiate(t *testing.T) {
	const sse, batch, plain = "text/event-stream", wire.ContentTypeEvents, "text/plain; format=flowed"
	offers := []string{batch, sse, plain}
	for _, c := range []struct {
		accept []string
		want   string // "": none
	}{
		{nil, batch},
		{[]string{""}, batch},
		{[]string{"garbage"}, batch},
		{[]string{"*/*"}, batch},
		{[]string{"text/event-stream"}, sse},
		{[]string{"TEXT/Event-Stream"}, sse},
		{[]string{"text/event-stream, */*"}, sse},
		{[]string{"*/*, text/event-stream"}, sse},
		{[]string{"text/event-stream;q=0.5, */*"}, batch},
		{[]string{"text/event-stream;q=0.5, */*;q=0.4"}, sse},
		{[]string{"text/*"}, sse},
		{[]string{"text/*", "text/event-stream;q=0"}, plain},
		{[]string{"*/*;q=0"}, ""},
		{[]string{"image/png"}, ""},
		{[]string{"image/png", "text/event-stream"}, sse},
		{[]string{"application/json, text/plain;format=flowed"}, plain},
		{[]string{`text/plain;format="flowed";q=1`}, plain},
		{[]string{"text/plain;format=fixed"}, ""},
		{[]string{"text/plain;format=fixed", "text/plain"}, plain},
		{[]string{"text/event-stream; charset=utf-8"}, sse},
		{[]string{"text/event-stream;q=2, text/plain"}, plain},
		{[]string{"text/event-stream;q=0.1234, text/plain;q=0.001"}, plain},
		{[]string{"text/event-stream;q=, text/plain;q=0.001"}, plain},
		{[]string{`text/html;x="a,text/event-stream;q=1", text/plain`}, plain},
		{[]string{"*/event-stream, text/plain"}, plain},
		{[]string{" , ,text/event-stream ; q = 1.000 ;ext=1,"}, sse},
		{[]string{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}, batch},
		{[]string{"text/event-stream;q=0, text/event-stream"}, sse},
	} {
		got, ok := wire.Negotiate(c.accept, offers...)
		require.Equal(t, c.want, got, "%q", c.accept)
		require.Equal(t, c.want != "", ok, "%q", c.accept)
	}
	_, ok := wire.Negotiate(nil)
	require.False(t, ok)
}

func FuzzNegotiate(f *testing.F) {
	for _, s := range []string{"", "*/*", "a/b;q=0.5,c/d", `a/b;x="\",";q=1`, ";,;,=", `"`, `\`, "a/b;q"} {
		f.Add(s, "a/b")
	}
	f.Fuzz(func(t *testing.T, accept, offer string) {
		offers := []string{offer, "text/event-stream", "application/json"}
		got, ok := wire.Negotiate([]string{accept}, offers...)
		require.True(t, !ok && got == "" || ok && slices.Contains(offers, got))
	})
}
