package keys

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/crypto/envelope"
	"github.com/sallyport/sallyport/crypto/secret"
)

// recheckUnknown is how old the cached keyring must be before an unknown version
// number leads to the store: another gateway may have rotated a moment ago, and a
// forger of numbers costs one query a second.
const recheckUnknown = time.Second

// view is a keyring as the data path needs it. It does not change.
type view struct {
	id       envelope.KeyringID
	purpose  Purpose
	primary  uint32        // 0 for none
	versions []viewVersion // version n at index n-1
}

type viewVersion struct {
	state   State
	gate    *gate // nil if the version's KEK is not configured
	wrapped []byte
}

func (v *view) cost() int64 {
	cost := int64(viewCost)
	for i := range v.versions {
		cost += versionCost + int64(len(v.versions[i].wrapped))
	}
	return cost
}

// find returns a version, or an error wrapping ErrUnknownVersion.
func (v *view) find(number uint32) (*viewVersion, error) {
	if number == 0 || uint64(number) > uint64(len(v.versions)) {
		return nil, ErrUnknownVersion
	}
	return &v.versions[number-1], nil
}

// versionName names a version of a keyring.
type versionName struct {
	Name
	number uint32
}

// opened is a version's handle with what it was opened by.
type opened struct {
	handle *Handle
	gate   *gate
}

func (*opened) cost() int64 { return handleCost }

// Sealing returns the primary version of a keyring. Errors wrap ErrNotFound,
// ErrPurpose, ErrVersionState, ErrStore, ErrClosed, an error of the family ErrKEK,
// or are the context's. Everything that can be known without the KEK is checked
// before it is called.
func (k *Keeper) Sealing(ctx context.Context, n Name, p Purpose) (*Handle, error) {
	v, err := k.view(ctx, n, p)
	if err != nil {
		return nil, err
	}
	if v.primary == 0 {
		return nil, fmt.Errorf("%w: no primary version", ErrVersionState)
	}
	return k.open(ctx, n, v.primary)
}

// Opening returns the version that opens a message of the keyring. Errors are those
// of Sealing, ErrForeign if the message names another keyring, and
// ErrUnknownVersion. Everything that the message claims is checked before a KEK is
// called, so that a forged header costs no call.
func (k *Keeper) Opening(ctx context.Context, n Name, p Purpose, m envelope.Message) (*Handle, error) {
	v, err := k.view(ctx, n, p)
	if err != nil {
		return nil, err
	}
	if id, carried := m.Keyring(); carried && id != v.id {
		return nil, ErrForeign
	}
	number := m.Version()
	version, err := v.find(number)
	if err != nil && number <= MaxVersions {
		if v, err = k.rings.reload(ctx, n, recheckUnknown); err != nil {
			return nil, err
		}
		version, err = v.find(number)
	}
	if err != nil {
		return nil, err
	}
	if !version.state.Opens() {
		return nil, stateError(number, version.state)
	}
	return k.open(ctx, n, number)
}

func stateError(number uint32, s State) error {
	return fmt.Errorf("%w: version %d is %v", ErrVersionState, number, s)
}

func (k *Keeper) view(ctx context.Context, n Name, p Purpose) (*view, error) {
	v, err := k.rings.get(ctx, n)
	if err != nil {
		return nil, err
	}
	if v.purpose != p {
		return nil, fmt.Errorf("%w: the keyring is for %v", ErrPurpose, v.purpose)
	}
	return v, nil
}

func (k *Keeper) open(ctx context.Context, n Name, number uint32) (*Handle, error) {
	o, err := k.versions.get(ctx, versionName{n, number})
	if err != nil {
		return nil, err
	}
	return o.handle, nil
}

// loadRing reads a keyring for the cache.
func (k *Keeper) loadRing(ctx context.Context, n Name) (*view, error) {
	r, err := k.Ring(ctx, n)
	if err != nil {
		return nil, err
	}
	v := &view{id: r.ID, purpose: r.Purpose, versions: make([]viewVersion, len(r.Versions))}
	for i, version := range r.Versions {
		if version.Number != uint32(i+1) {
			return nil, fmt.Errorf("%w: the versions of %v are not numbered in order", ErrStore, n)
		}
		v.versions[i] = viewVersion{version.State, k.gates[version.KEK], version.Wrapped}
		if version.State == StatePrimary {
			v.primary = version.Number
		}
	}
	return v, nil
}

// loadVersion opens a version for the cache: the one place where a keyset is
// unwrapped.
func (k *Keeper) loadVersion(ctx context.Context, name versionName) (*opened, error) {
	v, err := k.rings.get(ctx, name.Name)
	if err != nil {
		return nil, err
	}
	version, err := v.find(name.number)
	switch {
	case err != nil:
		return nil, err
	case !version.state.Opens():
		return nil, stateError(name.number, version.state)
	case version.gate == nil:
		return nil, fmt.Errorf("%w: the KEK of version %d is not configured", ErrKEKRefused, name.number)
	}
	b := k.binding(name.Name, v.id, v.purpose, name.number)
	keyset, err := version.gate.unwrap(ctx, version.wrapped, b)
	if err != nil {
		if errors.Is(err, ErrKEKRefused) && !errors.Is(err, ErrKEKMismatch) {
			k.suspect(version.gate)
		}
		return nil, err
	}
	defer secret.Wipe(keyset)
	handle, err := k.handle(keyset, b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKEKMismatch, err)
	}
	return &opened{handle, version.gate}, nil
}

// handle makes the handle of a version from its keyset.
func (k *Keeper) handle(keyset []byte, b Binding) (*Handle, error) {
	return openKeyset(keyset, b.Purpose, envelope.Scope{
		Deployment:  b.Deployment,
		Environment: b.Environment,
		Tenant:      string(b.Tenant),
		Keyring:     b.Keyring,
		Version:     b.Version,
	})
}

// suspect makes every version under a KEK that has refused one be confirmed before
// its next use, so that a KEK disabled at its provider stops all of them together.
// A refusal may concern one tenant only (by its key policy), hence not more often
// than RefreshAfter: at worst the KEK is called twice as often as it would be.
func (k *Keeper) suspect(g *gate) {
	now, last := int64(k.elapsed()), k.suspectedAt.Load()
	if last != 0 && now-last < int64(k.config.RefreshAfter) || !k.suspectedAt.CompareAndSwap(last, now) {
		return
	}
	k.versions.suspect(func(o *opened) bool { return o.gate == g })
}
