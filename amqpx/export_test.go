package amqpx

import (
	"maps"
	"slices"
)

// Declared returns the names of all groups and levels that the client has declared.
func (c *Client) Declared() []string {
	c.topology.mu.Lock()
	defer c.topology.mu.Unlock()
	return slices.Sorted(maps.Keys(c.topology.known))
}

// SetLag changes how many messages a broadcast may be behind.
func (c *Client) SetLag(n int) { c.topology.lag = n }

// CallQueue returns the queue of an operation's calls.
func (c *Client) CallQueue(topic string) string { return c.topology.callQueue(topic) }

// CallArgs are its arguments.
var CallArgs = callArgs

// LogQueue returns the stream that keeps the topics of a pattern.
func (c *Client) LogQueue(pattern string) string { return c.topology.logQueue(pattern) }

// RoundUp is how long a message waits.
var RoundUp = roundUp
