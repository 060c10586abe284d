package amqptest

import (
	"fmt"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// A Relay is a network between clients and a broker that can be broken: it listens, and copies bytes to and from the
// broker for each connection. Safe for concurrent use.
type Relay struct {
	url  string
	to   string // the broker's host and port
	l    net.Listener
	work sync.WaitGroup // the accepting goroutine and all that copy

	mu      sync.Mutex
	pairs   map[*pair]bool
	flows   chan struct{} // closed while bytes flow
	refuses bool
	closed  bool
}

// A pair is a client's connection and the one to the broker.
type pair struct {
	client, broker net.Conn
	once           sync.Once
	gone           chan struct{} // closed by cut
}

func (p *pair) cut() {
	p.once.Do(func() {
		close(p.gone)
		for _, c := range []net.Conn{p.client, p.broker} {
			c.(*net.TCPConn).SetLinger(0) // a reset, as of a host that is gone
			c.Close()
		}
	})
}

// NewRelay starts a relay to the broker at the amqp URL, and closes it when the test ends.
func NewRelay(tb testing.TB, broker string) *Relay {
	tb.Helper()
	u, err := url.Parse(broker)
	if err != nil {
		tb.Fatal("the address of the broker is no URL") // the error would show its password
	}
	to := u.Host
	if u.Port() == "" {
		to = net.JoinHostPort(u.Hostname(), "5672")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	u.Host = l.Addr().String()
	r := &Relay{url: u.String(), to: to, l: l, pairs: make(map[*pair]bool), flows: make(chan struct{})}
	close(r.flows)
	r.work.Go(r.accept)
	tb.Cleanup(r.Close)
	return r
}

// URL is the broker's address by way of the relay.
func (r *Relay) URL() string { return r.url }

// Cut resets all connections and returns how many there were. New ones are taken.
func (r *Relay) Cut() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.pairs {
		p.cut()
	}
	n := len(r.pairs)
	clear(r.pairs)
	return n
}

// Stall stops all bytes, those of new connections as well, without closing anything: a network that is silent. Resume
// ends it, and no byte is lost.
func (r *Relay) Stall() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flowing() {
		r.flows = make(chan struct{})
	}
}

// Resume ends Stall and Refuse.
func (r *Relay) Resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuses = false
	if !r.flowing() {
		close(r.flows)
	}
}

// Refuse makes the relay close new connections at once, until Resume: with Cut, an outage.
func (r *Relay) Refuse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuses = true
}

// Close resets all connections, stops listening, and waits for the relay's goroutines.
func (r *Relay) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.l.Close()
	r.Cut()
	r.work.Wait()
}

func (r *Relay) flowing() bool {
	select {
	case <-r.flows:
		return true
	default:
		return false
	}
}

func (r *Relay) accept() {
	for {
		client, err := r.l.Accept()
		if err != nil {
			return
		}
		r.work.Go(func() { r.serve(client) })
	}
}

func (r *Relay) serve(client net.Conn) {
	broker, err := net.DialTimeout("tcp", r.to, 5*time.Second)
	if err != nil {
		client.Close()
		return
	}
	p := &pair{client: client, broker: broker, gone: make(chan struct{})}
	r.mu.Lock()
	if r.refuses || r.closed {
		r.mu.Unlock()
		p.cut()
		return
	}
	r.pairs[p] = true
	r.mu.Unlock()
	defer func() {
		p.cut()
		r.mu.Lock()
		delete(r.pairs, p)
		r.mu.Unlock()
	}()
	var up sync.WaitGroup
	up.Go(func() { r.copy(p, broker, client) })
	r.copy(p, client, broker)
	up.Wait()
}

// copy forwards until either side ends, and then ends both.
func (r *Relay) copy(p *pair, to, from net.Conn) {
	defer p.cut()
	buf := make([]byte, 32<<10)
	for {
		n, end := from.Read(buf)
		r.mu.Lock()
		flows := r.flows
		r.mu.Unlock()
		select {
		case <-flows: // that one side has hung up is not to be noticed either while the network is silent
		case <-p.gone:
			return
		}
		if _, err := to.Write(buf[:n]); err != nil || end != nil {
			return
		}
	}
}

// String names both ends.
func (r *Relay) String() string { return fmt.Sprintf("relay %s to %s", r.l.Addr(), r.to) }
