package keys_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/keys"
	"github.com/sallyport/sallyport/keys/keystest"
	"github.com/sallyport/sallyport/keys/kms/kmstest"
)

// TestStampede: a thousand callers of a cold keyring cost one call and one query,
// and half of them going away takes nothing from the others.
func TestStampede(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.kek.Always(kmstest.Step{Wait: 2 * time.Second})
		w.calls(t, 1, 1, func() {
			var group sync.WaitGroup
			for i := range 1000 {
				group.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+2*(i%2))*time.Second)
					defer cancel()
					_, err := w.Sealing(ctx, n, keys.PurposeAEAD)
					if impatient := i%2 == 0; impatient != errors.Is(err, context.DeadlineExceeded) || !impatient && err != nil {
						t.Errorf("caller %d: %v", i, err)
					}
				})
			}
			group.Wait()
		})
		w.calls(t, 0, 0, func() { w.seals(t, n, nil); w.opens(t, n, 1, nil) })
	})
}

// TestStampedeInRealTime is TestStampede where the race detector sees real
// interleavings, for sealing and opening.
func TestStampedeInRealTime(t *testing.T) {
	for range 20 {
		w := newWorld(t, nil)
		n := w.create(t, "ring", keys.PurposeAEAD)
		m := message(t, 1)
		w.calls(t, 1, 1, func() {
			var group sync.WaitGroup
			for i := range 100 {
				group.Go(func() {
					var err error
					if i%2 == 0 {
						_, err = w.Sealing(t.Context(), n, keys.PurposeAEAD)
					} else {
						_, err = w.Opening(t.Context(), n, keys.PurposeAEAD, m)
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
		})
	}
}

// TestWarmCallsNobody, over the time in which nothing is due.
func TestWarmCallsNobody(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.warm(t, n)
		w.calls(t, 0, 0, func() {
			for range 1000 {
				w.seals(t, n, nil)
				w.opens(t, n, 1, nil)
			}
			time.Sleep(refreshAfter*7/10 - time.Second)
			w.seals(t, n, nil)
		})
	})
}

// TestRefreshAhead: a key in use is confirmed behind the calls, once in each
// RefreshAfter.
func TestRefreshAhead(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.warm(t, n)
		w.kek.Always(kmstest.Step{Wait: 3 * time.Second}) // nobody waits for it
		before := w.kek.Unwraps()
		for range 4 * 60 {
			began := time.Now()
			w.seals(t, n, nil)
			if took := time.Since(began); took != 0 {
				t.Fatalf("a warm call took %v", took)
			}
			time.Sleep(5 * time.Second)
		}
		if n := w.kek.Unwraps() - before; n < 3 || n > 6 {
			t.Errorf("%d calls in four times RefreshAfter", n)
		}
	})
}

// TestIdleKeysAreConfirmed: one that was not in use is not trusted on its next use.
func TestIdleKeysAreConfirmed(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.warm(t, n)
		w.kek.Always(kmstest.Denied)
		time.Sleep(refreshAfter + time.Second)
		w.seals(t, n, keys.ErrKEKRefused)
	})
}

// TestUnreachable: warm keys serve for MaxStaleness since the last answer and no
// longer; nobody waits for the KEK; when it answers again all is well.
func TestUnreachable(t *testing.T) {
	for what, step := range map[string]kmstest.Step{
		"unreachable": kmstest.Unreachable, "throttled": kmstest.Throttled, "stalled": kmstest.Stalled,
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, w *world) {
				n := w.create(t, "ring", keys.PurposeAEAD)
				w.warm(t, n)
				began := time.Now()
				w.kek.Always(step)
				for time.Since(began) < maxStaleness-time.Second {
					asked := time.Now()
					w.seals(t, n, nil)
					if took := time.Since(asked); took != 0 {
						t.Fatalf("at %v a warm call took %v", asked.Sub(began), took)
					}
					time.Sleep(20 * time.Second)
				}
				time.Sleep(time.Until(began.Add(maxStaleness)))
				want := keys.ErrKEKUnreachable
				if what == "throttled" {
					want = keys.ErrKEKThrottled
				}
				w.seals(t, n, want)
				if w.Stats().StaleUses == 0 {
					t.Error("no stale use was counted")
				}
				w.kek.Always(kmstest.Step{})
				time.Sleep(15 * time.Second) // the breaker's pause
				w.seals(t, n, nil)
			})
		})
	}
}

// TestOutageCostsLittle: in an outage a key in heavy use is asked about every one to
// two seconds until the breaker opens, then less often.
func TestOutageCostsLittle(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.warm(t, n)
		w.kek.Always(kmstest.Unreachable)
		time.Sleep(refreshAfter - time.Millisecond)
		before := w.kek.Unwraps()
		for range 60 * 20 {
			w.seals(t, n, nil)
			time.Sleep(50 * time.Millisecond)
		}
		if calls := w.kek.Unwraps() - before; calls < 9 || calls > 20 {
			t.Errorf("%d calls in a minute", calls)
		}
		if refreshes := w.Stats().Refreshes; refreshes < 30 || refreshes > 70 {
			t.Errorf("%d attempts in a minute", refreshes)
		}
	})
}

// TestIdleAndUnreachable: the first use of an idle key waits a short time, then it
// is served.
func TestIdleAndUnreachable(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.warm(t, n)
		w.kek.Always(kmstest.Stalled)
		w.shelf.Reads(keystest.Stalled)
		time.Sleep(maxStaleness / 2)
		began := time.Now()
		w.seals(t, n, nil)
		if took := time.Since(began); took != 2*time.Second { // keyring and version, one each
			t.Errorf("took %v", took)
		}
	})
}

// TestStoreDown: warm keyrings serve for MaxStaleness and no longer.
func TestStoreDown(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n, cold := w.create(t, "ring", keys.PurposeAEAD), w.create(t, "cold", keys.PurposeAEAD)
		w.warm(t, n)
		began := time.Now()
		w.shelf.Reads(keystest.Lost)
		w.seals(t, cold, keys.ErrStore)
		for time.Since(began) < maxStaleness-time.Second {
			w.seals(t, n, nil)
			time.Sleep(10 * time.Second)
		}
		time.Sleep(time.Until(began.Add(maxStaleness)))
		w.seals(t, n, keys.ErrStore)
		w.shelf.Reads(keystest.None)
		w.seals(t, n, nil)
	})
}

// TestRefusedStaysStopped: a refusal takes the key out at once, and is not asked
// about again for a while; the KEK's change of mind is noticed.
func TestRefusedStaysStopped(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.warm(t, n)
		w.kek.Always(kmstest.Denied)
		time.Sleep(refreshAfter - time.Millisecond) // due, behind the call
		w.seals(t, n, nil)
		synctest.Wait()
		for range 100 {
			w.seals(t, n, keys.ErrKEKRefused)
		}
		w.calls(t, 1, 0, func() {
			for range 5 * 5 {
				time.Sleep(200 * time.Millisecond)
				w.seals(t, n, keys.ErrKEKRefused)
			}
		})
		w.kek.Always(kmstest.Unreachable)
		time.Sleep(6 * time.Second)
		w.seals(t, n, keys.ErrKEKUnreachable) // not served from before the refusal
		w.kek.Always(kmstest.Step{})
		w.seals(t, n, nil)
	})
}

// TestRefusalStopsTheWholeKEK: once a KEK has refused one key, no other key of it is
// used unconfirmed, although they are not due; a key that does not open says
// nothing about the others.
func TestRefusalStopsTheWholeKEK(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		var names []keys.Name
		for i := range 10 {
			names = append(names, w.create(t, fmt.Sprintf("ring-%d", i), keys.PurposeAEAD))
			w.warm(t, names[i])
		}
		time.Sleep(time.Minute)
		cold := w.create(t, "cold", keys.PurposeAEAD)
		w.kek.Plan(kmstest.Mismatched)
		w.seals(t, cold, keys.ErrKEKMismatch)
		w.calls(t, 0, 0, func() { w.seals(t, names[0], nil) })
		w.kek.Always(kmstest.Denied)
		time.Sleep(10 * time.Second)
		w.seals(t, cold, keys.ErrKEKRefused)
		for _, n := range names {
			w.seals(t, n, keys.ErrKEKRefused)
		}
	})
}

// TestInvalidationIsImmediate, for each kind of change and in both directions.
func TestInvalidationIsImmediate(t *testing.T) {
	w := newWorld(t, nil)
	n := w.create(t, "ring", keys.PurposeAEAD)
	w.seals(t, name("later"), keys.ErrNotFound)
	w.create(t, "later", keys.PurposeAEAD)
	w.seals(t, name("later"), nil)
	if w.warm(t, n).Version() != 1 {
		t.Error("not version 1")
	}
	w.rotate(t, n)
	if w.warm(t, n).Version() != 2 {
		t.Error("not version 2")
	}
	w.opens(t, n, 1, nil)
	w.setState(t, n, 1, keys.StateDisabled)
	w.opens(t, n, 1, keys.ErrVersionState)
	w.setState(t, n, 1, keys.StateEnabled)
	w.opens(t, n, 1, nil)
	w.setState(t, n, 1, keys.StateCompromised)
	w.opens(t, n, 1, keys.ErrVersionState)
}

// TestLoadBegunBeforeIsNotKept: a load that was under way when the name was
// invalidated is neither kept nor joined by later calls.
func TestLoadBegunBeforeIsNotKept(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.rotate(t, n)
		w.kek.Plan(kmstest.Step{Wait: 5 * time.Second}) // the load that is overtaken
		early := make(chan error)
		go func() {
			_, err := w.Opening(t.Context(), n, keys.PurposeAEAD, message(t, 1))
			early <- err
		}()
		synctest.Wait()
		w.setState(t, n, 1, keys.StateDisabled)
		began := time.Now()
		w.opens(t, n, 1, keys.ErrVersionState)
		if time.Since(began) != 0 {
			t.Error("a later call waited for the earlier load")
		}
		if err := <-early; err != nil {
			t.Errorf("the call that began before: %v", err)
		}
		w.setState(t, n, 1, keys.StateEnabled)
		w.calls(t, 1, 1, func() { w.opens(t, n, 1, nil) })

		w.kek.Plan(kmstest.Step{Wait: 5 * time.Second})
		w.Invalidate(n)
		go func() {
			_, err := w.Opening(t.Context(), n, keys.PurposeAEAD, message(t, 1))
			early <- err
		}()
		synctest.Wait()
		w.Invalidate(n)
		if err := <-early; err != nil {
			t.Error(err)
		}
		w.calls(t, 1, 1, func() { w.opens(t, n, 1, nil) }) // the load came too late to be kept
		w.Invalidate(n)
		w.calls(t, 1, 1, func() { w.opens(t, n, 1, nil) }) // and nothing that was kept is left
	})
}

// TestReadBegunBeforeIsNotKept: a read of the store that returns the state before a
// rotation, after the rotation, does not bring the old primary back.
func TestReadBegunBeforeIsNotKept(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		slow := &slowShelf{Shelf: w.shelf.Shelf, release: make(chan struct{})}
		slow.armed.Store(true)
		w.shelf.Shelf = slow
		early := make(chan uint32)
		go func() {
			h, err := w.Sealing(t.Context(), n, keys.PurposeAEAD)
			if err != nil {
				t.Error(err)
				close(early)
				return
			}
			early <- h.Version()
		}()
		synctest.Wait()
		w.rotate(t, n)
		close(slow.release)
		if version := <-early; version != 1 {
			t.Errorf("the call that began before got version %d", version)
		}
		if version := w.warm(t, n).Version(); version != 2 {
			t.Errorf("a call after the rotation got version %d", version)
		}
	})
}

// slowShelf delivers its first answer when released.
type slowShelf struct {
	keys.Shelf
	armed   atomic.Bool
	release chan struct{}
}

func (s *slowShelf) Ring(ctx context.Context, n keys.Name) (keys.Ring, error) {
	r, err := s.Shelf.Ring(ctx, n)
	if s.armed.Swap(false) {
		<-s.release
	}
	return r, err
}

// TestWhatOthersChange: another gateway's rotation is followed, and an unknown
// version leads to the store at most once a second.
func TestWhatOthersChange(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.warm(t, n)
		other := &world{newKeeper(t, newConfig(w.shelf, w.kek)), w.shelf, w.kek}
		other.rotate(t, n)
		w.seals(t, n, nil) // still version 1: the rotation is not known here
		time.Sleep(2 * time.Second)
		w.opens(t, n, 2, nil) // but what the other sealed opens
		w.calls(t, 0, 0, func() { w.opens(t, n, 2, nil) })
		time.Sleep(2 * time.Second)
		w.calls(t, 0, 1, func() {
			for range 100 {
				w.opens(t, n, 3, keys.ErrUnknownVersion)
			}
		})
		other.setState(t, n, 1, keys.StateDisabled)
		time.Sleep(refreshAfter + time.Second)
		w.opens(t, n, 1, keys.ErrVersionState)
	})
}

// TestOpenKeyOfADisabledVersion: the keyring is read again before the opened version
// is due, and its state decides.
func TestOpenKeyOfADisabledVersion(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.rotate(t, n)
		w.warm(t, n)
		time.Sleep(refreshAfter * 6 / 10)
		w.opens(t, n, 1, nil)
		other := &world{newKeeper(t, newConfig(w.shelf, w.kek)), w.shelf, w.kek}
		other.setState(t, n, 1, keys.StateDisabled)
		time.Sleep(refreshAfter / 2)
		w.calls(t, 0, 1, func() { w.opens(t, n, 1, keys.ErrVersionState) })
	})
}

// TestUnknownNamesAreRemembered briefly.
func TestUnknownNamesAreRemembered(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		w.calls(t, 0, 1, func() {
			for range 100 {
				w.seals(t, name("none"), keys.ErrNotFound)
			}
		})
		time.Sleep(6 * time.Second)
		w.calls(t, 0, 1, func() { w.seals(t, name("none"), keys.ErrNotFound) })
	})
}

// TestBreaker: after five calls without an answer in a row cold keys fail without a
// call, one call in a pause tries, and an answer closes it.
func TestBreaker(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.kek.Always(kmstest.Unreachable)
		w.calls(t, 5, 1, func() {
			for range 100 {
				w.seals(t, n, keys.ErrKEKUnreachable)
			}
		})
		w.seals(t, n, keys.ErrKEKBreaker)
		if w.Stats().BreakersOpen != 1 {
			t.Error("not counted as open")
		}
		time.Sleep(8 * time.Second)
		w.calls(t, 1, 0, func() {
			for range 100 {
				w.seals(t, n, keys.ErrKEKUnreachable)
			}
		})
		w.kek.Always(kmstest.Step{})
		w.seals(t, n, keys.ErrKEKBreaker)
		time.Sleep(8 * time.Second)
		w.seals(t, n, nil)
		if w.Stats().BreakersOpen != 0 {
			t.Error("counted as open")
		}
	})
}

// TestRefusalsDoNotOpenTheBreaker: they are answers.
func TestRefusalsDoNotOpenTheBreaker(t *testing.T) {
	w := newWorld(t, nil)
	w.kek.Always(kmstest.Denied)
	for i := range 20 {
		if _, err := w.CreateRing(t.Context(), name(fmt.Sprintf("ring-%d", i)), keys.PurposeAEAD, 0); !errors.Is(err, keys.ErrKEKRefused) {
			t.Error(err)
		}
	}
}

// TestBudgets: a tenant beyond its share is throttled without a call, others are
// not, and all together stay under the whole.
func TestBudgets(t *testing.T) {
	inBubble(t, func(c *keys.Config) { c.TenantRate, c.Rate = 5, 10 }, func(t *testing.T, w *world) {
		create := func(tenant keys.Tenant, count int) (throttled int) {
			for i := range count {
				n := keys.Name{Tenant: tenant, Keyring: fmt.Sprintf("ring-%d-%d", time.Now().Unix(), i)}
				switch _, err := w.CreateRing(t.Context(), n, keys.PurposeAEAD, 0); {
				case errors.Is(err, keys.ErrKEKThrottled):
					throttled++
				case err != nil:
					t.Fatal(err)
				}
			}
			return throttled
		}
		for _, tenant := range []keys.Tenant{"beta", "gamma"} {
			if _, err := w.CreateTenant(t.Context(), tenant); err != nil {
				t.Fatal(err)
			}
		}
		if throttled := create("acme", 30); throttled != 20 {
			t.Errorf("acme: %d throttled, want 20 beyond a burst of 10", throttled)
		}
		if throttled := create("beta", 10); throttled != 0 {
			t.Errorf("beta: %d throttled for acme's calls", throttled)
		}
		if throttled := create("gamma", 5); throttled != 5 {
			t.Errorf("gamma: %d throttled, want all: the whole budget is spent", throttled)
		}
		if calls := w.Stats().KEKCalls; calls != 20 {
			t.Errorf("%d calls", calls)
		}
		time.Sleep(time.Second)
		if throttled := create("gamma", 5); throttled != 0 {
			t.Errorf("gamma a second later: %d throttled", throttled)
		}
	})
}

// TestClockJumps: the wall clock's jumps make no key live longer or shorter.
func TestClockJumps(t *testing.T) {
	var offset time.Duration
	inBubble(t, func(c *keys.Config) { c.Now = func() time.Time { return time.Now().Add(offset) } }, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.warm(t, n)
		w.kek.Always(kmstest.Unreachable)
		offset = 365 * 24 * time.Hour
		w.calls(t, 0, 0, func() { w.seals(t, n, nil) })
		offset = -offset
		time.Sleep(maxStaleness)
		w.seals(t, n, keys.ErrKEKUnreachable)
	})
}
