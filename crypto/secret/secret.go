// Package secret holds key material in memory without letting it be printed,
// marshalled or compared carelessly, and clears it when its owner is done.
//
// A [Bytes] is a handle: copying it copies a pointer, never the bytes. The
// bytes are reached only inside the callback of [Bytes.Use], so that a search
// for "Use(" lists every place where key material is touched.
//
// What this package does not give: it cannot clear copies that other code
// makes (the key schedule inside a cipher.Block, an HMAC state), and the Go
// runtime may leave copies on goroutine stacks. Built with
// GOEXPERIMENT=runtimesecret on a supported platform, Use runs in
// runtime/secret.Do, which clears stack, registers and dead heap objects too.
// Memory that even root cannot read is a matter for the process, not for this
// package.
package secret

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
)

var (
	// ErrWiped reports the use of a secret after [Bytes.Wipe], or of the zero
	// Bytes. It is an error and not an empty slice, because a cache may evict
	// a key while a request still holds it, and nothing may then be sealed
	// under a key of zeros.
	ErrWiped = errors.New("secret: used after it was wiped")

	// ErrNotMarshalable reports an attempt to encode a secret. The remedy is
	// to not put the secret into the value that is being encoded.
	ErrNotMarshalable = errors.New("secret: refuses to be marshalled")
)

// redacted is what every printing verb shows.
const redacted = "[secret]"

// Bytes is a handle to secret bytes. It is safe for concurrent use. The zero
// value holds nothing and behaves like a wiped secret.
//
// The only field is a closure because package fmt prints the unexported fields
// of an enclosing struct by reflection, past any method of their types. A
// pointer is not enough: for a verb that does not suit a pointer, such as %s,
// fmt reports the mistake by printing what it points to. No reflection reaches
// what a closure has captured. It also makes Bytes refuse the operator ==.
type Bytes struct{ reveal func() *handle }

type handle struct {
	mu    sync.RWMutex // a reader is inside Use; Wipe is the only writer
	b     []byte
	wiped bool
}

// Take makes a secret of b and becomes the owner of its memory: the caller
// must not use b afterwards. Use it for fresh output of a KDF or a KMS.
func Take(b []byte) Bytes {
	h := &handle{b: b}
	return Bytes{func() *handle { return h }}
}

// Copy makes a secret of a copy of b. The caller still owns b, and wipes it.
func Copy(b []byte) Bytes {
	// Not append: it may round the capacity up and a later growth would copy.
	c := make([]byte, len(b))
	copy(c, b)
	return Take(c)
}

// Random makes a secret of n bytes from crypto/rand, which does not fail.
func Random(n int) Bytes {
	b := make([]byte, n)
	rand.Read(b)
	return Take(b)
}

// Use calls f with the bytes. f must not keep, change or append to the slice
// after or while it runs, must not call s.Wipe (it would wait for itself), and
// should copy out only what may be public. Use returns what f returns, or
// [ErrWiped] without calling f. Wipe waits until running calls have returned.
func (s Bytes) Use(f func(b []byte) error) error {
	if s.reveal == nil {
		return ErrWiped
	}
	h := s.reveal()
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.wiped {
		return ErrWiped
	}
	var err error
	guarded(func() { err = f(h.b[:len(h.b):len(h.b)]) })
	return err
}

// Wiped reports whether the secret is gone: wiped, or never there.
func (s Bytes) Wiped() bool {
	if s.reveal == nil {
		return true
	}
	h := s.reveal()
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.wiped
}

// Equal reports whether two secrets hold the same bytes, in time that depends
// on their lengths only. A wiped secret equals nothing, not even itself.
func (s Bytes) Equal(t Bytes) bool {
	// One lock at a time: two callers comparing in opposite order, each with a
	// Wipe waiting between its two locks, would block each other for good.
	var left []byte
	if err := s.Use(func(b []byte) error { left = bytes.Clone(b); return nil }); err != nil {
		return false
	}
	defer Wipe(left)
	equal := false
	err := t.Use(func(right []byte) error {
		equal = subtle.ConstantTimeCompare(left, right) == 1
		return nil
	})
	return err == nil && equal
}

// Wipe clears the bytes, for every copy of the handle. It waits for running
// calls of Use, may be called more than once, and does nothing on the zero
// Bytes.
func (s Bytes) Wipe() {
	if s.reveal == nil {
		return
	}
	h := s.reveal()
	h.mu.Lock()
	defer h.mu.Unlock()
	Wipe(h.b)
	h.b, h.wiped = nil, true
}

// String returns a fixed text that says nothing, not even the length.
func (s Bytes) String() string { return redacted }

// GoString is String for the verb %#v.
func (s Bytes) GoString() string { return redacted }

// Format writes the same fixed text for every verb and flag.
func (s Bytes) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue is the fixed text, so that a log line survives a secret among its
// attributes; refusing as the encoders below do would lose the line.
func (s Bytes) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON always fails with [ErrNotMarshalable].
func (s Bytes) MarshalJSON() ([]byte, error) { return nil, ErrNotMarshalable }

// MarshalText always fails with [ErrNotMarshalable].
func (s Bytes) MarshalText() ([]byte, error) { return nil, ErrNotMarshalable }

// MarshalBinary always fails with [ErrNotMarshalable]; encoding/gob uses it.
func (s Bytes) MarshalBinary() ([]byte, error) { return nil, ErrNotMarshalable }

// Wipe overwrites b with zeros, up to its length. The builtin clear is not
// removed by today's compiler; the function marks the intent and is the one
// place to change should that become untrue.
//
//go:noinline
func Wipe(b []byte) { clear(b) }
