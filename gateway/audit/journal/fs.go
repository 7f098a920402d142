package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"syscall"
)

// ErrLocked: another process has the log open.
var ErrLocked = errors.New("journal: log is in use by another process")

// FS is what the writer needs of a file system. Names are relative to the log's
// directory. Tests break it; there is one real implementation.
type FS interface {
	Create(name string) (File, error) // fails if the file exists
	ReadFile(name string) ([]byte, error)
	Rename(from, to string) error // replaces to
	Remove(name string) error
	Mkdir(name string) error // nil if the directory exists
	// SyncDir makes the names in a directory durable.
	SyncDir(name string) error
	List(dir string) ([]string, error) // names in order
}

// File is a file being written. Sync returns when its bytes and its length are
// durable; after it has failed once, nothing that it returns means anything
// (https://www.usenix.org/conference/atc20/presentation/rebello).
type File interface {
	WriteAt(b []byte, off int64) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

const (
	filePerm = 0o600
	dirPerm  = 0o700
)

// dirFS is the real file system. os.Root keeps it inside the directory whatever
// symbolic links there are.
type dirFS struct{ root *os.Root }

func (d dirFS) Create(name string) (File, error) {
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, filePerm)
	if err != nil {
		return nil, err
	}
	return dataFile{f}, nil
}

func (d dirFS) ReadFile(name string) ([]byte, error) { return d.root.ReadFile(name) }
func (d dirFS) Rename(from, to string) error         { return d.root.Rename(from, to) }
func (d dirFS) Remove(name string) error             { return d.root.Remove(name) }

func (d dirFS) Mkdir(name string) error {
	if err := d.root.Mkdir(name, dirPerm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (d dirFS) SyncDir(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d dirFS) List(dir string) ([]string, error) {
	f, err := d.root.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	sort.Strings(names)
	return names, errors.Join(err, f.Close())
}

// dataFile is a file whose Sync leaves out what is not needed to read it back
// (the time of change), which spares the file system a journal entry.
type dataFile struct{ *os.File }

func (f dataFile) Sync() error { return datasync(f.File) }

// writeFile makes a file with the given content durable, under a name that does
// not matter until it is renamed. On error it may leave the file behind.
func writeFile(fsys FS, name string, content []byte) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// lock takes the log for this process. The kernel lets go of it when the process
// ends, however it ends.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, filePerm)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("journal: locking: %w", err)
	}
	return f, nil
}
