package document

import (
	"cmp"
	_ "embed"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// words counts words and terms.
//
// A word is a run of letters, digits and the marks on them, with the apostrophes, hyphens and underscores inside it, and
// the signs inside a number or a time of day. Chinese and Japanese are written without spaces: there each ideograph and
// each hiragana is a word, as word processors count, and two ideographs side by side are a term, as search engines
// index. A letter with an accent and the same letter followed by a combining accent are different terms.
type words struct {
	count int
	terms map[string]int
}

func newWords() *words { return &words{terms: map[string]int{}} }

func (w *words) add(text string) {
	var before rune // the ideograph just before, 0 if none
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		switch {
		case isHan(r):
			w.count++
			if before != 0 {
				w.terms[string([]rune{before, r})]++
			}
			before = r
			i += n
			continue
		case isHiragana(r):
			w.count++
		case isWordRune(r) && !unicode.IsMark(r):
			n = wordLength(text[i:])
			w.count++
			if t := term(text[i : i+n]); t != "" {
				w.terms[t]++
			}
		}
		before = 0
		i += n
	}
}

// wordLength returns the length of the word that text begins with.
func wordLength(text string) int {
	end := 0
	var last rune
	for i, r := range text {
		switch {
		case isHan(r) || isHiragana(r):
			return end
		case isWordRune(r):
			if i > end && !joins(text[end:i], last, r) {
				return end
			}
			end, last = i+utf8.RuneLen(r), r
		case i > end: // two signs in a row
			return end
		}
	}
	return end
}

// joins reports whether sign, between two runes of words, makes one word of them.
func joins(sign string, before, after rune) bool {
	switch sign {
	case "'", "’", "-", "\u2010", "_", "·", "\u00ad", "\u200c", "\u200d":
		return true
	case ".", ",", ":":
		return unicode.IsDigit(before) && unicode.IsDigit(after)
	}
	return false
}

// term returns what word counts as, "" if it says nothing about the document.
func term(word string) string {
	t := strings.ReplaceAll(strings.ToLower(word), "’", "'")
	t = strings.TrimSuffix(strings.ReplaceAll(t, "\u00ad", ""), "'s")
	if stopWords[t] || utf8.RuneCountInString(t) < 2 || strings.IndexFunc(t, unicode.IsLetter) < 0 {
		return ""
	}
	return t
}

// top returns the n most frequent terms. Of those equally frequent the first in the order of bytes comes first, so that
// the answer is the same each time. It is never nil.
func (w *words) top(n int) []Term {
	all := make([]Term, 0, len(w.terms))
	for t, count := range w.terms {
		all = append(all, Term{t, count})
	}
	slices.SortFunc(all, func(a, b Term) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Term, b.Term))
	})
	return slices.Clone(all[:min(n, len(all))])
}

func isWordRune(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) }
func isHan(r rune) bool      { return r >= '\u2e80' && unicode.Is(unicode.Han, r) }
func isHiragana(r rune) bool { return r >= '\u3041' && unicode.Is(unicode.Hiragana, r) }

//go:embed stopwords.txt
var stopWordList string

// stopWords say nothing about a document: they are frequent in any.
var stopWords = func() map[string]bool {
	set := map[string]bool{}
	for line := range strings.Lines(stopWordList) {
		if !strings.HasPrefix(line, "#") {
			for _, w := range strings.Fields(line) {
				set[w] = true
			}
		}
	}
	return set
}()
