package tlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	sumdb "golang.org/x/mod/sumdb/tlog"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/storage/posix"

	"github.com/sallyport/sallyport/gateway/audit"
)

// bundleWidth is the number of entries in a full bundle, and of hashes in a full
// tile.
const bundleWidth = layout.EntryBundleWidth

// tree is the part of Tessera that we use: the writer of its migration lifecycle,
// which puts entries at places that were decided elsewhere, builds the tree in
// the goroutine that asks for it, and has none of its own. The ordinary lifecycle
// assigns places by itself, so that an entry whose index was not noted before a
// crash would be added twice; and it works in goroutines whose panics (a lock
// file that cannot be opened) would take the process along. See
// docs/decisions/0020.
type tree interface {
	SetEntryBundle(ctx context.Context, index uint64, partial uint8, bundle []byte) error
	AwaitIntegration(ctx context.Context, size uint64) ([]byte, error)
	IntegratedSize(ctx context.Context) (uint64, error)
}

// openTree opens or makes the Tessera log in dir.
func openTree(ctx context.Context, dir string) (t tree, err error) {
	defer recovered(&err)
	driver, err := posix.New(ctx, posix.Config{Path: dir})
	if err != nil {
		return nil, err
	}
	storage, ok := driver.(*posix.Storage)
	if !ok {
		return nil, fmt.Errorf("tlog: Tessera's POSIX driver is a %T", driver)
	}
	t, _, err = storage.MigrationWriter(ctx, tessera.NewMigrationOptions())
	return t, err
}

// recovered turns a panic of Tessera into an error. The storage that panicked may
// hold a mutex for ever and is not to be used again.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("tlog: panic in Tessera: %v", p)
	}
}

// grow puts bundles in their places and builds the tree up to size. It returns
// the root that Tessera computed.
func grow(ctx context.Context, t tree, size uint64, bundles map[uint64][]byte) (root audit.Hash, err error) {
	defer recovered(&err)
	have, err := t.IntegratedSize(ctx)
	if err != nil {
		return root, err
	}
	if have > size {
		return root, broken(treeStateName, fmt.Sprintf("tree has %d leaves, the journal %d segments", have, size))
	}
	// Crash after any of these: bundles beyond the tree, which are written again
	// with the same bytes, for closed segments do not change.
	for index, bundle := range bundles {
		if err := t.SetEntryBundle(ctx, index, layout.PartialTileSize(0, index, size), bundle); err != nil {
			return root, err
		}
	}
	// Crash inside: tiles beyond the tree, likewise.
	b, err := t.AwaitIntegration(ctx, size)
	if err != nil {
		return root, err
	}
	if len(b) != len(root) {
		return root, errors.New("tlog: Tessera returned no root")
	}
	return audit.Hash(b), nil
}

// tiles reads hash tiles from the directory of a log, for the tile reader of
// golang.org/x/mod/sumdb/tlog, which proves what it reads against a root.
type tiles struct{ dir string }

func (tiles) Height() int                      { return layout.TileHeight }
func (tiles) SaveTiles([]sumdb.Tile, [][]byte) {}
func (t tiles) read(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(t.dir, treeDir, name))
}

func (t tiles) ReadTiles(list []sumdb.Tile) ([][]byte, error) {
	var out [][]byte
	for _, tile := range list {
		full := layout.TilePath(uint64(tile.L), uint64(tile.N), 0)
		name := full
		if tile.W < layout.TileWidth {
			name = layout.TilePath(uint64(tile.L), uint64(tile.N), uint8(tile.W))
		}
		b, err := t.read(name)
		if errors.Is(err, fs.ErrNotExist) {
			b, err = t.read(full)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, b[:min(len(b), tile.W*sumdb.HashSize)])
	}
	return out, nil
}

// bundle reads the first n entries of an entry bundle, and the name of its file.
func (t tiles) bundle(index, n uint64) ([]byte, string, error) {
	full := layout.EntriesPath(index, 0)
	if n == bundleWidth {
		b, err := t.read(full)
		return b, treeDir + "/" + full, err
	}
	name := layout.EntriesPath(index, uint8(n))
	b, err := t.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		name = full
		if b, err = t.read(full); err == nil {
			b, err = firstEntries(b, n)
		}
	}
	return b, treeDir + "/" + name, err
}

// leafHashes returns the leaf hashes in [from, to), proved against a checkpoint.
func leafHashes(dir string, c Checkpoint, from, to uint64) ([]audit.Hash, error) {
	var indexes []int64
	for i := from; i < to; i++ {
		indexes = append(indexes, sumdb.StoredHashIndex(0, int64(i)))
	}
	return readHashes(dir, c, indexes)
}

// peaks returns the roots of the perfect subtrees of the checkpoint's tree,
// largest first, proved against it.
func peaks(dir string, c Checkpoint) ([]audit.Hash, error) {
	var indexes []int64
	start := uint64(0)
	for level := 63; level >= 0; level-- {
		if c.Size>>level&1 == 1 {
			indexes = append(indexes, sumdb.StoredHashIndex(level, int64(start>>level)))
			start += 1 << level
		}
	}
	return readHashes(dir, c, indexes)
}

func readHashes(dir string, c Checkpoint, indexes []int64) ([]audit.Hash, error) {
	if len(indexes) == 0 {
		return nil, nil
	}
	reader := sumdb.TileHashReader(sumdb.Tree{N: int64(c.Size), Hash: sumdb.Hash(c.Root)}, tiles{dir})
	hashes, err := reader.ReadHashes(indexes)
	if err != nil {
		return nil, broken(treeDir+"/tile", err.Error())
	}
	out := make([]audit.Hash, len(hashes))
	for i, h := range hashes {
		out[i] = audit.Hash(h)
	}
	return out, nil
}

// sweep removes what the tree no longer needs: the partial tiles and bundles that
// full ones have replaced, and what interrupted writes have left. Verifiers fall
// back from a partial tile to the full one.
func sweep(dir string) error {
	base := filepath.Join(dir, treeDir)
	return filepath.WalkDir(filepath.Join(base, "tile"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // there is no tile yet
			}
			return err
		}
		if d.IsDir() {
			full, partial := strings.CutSuffix(path, ".p")
			if !partial {
				return nil
			}
			if _, err := os.Stat(full); err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return nil // the tile is not full yet
				}
				return err
			}
			if err := os.RemoveAll(path); err != nil {
				return err
			}
			return fs.SkipDir
		}
		name, err := filepath.Rel(base, path)
		if err != nil {
			return err
		}
		if _, ok := parseTile(filepath.ToSlash(name)); !ok {
			return os.Remove(path)
		}
		return nil
	})
}
