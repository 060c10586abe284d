package webtest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/intermodal-go/intermodal/ws/internal/golden"
)

// A tap is a listener that writes down what is said over each WebSocket connection, and can cut them all.
type tap struct {
	net.Listener

	mu    sync.Mutex
	conns []*tapped
}

// A tapped connection is read by one parser in each direction.
type tapped struct {
	net.Conn
	said    golden.Conversation
	mu      *sync.Mutex
	in, out parser
	gone    bool
}

func (t *tap) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	conn := &tapped{Conn: c, mu: &t.mu}
	t.conns = append(t.conns, conn)
	return conn, nil
}

// cut ends all WebSocket connections without a word.
func (t *tap) cut() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.conns {
		if c.said.Path != "" && !c.gone {
			c.gone = true
			c.Close()
			n++
		}
	}
	return n
}

// conversations returns what was said so far over connections to URLs that end in suffix.
func (t *tap) conversations(suffix string) (cs []golden.Conversation) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.conns {
		if path, ok := strings.CutSuffix(c.said.Path, suffix); ok && path != "" {
			said := c.said
			said.Path = path
			cs = append(cs, said)
		}
	}
	return cs
}

func (c *tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.note(&c.in, b[:n], true)
	return n, err
}

func (c *tapped) Write(b []byte) (int, error) {
	c.note(&c.out, b, false) // before the peer can answer it
	return c.Conn.Write(b)
}

func (c *tapped) note(p *parser, b []byte, sent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.skip {
		return
	}
	p.buf = append(p.buf, b...)
	if !p.open {
		head, rest, ok := bytes.Cut(p.buf, []byte("\r\n\r\n"))
		if !ok {
			return
		}
		if sent && !c.handshake(head) {
			p.skip, c.out.skip = true, true
			return
		}
		p.open, p.buf = true, bytes.Clone(rest)
	}
	for f, ok := p.next(); ok; f, ok = p.next() {
		f.Sent = sent
		c.said.Frames = append(c.said.Frames, f)
	}
}

// handshake reads the head of a request and reports whether it opens a WebSocket.
func (c *tapped) handshake(head []byte) bool {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(head) + "\r\n\r\n")))
	if err != nil || r.Header.Get("Upgrade") == "" {
		return false
	}
	c.said.Path, c.said.Header = r.URL.RequestURI(), http.Header{}
	for _, k := range []string{"Sec-Websocket-Protocol", "Sec-Websocket-Extensions", "Sec-Websocket-Version", "Connection",
		"Upgrade"} {
		if vs := r.Header[k]; vs != nil {
			c.said.Header[k] = vs
		}
	}
	return true
}

// A parser takes the bytes of one direction apart (RFC 6455, section 5.2).
type parser struct {
	skip, open bool // this is no WebSocket; it is past the handshake
	buf        []byte
	message    []byte // fragments so far
}

// next returns the next text message or close frame. Pings come at any time and are no part of what is said.
func (p *parser) next() (golden.Frame, bool) {
	for {
		b := p.buf
		if len(b) < 2 {
			return golden.Frame{}, false
		}
		fin, op, masked, n := b[0]&0x80 != 0, b[0]&15, b[1]&0x80 != 0, uint64(b[1]&0x7f)
		at := 2
		if n >= 126 {
			size := 2
			if n == 127 {
				size = 8
			}
			if len(b) < at+size {
				return golden.Frame{}, false
			}
			n = binary.BigEndian.Uint64(append(make([]byte, 8-size), b[at:at+size]...))
			at += size
		}
		var mask [4]byte
		if masked {
			if len(b) < at+4 {
				return golden.Frame{}, false
			}
			copy(mask[:], b[at:])
			at += 4
		}
		if uint64(len(b)-at) < n {
			return golden.Frame{}, false
		}
		payload := bytes.Clone(b[at : at+int(n)])
		for i := range payload {
			payload[i] ^= mask[i&3]
		}
		p.buf = b[at+int(n):]
		switch {
		case op == 8 && n >= 2:
			code := strconv.Itoa(int(binary.BigEndian.Uint16(payload)))
			return golden.Frame{Close: true, Text: strings.TrimSpace(code + " " + string(payload[2:]))}, true
		case op == 8:
			return golden.Frame{Close: true}, true
		case op < 8:
			if p.message = append(p.message, payload...); fin {
				text := string(p.message)
				p.message = nil
				return golden.Frame{Text: text}, true
			}
		}
	}
}
