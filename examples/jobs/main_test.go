package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/examples/jobs/harbour"
	"github.com/intermodal-go/intermodal/examples/jobs/jobs"
	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/transport/transporttest/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// wanted are lines of the story, in this order.
var wanted = []string{
	"Enqueued, before there is a worker:",
	"  files.pack           in 600 ms, but it will be canceled",
	"  pictures.thumbnail   attempt 1: 160x100 pixels, ",
	"  pictures.thumbnail   attempt 1: the same one; it was made once",
	"  manifests.weigh      25% 50% 75% 100% attempt 1: 240 containers, 3439786 kg, the heaviest is INTU 101520 5",
	"  pages.fetch          attempt 1: unavailable: the server is busy; attempt 2: unavailable: the server is busy; attempt 3: 285 words",
	"  files.pack           attempt 1: 1442 bytes became ",
	"  files.pack           canceled after 0 attempts: canceled: the job was canceled",
	"  files.checksum       dead after 3 attempts: unavailable: the file is not here yet",
	"  files.words          dead after 1 attempt: unimplemented: there is no operation \"files.words\"",
	"Dead letters:",
	"  files.words          1 attempt, unimplemented: there is no operation \"files.words\"",
	"  files.checksum       3 attempts, unavailable: the file is not here yet",
	"  files.checksum       attempt 1: 6bfca9c872dbf0f4…",
	"  files.words          attempt 1: 285 words",
	"Dead letters:\n  none",
	"  files.words          60 words",
	"All of it is as it should be.",
}

func requireStory(t *testing.T, story string) {
	t.Helper()
	rest := story
	for _, line := range wanted {
		_, after, ok := strings.Cut(rest, "\n"+line)
		require.True(t, ok, "%q is missing or too early in\n%s", line, story)
		rest = after
	}
	require.True(t, strings.HasSuffix(story, "\n"+wanted[len(wanted)-1]+"\n"), story)
}

func TestInMemory(t *testing.T) {
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), "", &stdout, &stderr)
	require.Empty(t, stderr.String())
	require.Zero(t, status)
	requireStory(t, stdout.String())
	require.Regexp(t, "^Jobs in memory\n", stdout.String())
}

// TestOnRabbitMQ tells the same story there, and leaves nothing behind.
func TestOnRabbitMQ(t *testing.T) {
	node := amqptest.New(t, nil)
	list := func() (names []string) {
		for _, what := range []string{"list_queues", "list_exchanges"} {
			out, err := node.Ctl(t.Context(), what, "name", "--formatter", "json")
			require.NoError(t, err)
			var rows []struct{ Name string }
			require.NoError(t, json.Unmarshal(out, &rows), "%s", out)
			for _, row := range rows {
				names = append(names, row.Name)
			}
		}
		return names
	}
	before := list()
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), node.URL(), &stdout, &stderr)
	require.Empty(t, stderr.String())
	require.Zero(t, status)
	requireStory(t, stdout.String())
	require.Regexp(t, "^Jobs on RabbitMQ\n", stdout.String())
	require.ElementsMatch(t, before, list())

	var inMemory bytes.Buffer
	require.Zero(t, run(t.Context(), "", &inMemory, &stderr))
	require.Equal(t, strings.TrimPrefix(inMemory.String(), "Jobs in memory"), strings.TrimPrefix(stdout.String(), "Jobs on RabbitMQ"))
}

func TestBrokerThatDoesNotAnswer(t *testing.T) {
	var stdout, stderr bytes.Buffer
	require.Equal(t, 1, run(t.Context(), "amqp://guest:swordfish@127.0.0.1:1/", &stdout, &stderr))
	require.Empty(t, stdout.String())
	require.Contains(t, stderr.String(), "jobs: unavailable: ")
	require.NotContains(t, stderr.String(), "swordfish")
}

// tellOn tells the story on t.
func tellOn(t *testing.T, on transport.Transport) (string, error) {
	var stdout bytes.Buffer
	s := &story{out: &stdout, carrier: carrier{Transport: on}, dir: t.TempDir()}
	err := s.tell(t.Context())
	return stdout.String(), err
}

// tampered is a bus on which every result is another one.
type tampered struct{ transport.Transport }

func (b tampered) Publish(ctx context.Context, m *transport.Message) error {
	if m.Topic == queue.Updates().Topic {
		m = m.Clone()
		m.Body = bytes.Replace(m.Body, []byte(`"width":160`), []byte(`"width":161`), 1)
	}
	return b.Transport.Publish(ctx, m)
}

// stuck is a bus on which nobody can subscribe to a topic.
type stuck struct {
	transport.Transport
	topic string
}

func (b stuck) Subscribe(ctx context.Context, topic string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	if topic == b.topic {
		return nil, errors.New("no way")
	}
	return b.Transport.Subscribe(ctx, topic, opts...)
}

func TestWhatIsNotAsItShouldBe(t *testing.T) {
	bus := mem.New(nil)
	defer bus.Close()
	story, err := tellOn(t, tampered{bus})
	require.EqualError(t, err, "pictures.thumbnail has another result than a direct call")
	require.NotContains(t, story, "Dead letters")

	for _, topic := range []string{queue.Run(), queue.Dead(), queue.Updates().Topic} {
		bus := mem.New(nil)
		_, err := tellOn(t, stuck{bus, topic})
		require.ErrorContains(t, err, "no way")
		require.NoError(t, bus.Close())
	}
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	require.Equal(t, 1, run(ctx, "", &stdout, &stderr))
	require.Contains(t, stderr.String(), "jobs: context canceled")
}

// What the functions refuse is not tried again.
func TestRefusals(t *testing.T) {
	bus := mem.New(nil)
	defer bus.Close()
	client, err := jobs.Connect(t.Context(), bus, queue)
	require.NoError(t, err)
	worker, err := jobs.Work(t.Context(), bus, queue, version1(embedded), nil)
	require.NoError(t, err)
	small, err := thumbnail.Submit(t.Context(), client, harbour.Picture{File: "testdata/pilot.txt", Width: 10})
	require.NoError(t, err)
	cargo, err := weigh.Submit(t.Context(), client, "testdata/pilot.txt")
	require.NoError(t, err)
	_, err = small.Wait(t.Context())
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	_, err = cargo.Wait(t.Context())
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	require.NoError(t, worker.Shutdown(t.Context()))
	require.NoError(t, client.Shutdown(t.Context()))
}

func TestBuiltProgram(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "jobs.exe")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	command := exec.CommandContext(t.Context(), binary)
	command.Env = append(command.Environ(), "AMQP_URL=")
	out, err = command.Output()
	require.NoError(t, err)
	requireStory(t, string(out))

	command = exec.CommandContext(t.Context(), binary)
	command.Env = append(command.Environ(), "AMQP_URL=nonsense")
	_, err = command.Output()
	var status *exec.ExitError
	require.ErrorAs(t, err, &status)
	require.Equal(t, 1, status.ExitCode())
	require.Contains(t, string(status.Stderr), "jobs: ")
}
