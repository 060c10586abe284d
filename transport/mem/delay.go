package mem

import (
	"context"
	"sync"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// delays are the messages that wait for their delay header, one timer each.
type delays struct {
	mu     sync.Mutex
	timers map[*entry]*time.Timer
	bytes  int
	closed bool
}

func (d *delays) empty() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.timers) == 0
}

func (d *delays) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, t := range d.timers {
		t.Stop()
	}
	d.timers = nil
}

func (b *Bus) delay(e *entry, wait time.Duration) error {
	d := &b.delayed
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errClosed
	}
	if d.bytes+e.size > b.o.DelayedBytes {
		return transport.Errorf(transport.CodeResourceExhausted, "delayed messages have %d bytes, the limit", b.o.DelayedBytes)
	}
	if d.timers == nil {
		d.timers = map[*entry]*time.Timer{}
	}
	d.bytes += e.size
	d.timers[e] = time.AfterFunc(wait, func() { b.arrive(e, 1) })
	return nil
}

// arrive publishes e when its delay is over. Publish has promised that, so a topic that is full is tried again.
func (b *Bus) arrive(e *entry, attempt int) {
	t, err := b.topic(e.m.Topic, true, transport.CodeNotFound)
	if err == nil {
		err = t.publish(context.Background(), e)
	}
	d := &b.delayed
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	if err != nil {
		d.timers[e].Stop()
		d.timers[e] = time.AfterFunc(transport.Backoff{}.Delay(attempt), func() { b.arrive(e, attempt+1) })
		return
	}
	delete(d.timers, e)
	d.bytes -= e.size
}
