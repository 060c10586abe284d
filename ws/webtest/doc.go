// Package webtest lets peers that are not ours talk to package ws: Node with npm's ws, the JSON-RPC clients json-rpc-2.0 and
// @open-rpc/client-js, and Chromium with its own WebSocket; and runs the JavaScript client of ws/js in Node and in
// Chromium. They are too heavy for the library, so they are a module of their own, and a run must ask for them:
//
//	INTERMODAL_BROWSER=1 go test .
//
// It needs Node 20 with npm, which installs what scenario/package-lock.json pins into a temporary folder, and Chromium. On
// Debian: apt-get install nodejs npm chromium. A program that is missing is skipped, and fails the run if CI or
// INTERMODAL_CI is set. But for that installation nothing leaves the loopback interface.
//
// What the peers sent and received is kept in ws/testdata, and replayed by every run of the tests of package ws. After a
// change of the scenarios or of the wire format, record it anew:
//
//	INTERMODAL_BROWSER=1 go test -update .
package webtest
