package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

const (
	// batchMax is how many writes share a transaction. Reads of what it holds wait for
	// its end, so that it must end soon.
	batchMax = 64
	// batchTimeout bounds one transaction. It is not that of a caller: one who hangs up
	// must not take the writes of others along.
	batchTimeout = 15 * time.Second
)

// batch lets writes that wait at the same time share one transaction, and so one
// sync of the disk, which is nearly all that a small write costs. Whoever finds
// nobody writing writes for all who wait; there is no goroutine of its own, and who
// comes alone waits for nobody.
type batch struct {
	turn chan struct{} // holds one token while somebody writes

	mu      sync.Mutex
	waiting []*write
}

// write is one caller's part of a transaction.
type write struct {
	do   func(context.Context, *sql.Tx) error
	err  error         // valid when done is closed
	done chan struct{} // closed when the transaction has ended
}

// inBatch is inTx for writes that may share their transaction with others. What do
// does is undone if it fails, and fails nobody else. When it returns nothing more
// happens: a context that ends is heeded until the write has begun.
func (s *Store) inBatch(ctx context.Context, do func(context.Context, *sql.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.queries.Add(1)
	w := &write{do: do, done: make(chan struct{})}
	s.batch.mu.Lock()
	s.batch.waiting = append(s.batch.waiting, w)
	s.batch.mu.Unlock()
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		if s.batch.withdraw(w) {
			return ctx.Err()
		}
		<-w.done // somebody is writing it
		return w.err
	case s.batch.turn <- struct{}{}:
	}
	defer func() { <-s.batch.turn }()
	// Others may have come before, and this write may be among those that are written
	// already; else it is among the next.
	for {
		select {
		case <-w.done:
			return w.err
		default:
			s.writeAll(context.WithoutCancel(ctx), s.batch.take())
		}
	}
}

// withdraw takes a write back. It reports false if it has begun.
func (b *batch) withdraw(w *write) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.waiting {
		if b.waiting[i] == w {
			b.waiting = append(b.waiting[:i], b.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// take gives the writes that have waited longest.
func (b *batch) take() []*write {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(b.waiting), batchMax)
	taken := b.waiting[:n:n]
	b.waiting = append([]*write(nil), b.waiting[n:]...)
	return taken
}

// writeAll makes the writes in one transaction and tells each how it went.
func (s *Store) writeAll(ctx context.Context, writes []*write) {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	err := s.tryAll(ctx, writes)
	for _, w := range writes {
		if err != nil {
			w.err = err // also for whom it went well, or not, in what is undone
		}
		close(w.done)
	}
}

// tryAll gives the error that fails all of them.
func (s *Store) tryAll(ctx context.Context, writes []*write) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return ended(ctx, err)
	}
	defer tx.Rollback() // does nothing after Commit
	for _, w := range writes {
		if _, err := tx.ExecContext(ctx, "SAVEPOINT one"); err != nil {
			return ended(ctx, err)
		}
		if w.err = w.do(ctx, tx); w.err != nil {
			if !isOutcome(ctx, w.err) {
				return ended(ctx, w.err)
			}
			if _, err := tx.ExecContext(ctx, "ROLLBACK TO one"); err != nil {
				return ended(ctx, err)
			}
		}
		if _, err := tx.ExecContext(ctx, "RELEASE one"); err != nil {
			return ended(ctx, err)
		}
	}
	return ended(ctx, tx.Commit())
}

// isOutcome reports whether an error is about the write alone. After others SQLite
// may have rolled the whole transaction back, and must not be asked to go on: it
// would do so outside of any.
func isOutcome(ctx context.Context, err error) bool {
	var e *driver.Error
	return ctx.Err() == nil && (!errors.As(err, &e) || e.Code()&0xff == lib.SQLITE_CONSTRAINT)
}
