package document_test

import (
	"bytes"
	"context"
	"encoding/json"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/examples/documents/document"
)

func process(t testing.TB, name, text string) document.Response {
	t.Helper()
	r, err := document.ProcessDocument(t.Context(), document.Request{Name: name, Text: []byte(text)})
	require.NoError(t, err)
	return r
}

func urls(r document.Response) []string {
	got := []string{}
	for _, l := range r.Links {
		got = append(got, l.URL)
	}
	return got
}

// The numbers of the plain texts were counted with wc as well: lines are equal, and words differ by the URLs, and by
// Chinese and Japanese.
func TestRealDocuments(t *testing.T) {
	for _, want := range []struct {
		name, title           string
		words, lines, seconds int
		terms                 []document.Term // the first three
		urls                  []string
	}{{
		name: "containers.md", title: "The box that made the world smaller", words: 513, lines: 62, seconds: 130,
		terms: []document.Term{{"box", 11}, {"container", 5}, {"goods", 5}},
		urls: []string{
			"https://en.wikipedia.org/wiki/Intermodal_container",
			"https://en.wikipedia.org/wiki/Malcom_McLean",
			"https://www.iso.org/standard/76912.html",
			"https://www.bic-code.org/identification-number/",
			"#further-reading",
			"https://press.princeton.edu/books/paperback/9780691170817/the-box",
			"https://en.wikipedia.org/wiki/SS_Ideal_X",
			"https://unctad.org/topic/transport-and-trade-logistics",
			"mailto:editor@example.org",
		},
	}, {
		name: "harbour-log.txt", title: "Harbour log, west quay (kept by the tide clerk)", words: 431, lines: 26,
		seconds: 109,
		terms:   []document.Term{{"berth", 4}, {"metres", 4}, {"asking", 3}},
		urls:    []string{"https://www.gov.uk/check-tide-tables", "http://www.example.org/lock-gates/(west)/report"},
	}, {
		name: "lighthouse-keeping.md", title: "Keeping the light", words: 2315, lines: 186, seconds: 584,
		terms: []document.Term{{"light", 24}, {"keeper", 13}, {"time", 12}},
		urls: []string{
			"https://msi.nga.mil/Publications/NGALOL",
			"https://www.iala-aism.org/wiki/dictionary/",
			"https://en.wikipedia.org/wiki/International_Code_of_Signals_(maritime)",
			"https://example.org/lighthouse?copies=2&lang=en",
			"https://example.org/museum",
			"./hours.md",
		},
	}, {
		name: "many-tongues.txt", title: "Many tongues, one sentence", words: 552, lines: 59, seconds: 140,
		terms: []document.Term{{"và", 4}, {"και", 4}, {"और", 4}},
		urls:  []string{"https://www.ohchr.org/en/universal-declaration-of-human-rights"},
	}, {
		name: "night-train.txt", title: "The Night Train to the Coast", words: 734, lines: 42, seconds: 186,
		terms: []document.Term{{"train", 7}, {"attendant", 4}, {"hook", 4}},
		urls:  []string{},
	}, {
		name: "retries.md", title: "Retrying without harm", words: 366, lines: 95, seconds: 93,
		terms: []document.Term{{"server", 5}, {"try", 5}, {"request", 4}},
		urls: []string{
			"https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2",
			"https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/",
			"https://sre.google/sre-book/addressing-cascading-failures/",
			"http://www.murphys-laws.com",
			"https://microservices.io/patterns/data/transactional-outbox.html",
		},
	}} {
		t.Run(want.name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("..", "testdata", want.name))
			require.NoError(t, err)
			got := process(t, want.name, string(text))
			require.Equal(t, want.name, got.Name)
			require.Equal(t, want.title, got.Title)
			require.Equal(t, want.words, got.Words)
			require.Equal(t, want.lines, got.Lines)
			require.Equal(t, want.seconds, got.ReadingSeconds)
			require.Equal(t, want.terms, got.Terms[:3])
			require.Len(t, got.Terms, document.MaxTerms)
			require.Equal(t, want.urls, urls(got))
			require.Equal(t, got, process(t, want.name, string(text)), "the same document gives the same answer")
		})
	}
}

func TestTitle(t *testing.T) {
	for name, want := range map[string]struct{ file, text, title string }{
		"front matter":           {"a.md", "---\ndate: 1\ntitle: 'Of ships'\n---\n# Other\n", "Of ships"},
		"front matter, no title": {"a.md", "---\ndate: 1\n---\n# Other\n", "Other"},
		"a rule is none":         {"a.md", "---\ntitle: x\n\ntext\n", "title: x"},
		"highest heading":        {"a.md", "## Two\n\n# One **and** [only](x) #\n\n# Three\n", "One and only"},
		"underlined":             {"a.md", "## Two\n\nOne\nand a half\n===\n", "One and a half"},
		"no heading":             {"a.md", "\n\n> first _line_\n> second\n", "first _line_"},
		"heading in code":        {"a.md", "```\n# no\n```\n\n#no\n\n    # no\n\n## yes\n", "yes"},
		"plain":                  {"a.txt", "\n  # Not Markdown  \nx", "# Not Markdown"},
		"nothing to read":        {"a.md", "```\ncode\n```\n", "a.md"},
		"entities":               {"a.md", "# R&amp;D &copy; &nonsense; \\*\n", "R&D © &nonsense; *"},
		"byte order mark":        {"a.md", "\uFEFF# One\n", "One"},
		"long":                   {"a.txt", strings.Repeat("é", 300), strings.Repeat("é", document.MaxTitle) + "…"},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, want.title, process(t, want.file, want.text).Title) })
	}
}

func TestLines(t *testing.T) {
	for text, want := range map[string]int{"a": 1, "a\n": 1, "a\nb": 2, "a\n\n": 2, "a\r\nb\r\n": 2} {
		require.Equal(t, want, process(t, "a.txt", text).Lines, "%q", text)
	}
}

func TestWords(t *testing.T) {
	for text, want := range map[string]int{
		"don't rock-climb, it’s snake_case": 4,
		"3.14 1,209.6 18:30 1-2":            4,
		"one.two three,four":                4,
		"-- ... 'quoted' (x)":               2,
		"naïve café nai\u0308ve":            3,
		"свобода और ελευθερία":              3,
		"می\u200cخواهم":                     1,
		"自由 あい カタカナ ラーメン":                   6,
		"人A人":                                   3,
		"모든 인간은":                                2,
		"see https://example.org/a/b or <xy:z>": 2,
		"🌍 🌍🌍":                                  0,
		"a":                                     1,
	} {
		require.Equal(t, want, process(t, "a.txt", text).Words, "%q", text)
	}
}

func TestProseOfMarkdown(t *testing.T) {
	for text, want := range map[string]int{
		"---\na: b\n---\nwords":                         1,
		"one `two three` four":                          4,
		"one\n\n    code code\n\n    code\n\ntwo":       2,
		"- one\n\n    two three\n\nfour":                4,
		"one\n    two":                                  2,
		"```\ncode\n````\none":                          1,
		"~~~~\ncode\n~~~\ncode\n~~~~~\none":             1,
		"```\nnever closed":                             0,
		"> ```\n> code\none":                            1,
		"```\n> ```\ncode\n```\none":                    1,
		"``` inline ``` one":                            2,
		"[one two](http://x.example \"three\") four":    3,
		"[one]: http://x.example\n\ntwo":                1,
		"![one two](picture.png) three":                 3,
		"one[^1]\n\n[^1]: two three":                    3,
		"<b class=\"x y\">one</b> <!-- two --> three":   2,
		"<!-- one\n\ntwo -->\nthree":                    1,
		"| one | two |\n|-----|----|\n| three | 4 |":    4,
		"- [x] one\n- [ ] two\n1. three\n* * *\n+ four": 4,
		"2 < 3 and a<b":                                 5,
	} {
		require.Equal(t, want, process(t, "a.md", text).Words, "%q", text)
	}
}

func TestLinks(t *testing.T) {
	type link = document.Link
	for text, want := range map[string][]link{
		"[a](b)":                                                    {{"a", "b"}},
		"[a *b* `c`\n d](<b c> 'title')":                            {{"a b c d", "b c"}},
		"[a](b(c)d) [x](y\\)z)":                                     {{"a", "b(c)d"}, {"x", "y)z"}},
		"[a](b c) [a](b \"c) [a](b":                                 {},
		"[a]() [a](#b)":                                             {{"a", "#b"}},
		"\\[a](b) [a\\](b)":                                         {},
		"`[a](b)` ``[a](`b)`` [c](d)":                               {{"c", "d"}},
		"```\n[a](b)\nhttps://x.example\n```":                       {},
		"    [a](b)\n\n[c](d)":                                      {{"c", "d"}},
		"[![pic](p.png)](b) ![no](c)":                               {{"pic", "b"}},
		"[a [b](c) d](e)":                                           {{"b", "c"}},
		"[a][B] [b][] [b] [c]\n\n[b]: /x\n[b]: /y":                  {{"a", "/x"}},
		"[q]\n\n[ Q ]: <x y> 'title'":                               {{"q", "x y"}},
		"[q]\n\n[q]: x y":                                           {},
		"[q]\ntext\n[q]: x":                                         {},
		"<https://a.example/?q=[x]> <a@b.example>":                  {{"", "https://a.example/?q=[x]"}, {"", "mailto:a@b.example"}},
		"<notaurl> <a@b> <1:x> a<b":                                 {},
		"See https://a.example/b(c), https://a.example/d). http://": {{"", "https://a.example/b(c)"}, {"", "https://a.example/d"}},
		"WWW.a.example/x? xhttp://b.example":                        {{"", "http://WWW.a.example/x"}},
		"**https://a.example/x**":                                   {{"", "https://a.example/x"}},
		"[https://a.example](https://b.example)":                    {{"", "https://b.example"}},
		"https://münchen.example/größe。次":                           {{"", "https://münchen.example/größe"}},
		"[a](b&amp;c) https://x.example/?a&amp;b":                   {{"a", "b&c"}, {"", "https://x.example/?a&b"}},
		"[a](x) [b](x) <xy:z> <xy:z>":                               {{"a", "x"}, {"", "xy:z"}},
		"# [a](b)\n> - [c](d)":                                      {{"a", "b"}, {"c", "d"}},
		"<!-- [a](b) -->":                                           {},
	} {
		require.Equal(t, want, process(t, "a.md", text).Links, "%q", text)
	}
	require.Equal(t, []link{{"", "https://x.example/a"}}, process(t, "a.txt", "[a](b) `https://x.example/a` [c]: d").Links,
		"plain text has no markup")
}

func TestLinksAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range document.MaxLinks + 10 {
		b.WriteString("<xy:" + strings.Repeat("y", i+1) + ">\n")
	}
	require.Len(t, process(t, "a.md", b.String()).Links, document.MaxLinks)
}

func TestTerms(t *testing.T) {
	r := process(t, "a.txt", "Zebra apple ZEBRA the the the Apple's x 42 42 kiwi der und 尊厳 尊厳 ist")
	require.Equal(t, []document.Term{{"apple", 2}, {"zebra", 2}, {"尊厳", 2}, {"kiwi", 1}}, r.Terms)
	require.NotNil(t, process(t, "a.txt", "the").Terms)
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		text []byte
		want error
	}{
		"empty":              {nil, document.ErrEmpty},
		"blank":              {[]byte(" \n\t\u00a0\n"), document.ErrEmpty},
		"byte order mark":    {[]byte("\uFEFF\n"), document.ErrEmpty},
		"too large":          {bytes.Repeat([]byte("a"), document.MaxBytes+1), document.ErrTooLarge},
		"latin-1":            {[]byte("caf\xe9"), document.ErrNotText},
		"utf-16":             {[]byte("\xff\xfea\x00"), document.ErrNotText},
		"picture":            {[]byte("\x89PNG\r\n\x1a\n"), document.ErrNotText},
		"nul":                {[]byte("a\x00b"), document.ErrNotText},
		"surrogate in UTF-8": {[]byte("\xed\xa0\x80"), document.ErrNotText},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := document.ProcessDocument(t.Context(), document.Request{Name: "the file", Text: c.text})
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, "the file")
			require.Zero(t, r)
		})
	}
	process(t, "a.txt", strings.Repeat("a", document.MaxBytes))
}

func TestContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, name := range []string{"a.md", "a.txt"} {
		_, err := document.ProcessDocument(ctx, document.Request{Name: name, Text: []byte("text")})
		require.ErrorIs(t, err, context.Canceled)
	}
}

// Nothing that a stranger sends takes more than linear time: a quadratic step would take minutes here.
func TestHostileDocuments(t *testing.T) {
	for _, unit := range []string{"[", "]", "[]", "![", "[](", "[a](b", "[a](<", "[a](b \"", "`", "` `` ", "<", "<!--", "<a ", "&", "*",
		"\\", "http://", "xhttp://", "http://a(", "[[a]", "[a][", "> ", "- ", "1. ", "#", "~~~", "[a]: b\n", "---\n", "a\n===\n", "人", "a-", "é\u0301"} {
		text := strings.Repeat(unit, document.MaxBytes/4/len(unit))
		process(t, "a.md", text)
		process(t, "a.md", "[a]: b\n\n"+strings.ToValidUTF8(text[:len(text)-8], ""))
		process(t, "a.txt", text)
	}
}

func FuzzProcessDocument(f *testing.F) {
	files, err := filepath.Glob("../testdata/*")
	require.NoError(f, err)
	for _, name := range files {
		text, err := os.ReadFile(name)
		require.NoError(f, err)
		f.Add(filepath.Base(name), text)
	}
	f.Add("a.md", []byte("[![a](b \"c\")][d]\n\n[D]: <e f> (g)\n> ~~~\n> x\n- [ ] `` ` `` <h:i> &amp; \\[ www.j)\nk\n==="))
	f.Add("a.md", []byte("---\ntitle: x\n---\n<!-- y"))
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		given := slices.Clone(text)
		r, err := document.ProcessDocument(t.Context(), document.Request{Name: name, Text: text})
		require.Equal(t, given, text, "the text is not written")
		if err != nil {
			require.Zero(t, r)
			return
		}
		require.LessOrEqual(t, r.Words, len(text))
		require.GreaterOrEqual(t, r.Lines, 1)
		require.LessOrEqual(t, len(r.Terms), document.MaxTerms)
		require.LessOrEqual(t, len(r.Links), document.MaxLinks)
		require.True(t, slices.IsSortedFunc(r.Terms, func(a, b document.Term) int { return b.Count - a.Count }))
		for _, l := range r.Links {
			require.True(t, utf8.ValidString(l.Text), "%q", l.Text)
			require.True(t, utf8.ValidString(l.URL), "%q", l.URL)
			require.NotEmpty(t, l.URL)
		}
		require.True(t, utf8.ValidString(r.Title) || r.Title == name, "%q", r.Title)
		again, err := document.ProcessDocument(t.Context(), document.Request{Name: name, Text: text})
		require.NoError(t, err)
		require.Equal(t, r, again)
		_, err = json.Marshal(r)
		require.NoError(t, err)
	})
}

// The business knows nothing of what carries it.
func TestImportsTheStandardLibraryOnly(t *testing.T) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, i := range file.Imports {
			require.NotContains(t, i.Path.Value, ".", "%s imports more than the standard library", name)
		}
	}
}

func BenchmarkProcessDocument(b *testing.B) {
	text, err := os.ReadFile("../testdata/lighthouse-keeping.md")
	require.NoError(b, err)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := document.ProcessDocument(b.Context(), document.Request{Name: "a.md", Text: text}); err != nil {
			b.Fatal(err)
		}
	}
}
