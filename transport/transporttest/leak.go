package transporttest

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Main runs the tests of a package and fails the run when goroutines are left behind, two seconds after the last test.
// Call it from TestMain:
//
//	func TestMain(m *testing.M) { transporttest.Main(m) }
func Main(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if left := leaked(2 * time.Second); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

// leaked returns the stacks of all goroutines but this one and those of the testing package, waiting for the others to
// end for at most wait.
func leaked(wait time.Duration) string {
	for end := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
		buf := make([]byte, 1<<20)
		var left []string
		for i, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if i > 0 && !strings.Contains(stack, "testing.tRunner(") && !strings.Contains(stack, "os/signal.") &&
				!strings.Contains(stack, "testing.(*F).Fuzz") && !strings.Contains(stack, "testing.runFuzz") {
				left = append(left, stack)
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			return strings.Join(left, "\n\n")
		}
	}
}
