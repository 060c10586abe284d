package middleware_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/middleware"
)

func TestDedupReplaysSuccess(t *testing.T) {
	inner, n := fails()
	h := middleware.Dedup(nil)(inner)
	first, err := h(t.Context(), message("1"))
	require.NoError(t, err)
	second, err := h(t.Context(), message("1"))
	require.NoError(t, err)
	require.Same(t, first, second)
	require.Equal(t, int32(1), n.Load())
}

func TestDedupReplaysARefusal(t *testing.T) {
	secret := errors.New("secret")
	inner, n := fails(&transport.Error{Code: transport.CodeNotFound, Message: "no such order", Reason: "NO_ORDER",
		Remote: true, Cause: secret})
	h := middleware.Dedup(nil)(inner)
	_, err := h(t.Context(), message("1"))
	require.ErrorIs(t, err, secret)
	_, err = h(t.Context(), message("1"))
	require.Equal(t, &transport.Error{Code: transport.CodeNotFound, Message: "no such order", Reason: "NO_ORDER",
		Remote: true}, err)
	require.Equal(t, int32(1), n.Load())
}

func TestDedupForgetsWhatMayPass(t *testing.T) {
	inner, n := fails(io.EOF, transport.CodeUnavailable)
	h := middleware.Dedup(nil)(inner)
	for _, want := range []error{io.EOF, transport.CodeUnavailable, nil, nil} {
		_, err := h(t.Context(), message("1"))
		require.Equal(t, want, err)
	}
	require.Equal(t, int32(3), n.Load())
}

func TestDedupSuccessesOnly(t *testing.T) {
	inner, n := fails(transport.CodeNotFound)
	h := middleware.Dedup(&middleware.DedupOptions{SuccessesOnly: true})(inner)
	for _, want := range []error{transport.CodeNotFound, nil, nil} {
		_, err := h(t.Context(), message("1"))
		require.Equal(t, want, err)
	}
	require.Equal(t, int32(2), n.Load())
}

func TestDedupForgetsAPanic(t *testing.T) {
	n := 0
	h := middleware.Dedup(nil)(func(context.Context, *transport.Message) (*transport.Message, error) {
		if n++; n == 1 {
			panic("x")
		}
		return nil, nil
	})
	require.PanicsWithValue(t, "x", func() { h(t.Context(), message("1")) })
	reply, err := h(t.Context(), message("1"))
	require.NoError(t, err)
	require.Nil(t, reply)
	require.Equal(t, 2, n)
}

func TestDedupIdentity(t *testing.T) {
	keyed := func(topic, id, key string) *transport.Message {
		return &transport.Message{ID: id, Topic: topic, Header: transport.Header{transport.HeaderIdempotencyKey: {key}}}
	}
	alice := transport.WithPeer(t.Context(), transport.Peer{ID: "alice"})
	bob := transport.WithPeer(t.Context(), transport.Peer{ID: "bob"})
	for name, c := range map[string]struct {
		ctx1, ctx2 context.Context
		m1, m2     *transport.Message
		runs       int32
	}{
		"same ID":                 {alice, alice, message("1"), message("1"), 1},
		"other ID":                {alice, alice, message("1"), message("2"), 2},
		"no ID":                   {alice, alice, message(""), message(""), 2},
		"other peer":              {alice, bob, message("1"), message("1"), 2},
		"same key, other ID":      {alice, alice, keyed("t", "1", "k"), keyed("t", "2", "k"), 1},
		"same key, no ID":         {alice, alice, keyed("t", "", "k"), keyed("t", "", "k"), 1},
		"other key, same ID":      {alice, alice, keyed("t", "1", "k"), keyed("t", "1", "l"), 2},
		"same key, other topic":   {alice, alice, keyed("t", "1", "k"), keyed("u", "1", "k"), 2},
		"a key is not an ID":      {alice, alice, keyed("t", "", "k"), &transport.Message{ID: "k", Topic: "t"}, 2},
		"parts are not just glue": {alice, alice, keyed("ta", "", "b"), keyed("t", "", "ab"), 2},
	} {
		t.Run(name, func(t *testing.T) {
			inner, n := fails()
			h := middleware.Dedup(nil)(inner)
			_, err := h(c.ctx1, c.m1)
			require.NoError(t, err)
			_, err = h(c.ctx2, c.m2)
			require.NoError(t, err)
			require.Equal(t, c.runs, n.Load())
		})
	}
}

func TestDedupRefusesAnotherBody(t *testing.T) {
	inner, n := fails()
	h := middleware.Dedup(nil)(inner)
	m := message("1")
	m.Header = transport.Header{transport.HeaderIdempotencyKey: {"k"}}
	_, err := h(t.Context(), m)
	require.NoError(t, err)
	other := m.Clone()
	other.Body = []byte("other")
	_, err = h(t.Context(), other)
	require.ErrorIs(t, err, transport.CodeFailedPrecondition)
	require.Equal(t, int32(1), n.Load())
}

func TestDedupDuplicatesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		h := middleware.Dedup(nil)(func(context.Context, *transport.Message) (*transport.Message, error) {
			time.Sleep(time.Second)
			return &transport.Message{ID: strconv.Itoa(int(n.Add(1)))}, nil
		})
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				reply, err := h(t.Context(), message("1"))
				require.NoError(t, err)
				require.Equal(t, "1", reply.ID)
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := h(ctx, message("1"))
		require.Equal(t, context.DeadlineExceeded, err, "the wait ends with ctx")
		wg.Wait()
	})
}

func TestDedupNextInLineRunsAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		h := middleware.Dedup(nil)(func(context.Context, *transport.Message) (*transport.Message, error) {
			time.Sleep(time.Second)
			if n.Add(1) == 1 {
				return nil, io.EOF
			}
			return nil, nil
		})
		var wg sync.WaitGroup
		var failed atomic.Int32
		for range 3 {
			wg.Go(func() {
				if _, err := h(t.Context(), message("1")); err != nil {
					failed.Add(1)
				}
			})
		}
		wg.Wait()
		require.Equal(t, int32(2), n.Load())
		require.Equal(t, int32(1), failed.Load())
	})
}

func TestDedupLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost []error
		h := middleware.Dedup(&middleware.DedupOptions{Lease: time.Minute,
			OnError: func(_ *transport.Message, err error) { lost = append(lost, err) }})
		_, err := h(waits)(t.Context(), message("1"))
		require.ErrorIs(t, err, transport.CodeDeadlineExceeded, "the lease bounds the handler")
		require.Empty(t, lost)

		stuck := make(chan struct{})
		done := make(chan struct{})
		go func() { // one that ignores its context
			defer close(done)
			h(func(context.Context, *transport.Message) (*transport.Message, error) { <-stuck; return nil, nil })(
				t.Context(), message("1"))
		}()
		synctest.Wait()
		start := time.Now()
		inner, n := fails()
		_, err = h(inner)(t.Context(), message("1"))
		require.NoError(t, err)
		require.Equal(t, int32(1), n.Load(), "the claim ended with the lease")
		require.Equal(t, time.Minute+5*time.Second, time.Since(start))
		close(stuck)
		<-done
		require.Len(t, lost, 1)
		require.ErrorIs(t, lost[0], transport.CodeAborted)
	})
}

// broken is a Store that fails.
type broken struct{ err error }

func (b broken) Claim(context.Context, string, string, time.Duration) (*middleware.Record, error) {
	return nil, b.err
}
func (b broken) Complete(context.Context, string, string, *middleware.Record) error { return b.err }
func (b broken) Release(context.Context, string, string) error                      { return b.err }

func TestDedupWithABrokenStore(t *testing.T) {
	inner, n := fails()
	secret := errors.New("secret")
	_, err := middleware.Dedup(&middleware.DedupOptions{Store: broken{secret}})(inner)(t.Context(), message("1"))
	require.ErrorIs(t, err, transport.CodeUnavailable)
	require.ErrorIs(t, err, secret)
	require.NotContains(t, transport.Public(err).Message, "secret")
	_, err = middleware.Dedup(&middleware.DedupOptions{Store: broken{transport.CodeResourceExhausted}})(inner)(t.Context(), message("1"))
	require.Equal(t, transport.CodeResourceExhausted, err)
	require.Zero(t, n.Load(), "what cannot be claimed is not handled")
}

// The outcome is stored also when the message's context has ended.
func TestDedupStoresAfterTheContext(t *testing.T) {
	s := &ctxStore{Store: middleware.NewMemoryStore(nil)}
	ctx, cancel := context.WithCancel(t.Context())
	h := middleware.Dedup(&middleware.DedupOptions{Store: s})(func(context.Context, *transport.Message) (*transport.Message, error) {
		cancel()
		return nil, nil
	})
	_, err := h(ctx, message("1"))
	require.NoError(t, err)
	require.NoError(t, s.err)
	require.True(t, s.bounded)
}

type ctxStore struct {
	middleware.Store
	err     error
	bounded bool
}

func (s *ctxStore) Complete(ctx context.Context, key, owner string, r *middleware.Record) error {
	s.err = ctx.Err()
	_, s.bounded = ctx.Deadline()
	return s.Store.Complete(ctx, key, owner, r)
}

func TestMemoryStoreEvictsTheOldestRecord(t *testing.T) {
	s := middleware.NewMemoryStore(&middleware.MemoryOptions{Entries: 2})
	complete(t, s, "a")
	complete(t, s, "b")
	complete(t, s, "c")
	require.Nil(t, claim(t, s, "a"), "a was forgotten, and is in work now; that drove out b")
	require.NotNil(t, claim(t, s, "c"))
	require.Nil(t, claim(t, s, "b"))
	_, err := s.Claim(t.Context(), "d", "o", time.Minute)
	require.ErrorIs(t, err, transport.CodeResourceExhausted, "what is in work is not driven out")
	require.NoError(t, s.Release(t.Context(), "a", "o"))
	require.Nil(t, claim(t, s, "d"))
}

func TestMemoryStoreBytes(t *testing.T) {
	s := middleware.NewMemoryStore(&middleware.MemoryOptions{Bytes: 3 * 300})
	for _, key := range []string{"a", "b", "c"} {
		require.Nil(t, claim(t, s, key))
		require.NoError(t, s.Complete(t.Context(), key, "o", &middleware.Record{Reply: &transport.Message{Body: make([]byte, 44)}}))
	}
	require.NotNil(t, claim(t, s, "a"))
	require.Nil(t, claim(t, s, "d"))
	require.NoError(t, s.Complete(t.Context(), "d", "o", &middleware.Record{Err: &transport.Error{Message: "four", Details: []transport.Detail{{Type: "t"}}}}))
	require.Nil(t, claim(t, s, "a"))
	require.NotNil(t, claim(t, s, "b"))

	require.Nil(t, claim(t, s, "e"))
	err := s.Complete(t.Context(), "e", "o", &middleware.Record{Reply: &transport.Message{Body: make([]byte, 900)}})
	require.ErrorIs(t, err, transport.CodeResourceExhausted)
	require.Nil(t, claim(t, s, "e"), "the claim was given back")
	require.NotNil(t, claim(t, s, "b"), "nothing was driven out for it")
}

func TestMemoryStoreTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := middleware.NewMemoryStore(&middleware.MemoryOptions{TTL: time.Hour})
		complete(t, s, "a")
		time.Sleep(30 * time.Minute)
		complete(t, s, "b")
		time.Sleep(30 * time.Minute)
		require.NotNil(t, claim(t, s, "b"))
		require.Nil(t, claim(t, s, "a"))
	})
}

func TestMemoryStoreOwners(t *testing.T) {
	s := middleware.NewMemoryStore(nil)
	require.Nil(t, claim(t, s, "a"))
	require.NoError(t, s.Release(t.Context(), "a", "somebody else"))
	require.ErrorIs(t, s.Complete(t.Context(), "a", "somebody else", &middleware.Record{}), transport.CodeAborted)
	require.NoError(t, s.Complete(t.Context(), "a", "o", &middleware.Record{}))
	require.ErrorIs(t, s.Complete(t.Context(), "a", "o", &middleware.Record{}), transport.CodeAborted)
	require.NoError(t, s.Release(t.Context(), "a", "o"))
	require.NotNil(t, claim(t, s, "a"), "a record is not released")
}

func claim(t *testing.T, s middleware.Store, key string) *middleware.Record {
	t.Helper()
	r, err := s.Claim(t.Context(), key, "o", time.Minute)
	require.NoError(t, err)
	return r
}

func complete(t *testing.T, s middleware.Store, key string) {
	t.Helper()
	require.Nil(t, claim(t, s, key))
	require.NoError(t, s.Complete(t.Context(), key, "o", &middleware.Record{}))
}

func TestRecordSurvivesGob(t *testing.T) {
	for _, r := range []*middleware.Record{
		{Fingerprint: [32]byte{1}, Reply: &transport.Message{ID: "1", Header: transport.Header{"x-bin": {"\xff"}}, Body: []byte{0xff}}},
		{Err: &transport.Error{Code: transport.CodeNotFound, Reason: "R", Message: "m", RetryAfter: 3, Remote: true,
			Details: []transport.Detail{{Type: "t", Value: []byte{1}}}, Header: transport.Header{"a": {"b"}}}},
	} {
		var b bytes.Buffer
		require.NoError(t, gob.NewEncoder(&b).Encode(r))
		var got middleware.Record
		require.NoError(t, gob.NewDecoder(&b).Decode(&got))
		require.Equal(t, r, &got)
	}
}

func BenchmarkDedup(b *testing.B) {
	h := middleware.Dedup(nil)(func(context.Context, *transport.Message) (*transport.Message, error) { return nil, nil })
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			h(b.Context(), message(transport.NewID()))
		}
	})
	b.Run("duplicate", func(b *testing.B) {
		b.ReportAllocs()
		m := message("1")
		for b.Loop() {
			h(b.Context(), m)
		}
	})
}

func BenchmarkLimit(b *testing.B) {
	h := middleware.Limit(&middleware.LimitOptions{Concurrency: 1, Rate: 1e9})(
		func(context.Context, *transport.Message) (*transport.Message, error) { return nil, nil })
	m := message("1")
	b.ReportAllocs()
	for b.Loop() {
		h(b.Context(), m)
	}
}

func BenchmarkRetry(b *testing.B) {
	h := middleware.Retry(nil)(func(context.Context, *transport.Message) (*transport.Message, error) { return nil, nil })
	m := message("1")
	b.ReportAllocs()
	for b.Loop() {
		h(b.Context(), m)
	}
}
