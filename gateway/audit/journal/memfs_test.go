package journal

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
)

// memFS is a file system in memory that knows what would survive a power cut and
// can be broken at any step.
type memFS struct {
	mu      sync.Mutex
	names   map[string]*memFile // as programs see them
	durable map[string]*memFile // as the disk has them
	dirs    map[string]bool

	ops   int // mutating operations so far
	fault func(op int, kind string) mode
	dead  bool // the machine is off
	gate  chan struct{}
}

// mode is what happens to an operation.
type mode int

const (
	works      mode = iota
	lost            // it is not done, and fails
	done            // it is done, and reported as failed
	short           // a write is half done, and fails
	deadBefore      // the power goes before it
	deadAfter       // the power goes after it
)

var (
	errFault = errors.New("memfs: injected fault")
	errDead  = errors.New("memfs: the machine is off")
)

// memFile is a file: the page cache, the disk, and the ranges that differ.
type memFile struct {
	fs      *memFS
	cache   []byte
	disk    []byte
	dirty   [][2]int64
	resized bool
}

func newMemFS(instance string) *memFS {
	m := &memFS{names: map[string]*memFile{}, durable: map[string]*memFile{}, dirs: map[string]bool{segmentDir: true}}
	b := []byte(Format(instance))
	f := &memFile{fs: m, cache: b, disk: b}
	m.names[FormatName], m.durable[FormatName] = f, f
	return m
}

// step counts an operation, and does it as the fault says.
func (m *memFS) step(kind string, do, half func()) error {
	if m.dead {
		return errDead
	}
	what := works
	if m.fault != nil {
		what = m.fault(m.ops, kind)
	}
	m.ops++
	switch what {
	case works:
		do()
		return nil
	case done:
		do()
		return errFault
	case short:
		half()
		return errFault
	case deadBefore:
		m.dead = true
		return errDead
	case deadAfter:
		do()
		m.dead = true
		return errDead
	}
	if kind == "sync" {
		half() // a failed sync forgets what was to be written
	}
	return errFault
}

func (m *memFS) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.names[name]; ok {
		return nil, fs.ErrExist
	}
	if !m.dirs[path.Dir(name)] {
		return nil, fs.ErrNotExist
	}
	f := &memFile{fs: m}
	err := m.step("create", func() { m.names[name] = f }, func() {})
	return f, err
}

func (m *memFS) ReadFile(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.names[name]
	switch {
	case m.dead:
		return nil, errDead
	case !ok:
		return nil, fs.ErrNotExist
	}
	return slices.Clone(f.cache), nil
}

func (m *memFS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.names[from]; !ok {
		return fs.ErrNotExist
	}
	return m.step("rename", func() { m.names[to] = m.names[from]; delete(m.names, from) }, func() {})
}

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.names[name]; !ok {
		return fs.ErrNotExist
	}
	return m.step("remove", func() { delete(m.names, name) }, func() {})
}

// Mkdir is durable at once: what a lost directory would do is what a lost file
// does.
func (m *memFS) Mkdir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.step("mkdir", func() { m.dirs[name] = true }, func() {})
}

func (m *memFS) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.step("syncdir", func() {
		for n := range m.durable {
			if path.Dir(n) == name && m.names[n] == nil {
				delete(m.durable, n)
			}
		}
		for n, f := range m.names {
			if path.Dir(n) == name {
				m.durable[n] = f
			}
		}
	}, func() {})
}

func (m *memFS) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := map[string]bool{}
	for n := range m.names {
		if rest, ok := strings.CutPrefix(n, dir+"/"); ok {
			first, _, _ := strings.Cut(rest, "/")
			seen[first] = true
		}
	}
	for n := range m.dirs {
		if path.Dir(n) == dir {
			seen[path.Base(n)] = true
		}
	}
	var names []string
	for n := range seen {
		names = append(names, n)
	}
	slices.Sort(names)
	return names, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	n := len(b)
	write := func(b []byte) {
		if grow := off + int64(len(b)) - int64(len(f.cache)); grow > 0 {
			f.cache = append(f.cache, make([]byte, grow)...)
		}
		copy(f.cache[off:], b)
		f.dirty = append(f.dirty, [2]int64{off, off + int64(len(b))})
	}
	err := f.fs.step("write", func() { write(b) }, func() { n = len(b) / 2; write(b[:n]) })
	if err != nil && n == len(b) {
		n = 0
	}
	return n, err
}

func (f *memFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.fs.step("truncate", func() {
		if size < int64(len(f.cache)) {
			f.cache, f.resized = f.cache[:size], true
		}
	}, func() {})
}

func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	gate := f.fs.gate
	f.fs.mu.Unlock()
	if gate != nil {
		<-gate
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.fs.step("sync", func() {
		f.disk = applied(f.disk, f.cache, f.dirty)
		if f.resized && len(f.disk) > len(f.cache) {
			f.disk = f.disk[:len(f.cache)]
		}
		f.dirty, f.resized = nil, false
	}, func() { f.dirty = nil })
}

func (f *memFile) Close() error { return nil }

// applied writes ranges of cache to disk and returns it.
func applied(disk, cache []byte, ranges [][2]int64) []byte {
	for _, r := range ranges {
		to := min(r[1], int64(len(cache)))
		if grow := to - int64(len(disk)); grow > 0 {
			disk = append(disk, make([]byte, grow)...)
		}
		if r[0] < to {
			copy(disk[r[0]:to], cache[r[0]:to])
		}
	}
	return disk
}

// crash returns what is found after a power cut: what was durable, and any part
// of what was not.
func (m *memFS) crash(rnd *rand.Rand) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := &memFS{names: map[string]*memFile{}, durable: map[string]*memFile{}, dirs: m.dirs}
	found := map[string]*memFile{}
	for n, f := range m.durable {
		if _, ok := m.names[n]; ok || rnd.IntN(2) == 0 {
			found[n] = f
		}
	}
	for n, f := range m.names {
		if rnd.IntN(2) == 0 {
			found[n] = f
		}
	}
	for n, f := range found {
		var some [][2]int64
		for _, r := range f.dirty {
			for at := r[0]; at < r[1]; at += 64 { // blocks, in any order
				if rnd.IntN(2) == 0 {
					some = append(some, [2]int64{at, min(at+64, r[1])})
				}
			}
		}
		b := applied(slices.Clone(f.disk), f.cache, some)
		copied := &memFile{fs: after, cache: b, disk: slices.Clone(b)}
		after.names[n], after.durable[n] = copied, copied
	}
	return after
}

// off reports whether the machine is off.
func (m *memFS) off() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

// restart ends the process that writes: no more faults, and the page cache stays
// as it is, with what a failed sync has forgotten.
func (m *memFS) restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead, m.fault = false, nil
}
