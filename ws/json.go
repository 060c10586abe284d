package ws

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"unicode/utf8"
)

// What reads JSON here takes bytes that are valid UTF-8, and hands out slices of them, so that a body stays byte for
// byte what it was. It checks all of the grammar (RFC 8259) but allocates nothing.

// maxDepth bounds how deep arrays and objects may be nested. A body that is deeper travels as text.
const maxDepth = 512

// scan returns the end of the value that begins at i, after space, or -1 if there is none.
func scan(b []byte, i int) int {
	var objects [maxDepth / 64]uint64 // by depth: it is an object
	depth := 0
value:
	if i = space(b, i); i == len(b) {
		return -1
	}
	switch b[i] {
	case '{':
		if depth == maxDepth {
			return -1
		}
		objects[depth/64] |= 1 << (depth % 64)
		depth++
		if i = space(b, i+1); i < len(b) && b[i] == '}' {
			i++
			depth--
			break
		}
		goto name
	case '[':
		if depth == maxDepth {
			return -1
		}
		objects[depth/64] &^= 1 << (depth % 64)
		depth++
		if i = space(b, i+1); i < len(b) && b[i] == ']' {
			i++
			depth--
			break
		}
		goto value
	case '"':
		i = scanString(b, i)
	case 't':
		i = scanWord(b, i, "true")
	case 'f':
		i = scanWord(b, i, "false")
	case 'n':
		i = scanWord(b, i, "null")
	default:
		i = scanNumber(b, i)
	}
after:
	if i < 0 || depth == 0 {
		return i
	}
	if i = space(b, i); i == len(b) {
		return -1
	}
	if objects[(depth-1)/64]&(1<<((depth-1)%64)) == 0 {
		switch b[i] {
		case ',':
			i++
			goto value
		case ']':
			i++
			depth--
			goto after
		}
		return -1
	}
	switch b[i] {
	case ',':
		i = space(b, i+1)
		goto name
	case '}':
		i++
		depth--
		goto after
	}
	return -1
name:
	if i = scanName(b, i); i < 0 {
		return -1
	}
	goto value
}

// scanName returns the beginning of the value after the name of a member and the colon, space not skipped.
func scanName(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	if i = scanString(b, i); i < 0 {
		return -1
	}
	if i = space(b, i); i == len(b) || b[i] != ':' {
		return -1
	}
	return i + 1
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// scanString returns the end of the string that begins at i.
func scanString(b []byte, i int) int {
	i++
	for {
		for i+8 <= len(b) { // eight at a time, while none of them is special
			w := binary.LittleEndian.Uint64(b[i:])
			quote, escape := w^('"'*ones), w^('\\'*ones)
			if ((w-' '*ones)&^w|(quote-ones)&^quote|(escape-ones)&^escape)&highs != 0 {
				break
			}
			i += 8
		}
		if i >= len(b) {
			return -1
		}
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return -1
		case c != '\\':
			i++
			continue
		}
		if i++; i == len(b) {
			return -1
		}
		switch b[i] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			i++
		case 'u':
			if i += 5; i > len(b) {
				return -1
			}
			for _, c := range b[i-4 : i] {
				if !(isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f') {
					return -1
				}
			}
		default:
			return -1
		}
	}
}

func scanWord(b []byte, i int, word string) int {
	if end := i + len(word); end <= len(b) && string(b[i:end]) == word {
		return end
	}
	return -1
}

func scanNumber(b []byte, i int) int {
	if i < len(b) && b[i] == '-' {
		i++
	}
	switch {
	case i == len(b) || !isDigit(b[i]):
		return -1
	case b[i] == '0':
		i++
	default:
		i = digits(b, i)
	}
	if i < len(b) && b[i] == '.' {
		start := i + 1
		if i = digits(b, start); i == start {
			return -1
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		start := i
		if i = digits(b, start); i == start {
			return -1
		}
	}
	return i
}

func digits(b []byte, i int) int {
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	return i
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// A walker goes over the members of an object, or the elements of an array.
//
//	w := walk(b, 0)
//	for w.next() { … w.name, w.value … }
//	if w.end < 0 { … it is not valid … }
type walker struct {
	b     []byte
	i     int
	begun bool
	close byte // '}' or ']'
	name  []byte
	value []byte
	end   int // after the last element: where the object or array ends; -1 if it is not valid
}

// walk returns a walker over the object or array that begins at i.
func walk(b []byte, i int) walker {
	return walker{b: b, i: i + 1, close: b[i] + 2, end: -1} // ASCII has } two after {, and so with brackets
}

func (w *walker) next() bool {
	b := w.b
	i := space(b, w.i)
	if i == len(b) {
		return false
	}
	switch {
	case b[i] == w.close:
		w.end = i + 1
		return false
	case w.begun && b[i] != ',':
		return false
	case w.begun:
		i = space(b, i+1)
	}
	w.begun = true
	if w.close == '}' {
		start := i
		if i = scanName(b, i); i < 0 {
			return false
		}
		w.name = nameAt(b, start)
	}
	i = space(b, i)
	end := scan(b, i)
	if end < 0 {
		return false
	}
	w.value, w.i = b[i:end:end], end
	return true
}

// nameAt returns the name that begins at i.
func nameAt(b []byte, i int) []byte {
	end := scanString(b, i)
	if raw := b[i+1 : end-1]; bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	return []byte(unquote(b[i:end]))
}

// isString reports whether raw is a string.
func isString(raw []byte) bool { return len(raw) > 0 && raw[0] == '"' }

// unquote returns the text of the string that raw is.
func unquote(raw []byte) string {
	if s := raw[1 : len(raw)-1]; bytes.IndexByte(s, '\\') < 0 {
		return string(s)
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// isJSON reports whether b is a value without space around it.
func isJSON(b []byte) bool {
	return len(b) > 0 && space(b, 0) == 0 && utf8.Valid(b) && scan(b, 0) == len(b)
}

const hexDigits = "0123456789abcdef"

// appendString appends s, which is valid UTF-8, as a string.
func appendString[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
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
		start = i + 1
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// escaped is how many bytes appendString makes of s beyond its own.
func escaped(s []byte) (n int) {
	for _, c := range s {
		switch {
		case c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t':
			n++
		case c < ' ':
			n += 5
		}
	}
	return n + 2
}
