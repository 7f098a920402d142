package leasetest

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/keys"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// Ledger keeps leases and roles in memory, and is as durable as the process.
type Ledger struct {
	mu      sync.Mutex
	tenants map[keys.Tenant]bool
	roles   map[lease.RoleName]lease.Role
	leases  map[lease.ID]lease.Lease
}

var (
	_ lease.Ledger = (*Ledger)(nil)
	_ lease.Roles  = (*Ledger)(nil)
)

// NewLedger makes an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{
		tenants: map[keys.Tenant]bool{}, roles: map[lease.RoleName]lease.Role{}, leases: map[lease.ID]lease.Lease{},
	}
}

// AddTenant adds a tenant, which may have roles then.
func (l *Ledger) AddTenant(t keys.Tenant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tenants[t] = true
}

// Clone gives a ledger of its own with the same rows, as a backup is.
func (l *Ledger) Clone() *Ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Rows are replaced as a whole, never changed.
	return &Ledger{tenants: maps.Clone(l.tenants), roles: maps.Clone(l.roles), leases: maps.Clone(l.leases)}
}

// with runs f alone, unless the context has ended.
func (l *Ledger) with(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return f()
}

// Reserve implements lease.Ledger.
func (l *Ledger) Reserve(ctx context.Context, row lease.Lease, quota uint32) error {
	return l.with(ctx, func() error {
		if l.held(row.Workload, row.Name.Role) >= quota {
			return lease.ErrQuota
		}
		if _, taken := l.leases[row.Name.ID]; taken {
			return lease.ErrExists
		}
		row.State, row.Revision = lease.StateReserved, 1
		l.leases[row.Name.ID] = inUTC(row)
		return nil
	})
}

func (l *Ledger) held(workload string, role lease.RoleName) (n uint32) {
	for _, row := range l.leases {
		if row.Name.Role == role && row.Workload == workload && row.State != lease.StateGone {
			n++
		}
	}
	return n
}

// Held implements lease.Ledger.
func (l *Ledger) Held(ctx context.Context, workload string, role lease.RoleName, limit uint32) (n uint32, err error) {
	err = l.with(ctx, func() error {
		n = min(limit, l.held(workload, role))
		return nil
	})
	return n, err
}

// inUTC has its times in UTC, as a database gives them.
func inUTC(l lease.Lease) lease.Lease {
	l.Created, l.MaxExpires, l.Expires, l.Due = l.Created.UTC(), l.MaxExpires.UTC(), l.Expires.UTC(), l.Due.UTC()
	return l
}

// Lease implements lease.Ledger.
func (l *Ledger) Lease(ctx context.Context, n lease.Name) (row lease.Lease, err error) {
	err = l.with(ctx, func() error {
		stored, ok := l.leases[n.ID]
		if !ok || stored.Name != n {
			return lease.ErrNotFound
		}
		row = stored
		return nil
	})
	return row, err
}

// swap gives the stored row if it has the revision of the given one.
func (l *Ledger) swap(row lease.Lease) (lease.Lease, error) {
	stored, ok := l.leases[row.Name.ID]
	switch {
	case !ok || stored.Name != row.Name:
		return lease.Lease{}, lease.ErrNotFound
	case stored.Revision != row.Revision:
		return lease.Lease{}, lease.ErrConflict
	}
	return stored, nil
}

// Update implements lease.Ledger.
func (l *Ledger) Update(ctx context.Context, row lease.Lease) error {
	return l.with(ctx, func() error {
		stored, err := l.swap(row)
		if err != nil {
			return err
		}
		row.Workload, row.Registration, row.Evidence, row.Source = stored.Workload, stored.Registration, stored.Evidence, stored.Source
		row.Created, row.MaxExpires, row.Lifetime = stored.Created, stored.MaxExpires, stored.Lifetime
		row.Revision++
		l.leases[row.Name.ID] = inUTC(row)
		return nil
	})
}

// Forget implements lease.Ledger.
func (l *Ledger) Forget(ctx context.Context, row lease.Lease) error {
	return l.with(ctx, func() error {
		if _, err := l.swap(row); err != nil {
			return err
		}
		delete(l.leases, row.Name.ID)
		return nil
	})
}

// Leases implements lease.Ledger.
func (l *Ledger) Leases(ctx context.Context, q lease.Query) (found []lease.Lease, err error) {
	err = l.with(ctx, func() error {
		found = l.list(q.Limit, inOrder, func(row lease.Lease) bool { return selects(q, row) })
		return nil
	})
	return found, err
}

func selects(q lease.Query, l lease.Lease) bool {
	return (q.Tenant == "" || q.Tenant == l.Name.Role.Tenant) && (q.Role == "" || q.Role == l.Name.Role.Role) &&
		(q.ID == lease.ID{} || q.ID == l.Name.ID) && (q.Workload == "" || q.Workload == l.Workload) &&
		(q.Evidence == [32]byte{} || q.Evidence == l.Evidence) && !l.Created.Before(q.Since) &&
		(q.State == 0 || q.State == l.State) && (!q.Live || l.State != lease.StateGone) &&
		inOrder(lease.Lease{Created: q.After.Created, Name: lease.Name{ID: q.After.ID}}, l) < 0
}

func inOrder(a, b lease.Lease) int {
	return cmp.Or(a.Created.Compare(b.Created), bytes.Compare(a.Name.ID[:], b.Name.ID[:]))
}

// list gives at most limit rows that are chosen, in order; 0 stands for all.
func (l *Ledger) list(limit int, order func(a, b lease.Lease) int, chosen func(lease.Lease) bool) []lease.Lease {
	var found []lease.Lease
	for _, row := range l.leases {
		if chosen(row) {
			found = append(found, row)
		}
	}
	slices.SortFunc(found, order)
	return first(found, limit)
}

func first[T any](rows []T, limit int) []T {
	if limit == 0 || len(rows) < limit {
		return rows
	}
	return rows[:limit]
}

// Due implements lease.Ledger.
func (l *Ledger) Due(ctx context.Context, at time.Time, limit int) (found []lease.Lease, err error) {
	err = l.with(ctx, func() error {
		if limit <= 0 {
			return nil
		}
		found = l.list(limit, func(a, b lease.Lease) int {
			return cmp.Or(a.Due.Compare(b.Due), bytes.Compare(a.Name.ID[:], b.Name.ID[:]))
		}, func(row lease.Lease) bool { return !row.Due.IsZero() && !row.Due.After(at) })
		return nil
	})
	return found, err
}

// Count implements lease.Ledger.
func (l *Ledger) Count(ctx context.Context) (counts map[lease.State]int, err error) {
	err = l.with(ctx, func() error {
		counts = map[lease.State]int{}
		for _, row := range l.leases {
			counts[row.State]++
		}
		return nil
	})
	return counts, err
}

// CreateRole implements lease.Roles.
func (l *Ledger) CreateRole(ctx context.Context, r lease.Role) error {
	return l.with(ctx, func() error {
		if !l.tenants[r.Name.Tenant] {
			return lease.ErrNotFound
		}
		if _, taken := l.roles[r.Name]; taken {
			return lease.ErrExists
		}
		r.Revision = 1
		l.roles[r.Name] = copied(r)
		return nil
	})
}

// copied shares no memory with r and has its time in UTC.
func copied(r lease.Role) lease.Role {
	p := new(controlv1.SecretParameters)
	proto.Merge(p, r.Parameters)
	r.Parameters, r.Created = p, r.Created.UTC()
	return r
}

// Role implements lease.Roles.
func (l *Ledger) Role(ctx context.Context, n lease.RoleName) (r lease.Role, err error) {
	err = l.with(ctx, func() error {
		stored, ok := l.roles[n]
		if !ok {
			return lease.ErrNotFound
		}
		r = copied(stored)
		return nil
	})
	return r, err
}

// Roles implements lease.Roles.
func (l *Ledger) Roles(ctx context.Context, t keys.Tenant, after string, limit int) ([]lease.Role, error) {
	return l.listRoles(ctx, limit, func(r lease.Role) bool { return r.Name.Tenant == t && r.Name.Role > after })
}

// RolesOf implements lease.Roles.
func (l *Ledger) RolesOf(ctx context.Context, source string) ([]lease.Role, error) {
	return l.listRoles(ctx, 0, func(r lease.Role) bool { return r.Source == source })
}

func (l *Ledger) listRoles(ctx context.Context, limit int, chosen func(lease.Role) bool) (found []lease.Role, err error) {
	err = l.with(ctx, func() error {
		for _, r := range l.roles {
			if chosen(r) {
				found = append(found, copied(r))
			}
		}
		slices.SortFunc(found, func(a, b lease.Role) int {
			return cmp.Or(cmp.Compare(a.Name.Tenant, b.Name.Tenant), cmp.Compare(a.Name.Role, b.Name.Role))
		})
		found = first(found, limit)
		return nil
	})
	return found, err
}

// UpdateRole implements lease.Roles.
func (l *Ledger) UpdateRole(ctx context.Context, r lease.Role) error {
	return l.with(ctx, func() error {
		stored, ok := l.roles[r.Name]
		switch {
		case !ok:
			return lease.ErrNotFound
		case stored.Revision != r.Revision:
			return lease.ErrConflict
		}
		r.Source, r.Created = stored.Source, stored.Created
		r.Revision++
		l.roles[r.Name] = copied(r)
		return nil
	})
}

// DeleteRole implements lease.Roles.
func (l *Ledger) DeleteRole(ctx context.Context, n lease.RoleName, revision uint64) error {
	return l.with(ctx, func() error {
		stored, ok := l.roles[n]
		switch {
		case !ok:
			return lease.ErrNotFound
		case revision != 0 && stored.Revision != revision:
			return lease.ErrConflict
		}
		delete(l.roles, n)
		return nil
	})
}
