package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/intermodal-go/intermodal/examples/documents/document"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr, routes)
	cancel()
	os.Exit(status)
}

// run is the program. It returns its exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, routes []route) int {
	flags := flag.NewFlagSet("documents", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: documents [-n documents] [-workers n] [file ...]")
		flags.PrintDefaults()
	}
	n := flags.Int("n", 200, "documents in each row; the files are taken in turn")
	workers := flags.Int("workers", 4, "documents under way at once")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case *n < 1 || *workers < 1:
		fmt.Fprintln(stderr, "documents: -n and -workers must be positive")
		return 2
	}
	status := 0
	fail := func(err error) {
		fmt.Fprintln(stderr, "documents:", err)
		status = 1
	}

	// Each document is processed once by a plain function call. One that is refused is named and left out.
	var requests []document.Request
	var responses []document.Response
	for _, load := range loaders(flags.Args()) {
		request, err := load()
		var response document.Response
		if err == nil {
			response, err = document.ProcessDocument(ctx, request)
		}
		if err != nil {
			fail(err)
			continue
		}
		requests, responses = append(requests, request), append(responses, response)
	}
	if len(requests) == 0 {
		fail(errors.New("there is nothing left to process"))
		return status
	}
	printDocuments(stdout, responses)

	work := make([]document.Request, max(*n, len(requests)))
	for i := range work {
		work[i] = requests[i%len(requests)]
	}
	rows, leftOut, err := compare(ctx, routes, work, *workers)
	printRows(stdout, rows)
	for _, line := range leftOut {
		fmt.Fprintf(stdout, "\n%s\n", line)
	}
	if err == nil {
		err = agree(rows)
	}
	if err != nil {
		fail(err)
		return status
	}
	fmt.Fprintf(stdout, "\nAll %d rows give the same answers.\n", len(rows))
	return status
}

// compare has work processed in each mode on each route, after a row for the plain function call. It has a line for each
// route that is left out.
func compare(ctx context.Context, routes []route, work []document.Request, workers int) (rows []row, leftOut []string, err error) {
	direct, err := measure(ctx, document.ProcessDocument, work, workers)
	if err != nil {
		return nil, nil, err
	}
	direct.route, direct.mode = "none", "function call"
	rows = append(rows, direct)
	for _, route := range routes {
		e, err := route.dial(ctx)
		var without missing
		if errors.As(err, &without) {
			leftOut = append(leftOut, fmt.Sprintf("%s is left out: %s.", route.name, without))
			continue
		}
		if err != nil {
			return rows, leftOut, fmt.Errorf("%s: %w", route.name, err)
		}
		for _, mode := range route.modes {
			do, stop, err := mode.open(ctx, e, workers)
			var r row
			if err == nil {
				r, err = measure(ctx, do, work, workers)
				err = cmp.Or(err, stop(context.WithoutCancel(ctx))) // an interrupt is no reason to leave work behind
			}
			if err != nil {
				e.close()
				return rows, leftOut, fmt.Errorf("%s, %s: %w", route.name, mode.name, err)
			}
			r.route, r.mode = route.name, mode.name
			rows = append(rows, r)
		}
		if err := e.close(); err != nil {
			return rows, leftOut, fmt.Errorf("%s: %w", route.name, err)
		}
	}
	return rows, leftOut, nil
}

// A row is one way of having documents processed, measured.
type row struct {
	route, mode string
	latencies   []time.Duration // in order of size
	words       int
	links       int
	digest      string // of all responses in order
}

// perDocument bounds the wait for one document.
const perDocument = 30 * time.Second

// measure has work processed, by workers at once. The first error ends it.
func measure(ctx context.Context, do process, work []document.Request, workers int) (row, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	responses := make([]document.Response, len(work))
	r := row{latencies: make([]time.Duration, len(work))}
	next := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				ctx, stop := context.WithTimeout(ctx, perDocument)
				start := time.Now()
				var err error
				if responses[i], err = do(ctx, work[i]); err != nil {
					cancel(fmt.Errorf("%s: %w", work[i].Name, err))
				}
				r.latencies[i] = time.Since(start)
				stop()
			}
		})
	}
	for i := range work {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return r, err
	}
	slices.Sort(r.latencies)
	h := sha256.New()
	for _, response := range responses {
		r.words += response.Words
		r.links += len(response.Links)
		if err := json.NewEncoder(h).Encode(response); err != nil {
			return r, err
		}
	}
	r.digest = fmt.Sprintf("%x", h.Sum(nil)[:4])
	return r, nil
}

// agree reports the first row that has other results than the first.
func agree(rows []row) error {
	want := rows[0]
	for _, r := range rows[1:] {
		if r.words != want.words || r.links != want.links || r.digest != want.digest {
			return fmt.Errorf("%s, %s: the answers differ from those of the plain function call", r.route, r.mode)
		}
	}
	return nil
}

func printRows(w io.Writer, rows []row) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "transport\tmode\tdocuments\tp50\tp99\twords\tlinks\tdigest\t")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%d\t%d\t%s\t\n", r.route, r.mode, len(r.latencies),
			percentile(r.latencies, 50), percentile(r.latencies, 99), r.words, r.links, r.digest)
	}
	t.Flush()
}

// percentile is the smallest latency that p percent do not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[(len(sorted)*p+99)/100-1].Round(time.Microsecond)
}

func printDocuments(w io.Writer, responses []document.Response) {
	for _, r := range responses {
		terms := make([]string, 0, 5)
		for _, t := range r.Terms[:min(5, len(r.Terms))] {
			terms = append(terms, fmt.Sprintf("%s %d", t.Term, t.Count))
		}
		fmt.Fprintf(w, "%s: %s\n  %d words, %d lines, %s to read, %d links; %s\n", r.Name, r.Title, r.Words, r.Lines,
			time.Duration(r.ReadingSeconds)*time.Second, len(r.Links), strings.Join(terms, ", "))
	}
	fmt.Fprintln(w)
}

//go:embed testdata/*.md testdata/*.txt
var embedded embed.FS

// loaders return one function for each file, or for each document that comes with the program.
func loaders(names []string) (all []func() (document.Request, error)) {
	if len(names) > 0 {
		for _, name := range names {
			all = append(all, func() (document.Request, error) {
				f, err := os.Open(name)
				return read(name, f, err)
			})
		}
		return all
	}
	entries, _ := embedded.ReadDir("testdata") // it cannot fail: the pattern above has to match
	for _, e := range entries {
		all = append(all, func() (document.Request, error) {
			f, err := embedded.Open(path.Join("testdata", e.Name()))
			return read(e.Name(), f, err)
		})
	}
	return all
}

// read reads no more than it takes to see that a file is too large.
func read(name string, f io.ReadCloser, err error) (document.Request, error) {
	if err != nil {
		return document.Request{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, document.MaxBytes+1))
	return document.Request{Name: name, Text: text}, cmp.Or(err, f.Close())
}
