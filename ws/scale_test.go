package ws_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/ws"
)

// An audience is many clients, in a process of their own so that what they cost does not count as the server's: this
// program again, with audienceEnv in its environment.
type audience struct {
	t   testing.TB
	in  io.WriteCloser
	out *bufio.Scanner
}

const audienceEnv = "INTERMODAL_WS_AUDIENCE" // <address> <topic> <number of clients>

func init() {
	if spec := os.Getenv(audienceEnv); spec != "" {
		if err := attend(spec); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// gather has n clients subscribe to topic, or only connect if it is "-".
func gather(t testing.TB, s *site, topic string, n int) *audience {
	program, err := os.Executable()
	require.NoError(t, err)
	c := exec.Command(program)
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", audienceEnv, s.Addr(), topic, n))
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	require.NoError(t, err)
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	a := &audience{t, in, bufio.NewScanner(out)}
	t.Cleanup(func() {
		in.Close()
		require.NoError(t, c.Wait())
	})
	a.hears("ready")
	return a
}

// await returns when the clients have received so many events in all, each client the same, in order, from 1.
func (a *audience) await(events int) {
	_, err := fmt.Fprintln(a.in, events)
	require.NoError(a.t, err)
	a.hears("all")
}

func (a *audience) hears(word string) {
	if !a.out.Scan() {
		require.Fail(a.t, "the clients are gone", "%v", a.out.Err())
	}
	require.Equal(a.t, word, a.out.Text())
}

// attend is the audience's side.
func attend(spec string) error {
	var addr, topic string
	var n int
	if _, err := fmt.Sscan(spec, &addr, &topic, &n); err != nil {
		return err
	}
	var heard, wanted atomic.Int64
	var connecting sync.WaitGroup
	failed := make(chan error, n)
	all := make(chan struct{}, 1)
	places := make(chan struct{}, 50)
	for range n {
		connecting.Add(1)
		go func() {
			places <- struct{}{}
			c, err := subscribe(addr, topic)
			<-places
			connecting.Done()
			for last := 0; err == nil; {
				var head byte
				var payload []byte
				if head, payload, err = c.next(); err != nil {
					break
				}
				if head == opPing {
					_, err = io.WriteString(c, frame(opPong, string(payload)))
					continue
				}
				events := 0
				if events, last, err = follow(payload, last); err == nil {
					if h := heard.Add(int64(events)); h-int64(events) < wanted.Load() && h >= wanted.Load() {
						all <- struct{}{}
					}
				}
			}
			failed <- err
		}()
	}
	connecting.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var more int64
		if _, err := fmt.Sscan(lines.Text(), &more); err != nil {
			return err
		}
		wanted.Store(more)
		for heard.Load() < more {
			select {
			case <-all:
			case err := <-failed:
				return err
			case <-time.After(time.Minute):
				return fmt.Errorf("%d events of %d have come", heard.Load(), more)
			}
		}
		fmt.Println("all")
	}
	return nil
}

func subscribe(addr, topic string) (*intruder, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &intruder{nc, bufio.NewReaderSize(nc, 4096)}
	io.WriteString(c, handshake(version13))
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || topic == "-" {
		return c, err
	}
	io.WriteString(c, texts(fmt.Sprintf(
		`{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":%q,"buffer":1024},"id":1}`, topic)))
	_, payload, err := c.next()
	if err == nil && !bytes.Contains(payload, []byte(`"result"`)) {
		err = errors.New(string(payload))
	}
	return c, err
}

// follow returns how many events are in a frame and the number of the last, which must follow the one before.
func follow(payload []byte, last int) (events, now int, err error) {
	const mark = `"data":{"n":`
	for rest := payload; ; events++ {
		i := bytes.Index(rest, []byte(mark))
		if i < 0 {
			if events == 0 {
				err = fmt.Errorf("after %d came %s", last, payload)
			}
			return events, last, err
		}
		n := 0
		for rest = rest[i+len(mark):]; '0' <= rest[0] && rest[0] <= '9'; rest = rest[1:] {
			n = n*10 + int(rest[0]-'0')
		}
		if last++; n != last {
			return 0, 0, fmt.Errorf("in the place of event %d came %d", last, n)
		}
	}
}

// program returns events from number first on, each of about size bytes.
func program(topic string, first, n, size int) []*transport.Message {
	ms := make([]*transport.Message, n)
	for i := range ms {
		ms[i] = &transport.Message{Topic: topic,
			Body: fmt.Appendf(nil, `{"n":%d,"text":"%s"}`, first+i, strings.Repeat("x", max(size-20, 0)))}
	}
	return ms
}

// scale is how many connections there are.
func scale() int {
	if os.Getenv("INTERMODAL_LONG") != "" {
		return 10_000
	}
	return 1000
}

// TestScale publishes to many clients, each of which gets every event, in order, although one among them does not read:
// that one is cut off. Memory is bounded meanwhile.
func TestScale(t *testing.T) {
	n := scale()
	const events, size = 256, 1 << 10
	bus := backend(t)
	s := serve(t, bus, &ws.Options{WriteTimeout: time.Second})
	slow := intrude(t, s)
	slow.SetDeadline(time.Now().Add(2 * time.Minute))
	const topics = 64 // so that what it does not read is more than the operating system holds
	for id := range topics {
		io.WriteString(slow, texts(fmt.Sprintf(
			`{"jsonrpc":"2.0","method":"rpc.subscribe","params":{"topic":"scale","overflow":"drop-oldest"},"id":%d}`, id)))
		_, _, err := slow.next()
		require.NoError(t, err)
	}
	all := gather(t, s, "scale", n)
	g := measure()
	began := time.Now()
	for first := 1; first <= events; first += 16 {
		for _, err := range bus.PublishAll(context.Background(), program("scale", first, 16, size)...) {
			require.NoError(t, err)
		}
	}
	published := time.Since(began)
	all.await(n * events)
	took := time.Since(began)
	require.Eventually(t, func() bool {
		_, err := io.WriteString(slow, frame(opPong, ""))
		return err != nil
	}, 20*time.Second, 10*time.Millisecond, "the slow client is cut off")
	heap, routines := g.end()
	t.Logf("%d events of %d bytes to %d clients: published in %v, all there after %v, %.2f µs each; at most %.1f MB and %d goroutines more",
		events, size, n, published, took, float64(took.Microseconds())/float64(n*events), float64(heap)/1e6, routines)
	require.Less(t, heap, 64<<20+n*64<<10)
}

// TestScaleIdle reports what an idle connection costs the server.
func TestScaleIdle(t *testing.T) {
	for _, topic := range []string{"-", "scale"} {
		t.Run(topic, func(t *testing.T) { idle(t, topic, scale()) })
	}
}

// idle returns the bytes of heap and stack that each of n connections costs the server while nothing happens.
func idle(t testing.TB, topic string, n int) float64 {
	s := serve(t, backend(t), nil)
	intrude(t, s) // what the first needs is not the connections'
	before := memory()
	gather(t, s, topic, n)
	after := memory()
	heap := float64(after.HeapInuse-before.HeapInuse) / float64(n) / 1024
	stack := float64(after.StackInuse-before.StackInuse) / float64(n) / 1024
	t.Logf("%d idle connections, topic %s: %.2f KiB heap and %.2f KiB stack each", n, topic, heap, stack)
	return 1024 * (heap + stack)
}

func memory() (m runtime.MemStats) {
	runtime.GC()
	runtime.GC() // what the first has finalized, and pools
	runtime.ReadMemStats(&m)
	return m
}
