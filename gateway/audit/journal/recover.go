package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/sallyport/sallyport/gateway/audit"
)

// recoverWriter finds where the log ends, closes the segment that a crash left
// open, and returns a writer that continues.
func recoverWriter(j *Journal, fsys FS) (*writer, error) {
	age := time.NewTimer(time.Hour)
	age.Stop()
	w := &writer{j: j, fs: fsys, key: j.cfg.Key, age: age}
	last, ok, err := w.lastSegment()
	if err != nil || !ok {
		return w, err
	}
	if last > 0 {
		if err := w.continueAfter(last - 1); err != nil {
			return nil, err
		}
	}
	return w, w.recoverLast(last)
}

// lastSegment returns the highest segment number there is.
func (w *writer) lastSegment() (uint64, bool, error) {
	dirs, err := w.fs.List(segmentDir)
	if err != nil {
		return 0, false, err
	}
	for i := len(dirs) - 1; i >= 0; i-- { // the last may still be empty
		numbers, err := segmentsIn(w.fs, dirs[i])
		if err != nil {
			return 0, false, err
		}
		if len(numbers) > 0 {
			return numbers[len(numbers)-1], true, nil
		}
	}
	return 0, false, nil
}

// continueAfter sets the writer to continue after a closed segment.
func (w *writer) continueAfter(number uint64) error {
	name := SegmentPath(number)
	data, err := w.fs.ReadFile(name)
	if err != nil {
		return err
	}
	seg, err := Scan(name, number, data, w.key.Public(), nil)
	if err != nil {
		return err
	}
	if !seg.Done() {
		return &audit.BrokenError{File: name, Offset: seg.End, What: "segment does not end with a close frame, and is not the last"}
	}
	w.number, w.next, w.chain = number+1, seg.Next(), seg.Last
	return nil
}

// recoverLast writes the last segment anew, closed, keeping every batch that is
// whole, acknowledged or not. If no batch is, the file goes.
func (w *writer) recoverLast(number uint64) error {
	name := SegmentPath(number)
	data, err := w.fs.ReadFile(name)
	if err != nil {
		return err
	}
	var records audit.Range
	seg, err := Scan(name, number, data, w.key.Public(), func(f *Frame) error {
		for _, leaf := range f.Leaves {
			records.Push(leaf)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if seg.Torn > 0 {
		w.j.cfg.Logger.Warn("audit journal: cutting a batch that was never acknowledged",
			"file", name, "offset", seg.End, "bytes", seg.Torn)
	}
	if seg.End == 0 {
		if err := remove(w.fs, name); err != nil {
			return err
		}
		return w.fs.SyncDir(shard(number))
	}
	if seg.Prev != w.chain || seg.First != w.next {
		return &audit.BrokenError{File: name, What: "does not continue the segment before"}
	}
	// What was read may be in the page cache only, written but never synced, or
	// even forgotten by a sync that failed. So the file is written anew also when it
	// looks finished. The segments before were, before this one was begun.
	hash, err := rewriteClosed(w.fs, w.key, seg, data, &records)
	if err != nil {
		return err
	}
	w.number, w.next, w.chain = number+1, seg.Next(), hash
	return w.removeTemporary(number)
}

// removeTemporary removes what an interrupted rewrite has left.
func (w *writer) removeTemporary(number uint64) error {
	dir := shard(number)
	names, err := w.fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, temporary) {
			if err := remove(w.fs, dir+"/"+name); err != nil {
				return fmt.Errorf("removing a temporary file: %w", err)
			}
		}
	}
	return nil
}

// remove removes a file that need not exist.
func remove(fsys FS, name string) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
