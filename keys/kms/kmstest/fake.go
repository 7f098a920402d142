package kmstest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/keys"
)

// Fake is a KEK in memory that counts its calls and misbehaves as told. It is
// for tests only: its key dies with it.
type Fake struct {
	uri     string
	aead    cipher.AEAD
	wraps   atomic.Int64
	unwraps atomic.Int64

	mu     sync.Mutex
	script []Step
	always Step
}

// Step is what one call does. The zero Step works normally.
type Step struct {
	// Wait is how long the call takes before anything else; forever if negative. It
	// ends early with the context.
	Wait time.Duration
	// Err is returned instead of the result, if not nil.
	Err error
	// Hook runs before the call returns, if not nil.
	Hook func()
}

// The steps that tests need most.
var (
	Denied      = Step{Err: fmt.Errorf("%w: scripted denial", keys.ErrKEKRefused)}
	Mismatched  = Step{Err: fmt.Errorf("%w: scripted", keys.ErrKEKMismatch)}
	Throttled   = Step{Err: fmt.Errorf("%w: scripted", keys.ErrKEKThrottled)}
	Unreachable = Step{Err: fmt.Errorf("%w: scripted", keys.ErrKEKUnreachable)}
	Stalled     = Step{Wait: -1}
)

var _ keys.KEK = (*Fake)(nil)

// NewFake makes a fake with a fresh key and the URI "fake:" + name.
func NewFake(name string) *Fake {
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return &Fake{uri: "fake:" + name, aead: aead}
}

// Plan makes the next calls take one step each, in order.
func (f *Fake) Plan(steps ...Step) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script = append(f.script, steps...)
}

// Always makes every call that has no planned step take this one.
func (f *Fake) Always(s Step) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.always = s
}

// Wraps counts the calls of Wrap so far, failed ones included.
func (f *Fake) Wraps() int64 { return f.wraps.Load() }

// Unwraps counts the calls of Unwrap so far, failed ones included.
func (f *Fake) Unwraps() int64 { return f.unwraps.Load() }

// URI implements keys.KEK.
func (f *Fake) URI() string { return f.uri }

// Wrap implements keys.KEK.
func (f *Fake) Wrap(ctx context.Context, keyset []byte, b keys.Binding) ([]byte, error) {
	f.wraps.Add(1)
	if err := f.step(ctx); err != nil {
		return nil, err
	}
	if len(keyset) == 0 || len(keyset) > keys.MaxKeyset {
		return nil, fmt.Errorf("%w: a keyset of %d bytes", keys.ErrKEKRefused, len(keyset))
	}
	return f.aead.Seal(nil, nil, keyset, b.Encode()), nil
}

// Unwrap implements keys.KEK.
func (f *Fake) Unwrap(ctx context.Context, wrapped []byte, b keys.Binding) ([]byte, error) {
	f.unwraps.Add(1)
	if err := f.step(ctx); err != nil {
		return nil, err
	}
	keyset, err := f.aead.Open(nil, nil, wrapped, b.Encode())
	if err != nil {
		return nil, keys.ErrKEKMismatch
	}
	return keyset, nil
}

func (f *Fake) step(ctx context.Context) error {
	f.mu.Lock()
	s := f.always
	if len(f.script) > 0 {
		s, f.script = f.script[0], f.script[1:]
	}
	f.mu.Unlock()
	var elapsed <-chan time.Time
	if s.Wait > 0 {
		timer := time.NewTimer(s.Wait)
		defer timer.Stop()
		elapsed = timer.C
	}
	if s.Wait != 0 {
		select {
		case <-ctx.Done():
		case <-elapsed:
		}
	}
	if s.Hook != nil {
		s.Hook()
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", keys.ErrKEKUnreachable, err)
	}
	return s.Err
}
