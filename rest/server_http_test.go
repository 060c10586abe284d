package rest_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
)

func bubble(t *testing.T, f func(*testing.T)) { synctest.Test(t, f) }

// listen serves h until the test is over.
func listen(t testing.TB, h *http.Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Serve(l)
	}()
	t.Cleanup(func() {
		h.Close()
		<-done
	})
	return l.Addr().String()
}

// leave sends a request, waits until it is handled, and is gone.
func leave(t *testing.T, addr, request string, entered <-chan *transport.Message) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	head, body, _ := strings.Cut(request, "\n\n")
	_, err = io.WriteString(c, strings.ReplaceAll(head, "\n", "\r\n")+"\r\n\r\n"+body)
	require.NoError(t, err)
	<-entered
}

func TestHTTP10(t *testing.T) {
	_, addr := start(t, shop(nil), shopOptions())
	r := raw(t, addr, "POST /calls/echo HTTP/1.0\nContent-Length: 5\n\nhello")
	require.Equal(t, 200, r.status)
	require.Equal(t, "hello", r.body)
	require.True(t, r.close)
	require.EqualValues(t, 5, r.length)
	r = raw(t, addr, "POST /reply/big HTTP/1.0\nConnection: keep-alive\nContent-Length: 0\n\n")
	require.EqualValues(t, 12000, r.length, "no chunks for those who do not know them")
	require.Equal(t, "keep-alive", r.header.Get("Connection"))
}

func TestKeepAlive(t *testing.T) {
	_, addr := start(t, shop(nil), shopOptions())
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	b := bufio.NewReader(c)
	for i := range 50 {
		line := []string{"POST /calls/echo", "GET /reply/big", "GET /nothing", "POST /topics/a..b"}[i%4]
		text := request(line, map[bool]string{true: "hello"}[i%2 == 0 && i%4 == 0])
		head, body, _ := strings.Cut(text, "\n\n")
		io.WriteString(c, strings.ReplaceAll(head, "\n", "\r\n")+"\r\n\r\n"+body)
		require.Equal(t, []int{200, 200, 404, 400}[i%4], read(t, b, "GET").status)
	}
	// A chunked body, and two requests at once.
	io.WriteString(c, "POST /calls/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"+
		"POST /calls/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
	require.Equal(t, "hello", read(t, b, "POST").body)
	require.Equal(t, "hi", read(t, b, "POST").body)
	// A body is waited for, unless the answer does not depend on it.
	io.WriteString(c, "POST /calls/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
	line, err := b.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 100 Continue\r\n", line)
	b.ReadString('\n')
	io.WriteString(c, "hi")
	require.Equal(t, "hi", read(t, b, "POST").body)
	io.WriteString(c, "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
	require.Equal(t, 404, read(t, b, "POST").status)
}

func TestHTTP2(t *testing.T) {
	const n = 100
	for _, name := range []string{"TLS", "h2c"} {
		t.Run(name, func(t *testing.T) {
			var together sync.WaitGroup
			together.Add(n)
			var conn atomic.Bool
			s, err := rest.NewServer(transport.Mux{"meet": func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
				p, _ := transport.PeerFrom(ctx)
				_, secure := p.Conn.(*tls.ConnectionState)
				conn.Store(secure)
				together.Done()
				together.Wait() // all are here at once
				return &transport.Message{Body: m.Body}, nil
			}}, nil)
			require.NoError(t, err)
			h := httptest.NewUnstartedServer(s)
			var conns atomic.Int32
			h.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					conns.Add(1)
				}
			}
			client := &http.Client{}
			if name == "TLS" {
				h.EnableHTTP2 = true
				h.StartTLS()
				client = h.Client()
			} else {
				h.Config.Protocols = new(http.Protocols)
				h.Config.Protocols.SetHTTP1(true)
				h.Config.Protocols.SetUnencryptedHTTP2(true)
				h.Start()
				tr := &http.Transport{Protocols: new(http.Protocols), MaxConnsPerHost: 1}
				tr.Protocols.SetUnencryptedHTTP2(true)
				client.Transport = tr
			}
			defer h.Close()
			defer client.CloseIdleConnections()
			// The first request opens the connection.
			p, err := client.Get(h.URL + "/nothing")
			require.NoError(t, err)
			io.Copy(io.Discard, p.Body)
			p.Body.Close()
			errs := make(chan error, n)
			for i := range n {
				go func() {
					errs <- func() error {
						p, err := client.Post(h.URL+"/calls/meet", "text/plain", strings.NewReader(fmt.Sprint(i)))
						if err != nil {
							return err
						}
						defer p.Body.Close()
						b, err := io.ReadAll(p.Body)
						if err == nil && (p.StatusCode != 200 || string(b) != fmt.Sprint(i) || p.ProtoMajor != 2) {
							err = fmt.Errorf("%s %q %s", p.Status, b, p.Proto)
						}
						return err
					}()
				}()
			}
			for range n {
				require.NoError(t, <-errs)
			}
			require.EqualValues(t, 1, conns.Load())
			require.Equal(t, name == "TLS", conn.Load())
		})
	}
}

func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	require.NoError(t, err, "curl is a witness of these tests")
	events := make(chan *transport.Message, 10)
	s, err := rest.NewServer(shop(events), shopOptions())
	require.NoError(t, err)
	h := &http.Server{Handler: s, Protocols: new(http.Protocols)}
	h.Protocols.SetHTTP1(true)
	h.Protocols.SetUnencryptedHTTP2(true)
	base := "http://" + listen(t, h)
	for _, c := range []struct {
		args []string
		want string // with -w of the status and the version at the end
	}{
		{[]string{"-d", `{"a":1}`, "-H", "Content-Type: application/json", base + "/calls/echo"}, `{"a":1} 200 1.1`},
		{[]string{"--http1.0", "-d", "x", base + "/calls/echo"}, `x 200 1`},
		{[]string{"--http2-prior-knowledge", "-d", "x", base + "/calls/echo"}, `x 200 2`},
		{[]string{"--compressed", base + "/reply/big"}, strings.Repeat("hello ", 2000) + ` 200 1.1`},
		{[]string{base + "/users/7?tags=a&tags=b"}, `{"id":7,"limit":0,"tags":["a","b"]} 200 1.1`},
		{[]string{"-G", "--data-urlencode", "tags=a&b", base + "/users/7"}, `{"id":7,"limit":0,"tags":["a\u0026b"]} 200 1.1`},
		{[]string{"-I", "-o", "/dev/null", base + "/users/7"}, ` 200 1.1`},
		{[]string{"-X", "DELETE", base + "/users/7"}, `{"type":"about:blank","title":"Method Not Allowed","status":405,"detail":"the resource has no method DELETE","code":"unimplemented"} 405 1.1`},
		{[]string{"-H", `If-None-Match: "v1"`, base + "/reply/strong"}, ` 304 1.1`},
		{[]string{"-d", `{"n":1}`, "-H", "Content-Type: application/json", base + "/topics/orders.placed"}, ` 202 1.1`},
		{[]string{"-T", "-", "-H", "Transfer-Encoding: chunked", "-X", "POST", base + "/calls/echo"}, `from stdin 200 1.1`},
		{[]string{"-L", "-H", "Prefer: respond-async, wait=1", "--post301", "-d", "x", base + "/calls/echo"}, `x 200 1.1`},
		{[]string{"--path-as-is", base + "/users/../users/7"}, `{"type":"about:blank","title":"Bad Request","status":400,"detail":"the path has segments of dots that are not allowed","code":"invalid_argument"} 400 1.1`},
		{[]string{"-H", "Expect: 100-continue", "-d", strings.Repeat("x", 5000), base + "/calls/echo"}, strings.Repeat("x", 5000) + ` 200 1.1`},
	} {
		cmd := exec.Command(curl, append([]string{"-sS", "-m", "20", "-w", " %{http_code} %{http_version}"}, c.args...)...)
		cmd.Stdin = strings.NewReader("from stdin")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, "%v: %s", c.args, &stderr)
		require.Equal(t, c.want, string(out), "%v", c.args)
	}
	require.Equal(t, `{"n":1}`, string((<-events).Body))
}

func TestSlowBody(t *testing.T) {
	_, addr := start(t, shop(nil), &rest.Options{ReadTimeout: 30 * time.Millisecond})
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	io.WriteString(c, "POST /calls/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhel")
	b := bufio.NewReader(c)
	r := read(t, b, "POST")
	require.Equal(t, 408, r.status)
	require.Equal(t, "deadline_exceeded", r.code(t))
	require.True(t, r.close)
	_, err = b.ReadByte()
	require.Equal(t, io.EOF, err)
}

func TestSlowBodyOverHTTP2(t *testing.T) {
	s, err := rest.NewServer(shop(nil), &rest.Options{ReadTimeout: 30 * time.Millisecond})
	require.NoError(t, err)
	h := &http.Server{Handler: s, Protocols: new(http.Protocols)}
	h.Protocols.SetUnencryptedHTTP2(true)
	base := "http://" + listen(t, h)
	tr := &http.Transport{Protocols: new(http.Protocols), MaxConnsPerHost: 1}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	body, w := io.Pipe()
	go w.Write([]byte("hel"))
	p, err := (&http.Client{Transport: tr}).Post(base+"/calls/echo", "text/plain", body)
	require.NoError(t, err)
	b, err := io.ReadAll(p.Body)
	require.NoError(t, err)
	p.Body.Close()
	w.Close()
	require.Equal(t, 408, p.StatusCode, "%s", b)
	// The other requests of the connection are not touched.
	p, err = (&http.Client{Transport: tr}).Post(base+"/calls/echo", "text/plain", strings.NewReader("hello"))
	require.NoError(t, err)
	p.Body.Close()
	require.Equal(t, 200, p.StatusCode)
}

// The deadline of a body must not end the call that follows it, nor the next request.
func TestBodyDeadlineIsLifted(t *testing.T) {
	g := newGate()
	_, addr := start(t, g.mux(), &rest.Options{ReadTimeout: time.Second})
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	b := bufio.NewReader(c)
	io.WriteString(c, "POST /calls/work HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
	<-g.entered
	select {
	case err := <-g.ended:
		t.Fatal("the call was ended", err)
	case <-time.After(1500 * time.Millisecond):
	}
	close(g.release)
	require.Equal(t, 201, read(t, b, "POST").status)
	io.WriteString(c, "POST /calls/quick HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
	require.Equal(t, 200, read(t, b, "POST").status)
}

func TestSlowHeader(t *testing.T) {
	s, err := rest.NewServer(shop(nil), nil)
	require.NoError(t, err)
	addr := listen(t, &http.Server{Handler: s, ReadHeaderTimeout: 30 * time.Millisecond})
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	io.WriteString(c, "POST /calls/echo HTTP/1.1\r\nHo")
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err = io.Copy(io.Discard, c)
	require.NoError(t, err, "the connection is closed")
}

// A client that does not read its answer is cut off.
func TestSlowReader(t *testing.T) {
	left := make(chan struct{})
	s, err := rest.NewServer(transport.Mux{"big": func(context.Context, *transport.Message) (*transport.Message, error) {
		return &transport.Message{Body: make([]byte, 16<<20)}, nil
	}}, &rest.Options{WriteTimeout: 50 * time.Millisecond})
	require.NoError(t, err)
	addr := listen(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.ServeHTTP(w, r)
		close(left)
	})})
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	io.WriteString(c, "POST /calls/big HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Fatal("the client holds the server")
	}
}

func TestHostileRequests(t *testing.T) {
	o := shopOptions()
	o.MaxBytes, o.MaxHeaderBytes = 64<<10, 24<<10
	_, addr := start(t, shop(nil), o)
	bomb := zip(strings.Repeat("\x00", 64<<20))
	for _, c := range []struct {
		name, request string
		status        int
	}{
		{"dots", request("GET /reply/../reply/plain", ""), 400},
		{"escaped dots", request("GET /reply/%2e%2E/plain", ""), 400},
		{"an escaped slash", request("POST /calls/a%2f..%2fb", "x"), 400},
		{"NUL", request("GET /reply/%00", ""), 400},
		{"no UTF-8", request("GET /reply/%ff%fe", ""), 400},
		{"two slashes", request("GET /reply//plain", ""), 404},
		{"two slashes first", request("GET //reply/plain", ""), 404},
		{"the absolute form", request("GET http://x/reply/plain", ""), 200},
		{"a malformed escape", "GET /reply/%zz HTTP/1.1\nHost: x\n\n", 400},
		{"CONNECT", request("CONNECT x:80", ""), 404},
		{"OPTIONS of all", request("OPTIONS *", ""), 200}, // net/http's own answer
		{"a long path", request("GET /reply/"+strings.Repeat("x", 30<<10), ""), 414},
		{"a long query", request("GET /users/7?"+strings.Repeat("x", 30<<10), ""), 414},
		{"many parameters", request("GET /users/7?"+strings.Repeat("a&", 5000), ""), 400},
		{"a long header", request("GET /reply/plain", "", "X: "+strings.Repeat("x", 30<<10)), 431},
		{"a long header of a message", request("POST /calls/echo", "x", "X-Y: "+strings.Repeat("x", 20<<10)), 431},
		{"many headers", request("GET /reply/plain", "", strings.TrimSuffix(strings.Repeat("Abcdef: x\n", 5000), "\n")), 431},
		{"a header that net/http refuses", request("GET /reply/plain", "", "X: "+strings.Repeat("x", 2<<20)), 431},
		{"a large body", request("POST /calls/echo", strings.Repeat("x", 65<<10)), 413},
		{"a large body announced", "POST /calls/echo HTTP/1.1\nHost: x\nContent-Length: 99999999999\n\n", 413},
		{"a bomb", request("POST /calls/echo", bomb, "Content-Encoding: gzip"), 413},
		{"deep JSON", request("POST /users", strings.Repeat("[", 60<<10), "Content-Type: application/json"), 400},
		{"deep JSON of a call", request("POST /calls/echo", strings.Repeat("[", 60<<10), "Content-Type: application/json"), 400},
		{"what only looks like deep JSON", request("POST /calls/echo", strings.Repeat("[", 60<<10)), 200},
		{"a deep event", request("POST /topics/orders.placed", strings.Repeat("[", 60<<10), "Content-Type: application/json"), 400},
		{"deep JSON to merge", request("PUT /users/7", strings.Repeat(`{"a":`, 10<<10), "Content-Type: application/json", `If-Match: "v"`), 400},
		{"bad UTF-8 to merge", request("PUT /users/7", "{\"a\":\"\xff\"}", "Content-Type: application/json", `If-Match: "v"`), 400},
		{"two lengths", "POST /calls/echo HTTP/1.1\nHost: x\nContent-Length: 1\nContent-Length: 2\n\nx", 400},
		{"a length and chunks", "POST /calls/echo HTTP/1.1\nHost: x\nContent-Length: 5\nTransfer-Encoding: chunked\n\n0\r\n\r\n", 204},
		{"no length at all", "POST /calls/echo HTTP/1.1\nHost: x\n\n", 204},
		{"a bad chunk", "POST /calls/echo HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\nzz\r\n", 400},
		{"a content-type that is none", request("POST /users", "{}", "Content-Type: ;;;"), 201},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r := raw(t, addr, c.request)
			runtime.ReadMemStats(&after)
			require.Equal(t, c.status, r.status, r.body)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20), "bounded in memory")
			require.NotContains(t, r.body, "goroutine")
			require.NotContains(t, r.body, ".go:")
		})
	}
}
