package storetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/keys"
)

// shelfLists compares every kind of query with what a loop over all rings selects.
func shelfLists(t *testing.T, open Opener[keys.Shelf]) {
	s := empty(t, open)
	var all []keys.Ring
	n := 0
	for _, tenant := range []keys.Tenant{"t", "t0", "u"} {
		must(t, s.CreateTenant(t.Context(), tenant, at(0)))
		for _, id := range []string{"zz", "ab", "a", "b-1", "a-b", "a0", "b", "abc", "z", "b-10", "b-2"} {
			n++
			r := ring(tenant, id, n)
			r.Purpose = keys.Purpose(1 + n%3)
			if n%2 == 0 {
				r.Versions = append(r.Versions, keys.Version{Number: 2, State: keys.StatePending, KEK: "fake:a"})
			}
			all = append(all, create(t, s, r))
		}
	}
	slices.SortFunc(all, func(a, b keys.Ring) int { return strings.Compare(a.Name.Keyring, b.Name.Keyring) })
	for _, tenant := range []keys.Tenant{"t", "u"} {
		for _, purpose := range []keys.Purpose{0, keys.PurposeAEAD, keys.PurposeMAC} {
			for _, prefix := range []string{"", "a", "ab", "b-1", "z", "zz", "q"} {
				for _, after := range []string{"", "a", "aa", "b", "b-1", "c", "zz", "zzz"} {
					q := keys.RingQuery{Tenant: tenant, Purpose: purpose, Prefix: prefix, After: after}
					checkQuery(t, s, q, all)
				}
			}
		}
	}
	none, err := s.Rings(t.Context(), keys.RingQuery{Tenant: "t"})
	must(t, err)
	equal(t, len(none), 0) // at most 0
}

// checkQuery reads the query's rings with several page sizes. The rings are in order
// of their ids.
func checkQuery(t *testing.T, s keys.Shelf, q keys.RingQuery, all []keys.Ring) {
	t.Helper()
	var expected []keys.Ring
	for _, r := range all {
		if r.Name.Tenant == q.Tenant && (q.Purpose == 0 || r.Purpose == q.Purpose) &&
			strings.HasPrefix(r.Name.Keyring, q.Prefix) && r.Name.Keyring > q.After {
			expected = append(expected, r)
		}
	}
	for _, limit := range []int{1, 3, len(all)} {
		q.Limit = limit
		got := pages(t, limit, func(last *keys.Ring) ([]keys.Ring, error) {
			page := q
			if last != nil {
				page.After = last.Name.Keyring
			}
			return s.Rings(t.Context(), page)
		})
		if len(got)+len(expected) > 0 {
			equal(t, got, expected)
		}
	}
}

// shelfPaging reads pages while rings come and change. Those that are there all the
// time must be listed once, in order.
func shelfPaging(t *testing.T, open Opener[keys.Shelf]) {
	s := empty(t, open)
	must(t, s.CreateTenant(t.Context(), "t", at(0)))
	var old []string
	for i := range 40 {
		old = append(old, fmt.Sprintf("k-%03d", i*10))
		create(t, s, ring("t", old[i], i))
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		defer stop()
		for i := range 60 {
			if err := s.CreateRing(t.Context(), ring("t", fmt.Sprintf("k-%03d", (i*7%40)*10+1+i/40), 100+i)); err != nil {
				t.Error(err)
			}
			r, err := s.Ring(t.Context(), keys.Name{Tenant: "t", Keyring: old[i%len(old)]})
			if err == nil {
				err = s.UpdateRing(t.Context(), r)
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	defer wg.Wait()
	for again := true; again; again = ctx.Err() == nil {
		rows := pages(t, 3, func(last *keys.Ring) ([]keys.Ring, error) {
			q := keys.RingQuery{Tenant: "t", Limit: 3}
			if last != nil {
				q.After = last.Name.Keyring
			}
			return s.Rings(t.Context(), q)
		})
		var found []string
		for i, r := range rows {
			if i > 0 && r.Name.Keyring <= rows[i-1].Name.Keyring {
				t.Fatalf("%s comes after %s", r.Name.Keyring, rows[i-1].Name.Keyring)
			}
			if strings.HasSuffix(r.Name.Keyring, "0") {
				found = append(found, r.Name.Keyring)
			}
		}
		equal(t, found, old)
	}
}

func shelfDue(t *testing.T, open Opener[keys.Shelf]) {
	s := empty(t, open)
	ctx := t.Context()
	must(t, s.CreateTenant(ctx, "t", at(0)))
	rotates := ring("t", "rotates", 1)
	rotates.RotationPeriod, rotates.NextRotation = time.Hour, at(10)
	destroys := ring("t", "destroys", 2)
	destroys.Versions = append(destroys.Versions,
		keys.Version{Number: 2, State: keys.StateScheduledForDestruction, DestroyAt: at(30), KEK: "fake:a"},
		keys.Version{Number: 3, State: keys.StateScheduledForDestruction, DestroyAt: at(20), KEK: "fake:a"})
	both := ring("t", "both", 3)
	both.RotationPeriod, both.NextRotation = time.Hour, at(40)
	both.Versions = append(both.Versions, keys.Version{Number: 2, State: keys.StateScheduledForDestruction, DestroyAt: at(15), KEK: "fake:a"})
	// A time of destruction is no work unless it is still to be done.
	idle := ring("t", "idle", 4)
	idle.Versions = append(idle.Versions,
		keys.Version{Number: 2, State: keys.StateDestroyed, DestroyAt: at(1), KEK: "fake:a"},
		keys.Version{Number: 3, State: keys.StateDisabled, DestroyAt: at(1), KEK: "fake:a"})
	for _, r := range []keys.Ring{rotates, destroys, both, idle} {
		create(t, s, r)
	}
	due := func(n, limit int) []string {
		t.Helper()
		names, err := s.RingsDue(ctx, at(n), limit)
		must(t, err)
		got := []string{}
		for _, n := range names {
			equal(t, n.Tenant, "t")
			got = append(got, n.Keyring)
		}
		slices.Sort(got)
		return got
	}
	equal(t, due(9, 10), []string{})
	equal(t, due(10, 10), []string{"rotates"}) // due at the instant itself
	equal(t, due(15, 10), []string{"both", "rotates"})
	equal(t, due(19, 10), []string{"both", "rotates"})
	equal(t, due(1000, 10), []string{"both", "destroys", "rotates"})
	equal(t, len(due(1000, 2)), 2)
	equal(t, due(1000, 0), []string{})

	// Done work is not due any more, and what is left is due in its time.
	rotates.NextRotation, rotates.Revision = at(50), 1
	must(t, s.UpdateRing(ctx, rotates))
	destroys.Versions[2].State, destroys.Revision = keys.StateDestroyed, 1
	must(t, s.UpdateRing(ctx, destroys))
	both.RotationPeriod, both.NextRotation, both.Revision = 0, time.Time{}, 1
	both.Versions[1].State = keys.StateDisabled
	must(t, s.UpdateRing(ctx, both))
	equal(t, due(29, 10), []string{})
	equal(t, due(49, 10), []string{"destroys"})
	equal(t, due(1000, 10), []string{"destroys", "rotates"})
}

// shelfDueFar guards against a time that wraps around and is due at once.
func shelfDueFar(t *testing.T, open Opener[keys.Shelf]) {
	s := empty(t, open)
	must(t, s.CreateTenant(t.Context(), "t", at(0)))
	r := ring("t", "r", 1)
	r.RotationPeriod, r.NextRotation = 1<<63-1, at(0).Add(1<<63-1)
	create(t, s, r)
	names, err := s.RingsDue(t.Context(), at(1000), 10)
	must(t, err)
	equal(t, len(names), 0)
	got, err := s.Ring(t.Context(), r.Name)
	must(t, err)
	if got.NextRotation.Before(at(0).AddDate(200, 0, 0)) {
		t.Fatalf("next rotation %v, want 292 years from now or the last that can be stored", got.NextRotation)
	}
}

// shelfOneMoment checks that a ring is never read with the versions of another
// revision: the writer keeps everything equal to the revision.
func shelfOneMoment(t *testing.T, open Opener[keys.Shelf]) {
	s := empty(t, open)
	must(t, s.CreateTenant(t.Context(), "t", at(0)))
	r := create(t, s, ring("t", "r", 1))
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		defer stop()
		for n := uint32(2); n <= 150; n++ {
			r.Versions = append(r.Versions, keys.Version{Number: n, State: keys.StateEnabled, KEK: "fake:a"})
			r.RotationPeriod = time.Duration(n)
			for i := range r.Versions {
				r.Versions[i].DestroyAt = at(int(n))
			}
			if err := s.UpdateRing(t.Context(), r); err != nil {
				t.Error(err)
				return
			}
			r.Revision++
		}
	})
	for range 3 {
		wg.Go(func() {
			last := uint64(0)
			for ctx.Err() == nil {
				got, err := s.Ring(t.Context(), keys.Name{Tenant: "t", Keyring: "r"})
				if err == nil {
					err = ofOneMoment(got)
				}
				if err != nil || got.Revision < last {
					t.Errorf("after revision %d: revision %d, %v", last, got.Revision, err)
					return
				}
				last = got.Revision
			}
		})
	}
	wg.Wait()
}

func ofOneMoment(r keys.Ring) error {
	if r.Revision == 1 {
		return nil
	}
	if len(r.Versions) != int(r.Revision) || r.RotationPeriod != time.Duration(r.Revision) {
		return fmt.Errorf("revision %d with %d versions and period %d", r.Revision, len(r.Versions), r.RotationPeriod)
	}
	for i, v := range r.Versions {
		if v.Number != uint32(i+1) || !v.DestroyAt.Equal(at(int(r.Revision))) {
			return fmt.Errorf("revision %d with version %d of %v", r.Revision, v.Number, v.DestroyAt)
		}
	}
	return nil
}
