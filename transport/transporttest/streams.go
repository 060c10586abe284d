package transporttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

var streamCases = []testCase{{
	name:  "streams/unary",
	rule:  "One item each way and a clean end.",
	needs: []need{streams},
	run: func(c *env) {
		topic, h := c.topic(), transport.Header{"content-type": {"text/x"}, "k": {"v", "w"}}
		l := c.accept(topic)
		s := c.open(c.ctx, topic, h)
		in := c.incoming(l)
		require.Equal(c, topic, in.Topic())
		c.sameHeader(h, in.Header())
		c.put(s.Send, "request")
		require.NoError(c, s.CloseSend())
		c.items(in.Recv, "request")
		c.put(in.Send, "reply")
		require.NoError(c, in.End(nil))
		c.items(s.Recv, "reply")
		c.ended(in)
	},
}, {
	name:  "streams/server",
	rule:  "One item there, many back, in order.",
	needs: []need{streams},
	run: func(c *env) {
		s, in := c.stream()
		c.put(s.Send, "list")
		require.NoError(c, s.CloseSend())
		sent := async(func() bool {
			c.items(in.Recv, "list")
			c.put(in.Send, numbers(1, 200)...)
			require.NoError(c, in.End(nil))
			return true
		})
		c.items(s.Recv, numbers(1, 200)...)
		await(c, sent, "the acceptor")
	},
}, {
	name:  "streams/client",
	rule:  "Many items there, in order, one back: half-close ends one direction only.",
	needs: []need{streams},
	run: func(c *env) {
		s, in := c.stream()
		sent := async(func() bool {
			c.put(s.Send, numbers(1, 200)...)
			require.NoError(c, s.CloseSend())
			return true
		})
		c.items(in.Recv, numbers(1, 200)...)
		await(c, sent, "the opener")
		_, err := in.Recv()
		require.Equal(c, io.EOF, err, "io.EOF stays")
		require.NoError(c, in.Context().Err(), "half-close does not end the stream")
		c.put(in.Send, "sum")
		c.put(in.Send, "more")
		require.NoError(c, in.End(nil))
		c.items(s.Recv, "sum", "more")
	},
}, {
	name:  "streams/both",
	rule:  "Both sides send and receive at once; an item is handed on without waiting for more.",
	needs: []need{streams},
	run: func(c *env) {
		s, in := c.stream()
		for i := range 10 { // ping-pong
			c.put(s.Send, fmt.Sprint("ping ", i))
			require.Equal(c, fmt.Sprint("ping ", i), c.item(in.Recv))
			c.put(in.Send, fmt.Sprint("pong ", i))
			require.Equal(c, fmt.Sprint("pong ", i), c.item(s.Recv))
		}
		const n = 300
		var done []<-chan bool
		for _, send := range []func(*transport.Message) error{s.Send, in.Send} {
			done = append(done, async(func() bool { c.put(send, numbers(1, n)...); return true }))
		}
		for _, recv := range []func() (*transport.Message, error){s.Recv, in.Recv} {
			done = append(done, async(func() bool {
				for i := 1; i <= n; i++ {
					require.Equal(c, strconv.Itoa(i), c.item(recv))
				}
				return true
			}))
		}
		for _, d := range done {
			await(c, d, "a direction")
		}
		require.NoError(c, s.CloseSend())
		c.items(in.Recv)
		require.NoError(c, in.End(nil))
		c.items(s.Recv)
	},
}, {
	name:  "streams/nothing",
	rule:  "A stream may end without an item in either direction.",
	needs: []need{streams},
	run: func(c *env) {
		s, in := c.stream()
		require.NoError(c, s.CloseSend())
		c.items(in.Recv)
		require.NoError(c, in.End(nil))
		c.items(s.Recv)
		_, err := s.Recv()
		require.Equal(c, io.EOF, err, "io.EOF stays")
	},
}, {
	name:  "streams/bodies",
	rule:  "Items arrive byte for byte, empty ones too, and nothing is merged or split.",
	needs: []need{streams},
	run: func(c *env) {
		s, in := c.stream()
		bodies := []string{"", "a", "", every256(), strings.Repeat("x", 100_000), "\n", "{\"a\": \"<\"}", ""}
		for _, body := range bodies {
			done := async(func() bool { c.put(s.Send, body); return true })
			require.Equal(c, body, c.item(in.Recv))
			await(c, done, "Send")
			done = async(func() bool { c.put(in.Send, body); return true })
			require.Equal(c, body, c.item(s.Recv))
			await(c, done, "Send")
		}
	},
}, {
	name:  "streams/item-headers",
	rule:  "The header of an item arrives with it, or Send refuses it: it is never dropped.",
	needs: []need{streams},
	run: func(c *env) {
		s, in := c.stream()
		h := transport.Header{"content-type": {"text/x"}, "k": {"v", "w"}, "raw-bin": {"\x00\xff"}}
		for _, dir := range []struct {
			send func(*transport.Message) error
			recv func() (*transport.Message, error)
		}{{s.Send, in.Recv}, {in.Send, s.Recv}} {
			err := dir.send(&transport.Message{Header: h.Clone(), Body: []byte("x")})
			if unsupported(err) {
				continue
			}
			require.NoError(c, err)
			m := c.received(dir.recv)
			c.sameHeader(h, m.Header)
		}
	},
}, {
	name:  "streams/item-topics",
	rule:  "An item may have a topic, as one that a subscription has handed out: it does not cross, and costs nothing.",
	needs: []need{streams},
	run: func(c *env) {
		s, in := c.stream()
		long := strings.Repeat("t", transport.MaxTopicBytes)
		done := async(func() error {
			for range 3000 {
				if err := s.Send(&transport.Message{Topic: long, Body: []byte("x")}); err != nil {
					return err
				}
			}
			return s.CloseSend()
		})
		for range 3000 {
			require.Equal(c, "x", c.item(in.Recv))
		}
		require.NoError(c, await(c, done, "the sender"))
	},
}, {
	name:  "streams/metadata",
	rule:  "The acceptor's header comes with its first item, its trailer with the end; neither is mixed with the other.",
	needs: []need{streams},
	run: func(c *env) {
		s, in := c.stream()
		require.NoError(c, in.SetHeader(transport.Header{"a": {"1", "2"}, "raw-bin": {"\x00\xff"}}))
		require.NoError(c, in.SetHeader(transport.Header{"b": {"3"}}))
		in.SetTrailer(transport.Header{"t": {"4", "5"}})
		in.SetTrailer(transport.Header{"u-bin": {"\xfe"}})
		require.Nil(c, s.Trailer(), "before the end")
		c.put(in.Send, "1")
		h := c.header(s)
		c.sameHeader(transport.Header{"a": {"1", "2"}, "raw-bin": {"\x00\xff"}, "b": {"3"}}, h)
		require.Equal(c, "1", c.item(s.Recv))
		c.code(in.SetHeader(transport.Header{"late": {"1"}}), transport.CodeFailedPrecondition)
		require.NoError(c, in.End(nil))
		c.items(s.Recv)
		c.sameHeader(transport.Header{"t": {"4", "5"}, "u-bin": {"\xfe"}}, s.Trailer())
		c.sameHeader(h, c.header(s))
	},
}, {
	name:  "streams/header-after-items",
	rule:  "The acceptor may set its header until it sends something, whatever it has received before.",
	needs: []need{streams},
	run: func(c *env) {
		s, in := c.stream()
		require.NoError(c, in.SetHeader(transport.Header{"a": {"1"}}))
		c.put(s.Send, "1")
		require.Equal(c, "1", c.item(in.Recv))
		require.NoError(c, in.SetHeader(transport.Header{"b": {"2"}}))
		c.put(in.Send, "2")
		c.sameHeader(transport.Header{"a": {"1"}, "b": {"2"}}, c.header(s))
		require.Equal(c, "2", c.item(s.Recv))
	},
}, {
	name:  "streams/header-at-end",
	rule:  "Header waits for the first item or the end, and does not fail for a stream that ended with an error alone.",
	needs: []need{streams},
	run: func(c *env) {
		s, in := c.stream()
		waiting := async(func() transport.Header { return c.header(s) })
		pending(c, waiting, "Header before the acceptor has said anything")
		require.NoError(c, in.SetHeader(transport.Header{"a": {"1"}}))
		in.SetTrailer(transport.Header{"t": {"2"}})
		require.NoError(c, in.End(transport.Errorf(transport.CodeNotFound, "none")))
		c.sameHeader(transport.Header{"a": {"1"}}, await(c, waiting, "Header"))
		_, err := s.Recv()
		c.code(err, transport.CodeNotFound)
		c.sameHeader(transport.Header{"t": {"2"}}, s.Trailer())
	},
}, {
	name:  "streams/errors",
	rule:  "End(err) ends the stream with err's public part, after the items before it.",
	needs: []need{streams},
	run: func(c *env) {
		for _, sent := range []error{rich(transport.CodeAborted), fmt.Errorf(secret+": %w", rich(transport.CodeNotFound)),
			errors.New(secret), transport.CodeInternal} {
			s, in := c.stream()
			c.put(in.Send, "before")
			require.NoError(c, in.End(sent))
			require.Equal(c, "before", c.item(s.Recv))
			_, err := s.Recv()
			var e *transport.Error
			require.ErrorAs(c, err, &e)
			require.True(c, e.Remote)
			c.sameError(transport.Public(sent), e)
			require.NotContains(c, fmt.Sprintf("%v %+v", e, *e), secret)
			_, again := s.Recv()
			require.Equal(c, err, again, "the error stays")
			require.NoError(c, in.End(nil), "the first End counts")
			c.ended(in)
		}
	},
}, {
	name:  "streams/send-after-end",
	rule:  "Once the acceptor has ended, Send is io.EOF and Recv has the status.",
	needs: []need{streams},
	run: func(c *env) {
		for _, status := range []error{nil, transport.Errorf(transport.CodeResourceExhausted, "enough")} {
			s, in := c.stream()
			c.put(s.Send, "first")
			require.Equal(c, "first", c.item(in.Recv))
			require.NoError(c, in.End(status))
			c.eof(s)
			_, err := s.Recv()
			if status == nil {
				require.Equal(c, io.EOF, err)
			} else {
				c.code(err, transport.CodeResourceExhausted)
			}
			require.Equal(c, io.EOF, s.Send(&transport.Message{}), "still")
		}
	},
}, {
	name:  "streams/back-pressure",
	rule:  "A sender whose peer does not read blocks within bounds, and loses nothing.",
	needs: []need{streams},
	run: func(c *env) {
		const size, bound = 32 << 10, 2048 // 64 MiB
		s, in := c.stream()
		for _, dir := range []struct {
			send func(*transport.Message) error
			recv func() (*transport.Message, error)
		}{{s.Send, in.Recv}, {in.Send, s.Recv}} {
			var sent atomic.Int64
			stop := make(chan bool)
			done := async(func() error {
				for i := 0; i < bound; i++ {
					select {
					case <-stop:
						return nil
					default:
					}
					body := make([]byte, size)
					copy(body, strconv.Itoa(i))
					if err := dir.send(&transport.Message{Body: body}); err != nil {
						return err
					}
					sent.Add(1)
				}
				return nil
			})
			for before := int64(-1); before < sent.Load(); time.Sleep(max(c.Quiet, 100*time.Millisecond)) {
				before = sent.Load()
			}
			n := sent.Load()
			require.Less(c, n, int64(bound), "items of %d bytes sent and not received", size)
			close(stop)
			read := func(from, to int64) {
				for i := from; i < to; i++ {
					m := c.received(dir.recv)
					want := strconv.FormatInt(i, 10)
					require.Len(c, m.Body, size)
					require.Equal(c, want, strings.TrimRight(string(m.Body[:16]), "\x00"))
				}
			}
			read(0, n)
			require.NoError(c, await(c, done, "the sender"))
			read(n, sent.Load()) // the one that blocked, if it did not see the end before
		}
	},
}, {
	name:  "streams/slow-stream",
	rule:  "A stream that is not read holds up no other stream.",
	needs: []need{streams},
	run: func(c *env) {
		stuck, _ := c.stream()
		full := async(func() error {
			for {
				if err := stuck.Send(&transport.Message{Body: make([]byte, 32<<10)}); err != nil {
					return err
				}
			}
		})
		pending(c, full, "the sender without a reader")
		s, in := c.stream()
		c.put(s.Send, "1", "2")
		require.Equal(c, "1", c.item(in.Recv))
		c.put(in.Send, "3")
		require.Equal(c, "3", c.item(s.Recv))
		require.NoError(c, stuck.Close())
		require.Error(c, await(c, full, "Send after Close"))
	},
}, {
	name:  "streams/opener-leaves",
	rule:  "Close of the opener ends the acceptor's context and unblocks both sides.",
	needs: []need{streams},
	run: func(c *env) {
		s, in := c.stream()
		c.put(s.Send, "item")
		require.Equal(c, "item", c.item(in.Recv))
		theirs := async(func() error { _, err := in.Recv(); return err })
		ours := async(func() error { _, err := s.Recv(); return err })
		pending(c, theirs, "Recv of the acceptor")
		require.NoError(c, s.Close())
		require.Error(c, await(c, ours, "Recv of the opener after its Close"))
		c.ended(in)
		err := await(c, theirs, "Recv of the acceptor after the opener's Close")
		require.Error(c, err)
		require.NotEqual(c, io.EOF, err, "abandoning is no clean end")
		c.unwanted(in)
		require.NoError(c, s.Close(), "twice")
		require.Error(c, s.Send(&transport.Message{}))
		in.End(nil)
	},
}, {
	name:  "streams/acceptor-leaves",
	rule:  "End unblocks an opener that sends or receives.",
	needs: []need{streams},
	run: func(c *env) {
		s, in := c.stream()
		sending := async(func() error {
			for {
				if err := s.Send(&transport.Message{Body: make([]byte, 32<<10)}); err != nil {
					return err
				}
			}
		})
		receiving := async(func() error { _, err := s.Recv(); return err })
		pending(c, sending, "Send without a reader")
		pending(c, receiving, "Recv without a sender")
		require.NoError(c, in.End(transport.Errorf(transport.CodeAborted, "enough")))
		require.Equal(c, io.EOF, await(c, sending, "Send after the end"))
		c.code(await(c, receiving, "Recv after the end"), transport.CodeAborted)
	},
}, {
	name:  "streams/close-after-end",
	rule:  "Close after a clean end does nothing, whatever is received stays received.",
	needs: []need{streams},
	run: func(c *env) {
		s, in := c.stream()
		in.SetTrailer(transport.Header{"t": {"1"}})
		require.NoError(c, in.End(nil))
		c.items(s.Recv)
		require.NoError(c, s.Close())
		require.NoError(c, s.Close())
		_, err := s.Recv()
		require.Equal(c, io.EOF, err)
		require.Equal(c, "1", s.Trailer().Get("t"))
	},
}, {
	name:  "streams/close-concurrently",
	rule:  "Close is safe at any time, from any goroutine, while others send and receive.",
	needs: []need{streams},
	run: func(c *env) {
		for range 10 {
			s, in := c.stream()
			var done []<-chan bool
			for _, f := range []func() error{
				func() error { return s.Send(&transport.Message{Body: []byte("x")}) },
				func() error { _, err := s.Recv(); return err },
				func() error { return in.Send(&transport.Message{Body: []byte("x")}) },
				func() error { _, err := in.Recv(); return err },
			} {
				done = append(done, async(func() bool {
					for f() == nil {
					}
					return true
				}))
			}
			for range 3 {
				done = append(done, async(func() bool { s.Close(); s.Trailer(); return true }))
			}
			for _, d := range done {
				await(c, d, "a side of a closed stream")
			}
			in.End(nil)
		}
	},
}, {
	name:  "streams/context",
	rule:  "The ctx of Open lives as long as the stream: when it ends, so does the stream on both sides.",
	needs: []need{streams},
	run: func(c *env) {
		topic := c.topic()
		l := c.accept(topic)
		ctx, cancel := context.WithCancel(c.ctx)
		defer cancel()
		s := c.open(ctx, topic, nil)
		in := c.incoming(l)
		require.NoError(c, in.Context().Err())
		_, has := in.Context().Deadline()
		require.False(c, has, "there is no deadline")
		ours := async(func() error { _, err := s.Recv(); return err })
		pending(c, ours, "Recv")
		cancel()
		require.Equal(c, transport.CodeCanceled, transport.CodeOf(await(c, ours, "Recv after the end of the ctx")))
		c.ended(in)
		c.unwanted(in)
	},
}, {
	name:  "streams/deadline",
	rule:  "The deadline of Open's ctx reaches the acceptor's context, and ends the stream.",
	needs: []need{streams},
	run: func(c *env) {
		topic := c.topic()
		l := c.accept(topic)
		limit := min(c.Latency/2, time.Second) // in which it must arrive
		ctx, cancel := context.WithTimeout(c.ctx, limit)
		defer cancel()
		start := time.Now()
		s := c.open(ctx, topic, nil)
		in := c.incoming(l)
		deadline, ok := in.Context().Deadline()
		require.True(c, ok, "the acceptor's context has no deadline")
		require.WithinDuration(c, start.Add(limit), deadline, c.Latency)
		ours := async(func() error { _, err := s.Recv(); return err })
		c.code(await(c, ours, "Recv"), transport.CodeDeadlineExceeded)
		c.ended(in)
	},
}, {
	name:  "streams/many",
	rule:  "Many streams at once do not disturb each other, and each goes to one acceptor.",
	needs: []need{streams},
	run: func(c *env) {
		const n, items = 40, 20
		topic := c.topic()
		for range 2 {
			c.serveStreams(c.accept(topic), func(_ context.Context, in transport.Incoming) error {
				for {
					m, err := in.Recv()
					if err == io.EOF {
						in.SetTrailer(transport.Header{"n": in.Header().Values("n")})
						return nil
					}
					if err != nil {
						return err
					}
					if err := in.Send(&transport.Message{Body: m.Body}); err != nil {
						return err
					}
				}
			})
		}
		var done []<-chan bool
		for i := range n {
			done = append(done, async(func() bool {
				s := c.open(c.ctx, topic, transport.Header{"n": {strconv.Itoa(i)}})
				for j := range items {
					body := fmt.Sprint(i, " ", j)
					c.put(s.Send, body)
					require.Equal(c, body, c.item(s.Recv))
				}
				require.NoError(c, s.CloseSend())
				c.items(s.Recv)
				require.Equal(c, strconv.Itoa(i), s.Trailer().Get("n"))
				return true
			}))
		}
		for _, d := range done {
			await(c, d, "a stream")
		}
	},
}, {
	name:  "streams/no-listener",
	rule:  "A stream that nobody accepts fails at once with Unavailable or Unimplemented, at Open or at the first Recv.",
	needs: []need{streams},
	run: func(c *env) {
		topic := c.topic()
		c.unaccepted(topic)
		l := c.accept(topic)
		c.open(c.ctx, topic, nil)
		in := c.incoming(l)
		require.NoError(c, in.End(nil))
		require.NoError(c, l.Close())
		c.unaccepted(topic)
	},
}, {
	name:  "streams/listener-closes",
	rule:  "Close of a Listener ends Next with io.EOF and what was not handed out with an error; what is out goes on.",
	needs: []need{streams},
	run: func(c *env) {
		topic := c.topic()
		l := c.accept(topic)
		s := c.open(c.ctx, topic, nil)
		in := c.incoming(l)
		next := async(func() error { _, err := l.Next(c.ctx); return err })
		pending(c, next, "Next without a stream")
		require.NoError(c, l.Close())
		require.Equal(c, io.EOF, await(c, next, "Next after Close"))
		require.NoError(c, l.Close(), "twice")
		_, err := l.Next(c.ctx)
		require.Equal(c, io.EOF, err)
		c.put(s.Send, "still")
		require.Equal(c, "still", c.item(in.Recv))
		c.put(in.Send, "here")
		require.Equal(c, "here", c.item(s.Recv))
		require.NoError(c, in.End(nil))
		c.items(s.Recv)

		topic = c.topic()
		l = c.accept(topic)
		waiting := async(func() error {
			s, err := c.Sender.Open(c.ctx, topic, nil)
			if err == nil {
				defer s.Close()
				_, err = s.Recv()
			}
			return err
		})
		time.Sleep(c.Quiet / 5) // so that it waits
		require.NoError(c, l.Close())
		err = await(c, waiting, "a stream that waited when the listener closed")
		require.Error(c, err)
		require.NotEqual(c, io.EOF, err)
	},
}, {
	name:  "streams/next-context",
	rule:  "The ctx of a Listener's Next bounds that call only.",
	needs: []need{streams},
	run: func(c *env) {
		topic := c.topic()
		l := c.accept(topic)
		ctx, cancel := context.WithTimeout(c.ctx, c.Quiet)
		defer cancel()
		_, err := l.Next(ctx)
		require.ErrorIs(c, err, context.DeadlineExceeded)
		s := c.open(c.ctx, topic, nil)
		ctx, cancel = c.patient()
		in, err := l.Next(ctx)
		require.NoError(c, err)
		cancel()
		c.calm()
		require.NoError(c, in.Context().Err(), "the stream does not live in Next's ctx")
		c.put(s.Send, "on")
		require.Equal(c, "on", c.item(in.Recv))
	},
}, {
	name:  "streams/peer",
	rule:  "Who accepts a stream finds the Peer in its context.",
	needs: []need{streams, when("Peer", func(f *Fixture) bool { return f.Peer })},
	run: func(c *env) {
		topic := c.topic()
		l := c.accept(topic)
		sent := transport.Peer{ID: "somebody", Protocol: "test"}
		c.open(transport.WithPeer(c.ctx, sent), topic, nil)
		got, ok := transport.PeerFrom(c.incoming(l).Context())
		require.True(c, ok, "there is no Peer")
		if !c.Remote {
			require.Equal(c, sent, got)
		}
	},
}, {
	name:  "streams/served",
	rule:  "Under ServeStreams the handler's result ends the stream; a panic is CodeInternal without text.",
	needs: []need{streams},
	run: func(c *env) {
		topic := c.topic()
		c.serveStreams(c.accept(topic), func(_ context.Context, in transport.Incoming) error {
			m, err := in.Recv()
			if err != nil {
				return err
			}
			switch string(m.Body) {
			case "panic":
				panic(secret)
			case "fail":
				return fmt.Errorf(secret+": %w", transport.Errorf(transport.CodeNotFound, "public"))
			}
			return nil
		})
		for body, want := range map[string]transport.Code{"panic": transport.CodeInternal, "fail": transport.CodeNotFound} {
			s := c.open(c.ctx, topic, nil)
			c.put(s.Send, body)
			_, err := s.Recv()
			c.code(err, want)
			require.NotContains(c, fmt.Sprintf("%+v", err), secret)
		}
		s := c.open(c.ctx, topic, nil)
		c.put(s.Send, "fine")
		c.items(s.Recv)
	},
}, {
	name:  "streams/sizes",
	rule:  "An item may fill the limit exactly; one byte more is ResourceExhausted at Send, and the stream goes on.",
	needs: []need{streams},
	run: func(c *env) {
		s, in := c.stream()
		for _, dir := range []struct {
			send func(*transport.Message) error
			recv func() (*transport.Message, error)
		}{{s.Send, in.Recv}, {in.Send, s.Recv}} {
			c.code(dir.send(&transport.Message{Body: make([]byte, c.MaxBytes+1)}), transport.CodeResourceExhausted)
			sent := async(func() error { return dir.send(&transport.Message{Body: make([]byte, c.MaxBytes)}) })
			require.Len(c, c.received(dir.recv).Body, c.MaxBytes)
			require.NoError(c, await(c, sent, "Send"))
		}
	},
}}

// open opens a stream; it is closed when the case is over.
func (c *env) open(ctx context.Context, topic string, h transport.Header) transport.Stream {
	c.Helper()
	s, err := c.Sender.Open(ctx, topic, h)
	require.NoError(c, err, "Open %q", topic)
	require.NotNil(c, s)
	c.Cleanup(func() { s.Close() })
	return s
}

// incoming returns the next stream, which must come.
func (c *env) incoming(l transport.Listener) transport.Incoming {
	c.Helper()
	ctx, cancel := c.patient()
	defer cancel()
	in, err := l.Next(ctx)
	require.NoError(c, err, "Next of the listener")
	require.NotNil(c, in)
	c.Cleanup(func() { in.End(nil) })
	return in
}

// stream returns both ends of a new stream.
func (c *env) stream() (transport.Stream, transport.Incoming) {
	c.Helper()
	topic := c.topic()
	l := c.accept(topic)
	s := c.open(c.ctx, topic, nil)
	return s, c.incoming(l)
}

// put sends items.
func (c *env) put(send func(*transport.Message) error, bodies ...string) {
	c.Helper()
	for _, body := range bodies {
		require.NoError(c, send(&transport.Message{Body: []byte(body)}), "Send")
	}
}

// received returns the next item, which must come.
func (c *env) received(recv func() (*transport.Message, error)) *transport.Message {
	c.Helper()
	r := await(c, async(func() (r result) { r.reply, r.err = recv(); return r }), "Recv")
	require.NoError(c, r.err, "Recv")
	require.NotNil(c, r.reply)
	return r.reply
}

func (c *env) item(recv func() (*transport.Message, error)) string {
	c.Helper()
	return string(c.received(recv).Body)
}

// items receives these items and then the clean end.
func (c *env) items(recv func() (*transport.Message, error), bodies ...string) {
	c.Helper()
	for _, body := range bodies {
		require.Equal(c, body, c.item(recv))
	}
	err := await(c, async(func() error { _, err := recv(); return err }), "Recv at the end")
	require.Equal(c, io.EOF, err, "a clean end")
}

// ended waits for the end of the acceptor's context.
func (c *env) ended(in transport.Incoming) {
	c.Helper()
	await(c, in.Context().Done(), "the end of the acceptor's context")
}

// eof sends until that fails: the news of the end may take a moment.
func (c *env) eof(s transport.Stream) {
	c.Helper()
	err := await(c, async(func() error {
		for {
			if err := s.Send(&transport.Message{Body: []byte("late")}); err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
		}
	}), "Send after the end")
	require.Equal(c, io.EOF, err)
}

// unwanted sends until that fails.
func (c *env) unwanted(in transport.Incoming) {
	c.Helper()
	err := await(c, async(func() error {
		for {
			if err := in.Send(&transport.Message{Body: []byte("unwanted")}); err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
		}
	}), "Send of the acceptor after the opener has gone")
	require.Error(c, err)
}

func (c *env) header(s transport.Stream) transport.Header {
	c.Helper()
	type got struct {
		h   transport.Header
		err error
	}
	g := await(c, async(func() (g got) { g.h, g.err = s.Header(); return g }), "Header")
	require.NoError(c, g.err)
	return g.h
}

// unaccepted checks that a stream fails at once.
func (c *env) unaccepted(topic string) {
	c.Helper()
	c.atOnce("the failure of a stream without an acceptor", func() {
		err := await(c, async(func() error {
			s, err := c.Sender.Open(c.ctx, topic, nil)
			if err == nil {
				defer s.Close()
				_, err = s.Recv()
			}
			return err
		}), "a stream without an acceptor")
		require.Contains(c, []transport.Code{transport.CodeUnavailable, transport.CodeUnimplemented}, transport.CodeOf(err), "%v", err)
	})
}
