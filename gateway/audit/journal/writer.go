package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/sallyport/sallyport/gateway/audit"
)

const (
	// zeroAhead is how much of a file is filled with zeros ahead of the frames. An
	// fdatasync that changes neither the length nor the allocation of a file costs
	// half of one that does (docs/decisions/0021).
	zeroAhead = 256 << 10

	firstBackoff = 5 * time.Millisecond
	maxBackoff   = time.Second
)

var zeros [zeroAhead]byte

// segment is the file that is being written.
type segment struct {
	Header
	file    File
	opened  time.Time
	end     int64       // of the header and the acknowledged frames
	zeroed  int64       // the file has been written up to here
	records audit.Range // acknowledged
	suspect bool        // a sync has failed: what the file holds is not known
}

// writer owns the files. All its methods run on one goroutine.
type writer struct {
	j   *Journal
	fs  FS
	key audit.PrivateKey

	seg    *segment   // nil: the next record opens one
	number uint64     // of the next segment to open; all below are closed
	next   uint64     // sequence number of the next record
	chain  audit.Hash // hash of the header or frame that the next frame follows
	dir    string     // the directory known to exist

	age    *time.Timer // of the open segment
	crowd  int         // records of the last batch
	taken  []*item
	leaves []audit.Hash
	body   []byte
	buf    []byte
}

// run is the writer's goroutine. It ends after Journal.Stop.
func (w *writer) run() {
	defer close(w.j.done)
	for {
		stopping := false
		select {
		case <-w.j.queue.wake:
		case <-w.age.C:
		case <-w.j.stop:
			stopping = true
		}
		if !stopping {
			w.gather()
		}
		w.taken = w.j.queue.take(w.taken[:0])
		if err := w.commit(w.taken); err != nil && !w.retry(w.taken, err) {
			return
		}
		if stopping && len(w.taken) == 0 {
			w.finish()
			return
		}
		w.crowd = len(w.taken)
		clear(w.taken)
		// Let the callers that were just answered queue their next records, so that
		// they share a sync with those that came meanwhile. Otherwise busy callers
		// fall into two halves that wait for each other.
		runtime.Gosched()
	}
}

// A batch costs as much processor time as several records: a write, a sync, a
// signature. While callers are many, the writer waits for more of them, about as
// long as a sync takes; few callers are not kept waiting. With 32 callers this takes
// a tenth of the gateway's processor time away, and none of its throughput.
const (
	gatherFor    = 600 * time.Microsecond
	gatherFrom   = 4  // records in the batch before: there are callers to wait for
	gatherEnough = 16 // records that are waiting: no more is gained
)

// gather waits for more records to share the next sync.
func (w *writer) gather() {
	if w.crowd < gatherFrom || w.j.queue.depth() >= gatherEnough {
		return
	}
	pause := time.NewTimer(gatherFor)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-w.j.stop:
	}
}

// finish closes the open segment, trying once.
func (w *writer) finish() {
	if w.seg == nil {
		return
	}
	w.seg.opened = time.Time{} // long ago: due
	if err := w.commit(nil); err != nil {
		w.fail(nil, err)
		w.seg.release()
	}
}

// retry answers the batch's callers with the error, and goes on trying to write
// it: their records have sequence numbers and a signature that a reader may have
// seen, and are not to be replaced by others. Meanwhile it refuses what comes. It
// is false if the journal was closed before the disk recovered.
func (w *writer) retry(batch []*item, err error) bool {
	var refused []*item
	w.fail(batch, err)
	backoff := firstBackoff
	timer := time.NewTimer(backoff)
	defer timer.Stop()
	for stopping := false; ; {
		select {
		case <-w.j.stop:
			stopping = true // and try once more
		case <-timer.C:
		case <-w.j.queue.wake:
			refused = w.j.queue.take(refused[:0])
			w.fail(refused, err)
			continue
		}
		if err = w.commit(batch); err == nil {
			w.j.cfg.Logger.Info("audit journal has recovered", "next", w.next)
			return true
		}
		w.fail(w.j.queue.take(refused[:0]), err)
		if stopping {
			w.seg.release()
			return false
		}
		backoff = min(2*backoff, maxBackoff)
		timer.Reset(backoff)
	}
}

// fail makes the journal unhealthy and answers the items.
func (w *writer) fail(batch []*item, err error) {
	err = fmt.Errorf("%w: %w", audit.ErrUnavailable, err)
	if w.j.failure.Swap(&err) == nil {
		w.j.cfg.Logger.Error("audit journal cannot write", "error", err)
	}
	w.j.failures.Add(1)
	for _, it := range batch {
		if it.err == nil {
			it.err = err
			it.done <- struct{}{}
		}
	}
}

// commit makes a batch durable and answers its callers. Without items it only
// does what is due. After an error the same batch can be tried again.
func (w *writer) commit(batch []*item) error {
	start := time.Now()
	w.j.busySince.Store(start.UnixNano())
	signed, err := w.attempt(batch)
	w.j.busySince.Store(0)
	if err != nil {
		return err
	}
	w.j.failure.Store(nil)
	if signed == nil {
		return nil
	}
	w.j.records.Add(uint64(len(batch)))
	w.j.batches.Add(1)
	w.j.bytes.Add(uint64(len(w.buf)))
	w.j.next.Store(w.next)
	if f := w.j.cfg.OnCommit; f != nil {
		f(Commit{Records: len(batch), Bytes: len(w.buf), Sync: time.Since(start)})
	}
	for i, it := range batch {
		if it.err != nil {
			continue // its caller was told otherwise and has gone
		}
		it.batch, it.index = signed, uint32(i)
		it.done <- struct{}{} // from here on it belongs to its caller
	}
	return nil
}

func (w *writer) attempt(batch []*item) (*signedBatch, error) {
	if w.seg != nil && w.seg.suspect {
		if err := w.abandon(); err != nil {
			return nil, err
		}
	}
	if w.seg != nil && w.due() {
		if err := w.closeSegment(); err != nil {
			return nil, err
		}
	}
	if len(batch) == 0 {
		return nil, nil
	}
	if w.seg == nil {
		if err := w.openSegment(); err != nil {
			return nil, err
		}
	}
	return w.write(batch)
}

// due reports whether the open segment is to be closed. One without acknowledged
// records is not: there would be nothing to close.
func (w *writer) due() bool {
	s, cfg := w.seg, &w.j.cfg
	return s.records.Size() > 0 && (s.end >= cfg.SegmentSize ||
		s.records.Size() >= uint64(cfg.SegmentRecords) ||
		time.Since(s.opened) >= cfg.SegmentAge)
}

// openSegment makes the file of the next segment, with its header. The header is
// durable before the first batch is written, so that a batch behind a header that
// does not parse is never the work of a crash.
func (w *writer) openSegment() error {
	if dir := shard(w.number); dir != w.dir {
		if err := w.fs.Mkdir(dir); err != nil {
			return err
		}
		if err := w.fs.SyncDir(segmentDir); err != nil {
			return err
		}
		w.dir = dir
	}
	// A file of this number can only be an attempt that failed.
	name := SegmentPath(w.number)
	if err := remove(w.fs, name); err != nil {
		return err
	}
	f, err := w.fs.Create(name)
	if err != nil {
		return err
	}
	s := &segment{
		Header: Header{Instance: w.key.Name(), Number: w.number, First: w.next, Prev: w.chain},
		file:   f, opened: time.Now(),
	}
	s.end = s.Header.size()
	// A crash from here to the end leaves no file, or one without batches, which
	// recovery removes.
	if err := errors.Join(s.begin(), w.fs.SyncDir(w.dir)); err != nil {
		s.release()
		return err
	}
	w.seg, w.chain = s, s.Header.hash()
	w.age.Reset(w.j.cfg.SegmentAge)
	return nil
}

// begin writes the header.
func (s *segment) begin() error {
	if err := s.writeAhead(s.end); err != nil {
		return err
	}
	if err := writeAll(s.file, s.Header.append(nil), 0); err != nil {
		return err
	}
	return s.file.Sync()
}

// write appends one batch to the open segment.
func (w *writer) write(batch []*item) (*signedBatch, error) {
	s := w.seg
	signed, hash := w.frame(batch)
	end := s.end + int64(len(w.buf))
	if err := s.writeAhead(end); err != nil {
		return nil, err
	}
	// After a failed write the file is in order up to s.end: the next attempt
	// writes the same bytes to the same place. A crash leaves a part of them, which
	// recovery cuts, or all, which it keeps.
	if err := writeAll(s.file, w.buf, s.end); err != nil {
		return nil, err
	}
	if err := s.file.Sync(); err != nil {
		s.suspect = true
		return nil, err
	}
	// From here on the batch survives everything, whether or not anybody hears.
	for _, leaf := range w.leaves {
		s.records.Push(leaf)
	}
	s.end, w.chain = end, hash
	w.next += uint64(len(batch))
	return signed, nil
}

// frame signs a batch and puts its frame in w.buf.
func (w *writer) frame(batch []*item) (*signedBatch, audit.Hash) {
	w.leaves, w.body = w.leaves[:0], w.body[:0]
	for _, it := range batch {
		w.leaves = append(w.leaves, it.hash)
		w.body = binary.BigEndian.AppendUint32(w.body, uint32(len(it.record())))
		w.body = append(w.body, it.record()...)
	}
	signed := &signedBatch{tree: audit.NewTree(w.leaves)}
	signed.Batch = audit.Batch{
		Kind: audit.KindBatch, Instance: w.seg.Instance, Segment: w.seg.Number,
		First: w.next, Count: uint32(len(batch)), Prev: w.chain, Root: signed.tree.Root(),
	}
	var hash audit.Hash
	signed.sig, hash = signed.Batch.Sign(w.key)
	w.buf = appendFrame(w.buf[:0], &signed.Batch, w.body, signed.sig)
	return signed, hash
}

// release closes the file of a segment that is given up, if there is one.
func (s *segment) release() {
	if s != nil && s.file != nil {
		s.file.Close()
		s.file = nil
	}
}

// writeAhead fills the file with zeros up to a good way beyond end.
func (s *segment) writeAhead(end int64) error {
	for end > s.zeroed {
		if err := writeAll(s.file, zeros[:], s.zeroed); err != nil {
			return err
		}
		s.zeroed += zeroAhead
	}
	return nil
}

func writeAll(f File, b []byte, off int64) error {
	n, err := f.WriteAt(b, off)
	if err == nil && n < len(b) {
		err = fmt.Errorf("short write: %d of %d bytes", n, len(b))
	}
	return err
}
