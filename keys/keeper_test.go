package keys_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/envelope"
	"github.com/sallyport/sallyport/keys"
	"github.com/sallyport/sallyport/keys/keystest"
	"github.com/sallyport/sallyport/keys/kms/kmstest"
)

const (
	refreshAfter = 5 * time.Minute
	maxStaleness = time.Hour
	destroyAfter = 7 * 24 * time.Hour
)

// world is a keeper with a shelf and a KEK that break as told.
type world struct {
	*keys.Keeper
	shelf *keystest.Faulty
	kek   *kmstest.Fake
}

func newConfig(shelf keys.Shelf, kek keys.KEK) keys.Config {
	return keys.Config{
		Shelf: shelf, Current: kek, Deployment: "dep", Environment: "test", Now: time.Now,
		Entries: 1000, RefreshAfter: refreshAfter, MaxStaleness: maxStaleness, LoadTimeout: 10 * time.Second,
		Rate: 1e6, TenantRate: 1e6, DestroyAfter: destroyAfter,
	}
}

// newWorld makes a world with the tenant "acme"; change may alter the configuration.
func newWorld(t testing.TB, change func(*keys.Config)) *world {
	t.Helper()
	w := &world{shelf: &keystest.Faulty{Shelf: &keystest.Shelf{}}, kek: kmstest.NewFake("one")}
	c := newConfig(w.shelf, w.kek)
	if change != nil {
		change(&c)
	}
	w.Keeper = newKeeper(t, c)
	if _, err := w.CreateTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	return w
}

func newKeeper(t testing.TB, c keys.Config) *keys.Keeper {
	t.Helper()
	k, err := keys.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// inBubble runs a test with fake time and closes the keeper inside the bubble.
func inBubble(t *testing.T, change func(*keys.Config), f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t, change)) })
}

func name(keyring string) keys.Name { return keys.Name{Tenant: "acme", Keyring: keyring} }

func (w *world) create(t testing.TB, keyring string, p keys.Purpose) keys.Name {
	t.Helper()
	if _, err := w.CreateRing(t.Context(), name(keyring), p, 0); err != nil {
		t.Fatal(err)
	}
	return name(keyring)
}

func (w *world) rotate(t testing.TB, n keys.Name) {
	t.Helper()
	if _, err := w.Rotate(t.Context(), n, 0); err != nil {
		t.Fatal(err)
	}
}

func (w *world) setState(t testing.TB, n keys.Name, version uint32, to keys.State) {
	t.Helper()
	if _, err := w.SetVersionState(t.Context(), n, version, to, 0); err != nil {
		t.Fatal(err)
	}
}

// warm gets the sealing key, so that it is in memory.
func (w *world) warm(t testing.TB, n keys.Name) *keys.Handle {
	t.Helper()
	h, err := w.Sealing(t.Context(), n, keys.PurposeAEAD)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// seals fails unless Sealing gives the error; nil for none.
func (w *world) seals(t testing.TB, n keys.Name, want error) {
	t.Helper()
	if _, err := w.Sealing(t.Context(), n, keys.PurposeAEAD); !errors.Is(err, want) || want == nil && err != nil {
		t.Errorf("Sealing %v: %v, want %v", n, err, want)
	}
}

// opens fails unless Opening the version gives the error; nil for none.
func (w *world) opens(t testing.TB, n keys.Name, version uint32, want error) {
	t.Helper()
	h, err := w.Opening(t.Context(), n, keys.PurposeAEAD, message(t, version))
	if !errors.Is(err, want) || want == nil && (err != nil || h.Version() != version) {
		t.Errorf("Opening version %d of %v: %v, want %v", version, n, err, want)
	}
}

// calls runs f and checks how many calls it made to the KEK for opening, and to the
// store.
func (w *world) calls(t testing.TB, unwraps int64, queries int, f func()) {
	t.Helper()
	u, q := w.kek.Unwraps(), w.shelf.Calls()
	f()
	if u, q = w.kek.Unwraps()-u, w.shelf.Calls()-q; u != unwraps || q != queries {
		t.Errorf("%d KEK calls and %d queries, want %d and %d", u, q, unwraps, queries)
	}
}

// message is one that claims the version, and nothing about the keyring.
func message(t testing.TB, version uint32) envelope.Message {
	t.Helper()
	raw := append([]byte{0xF6, byte(envelope.SuiteCompact)}, binary.BigEndian.AppendUint32(nil, version)...)
	m, err := envelope.Parse(append(raw, make([]byte, 64)...))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var emptyContext binding.Context

func TestPurposes(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	aead, siv, mac := w.create(t, "a", keys.PurposeAEAD), w.create(t, "d", keys.PurposeDeterministic), w.create(t, "m", keys.PurposeMAC)

	h := w.warm(t, aead)
	sealed, err := h.AEAD().Seal(nil, []byte("text"), emptyContext, envelope.SuiteStandard)
	if err != nil {
		t.Fatal(err)
	}
	w.rotate(t, aead)
	m, err := envelope.Parse(sealed)
	if err != nil {
		t.Fatal(err)
	}
	old, err := w.Opening(ctx, aead, keys.PurposeAEAD, m)
	if err != nil || old.Version() != 1 || w.warm(t, aead).Version() != 2 {
		t.Fatalf("after the rotation: %v, %v", old, err)
	}
	if text, err := old.AEAD().Open(nil, m, emptyContext); err != nil || string(text) != "text" {
		t.Errorf("opened %q, %v", text, err)
	}

	d, err := w.Sealing(ctx, siv, keys.PurposeDeterministic)
	if err != nil {
		t.Fatal(err)
	}
	one, err1 := d.SIV().Seal(nil, []byte("text"), emptyContext)
	two, err2 := d.SIV().Seal(nil, []byte("text"), emptyContext)
	if err1 != nil || err2 != nil || !bytes.Equal(one, two) {
		t.Errorf("deterministic: %v, %v", err1, err2)
	}

	tagger, err := w.Sealing(ctx, mac, keys.PurposeMAC)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := tagger.MAC().Compute(nil, []byte("text"), emptyContext)
	if err != nil {
		t.Fatal(err)
	}
	m, err = envelope.Parse(tag)
	if err = errors.Join(err, tagger.MAC().Verify(m, []byte("text"), emptyContext)); err != nil {
		t.Error(err)
	}
	if h.SIV() != nil || h.MAC() != nil || d.AEAD() != nil || tagger.AEAD() != nil {
		t.Error("a handle has keys of other purposes")
	}
}

// TestRefusedBeforeTheKEK: whatever can be known without the KEK is refused without
// calling it.
func TestRefusedBeforeTheKEK(t *testing.T) {
	w := newWorld(t, nil)
	n, other := w.create(t, "ring", keys.PurposeAEAD), w.create(t, "other", keys.PurposeAEAD)
	sealed, err := w.warm(t, other).AEAD().Seal(nil, nil, emptyContext, envelope.SuiteStandard)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := envelope.Parse(sealed)
	if err != nil {
		t.Fatal(err)
	}
	for range 6 {
		w.rotate(t, n)
	}
	w.setState(t, n, 1, keys.StateDisabled)
	w.setState(t, n, 2, keys.StateCompromised)
	w.setState(t, n, 3, keys.StateDisabled)
	w.setState(t, n, 3, keys.StateScheduledForDestruction)
	before := w.kek.Unwraps()
	for version, want := range map[uint32]error{
		1: keys.ErrVersionState, 2: keys.ErrVersionState, 3: keys.ErrVersionState,
		8: keys.ErrUnknownVersion, 4097: keys.ErrUnknownVersion, 1 << 31: keys.ErrUnknownVersion,
	} {
		w.opens(t, n, version, want)
	}
	if _, err := w.Opening(t.Context(), n, keys.PurposeAEAD, foreign); !errors.Is(err, keys.ErrForeign) {
		t.Errorf("foreign: %v", err)
	}
	for _, p := range []keys.Purpose{keys.PurposeMAC, keys.PurposeDeterministic, 0} {
		if _, err := w.Sealing(t.Context(), n, p); !errors.Is(err, keys.ErrPurpose) {
			t.Errorf("purpose %v: %v", p, err)
		}
	}
	w.seals(t, name("none"), keys.ErrNotFound)
	if errors.Is(keys.ErrNotFound, keys.ErrUnknownVersion) {
		t.Error("an unknown keyring is an unknown version")
	}
	if n := w.kek.Unwraps() - before; n != 0 {
		t.Errorf("%d KEK calls", n)
	}
}

// TestBoundToTheDeployment: the same store and KEK under another deployment or
// environment open nothing.
func TestBoundToTheDeployment(t *testing.T) {
	w := newWorld(t, nil)
	n := w.create(t, "ring", keys.PurposeAEAD)
	for what, change := range map[string]func(*keys.Config){
		"deployment":  func(c *keys.Config) { c.Deployment = "dep2" },
		"environment": func(c *keys.Config) { c.Environment = "prod" },
	} {
		c := newConfig(w.shelf, w.kek)
		change(&c)
		if _, err := newKeeper(t, c).Sealing(t.Context(), n, keys.PurposeAEAD); !errors.Is(err, keys.ErrKEKMismatch) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestSwappedVersionsDoNotOpen: who writes the store cannot pass one version, or one
// tenant's keyring, off as another.
func TestSwappedVersionsDoNotOpen(t *testing.T) {
	w := newWorld(t, nil)
	n, other := w.create(t, "ring", keys.PurposeAEAD), w.create(t, "other", keys.PurposeAEAD)
	w.rotate(t, n)
	r, err := w.shelf.Ring(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	o, err := w.shelf.Ring(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	r.Versions[0].Wrapped, r.Versions[1].Wrapped = r.Versions[1].Wrapped, o.Versions[0].Wrapped
	if err := w.shelf.UpdateRing(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	w.Invalidate(n)
	w.opens(t, n, 1, keys.ErrKEKMismatch)
	w.opens(t, n, 2, keys.ErrKEKMismatch)
	w.seals(t, n, keys.ErrKEKMismatch)
}

// TestSeveralKEKs: new versions go to the current KEK, old ones to their own.
func TestSeveralKEKs(t *testing.T) {
	w := newWorld(t, nil)
	n := w.create(t, "ring", keys.PurposeAEAD)
	next := kmstest.NewFake("two")
	c := newConfig(w.shelf, next)
	c.Others = []keys.KEK{w.kek}
	moved := &world{newKeeper(t, c), w.shelf, next}
	moved.rotate(t, n)
	moved.opens(t, n, 1, nil)
	moved.opens(t, n, 2, nil)
	if w.kek.Unwraps() != 1 || next.Unwraps() != 1 {
		t.Errorf("%d and %d calls", w.kek.Unwraps(), next.Unwraps())
	}
	w.Invalidate(n)
	w.opens(t, n, 2, keys.ErrKEKRefused) // its KEK is not configured there
	c.Others = []keys.KEK{next}
	if _, err := keys.New(c); !errors.Is(err, keys.ErrArgument) {
		t.Errorf("one KEK twice: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for what, spoil := range map[string]func(*keys.Config){
		"shelf":        func(c *keys.Config) { c.Shelf = nil },
		"kek":          func(c *keys.Config) { c.Current = nil },
		"clock":        func(c *keys.Config) { c.Now = nil },
		"deployment":   func(c *keys.Config) { c.Deployment = "" },
		"environment":  func(c *keys.Config) { c.Environment = strings.Repeat("x", 256) },
		"entries":      func(c *keys.Config) { c.Entries = 0 },
		"rate":         func(c *keys.Config) { c.Rate = 0 },
		"tenant rate":  func(c *keys.Config) { c.TenantRate = -1 },
		"timeout":      func(c *keys.Config) { c.LoadTimeout = 0 },
		"staleness":    func(c *keys.Config) { c.MaxStaleness = c.RefreshAfter - 1 },
		"destroyAfter": func(c *keys.Config) { c.DestroyAfter = keys.MinDestroyAfter - 1 },
	} {
		c := newConfig(&keystest.Shelf{}, kmstest.NewFake("one"))
		spoil(&c)
		if _, err := keys.New(c); !errors.Is(err, keys.ErrArgument) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestClosedKeeper(t *testing.T) {
	w := newWorld(t, nil)
	n := w.create(t, "ring", keys.PurposeAEAD)
	h := w.warm(t, n)
	w.Close()
	w.Close()
	w.seals(t, n, keys.ErrClosed)
	if _, err := h.AEAD().Seal(nil, nil, emptyContext, envelope.SuiteStandard); err == nil {
		t.Error("the key survives Close")
	}
}

// TestCloseEndsLoads: Close does not wait for a KEK that does not answer.
func TestCloseEndsLoads(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.kek.Always(kmstest.Stalled)
		done := make(chan error)
		go func() {
			_, err := w.Sealing(t.Context(), n, keys.PurposeAEAD)
			done <- err
		}()
		synctest.Wait()
		began := time.Now()
		w.Close()
		if err := <-done; !errors.Is(err, keys.ErrKEKUnreachable) || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestHandlesDoNotPrintKeys(t *testing.T) {
	w := newWorld(t, nil)
	h := w.warm(t, w.create(t, "ring", keys.PurposeAEAD))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if out := fmt.Sprintf(verb, h); len(out) > 600 {
			t.Errorf("%s prints %d bytes: %s", verb, len(out), out)
		}
	}
}

func TestStalledStoreEndsInTime(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		n := w.create(t, "ring", keys.PurposeAEAD)
		w.shelf.Reads(keystest.Stalled)
		began := time.Now()
		w.seals(t, n, keys.ErrStore)
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.Sealing(ctx, n, keys.PurposeAEAD); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller in a hurry: %v", err)
		}
	})
}
