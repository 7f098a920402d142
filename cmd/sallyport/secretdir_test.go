package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// skip leaves a test out on a machine that cannot run it. CI's can.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// memory gives a directory in a tmpfs.
func memory(t *testing.T) string {
	t.Helper()
	const shm = "/dev/shm"
	if ok, err := inMemory(shm); err != nil || !ok {
		skip(t, "no tmpfs at "+shm)
	}
	dir, err := os.MkdirTemp(shm, "sallyport-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func modeOf(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func TestAPrivateDirectoryIsInMemoryAndForItsOwnerOnly(t *testing.T) {
	base := memory(t)
	disk := t.TempDir()
	if ok, err := inMemory(disk); err != nil || ok {
		skip(t, "the directory of temporary files is memory")
	}
	// The first base that is memory is taken; a missing one is passed over.
	d, err := privateDir([]string{filepath.Join(disk, "none"), disk, base}, false)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(d.path) != base || modeOf(t, d.path) != fs.ModeDir|0o700 {
		t.Errorf("%s has mode %v", d.path, modeOf(t, d.path))
	}
	if err := d.write("sub/dir/file", []byte("value")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"sub": fs.ModeDir | 0o700, "sub/dir": fs.ModeDir | 0o700, "sub/dir/file": 0o600} {
		if got := modeOf(t, filepath.Join(d.path, name)); got != want {
			t.Errorf("%s has mode %v, want %v", name, got, want)
		}
	}
	if err := d.removeAll(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(base); err != nil || len(entries) > 0 {
		t.Errorf("%v are left, %v", entries, err)
	}

	if _, err := privateDir([]string{disk}, false); err == nil || !strings.Contains(err.Error(), "is not a tmpfs") {
		t.Error(err)
	}
	if _, err := privateDir(nil, true); err == nil {
		t.Error("a directory was made nowhere")
	}
	if d, err = privateDir([]string{disk}, true); err != nil || filepath.Dir(d.path) != disk {
		t.Fatal(d, err)
	}
}

// A reader that opens the file again and again sees one value or the other, whole.
func TestAReaderSeesTheOldFileOrTheNewOne(t *testing.T) {
	d, err := privateDir([]string{memory(t)}, false)
	if err != nil {
		t.Fatal(err)
	}
	values := [][]byte{bytes.Repeat([]byte("a"), 1<<16), bytes.Repeat([]byte("b"), 3<<16)}
	if err := d.write("file", values[0]); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		seen := 0
		for {
			select {
			case <-stop:
				done <- seen
				return
			default:
			}
			got, err := os.ReadFile(filepath.Join(d.path, "file"))
			if err != nil || !bytes.Equal(got, values[0]) && !bytes.Equal(got, values[1]) {
				t.Errorf("saw %d bytes, %v", len(got), err)
			}
			seen++
		}
	}()
	for i := range 500 {
		if err := d.write("file", values[i%2]); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if seen := <-done; seen < 10 {
		t.Errorf("the reader read %d times only", seen)
	}
	if entries, err := os.ReadDir(d.path); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestARemovedFileIsOverwrittenFirst(t *testing.T) {
	d, err := privateDir([]string{memory(t)}, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.write("file", []byte("value")); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(d.path, "file")) // whoever has it open reads what is in it
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := d.removeFiles(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 10)
	if n, _ := f.Read(got); !bytes.Equal(got[:n], make([]byte, 5)) {
		t.Errorf("%q is left", got[:n])
	}
	if _, err := os.Stat(f.Name()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestNothingIsWrittenOutsideTheDirectory(t *testing.T) {
	for name, good := range map[string]bool{
		"a": true, "a/b": true, "..a": true, "": false, ".": false, "..": false, "../a": false, "/a": false, "a/../b": false,
		"a//b": false, "a/": false, "a\x00": false,
	} {
		if err := checkName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
	base := memory(t)
	outside := filepath.Join(base, "outside")
	if err := os.Mkdir(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("whole"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := openDir(filepath.Join(base, "dir"), 0o600, -1, -1, false)
	if err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"file": victim, "folder": outside} {
		if err := os.Symlink(target, filepath.Join(d.path, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.write("folder/victim", []byte("x")); err == nil {
		t.Error("a link led out of the directory")
	}
	if err := d.write("file", []byte("x")); err != nil { // the link is replaced
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(d.path, "file")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(d.path, "file")); err != nil {
		t.Fatal(err)
	}
	_ = d.removeFiles()
	if got, err := os.ReadFile(victim); string(got) != "whole" {
		t.Errorf("the file outside is %q, %v", got, err)
	}
}

func TestADirectoryThatOthersWriteToIsRefused(t *testing.T) {
	base := memory(t)
	open := func(name string, mode fs.FileMode) (*secretDir, error) {
		return openDir(filepath.Join(base, name), mode, -1, -1, false)
	}
	d, err := open("made", 0o640)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.write("file", []byte("value")); err != nil {
		t.Fatal(err)
	}
	if modeOf(t, d.path) != fs.ModeDir|0o750 || modeOf(t, filepath.Join(d.path, "file")) != 0o640 {
		t.Errorf("%v, %v", modeOf(t, d.path), modeOf(t, filepath.Join(d.path, "file")))
	}
	for _, mode := range []fs.FileMode{0o770, 0o702, 0o1777} {
		if err := syscall.Chmod(d.path, uint32(mode)); err != nil {
			t.Fatal(err)
		}
		if _, err := open("made", 0o640); err == nil || !strings.Contains(err.Error(), "may be written to by others") {
			t.Errorf("%v: %v", mode, err)
		}
	}
	if os.Getuid() == 0 {
		if err := errors.Join(os.Chmod(d.path, 0o700), os.Chown(d.path, 12345, -1)); err != nil {
			t.Fatal(err)
		}
		if _, err := open("made", 0o640); err == nil || !strings.Contains(err.Error(), "belongs to somebody else") {
			t.Error(err)
		}
		owned, err := openDir(d.path, 0o640, 12345, 54321, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := owned.write("theirs", nil); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(d.path, "theirs"))
		if err != nil || !ownedBy(info, 12345) {
			t.Error(info, err)
		}
	}
	disk := t.TempDir()
	if _, err := openDir(filepath.Join(disk, "x"), 0o600, -1, -1, false); err == nil {
		t.Error("a disk was taken for memory")
	}
	if _, err := openDir(filepath.Join(disk, "x"), 0o600, -1, -1, true); err != nil {
		t.Error(err)
	}
}

// A process that is killed leaves its directory; the next one removes it, and leaves
// alone those of the living and the young.
func TestWhatTheDeadLeftIsRemoved(t *testing.T) {
	base := memory(t)
	leave := func(name string, age time.Duration) string {
		dir := filepath.Join(base, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("value"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(dir, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dead, young, other := leave(dirPrefix+"dead", time.Hour), leave(dirPrefix+"young", 0), leave("other", time.Hour)
	living, err := privateDir([]string{base}, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(living.path, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	removeStale(base)
	for dir, there := range map[string]bool{dead: false, young: true, other: true, living.path: true} {
		if _, err := os.Stat(dir); (err == nil) != there {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
