package transport

import "context"

// A Stream is the opening side of a stream of messages in both directions. One goroutine may send while another
// receives.
type Stream interface {
	// Send sends an item and takes ownership of m. It blocks on flow control. io.EOF means that the peer has ended the
	// stream: Recv tells why. An item needs no ID and no topic; whether an ID arrives depends on the protocol.
	Send(m *Message) error
	// CloseSend ends the sending direction; receiving goes on.
	CloseSend() error
	// Recv returns the next item; io.EOF after a clean end; any other error carries its Code. Either stays.
	Recv() (*Message, error)
	// Header waits for the acceptor's header, which comes with its first item or its end. It may be nil.
	Header() (Header, error)
	// Trailer is what the acceptor said at the end; nil before Recv returned its error.
	Trailer() Header
	// Close abandons the stream. It is safe at any time, from any goroutine, and twice; it unblocks Send and Recv, and
	// the acceptor's context ends. After a clean end it does nothing.
	Close() error
}

// A Listener hands out the streams that peers open. Safe for concurrent use.
type Listener interface {
	// Next waits for the next stream. Its errors are those of [Subscription].Next.
	Next(ctx context.Context) (Incoming, error)
	// Close stops taking streams. Those that are out go on.
	Close() error
}

// Incoming is the accepting side of a stream. One goroutine may send while another receives.
type Incoming interface {
	// Context ends when the stream does, by the peer's doing or ours. It has the opener's deadline and the [Peer].
	Context() context.Context
	Topic() string
	// Header is the opener's; read-only.
	Header() Header
	// Send sends an item and takes ownership of m. It blocks on flow control.
	Send(m *Message) error
	// Recv returns the next item; io.EOF once the opener has closed its side; any other error carries its Code.
	Recv() (*Message, error)
	// SetHeader adds to the header, which goes out with the first Send or the end; after that it is
	// CodeFailedPrecondition.
	SetHeader(Header) error
	// SetTrailer adds to the trailer.
	SetTrailer(Header)
	// End ends the stream: cleanly for nil, else with err, of which the peer sees the [Public] part. The first call
	// counts.
	End(err error) error
}

// A StreamHandler serves one stream. Returning ends it, cleanly or with the error. It must be safe for concurrent use.
type StreamHandler func(ctx context.Context, s Incoming) error
