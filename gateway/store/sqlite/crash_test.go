package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/gateway/policy"
	"github.com/sallyport/sallyport/keys"
)

// A killed process must have kept every write that it acknowledged, and may have
// kept the one that it was about to acknowledge, wholly. (That a write is also on
// disk, beyond a power failure, is what the pragmas say; TestPragmasOfEveryConnection.)
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	must(t, closed(Create(t.Context(), path)))
	deadline := time.Now().Add(8 * time.Second)
	if testing.Short() {
		deadline = time.Now().Add(time.Second)
	}
	kills, writes := 0, 0
	acked := map[string]int{} // for each kind of write, how many in all
	for ; time.Now().Before(deadline); kills++ {
		cmd, out := child(t, "write", path)
		first, err := out.ReadString('\n') // it is writing now
		must(t, err)
		kill := time.AfterFunc(time.Duration(rand.Int64N(int64(300*time.Millisecond))), func() { _ = cmd.Process.Kill() })
		lines := first + readAll(out)
		kill.Stop()
		_ = cmd.Wait()
		for _, line := range strings.Split(strings.TrimSuffix(lines, "\n"), "\n") {
			var what string
			var round int
			if _, err := fmt.Sscanf(line, "%s %d", &what, &round); err != nil {
				t.Fatalf("the child says %q", line)
			}
			acked[what]++
			writes++
		}
		// The next round must find the names free: the last one may be half done.
		acked = checkAfterKill(t, path, acked)
	}
	t.Logf("%d kills, %d acknowledged writes", kills, writes)
}

// A store whose making was interrupted is whole or not there, and can be made.
func TestKillCreate(t *testing.T) {
	missing := 0
	const tries = 15
	for range tries {
		dir := t.TempDir()
		cmd, out := child(t, "create", dir)
		said, err := out.ReadString('\n')
		must(t, err)
		kill := time.AfterFunc(time.Duration(rand.Int64N(int64(60*time.Millisecond))), func() { _ = cmd.Process.Kill() })
		said += readAll(out)
		kill.Stop()
		_ = cmd.Wait()
		last := strings.Count(said, "begin") - 1
		for n := range last + 1 {
			path := filepath.Join(dir, fmt.Sprint(n))
			s, err := Open(t.Context(), path)
			if errors.Is(err, fs.ErrNotExist) && n == last && !strings.Contains(said, fmt.Sprintf("made %d\n", n)) {
				missing++
				s, err = Create(t.Context(), path)
			}
			must(t, err)
			wantIntegrity(t, s)
			must(t, s.CreateTenant(t.Context(), "t", at(0)))
			must(t, s.Close())
		}
	}
	t.Logf("%d of %d were interrupted before the store had its name", missing, tries)
}

// checkAfterKill compares the store with what was acknowledged, completes the round
// that was interrupted, and gives what is acknowledged then.
func checkAfterKill(t *testing.T, path string, acked map[string]int) map[string]int {
	t.Helper()
	s, err := Open(t.Context(), path)
	must(t, err)
	defer func() { must(t, s.Close()) }()
	wantIntegrity(t, s)
	found := countWrites(t, s)
	total := 0
	for what, n := range found {
		if n < acked[what] {
			t.Fatalf("%d of %s acknowledged, %d found", acked[what], what, n)
		}
		total += n - acked[what]
	}
	if total > 1 {
		t.Fatalf("found %v, acknowledged %v: more than the write that was under way", found, acked)
	}
	rounds := found["tenant"]
	if rounds > 0 {
		finish(t, s, rounds-1)
	}
	return map[string]int{
		"tenant": rounds, "ring": rounds, "update": rounds * crashUpdates,
		"workload": rounds, "revocation": rounds, "bundle": rounds,
	}
}

func wantIntegrity(t *testing.T, s *Store) {
	t.Helper()
	var integrity string
	must(t, s.write.QueryRow("PRAGMA integrity_check").Scan(&integrity))
	if integrity != "ok" {
		t.Fatal(integrity)
	}
	if !s.Restored().IsZero() {
		t.Fatal("a kill looks like a restored backup")
	}
}

// countWrites checks that everything in the store is as some write left it, and
// counts the writes by kind.
func countWrites(t *testing.T, s *Store) map[string]int {
	t.Helper()
	ctx := t.Context()
	found := map[string]int{}
	tenants, err := s.Tenants(ctx, "", 1<<30)
	must(t, err)
	found["tenant"] = len(tenants)
	for round := range tenants {
		tenant := keys.Tenant(fmt.Sprintf("t-%d", round))
		got, err := s.Ring(ctx, keys.Name{Tenant: tenant, Keyring: "r"})
		if errors.Is(err, keys.ErrNotFound) && round == len(tenants)-1 {
			continue
		}
		must(t, err)
		r := crashRing(tenant, round)
		for r.Revision = 1; r.Revision < got.Revision; r.Revision++ {
			advance(&r)
			found["update"]++
		}
		if !reflect.DeepEqual(got, r) {
			t.Fatalf("half a ring:\n%+v\nwant\n%+v", got, r)
		}
		found["ring"]++
	}
	workloads, err := s.Workloads(ctx, "", 0)
	must(t, err)
	found["workload"] = len(workloads)
	revocations, err := s.Revocations(ctx, authn.Fingerprint{}, 0)
	must(t, err)
	found["revocation"] = len(revocations)
	b, err := s.Bundle(ctx)
	must(t, err)
	found["bundle"] = int(b.Revision)
	if b.Revision > 0 {
		whole := crashBundle(int(b.Revision) - 1)
		whole.Revision++
		if !reflect.DeepEqual(b, whole) {
			t.Fatalf("half a bundle of revision %d", b.Revision)
		}
	}
	return found
}

// finish makes the writes of a round that are missing.
func finish(t *testing.T, s *Store, round int) {
	t.Helper()
	ctx := t.Context()
	tenant := keys.Tenant(fmt.Sprintf("t-%d", round))
	r, err := s.Ring(ctx, keys.Name{Tenant: tenant, Keyring: "r"})
	if errors.Is(err, keys.ErrNotFound) {
		r = crashRing(tenant, round)
		err = s.CreateRing(ctx, r)
		r.Revision = 1
	}
	must(t, err)
	for ; r.Revision <= crashUpdates; r.Revision++ {
		advance(&r)
		must(t, s.UpdateRing(ctx, r))
	}
	err = s.CreateWorkload(ctx, authn.Registration{ID: string(tenant), SPIFFEID: "spiffe://example.org/" + string(tenant), Created: at(round)})
	if !errors.Is(err, authn.ErrExists) {
		must(t, err)
	}
	_, err = s.Revoke(ctx, crashRevocation(round))
	must(t, err)
	if _, err := s.ReplaceBundle(ctx, crashBundle(round)); !errors.Is(err, policy.ErrConflict) {
		must(t, err)
	}
}

// A disk that is full is an error of the store, and no more than that: nothing
// acknowledged is lost, and when there is room again, writes go on.
func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	must(t, closed(Create(t.Context(), path)))
	cmd, out := child(t, "full", path)
	said := readAll(out)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	t.Log(said)
	_, count, _ := strings.Cut(said, "written ")
	var written int
	_, err := fmt.Sscan(count, &written)
	must(t, err)
	s, err := Open(t.Context(), path)
	must(t, err)
	defer s.Close()
	must(t, wantRings(t.Context(), s, written+100))
}

func wantRings(ctx context.Context, s *Store, n int) error {
	rings, err := s.Rings(ctx, keys.RingQuery{Tenant: "t", Limit: 1 << 30})
	if err == nil && len(rings) != n {
		err = fmt.Errorf("%d rings, want %d", len(rings), n)
	}
	return err
}

// wantReserved checks that there are n leases, by their rows and by their count.
func wantReserved(ctx context.Context, s *Store, n int) error {
	rows, err := s.Leases(ctx, lease.Query{})
	if err != nil {
		return err
	}
	counts, err := s.Count(ctx)
	if err == nil && (len(rows) != n || counts[lease.StateReserved] != n) {
		err = fmt.Errorf("%d leases, counted %v, want %d", len(rows), counts, n)
	}
	return err
}

func wantStoreError(err error) error {
	for _, other := range []error{keys.ErrNotFound, keys.ErrExists, keys.ErrConflict} {
		if errors.Is(err, other) {
			return err
		}
	}
	if !errors.Is(err, keys.ErrStore) {
		return fmt.Errorf("not an error of the store: %w", err)
	}
	return nil
}
