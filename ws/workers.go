package ws

// apart runs f in a goroutine of the server that has nothing to do, or in a new one. The goroutines stay until the watch
// looks for them, or the last session ends: what is called again finds a stack that has grown already.
func (v *session) apart(f func()) {
	select {
	case v.s.work <- f:
	default:
		v.s.running.Go(func() {
			for f := f; f != nil; {
				f()
				select {
				case f = <-v.s.work:
				case <-v.empty:
					return
				}
			}
		})
	}
}

// dismiss ends the goroutines that have nothing to do.
func (s *Server) dismiss() {
	for {
		select {
		case s.work <- nil:
		default:
			return
		}
	}
}
