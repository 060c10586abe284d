package wire

import (
	"io"

	"github.com/intermodal-go/intermodal/transport"
)

// Bridge joins a stream that came in to one that was opened for it, so that each end has what the other end of the other
// sends: items, the end of each side, header, trailer, errors. It returns when both are over, and nothing is left behind.
func Bridge(in transport.Incoming, out transport.Stream) {
	up, refused := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(up)
		for {
			m, err := in.Recv()
			switch {
			case err == io.EOF:
				out.CloseSend()
				return
			case err != nil:
				out.Close()
				return
			}
			switch err := out.Send(m); {
			case err == io.EOF:
				return // the other direction knows why
			case err != nil: // perhaps the item's fault: the other end does not know of it
				refused <- err
				out.Close()
				return
			}
		}
	}()
	err := down(in, out)
	select {
	case err = <-refused:
	default:
	}
	if in.Context().Err() != nil { // which has closed out
		err = in.Context().Err()
	}
	in.End(err)
	out.Close()
	<-up
}

// down carries what the acceptor says.
func down(in transport.Incoming, out transport.Stream) error {
	for first := true; ; first = false {
		m, err := out.Recv()
		if first {
			if h, err := out.Header(); err == nil && len(h) > 0 {
				in.SetHeader(h)
			}
		}
		if err != nil {
			in.SetTrailer(out.Trailer())
			if err == io.EOF {
				return nil
			}
			return err
		}
		if err := in.Send(m); err != nil {
			return err
		}
	}
}
