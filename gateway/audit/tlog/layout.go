package tlog

import (
	"strings"

	"github.com/transparency-dev/tessera/api/layout"
)

const (
	treeStateName = treeDir + "/.state/treeState"
	versionName   = treeDir + "/.state/version"
)

// tileName says what a file under tlog/tile is.
type tileName struct {
	entries bool // a bundle of entries; otherwise a tile of hashes
	level   uint64
	index   uint64
	width   uint64 // entries or hashes, 1 to 256
}

// parseTile reads the name of a file relative to the tree's directory. It is
// false for a name that the layout does not have.
func parseTile(name string) (tileName, bool) {
	rest, ok := strings.CutPrefix(name, "tile/")
	level, number, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 {
		return tileName{}, false
	}
	if level == "entries" {
		index, partial, err := layout.ParseTileIndexPartial(number)
		t := tileName{entries: true, index: index, width: widthOf(partial)}
		return t, err == nil && t.path() == name
	}
	l, index, partial, err := layout.ParseTileLevelIndexPartial(level, number)
	t := tileName{level: l, index: index, width: widthOf(partial)}
	return t, err == nil && t.path() == name
}

func widthOf(partial uint8) uint64 {
	if partial == 0 {
		return bundleWidth
	}
	return uint64(partial)
}

// path returns the name relative to the tree's directory.
func (t tileName) path() string {
	partial := uint8(t.width % bundleWidth)
	if t.entries {
		return layout.EntriesPath(t.index, partial)
	}
	return layout.TilePath(t.level, t.index, partial)
}

// required yields the tiles and bundles that a tree of size leaves has.
func required(size uint64, yield func(tileName)) {
	for level, n := uint64(0), size; n > 0; level, n = level+1, n/bundleWidth {
		for index := uint64(0); index*bundleWidth < n; index++ {
			width := min(n-index*bundleWidth, bundleWidth)
			yield(tileName{level: level, index: index, width: width})
			if level == 0 {
				yield(tileName{entries: true, index: index, width: width})
			}
		}
	}
}
