package tlog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/journal"
)

// ErrLeafSyntax: bytes are not a leaf of an audit log's tree.
var ErrLeafSyntax = errors.New("tlog: malformed leaf")

const leafDomain = "sallyport/audit/segment/v1\x00"

// Leaf is what the transparency log holds of a closed segment. Its index in the
// tree is the segment's number.
type Leaf struct {
	Instance string
	Segment  uint64
	First    uint64     // sequence number of the first record
	Count    uint32     // records
	Root     audit.Hash // RFC 6962 root over the records
	Last     audit.Hash // hash of the close frame, and so of the chain up to it
}

func leafOf(s journal.Segment) Leaf {
	return Leaf{Instance: s.Instance, Segment: s.Number, First: s.First, Count: s.Count, Root: s.Root, Last: s.Last}
}

// Bytes returns
//
//	"sallyport/audit/segment/v1" || 0 || uint8(len(instance)) || instance ||
//	segment || first || count || root || last
//
// with big-endian integers of 64, 64 and 32 bits.
func (l Leaf) Bytes() []byte {
	b := append([]byte(leafDomain), uint8(len(l.Instance)))
	b = append(b, l.Instance...)
	b = binary.BigEndian.AppendUint64(b, l.Segment)
	b = binary.BigEndian.AppendUint64(b, l.First)
	b = binary.BigEndian.AppendUint32(b, l.Count)
	b = append(b, l.Root[:]...)
	return append(b, l.Last[:]...)
}

// ParseLeaf reads what Bytes returned; the error is ErrLeafSyntax.
func ParseLeaf(b []byte) (Leaf, error) {
	const fixed = 8 + 8 + 4 + 32 + 32
	n := len(leafDomain)
	if len(b) <= n || string(b[:n]) != leafDomain || len(b) != n+1+int(b[n])+fixed {
		return Leaf{}, ErrLeafSyntax
	}
	l := Leaf{Instance: string(b[n+1 : n+1+int(b[n])])}
	b = b[len(b)-fixed:]
	l.Segment = binary.BigEndian.Uint64(b)
	l.First = binary.BigEndian.Uint64(b[8:])
	l.Count = binary.BigEndian.Uint32(b[16:])
	l.Root, l.Last = audit.Hash(b[20:]), audit.Hash(b[52:])
	return l, nil
}

// appendEntry appends an entry to an entry bundle: a 16-bit length and the bytes
// (https://c2sp.org/tlog-tiles).
func appendEntry(bundle, entry []byte) []byte {
	return append(binary.BigEndian.AppendUint16(bundle, uint16(len(entry))), entry...)
}

// splitBundle returns the n entries of a bundle.
func splitBundle(bundle []byte, n uint64) ([][]byte, error) {
	var entries [][]byte
	for len(bundle) >= 2 {
		size := int(binary.BigEndian.Uint16(bundle))
		if len(bundle) < 2+size {
			break
		}
		entries = append(entries, bundle[2:2+size])
		bundle = bundle[2+size:]
	}
	if len(bundle) != 0 || uint64(len(entries)) != n {
		return nil, fmt.Errorf("%w: not a bundle of %d entries", ErrLeafSyntax, n)
	}
	return entries, nil
}

// firstEntries returns the bytes of the first n entries of a bundle.
func firstEntries(bundle []byte, n uint64) ([]byte, error) {
	entries, err := splitBundle(bundle, bundleWidth)
	if err != nil {
		return nil, err
	}
	var b []byte
	for _, e := range entries[:n] {
		b = appendEntry(b, e)
	}
	return b, nil
}
