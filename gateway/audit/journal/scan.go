package journal

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/gateway/audit"
)

// Segment is what a scan found in a segment file.
type Segment struct {
	Header
	Count  uint32     // records
	Root   audit.Hash // RFC 6962 root over the records
	Last   audit.Hash // hash of the last frame
	Closed bool       // the last frame is a close frame
	Size   int64      // of the file
	End    int64      // where the last frame ends; 0 if there is none
	Torn   int64      // bytes after End, without the zeros at the end of the file
}

// Done reports whether the segment is closed and nothing follows the close frame:
// it is as it stays. After a crash something may, until the next Open.
func (s Segment) Done() bool { return s.Closed && s.End == s.Size }

// Next returns the sequence number that follows the segment.
func (s Segment) Next() uint64 { return s.First + uint64(s.Count) }

// Scan reads segment number from data, the content of the file called name, and
// passes each of its frames to visit, which may be nil. Every byte up to End is checked:
// the header and the chain of hashes against key's signature of the last frame,
// the records against their roots. Whether the header continues the segment
// before is the caller's to check.
//
// After End there may be one batch that was being written when the gateway or
// the machine stopped: it was never acknowledged, at most one is ever in flight,
// and Scan counts its bytes as Torn. If key's signature is on any frame after a
// place that does not parse, an acknowledged frame was changed, and the error is
// an *audit.BrokenError. Other errors are ErrNewerFormat and what visit returns.
func Scan(name string, number uint64, data []byte, key audit.PublicKey, visit func(*Frame) error) (Segment, error) {
	s := scanner{name: name, data: data, key: key, visit: visit}
	s.p = parser{instance: key.Name(), segment: number}
	h, err := parseHeader(data)
	switch {
	case errors.Is(err, ErrNewerFormat):
		return Segment{}, err
	case err != nil:
		return s.tail(0, err)
	case h.Instance != key.Name() || h.Number != number:
		return s.tail(0, errMalformed(fmt.Sprintf("header is of segment %d of %q", h.Number, h.Instance)))
	}
	s.seg.Header, s.seg.Last = h, h.hash()
	return s.frames()
}

type scanner struct {
	name  string
	data  []byte
	key   audit.PublicKey
	visit func(*Frame) error

	p       parser
	seg     Segment
	records audit.Range
}

// frames reads frames until one is not valid. Each names the one before by its
// hash, so the signature of the last vouches for all. If that is not valid the
// last frame may be a batch in flight, and the one before has to be signed: it was
// durable before the last was begun.
func (s *scanner) frames() (Segment, error) {
	var buf [2]Frame
	cur, next := &buf[0], &buf[1]
	off := s.seg.Header.size()
	if err := s.parse(cur, off, s.seg.Last, s.seg.First); err != nil {
		return s.tail(off, err)
	}
	var before signedFrame
	for {
		off = cur.Offset + cur.size
		hash := cur.FrameHash(cur.Signature)
		stop := s.parse(next, off, hash, cur.First+uint64(cur.Count))
		if cur.Kind == audit.KindClose {
			stop = errMalformed("bytes after the close frame")
		}
		if stop != nil && !cur.Verify(s.key, cur.Signature) {
			if s.seg.End > 0 && !before.Verify(s.key, before.sig) {
				return Segment{}, s.broken(before.offset, "signature is not valid")
			}
			return s.finish(cur.Offset, errMalformed("signature is not valid"))
		}
		if err := s.accept(cur, hash); err != nil {
			return Segment{}, err
		}
		if stop != nil {
			return s.finish(off, stop)
		}
		before = signedFrame{cur.Batch, cur.Signature, cur.Offset}
		cur, next = next, cur
	}
}

// signedFrame is what is kept of a frame to check its signature later.
type signedFrame struct {
	audit.Batch
	sig    audit.Signature
	offset int64
}

// finish passes the frames to visit, now that they are known to be signed.
func (s *scanner) finish(off int64, why error) (Segment, error) {
	seg, err := s.tail(off, why)
	if err != nil || s.visit == nil {
		return seg, err
	}
	var f Frame
	for at := seg.Header.size(); at < seg.End; at += f.size {
		if err := s.p.frame(&f, s.data, at); err != nil {
			return Segment{}, s.broken(at, err.Error()) // not reached: it was parsed before
		}
		if err := s.visit(&f); err != nil {
			return Segment{}, err
		}
	}
	return seg, nil
}

// parse reads the frame at off and checks that it continues the chain.
func (s *scanner) parse(f *Frame, off int64, prev audit.Hash, first uint64) error {
	if err := s.p.frame(f, s.data, off); err != nil {
		return err
	}
	if f.Prev != prev {
		return errMalformed("does not continue the frame before")
	}
	if f.Kind == audit.KindClose {
		first = s.seg.First
	}
	if f.First != first {
		return errMalformed("sequence number is out of order")
	}
	return nil
}

// accept adds a frame that is valid, provided that the last one is signed.
func (s *scanner) accept(f *Frame, hash audit.Hash) error {
	if f.Kind == audit.KindClose {
		if f.Count != uint32(s.records.Size()) || f.Root != s.records.Root() {
			return s.broken(f.Offset, "close frame does not match the records of the segment")
		}
		s.seg.Closed = true
	}
	for _, leaf := range f.Leaves {
		s.records.Push(leaf)
	}
	if s.records.Size() > maxSegmentRecords {
		return s.broken(f.Offset, "too many records")
	}
	s.seg.Last, s.seg.End = hash, f.Offset+f.size
	s.seg.Count = uint32(s.records.Size())
	return nil
}

// tail judges what follows the last valid frame.
func (s *scanner) tail(off int64, why error) (Segment, error) {
	rest := s.data[off:]
	if !isPadding(rest) {
		if s.signedFrameIn(rest) {
			return Segment{}, s.broken(off, why.Error())
		}
		s.seg.Torn = int64(len(bytes.TrimRight(rest, "\x00")))
	}
	s.seg.Root, s.seg.Size = s.records.Root(), int64(len(s.data))
	return s.seg, nil
}

// signedFrameIn looks for a frame anywhere in b that carries the log's signature.
func (s *scanner) signedFrameIn(b []byte) bool {
	for i := 0; i+closeSize <= len(b); i++ {
		if b[i] != batchMagic[0] || (b[i+2] != batchMagic[2] && b[i+2] != closeMagic[2]) {
			continue
		}
		var f Frame
		if s.p.frame(&f, b, int64(i)) == nil && f.Verify(s.key, f.Signature) {
			return true
		}
	}
	return false
}

func (s *scanner) broken(off int64, what string) error {
	return &audit.BrokenError{File: s.name, Offset: off, What: what}
}
