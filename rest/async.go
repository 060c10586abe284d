package rest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strings"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// ReasonNoJob is the Reason of 404 and 410 for a status URL that is not known, or not any more.
const ReasonNoJob = "NO_SUCH_JOB"

// A job is a call that runs behind a 202.
type job struct {
	owner  string
	cancel context.CancelFunc
	done   chan struct{} // closed when it is over and its outcome is stored

	// Of the outcome, once done is closed. forget, under Server.mu, says that nobody will ask for it.
	reply  *transport.Message
	err    error
	forget bool
}

// runAsync starts t as a job. It answers with the outcome if that comes within the wait that the client prefers, else with
// 202 and where to ask.
func (x *exchange) runAsync(t task, c *claim) error {
	id := newJobID()
	j, err := x.start(id, t)
	if err != nil {
		c.release(x)
		return err
	}
	x.prefer.applied = "respond-async"
	if wait := min(x.prefer.wait, x.s.o.MaxTimeout); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-j.done:
			x.prefer.applied = "wait=" + itoa(int64(wait/time.Second))
			x.s.o.Results.Delete(context.WithoutCancel(x.r.Context()), id)
			if c != nil {
				c.finish(x, t.m, j.reply, j.err)
			}
			return x.answer(t.m, j.reply, j.err)
		case <-timer.C:
		case <-x.s.drain:
		case <-x.r.Context().Done(): // who is gone will not learn where to ask; one with a key may
			if c == nil {
				x.s.forget(id)
			}
		}
	}
	accepted := &transport.Message{Header: transport.Header{wire.HeaderStatus: {"202"},
		wire.HeaderLocation: {x.prefix() + "/async/" + id}, "retry-after": {"1"}}}
	if c != nil {
		c.finish(x, t.m, accepted, nil)
	}
	return x.reply(accepted)
}

// newJobID returns an ID that cannot be guessed and tells when it was made.
func newJobID() string {
	var b [22]byte
	binary.BigEndian.PutUint64(b[:8], uint64(time.Now().Unix())<<16)
	rand.Read(b[6:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// jobTime returns when the ID was made; it is false for what is no ID.
func jobTime(id string) (time.Time, bool) {
	b, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil || len(b) != 22 {
		return time.Time{}, false
	}
	return time.Unix(int64(binary.BigEndian.Uint64(b[:8])>>16), 0), true
}

// prefix is the part of the path that whoever mounted the server has cut off.
func (x *exchange) prefix() string {
	path, _, _ := strings.Cut(x.r.RequestURI, "?")
	if i := strings.Index(path, "://"); i > 0 && path[0] != '/' { // the absolute form
		path = path[i+3:]
		path = path[max(strings.IndexByte(path, '/'), 0):]
	}
	prefix, ok := strings.CutSuffix(path, x.r.URL.EscapedPath())
	if !ok || prefix != "" && prefix[0] != '/' || strings.HasPrefix(prefix, "//") {
		return ""
	}
	return prefix
}

// start runs t under a context of the server's own.
func (x *exchange) start(id string, t task) (*job, error) {
	s := x.s
	d, ok, err := timeout(x.r.Header)
	if err != nil {
		return nil, err
	}
	if !ok {
		d = s.o.JobTimeout
	}
	j := &job{owner: x.peer.ID, done: make(chan struct{})}
	s.mu.Lock()
	if s.running >= s.o.Jobs {
		s.mu.Unlock()
		return nil, &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent, RetryAfter: time.Second,
			Message: "too many jobs are running"}
	}
	s.running++
	s.mu.Unlock()
	pending := &Record{Owner: j.owner}
	if _, err := s.o.Results.Add(x.r.Context(), id, pending, s.o.JobTimeout+s.o.ResultAge); err != nil {
		s.leave(id)
		return nil, unavailable503(err)
	}
	ctx, cancel := context.WithTimeout(transport.WithPeer(s.base, x.peer), min(d, s.o.JobTimeout))
	j.cancel = cancel
	s.mu.Lock()
	s.jobs[id] = j
	s.mu.Unlock()
	// The exchange is over before the job is: what the job needs of it is copied.
	own := &exchange{s: s, route: x.route, peer: x.peer}
	go s.work(ctx, own, id, j, t)
	return j, nil
}

// work is the goroutine of a job. Shutdown waits for it.
func (s *Server) work(ctx context.Context, x *exchange, id string, j *job, t task) {
	defer s.leave(id)
	defer close(j.done)
	defer j.cancel()
	j.err = errGoexit
	forgotten := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return j.forget
	}
	defer func() {
		if transport.CodeOf(j.err) != 0 && wire.StatusOf(j.err) >= 500 {
			s.report(t.m, j.err)
		}
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeWait)
		defer cancel()
		var err error
		if err = s.o.Results.Set(sctx, id, x.record(j.reply, j.err), s.o.ResultAge); err != nil {
			lost := transport.Wrap(&storeError{err}, transport.CodeUnavailable, "the result could not be kept")
			s.o.Results.Set(sctx, id, x.record(nil, lost), s.o.ResultAge)
		}
		if forgotten() { // asked for after the result is there, so that no result stays behind
			err = s.o.Results.Delete(sctx, id)
		}
		if err != nil {
			s.report(t.m, &storeError{err})
		}
	}()
	j.reply, j.err = s.invoke(ctx, t)
}

// leave counts a job out.
func (s *Server) leave(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.jobs, id)
	s.running--
	s.checkIdle()
}

// forget cancels the job that runs under id, if there is one, and drops its result.
func (s *Server) forget(id string) bool {
	s.mu.Lock()
	j := s.jobs[id]
	if j != nil {
		j.forget = true
	}
	s.mu.Unlock()
	if j == nil {
		return false
	}
	j.cancel()
	return true
}

// job returns what is known under the ID in the path, to its owner only.
func (x *exchange) job() (id string, j *job, r *Record, err error) {
	s := x.s
	id = x.values[0]
	made, ok := jobTime(id)
	if !ok {
		return "", nil, nil, noJob("404")
	}
	s.mu.Lock()
	j = s.jobs[id]
	gone := j != nil && j.forget // what the store may still have is on its way out
	s.mu.Unlock()
	if gone {
		return "", nil, nil, noJob("404")
	}
	if r, err = s.o.Results.Get(x.r.Context(), id); err != nil {
		return "", nil, nil, unavailable503(err)
	}
	switch {
	case r == nil && j == nil && time.Since(made) > s.o.ResultAge:
		return "", nil, nil, noJob("410")
	case r == nil && j == nil, j != nil && j.owner != x.peer.ID, r != nil && r.Owner != x.peer.ID:
		return "", nil, nil, noJob("404")
	}
	return id, j, r, nil
}

func noJob(status string) error {
	return withReason(ReasonNoJob, transport.CodeNotFound, status, "there is no such job")
}

// jobStatus is the endpoint that a 202 points to. It waits as the client prefers, then answers 303 to the result, or 202.
func (x *exchange) jobStatus() error {
	id, j, r, err := x.job()
	if err != nil {
		return err
	}
	if j != nil && x.prefer.wait > 0 {
		wait := min(x.prefer.wait, x.s.o.MaxTimeout)
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-j.done:
		case <-timer.C:
		case <-x.s.drain:
		case <-x.r.Context().Done():
		}
		x.prefer.applied = "wait=" + itoa(int64(wait/time.Second))
		if id, _, r, err = x.job(); err != nil {
			return err
		}
	}
	if r != nil && r.Done {
		return x.reply(&transport.Message{Header: transport.Header{wire.HeaderStatus: {"303"},
			wire.HeaderLocation: {x.prefix() + "/async/" + id + "/result"}}})
	}
	return x.reply(&transport.Message{Header: transport.Header{wire.HeaderStatus: {"202"}, "retry-after": {"1"},
		transport.HeaderContentType: {"application/json"}}, Body: []byte(`{"status":"running"}`)})
}

// jobResult is the endpoint of the outcome: what the request would have been answered with.
func (x *exchange) jobResult() error {
	_, _, r, err := x.job()
	switch {
	case err != nil:
		return err
	case r == nil || !r.Done:
		return withReason(ReasonNoJob, transport.CodeNotFound, "404", "the job still runs")
	case r.Err != nil:
		return r.Err
	}
	return x.reply(r.Reply)
}

// cancelJob is the endpoint that ends a job, and drops its result.
func (x *exchange) cancelJob() error {
	id, j, r, err := x.job()
	switch {
	case err != nil:
		return err
	case j != nil:
		x.s.forget(id)
	case !r.Done:
		return withReason("", transport.CodeFailedPrecondition, "409", "the job runs on another server")
	}
	if err := x.s.o.Results.Delete(x.r.Context(), id); err != nil {
		return unavailable503(err)
	}
	x.w.WriteHeader(http.StatusNoContent)
	return nil
}
