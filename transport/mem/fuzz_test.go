package mem_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/transport"
	"github.com/intermodal-go/intermodal/transport/mem"
)

// FuzzCursor feeds cursors to a topic of three messages, of which one is evicted. One that is taken must be the text
// that the bus itself gave for a position it still has.
func FuzzCursor(f *testing.F) {
	bus := mem.New(&mem.Options{HistoryMessages: 2})
	sub := subscribe(f, bus, transport.Overflow(transport.DropOldest))
	legal := map[string]int{transport.Oldest: 2, "": 0}
	publish(f, bus, 0, 1)
	legal[next(f, sub).Cursor()] = 2
	publish(f, bus, 1, 2)
	legal[next(f, sub).Cursor()] = 1
	publish(f, bus, 2, 3)
	legal[next(f, sub).Cursor()] = 0
	for c := range legal {
		f.Add(c)
		f.Add(c + "0")
		if len(c) > 1 {
			f.Add(c[:len(c)-1] + "0")
			f.Add(c[:len(c)-1] + "Z")
			f.Add(c[:len(c)-2])
		}
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		s, err := bus.Subscribe(background, "t", transport.From(cursor))
		waiting, ok := legal[cursor]
		if !ok {
			require.ErrorIs(t, err, transport.CodeOutOfRange, "%q", cursor)
			return
		}
		require.NoError(t, err, "%q", cursor)
		for range waiting {
			require.NoError(t, next(t, s).Ack())
		}
		require.NoError(t, s.Close())
	})
}
