package wire_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/wire"
)

var benchMessage = &transport.Message{ID: "01JABCDEFGHJKMNPQRSTVWXYZ0", Topic: "orders.placed",
	Header: transport.Header{"content-type": {"application/json"}, "x-tenant": {"acme"}, "traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}},
	Body:   []byte(`{"order":7,"lines":[{"sku":"a","n":1},{"sku":"b","n":2}],"note":"leave it at the door, please"}`)}

func TestAppendEventAllocates(t *testing.T) {
	buf := make([]byte, 0, 4096)
	// With the race detector, json.Valid does not always get its scanner from the pool.
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { wire.AppendEvent(buf, benchMessage) }), 1.0)
	require.Zero(t, testing.AllocsPerRun(100, func() { wire.AppendHeaderList(buf, benchMessage.Header) }))
	require.Zero(t, testing.AllocsPerRun(100, func() { wire.AppendJSONHeader(buf, benchMessage.Header) }))
}

func BenchmarkAppendEvent(b *testing.B) {
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		wire.AppendEvent(buf, benchMessage)
	}
}

func BenchmarkParseEvent(b *testing.B) {
	data := wire.AppendEvent(nil, benchMessage)
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		wire.ParseEvent(data, nil)
	}
}

func BenchmarkParseEvents100(b *testing.B) {
	ms := make([]*transport.Message, 100)
	for i := range ms {
		ms[i] = benchMessage
	}
	data := wire.AppendEvents(nil, ms...)
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		wire.ParseEvents(data, nil)
	}
}

func BenchmarkSetEvent(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		wire.SetEvent(http.Header{}, benchMessage)
	}
}

func BenchmarkReadEvents(b *testing.B) {
	h := http.Header{}
	wire.SetEvent(h, benchMessage)
	b.ReportAllocs()
	for b.Loop() {
		wire.ReadEvents(h, benchMessage.Body, nil)
	}
}

func BenchmarkSetHeader(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		wire.SetHeader(http.Header{}, benchMessage.Header)
	}
}

func BenchmarkSplitHeader(b *testing.B) {
	h := http.Header{"User-Agent": {"x"}, "Accept-Encoding": {"gzip"}, "Authorization": {"x"}}
	wire.SetHeader(h, benchMessage.Header)
	b.ReportAllocs()
	for b.Loop() {
		wire.SplitHeader(h)
	}
}

func BenchmarkAppendProblem(b *testing.B) {
	err := fullError(transport.CodeNotFound)
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		wire.AppendProblem(buf, err)
	}
}

func BenchmarkNegotiate(b *testing.B) {
	accept := []string{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
	b.ReportAllocs()
	for b.Loop() {
		wire.Negotiate(accept, wire.ContentTypeEvents, "text/event-stream")
	}
}
