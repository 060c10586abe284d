package main

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/intermodal-go/intermodal/examples/jobs/harbour"
	"github.com/intermodal-go/intermodal/examples/jobs/jobs"
	"github.com/intermodal-go/intermodal/transport"
)

// The contracts: what those who enqueue and those who work have to agree on.
var (
	queue = jobs.Queue{Name: "harbour", MaxAttempts: 3}

	thumbnail = jobs.Func[harbour.Picture, harbour.Thumbnail]{Name: "pictures.thumbnail"}
	weigh     = jobs.Func[string, harbour.Cargo]{Name: "manifests.weigh"}
	checksum  = jobs.Func[string, string]{Name: "files.checksum"}
	pack      = jobs.Func[string, harbour.Packed]{Name: "files.pack"}
	words     = jobs.Func[string, int]{Name: "files.words"}
	fetch     = jobs.Func[string, int]{Name: "pages.fetch"}
)

// The waits of the story.
const (
	soon  = 300 * time.Millisecond // a delay
	never = 600 * time.Millisecond // the delay of the job that will be canceled
)

// backoff is how long a worker waits between attempts.
var backoff = transport.Backoff{Min: 50 * time.Millisecond, Jitter: -1}

// version1 is what the first worker knows.
func version1(files fs.FS) *jobs.Registry {
	r := &jobs.Registry{}
	jobs.Register(r, thumbnail, on(files, harbour.MakeThumbnail))
	jobs.Register(r, checksum, on(files, harbour.Checksum))
	jobs.Register(r, pack, on(files, harbour.Pack))
	jobs.Register(r, fetch, coded(harbour.Fetch))
	jobs.Register(r, weigh, coded(func(ctx context.Context, name string) (harbour.Cargo, error) {
		return harbour.Weigh(files, name, quarters(ctx))
	}))
	return r
}

// version2 knows one function more.
func version2(files fs.FS) *jobs.Registry {
	r := version1(files)
	jobs.Register(r, words, on(files, harbour.Words))
	return r
}

// quarters tells those who follow the job when a further quarter of the work is done.
func quarters(ctx context.Context) func(done, total int) error {
	run := jobs.From(ctx)
	return func(done, total int) error {
		if 4*done/total == 4*(done-1)/total {
			return nil
		}
		return run.Progress(ctx, done, total)
	}
}

// on makes a job of a function on files.
func on[In, Out any](files fs.FS, f func(fs.FS, In) (Out, error)) func(context.Context, In) (Out, error) {
	return coded(func(_ context.Context, in In) (Out, error) { return f(files, in) })
}

// coded gives the errors of the business the Code and the text that cross. The Code says whether it helps to try again.
func coded[In, Out any](f func(context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	return func(ctx context.Context, in In) (Out, error) {
		out, err := f(ctx, in)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = transport.Wrap(err, transport.CodeUnavailable, "the file is not here yet")
		case errors.Is(err, harbour.ErrBusy):
			err = transport.Wrap(err, transport.CodeUnavailable, "%v", harbour.ErrBusy)
		case errors.Is(err, harbour.ErrPicture):
			err = transport.Wrap(err, transport.CodeInvalidArgument, "%v", harbour.ErrPicture)
		case errors.Is(err, harbour.ErrManifest):
			err = transport.Wrap(err, transport.CodeInvalidArgument, "%v", harbour.ErrManifest)
		}
		return out, err
	}
}
