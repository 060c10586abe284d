package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/intermodal-go/intermodal/transport"
)

// AppendJSONHeader appends h as a JSON object: each key with the array of its values, those of -bin keys in padded
// standard base64. Keys are sorted, and those without values are left out. It is how a header sits in JSON-RPC and in
// problem documents.
func AppendJSONHeader(dst []byte, h transport.Header) []byte {
	dst = append(dst, '{')
	keys := make([]string, 0, 16)
	for i, k := range sortedKeys(keys, h) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, k)
		dst = append(dst, ':', '[')
		for j, v := range h[k] {
			if j > 0 {
				dst = append(dst, ',')
			}
			if isBin(k) {
				dst = append(dst, '"')
				dst = base64.StdEncoding.AppendEncode(dst, []byte(v))
				dst = append(dst, '"')
			} else {
				dst = appendString(dst, v)
			}
		}
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

// ParseJSONHeader reads what [AppendJSONHeader] writes. It takes a single value in place of an array, and numbers and
// booleans as their text; null is no value. The result is legal, see Header.Check; it is nil for JSON null and for an
// empty object. Errors are CodeInvalidArgument, and CodeResourceExhausted for a header that is too large.
func ParseJSONHeader(data []byte) (transport.Header, error) {
	if !json.Valid(data) {
		return nil, transport.Errorf(transport.CodeInvalidArgument, "the header is not valid JSON")
	}
	h, err := parseJSONHeader(trimSpace(data))
	if err != nil {
		return nil, err
	}
	return h, h.Check()
}

// parseJSONHeader reads a header from valid JSON without space around it. Size is not checked.
func parseJSONHeader(b []byte) (transport.Header, error) {
	switch b[0] {
	case 'n':
		return nil, nil
	case '{':
	default:
		return nil, transport.Errorf(transport.CodeInvalidArgument, "the header is not a JSON object")
	}
	var h transport.Header
	for key, raw := range members(b) {
		k := string(key)
		if !legalKey(k) {
			return nil, transport.Errorf(transport.CodeInvalidArgument, "the header key %q is not legal", k)
		}
		var vs []string
		add := func(raw []byte) error {
			v, ok := scalar(raw)
			if isBin(k) && ok {
				bin, err := base64.StdEncoding.DecodeString(v)
				if err != nil {
					return transport.Errorf(transport.CodeInvalidArgument, "the header %q is not base64", k)
				}
				v = string(bin)
			}
			if ok {
				vs = append(vs, v)
			}
			return nil
		}
		if raw[0] == '[' {
			for raw := range elements(raw) {
				if err := add(raw); err != nil {
					return nil, err
				}
			}
		} else if err := add(raw); err != nil {
			return nil, err
		}
		if len(vs) == 0 {
			continue
		}
		if h == nil {
			h = transport.Header{}
		}
		h[k] = vs
	}
	return h, nil
}

// sortedKeys appends the keys of h that have values to dst, which may be on the caller's stack, and sorts.
func sortedKeys(dst []string, h transport.Header) []string {
	for k, vs := range h {
		if len(vs) > 0 {
			dst = append(dst, k)
		}
	}
	slices.Sort(dst)
	return dst
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func appendString[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			if r == utf8.RuneError && n == 1 {
				dst = append(dst, s[start:i]...)
				dst = append(dst, `\ufffd`...)
				start = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// What follows walks over JSON that json.Valid has accepted, so that it need not look for errors, and hands out slices
// of it, so that an embedded body stays byte for byte what it was.

// members yields the members of the object that b is: the name, unquoted, and the value without space around it.
func members(b []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for i := space(b, 1); b[i] != '}'; {
			end := skipString(b, i)
			name := b[i+1 : end-1]
			if bytes.IndexByte(name, '\\') >= 0 {
				name = []byte(unquote(b[i:end]))
			}
			i = space(b, space(b, end)+1) // over the colon
			end = skip(b, i)
			if !yield(name, b[i:end:end]) {
				return
			}
			if i = space(b, end); b[i] == ',' {
				i = space(b, i+1)
			}
		}
	}
}

// elements yields the elements of the array that b is, without space around them.
func elements(b []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i := space(b, 1); b[i] != ']'; {
			end := skip(b, i)
			if !yield(b[i:end:end]) {
				return
			}
			if i = space(b, end); b[i] == ',' {
				i = space(b, i+1)
			}
		}
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

func space(b []byte, i int) int {
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	return i
}

// trimSpace removes JSON's white space, which is less than Unicode's.
func trimSpace(b []byte) []byte {
	b = b[space(b, 0):]
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// skip returns the end of the value that begins at i.
func skip(b []byte, i int) int {
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		for depth := 0; ; i++ {
			switch b[i] {
			case '"':
				i = skipString(b, i) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	}
	for i < len(b) && !isSpace(b[i]) && b[i] != ',' && b[i] != '}' && b[i] != ']' {
		i++
	}
	return i
}

// skipString returns the end of the string that begins at i.
func skipString(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// unquote returns the text of a JSON string.
func unquote(raw []byte) string {
	if s := raw[1 : len(raw)-1]; bytes.IndexByte(s, '\\') < 0 && utf8.Valid(s) {
		return string(s)
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// scalar returns the text of a value: that of a string, the JSON of all else. It is false for null.
func scalar(raw []byte) (string, bool) {
	switch raw[0] {
	case '"':
		return unquote(raw), true
	case 'n':
		return "", false
	}
	return strings.ToValidUTF8(string(raw), "\ufffd"), true
}

// text returns the text of a string, and "" for all else.
func text(raw []byte) string {
	if raw[0] != '"' {
		return ""
	}
	return unquote(raw)
}
