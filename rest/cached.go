package rest

import (
	"context"
	"crypto/sha256"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// cached answers q, a GET, from the cache, if need be after asking the server whether that is still right.
func (c *Client) cached(ctx context.Context, q *request) (*answer, error) {
	key, err := c.cacheKey(ctx, q)
	if err != nil {
		return nil, err
	}
	want := parseCacheControl(q.header["Cache-Control"])
	e, version := c.cache.get(key, q.header)
	if e != nil && e.usable(time.Now(), want) {
		return e.served(time.Now()), nil
	}
	if want.onlyIfCached {
		return nil, &transport.Error{Code: transport.CodeUnavailable, Reason: transport.ReasonNotSent,
			Message: "the reply is not in the cache", Header: transport.Header{wire.HeaderStatus: {"504"}}}
	}
	ask := q
	if e != nil && e.etag != "" {
		conditional := *q
		conditional.header = maps.Clone(q.header)
		conditional.header["If-None-Match"] = []string{e.etag}
		ask = &conditional
	}
	sent := time.Now()
	a, err := c.send(ctx, ask)
	if err == nil && a.status == http.StatusNotModified {
		if tag := a.header.Get("Etag"); tag == "" || strings.TrimPrefix(tag, "W/") == strings.TrimPrefix(e.etag, "W/") {
			a = e.refreshed(a.header)
		} else { // it is not about what is stored here
			sent = time.Now()
			a, err = c.send(ctx, q)
		}
	}
	if err != nil {
		if a != nil && a.status < 500 { // what was there is gone, or not for this caller
			c.cache.put(key, q.header, nil, version)
		}
		return a, err
	}
	var fresh *stored
	if !want.noStore {
		fresh = newStored(key, cachePath(q.url), q.header, a, sent, time.Now())
	}
	c.cache.put(key, q.header, fresh, version)
	return a, nil
}

// served returns the answer with its age (RFC 9111 section 5.1).
func (e *stored) served(now time.Time) *answer {
	h := maps.Clone(e.answer.header)
	h["Age"] = []string{strconv.Itoa(int(e.ageAt(now) / time.Second))}
	return &answer{status: e.answer.status, header: h, body: e.answer.body}
}

// cacheKey returns the URL with a digest of the credentials: the fields that are a peer's, and all that Authorize changes.
func (c *Client) cacheKey(ctx context.Context, q *request) (string, error) {
	r := (&http.Request{Method: q.method, URL: q.url, Host: q.url.Host, Header: q.header.Clone()}).WithContext(ctx)
	if err := c.sign(r); err != nil {
		return "", err
	}
	digest := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		values := r.Header[name]
		if !wire.PeerField(name) && slices.Equal(values, q.header[name]) {
			continue
		}
		io.WriteString(digest, name+"\x00")
		for _, v := range values {
			io.WriteString(digest, strconv.Itoa(len(v))+":"+v)
		}
	}
	return r.URL.String() + "\n" + string(digest.Sum(nil)), nil
}
