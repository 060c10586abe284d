package document

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of a document and of what is said about it.
const (
	MaxBytes  = 512 << 10 // largest document
	MaxTerms  = 10        // terms listed
	MaxLinks  = 500       // links listed
	MaxTitle  = 200       // longest title and longest text of a link, in runes
	WordsAMin = 238       // silent reading of English non-fiction, Brysbaert 2019, doi:10.1016/j.jml.2019.104047
)

// Why a document is refused. [ProcessDocument] wraps them with the document's name.
var (
	ErrEmpty    = errors.New("the document is empty")
	ErrTooLarge = fmt.Errorf("the document has more than %d bytes", MaxBytes)
	ErrNotText  = errors.New("the document is not UTF-8 text")
)

// A Request is a document. Text is bytes and not a string, because an encoding such as JSON would quietly repair a
// string that is not UTF-8, and nobody could tell any more that a picture was sent.
type Request struct {
	Name string `json:"name"`
	Text []byte `json:"text"`
}

// A Response says what is in a document.
type Response struct {
	Name           string `json:"name"`
	Title          string `json:"title"`          // of the front matter, else the first heading or line, else Name
	Words          int    `json:"words"`          // of the prose: without code blocks, front matter and URLs
	Lines          int    `json:"lines"`          // of the whole document
	ReadingSeconds int    `json:"readingSeconds"` // at WordsAMin, rounded up
	Terms          []Term `json:"terms"`          // the most frequent, at most MaxTerms
	Links          []Link `json:"links"`          // in order, each URL once, at most MaxLinks
}

// A Term is a word that says what the document is about, in lower case.
type Term struct {
	Term  string `json:"term"`
	Count int    `json:"count"`
}

// A Link is where a document points. Text is empty where the URL itself is what the reader sees.
type Link struct {
	Text string `json:"text,omitempty"`
	URL  string `json:"url"`
}

// ProcessDocument reads one document. It fails with [ErrEmpty], [ErrTooLarge] or [ErrNotText], and with ctx's error
// when that ends first. Safe for concurrent use; it keeps nothing of r.
func ProcessDocument(ctx context.Context, r Request) (Response, error) {
	if err := check(r.Text); err != nil {
		return Response{}, fmt.Errorf("%q: %w", r.Name, err)
	}
	text := string(bytes.TrimPrefix(r.Text, []byte("\uFEFF")))
	read := readText
	if isMarkdown(r.Name) {
		read = readMarkdown
	}
	p, err := read(ctx, text)
	if err != nil {
		return Response{}, err
	}
	w := newWords()
	for _, t := range p.text {
		if err := ctx.Err(); err != nil {
			return Response{}, err
		}
		w.add(t)
	}
	title := clip(p.title)
	if title == "" {
		title = r.Name
	}
	return Response{
		Name:           r.Name,
		Title:          title,
		Words:          w.count,
		Lines:          countLines(text),
		ReadingSeconds: (w.count*60 + WordsAMin - 1) / WordsAMin,
		Terms:          w.top(MaxTerms),
		Links:          distinct(p.links),
	}, nil
}

func check(text []byte) error {
	switch {
	case len(text) > MaxBytes:
		return ErrTooLarge
	case !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0: // no text has NUL, many binary formats do
		return ErrNotText
	case len(bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\uFEFF")))) == 0:
		return ErrEmpty
	}
	return nil
}

func isMarkdown(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".md", ".markdown":
		return true
	}
	return false
}

// prose is what a reader reads of a document, and where it points.
type prose struct {
	title string
	text  []string // one string for each paragraph or heading
	links []Link
}

// readText reads plain text: its title is the first line that is not blank.
func readText(ctx context.Context, text string) (p prose, err error) {
	for line := range strings.Lines(text) {
		if p.title = oneLine(line); p.title != "" {
			break
		}
	}
	s := scanner{plain: true}
	p.text = []string{s.scan(text)}
	p.links = s.links
	return p, ctx.Err()
}

// countLines counts as editors do: a last line need not end in a newline.
func countLines(text string) int {
	n := strings.Count(text, "\n")
	if !strings.HasSuffix(text, "\n") {
		n++
	}
	return n
}

// distinct keeps the first link to each URL, up to MaxLinks. It is never nil, so that JSON shows an empty list.
func distinct(links []Link) []Link {
	seen := make(map[string]bool, len(links))
	kept := []Link{}
	for _, l := range links {
		if len(kept) < MaxLinks && !seen[l.URL] {
			seen[l.URL] = true
			kept = append(kept, Link{clip(l.Text), l.URL})
		}
	}
	return slices.Clip(kept)
}

// oneLine collapses white space.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// clip cuts s after MaxTitle runes.
func clip(s string) string {
	n := 0
	for i := range s {
		if n == MaxTitle {
			return s[:i] + "…"
		}
		n++
	}
	return s
}
