//go:build !race

package sqlite

import (
	"database/sql"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/sallyport/sallyport/keys"
)

// bulk stores rings 0 to n-1 of the tenant "t" in few transactions.
func bulk(t testing.TB, s *Store, n int) {
	t.Helper()
	const batch = 20_000
	must(t, s.CreateTenant(t.Context(), "t", at(0)))
	for from := 0; from < n; from += batch {
		must(t, s.inTx(t.Context(), func(tx *sql.Tx) error {
			for i := from; i < min(from+batch, n); i++ {
				r := testRing("t", bulkID(i), i)
				if i%1000 == 0 {
					r.Purpose = keys.PurposeMAC
				}
				if err := insertRing(t.Context(), tx, r); err != nil {
					return err
				}
			}
			return nil
		}))
	}
}

func bulkID(i int) string { return fmt.Sprintf("k-%07d", i) }

func TestManyRings(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 20_000
	}
	s, _ := newStore(t)
	bulk(t, s, n)
	t.Run("pages", func(t *testing.T) { readPages(t, s, n) })
	t.Run("selective", func(t *testing.T) { readSelectively(t, s, n) })
}

func readPages(t *testing.T, s *Store, n int) {
	ctx := t.Context()

	next := 0
	for q := (keys.RingQuery{Tenant: "t", Limit: 1000}); ; {
		rings, err := s.Rings(ctx, q)
		must(t, err)
		if len(rings) == 0 {
			break
		}
		for _, r := range rings {
			if r.Name.Keyring != bulkID(next) || len(r.Versions) != 1 {
				t.Fatalf("ring %d is %s with %d versions", next, r.Name.Keyring, len(r.Versions))
			}
			next++
		}
		q.After = rings[len(rings)-1].Name.Keyring
	}
	if next != n {
		t.Fatalf("%d rings in pages, want %d", next, n)
	}
	rings, err := s.Rings(ctx, keys.RingQuery{Tenant: "t", Purpose: keys.PurposeMAC, Limit: n})
	must(t, err)
	if len(rings) != n/1000 {
		t.Fatalf("%d rings of a purpose, want %d", len(rings), n/1000)
	}
	due, err := s.RingsDue(ctx, at(99), n)
	must(t, err)
	if len(due) != 100 {
		t.Fatalf("%d rings due, want 100", len(due))
	}
}

// readSelectively checks that a query that selects late or little does not read what
// comes before it: it takes less than a tenth of a scan of the table.
func readSelectively(t *testing.T, s *Store, n int) {
	timed := func(query string, args ...any) time.Duration {
		best := time.Hour
		for range 10 {
			begin := time.Now()
			must(t, s.rows(t.Context(), func(*sql.Rows) error { return nil }, query, args...))
			best = min(best, time.Since(begin))
		}
		return best
	}
	scan := timed("SELECT sum(length(keyring)), sum(length(wrapped)) FROM version")
	for _, q := range []keys.RingQuery{
		{Tenant: "t", Prefix: bulkID(n - 1), Limit: 10},
		{Tenant: "t", Prefix: "z", Limit: 10},
		{Tenant: "t", After: bulkID(n - 3), Limit: 10},
		{Tenant: "t", After: bulkID(n / 2), Prefix: "k-", Limit: 3},
		{Tenant: "t", Purpose: keys.PurposeMAC, After: bulkID(n - 5000), Limit: 3},
		{Tenant: "t", Purpose: keys.PurposeDeterministic, Limit: 10},
	} {
		query, args := ringsQuery(q)
		if took := timed(query, args...); took > scan/10 {
			t.Errorf("%+v took %v; a scan takes %v", q, took, scan)
		}
	}
}

// BenchmarkStore measures with a million rings. It makes the store once, which takes
// a minute or two:
//
//	go test -bench Store -run '^$' ./gateway/store/sqlite
func BenchmarkStore(b *testing.B) {
	const n = 1_000_000
	s, path := newStore(b)
	begin := time.Now()
	bulk(b, s, n)
	var busy, log, done int
	must(b, s.write.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &done))
	info, err := os.Stat(path)
	must(b, err)
	b.Logf("%d rings in %v, %d bytes each", n, time.Since(begin).Round(time.Second), info.Size()/n)

	// A step that is coprime to n, so that every ring comes and neighbours do not.
	at := func(i int) keys.Name { return keys.Name{Tenant: "t", Keyring: bulkID(i * 611_953 % n)} }
	lookup := func(b *testing.B, i int) {
		if _, err := s.Ring(b.Context(), at(i)); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("lookup", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			lookup(b, i)
		}
		b.ReportMetric(float64(info.Size()), "file-bytes")
	})
	b.Run("lookup/parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				lookup(b, i)
			}
		})
	})
	b.Run("page of 100", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := s.Rings(b.Context(), keys.RingQuery{Tenant: "t", After: at(i).Keyring, Limit: 100}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("update", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			r, err := s.Ring(b.Context(), at(i))
			must(b, err)
			must(b, s.UpdateRing(b.Context(), r))
		}
	})
}
