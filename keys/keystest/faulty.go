package keystest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sallyport/sallyport/keys"
)

// Fault is what happens to one call of a Faulty shelf.
type Fault int

// The faults.
const (
	None        Fault = iota
	Lost              // not done, and reported so
	DoneButLost       // done, and reported as failed
	Stalled           // not done; returns when the context ends
)

// Faulty is a shelf that breaks as told. It counts its calls.
type Faulty struct {
	keys.Shelf

	mu     sync.Mutex
	reads  Fault
	writes []Fault
	calls  int
}

// Reads makes every reading call break in this way until told otherwise.
func (f *Faulty) Reads(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads = fault
}

// Writes makes the next writing calls break, one fault each.
func (f *Faulty) Writes(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes = faults
}

// Calls counts the calls so far.
func (f *Faulty) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *Faulty) next(write bool) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if !write {
		return f.reads
	}
	if len(f.writes) == 0 {
		return None
	}
	fault := f.writes[0]
	f.writes = f.writes[1:]
	return fault
}

func (f *Faulty) call(ctx context.Context, write bool, do func() error) error {
	switch f.next(write) {
	case Lost:
		return fmt.Errorf("%w: scripted", keys.ErrStore)
	case DoneButLost:
		if err := do(); err != nil {
			return err
		}
		return fmt.Errorf("%w: scripted, after the deed", keys.ErrStore)
	case Stalled:
		<-ctx.Done()
		return fmt.Errorf("%w: %w", keys.ErrStore, ctx.Err())
	}
	return do()
}

// CreateTenant implements keys.Shelf.
func (f *Faulty) CreateTenant(ctx context.Context, t keys.Tenant, created time.Time) error {
	return f.call(ctx, true, func() error { return f.Shelf.CreateTenant(ctx, t, created) })
}

// CreateRing implements keys.Shelf.
func (f *Faulty) CreateRing(ctx context.Context, r keys.Ring) error {
	return f.call(ctx, true, func() error { return f.Shelf.CreateRing(ctx, r) })
}

// UpdateRing implements keys.Shelf.
func (f *Faulty) UpdateRing(ctx context.Context, r keys.Ring) error {
	return f.call(ctx, true, func() error { return f.Shelf.UpdateRing(ctx, r) })
}

// Ring implements keys.Shelf.
func (f *Faulty) Ring(ctx context.Context, n keys.Name) (r keys.Ring, err error) {
	err = f.call(ctx, false, func() (err error) { r, err = f.Shelf.Ring(ctx, n); return err })
	return r, err
}

// RingsDue implements keys.Shelf.
func (f *Faulty) RingsDue(ctx context.Context, at time.Time, limit int) (names []keys.Name, err error) {
	err = f.call(ctx, false, func() (err error) { names, err = f.Shelf.RingsDue(ctx, at, limit); return err })
	return names, err
}
