package journal

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/audit"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

func testKey(t testing.TB) audit.PrivateKey {
	t.Helper()
	key, err := audit.GenerateKey("audit.example/faults")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func memConfig(fsys FS, key audit.PrivateKey) Config {
	return Config{FS: fsys, Key: key, SegmentAge: time.Hour, SegmentRecords: 3, Timeout: 2 * time.Second}
}

// acknowledged are the records that somebody has a receipt for.
type acknowledged map[uint64]audit.Hash

// scenario opens the log, appends n records one after the other, going on after
// failures, and closes it.
func (a acknowledged) scenario(t *testing.T, fsys FS, key audit.PrivateKey, n int) {
	t.Helper()
	j, err := Open(memConfig(fsys, key))
	if err != nil {
		if errors.Is(err, audit.ErrBroken) {
			t.Fatalf("opening: %v", err)
		}
		return
	}
	for i := range n {
		for try := 0; try < 4; try++ {
			r, err := j.Append(context.Background(), &auditv1.Record{Action: fmt.Sprintf("append %d, try %d", i, try)})
			if err == nil {
				if old, ok := a[r.Sequence()]; ok && old != r.Record {
					t.Fatalf("two receipts for sequence number %d", r.Sequence())
				}
				a[r.Sequence()] = r.Record
				break
			}
			if !errors.Is(err, audit.ErrUnavailable) {
				t.Fatalf("untyped error %v", err)
			}
			if m, ok := fsys.(*memFS); ok && m.off() {
				break
			}
			time.Sleep(2 * firstBackoff)
		}
	}
	if err := j.Close(context.Background()); err != nil && !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("close: %v", err)
	}
}

// check reads the log and looks for what was acknowledged.
func (a acknowledged) check(t *testing.T, fsys FS, key audit.PrivateKey) {
	t.Helper()
	numbers, err := Segments(fsys)
	if err != nil {
		t.Fatal(err)
	}
	found := map[uint64]audit.Hash{}
	var prev audit.Hash
	var next uint64
	for i, n := range numbers {
		if n != uint64(i) {
			t.Fatalf("segment %d is missing", i)
		}
		data, err := fsys.ReadFile(SegmentPath(n))
		if err != nil {
			t.Fatal(err)
		}
		s, err := Scan(SegmentPath(n), n, data, key.Public(), func(f *Frame) error {
			for i, leaf := range f.Leaves {
				found[f.First+uint64(i)] = leaf
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if s.Prev != prev || s.First != next || (!s.Done() && i != len(numbers)-1) {
			t.Fatalf("segment %d does not continue: %+v", n, s)
		}
		prev, next = s.Last, s.Next()
	}
	for seq, hash := range a {
		if found[seq] != hash {
			t.Fatalf("acknowledged record %d is lost", seq)
		}
	}
}

// Each operation on the file system fails, in each way it can, once and for a
// while, and the power goes before and after it. Nothing acknowledged is lost,
// and the log goes on.
func TestEveryOperationBroken(t *testing.T) {
	key := testKey(t)
	count := func() int {
		fsys := newMemFS(key.Name())
		acknowledged{}.scenario(t, fsys, key, 8)
		return fsys.ops
	}()
	rnd := rand.New(rand.NewPCG(1, 2))
	runs := 0
	for op := range count {
		if testing.Short() && op%4 != 0 {
			continue
		}
		for _, m := range []mode{lost, done, short, deadBefore, deadAfter} {
			for _, length := range []int{1, 3} {
				if length > 1 && (m == deadBefore || m == deadAfter) {
					continue
				}
				crashes := 2
				if m == deadBefore || m == deadAfter {
					crashes = 4 // each leaves something else
				}
				for range crashes {
					runs++
					fsys := newMemFS(key.Name())
					kind := ""
					fsys.fault = func(at int, k string) mode {
						if at >= op && at < op+length {
							kind = k
							return m
						}
						return works
					}
					ack := acknowledged{}
					ack.scenario(t, fsys, key, 8)
					if runs%2 == 0 { // the process ends first, and the power goes later
						fsys.restart()
						ack.scenario(t, fsys, key, 1)
					}
					after := fsys.crash(rnd)
					name := fmt.Sprintf("operation %d (%s), mode %d, length %d", op, kind, m, length)
					if ok := t.Run(name, func(t *testing.T) {
						ack.scenario(t, after, key, 4)
						ack.check(t, after, key)
					}); !ok {
						return
					}
				}
			}
		}
	}
	t.Logf("%d operations, %d runs", count, runs)
}

// The power goes while recovery is at work, at each of its steps.
func TestCrashInRecovery(t *testing.T) {
	key := testKey(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	for op := range 12 {
		for _, m := range []mode{lost, done, short, deadBefore, deadAfter} {
			ack := acknowledged{}
			fsys := newMemFS(key.Name())
			fsys.fault = func(at int, kind string) mode { // leave an open segment
				if at >= 16 {
					return deadBefore
				}
				return works
			}
			ack.scenario(t, fsys, key, 8)
			fsys = fsys.crash(rnd)
			fsys.fault = func(at int, kind string) mode {
				if at == op {
					return m
				}
				return works
			}
			ack.scenario(t, fsys, key, 4)
			fsys = fsys.crash(rnd)
			ack.scenario(t, fsys, key, 4)
			ack.check(t, fsys, key)
		}
	}
}

// A disk that hangs makes appends fail in bounded time, and readiness with them;
// both come back by themselves.
func TestHangingDisk(t *testing.T) {
	key := testKey(t)
	fsys := newMemFS(key.Name())
	cfg := memConfig(fsys, key)
	cfg.Timeout = 100 * time.Millisecond
	cfg.Queue = 4
	j, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	gate := make(chan struct{})
	fsys.mu.Lock()
	fsys.gate = gate
	fsys.mu.Unlock()
	results := make(chan error, 20)
	start := time.Now()
	for range cap(results) {
		go func() {
			_, err := j.Append(context.Background(), &auditv1.Record{})
			results <- err
		}()
	}
	for range cap(results) {
		if err := <-results; !errors.Is(err, audit.ErrUnavailable) {
			t.Errorf("append: %v", err)
		}
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("took %v", d)
	}
	if err := j.Health(); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("health: %v", err)
	}
	start = time.Now()
	if _, err := j.Append(context.Background(), &auditv1.Record{}); !errors.Is(err, audit.ErrUnavailable) || time.Since(start) > cfg.Timeout/2 {
		t.Errorf("once known, append does not fail at once: %v after %v", err, time.Since(start))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	fsys.mu.Lock()
	fsys.gate = nil
	fsys.mu.Unlock()
	close(gate)
	for deadline := time.Now().Add(5 * time.Second); ; {
		if _, err = j.Append(context.Background(), &auditv1.Record{}); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("does not recover: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
	<-ctx.Done()
	if err := j.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// After a failed sync the next one succeeds, and means nothing. A writer that
// only tried again would acknowledge what the disk does not have.
func TestFailedSyncIsNotRetried(t *testing.T) {
	key := testKey(t)
	fsys := newMemFS(key.Name())
	j, err := Open(memConfig(fsys, key))
	if err != nil {
		t.Fatal(err)
	}
	ack := acknowledged{}
	add := func(s string) error {
		r, err := j.Append(context.Background(), &auditv1.Record{Action: s})
		if err == nil {
			ack[r.Sequence()] = r.Record
		}
		return err
	}
	if err := add("first"); err != nil {
		t.Fatal(err)
	}
	failed := false
	fsys.mu.Lock()
	fsys.fault = func(_ int, kind string) mode {
		if kind == "sync" && !failed {
			failed = true
			return lost
		}
		return works
	}
	fsys.mu.Unlock()
	if err := add("second"); !errors.Is(err, audit.ErrUnavailable) {
		t.Fatalf("append: %v", err)
	}
	for add("third") != nil {
		time.Sleep(time.Millisecond)
	}
	after := fsys.crash(rand.New(rand.NewPCG(5, 6)))
	ack.scenario(t, after, key, 1)
	ack.check(t, after, key)
	// The second was signed, so it keeps its place before the third.
	data, err := after.ReadFile(SegmentPath(1))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Scan(SegmentPath(1), 1, data, key.Public(), nil)
	if err != nil || s.First != 1 {
		t.Errorf("segment after the failure: %+v, %v", s, err)
	}
	j.Close(context.Background())
}

// A segment that was rewritten after a failed sync has its name for good before
// the next segment, in another directory, has.
func TestRewriteAtTheEndOfADirectory(t *testing.T) {
	key := testKey(t)
	base := newMemFS(key.Name())
	cfg := memConfig(base, key)
	cfg.SegmentRecords = 1
	j, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	add := func(j *Journal) error {
		_, err := j.Append(context.Background(), &auditv1.Record{})
		return err
	}
	for range perDir - 1 {
		if err := add(j); err != nil {
			t.Fatal(err)
		}
	}
	j.Close(context.Background())
	rnd := rand.New(rand.NewPCG(7, 8))
	for range 8 {
		fsys := base.crash(rnd)
		syncs := 0
		fsys.fault = func(_ int, kind string) mode {
			if kind == "sync" {
				if syncs++; syncs == 4 { // recovery, header, batch, and now the close frame
					return lost
				}
			}
			return works
		}
		cfg.FS = fsys
		j, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := add(j); err != nil { // the last of the directory
			t.Fatal(err)
		}
		for add(j) != nil { // the first of the next
			time.Sleep(time.Millisecond)
		}
		after := fsys.crash(rnd)
		acknowledged{}.scenario(t, after, key, 1)
		acknowledged{}.check(t, after, key)
		j.Close(context.Background())
	}
}
