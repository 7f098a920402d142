package keys

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/sallyport/sallyport/crypto/envelope"
)

// Config is what a Keeper is made of. Fields are required unless they say
// otherwise.
type Config struct {
	Shelf Shelf
	// Current wraps new versions. Others (may be empty) open what they wrapped
	// before.
	Current KEK
	Others  []KEK
	// Deployment and Environment are part of every binding and every envelope.
	Deployment, Environment string
	Now                     func() time.Time

	// Entries bounds the keyrings held in memory; each holds at most
	// versionsPerEntry opened versions, of about 1 KiB.
	Entries int
	// RefreshAfter is the age from which a keyring in use is read and opened anew,
	// behind the calls. Each keyring's own is up to a fifth shorter, so that they do
	// not all come due at once.
	RefreshAfter time.Duration
	// MaxStaleness is the age beyond which nothing in memory is used: how long keys
	// serve while the KEK or the store cannot be reached.
	MaxStaleness time.Duration
	// LoadTimeout bounds one reading or opening of a keyring.
	LoadTimeout time.Duration
	// Rate and TenantRate bound the calls to KEKs per second, in all and for one
	// tenant. Twice that may come in a burst.
	Rate, TenantRate float64
	// DestroyAfter is how long a version is scheduled for destruction before it is
	// destroyed.
	DestroyAfter time.Duration
}

// Keeper opens keyrings and keeps them open, makes them, rotates them, and moves
// their versions between states. It is safe for concurrent use. Every change made
// through it is in force when the method that makes it returns.
type Keeper struct {
	Config
	keks   map[string]*guarded
	cache  *cache
	flight singleflight.Group

	counters counters
	work     sync.WaitGroup
	base     context.Context // of work behind the calls
	stop     context.CancelFunc
}

// New makes a Keeper. It calls nothing.
func New(c Config) (*Keeper, error) {
	switch {
	case c.Shelf == nil || c.Current == nil || c.Now == nil || c.Deployment == "" || c.Environment == "":
		return nil, fmt.Errorf("%w: shelf, current KEK, clock, deployment and environment are required", ErrArgument)
	case c.Entries < 1 || c.RefreshAfter <= 0 || c.MaxStaleness < c.RefreshAfter || c.LoadTimeout <= 0 || c.DestroyAfter <= 0:
		return nil, fmt.Errorf("%w: a limit is not positive, or keys go stale before they are refreshed", ErrArgument)
	case c.Rate <= 0 || c.TenantRate <= 0:
		return nil, fmt.Errorf("%w: a rate is not positive", ErrArgument)
	}
	k := &Keeper{Config: c, keks: map[string]*guarded{}, cache: newCache(c.Entries)}
	budget := newBudget(c.Rate, c.TenantRate)
	for _, kek := range append([]KEK{c.Current}, c.Others...) {
		if k.keks[kek.URI()] != nil {
			return nil, fmt.Errorf("%w: KEK %s occurs twice", ErrArgument, kek.URI())
		}
		k.keks[kek.URI()] = &guarded{kek: kek, budget: budget, counters: &k.counters, now: c.Now}
	}
	k.base, k.stop = context.WithCancel(context.Background())
	return k, nil
}

// Close ends the work behind the calls and wipes the opened keys.
func (k *Keeper) Close() {
	k.stop()
	k.work.Wait()
	k.cache.wipe()
}

// Stats counts what a Keeper did since it was made.
type Stats struct {
	KEKCalls, KEKFailures uint64 // calls to KEKs, and those that failed
	Hits, Misses          uint64 // of calls for a key: served from memory, or not
	Refreshes             uint64 // readings behind the calls
	Evictions             uint64 // keyrings dropped for want of room
	Entries               int    // keyrings in memory
}

type counters struct {
	kekCalls, kekFailures, hits, misses, refreshes atomic.Uint64
}

// Stats tells the counters.
func (k *Keeper) Stats() Stats {
	c := &k.counters
	return Stats{
		KEKCalls: c.kekCalls.Load(), KEKFailures: c.kekFailures.Load(),
		Hits: c.hits.Load(), Misses: c.misses.Load(), Refreshes: c.refreshes.Load(),
		Evictions: k.cache.evictions.Load(), Entries: k.cache.len(),
	}
}

// Sealing gives the key of the keyring's primary version. The error wraps
// ErrNotFound, ErrPurpose, ErrVersionState, ErrStore, one of the KEK errors, or is
// the context's.
func (k *Keeper) Sealing(ctx context.Context, n Name, p Purpose) (*Handle, error) {
	e, err := k.entry(ctx, n, p)
	if err != nil {
		return nil, err
	}
	if e.primary == 0 {
		return nil, fmt.Errorf("%w: no version is primary", ErrVersionState)
	}
	return k.handle(ctx, e, e.primary)
}

// Opening gives the key that opens a message of the keyring. The keyring that the
// message names, its version and the version's state are checked before any KEK is
// called. The errors are those of Sealing, ErrForeign and ErrUnknownVersion.
func (k *Keeper) Opening(ctx context.Context, n Name, p Purpose, m envelope.Message) (*Handle, error) {
	e, err := k.entry(ctx, n, p)
	if err != nil {
		return nil, err
	}
	if id, carried := m.Keyring(); carried && id != e.ring.ID {
		return nil, ErrForeign
	}
	if m.Version() == 0 || m.Version() > uint32(len(e.ring.Versions)) { //nolint:gosec // at most MaxVersions
		return nil, ErrUnknownVersion
	}
	if !e.ring.Versions[m.Version()-1].State.Opens() {
		return nil, ErrVersionState
	}
	return k.handle(ctx, e, m.Version())
}

// entry gives the keyring from memory, or reads it.
func (k *Keeper) entry(ctx context.Context, n Name, p Purpose) (*entry, error) {
	now := k.Now()
	e, known := k.cache.get(n)
	switch {
	case known && e.missing && now.Before(e.expires):
		return nil, ErrNotFound
	case known && !e.missing && now.Before(e.expires):
		if now.After(e.refreshAt()) {
			k.refresh(n, e)
		}
	default:
		var err error
		if e, err = k.read(ctx, n); err != nil {
			return nil, err
		}
	}
	if e.ring.Purpose != p {
		return nil, ErrPurpose
	}
	return e, nil
}

// handle gives the opened version of an entry, or opens it.
func (k *Keeper) handle(ctx context.Context, e *entry, version uint32) (*Handle, error) {
	h := e.handle(version)
	if h != nil && k.Now().Before(h.expires) {
		if h.refused != nil {
			return nil, h.refused
		}
		k.counters.hits.Add(1)
		return h, nil
	}
	k.counters.misses.Add(1)
	return k.open(ctx, e, version)
}

// Invalidate forgets what is in memory of a keyring. Calls that begin after it
// returns read it anew.
func (k *Keeper) Invalidate(n Name) {
	k.cache.drop(n)
	k.flight.Forget(n.String())
}

// once runs f for all callers that ask for the same key at the same time. A
// caller who goes away does not take the work from the others: it is bounded by
// LoadTimeout alone.
func (k *Keeper) once(ctx context.Context, key string, f func(context.Context) (any, error)) (any, error) {
	done := k.flight.DoChan(key, func() (any, error) {
		work, cancel := context.WithTimeout(k.base, k.LoadTimeout)
		defer cancel()
		return f(work)
	})
	select {
	case r := <-done:
		return r.Val, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// inTime makes the end of a load's own time limit a failure of what it waited
// for.
func inTime(err, unreachable error) error {
	if err != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) && !errors.Is(err, unreachable) {
		return fmt.Errorf("%w: %w", unreachable, err)
	}
	return err
}
