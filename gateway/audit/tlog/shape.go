package tlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sallyport/sallyport/gateway/audit"
)

// shape is the tree that the journal's closed segments lead to. All files of the
// tree follow from it, byte for byte, which makes verifying them a comparison.
type shape struct {
	leaves []Leaf
	// levels[k] holds the roots of the perfect subtrees of 256^k leaves: the hashes
	// of tiles of level k.
	levels [][]audit.Hash
}

func newShape(leaves []Leaf) *shape {
	s := &shape{leaves: leaves}
	hashes := make([]audit.Hash, len(leaves))
	for i, l := range leaves {
		hashes[i] = audit.LeafHash(l.Bytes())
	}
	var t audit.Tree
	for len(hashes) > 0 {
		s.levels = append(s.levels, hashes)
		var up []audit.Hash
		for i := 0; i+bundleWidth <= len(hashes); i += bundleWidth {
			t.Reset(hashes[i : i+bundleWidth])
			up = append(up, t.Root())
		}
		hashes = up
	}
	return s
}

// root returns the root of the first size leaves.
func (s *shape) root(size uint64) audit.Hash {
	var r audit.Range
	if size > 0 {
		for _, h := range s.levels[0][:size] {
			r.Push(h)
		}
	}
	return r.Root()
}

// content returns what a tile or bundle holds. It is false for one that is about
// segments which are not there.
func (s *shape) content(t tileName) ([]byte, bool) {
	from := t.index * bundleWidth
	to := from + t.width
	if t.index > 1<<40 || t.level >= uint64(len(s.levels)) || to > uint64(len(s.levels[t.level])) {
		return nil, false
	}
	var b []byte
	if t.entries {
		for _, l := range s.leaves[from:to] {
			b = appendEntry(b, l.Bytes())
		}
		return b, true
	}
	for _, h := range s.levels[t.level][from:to] {
		b = append(b, h[:]...)
	}
	return b, true
}

// treeFiles is what Verify reads of the tree before it reads the journal.
type treeFiles struct {
	state, version []byte // nil: no such file
	tiles          map[tileName]bool
	strays         []string
}

// verify compares the files with the shape and the checkpoint.
func (t *treeFiles) verify(dir string, s *shape, c Checkpoint) error {
	if c.Size > uint64(len(s.leaves)) {
		return broken(checkpointName, fmt.Sprintf("covers %d segments, the journal has %d that are whole", c.Size, len(s.leaves)))
	}
	if s.root(c.Size) != c.Root {
		return broken(checkpointName, "root is not that of the journal's segments")
	}
	if err := t.verifyState(s, c); err != nil {
		return err
	}
	var missing error
	required(c.Size, func(tile tileName) {
		full := tile
		full.width = bundleWidth
		if missing == nil && !t.tiles[tile] && !t.tiles[full] {
			missing = broken(treeDir+"/"+tile.path(), "is missing")
		}
	})
	if missing != nil {
		return missing
	}
	for tile := range t.tiles {
		if err := verifyTile(dir, tile, s); err != nil {
			return err
		}
	}
	return nil
}

func verifyTile(dir string, tile tileName, s *shape) error {
	name := treeDir + "/" + tile.path()
	want, ok := s.content(tile)
	if !ok {
		return broken(name, "is about segments that are not in the journal")
	}
	got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) && tile.width < bundleWidth {
		return nil // a full one has replaced it since it was listed
	}
	if err != nil {
		return err
	}
	if bytes.Equal(got, want) {
		return nil
	}
	offset := 0
	for offset < len(got) && offset < len(want) && got[offset] == want[offset] {
		offset++
	}
	return &audit.BrokenError{File: name, Offset: int64(offset), What: "does not match the journal"}
}

// verifyState checks Tessera's own files: the size and root from which it would
// go on, in its encoding, and its version.
func (t *treeFiles) verifyState(s *shape, c Checkpoint) error {
	if t.state == nil && t.version == nil && c.Size == 0 {
		return nil // not begun
	}
	if string(t.version) != "1" {
		return broken(versionName, "is not the version of Tessera's layout that this program knows")
	}
	var state struct {
		Size uint64 `json:"size"`
		Root []byte `json:"root"`
	}
	if t.state == nil && c.Size == 0 {
		return nil
	}
	if err := json.Unmarshal(t.state, &state); err != nil {
		return broken(treeStateName, "is not Tessera's")
	}
	if state.Size < c.Size || state.Size > uint64(len(s.leaves)) {
		return broken(treeStateName, fmt.Sprintf("tree of %d, where the checkpoint covers %d segments and the journal has %d",
			state.Size, c.Size, len(s.leaves)))
	}
	root := s.root(state.Size)
	state.Root = root[:]
	if want, err := json.Marshal(state); err != nil || !bytes.Equal(t.state, want) {
		return broken(treeStateName, "does not match the journal")
	}
	return nil
}
