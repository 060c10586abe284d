package amqptest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// ErrNotInstalled means that there is no RabbitMQ, or no Erlang, on this machine.
var ErrNotInstalled = errors.New("amqptest: RabbitMQ is not installed (apt-get install rabbitmq-server, or brew " +
	"install rabbitmq, or put an unpacked release's sbin folder on PATH)")

// Where packages put their programs. Debian's /usr/sbin/rabbitmq-server is none of them: it changes the user and uses
// the directories of the machine's own broker.
var (
	serverPlaces = []string{"/usr/lib/rabbitmq/bin", "/usr/lib/rabbitmq/lib/*/sbin", "/opt/homebrew/opt/rabbitmq/sbin",
		"/usr/local/opt/rabbitmq/sbin", "/home/linuxbrew/.linuxbrew/opt/rabbitmq/sbin", "/opt/rabbitmq*/sbin"}
	erlangPlaces = []string{"/usr/bin", "/usr/local/bin", "/opt/homebrew/bin", "/home/linuxbrew/.linuxbrew/bin",
		"/usr/lib/erlang/bin", "/usr/local/lib/erlang/bin"}
)

// installation is where the programs are.
type installation struct {
	server string // rabbitmq-server
	ctl    string // rabbitmqctl
	epmd   string
}

func find() (installation, error) {
	var in installation
	if in.server = os.Getenv("RABBITMQ_SERVER"); in.server == "" {
		in.server = lookFor("rabbitmq-server", serverPlaces)
	}
	if in.server == "" {
		return in, ErrNotInstalled
	}
	in.ctl = filepath.Join(filepath.Dir(in.server), "rabbitmqctl")
	for _, script := range []string{in.server, in.ctl} {
		if _, err := os.Stat(script); err != nil {
			return in, fmt.Errorf("%w: %w", ErrNotInstalled, err)
		}
	}
	if in.epmd = lookFor("epmd", erlangPlaces); in.epmd == "" {
		return in, fmt.Errorf("%w: there is no Erlang (epmd)", ErrNotInstalled)
	}
	return in, nil
}

// lookFor returns the program's path: what is on PATH, else the last match in places, which is the newest of several.
func lookFor(name string, places []string) string {
	if path, err := exec.LookPath(name); err == nil {
		// The scripts look for others beside them, so links must be resolved.
		if path, err = filepath.EvalSymlinks(path); err == nil && filepath.Base(path) == name {
			return path
		}
	}
	for _, place := range places {
		found, _ := filepath.Glob(filepath.Join(place, name))
		if len(found) > 0 {
			if path, err := filepath.EvalSymlinks(found[len(found)-1]); err == nil {
				return path
			}
		}
	}
	return ""
}
