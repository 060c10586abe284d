package document

import (
	"context"
	"strings"
)

// readMarkdown reads in two passes, because a link may stand before the definition that it refers to: the first splits
// the lines into blocks and collects the definitions, the second reads what is in the blocks.
func readMarkdown(ctx context.Context, text string) (prose, error) {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	title, lines := frontMatter(lines)
	b := blocks{definitions: map[string]string{}}
	for _, line := range lines {
		b.line(line)
	}
	b.endParagraph(0)

	p := prose{title: title}
	best := 7 // the level of the heading that the title is from
	for _, block := range b.all {
		if err := ctx.Err(); err != nil {
			return p, err
		}
		s := scanner{definitions: b.definitions}
		t := s.scan(block.text)
		p.text = append(p.text, t)
		p.links = append(p.links, s.links...)
		if title == "" && block.level > 0 && block.level < best {
			if t = oneLine(t); t != "" {
				p.title, best = t, block.level
			}
		}
	}
	if p.title == "" && len(p.text) > 0 {
		first, _, _ := strings.Cut(strings.TrimSpace(p.text[0]), "\n")
		p.title = oneLine(first)
	}
	return p, nil
}

// frontMatter takes off the metadata between two lines of three dashes at the start, and returns the title in it.
func frontMatter(lines []string) (title string, rest []string) {
	if strings.TrimRight(lines[0], " \t") != "---" {
		return "", lines
	}
	for i, line := range lines[1:] {
		switch line = strings.TrimRight(line, " \t"); line {
		case "---", "...":
			return title, lines[i+2:]
		}
		if value, ok := strings.CutPrefix(line, "title:"); ok && title == "" {
			title = oneLine(strings.Trim(strings.TrimSpace(value), `"'`))
		}
	}
	return "", lines // no end: it was a rule, not front matter
}

// A block is a paragraph, or a heading of level 1 to 6.
type block struct {
	text  string
	level int
}

// blocks is the state of the first pass.
type blocks struct {
	all         []block
	definitions map[string]string // of links, by normal label
	paragraph   []string          // lines of the one that is open
	fence       string            // that is open, such as "```"
	fenceQuoted bool              // it stands in a quote, and ends with that at the latest
	comment     bool              // in an HTML comment
	code        bool              // the last line was indented code
	list        bool              // what is indented belongs to a list item
	blank       bool              // the last line was blank
}

func (b *blocks) line(line string) {
	raw := line
	line, quoted := unquote(raw)
	body := strings.TrimLeft(line, " \t")
	wasBlank, wasCode := b.blank || len(b.all)+len(b.paragraph) == 0, b.code
	b.blank, b.code = body == "", false
	switch {
	case b.fence != "" && !b.fenceQuoted: // a quote in it is code as well
		if closesFence(b.fence, strings.TrimLeft(raw, " \t")) {
			b.fence = ""
		}
		return
	case b.fence != "" && quoted:
		if closesFence(b.fence, body) {
			b.fence = ""
		}
		return
	case b.comment:
		b.comment = !strings.Contains(body, "-->")
		return
	case body == "":
		b.code = wasCode
		b.endParagraph(0)
		return
	}
	b.fence = ""
	if isIndented(line) && !b.list && (wasBlank || wasCode) {
		b.code = true
		return
	}
	if level := underline(body); level > 0 && len(b.paragraph) > 0 && !isIndented(line) {
		b.endParagraph(level)
		return
	}
	if isRule(body) {
		b.endParagraph(0)
		return
	}
	if item, ok := listItem(body); ok {
		b.endParagraph(0)
		b.list, body = true, item
	} else if wasBlank && len(line) == len(body) {
		b.list = false
	}
	switch level := heading(body); {
	case opensFence(body) != "":
		b.endParagraph(0)
		b.fence, b.fenceQuoted = opensFence(body), quoted
	case level > 0:
		b.endParagraph(0)
		b.all = append(b.all, block{strings.TrimRight(strings.TrimRight(body[level:], " \t"), "#"), level})
	case strings.HasPrefix(body, "<!--") && !strings.Contains(body, "-->"):
		b.endParagraph(0)
		b.comment = true
	default:
		if len(b.paragraph) == 0 && b.define(body) {
			return
		}
		b.paragraph = append(b.paragraph, body)
	}
}

// endParagraph ends the open paragraph; a level other than 0 makes it a heading.
func (b *blocks) endParagraph(level int) {
	if len(b.paragraph) > 0 {
		b.all = append(b.all, block{strings.Join(b.paragraph, "\n"), level})
		b.paragraph = b.paragraph[:0]
	}
}

// define takes a link reference definition: [label]: destination "title". The first one of a label counts.
func (b *blocks) define(line string) bool {
	if line[0] != '[' || strings.HasPrefix(line, "[^") { // a footnote is prose
		return false
	}
	end := strings.Index(line, "]:")
	if end < 0 || end > maxLabel {
		return false
	}
	label := normalLabel(line[1:end])
	rest := strings.TrimLeft(line[end+2:], " \t")
	url, n, ok := destination(rest)
	if !ok || url == "" || label == "" {
		return false
	}
	rest = rest[n:]
	after := strings.TrimLeft(rest, " \t")
	if after != "" {
		n, ok := linkTitle(after)
		if !ok || len(after) == len(rest) || strings.TrimSpace(after[n:]) != "" {
			return false
		}
	}
	if _, ok := b.definitions[label]; !ok {
		b.definitions[label] = url
	}
	return true
}

// unquote takes off the markers of block quotes.
func unquote(line string) (rest string, quoted bool) {
	for {
		body := strings.TrimLeft(line, " ")
		if len(line)-len(body) > 3 || !strings.HasPrefix(body, ">") {
			return line, quoted
		}
		line, quoted = strings.TrimPrefix(body[1:], " "), true
	}
}

// isIndented reports whether line is indented as code is.
func isIndented(line string) bool {
	return strings.HasPrefix(line, "    ") || strings.HasPrefix(strings.TrimLeft(line, " "), "\t")
}

// opensFence returns the fence that body begins with, "" if none. An info string follows it.
func opensFence(body string) string {
	for _, c := range []string{"`", "~"} {
		info := strings.TrimLeft(body, c)
		if n := len(body) - len(info); n >= 3 && (c == "~" || !strings.Contains(info, c)) {
			return body[:n]
		}
	}
	return ""
}

func closesFence(fence, body string) bool {
	body = strings.TrimRight(body, " \t")
	return len(body) >= len(fence) && strings.Trim(body, fence[:1]) == ""
}

// heading returns the level of the heading that body is, 0 if it is none.
func heading(body string) int {
	rest := strings.TrimLeft(body, "#")
	if n := len(body) - len(rest); n <= 6 && (rest == "" || rest[0] == ' ' || rest[0] == '\t') {
		return n
	}
	return 0
}

// underline returns 1 for a line of "=" and 2 for a line of "-": what stands above is a heading.
func underline(body string) int {
	switch body = strings.TrimRight(body, " \t"); {
	case strings.Trim(body, "=") == "":
		return 1
	case strings.Trim(body, "-") == "":
		return 2
	}
	return 0
}

// isRule reports whether body is a thematic break: three or more of the same sign and nothing else.
func isRule(body string) bool {
	n := strings.Count(body, body[:1])
	return strings.ContainsRune("*-_", rune(body[0])) && n >= 3 && strings.Trim(body, body[:1]+" \t") == ""
}

// listItem takes off the markers of list items, and the box of a task.
func listItem(body string) (rest string, ok bool) {
	for {
		n := 0
		for n < len(body) && n < 9 && '0' <= body[n] && body[n] <= '9' {
			n++
		}
		signs := "*-+"
		if n > 0 {
			signs = ".)"
		}
		if n >= len(body) || strings.IndexByte(signs, body[n]) < 0 {
			return body, ok
		}
		rest := strings.TrimLeft(body[n+1:], " \t")
		if len(rest) == len(body)-n-1 || rest == "" {
			return body, ok
		}
		for _, box := range []string{"[ ] ", "[x] ", "[X] "} {
			rest = strings.TrimPrefix(rest, box)
		}
		body, ok = rest, true
	}
}
