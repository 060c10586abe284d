package rest

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// The preferences are what the field Prefer of a request says (RFC 7240), as far as it has a meaning here.
type preferences struct {
	async   bool
	waits   bool
	wait    time.Duration
	applied string // for Preference-Applied
}

// parsePrefer reads the lines of Prefer. Of a preference that is there twice the first counts; what is malformed or unknown
// is ignored, as the RFC has it.
func parsePrefer(lines []string) (p preferences) {
	var seenAsync bool
	for _, line := range lines {
		for item := range listItems(line, ',') {
			var name, value string
			for part := range listItems(item, ';') { // what follows a semicolon are parameters, none of which is defined
				name, value, _ = strings.Cut(part, "=")
				break
			}
			name, value = strings.TrimSpace(name), strings.Trim(strings.TrimSpace(value), `"`)
			switch {
			case strings.EqualFold(name, "respond-async") && !seenAsync:
				p.async, seenAsync = true, true
			case strings.EqualFold(name, "wait") && !p.waits:
				if n, err := strconv.ParseUint(value, 10, 31); err == nil {
					p.wait, p.waits = time.Duration(n)*time.Second, true
				}
			}
		}
	}
	return p
}

// listItems yields the items of a list whose separators do not count within quotes. Items that are empty are left out.
func listItems(s string, separator byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for start, i, quoted := 0, 0, false; i <= len(s); i++ {
			switch {
			case i == len(s) || s[i] == separator && !quoted:
				if item := strings.Trim(s[start:i], " \t"); item != "" && !yield(item) {
					return
				}
				start = i + 1
			case s[i] == '"':
				quoted = !quoted
			case s[i] == '\\' && quoted:
				i = min(i+1, len(s)-1)
			}
		}
	}
}

// timeout returns what a request says about its deadline, and whether it does. There is no standard field: gRPC's and
// Connect's are known, the shorter of two counts. The error is CodeInvalidArgument.
func timeout(h http.Header) (d time.Duration, ok bool, err error) {
	if v := h["Grpc-Timeout"]; len(v) > 0 {
		if d, ok = grpcTimeout(v[0]); !ok {
			return 0, false, transport.Errorf(transport.CodeInvalidArgument, "the field Grpc-Timeout is malformed")
		}
	}
	if v := h["Connect-Timeout-Ms"]; len(v) > 0 {
		n, err := strconv.ParseUint(v[0], 10, 64)
		if err != nil || len(v[0]) > 10 {
			return 0, false, transport.Errorf(transport.CodeInvalidArgument, "the field Connect-Timeout-Ms is malformed")
		}
		if ms := time.Duration(n) * time.Millisecond; !ok || ms < d {
			d, ok = ms, true
		}
	}
	return d, ok, nil
}

// grpcTimeout reads at most eight digits and a unit.
func grpcTimeout(v string) (time.Duration, bool) {
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	n, err := strconv.ParseUint(v[:len(v)-1], 10, 32)
	if err != nil {
		return 0, false
	}
	unit := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second,
		'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond}[v[len(v)-1]]
	if unit == 0 {
		return 0, false
	}
	return min(time.Duration(n), math.MaxInt64/unit) * unit, true
}
