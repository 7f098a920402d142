package journal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"

	"github.com/sallyport/sallyport/gateway/audit"
)

// A segment file is a header followed by frames. Integers are big-endian.
//
//	header:  "SPJRNL" version:16 segment:64 first:64 prev:256 len:8 instance
//	frame:   magic:32 size:32 count:32 first:64 prev:256 body root:256 signature:512
//	body:    count × ( len:32 record )        size is its length
//
// A batch frame has magic "SPB1". The close frame, the last of a segment, has
// magic "SPC1" and no body; its count, first and root are those of all records of
// the segment. prev of a frame is the hash of the frame before
// (audit.Batch.FrameHash), of the first frame the hash of the header, and of a
// header the hash of the close frame of the segment before, or zero.
const (
	headerMagic = "SPJRNL"
	version     = 1
	headerFixed = 6 + 2 + 8 + 8 + sha256.Size + 1

	batchMagic   = "SPB1"
	closeMagic   = "SPC1"
	framePrefix  = 4 + 4 + 4 + 8 + sha256.Size
	frameSuffix  = sha256.Size + ed25519.SignatureSize
	closeSize    = framePrefix + frameSuffix
	recordPrefix = 4

	headerDomain = "sallyport/audit/header/v1\x00"
)

// Limits of the format. They bound what a reader has to allocate.
const (
	MaxRecordSize     = 1 << 20         // bytes of one record
	maxBatchRecords   = 4096            // records of one batch
	maxSegmentRecords = 1 << 20         // records of one segment
	maxBodySize       = 8 << 20         // bytes of one batch's body
	maxBatchSize      = maxBodySize / 2 // what the writer takes before it stops
)

var (
	// ErrForeign: the directory is not an audit log, or another gateway's.
	ErrForeign = errors.New("journal: not this gateway's audit log")
	// ErrNewerFormat: a later version of this program wrote the log.
	ErrNewerFormat = errors.New("journal: log has a newer format")
)

// Header is the beginning of a segment.
type Header struct {
	Instance string
	Number   uint64     // of the segment, from 0
	First    uint64     // sequence number of its first record
	Prev     audit.Hash // hash of the close frame before, zero for segment 0
}

func (h Header) append(dst []byte) []byte {
	dst = append(dst, headerMagic...)
	dst = binary.BigEndian.AppendUint16(dst, version)
	dst = binary.BigEndian.AppendUint64(dst, h.Number)
	dst = binary.BigEndian.AppendUint64(dst, h.First)
	dst = append(dst, h.Prev[:]...)
	dst = append(dst, uint8(len(h.Instance)))
	return append(dst, h.Instance...)
}

func (h Header) hash() audit.Hash {
	return sha256.Sum256(h.append([]byte(headerDomain)))
}

func (h Header) size() int64 { return int64(headerFixed + len(h.Instance)) }

// errMalformed is any reason for which bytes are not a header or a frame.
type errMalformed string

func (e errMalformed) Error() string { return string(e) }

func parseHeader(data []byte) (Header, error) {
	if len(data) < headerFixed || string(data[:6]) != headerMagic {
		return Header{}, errMalformed("not a segment header")
	}
	if v := binary.BigEndian.Uint16(data[6:]); v < version {
		return Header{}, errMalformed("header has no version")
	} else if v > version {
		return Header{}, fmt.Errorf("%w: version %d, this program knows %d", ErrNewerFormat, v, version)
	}
	n := int(data[headerFixed-1])
	if len(data) < headerFixed+n {
		return Header{}, errMalformed("header is cut short")
	}
	return Header{
		Instance: string(data[headerFixed : headerFixed+n]),
		Number:   binary.BigEndian.Uint64(data[8:]),
		First:    binary.BigEndian.Uint64(data[16:]),
		Prev:     audit.Hash(data[24:]),
	}, nil
}

// Frame is one signed entry of a segment. It refers to the memory it was parsed
// from, and is good until the function it was passed to returns.
type Frame struct {
	audit.Batch
	Signature audit.Signature
	Offset    int64        // in the file
	Leaves    []audit.Hash // leaf hashes of the records; none for KindClose

	body []byte
	size int64
}

// Records yields the frame's records as written, with their place in the batch.
func (f *Frame) Records() iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		for i, b := 0, f.body; len(b) > 0; i++ {
			n := binary.BigEndian.Uint32(b)
			if !yield(i, b[recordPrefix:recordPrefix+n]) {
				return
			}
			b = b[recordPrefix+n:]
		}
	}
}

// Tree returns the Merkle tree over the frame's records.
func (f *Frame) Tree() audit.Tree { return audit.NewTree(f.Leaves) }

// parser turns bytes into frames and keeps its memory from one to the next.
type parser struct {
	instance string
	segment  uint64
	leaf     []byte
	tree     audit.Tree
}

// frame parses the frame at data[off:] into f. It recomputes the root of the
// records; it checks neither the chain nor the signature.
func (p *parser) frame(f *Frame, data []byte, off int64) error {
	b := data[off:]
	if len(b) < closeSize {
		return errMalformed("frame is cut short")
	}
	kind := audit.KindBatch
	switch string(b[:4]) {
	case batchMagic:
	case closeMagic:
		kind = audit.KindClose
	default:
		return errMalformed("not a frame")
	}
	size := binary.BigEndian.Uint32(b[4:])
	if size > maxBodySize || len(b) < int(size)+closeSize {
		return errMalformed("frame is cut short")
	}
	*f = Frame{
		Batch: audit.Batch{
			Kind: kind, Instance: p.instance, Segment: p.segment,
			Count: binary.BigEndian.Uint32(b[8:]),
			First: binary.BigEndian.Uint64(b[12:]),
			Prev:  audit.Hash(b[20:]),
			Root:  audit.Hash(b[framePrefix+size:]),
		},
		Signature: audit.Signature(b[framePrefix+size+sha256.Size:]),
		Offset:    off,
		Leaves:    f.Leaves[:0],
		body:      b[framePrefix : framePrefix+size],
		size:      int64(size) + closeSize,
	}
	if f.First > math.MaxUint64-uint64(f.Count) {
		return errMalformed("sequence number is too large")
	}
	if kind == audit.KindClose {
		if size != 0 {
			return errMalformed("close frame has a body")
		}
		return nil
	}
	return p.records(f)
}

// records checks the body of a batch frame against its count and root.
func (p *parser) records(f *Frame) error {
	if f.Count == 0 || f.Count > maxBatchRecords {
		return errMalformed("invalid number of records")
	}
	b := f.body
	for range f.Count {
		if len(b) < recordPrefix {
			return errMalformed("body is shorter than its count")
		}
		n := binary.BigEndian.Uint32(b)
		if n > MaxRecordSize || uint64(len(b)) < recordPrefix+uint64(n) {
			return errMalformed("record is longer than its batch")
		}
		p.leaf = append(append(p.leaf[:0], audit.LeafPrefix), b[recordPrefix:recordPrefix+n]...)
		f.Leaves = append(f.Leaves, sha256.Sum256(p.leaf))
		b = b[recordPrefix+n:]
	}
	if len(b) != 0 {
		return errMalformed("body is longer than its count")
	}
	if p.tree.Reset(f.Leaves); p.tree.Root() != f.Root {
		return errMalformed("records do not match the root of their batch")
	}
	return nil
}

// appendFrame appends the bytes of a frame with the given body.
func appendFrame(dst []byte, b *audit.Batch, body []byte, sig audit.Signature) []byte {
	magic := batchMagic
	if b.Kind == audit.KindClose {
		magic = closeMagic
	}
	dst = append(dst, magic...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)))
	dst = binary.BigEndian.AppendUint32(dst, b.Count)
	dst = binary.BigEndian.AppendUint64(dst, b.First)
	dst = append(dst, b.Prev[:]...)
	dst = append(dst, body...)
	dst = append(dst, b.Root[:]...)
	return append(dst, sig[:]...)
}

// isPadding reports whether b is what the writer fills a file with ahead of its
// frames.
func isPadding(b []byte) bool {
	return len(bytes.TrimLeft(b, "\x00")) == 0
}
