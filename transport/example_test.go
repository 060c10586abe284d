package transport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

func ExamplePublisher() {
	bus := mem.New(nil)
	defer bus.Close()
	var p transport.Publisher = bus

	// With nobody listening it is nil as well: the bus is responsible for the message.
	err := p.Publish(context.Background(), &transport.Message{Topic: "orders.placed", Body: []byte("tea")})
	fmt.Println(err)
	err = p.Publish(context.Background(), &transport.Message{Topic: "orders..placed"})
	fmt.Println(err)
	// Output:
	// <nil>
	// invalid_argument: the topic "orders..placed" has an empty word
}

func ExampleSubscriber() {
	ctx := context.Background()
	bus := mem.New(nil)
	defer bus.Close()
	var s transport.Subscriber = bus

	bus.Publish(ctx, &transport.Message{Topic: "orders.placed", Body: []byte("tea")})
	sub, err := s.Subscribe(ctx, "orders.placed", transport.From(transport.Oldest))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()
	d, err := sub.Next(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s, attempt %d\n", d.Body, d.Attempt)
	fmt.Println(d.Ack())
	// Output:
	// tea, attempt 1
	// <nil>
}

// A quality that a transport cannot give is refused, never quietly missing.
func ExampleRequire() {
	postcards := transport.Join(transport.Parts{Subscriber: unordered{}})
	_, err := postcards.Subscribe(context.Background(), "greetings", transport.Require(transport.Ordered))
	fmt.Println(err)
	fmt.Println(errors.Is(err, errors.ErrUnsupported))
	// Output:
	// unimplemented: this transport does not offer Ordered
	// true
}

// unordered is a Subscriber that promises nothing.
type unordered struct{}

func (unordered) Subscribe(_ context.Context, _ string, opts ...transport.SubscribeOption) (transport.Subscription, error) {
	if _, err := transport.Resolve(0, opts...); err != nil {
		return nil, err
	}
	return nil, transport.CodeUnavailable
}

func ExampleCaller() {
	ctx := context.Background()
	bus := mem.New(nil)
	defer bus.Close()
	var c transport.Caller = bus

	_, err := c.Call(ctx, &transport.Message{Topic: "greet", Body: []byte("Ada")})
	fmt.Println(transport.CodeOf(err))

	service, err := transport.Start(ctx, bus, transport.BindCalls("greet", greet))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer service.Shutdown(ctx)
	reply, err := c.Call(ctx, &transport.Message{Topic: "greet", Body: []byte("Ada")})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", reply.Body)
	// Output:
	// unavailable
	// Hello, Ada
}

func greet(_ context.Context, m *transport.Message) (*transport.Message, error) {
	if len(m.Body) == 0 {
		return nil, transport.Errorf(transport.CodeInvalidArgument, "whom?")
	}
	return &transport.Message{Body: append([]byte("Hello, "), m.Body...)}, nil
}

func ExampleResponder() {
	ctx := context.Background()
	bus := mem.New(nil)
	defer bus.Close()
	var r transport.Responder = bus

	sub, err := r.Respond(ctx, "greet")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d, err := sub.Next(ctx)
		if err != nil {
			return
		}
		d.Settle(&transport.Message{Body: []byte("Hello, " + string(d.Body))}, nil)
	}()
	reply, err := bus.Call(ctx, &transport.Message{Topic: "greet", Body: []byte("Ada")})
	<-done
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", reply.Body)
	// Output: Hello, Ada
}

func ExampleOpener() {
	ctx := context.Background()
	bus := mem.New(nil)
	defer bus.Close()
	var o transport.Opener = bus

	// This acceptor sends back what it gets, until the opener ends its side.
	service, err := transport.Start(ctx, bus, transport.BindStreams("echo", func(_ context.Context, s transport.Incoming) error {
		for {
			m, err := s.Recv()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			if err := s.Send(m); err != nil {
				return err
			}
		}
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer service.Shutdown(ctx)

	s, err := o.Open(ctx, "echo", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	for _, text := range []string{"ping", "pong"} {
		s.Send(&transport.Message{Body: []byte(text)})
	}
	s.CloseSend()
	for {
		m, err := s.Recv()
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s\n", m.Body)
	}
	// Output:
	// ping
	// pong
	// EOF
}

func ExampleAcceptor() {
	ctx := context.Background()
	bus := mem.New(nil)
	defer bus.Close()
	var a transport.Acceptor = bus

	l, err := a.Accept(ctx, "countdown")
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan error)
	go func() {
		done <- transport.ServeStreams(ctx, l, func(_ context.Context, s transport.Incoming) error {
			for _, n := range []string{"3", "2", "1"} {
				if err := s.Send(&transport.Message{Body: []byte(n)}); err != nil {
					return err
				}
			}
			return transport.Errorf(transport.CodeAborted, "no rocket")
		})
	}()
	s, err := bus.Open(ctx, "countdown", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for {
		m, err := s.Recv()
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Printf("%s\n", m.Body)
	}
	l.Close()
	fmt.Println(<-done)
	// Output:
	// 3
	// 2
	// 1
	// aborted: no rocket
	// <nil>
}

func ExampleServe() {
	bus := mem.New(nil)
	defer bus.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	sub, err := bus.Subscribe(ctx, "orders.placed")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, item := range []string{"tea", "milk"} {
		bus.Publish(ctx, &transport.Message{Topic: "orders.placed", Body: []byte(item)})
	}
	err = transport.Serve(ctx, sub, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
		fmt.Printf("%s\n", m.Body)
		if string(m.Body) == "milk" {
			cancel() // the end of ctx is an orderly end: what is being handled is finished
		}
		return nil, nil
	})
	fmt.Println(err)
	// Output:
	// tea
	// milk
	// <nil>
}

func ExampleDeliveries() {
	ctx := context.Background()
	bus := mem.New(nil)
	defer bus.Close()

	sub, err := bus.Subscribe(ctx, "orders.placed")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()
	for _, item := range []string{"tea", "milk", "end"} {
		bus.Publish(ctx, &transport.Message{Topic: "orders.placed", Body: []byte(item)})
	}
	for d, err := range transport.Deliveries(ctx, sub) {
		if err != nil {
			fmt.Println(err)
			return
		}
		if string(d.Body) == "end" {
			break // gives the delivery back
		}
		fmt.Printf("%s\n", d.Body) // finishing the body acknowledges it
	}
	// Output:
	// tea
	// milk
}

func ExamplePublishAll() {
	bus := mem.New(nil)
	defer bus.Close()

	errs := transport.PublishAll(context.Background(), bus,
		&transport.Message{Topic: "orders.placed", Body: []byte("tea")},
		&transport.Message{Topic: "rpc.orders"},
		&transport.Message{Topic: "orders.placed", Body: []byte("milk")})
	for _, err := range errs {
		fmt.Println(err)
	}
	// Output:
	// <nil>
	// invalid_argument: the topic "rpc.orders" begins with a reserved word
	// <nil>
}

func ExampleNextAll() {
	ctx := context.Background()
	bus := mem.New(nil)
	defer bus.Close()

	sub, err := bus.Subscribe(ctx, "ticks")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()
	for i := range 5 {
		bus.Publish(ctx, &transport.Message{Topic: "ticks", Body: fmt.Append(nil, i)})
	}
	batch := make([]*transport.Delivery, 3)
	for seen := 0; seen < 5; {
		n, err := transport.NextAll(ctx, sub, batch)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, d := range batch[:n] {
			fmt.Printf("%s\n", d.Body)
			d.Ack()
		}
		seen += n
	}
	// Output:
	// 0
	// 1
	// 2
	// 3
	// 4
}

// A Caller's Call has the shape of a Handler, and NoReply gives Publish that shape. So whatever can receive can be
// forwarded to whatever can send: this bridges one bus to another.
func ExampleNoReply() {
	ctx := context.Background()
	here, there := mem.New(nil), mem.New(nil)
	defer here.Close()
	defer there.Close()

	bridge, err := transport.Start(ctx, here, transport.BindEvents("news", transport.NoReply(there.Publish)))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer bridge.Shutdown(ctx)
	sub, err := there.Subscribe(ctx, "news")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()

	here.Publish(ctx, &transport.Message{ID: "no-1", Topic: "news", Body: []byte("it rains")})
	d, err := sub.Next(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s %s\n", d.ID, d.Body)
	fmt.Println(d.Ack())
	// Output:
	// no-1 it rains
	// <nil>
}

func ExampleMux() {
	ctx := context.Background()
	mux := transport.Mux{
		"greet": greet,
		"upper": func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			return &transport.Message{Body: []byte(strings.ToUpper(string(m.Body)))}, nil
		},
	}
	for _, topic := range []string{"greet", "upper", "lower"} {
		reply, err := mux.Call(ctx, &transport.Message{Topic: topic, Body: []byte("Ada")})
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Printf("%s\n", reply.Body)
	}
	// Output:
	// Hello, Ada
	// ADA
	// unimplemented: there is no operation "lower"
}

func ExampleChain() {
	log := func(name string) transport.Middleware {
		return func(h transport.Handler) transport.Handler {
			return func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
				fmt.Println(name, "before")
				defer fmt.Println(name, "after")
				return h(ctx, m)
			}
		}
	}
	h := transport.Chain(log("outer"), log("inner"))(greet)
	reply, err := h.Call(context.Background(), &transport.Message{Body: []byte("Ada")})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", reply.Body)
	// Output:
	// outer before
	// inner before
	// inner after
	// outer after
	// Hello, Ada
}

type Order struct {
	Item  string `json:"item"`
	Count int    `json:"count"`
}

type Receipt struct {
	Total int `json:"total"`
}

// PlaceOrder is declared once and imported by both sides.
var PlaceOrder = transport.Operation[Order, Receipt]{Topic: "shop.orders.place"}

func ExampleOperation() {
	ctx := context.Background()
	bus := mem.New(nil)
	defer bus.Close()

	service, err := transport.Start(ctx, bus, PlaceOrder.Bind(func(_ context.Context, o Order) (Receipt, error) {
		if o.Count < 1 {
			return Receipt{}, transport.Errorf(transport.CodeInvalidArgument, "how many?")
		}
		return Receipt{Total: 3 * o.Count}, nil
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer service.Shutdown(ctx)

	receipt, err := PlaceOrder.Call(ctx, bus, Order{Item: "tea", Count: 2})
	fmt.Println(receipt.Total, err)
	_, err = PlaceOrder.Call(ctx, bus, Order{Item: "tea"})
	fmt.Println(err)
	// Output:
	// 6 <nil>
	// invalid_argument: how many?
}

func ExampleEvent() {
	ctx := context.Background()
	bus := mem.New(nil)
	defer bus.Close()
	placed := transport.Event[Order]{Topic: "shop.orders.placed"}

	seen := make(chan string)
	service, err := transport.Start(ctx, bus, placed.Bind(func(ctx context.Context, o Order) error {
		seen <- fmt.Sprintf("%d %s, %s", o.Count, o.Item, transport.MessageFrom(ctx).Header.Get("content-type"))
		return nil
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer service.Shutdown(ctx)
	if err := placed.Publish(ctx, bus, Order{Item: "tea", Count: 2}); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(<-seen)
	// Output: 2 tea, application/json
}

func ExampleDuplex() {
	ctx := context.Background()
	bus := mem.New(nil)
	defer bus.Close()
	sums := transport.Duplex[int, int]{Topic: "math.sums"} // of what came so far

	service, err := transport.Start(ctx, bus, sums.Bind(func(_ context.Context, s *transport.DuplexIncoming[int, int]) error {
		sum := 0
		for n, err := range s.All() {
			if err != nil {
				return err
			}
			sum += n
			if err := s.Send(sum); err != nil {
				return err
			}
		}
		return nil
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer service.Shutdown(ctx)

	s, err := sums.Open(ctx, bus)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	for n := range 4 {
		if err := s.Send(n); err != nil {
			fmt.Println(err)
			return
		}
	}
	s.CloseSend()
	for sum, err := range s.All() {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(sum)
	}
	// Output:
	// 0
	// 1
	// 3
	// 6
}

// An application is a list of bindings, written without knowing the transport.
func ExampleStart() {
	app := []transport.Binding{
		PlaceOrder.Bind(func(context.Context, Order) (Receipt, error) { return Receipt{Total: 3}, nil }, transport.Workers(8)),
		transport.BindCalls("greet", greet),
		transport.BindEvents("shop.orders.placed", transport.NoReply(func(context.Context, *transport.Message) error { return nil }),
			transport.Group("billing"), transport.DeadLetter("shop.orders.dead"), transport.Grace(time.Minute)),
	}

	bus := mem.New(nil)
	defer bus.Close()
	ctx, stop := context.WithCancel(context.Background()) // or signal.NotifyContext
	defer stop()
	service, err := transport.Start(ctx, bus, app...)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("healthy:", service.Health(ctx) == nil)
	reply, err := bus.Call(ctx, &transport.Message{Topic: "greet", Body: []byte("Ada")})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", reply.Body)
	stop()
	fmt.Println("ended:", service.Wait())
	// Output:
	// healthy: true
	// Hello, Ada
	// ended: <nil>
}

func ExampleGuard() {
	bus := mem.New(nil)
	defer bus.Close()
	guarded := transport.Guard(bus, func(ctx context.Context, a transport.Access) error {
		if p, _ := transport.PeerFrom(ctx); p.ID == "" {
			return transport.Errorf(transport.CodeUnauthenticated, "log in first")
		}
		if a.Op != transport.OpSubscribe && strings.HasPrefix(a.Topic, "audit.") {
			return errors.New("rule 7") // stays in this process
		}
		return nil
	})

	// Servers put the peer into the context.
	ada := transport.WithPeer(context.Background(), transport.Peer{ID: "ada"})
	fmt.Println(guarded.Publish(ada, &transport.Message{Topic: "orders.placed"}))
	err := guarded.Publish(ada, &transport.Message{Topic: "audit.orders"})
	fmt.Println(transport.Public(err))
	fmt.Println(guarded.Publish(context.Background(), &transport.Message{Topic: "orders.placed"}))
	// Output:
	// <nil>
	// permission_denied: publish "audit.orders" is not allowed
	// unauthenticated: log in first
}

func ExampleJoin() {
	ctx := context.Background()
	bus := mem.New(nil)
	defer bus.Close()

	// Calls go to a function in this process, events to the bus, and there are no streams.
	t := transport.Join(transport.Parts{Caller: transport.Mux{"greet": greet}, Publisher: bus, Subscriber: bus})
	reply, err := t.Call(ctx, &transport.Message{Topic: "greet", Body: []byte("Ada")})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", reply.Body)
	fmt.Println(t.Publish(ctx, &transport.Message{Topic: "news"}))
	_, err = t.Open(ctx, "chat", nil)
	fmt.Println(err)
	// Output:
	// Hello, Ada
	// <nil>
	// unimplemented: this transport does not open streams
}

func ExampleErrorf() {
	err := transport.Errorf(transport.CodeNotFound, "there is no order %d", 7)
	fmt.Println(err)
	fmt.Println(errors.Is(err, transport.CodeNotFound), transport.Retryable(err))
	// Output:
	// not_found: there is no order 7
	// true false
}

func ExampleWrap() {
	cause := errors.New("dial tcp 10.0.0.7:5432: connection refused")
	err := transport.Wrap(cause, transport.CodeUnavailable, "orders cannot be read now")
	fmt.Println("our log:", err)
	fmt.Println("the peer:", transport.Public(err))
	fmt.Println(errors.Is(err, cause), transport.Retryable(err))
	// Output:
	// our log: unavailable: orders cannot be read now: dial tcp 10.0.0.7:5432: connection refused
	// the peer: unavailable: orders cannot be read now
	// true true
}

func ExampleKeyedBy() {
	bus := mem.New(nil)
	defer bus.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	sub, err := bus.Subscribe(ctx, "accounts")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, body := range []string{"ada +5", "ada -3", "bob +1"} {
		bus.Publish(ctx, &transport.Message{Topic: "accounts", Body: []byte(body)})
	}
	failed, seen := false, 0
	err = transport.Serve(ctx, sub, func(_ context.Context, m *transport.Message) (*transport.Message, error) {
		if string(m.Body) == "ada +5" && !failed {
			failed = true
			return nil, &transport.Error{Code: transport.CodeUnavailable, RetryAfter: 50 * time.Millisecond}
		}
		fmt.Printf("%s\n", m.Body)
		if seen++; seen == 3 {
			cancel()
		}
		return nil, nil
	}, transport.KeyedBy(func(m *transport.Message) string {
		account, _, _ := strings.Cut(string(m.Body), " ")
		return account
	}))
	fmt.Println(err)
	// Output:
	// bob +1
	// ada +5
	// ada -3
	// <nil>
}
