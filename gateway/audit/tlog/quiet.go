package tlog

import (
	"context"
	"log/slog"
	"sync"

	"k8s.io/klog/v2"
)

var quietOnce sync.Once

// quiet sends what Tessera says through klog to the logger, as debug messages
// unless they are errors; klog would write to standard error. It has one setting
// for the process, which the first log that is opened makes.
func quiet(logger *slog.Logger) {
	quietOnce.Do(func() { klog.SetSlogLogger(slog.New(debugHandler{logger.Handler()})) })
}

// debugHandler lowers what is below an error to slog.LevelDebug.
type debugHandler struct{ slog.Handler }

func lowered(l slog.Level) slog.Level {
	if l < slog.LevelError {
		return slog.LevelDebug
	}
	return l
}

func (h debugHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.Handler.Enabled(ctx, lowered(l))
}

func (h debugHandler) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lowered(r.Level)
	return h.Handler.Handle(ctx, r)
}

func (h debugHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return debugHandler{h.Handler.WithAttrs(attrs)}
}

func (h debugHandler) WithGroup(name string) slog.Handler {
	return debugHandler{h.Handler.WithGroup(name)}
}
