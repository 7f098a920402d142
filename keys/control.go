package keys

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport/sallyport/crypto/secret"
)

const (
	// MinRotationPeriod is the shortest rotation period of a keyring.
	MinRotationPeriod = time.Hour
	// casAttempts is how often a change of any revision is tried when somebody else's
	// comes first.
	casAttempts = 5
	// wipeDelay is longer than an operation that got its handle in time.
	wipeDelay = time.Minute
)

// CreateTenant makes a tenant and tells when. Errors wrap ErrName, ErrExists or
// ErrStore; after ErrStore the tenant may exist.
func (k *Keeper) CreateTenant(ctx context.Context, t Tenant) (time.Time, error) {
	if !ValidID(string(t)) {
		return time.Time{}, ErrName
	}
	created := k.now()
	_, err := query(ctx, k, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, k.config.Shelf.CreateTenant(ctx, t, created)
	})
	return created, err
}

// Tenants lists tenants, as Shelf does.
func (k *Keeper) Tenants(ctx context.Context, after Tenant, limit int) ([]TenantRow, error) {
	return query(ctx, k, func(ctx context.Context) ([]TenantRow, error) {
		return k.config.Shelf.Tenants(ctx, after, limit)
	})
}

// Ring returns a keyring as it is stored.
func (k *Keeper) Ring(ctx context.Context, n Name) (Ring, error) {
	return query(ctx, k, func(ctx context.Context) (Ring, error) { return k.config.Shelf.Ring(ctx, n) })
}

// Rings lists keyrings, as Shelf does.
func (k *Keeper) Rings(ctx context.Context, q RingQuery) ([]Ring, error) {
	return query(ctx, k, func(ctx context.Context) ([]Ring, error) { return k.config.Shelf.Rings(ctx, q) })
}

// CreateRing makes a keyring with one version, its primary. A rotation period is 0
// for none, or at least MinRotationPeriod. Errors wrap ErrName, ErrArgument,
// ErrNotFound (the tenant), ErrExists, ErrStore or an error of the family ErrKEK.
func (k *Keeper) CreateRing(ctx context.Context, n Name, p Purpose, rotation time.Duration) (Ring, error) {
	switch {
	case !ValidID(string(n.Tenant)) || !ValidID(n.Keyring):
		return Ring{}, ErrName
	case !p.Valid():
		return Ring{}, fmt.Errorf("%w: no purpose", ErrArgument)
	case rotation != 0 && rotation < MinRotationPeriod:
		return Ring{}, fmt.Errorf("%w: a rotation period below %v", ErrArgument, MinRotationPeriod)
	}
	// A name that is taken costs no call to the KEK.
	if _, err := k.Ring(ctx, n); !errors.Is(err, ErrNotFound) {
		if err == nil {
			err = ErrExists
		}
		return Ring{}, err
	}
	r := Ring{Name: n, Purpose: p, Created: k.now(), RotationPeriod: rotation}
	rand.Read(r.ID[:]) // does not fail: without randomness it ends the process
	if err := k.addPrimary(ctx, &r); err != nil {
		return Ring{}, err
	}
	// Invalidation drops the memory of the name being unknown.
	return k.write(ctx, r, func(ctx context.Context) error { return k.config.Shelf.CreateRing(ctx, r) })
}

// Rotate makes a new primary version; the one before stays enabled. A revision other
// than 0 must be the stored one. Errors wrap ErrNotFound, ErrConflict,
// ErrTooManyVersions, ErrStore or an error of the family ErrKEK.
func (k *Keeper) Rotate(ctx context.Context, n Name, revision uint64) (Ring, error) {
	return k.update(ctx, n, revision, func(r *Ring) error { return k.addPrimary(ctx, r) })
}

// errUnchanged ends an update with success and without a write.
var errUnchanged = errors.New("keys: nothing to change")

// SetVersionState moves a version to another state. A revision other than 0 must be
// the stored one. Asking for the state that the version is in succeeds and changes
// nothing, so that a call whose answer was lost can be repeated. Errors wrap
// ErrNotFound, ErrUnknownVersion, ErrVersionState, ErrConflict or ErrStore.
func (k *Keeper) SetVersionState(ctx context.Context, n Name, version uint32, to State, revision uint64) (Ring, error) {
	held, _ := k.versions.values.get(versionName{n, version})
	r, err := k.update(ctx, n, revision, func(r *Ring) error {
		if version == 0 || uint64(version) > uint64(len(r.Versions)) {
			return ErrUnknownVersion
		}
		v := &r.Versions[version-1]
		if v.State == to {
			return errUnchanged
		}
		if err := checkMove(*v, to); err != nil {
			return err
		}
		k.move(r, v, to)
		return nil
	})
	if err == nil && held != nil && !to.Opens() {
		time.AfterFunc(wipeDelay, held.value.handle.wipe)
	}
	return r, err
}

// move carries out a move that checkMove allowed.
func (k *Keeper) move(r *Ring, v *Version, to State) {
	now := k.now()
	v.DestroyAt = time.Time{} // asked for anew, or cancelled
	switch to {
	case StatePrimary:
		r.promote(v, now)
	case StateCompromised:
		if v.Compromised.IsZero() {
			v.Compromised = now
		}
	case StateScheduledForDestruction:
		v.DestroyAt = now.Add(k.config.DestroyAfter)
	default: // the others have nothing beside their name
	}
	v.State = to
}

// promote makes room for a new primary and sets the next rotation.
func (r *Ring) promote(v *Version, now time.Time) {
	for i := range r.Versions {
		if r.Versions[i].State == StatePrimary {
			r.Versions[i].State = StateEnabled
		}
	}
	v.State = StatePrimary
	if r.RotationPeriod > 0 {
		r.NextRotation = now.Add(r.RotationPeriod)
	}
}

// addPrimary makes a new version the primary of a ring in memory.
func (k *Keeper) addPrimary(ctx context.Context, r *Ring) error {
	if len(r.Versions) >= MaxVersions {
		return ErrTooManyVersions
	}
	number := uint32(len(r.Versions) + 1) // at most MaxVersions
	keyset, err := newKeyset(r.Purpose)
	if err != nil {
		return err
	}
	defer secret.Wipe(keyset)
	wrapped, err := k.current.wrap(ctx, keyset, k.binding(r.Name, r.ID, r.Purpose, number))
	if err != nil {
		return err
	}
	now := k.now()
	v := Version{Number: number, Created: now, KEK: k.current.kek.URI(), Wrapped: wrapped}
	r.promote(&v, now)
	r.Versions = append(r.Versions, v)
	return nil
}

// update changes a ring by compare-and-swap.
func (k *Keeper) update(ctx context.Context, n Name, revision uint64, change func(*Ring) error) (Ring, error) {
	for attempt := 1; ; attempt++ {
		r, err := k.Ring(ctx, n)
		if err != nil {
			return Ring{}, err
		}
		if revision != 0 && revision != r.Revision {
			return Ring{}, ErrConflict
		}
		r.Versions = slices.Clone(r.Versions)
		if err := change(&r); err != nil {
			if errors.Is(err, errUnchanged) {
				return r, nil
			}
			return Ring{}, err
		}
		written, err := k.write(ctx, r, func(ctx context.Context) error { return k.config.Shelf.UpdateRing(ctx, r) })
		if !errors.Is(err, ErrConflict) || revision != 0 || attempt == casAttempts {
			return written, err
		}
	}
}

// write stores a ring and forgets what is in memory of it. A store that fails may
// have stored all the same, so the ring is read back: if it is there, the write
// succeeded.
func (k *Keeper) write(ctx context.Context, r Ring, store func(context.Context) error) (Ring, error) {
	_, err := query(ctx, k, func(ctx context.Context) (struct{}, error) { return struct{}{}, store(ctx) })
	defer k.Invalidate(r.Name)
	r.Revision++
	if err == nil {
		return r, nil
	}
	if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrExists) && !errors.Is(err, ErrConflict) {
		// The caller may have gone; the question is still worth its answer.
		stored, readErr := k.Ring(context.WithoutCancel(ctx), r.Name)
		if readErr == nil && stored.ID == r.ID && stored.Revision == r.Revision && slices.EqualFunc(stored.Versions, r.Versions, sameVersion) {
			return r, nil
		}
	}
	return Ring{}, err
}

func sameVersion(a, b Version) bool {
	return a.Number == b.Number && a.State == b.State && bytes.Equal(a.Wrapped, b.Wrapped)
}

// query makes one call to the store, bounded in time. An error is one of Shelf's, or
// the caller's context's if that ended; anything else is ErrStore.
func query[T any](ctx context.Context, k *Keeper, f func(context.Context) (T, error)) (T, error) {
	bounded, cancel := context.WithTimeout(ctx, k.config.LoadTimeout)
	defer cancel()
	k.counts.storeQueries.Add(1)
	result, err := f(bounded)
	if err == nil || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return result, err
	}
	for _, known := range []error{ErrNotFound, ErrExists, ErrConflict, ErrStore} {
		if errors.Is(err, known) {
			return result, err
		}
	}
	return result, fmt.Errorf("%w: %w", ErrStore, err)
}
