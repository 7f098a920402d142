package keys

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport/sallyport/crypto/secret"
)

// CreateTenant makes a tenant and tells when.
func (k *Keeper) CreateTenant(ctx context.Context, t Tenant) (time.Time, error) {
	if !ValidID(string(t)) {
		return time.Time{}, ErrName
	}
	now := k.Now().UTC()
	return now, k.Shelf.CreateTenant(ctx, t, now)
}

// Tenants lists tenants, as Shelf does.
func (k *Keeper) Tenants(ctx context.Context, after Tenant, limit int) ([]TenantRow, error) {
	return k.Shelf.Tenants(ctx, after, limit)
}

// Ring gives a keyring as it is stored.
func (k *Keeper) Ring(ctx context.Context, n Name) (Ring, error) { return k.Shelf.Ring(ctx, n) }

// Rings lists keyrings, as Shelf does.
func (k *Keeper) Rings(ctx context.Context, q RingQuery) ([]Ring, error) {
	return k.Shelf.Rings(ctx, q)
}

// CreateRing makes a keyring with one version, its primary. A rotation period of 0
// means none.
func (k *Keeper) CreateRing(ctx context.Context, n Name, p Purpose, rotation time.Duration) (Ring, error) {
	switch {
	case !ValidID(string(n.Tenant)) || !ValidID(n.Keyring):
		return Ring{}, ErrName
	case !p.Valid() || rotation < 0:
		return Ring{}, ErrArgument
	}
	r := Ring{Name: n, Purpose: p, Created: k.Now().UTC(), RotationPeriod: rotation}
	_, _ = rand.Read(r.ID[:]) // never fails (crypto/rand)
	if err := k.addPrimary(ctx, &r); err != nil {
		return Ring{}, err
	}
	// Whatever the store says, it may have stored the ring.
	defer k.Invalidate(n)
	if err := k.Shelf.CreateRing(ctx, r); err != nil {
		return Ring{}, err
	}
	r.Revision = 1
	return r, nil
}

// casAttempts is how often a change is tried again when somebody else's came
// first.
const casAttempts = 5

// Rotate makes a new primary version; the one before stays enabled. A revision
// other than 0 must be the stored one.
func (k *Keeper) Rotate(ctx context.Context, n Name, revision uint64) (Ring, error) {
	return k.update(ctx, n, revision, func(r *Ring) error { return k.addPrimary(ctx, r) })
}

// SetVersionState moves a version to another state. A revision other than 0 must
// be the stored one. The error wraps ErrUnknownVersion or ErrVersionState if there
// is no such version or move.
func (k *Keeper) SetVersionState(ctx context.Context, n Name, version uint32, to State, revision uint64) (Ring, error) {
	return k.update(ctx, n, revision, func(r *Ring) error {
		if version == 0 || int(version) > len(r.Versions) {
			return ErrUnknownVersion
		}
		v := &r.Versions[version-1]
		if err := checkMove(*v, to); err != nil {
			return err
		}
		now := k.Now().UTC()
		v.DestroyAt = time.Time{}
		switch to {
		case StatePrimary:
			demote(r)
		case StateCompromised:
			v.Compromised = now
		case StateScheduledForDestruction:
			v.DestroyAt = now.Add(k.DestroyAfter)
		}
		v.State = to
		return nil
	})
}

// update changes a ring by compare-and-swap, and forgets what is in memory of it.
func (k *Keeper) update(ctx context.Context, n Name, revision uint64, change func(*Ring) error) (Ring, error) {
	for attempt := 1; ; attempt++ {
		r, err := k.Shelf.Ring(ctx, n)
		if err != nil {
			return Ring{}, err
		}
		if revision != 0 && revision != r.Revision {
			return Ring{}, ErrConflict
		}
		r.Versions = slices.Clone(r.Versions)
		if err := change(&r); err != nil {
			return Ring{}, err
		}
		err = k.Shelf.UpdateRing(ctx, r)
		// Whatever the store says, it may have stored the change.
		k.Invalidate(n)
		if err == nil {
			r.Revision++
			return r, nil
		}
		if !errors.Is(err, ErrConflict) || revision != 0 || attempt == casAttempts {
			return Ring{}, err
		}
	}
}

// addPrimary makes a new version the primary.
func (k *Keeper) addPrimary(ctx context.Context, r *Ring) error {
	if len(r.Versions) >= MaxVersions {
		return ErrTooManyVersions
	}
	number := uint32(len(r.Versions) + 1) //nolint:gosec // at most MaxVersions
	keyset, err := newKeyset(r.Purpose)
	if err != nil {
		return err
	}
	defer secret.Wipe(keyset)
	ctx, cancel := context.WithTimeout(ctx, k.LoadTimeout)
	defer cancel()
	wrapped, err := k.keks[k.Current.URI()].wrap(ctx, r.Name.Tenant, keyset, k.binding(*r, number))
	if err != nil {
		return inTime(err, ErrKEKUnreachable)
	}
	now := k.Now().UTC()
	demote(r)
	r.Versions = append(r.Versions, Version{
		Number: number, State: StatePrimary, Created: now, KEK: k.Current.URI(), Wrapped: wrapped,
	})
	if r.RotationPeriod > 0 {
		r.NextRotation = now.Add(r.RotationPeriod)
	}
	return nil
}

func demote(r *Ring) {
	for i := range r.Versions {
		if r.Versions[i].State == StatePrimary {
			r.Versions[i].State = StateEnabled
		}
	}
}

// Deed is something that RunDue does to a keyring by itself.
type Deed struct {
	Name Name
	// Rotate is a rotation by schedule; Destroy lists the versions whose time has
	// come. A deed is one or both.
	Rotate  bool
	Destroy []uint32
}

// String describes the deed, for records.
func (d Deed) String() string {
	switch {
	case d.Rotate && len(d.Destroy) > 0:
		return fmt.Sprintf("rotate, destroy versions %v", d.Destroy)
	case d.Rotate:
		return "rotate"
	}
	return fmt.Sprintf("destroy versions %v", d.Destroy)
}

// dueBatch is how many keyrings RunDue looks up at once.
const dueBatch = 100

// RunDue rotates the keyrings whose schedule says so and destroys the versions
// whose time has come. Before each deed it calls intend, whose error prevents the
// deed, and after it done with the deed's own error. It returns how many deeds it
// tried, and the errors.
func (k *Keeper) RunDue(ctx context.Context, intend func(Deed) error, done func(Deed, error)) (int, error) {
	names, err := k.Shelf.RingsDue(ctx, k.Now(), dueBatch)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, n := range names {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if err := k.runDue(ctx, n, intend, done); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", n, err))
		}
	}
	return len(names), errors.Join(errs...)
}

func (k *Keeper) runDue(ctx context.Context, n Name, intend func(Deed) error, done func(Deed, error)) error {
	r, err := k.Shelf.Ring(ctx, n)
	if err != nil {
		return err
	}
	d := k.deed(r)
	if !d.Rotate && len(d.Destroy) == 0 {
		return nil // somebody else was first
	}
	if err := intend(d); err != nil {
		return err
	}
	// The deed is on record for this revision, and is done to no other.
	_, err = k.update(ctx, n, r.Revision, func(r *Ring) error {
		for _, number := range d.Destroy {
			v := &r.Versions[number-1]
			v.State, v.Wrapped = StateDestroyed, nil
		}
		if d.Rotate {
			return k.addPrimary(ctx, r)
		}
		return nil
	})
	done(d, err)
	return err
}

func (k *Keeper) deed(r Ring) Deed {
	now := k.Now()
	d := Deed{Name: r.Name, Rotate: r.RotationPeriod > 0 && !now.Before(r.NextRotation)}
	for _, v := range r.Versions {
		if v.State == StateScheduledForDestruction && !now.Before(v.DestroyAt) {
			d.Destroy = append(d.Destroy, v.Number)
		}
	}
	return d
}
