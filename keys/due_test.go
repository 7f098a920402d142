package keys_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/keys"
	"github.com/sallyport/sallyport/keys/keystest"
	"github.com/sallyport/sallyport/keys/kms/kmstest"
)

const period = 30 * 24 * time.Hour

// log is what RunDue told.
type log []string

func (l *log) intend(d keys.Deed) error {
	*l = append(*l, fmt.Sprintf("%s: %v", d.Name.Keyring, d))
	return nil
}

func (l *log) done(d keys.Deed, err error) {
	outcome := "ok"
	for _, known := range []error{keys.ErrKEKRefused, keys.ErrKEKUnreachable, keys.ErrStore, keys.ErrConflict} {
		if errors.Is(err, known) {
			outcome = known.Error()
		}
	}
	*l = append(*l, outcome)
}

// run runs what is due and compares what was told.
func (w *world) run(t *testing.T, want ...string) error {
	t.Helper()
	var l log
	_, err := w.RunDue(t.Context(), l.intend, l.done)
	if !slices.Equal(l, want) {
		t.Errorf("told %q, want %q", []string(l), want)
	}
	return err
}

func (w *world) createDue(t *testing.T, keyring string) keys.Name {
	t.Helper()
	if _, err := w.CreateRing(t.Context(), name(keyring), keys.PurposeAEAD, period); err != nil {
		t.Fatal(err)
	}
	return name(keyring)
}

func TestRotationBySchedule(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.createDue(t, "ring")
		w.create(t, "never", keys.PurposeAEAD)
		for i, sleep := range []time.Duration{period - time.Second, time.Second, 3 * period} {
			time.Sleep(sleep)
			want := []string{"ring: rotate", "ok"}
			if i == 0 {
				want = nil
			}
			if err := errors.Join(w.run(t, want...), w.run(t)); err != nil { // the second run finds nothing
				t.Error(err)
			}
		}
		r, err := w.Ring(t.Context(), n)
		if err != nil || len(r.Versions) != 3 || time.Until(r.NextRotation) != period {
			t.Errorf("%d versions, next in %v, %v", len(r.Versions), time.Until(r.NextRotation), err)
		}
		time.Sleep(period / 2)
		w.rotate(t, n) // by hand: the schedule begins anew
		time.Sleep(period / 2)
		if err := w.run(t); err != nil {
			t.Error(err)
		}
	})
}

func TestDestructionBySchedule(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		for range 3 {
			w.rotate(t, n)
		}
		for version := range uint32(3) {
			w.setState(t, n, version+1, keys.StateCompromised)
			w.setState(t, n, version+1, keys.StateScheduledForDestruction)
		}
		time.Sleep(destroyAfter - time.Second)
		if err := w.run(t); err != nil {
			t.Error(err)
		}
		w.setState(t, n, 2, keys.StateCompromised) // spared
		time.Sleep(time.Second)
		if err := errors.Join(w.run(t, "ring: destroy versions [1 3]", "ok"), w.run(t)); err != nil {
			t.Error(err)
		}
		r, err := w.Ring(t.Context(), n)
		if err != nil || r.Versions[0].Wrapped != nil || r.Versions[1].Wrapped == nil || r.Versions[2].Wrapped != nil {
			t.Errorf("%v, %v", r.Versions, err)
		}
	})
}

// TestAskingAgainDoesNotDelay: a repeated request keeps the time of destruction.
func TestAskingAgainDoesNotDelay(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.rotate(t, n)
		w.setState(t, n, 1, keys.StateDisabled)
		w.setState(t, n, 1, keys.StateScheduledForDestruction)
		time.Sleep(destroyAfter / 2)
		w.setState(t, n, 1, keys.StateScheduledForDestruction)
		time.Sleep(destroyAfter / 2)
		if err := w.run(t, "ring: destroy versions [1]", "ok"); err != nil {
			t.Error(err)
		}
	})
}

// TestNoIntentNoDeed: a deed whose intent is not on record is not done.
func TestNoIntentNoDeed(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.createDue(t, "ring")
		time.Sleep(period)
		before := w.kek.Wraps()
		full := errors.New("disk full")
		_, err := w.RunDue(t.Context(), func(keys.Deed) error { return full }, func(keys.Deed, error) { t.Error("an outcome without a deed") })
		if !errors.Is(err, full) {
			t.Error(err)
		}
		if r, err := w.Ring(t.Context(), n); err != nil || r.Revision != 1 || w.kek.Wraps() != before {
			t.Errorf("revision %d, %v", r.Revision, err)
		}
	})
}

// TestIntentIsForOneRevision: what changes between the intent and the deed stops it.
func TestIntentIsForOneRevision(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.createDue(t, "ring")
		time.Sleep(period)
		var l log
		_, err := w.RunDue(t.Context(), func(d keys.Deed) error {
			w.rotate(t, n)
			return l.intend(d)
		}, l.done)
		if !errors.Is(err, keys.ErrConflict) || !slices.Equal(l, []string{"ring: rotate", keys.ErrConflict.Error()}) {
			t.Errorf("%q, %v", []string(l), err)
		}
		if r, err := w.Ring(t.Context(), n); err != nil || len(r.Versions) != 2 {
			t.Errorf("%d versions, %v", len(r.Versions), err)
		}
	})
}

// TestSparedAtTheLastMoment: between the intent and the deed somebody cancels.
func TestSparedAtTheLastMoment(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.rotate(t, n)
		w.setState(t, n, 1, keys.StateDisabled)
		w.setState(t, n, 1, keys.StateScheduledForDestruction)
		time.Sleep(destroyAfter)
		var l log
		_, err := w.RunDue(t.Context(), func(d keys.Deed) error {
			w.setState(t, n, 1, keys.StateDisabled)
			return l.intend(d)
		}, l.done)
		if !errors.Is(err, keys.ErrConflict) {
			t.Errorf("%q, %v", []string(l), err)
		}
		w.setState(t, n, 1, keys.StateEnabled)
		w.opens(t, n, 1, nil)
	})
}

// TestDueBrokenTwice: a scheduled rotation lost is done by the next run, one done but
// reported lost is not done again.
func TestDueBrokenTwice(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.createDue(t, "ring")
		time.Sleep(period)
		w.shelf.Writes(keystest.Lost)
		if err := w.run(t, "ring: rotate", keys.ErrStore.Error()); !errors.Is(err, keys.ErrStore) {
			t.Error(err)
		}
		w.shelf.Writes(keystest.DoneButLost)
		if err := errors.Join(w.run(t, "ring: rotate", "ok"), w.run(t)); err != nil {
			t.Error(err)
		}
		if r, err := w.Ring(t.Context(), n); err != nil || len(r.Versions) != 2 {
			t.Errorf("%d versions, %v", len(r.Versions), err)
		}
	})
}

// TestKEKDownEndsTheRun instead of failing at each keyring in turn.
func TestKEKDownEndsTheRun(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		for i := range 10 {
			w.createDue(t, fmt.Sprintf("ring-%d", i))
		}
		time.Sleep(period)
		w.kek.Always(kmstest.Stalled)
		began := time.Now()
		if err := w.run(t, "ring-0: rotate", keys.ErrKEKUnreachable.Error()); !errors.Is(err, keys.ErrKEKUnreachable) {
			t.Error(err)
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// TestRefusedRotationsDoNotBlockOthers: more of them than one run looks at.
func TestRefusedRotationsDoNotBlockOthers(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		for i := range 120 {
			w.createDue(t, fmt.Sprintf("a-%03d", i))
		}
		time.Sleep(time.Second)
		good := w.createDue(t, "good")
		time.Sleep(period)
		plan := slices.Repeat([]kmstest.Step{kmstest.Denied}, 120)
		w.kek.Plan(plan...)
		quiet := func() (int, error) {
			return w.RunDue(t.Context(), func(keys.Deed) error { return nil }, func(keys.Deed, error) {})
		}
		n, err := quiet()
		if n != 100 || !errors.Is(err, keys.ErrKEKRefused) {
			t.Errorf("first run: %d, %v", n, err)
		}
		if n, _ := quiet(); n != 21 {
			t.Errorf("second run: %d", n)
		}
		if r, err := w.Ring(t.Context(), good); err != nil || len(r.Versions) != 2 {
			t.Errorf("%d versions, %v", len(r.Versions), err)
		}
		time.Sleep(time.Hour)
		if n, err := quiet(); n != 100 || err != nil {
			t.Errorf("an hour later: %d, %v", n, err)
		}
	})
}

func TestRunDueEndsWithItsContext(t *testing.T) {
	w := newWorld(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.shelf.Reads(keystest.Stalled)
	if _, err := w.RunDue(ctx, nil, nil); !errors.Is(err, context.Canceled) || !errors.Is(err, keys.ErrStore) {
		t.Errorf("got %v", err)
	}
}
