package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sallyport/sallyport/gateway/audit"
)

// ReadHeader reads the header of a segment in the log in dir.
func ReadHeader(dir string, number uint64) (Header, error) {
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(SegmentPath(number))))
	if err != nil {
		return Header{}, err
	}
	defer f.Close()
	return readHeader(f, number)
}

func readHeader(f *os.File, number uint64) (Header, error) {
	b := make([]byte, headerFixed+audit.MaxNameSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Header{}, err
	}
	h, err := parseHeader(b[:n])
	var malformed errMalformed
	if errors.As(err, &malformed) || (err == nil && h.Number != number) {
		return h, &audit.BrokenError{File: SegmentPath(number), What: "not the header of this segment"}
	}
	return h, err
}

// ReadClosed reads the header and the close frame of a closed segment and checks
// the frame's signature. It does not look at the records: it is for whoever wrote
// them.
func ReadClosed(dir string, number uint64, key audit.PublicKey) (Segment, error) {
	name := SegmentPath(number)
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		return Segment{}, err
	}
	defer f.Close()
	h, err := readHeader(f, number)
	if err != nil {
		return Segment{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return Segment{}, err
	}
	off := info.Size() - closeSize
	b := make([]byte, closeSize)
	if _, err := f.ReadAt(b, max(off, 0)); err != nil {
		return Segment{}, fmt.Errorf("journal: reading the end of %s: %w", name, err)
	}
	var frame Frame
	p := parser{instance: key.Name(), segment: number}
	err = p.frame(&frame, b, 0)
	if err != nil || frame.Kind != audit.KindClose || h.Instance != key.Name() || !frame.Verify(key, frame.Signature) {
		return Segment{}, &audit.BrokenError{File: name, Offset: off, What: "no signed close frame"}
	}
	return Segment{
		Header: h, Count: frame.Count, Root: frame.Root, Last: frame.FrameHash(frame.Signature),
		Closed: true, End: info.Size(), Size: info.Size(),
	}, nil
}
