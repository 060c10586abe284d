package document

import (
	"html"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds on how far the scanner looks ahead. They keep the time in proportion to the text, whatever is in it.
const (
	maxURL   = 2048
	maxLabel = 999 // CommonMark's
	maxDepth = 32  // of parentheses in a destination
)

// A scanner reads what is inside a paragraph: it collects links and returns the text without markup and URLs.
type scanner struct {
	plain       bool              // plain text: autolinks and bare URLs only
	definitions map[string]string // of links, by normal label
	links       []Link

	src      string
	out      []byte
	open     []bracket
	inactive int // brackets below this one stay text: there is no link in a link
}

// A bracket is a "[" or "![" that may become a link or an image.
type bracket struct {
	image bool
	src   int // just after it
	out   int // of the "[" itself
	links int // found before it
}

// gone stands in out for a "[" that turned out to be markup. A document has no NUL of its own.
const gone = 0

func (s *scanner) scan(text string) string {
	s.src, s.out = text, make([]byte, 0, len(text))
	closing := s.codeSpans()
	for i := 0; i < len(text); {
		if n := s.url(i); n > 0 {
			i += n
			continue
		}
		if s.plain {
			s.out = append(s.out, text[i])
			i++
			continue
		}
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && isPunct(text[i+1]):
			s.out = append(s.out, text[i+1])
			i += 2
		case c == '`':
			n := runLength(text[i:])
			if end, ok := closing[i]; ok {
				s.out = append(s.out, text[i+n:end]...)
				i = end
			}
			i += n
		case c == '!' && strings.HasPrefix(text[i+1:], "["):
			s.push(true, i+2)
			i += 2
		case c == '[':
			s.push(false, i+1)
			i++
		case c == ']':
			i += s.close(i)
		case c == '<':
			n := tag(text[i:])
			if n == 0 {
				s.out = append(s.out, c)
				n = 1
			}
			i += n
		case c == '&':
			n := entity(text[i:])
			s.out = append(s.out, html.UnescapeString(text[i:i+n])...)
			i += n
		case c == '*': // emphasis; "_" may be part of a name, and at the edge of a word it does no harm
			i++
		default:
			s.out = append(s.out, c)
			i++
		}
	}
	return visible(s.out)
}

func visible(out []byte) string {
	return strings.ToValidUTF8(strings.ReplaceAll(string(out), string(rune(gone)), ""), "")
}

// codeSpans returns, for each run of backticks that opens a span, where the run of the same length is that closes it.
func (s *scanner) codeSpans() map[int]int {
	if s.plain || strings.IndexByte(s.src, '`') < 0 {
		return nil
	}
	next := map[int]int{} // by length
	closing := map[int]int{}
	for end := len(s.src); ; {
		end = strings.LastIndexByte(s.src[:end], '`') + 1
		if end == 0 {
			return closing
		}
		start := end - 1
		for start > 0 && s.src[start-1] == '`' {
			start--
		}
		if at, ok := next[end-start]; ok {
			closing[start] = at
		}
		next[end-start] = start
		end = start
	}
}

func runLength(text string) int { return len(text) - len(strings.TrimLeft(text, text[:1])) }

func (s *scanner) push(image bool, src int) {
	s.open = append(s.open, bracket{image, src, len(s.out), len(s.links)})
	s.out = append(s.out, '[')
}

// close takes the "]" at i, and what follows it if that makes a link. It returns how many bytes it took.
func (s *scanner) close(i int) int {
	last := len(s.open) - 1
	if last < 0 {
		s.out = append(s.out, ']')
		return 1
	}
	b := s.open[last]
	s.open = s.open[:last]
	active := b.image || last >= s.inactive
	s.inactive = min(s.inactive, last)
	if inner := s.src[b.src:i]; strings.HasPrefix(inner, "^") && !b.image { // a footnote's number is no word
		s.out = s.out[:b.out]
		return 1
	}
	url, n, ok := s.target(b, i)
	if !ok || !active {
		s.out = append(s.out, ']')
		return 1
	}
	s.out[b.out] = gone
	if !b.image {
		s.links = s.links[:b.links] // a URL that is the text of a link is no link of its own
		if url != "" {
			s.links = append(s.links, Link{oneLine(visible(s.out[b.out:])), url})
		}
		s.inactive = last
	}
	return n
}

// target finds where the bracket that ends at i points: to (a destination), to a [label], or to its own text as label.
func (s *scanner) target(b bracket, i int) (url string, n int, ok bool) {
	rest := s.src[i+1:]
	if strings.HasPrefix(rest, "(") {
		if url, n, ok := inlineTarget(rest); ok {
			return url, n + 1, true
		}
	}
	label, n := s.src[b.src:min(i, b.src+maxLabel+1)], 1
	if strings.HasPrefix(rest, "[") {
		if end := strings.IndexAny(rest[1:min(len(rest), maxLabel+2)], "[]"); end >= 0 && rest[1+end] == ']' {
			n = 1 + end + 2
			if end > 0 {
				label = rest[1 : 1+end]
			}
		}
	}
	if len(s.definitions) == 0 || strings.IndexByte(label, '[') >= 0 { // no label has a bracket
		return "", 0, false
	}
	url, ok = s.definitions[normalLabel(label)]
	return url, n, ok
}

// inlineTarget reads (destination "title").
func inlineTarget(text string) (url string, n int, ok bool) {
	i := 1 + spaces(text[1:])
	url, n, ok = destination(text[i:])
	if !ok {
		return "", 0, false
	}
	i += n
	if gap := spaces(text[i:]); gap > 0 {
		i += gap
		if n, ok := linkTitle(text[i:]); ok {
			i += n
			i += spaces(text[i:])
		}
	}
	if i == len(text) || text[i] != ')' {
		return "", 0, false
	}
	return url, i + 1, true
}

// destination reads a URL, in angle brackets or without spaces and with its parentheses balanced.
func destination(text string) (url string, n int, ok bool) {
	angle := strings.HasPrefix(text, "<")
	depth := 0
	for i := 0; i < len(text) && i <= maxURL; i++ {
		switch c := text[i]; {
		case angle && c == '>':
			return unescape(text[1:i]), i + 1, true
		case angle && (c == '\n' || c == '<' && i > 0):
			return "", 0, false
		case c == '\\' && i+1 < len(text) && isPunct(text[i+1]):
			i++
		case angle:
		case c == '(':
			if depth++; depth > maxDepth {
				return "", 0, false
			}
		case c == ')' && depth > 0:
			depth--
		case c == ')' || c <= ' ':
			return unescape(text[:i]), i, depth == 0
		}
	}
	return unescape(text), len(text), !angle && depth == 0 && len(text) <= maxURL
}

// linkTitle reads a title in quotes or parentheses.
func linkTitle(text string) (n int, ok bool) {
	if text == "" {
		return 0, false
	}
	end := text[0]
	switch end {
	case '(':
		end = ')'
	case '"', '\'':
	default:
		return 0, false
	}
	for i := 1; i < len(text) && i <= maxLabel; i++ {
		switch text[i] {
		case '\\':
			i++
		case end:
			return i + 1, true
		}
	}
	return 0, false
}

// url takes the autolink or bare URL at i. It returns how many bytes it took, 0 if there is none.
func (s *scanner) url(i int) int {
	rest := s.src[i:]
	switch rest[0] {
	case '<':
		n := strings.IndexAny(rest[1:min(len(rest), maxURL)], "<> \t\n") + 1
		if n < 1 || rest[n] != '>' {
			return 0
		}
		switch to := rest[1:n]; {
		case hasScheme(to):
			s.links = append(s.links, Link{URL: to})
		case isAddress(to):
			s.links = append(s.links, Link{URL: "mailto:" + to})
		default:
			return 0
		}
		return n + 1
	case 'h', 'H', 'w', 'W':
		if endsInWord(s.src[:i]) {
			return 0
		}
		n := bareURL(rest)
		if n == 0 {
			return 0
		}
		u := rest[:n]
		if !strings.Contains(u, "://") {
			u = "http://" + u // as GitHub does for www.
		}
		if !s.plain {
			u = unescape(u)
		}
		s.links = append(s.links, Link{URL: u})
		return n
	}
	return 0
}

func endsInWord(text string) bool {
	r, _ := utf8.DecodeLastRuneInString(text)
	return r == '_' || r == '/' || isWordRune(r) && !isHan(r) && !isHiragana(r)
}

// bareURL returns the length of the URL that text begins with, 0 if there is none. What ends a sentence and a closing
// parenthesis that was not opened in the URL do not belong to it.
func bareURL(text string) int {
	start := 0
	for _, prefix := range []string{"http://", "https://", "www."} {
		if len(text) > len(prefix) && strings.EqualFold(text[:len(prefix)], prefix) {
			start = len(prefix)
		}
	}
	if r, _ := utf8.DecodeRuneInString(text[start:]); start == 0 || !isWordRune(r) {
		return 0
	}
	round, square := 0, 0
	end := min(len(text), maxURL)
scan:
	for i, r := range text[:end] {
		switch {
		case r == '(':
			round++
		case r == '[':
			square++
		case r == ')':
			round--
		case r == ']':
			square--
		}
		if round < 0 || square < 0 || r <= ' ' || strings.ContainsRune("<>\"`|", r) || r >= utf8.RuneSelf && !inURL(r) {
			end = i
			break scan
		}
	}
	for end > start && strings.IndexByte("?!.,:;*_~'", text[end-1]) >= 0 {
		end--
	}
	return end
}

// inURL reports whether a rune beyond ASCII is part of a URL and not of the text around it.
func inURL(r rune) bool { return isWordRune(r) || r == '\u200d' || r == '\u200c' }

// hasScheme reports whether s begins as an absolute URI does: a scheme of 2 to 32 letters, digits, "+", "." and "-".
func hasScheme(s string) bool {
	scheme, _, ok := strings.Cut(s, ":")
	if !ok || len(scheme) < 2 || len(scheme) > 32 || !isLetter(scheme[0]) {
		return false
	}
	for i := range len(scheme) {
		if c := scheme[i]; !isLetter(c) && (c < '0' || c > '9') && strings.IndexByte("+.-", c) < 0 {
			return false
		}
	}
	return true
}

func isAddress(s string) bool {
	user, host, ok := strings.Cut(s, "@")
	return ok && user != "" && strings.Contains(strings.Trim(host, ".-"), ".") && !strings.ContainsAny(s, "\\:/")
}

// tag returns the length of the HTML tag or comment that text begins with, 0 if there is none.
func tag(text string) int {
	if strings.HasPrefix(text, "<!--") {
		if end := strings.Index(text[:min(len(text), 1<<12)], "-->"); end >= 0 {
			return end + len("-->")
		}
		return 0
	}
	name := strings.TrimPrefix(text[1:min(len(text), maxURL)], "/")
	if name == "" || !isLetter(name[0]) {
		return 0
	}
	end := strings.IndexAny(text[1:min(len(text), maxURL)], "<>") + 1
	if end < 1 || text[end] != '>' {
		return 0
	}
	return end + 1
}

// entity returns the length of the character reference that text begins with, 1 if there is none.
func entity(text string) int {
	for i := 1; i < len(text) && i < 33; i++ {
		switch c := text[i]; {
		case c == ';' && i > 1:
			return i + 1
		case c == '#' && i == 1, isLetter(c), '0' <= c && c <= '9':
		default:
			return 1
		}
	}
	return 1
}

// unescape takes off backslashes and character references.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') >= 0 {
		var b strings.Builder
		for i := 0; i < len(s); i++ {
			if s[i] == '\\' && i+1 < len(s) && isPunct(s[i+1]) {
				i++
			}
			b.WriteByte(s[i])
		}
		s = b.String()
	}
	return html.UnescapeString(s)
}

// normalLabel makes labels that differ in case or white space the same.
func normalLabel(s string) string {
	if len(s) > maxLabel {
		return ""
	}
	return strings.ToLower(oneLine(s))
}

func spaces(text string) int { return len(text) - len(strings.TrimLeft(text, " \t\n")) }

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isPunct(c byte) bool {
	return c < utf8.RuneSelf && (unicode.IsPunct(rune(c)) || unicode.IsSymbol(rune(c)))
}
