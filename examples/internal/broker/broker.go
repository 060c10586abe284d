// Package broker gives an example a part of a RabbitMQ broker to itself, and takes it back in the end.
//
// A program of yours needs none of this. It calls amqpx.Dial with a Namespace that stays the same, and its queues stay:
// they are durable so that they are there when the programs are not. But an example that has run shall leave nothing behind.
package broker

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/intermodal-go/intermodal/amqpx"
	"github.com/intermodal-go/intermodal/transport"
)

// A Namespace is one run of one example.
type Namespace struct {
	Name  string // what all names in it begin with; also that of its exchange
	url   string
	first string // the day on which it began
}

// New returns a new Namespace on the broker at url, for the program of this name.
func New(url, program string) *Namespace {
	return &Namespace{url: url, Name: program + "-" + transport.NewID(), first: day()}
}

// Dial connects to it. The clients must be shut down before Remove.
func (n *Namespace) Dial(ctx context.Context) (*amqpx.Client, error) {
	return amqpx.Dial(ctx, n.url, &amqpx.Options{Namespace: n.Name})
}

// Left is what clients leave on purpose when they are shut down.
type Left struct {
	Groups  [][2]string     // topic and name
	Delays  []time.Duration // of messages with the header delay
	Retries []time.Duration // between the attempts of groups
}

// Remove deletes what is left, by the names that package amqpx gives.
func (n *Namespace) Remove(ctx context.Context, left Left) error {
	conn, err := amqp.DialConfig(n.url, amqp.Config{Dial: func(network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return c, c.SetDeadline(time.Now().Add(10 * time.Second)) // of the handshake
	}})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.CloseDeadline(time.Now()) })() // amqp091 knows no ctx
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	var queues []string
	for _, group := range left.Groups {
		queues = append(queues, "group."+group[0]+"."+escape.Replace(group[1]))
	}
	for _, today := range []string{n.first, day()} {
		for _, d := range left.Delays {
			queues = append(queues, fmt.Sprintf("delay.%d.%s", d.Milliseconds(), today))
		}
		for _, d := range left.Retries {
			queues = append(queues, fmt.Sprintf("retry.%d.%s", d.Milliseconds(), today))
		}
	}
	for _, queue := range queues { // one that is not there counts as deleted
		if _, err := ch.QueueDelete(n.Name+"."+queue, false, false, false); err != nil {
			return err
		}
	}
	return ch.ExchangeDelete(n.Name, false, false)
}

// escape keeps the words of names apart, as amqpx does.
var escape = strings.NewReplacer("%", "%25", ".", "%2E")

// day is today as amqpx writes it.
func day() string { return time.Now().UTC().Format("20060102") }
