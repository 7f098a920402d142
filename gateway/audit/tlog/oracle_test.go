package tlog_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"

	"github.com/sallyport/sallyport/gateway/audit/audittest"
	"github.com/sallyport/sallyport/gateway/audit/tlog"
)

// The tree passes Tessera's own checker, also when it has more than one full tile
// and was grown in many rounds.
func TestTesseraFsck(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	dir := create(t, key)
	for _, n := range []int{3, 300, 1, 250} {
		l := open(t, tlog.Config{Dir: dir, Key: key, SegmentRecords: 1, SegmentAge: time.Hour})
		for i := range n {
			if _, err := l.Append(t.Context(), audittest.Record(i)); err != nil {
				t.Fatal(err)
			}
		}
		closeLog(t, l)
	}
	r := verify(t, dir, key)
	if r.Sealed != 554 {
		t.Errorf("%d segments sealed", r.Sealed)
	}
	hasher := func(bundle []byte) ([][]byte, error) {
		var b api.EntryBundle
		if err := b.UnmarshalText(bundle); err != nil {
			return nil, err
		}
		var hashes [][]byte
		for _, e := range b.Entries {
			hashes = append(hashes, rfc6962.DefaultHasher.HashLeaf(e))
		}
		return hashes, nil
	}
	f := client.FileFetcher{Root: filepath.Join(dir, "tlog")}
	if err := fsck.New(key.Name(), key.Public(), f, hasher, fsck.Opts{}).Check(context.Background()); err != nil {
		t.Error(err)
	}
	// Partial tiles that full ones have replaced are gone.
	for _, pattern := range []string{"tile/0/000.p", "tile/0/001.p", "tile/entries/000.p", "tile/entries/001.p"} {
		if found, _ := filepath.Glob(filepath.Join(dir, "tlog", pattern)); len(found) != 0 {
			t.Errorf("%s is left", pattern)
		}
	}
}

// BenchmarkVerify verifies a log of ordinary records, in segments and batches of
// ordinary size.
func BenchmarkVerify(b *testing.B) {
	key := newKey(b)
	dir := create(b, key)
	l := open(b, tlog.Config{Dir: dir, Key: key})
	const records = 200_000
	done := make(chan error)
	for range 64 {
		go func() {
			r := audittest.Record(1)
			r.EvidenceDigest, r.EnvelopeDigest = make([]byte, 32), make([]byte, 32)
			for range records / 64 {
				if _, err := l.Append(context.Background(), r); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 64 {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	closeLog(b, l)
	for b.Loop() {
		verify(b, dir, key)
	}
	b.ReportMetric(float64(b.N)*records/b.Elapsed().Seconds(), "records/s")
}
