package keys

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/crypto/envelope"
)

// MinDestroyAfter is the shortest time between asking for a version's destruction
// and the deed.
const MinDestroyAfter = 24 * time.Hour

// Config is what a Keeper is made of. Every field but Others is required.
type Config struct {
	Shelf Shelf
	// Current wraps new versions. Others open what they wrapped before.
	Current KEK
	Others  []KEK
	// Deployment and Environment are part of every binding and every derivation:
	// changing one makes every stored version unreadable. 1 to 255 bytes.
	Deployment, Environment string
	// Now is the wall clock, for times that are stored. What is in memory ages by the
	// monotonic clock, and does not notice when the wall clock jumps.
	Now func() time.Time

	// Entries bounds the keyrings in memory, and apart from them the opened versions.
	// They cost EntryBytes together; a keyring with many versions counts as several.
	Entries int
	// RefreshAfter is the age from which a keyring or an opened version in use is
	// loaded anew, behind the calls; each a little earlier, so that they do not all
	// come due at once. One that was not in use waits for that load. It is within what
	// time a change by another gateway, or a refusal by the KEK, takes effect; changes
	// through this Keeper do so at once.
	RefreshAfter time.Duration
	// MaxStaleness is the age beyond which nothing in memory is used: how long keys
	// serve while the KEK or the store does not answer.
	MaxStaleness time.Duration
	// LoadTimeout bounds each call to the store or to a KEK.
	LoadTimeout time.Duration
	// Rate and TenantRate bound the calls to KEKs per second, in all and for one
	// tenant. Twice that may come in a burst.
	Rate, TenantRate float64
	// DestroyAfter is how long a version is scheduled for destruction, and can be
	// spared, before it is destroyed. At least MinDestroyAfter.
	DestroyAfter time.Duration
}

// Memory of what is kept, in bytes, as TestMemory measures it.
const (
	// EntryBytes is what a keyring of a few versions and one opened version cost.
	EntryBytes = viewLimit + handleCost

	viewLimit   = 1 << 10 // a keyring that counts as one
	viewCost    = 384     // a keyring without its versions
	versionCost = 64      // a version of a keyring without its wrapped bytes
	handleCost  = 3 << 10 // an opened version
)

// Keeper opens the versions of keyrings and changes them. It is safe for concurrent
// use. Every change made through it is in force when the method that makes it
// returns.
type Keeper struct {
	config   Config
	current  *gate
	gates    map[string]*gate // by URI
	rings    *resolver[Name, *view]
	versions *resolver[versionName, *opened]
	counts   counts

	start       time.Time
	seed        maphash.Seed
	epochs      [256]atomic.Uint64 // by hash of a name; moves with each invalidation
	suspectedAt atomic.Int64       // in elapsed time

	ctx     context.Context // of the loads; ends with Close
	cancel  context.CancelFunc
	mu      sync.Mutex
	closed  bool // guarded by mu
	running sync.WaitGroup
}

// New makes a keeper; Close ends it. It calls nothing. Errors wrap ErrArgument.
func New(c Config) (*Keeper, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	k := &Keeper{config: c, gates: map[string]*gate{}, start: time.Now(), seed: maphash.MakeSeed()}
	shared := newBudget(c.Rate, c.TenantRate)
	for _, kek := range append([]KEK{c.Current}, c.Others...) {
		if k.gates[kek.URI()] != nil {
			return nil, fmt.Errorf("%w: KEK %s occurs twice", ErrArgument, kek.URI())
		}
		k.gates[kek.URI()] = &gate{kek: kek, budget: shared, timeout: c.LoadTimeout, counts: &k.counts}
	}
	k.current = k.gates[c.Current.URI()]
	k.ctx, k.cancel = context.WithCancel(context.Background())
	entries := int64(c.Entries)
	k.rings = &resolver[Name, *view]{
		keeper: k, load: k.loadRing, name: func(n Name) Name { return n }, cost: (*view).cost,
		values: newCache[Name, *loaded[*view]](entries*viewLimit, viewLimit),
	}
	k.versions = &resolver[versionName, *opened]{
		keeper: k, load: k.loadVersion, name: func(v versionName) Name { return v.Name }, cost: (*opened).cost,
		values: newCache[versionName, *loaded[*opened]](entries*handleCost, handleCost),
	}
	k.rings.init()
	k.versions.init()
	return k, nil
}

func (c *Config) check() error {
	switch {
	case c.Shelf == nil || c.Current == nil || c.Now == nil:
		return fmt.Errorf("%w: Shelf, Current and Now are required", ErrArgument)
	case c.Deployment == "" || c.Environment == "" ||
		len(c.Deployment) > envelope.MaxScopeNameLen || len(c.Environment) > envelope.MaxScopeNameLen:
		return fmt.Errorf("%w: Deployment and Environment need 1 to %d bytes", ErrArgument, envelope.MaxScopeNameLen)
	case c.Entries < 1 || c.LoadTimeout <= 0 || c.Rate <= 0 || c.TenantRate <= 0:
		return fmt.Errorf("%w: a limit is not positive", ErrArgument)
	case c.RefreshAfter <= 0 || c.MaxStaleness < c.RefreshAfter:
		return fmt.Errorf("%w: keys go stale before they are refreshed", ErrArgument)
	case c.DestroyAfter < MinDestroyAfter:
		return fmt.Errorf("%w: DestroyAfter is below %v", ErrArgument, MinDestroyAfter)
	}
	return nil
}

// Close ends running loads, waits for them and wipes the keys in memory. Later calls
// for a key fail with ErrClosed.
func (k *Keeper) Close() {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.cancel()
	k.running.Wait()
	k.versions.values.each(func(_ versionName, l *loaded[*opened]) bool {
		l.value.handle.wipe()
		return true
	})
}

// spawn runs f in a goroutine that Close waits for, unless the keeper is closed.
func (k *Keeper) spawn(f func()) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return false
	}
	k.running.Go(f)
	return true
}

// elapsed is the monotonic time since the keeper began.
func (k *Keeper) elapsed() time.Duration { return time.Since(k.start) }

// epoch counts the invalidations of a name, and of the few that share its counter.
func (k *Keeper) epoch(n Name) *atomic.Uint64 {
	return &k.epochs[maphash.Comparable(k.seed, n)%uint64(len(k.epochs))]
}

// Invalidate forgets what is cached about a keyring. Calls that begin after it has
// returned see the stored state; loads that began before are not cached. The verbs
// of Keeper call it themselves; it is for changes that others have made.
func (k *Keeper) Invalidate(n Name) {
	k.epoch(n).Add(1) // first, so that no load that began before is admitted after
	k.rings.values.delete(n)
	k.rings.refusals.delete(n)
	k.versions.forget(n)
}

// now is the wall clock to the microsecond, the precision of every store.
func (k *Keeper) now() time.Time { return k.config.Now().UTC().Truncate(time.Microsecond) }

func (k *Keeper) binding(n Name, id envelope.KeyringID, p Purpose, version uint32) Binding {
	return Binding{
		Deployment:  k.config.Deployment,
		Environment: k.config.Environment,
		Tenant:      n.Tenant,
		Keyring:     id,
		Version:     version,
		Purpose:     p,
	}
}
