// Package keystest is a keys.Shelf in memory, for tests, and one that breaks as told.
package keystest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/keys"
)

// Shelf keeps tenants and rings in memory, and is as durable as the process. The zero
// value is empty and usable.
type Shelf struct {
	mu      sync.Mutex
	tenants map[keys.Tenant]time.Time
	rings   map[keys.Name]keys.Ring
}

var _ keys.Shelf = (*Shelf)(nil)

// copied shares no memory with r and has its times in UTC, as a database gives them.
func copied(r keys.Ring) keys.Ring {
	r.Created, r.NextRotation = r.Created.UTC(), r.NextRotation.UTC()
	r.Versions = slices.Clone(r.Versions)
	for i := range r.Versions {
		v := &r.Versions[i]
		v.Created, v.DestroyAt, v.Compromised = v.Created.UTC(), v.DestroyAt.UTC(), v.Compromised.UTC()
		v.Wrapped = append([]byte(nil), v.Wrapped...)
	}
	return r
}

// CreateTenant implements keys.Shelf.
func (s *Shelf) CreateTenant(ctx context.Context, t keys.Tenant, created time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.tenants[t]; ok {
		return keys.ErrExists
	}
	if s.tenants == nil {
		s.tenants = map[keys.Tenant]time.Time{}
	}
	s.tenants[t] = created.UTC()
	return nil
}

// Tenants implements keys.Shelf.
func (s *Shelf) Tenants(ctx context.Context, after keys.Tenant, limit int) ([]keys.TenantRow, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var rows []keys.TenantRow
	for _, t := range slices.Sorted(maps.Keys(s.tenants)) {
		if t > after && len(rows) < limit {
			rows = append(rows, keys.TenantRow{Tenant: t, Created: s.tenants[t]})
		}
	}
	return rows, nil
}

// CreateRing implements keys.Shelf.
func (s *Shelf) CreateRing(ctx context.Context, r keys.Ring) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.tenants[r.Name.Tenant]; !ok {
		return keys.ErrNotFound
	}
	if _, ok := s.rings[r.Name]; ok {
		return keys.ErrExists
	}
	for _, other := range s.rings {
		if other.ID == r.ID {
			return keys.ErrExists
		}
	}
	if s.rings == nil {
		s.rings = map[keys.Name]keys.Ring{}
	}
	r.Revision = 1
	s.rings[r.Name] = copied(r)
	return nil
}

// Ring implements keys.Shelf.
func (s *Shelf) Ring(ctx context.Context, n keys.Name) (keys.Ring, error) {
	if err := ctx.Err(); err != nil {
		return keys.Ring{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.rings[n]
	if !ok {
		return keys.Ring{}, keys.ErrNotFound
	}
	return copied(r), nil
}

// Rings implements keys.Shelf.
func (s *Shelf) Rings(ctx context.Context, q keys.RingQuery) ([]keys.Ring, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []keys.Ring
	for n, r := range s.rings {
		if n.Tenant == q.Tenant && n.Keyring > q.After && strings.HasPrefix(n.Keyring, q.Prefix) &&
			(q.Purpose == 0 || q.Purpose == r.Purpose) {
			found = append(found, copied(r))
		}
	}
	slices.SortFunc(found, func(a, b keys.Ring) int { return cmp.Compare(a.Name.Keyring, b.Name.Keyring) })
	return found[:min(len(found), q.Limit)], nil
}

// UpdateRing implements keys.Shelf.
func (s *Shelf) UpdateRing(ctx context.Context, r keys.Ring) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	stored, ok := s.rings[r.Name]
	switch {
	case !ok:
		return keys.ErrNotFound
	case stored.Revision != r.Revision:
		return keys.ErrConflict
	}
	r.ID, r.Purpose, r.Created = stored.ID, stored.Purpose, stored.Created
	r.Revision++
	s.rings[r.Name] = copied(r)
	return nil
}

// RingsDue implements keys.Shelf. The longest due come first.
func (s *Shelf) RingsDue(ctx context.Context, at time.Time, limit int) ([]keys.Name, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	due := map[keys.Name]time.Time{}
	for n, r := range s.rings {
		first := r.NextRotation
		for _, v := range r.Versions {
			if v.State == keys.StateScheduledForDestruction && (first.IsZero() || v.DestroyAt.Before(first)) {
				first = v.DestroyAt
			}
		}
		if !first.IsZero() && !first.After(at) {
			due[n] = first
		}
	}
	names := slices.SortedFunc(maps.Keys(due), func(a, b keys.Name) int {
		return cmp.Or(due[a].Compare(due[b]), cmp.Compare(a.String(), b.String()))
	})
	return names[:min(len(names), limit)], nil
}
