package storetest

import (
	"bytes"
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/keys"
)

func inOrder(a, b lease.Lease) int {
	return cmp.Or(a.Created.Compare(b.Created), bytes.Compare(a.Name.ID[:], b.Name.ID[:]))
}

func cursor(l *lease.Lease) lease.Cursor {
	if l == nil {
		return lease.Cursor{}
	}
	return lease.Cursor{Created: l.Created, ID: l.Name.ID}
}

// Ids are in the order of their bytes, and those created at one moment are pages too.
func ledgerOrder(t *testing.T, open Opener[lease.Ledger]) {
	s := empty(t, open)
	var all []lease.Lease
	for n, id := range []lease.ID{{0xff}, {0x7f, 15: 2}, {0x80}, {15: 1}, {1}, {15: 0xff}} {
		for _, created := range []time.Time{at(1), {}, at(1).Add(1), at(0)} {
			l := leaseOf("t", "r", "w", n)
			l.Created, l.Name.ID = created, id
			l.Name.ID[8] = byte(len(all))
			all = append(all, reserve(t, s, l))
		}
	}
	slices.SortFunc(all, inOrder)
	wantLeases(t, s, all...)
	for limit := 1; limit <= len(all)+1; limit++ {
		equal(t, pages(t, limit, func(last *lease.Lease) ([]lease.Lease, error) {
			return s.Leases(t.Context(), lease.Query{After: cursor(last), Limit: limit})
		}), all)
	}
	// A cursor whose row is gone is a place all the same.
	for i, l := range all[:len(all)-1] {
		must(t, s.Forget(t.Context(), l))
		rows, err := s.Leases(t.Context(), lease.Query{After: cursor(&l)})
		must(t, err)
		equal(t, rows, all[i+1:])
	}
}

// matches is Query in the simplest words.
func matches(q lease.Query, l lease.Lease) bool {
	return (q.Tenant == "" || l.Name.Role.Tenant == q.Tenant) &&
		(q.Role == "" || l.Name.Role.Role == q.Role) &&
		(q.ID == lease.ID{} || l.Name.ID == q.ID) &&
		(q.Workload == "" || l.Workload == q.Workload) &&
		(q.Evidence == [32]byte{} || l.Evidence == q.Evidence) &&
		(q.Since.IsZero() || !l.Created.Before(q.Since)) &&
		(q.State == 0 || l.State == q.State) &&
		(!q.Live || l.State != lease.StateGone)
}

// Each condition alone and with up to three others.
func ledgerQueries(t *testing.T, open Opener[lease.Ledger]) {
	s := empty(t, open)
	var all []lease.Lease
	for n := range 60 {
		l := leaseOf([]keys.Tenant{"t", "u"}[n%2], []string{"r", "s"}[n/2%2], []string{"w", "ww"}[n/4%2], n)
		l.Created = at(n / 6)
		l = reserve(t, s, l)
		l.State = lease.State(n%7%5 + 1)
		all = append(all, update(t, s, l))
	}
	slices.SortFunc(all, inOrder)
	one := all[33]
	conditions := []func(*lease.Query){
		func(q *lease.Query) { q.Tenant = one.Name.Role.Tenant },
		func(q *lease.Query) { q.Tenant, q.Role = one.Name.Role.Tenant, one.Name.Role.Role },
		func(q *lease.Query) { q.ID = one.Name.ID },
		func(q *lease.Query) { q.Workload = one.Workload },
		func(q *lease.Query) { q.Evidence = one.Evidence },
		func(q *lease.Query) { q.Since = at(3) },
		func(q *lease.Query) { q.Since = all[17].Created.Add(1) },
		func(q *lease.Query) { q.State = one.State },
		func(q *lease.Query) { q.State = lease.StateGone },
		func(q *lease.Query) { q.Live = true },
		func(q *lease.Query) { q.After = cursor(&all[7]) },
		func(q *lease.Query) { q.Workload = "nobody" },
	}
	found := map[int]bool{} // how many rows some query gave
	for set := range 1 << len(conditions) {
		if bits.OnesCount(uint(set)) > 4 {
			continue
		}
		var q lease.Query
		for i, condition := range conditions {
			if set&(1<<i) != 0 {
				condition(&q)
			}
		}
		var expected []lease.Lease
		for _, l := range all {
			if matches(q, l) && (q.After == lease.Cursor{} || inOrder(l, all[7]) > 0) {
				expected = append(expected, l)
			}
		}
		found[len(expected)] = true
		if q.Limit = set % 4; q.Limit > 0 && q.Limit < len(expected) {
			expected = expected[:q.Limit]
		}
		rows, err := s.Leases(t.Context(), q)
		must(t, err)
		if len(rows) != len(expected) || len(rows) > 0 && !slices.Equal(rows, expected) {
			t.Fatalf("%+v gives\n%+v\nwant\n%+v", q, rows, expected)
		}
	}
	if len(found) < 20 {
		t.Fatalf("the queries select too much alike: %v", found)
	}
}

// A row that is there all the time is on exactly one page.
func ledgerPaging(t *testing.T, open Opener[lease.Ledger]) {
	s := empty(t, open)
	var all []lease.Lease
	for n := range 60 {
		all = append(all, reserve(t, s, leaseOf("t", "r", "w", 2*n)))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ; n = (n + 14) % 120 {
			select {
			case <-stop:
				return
			default:
			}
			l := leaseOf("t", "r", "w", n|1)
			if err := s.Reserve(t.Context(), l, plenty); err != nil {
				t.Error(err)
				return
			}
			if err := s.Forget(t.Context(), l); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	for range 5 {
		got := pages(t, 7, func(last *lease.Lease) ([]lease.Lease, error) {
			return s.Leases(t.Context(), lease.Query{Tenant: "t", Role: "r", Live: true, After: cursor(last), Limit: 7})
		})
		if !slices.IsSortedFunc(got, inOrder) {
			t.Fatal("not in order")
		}
		got = slices.DeleteFunc(got, func(l lease.Lease) bool { return l.Name.ID[15]%2 == 1 })
		equal(t, got, all)
	}
}

func ledgerDue(t *testing.T, open Opener[lease.Ledger]) {
	s := empty(t, open)
	due := func(when time.Time, limit int) []string {
		rows, err := s.Due(t.Context(), when, limit)
		must(t, err)
		var out []string
		for _, l := range rows {
			stored, err := s.Lease(t.Context(), l.Name)
			must(t, err)
			equal(t, l, stored)
			out = append(out, l.Anchor.Handle)
		}
		return out
	}
	equal(t, due(at(100), 9), nil)
	var rows []lease.Lease
	for n, when := range []time.Time{at(5), at(3), {}, at(4), time.Unix(-1, 0), at(3).Add(1)} {
		l := leaseOf("t", "r", "w", n)
		l.Due, l.Anchor.Handle = when, fmt.Sprint(n)
		rows = append(rows, reserve(t, s, l))
	}
	equal(t, due(at(100), 9), []string{"4", "1", "5", "3", "0"})
	equal(t, due(at(100), 2), []string{"4", "1"})
	equal(t, due(at(4), 9), []string{"4", "1", "5", "3"})
	equal(t, due(at(4).Add(-1), 9), []string{"4", "1", "5"})
	equal(t, due(at(3), 9), []string{"4", "1"})
	equal(t, due(at(0), 9), []string{"4"})
	// The state does not matter; what has another Due has another place.
	rows[4].Due, rows[4].State = at(6), lease.StateGone
	rows[1].Due, rows[1].State = time.Time{}, lease.StateStuck
	rows[2].Due = at(1)
	for _, n := range []int{4, 1, 2} {
		rows[n] = update(t, s, rows[n])
	}
	equal(t, due(at(100), 9), []string{"2", "5", "3", "0", "4"})
	must(t, s.Forget(t.Context(), rows[5]))
	equal(t, due(at(100), 9), []string{"2", "3", "0", "4"})
}
