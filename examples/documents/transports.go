package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/intermodal-go/intermodal/examples/internal/broker"
	"github.com/intermodal-go/intermodal/rest"
	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
	"github.com/intermodal-go/intermodal/transport/transporttest/pipe"
	"github.com/intermodal-go/intermodal/ws"
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
	{"pipe over TCP", client(listenTCP), modes},
	{"pipe over TCP twice", both(listenTCP), modes},
	{"WebSocket", client(listenWebSocket), modes},
	{"WebSocket twice", both(listenWebSocket), modes},
	{"REST over HTTP", overHTTP, append(slices.Clone(modes), mode{"call, deferred", callDeferred})},
	{"RabbitMQ", overRabbitMQ, modes},
}

// missing is the error of a route that needs what is not there, and says how to get it. The route is left out.
type missing string

func (m missing) Error() string { return string(m) }

// memory is both programs in one process.
func memory(context.Context) (ends, error) {
	bus := mem.New(nil)
	return ends{service: bus, client: bus, close: bus.Close}, nil
}

// A listener puts a bus on the loopback. dial connects to it.
type listener func() (bus *mem.Bus, dial dialer, stop func() error, err error)

type dialer func(ctx context.Context) (connection, error)

type connection interface {
	transport.Transport
	Close() error
}

// client is a service that listens, and a program that uses it.
func client(listen listener) func(context.Context) (ends, error) {
	return func(ctx context.Context) (ends, error) {
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
}

// both has the workers on a connection as well: they need no address of their own, and what stands in the middle only
// passes messages on.
func both(listen listener) func(context.Context) (ends, error) {
	return func(ctx context.Context) (ends, error) {
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
}

// resources are the service as HTTP shows it: to the server's mux, to the client's URLs, and to OpenAPI.
var resources = []rest.Route{
	rest.For(Process, "POST /documents:process"),
	rest.ForEvent(Submitted, "POST /documents/jobs"),
}

// overHTTP is a service with resources and verbs, and a program that calls and submits over HTTP. HTTP alone brings no
// results of jobs: the program subscribes to them over a second connection.
func overHTTP(ctx context.Context) (ends, error) {
	bus, dial, stop, err := listenTCP()
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
	addr, stopWeb, err := listenHTTP(server)
	if err != nil {
		return ends{}, errors.Join(err, stop())
	}
	client, err := rest.NewClient("http://"+addr, &rest.ClientOptions{Routes: resources})
	if err != nil {
		return ends{}, errors.Join(err, stopWeb(ctx), stop())
	}
	return ends{
		service: bus,
		client:  transport.Join(transport.Parts{Publisher: client, Caller: client, Subscriber: results}),
		close: func() error {
			ctx, cancel := context.WithTimeout(context.Background(), perDocument)
			defer cancel()
			return errors.Join(client.Shutdown(ctx), server.Shutdown(ctx), stopWeb(ctx), stop())
		},
	}, nil
}

// overRabbitMQ is two programs that know the address of the broker and not each other's. It has to be there already.
func overRabbitMQ(ctx context.Context) (ends, error) {
	url := os.Getenv("AMQP_URL")
	if url == "" {
		return ends{}, missing("AMQP_URL has no address of a broker, such as amqp://guest:guest@127.0.0.1:5672/")
	}
	namespace := broker.New(url, "documents")
	service, err := namespace.Dial(ctx)
	if err != nil {
		return ends{}, err
	}
	client, err := namespace.Dial(ctx)
	if err != nil {
		return ends{}, errors.Join(err, service.Close())
	}
	return ends{service: service, client: client, close: func() error {
		ctx, cancel := context.WithTimeout(context.Background(), perDocument)
		defer cancel()
		return errors.Join(client.Shutdown(ctx), service.Shutdown(ctx), namespace.Remove(ctx, broker.Left{
			Groups: [][2]string{{Submitted.Topic, queue.Group}, {queue.DeadLetter, "redrive"}}}))
	}}, nil
}

// listenTCP speaks the example protocol of package pipe.
func listenTCP() (bus *mem.Bus, dial dialer, stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, nil, err
	}
	bus = mem.New(nil)
	server := pipe.NewServer(bus, nil)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	dial = func(ctx context.Context) (connection, error) {
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

// listenWebSocket speaks JSON-RPC, as a browser would.
func listenWebSocket() (bus *mem.Bus, dial dialer, stop func() error, err error) {
	bus = mem.New(nil)
	server := ws.NewServer(bus, nil)
	addr, stopWeb, err := listenHTTP(server)
	if err != nil {
		return nil, nil, nil, err
	}
	dial = func(ctx context.Context) (connection, error) { return ws.Dial(ctx, "ws://"+addr, nil) }
	stop = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), perDocument)
		defer cancel()
		return errors.Join(server.Shutdown(ctx), stopWeb(ctx), bus.Close())
	}
	return bus, dial, stop, nil
}

// listenHTTP serves h on the loopback.
func listenHTTP(h http.Handler) (addr string, stop func(context.Context) error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	web := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(l) }()
	stop = func(ctx context.Context) error {
		err := web.Shutdown(ctx)
		<-served
		return err
	}
	return l.Addr().String(), stop, nil
}
