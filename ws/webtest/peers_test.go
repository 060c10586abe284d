package webtest

import (
	"net/http"
	"testing"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/ws"
)

func TestRawFramesFromNode(t *testing.T) {
	w := node(t, "raw", nil)
	w.keep(t, "npm-ws", "npm's ws, each frame by hand")
}

func TestRawFramesFromChromium(t *testing.T) {
	w := chromium(t, "raw", nil)
	w.keep(t, "chromium", "a page's own WebSocket, each frame by hand")
}

func TestJSONRPC(t *testing.T) {
	w := node(t, "jsonrpc", nil)
	w.keep(t, "json-rpc-2.0", "npm's json-rpc-2.0, client and server")
}

func TestOpenRPC(t *testing.T) {
	w := node(t, "openrpc", nil)
	w.keep(t, "open-rpc", "npm's @open-rpc/client-js")
}

func TestClientAgainstAFakeServer(t *testing.T) {
	node(t, "fake", nil)
}

func TestClientInNode(t *testing.T) {
	node(t, "client", nil)
}

func TestClientInChromium(t *testing.T) {
	w := chromium(t, "client", nil)
	w.keep(t, "client", "ws/js/intermodal.js")
}

func TestChatInChromium(t *testing.T) {
	chromium(t, "chat", nil)
}

func TestCompression(t *testing.T) {
	t.Run("Node", func(t *testing.T) { node(t, "client", &ws.Options{Compress: true}) })
	t.Run("Chromium", func(t *testing.T) { chromium(t, "client", &ws.Options{Compress: true}) })
}

func TestOrigins(t *testing.T) {
	chromium(t, "origin", nil)
}

func TestCredentials(t *testing.T) {
	node(t, "credentials", &ws.Options{Authenticate: func(r *http.Request) (transport.Peer, error) {
		if r.Header.Get("Authorization") == "Bearer 1" {
			return transport.Peer{ID: "ada", Expires: time.Now().Add(time.Hour)}, nil
		}
		return transport.Peer{ID: "ada", Expires: time.Now().Add(2 * time.Second)}, nil
	}})
}
