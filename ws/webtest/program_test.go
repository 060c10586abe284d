package webtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/ws"
	"github.com/intermodal-go/intermodal/ws/js"
)

// find returns the path of the first of these programs that is installed.
func find(t *testing.T, how string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing := strings.Join(names, " or ") + " is not installed: " + how
	if os.Getenv("CI") != "" || os.Getenv("INTERMODAL_CI") != "" {
		require.FailNow(t, missing)
	}
	t.Skip(missing)
	return ""
}

// A program is one that start runs.
type program struct {
	stop  func()        // ends it and waits for that
	ended chan struct{} // closed when it has, perhaps by itself
}

// start runs a program until the test ends, or its stop is called.
func start(t *testing.T, dir string, argv ...string) *program {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := command(ctx, dir, argv...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	log, err := os.Create(filepath.Join(t.TempDir(), "output"))
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = log, log // a file: no goroutine waits for children that keep a pipe open
	require.NoError(t, cmd.Start())
	p := &program{ended: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(p.ended)
	}()
	p.stop = func() {
		cancel()
		<-p.ended
	}
	t.Cleanup(func() {
		p.stop()
		log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("%s said:\n%s", argv[0], b)
		}
	})
	return p
}

func command(ctx context.Context, dir string, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// node runs a scenario in Node, with the packages from npm beside it.
func node(t *testing.T, scenario string, o *ws.Options) *world {
	const how = "apt-get install nodejs npm, or see https://nodejs.org"
	bin, npm := find(t, how, "node"), find(t, how, "npm")
	w := newWorld(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := command(ctx, w.dir, npm, "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund").CombinedOutput()
	require.NoError(t, err, "npm ci: %s", out)
	version, err := command(ctx, w.dir, bin, "--version").Output()
	require.NoError(t, err)
	w.peer = "Node " + strings.TrimSpace(string(version))
	w.run(t, start(t, w.dir, bin, "node.mjs", scenario, w.url))
	return w
}

// chromium runs a scenario in a page that Chromium opens without a screen.
func chromium(t *testing.T, scenario string, o *ws.Options) *world {
	bin := find(t, "apt-get install chromium", "chromium", "chromium-browser", "google-chrome")
	w := newWorld(t, o)
	version, err := exec.CommandContext(t.Context(), bin, "--version").Output()
	require.NoError(t, err)
	w.peer = strings.Join(strings.Fields(string(version))[:2], " ")
	profile, err := os.MkdirTemp("", "chromium")
	require.NoError(t, err)
	t.Cleanup(func() { // its children write for a moment longer than it lives
		require.Eventually(t, func() bool { return os.RemoveAll(profile) == nil }, 10*time.Second, 10*time.Millisecond)
	})
	argv := []string{bin, "--headless=new", "--user-data-dir=" + profile, "--no-first-run", "--disable-gpu", "--log-level=3",
		"--disable-extensions", "--disable-sync", "--disable-background-networking", "--disable-component-update",
		"--disable-default-apps", "--disable-dev-shm-usage", "--no-proxy-server",
		"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"}
	if os.Geteuid() == 0 {
		argv = append(argv, "--no-sandbox") // Chromium has no sandbox for root
	}
	w.run(t, start(t, profile, append(argv, w.url+"/?scenario="+scenario)...))
	return w
}

// scenarios copies the scenarios and the client that they test to a folder of their own.
func scenarios(t *testing.T) string {
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS("scenario")))
	source, err := js.Files.ReadFile("intermodal.js")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "intermodal.mjs"), source, 0o666))
	return dir
}
