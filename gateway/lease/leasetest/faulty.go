package leasetest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/keys"
)

// Fault is what happens to one call of a Faulty ledger, which does it by calling do.
// Nil is no fault.
type Fault func(ctx context.Context, do func() error) error

// Lost does not do it, and says so.
func Lost(context.Context, func() error) error { return fmt.Errorf("%w: scripted", lease.ErrStore) }

// DoneButLost does it, and reports that the store failed. What could not be done is
// reported as it is.
func DoneButLost(_ context.Context, do func() error) error {
	if err := do(); err != nil {
		return err
	}
	return fmt.Errorf("%w: scripted, after the deed", lease.ErrStore)
}

// Stalled does not do it, and returns when the context ends.
func Stalled(ctx context.Context, _ func() error) error {
	<-ctx.Done()
	return ctx.Err()
}

// Delayed does it after d, unless the context ends before.
func Delayed(d time.Duration) Fault {
	return func(ctx context.Context, do func() error) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return do()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Faulty is a ledger with roles that breaks as told. It counts its calls.
type Faulty struct {
	ledger lease.Ledger
	roles  lease.Roles

	mu     sync.Mutex
	next   map[string][]Fault
	always map[string]Fault
	calls  map[string]int
}

var (
	_ lease.Ledger = (*Faulty)(nil)
	_ lease.Roles  = (*Faulty)(nil)
)

// NewFaulty makes a Faulty that works for now. What is never called may be nil.
func NewFaulty(l lease.Ledger, r lease.Roles) *Faulty {
	return &Faulty{ledger: l, roles: r, next: map[string][]Fault{}, always: map[string]Fault{}, calls: map[string]int{}}
}

// Next lets the next calls of a method break, one fault each. They come after those
// that were told before.
func (f *Faulty) Next(method string, faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next[method] = append(f.next[method], faults...)
}

// Always lets every call of a method that Next says nothing about break in this way
// until told otherwise; nil ends it.
func (f *Faulty) Always(method string, fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.always[method] = fault
}

// Calls counts the calls of a method so far.
func (f *Faulty) Calls(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

func (f *Faulty) fault(method string) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[method]++
	if faults := f.next[method]; len(faults) > 0 {
		f.next[method] = faults[1:]
		return faults[0]
	}
	return f.always[method]
}

func (f *Faulty) call(ctx context.Context, method string, do func() error) error {
	if fault := f.fault(method); fault != nil {
		return fault(ctx, do)
	}
	return do()
}

// asked is call for what has a result: without an error or with none at all.
func asked[T any](ctx context.Context, f *Faulty, method string, do func() (T, error)) (T, error) {
	var result, none T
	err := f.call(ctx, method, func() (err error) { result, err = do(); return err })
	if err != nil {
		return none, err
	}
	return result, nil
}

// Reserve implements lease.Ledger.
func (f *Faulty) Reserve(ctx context.Context, l lease.Lease, quota uint32) error {
	return f.call(ctx, "Reserve", func() error { return f.ledger.Reserve(ctx, l, quota) })
}

// Lease implements lease.Ledger.
func (f *Faulty) Lease(ctx context.Context, n lease.Name) (lease.Lease, error) {
	return asked(ctx, f, "Lease", func() (lease.Lease, error) { return f.ledger.Lease(ctx, n) })
}

// Update implements lease.Ledger.
func (f *Faulty) Update(ctx context.Context, l lease.Lease) error {
	return f.call(ctx, "Update", func() error { return f.ledger.Update(ctx, l) })
}

// Forget implements lease.Ledger.
func (f *Faulty) Forget(ctx context.Context, l lease.Lease) error {
	return f.call(ctx, "Forget", func() error { return f.ledger.Forget(ctx, l) })
}

// Leases implements lease.Ledger.
func (f *Faulty) Leases(ctx context.Context, q lease.Query) ([]lease.Lease, error) {
	return asked(ctx, f, "Leases", func() ([]lease.Lease, error) { return f.ledger.Leases(ctx, q) })
}

// Due implements lease.Ledger.
func (f *Faulty) Due(ctx context.Context, at time.Time, limit int) ([]lease.Lease, error) {
	return asked(ctx, f, "Due", func() ([]lease.Lease, error) { return f.ledger.Due(ctx, at, limit) })
}

// Held implements lease.Ledger.
func (f *Faulty) Held(ctx context.Context, workload string, role lease.RoleName, limit uint32) (uint32, error) {
	return asked(ctx, f, "Held", func() (uint32, error) { return f.ledger.Held(ctx, workload, role, limit) })
}

// Count implements lease.Ledger.
func (f *Faulty) Count(ctx context.Context) (map[lease.State]int, error) {
	return asked(ctx, f, "Count", func() (map[lease.State]int, error) { return f.ledger.Count(ctx) })
}

// CreateRole implements lease.Roles.
func (f *Faulty) CreateRole(ctx context.Context, r lease.Role) error {
	return f.call(ctx, "CreateRole", func() error { return f.roles.CreateRole(ctx, r) })
}

// Role implements lease.Roles.
func (f *Faulty) Role(ctx context.Context, n lease.RoleName) (lease.Role, error) {
	return asked(ctx, f, "Role", func() (lease.Role, error) { return f.roles.Role(ctx, n) })
}

// Roles implements lease.Roles.
func (f *Faulty) Roles(ctx context.Context, t keys.Tenant, after string, limit int) ([]lease.Role, error) {
	return asked(ctx, f, "Roles", func() ([]lease.Role, error) { return f.roles.Roles(ctx, t, after, limit) })
}

// RolesOf implements lease.Roles.
func (f *Faulty) RolesOf(ctx context.Context, source string) ([]lease.Role, error) {
	return asked(ctx, f, "RolesOf", func() ([]lease.Role, error) { return f.roles.RolesOf(ctx, source) })
}

// UpdateRole implements lease.Roles.
func (f *Faulty) UpdateRole(ctx context.Context, r lease.Role) error {
	return f.call(ctx, "UpdateRole", func() error { return f.roles.UpdateRole(ctx, r) })
}

// DeleteRole implements lease.Roles.
func (f *Faulty) DeleteRole(ctx context.Context, n lease.RoleName, revision uint64) error {
	return f.call(ctx, "DeleteRole", func() error { return f.roles.DeleteRole(ctx, n, revision) })
}
