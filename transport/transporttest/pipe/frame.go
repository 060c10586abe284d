package pipe

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strings"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// maxHead bounds the head of a frame. A header has at most 16 KiB, and so have the header and the rest of an error; JSON
// may make each six times as long.
const maxHead = 512 << 10

// A frame is what the two ends send each other. What does not belong to its type is zero.
type frame struct {
	Type    string                     `json:"type"`
	ID      uint64                     `json:"id,omitempty"`      // of the operation
	For     uint64                     `json:"for,omitempty"`     // call, open: the respond or accept that they are for
	Topic   string                     `json:"topic,omitempty"`   // of whatever begins
	Options transport.SubscribeOptions `json:"options,omitzero"`  // subscribe, respond
	Timeout time.Duration              `json:"timeout,omitempty"` // call, open: the time that is left, in nanoseconds
	Message string                     `json:"message,omitempty"` // Message.ID
	Header  transport.Header           `json:"header,omitempty"`  // of the message, or the stream; done: the trailer
	Cursor  string                     `json:"cursor,omitempty"`  // active: the start; event: after it
	Attempt int                        `json:"attempt,omitempty"` // event
	Missed  uint64                     `json:"missed,omitempty"`  // event
	Tag     uint64                     `json:"tag,omitempty"`     // event, settle: the name of a delivery in a group
	N       int                        `json:"n,omitempty"`       // credit; active: the first credit
	Error   *wireError                 `json:"error,omitempty"`   // done, eof, settle
	Body    []byte                     `json:"-"`                 // follows the head
}

// wireError is what crosses of a transport.Error.
type wireError struct {
	Code       transport.Code     `json:"code"`
	Reason     string             `json:"reason,omitempty"`
	Message    string             `json:"message,omitempty"`
	Details    []transport.Detail `json:"details,omitempty"`
	RetryAfter time.Duration      `json:"retry_after,omitempty"`
	Header     transport.Header   `json:"header,omitempty"`
}

// publicError returns the part of err that crosses, nil for nil.
func publicError(err error) *wireError {
	p := transport.Public(err)
	if p == nil {
		return nil
	}
	size := len(p.Reason) + len(p.Message)
	for _, d := range p.Details {
		size += len(d.Type) + len(d.Value)
	}
	if size > transport.DefaultMaxHeaderBytes || p.Header.Check() != nil {
		p = &transport.Error{Code: p.Code, RetryAfter: p.RetryAfter} // better than no error at all
	}
	return &wireError{p.Code, p.Reason, p.Message, p.Details, p.RetryAfter, p.Header}
}

// err returns the error as received; nil if there is none.
func (f *frame) err() error {
	e := f.Error
	if e == nil {
		return nil
	}
	return transport.Public(&transport.Error{Code: e.Code, Reason: e.Reason, Message: e.Message, Details: e.Details,
		RetryAfter: e.RetryAfter, Header: e.Header})
}

// message returns the message in f.
func (f *frame) message() *transport.Message {
	return &transport.Message{ID: f.Message, Topic: f.Topic, Header: f.Header, Body: f.Body}
}

// put makes m the message in f.
func (f *frame) put(m *transport.Message) {
	f.Message, f.Topic, f.Header, f.Body = m.ID, m.Topic, m.Header, m.Body
}

// appendFrame appends f as it is on the wire.
func appendFrame(dst []byte, f *frame) ([]byte, error) {
	c := *f
	encode := func(v string) (string, error) { return base64.StdEncoding.EncodeToString([]byte(v)), nil }
	c.Header = mapBinary(f.Header, encode)
	if f.Error != nil {
		e := *f.Error
		e.Header = mapBinary(e.Header, encode)
		c.Error = &e
	}
	head, err := json.Marshal(&c)
	if err != nil {
		return dst, transport.Wrap(err, transport.CodeInternal, "the frame cannot be encoded")
	}
	if len(head) > maxHead {
		return dst, transport.Errorf(transport.CodeResourceExhausted, "the head of a frame has %d bytes, the limit is %d",
			len(head), maxHead)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(head)))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(f.Body)))
	dst = append(dst, head...)
	return append(dst, f.Body...), nil
}

// readFrame reads one frame. io.EOF is a clean end.
func readFrame(r io.Reader, maxBytes int) (*frame, error) {
	var sizes [8]byte
	if _, err := io.ReadFull(r, sizes[:]); err != nil {
		return nil, err
	}
	head, body := binary.BigEndian.Uint32(sizes[:4]), binary.BigEndian.Uint32(sizes[4:])
	if head > maxHead || int64(body) > int64(maxBytes) {
		return nil, errors.New("a frame is too large")
	}
	buf := make([]byte, head)
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, unexpected(err)
	}
	f := new(frame)
	if err := json.Unmarshal(buf, f); err != nil {
		return nil, err
	}
	if body > 0 {
		f.Body = make([]byte, body)
		if _, err := io.ReadFull(r, f.Body); err != nil {
			return nil, unexpected(err)
		}
	}
	return f, f.check(maxBytes)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// check decodes the binary values of a received frame and looks for what no end sends.
func (f *frame) check(maxBytes int) (err error) {
	decode := func(v string) (string, error) {
		b, e := base64.StdEncoding.DecodeString(v)
		if e != nil {
			err = errors.New("a binary value is not base64")
		}
		return string(b), e
	}
	f.Header = mapBinary(f.Header, decode)
	if f.Error != nil {
		f.Error.Header = mapBinary(f.Error.Header, decode)
		err = errors.Join(err, f.Error.Header.Check())
	}
	if f.N < 0 || len(f.Cursor) > transport.MaxCursorBytes {
		err = errors.Join(err, errors.New("a number or a cursor is out of range"))
	}
	return errors.Join(err, f.message().Check(maxBytes))
}

// mapBinary returns h with the values under -bin keys mapped, and h itself if there are none.
func mapBinary(h transport.Header, f func(string) (string, error)) transport.Header {
	var c transport.Header
	for k, vs := range h {
		if !strings.HasSuffix(k, "-bin") {
			continue
		}
		if c == nil {
			c = maps.Clone(h)
		}
		c[k] = make([]string, len(vs))
		for i, v := range vs {
			c[k][i], _ = f(v)
		}
	}
	if c == nil {
		return h
	}
	return c
}
