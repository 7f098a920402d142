// Package tlog is the audit log as a whole: a journal whose closed segments are
// sealed, one leaf a segment, into a tile-based transparency log
// (https://c2sp.org/tlog-tiles) with signed checkpoints; and the offline reading
// and verification of both.
//
// A log is written by one process: [Create] makes it, [Open] writes it. [Verify],
// [Read] and [CheckReceipt] need only the files and the public key, and work
// while the log is being written.
package tlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/journal"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

// ErrLagging is returned by Health, beside audit.ErrUnavailable, when closed
// segments have been waiting for longer than Config.MaxLag to be sealed. Appends
// still succeed; whether to go on is for the caller to decide.
var ErrLagging = errors.New("tlog: sealing is behind")

// Config says how to open a log. Only Dir and Key are required.
type Config struct {
	Dir string           // made by Create
	Key audit.PrivateKey // its name is the log's origin

	SegmentAge     time.Duration // default 5 s
	SegmentSize    int64         // bytes, default 16 MiB
	SegmentRecords uint32        // default 65536
	Timeout        time.Duration // of Append, default 2 s
	Queue          int           // records, default 8192

	// MaxLag makes Health fail when sealing is further behind. Zero: it never does.
	MaxLag time.Duration

	Logger   *slog.Logger         // default: none
	OnCommit func(journal.Commit) // after each batch; must be quick
}

// Log is an open audit log. It implements audit.Log.
type Log struct {
	journal *journal.Journal
	sealer  *sealer
	maxLag  time.Duration
	cancel  context.CancelFunc // of the sealer
	stop    sync.Once
}

var _ audit.Log = (*Log)(nil)

// Stats are the journal's counters and the state of sealing.
type Stats struct {
	journal.Stats
	Sealed    uint64        // segments that the published checkpoint covers
	Lag       time.Duration // since the oldest segment that awaits sealing was closed; 0 if none
	SealError error         // why the last round of sealing failed, if it did
}

// Create makes an empty log in dir for the holder of key. The error wraps
// fs.ErrExist if there is a log already, or what is left of one.
func Create(dir string, key audit.PrivateKey) error {
	if _, err := os.Stat(filepath.Join(dir, journal.FormatName)); err == nil {
		return fmt.Errorf("tlog: log in %s: %w", dir, fs.ErrExist)
	}
	if _, err := journal.ReadHeader(dir, 0); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("tlog: segments in %s: %w", dir, fs.ErrExist)
	}
	if err := os.MkdirAll(filepath.Join(dir, treeDir), 0o700); err != nil {
		return err
	}
	var empty audit.Range
	msg, err := Checkpoint{Root: empty.Root()}.sign(key)
	if err != nil {
		return err
	}
	if err := writeCheckpoint(dir, msg); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	// The FORMAT file comes last and makes the directory a log: from then on there
	// is a checkpoint, and if it is missing somebody took it away. A crash before
	// leaves a directory that Create completes.
	return journal.Create(dir, key.Public())
}

// Open opens the log in cfg.Dir, recovers what a crash has left and starts to
// write and to seal; Close ends both. ctx bounds nothing after Open has returned.
//
// The error is or wraps journal.ErrForeign, journal.ErrNewerFormat,
// journal.ErrLocked, an *audit.BrokenError (files are missing or changed), or
// what the file system says.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	quiet(cfg.Logger)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := &sealer{
		dir: cfg.Dir, key: cfg.Key, logger: cfg.Logger,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	j, err := journal.Open(journal.Config{
		Dir: cfg.Dir, Key: cfg.Key, SegmentAge: cfg.SegmentAge, SegmentSize: cfg.SegmentSize,
		SegmentRecords: cfg.SegmentRecords, Timeout: cfg.Timeout, Queue: cfg.Queue,
		Logger: cfg.Logger, OnCommit: cfg.OnCommit, OnClose: s.closedSegment,
	})
	if err != nil {
		return nil, err
	}
	s.closed = j.Closed
	if err := s.load(); err != nil {
		return nil, errors.Join(err, j.Close(ctx))
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go s.run(run)
	return &Log{journal: j, sealer: s, maxLag: cfg.MaxLag, cancel: cancel}, nil
}

// closedSegment wakes the sealer.
func (s *sealer) closedSegment(uint64) {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Append implements audit.Log. It does not wait for sealing.
func (l *Log) Append(ctx context.Context, r *auditv1.Record) (audit.Receipt, error) {
	return l.journal.Append(ctx, r)
}

// Health returns nil while appends are expected to succeed and sealing keeps up
// with Config.MaxLag. The error wraps audit.ErrUnavailable and gives the reason.
func (l *Log) Health() error {
	if err := l.journal.Health(); err != nil {
		return err
	}
	if l.maxLag == 0 {
		return nil
	}
	if lag := l.sealer.lag(); lag > l.maxLag {
		err := fmt.Errorf("%w: %w by %v", audit.ErrUnavailable, ErrLagging, lag.Round(time.Second))
		if p := l.sealer.failure.Load(); p != nil {
			err = fmt.Errorf("%w: %w", err, *p)
		}
		return err
	}
	return nil
}

// Stats returns the counters.
func (l *Log) Stats() Stats {
	s := Stats{Stats: l.journal.Stats(), Sealed: l.sealer.sealed.Load(), Lag: l.sealer.lag()}
	if p := l.sealer.failure.Load(); p != nil {
		s.SealError = *p
	}
	return s
}

// Close refuses further appends, makes durable what is queued, seals it, and
// gives up the directory. When ctx ends first the rest is left to the next Open:
// nothing that was acknowledged is lost. The directory may then stay locked; Close
// can be called again to wait for the goroutines and give it up.
func (l *Log) Close(ctx context.Context) error {
	err := l.journal.Stop(ctx)
	if err == nil {
		err = l.finishSealing(ctx)
	}
	l.cancel()
	// Only a sealer that has ended may lose the lock: another process would write
	// to the same tree.
	select {
	case <-l.sealer.done:
		return errors.Join(err, ignoreStopped(l.journal.Close(ctx), err))
	case <-ctx.Done():
		return errors.Join(err, ctx.Err())
	}
}

// finishSealing waits until all segments are sealed, for as long as that works.
func (l *Log) finishSealing(ctx context.Context) error {
	s := l.sealer
	l.stop.Do(func() { close(s.stop) })
	for {
		select {
		case <-s.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
			if p := s.failure.Load(); p != nil {
				return *p
			}
		}
	}
}

// ignoreStopped drops an error that Stop has returned already.
func ignoreStopped(err, before error) error {
	if before == nil {
		return err
	}
	return nil
}
