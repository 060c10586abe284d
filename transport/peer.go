package transport

import (
	"context"
	"time"
)

// A Peer is who is on the other side. Servers put it into the context of what they ask of their transport, and in
// process it reaches the handler; a broker carries none.
type Peer struct {
	ID       string    // who it is, as Authenticate found out; "" if nobody asked
	Addr     string    // network address, for logs
	Protocol string    // "rest", "ws", …
	Header   Header    // credentials, cookies and connection fields, which never stand in Message.Header
	Expires  time.Time // when the credentials do; zero: never
	Conn     any       // *tls.ConnectionState, or what the transport documents
}

type peerKey struct{}

// WithPeer returns ctx with p. It is for implementers of servers.
func WithPeer(ctx context.Context, p Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// PeerFrom returns the Peer in ctx, if there is one.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}
