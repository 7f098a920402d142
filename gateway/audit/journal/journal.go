// Package journal makes audit records durable: the one step of a call that waits
// for the disk.
//
// Callers marshal and hash their own records and queue them; one goroutine takes
// all that is queued, signs it as one batch, writes it with one write and one
// fdatasync, and wakes everybody. While a sync runs the next batch gathers, so
// throughput grows with load and a lone caller waits for one sync only.
//
// Batches form a hash chain through segment files. A segment ends after a size, a
// number of records or an age, with a signed close frame, and does not change
// afterwards; package tlog seals closed segments. See format.go for the bytes.
package journal

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/gateway/audit"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

var (
	errClosed = fmt.Errorf("%w: log is closed", audit.ErrUnavailable)
	errFull   = fmt.Errorf("%w: queue is full", audit.ErrUnavailable)
)

// ErrRecordTooLarge is returned together with audit.ErrUnavailable for a record
// of more than MaxRecordSize bytes.
var ErrRecordTooLarge = errors.New("journal: record is too large")

// Config says how to open a journal. Only Dir and Key are required.
type Config struct {
	Dir string           // made by Create
	Key audit.PrivateKey // its name is the log's

	SegmentAge     time.Duration // since the first record; default 5 s
	SegmentSize    int64         // bytes; default 16 MiB
	SegmentRecords uint32        // default 65536, at most 1 Mi

	// Timeout bounds how long Append waits for the disk. Default 2 s.
	Timeout time.Duration
	// Queue is the number of records that may wait for the writer. Default 8192.
	Queue int
	// QueueBytes bounds their size. Default 32 MiB.
	QueueBytes int

	Logger *slog.Logger // default: none

	// OnCommit, if set, is called by the writer after each batch. It must be
	// quick and must not call the journal.
	OnCommit func(Commit)
	// OnClose, if set, is called by the writer when a segment has been closed. The
	// same rules apply.
	OnClose func(number uint64)

	// FS replaces the file system in tests. Without it Dir is used, and locked.
	FS FS
}

// Commit describes one batch that has become durable.
type Commit struct {
	Records int
	Bytes   int           // written, with framing
	Sync    time.Duration // spent writing and syncing
}

// Stats are counters since Open, except where noted.
type Stats struct {
	Records, Batches, Bytes, Failures uint64
	Queued                            int    // now waiting
	Next                              uint64 // sequence number of the next record
	Closed                            uint64 // segments closed since the log was made
}

func (c *Config) setDefaults() {
	def(&c.SegmentAge, 5*time.Second)
	def(&c.SegmentSize, 16<<20)
	def(&c.SegmentRecords, 1<<16)
	c.SegmentRecords = min(c.SegmentRecords, maxSegmentRecords-maxBatchRecords)
	def(&c.Timeout, 2*time.Second)
	def(&c.Queue, 8192)
	def(&c.QueueBytes, 32<<20)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func def[T int | int64 | uint32 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Journal is an open journal. It implements audit.Log.
type Journal struct {
	cfg   Config
	queue queue
	lock  *os.File
	root  *os.Root

	unlocked sync.Once

	stop chan struct{} // closed by Close
	done chan struct{} // closed when the writer has ended

	failure   atomic.Pointer[error]
	busySince atomic.Int64 // when the writer entered the disk, Unix ns; 0: it is not there

	records, batches, bytes, failures, next, closed atomic.Uint64
}

// Open opens the log in cfg.Dir, recovers what a crash has left, and starts the
// writer; Close ends it. After recovery every segment is closed.
//
// The error is or wraps ErrForeign, ErrNewerFormat, ErrLocked, an
// *audit.BrokenError, or what the file system says.
func Open(cfg Config) (*Journal, error) {
	cfg.setDefaults()
	if cfg.Key.IsZero() {
		return nil, errors.New("journal: no key")
	}
	j := &Journal{
		cfg: cfg, stop: make(chan struct{}), done: make(chan struct{}),
		queue: queue{limit: cfg.Queue, limitBytes: cfg.QueueBytes, wake: make(chan struct{}, 1)},
	}
	fsys := cfg.FS
	if fsys == nil {
		root, err := os.OpenRoot(cfg.Dir)
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		j.root, fsys = root, dirFS{root}
	}
	w, err := j.start(fsys)
	if err != nil {
		j.unlock()
		return nil, err
	}
	go w.run()
	return j, nil
}

func (j *Journal) start(fsys FS) (*writer, error) {
	if err := CheckFormat(fsys, j.cfg.Key.Name()); err != nil {
		return nil, err
	}
	if j.root != nil {
		var err error
		if j.lock, err = lock(j.cfg.Dir); err != nil {
			return nil, err
		}
	}
	w, err := recoverWriter(j, fsys)
	if err != nil {
		return nil, fmt.Errorf("journal: recovering: %w", err)
	}
	j.next.Store(w.next)
	j.closed.Store(w.number)
	return w, nil
}

func (j *Journal) unlock() {
	if j.lock != nil {
		j.lock.Close()
	}
	if j.root != nil {
		j.root.Close()
	}
}

// Append implements audit.Log. An error wraps audit.ErrUnavailable or is the
// context's.
func (j *Journal) Append(ctx context.Context, r *auditv1.Record) (audit.Receipt, error) {
	if err := ctx.Err(); err != nil {
		return audit.Receipt{}, err
	}
	if err := j.Health(); err != nil {
		return audit.Receipt{}, err // and do not wait for the disk to answer
	}
	it := items.Get().(*item)
	var err error
	it.leaf, err = proto.MarshalOptions{}.MarshalAppend(append(it.leaf[:0], audit.LeafPrefix), r)
	if err != nil {
		return audit.Receipt{}, fmt.Errorf("%w: %w", audit.ErrUnavailable, err)
	}
	if len(it.record()) > MaxRecordSize {
		return audit.Receipt{}, fmt.Errorf("%w: %w", audit.ErrUnavailable, ErrRecordTooLarge)
	}
	it.hash = sha256.Sum256(it.leaf)
	if err := j.queue.put(it); err != nil {
		return audit.Receipt{}, err
	}
	return j.wait(ctx, it)
}

func (j *Journal) wait(ctx context.Context, it *item) (audit.Receipt, error) {
	it.timer.Reset(j.cfg.Timeout)
	select {
	case <-it.done:
	case <-ctx.Done():
		it.abandoned.Store(true)
		return audit.Receipt{}, ctx.Err()
	case <-it.timer.C:
		it.abandoned.Store(true)
		return audit.Receipt{}, fmt.Errorf("%w: no answer from the disk within %v", audit.ErrUnavailable, j.cfg.Timeout)
	}
	if it.err != nil {
		return audit.Receipt{}, it.err
	}
	r := it.batch.receipt(it.index, it.hash)
	it.release()
	return r, nil
}

// Health returns nil while appends are expected to succeed. Otherwise the error
// wraps audit.ErrUnavailable and gives the reason; it goes away by itself when
// the writer succeeds again.
func (j *Journal) Health() error {
	if p := j.failure.Load(); p != nil {
		return *p
	}
	if since := j.busySince.Load(); since != 0 {
		if d := time.Since(time.Unix(0, since)); d > j.cfg.Timeout {
			return fmt.Errorf("%w: the disk has not answered for %v", audit.ErrUnavailable, d.Round(time.Millisecond))
		}
	}
	return nil
}

// Stats returns the counters.
func (j *Journal) Stats() Stats {
	return Stats{
		Records: j.records.Load(), Batches: j.batches.Load(), Bytes: j.bytes.Load(),
		Failures: j.failures.Load(), Queued: j.queue.depth(),
		Next: j.next.Load(), Closed: j.closed.Load(),
	}
}

// Closed returns the number of segments closed since the log was made.
func (j *Journal) Closed() uint64 { return j.closed.Load() }

// Stop refuses further appends, writes what is queued, closes the segment and
// ends the writer. The directory stays locked. If ctx ends first, its error is
// returned and the writer ends when the disk lets it. Otherwise the error says
// why the last records or the close frame could not be written; the next Open
// recovers. Stop may be called again, to wait again.
func (j *Journal) Stop(ctx context.Context) error {
	if j.queue.closeOnce() {
		close(j.stop)
	}
	select {
	case <-j.done:
		return j.Health()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close stops the journal and gives up the lock, unless the writer has not ended
// when ctx does.
func (j *Journal) Close(ctx context.Context) error {
	err := j.Stop(ctx)
	select {
	case <-j.done:
		j.unlocked.Do(j.unlock)
	default:
	}
	return err
}
