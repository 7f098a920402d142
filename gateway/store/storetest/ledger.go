package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/keys"
)

var leaseErrors = []error{lease.ErrNotFound, lease.ErrExists, lease.ErrConflict, lease.ErrQuota, lease.ErrStore}

// Ledger tests an implementation of lease.Ledger.
func Ledger(t *testing.T, open Opener[lease.Ledger]) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Opener[lease.Ledger])
	}{
		{"round trip", ledgerRoundTrip},
		{"far values", ledgerFarValues},
		{"what changes", ledgerWhatChanges},
		{"errors", ledgerErrorsAreExact},
		{"compare and swap", ledgerCompareAndSwap},
		{"quota", ledgerQuota},
		{"quota in a race", ledgerQuotaRace},
		{"moves", ledgerMoves},
		{"order", ledgerOrder},
		{"queries", ledgerQueries},
		{"paging while others write", ledgerPaging},
		{"due", ledgerDue},
		{"durable", ledgerDurable},
		{"ended contexts", ledgerEnded},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open) })
	}
}

// plenty is a quota that does not bind.
const plenty = 1 << 30

// leaseOf gives the n-th lease of a test, as it is reserved.
func leaseOf(tenant keys.Tenant, role, workload string, n int) lease.Lease {
	l := lease.Lease{
		Workload: "spiffe://example.org/" + workload, Registration: workload, Evidence: [32]byte{31: byte(len(workload))},
		Source: "vault", Created: at(n), MaxExpires: at(n + 3600), Lifetime: 15 * time.Minute, State: lease.StateReserved, Revision: 1,
		Anchor: lease.Anchor{Handle: fmt.Sprint("handle-", n)}, Expires: at(n + 900), Due: at(n + 30), Revocable: true,
	}
	l.Name.Role.Tenant, l.Name.Role.Role = tenant, role
	copy(l.Name.ID[:], fmt.Sprintf("%016d", n))
	return l
}

// reserve stores the lease and gives it as it is stored.
func reserve(t *testing.T, s lease.Ledger, l lease.Lease) lease.Lease {
	t.Helper()
	must(t, s.Reserve(t.Context(), l, plenty))
	l.State, l.Revision = lease.StateReserved, 1
	return l
}

// update stores what has changed of the lease and gives it as it is stored.
func update(t *testing.T, s lease.Ledger, l lease.Lease) lease.Lease {
	t.Helper()
	must(t, s.Update(t.Context(), l))
	l.Revision++
	return l
}

// wantLeases checks that the ledger holds these and nothing else, in order.
func wantLeases(t *testing.T, s lease.Ledger, all ...lease.Lease) {
	t.Helper()
	for _, l := range all {
		got, err := s.Lease(t.Context(), l.Name)
		must(t, err)
		equal(t, got, l)
	}
	rows, err := s.Leases(t.Context(), lease.Query{})
	must(t, err)
	equal(t, len(rows), len(all))
	if len(all) > 0 {
		equal(t, rows, all)
	}
	counts := map[lease.State]int{}
	for _, l := range all {
		counts[l.State]++
		held := uint32(0)
		for _, other := range all {
			if other.Workload == l.Workload && other.Name.Role == l.Name.Role && other.State != lease.StateGone {
				held++
			}
		}
		for _, limit := range []uint32{0, 1, plenty} {
			n, err := s.Held(t.Context(), l.Workload, l.Name.Role, limit)
			must(t, err)
			equal(t, n, min(limit, held))
		}
	}
	got, err := s.Count(t.Context())
	must(t, err)
	equal(t, got, counts)
}

// fill sets every field of a struct, however deep, to a value of its own that is not
// its zero: what has no place in the store does not come back.
func fill(t *testing.T, v reflect.Value, seed *int) {
	t.Helper()
	*seed++
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = at(*seed).Add(time.Duration(*seed))
		return
	case *lease.ID:
		x[0], x[15] = byte(*seed), byte(*seed)+1
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), seed)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i), seed)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("é%d\x00'", *seed))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int64:
		v.SetInt(int64(*seed))
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*seed % 256))
	default:
		t.Fatalf("teach fill about %v", v.Type())
	}
}

func filled(t *testing.T, seed int) lease.Lease {
	t.Helper()
	var l lease.Lease
	fill(t, reflect.ValueOf(&l).Elem(), &seed)
	return l
}

func ledgerRoundTrip(t *testing.T, open Opener[lease.Ledger]) {
	s := empty(t, open)
	full := filled(t, 1)
	bare := lease.Lease{Name: lease.Name{ID: lease.ID{1}}}
	usual := leaseOf("t", "r", "w", 5)
	elsewhere := usual
	elsewhere.Name.ID = lease.ID{9}
	for _, when := range []*time.Time{&elsewhere.Created, &elsewhere.MaxExpires, &elsewhere.Expires, &elsewhere.Due} {
		*when = when.In(time.FixedZone("", 3600))
	}
	var all []lease.Lease
	for _, l := range []lease.Lease{bare, full, usual, elsewhere} {
		all = append(all, reserve(t, s, l))
	}
	elsewhere = usual
	elsewhere.Name.ID = lease.ID{9}
	all[3] = elsewhere
	slices.SortFunc(all, inOrder)
	wantLeases(t, s, all...)
}

func ledgerFarValues(t *testing.T, open Opener[lease.Ledger]) {
	s := empty(t, open)
	l := leaseOf("t", "r", "w", 1)
	l.Version, l.Failures, l.Lifetime = math.MaxUint64, math.MaxUint32, math.MaxInt64
	l.Expires, l.Due = time.Unix(0, 0).UTC(), time.Unix(-1, -1).UTC()
	l = reserve(t, s, l)
	early := leaseOf("t", "r", "w", 2)
	early.Created = time.Unix(-1, -1).UTC()
	early = reserve(t, s, early)
	wantLeases(t, s, early, l)
	// What nobody can wait for must not overflow into what is long due.
	l.Due = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	update(t, s, l)
	due, err := s.Due(t.Context(), at(1000), 9)
	must(t, err)
	equal(t, due, []lease.Lease{early})
}

// fixed are the fields of a lease that do not change.
var fixed = []string{"Name", "Workload", "Registration", "Evidence", "Source", "Created", "MaxExpires", "Lifetime"}

func ledgerWhatChanges(t *testing.T, open Opener[lease.Ledger]) {
	s := empty(t, open)
	stored := reserve(t, s, leaseOf("t", "r", "w", 1))
	other := reserve(t, s, leaseOf("t", "r", "w", 2))
	for i := range reflect.TypeFor[lease.Lease]().NumField() {
		name := reflect.TypeFor[lease.Lease]().Field(i).Name
		if name == "Name" || name == "Revision" {
			continue // by these the row is found
		}
		t.Run(name, func(t *testing.T) {
			seed := 2 // a valid state
			changed := stored
			field := reflect.ValueOf(&changed).Elem().Field(i)
			if field.Kind() == reflect.Bool {
				field.SetBool(!field.Bool())
			} else {
				fill(t, field, &seed)
			}
			if reflect.DeepEqual(changed, stored) {
				t.Fatal("nothing has changed")
			}
			must(t, s.Update(t.Context(), changed))
			if slices.Contains(fixed, name) {
				changed = stored
			}
			changed.Revision = stored.Revision + 1
			stored = changed
			wantLeases(t, s, stored, other)
		})
	}
	// All at once, there and back.
	everything := filled(t, 7)
	everything.Name, everything.Revision = stored.Name, stored.Revision
	must(t, s.Update(t.Context(), everything))
	for _, name := range fixed {
		reflect.ValueOf(&everything).Elem().FieldByName(name).Set(reflect.ValueOf(stored).FieldByName(name))
	}
	everything.Revision++
	wantLeases(t, s, everything, other)
	stored.Revision = everything.Revision
	wantLeases(t, s, update(t, s, stored), other)
}

func ledgerErrorsAreExact(t *testing.T, open Opener[lease.Ledger]) {
	s := empty(t, open)
	ctx := t.Context()
	wantLeases(t, s)
	l := reserve(t, s, leaseOf("t", "r", "w", 1))
	for _, name := range []lease.RoleName{l.Name.Role, {Tenant: "t", Role: "other"}, {Tenant: "u", Role: "r"}} {
		again := leaseOf(name.Tenant, name.Role, "other", 1)
		want(t, s.Reserve(ctx, again, plenty), lease.ErrExists, leaseErrors...)
	}
	// The id alone does not name it.
	for _, name := range []lease.Name{
		{},
		{Role: l.Name.Role},
		{ID: l.Name.ID},
		{Role: lease.RoleName{Tenant: "t", Role: "R"}, ID: l.Name.ID},
		{Role: lease.RoleName{Tenant: "u", Role: "r"}, ID: l.Name.ID},
	} {
		foreign := l
		foreign.Name = name
		got, err := s.Lease(ctx, name)
		want(t, err, lease.ErrNotFound, leaseErrors...)
		equal(t, got, lease.Lease{})
		want(t, s.Update(ctx, foreign), lease.ErrNotFound, leaseErrors...)
		want(t, s.Forget(ctx, foreign), lease.ErrNotFound, leaseErrors...)
	}
	for _, revision := range []uint64{0, 2, math.MaxUint64} {
		stale := l
		stale.State, stale.Revision = lease.StateGone, revision
		want(t, s.Update(ctx, stale), lease.ErrConflict, leaseErrors...)
		want(t, s.Forget(ctx, stale), lease.ErrConflict, leaseErrors...)
	}
	wantLeases(t, s, l)
	must(t, s.Forget(ctx, l))
	want(t, s.Forget(ctx, l), lease.ErrNotFound, leaseErrors...)
	want(t, s.Update(ctx, l), lease.ErrNotFound, leaseErrors...)
	wantLeases(t, s)
	// What is forgotten is free.
	wantLeases(t, s, reserve(t, s, leaseOf("u", "r", "w", 1)))
}

func ledgerCompareAndSwap(t *testing.T, open Opener[lease.Ledger]) {
	s := empty(t, open)
	winner := race(t, lease.ErrExists, func(i int) error {
		return s.Reserve(t.Context(), leaseOf("t", "r", fmt.Sprintf("w-%02d", i), 1), plenty)
	})
	l := leaseOf("t", "r", fmt.Sprintf("w-%02d", winner), 1)
	wantLeases(t, s, l)
	for range 5 {
		winner := race(t, lease.ErrConflict, func(i int) error {
			mine := l
			mine.State, mine.Failures = lease.StateRevoking, uint32(i)
			return s.Update(t.Context(), mine)
		})
		l.State, l.Failures = lease.StateRevoking, uint32(winner)
		l.Revision++
		wantLeases(t, s, l)
	}
	// Removing competes with changing: whoever comes later finds no row, or another.
	errs := make([]error, 2)
	var wg sync.WaitGroup
	wg.Go(func() { errs[0] = s.Forget(t.Context(), l) })
	wg.Go(func() { errs[1] = s.Update(t.Context(), l) })
	wg.Wait()
	switch {
	case errs[0] == nil && errors.Is(errs[1], lease.ErrNotFound):
		wantLeases(t, s)
	case errs[1] == nil && errors.Is(errs[0], lease.ErrConflict):
		l.Revision++
		wantLeases(t, s, l)
	default:
		t.Fatalf("forget and update gave %v", errs)
	}
}

func ledgerQuota(t *testing.T, open Opener[lease.Ledger]) {
	s := empty(t, open)
	ctx := t.Context()
	want(t, s.Reserve(ctx, leaseOf("t", "r", "w", 0), 0), lease.ErrQuota, leaseErrors...)
	var held []lease.Lease
	for n := range 3 {
		l := leaseOf("t", "r", "w", n)
		must(t, s.Reserve(ctx, l, 3))
		held = append(held, l)
	}
	full := func() {
		t.Helper()
		want(t, s.Reserve(ctx, leaseOf("t", "r", "w", 3), 3), lease.ErrQuota, leaseErrors...)
		want(t, s.Reserve(ctx, leaseOf("t", "r", "w", 3), 1), lease.ErrQuota, leaseErrors...)
	}
	full()
	// Others have their own.
	for i, l := range []lease.Lease{leaseOf("t", "r", "other", 10), leaseOf("t", "other", "w", 11), leaseOf("u", "r", "w", 12)} {
		must(t, s.Reserve(ctx, l, 1))
		l.Name.ID[0] = byte(i)
		want(t, s.Reserve(ctx, l, 1), lease.ErrQuota, leaseErrors...)
	}
	// Whatever is not gone is held.
	for _, state := range []lease.State{lease.StateActive, lease.StateRevoking, lease.StateStuck} {
		held[0].State = state
		held[0] = update(t, s, held[0])
		full()
	}
	held[0].State = lease.StateGone
	held[0] = update(t, s, held[0])
	must(t, s.Reserve(ctx, leaseOf("t", "r", "w", 3), 3))
	want(t, s.Reserve(ctx, leaseOf("t", "r", "w", 4), 3), lease.ErrQuota, leaseErrors...)
	must(t, s.Forget(ctx, held[1]))
	must(t, s.Reserve(ctx, leaseOf("t", "r", "w", 4), 3))
	want(t, s.Reserve(ctx, leaseOf("t", "r", "w", 5), 3), lease.ErrQuota, leaseErrors...)
	// A larger quota later, as when the role is changed.
	must(t, s.Reserve(ctx, leaseOf("t", "r", "w", 5), 4))
}

// However many ask at once, exactly the quota is given, to each workload.
func ledgerQuotaRace(t *testing.T, open Opener[lease.Ledger]) {
	s := empty(t, open)
	const quota = 5
	var mu sync.Mutex
	won := map[string]int{}
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 2 * racers {
		wg.Go(func() {
			l := leaseOf("t", "r", fmt.Sprint("w", i%2), i)
			<-start
			err := s.Reserve(t.Context(), l, quota)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won[l.Workload]++
			} else if !errors.Is(err, lease.ErrQuota) {
				t.Errorf("a loser got %v", err)
			}
		})
	}
	close(start)
	wg.Wait()
	for workload, n := range won {
		rows, err := s.Leases(t.Context(), lease.Query{Workload: workload})
		must(t, err)
		if n != quota || len(rows) != quota {
			t.Errorf("%d won and %d are stored of a quota of %d", n, len(rows), quota)
		}
	}
	equal(t, len(won), 2)
}

// The ledger does not judge moves, and its counts follow each.
func ledgerMoves(t *testing.T, open Opener[lease.Ledger]) {
	s := empty(t, open)
	l := reserve(t, s, leaseOf("t", "r", "w", 1))
	other := reserve(t, s, leaseOf("t", "r", "w", 2))
	for from := lease.StateReserved; from.Valid(); from++ {
		for to := lease.StateReserved; to.Valid(); to++ {
			l.State = from
			l = update(t, s, l)
			l.State = to
			l = update(t, s, l)
			wantLeases(t, s, l, other)
		}
		l.State = from
		l = update(t, s, l)
		must(t, s.Forget(t.Context(), l))
		wantLeases(t, s, other)
		l = reserve(t, s, l)
	}
}

func ledgerDurable(t *testing.T, open Opener[lease.Ledger]) {
	s, reopen := use(t, open)
	changed := filled(t, 3)
	changed = reserve(t, s, changed)
	changed.State, changed.Anchor.Ref = lease.StateActive, "ref"
	changed = update(t, s, changed)
	forgotten := reserve(t, s, leaseOf("t", "r", "w", 900))
	must(t, s.Forget(t.Context(), forgotten))
	fresh := reserve(t, s, leaseOf("t", "r", "w", 901))
	for range 2 {
		s = reopen()
		wantLeases(t, s, changed, fresh)
	}
	want(t, s.Reserve(t.Context(), fresh, plenty), lease.ErrExists, leaseErrors...)
	want(t, s.Reserve(t.Context(), leaseOf("t", "r", "w", 902), 1), lease.ErrQuota, leaseErrors...)
	stale := changed
	changed = update(t, s, changed)
	want(t, s.Update(t.Context(), stale), lease.ErrConflict, leaseErrors...)
	wantLeases(t, s, changed, fresh)
}

func ledgerEnded(t *testing.T, open Opener[lease.Ledger]) {
	s := empty(t, open)
	l := reserve(t, s, leaseOf("t", "r", "w", 1))
	changed := l
	changed.State = lease.StateGone
	ended(t, []act{
		{"Reserve", func(ctx context.Context) error { return s.Reserve(ctx, leaseOf("t", "r", "w", 2), plenty) }},
		{"Lease", func(ctx context.Context) error { _, err := s.Lease(ctx, l.Name); return err }},
		{"Update", func(ctx context.Context) error { return s.Update(ctx, changed) }},
		{"Forget", func(ctx context.Context) error { return s.Forget(ctx, l) }},
		{"Leases", func(ctx context.Context) error { _, err := s.Leases(ctx, lease.Query{}); return err }},
		{"Due", func(ctx context.Context) error { _, err := s.Due(ctx, at(1000), 9); return err }},
		{"Held", func(ctx context.Context) error { _, err := s.Held(ctx, l.Workload, l.Name.Role, 9); return err }},
		{"Count", func(ctx context.Context) error { _, err := s.Count(ctx); return err }},
	}, leaseErrors...)
	wantLeases(t, s, l)
}
