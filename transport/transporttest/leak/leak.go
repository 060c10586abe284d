// Package leak fails a test run that leaves goroutines behind.
package leak

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// Main runs the tests of a package and fails the run when goroutines are left behind, two seconds after the last test.
// Call it from TestMain:
//
//	func TestMain(m *testing.M) { leak.Main(m) }
func Main(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if left := Since(nil, 2*time.Second); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

// Since returns the stacks of the goroutines that are not in before, waiting for them to end for at most wait. It is ""
// if there are none.
func Since(before map[string]string, wait time.Duration) string {
	pause := time.Millisecond
	for end := time.Now().Add(wait); ; time.Sleep(pause) {
		pause = min(2*pause, 100*time.Millisecond) // looking is not cheap
		left := Goroutines()
		maps.DeleteFunc(left, func(id, _ string) bool { _, old := before[id]; return old })
		if len(left) == 0 || time.Now().After(end) {
			return strings.Join(slices.Sorted(maps.Values(left)), "\n\n")
		}
	}
}

// Goroutines returns the stacks, by number, of all goroutines but this one and those of the testing package. Within a
// synctest bubble it looks at the bubble only.
func Goroutines() map[string]string {
	all := make(map[string]string)
	bubble := ""
	for i, stack := range strings.Split(Stacks(), "\n\n") {
		head, _, _ := strings.Cut(stack, "\n")
		if i == 0 { // this one
			if at := strings.LastIndex(head, "synctest bubble "); at >= 0 {
				bubble = head[at:]
			}
			continue
		}
		if !strings.HasSuffix(head, bubble) || strings.Contains(stack, "testing.tRunner(") ||
			strings.Contains(stack, "testing/synctest.testingSynctestTest(") || strings.Contains(stack, "os/signal.") ||
			strings.Contains(stack, "testing.(*F).Fuzz") || strings.Contains(stack, "testing.runFuzz") {
			continue
		}
		id, _, _ := strings.Cut(strings.TrimPrefix(head, "goroutine "), " ")
		all[id] = stack
	}
	return all
}

// Stacks returns the stacks of all goroutines, this one first.
func Stacks() string {
	for buf := make([]byte, 1<<20); ; buf = make([]byte, 2*len(buf)) {
		if n := runtime.Stack(buf, true); n < len(buf) {
			return string(buf[:n])
		}
	}
}
