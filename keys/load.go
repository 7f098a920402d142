package keys

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/crypto/envelope"
)

const (
	// missingFor is how long a keyring that does not exist is remembered, so that
	// asking for it again and again does not reach the store.
	missingFor = time.Second
	// refusedFor is how long a KEK's refusal is remembered, so that asking again and
	// again does not reach the KEK.
	refusedFor = 5 * time.Second
	// retryRefresh is how long a refresh that failed waits to be tried again.
	retryRefresh = 5 * time.Second
)

// read reads a keyring from the store and keeps it. All who miss it at the same
// time wait for one reading.
func (k *Keeper) read(ctx context.Context, n Name) (*entry, error) {
	v, err := k.once(ctx, n.String(), func(ctx context.Context) (any, error) {
		for {
			epoch := k.cache.epoch(n)
			e, err := k.readOnce(ctx, n)
			if err != nil {
				return nil, err
			}
			if k.cache.put(n, e, epoch) {
				return e, nil
			}
			// Something changed while it was read: what was read may be old.
		}
	})
	if err != nil {
		return nil, err
	}
	if e := v.(*entry); !e.missing {
		return e, nil
	}
	return nil, ErrNotFound
}

func (k *Keeper) readOnce(ctx context.Context, n Name) (*entry, error) {
	r, err := k.Shelf.Ring(ctx, n)
	now := k.Now()
	switch {
	case errors.Is(err, ErrNotFound):
		e := newEntry(Ring{Name: n}, now, missingFor, missingFor)
		e.missing = true
		return e, nil
	case err != nil:
		return nil, inTime(err, ErrStore)
	}
	return newEntry(r, now, k.RefreshAfter, k.MaxStaleness), nil
}

// open opens a version under its KEK and keeps it. All who miss it at the same
// time wait for one call.
func (k *Keeper) open(ctx context.Context, e *entry, version uint32) (*Handle, error) {
	key := fmt.Sprintf("%x/%d/%p", e.ring.ID, version, e)
	v, err := k.once(ctx, key, func(ctx context.Context) (any, error) {
		// The one before may have opened it since this caller looked.
		if h := e.handle(version); h != nil && k.Now().Before(h.expires) {
			return h, h.refused
		}
		h, err := k.unwrap(ctx, e.ring, version)
		if errors.Is(err, ErrKEKRefused) {
			e.put(&Handle{version: version, refused: err, expires: k.Now().Add(refusedFor)})
		}
		if err != nil {
			return nil, err
		}
		e.put(h)
		return h, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*Handle), nil
}

// unwrap opens a version under its KEK.
func (k *Keeper) unwrap(ctx context.Context, r Ring, version uint32) (*Handle, error) {
	v := r.Versions[version-1]
	kek := k.keks[v.KEK]
	if kek == nil {
		return nil, fmt.Errorf("%w: KEK %s is not configured", ErrKEKRefused, v.KEK)
	}
	opened := k.Now()
	keyset, err := kek.unwrap(ctx, r.Name.Tenant, v.Wrapped, k.binding(r, version))
	if err != nil {
		return nil, inTime(err, ErrKEKUnreachable)
	}
	h, err := newHandle(keyset, r.Purpose, envelope.Scope{
		Deployment: k.Deployment, Environment: k.Environment,
		Tenant: string(r.Name.Tenant), Keyring: r.ID, Version: version,
	})
	if err != nil {
		return nil, err
	}
	h.expires = opened.Add(k.MaxStaleness)
	return h, nil
}

func (k *Keeper) binding(r Ring, version uint32) Binding {
	return Binding{
		Deployment: k.Deployment, Environment: k.Environment,
		Tenant: r.Name.Tenant, Keyring: r.ID, Version: version, Purpose: r.Purpose,
	}
}

// refresh reads a keyring again, and opens again the versions that are open,
// behind the calls. One caller starts it; the others go on with what is there.
func (k *Keeper) refresh(n Name, e *entry) {
	due := e.refreshNanos.Load()
	if !e.refreshNanos.CompareAndSwap(due, k.Now().Add(retryRefresh).UnixNano()) || k.base.Err() != nil {
		return
	}
	k.counters.refreshes.Add(1)
	k.work.Go(func() {
		ctx, cancel := context.WithTimeout(k.base, k.LoadTimeout)
		defer cancel()
		epoch := k.cache.epoch(n)
		fresh, err := k.readOnce(ctx, n)
		if err != nil {
			return // what is there serves until it expires
		}
		for version, h := range *e.handles.Load() {
			if h.refused != nil || fresh.missing || !fresh.ring.Versions[version-1].State.Opens() {
				continue
			}
			opened, err := k.unwrap(ctx, fresh.ring, version)
			switch {
			case errors.Is(err, ErrKEKRefused):
				// A refusal is in force at once.
				opened = &Handle{version: version, refused: err, expires: k.Now().Add(refusedFor)}
			case err != nil:
				opened = h // serves until it expires
			}
			fresh.put(opened)
		}
		k.cache.put(n, fresh, epoch)
	})
}
