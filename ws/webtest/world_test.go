package webtest

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/ws"
	"github.com/intermodal-go/intermodal/ws/internal/golden"
	"github.com/intermodal-go/intermodal/ws/js"
)

const page = `<!doctype html><meta charset="utf-8"><title>webtest</title>
<script type="module">
import { run } from "/scenario/run.mjs";
run(new URLSearchParams(location.search).get("scenario"), location.origin, WebSocket);
</script>
`

// A world is what a peer finds: a server at /ws, the scenarios, and ways to disturb the server.
type world struct {
	bus     *mem.Bus
	tap     *tap
	url     string
	dir     string // of the scenarios
	peer    string // its name and version
	server  atomic.Pointer[ws.Server]
	reports chan report
}

// A report is the outcome of one test of a scenario, or the last one.
type report struct {
	Name, Error string
	Done        bool
}

func newWorld(t *testing.T, o *ws.Options) *world {
	bus, stop, err := golden.Application(context.Background())
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w := &world{bus: bus, tap: &tap{Listener: l}, dir: scenarios(t), reports: make(chan report)}
	w.server.Store(ws.NewServer(bus, o))

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, page) })
	mux.Handle("GET /scenario/", http.StripPrefix("/scenario/", http.FileServer(http.Dir(w.dir))))
	mux.Handle("GET /js/", http.StripPrefix("/js/", http.FileServerFS(js.Files)))
	mux.Handle("GET /chat.html", http.FileServer(http.Dir("../js/testdata")))
	mux.HandleFunc("/ws", func(rw http.ResponseWriter, r *http.Request) { w.server.Load().ServeHTTP(rw, r) })
	mux.HandleFunc("POST /report", func(_ http.ResponseWriter, r *http.Request) {
		var rep report
		if err := json.NewDecoder(r.Body).Decode(&rep); err != nil {
			rep = report{Name: "report", Error: err.Error()}
		}
		select {
		case w.reports <- rep:
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /cut", func(http.ResponseWriter, *http.Request) { w.tap.cut() })
	mux.HandleFunc("POST /restart", func(_ http.ResponseWriter, r *http.Request) {
		w.server.Swap(ws.NewServer(bus, o)).Shutdown(r.Context())
	})
	mux.HandleFunc("POST /publish", func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = bus.Publish(r.Context(), &transport.Message{Topic: r.FormValue("topic"), Body: body,
				Header: transport.Header{"content-type": {"application/json"}}})
		}
		if err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
		}
	})
	h := &httptest.Server{Listener: w.tap, Config: &http.Server{Handler: mux}}
	h.Start()
	w.url = h.URL
	closeOther := w.other(mux)
	t.Cleanup(func() {
		closeOther()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		w.server.Load().Shutdown(ctx)
		h.CloseClientConnections()
		h.Close()
		stop()
	})
	return w
}

// other starts another site. Pages of ours may not connect to its /ws, but to its /open.
func (w *world) other(mux *http.ServeMux) (stop func()) {
	shut := ws.NewServer(w.bus, nil)
	open := ws.NewServer(w.bus, &ws.Options{Origins: []string{w.url}})
	other := http.NewServeMux()
	other.Handle("/ws", shut)
	other.Handle("/open", open)
	h := httptest.NewServer(other)
	mux.HandleFunc("POST /other", func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, h.URL) })
	return func() {
		shut.Close()
		open.Close()
		h.Close()
	}
}

// run waits for the peer's reports and makes a subtest of each.
func (w *world) run(t *testing.T, p *program) {
	defer p.stop()
	limit := time.NewTimer(2 * time.Minute)
	defer limit.Stop()
	for {
		select {
		case r := <-w.reports:
			if r.Done {
				return
			}
			t.Run(r.Name, func(t *testing.T) { require.Empty(t, r.Error) })
		case <-p.ended:
			require.FailNow(t, "the peer has ended before its tests have")
		case <-limit.C:
			require.FailNow(t, "the peer did not report its end")
		}
	}
}

// keep writes what was said over connections to /ws?golden to ws/testdata, if asked to.
func (w *world) keep(t *testing.T, name, peer string) {
	t.Helper()
	if t.Failed() {
		return
	}
	cs := w.tap.conversations("?golden")
	require.NotEmpty(t, cs, "nothing was recorded")
	golden.Number(cs)
	for _, c := range cs {
		for _, f := range c.Frames {
			require.False(t, strings.ContainsAny(f.Text, "\r\n"), "a frame of more than one line cannot be kept: %s", f.Text)
		}
	}
	file := filepath.Join("..", "testdata", name+".txt")
	if *update {
		require.NoError(t, os.WriteFile(file, golden.Format(peer+"; "+w.peer, cs), 0o666))
	} else {
		require.FileExists(t, file, "record it with: INTERMODAL_BROWSER=1 go test -update .")
	}
}
