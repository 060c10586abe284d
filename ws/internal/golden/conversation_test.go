package golden

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("../../testdata/*.txt")
	require.NoError(f, err)
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Add([]byte("> before any handshake"))
	f.Fuzz(func(t *testing.T, b []byte) {
		cs, err := Parse(b)
		if err != nil {
			return
		}
		text := Format("", cs)
		again, err := Parse(text)
		require.NoError(t, err)
		require.Equal(t, string(text), string(Format("", again)))
	})
}

func TestRecordingsAreAsFormatted(t *testing.T) {
	files, err := filepath.Glob("../../testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		cs, err := Parse(b)
		require.NoError(t, err, file)
		title, _, _ := strings.Cut(string(b), "\n")
		require.Equal(t, string(b), string(Format(strings.TrimPrefix(title, "# "), cs)), file)
	}
}

func TestNames(t *testing.T) {
	a, b := transport.NewID(), transport.NewID()
	cs := []Conversation{{Frames: []Frame{{Text: "x " + b + ".7 " + a}, {Text: a}}}}
	Number(cs)
	require.Equal(t, []Frame{{Text: "x {1}.7 {2}"}, {Text: "{2}"}}, cs[0].Frames)
	pattern, names := Names("x " + b + ".7 " + a)
	require.Equal(t, "x {}.7 {}", pattern)
	require.Equal(t, []string{b, a}, names)
	pattern, names = Names("x {1}.7 {2}")
	require.Equal(t, "x {}.7 {}", pattern)
	require.Equal(t, []string{"{1}", "{2}"}, names)
}
