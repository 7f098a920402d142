//go:build linux

package journal_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/audittest"
	"github.com/sallyport/sallyport/gateway/audit/journal"
)

func newJournal(t *testing.T, dir string, cfg journal.Config) (*journal.Journal, audit.PublicKey) {
	t.Helper()
	key, err := audit.GenerateKey("audit.example/gateway-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := journal.Create(dir, key.Public()); err != nil {
		t.Fatal(err)
	}
	cfg.Dir, cfg.Key = dir, key
	j, err := journal.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close(context.Background()) })
	return j, key.Public()
}

func TestConformance(t *testing.T) {
	audittest.Run(t, func(t *testing.T) (audit.Log, audit.PublicKey) {
		return newJournal(t, filepath.Join(t.TempDir(), "audit"), journal.Config{})
	})
}

func TestRecordTooLarge(t *testing.T) {
	j, _ := newJournal(t, t.TempDir(), journal.Config{})
	r := audittest.Record(1)
	r.Change = []string{string(make([]byte, journal.MaxRecordSize))}
	if _, err := j.Append(t.Context(), r); !errors.Is(err, journal.ErrRecordTooLarge) || !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("append: %v", err)
	}
	r.Change[0] = r.Change[0][:journal.MaxRecordSize-1000]
	if _, err := j.Append(t.Context(), r); err != nil {
		t.Errorf("a little smaller: %v", err)
	}
}

// fillDisk appends until the disk is full, makes room, and checks that the journal
// goes on by itself and has all that it acknowledged.
func fillDisk(t *testing.T, dir string, makeRoom func()) {
	j, key := newJournal(t, dir, journal.Config{SegmentRecords: 100})
	big := audittest.Record(1)
	big.Change = []string{string(make([]byte, 4000))}
	acknowledged := map[uint64]audit.Hash{}
	add := func() error {
		start := time.Now()
		r, err := j.Append(context.Background(), big)
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("append took %v", d)
		}
		if err == nil {
			acknowledged[r.Sequence()] = r.Record
		} else if !errors.Is(err, audit.ErrUnavailable) {
			t.Fatalf("untyped error %v", err)
		}
		return err
	}
	var full error
	for i := 0; full == nil; i++ {
		if full = add(); i > 10000 {
			t.Fatal("the disk does not fill up")
		}
	}
	if t.Logf("after %d records: %v", len(acknowledged), full); len(acknowledged) < 10 {
		t.Fatal("the disk was full from the start")
	}
	for range 20 {
		if err := add(); err == nil {
			t.Fatal("append succeeds on a full disk")
		}
	}
	if err := j.Health(); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("health: %v", err)
	}
	makeRoom()
	for deadline := time.Now().Add(10 * time.Second); add() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("does not recover: %v", j.Health())
		}
	}
	if err := j.Health(); err != nil {
		t.Errorf("health after recovery: %v", err)
	}
	if err := j.Close(context.Background()); err != nil {
		t.Error(err)
	}
	checkAcknowledged(t, dir, key, acknowledged)
}

func checkAcknowledged(t *testing.T, dir string, key audit.PublicKey, want map[uint64]audit.Hash) {
	t.Helper()
	root, fsys, err := journal.DirFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	numbers, err := journal.Segments(fsys)
	if err != nil {
		t.Fatal(err)
	}
	found := map[uint64]audit.Hash{}
	for _, n := range numbers {
		data, err := fsys.ReadFile(journal.SegmentPath(n))
		if err != nil {
			t.Fatal(err)
		}
		s, err := journal.Scan(journal.SegmentPath(n), n, data, key, func(f *journal.Frame) error {
			for i, leaf := range f.Leaves {
				found[f.First+uint64(i)] = leaf
			}
			return nil
		})
		if err != nil || !s.Done() {
			t.Fatalf("segment %d: %+v, %v", n, s, err)
		}
	}
	for seq, hash := range want {
		if found[seq] != hash {
			t.Fatalf("acknowledged record %d is lost", seq)
		}
	}
}

// A file system that is really full. Making one takes root; without it
// TestFileSizeLimit is what there is.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Logf("cannot mount (%v): a limit on the size of files stands in", err)
		return
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	fillDisk(t, filepath.Join(dir, "audit"), func() { os.Remove(ballast) })
}

const limitVar = "SALLYPORT_TEST_FILE_SIZE_LIMIT"

// The same with a limit on the size of files, which needs no privilege but a
// process of its own.
func TestFileSizeLimit(t *testing.T) {
	if dir := os.Getenv(limitVar); dir != "" {
		signal.Ignore(syscall.SIGXFSZ)
		var old syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 300 << 10, Max: old.Max}); err != nil {
			t.Fatal(err)
		}
		fillDisk(t, dir, func() {
			if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
				t.Fatal(err)
			}
		})
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestFileSizeLimit$", "-test.v")
	cmd.Env = append(os.Environ(), limitVar+"="+filepath.Join(t.TempDir(), "audit"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
