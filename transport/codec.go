package transport

import (
	"encoding/json"
	"errors"
	"mime"
	"strings"
)

// A Codec turns values into bytes and back. Safe for concurrent use.
type Codec interface {
	// ContentType is the media type, such as "application/json".
	ContentType() string
	Marshal(v any) ([]byte, error)
	// Unmarshal decodes data into v, a pointer. It must not retain data. An *Error it returns is shown to the peer, the
	// text of any other is not.
	Unmarshal(data []byte, v any) error
}

// JSON is the Codec of encoding/json: unknown members are ignored, and of repeated ones the last wins.
var JSON Codec = jsonCodec{}

type jsonCodec struct{}

func (jsonCodec) ContentType() string           { return "application/json" }
func (jsonCodec) Marshal(v any) ([]byte, error) { return json.Marshal(v) }

func (jsonCodec) Unmarshal(data []byte, v any) error {
	err := json.Unmarshal(data, v)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return Wrap(err, CodeInvalidArgument, "the body is not valid JSON, at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		// Without Go types, for which the peer has no use. They are also in the path to the member, where structs are
		// embedded: its last element is always the member's own name.
		if kind.Field == "" {
			return Wrap(err, CodeInvalidArgument, "the body cannot be a JSON %s", kind.Value)
		}
		member := kind.Field[strings.LastIndexByte(kind.Field, '.')+1:]
		return Wrap(err, CodeInvalidArgument, "the member %q cannot be a JSON %s, at byte %d", member, kind.Value, kind.Offset)
	}
	return err
}

// codecs are a contract's codecs: the first encodes, any decodes.
type codecs []Codec

func (cs codecs) first() Codec {
	if len(cs) == 0 {
		return JSON
	}
	return cs[0]
}

// find returns the codec for a content-type: the exact media type, else the one that a suffix such as +json names. A
// missing content-type is the first's.
func (cs codecs) find(contentType string) (Codec, error) {
	if contentType == "" || contentType == cs.first().ContentType() {
		return cs.first(), nil
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, Errorf(CodeInvalidArgument, "the content-type %q is malformed", contentType)
	}
	all := cs
	if len(all) == 0 {
		all = codecs{JSON}
	}
	for _, c := range all {
		if c.ContentType() == media {
			return c, nil
		}
	}
	if i := strings.LastIndexByte(media, '+'); i >= 0 {
		for _, c := range all {
			if strings.HasSuffix(c.ContentType(), "/"+media[i+1:]) {
				return c, nil
			}
		}
	}
	return nil, Errorf(CodeInvalidArgument, "the content-type %q is not accepted here", media)
}

// encode returns the message for v: with an ID and a header.
func encode(c Codec, topic string, v any) (*Message, error) {
	body, err := c.Marshal(v)
	if err != nil {
		return nil, Wrap(err, CodeInternal, "the value cannot be encoded as %s", c.ContentType())
	}
	return &Message{ID: NewID(), Topic: topic, Header: Header{HeaderContentType: {c.ContentType()}}, Body: body}, nil
}

// decode fills v from m and returns the codec that m is written in. An empty body without a content-type is the zero
// value: that is what an empty reply looks like.
func (cs codecs) decode(m *Message, v any) (Codec, error) {
	contentType := m.Header.Get(HeaderContentType)
	if len(m.Body) == 0 && contentType == "" {
		return cs.first(), nil
	}
	c, err := cs.find(contentType)
	if err != nil {
		return nil, err
	}
	if err := c.Unmarshal(m.Body, v); err != nil {
		var e *Error
		if !errors.As(err, &e) {
			err = Wrap(err, CodeInvalidArgument, "the body is not valid %s", c.ContentType())
		}
		return nil, err
	}
	return c, nil
}
