package kmstest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/keys"
	"github.com/sallyport/sallyport/keys/kms/kmstest"
)

func TestFake(t *testing.T) { kmstest.Run(t, kmstest.NewFake("one")) }

func TestFakeFollowsItsPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := kmstest.NewFake("one")
		f.Always(kmstest.Denied)
		f.Plan(kmstest.Throttled, kmstest.Step{Wait: time.Hour}, kmstest.Stalled)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		for i, want := range []error{keys.ErrKEKThrottled, nil, context.DeadlineExceeded} {
			if _, err := f.Wrap(ctx, []byte("x"), kmstest.Binding()); !errors.Is(err, want) {
				t.Errorf("step %d: %v, want %v", i, err, want)
			}
		}
		if _, err := f.Wrap(t.Context(), []byte("x"), kmstest.Binding()); !errors.Is(err, keys.ErrKEKRefused) {
			t.Errorf("after the plan: %v", err)
		}
		if f.Wraps() != 4 || f.Unwraps() != 0 {
			t.Errorf("counted %d and %d", f.Wraps(), f.Unwraps())
		}
	})
}
