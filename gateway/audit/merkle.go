package audit

import "crypto/sha256"

// Hash is a SHA-256 digest: of a leaf or a node of a Merkle tree as RFC 6962
// section 2.1 defines them, or of a frame of the journal.
type Hash [sha256.Size]byte

// LeafPrefix is the byte that RFC 6962 puts before a leaf when hashing it, so
// that no leaf can be presented as a node.
const LeafPrefix = 0x00

const nodePrefix = 0x01

// LeafHash returns the RFC 6962 leaf hash of a record's bytes as written.
func LeafHash(record []byte) Hash {
	h := sha256.New()
	h.Write([]byte{LeafPrefix})
	h.Write(record)
	return Hash(h.Sum(nil))
}

func nodeHash(left, right Hash) Hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = nodePrefix
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// Tree is the Merkle tree over a few leaves, kept whole so that the path of each
// of them can be read. The zero Tree is empty and can be reset and used again.
type Tree struct {
	nodes []Hash // level by level, leaves first; a lone last node rises unchanged
	size  int
}

// NewTree builds the tree over leaves.
func NewTree(leaves []Hash) Tree {
	var t Tree
	t.Reset(leaves)
	return t
}

// Reset rebuilds t over leaves in the memory that t already has.
func (t *Tree) Reset(leaves []Hash) {
	t.size = len(leaves)
	if need := 2*len(leaves) + 32; cap(t.nodes) < need {
		t.nodes = make([]Hash, 0, need)
	}
	t.nodes = append(t.nodes[:0], leaves...)
	for start, width := 0, len(leaves); width > 1; {
		next := len(t.nodes)
		for i := 0; i+1 < width; i += 2 {
			t.nodes = append(t.nodes, nodeHash(t.nodes[start+i], t.nodes[start+i+1]))
		}
		if width%2 == 1 {
			t.nodes = append(t.nodes, t.nodes[start+width-1])
		}
		start, width = next, (width+1)/2
	}
}

// Root returns the tree hash; that of no leaves is the hash of the empty string.
func (t *Tree) Root() Hash {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	return t.nodes[len(t.nodes)-1]
}

// Path returns the audit path of leaf i, lowest sibling first (RFC 6962 section
// 2.1.1). It panics if there is no such leaf.
func (t *Tree) Path(i int) []Hash {
	if i < 0 || i >= t.size {
		panic("audit: no such leaf")
	}
	path := make([]Hash, 0, pathLen(uint32(i), uint32(t.size)))
	for start, width := 0, t.size; width > 1; {
		if s := i ^ 1; s < width {
			path = append(path, t.nodes[start+s])
		}
		start, width, i = start+width, (width+1)/2, i/2
	}
	return path
}

// pathLen is the length of the path of leaf index in a tree of size leaves.
func pathLen(index, size uint32) int {
	n := 0
	for last := size - 1; last > 0; last, index = last/2, index/2 {
		if index^1 <= last {
			n++
		}
	}
	return n
}

// rootFromPath returns the root that path leads to. It is false if the path has
// the wrong length for the place.
func rootFromPath(leaf Hash, index, size uint32, path []Hash) (Hash, bool) {
	if index >= size || len(path) != pathLen(index, size) {
		return Hash{}, false
	}
	h := leaf
	for last := size - 1; last > 0; last, index = last/2, index/2 {
		if index^1 > last {
			continue
		}
		if index%2 == 1 {
			h = nodeHash(path[0], h)
		} else {
			h = nodeHash(h, path[0])
		}
		path = path[1:]
	}
	return h, true
}

// Range computes the root of a growing tree in memory logarithmic in its size.
// The zero Range is the empty tree.
type Range struct {
	peaks []Hash // roots of the perfect subtrees, largest first
	size  uint64
}

// RangeFrom resumes a Range of size leaves from the roots of its perfect
// subtrees, largest first. It panics if their number does not fit the size.
func RangeFrom(size uint64, peaks []Hash) Range {
	ones := 0
	for s := size; s > 0; s &= s - 1 {
		ones++
	}
	if len(peaks) != ones {
		panic("audit: wrong number of subtrees")
	}
	return Range{peaks: append([]Hash(nil), peaks...), size: size}
}

// Push appends a leaf hash.
func (r *Range) Push(leaf Hash) {
	r.peaks = append(r.peaks, leaf)
	for s := r.size; s&1 == 1; s >>= 1 {
		n := len(r.peaks)
		r.peaks[n-2] = nodeHash(r.peaks[n-2], r.peaks[n-1])
		r.peaks = r.peaks[:n-1]
	}
	r.size++
}

// Clone returns a Range that grows by itself.
func (r *Range) Clone() Range {
	return Range{peaks: append([]Hash(nil), r.peaks...), size: r.size}
}

// Size returns the number of leaves.
func (r *Range) Size() uint64 { return r.size }

// Reset empties r and keeps its memory.
func (r *Range) Reset() { r.peaks, r.size = r.peaks[:0], 0 }

// Root returns the tree hash.
func (r *Range) Root() Hash {
	if r.size == 0 {
		return sha256.Sum256(nil)
	}
	h := r.peaks[len(r.peaks)-1]
	for i := len(r.peaks) - 2; i >= 0; i-- {
		h = nodeHash(r.peaks[i], h)
	}
	return h
}
