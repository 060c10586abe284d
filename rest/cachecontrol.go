package rest

import (
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// cacheControl is what a private cache reads in the field Cache-Control of a request or a reply (RFC 9111 section 5.2).
// Directives of shared caches, and unknown ones, are ignored.
type cacheControl struct {
	noStore, noCache, onlyIfCached bool
	maxAge                         time.Duration // -1: not given
}

// parseCacheControl reads the lines of a Cache-Control field. Where it is malformed the careful reading counts: a max-age
// that is no number is 0, and of two the smaller one holds.
func parseCacheControl(lines []string) cacheControl {
	cc := cacheControl{maxAge: -1}
	for _, line := range lines {
		for item := range listItems(line, ',') {
			name, value, _ := strings.Cut(item, "=")
			switch strings.ToLower(textproto.TrimString(name)) {
			case "no-store":
				cc.noStore = true
			case "no-cache": // with field names it forbids less, but it may be read as without
				cc.noCache = true
			case "only-if-cached":
				cc.onlyIfCached = true
			case "max-age":
				if age := parseSeconds(strings.Trim(textproto.TrimString(value), `"`)); cc.maxAge < 0 || age < cc.maxAge {
					cc.maxAge = age
				}
			}
		}
	}
	return cc
}

// parseSeconds reads delta-seconds (RFC 9111 section 1.2.2): what is too large for it is 2^31 seconds, what is no number 0.
func parseSeconds(s string) time.Duration {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil && !isDigits(s) {
		return 0
	}
	return time.Duration(min(n, 1<<31)) * time.Second
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// lifetime returns how long a reply with that header is fresh for a private cache (RFC 9111 section 4.2.1). Without an
// explicit time it is 0: nothing is guessed.
func lifetime(h http.Header, cc cacheControl, received time.Time) time.Duration {
	if cc.maxAge >= 0 {
		return cc.maxAge
	}
	expires, err := http.ParseTime(h.Get("Expires"))
	if err != nil {
		return 0
	}
	return expires.Sub(dateOf(h, received))
}

// initialAge returns how old a reply was when it was received (RFC 9111 section 4.2.3).
func initialAge(h http.Header, sent, received time.Time) time.Duration {
	apparent := max(received.Sub(dateOf(h, received)), 0)
	age, _, _ := strings.Cut(h.Get("Age"), ",")
	return max(apparent, parseSeconds(textproto.TrimString(age))+received.Sub(sent))
}

func dateOf(h http.Header, otherwise time.Time) time.Time {
	if t, err := http.ParseTime(h.Get("Date")); err == nil {
		return t
	}
	return otherwise
}
