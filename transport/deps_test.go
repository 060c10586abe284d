package transport_test

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const modulePath = "github.com/intermodal-go/intermodal"

// A layer is what some packages of the module may import besides the standard library. Patterns are paths below the
// module; /... at the end means everything under it as well, and ... alone anything. Packages that one pattern of
// packages names may import each other.
type layer struct {
	packages []string
	ours     []string // of the module
	theirs   []string // modules of others
	noHTTP   bool     // not even indirectly
}

// layers is the picture of who may import whom. The first that matches a package counts; a package without one fails.
var layers = []layer{
	{packages: []string{"transport"}, ours: []string{"transport/internal/..."}, noHTTP: true},
	{packages: []string{"transport/internal/..."}, ours: []string{"transport", "transport/internal/..."}},
	{packages: []string{"transport/mem"}, ours: []string{"transport", "transport/internal/..."}, noHTTP: true},
	{packages: []string{"transport/wire/...", "transport/middleware/...", "transport/compose/..."}, ours: []string{"transport", "transport/internal/..."}},
	{packages: []string{"transport/transporttest/pipe"}, ours: []string{"transport", "transport/wire", "transport/internal/..."}},
	{packages: []string{"transport/transporttest/..."}, ours: []string{"transport", "transport/transporttest/..."}, theirs: []string{"github.com/stretchr/testify"}},
	{packages: []string{"transport/byurl"}, ours: []string{"..."}},
	{packages: []string{"grpcx/..."}, ours: []string{"transport", "transport/wire"}, theirs: []string{"google.golang.org/grpc", "google.golang.org/protobuf", "google.golang.org/genproto/..."}},
	{packages: []string{"ws/internal/golden"}, ours: []string{"transport", "transport/mem", "ws"}},
	{packages: []string{"ws/..."}, ours: []string{"transport", "transport/wire"}, theirs: []string{"github.com/coder/websocket"}},
	{packages: []string{"amqpx/..."}, ours: []string{"transport", "transport/wire"}, theirs: []string{"github.com/rabbitmq/amqp091-go"}},
	{packages: []string{"rest/..."}, ours: []string{"transport", "transport/wire"}, theirs: []string{"github.com/google/jsonschema-go"}},
	{packages: []string{"sse/...", "poll/...", "webhook/..."}, ours: []string{"transport", "transport/wire"}},
	{packages: []string{"examples/..."}, ours: []string{"..."}, theirs: []string{"..."}},
}

// listed is what go list tells of a package.
type listed struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
	Module     *struct{ Path string }
}

func TestDependencies(t *testing.T) {
	// Reading the directories tells the cache of test results what this test depends on.
	require.NoError(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == ".git" {
			return filepath.SkipDir
		}
		return err
	}))
	list := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps,Module", "./...")
	list.Dir = ".."
	var stderr strings.Builder
	list.Stderr = &stderr
	out, err := list.Output()
	require.NoError(t, err, "%s", &stderr)
	packages := map[string]listed{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); err == io.EOF {
			break
		} else {
			require.NoError(t, err)
		}
		packages[p.ImportPath] = p
	}
	require.Contains(t, packages, modulePath+"/transport")
	var bad []string
	for _, p := range packages {
		if _, ok := below(p.ImportPath); ok {
			bad = append(bad, violations(p, packages)...)
		}
	}
	slices.Sort(bad)
	require.Empty(t, bad, "see the layers in this file for who may import whom")
}

// below returns path without the module's own, if it is in the module.
func below(path string) (string, bool) { return strings.CutPrefix(path+"/", modulePath+"/") }

func matches(patterns []string, path string) bool {
	path = strings.TrimSuffix(path, "/")
	return slices.ContainsFunc(patterns, func(p string) bool {
		under, wild := strings.CutSuffix(p, "/...")
		return p == "..." || path == under || wild && strings.HasPrefix(path, under+"/")
	})
}

// violations lists what p imports and may not.
func violations(p listed, packages map[string]listed) (bad []string) {
	path, _ := below(p.ImportPath)
	path = strings.TrimSuffix(path, "/")
	i := slices.IndexFunc(layers, func(l layer) bool { return matches(l.packages, path) })
	if i < 0 {
		return []string{fmt.Sprintf("%s is in no layer", path)}
	}
	l := layers[i]
	own := slices.IndexFunc(l.packages, func(p string) bool { return matches([]string{p}, path) })
	for _, imported := range p.Imports {
		q := packages[imported]
		if ours, ok := below(imported); ok {
			if !matches(l.ours, ours) && !matches(l.packages[own:own+1], ours) {
				bad = append(bad, fmt.Sprintf("%s imports %s", path, strings.TrimSuffix(ours, "/")))
			}
		} else if !q.Standard && imported != "C" && (q.Module == nil || !matches(l.theirs, q.Module.Path)) {
			bad = append(bad, fmt.Sprintf("%s imports %s", path, imported))
		}
	}
	if l.noHTTP && slices.Contains(p.Deps, "net/http") {
		bad = append(bad, fmt.Sprintf("%s depends on net/http", path))
	}
	return bad
}

func TestDependenciesAreEnforced(t *testing.T) {
	packages := map[string]listed{"fmt": {Standard: true}, "net/http": {Standard: true}}
	for path, module := range map[string]string{"google.golang.org/grpc/codes": "google.golang.org/grpc",
		"github.com/coder/websocket": "github.com/coder/websocket", "github.com/rabbitmq/amqp091-go": "github.com/rabbitmq/amqp091-go",
		"github.com/stretchr/testify/require": "github.com/stretchr/testify"} {
		packages[path] = listed{Module: &struct{ Path string }{module}}
	}
	for _, c := range []struct {
		path    string
		imports string // those of the module begin with a dot
		bad     string // of those
	}{
		{"transport", "fmt ./transport/internal/id", ""},
		{"transport", "./transport/mem ./transport/wire ./rest github.com/stretchr/testify/require", "./transport/mem ./transport/wire ./rest github.com/stretchr/testify/require"},
		{"transport/internal/id", "fmt ./transport/internal/other ./transport/mem", "./transport/mem"},
		{"transport/mem", "./transport ./transport/internal/id ./transport/wire ./transport/transporttest", "./transport/wire ./transport/transporttest"},
		{"transport/wire", "net/http ./transport ./transport/internal/id ./transport/mem ./transport/middleware", "./transport/mem ./transport/middleware"},
		{"transport/middleware", "./transport ./transport/wire ./transport/compose", "./transport/wire ./transport/compose"},
		{"transport/compose", "./transport ./transport/middleware", "./transport/middleware"},
		{"transport/transporttest", "./transport ./transport/transporttest/leak github.com/stretchr/testify/require ./transport/mem ./transport/wire", "./transport/mem ./transport/wire"},
		{"transport/transporttest/pipe", "./transport ./transport/wire ./transport/mem github.com/stretchr/testify/require", "./transport/mem github.com/stretchr/testify/require"},
		{"transport/byurl", "./transport ./transport/mem ./rest ./amqpx", ""},
		{"rest", "net/http ./transport ./transport/wire ./rest/internal/x ./sse ./transport/mem ./transport/middleware", "./sse ./transport/mem ./transport/middleware"},
		{"rest/internal/x", "./rest/internal/y ./transport ./ws", "./ws"},
		{"ws", "github.com/coder/websocket google.golang.org/grpc/codes", "google.golang.org/grpc/codes"},
		{"grpcx/internal/gen", "google.golang.org/grpc/codes github.com/coder/websocket ./grpcx", "github.com/coder/websocket"},
		{"amqpx/amqptest", "github.com/rabbitmq/amqp091-go ./amqpx ./transport/transporttest", "./transport/transporttest"},
		{"webhook", "github.com/rabbitmq/amqp091-go unknown.org/x", "github.com/rabbitmq/amqp091-go unknown.org/x"},
		{"poll", "./transportx", "./transportx"},
		{"examples/any/thing", "./transport/mem ./ws google.golang.org/grpc/codes", ""},
	} {
		var imports, want []string
		for _, i := range strings.Fields(c.imports) {
			imports = append(imports, strings.Replace(i, "./", modulePath+"/", 1))
		}
		for _, b := range strings.Fields(c.bad) {
			want = append(want, c.path+" imports "+strings.TrimPrefix(b, "./"))
		}
		require.Equal(t, want, violations(listed{ImportPath: modulePath + "/" + c.path, Imports: imports}, packages), c.path)
	}
	for _, path := range []string{"transport", "transport/mem"} {
		require.Equal(t, []string{path + " depends on net/http"}, violations(listed{ImportPath: modulePath + "/" + path, Deps: []string{"net/http"}}, packages))
	}
	for _, path := range []string{"restx", "transport/other", "transport/mem/sub", "internal/x", "transport/byurl/x"} {
		require.Equal(t, []string{path + " is in no layer"}, violations(listed{ImportPath: modulePath + "/" + path}, packages))
	}
	require.Equal(t, []string{" is in no layer"}, violations(listed{ImportPath: modulePath}, packages), "the root has no package")
}
