package amqptest_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx/amqptest"
)

// TestURL runs itself where nothing is installed: the test is skipped and says how to get a broker, in CI it fails.
func TestURL(t *testing.T) {
	if os.Getenv("AMQPTEST_CHILD") != "" {
		t.Log("URL is " + amqptest.URL(t))
		return
	}
	for _, c := range []struct {
		env  []string
		ok   bool
		text string
	}{
		{[]string{"INTERMODAL_CI="}, true, "--- SKIP: TestURL"},
		{[]string{"INTERMODAL_CI="}, true, "apt-get install rabbitmq-server"},
		{[]string{"INTERMODAL_CI="}, true, "set AMQP_URL"},
		{[]string{"INTERMODAL_CI=1"}, false, "--- FAIL: TestURL"},
		{[]string{"INTERMODAL_CI=1", "AMQP_URL=amqp://a:b@c/d"}, true, "URL is amqp://a:b@c/d"},
	} {
		child := exec.Command(os.Args[0], "-test.run=^TestURL$", "-test.v")
		child.Env = append(append(os.Environ(), "AMQPTEST_CHILD=1", "AMQP_URL=", "RABBITMQ_SERVER=/nowhere/rabbitmq-server"),
			c.env...)
		out, err := child.CombinedOutput()
		require.Equal(t, c.ok, err == nil, "%v: %s", c.env, out)
		require.Contains(t, string(out), c.text, "%v", c.env)
	}
}
