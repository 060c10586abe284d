package transport_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
)

func TestDeliveries(t *testing.T) {
	broken := transport.Errorf(transport.CodeUnavailable, "gone")
	refused := transport.Errorf(transport.CodeNotFound, "no")
	for _, c := range []struct {
		name string
		end  error
		body func(d *transport.Delivery) (more bool)
		want []string // results
		err  error    // the last pair's
	}{
		{"finishing the body acknowledges", io.EOF, func(*transport.Delivery) bool { return true }, []string{"1 ok", "2 ok", "3 ok"}, nil},
		{"an error is the last pair", broken, func(*transport.Delivery) bool { return true }, []string{"1 ok", "2 ok", "3 ok"}, broken},
		{"leaving gives back", io.EOF, func(d *transport.Delivery) bool { return string(d.Body) == "1" }, []string{"1 ok", "2 canceled"}, nil},
		{"the body settles", io.EOF, func(d *transport.Delivery) bool {
			d.Nack(refused)
			return true
		}, []string{"1 not_found", "2 not_found", "3 not_found"}, nil},
		{"the body settles and leaves", io.EOF, func(d *transport.Delivery) bool {
			d.Ack()
			return false
		}, []string{"1 ok"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSub(numbers(3)...)
			s.end(c.end)
			var last error
			for d, err := range transport.Deliveries(t.Context(), s) {
				require.NoError(t, last, "the error is the last pair")
				if err != nil {
					require.Nil(t, d)
					last = err
					continue
				}
				require.NotNil(t, d)
				if !c.body(d) {
					break
				}
			}
			require.Equal(t, c.err, last)
			require.Equal(t, c.want, s.results())
			require.False(t, s.isClosed(), "the subscription stays open")
		})
	}
}

func TestDeliveriesSettleBeforeTheNext(t *testing.T) {
	s := newSub(numbers(3)...)
	s.end(io.EOF)
	n := 0
	for _, err := range transport.Deliveries(t.Context(), s) {
		require.NoError(t, err)
		require.Len(t, s.all(), n)
		n++
	}
}

func TestDeliveriesReenter(t *testing.T) {
	s := newSub(numbers(4)...)
	ctx, cancel := context.WithCancel(t.Context())
	loop := transport.Deliveries(ctx, s)
	var seen []string
	for d, err := range loop {
		require.NoError(t, err)
		if seen = append(seen, string(d.Body)); len(seen) == 2 {
			break
		}
	}
	for d, err := range loop {
		require.NoError(t, err)
		if seen = append(seen, string(d.Body)); len(seen) == 4 {
			break
		}
	}
	require.Equal(t, numbers(4), seen)

	cancel()
	for d, err := range loop {
		require.Nil(t, d)
		require.Equal(t, context.Canceled, err)
	}
	s.push("5") // the end of a context is not the end of the subscription
	for d, err := range transport.Deliveries(t.Context(), s) {
		require.NoError(t, err)
		require.Equal(t, "5", string(d.Body))
		break
	}
}

func TestDeliveriesFailedAcknowledgement(t *testing.T) {
	s := newSub(numbers(2)...)
	s.settleErr = errors.New("not taken")
	var pairs []error
	for d, err := range transport.Deliveries(t.Context(), s) {
		require.Equal(t, err == nil, d != nil)
		pairs = append(pairs, err)
	}
	require.Equal(t, []error{nil, s.settleErr}, pairs, "the error is the last pair")
	require.Equal(t, []string{"1 ok"}, s.results())
}

func TestDeliveriesPanicInTheBody(t *testing.T) {
	s := newSub(numbers(2)...)
	require.PanicsWithValue(t, "mine", func() {
		for range transport.Deliveries(t.Context(), s) {
			panic("mine")
		}
	})
	require.Equal(t, []string{"1 canceled"}, s.results(), "the delivery is given back")

	exited := make(chan struct{})
	go func() {
		defer close(exited)
		for range transport.Deliveries(t.Context(), s) {
			runtime.Goexit()
		}
	}()
	<-exited
	require.Equal(t, []string{"1 canceled", "2 canceled"}, s.results())
}
