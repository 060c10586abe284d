package wire

import "strings"

// Negotiate returns the offer that the lines of an Accept field like best, and whether any is acceptable (RFC 9110
// section 12.5.1). An offer is a media type, perhaps with parameters. The most specific range that matches an offer gives
// its quality; of the offers with the highest one, that with the more specific range wins, then the one named first:
// EventSource's "text/event-stream" picks that, and "*/*" the first offer. Quality 0 excludes an offer.
//
// Without a line, or without a single valid range in them, the first offer is acceptable. Ranges that are malformed are
// skipped. A charset in a range is ignored: everything here is UTF-8.
func Negotiate(accept []string, offers ...string) (string, bool) {
	best, bestQ, bestRank, ranged := "", 0, 0, false
	for _, offer := range offers {
		q, rank := 0, -1
		for _, line := range accept {
			for item, rest := cutList(line, ','); item != "" || rest != ""; item, rest = cutList(rest, ',') {
				r, ok := parseRange(item)
				if !ok {
					continue
				}
				ranged = true
				if n := r.match(offer); n > rank || n == rank && n >= 0 && r.q > q {
					q, rank = r.q, n
				}
			}
		}
		if q > bestQ || q == bestQ && q > 0 && rank > bestRank {
			best, bestQ, bestRank = offer, q, rank
		}
	}
	if !ranged && len(offers) > 0 {
		return offers[0], true
	}
	return best, bestQ > 0
}

// mediaRange is one item of Accept.
type mediaRange struct {
	kind, sub string // each may be "*"
	params    string // those before q, unparsed
	q         int    // in thousandths
}

func parseRange(s string) (r mediaRange, ok bool) {
	media, params := cutList(s, ';')
	r.kind, r.sub, ok = strings.Cut(trim(media), "/")
	if !ok || !token(r.kind) || !token(r.sub) || r.kind == "*" && r.sub != "*" {
		return r, false
	}
	r.q = 1000
	for rest := params; rest != ""; {
		var p string
		before := params[:len(params)-len(rest)]
		if p, rest = cutList(rest, ';'); trim(p) == "" {
			continue
		}
		name, value, ok := strings.Cut(p, "=")
		if name = trim(name); !ok || !token(name) {
			return r, false
		}
		if strings.EqualFold(name, "q") {
			r.params = before
			r.q, ok = parseQ(trim(value))
			return r, ok // nobody ever used what may follow q, and RFC 9110 has dropped it
		}
	}
	r.params = params
	return r, true
}

// match returns how specific r is for offer, -1 if it does not match.
func (r mediaRange) match(offer string) int {
	media, params := cutList(offer, ';')
	kind, sub, _ := strings.Cut(trim(media), "/")
	switch {
	case r.kind == "*":
		return 0
	case !strings.EqualFold(r.kind, kind):
		return -1
	case r.sub == "*":
		return 1
	case !strings.EqualFold(r.sub, sub):
		return -1
	}
	rank := 2
	for rest := r.params; rest != ""; {
		var p string
		p, rest = cutList(rest, ';')
		name, value, _ := strings.Cut(p, "=")
		if name = trim(name); name == "" || strings.EqualFold(name, "charset") {
			continue
		}
		if !hasParam(params, name, unquoteField(trim(value))) {
			return -1
		}
		rank++
	}
	return rank
}

func hasParam(params, name, value string) bool {
	for rest := params; rest != ""; {
		var p string
		p, rest = cutList(rest, ';')
		n, v, _ := strings.Cut(p, "=")
		if strings.EqualFold(trim(n), name) && strings.EqualFold(unquoteField(trim(v)), value) {
			return true
		}
	}
	return false
}

// parseQ reads a quality: 0 to 1 with at most three decimals.
func parseQ(s string) (int, bool) {
	if s == "" || len(s) > 5 || s[0] != '0' && s[0] != '1' || len(s) > 1 && s[1] != '.' {
		return 0, false
	}
	q := int(s[0]-'0') * 1000
	for i, unit := 2, 100; i < len(s); i, unit = i+1, unit/10 {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		q += int(s[i]-'0') * unit
	}
	return q, q <= 1000
}

// cutList cuts s at the first sep that is not inside a quoted string.
func cutList(s string, sep byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == sep && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

func trim(s string) string { return strings.Trim(s, " \t") }

// token reports whether s is a token of RFC 9110 section 5.6.2.
func token(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}
