package ws_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/ws"
	"github.com/intermodal-go/intermodal/ws/internal/golden"
)

// TestGolden says to a server what foreign peers have said, as the nested module webtest has recorded it, and expects
// the same answers. Answers may overtake each other, and events may share a frame or not: that is a matter of time.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			conversations, err := golden.Parse(text)
			require.NoError(t, err)
			bus, stop, err := golden.Application(context.Background())
			require.NoError(t, err)
			defer stop()
			server := ws.NewServer(bus, nil)
			h := httptest.NewServer(server)
			defer h.Close()
			defer server.Shutdown(context.Background())
			r := replay{t: t, ids: map[string]string{}}
			for _, c := range conversations {
				r.conversation(h.URL, c)
			}
		})
	}
}

// A replay knows which IDs of the server stand where others were recorded.
type replay struct {
	t    *testing.T
	ids  map[string]string
	want []string // recorded of this conversation, and not come yet
}

func (r *replay) conversation(url string, c golden.Conversation) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, url+c.Path, &websocket.DialOptions{Subprotocols: c.Header["Sec-Websocket-Protocol"]})
	require.NoError(r.t, err)
	defer conn.CloseNow()
	came := make(chan string, 1000)
	go func() {
		defer close(came)
		for {
			_, data, err := conn.Read(ctx)
			if err != nil {
				return
			}
			for _, m := range messages(string(data)) {
				came <- m
			}
		}
	}()

	r.want = nil
	for _, f := range c.Frames {
		if !f.Sent && !f.Close {
			r.want = append(r.want, messages(f.Text)...)
		}
	}
	left := len(r.want)
	for _, f := range c.Frames {
		switch {
		case !f.Sent && !f.Close:
			left -= len(messages(f.Text))
		case f.Sent && !f.Close:
			for len(r.want) > left { // the peer had seen these
				r.take(<-came)
			}
			require.NoError(r.t, conn.Write(ctx, websocket.MessageText, []byte(r.rename(f.Text))))
		}
	}
	for len(r.want) > 0 {
		r.take(<-came)
	}
	require.NoError(r.t, conn.Close(websocket.StatusNormalClosure, ""))
	for m := range came {
		require.Empty(r.t, m, "more came than was recorded")
	}
}

// take strikes a message off those that are wanted.
func (r *replay) take(m string) {
	r.t.Helper()
	pattern, ids := golden.Names(timeless(m))
	for i, want := range r.want {
		if p, numbers := golden.Names(timeless(want)); p == pattern {
			for j, n := range numbers {
				r.ids[n] = ids[j]
			}
			r.want = slices.Delete(r.want, i, i+1)
			return
		}
	}
	require.Failf(r.t, "not recorded", "got  %s\nwant one of\n     %s", m, strings.Join(r.want, "\n     "))
}

// rename puts the IDs of this run in the places of those that were recorded.
func (r *replay) rename(text string) string {
	for number, id := range r.ids {
		text = strings.ReplaceAll(text, number, id)
	}
	return text
}

var timeout = regexp.MustCompile(`"timeout":\d+`)

// timeless makes texts equal that differ in the time that is left of a call.
func timeless(text string) string { return timeout.ReplaceAllString(text, `"timeout":1`) }

// messages returns the notifications that a frame holds one by one. Answers to a batch come in any order, so they are put
// into one. All else is returned as it is.
func messages(frame string) []string {
	var batch []json.RawMessage
	if json.Unmarshal([]byte(frame), &batch) != nil {
		return []string{frame}
	}
	var all []string
	answers := false
	for _, m := range batch {
		var head struct{ Method *string }
		answers = json.Unmarshal(m, &head) != nil || head.Method == nil || answers
		all = append(all, string(m))
	}
	if answers {
		slices.Sort(all)
		return []string{"[" + strings.Join(all, ",") + "]"}
	}
	return all
}
