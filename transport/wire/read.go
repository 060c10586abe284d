package wire

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/intermodal-go/intermodal/transport"
)

// ReadBody reads an HTTP body to its end, of at most limit bytes; 0 means [transport.DefaultMaxBytes]. It reads no more
// than limit + 1 bytes of r and makes no more of them. encoding is Content-Encoding: "", "identity", "gzip" or "x-gzip",
// where the limit holds before and after decompression. size is Content-Length, or -1: one beyond the limit fails at
// once. It does not close r.
//
// Errors: CodeResourceExhausted (status 413) for a body that is too large; CodeInvalidArgument for one that is no valid
// gzip, and (status 415) for another encoding; CodeUnavailable for a body that broke off.
func ReadBody(r io.Reader, encoding string, size int64, limit int) ([]byte, error) {
	if limit <= 0 {
		limit = transport.DefaultMaxBytes
	}
	if size > int64(limit) {
		return nil, tooLarge(limit)
	}
	switch strings.ToLower(encoding) {
	case "", "identity":
		return readAll(r, size, limit)
	case "gzip", "x-gzip":
		return readGzip(r, limit)
	}
	return nil, &transport.Error{Code: transport.CodeInvalidArgument, Message: "of content-encodings only gzip is supported",
		Header: transport.Header{HeaderStatus: {"415"}}}
}

// readAll reads r; limit + 1 bytes are too many.
func readAll(r io.Reader, size int64, limit int) ([]byte, error) {
	if size < 0 {
		size = 511
	}
	// The size is the peer's word: a large one gets its memory as the bytes come in. One byte more lets the read that
	// finds the end leave the buffer as it is.
	b := make([]byte, 0, min(int(size), limit, 64<<10)+1)
	for {
		n, err := r.Read(b[len(b):min(cap(b), limit+1)])
		if b = b[:len(b)+n]; len(b) > limit {
			return nil, tooLarge(limit)
		}
		switch {
		case err == io.EOF:
			return b, nil
		case err != nil:
			return nil, readError(err, limit)
		}
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
	}
}

var gzipReaders sync.Pool

func readGzip(r io.Reader, limit int) ([]byte, error) {
	src := &source{r: r, left: limit + 1}
	z, _ := gzipReaders.Get().(*gzip.Reader)
	if z == nil {
		z = new(gzip.Reader)
	}
	defer func() {
		src.r = nil // the pool must not keep it
		gzipReaders.Put(z)
	}()
	err := z.Reset(src)
	var b []byte
	if err == nil {
		b, err = readAll(z, -1, limit)
	}
	var e *transport.Error
	switch {
	case src.left == 0:
		return nil, tooLarge(limit)
	case err == nil:
		return b, nil
	case src.err != nil:
		return nil, readError(src.err, limit)
	case errors.As(err, &e) && e.Code == transport.CodeResourceExhausted:
		return nil, err
	}
	return nil, transport.Wrap(err, transport.CodeInvalidArgument, "the body is not valid gzip")
}

// source reads at most left bytes of r and remembers its error.
type source struct {
	r    io.Reader
	left int
	err  error
}

func (s *source) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.r.Read(b[:min(len(b), s.left)])
	s.left -= n
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// readError is the public form of an error of r. Those of a context keep their codes.
func readError(err error, limit int) error {
	var tooMany *http.MaxBytesError
	if errors.As(err, &tooMany) {
		return tooLarge(min(limit, int(tooMany.Limit)))
	}
	code := transport.CodeOf(err)
	if code == transport.CodeUnknown {
		code = transport.CodeUnavailable
	}
	return transport.Wrap(err, code, "the body broke off")
}

func tooLarge(limit int) error {
	e := transport.Errorf(transport.CodeResourceExhausted, "the body has more than %d bytes", limit).(*transport.Error)
	e.Header = transport.Header{HeaderStatus: {"413"}}
	return e
}
