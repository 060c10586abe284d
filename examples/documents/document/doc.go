// Package document is the business of the documents example: it reads a text or a Markdown document and says what is
// in it. It knows nothing of how documents reach it, and imports the standard library only.
//
// # Markdown
//
// A document whose name ends in .md or .markdown is Markdown, any other is plain text. Of CommonMark 0.31
// (https://spec.commonmark.org/0.31.2/) and GitHub's autolinks (https://github.github.com/gfm/#autolinks-extension-)
// it reads what decides about words and links: front matter, headings, quotes, lists, code in fences, in indented
// blocks and in spans, link reference definitions, links, images, autolinks, comments and entities. A definition must
// stand on one line, and links of raw HTML are not listed.
//
// # Limits
//
// A document has at most [MaxBytes]. Time and memory grow in proportion to its size, whatever is in it.
package document
