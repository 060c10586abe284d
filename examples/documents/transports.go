package main

import (
	"context"
	"errors"
	"net"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/transport/transporttest/pipe"
)

// ends are a transport as two programs see it: the one that offers the service, and the one that uses it.
type ends struct {
	service transport.Transport
	client  transport.Transport
	close   func() error
}

// A route is one way to connect the two. Each protocol is one line here and its constructors below; nothing else in
// this program changes.
type route struct {
	name string
	dial func(ctx context.Context) (ends, error)
}

var routes = []route{
	{"memory", memory},
	{"pipe over TCP", clientOverTCP},
	{"pipe over TCP twice", bothOverTCP},
}

// memory is both programs in one process.
func memory(context.Context) (ends, error) {
	bus := mem.New(nil)
	return ends{bus, bus, bus.Close}, nil
}

// clientOverTCP is a service that listens, and a program that uses it.
func clientOverTCP(ctx context.Context) (ends, error) {
	bus, dial, stop, err := listen()
	if err != nil {
		return ends{}, err
	}
	client, err := dial(ctx)
	if err != nil {
		return ends{}, errors.Join(err, stop())
	}
	return ends{bus, client, func() error { return errors.Join(client.Close(), stop()) }}, nil
}

// bothOverTCP has the workers on a connection as well: they need no address of their own, and what stands in the middle
// only passes messages on.
func bothOverTCP(ctx context.Context) (ends, error) {
	_, dial, stop, err := listen()
	if err != nil {
		return ends{}, err
	}
	service, err := dial(ctx)
	if err != nil {
		return ends{}, errors.Join(err, stop())
	}
	client, err := dial(ctx)
	if err != nil {
		return ends{}, errors.Join(err, service.Close(), stop())
	}
	return ends{service, client, func() error { return errors.Join(client.Close(), service.Close(), stop()) }}, nil
}

// listen puts a bus on the loopback.
func listen() (bus *mem.Bus, dial func(context.Context) (*pipe.Client, error), stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, nil, err
	}
	bus = mem.New(nil)
	server := pipe.NewServer(bus, nil)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	dial = func(ctx context.Context) (*pipe.Client, error) {
		var d net.Dialer
		nc, err := d.DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		return pipe.NewClient(nc, nil), nil
	}
	stop = func() error { return errors.Join(server.Close(), <-served, bus.Close()) }
	return bus, dial, stop, nil
}
