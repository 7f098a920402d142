package keys_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/keys"
	"github.com/sallyport/sallyport/keys/keystest"
	"github.com/sallyport/sallyport/keys/kms/kmstest"
)

var states = []keys.State{
	0, keys.StatePending, keys.StatePrimary, keys.StateEnabled, keys.StateDisabled, keys.StateCompromised,
	keys.StateScheduledForDestruction, keys.StateDestroyed, 8,
}

// model is what the states of a keyring should be, written from
// docs/operations/keyrings.md.
type model struct {
	now         time.Time
	states      []keys.State
	compromised []bool
	destroyAt   []time.Time
}

// allows reports whether the page's drawing has an arrow.
func (m *model) allows(i int, to keys.State) bool {
	from, tainted := m.states[i], m.compromised[i]
	switch [2]keys.State{from, to} {
	case [2]keys.State{keys.StateEnabled, keys.StateDisabled},
		[2]keys.State{keys.StateEnabled, keys.StateCompromised},
		[2]keys.State{keys.StateDisabled, keys.StateCompromised},
		[2]keys.State{keys.StateDisabled, keys.StateScheduledForDestruction},
		[2]keys.State{keys.StateCompromised, keys.StateScheduledForDestruction},
		[2]keys.State{keys.StateScheduledForDestruction, keys.StateCompromised},
		[2]keys.State{keys.StatePending, keys.StateCompromised},
		[2]keys.State{keys.StatePending, keys.StateDisabled},
		[2]keys.State{keys.StatePending, keys.StatePrimary}:
		return true
	case [2]keys.State{keys.StateDisabled, keys.StateEnabled},
		[2]keys.State{keys.StateScheduledForDestruction, keys.StateDisabled}:
		return !tainted
	}
	return false
}

func (m *model) add(s keys.State) {
	m.states, m.compromised = append(m.states, s), append(m.compromised, false)
	m.destroyAt = append(m.destroyAt, time.Time{})
}

func (m *model) demote() {
	if i := slices.Index(m.states, keys.StatePrimary); i >= 0 {
		m.states[i] = keys.StateEnabled
	}
}

// TestStatesFollowTheModel does random things to a keyring and compares each
// outcome, what is stored, and what opens.
func TestStatesFollowTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
		w := newWorld(t, func(c *keys.Config) { c.Now = func() time.Time { return m.now } })
		defer w.Close()
		n := w.create(t, "ring", keys.PurposeAEAD)
		m.add(keys.StatePrimary)
		for range rapid.IntRange(1, 20).Draw(rt, "steps") {
			w.step(t, rt, n, m)
			w.compare(t, rt, n, m)
		}
	})
}

func (w *world) step(t *testing.T, rt *rapid.T, n keys.Name, m *model) {
	ctx := t.Context()
	switch rapid.IntRange(0, 6).Draw(rt, "act") {
	case 0:
		if _, err := w.Rotate(ctx, n, 0); err != nil {
			rt.Fatal(err)
		}
		m.demote()
		m.add(keys.StatePrimary)
	case 1:
		m.now = m.now.Add(time.Duration(rapid.IntRange(0, 10).Draw(rt, "days")) * 24 * time.Hour)
	case 2:
		if _, err := w.RunDue(ctx, func(keys.Deed) error { return nil }, func(keys.Deed, error) {}); err != nil {
			rt.Fatal(err)
		}
		for i, s := range m.states {
			if s == keys.StateScheduledForDestruction && !m.now.Before(m.destroyAt[i]) {
				m.states[i] = keys.StateDestroyed
			}
		}
	default:
		i := rapid.IntRange(0, len(m.states)-1).Draw(rt, "version")
		to := rapid.SampledFrom(states).Draw(rt, "state")
		// Mostly what is allowed, or the long ways round would never be walked.
		allowed := slices.DeleteFunc(slices.Clone(states), func(s keys.State) bool { return !m.allows(i, s) })
		if len(allowed) > 0 && rapid.IntRange(0, 3).Draw(rt, "polite") > 0 {
			to = rapid.SampledFrom(allowed).Draw(rt, "allowed")
		}
		_, err := w.SetVersionState(ctx, n, uint32(i+1), to, 0)
		switch {
		case m.states[i] == to:
			if err != nil {
				rt.Fatalf("staying in %v: %v", to, err)
			}
		case !m.allows(i, to):
			if !errors.Is(err, keys.ErrVersionState) {
				rt.Fatalf("from %v to %v: %v", m.states[i], to, err)
			}
		case err != nil:
			rt.Fatalf("from %v to %v: %v", m.states[i], to, err)
		default:
			if to == keys.StatePrimary {
				m.demote()
			}
			if to == keys.StateScheduledForDestruction {
				m.destroyAt[i] = m.now.Add(destroyAfter)
			}
			m.states[i] = to
			m.compromised[i] = m.compromised[i] || to == keys.StateCompromised
		}
	}
}

func (w *world) compare(t *testing.T, rt *rapid.T, n keys.Name, m *model) {
	r, err := w.Ring(t.Context(), n)
	if err != nil || len(r.Versions) != len(m.states) {
		rt.Fatalf("%d versions, want %d; %v", len(r.Versions), len(m.states), err)
	}
	primaries := 0
	for i, v := range r.Versions {
		if v.State != m.states[i] || v.Number != uint32(i+1) || v.Compromised.IsZero() == m.compromised[i] {
			rt.Fatalf("version %d is %v (compromised %v), want %v", v.Number, v.State, v.Compromised, m.states[i])
		}
		if destroyed := v.State == keys.StateDestroyed; destroyed != (len(v.Wrapped) == 0) {
			rt.Fatalf("version %d is %v with %d bytes of material", v.Number, v.State, len(v.Wrapped))
		}
		if waiting := v.State >= keys.StateScheduledForDestruction; waiting == v.DestroyAt.IsZero() {
			rt.Fatalf("version %d is %v, DestroyAt %v", v.Number, v.State, v.DestroyAt)
		}
		_, err := w.Opening(t.Context(), n, keys.PurposeAEAD, message(t, v.Number))
		if opens := v.State.Opens(); opens != (err == nil) || !opens && !errors.Is(err, keys.ErrVersionState) {
			rt.Fatalf("version %d is %v and opens with %v", v.Number, v.State, err)
		}
		if v.State == keys.StatePrimary {
			primaries++
		}
	}
	if h, err := w.Sealing(t.Context(), n, keys.PurposeAEAD); primaries != 1 || err != nil || m.states[h.Version()-1] != keys.StatePrimary {
		rt.Fatalf("%d primaries; sealing: %v", primaries, err)
	}
}

// TestPendingVersions: one that came in by another way is promoted.
func TestPendingVersions(t *testing.T) {
	w := newWorld(t, nil)
	n := w.create(t, "ring", keys.PurposeAEAD)
	w.rotate(t, n)
	r, err := w.shelf.Ring(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	r.Versions[0].State, r.Versions[1].State = keys.StatePrimary, keys.StatePending
	if err := w.shelf.UpdateRing(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	w.Invalidate(n)
	w.opens(t, n, 2, keys.ErrVersionState)
	w.setState(t, n, 2, keys.StatePrimary)
	if w.warm(t, n).Version() != 2 {
		t.Error("not promoted")
	}
	w.opens(t, n, 1, nil)
}

func TestRevisions(t *testing.T) {
	w := newWorld(t, nil)
	n := w.create(t, "ring", keys.PurposeAEAD)
	r, err := w.Rotate(t.Context(), n, 1)
	if err != nil || r.Revision != 2 {
		t.Fatalf("revision %d, %v", r.Revision, err)
	}
	before := w.kek.Wraps()
	if _, err := w.Rotate(t.Context(), n, 1); !errors.Is(err, keys.ErrConflict) {
		t.Errorf("Rotate: %v", err)
	}
	if _, err := w.SetVersionState(t.Context(), n, 1, keys.StateDisabled, 1); !errors.Is(err, keys.ErrConflict) {
		t.Errorf("SetVersionState: %v", err)
	}
	if w.kek.Wraps() != before {
		t.Error("a conflict cost a call to the KEK")
	}
	if _, err := w.SetVersionState(t.Context(), n, 9, keys.StateDisabled, 0); !errors.Is(err, keys.ErrUnknownVersion) {
		t.Errorf("unknown version: %v", err)
	}
	if _, err := w.Rotate(t.Context(), name("none"), 0); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("unknown keyring: %v", err)
	}
}

func TestCreateChecks(t *testing.T) {
	w := newWorld(t, nil)
	n := w.create(t, "ring", keys.PurposeAEAD)
	before := w.kek.Wraps()
	for what, c := range map[string]struct {
		n      keys.Name
		p      keys.Purpose
		period time.Duration
		want   error
	}{
		"taken":      {n, keys.PurposeAEAD, 0, keys.ErrExists},
		"name":       {name("Ring"), keys.PurposeAEAD, 0, keys.ErrName},
		"tenant":     {keys.Name{Tenant: "a/b", Keyring: "ring"}, keys.PurposeAEAD, 0, keys.ErrName},
		"purpose":    {name("x"), 0, 0, keys.ErrArgument},
		"no purpose": {name("x"), 4, 0, keys.ErrArgument},
		"too often":  {name("x"), keys.PurposeAEAD, time.Minute, keys.ErrArgument},
		"negative":   {name("x"), keys.PurposeAEAD, -time.Hour, keys.ErrArgument},
	} {
		if _, err := w.CreateRing(t.Context(), c.n, c.p, c.period); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if w.kek.Wraps() != before {
		t.Error("a refused creation cost a call to the KEK")
	}
	if _, err := w.CreateRing(t.Context(), keys.Name{Tenant: "nobody", Keyring: "ring"}, keys.PurposeAEAD, 0); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("no tenant: %v", err)
	}
	if _, err := w.CreateTenant(t.Context(), "acme"); !errors.Is(err, keys.ErrExists) {
		t.Errorf("tenant twice: %v", err)
	}
	if _, err := w.CreateTenant(t.Context(), "-"); !errors.Is(err, keys.ErrName) {
		t.Errorf("tenant's name: %v", err)
	}
}

// verbs is every write to a ring, each on the ring that has versions 1 and 2, and
// what version has which state after it.
var verbs = map[string]struct {
	do      func(ctx context.Context, w *world, n keys.Name) error
	version int
	state   keys.State
}{
	"rotate": {func(ctx context.Context, w *world, n keys.Name) error {
		_, err := w.Rotate(ctx, n, 2)
		return err
	}, 3, keys.StatePrimary},
	"disable": {func(ctx context.Context, w *world, n keys.Name) error {
		_, err := w.SetVersionState(ctx, n, 1, keys.StateDisabled, 2)
		return err
	}, 1, keys.StateDisabled},
	"compromised": {func(ctx context.Context, w *world, n keys.Name) error {
		_, err := w.SetVersionState(ctx, n, 1, keys.StateCompromised, 2)
		return err
	}, 1, keys.StateCompromised},
}

// TestBrokenTwice: each write lost, and done but reported lost. A lost one fails and
// leaves no trace; one that was done succeeds. Either way what is in memory agrees
// with what is stored.
func TestBrokenTwice(t *testing.T) {
	for what, verb := range verbs {
		for _, fault := range []keystest.Fault{keystest.Lost, keystest.DoneButLost} {
			t.Run(fmt.Sprintf("%s/%d", what, fault), func(t *testing.T) {
				w := newWorld(t, nil)
				n := w.create(t, "ring", keys.PurposeAEAD)
				w.rotate(t, n)
				w.warm(t, n)
				w.opens(t, n, 1, nil)
				w.shelf.Writes(fault)
				err := verb.do(t.Context(), w, n)
				if lost := fault == keystest.Lost; lost != errors.Is(err, keys.ErrStore) || !lost && err != nil {
					t.Fatalf("got %v", err)
				}
				if fault == keystest.Lost {
					w.opens(t, n, 1, nil)
					if err := verb.do(t.Context(), w, n); err != nil {
						t.Fatalf("again: %v", err)
					}
				}
				r, err := w.Ring(t.Context(), n)
				if err != nil || r.Revision != 3 || r.Versions[verb.version-1].State != verb.state {
					t.Errorf("revision %d, %v; %v", r.Revision, r.Versions, err)
				}
				for _, v := range r.Versions {
					want := error(nil)
					if !v.State.Opens() {
						want = keys.ErrVersionState
					}
					w.opens(t, n, v.Number, want)
				}
			})
		}
	}
}

func TestCreateBrokenTwice(t *testing.T) {
	w := newWorld(t, nil)
	n := name("ring")
	w.seals(t, n, keys.ErrNotFound)
	w.shelf.Writes(keystest.Lost)
	if _, err := w.CreateRing(t.Context(), n, keys.PurposeAEAD, 0); !errors.Is(err, keys.ErrStore) {
		t.Errorf("lost: %v", err)
	}
	w.seals(t, n, keys.ErrNotFound)
	w.shelf.Writes(keystest.DoneButLost)
	r, err := w.CreateRing(t.Context(), n, keys.PurposeAEAD, 0)
	if err != nil || r.Revision != 1 {
		t.Errorf("done but reported lost: revision %d, %v", r.Revision, err)
	}
	w.seals(t, n, nil)
	w.shelf.Writes(keystest.DoneButLost)
	if _, err := w.CreateTenant(t.Context(), "beta"); !errors.Is(err, keys.ErrStore) {
		t.Errorf("tenant: %v", err)
	}
	if _, err := w.CreateTenant(t.Context(), "beta"); !errors.Is(err, keys.ErrExists) {
		t.Errorf("tenant again: %v", err)
	}
}

// TestSomebodyElsesWrite: ours was lost and another's took its revision. That is not
// ours to report as done.
func TestSomebodyElsesWrite(t *testing.T) {
	w := newWorld(t, nil)
	n := w.create(t, "ring", keys.PurposeAEAD)
	w.rotate(t, n)
	w.shelf.Shelf = thief{w.shelf.Shelf}
	if _, err := w.SetVersionState(t.Context(), n, 1, keys.StateDisabled, 0); !errors.Is(err, keys.ErrStore) {
		t.Errorf("SetVersionState: %v", err)
	}
	if _, err := w.Rotate(t.Context(), n, 0); !errors.Is(err, keys.ErrStore) {
		t.Errorf("Rotate: %v", err)
	}
	w.opens(t, n, 1, keys.ErrVersionState) // compromised by the other
}

// thief puts a change of its own in the place of every update.
type thief struct{ keys.Shelf }

func (s thief) UpdateRing(ctx context.Context, r keys.Ring) error {
	stored, err := s.Shelf.Ring(ctx, r.Name)
	if err != nil {
		return err
	}
	stored.Versions[0].State = keys.StateCompromised
	return errors.Join(keys.ErrStore, s.Shelf.UpdateRing(ctx, stored))
}

// TestUnknownOutcome: the write is reported lost and cannot be read back. Nothing in
// memory is believed afterwards.
func TestUnknownOutcome(t *testing.T) {
	w := newWorld(t, nil)
	n := w.create(t, "ring", keys.PurposeAEAD)
	w.rotate(t, n)
	w.opens(t, n, 1, nil)
	r, err := w.shelf.Ring(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	broken := &blindShelf{Shelf: w.shelf.Shelf, ring: r}
	w.shelf.Shelf = broken
	if _, err := w.SetVersionState(t.Context(), n, 1, keys.StateDisabled, 0); !errors.Is(err, keys.ErrStore) {
		t.Fatalf("got %v", err)
	}
	w.opens(t, n, 1, keys.ErrStore)
	w.shelf.Shelf = broken.Shelf
	w.opens(t, n, 1, keys.ErrVersionState) // it had been done
}

// blindShelf answers one read, does one write and reports it lost, and fails then.
type blindShelf struct {
	keys.Shelf
	ring  keys.Ring
	reads int
}

func (s *blindShelf) Ring(context.Context, keys.Name) (keys.Ring, error) {
	if s.reads++; s.reads == 1 {
		return s.ring, nil
	}
	return keys.Ring{}, keys.ErrStore
}

func (s *blindShelf) UpdateRing(ctx context.Context, r keys.Ring) error {
	return errors.Join(keys.ErrStore, s.Shelf.UpdateRing(ctx, r))
}

// TestKEKDownOnRotation: refused, typed, and nothing changes.
func TestKEKDownOnRotation(t *testing.T) {
	for _, step := range []kmstest.Step{kmstest.Unreachable, kmstest.Throttled, kmstest.Denied} {
		w := newWorld(t, nil)
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.kek.Plan(step)
		if _, err := w.Rotate(t.Context(), n, 0); !errors.Is(err, step.Err) && !errors.Is(err, keys.ErrKEK) {
			t.Errorf("got %v", err)
		}
		if r, err := w.Ring(t.Context(), n); err != nil || r.Revision != 1 || len(r.Versions) != 1 {
			t.Errorf("revision %d, %v", r.Revision, err)
		}
	}
}

// TestCallerGone: a call that its caller ended says so, and not that the store is
// down; a store that does not keep to the contract is down.
func TestCallerGone(t *testing.T) {
	w := newWorld(t, nil)
	n := w.create(t, "ring", keys.PurposeAEAD)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Ring(ctx, n); !errors.Is(err, context.Canceled) || errors.Is(err, keys.ErrStore) {
		t.Errorf("Ring: %v", err)
	}
	if _, err := w.Rotate(ctx, n, 0); !errors.Is(err, context.Canceled) || errors.Is(err, keys.ErrStore) {
		t.Errorf("Rotate: %v", err)
	}
	w.shelf.Shelf = rude{w.shelf.Shelf}
	if _, err := w.Ring(t.Context(), n); !errors.Is(err, keys.ErrStore) {
		t.Errorf("Ring of a rude store: %v", err)
	}
}

// rude fails with an error of its own.
type rude struct{ keys.Shelf }

func (rude) Ring(context.Context, keys.Name) (keys.Ring, error) {
	return keys.Ring{}, errors.New("disk I/O error")
}

// TestWipedAfterTheLastUse: the key of a version that may no longer be used is
// wiped, but not under an operation that has begun.
func TestWipedAfterTheLastUse(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.rotate(t, n)
		held, err := w.Opening(t.Context(), n, keys.PurposeAEAD, message(t, 1))
		if err != nil {
			t.Fatal(err)
		}
		w.setState(t, n, 1, keys.StateCompromised)
		if _, err := held.AEAD().Seal(nil, nil, emptyContext, 1); err != nil {
			t.Errorf("an operation that had begun: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if _, err := held.AEAD().Seal(nil, nil, emptyContext, 1); err == nil {
			t.Error("not wiped")
		}
	})
}

func TestTooManyVersions(t *testing.T) {
	w := newWorld(t, nil)
	n := w.create(t, "ring", keys.PurposeAEAD)
	r, err := w.shelf.Ring(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	for i := uint32(2); i <= keys.MaxVersions; i++ {
		r.Versions = append(r.Versions, keys.Version{Number: i, State: keys.StateDestroyed})
	}
	if err := w.shelf.UpdateRing(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Rotate(t.Context(), n, 0); !errors.Is(err, keys.ErrTooManyVersions) {
		t.Errorf("got %v", err)
	}
	w.opens(t, n, 1, nil)
}
