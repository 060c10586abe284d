package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	status := run(ctx, os.Getenv("AMQP_URL"), os.Stdout, os.Stderr)
	cancel()
	os.Exit(status)
}

// atMost bounds the story. It takes about two seconds.
const atMost = time.Minute

// run is the program. It returns its exit status.
func run(ctx context.Context, url string, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	if err := play(ctx, url, stdout); err != nil {
		fmt.Fprintln(stderr, "jobs:", err)
		return 1
	}
	return 0
}

// play tells the story on the transport that url names.
func play(ctx context.Context, url string, stdout io.Writer) error {
	dir, err := os.MkdirTemp("", "jobs")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := open(ctx, url)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s\n", c.name)
	s := &story{out: stdout, carrier: c, dir: dir}
	if err := errors.Join(s.tell(ctx), c.close()); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "\nAll of it is as it should be.")
	return nil
}
