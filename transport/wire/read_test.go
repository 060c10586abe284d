package wire_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

func zip(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(s))
	z.Close()
	return b.String()
}

// countingReader counts what is taken from it.
type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += n
	return n, err
}

func TestReadBody(t *testing.T) {
	for _, n := range []int{0, 1, 9, 10} {
		s := strings.Repeat("x", n)
		for _, size := range []int64{-1, 0, int64(n), 10} {
			for _, r := range []io.Reader{strings.NewReader(s), iotest.OneByteReader(strings.NewReader(s)), iotest.DataErrReader(strings.NewReader(s))} {
				b, err := wire.ReadBody(r, "", size, 10)
				require.NoError(t, err)
				require.Equal(t, s, string(b))
			}
		}
		for _, encoding := range []string{"gzip", "X-GZIP"} {
			b, err := wire.ReadBody(strings.NewReader(zip(s)), encoding, -1, 100)
			require.NoError(t, err)
			require.Equal(t, s, string(b))
		}
	}
	long := strings.Repeat("abc", 100_000)
	b, err := wire.ReadBody(iotest.HalfReader(strings.NewReader(long)), "identity", int64(len(long)), 0)
	require.NoError(t, err)
	require.Equal(t, long, string(b))
}

func TestReadBodyTooLarge(t *testing.T) {
	check := func(r io.Reader, encoding string, size int64, limit, most int) {
		c := &countingReader{r: r}
		_, err := wire.ReadBody(c, encoding, size, limit)
		require.ErrorIs(t, err, transport.CodeResourceExhausted)
		require.Equal(t, 413, wire.StatusOf(err))
		require.LessOrEqual(t, c.n, most)
	}
	check(strings.NewReader(strings.Repeat("x", 1000)), "", -1, 10, 11)
	check(strings.NewReader(strings.Repeat("x", 1000)), "", 5, 10, 11)
	check(strings.NewReader("x"), "", 11, 10, 0)
	check(strings.NewReader(zip(strings.Repeat("x", 1<<20))), "gzip", -1, 2000, 2001) // grows beyond the limit
	check(strings.NewReader(zip(strings.Repeat("x", 1<<20))), "gzip", -1, 100, 101)
	check(http.MaxBytesReader(httptest.NewRecorder(), io.NopCloser(strings.NewReader("xxxxx")), 3), "", -1, 10, 5)
	check(strings.NewReader(strings.Repeat("x", 3<<20)), "", -1, 0, 1<<20+1)
}

func TestReadBodyErrors(t *testing.T) {
	read := func(r io.Reader, encoding string) error {
		_, err := wire.ReadBody(r, encoding, -1, 1000)
		return err
	}
	for _, encoding := range []string{"br", "gzip, gzip", "deflate"} {
		err := read(strings.NewReader("x"), encoding)
		require.ErrorIs(t, err, transport.CodeInvalidArgument)
		require.Equal(t, 415, wire.StatusOf(err))
	}
	require.ErrorIs(t, read(strings.NewReader("no gzip at all"), "gzip"), transport.CodeInvalidArgument)
	require.ErrorIs(t, read(strings.NewReader(""), "gzip"), transport.CodeInvalidArgument)
	require.ErrorIs(t, read(strings.NewReader(zip("abc")[:15]), "gzip"), transport.CodeInvalidArgument)
	broken := errors.New("broken")
	for _, encoding := range []string{"", "gzip"} {
		err := read(io.MultiReader(strings.NewReader(zip("abc")[:15]), iotest.ErrReader(broken)), encoding)
		require.ErrorIs(t, err, transport.CodeUnavailable)
		require.ErrorIs(t, err, broken)
		require.ErrorIs(t, read(iotest.ErrReader(context.Canceled), encoding), transport.CodeCanceled)
	}
}

func FuzzReadBody(f *testing.F) {
	f.Add([]byte(zip("hello")), true, 3)
	f.Add([]byte(zip("hello")), true, 300)
	f.Add([]byte("hello"), false, 3)
	f.Fuzz(func(t *testing.T, data []byte, zipped bool, limit int) {
		limit = 1 + int(uint(limit)%4096)
		encoding := ""
		if zipped {
			encoding = "gzip"
		}
		c := &countingReader{r: bytes.NewReader(data)}
		b, err := wire.ReadBody(c, encoding, -1, limit)
		require.LessOrEqual(t, c.n, limit+1)
		if err == nil {
			require.LessOrEqual(t, len(b), limit)
		}
	})
}
