package amqpx

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strconv"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/intermodal-go/intermodal/transport"
)

// A cursor is a position in a stream: right after or right before the message at an offset. Its text is
//
//	a3Jx0c1fQ2mYkZ8rT-4711
//
// The first letter says after or before (a, b). Then comes a hash, in 16 characters of unpadded base64url: over the
// topic of the subscription, the name of the stream, and what the broker has at that offset. To go on from a cursor one
// reads at its offset, and the first message must have that hash. So a message that was evicted, a stream that was made
// anew, a cursor of another topic, namespace or broker, and one that somebody made up are all found.
type cursor struct {
	before bool
	sum    sum
	offset int64
}

// A sum is the hash of a message at its place.
type sum [12]byte

// sumLen is the length of its text.
const sumLen = 16

// sumOf returns the hash of the message d in the stream, as a subscription to topic sees it.
func sumOf(topic, stream string, d *amqp.Delivery) (s sum) {
	h := sha256.New()
	var n [8]byte
	for _, part := range [...]string{topic, stream, d.Exchange, d.RoutingKey, d.MessageId} {
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	if !d.Timestamp.IsZero() {
		binary.BigEndian.PutUint64(n[:], uint64(d.Timestamp.Unix()))
		h.Write(n[:])
	}
	h.Write(d.Body)
	var full [sha256.Size]byte
	copy(s[:], h.Sum(full[:0]))
	return s
}

func (c cursor) String() string {
	b := make([]byte, 0, 1+sumLen+1+20)
	if c.before {
		b = append(b, 'b')
	} else {
		b = append(b, 'a')
	}
	b = base64.RawURLEncoding.AppendEncode(b, c.sum[:])
	b = append(b, '-')
	return string(strconv.AppendInt(b, c.offset, 10))
}

// errLost is what a cursor gets whose message is not there.
var errLost = transport.Errorf(transport.CodeOutOfRange,
	"the cursor is gone from the history, or is none of this topic's")

// parseCursor reads what String writes, and nothing else.
func parseCursor(text string) (c cursor, err error) {
	if len(text) < 1+sumLen+2 || len(text) > 1+sumLen+1+19 || text[0] != 'a' && text[0] != 'b' || text[1+sumLen] != '-' {
		return c, errLost
	}
	c.before = text[0] == 'b'
	n, err := base64.RawURLEncoding.Strict().Decode(c.sum[:], []byte(text[1:1+sumLen]))
	if err != nil || n != len(c.sum) { // it skips line ends
		return c, errLost
	}
	digits := text[1+sumLen+1:]
	c.offset, err = strconv.ParseInt(digits, 10, 64)
	if err != nil || digits[0] < '0' || digits[0] == '0' && len(digits) > 1 {
		return c, errLost
	}
	return c, nil
}
