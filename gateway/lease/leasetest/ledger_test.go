package leasetest_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/gateway/lease/leasetest"
	"github.com/sallyport/sallyport/gateway/store/storetest"
	"github.com/sallyport/sallyport/keys"
)

// kept gives the same ledger for the same directory, as a restart finds it.
type kept struct{ sync.Map }

func (k *kept) open(dir string) *leasetest.Ledger {
	l, _ := k.LoadOrStore(dir, leasetest.NewLedger())
	return l.(*leasetest.Ledger)
}

func TestLedger(t *testing.T) {
	var k kept
	storetest.Ledger(t, func(_ *testing.T, dir string) lease.Ledger { return k.open(dir) })
}

// A ledger that was told to do nothing wrong does nothing wrong.
func TestFaultyLedgerWithoutFault(t *testing.T) {
	var k kept
	storetest.Ledger(t, func(_ *testing.T, dir string) lease.Ledger { return leasetest.NewFaulty(k.open(dir), nil) })
}

// roles has another name than its method, so that it can be embedded.
type roles = lease.Roles

type tenants struct {
	roles
	ledger *leasetest.Ledger
}

func (s tenants) CreateTenant(_ context.Context, t keys.Tenant, _ time.Time) error {
	s.ledger.AddTenant(t)
	return nil
}

func TestRoles(t *testing.T) {
	var k kept
	storetest.Roles(t, func(_ *testing.T, dir string) storetest.RoleStore {
		l := k.open(dir)
		return tenants{l, l}
	})
}

func TestFaultyRolesWithoutFault(t *testing.T) {
	var k kept
	storetest.Roles(t, func(_ *testing.T, dir string) storetest.RoleStore {
		l := k.open(dir)
		return tenants{leasetest.NewFaulty(nil, l), l}
	})
}

// A clone and its origin do not see each other's later writes.
func TestCloneIsApart(t *testing.T) {
	ctx := t.Context()
	l := leasetest.NewLedger()
	row := lease.Lease{Name: lease.Name{ID: lease.ID{1}}}
	if err := l.Reserve(ctx, row, 1); err != nil {
		t.Fatal(err)
	}
	backup := l.Clone()
	row.State, row.Revision = lease.StateActive, 1
	if err := l.Update(ctx, row); err != nil {
		t.Fatal(err)
	}
	if got, err := backup.Lease(ctx, row.Name); err != nil || got.State != lease.StateReserved {
		t.Errorf("the backup has %v, %v", got.State, err)
	}
	row.Name.ID = lease.ID{2}
	if err := backup.Reserve(ctx, row, 9); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Lease(ctx, row.Name); !errors.Is(err, lease.ErrNotFound) {
		t.Errorf("the origin has the backup's row: %v", err)
	}
}

// What each fault does to the row, and what the caller hears.
func TestFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		fault leasetest.Fault
		err   error
		done  bool
		took  time.Duration
	}{
		"none":             {nil, nil, true, 0},
		"lost":             {leasetest.Lost, lease.ErrStore, false, 0},
		"done but lost":    {leasetest.DoneButLost, lease.ErrStore, true, 0},
		"stalled":          {leasetest.Stalled, context.DeadlineExceeded, false, time.Minute},
		"delayed":          {leasetest.Delayed(time.Second), nil, true, time.Second},
		"delayed too long": {leasetest.Delayed(time.Hour), context.DeadlineExceeded, false, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				inner := leasetest.NewLedger()
				f := leasetest.NewFaulty(inner, inner)
				f.Next("Reserve", tt.fault)
				row := lease.Lease{Name: lease.Name{ID: lease.ID{1}}}
				begin := time.Now()
				if err := f.Reserve(ctx, row, 1); !errors.Is(err, tt.err) {
					t.Errorf("got %v, want %v", err, tt.err)
				}
				if took := time.Since(begin); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if _, err := inner.Lease(t.Context(), row.Name); (err == nil) != tt.done {
					t.Errorf("done: %v, want %v", err == nil, tt.done)
				}
				row.Name.ID = lease.ID{2}
				if err := f.Reserve(t.Context(), row, 9); err != nil || f.Calls("Reserve") != 2 {
					t.Errorf("the call after it: %v; %d calls", err, f.Calls("Reserve"))
				}
			})
		})
	}
}

// Reading can break as well, again and again, and gives nothing then.
func TestAlways(t *testing.T) {
	inner := leasetest.NewLedger()
	f := leasetest.NewFaulty(inner, inner)
	row := lease.Lease{Name: lease.Name{ID: lease.ID{1}}}
	if err := f.Reserve(t.Context(), row, 1); err != nil {
		t.Fatal(err)
	}
	f.Always("Lease", leasetest.DoneButLost)
	f.Next("Lease", nil)
	for i := range 3 {
		got, err := f.Lease(t.Context(), row.Name)
		if broken := i > 0; errors.Is(err, lease.ErrStore) != broken || (got == lease.Lease{}) != broken {
			t.Errorf("call %d gave %v, %v", i, got, err)
		}
	}
	f.Always("Lease", nil)
	if _, err := f.Lease(t.Context(), row.Name); err != nil {
		t.Error(err)
	}
	f.Next("Update", leasetest.DoneButLost)
	if err := f.Update(t.Context(), row); !errors.Is(err, lease.ErrConflict) {
		t.Errorf("what could not be done: %v", err)
	}
}
