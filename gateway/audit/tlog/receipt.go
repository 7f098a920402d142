package tlog

import (
	"errors"
	"fmt"
	"io/fs"

	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/journal"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

// ErrNotInLog: the log signed the receipt, and does not hold the record. Somebody
// has removed or replaced it, or these are the files of an older state.
var ErrNotInLog = errors.New("tlog: record of a valid receipt is not in the log")

// Inclusion is what CheckReceipt found.
type Inclusion struct {
	Record *auditv1.Record
	// Sealed: the record's segment is under the checkpoint. If not, the record is
	// in the journal and awaits sealing.
	Sealed     bool
	Checkpoint Checkpoint
}

// CheckReceipt checks that a receipt is signed by the log and that its record is
// in the files in dir, with the same bytes, and under the checkpoint if its
// segment is sealed. It reads one segment and the tiles on the way to the root.
//
// The error is or wraps audit.ErrReceiptSignature, ErrNotInLog, an
// *audit.BrokenError, journal.ErrForeign, or what the file system says.
func CheckReceipt(dir string, key audit.PublicKey, receipt audit.Receipt) (Inclusion, error) {
	if err := receipt.Verify(key); err != nil {
		return Inclusion{}, err
	}
	if err := verifyFormat(dir, key); err != nil {
		return Inclusion{}, err
	}
	c, err := readCheckpoint(dir, key)
	if err != nil {
		return Inclusion{}, err
	}
	record, seg, err := findRecord(dir, key, receipt)
	if err != nil {
		return Inclusion{}, err
	}
	in := Inclusion{Record: record, Checkpoint: c, Sealed: receipt.Segment < c.Size}
	if !in.Sealed {
		return in, nil
	}
	hashes, err := leafHashes(dir, c, receipt.Segment, receipt.Segment+1)
	if err != nil {
		return Inclusion{}, err
	}
	if !seg.Closed || audit.LeafHash(leafOf(seg).Bytes()) != hashes[0] {
		return Inclusion{}, broken(journal.SegmentPath(receipt.Segment), "is not the segment that was sealed")
	}
	return in, nil
}

// findRecord reads the receipt's segment and returns its record.
func findRecord(dir string, key audit.PublicKey, receipt audit.Receipt) (*auditv1.Record, journal.Segment, error) {
	root, fsys, err := journal.DirFS(dir)
	if err != nil {
		return nil, journal.Segment{}, err
	}
	defer root.Close()
	name := journal.SegmentPath(receipt.Segment)
	data, err := fsys.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, journal.Segment{}, fmt.Errorf("%w: no file %s", ErrNotInLog, name)
	}
	if err != nil {
		return nil, journal.Segment{}, err
	}
	var found *auditv1.Record
	seg, err := journal.Scan(name, receipt.Segment, data, key, func(f *journal.Frame) error {
		i := receipt.Sequence() - f.First
		if i >= uint64(len(f.Leaves)) || f.Leaves[i] != receipt.Record {
			return nil
		}
		for n, b := range f.Records() {
			if uint64(n) == i {
				found = new(auditv1.Record)
				return proto.Unmarshal(b, found)
			}
		}
		return nil
	})
	if err == nil && found == nil {
		err = fmt.Errorf("%w: %s has another record %d, or none", ErrNotInLog, name, receipt.Sequence())
	}
	return found, seg, err
}
