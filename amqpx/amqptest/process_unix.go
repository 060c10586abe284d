//go:build unix

package amqptest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// watched starts a program and, beside it, a watcher that kills the program when the pipe at descriptor 3 ends, and
// then runs the command in $0 if there is one. The program keeps the shell's process number, which is its group's as
// well.
const watched = `(cat <&3 >/dev/null; kill -9 $$; eval "$0") >/dev/null 2>&1 & exec "$@" 3<&-`

// A process is a program that does not outlive this one, and no goroutine waits for it.
type process struct {
	pid  int
	pipe *os.File // the watcher reads from its other end
	done bool     // it has ended and was waited for
}

// run starts a program in a process group of its own. Its output goes to log. When this process ends before stop or
// kill is called, the watcher kills the program and runs the shell command after.
func run(dir string, env []string, log *os.File, after string, args ...string) (*process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("/bin/sh", append([]string{"-c", watched, after}, args...)...)
	cmd.Dir, cmd.Env = dir, env
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{r}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C at the terminal is not for it
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, err
	}
	p := &process{pid: cmd.Process.Pid, pipe: w}
	return p, cmd.Process.Release() // p waits by itself, since it must be able to look without waiting
}

// ended looks whether the program has ended, and takes care of what it leaves if so.
func (p *process) ended() bool {
	if p.done {
		return true
	}
	pid, err := syscall.Wait4(p.pid, nil, syscall.WNOHANG, nil)
	for err == syscall.EINTR {
		pid, err = syscall.Wait4(p.pid, nil, syscall.WNOHANG, nil)
	}
	if err == nil && pid == 0 {
		return false
	}
	p.done = true
	syscall.Kill(-p.pid, syscall.SIGKILL) // the watcher and what the program started: they keep the group's number taken
	p.pipe.Close()
	return true
}

// kill ends the program by SIGKILL, with its whole group, and waits for it.
func (p *process) kill() error {
	if !p.done {
		syscall.Kill(-p.pid, syscall.SIGKILL)
	}
	for range 1000 {
		if p.ended() {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("process %d does not end", p.pid)
}

// stop ends the program by SIGTERM, or by SIGKILL when that takes longer than patience.
func (p *process) stop(patience time.Duration) error {
	if !p.done {
		syscall.Kill(p.pid, syscall.SIGTERM)
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if p.ended() {
			return nil
		}
	}
	return p.kill()
}

// output runs a program to its end, or to ctx's, and returns what it wrote. It is watched as well.
func output(ctx context.Context, dir string, env []string, args ...string) ([]byte, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	defer w.Close()
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", watched, ""}, args...)...)
	cmd.Dir, cmd.Env = dir, env
	cmd.ExtraFiles = []*os.File{r}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if cmd.Process != nil {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the watcher, which keeps the group's number taken
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out, err
}
