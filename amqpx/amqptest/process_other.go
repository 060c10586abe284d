//go:build !unix

package amqptest

import (
	"context"
	"errors"
	"os"
	"time"
)

// A process needs process groups and a shell.
type process struct{}

func run(string, []string, *os.File, string, ...string) (*process, error) {
	return nil, errors.ErrUnsupported
}

func output(context.Context, string, []string, ...string) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

func (*process) ended() bool              { return true }
func (*process) kill() error              { return nil }
func (*process) stop(time.Duration) error { return nil }
