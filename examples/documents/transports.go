package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/intermodal-go/intermodal/rest"
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

// A route is one way to connect the two, and what can be done on it. Each protocol is one line here and its constructors below; nothing else in
// this program changes.
type route struct {
	name  string
	dial  func(ctx context.Context) (ends, error)
	modes []mode
}

var routes = []route{
	{"memory", memory, modes},
	{"pipe over TCP", clientOverTCP, modes},
	{"pipe over TCP twice", bothOverTCP, modes},
	{"REST over HTTP", overHTTP, append(slices.Clone(modes), mode{"call, deferred", callDeferred})},
}

// memory is both programs in one process.
func memory(context.Context) (ends, error) {
	bus := mem.New(nil)
	return ends{service: bus, client: bus, close: bus.Close}, nil
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
	return ends{service: bus, client: client, close: func() error { return errors.Join(client.Close(), stop()) }}, nil
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
	return ends{service: service, client: client, close: func() error {
		return errors.Join(client.Close(), service.Close(), stop())
	}}, nil
}

// resources are the service as HTTP shows it: to the server's mux, to the client's URLs, and to OpenAPI.
var resources = []rest.Route{
	rest.For(Process, "POST /documents:process"),
	rest.ForEvent(Submitted, "POST /documents/jobs"),
}

// overHTTP is a service with resources and verbs, and a program that calls and submits over HTTP. HTTP alone brings no
// results of jobs: the program subscribes to them over a second connection.
func overHTTP(ctx context.Context) (ends, error) {
	bus, dial, stop, err := listen()
	if err != nil {
		return ends{}, err
	}
	results, err := dial(ctx)
	if err != nil {
		return ends{}, errors.Join(err, stop())
	}
	stop = func(stop func() error) func() error {
		return func() error { return errors.Join(results.Close(), stop()) }
	}(stop)
	server, err := rest.NewServer(bus, &rest.Options{Routes: resources})
	if err != nil {
		return ends{}, errors.Join(err, stop())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return ends{}, errors.Join(err, stop())
	}
	web := &http.Server{Handler: server, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(l) }()
	client, err := rest.NewClient("http://"+l.Addr().String(), &rest.ClientOptions{Routes: resources})
	if err != nil {
		web.Close()
		<-served
		return ends{}, errors.Join(err, stop())
	}
	return ends{
		service: bus,
		client:  transport.Join(transport.Parts{Publisher: client, Caller: client, Subscriber: results}),
		close: func() error {
			ctx, cancel := context.WithTimeout(context.Background(), perDocument)
			defer cancel()
			err := errors.Join(client.Shutdown(ctx), server.Shutdown(ctx), web.Shutdown(ctx))
			<-served
			return errors.Join(err, stop())
		},
	}, nil
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
