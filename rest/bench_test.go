package rest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
)

type order struct {
	Order int      `json:"order"`
	Lines []string `json:"lines"`
	Note  string   `json:"note"`
}

var opEcho = transport.Operation[order, order]{Topic: "echo"}

const orderJSON = `{"order":7,"lines":["a","b"],"note":"leave it at the door, please, and ring the bell twice"}`

// bareEcho is what somebody writes without any library: the same work, and not more.
func bareEcho(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	var v order
	if err == nil {
		err = json.Unmarshal(body, &v)
	}
	if err == nil {
		body, err = json.Marshal(v)
	}
	if err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

func typedEcho(t testing.TB) http.Handler {
	s, err := rest.NewServer(transport.Mux{"echo": opEcho.Handler(func(_ context.Context, in order) (order, error) { return in, nil })},
		&rest.Options{Routes: []rest.Route{rest.For(opEcho, "PUT /orders/{order}")}})
	require.NoError(t, err)
	return s
}

// cpu is what this process has used; other than the time it hardly depends on who else is on the machine.
func cpu() int64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

// exchange sends the same request again and again on one connection; the client costs next to nothing.
func exchange(b *testing.B, h http.Handler, target string) {
	c, err := net.Dial("tcp", listen(b, &http.Server{Handler: h}))
	require.NoError(b, err)
	defer c.Close()
	request := []byte(target + " HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: application/json\r\n" +
		"Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(orderJSON)) + "\r\n\r\n" + orderJSON)
	r := bufio.NewReader(c)
	b.ReportAllocs()
	before := cpu()
	defer func() { b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op") }()
	for b.Loop() {
		c.Write(request)
		length := 0
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				b.Fatal(err)
			}
			if len(line) == 2 {
				break
			}
			if len(line) > 16 && string(line[:16]) == "Content-Length: " {
				length, _ = strconv.Atoi(string(line[16 : len(line)-2]))
			}
		}
		if length != len(orderJSON) {
			b.Fatal("another answer")
		}
		r.Discard(length)
	}
}

func BenchmarkBareEcho(b *testing.B)  { exchange(b, http.HandlerFunc(bareEcho), "POST /") }
func BenchmarkCallEcho(b *testing.B)  { exchange(b, typedEcho(b), "POST /calls/echo") }
func BenchmarkRouteEcho(b *testing.B) { exchange(b, typedEcho(b), "PUT /orders/7") }
