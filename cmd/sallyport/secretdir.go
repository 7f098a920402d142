package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// secretDir is a directory that secrets lie in as files. Each file is replaced whole:
// a reader sees the old one or the new one. Nothing is written outside the directory,
// whatever links somebody puts into it.
type secretDir struct {
	root     *os.Root
	path     string
	memory   bool // its file system is memory
	mode     fs.FileMode
	uid, gid int      // of files and folders; -1 leaves them
	owner    *os.File // locked, in a directory that privateDir made

	mu    sync.Mutex // files are written by the owner of each secret
	files []string
}

// dirPrefix begins the names of the directories that privateDir makes.
const dirPrefix = "sallyport-run-"

// staleAfter is how old a directory without an owner must be to be removed: older than
// one whose owner is about to lock it.
const staleAfter = time.Minute

// privateDir makes a directory for its caller alone, in the first of the bases that is
// memory. With allowDisk the last base serves, whatever it is.
func privateDir(bases []string, allowDisk bool) (*secretDir, error) {
	var tried []string
	for _, base := range bases {
		switch memory, err := inMemory(base); {
		case err != nil:
			tried = append(tried, fmt.Sprintf("%s: %v", base, err))
		case !memory:
			tried = append(tried, base+" is not a tmpfs")
		default:
			return makePrivateDir(base, true)
		}
	}
	if allowDisk && len(bases) > 0 {
		return makePrivateDir(bases[len(bases)-1], false)
	}
	return nil, fmt.Errorf("no memory to keep files in (%s); name a tmpfs with --base, or --allow-disk lets secrets reach a disk",
		strings.Join(tried, "; "))
}

func makePrivateDir(base string, memory bool) (*secretDir, error) {
	base, err := filepath.Abs(base) // the command may go elsewhere
	if err != nil {
		return nil, err
	}
	removeStale(base)
	dir, err := os.MkdirTemp(base, dirPrefix) // mode 0700
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	d := &secretDir{root: root, path: dir, memory: memory, mode: 0o600, uid: -1, gid: -1}
	return d, d.lock()
}

// lock marks the directory as one whose owner lives: the lock goes with the process.
func (d *secretDir) lock() (err error) {
	if d.owner, err = d.root.Open("."); err != nil {
		return err
	}
	return syscall.Flock(int(d.owner.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// removeStale removes what a killed process of the same user left in base. It is tidying:
// what cannot be removed is left.
func removeStale(base string) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.IsDir() || !strings.HasPrefix(e.Name(), dirPrefix) || !ownedBy(info, os.Getuid()) ||
			time.Since(info.ModTime()) < staleAfter {
			continue
		}
		if root, err := os.OpenRoot(filepath.Join(base, e.Name())); err == nil {
			d := &secretDir{root: root, path: filepath.Join(base, e.Name())}
			if d.lock() == nil {
				_ = d.removeAll()
			}
			_ = errors.Join(d.owner.Close(), root.Close())
		}
	}
}

// openDir opens the directory of somebody else's choice, and makes it if it is missing.
// Who else may write to it could put other files in the place of the secrets, so that is
// refused.
func openDir(dir string, mode fs.FileMode, uid, gid int, allowDisk bool) (*secretDir, error) {
	made := os.Mkdir(dir, 0o700)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return nil, made
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	if made == nil {
		err = errors.Join(root.Chmod(".", folderMode(mode)), root.Chown(".", uid, gid))
	}
	memory, statErr := inMemory(dir)
	err = errors.Join(err, statErr)
	if err == nil && !memory && !allowDisk {
		err = fmt.Errorf("%s is not a tmpfs; allow_disk lets secrets reach a disk", dir)
	}
	var info fs.FileInfo
	if err == nil {
		info, err = root.Stat(".")
	}
	if err == nil && info.Mode().Perm()&0o022 != 0 {
		err = fmt.Errorf("%s may be written to by others (mode %04o)", dir, info.Mode().Perm())
	}
	if err == nil && !ownedBy(info, os.Getuid()) && !ownedBy(info, uid) && !ownedBy(info, 0) {
		err = fmt.Errorf("%s belongs to somebody else", dir)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &secretDir{root: root, path: dir, memory: memory, mode: mode, uid: uid, gid: gid}, nil
}

// folderMode lets those into a folder who may read the files.
func folderMode(file fs.FileMode) fs.FileMode { return 0o700 | (file&0o044)>>2 | file&0o044 }

func ownedBy(info fs.FileInfo, uid int) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && int64(s.Uid) == int64(uid)
}

// checkName refuses what is not the name of a file below a directory.
func checkName(name string) error {
	if !filepath.IsLocal(name) || path.Clean(name) != name || name == "." || strings.ContainsRune(name, 0) {
		return usagef("%q is not a path below the directory of the secrets", name)
	}
	return nil
}

// write puts a file in place, whole or not at all.
func (d *secretDir) write(name string, value []byte) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.makeFolders(path.Dir(name)); err != nil {
		return err
	}
	temporary := path.Join(path.Dir(name), "."+path.Base(name)+"."+rand.Text())
	f, err := d.root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.wipe(temporary))
		}
	}()
	if _, err = f.Write(value); err == nil {
		err = d.hand(f)
	}
	if err == nil && !d.memory {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = d.root.Rename(temporary, name); err == nil && !slices.Contains(d.files, name) {
		d.files = append(d.files, name)
	}
	return err
}

// hand gives a file its owner and its mode, before anybody finds it.
func (d *secretDir) hand(f *os.File) error {
	if d.uid >= 0 || d.gid >= 0 {
		if err := f.Chown(d.uid, d.gid); err != nil {
			return err
		}
	}
	return f.Chmod(d.mode)
}

func (d *secretDir) makeFolders(dir string) error {
	if dir == "." {
		return nil
	}
	if err := d.makeFolders(path.Dir(dir)); err != nil {
		return err
	}
	switch err := d.root.Mkdir(dir, folderMode(d.mode)); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	case d.uid >= 0 || d.gid >= 0:
		return d.root.Lchown(dir, d.uid, d.gid)
	default:
		return nil
	}
}

// wipe overwrites a file with zeros and removes it.
func (d *secretDir) wipe(name string) error {
	f, err := d.root.OpenFile(name, os.O_WRONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		var info fs.FileInfo
		if info, err = f.Stat(); err == nil && info.Mode().IsRegular() {
			_, err = f.Write(make([]byte, info.Size()))
		}
		err = errors.Join(err, f.Close())
	}
	return errors.Join(err, d.root.Remove(name))
}

// removeFiles wipes and removes the files that were written.
func (d *secretDir) removeFiles() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, name := range d.files {
		errs = append(errs, d.wipe(name))
	}
	d.files = nil
	return errors.Join(errs...)
}

// removeAll wipes and removes everything in the directory, and the directory.
func (d *secretDir) removeAll() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	walked := fs.WalkDir(d.root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			err = d.wipe(name)
		}
		return err
	})
	return errors.Join(walked, os.RemoveAll(d.path))
}
