package rest

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

const (
	maxWait       = 30 * time.Second // that one request for a result asks the server to hold it
	cancelTimeout = 5 * time.Second  // to delete a result that nobody waits for any more
)

// result waits for the result of q, which the server has put off with the answer a: it asks at the Location until that is
// no longer 202. When ctx ends it deletes it.
func (c *Client) result(ctx context.Context, q *request, a *answer) (*answer, error) {
	u, err := c.monitorURL(q.url, a)
	if err != nil {
		return nil, err
	}
	deferred := u
	for n := 1; ; n++ {
		ask := c.follow(q.m, u)
		ask.monitor = true
		wait := maxWait
		if deadline, ok := ctx.Deadline(); ok {
			wait = min(wait, time.Until(deadline))
		}
		ask.header["Prefer"] = []string{"wait=" + strconv.Itoa(int(max(wait, 0)/time.Second))}
		asked := time.Now()
		a, err = c.send(ctx, ask)
		if err == nil && a.status == http.StatusSeeOther {
			if u, err = c.monitorURL(u, a); err == nil {
				a, err = c.send(ctx, c.follow(q.m, u))
			}
			if ctx.Err() != nil {
				c.abandon(ctx, deferred)
			}
			return a, err
		}
		switch {
		case ctx.Err() != nil:
			c.abandon(ctx, deferred)
			return nil, ctx.Err()
		case err != nil:
			return a, err
		case a.status != http.StatusAccepted:
			return a, nil
		}
		// A server that held the request is asked again at once, one that did not is left alone for a while.
		pause := max(min(wait, time.Second), wire.RetryAfter(a.header)) - time.Since(asked)
		if pause > 0 && sleep(ctx, pause) != nil {
			c.abandon(ctx, deferred)
			return nil, ctx.Err()
		}
	}
}

// monitorURL returns the Location of an answer. Credentials and cancellations go there, so it must be where they belong.
func (c *Client) monitorURL(from *url.URL, a *answer) (*url.URL, error) {
	u, err := from.Parse(a.header.Get("Location"))
	if err != nil || !c.isHome(u) {
		return nil, &transport.Error{Code: transport.CodeFailedPrecondition, Reason: transport.ReasonOutcomeUnknown,
			Message: "the location of the result is on another origin, or no URL", Cause: err}
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	return u, nil
}

// abandon tells the server that nobody waits for the result any more. It does not wait; Shutdown does.
func (c *Client) abandon(ctx context.Context, u *url.URL) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	f := &flight{cancel: cancel}
	c.flights[f] = struct{}{}
	c.wg.Add(1)
	go func() {
		defer c.end(f)
		c.roundTrip(ctx, &request{method: http.MethodDelete, url: u, header: c.newHeader(u, 2)}, 1)
	}()
}
