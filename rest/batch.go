package rest

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

// Limits of one batch. A server's are 1000 events and 1 MiB, unless it was given others.
const (
	maxBatchEvents = 500
	maxBatchBytes  = 256 << 10
)

// headerFailed is a header of a batch's error: the indexes of the events that failed, with spaces between them. All
// others were accepted. Without it, none was, or the error says that nobody knows.
const headerFailed = "failed"

// PublishAll publishes ms in order. Neighbours of one topic travel together, as a JSON batch of CloudEvents, if the topic
// has no [Route]; those with an idempotency-key, or that are large, alone. It does not stop at an error.
//
// Where a batch failed the result of each event says whether it did; the error is that of the first. If the answer does
// not tell them apart, all have the same error, of which the Reason is OUTCOME_UNKNOWN if some may have been accepted.
func (c *Client) PublishAll(ctx context.Context, ms ...*transport.Message) []error {
	errs := make([]error, len(ms))
	for i := 0; i < len(ms); {
		n, body := c.batch(ms[i:])
		if n < 2 {
			errs[i] = c.Publish(ctx, ms[i])
			i++
			continue
		}
		copy(errs[i:i+n], c.publishBatch(ctx, ms[i].Topic, n, body))
		i += n
	}
	return errs
}

// batch returns how many of ms can travel together, from the first one on, and the body that they make.
func (c *Client) batch(ms []*transport.Message) (n int, body []byte) {
	for n < min(len(ms), maxBatchEvents) {
		m := ms[n]
		if check(m, c.maxBytes) != nil || m.Topic != ms[0].Topic || m.Header.Get(transport.HeaderIdempotencyKey) != "" ||
			m.Size() > maxBatchBytes/4 || len(body) > maxBatchBytes || c.table.find(m.Topic, true) != nil {
			break
		}
		open := byte(',')
		if n == 0 {
			open = '['
		}
		body = wire.AppendEvent(append(body, open), m)
		n++
	}
	return n, append(body, ']')
}

// publishBatch sends a batch of n events and returns the result of each.
func (c *Client) publishBatch(ctx context.Context, topic string, n int, body []byte) []error {
	errs := make([]error, n)
	u := *c.base
	err := join(&u, "/topics/"+url.PathEscape(topic))
	if err == nil {
		q := &request{method: http.MethodPost, url: &u, header: c.newHeader(&u, 4), body: body}
		q.header["Content-Type"] = []string{wire.ContentTypeEvents}
		_, err = c.do(ctx, c.finish(q, false))
	}
	if err == nil {
		return errs
	}
	if failed, ok := failures(err); ok {
		for _, i := range failed {
			if i < n {
				errs[i] = err
			}
		}
		return errs
	}
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// failures returns the indexes in a batch's error; it is false if there are none.
func failures(err error) (failed []int, ok bool) {
	e := transport.Public(err)
	for s := range strings.FieldsSeq(e.Header.Get(headerFailed)) {
		i, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return nil, false
		}
		failed = append(failed, int(i))
	}
	return failed, len(failed) > 0
}
