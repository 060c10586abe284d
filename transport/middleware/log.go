package middleware

import (
	"context"
	"log/slog"
	"time"

	"github.com/intermodal-go/intermodal/transport"
)

// LogOptions are the options of [Log]. The zero value, and nil, mean the defaults.
type LogOptions struct {
	// Level is the level of the record for an outcome; err is nil for success. It must be safe for concurrent use. The
	// default is Info for success and CodeCanceled; Error for what points to a bug or a loss, which is CodeUnknown,
	// CodeInternal, CodeDataLoss and CodeUnimplemented; Warn for all else.
	Level func(err error) slog.Level
	// Errors adds the text of errors as "error", with their private part. The default is the code alone.
	Errors bool
}

// Log writes one record per message to l, or to slog.Default() if l is nil, when the handler is done: "topic", "id",
// "duration" and "code", which is "ok" for success. Never the body or the header. A panic is logged as "internal" and
// goes on.
func Log(l *slog.Logger, o *LogOptions) transport.Middleware {
	var opts LogOptions
	if o != nil {
		opts = *o
	}
	if opts.Level == nil {
		opts.Level = level
	}
	return func(h transport.Handler) transport.Handler {
		return func(ctx context.Context, m *transport.Message) (reply *transport.Message, err error) {
			start := time.Now()
			returned := false
			defer func() {
				outcome := err
				if !returned {
					outcome = transport.CodeInternal
				}
				opts.write(ctx, l, m, time.Since(start), outcome)
			}()
			reply, err = h(ctx, m)
			returned = true
			return reply, err
		}
	}
}

func (o *LogOptions) write(ctx context.Context, l *slog.Logger, m *transport.Message, d time.Duration, err error) {
	if l == nil {
		l = slog.Default()
	}
	level := o.Level(err)
	if !l.Enabled(ctx, level) {
		return
	}
	attrs := [5]slog.Attr{slog.String("topic", m.Topic), slog.String("id", m.ID), slog.Duration("duration", d),
		slog.String("code", transport.CodeOf(err).String())}
	n := 4
	if o.Errors && err != nil {
		attrs[n] = slog.String("error", err.Error())
		n++
	}
	l.LogAttrs(ctx, level, "message", attrs[:n]...)
}

// level is the default of LogOptions.Level.
func level(err error) slog.Level {
	switch transport.CodeOf(err) {
	case 0, transport.CodeCanceled:
		return slog.LevelInfo
	case transport.CodeUnknown, transport.CodeInternal, transport.CodeDataLoss, transport.CodeUnimplemented:
		return slog.LevelError
	}
	return slog.LevelWarn
}
