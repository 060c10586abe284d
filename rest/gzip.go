package rest

import (
	"bytes"
	"compress/gzip"
	"mime"
	"strings"
	"sync"
)

// minGzip is the size of a body from which on compressing it pays.
const minGzip = 1 << 10

// accepts reports whether the lines of Accept-Encoding allow gzip (RFC 9110 section 12.5.3).
func acceptsGzip(lines []string) bool {
	star, named, allowed := false, false, false
	for _, line := range lines {
		for item := range listItems(line, ',') {
			coding, params, _ := strings.Cut(item, ";")
			coding = strings.Trim(coding, " \t")
			zero := false
			for p := range listItems(params, ';') {
				name, q, _ := strings.Cut(p, "=")
				zero = zero || strings.EqualFold(strings.Trim(name, " \t"), "q") && strings.Trim(q, " \t0.") == ""
			}
			switch {
			case strings.EqualFold(coding, "gzip") || strings.EqualFold(coding, "x-gzip"):
				named, allowed = true, !zero
			case coding == "*":
				star = !zero
			}
		}
	}
	return named && allowed || !named && star
}

// compressible reports whether bodies of that type become smaller.
func compressible(contentType string) bool {
	media := contentType
	if strings.IndexByte(media, ';') >= 0 {
		media, _, _ = mime.ParseMediaType(contentType)
	}
	kind, sub, _ := strings.Cut(strings.ToLower(media), "/")
	switch {
	case kind == "text":
		return sub != "event-stream"
	case strings.HasSuffix(sub, "+json"), strings.HasSuffix(sub, "+xml"), strings.HasSuffix(sub, "+text"):
		return true
	case kind == "application":
		switch sub {
		case "json", "xml", "javascript", "x-ndjson", "json-seq", "yaml", "wasm", "x-www-form-urlencoded", "protobuf", "x-protobuf":
			return true
		}
	case kind == "image":
		return sub == "bmp"
	}
	return false
}

// A compressor is used again and again: a gzip.Writer is a megabyte.
type compressor struct {
	z   *gzip.Writer
	buf bytes.Buffer
}

var compressors = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	return &compressor{z: z}
}}

// compress returns body in gzip, and a function to call when that was used; it is false if that is no smaller.
func compress(body []byte) (zipped []byte, release func(), ok bool) {
	c := compressors.Get().(*compressor)
	c.buf.Reset()
	c.z.Reset(&c.buf)
	c.z.Write(body) // a Buffer takes all
	c.z.Close()
	release = func() {
		if c.buf.Cap() <= 256<<10 {
			compressors.Put(c)
		}
	}
	if c.buf.Len() >= len(body) {
		release()
		return nil, nil, false
	}
	return c.buf.Bytes(), release, true
}
