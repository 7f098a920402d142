//go:build !race

package sqlite

import (
	"database/sql"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/lease"
)

// bulkLeases stores leases 0 to n-1 in few transactions. Most are gone, some live,
// and one in a thousand is stuck.
func bulkLeases(t testing.TB, s *Store, n int) {
	t.Helper()
	const batch = 20_000
	ctx := t.Context()
	for from := 0; from < n; from += batch {
		must(t, s.inTx(ctx, func(tx *sql.Tx) error {
			for i := from; i < min(from+batch, n); i++ {
				l := testLease(i)
				l.State, l.Due = lease.StateGone, at(1_000_000+i)
				switch {
				case i%1000 == 0:
					l.State, l.Due = lease.StateStuck, at(i)
				case i%10 == 0:
					l.State = lease.StateActive
				}
				if i%2000 == 0 {
					l.Name.Role.Tenant = "rare"
				}
				if err := s.insertLease(ctx, tx, l, 1<<30); err != nil {
					return err
				}
			}
			return nil
		}))
	}
}

// A question that selects little reads little, whatever else there is: it takes less
// than a tenth of a scan of the table.
func TestManyLeases(t *testing.T) {
	n := 30_000
	if testing.Short() {
		n = 20_000
	}
	s, _ := newStore(t)
	bulkLeases(t, s, n)
	ctx := t.Context()
	timed := func(call func() (int, error)) (rows int, best time.Duration) {
		best = time.Hour
		for range 30 {
			begin := time.Now()
			var err error
			rows, err = call()
			must(t, err)
			best = min(best, time.Since(begin))
		}
		return rows, best
	}
	_, scan := timed(func() (int, error) {
		return 0, s.rows(ctx, func(*sql.Rows) error { return nil }, "SELECT sum(length(handle)), sum(length(failure)) FROM lease NOT INDEXED")
	})
	list := func(q lease.Query) func() (int, error) {
		return func() (int, error) { rows, err := s.Leases(ctx, q); return len(rows), err }
	}
	one := testLease(n / 2)
	for name, tt := range map[string]struct {
		call func() (int, error)
		rows int
	}{
		"stuck":             {list(lease.Query{State: lease.StateStuck, Limit: 10}), 10},
		"reserved":          {list(lease.Query{State: lease.StateReserved}), 0},
		"a late page":       {list(lease.Query{After: lease.Cursor{Created: testLease(n - 11).Created, ID: testLease(n - 11).Name.ID}, Limit: 100}), 10},
		"since lately":      {list(lease.Query{Since: testLease(n - 10).Created}), 10},
		"a rare tenant":     {list(lease.Query{Tenant: "rare", Limit: 3}), 3},
		"a workload's":      {list(lease.Query{Workload: one.Workload, Limit: 10}), 10},
		"a certificate's":   {list(lease.Query{Evidence: one.Evidence, Live: true, Limit: 10}), 1},
		"held":              {list(lease.Query{Workload: one.Workload, Tenant: "acme", Role: one.Name.Role.Role, Live: true, Limit: 5}), 5},
		"since, a workload": {list(lease.Query{Workload: one.Workload, Since: testLease(n - 1000).Created}), 1},
		"due":               {func() (int, error) { rows, err := s.Due(ctx, at(5000), 256); return len(rows), err }, 6},
		"counts":            {func() (int, error) { counts, err := s.Count(ctx); return counts[lease.StateStuck], err }, n / 1000},
	} {
		rows, took := timed(tt.call)
		if took > scan/10 {
			t.Errorf("%s took %v; a scan takes %v", name, took, scan)
		}
		if rows != tt.rows {
			t.Errorf("%s: %d rows, want %d", name, rows, tt.rows)
		}
	}
	t.Logf("a scan takes %v", scan)
}
