package golden

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

// Application returns a bus with the operations that the recorded peers call. stop ends them, then the bus.
//
//	math.add    the sum of a JSON array of numbers, or of the values of an object
//	echo        the body and the content type of the request
//	text        "plain words" as text/plain
//	bytes       the bytes 0 to 255 as application/octet-stream
//	shop.find   not_found with a reason and a detail
//	secret      fails with a text that must not cross the wire
//	slow        answers when its caller gives up, and tells the topic slow.ended
//	ask         calls the topic that its body names, with the same body
func Application(ctx context.Context) (bus *mem.Bus, stop func(), err error) {
	bus = mem.New(nil)
	service, err := transport.Start(ctx, bus,
		transport.BindCalls("math.add", add),
		transport.BindCalls("echo", func(_ context.Context, m *transport.Message) (*transport.Message, error) {
			reply := &transport.Message{Body: m.Body}
			if ct := m.Header.Get("content-type"); ct != "" {
				reply.Header = transport.Header{"content-type": {ct}}
			}
			return reply, nil
		}),
		transport.BindCalls("text", func(context.Context, *transport.Message) (*transport.Message, error) {
			return &transport.Message{Header: transport.Header{"content-type": {"text/plain; charset=utf-8"}},
				Body: []byte("plain words")}, nil
		}),
		transport.BindCalls("bytes", func(context.Context, *transport.Message) (*transport.Message, error) {
			all := make([]byte, 256)
			for i := range all {
				all[i] = byte(i)
			}
			return &transport.Message{Header: transport.Header{"content-type": {"application/octet-stream"}}, Body: all}, nil
		}),
		transport.BindCalls("shop.find", func(context.Context, *transport.Message) (*transport.Message, error) {
			return nil, &transport.Error{Code: transport.CodeNotFound, Reason: "NO_ITEM", Message: "there is no such item",
				Details: []transport.Detail{{Type: "example.com/Item", Value: []byte("item 7")}}}
		}),
		transport.BindCalls("secret", func(context.Context, *transport.Message) (*transport.Message, error) {
			return nil, errors.New("the password is hunter2")
		}),
		transport.BindCalls("slow", func(ctx context.Context, _ *transport.Message) (*transport.Message, error) {
			<-ctx.Done()
			err := bus.Publish(context.WithoutCancel(ctx), &transport.Message{Topic: "slow.ended", Body: []byte(`"ended"`),
				Header: transport.Header{"content-type": {"application/json"}}})
			return nil, errors.Join(ctx.Err(), err)
		}),
		transport.BindCalls("ask", func(ctx context.Context, m *transport.Message) (*transport.Message, error) {
			var topic string
			if err := json.Unmarshal(m.Body, &topic); err != nil {
				return nil, transport.Wrap(err, transport.CodeInvalidArgument, "the body is not the name of a topic")
			}
			return bus.Call(ctx, &transport.Message{Topic: topic, Header: m.Header, Body: m.Body})
		}),
	)
	if err != nil {
		bus.Close()
		return nil, nil, err
	}
	return bus, func() {
		service.Shutdown(context.Background())
		bus.Close()
	}, nil
}

func add(_ context.Context, m *transport.Message) (*transport.Message, error) {
	var list []float64
	if err := json.Unmarshal(m.Body, &list); err != nil {
		var named map[string]float64
		if err := json.Unmarshal(m.Body, &named); err != nil {
			return nil, transport.Wrap(err, transport.CodeInvalidArgument, "math.add takes numbers")
		}
		for _, n := range named {
			list = append(list, n)
		}
	}
	sum := 0.0
	for _, n := range list {
		sum += n
	}
	body, err := json.Marshal(sum)
	if err != nil {
		return nil, err
	}
	return &transport.Message{Header: transport.Header{"content-type": {"application/json"}}, Body: body}, nil
}
