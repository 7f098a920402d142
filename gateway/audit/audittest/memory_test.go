package audittest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/audittest"
)

func TestMemory(t *testing.T) {
	audittest.Run(t, func(*testing.T) (audit.Log, audit.PublicKey) {
		l := audittest.New()
		return l, l.PublicKey()
	})
}

func TestFailures(t *testing.T) {
	l := audittest.New()
	l.FailNext(audittest.Lost, audittest.Persisted)
	for _, want := range []int{0, 1} {
		_, err := l.Append(t.Context(), audittest.Record(0))
		if !errors.Is(err, audit.ErrUnavailable) || !errors.Is(err, audittest.ErrInjected) {
			t.Errorf("error %v", err)
		}
		if n := len(l.Records()); n != want {
			t.Errorf("%d records, want %d", n, want)
		}
	}
	if _, err := l.Append(t.Context(), audittest.Record(0)); err != nil {
		t.Error(err)
	}
}

func TestStall(t *testing.T) {
	l := audittest.New()
	release := l.Stall()
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := l.Append(ctx, audittest.Record(0)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stalled append: %v", err)
	}
	go release()
	if _, err := l.Append(t.Context(), audittest.Record(1)); err != nil {
		t.Error(err)
	}
	if n := len(l.Records()); n != 1 {
		t.Errorf("%d records, want 1", n)
	}
}
