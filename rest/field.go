package rest

import (
	"net/url"

	"github.com/intermodal-go/intermodal/transport"
)

// fieldID is the HTTP field with the ID of a call's message, escaped as in a path: an ID may be any printable UTF-8, a
// field only ASCII. It is not part of the message's header. Events have their ID in ce-id.
const (
	fieldID = "Intermodal-Id"
	keyID   = "intermodal-id"
)

func escapeID(id string) string { return url.PathEscape(id) }

// unescapeID returns "" for what is no legal ID: then the message gets a new one, as without the field.
func unescapeID(v string) string {
	id, err := url.PathUnescape(v)
	if err != nil || transport.CheckID(id) != nil {
		return ""
	}
	return id
}
