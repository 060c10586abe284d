package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/intermodal-go/intermodal/examples/jobs/harbour"
	"github.com/intermodal-go/intermodal/examples/jobs/jobs"
	"github.com/intermodal-go/intermodal/transport"
)

// story is what the program tells. After the first error it goes silent and keeps that.
type story struct {
	carrier
	out    io.Writer
	dir    string // where the workers look for files
	files  *shelf // the same
	client *jobs.Client
	worker *transport.Service
	err    error
}

// tell enqueues, works, finds out what is wrong, mends it and tries again. Each step is checked.
func (s *story) tell(ctx context.Context) error {
	s.files = &shelf{FS: os.DirFS(s.dir)}
	s.try(deliver(s.dir, "harbour.jpg", "manifest.csv", "pilot.txt"))
	page, stop, err := overloaded(2, "pilot.txt")
	if err != nil {
		return err
	}
	s.connect(ctx)

	s.say("\nEnqueued, before there is a worker:")
	picture := harbour.Picture{File: "harbour.jpg", Width: 160}
	start := time.Now()
	small := submit(ctx, s, thumbnail, picture, "harbour.jpg, with a key and a high priority",
		jobs.Once("harbour-160"), jobs.Priority(9))
	again := submit(ctx, s, thumbnail, picture, "the same again, with the same key", jobs.Once("harbour-160"))
	later := submit(ctx, s, pack, "pilot.txt", "in 300 ms", jobs.After(soon))
	unwanted := submit(ctx, s, pack, "manifest.csv", "in 600 ms, but it will be canceled", jobs.After(never))
	cargo := submit(ctx, s, weigh, "manifest.csv", "a manifest, which tells how far it is")
	notes := submit(ctx, s, fetch, page, "from a server that is overloaded the first two times")
	missing := submit(ctx, s, checksum, "weather.txt", "of a file that is not here yet")
	unknown := submit(ctx, s, words, "pilot.txt", "with a function that no worker knows yet")

	s.say("\nA worker starts. What becomes of the jobs:")
	s.work(ctx, version1(s.files))
	s.do(func() error { return unwanted.Cancel(ctx) })
	succeeds(ctx, s, small, 1, direct(harbour.MakeThumbnail(s.files.FS, picture)), func(t harbour.Thumbnail) string {
		return fmt.Sprintf("%dx%d pixels, %d bytes", t.Width, t.Height, len(t.PNG))
	})
	succeeds(ctx, s, again, 1, direct(harbour.MakeThumbnail(s.files.FS, picture)), func(harbour.Thumbnail) string {
		return "the same one; it was made once"
	})
	s.check(s.files.pictures.Load() == 1, "the picture was opened %d times", s.files.pictures.Load())
	succeeds(ctx, s, cargo, 1, direct(harbour.Weigh(s.files, "manifest.csv", quarters(ctx))), func(c harbour.Cargo) string {
		return fmt.Sprintf("%d containers, %d kg, the heaviest is %s", c.Containers, c.Kilograms, c.Heaviest)
	})
	succeeds(ctx, s, notes, 3, direct(harbour.Words(s.files, "pilot.txt")), number)
	succeeds(ctx, s, later, 1, direct(harbour.Pack(s.files, "pilot.txt")), func(p harbour.Packed) string {
		return fmt.Sprintf("%d bytes became %d", p.Before, p.After)
	})
	s.check(time.Since(start) >= soon, "it came before its time")
	fails(ctx, s, unwanted, transport.CodeCanceled, 0)
	fails(ctx, s, missing, transport.CodeUnavailable, queue.MaxAttempts)
	fails(ctx, s, unknown, transport.CodeUnimplemented, 1)

	s.say("\nDead letters:")
	s.deadLetters(ctx, 2)

	s.say("\nThe cause is mended: weather.txt arrives, and a worker that knows files.words takes over. Redriven:")
	s.try(deliver(s.dir, "weather.txt"))
	s.stopWorker(ctx)
	s.work(ctx, version2(s.files))
	missing, unknown = follow(s, checksum, missing), follow(s, words, unknown)
	s.redrive(ctx, 2)
	succeeds(ctx, s, missing, 1, direct(harbour.Checksum(s.files, "weather.txt")), func(sum string) string {
		return sum[:16] + "…"
	})
	succeeds(ctx, s, unknown, 1, direct(harbour.Words(s.files, "pilot.txt")), number)

	s.say("\nDead letters:")
	s.deadLetters(ctx, 0)

	s.say("\nThe same functions without a queue, called and waited for:")
	s.call(ctx)
	s.end()
	s.try(stop())
	return s.err
}

// patience is how long to wait for a dead letter that must come.
const patience = 10 * time.Second

// connect connects who submits.
func (s *story) connect(ctx context.Context) {
	s.do(func() (err error) {
		s.client, err = jobs.Connect(ctx, s, queue)
		return err
	})
}

// work starts a worker.
func (s *story) work(ctx context.Context, r *jobs.Registry) {
	s.do(func() (err error) {
		s.worker, err = jobs.Work(ctx, s, queue, r, &jobs.WorkOptions{Backoff: backoff})
		return err
	})
}

func (s *story) stopWorker(ctx context.Context) {
	s.do(func() error {
		err := s.worker.Shutdown(ctx)
		s.worker = nil
		return err
	})
}

// end ends what runs, also after an error.
func (s *story) end() {
	ctx, cancel := context.WithTimeout(context.Background(), atMost)
	defer cancel()
	if s.worker != nil {
		s.err = errors.Join(s.err, s.worker.Shutdown(ctx))
	}
	if s.client != nil {
		s.err = errors.Join(s.err, s.client.Shutdown(ctx))
	}
}

// deadLetters lists the dead letters, of which there must be n.
func (s *story) deadLetters(ctx context.Context, n int) {
	s.do(func() error {
		idle := patience
		if n == 0 {
			idle = 300 * time.Millisecond // long enough for one that should not be there
		}
		dead, err := jobs.DeadLetters(ctx, s, queue, max(n, 1), idle)
		for _, u := range dead {
			s.say("  %-20s %s, %v", u.Func, attempts(u.Attempt), u.Err())
		}
		if len(dead) == 0 {
			s.say("  none")
		}
		s.check(len(dead) == n, "there are %d dead letters, not %d", len(dead), n)
		return err
	})
}

// redrive puts n dead letters back into the queue.
func (s *story) redrive(ctx context.Context, n int) {
	s.do(func() error {
		redriven, err := jobs.Redrive(ctx, s, queue, n, patience)
		s.check(err != nil || redriven == n, "%d jobs were redriven, not %d", redriven, n)
		return err
	})
}

// call offers the functions to callers, and calls one.
func (s *story) call(ctx context.Context) {
	s.do(func() error {
		bindings, err := version2(s.files).Bindings()
		if err != nil {
			return err
		}
		service, err := transport.Start(ctx, s, bindings...)
		if err != nil {
			return err
		}
		n, err := words.Call(ctx, s, "weather.txt")
		s.say("  %-20s %s", words.Name, number(n))
		return errors.Join(err, service.Shutdown(ctx))
	})
}

// submit submits a job.
func submit[In, Out any](ctx context.Context, s *story, f jobs.Func[In, Out], in In, about string, opts ...jobs.Option) (
	j *jobs.Job[Out]) {
	s.do(func() (err error) {
		j, err = f.Submit(ctx, s.client, in, opts...)
		s.say("  %-20s %s", f.Name, about)
		return err
	})
	return j
}

// follow follows a job again.
func follow[In, Out any](s *story, f jobs.Func[In, Out], dead *jobs.Job[Out]) (j *jobs.Job[Out]) {
	s.do(func() (err error) {
		j, err = f.Follow(s.client, dead.ID)
		return err
	})
	return j
}

// succeeds waits for a job that must succeed at this attempt, with what a direct call of the function returns.
func succeeds[Out any](ctx context.Context, s *story, j *jobs.Job[Out], attempt int, want expected[Out],
	show func(Out) string) {
	s.do(func() error {
		var before []string
		for u, err := range j.Updates(ctx) {
			switch {
			case err != nil:
				return err
			case u.State == jobs.Progress:
				before = append(before, fmt.Sprintf("%d%%", 100*u.Done/u.Total))
			case u.State == jobs.Failed:
				before = append(before, fmt.Sprintf("attempt %d: %v;", u.Attempt, u.Err()))
			}
		}
		out, err := j.Wait(ctx)
		if err := errors.Join(err, want.err); err != nil {
			return err
		}
		last := j.Last()
		if !reflect.DeepEqual(out, want.out) {
			return fmt.Errorf("%s has another result than a direct call", last.Func)
		}
		before = append(before, fmt.Sprintf("attempt %d: %s", last.Attempt, show(out)))
		s.say("  %-20s %s", last.Func, strings.Join(before, " "))
		s.check(last.Attempt == attempt, "%s succeeded at attempt %d, not %d", last.Func, last.Attempt, attempt)
		return nil
	})
}

// fails waits for a job that must end without a result at this attempt, for this reason.
func fails[Out any](ctx context.Context, s *story, j *jobs.Job[Out], code transport.Code, attempt int) {
	s.do(func() error {
		_, err := j.Wait(ctx)
		last := j.Last()
		s.say("  %-20s %s after %s: %v", last.Func, last.State, attempts(last.Attempt), err)
		s.check(transport.CodeOf(err) == code && last.Attempt == attempt, "%s ended in another way", last.Func)
		return ctx.Err()
	})
}

// expected is what a function returns when it is called directly.
type expected[Out any] struct {
	out Out
	err error
}

func direct[Out any](out Out, err error) expected[Out] { return expected[Out]{out, err} }

func number(words int) string { return fmt.Sprintf("%d words", words) }

func attempts(n int) string {
	if n == 1 {
		return "1 attempt"
	}
	return fmt.Sprintf("%d attempts", n)
}

// do does the next step, unless one before has failed.
func (s *story) do(step func() error) {
	if s.err == nil {
		s.try(step())
	}
}

func (s *story) try(err error) {
	if s.err == nil {
		s.err = err
	}
}

func (s *story) check(ok bool, format string, args ...any) {
	if !ok {
		s.try(fmt.Errorf(format, args...))
	}
}

func (s *story) say(format string, args ...any) {
	if s.err == nil {
		fmt.Fprintf(s.out, format+"\n", args...)
	}
}
