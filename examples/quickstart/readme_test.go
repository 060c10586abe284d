package main

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../.." // of the repository

// pages are the documents whose links and code are checked.
var pages = []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md"}

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	require.NoError(t, err)
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

// Every block of Go stands, as it is but for its indentation, in the file that the comment above it names: it compiles,
// and a test runs it.
func TestCodeOfTheREADMEIsReal(t *testing.T) {
	blocks := regexp.MustCompile("(?s)(?:<!-- ([^\n]*) -->\n)?```go\n(.*?)```").FindAllStringSubmatch(page(t, "README.md"), -1)
	require.NotEmpty(t, blocks)
	for _, b := range blocks {
		require.NotEmpty(t, b[1], "a comment has to name the file of\n%s", b[2])
		require.Contains(t, unindented(page(t, b[1])), unindented(b[2]), "%s has no such lines", b[1])
	}
}

func unindented(code string) string {
	return regexp.MustCompile(`(?m)^\t+`).ReplaceAllString(code, "")
}

// Every link to a file leads to one, and a link to a Go file has a text that is the name of the file or stands in it: a
// test, a case of the conformance suite, a declaration.
func TestLinksLeadSomewhere(t *testing.T) {
	links := regexp.MustCompile(`\[([^][]*)\]\(([^()#]+)\)`)
	for _, name := range pages {
		for _, l := range links.FindAllStringSubmatch(page(t, name), -1) {
			text, url := strings.Trim(l[1], "`"), l[2]
			if strings.Contains(url, "://") {
				continue
			}
			target := path.Join(path.Dir(name), url)
			_, err := os.Stat(filepath.Join(root, target))
			require.NoError(t, err, "%s links to it", name)
			if path.Ext(target) == ".go" && text != path.Base(target) {
				require.True(t, strings.Contains(page(t, target), text), "%s says that %q is in %s", name, text, target)
			}
		}
	}
}
