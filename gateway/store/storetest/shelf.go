package storetest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/crypto/envelope"
	"github.com/sallyport/sallyport/keys"
)

var shelfErrors = []error{keys.ErrNotFound, keys.ErrExists, keys.ErrConflict, keys.ErrStore}

// Shelf tests an implementation of keys.Shelf.
func Shelf(t *testing.T, open Opener[keys.Shelf]) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Opener[keys.Shelf])
	}{
		{"tenants", shelfTenants},
		{"round trip", shelfRoundTrip},
		{"errors", shelfErrorsAreExact},
		{"update", shelfUpdate},
		{"compare and swap", shelfCompareAndSwap},
		{"lists", shelfLists},
		{"paging while others write", shelfPaging},
		{"due", shelfDue},
		{"due far away", shelfDueFar},
		{"many versions", shelfManyVersions},
		{"one moment", shelfOneMoment},
		{"durable", shelfDurable},
		{"ended contexts", shelfEnded},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open) })
	}
}

// ring gives a ring of one primary version, the n-th of a test.
func ring(tenant keys.Tenant, id string, n int) keys.Ring {
	r := keys.Ring{
		Name: keys.Name{Tenant: tenant, Keyring: id}, Purpose: keys.PurposeAEAD, Created: at(n),
		Versions: []keys.Version{{Number: 1, State: keys.StatePrimary, Created: at(n), KEK: "fake:a", Wrapped: []byte{1, 0, byte(n)}}},
	}
	copy(r.ID[:], fmt.Sprintf("%-4s%012d", tenant, n))
	return r
}

// create stores the ring and gives it as it is stored.
func create(t *testing.T, s keys.Shelf, r keys.Ring) keys.Ring {
	t.Helper()
	must(t, s.CreateRing(t.Context(), r))
	r.Revision = 1
	return r
}

func shelfTenants(t *testing.T, open Opener[keys.Shelf]) {
	s := empty(t, open)
	rows, err := s.Tenants(t.Context(), "", 10)
	must(t, err)
	equal(t, len(rows), 0)

	// The zero time, another zone, and the order of bytes: "-" is before digits,
	// digits are before letters.
	elsewhere := time.FixedZone("", 3600)
	all := []keys.TenantRow{{Tenant: "a-b", Created: at(0)}, {Tenant: "a0", Created: time.Time{}}, {Tenant: "ab", Created: at(2)}, {Tenant: "b", Created: at(3)}}
	for _, row := range []int{2, 0, 3, 1} {
		created := all[row].Created
		if !created.IsZero() {
			created = created.In(elsewhere)
		}
		must(t, s.CreateTenant(t.Context(), all[row].Tenant, created))
	}
	want(t, s.CreateTenant(t.Context(), "ab", at(9)), keys.ErrExists, shelfErrors...)
	for limit := 1; limit <= 5; limit++ {
		equal(t, pages(t, limit, func(last *keys.TenantRow) ([]keys.TenantRow, error) {
			if last == nil {
				last = &keys.TenantRow{}
			}
			return s.Tenants(t.Context(), last.Tenant, limit)
		}), all)
	}
	rows, err = s.Tenants(t.Context(), "a5", 10) // a name that is not there
	must(t, err)
	equal(t, rows, all[2:])
}

func shelfRoundTrip(t *testing.T, open Opener[keys.Shelf]) {
	s := empty(t, open)
	must(t, s.CreateTenant(t.Context(), "t", at(0)))
	full := ring("t", "full", 1)
	full.RotationPeriod, full.NextRotation, full.Revision = 90*24*time.Hour+1, at(100), 77
	full.Versions = nil
	for state := keys.StatePending; state <= keys.StateDestroyed; state++ {
		full.Versions = append(full.Versions, keys.Version{
			Number: uint32(state), State: state, Created: at(int(state)), KEK: "awskms:arn:aws:kms:é/\x00" + state.String(),
			Wrapped: []byte{0, 255, byte(state)}, DestroyAt: at(200 + int(state)), Compromised: at(300 + int(state)),
		})
	}
	bare := keys.Ring{Name: keys.Name{Tenant: "t", Keyring: "bare"}, Versions: []keys.Version{{Number: 1}}}
	none := keys.Ring{Name: keys.Name{Tenant: "t", Keyring: "no-version"}, ID: envelope.KeyringID{1}}
	high := ring("t", "high", 2)
	high.Purpose, high.RotationPeriod = math.MaxUint8, math.MaxInt64
	for i := range high.ID {
		high.ID[i] = 255
	}
	high.Versions[0] = keys.Version{Number: math.MaxUint32, State: math.MaxUint8, Created: time.Unix(0, 0).UTC(), Wrapped: slices.Repeat([]byte{7}, 1<<16)}
	early := ring("t", "early", 3)
	early.Created = time.Unix(-1, -1).UTC()

	for _, r := range []keys.Ring{full, bare, none, high, early} {
		t.Run(r.Name.Keyring, func(t *testing.T) {
			stored := create(t, s, r)
			got, err := s.Ring(t.Context(), r.Name)
			must(t, err)
			equal(t, got, stored)
			list, err := s.Rings(t.Context(), keys.RingQuery{Tenant: "t", Prefix: r.Name.Keyring, Limit: 1})
			must(t, err)
			equal(t, list, []keys.Ring{stored})
		})
	}
	t.Run("empty is nil", func(t *testing.T) {
		r := ring("t", "empty", 4)
		r.Versions[0].Wrapped = []byte{}
		create(t, s, r)
		got, err := s.Ring(t.Context(), r.Name)
		must(t, err)
		equal(t, got.Versions[0].Wrapped, nil)
	})
	t.Run("zone", func(t *testing.T) {
		r := ring("t", "zone", 5)
		r.Created = r.Created.In(time.FixedZone("", -3600))
		create(t, s, r)
		got, err := s.Ring(t.Context(), r.Name)
		must(t, err)
		equal(t, got.Created, at(5))
	})
}

func shelfErrorsAreExact(t *testing.T, open Opener[keys.Shelf]) {
	s := empty(t, open)
	ctx := t.Context()
	must(t, s.CreateTenant(ctx, "t", at(0)))
	must(t, s.CreateTenant(ctx, "u", at(0)))
	r := create(t, s, ring("t", "r", 1))

	want(t, s.CreateRing(ctx, ring("nobody", "r", 2)), keys.ErrNotFound, shelfErrors...)
	again := ring("t", "r", 3)
	again.Versions[0].KEK = "fake:other"
	want(t, s.CreateRing(ctx, again), keys.ErrExists, shelfErrors...)
	// The id is what envelopes carry: two rings must not share it, in any tenant.
	twin := ring("u", "twin", 4)
	twin.ID = r.ID
	want(t, s.CreateRing(ctx, twin), keys.ErrExists, shelfErrors...)

	for _, n := range []keys.Name{{Tenant: "t", Keyring: "x"}, {Tenant: "u", Keyring: "r"}, {Tenant: "nobody", Keyring: "r"}, {Tenant: "u", Keyring: "twin"}, {}} {
		got, err := s.Ring(ctx, n)
		want(t, err, keys.ErrNotFound, shelfErrors...)
		equal(t, got, keys.Ring{})
		want(t, s.UpdateRing(ctx, keys.Ring{Name: n, Revision: 1}), keys.ErrNotFound, shelfErrors...)
	}
	for _, revision := range []uint64{0, 2, math.MaxUint64} {
		stale := r
		stale.Revision = revision
		stale.RotationPeriod = time.Hour
		stale.Versions = append(slices.Clone(r.Versions), keys.Version{Number: 2})
		want(t, s.UpdateRing(ctx, stale), keys.ErrConflict, shelfErrors...)
	}
	got, err := s.Ring(ctx, r.Name)
	must(t, err)
	equal(t, got, r) // nothing of what failed has stayed
	rings, err := s.Rings(ctx, keys.RingQuery{Tenant: "nobody", Limit: 10})
	must(t, err)
	equal(t, len(rings), 0)
}

func shelfUpdate(t *testing.T, open Opener[keys.Shelf]) {
	s := empty(t, open)
	ctx := t.Context()
	must(t, s.CreateTenant(ctx, "t", at(0)))
	other := create(t, s, ring("t", "other", 0))
	r := ring("t", "r", 1)
	r.RotationPeriod, r.NextRotation = time.Hour, at(1)
	r.Versions[0].Compromised = at(2)
	r = create(t, s, r)

	r.RotationPeriod, r.NextRotation = 0, time.Time{}
	r.Versions[0] = keys.Version{Number: 1, State: keys.StateDestroyed, Created: at(1), KEK: "fake:b", DestroyAt: at(3)}
	r.Versions = append(r.Versions, keys.Version{Number: 2, State: keys.StatePrimary, Created: at(4), KEK: "fake:c", Wrapped: []byte{2}})
	must(t, s.UpdateRing(ctx, r))
	r.Revision++
	got, err := s.Ring(ctx, r.Name)
	must(t, err)
	equal(t, got, r)

	// What a ring is for does not change, whatever the caller hands in.
	forged := r
	forged.ID, forged.Purpose, forged.Created = envelope.KeyringID{9}, keys.PurposeMAC, at(9)
	must(t, s.UpdateRing(ctx, forged))
	r.Revision++
	got, err = s.Ring(ctx, r.Name)
	must(t, err)
	equal(t, got, r)

	got, err = s.Ring(ctx, other.Name)
	must(t, err)
	equal(t, got, other)
}

func shelfCompareAndSwap(t *testing.T, open Opener[keys.Shelf]) {
	s := empty(t, open)
	ctx := t.Context()
	race(t, keys.ErrExists, func(int) error { return s.CreateTenant(ctx, "t", at(0)) })
	id := race(t, keys.ErrExists, func(i int) error { return s.CreateRing(ctx, ring("t", "r", i)) })
	r, err := s.Ring(ctx, keys.Name{Tenant: "t", Keyring: "r"})
	must(t, err)
	stored := ring("t", "r", id)
	stored.Revision = 1
	equal(t, r, stored)
	for range 5 {
		winner := race(t, keys.ErrConflict, func(i int) error {
			mine := r
			mine.RotationPeriod = time.Duration(i + 1)
			mine.Versions = append(slices.Clone(r.Versions), keys.Version{Number: uint32(len(r.Versions) + 1), KEK: fmt.Sprint(i)})
			return s.UpdateRing(ctx, mine)
		})
		got, err := s.Ring(ctx, r.Name)
		must(t, err)
		equal(t, got.Revision, r.Revision+1)
		equal(t, got.RotationPeriod, time.Duration(winner+1))
		equal(t, got.Versions[len(got.Versions)-1].KEK, fmt.Sprint(winner))
		r = got
	}
}

func shelfManyVersions(t *testing.T, open Opener[keys.Shelf]) {
	s := empty(t, open)
	must(t, s.CreateTenant(t.Context(), "t", at(0)))
	r := ring("t", "r", 1)
	for n := 2; n < keys.MaxVersions; n++ {
		r.Versions = append(r.Versions, keys.Version{
			Number: uint32(n), State: keys.StateEnabled, Created: at(n), KEK: "fake:a", Wrapped: []byte(fmt.Sprint(n)),
		})
	}
	neighbour := create(t, s, ring("t", "s", 2))
	r = create(t, s, r)
	r.Versions = append(r.Versions, keys.Version{Number: keys.MaxVersions, State: keys.StatePending, KEK: "fake:a"})
	must(t, s.UpdateRing(t.Context(), r))
	r.Revision++
	got, err := s.Ring(t.Context(), r.Name)
	must(t, err)
	equal(t, got, r)
	// A limit counts rings, not versions.
	list, err := s.Rings(t.Context(), keys.RingQuery{Tenant: "t", Limit: 2})
	must(t, err)
	equal(t, list, []keys.Ring{r, neighbour})
}

func shelfDurable(t *testing.T, open Opener[keys.Shelf]) {
	s, reopen := use(t, open)
	ctx := t.Context()
	must(t, s.CreateTenant(ctx, "t", at(7)))
	r := create(t, s, ring("t", "r", 1))
	r.NextRotation = at(8)
	for range 3 {
		must(t, s.UpdateRing(ctx, r))
		r.Revision++
		s = reopen()
		tenants, err := s.Tenants(ctx, "", 10)
		must(t, err)
		equal(t, tenants, []keys.TenantRow{{Tenant: "t", Created: at(7)}})
		got, err := s.Ring(ctx, r.Name)
		must(t, err)
		equal(t, got, r)
		names, err := s.RingsDue(ctx, at(8), 10)
		must(t, err)
		equal(t, names, []keys.Name{r.Name})
		stale := r
		stale.Revision--
		want(t, s.UpdateRing(ctx, stale), keys.ErrConflict, shelfErrors...)
		r.Versions = append(r.Versions, keys.Version{Number: uint32(len(r.Versions) + 1), State: keys.StatePending, KEK: "fake:a"})
	}
}

func shelfEnded(t *testing.T, open Opener[keys.Shelf]) {
	s := empty(t, open)
	must(t, s.CreateTenant(t.Context(), "t", at(0)))
	r := create(t, s, ring("t", "r", 1))
	changed := r
	changed.RotationPeriod = time.Hour
	ended(t, []act{
		{"CreateTenant", func(ctx context.Context) error { return s.CreateTenant(ctx, "u", at(0)) }},
		{"Tenants", func(ctx context.Context) error { _, err := s.Tenants(ctx, "", 1); return err }},
		{"CreateRing", func(ctx context.Context) error { return s.CreateRing(ctx, ring("t", "new", 2)) }},
		{"Ring", func(ctx context.Context) error { _, err := s.Ring(ctx, r.Name); return err }},
		{"Rings", func(ctx context.Context) error {
			_, err := s.Rings(ctx, keys.RingQuery{Tenant: "t", Limit: 1})
			return err
		}},
		{"UpdateRing", func(ctx context.Context) error { return s.UpdateRing(ctx, changed) }},
		{"RingsDue", func(ctx context.Context) error { _, err := s.RingsDue(ctx, at(0), 1); return err }},
	}, shelfErrors...)
	tenants, err := s.Tenants(t.Context(), "", 10)
	must(t, err)
	equal(t, len(tenants), 1)
	rings, err := s.Rings(t.Context(), keys.RingQuery{Tenant: "t", Limit: 10})
	must(t, err)
	equal(t, rings, []keys.Ring{r})
}
