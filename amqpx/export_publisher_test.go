package amqpx

import (
	"context"

	amqp "github.com/rabbitmq/amqp091-go"
)

// PublishMandatory publishes msg, which must reach a queue.
func (c *Client) PublishMandatory(ctx context.Context, exchange, key string, msg amqp.Publishing) error {
	return c.pub.publish(ctx, &outgoing{exchange: exchange, key: key, mandatory: true, msg: msg})
}
