package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx/amqptest"
	"github.com/intermodal-go/intermodal/examples/jobs/jobs"
	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

func TestResult(t *testing.T) {
	everywhere(t, func(t *testing.T, o *office) {
		o.work(o, nil, doubles(fine))
		j := o.submit(21)
		o.result(j, 1, 42)
		o.result(j, 1, 42) // it can be asked for again
		var states []jobs.State
		for u, err := range j.Updates(t.Context()) {
			require.NoError(t, err)
			require.Equal(t, j.ID, u.Job)
			require.Equal(t, double.Name, u.Func)
			states = append(states, u.State)
		}
		require.Equal(t, []jobs.State{jobs.Started, jobs.Succeeded}, states)
		for range j.Updates(t.Context()) {
			t.Error("each update is seen once")
		}
	})
}

func TestJobsWaitForAWorker(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		j := o.submit(1)
		id, err := double.Enqueue(t.Context(), o, queue, 2)
		require.NoError(t, err)
		followed, err := double.Follow(o.client, id)
		require.NoError(t, err)
		time.Sleep(time.Hour)
		o.work(o, nil, doubles(fine))
		o.result(j, 1, 2)
		o.result(followed, 1, 4)
	})
}

func TestFailuresAreTriedAgainWithBackoff(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		start := time.Now()
		var at []time.Duration
		var attempts []int
		o.work(o, &jobs.WorkOptions{Backoff: transport.Backoff{Min: time.Second, Jitter: -1}},
			doubles(func(ctx context.Context, n int) error {
				at = append(at, time.Since(start))
				attempts = append(attempts, jobs.From(ctx).Attempt)
				if len(at) < 3 {
					return busy
				}
				return nil
			}))
		j := o.submit(4)
		o.result(j, 3, 8)
		require.Equal(t, []time.Duration{0, time.Second, 3 * time.Second}, at)
		require.Equal(t, []int{1, 2, 3}, attempts)
		var failed []jobs.Update
		for u := range j.Updates(t.Context()) {
			if u.State == jobs.Failed {
				failed = append(failed, u)
			}
		}
		require.Len(t, failed, 2)
		require.ErrorIs(t, failed[1].Err(), transport.CodeUnavailable)
		require.ErrorContains(t, failed[1].Err(), "busy")
		require.Equal(t, 2, failed[1].Attempt)
	})
}

func TestTheFunctionMaySayWhenToTryAgain(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		start := time.Now()
		o.work(o, nil, doubles(func(ctx context.Context, n int) error {
			if jobs.From(ctx).Attempt == 1 {
				return &transport.Error{Code: transport.CodeResourceExhausted, RetryAfter: 7 * time.Minute}
			}
			return nil
		}))
		o.result(o.submit(1), 2, 2)
		require.Equal(t, 7*time.Minute, time.Since(start))
	})
}

func TestWhatMakesAJobDead(t *testing.T) {
	for name, c := range map[string]struct {
		err      error
		attempts int
		code     transport.Code
		text     string
	}{
		"refused":           {transport.Errorf(transport.CodeNotFound, "no such file"), 1, transport.CodeNotFound, "no such file"},
		"given up on":       {busy, 3, transport.CodeUnavailable, "busy"},
		"without a code":    {errors.New("password=swordfish"), 3, transport.CodeUnknown, ""},
		"with private text": {transport.Wrap(errors.New("/home/me"), transport.CodeInternal, "a bug"), 3, transport.CodeInternal, "a bug"},
		"a peer's error":    {&transport.Error{Code: transport.CodeUnauthenticated, Message: "expired", Remote: true}, 3, transport.CodeInternal, ""},
		"canceled inside":   {transport.CodeCanceled, 3, transport.CodeAborted, ""},
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, o *office) {
				o.work(o, nil, doubles(func(context.Context, int) error { return c.err }))
				o.dead(o.submit(1), c.attempts, c.code, c.text)
			})
		})
	}
}

func TestPanics(t *testing.T) {
	everywhere(t, func(t *testing.T, o *office) {
		var panics atomic.Int32
		o.work(o, &jobs.WorkOptions{OnError: func(m *transport.Message, err error) {
			if errors.Is(err, transport.ErrPanic) {
				panics.Add(1)
			}
		}}, doubles(func(ctx context.Context, n int) error {
			if n == 13 {
				panic("thirteen")
			}
			return nil
		}))
		o.dead(o.submit(13), 3, transport.CodeInternal, "")
		require.EqualValues(t, 3, panics.Load())
		o.result(o.submit(14), 1, 28)
	})
}

func TestUnknownFunction(t *testing.T) {
	everywhere(t, func(t *testing.T, o *office) {
		o.work(o, nil)
		o.dead(o.submit(1), 1, transport.CodeUnimplemented, `there is no operation "math.double"`)
	})
}

func TestArgumentsThatCannotBeDecoded(t *testing.T) {
	everywhere(t, func(t *testing.T, o *office) {
		o.work(o, nil, doubles(func(context.Context, int) error { t.Error("called"); return nil }))
		for body, text := range map[string]string{
			`{"n":`: "the body is not valid JSON, at byte 5",
			`"one"`: "the body cannot be a JSON string",
		} {
			m, err := double.Message(queue, 0)
			require.NoError(t, err)
			m.Body = []byte(body)
			j, err := double.Follow(o.client, m.ID)
			require.NoError(t, err)
			require.NoError(t, o.Publish(t.Context(), m))
			o.dead(j, 1, transport.CodeInvalidArgument, text)
		}
	})
}

// A job from a program that knows the wire format only.
func TestForeignJob(t *testing.T) {
	everywhere(t, func(t *testing.T, o *office) {
		o.work(o, nil, doubles(fine))
		j, err := double.Follow(o.client, "order 7")
		require.NoError(t, err)
		require.NoError(t, o.Publish(t.Context(), &transport.Message{ID: "order 7", Topic: "office.run",
			Header: transport.Header{"job-func": {"math.double"}, "job-attempt": {"9"}}, Body: []byte("8")}))
		o.result(j, 1, 16)
	})
}

func TestAfter(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.work(o, nil, doubles(fine))
		start := time.Now()
		o.result(o.submit(1, jobs.After(time.Hour)), 1, 2)
		require.Equal(t, time.Hour, time.Since(start))
	})
}

func TestAfterOnEachTransport(t *testing.T) {
	everywhere(t, func(t *testing.T, o *office) {
		o.work(o, nil, doubles(fine))
		start := time.Now()
		o.result(o.submit(1, jobs.After(delay)), 1, 2)
		require.GreaterOrEqual(t, time.Since(start), delay)
	})
}

// A plain AMQP program enqueues a job, and hears what becomes of it.
func TestForeignAMQPProgram(t *testing.T) {
	client, namespace := rabbitMQ(t)
	o := newOffice(t, client)
	o.work(o, nil, doubles(fine))

	conn, err := amqp.Dial(amqptest.URL(t))
	require.NoError(t, err)
	defer conn.Close()
	ch, err := conn.Channel()
	require.NoError(t, err)
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	require.NoError(t, err)
	require.NoError(t, ch.QueueBind(q.Name, "office.updates", namespace.Name, false, nil))
	updates, err := ch.ConsumeWithContext(t.Context(), q.Name, "", true, true, false, false, nil)
	require.NoError(t, err)
	require.NoError(t, ch.PublishWithContext(t.Context(), namespace.Name, "office.run", false, false, amqp.Publishing{
		MessageId: "order 7", ContentType: "application/json", Headers: amqp.Table{"job-func": "math.double"}, Body: []byte("8")}))

	require.JSONEq(t, `{"job":"order 7","func":"math.double","state":"started","attempt":1}`, string((<-updates).Body))
	require.JSONEq(t, `{"job":"order 7","func":"math.double","state":"succeeded","attempt":1,"result":16}`, string((<-updates).Body))
}

func TestOptions(t *testing.T) {
	m, err := double.Message(queue, 5, jobs.After(1500*time.Microsecond), jobs.Priority(7), jobs.Once("k"))
	require.NoError(t, err)
	require.Equal(t, "office.run", m.Topic)
	require.Equal(t, "5", string(m.Body))
	require.NotEmpty(t, m.ID)
	require.Equal(t, transport.Header{"content-type": {"application/json"}, "job-func": {"math.double"}, "delay": {"2"},
		"priority": {"7"}, "idempotency-key": {"k"}}, m.Header)

	m, err = double.Message(queue, 5, jobs.Priority(99))
	require.NoError(t, err)
	require.Equal(t, "9", m.Header.Get("priority"))

	_, err = jobs.Func[int, int]{}.Message(queue, 5)
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	_, err = jobs.Func[func(), int]{Name: "f"}.Enqueue(t.Context(), nil, queue, nil)
	require.ErrorIs(t, err, transport.CodeInternal, "functions are no JSON")
}

func TestOnce(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		var ran atomic.Int32
		begun, finish := make(chan struct{}, 9), make(chan struct{})
		o.work(o, nil, doubles(func(context.Context, int) error {
			ran.Add(1)
			begun <- struct{}{}
			<-finish
			return nil
		}))
		first, second := o.submit(3, jobs.Once("three")), o.submit(3, jobs.Once("three"))
		require.NotEqual(t, first.ID, second.ID)
		<-begun
		synctest.Wait() // the second waits for the first
		close(finish)
		o.result(first, 1, 6)
		o.result(second, 1, 6)
		o.result(o.submit(3, jobs.Once("three")), 1, 6)
		require.EqualValues(t, 1, ran.Load())
		o.dead(o.submit(4, jobs.Once("three")), 1, transport.CodeFailedPrecondition, "this key was used before, with another body")
		o.result(o.submit(3), 1, 6)
		require.EqualValues(t, 2, ran.Load())
	})
}

func TestOnceIsTriedAgainAfterAFailure(t *testing.T) {
	everywhere(t, func(t *testing.T, o *office) {
		o.work(o, nil, doubles(func(ctx context.Context, _ int) error {
			if jobs.From(ctx).Attempt == 1 {
				return busy
			}
			return nil
		}))
		o.result(o.submit(3, jobs.Once("three")), 2, 6)
	})
}

// lossy loses the first update with this state.
type lossy struct {
	transport.Transport
	state jobs.State
	lost  atomic.Int32
}

func (l *lossy) Publish(ctx context.Context, m *transport.Message) error {
	if strings.Contains(string(m.Body), fmt.Sprintf(`"state":%q`, l.state)) && l.lost.Add(1) == 1 {
		return transport.Errorf(transport.CodePermissionDenied, "lost")
	}
	return l.Transport.Publish(ctx, m)
}

func TestAResultThatIsLostIsPublishedAgainWithoutWorkingAgain(t *testing.T) {
	everywhere(t, func(t *testing.T, o *office) {
		var ran atomic.Int32
		o.work(&lossy{Transport: o, state: jobs.Succeeded}, nil, doubles(func(context.Context, int) error { ran.Add(1); return nil }))
		o.result(o.submit(5), 2, 10)
		require.EqualValues(t, 1, ran.Load())
	})
}

func TestUpdatesThatAreLost(t *testing.T) {
	everywhere(t, func(t *testing.T, o *office) {
		var ran atomic.Int32
		o.work(&lossy{Transport: o, state: jobs.Started}, nil, doubles(func(context.Context, int) error { ran.Add(1); return nil }))
		o.result(o.submit(5), 2, 10)
		require.EqualValues(t, 1, ran.Load(), "what cannot be told of does not begin")
	})
	everywhere(t, func(t *testing.T, o *office) {
		var told atomic.Int32
		o.work(&lossy{Transport: o, state: jobs.Failed}, &jobs.WorkOptions{OnError: func(*transport.Message, error) { told.Add(1) }},
			doubles(func(context.Context, int) error { return busy }))
		o.dead(o.submit(5), 3, transport.CodeUnavailable, "busy")
		require.EqualValues(t, 4, told.Load(), "three failures, and an update that could not be published")
	})
}

func TestProgress(t *testing.T) {
	everywhere(t, func(t *testing.T, o *office) {
		o.work(o, nil, doubles(func(ctx context.Context, n int) error {
			for i := range n {
				if err := jobs.From(ctx).Progress(ctx, i+1, n); err != nil {
					return err
				}
			}
			return nil
		}))
		j := o.submit(3)
		o.result(j, 1, 6)
		var done []int
		for u := range j.Updates(t.Context()) {
			if u.State == jobs.Progress {
				require.Equal(t, 3, u.Total)
				done = append(done, u.Done)
			}
		}
		require.Equal(t, []int{1, 2, 3}, done)

		j = o.submit(300) // nobody reads
		o.result(j, 1, 600)
		n, missed := 0, uint64(0)
		for u := range j.Updates(t.Context()) {
			n, missed = n+1, missed+u.Missed
		}
		require.Equal(t, jobs.MaxUpdates, n)
		require.EqualValues(t, 302-jobs.MaxUpdates, missed)
	})
	require.NoError(t, jobs.From(t.Context()).Progress(t.Context(), 1, 2), "outside of a job it does nothing")
}

func TestUpdatesAreFollowedAsTheyCome(t *testing.T) {
	everywhere(t, func(t *testing.T, o *office) {
		goOn := make(chan struct{})
		o.work(o, nil, doubles(func(ctx context.Context, n int) error {
			if err := jobs.From(ctx).Progress(ctx, 1, 2); err != nil {
				return err
			}
			<-goOn
			return nil
		}))
		j := o.submit(1)
		for u, err := range j.Updates(t.Context()) {
			require.NoError(t, err)
			if u.State == jobs.Progress {
				goOn <- struct{}{}
			}
		}
		require.Equal(t, jobs.Succeeded, j.Last().State)
	})
}

func TestCancel(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		begun, finish := make(chan struct{}), make(chan struct{})
		o.work(o, &jobs.WorkOptions{Backoff: transport.Backoff{Min: time.Minute}}, doubles(func(_ context.Context, n int) error {
			switch n {
			case 1:
				t.Error("called")
			case 2:
				close(begun)
				<-finish
			case 3:
				return busy
			}
			return nil
		}))
		canceled := func(j *jobs.Job[int], attempt int) {
			_, err := j.Wait(t.Context())
			require.ErrorIs(t, err, transport.CodeCanceled)
			require.Equal(t, jobs.Canceled, j.Last().State)
			require.Equal(t, attempt, j.Last().Attempt)
		}
		delayed := o.submit(1, jobs.After(time.Hour))
		require.NoError(t, delayed.Cancel(t.Context()))
		require.NoError(t, delayed.Cancel(t.Context()))
		canceled(delayed, 0)

		running := o.submit(2)
		<-begun
		require.NoError(t, running.Cancel(t.Context()))
		synctest.Wait()
		close(finish)
		o.result(running, 1, 4)

		failing := o.submit(3)
		time.Sleep(time.Second)
		require.NoError(t, o.client.Cancel(t.Context(), failing.ID))
		canceled(failing, 1)
	})
}

func TestShutdownFinishesWhatHasBegun(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		begun, finish := make(chan struct{}), make(chan struct{})
		first := o.work(o, &jobs.WorkOptions{Workers: 1}, doubles(func(context.Context, int) error {
			close(begun)
			<-finish
			return nil
		}))
		running, waiting := o.submit(1), o.submit(2)
		<-begun
		stopped := make(chan error, 1)
		go func() { stopped <- first.Shutdown(t.Context()) }()
		synctest.Wait()
		require.Empty(t, stopped)
		close(finish)
		require.NoError(t, <-stopped)
		o.result(running, 1, 2)
		o.work(o, nil, doubles(fine))
		o.result(waiting, 1, 4)
	})
}

// A worker loses its connection while it works: another one does the job.
func TestAWorkerThatIsGone(t *testing.T) {
	client, namespace := rabbitMQ(t)
	o := newOffice(t, client)
	gone, err := namespace.Dial(t.Context())
	require.NoError(t, err)
	begun, finish := make(chan struct{}), make(chan struct{})
	r := &jobs.Registry{}
	doubles(func(context.Context, int) error {
		close(begun)
		<-finish
		return nil
	})(r)
	first, err := jobs.Work(t.Context(), gone, queue, r, &jobs.WorkOptions{OnError: func(*transport.Message, error) {}})
	require.NoError(t, err)
	j := o.submit(6)
	<-begun
	require.NoError(t, gone.Close())
	o.work(o, nil, doubles(fine))
	n, err := j.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, 12, n)
	close(finish)
	first.Shutdown(t.Context()) // its connection is closed: the error says so
}

// Each of many jobs has one outcome, and it is the right one: 10,000 with INTERMODAL_LONG=1, else 100.
func TestManyJobs(t *testing.T) {
	n := 100
	if os.Getenv("INTERMODAL_LONG") == "1" {
		n = 10_000
	}
	everywhere(t, func(t *testing.T, o *office) {
		ran := make([]atomic.Int32, n)
		opts := func() *jobs.WorkOptions {
			return &jobs.WorkOptions{Workers: 16, OnError: func(*transport.Message, error) {}}
		}
		register := doubles(func(ctx context.Context, i int) error {
			attempt := ran[i].Add(1)
			switch {
			case i%5 == 1 && attempt < 3:
				return busy
			case i%5 == 2 && attempt < 2:
				panic(i)
			case i%5 == 3:
				return transport.CodeNotFound
			case i%5 == 4:
				return busy
			}
			return nil
		})
		o.work(o, opts(), register)
		o.work(o, opts(), register)
		all := make([]*jobs.Job[int], n)
		for i := range all {
			all[i] = o.submit(i)
		}
		for i, j := range all {
			switch i % 5 {
			case 3:
				o.dead(j, 1, transport.CodeNotFound, "")
			case 4:
				o.dead(j, 3, transport.CodeUnavailable, "busy")
			default:
				o.result(j, []int{1, 3, 2}[i%5], 2*i)
			}
			require.EqualValues(t, []int{1, 3, 2, 1, 3}[i%5], ran[i].Load())
		}
	})
}

func TestTimeout(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.work(o, &jobs.WorkOptions{Timeout: time.Second}, doubles(func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return ctx.Err()
		}))
		o.dead(o.submit(1), 3, transport.CodeDeadlineExceeded, "it took longer than 1s")
	})
}

func TestDeadLettersAndRedrive(t *testing.T) {
	everywhere(t, func(t *testing.T, o *office) {
		mended := false
		var mu sync.Mutex
		o.work(o, nil, doubles(func(_ context.Context, n int) error {
			mu.Lock()
			defer mu.Unlock()
			if mended && n != 3 {
				return nil
			}
			return transport.Errorf(transport.CodeFailedPrecondition, "not now: %d", n)
		}))
		list := func() (ids []string) {
			dead, err := jobs.DeadLetters(t.Context(), o, queue, 100, time.Second/2)
			require.NoError(t, err)
			for _, u := range dead {
				require.Equal(t, jobs.Dead, u.State)
				require.Equal(t, double.Name, u.Func)
				require.Equal(t, 1, u.Attempt)
				require.ErrorIs(t, u.Err(), transport.CodeFailedPrecondition)
				ids = append(ids, u.Job)
			}
			return ids
		}
		require.Empty(t, list())
		var all []*jobs.Job[int]
		var ids []string
		for n := range 4 {
			j := o.submit(n, jobs.Once(fmt.Sprint(n))) // a refusal must not be remembered
			o.dead(j, 1, transport.CodeFailedPrecondition, fmt.Sprintf("not now: %d", n))
			all, ids = append(all, j), append(ids, j.ID)
		}
		require.ElementsMatch(t, ids, list())
		require.ElementsMatch(t, ids, list(), "they stay where they are")
		some, err := jobs.DeadLetters(t.Context(), o, queue, 2, time.Hour)
		require.NoError(t, err)
		require.Len(t, some, 2)

		mu.Lock()
		mended = true
		mu.Unlock()
		for i, j := range all {
			again, err := double.Follow(o.client, j.ID)
			require.NoError(t, err)
			all[i] = again
		}
		n, err := jobs.Redrive(t.Context(), o, queue, 0, time.Second/2)
		require.ErrorIs(t, err, transport.CodeFailedPrecondition, "one died again")
		require.Equal(t, 4, n)
		for i, j := range all[:3] {
			o.result(j, 1, 2*i)
		}
		o.dead(all[3], 1, transport.CodeFailedPrecondition, "not now: 3")
		require.Equal(t, ids[3:], list())
	})
}

func TestTheEndOfAWait(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		j := o.submit(1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := j.Wait(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		for _, err := range j.Updates(ctx) {
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		require.Equal(t, jobs.Update{}, j.Last())

		waited := make(chan error, 2)
		go func() { _, err := j.Wait(t.Context()); waited <- err }()
		go func() {
			for _, err := range j.Updates(t.Context()) {
				waited <- err
			}
		}()
		synctest.Wait()
		require.NoError(t, o.client.Shutdown(t.Context()))
		require.ErrorIs(t, <-waited, transport.CodeUnavailable)
		require.ErrorIs(t, <-waited, transport.CodeUnavailable)
		_, err = double.Submit(t.Context(), o.client, 1)
		require.ErrorIs(t, err, transport.CodeUnavailable)
	})
}

func TestFollowingIsBounded(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		var last *jobs.Job[int]
		for range jobs.MaxFollowed {
			j, err := double.Follow(o.client, "one")
			require.NoError(t, err)
			last = j
		}
		_, err := double.Submit(t.Context(), o.client, 1)
		require.ErrorIs(t, err, transport.CodeResourceExhausted)
		last.Forget()
		last.Forget()
		j := o.submit(1)
		o.work(o, nil, doubles(fine))
		o.result(j, 1, 2)
		j.Forget() // too late, and harmless
	})
}

func TestPublishThatFails(t *testing.T) {
	everywhere(t, func(t *testing.T, o *office) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := double.Submit(ctx, o.client, 1)
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestRegistry(t *testing.T) {
	bus := mem.New(nil)
	defer bus.Close()
	do := func(_ context.Context, n int) (int, error) { return 2 * n, nil }

	r := &jobs.Registry{}
	_, err := double.Call(t.Context(), r, 1)
	require.ErrorIs(t, err, transport.CodeUnimplemented)
	jobs.Register(r, double, do)
	jobs.Register(r, jobs.Func[int, int]{Name: "a"}, do)
	require.Equal(t, []string{"a", "math.double"}, r.Names())
	n, err := double.Call(t.Context(), r, 4)
	require.NoError(t, err)
	require.Equal(t, 8, n)

	bindings, err := r.Bindings()
	require.NoError(t, err)
	service, err := transport.Start(t.Context(), bus, bindings...)
	require.NoError(t, err)
	n, err = double.Call(t.Context(), bus, 5)
	require.NoError(t, err)
	require.Equal(t, 10, n)
	require.NoError(t, service.Shutdown(t.Context()))

	for code, register := range map[transport.Code]func(*jobs.Registry){
		transport.CodeAlreadyExists:   func(r *jobs.Registry) { jobs.Register(r, double, do); jobs.Register(r, double, do) },
		transport.CodeInvalidArgument: func(r *jobs.Registry) { jobs.Register[int, int](r, double, nil); jobs.Register(r, double, do) },
	} {
		r := &jobs.Registry{}
		register(r)
		_, err := r.Bindings()
		require.ErrorIs(t, err, code)
		_, err = jobs.Work(t.Context(), bus, queue, r, nil)
		require.ErrorIs(t, err, code)
	}
	r = &jobs.Registry{}
	jobs.Register(r, jobs.Func[int, int]{Name: "rpc.x"}, do)
	_, err = jobs.Work(t.Context(), bus, queue, r, nil)
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
}

func TestQueuesThatDoNotFit(t *testing.T) {
	bus := mem.New(nil)
	defer bus.Close()
	require.NoError(t, queue.Declare(t.Context(), bus))
	require.NoError(t, queue.Declare(t.Context(), bus))
	require.NoError(t, jobs.Queue{Name: "office"}.Declare(t.Context(), bus), "what is left unset matches")
	_, err := jobs.Connect(t.Context(), bus, jobs.Queue{Name: "office", MaxAttempts: 4})
	require.ErrorIs(t, err, transport.CodeFailedPrecondition)
	_, err = jobs.Work(t.Context(), bus, jobs.Queue{Name: "office", MaxAttempts: 4}, &jobs.Registry{}, nil)
	require.ErrorIs(t, err, transport.CodeFailedPrecondition)
	_, err = jobs.Connect(t.Context(), bus, jobs.Queue{Name: "..."})
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
	_, err = jobs.Work(t.Context(), bus, queue, &jobs.Registry{}, &jobs.WorkOptions{Workers: -1})
	require.ErrorIs(t, err, transport.CodeInvalidArgument)

	plain := transport.Join(transport.Parts{Publisher: bus})
	_, err = jobs.Connect(t.Context(), plain, queue)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = jobs.Work(t.Context(), plain, queue, &jobs.Registry{}, nil)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = jobs.DeadLetters(t.Context(), plain, queue, 1, time.Second)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = jobs.DeadLetters(t.Context(), bus, queue, 0, time.Second)
	require.ErrorIs(t, err, transport.CodeInvalidArgument)
}
