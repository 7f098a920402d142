package storetest

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/authn"
)

var registerErrors = []error{authn.ErrNotFound, authn.ErrExists, authn.ErrConflict, authn.ErrStore}

// Register tests an implementation of authn.Register.
func Register(t *testing.T, open Opener[authn.Register]) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Opener[authn.Register])
	}{
		{"workloads", registerWorkloads},
		{"workload lists", registerLists},
		{"update", registerUpdate},
		{"compare and swap", registerCompareAndSwap},
		{"revocations", registerRevocations},
		{"durable", registerDurable},
		{"ended contexts", registerEnded},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open) })
	}
}

func workload(id string) authn.Registration {
	return authn.Registration{ID: id, SPIFFEID: "spiffe://example.org/" + id, Created: at(len(id))}
}

// enrol stores the row and gives it as it is stored.
func enrol(t *testing.T, s authn.Register, r authn.Registration) authn.Registration {
	t.Helper()
	must(t, s.CreateWorkload(t.Context(), r))
	r.Revision = 1
	return r
}

func registerWorkloads(t *testing.T, open Opener[authn.Register]) {
	s := empty(t, open)
	ctx := t.Context()
	for i, r := range []authn.Registration{
		workload("plain"),
		{ID: "on", SPIFFEID: "spiffe://example.org/1", Enabled: true, Created: at(1)},
		{ID: "robot", SPIFFEID: "spiffe://example.org/2", Automation: true, Created: at(2)},
		{ID: "all", SPIFFEID: "spiffe://example.org/é", Enabled: true, Automation: true, Created: at(3), Revision: 9},
		{ID: "bare", SPIFFEID: "", Created: time.Time{}},
	} {
		r = enrol(t, s, r)
		got, err := s.Workload(ctx, r.ID)
		must(t, err)
		equal(t, got, r)

		sameID := workload(r.ID)
		sameID.SPIFFEID = fmt.Sprintf("spiffe://example.org/other-%d", i)
		want(t, s.CreateWorkload(ctx, sameID), authn.ErrExists, registerErrors...)
		sameSPIFFE := workload("other")
		sameSPIFFE.SPIFFEID = r.SPIFFEID
		want(t, s.CreateWorkload(ctx, sameSPIFFE), authn.ErrExists, registerErrors...)
		got, err = s.Workload(ctx, r.ID)
		must(t, err)
		equal(t, got, r)
	}
	for _, id := range []string{"other", "", "ALL"} {
		got, err := s.Workload(ctx, id)
		want(t, err, authn.ErrNotFound, registerErrors...)
		equal(t, got, authn.Registration{})
	}
}

func registerLists(t *testing.T, open Opener[authn.Register]) {
	s := empty(t, open)
	rows, err := s.Workloads(t.Context(), "", 0)
	must(t, err)
	equal(t, len(rows), 0)
	ids := []string{"a", "a-b", "a0", "ab", "b", "z"}
	stored := map[string]authn.Registration{}
	for _, i := range []int{3, 0, 5, 1, 4, 2} {
		stored[ids[i]] = enrol(t, s, workload(ids[i]))
	}
	var all []authn.Registration
	for _, id := range ids {
		all = append(all, stored[id])
	}
	rows, err = s.Workloads(t.Context(), "", 0)
	must(t, err)
	equal(t, rows, all) // 0 means all
	rows, err = s.Workloads(t.Context(), "aa", 0)
	must(t, err)
	equal(t, rows, all[3:])
	for limit := 1; limit <= len(all)+1; limit++ {
		equal(t, pages(t, limit, func(last *authn.Registration) ([]authn.Registration, error) {
			if last == nil {
				last = &authn.Registration{}
			}
			return s.Workloads(t.Context(), last.ID, limit)
		}), all)
	}
}

func registerUpdate(t *testing.T, open Opener[authn.Register]) {
	s := empty(t, open)
	ctx := t.Context()
	other := enrol(t, s, workload("other"))
	r := enrol(t, s, workload("r"))
	for _, flags := range [][2]bool{{true, true}, {false, true}, {true, false}, {false, false}, {false, false}} {
		r.Enabled, r.Automation = flags[0], flags[1]
		forged := r
		forged.SPIFFEID, forged.Created = other.SPIFFEID, at(99) // neither changes
		must(t, s.UpdateWorkload(ctx, forged))
		r.Revision++
		got, err := s.Workload(ctx, r.ID)
		must(t, err)
		equal(t, got, r)
	}
	for _, revision := range []uint64{0, r.Revision - 1, r.Revision + 1, math.MaxUint64} {
		stale := r
		stale.Enabled, stale.Revision = true, revision
		want(t, s.UpdateWorkload(ctx, stale), authn.ErrConflict, registerErrors...)
	}
	missing := workload("missing")
	missing.Revision = 1
	want(t, s.UpdateWorkload(ctx, missing), authn.ErrNotFound, registerErrors...)
	for _, expected := range []authn.Registration{r, other} {
		got, err := s.Workload(ctx, expected.ID)
		must(t, err)
		equal(t, got, expected)
	}
}

func registerCompareAndSwap(t *testing.T, open Opener[authn.Register]) {
	s := empty(t, open)
	race(t, authn.ErrExists, func(int) error { return s.CreateWorkload(t.Context(), workload("r")) })
	// The same SPIFFE id under several names is one workload too many.
	race(t, authn.ErrExists, func(i int) error {
		r := workload(fmt.Sprintf("s-%d", i))
		r.SPIFFEID = "spiffe://example.org/shared"
		return s.CreateWorkload(t.Context(), r)
	})
	r, err := s.Workload(t.Context(), "r")
	must(t, err)
	for range 5 {
		winner := race(t, authn.ErrConflict, func(i int) error {
			mine := r
			mine.Enabled = i%2 == 0
			return s.UpdateWorkload(t.Context(), mine)
		})
		r.Enabled = winner%2 == 0
		r.Revision++
		got, err := s.Workload(t.Context(), "r")
		must(t, err)
		equal(t, got, r)
	}
}

func registerRevocations(t *testing.T, open Opener[authn.Register]) {
	s := empty(t, open)
	ctx := t.Context()
	rows, err := s.Revocations(ctx, authn.Fingerprint{}, 0)
	must(t, err)
	equal(t, len(rows), 0)
	all := []authn.Revocation{
		{Fingerprint: authn.Fingerprint{31: 1}, Comment: "", Revoked: at(1)},
		{Fingerprint: authn.Fingerprint{0: 1}, Comment: "lost — é\x00", Revoked: time.Time{}},
		{Fingerprint: authn.Fingerprint{0: 0x7f, 31: 2}, Comment: "b", Revoked: at(3)},
		{Fingerprint: authn.Fingerprint{0: 0x80}, Comment: "c", Revoked: at(4)},
		{Fingerprint: authn.Fingerprint{0: 0xff}, Comment: "d", Revoked: at(5)},
	}
	for _, i := range []int{4, 2, 0, 1, 3} {
		got, err := s.Revoke(ctx, all[i])
		must(t, err)
		equal(t, got, all[i])
		// A second time changes nothing and says what is stored.
		got, err = s.Revoke(ctx, authn.Revocation{Fingerprint: all[i].Fingerprint, Comment: "again", Revoked: at(99)})
		must(t, err)
		equal(t, got, all[i])
	}
	rows, err = s.Revocations(ctx, authn.Fingerprint{}, 0)
	must(t, err)
	equal(t, rows, all)
	for limit := 1; limit <= len(all)+1; limit++ {
		equal(t, pages(t, limit, func(last *authn.Revocation) ([]authn.Revocation, error) {
			if last == nil {
				last = &authn.Revocation{}
			}
			return s.Revocations(ctx, last.Fingerprint, limit)
		}), all)
	}
}

func registerDurable(t *testing.T, open Opener[authn.Register]) {
	s, reopen := use(t, open)
	r := enrol(t, s, workload("r"))
	r.Enabled = true
	must(t, s.UpdateWorkload(t.Context(), r))
	r.Revision++
	revoked, err := s.Revoke(t.Context(), authn.Revocation{Fingerprint: authn.Fingerprint{1}, Comment: "c", Revoked: at(1)})
	must(t, err)
	s = reopen()
	got, err := s.Workload(t.Context(), "r")
	must(t, err)
	equal(t, got, r)
	rows, err := s.Revocations(t.Context(), authn.Fingerprint{}, 0)
	must(t, err)
	equal(t, rows, []authn.Revocation{revoked})
	must(t, s.UpdateWorkload(t.Context(), r))
	want(t, s.UpdateWorkload(t.Context(), r), authn.ErrConflict, registerErrors...)
}

func registerEnded(t *testing.T, open Opener[authn.Register]) {
	s := empty(t, open)
	r := enrol(t, s, workload("r"))
	changed := r
	changed.Enabled = true
	ended(t, []act{
		{"CreateWorkload", func(ctx context.Context) error { return s.CreateWorkload(ctx, workload("new")) }},
		{"Workload", func(ctx context.Context) error { _, err := s.Workload(ctx, "r"); return err }},
		{"UpdateWorkload", func(ctx context.Context) error { return s.UpdateWorkload(ctx, changed) }},
		{"Workloads", func(ctx context.Context) error { _, err := s.Workloads(ctx, "", 0); return err }},
		{"Revoke", func(ctx context.Context) error { _, err := s.Revoke(ctx, authn.Revocation{}); return err }},
		{"Revocations", func(ctx context.Context) error {
			_, err := s.Revocations(ctx, authn.Fingerprint{}, 0)
			return err
		}},
	}, registerErrors...)
	rows, err := s.Workloads(t.Context(), "", 0)
	must(t, err)
	equal(t, rows, []authn.Registration{r})
	revocations, err := s.Revocations(t.Context(), authn.Fingerprint{}, 0)
	must(t, err)
	equal(t, len(revocations), 0)
}
