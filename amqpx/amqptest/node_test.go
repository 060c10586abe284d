package amqptest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/transport/transporttest/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// TestNode kills a node and starts it again: what was confirmed is there, under the same address.
func TestNode(t *testing.T) {
	before := leak.Goroutines()
	node := amqptest.New(t, &amqptest.Options{Config: "consumer_timeout = 4321000"})
	require.Empty(t, leak.Since(before, 0), "a running node has no goroutine here")

	out, err := node.Ctl(t.Context(), "eval", "application:get_env(rabbit, consumer_timeout).")
	require.NoError(t, err)
	require.Equal(t, "{ok,4321000}", strings.TrimSpace(string(out)))

	publish(t, node.URL(), "before the kill")
	require.NoError(t, node.Kill())
	_, err = amqp.Dial(node.URL())
	require.Error(t, err)
	require.NoError(t, node.Kill(), "it may be down already")
	_, err = node.Ctl(t.Context(), "status")
	require.Error(t, err)

	require.NoError(t, node.Restart(t.Context()))
	require.Equal(t, "before the kill", get(t, node.URL()))
	publish(t, node.URL(), "before the orderly restart")
	require.NoError(t, node.Restart(t.Context()))
	require.Equal(t, "before the orderly restart", get(t, node.URL()))

	require.NoError(t, node.Stop())
	require.NoError(t, node.Stop())
	_, err = net.Dial("tcp", node.Addr())
	require.Error(t, err)
}

func TestStartReportsWhyNot(t *testing.T) {
	needsServer(t)
	_, err := amqptest.Start(t.Context(), &amqptest.Options{Config: "no_such_setting = 1"})
	require.ErrorContains(t, err, "no_such_setting", "the node's own words")

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = amqptest.Start(ctx, nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	t.Setenv("RABBITMQ_SERVER", filepath.Join(t.TempDir(), "rabbitmq-server"))
	_, err = amqptest.Start(t.Context(), nil)
	require.ErrorIs(t, err, amqptest.ErrNotInstalled)
	require.Eventually(t, func() bool { return len(descendants(os.Getpid())) == 0 }, 10*time.Second, 10*time.Millisecond)
}

// needsServer skips the test as New does, without waiting for a node.
func needsServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := amqptest.Start(ctx, nil)
	if errors.Is(err, amqptest.ErrNotInstalled) && os.Getenv("INTERMODAL_CI") != "1" {
		t.Skip(err)
	}
	require.ErrorIs(t, err, context.Canceled)
}

// TestNothingIsLeftBehind kills a test binary that has a node: the node and its files go with it.
func TestNothingIsLeftBehind(t *testing.T) {
	if os.Getenv("AMQPTEST_VICTIM") != "" {
		node, err := amqptest.Start(t.Context(), nil)
		fmt.Printf("started %v %v\n", node.Addr(), err)
		select {} // until it is killed
	}
	needsServer(t)
	for _, c := range []struct {
		name  string
		after string // text in the output
	}{
		{"starting", ""},
		{"running", "started "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tmp, err := os.MkdirTemp("/tmp", "left")
			require.NoError(t, err)
			defer os.RemoveAll(tmp)
			victim := exec.Command(os.Args[0], "-test.run=^TestNothingIsLeftBehind$")
			victim.Env = append(os.Environ(), "AMQPTEST_VICTIM=1", "TMPDIR="+tmp)
			out, err := victim.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, victim.Start())
			addr := ""
			var processes map[int]bool
			if c.after == "" {
				// The broker's first file is there, then its process: it is on its way.
				require.Eventually(t, func() bool {
					processes = descendants(victim.Process.Pid)
					return len(glob(t, tmp+"/*/output")) == 1 && (len(processes) > 3 || runtime.GOOS != "linux")
				}, 30*time.Second, time.Millisecond)
			} else {
				var line [200]byte
				n, err := io.ReadAtLeast(out, line[:], len(c.after)+1)
				require.NoError(t, err)
				var failure string
				fmt.Sscanf(string(line[:n]), "started %s %s", &addr, &failure)
				require.Equal(t, "<nil>", failure)
				processes = descendants(victim.Process.Pid)
			}
			if runtime.GOOS == "linux" { // elsewhere there is no /proc, and the files and the port must do
				require.Greater(t, len(processes), 3, "the port mapper, the broker and their watchers")
			}
			require.NoError(t, victim.Process.Kill())
			victim.Wait()
			require.Eventually(t, func() bool {
				for pid := range processes {
					if alive(pid) {
						return false
					}
				}
				return len(glob(t, tmp+"/*")) == 0
			}, 15*time.Second, 10*time.Millisecond, "processes or files are left")
			if addr != "" {
				_, err = net.Dial("tcp", addr)
				require.Error(t, err)
			}
			require.Never(t, func() bool { return len(glob(t, tmp+"/*")) > 0 }, 300*time.Millisecond, 50*time.Millisecond)
		})
	}
}

func glob(t *testing.T, pattern string) []string {
	found, err := filepath.Glob(pattern)
	require.NoError(t, err)
	return found
}

// descendants returns the processes that pid and its children have started and that live, by /proc.
func descendants(pid int) map[int]bool {
	parents := map[int]int{}
	entries, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, e := range entries {
		child, _ := strconv.Atoi(filepath.Base(filepath.Dir(e)))
		if state, parent := stat(child); state != "" && state != "Z" {
			parents[child] = parent
		}
	}
	found := map[int]bool{}
	for grown := true; grown; {
		grown = false
		for child, parent := range parents {
			if !found[child] && (parent == pid || found[parent]) {
				found[child], grown = true, true
			}
		}
	}
	return found
}

func alive(pid int) bool {
	state, _ := stat(pid)
	return state != "" && state != "Z"
}

// stat returns the state and the parent of a process (proc(5)).
func stat(pid int) (state string, parent int) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	parent, _ = strconv.Atoi(fields[1])
	return fields[0], parent
}

func publish(t *testing.T, url, text string) {
	c, err := amqp.Dial(url)
	require.NoError(t, err)
	defer c.Close()
	ch, err := c.Channel()
	require.NoError(t, err)
	_, err = ch.QueueDeclare("q", true, false, false, false, nil)
	require.NoError(t, err)
	require.NoError(t, ch.Confirm(false))
	confirm, err := ch.PublishWithDeferredConfirmWithContext(t.Context(), "", "q", false, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(text)})
	require.NoError(t, err)
	ok, err := confirm.WaitContext(t.Context())
	require.NoError(t, err)
	require.True(t, ok)
}

func get(t *testing.T, url string) string {
	c, err := amqp.Dial(url)
	require.NoError(t, err)
	defer c.Close()
	ch, err := c.Channel()
	require.NoError(t, err)
	d, ok, err := ch.Get("q", true)
	require.NoError(t, err)
	require.True(t, ok)
	return string(d.Body)
}
