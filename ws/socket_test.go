package ws

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHead has the examples of RFC 6455 section 5.7, as text.
func TestHead(t *testing.T) {
	const key = 0x3d21fa37 // 37 fa 21 3d on the wire
	hello := []byte("Hello")
	require.Equal(t, "\x81\x05Hello", string(append(appendHead(nil, 5, false, 0), hello...)))
	mask(hello, key)
	require.Equal(t, "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", string(append(appendHead(nil, 5, true, key), hello...)))
	require.Equal(t, "\x81\x7d", string(appendHead(nil, 125, false, 0)))
	require.Equal(t, "\x81\x7e\x00\x7e", string(appendHead(nil, 126, false, 0)))
	require.Equal(t, "\x81\x7e\x01\x00", string(appendHead(nil, 256, false, 0)))
	require.Equal(t, "\x81\x7e\xff\xff", string(appendHead(nil, 65535, false, 0)))
	require.Equal(t, "\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00", string(appendHead(nil, 65536, false, 0)))
	require.Len(t, appendHead(nil, 65536, true, key), maxHead)
}

func TestMask(t *testing.T) {
	for n := range 40 {
		p := []byte(strings.Repeat("intermodal", 4)[:n])
		want := bytes.Clone(p)
		for i := range want {
			want[i] ^= "\x37\xfa\x21\x3d"[i%4]
		}
		mask(p, 0x3d21fa37)
		require.Equal(t, want, p)
	}
}

// TestSocketFrames has frames of all sizes, the library's among them, in order and whole, and nothing after a close.
func TestSocketFrames(t *testing.T) {
	var wire sink
	s := newSocket(&wire)
	want := ""
	s.cork()
	for _, n := range []int{0, 1, 125, 126, 4000, maxHeld - 3, maxHeld, 65535, 65536, 7} {
		p := strings.Repeat("x", n)
		want += string(appendHead(nil, n, false, 0)) + p + "\x8a\x02ab"
		require.NoError(t, s.text([]byte(p), false))
		_, err := io.WriteString(s, "\x8a\x02ab") // a pong
		require.NoError(t, err)
	}
	require.NoError(t, s.uncork())
	require.Equal(t, want, wire.String())

	s.cork()
	require.NoError(t, s.text([]byte("last"), false))
	_, err := io.WriteString(s, "\x88\x00")
	require.NoError(t, err)
	want += "\x81\x04last\x88\x00"
	require.Equal(t, want, wire.String(), "a close goes out at once")
	require.ErrorIs(t, s.text([]byte("late"), false), net.ErrClosed)
	require.NoError(t, s.uncork())
	require.Equal(t, want, wire.String())
}

// A sink keeps what is written.
type sink struct{ bytes.Buffer }

func (*sink) Close() error { return nil }

// TestFraming has the reader see one frame at a time, however the bytes come.
func TestFraming(t *testing.T) {
	stream, ends := frames([]int{0, 5, 125, 126, 300, 65535, 65536, 1})
	for _, size := range []int{1, 2, 3, 7, 100, 4096, len(stream)} {
		s := newSocket(&sink{*bytes.NewBuffer([]byte(stream))})
		s.nc, _ = net.Pipe()
		p := make([]byte, size)
		at := 0
		for _, end := range ends {
			require.True(t, s.frames.between())
			for at < end {
				n, err := s.Read(p)
				require.NoError(t, err)
				require.Equal(t, stream[at:at+n], string(p[:n]))
				at += n
				require.LessOrEqual(t, at, end, "beyond the end of a frame")
				require.Equal(t, at == end, s.frames.between())
			}
		}
	}
}

// frames returns frames of text with payloads of such sizes, and where each ends.
func frames(sizes []int) (stream string, ends []int) {
	for _, n := range sizes {
		stream += string(appendHead(nil, n, false, 0)) + strings.Repeat("x", n)
		ends = append(ends, len(stream))
	}
	return stream, ends
}

// TestWholeFrame waits for whole frames of text, and lets go of all else.
func TestWholeFrame(t *testing.T) {
	const text = "\x81\x05Hello"
	for _, c := range []struct {
		name, stream string
		whole        bool
	}{
		{"text", text, true},
		{"text and more", text + "\x89\x00", true},
		{"compressed", "\xc1\x05Hello", true},
		{"half a head", "\x81", false},
		{"half a frame", "\x81\x05Hel", false},
		{"a ping", "\x89\x00" + text, false},
		{"a close", "\x88\x00", false},
		{"binary", "\x82\x05Hello", false},
		{"a fragment", "\x01\x05Hello", false},
		{"a large frame", string(appendHead(nil, maxWhole+1, false, 0)) + strings.Repeat("x", maxWhole+1), false},
		{"the largest", string(appendHead(nil, maxWhole, false, 0)) + strings.Repeat("x", maxWhole), true},
		{"a size beyond all", "\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", false},
		{"nothing", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSocket(&sink{*bytes.NewBufferString(c.stream)})
			s.nc, _ = net.Pipe()
			require.Equal(t, c.whole, s.frame())
			p := make([]byte, 1<<20)
			read := ""
			for {
				n, err := s.Read(p)
				read += string(p[:n])
				if err != nil {
					break
				}
			}
			require.Equal(t, c.stream, read, "nothing is lost")
		})
	}
}

// TestInterrupt lets a frame return that waits, and does no harm to Read.
func TestInterrupt(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	s := newSocket(near)
	s.nc = near
	done := make(chan bool)
	go func() { done <- s.frame() }()
	_, err := io.WriteString(far, "\x81\x05He")
	require.NoError(t, err)
	s.interrupt()
	require.False(t, <-done)
	go func() { done <- s.frame() }()
	_, err = io.WriteString(far, "llo\x81")
	require.NoError(t, err)
	require.True(t, <-done)
	p := make([]byte, 100)
	n, err := s.Read(p)
	require.NoError(t, err)
	require.Equal(t, "\x81\x05Hello", string(p[:n]))
	require.False(t, s.whole(), "a byte of the next")
	n, err = s.Read(p)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	s.interrupt()
	go io.WriteString(far, "\x00")
	n, err = s.Read(p)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.True(t, s.whole())
}

func FuzzFraming(f *testing.F) {
	stream, _ := frames([]int{0, 3, 200})
	f.Add([]byte(stream), 3)
	f.Add([]byte("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x88\x02\x03\xe8"), 1)
	f.Add([]byte("\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff"), 7)
	f.Fuzz(func(t *testing.T, stream []byte, size int) {
		var whole framing
		for at := 0; at < len(stream); { // all that is there, each time
			n := whole.next(stream[at:])
			require.Positive(t, n)
			require.LessOrEqual(t, n, len(stream)-at)
			end := at + n
			require.True(t, end == len(stream) || whole.between())
			var parts framing // and in pieces
			for ; at < end; at += n {
				n = parts.next(stream[at:min(at+max(size, 1), end)])
				require.Positive(t, n)
				require.Equal(t, at+n == end && whole.between(), parts.between())
			}
		}
	})
}
