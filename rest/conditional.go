package rest

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"time"
)

// weakETag is the entity tag of a reply that has none of its own. It is weak, for it knows nothing but the body, and the
// same on every server.
func weakETag(body []byte) string {
	sum := sha256.Sum256(body)
	b := make([]byte, 0, 26)
	b = append(b, `W/"`...)
	b = base64.RawURLEncoding.AppendEncode(b, sum[:15])
	return string(append(b, '"'))
}

// cutETag cuts the first entity tag from a list (RFC 9110 section 8.8.3); tag is "" if there is none.
func cutETag(list string) (tag, after string) {
	list = strings.TrimLeft(list, " \t,")
	start := 0
	if strings.HasPrefix(list, "W/") {
		start = 2
	}
	if len(list) <= start || list[start] != '"' {
		return "", ""
	}
	for i := start + 1; i < len(list); i++ {
		switch c := list[i]; {
		case c == '"':
			return list[:i+1], list[i+1:]
		case c < 0x21 || c == 0x7f:
			return "", ""
		}
	}
	return "", ""
}

// isETag reports whether s is one entity tag.
func isETag(s string) bool {
	tag, after := cutETag(s)
	return tag != "" && after == "" && tag == s
}

// matchETag reports whether one of the tags in lines matches etag, which is "" if there is none, or whether lines is "*".
// The strong comparison knows no weak tags (section 8.8.3.2). What follows a malformed tag is ignored.
func matchETag(lines []string, etag string, strong bool) bool {
	for _, line := range lines {
		if strings.Trim(line, " \t") == "*" {
			return true
		}
		for {
			var tag string
			if tag, line = cutETag(line); tag == "" {
				break
			}
			if strong && tag == etag && tag[0] == '"' || !strong && strings.TrimPrefix(tag, "W/") == strings.TrimPrefix(etag, "W/") {
				return true
			}
		}
	}
	return false
}

// precondition evaluates the conditions of a GET or HEAD request for a representation that is there, in the order of RFC
// 9110 section 13.2.2. It returns 304, 412, or 0 to go on. etag and lastModified are "" if there is none.
func precondition(request http.Header, etag, lastModified string) int {
	modified, err := http.ParseTime(lastModified)
	dated := err == nil
	if lines := request["If-Match"]; len(lines) > 0 {
		if !matchETag(lines, etag, true) {
			return http.StatusPreconditionFailed
		}
	} else if t, ok := fieldTime(request, "If-Unmodified-Since"); ok && dated && modified.After(t) {
		return http.StatusPreconditionFailed
	}
	if lines := request["If-None-Match"]; len(lines) > 0 {
		if matchETag(lines, etag, false) {
			return http.StatusNotModified
		}
	} else if t, ok := fieldTime(request, "If-Modified-Since"); ok && dated && !modified.After(t) {
		return http.StatusNotModified
	}
	return 0
}

func fieldTime(h http.Header, name string) (time.Time, bool) {
	lines := h[name]
	if len(lines) != 1 {
		return time.Time{}, false
	}
	t, err := http.ParseTime(lines[0])
	return t, err == nil
}
