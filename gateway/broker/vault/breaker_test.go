package vault

import (
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/fault"
)

func TestBreakerOpensDoublesItsPausesAndClosesWithAnAnswer(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	b := &breaker{now: func() time.Time { return now }, threshold: 3}
	down := fault.New(fault.SourceSealed, "")
	call := func(o outcome) bool {
		leave, err := b.enter()
		if err == nil {
			leave(o, down)
		}
		return err == nil
	}
	for range 2 {
		call(unanswered)
	}
	if call(answered); b.failure() != nil {
		t.Error("an answer does not count")
	}
	for range 3 {
		if !call(unanswered) {
			t.Error("closed too early")
		}
	}
	for n, most := range []time.Duration{500, 1000, 2000, 4000, 8000, 15000, 15000, 15000} {
		most *= time.Millisecond
		if call(answered) {
			t.Fatalf("a call gets through in pause %d", n)
		}
		if f := fault.From(b.failure()); f.Reason != fault.SourceSealed {
			t.Errorf("%v", f)
		}
		if now = now.Add(most/2 - time.Millisecond); call(answered) {
			t.Errorf("pause %d is too short", n)
		}
		if now = now.Add(most/2 + 2*time.Millisecond); !call(unanswered) {
			t.Errorf("pause %d is too long", n)
		}
	}
	now = now.Add(lastPause)
	probe, err := b.enter()
	if err != nil {
		t.Fatal(err)
	}
	if call(answered) {
		t.Error("two calls try at once")
	}
	if probe(noNews, nil); b.failure() == nil {
		t.Error("a probe without news closes it")
	}
	if !call(answered) || b.failure() != nil || !call(answered) {
		t.Error("an answer does not close it")
	}
}

func TestCallsFromBeforeDoNotOpenTheBreakerFurther(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	b := &breaker{now: func() time.Time { return now }, threshold: 2}
	var leaves []func(outcome, *fault.Error)
	for range 50 {
		leave, err := b.enter()
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leave)
	}
	for _, leave := range leaves {
		leave(unanswered, fault.New(fault.SourceUnavailable, ""))
	}
	now = now.Add(firstPause + time.Millisecond)
	if _, err := b.enter(); err != nil {
		t.Error("the first pause is longer for calls that were under way")
	}
}
