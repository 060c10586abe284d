package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/examples/documents/document"
	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/transporttest/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func runProgram(t *testing.T, routes []route, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, &out, &errs, routes)
	return status, out.String(), errs.String()
}

// table returns the fields of the table's rows.
func table(t *testing.T, stdout string) (rows [][]string) {
	t.Helper()
	_, body, ok := strings.Cut(stdout, "digest\n")
	require.True(t, ok, stdout)
	body, _, _ = strings.Cut(body, "\n\n")
	for line := range strings.Lines(body) {
		rows = append(rows, strings.Fields(line))
	}
	return rows
}

// wantRows names the rows of the table.
func wantRows() []string {
	rows := []string{"none function call"}
	for _, r := range routes {
		if r.name == "RabbitMQ" && os.Getenv("AMQP_URL") == "" {
			continue
		}
		for _, m := range r.modes {
			rows = append(rows, r.name+" "+m.name)
		}
	}
	return rows
}

func TestAllRowsAgree(t *testing.T) {
	t.Setenv("AMQP_URL", amqptest.URL(t))
	stdout := requireAgreement(t)
	require.Contains(t, stdout, "  RabbitMQ")
	require.NotContains(t, stdout, "left out")
}

func TestWithoutABroker(t *testing.T) {
	t.Setenv("AMQP_URL", "")
	stdout := requireAgreement(t)
	require.Contains(t, stdout,
		"\n\nRabbitMQ is left out: AMQP_URL has no address of a broker, such as amqp://guest:guest@127.0.0.1:5672/.\n\nAll ")
}

func TestBrokerThatDoesNotAnswer(t *testing.T) {
	t.Setenv("AMQP_URL", "amqp://guest:swordfish@127.0.0.1:1/")
	status, stdout, stderr := runProgram(t, routes[len(routes)-1:], "-n", "6")
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "documents: RabbitMQ: unavailable: ")
	require.NotContains(t, stdout+stderr, "swordfish")
}

// requireAgreement runs the program and returns what it prints.
func requireAgreement(t *testing.T) string {
	t.Helper()
	status, stdout, stderr := runProgram(t, routes, "-n", "30")
	require.Empty(t, stderr)
	require.Zero(t, status)
	rows := table(t, stdout)
	require.Len(t, rows, len(wantRows()))
	for i, row := range rows {
		tail := row[len(row)-6:] // documents, p50, p99, words, links, digest
		require.Equal(t, "30", tail[0])
		require.Equal(t, "24555", tail[3], "five times the words of the six documents")
		require.Equal(t, "115", tail[4])
		require.Equal(t, rows[0][len(rows[0])-1], tail[5])
		require.Equal(t, wantRows()[i], strings.Join(row[:len(row)-6], " "))
	}
	require.Contains(t, stdout, "containers.md: The box that made the world smaller\n  513 words, 62 lines, 2m10s to read, 9 links; box 11,")
	require.Contains(t, stdout, fmt.Sprintf("All %d rows give the same answers.", len(rows)))
	return stdout
}

func TestOwnFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	good := file("good.md", "# Good day\n\nThree [more words](https://example.org).\n")
	picture := file("picture.txt", "\x89PNG\r\n\x1a\n")
	huge := file("huge.txt", strings.Repeat("a", document.MaxBytes+1))
	empty := file("empty.md", "")
	missing := filepath.Join(dir, "missing.txt")
	better := file("better.txt", "Better day\n")

	status, stdout, stderr := runProgram(t, routes, "-n", "4", missing, good, picture, huge, empty, dir, better)
	require.Equal(t, 1, status)
	require.Len(t, strings.Split(strings.TrimSpace(stderr), "\n"), 5, stderr)
	for _, line := range []string{
		fmt.Sprintf("documents: open %s: no such file or directory\n", missing),
		fmt.Sprintf("documents: %q: the document is not UTF-8 text\n", picture),
		fmt.Sprintf("documents: %q: the document has more than 524288 bytes\n", huge),
		fmt.Sprintf("documents: %q: the document is empty\n", empty),
		fmt.Sprintf("documents: read %s: is a directory\n", dir),
	} {
		require.Contains(t, stderr, line)
	}
	require.Contains(t, stdout, good+": Good day\n  5 words, 3 lines, 2s to read, 1 links")
	require.Contains(t, stdout, better+": Better day\n  2 words, 1 lines")
	for _, row := range table(t, stdout) {
		require.Equal(t, "14", row[len(row)-3], "the others go on: twice five words and two")
	}

	status, stdout, _ = runProgram(t, routes, "-n", "1", good, better)
	require.Zero(t, status)
	require.Equal(t, "2", table(t, stdout)[0][3], "each file is processed at least once")

	status, stdout, stderr = runProgram(t, routes, missing)
	require.Equal(t, 1, status)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "documents: there is nothing left to process\n")
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-n", "0"}, {"-workers", "-1"}, {"-n", "many"}, {"-nonsense"}} {
		status, stdout, stderr := runProgram(t, nil, args...)
		require.Equal(t, 2, status)
		require.Empty(t, stdout)
		require.NotEmpty(t, stderr)
	}
	status, _, stderr := runProgram(t, nil, "-h")
	require.Zero(t, status)
	require.Contains(t, stderr, "usage: documents")
}

// tampered is a client to which replies and results come with one word too many.
type tampered struct{ transport.Transport }

func (c tampered) Call(ctx context.Context, m *transport.Message) (*transport.Message, error) {
	reply, err := c.Transport.Call(ctx, m)
	if err != nil {
		return nil, err
	}
	reply = reply.Clone()
	reply.Body = bytes.Replace(reply.Body, []byte(`"words":`), []byte(`"words":1`), 1)
	return reply, nil
}

func TestRowsThatDifferFail(t *testing.T) {
	status, stdout, stderr := runProgram(t, []route{{"tampered", func(ctx context.Context) (ends, error) {
		e, err := memory(ctx)
		e.client = tampered{e.client}
		return e, err
	}, modes}}, "-n", "6")
	require.Equal(t, 1, status)
	require.Equal(t, "documents: tampered, call: the answers differ from those of the plain function call\n", stderr)
	require.Len(t, table(t, stdout), 4, "the rows are shown all the same")
	require.NotContains(t, stdout, "same answers")
}

func TestRouteThatFails(t *testing.T) {
	status, stdout, stderr := runProgram(t, []route{{"nowhere", func(context.Context) (ends, error) {
		return ends{}, errors.New("there is no way")
	}, modes}}, "-n", "6")
	require.Equal(t, 1, status)
	require.Equal(t, "documents: nowhere: there is no way\n", stderr)
	require.Len(t, table(t, stdout), 1)
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	status := run(ctx, []string{"-n", "10"}, &out, &errs, []route{{"interrupted", func(ctx context.Context) (ends, error) {
		cancel()
		return memory(ctx)
	}, modes}})
	require.Equal(t, 1, status)
	require.Regexp(t, `^documents: interrupted, call: .*context canceled\n$`, errs.String())
}

// eachMode runs f for each mode on each route.
func eachMode(t *testing.T, f func(t *testing.T, do process)) {
	for _, route := range routes {
		for _, mode := range route.modes {
			t.Run(route.name+"/"+mode.name, func(t *testing.T) {
				if route.name == "RabbitMQ" {
					t.Setenv("AMQP_URL", amqptest.URL(t))
				}
				e, err := route.dial(t.Context())
				require.NoError(t, err)
				do, stop, err := mode.open(t.Context(), e, 2)
				require.NoError(t, err)
				f(t, do)
				require.NoError(t, stop(t.Context()))
				require.NoError(t, e.close())
			})
		}
	}
}

// The sender learns in every mode why a document was refused, and that it need not be sent again.
func TestRefusalsReachTheSender(t *testing.T) {
	eachMode(t, func(t *testing.T, do process) {
		for refusal, text := range map[error]string{
			document.ErrEmpty:    "",
			document.ErrNotText:  "caf\xe9",
			document.ErrTooLarge: strings.Repeat("a", document.MaxBytes+1),
		} {
			_, err := do(t.Context(), document.Request{Name: "private/path.txt", Text: []byte(text)})
			require.ErrorIs(t, err, transport.CodeInvalidArgument)
			require.False(t, transport.Retryable(err))
			require.ErrorContains(t, err, refusal.Error())
			require.NotContains(t, err.Error(), "private", "only the public text crosses")
		}
		r, err := do(t.Context(), document.Request{Name: "a.txt", Text: []byte("One more.")})
		require.NoError(t, err)
		require.Equal(t, 2, r.Words)
	})
}

func TestLargestDocumentFits(t *testing.T) {
	request := document.Request{Name: "a.txt", Text: bytes.Repeat([]byte("word "), document.MaxBytes/5)}
	want, err := document.ProcessDocument(t.Context(), request)
	require.NoError(t, err)
	eachMode(t, func(t *testing.T, do process) {
		got, err := do(t.Context(), request)
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

// flaky loses the first result on the way out.
type flaky struct {
	transport.Transport
	results atomic.Int32
}

func (f *flaky) Publish(ctx context.Context, m *transport.Message) error {
	if m.Topic == Processed.Topic && f.results.Add(1) == 1 {
		return transport.Errorf(transport.CodeUnavailable, "not now")
	}
	return f.Transport.Publish(ctx, m)
}

// twice sends every result twice, as a worker does that crashes after the first.
type twice struct{ transport.Transport }

func (p twice) Publish(ctx context.Context, m *transport.Message) error {
	if m.Topic == Processed.Topic {
		if err := p.Transport.Publish(ctx, m); err != nil {
			return err
		}
	}
	return p.Transport.Publish(ctx, m)
}

func TestJobsSurviveLossAndRepetition(t *testing.T) {
	for _, mode := range modes[1:] {
		t.Run(mode.name, func(t *testing.T) {
			e, err := memory(t.Context())
			require.NoError(t, err)
			lossy := &flaky{Transport: twice{e.service}}
			do, stop, err := mode.open(t.Context(), ends{service: lossy, client: e.client, close: e.close}, 2)
			require.NoError(t, err)
			for range 3 {
				r, err := do(t.Context(), document.Request{Name: "a.txt", Text: []byte("One more.")})
				require.NoError(t, err)
				require.Equal(t, 2, r.Words)
			}
			require.EqualValues(t, 4, lossy.results.Load(), "three, and one that was tried again")
			require.NoError(t, stop(t.Context()))
			require.NoError(t, e.close())
		})
	}
}

// TestSoak processes 5000 documents in each row with INTERMODAL_LONG=1, else 20.
func TestSoak(t *testing.T) {
	n := "20"
	if os.Getenv("INTERMODAL_LONG") == "1" {
		n = "5000"
	}
	for _, workers := range []string{"1", "16", "200"} {
		status, stdout, stderr := runProgram(t, routes, "-n", n, "-workers", workers)
		require.Zero(t, status, stderr)
		t.Log(stdout)
	}
}

func TestBuiltProgram(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "documents.exe")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.CommandContext(t.Context(), binary, "-n", "6").Output()
	require.NoError(t, err)
	require.Len(t, table(t, string(out)), len(wantRows()))

	var status *exec.ExitError
	_, err = exec.CommandContext(t.Context(), binary, "no such file", "doc.go").Output()
	require.ErrorAs(t, err, &status)
	require.Equal(t, 1, status.ExitCode())
	require.Equal(t, "documents: open no such file: no such file or directory\n", string(status.Stderr))
}
