package keys

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// dueBatch is how many keyrings one RunDue looks at.
	dueBatch = 100
	// rotationRetry is when a rotation that was refused is tried again, so that a
	// keyring that cannot be rotated does not keep others from it.
	rotationRetry = time.Hour
)

// Deed is something that RunDue does to a keyring by itself: a rotation by schedule,
// or the destruction of the versions whose time has come.
type Deed struct {
	Name    Name
	Rotate  bool
	Destroy []uint32
}

// String describes the deed, for records.
func (d Deed) String() string {
	if d.Rotate {
		return "rotate"
	}
	return fmt.Sprintf("destroy versions %v", d.Destroy)
}

// RunDue does what is due in at most dueBatch keyrings: first the destructions of a
// keyring, then its rotation. Before each deed it calls intend, whose error prevents
// the deed and ends the run; after it done, with the deed's own error. It returns
// how many keyrings it looked at, and the errors joined. It ends early when the KEK
// does not answer. Several gateways may run it at the same time: of two that try one
// deed, one fails with ErrConflict.
func (k *Keeper) RunDue(ctx context.Context, intend func(Deed) error, done func(Deed, error)) (int, error) {
	names, err := query(ctx, k, func(ctx context.Context) ([]Name, error) {
		return k.config.Shelf.RingsDue(ctx, k.now(), dueBatch)
	})
	if err != nil {
		return 0, err
	}
	var errs []error
	for i, n := range names {
		err := k.runRing(ctx, n, intend, done)
		if err == nil {
			continue
		}
		errs = append(errs, fmt.Errorf("%v: %w", n, err))
		// The next keyring would fail the same way, each after a timeout.
		if ctx.Err() != nil || errors.Is(err, errIntent) || unanswered(err) {
			return i + 1, errors.Join(errs...)
		}
	}
	return len(names), errors.Join(errs...)
}

// errIntent: the record of an intent failed, and with it the reason to go on.
var errIntent = errors.New("keys: the intent is not on record")

// runRing does what is due in one keyring.
func (k *Keeper) runRing(ctx context.Context, n Name, intend func(Deed) error, done func(Deed, error)) error {
	r, err := k.Ring(ctx, n)
	if err != nil {
		return err
	}
	now := k.now()
	d := Deed{Name: n}
	for _, v := range r.Versions {
		if v.State == StateScheduledForDestruction && !now.Before(v.DestroyAt) {
			d.Destroy = append(d.Destroy, v.Number)
		}
	}
	if len(d.Destroy) > 0 {
		r, err = k.do(ctx, d, r, intend, done, func(r *Ring) error {
			for _, number := range d.Destroy {
				v := &r.Versions[number-1]
				v.State, v.Wrapped = StateDestroyed, nil
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if r.RotationPeriod == 0 || now.Before(r.NextRotation) {
		return nil // or somebody else was first
	}
	_, err = k.do(ctx, Deed{Name: n, Rotate: true}, r, intend, done, func(r *Ring) error { return k.addPrimary(ctx, r) })
	if errors.Is(err, ErrKEKRefused) || errors.Is(err, ErrTooManyVersions) {
		_, putOff := k.update(ctx, n, r.Revision, func(r *Ring) error {
			r.NextRotation = now.Add(rotationRetry)
			return nil
		})
		err = errors.Join(err, putOff)
	}
	return err
}

// do puts the intent on record, changes the revision of the ring that it was made
// for, and no other, and tells the outcome.
func (k *Keeper) do(ctx context.Context, d Deed, r Ring, intend func(Deed) error, done func(Deed, error), change func(*Ring) error) (Ring, error) {
	if err := intend(d); err != nil {
		return Ring{}, fmt.Errorf("%w: %w", errIntent, err)
	}
	changed, err := k.update(ctx, d.Name, r.Revision, change)
	done(d, err)
	return changed, err
}
