// Package golden holds what foreign peers said to a server: the application that stood behind it, and the form in which
// their frames are kept under ws/testdata. The nested module webtest records, package ws replays.
//
// A file has one conversation for each connection:
//
//	# Chromium 156, our client
//	@ GET /ws
//	@ Sec-Websocket-Protocol: intermodal.v1.json
//	> {"jsonrpc":"2.0","id":1,"method":"math.add","params":[1,2]}
//	< {"jsonrpc":"2.0","id":1,"result":3}
//	>close 1000
//
// A line that begins with ">" was sent by the foreign peer, one with "<" by the server. IDs that the server made, which
// are also what its cursors begin with, are numbered: {1}, {2} and so on.
package golden

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/intermodal-go/intermodal/transport"
)

// A Frame is a text message, or the close frame with its code and reason.
type Frame struct {
	Sent  bool // by the foreign peer
	Close bool
	Text  string
}

// A Conversation is what was said over one connection.
type Conversation struct {
	Path   string
	Header http.Header // of the opening handshake, what matters of it
	Frames []Frame
}

// Format returns the text of a file with a title.
func Format(title string, cs []Conversation) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n", title)
	for _, c := range cs {
		fmt.Fprintf(&b, "\n@ GET %s\n", c.Path)
		keys := make([]string, 0, len(c.Header))
		for k := range c.Header {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			for _, v := range c.Header[k] {
				fmt.Fprintf(&b, "@ %s: %s\n", k, v)
			}
		}
		for _, f := range c.Frames {
			mark := "<"
			if f.Sent {
				mark = ">"
			}
			if f.Close {
				mark += "close"
			}
			b.WriteString(strings.TrimRight(mark+" "+f.Text, " ") + "\n")
		}
	}
	return b.Bytes()
}

// Parse reads a file.
func Parse(file []byte) (cs []Conversation, err error) {
	lines := bufio.NewScanner(bytes.NewReader(file))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		mark, text, _ := strings.Cut(lines.Text(), " ")
		switch mark {
		case "", "#":
			continue
		case "@":
			if path, ok := strings.CutPrefix(text, "GET "); ok {
				cs = append(cs, Conversation{Path: path, Header: http.Header{}})
			} else if k, v, ok := strings.Cut(text, ": "); ok && len(cs) > 0 {
				cs[len(cs)-1].Header.Add(k, v)
			} else {
				return nil, fmt.Errorf("line %d: %q is no part of a handshake", n, text)
			}
		case ">", "<", ">close", "<close":
			if len(cs) == 0 {
				return nil, fmt.Errorf("line %d: a frame without a connection", n)
			}
			c := &cs[len(cs)-1]
			c.Frames = append(c.Frames, Frame{Sent: mark[0] == '>', Close: len(mark) > 1, Text: text})
		default:
			return nil, fmt.Errorf("line %d begins with %q", n, mark)
		}
	}
	return cs, lines.Err()
}

var numbered = regexp.MustCompile(`\{\d+\}`)

// Names takes text apart: the places where it has an ID that this process has made, or the number of one, are {} in
// pattern, and names are what stands there.
func Names(text string) (pattern string, names []string) {
	id := transport.NewID()
	made := regexp.MustCompile(regexp.QuoteMeta(id[:prefix]) + fmt.Sprintf(`[\w-]{%d}`, len(id)-prefix))
	replace := func(re *regexp.Regexp) {
		text = re.ReplaceAllStringFunc(text, func(name string) string {
			names = append(names, name)
			return "{}"
		})
	}
	replace(made)
	replace(numbered)
	return text, names
}

// prefix is how much of an ID is the same for all of a process.
const prefix = 12

// Number replaces the IDs that this process has made by their numbers, in the order in which they are first seen.
func Number(cs []Conversation) {
	numbers := map[string]string{}
	for _, c := range cs {
		for i, f := range c.Frames {
			_, names := Names(f.Text)
			for _, name := range names {
				if numbers[name] == "" {
					numbers[name] = fmt.Sprintf("{%d}", len(numbers)+1)
				}
				f.Text = strings.ReplaceAll(f.Text, name, numbers[name])
			}
			c.Frames[i] = f
		}
	}
}
