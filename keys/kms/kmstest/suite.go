// Package kmstest is the conformance suite of keys.KEK and a fake that passes it.
// Every provider's test runs Run; what is the provider's own it tests beside it.
package kmstest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/crypto/envelope"
	"github.com/sallyport/sallyport/keys"
)

// callTimeout bounds each call of the suite.
const callTimeout = 30 * time.Second

// Binding returns a binding with every element set.
func Binding() keys.Binding {
	return keys.Binding{
		Deployment:  "conformance",
		Environment: "test",
		Tenant:      "acme",
		Keyring:     envelope.KeyringID{15: 1},
		Version:     7,
		Purpose:     keys.PurposeAEAD,
	}
}

// Run checks that the KEK keeps the contract of keys.KEK.
func Run(t *testing.T, k keys.KEK) {
	s := suite{k}
	t.Run("RoundTrip", s.roundTrip)
	t.Run("Binding", s.binding)
	t.Run("Altered", s.altered)
	t.Run("Sizes", s.sizes)
	t.Run("Context", s.context)
	t.Run("Aliasing", s.aliasing)
	t.Run("Concurrent", s.concurrent)
	t.Run("URI", s.uri)
}

type suite struct{ kek keys.KEK }

func (s suite) wrap(t *testing.T, keyset []byte, b keys.Binding) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	wrapped, err := s.kek.Wrap(ctx, keyset, b)
	if err != nil {
		t.Fatalf("Wrap: %v", err)
	}
	return wrapped
}

func (s suite) unwrap(t *testing.T, wrapped []byte, b keys.Binding) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	return s.kek.Unwrap(ctx, wrapped, b)
}

// mismatch fails unless the error is ErrKEKMismatch and nothing came with it.
func mismatch(t *testing.T, what string, keyset []byte, err error) {
	t.Helper()
	if !errors.Is(err, keys.ErrKEKMismatch) || keyset != nil {
		t.Errorf("%s: got %d bytes and %v, want ErrKEKMismatch", what, len(keyset), err)
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func (s suite) roundTrip(t *testing.T) {
	keyset := random(140)
	first, second := s.wrap(t, keyset, Binding()), s.wrap(t, keyset, Binding())
	if bytes.Equal(first, second) {
		t.Error("two wraps of one keyset are equal")
	}
	for _, wrapped := range [][]byte{first, second, first} {
		if bytes.Contains(wrapped, keyset[:16]) {
			t.Error("the wrapped keyset shows the keyset")
		}
		got, err := s.unwrap(t, wrapped, Binding())
		if err != nil || !bytes.Equal(got, keyset) {
			t.Errorf("Unwrap gives %d bytes, %v", len(got), err)
		}
	}
}

// binding changes each element alone, and two neighbours so that their
// concatenation stays the same.
func (s suite) binding(t *testing.T) {
	wrapped := s.wrap(t, random(140), Binding())
	for name, change := range map[string]func(*keys.Binding){
		"deployment":  func(b *keys.Binding) { b.Deployment += "x" },
		"environment": func(b *keys.Binding) { b.Environment = "Test" },
		"tenant":      func(b *keys.Binding) { b.Tenant = "acme-2" },
		"keyring":     func(b *keys.Binding) { b.Keyring[0] = 1 },
		"version":     func(b *keys.Binding) { b.Version++ },
		"purpose":     func(b *keys.Binding) { b.Purpose = keys.PurposeMAC },
		"boundary":    func(b *keys.Binding) { b.Deployment, b.Environment = "conformancet", "est" },
	} {
		b := Binding()
		change(&b)
		got, err := s.unwrap(t, wrapped, b)
		mismatch(t, name, got, err)
	}
}

func (s suite) altered(t *testing.T) {
	wrapped := s.wrap(t, random(140), Binding())
	const samples = 24
	for i := range samples {
		at := i * (len(wrapped) - 1) / (samples - 1)
		changed := bytes.Clone(wrapped)
		changed[at] ^= 0x01
		got, err := s.unwrap(t, changed, Binding())
		if !errors.Is(err, keys.ErrKEKRefused) || got != nil {
			t.Errorf("byte %d of %d changed: %d bytes, %v", at, len(wrapped), len(got), err)
		}
		got, err = s.unwrap(t, wrapped[:at], Binding())
		if !errors.Is(err, keys.ErrKEKRefused) || got != nil {
			t.Errorf("cut to %d of %d: %d bytes, %v", at, len(wrapped), len(got), err)
		}
	}
	got, err := s.unwrap(t, append(bytes.Clone(wrapped), 0), Binding())
	mismatch(t, "one byte more", got, err)
	got, err = s.unwrap(t, nil, Binding())
	mismatch(t, "nothing", got, err)
}

func (s suite) sizes(t *testing.T) {
	for _, n := range []int{1, 64, keys.MaxKeyset} {
		keyset := random(n)
		got, err := s.unwrap(t, s.wrap(t, keyset, Binding()), Binding())
		if err != nil || !bytes.Equal(got, keyset) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for _, n := range []int{0, keys.MaxKeyset + 1} {
		ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
		if wrapped, err := s.kek.Wrap(ctx, random(n), Binding()); !errors.Is(err, keys.ErrKEKRefused) || wrapped != nil {
			t.Errorf("%d bytes: got %d bytes, %v, want ErrKEKRefused", n, len(wrapped), err)
		}
		cancel()
	}
	got, err := s.unwrap(t, random(1<<16), Binding())
	mismatch(t, "64 KiB of noise", got, err)
}

func (s suite) context(t *testing.T) {
	wrapped := s.wrap(t, random(140), Binding())
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, ctx := range []context.Context{cancelled, expired} {
		_, err := s.kek.Unwrap(ctx, wrapped, Binding())
		if !errors.Is(err, keys.ErrKEKUnreachable) || !errors.Is(err, ctx.Err()) {
			t.Errorf("Unwrap: %v, want ErrKEKUnreachable and %v", err, ctx.Err())
		}
		_, err = s.kek.Wrap(ctx, random(8), Binding())
		if !errors.Is(err, keys.ErrKEKUnreachable) || !errors.Is(err, ctx.Err()) {
			t.Errorf("Wrap: %v, want ErrKEKUnreachable and %v", err, ctx.Err())
		}
	}
}

// aliasing: the caller wipes keysets and may do as it likes with results.
func (s suite) aliasing(t *testing.T) {
	keyset := random(140)
	kept := bytes.Clone(keyset)
	wrapped := s.wrap(t, keyset, Binding())
	if !bytes.Equal(keyset, kept) {
		t.Error("Wrap changed its argument")
	}
	clear(keyset)
	keptWrapped := bytes.Clone(wrapped)
	first, err := s.unwrap(t, wrapped, Binding())
	if err != nil {
		t.Fatal(err)
	}
	clear(first)
	if !bytes.Equal(wrapped, keptWrapped) {
		t.Error("the keyset shares memory with the wrapped one")
	}
	second, err := s.unwrap(t, wrapped, Binding())
	if err != nil || !bytes.Equal(second, kept) {
		t.Errorf("after wiping the first result: %v", err)
	}
}

func (s suite) concurrent(t *testing.T) {
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			b, keyset := Binding(), random(100+i)
			b.Version = uint32(i + 1)
			for range 3 {
				wrapped := s.wrapOrError(t, keyset, b)
				got, err := s.unwrap(t, wrapped, b)
				if err != nil || !bytes.Equal(got, keyset) {
					t.Errorf("caller %d: %v", i, err)
				}
			}
		})
	}
	group.Wait()
}

// wrapOrError is wrap for goroutines other than the test's.
func (s suite) wrapOrError(t *testing.T, keyset []byte, b keys.Binding) []byte {
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	wrapped, err := s.kek.Wrap(ctx, keyset, b)
	if err != nil {
		t.Errorf("Wrap: %v", err)
	}
	return wrapped
}

func (s suite) uri(t *testing.T) {
	first := s.kek.URI()
	s.wrap(t, random(8), Binding())
	if first == "" || first != s.kek.URI() {
		t.Errorf("the URI changes from %q to %q", first, s.kek.URI())
	}
}
