package sqlite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/gateway/policy"
	"github.com/sallyport/sallyport/keys"
)

// children are the programs that the test binary can be: another process that has
// the store open.
var children = map[string]func(context.Context, *Store) error{
	"hold":  hold,
	"write": writeForever,
	"full":  fullDisk,
	"lease": leaseForever,
}

const childVariable = "SALLYPORT_SQLITE_CHILD"

func TestMain(m *testing.M) {
	name, path, ok := strings.Cut(os.Getenv(childVariable), ":")
	switch {
	case !ok:
		os.Exit(m.Run())
	case name == "create":
		createForever(path)
	case name == "start":
		startForever(path)
	}
	s, err := Open(context.Background(), path)
	if err == nil {
		err = children[name](context.Background(), s)
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// child starts a child on the store and gives what it prints.
func child(t *testing.T, name, path string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+name+":"+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, bufio.NewReader(out)
}

// hold keeps the store open until it is killed.
func hold(context.Context, *Store) error {
	fmt.Println("open")
	select {}
}

func TestLockedByAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	must(t, closed(Create(t.Context(), path)))
	cmd, out := child(t, "hold", path)
	if line, err := out.ReadString('\n'); err != nil || line != "open\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	wantError(t, closed(Open(t.Context(), path)), ErrLocked)
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	must(t, closed(Open(t.Context(), path))) // nothing to clean up after it
}

// createForever makes stores in a directory until it is killed.
func createForever(dir string) {
	for n := 0; ; n++ {
		fmt.Println("begin", n)
		s, err := Create(context.Background(), filepath.Join(dir, fmt.Sprint(n)))
		if err == nil {
			fmt.Println("made", n)
			err = s.Close()
		}
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
}

// startForever opens and closes a store until it is killed.
func startForever(path string) {
	for {
		s, err := Open(context.Background(), path)
		if err == nil {
			fmt.Println("open")
			err = s.Close()
		}
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
}

// writeForever writes until it is killed, and says of each write when it has
// returned. What is written can be recomputed from the round.
func writeForever(ctx context.Context, s *Store) error {
	b, err := s.Bundle(ctx)
	if err != nil {
		return err
	}
	for round := int(b.Revision); ; round++ {
		ack := func(what string) { fmt.Println(what, round) }
		tenant := keys.Tenant(fmt.Sprintf("t-%d", round))
		if err := s.CreateTenant(ctx, tenant, at(round)); err != nil {
			return err
		}
		ack("tenant")
		r := crashRing(tenant, round)
		if err := s.CreateRing(ctx, r); err != nil {
			return err
		}
		ack("ring")
		for r.Revision = 1; r.Revision <= crashUpdates; r.Revision++ {
			advance(&r)
			if err := s.UpdateRing(ctx, r); err != nil {
				return err
			}
			ack("update")
		}
		w := authn.Registration{ID: string(tenant), SPIFFEID: "spiffe://example.org/" + string(tenant), Created: at(round)}
		if err := s.CreateWorkload(ctx, w); err != nil {
			return err
		}
		ack("workload")
		if _, err := s.Revoke(ctx, crashRevocation(round)); err != nil {
			return err
		}
		ack("revocation")
		if _, err := s.ReplaceBundle(ctx, crashBundle(round)); err != nil {
			return err
		}
		ack("bundle")
	}
}

// crashUpdates is how often writeForever updates a ring.
const crashUpdates = 4

// crashRing gives the ring of a round as it is created.
func crashRing(tenant keys.Tenant, round int) keys.Ring {
	r := testRing(tenant, "r", round)
	for n := uint32(2); n <= 20; n++ {
		v := r.Versions[0]
		v.Number, v.State = n, keys.StateEnabled
		r.Versions = append(r.Versions, v)
	}
	return r
}

// advance changes everything of a ring that an update may change, to what follows
// from its revision.
func advance(r *keys.Ring) {
	r.RotationPeriod, r.NextRotation = time.Duration(r.Revision)*time.Hour, at(int(r.Revision))
	for i := range r.Versions {
		r.Versions[i].DestroyAt = at(int(r.Revision))
	}
	v := r.Versions[0]
	v.Number = uint32(len(r.Versions) + 1)
	r.Versions = append(r.Versions, v)
}

func crashRevocation(round int) authn.Revocation {
	return authn.Revocation{Fingerprint: authn.Fingerprint{1, byte(round >> 8), byte(round)}}
}

// crashBundle gives the bundle that a round stores.
func crashBundle(round int) policy.Bundle {
	b := policy.Bundle{Revision: uint64(round), Loaded: at(round)}
	for i := range 10 {
		b.Files = append(b.Files, policy.File{Name: fmt.Sprintf("%d.cedar", i), Content: strings.Repeat(fmt.Sprint(round, "\n"), 500)})
	}
	return b
}

// fullDisk lets the writes of the process fail beyond a size, as on a full disk,
// and then lets them pass again.
func fullDisk(ctx context.Context, s *Store) error {
	signal.Ignore(syscall.SIGXFSZ)
	info, err := os.Stat(strings.TrimSuffix(s.lock.Name(), ".lock") + "-wal")
	if err != nil {
		return err
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	small := old
	small.Cur = uint64(info.Size()) + 1_000_000
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &small); err != nil {
		return err
	}
	if err := s.CreateTenant(ctx, "t", at(0)); err != nil {
		return fmt.Errorf("before the disk is full: %w", err)
	}
	written, leases, err := untilFull(ctx, s)
	if err != nil {
		return err
	}
	// Reads go on, and see what was acknowledged and no more.
	if err := errors.Join(wantRings(ctx, s, written), wantReserved(ctx, s, leases)); err != nil {
		return err
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	for n := range 100 {
		if err := s.CreateRing(ctx, testRing("t", fmt.Sprintf("s-%05d", n), 100_000+n)); err != nil {
			return fmt.Errorf("after there is room again: %w", err)
		}
		if err := s.Reserve(ctx, testLease(100_000+n), 1<<30); err != nil {
			return fmt.Errorf("after there is room again: %w", err)
		}
	}
	if err := errors.Join(wantRings(ctx, s, written+100), wantReserved(ctx, s, leases+100)); err != nil {
		return err
	}
	fmt.Println("written", written)
	return s.Close()
}

// untilFull writes rings, and leases, whose writes share transactions, until nothing
// can be written.
func untilFull(ctx context.Context, s *Store) (written, leases int, err error) {
	failures := 0
	for n := 0; failures < 20; n++ {
		if n > 10_000 {
			return 0, 0, fmt.Errorf("the disk does not become full")
		}
		err := s.CreateRing(ctx, testRing("t", fmt.Sprintf("r-%05d", n), n))
		switch {
		case err == nil && failures == 0:
			written++
		case err == nil:
			return 0, 0, fmt.Errorf("a write on the full disk succeeded")
		default:
			if failures++; failures == 1 {
				fmt.Println("full:", err)
			}
			if err := wantStoreError(err); err != nil {
				return 0, 0, err
			}
		}
		// A lease is written by another way, and may have room where a ring has not.
		if err := s.Reserve(ctx, testLease(n), 1<<30); err == nil {
			leases++
		} else if !errors.Is(err, lease.ErrStore) {
			return 0, 0, err
		}
	}
	if leases == 0 || leases > written+19 {
		return 0, 0, fmt.Errorf("%d leases beside %d rings: the disk was not full for them", leases, written)
	}
	return written, leases, nil
}

func readAll(r io.Reader) string {
	b, _ := io.ReadAll(r)
	return string(b)
}
