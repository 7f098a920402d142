package tlog_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/audittest"
	"github.com/sallyport/sallyport/gateway/audit/tlog"
)

// files returns the content of all files of a log but its locks.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(strings.ToLower(path), "lock") {
			return err
		}
		all[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// sealedLog returns a closed log of a few segments with a few batches each.
func sealedLog(t *testing.T, key audit.PrivateKey) string {
	t.Helper()
	dir := create(t, key)
	for _, n := range []int{5, 3} { // two runs, so that tiles of two sizes are there
		l := open(t, tlog.Config{Dir: dir, Key: key, SegmentRecords: 2})
		for i := range n {
			if _, err := l.Append(t.Context(), audittest.Record(i)); err != nil {
				t.Fatal(err)
			}
		}
		closeLog(t, l)
	}
	return dir
}

func wantBroken(t *testing.T, dir string, key audit.PrivateKey, what string) {
	t.Helper()
	_, err := tlog.Verify(dir, key.Public(), tlog.VerifyOptions{Parallel: 1})
	if err == nil {
		t.Errorf("%s: not noticed", what)
	}
}

// Verify finds a change of any byte of any file.
func TestEveryByte(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	dir := sealedLog(t, key)
	verify(t, dir, key)
	all := files(t, dir)
	tried := 0
	for path, content := range all {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i := range content {
			for _, flip := range []byte{0x01, 0x80} {
				if testing.Short() && len(content) > 100 && (i+int(flip))%7 != 0 {
					continue
				}
				if _, err := f.WriteAt([]byte{content[i] ^ flip}, int64(i)); err != nil {
					t.Fatal(err)
				}
				_, err := tlog.Verify(dir, key.Public(), tlog.VerifyOptions{Parallel: 1})
				if err == nil {
					t.Errorf("%s: bit of byte %d flipped: not noticed", path, i)
				}
				tried++
			}
			if _, err := f.WriteAt(content[i:i+1], int64(i)); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
	}
	verify(t, dir, key)
	t.Logf("%d changes in %d files", tried, len(all))
}

func TestCutAndExtendAndRemove(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	dir := sealedLog(t, key)
	for path, content := range files(t, dir) {
		for _, n := range []int{0, 1, len(content) / 2, len(content) - 1} {
			if n == len(content) {
				continue
			}
			os.WriteFile(path, content[:n], 0o600)
			wantBroken(t, dir, key, filepath.Base(path)+" cut short")
		}
		for _, extra := range []string{"\x00", "x", string(content)} {
			os.WriteFile(path, append(bytes.Clone(content), extra...), 0o600)
			wantBroken(t, dir, key, filepath.Base(path)+" extended")
		}
		os.Remove(path)
		// Partial tiles of earlier sizes are removed by the gateway too.
		if old := strings.Contains(path, ".p/") && !strings.HasSuffix(path, ".p/5"); !old {
			wantBroken(t, dir, key, path+" removed")
		}
		os.WriteFile(path, content, 0o600)
	}
	verify(t, dir, key)
}

// Segments and tiles cannot change places.
func TestReorder(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	dir := sealedLog(t, key)
	all := files(t, dir)
	for a, contentA := range all {
		for b, contentB := range all {
			if a >= b || bytes.Equal(contentA, contentB) {
				continue
			}
			os.WriteFile(a, contentB, 0o600)
			os.WriteFile(b, contentA, 0o600)
			wantBroken(t, dir, key, a+" and "+b+" exchanged")
			os.WriteFile(a, contentA, 0o600)
			os.WriteFile(b, contentB, 0o600)
		}
	}
	verify(t, dir, key)
}

// Taking away the newest segments is noticed, by Verify and when opening, as long
// as the checkpoint is not rolled back too; then by who kept a later one, and by
// who has a receipt.
func TestRollback(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	dir := create(t, key)
	l := open(t, small(dir, key))
	fill(t, l, 20)
	closeLog(t, l)
	before := filepath.Join(t.TempDir(), "before")
	if err := os.CopyFS(before, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	l = open(t, small(dir, key))
	receipt := fill(t, l, 20)[0]
	closeLog(t, l)
	later, err := os.ReadFile(filepath.Join(dir, "tlog", "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}

	r := verify(t, dir, key)
	last := filepath.Join(dir, "journal", "000000000", "00"+string(rune('0'+r.Segments-1))+".seg")
	if err := os.Remove(last); err != nil {
		t.Fatal(err)
	}
	wantBroken(t, dir, key, "newest segment removed")
	if _, err := tlog.Open(t.Context(), small(dir, key)); !errors.Is(err, audit.ErrBroken) {
		t.Errorf("opening without the newest segment: %v", err)
	}

	verify(t, before, key) // a consistent older state looks whole by itself
	if _, err := tlog.Verify(before, key.Public(), tlog.VerifyOptions{Earlier: later}); !errors.Is(err, audit.ErrBroken) {
		t.Errorf("with a later checkpoint: %v", err)
	}
	if _, err := tlog.CheckReceipt(before, key.Public(), receipt); !errors.Is(err, tlog.ErrNotInLog) {
		t.Errorf("with a receipt: %v", err)
	}
}

// In a segment that is still open every change is an error or shows as torn.
func TestEveryByteOfOpenTail(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	dir := create(t, key)
	l := open(t, tlog.Config{Dir: dir, Key: key, SegmentAge: time.Hour})
	for i := range 4 {
		if _, err := l.Append(t.Context(), audittest.Record(i)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "journal", "000000000", "000.seg")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := create(t, key)
	path = filepath.Join(copied, "journal", "000000000", "000.seg")
	os.MkdirAll(filepath.Dir(path), 0o700)
	end := len(bytes.TrimRight(content, "\x00"))
	torn, changed := 0, 0
	for i := 0; i < end+64; i += 3 {
		changed++
		content[i] ^= 0x10
		os.WriteFile(path, content, 0o600)
		content[i] ^= 0x10
		r, err := tlog.Verify(copied, key.Public(), tlog.VerifyOptions{})
		if err == nil && r.Torn == 0 {
			t.Fatalf("byte %d of %d changed: not noticed", i, end)
		}
		if err == nil {
			torn++
		}
	}
	if torn > changed/2 {
		t.Errorf("%d of %d changes show as torn only", torn, changed)
	}
	os.WriteFile(path, content, 0o600)
	if r := verify(t, copied, key); r.Records != 4 || r.Torn != 0 {
		t.Errorf("unchanged: %+v", r)
	}
}

// Segments that the log's own key has signed do not fit together unless they were
// written one after the other, also where no checkpoint covers them.
func TestSegmentOfAnotherHistory(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	var histories [2]string
	for i := range histories {
		histories[i] = create(t, key)
		l := open(t, small(histories[i], key))
		fill(t, l, 20)
		closeLog(t, l)
	}
	mixed := create(t, key)
	for i, from := range []int{0, 0, 1} {
		name := filepath.Join("journal", "000000000", "00"+string(rune('0'+i))+".seg")
		os.MkdirAll(filepath.Dir(filepath.Join(mixed, name)), 0o700)
		b, err := os.ReadFile(filepath.Join(histories[from], name))
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(mixed, name), b, 0o600)
		if i == 1 {
			if r := verify(t, mixed, key); r.Segments != 2 || r.Sealed != 0 {
				t.Errorf("report %+v", r)
			}
		}
	}
	wantBroken(t, mixed, key, "segment of another history")
	if _, err := tlog.Open(t.Context(), small(mixed, key)); !errors.Is(err, audit.ErrBroken) {
		t.Errorf("opening: %v", err)
	}
}
