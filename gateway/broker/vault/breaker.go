package vault

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"

	"github.com/sallyport/sallyport/gateway/fault"
)

const (
	// breakerThreshold is how many calls in a row must go unanswered before the breaker
	// opens.
	breakerThreshold = 5
	// firstPause is how long it stays open at first, and lastPause how long at most: it
	// doubles with each probe that fails. Up to half is taken away at random, so that
	// many gateways do not come back at once.
	firstPause = 500 * time.Millisecond
	lastPause  = 15 * time.Second
)

// breaker refuses calls to what does not answer. A refusal is an answer.
type breaker struct {
	now       func() time.Time
	threshold int

	mu         sync.Mutex
	unanswered int
	pauses     int
	until      time.Time // open, no call before
	probing    bool
	last       *fault.Error
}

// outcome is what a call says of who was called.
type outcome int

const (
	answered outcome = iota
	unanswered
	// noNews is a call that says nothing: the caller went away, or what is behind
	// Vault did not answer.
	noNews
)

// enter lets a call through, or gives the reason of the last failure. While open it
// lets through one call after each pause. The caller tells leave what came of it.
func (b *breaker) enter() (leave func(outcome, *fault.Error), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.unanswered < b.threshold {
		return func(o outcome, f *fault.Error) { b.record(o, f, false) }, nil
	}
	if b.probing || b.now().Before(b.until) {
		return nil, b.reason()
	}
	b.probing = true
	return func(o outcome, f *fault.Error) { b.record(o, f, true) }, nil
}

func (b *breaker) record(o outcome, f *fault.Error, probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	switch o {
	case answered:
		b.unanswered, b.pauses, b.last = 0, 0, nil
	case unanswered:
		b.unanswered++
		b.last = f
		// Calls that began before it opened do not open it further.
		if probe || b.unanswered == b.threshold {
			b.until = b.now().Add(pause(b.pauses))
			b.pauses++
		}
	case noNews:
	}
}

// failure gives why calls are being refused, or nil.
func (b *breaker) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.unanswered < b.threshold {
		return nil
	}
	return b.reason()
}

func (b *breaker) reason() error {
	return fault.New(b.last.Reason, b.last.Detail)
}

func pause(n int) time.Duration {
	d := lastPause
	if n < 8 {
		d = min(lastPause, firstPause<<n)
	}
	var random [4]byte
	rand.Read(random[:]) // math/rand is kept out of here, where tokens are
	part := float64(binary.NativeEndian.Uint32(random[:])) / (1 << 32)
	return d - time.Duration(part*float64(d/2))
}
