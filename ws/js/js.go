// Package js holds the JavaScript client of package ws: one ES module without dependencies and without a build step, for
// browsers and for Node. Serve it beside the server:
//
//	mux.Handle("GET /js/", http.StripPrefix("/js/", http.FileServerFS(js.Files)))
//	mux.Handle("/ws", ws.NewServer(bus, nil))
//
// and in the page:
//
//	<script type="module">
//	import { connect } from "/js/intermodal.js";
//	const client = connect("/ws");
//	await client.subscribe("chat", {}, (message) => console.log(message.body));
//	await client.publish("chat", "hello");
//	</script>
//
// In Node before version 22, which has no WebSocket of its own, pass one:
//
//	const client = connect("ws://host/ws", { WebSocket: (await import("ws")).default });
//
// What it can do is documented in the file itself, in JSDoc, so that editors show it.
package js

import "embed"

// Files has the one file intermodal.js.
//
//go:embed intermodal.js
var Files embed.FS
