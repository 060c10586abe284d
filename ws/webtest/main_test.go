package webtest

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/intermodal-go/intermodal/transport/transporttest/leak"
)

var update = flag.Bool("update", false, "write the conversations to ws/testdata")

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv("INTERMODAL_BROWSER") == "" {
		fmt.Println("Node and Chromium were not asked for: set INTERMODAL_BROWSER=1")
		return
	}
	leak.Main(m)
}
