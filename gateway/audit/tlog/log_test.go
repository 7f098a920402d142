package tlog_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/audittest"
	"github.com/sallyport/sallyport/gateway/audit/journal"
	"github.com/sallyport/sallyport/gateway/audit/tlog"
)

func newKey(t testing.TB) audit.PrivateKey {
	t.Helper()
	key, err := audit.GenerateKey("audit.example/gateway-1")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func create(t testing.TB, key audit.PrivateKey) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "audit")
	if err := tlog.Create(dir, key); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t testing.TB, cfg tlog.Config) *tlog.Log {
	t.Helper()
	l, err := tlog.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		l.Close(ctx)
	})
	return l
}

func closeLog(t testing.TB, l *tlog.Log) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// fill appends n records, a few at a time, and returns their receipts.
func fill(t testing.TB, l *tlog.Log, n int) []audit.Receipt {
	t.Helper()
	var mu sync.Mutex
	var receipts []audit.Receipt
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < n; i += 4 {
				r, err := l.Append(context.Background(), audittest.Record(i))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				receipts = append(receipts, r)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return receipts
}

// small is a log with many segments.
func small(dir string, key audit.PrivateKey) tlog.Config {
	return tlog.Config{Dir: dir, Key: key, SegmentRecords: 8}
}

func verify(t testing.TB, dir string, key audit.PrivateKey) tlog.Report {
	t.Helper()
	r, err := tlog.Verify(dir, key.Public(), tlog.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestConformance(t *testing.T) {
	audittest.Run(t, func(t *testing.T) (audit.Log, audit.PublicKey) {
		key := newKey(t)
		return open(t, tlog.Config{Dir: create(t, key), Key: key}), key.Public()
	})
}

func TestSealAndVerify(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	dir := create(t, key)
	if r := verify(t, dir, key); r.Segments != 0 {
		t.Errorf("empty log: %+v", r)
	}
	l := open(t, small(dir, key))
	receipts := fill(t, l, 200)
	if err := l.Health(); err != nil {
		t.Error(err)
	}
	closeLog(t, l)
	r := verify(t, dir, key)
	if r.Records != 200 || r.Sealed != r.Segments || r.Unsealed() != 0 || r.Torn != 0 || len(r.Strays) != 0 {
		t.Errorf("report %+v", r)
	}
	for _, receipt := range receipts {
		in, err := tlog.CheckReceipt(dir, key.Public(), receipt)
		if err != nil || !in.Sealed {
			t.Fatalf("receipt %d: %+v, %v", receipt.Sequence(), in, err)
		}
	}
	if _, err := l.Append(t.Context(), audittest.Record(1)); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("append after close: %v", err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

// A closed segment is sealed by itself, without later records and without Close.
func TestSealsWhileIdle(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	dir := create(t, key)
	l := open(t, tlog.Config{Dir: dir, Key: key, SegmentAge: 50 * time.Millisecond})
	receipt := fill(t, l, 1)[0]
	in, err := tlog.CheckReceipt(dir, key.Public(), receipt)
	if err != nil || in.Sealed {
		t.Errorf("at first: %+v, %v", in, err)
	}
	for deadline := time.Now().Add(10 * time.Second); l.Stats().Sealed == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not sealed: %+v", l.Stats())
		}
	}
	in, err = tlog.CheckReceipt(dir, key.Public(), receipt)
	if err != nil || !in.Sealed {
		t.Errorf("in the end: %+v, %v", in, err)
	}
	time.Sleep(200 * time.Millisecond)
	if s := l.Stats(); s.Closed != 1 || s.Lag != 0 {
		t.Errorf("idle log has %d segments, lag %v", s.Closed, s.Lag)
	}
}

// Verifying and reading work while the log is written.
func TestVerifyWhileWriting(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	dir := create(t, key)
	l := open(t, tlog.Config{Dir: dir, Key: key, SegmentRecords: 50})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := l.Append(context.Background(), audittest.Record(i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var last tlog.Report
	for start := time.Now(); time.Since(start) < 4*time.Second; {
		before := l.Stats().Next
		r := verify(t, dir, key)
		if r.Records+4096 < before {
			t.Errorf("%d records, want at least %d", r.Records, before)
		}
		last = r
	}
	close(stop)
	wg.Wait()
	closeLog(t, l)
	if last.Sealed == 0 {
		t.Error("nothing was sealed while writing")
	}
	t.Logf("%d segments, %d sealed while writing", last.Segments, last.Sealed)
	verify(t, dir, key)
}

// A second opening, whatever the first left, seals nothing twice.
func TestReopen(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	dir := create(t, key)
	var earlier []byte
	for i := range 3 {
		l := open(t, small(dir, key))
		fill(t, l, 30)
		if i == 1 { // as a crash would: what is not sealed yet is left
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if err := l.Close(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("close: %v", err)
			}
			closeLog(t, l) // waits for the goroutines only
			if s := l.Stats(); s.Sealed == s.Closed {
				t.Error("everything is sealed; the test shows nothing")
			}
		} else {
			closeLog(t, l)
		}
		if i == 0 {
			earlier, _ = os.ReadFile(filepath.Join(dir, "tlog", "checkpoint"))
		}
	}
	r, err := tlog.Verify(dir, key.Public(), tlog.VerifyOptions{Earlier: earlier})
	if err != nil {
		t.Fatal(err)
	}
	if r.Records != 90 || r.Sealed != r.Segments {
		t.Errorf("report %+v", r)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	dir := create(t, key)
	if err := tlog.Create(dir, key); !errors.Is(err, fs.ErrExist) {
		t.Errorf("creating twice: %v", err)
	}
	if _, err := tlog.Open(t.Context(), tlog.Config{Dir: t.TempDir(), Key: key}); !errors.Is(err, journal.ErrForeign) {
		t.Errorf("opening an empty directory: %v", err)
	}
	if _, err := tlog.Open(t.Context(), tlog.Config{Dir: dir + "x", Key: key}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opening nothing: %v", err)
	}
	open(t, tlog.Config{Dir: dir, Key: key})
	if _, err := tlog.Open(t.Context(), tlog.Config{Dir: dir, Key: key}); !errors.Is(err, journal.ErrLocked) {
		t.Errorf("opening twice: %v", err)
	}
	other, err := audit.GenerateKey("audit.example/gateway-2")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tlog.Open(t.Context(), tlog.Config{Dir: dir, Key: other}); !errors.Is(err, journal.ErrForeign) {
		t.Errorf("opening another's: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "FORMAT"), []byte("sallyport-audit-log 2\nx\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tlog.Open(t.Context(), tlog.Config{Dir: dir, Key: key}); !errors.Is(err, journal.ErrNewerFormat) {
		t.Errorf("opening a newer format: %v", err)
	}
}

// Tessera panics when it cannot open its lock file. That must stop sealing only.
func TestTesseraPanicIsContained(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	dir := create(t, key)
	l := open(t, small(dir, key))
	fill(t, l, 16)
	lock := filepath.Join(dir, "tlog", ".state", "treeState.lock")
	for deadline := time.Now().Add(10 * time.Second); l.Stats().Sealed == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing sealed")
		}
	}
	if err := errors.Join(os.Remove(lock), os.Mkdir(lock, 0o700)); err != nil {
		t.Fatal(err)
	}
	fill(t, l, 32)
	for deadline := time.Now().Add(10 * time.Second); l.Stats().SealError == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no error")
		}
	}
	if err := l.Stats().SealError; !strings.Contains(err.Error(), "panic in Tessera") {
		t.Errorf("error %v", err)
	}
	if err := l.Health(); err != nil {
		t.Errorf("journal is affected: %v", err)
	}
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	closeAfterRecovery(t, l)
	if r := verify(t, dir, key); r.Sealed != r.Segments || r.Records != 48 {
		t.Errorf("report %+v", r)
	}
}

func closeAfterRecovery(t *testing.T, l *tlog.Log) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); l.Stats().SealError != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("sealing does not recover: %v", l.Stats().SealError)
		}
	}
	closeLog(t, l)
}

func TestLagMakesUnhealthy(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	dir := create(t, key)
	cfg := small(dir, key)
	cfg.MaxLag = 50 * time.Millisecond
	l := open(t, cfg)
	fill(t, l, 64)
	time.Sleep(100 * time.Millisecond) // Tessera takes a second for a round
	if err := l.Health(); !errors.Is(err, tlog.ErrLagging) || !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("health: %v", err)
	}
}
