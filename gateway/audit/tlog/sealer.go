package tlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/journal"
)

const (
	// sealLimit bounds how many segments one round seals, so that after a long
	// outage checkpoints appear while it catches up.
	sealLimit = 4096
	// sealTimeout bounds one round. Tessera tries again within it, and says why at
	// debug level.
	sealTimeout = 15 * time.Second
	sealBackoff = time.Second
)

// ErrDiverged: the tree on disk is not the one that the journal's segments and
// the last checkpoint lead to. Nothing is signed then.
var ErrDiverged = errors.New("tlog: tree does not follow from the journal")

// sealer puts closed segments into the tree, in order, and signs checkpoints. Its
// methods run on one goroutine.
type sealer struct {
	dir    string // of the log
	key    audit.PrivateKey
	logger *slog.Logger
	closed func() uint64 // number of closed segments

	tree   tree // nil: to be opened
	leaves audit.Range
	last   [][]byte // entries of the last bundle, if it is not full

	wake chan struct{} // of capacity 1: a segment has been closed
	stop chan struct{} // closed when no more segments will be
	done chan struct{} // closed when the goroutine has ended

	sealed  atomic.Uint64
	failure atomic.Pointer[error]
}

// load reads where sealing stopped and checks that the journal still leads there.
func (s *sealer) load() error {
	c, err := readCheckpoint(s.dir, s.key.Public())
	if err != nil {
		return err
	}
	if c.Size > s.closed() {
		return broken(checkpointName, fmt.Sprintf("covers %d segments, the journal has %d", c.Size, s.closed()))
	}
	p, err := peaks(s.dir, c)
	if err != nil {
		return err
	}
	s.leaves = audit.RangeFrom(c.Size, p)
	if s.leaves.Root() != c.Root {
		return broken(treeDir+"/tile", "does not match the checkpoint")
	}
	if err := s.loadBundle(c); err != nil {
		return err
	}
	s.sealed.Store(c.Size)
	return nil
}

// loadBundle reads the entries of the last bundle, if it is partial, and checks
// the newest of them against its segment.
func (s *sealer) loadBundle(c Checkpoint) error {
	if c.Size == 0 {
		return nil
	}
	index := (c.Size - 1) / bundleWidth
	n := c.Size - index*bundleWidth
	b, name, err := tiles{s.dir}.bundle(index, n)
	if err != nil {
		return broken(name, err.Error())
	}
	entries, err := splitBundle(b, n)
	if err != nil {
		return broken(name, err.Error())
	}
	hashes, err := leafHashes(s.dir, c, index*bundleWidth, c.Size)
	if err != nil {
		return err
	}
	for i, entry := range entries {
		if audit.LeafHash(entry) != hashes[i] {
			return broken(name, fmt.Sprintf("entry %d does not match the tree", i))
		}
	}
	seg, err := journal.ReadClosed(s.dir, c.Size-1, s.key.Public())
	if err != nil {
		return err
	}
	if string(leafOf(seg).Bytes()) != string(entries[n-1]) {
		return broken(journal.SegmentPath(c.Size-1), "is not the segment that was sealed")
	}
	if n < bundleWidth {
		s.last = entries
	}
	return nil
}

// run is the sealer's goroutine. It ends after stop is closed, when everything is
// sealed or ctx ends.
func (s *sealer) run(ctx context.Context) {
	defer close(s.done)
	for ctx.Err() == nil {
		if s.sealed.Load() < s.closed() || s.tree == nil {
			s.note(s.seal(ctx))
			if s.failure.Load() != nil {
				sleep(ctx, sealBackoff)
			}
			continue
		}
		select {
		case <-s.wake:
		case <-s.stop:
			if s.sealed.Load() == s.closed() {
				return
			}
		case <-ctx.Done():
		}
	}
}

// note keeps the outcome of a round, and logs when it changes.
func (s *sealer) note(err error) {
	if err == nil {
		if s.failure.Swap(nil) != nil {
			s.logger.Info("audit log is being sealed again", "segments", s.sealed.Load())
		}
		return
	}
	if s.failure.Swap(&err) == nil {
		s.logger.Error("audit log cannot be sealed", "error", err, "sealed", s.sealed.Load(), "closed", s.closed())
	}
}

// seal is one round: read the leaves of the next segments, put them into the
// tree, and publish a checkpoint.
func (s *sealer) seal(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, sealTimeout)
	defer cancel()
	defer func() {
		if err != nil {
			s.tree = nil // it may hold a lock for ever; open another
		}
	}()
	if s.tree == nil {
		if s.tree, err = openTree(ctx, filepath.Join(s.dir, treeDir)); err != nil {
			return err
		}
		if err := sweep(s.dir); err != nil {
			return err
		}
	}
	from := s.sealed.Load()
	// A tree that is ahead of the checkpoint was grown just before a crash. It
	// cannot grow backwards, so this round reaches at least as far.
	have, err := s.tree.IntegratedSize(ctx)
	if err != nil {
		return err
	}
	to := min(s.closed(), max(from+sealLimit, have))
	if from == to {
		return nil
	}
	leaves, last, bundles, err := s.collect(from, to)
	if err != nil {
		return err
	}
	root, err := grow(ctx, s.tree, to, bundles)
	if err != nil {
		return err
	}
	if root != leaves.Root() {
		return fmt.Errorf("%w: root of %d segments is %x, want %x", ErrDiverged, to, root, leaves.Root())
	}
	if err := s.publish(Checkpoint{Size: to, Root: root}); err != nil {
		return err
	}
	// Crash before: the tree is ahead of the checkpoint, and the next round
	// publishes. Crash after: nothing to do.
	s.leaves, s.last = leaves, last
	s.sealed.Store(to)
	if from/bundleWidth != to/bundleWidth {
		return sweep(s.dir)
	}
	return nil
}

// collect reads the segments in [from, to) and returns the tree and the last,
// partial bundle as they will be, and the bundles to write.
func (s *sealer) collect(from, to uint64) (audit.Range, [][]byte, map[uint64][]byte, error) {
	leaves := s.leaves.Clone()
	entries := s.last[:len(s.last):len(s.last)]
	bundles := make(map[uint64][]byte)
	flush := func(index uint64) {
		var b []byte
		for _, e := range entries {
			b = appendEntry(b, e)
		}
		bundles[index] = b
	}
	for n := from; n < to; n++ {
		seg, err := journal.ReadClosed(s.dir, n, s.key.Public())
		if err != nil {
			return leaves, nil, nil, err
		}
		entry := leafOf(seg).Bytes()
		leaves.Push(audit.LeafHash(entry))
		entries = append(entries, entry)
		if len(entries) == bundleWidth {
			flush(n / bundleWidth)
			entries = nil
		}
	}
	if len(entries) > 0 {
		flush(to / bundleWidth)
	}
	return leaves, entries, bundles, nil
}

// publish signs the checkpoint and replaces the published one. Cosignatures of
// witnesses would be gathered between the two.
func (s *sealer) publish(c Checkpoint) error {
	msg, err := c.sign(s.key)
	if err != nil {
		return err
	}
	return writeCheckpoint(s.dir, msg)
}

// lag returns how long the oldest closed segment has been waiting.
func (s *sealer) lag() time.Duration {
	sealed := s.sealed.Load()
	if sealed >= s.closed() {
		return 0
	}
	info, err := os.Stat(filepath.Join(s.dir, filepath.FromSlash(journal.SegmentPath(sealed))))
	if err != nil {
		return 0 // which only a removed file gives, and sealing reports
	}
	return max(time.Since(info.ModTime()), 0)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
