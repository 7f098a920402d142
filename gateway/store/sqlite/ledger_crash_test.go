package sqlite

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/lease"
)

// crashCallers is how many callers write leases at once while the process is killed.
const crashCallers = 8

// crashRole is the role that a start makes first.
func crashRole(n int) lease.Role {
	return lease.Role{
		Name: lease.RoleName{Tenant: "acme", Role: fmt.Sprintf("r-%06d", n)}, Source: "vault", Created: at(n),
		MaxLifetime: time.Hour, DefaultLifetime: time.Minute, Quota: uint32(n + 1),
	}
}

// crashLease is the n-th lease as it is at a revision.
func crashLease(n int, revision uint64) lease.Lease {
	l := testLease(n)
	l.State, l.Revision = lease.StateReserved, revision
	if revision > 1 {
		l.State, l.Due, l.Version = lease.StateActive, at(n), uint64(n)
		l.Anchor.Ref = strings.Repeat(fmt.Sprint(n, "/"), 20)
	}
	return l
}

// leaseForever writes leases until it is killed, from several callers at once, and
// says of each write when it has returned: "reserve", "update" and "forget".
func leaseForever(ctx context.Context, s *Store) error {
	roles, err := s.RolesOf(ctx, "vault")
	if err != nil {
		return err
	}
	if err := s.CreateRole(ctx, crashRole(len(roles))); err != nil {
		return err
	}
	fmt.Println("role", len(roles))
	first := len(roles) * 1_000_000 // so that no start uses the numbers of another
	errs := make(chan error)
	for caller := range crashCallers {
		go func() {
			for n := first + caller; ; n += crashCallers {
				if err := leaseOnce(ctx, s, n); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

func leaseOnce(ctx context.Context, s *Store, n int) error {
	if err := s.Reserve(ctx, crashLease(n, 1), 1<<30); err != nil {
		return err
	}
	fmt.Println("reserve", n)
	active := crashLease(n, 2)
	active.Revision = 1
	if err := s.Update(ctx, active); err != nil {
		return err
	}
	fmt.Println("update", n)
	if n%3 != 0 {
		return nil
	}
	if err := s.Forget(ctx, crashLease(n, 2)); err != nil {
		return err
	}
	fmt.Println("forget", n)
	return nil
}

// number is the n of the lease that testLease made.
func number(l lease.Lease) int { return int(l.Created.Sub(at(0))) }

// acknowledged is the last write of each lease that returned.
type acknowledged map[int]string

// A killed process has kept every lease that it acknowledged, and of those that were
// under way each is there wholly or not at all. The counts are those of the rows.
func TestKillLeases(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := Create(t.Context(), path)
	must(t, err)
	must(t, s.CreateTenant(t.Context(), "acme", at(0)))
	must(t, s.Close())
	deadline := time.Now().Add(6 * time.Second)
	if testing.Short() {
		deadline = time.Now().Add(time.Second)
	}
	acked, roles, kills := acknowledged{}, 0, 0
	for ; time.Now().Before(deadline); kills++ {
		cmd, out := child(t, "lease", path)
		said, err := out.ReadString('\n')
		must(t, err)
		kill := time.AfterFunc(time.Duration(rand.Int64N(int64(300*time.Millisecond))), func() { _ = cmd.Process.Kill() })
		said += readAll(out)
		kill.Stop()
		_ = cmd.Wait()
		for line := range strings.Lines(said) {
			var what string
			var n int
			if _, err := fmt.Sscanf(line, "%s %d\n", &what, &n); err != nil || !strings.HasSuffix(line, "\n") {
				t.Fatalf("the child says %q", line)
			}
			if what == "role" {
				roles++
			} else {
				acked[n] = what
			}
		}
		checkLeasesAfterKill(t, path, acked, roles)
	}
	t.Logf("%d kills, %d leases", kills, len(acked))
}

func checkLeasesAfterKill(t *testing.T, path string, acked acknowledged, roles int) {
	t.Helper()
	s, err := Open(t.Context(), path)
	must(t, err)
	defer func() { must(t, s.Close()) }()
	wantIntegrity(t, s)
	rows, err := s.Leases(t.Context(), lease.Query{})
	must(t, err)
	found, counts := map[int]uint64{}, map[lease.State]int{}
	for _, l := range rows {
		n := number(l)
		if l != crashLease(n, l.Revision) {
			t.Fatalf("half a lease:\n%+v\nwant\n%+v", l, crashLease(n, l.Revision))
		}
		found[n] = l.Revision
		counts[l.State]++
	}
	for n, what := range acked {
		revision := found[n]
		// What follows what was acknowledged may have happened too.
		ok := map[string]bool{
			"reserve": revision > 0 || n%3 == 0, "update": revision == 2 || revision == 0 && n%3 == 0, "forget": revision == 0,
		}
		if !ok[what] {
			t.Fatalf("lease %d: %s was acknowledged, and the revision is %d", n, what, revision)
		}
	}
	unasked := 0
	for n := range found {
		if _, ok := acked[n]; !ok {
			unasked++
			acked[n] = "reserve"
		}
	}
	if unasked > crashCallers {
		t.Fatalf("%d leases were not acknowledged, by %d callers", unasked, crashCallers)
	}
	stored, err := s.RolesOf(t.Context(), "vault")
	must(t, err)
	if len(stored) < roles || len(stored) > roles+1 {
		t.Fatalf("%d roles acknowledged, %d found", roles, len(stored))
	}
	got, err := s.Count(t.Context())
	must(t, err)
	if fmt.Sprint(got) != fmt.Sprint(counts) {
		t.Fatalf("counted %v, there are %v", got, counts)
	}
}
