package tlog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/journal"
)

// VerifyOptions are the choices of Verify. The zero value is a good one.
type VerifyOptions struct {
	// Parallel is the number of segments read at a time. Default GOMAXPROCS.
	Parallel int
	// Earlier, if set, is a checkpoint that was kept from before. The log must
	// continue it.
	Earlier []byte
}

// Report is what Verify found in a log that is in order.
type Report struct {
	Segments   uint64 // in all, the open one included
	Records    uint64
	Sealed     uint64 // segments under the checkpoint
	SealedRecs uint64 // records in them
	Checkpoint Checkpoint

	// Torn is the number of bytes at the end of the last segment that are not a
	// whole batch. They are what is left of a batch that was being written, which
	// nobody was given a receipt for; but whoever changes the last batch of a
	// segment that is still open makes it look like that. It is 0 after a clean
	// stop.
	Torn int64
	// Strays are files among the tiles that are not part of the log, as interrupted
	// writes leave them. Nothing reads them.
	Strays []string
}

// Unsealed returns the number of records that no checkpoint covers yet. Someone
// who can write the files can cut these off unseen, except by who has receipts.
func (r Report) Unsealed() uint64 { return r.Records - r.SealedRecs }

// Verify checks every byte of the log in dir, offline: that the journal is one
// unbroken chain under key's signatures, and that the tree's entries, tiles,
// state and checkpoint are those that the journal leads to.
//
// It needs no lock and can run while the log is written. The error is or wraps an
// *audit.BrokenError with the first broken place, journal.ErrForeign,
// journal.ErrNewerFormat, or what the file system says.
func Verify(dir string, key audit.PublicKey, opts VerifyOptions) (Report, error) {
	if err := verifyFormat(dir, key); err != nil {
		return Report{}, err
	}
	// The order matters while the log grows: the journal is always ahead of the
	// tiles, and the tiles of the checkpoint. What is read first can then be
	// explained by what is read later.
	c, err := readCheckpoint(dir, key)
	if err != nil {
		return Report{}, err
	}
	t, err := readTree(dir)
	if err != nil {
		return Report{}, err
	}
	segments, err := verifyJournal(dir, key, opts.Parallel)
	if err != nil {
		return Report{}, err
	}
	r := Report{Segments: uint64(len(segments)), Sealed: c.Size, Checkpoint: c, Strays: t.strays}
	var closed []Leaf
	for i, s := range segments {
		r.Records += uint64(s.Count)
		if uint64(i) < c.Size {
			r.SealedRecs += uint64(s.Count)
		}
		if s.Closed && !s.Done() {
			// As a crash in closing leaves it. Sealed it can only be after recovery.
			if uint64(i) < c.Size {
				return Report{}, &audit.BrokenError{File: journal.SegmentPath(uint64(i)), Offset: s.End, What: "bytes after the close frame"}
			}
			s.Torn = s.Size - s.End
		}
		r.Torn += s.Torn
		if s.Closed {
			closed = append(closed, leafOf(s))
		}
	}
	if err := t.verify(dir, newShape(closed), c); err != nil {
		return Report{}, err
	}
	return r, verifyEarlier(opts.Earlier, key, closed, c)
}

func verifyFormat(dir string, key audit.PublicKey) error {
	root, fsys, err := journal.DirFS(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return journal.CheckFormat(fsys, key.Name())
}

// verifyEarlier checks that the tree continues one whose checkpoint was kept.
func verifyEarlier(msg []byte, key audit.PublicKey, closed []Leaf, now Checkpoint) error {
	if msg == nil {
		return nil
	}
	earlier, err := ParseCheckpoint(msg, key)
	if err != nil {
		return fmt.Errorf("tlog: the earlier checkpoint: %w", err)
	}
	if earlier.Size > now.Size {
		return broken(checkpointName, fmt.Sprintf("covers %d segments, an earlier one covered %d", now.Size, earlier.Size))
	}
	if rootOf(closed[:earlier.Size]) != earlier.Root {
		return broken(checkpointName, fmt.Sprintf("does not continue the earlier one of %d segments", earlier.Size))
	}
	return nil
}

func rootOf(leaves []Leaf) audit.Hash {
	var r audit.Range
	for _, l := range leaves {
		r.Push(audit.LeafHash(l.Bytes()))
	}
	return r.Root()
}

// verifyJournal checks all segments and returns them.
func verifyJournal(dir string, key audit.PublicKey, parallel int) ([]journal.Segment, error) {
	root, fsys, err := journal.DirFS(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	numbers, err := journal.Segments(fsys)
	if err != nil {
		return nil, err
	}
	for i, n := range numbers {
		if n != uint64(i) {
			return nil, broken(journal.SegmentPath(uint64(i)), "is missing")
		}
	}
	segments := make([]journal.Segment, len(numbers))
	err = each(len(numbers), parallel, func(i int) (err error) {
		segments[i], err = readSegment(fsys, uint64(i), key, i == len(numbers)-1)
		return err
	})
	if err != nil {
		return nil, err
	}
	if n := len(segments); n > 0 && segments[n-1].End == 0 {
		torn := segments[n-1].Torn // a segment whose first batch is being written
		segments = segments[:n-1]
		if n > 1 {
			segments[n-2].Torn += torn
		}
	}
	return segments, verifyLinks(segments)
}

// readSegment checks one segment by itself.
func readSegment(fsys journal.FS, number uint64, key audit.PublicKey, last bool) (journal.Segment, error) {
	name := journal.SegmentPath(number)
	var before []byte
	for {
		data, err := fsys.ReadFile(name)
		if err != nil {
			return journal.Segment{}, err
		}
		s, err := journal.Scan(name, number, data, key, nil)
		if last && (err != nil || s.Torn > 0) && !bytes.Equal(data, before) {
			// Perhaps it was read while it was written. What stays was not.
			before = data
			time.Sleep(5 * time.Millisecond) //nolint:forbidigo // there is nothing to wait for: the writer is another process
			continue
		}
		if err == nil && !last && !s.Done() {
			err = &audit.BrokenError{File: name, Offset: s.End, What: "segment does not end with a close frame, and is not the last"}
		}
		return s, err
	}
}

// verifyLinks checks that each segment continues the one before.
func verifyLinks(segments []journal.Segment) error {
	var prev audit.Hash
	var next uint64
	for i, s := range segments {
		if s.Prev != prev || s.First != next {
			return broken(journal.SegmentPath(uint64(i)), "does not continue the segment before")
		}
		prev, next = s.Last, s.Next()
	}
	return nil
}

// each calls f for 0 to n-1, some at a time, and returns the error of the lowest
// number that has one.
func each(n, parallel int, f func(i int) error) error {
	if parallel <= 0 {
		parallel = runtime.GOMAXPROCS(0)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex
	failed, failure := n, error(nil)
	for range min(parallel, n) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				mu.Lock()
				stop := i >= failed
				mu.Unlock()
				if stop || i >= n {
					return
				}
				if err := f(i); err != nil {
					mu.Lock()
					if i < failed {
						failed, failure = i, err
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return failure
}

// readTree reads the files of the tree's directory.
func readTree(dir string) (*treeFiles, error) {
	t := &treeFiles{tiles: make(map[tileName]bool)}
	for _, state := range []struct {
		name string
		to   *[]byte
	}{{treeStateName, &t.state}, {versionName, &t.version}} {
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(state.name)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		*state.to = b
	}
	base := filepath.Join(dir, treeDir)
	err := filepath.WalkDir(filepath.Join(base, "tile"), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // no tile yet, or swept while we walk
		}
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(base, path)
		if err != nil {
			return err
		}
		if tile, ok := parseTile(filepath.ToSlash(name)); ok {
			t.tiles[tile] = true
		} else {
			t.strays = append(t.strays, treeDir+"/"+filepath.ToSlash(name))
		}
		return nil
	})
	return t, err
}
