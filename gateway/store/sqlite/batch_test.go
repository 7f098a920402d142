package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/lease"
)

// together lets writes wait until all of them do, and gives what came of each, and in
// how many transactions.
func together(t *testing.T, s *Store, writes ...func(context.Context, *sql.Tx) error) (errs []error, transactions int) {
	t.Helper()
	s.batch.turn <- struct{}{}
	errs = make([]error, len(writes))
	seen := map[*sql.Tx]bool{}
	var wg sync.WaitGroup
	for i, do := range writes {
		wg.Go(func() {
			errs[i] = s.inBatch(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
				seen[tx] = true // one at a time
				return do(ctx, tx)
			})
		})
		waitFor(t, func() bool { return s.batch.length() == i+1 })
	}
	<-s.batch.turn
	wg.Wait()
	return errs, len(seen)
}

func (b *batch) length() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting)
}

func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !what(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
	}
}

func insertTenant(id string) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO tenant (id) VALUES (?)", id)
		return err
	}
}

// followed makes a write that fails with err after its deed.
func followed(deed func(context.Context, *sql.Tx) error, err error) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error { return errors.Join(deed(ctx, tx), err) }
}

func tenantIDs(t *testing.T, s *Store) string {
	t.Helper()
	rows, err := s.Tenants(t.Context(), "", 1<<30)
	must(t, err)
	out := ""
	for _, r := range rows {
		out += string(r.Tenant) + " "
	}
	return out
}

// Those who fail are undone and fail nobody else, wherever they stand.
func TestBatchKeepsWritesApart(t *testing.T) {
	s, _ := newStore(t)
	errs, transactions := together(t, s,
		followed(insertTenant("undone-1"), lease.ErrQuota),
		insertTenant("a"),
		insertTenant("a"), // a constraint
		followed(insertTenant("undone-2"), sql.ErrNoRows),
		insertTenant("b"),
		followed(insertTenant("undone-3"), lease.ErrConflict),
	)
	if transactions != 1 {
		t.Errorf("%d transactions", transactions)
	}
	for i, want := range []error{lease.ErrQuota, nil, lease.ErrExists, lease.ErrNotFound, nil, lease.ErrConflict} {
		if err := leaseFamily.wrap(errs[i]); !errors.Is(err, want) {
			t.Errorf("write %d: got %v, want %v", i, err, want)
		}
	}
	if ids := tenantIDs(t, s); ids != "a b " {
		t.Errorf("stored: %s", ids)
	}
}

// When the store fails in the middle, all fail and nothing is written, also if SQLite
// has ended the transaction by itself.
func TestBatchFailsAsAWhole(t *testing.T) {
	for name, fail := range map[string]func(context.Context, *sql.Tx) error{
		"an error of the store": func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "SELECT nonsense")
			return err
		},
		"rolled back": func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "ROLLBACK"); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, "RELEASE one")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newStore(t)
			errs, _ := together(t, s, insertTenant("a"), followed(insertTenant("b"), lease.ErrQuota), fail, insertTenant("c"))
			for i, err := range errs {
				if err = leaseFamily.wrap(err); err == nil || errors.Is(err, lease.ErrQuota) {
					t.Errorf("write %d: %v", i, err)
				}
			}
			if ids := tenantIDs(t, s); ids != "" {
				t.Errorf("stored: %s", ids)
			}
			must(t, s.inBatch(t.Context(), insertTenant("after")))
		})
	}
}

// Many waiting writes are several transactions, and all are made.
func TestBatchIsBounded(t *testing.T) {
	s, _ := newStore(t)
	var writes []func(context.Context, *sql.Tx) error
	for n := range 3*batchMax - 1 {
		writes = append(writes, insertTenant(fmt.Sprint(n)))
	}
	errs, transactions := together(t, s, writes...)
	must(t, errors.Join(errs...))
	rows, err := s.Tenants(t.Context(), "", 1<<30)
	must(t, err)
	if transactions != 3 || len(rows) != len(writes) || s.batch.length() != 0 {
		t.Errorf("%d transactions, %d rows, %d left", transactions, len(rows), s.batch.length())
	}
}

// Who hangs up while waiting is answered at once, and nothing of theirs is written.
// Who hangs up while it is written learns how it went, and takes nobody along.
func TestBatchAndContexts(t *testing.T) {
	s, _ := newStore(t)
	s.batch.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() { gone <- s.inBatch(ctx, insertTenant("gone")) }()
	waitFor(t, func() bool { return s.batch.length() == 1 })
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("who waits got %v", err)
	}
	<-s.batch.turn

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	begun := make(chan struct{})
	go func() {
		gone <- s.inBatch(ctx, func(inner context.Context, tx *sql.Tx) error {
			close(begun)
			waitFor(t, func() bool { return s.batch.length() == 1 })
			cancel()
			return insertTenant("late")(inner, tx)
		})
	}()
	<-begun
	must(t, s.inBatch(t.Context(), insertTenant("other")))
	must(t, <-gone)
	if ids := tenantIDs(t, s); ids != "late other " {
		t.Errorf("stored: %s", ids)
	}
}

// Under contention, with callers who hang up at any moment, a write that was answered
// without an error is there, any other is not, and no quota is exceeded.
func TestLedgerUnderContention(t *testing.T) {
	s, _ := newStore(t)
	const callers, quota = 16, 3
	var answered sync.Map // those of which nil was said, with their revision
	var quotas, ends atomic.Int64
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for n := range 40 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(40*time.Millisecond))))
				l := testLease(caller*1000 + n)
				l.Workload = fmt.Sprint("w", n%20)
				err := s.Reserve(ctx, l, quota)
				if err == nil {
					l.State, l.Revision = lease.StateGone, 1
					if n%3 == 0 {
						l.State = lease.StateActive
					}
					answered.Store(l.Name, uint64(1))
					if err = s.Update(ctx, l); err == nil {
						answered.Store(l.Name, uint64(2))
					}
				}
				cancel()
				switch {
				case errors.Is(err, lease.ErrQuota):
					quotas.Add(1)
				case errors.Is(err, context.DeadlineExceeded):
					ends.Add(1)
				case err != nil:
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	rows, err := s.Leases(t.Context(), lease.Query{})
	must(t, err)
	held, states := map[string]int{}, map[lease.State]int{}
	for _, l := range rows {
		if revision, _ := answered.LoadAndDelete(l.Name); revision != l.Revision {
			t.Errorf("%v has revision %d, and %v was said", l.Name, l.Revision, revision)
		}
		if states[l.State]++; l.State != lease.StateGone {
			held[l.Workload]++
		}
	}
	answered.Range(func(name, _ any) bool { t.Errorf("%v is missing", name); return true })
	for w, n := range held {
		if n > quota {
			t.Errorf("%s holds %d", w, n)
		}
	}
	counts, err := s.Count(t.Context())
	must(t, err)
	if fmt.Sprint(counts) != fmt.Sprint(states) {
		t.Errorf("counted %v, there are %v", counts, states)
	}
	t.Logf("%d rows, %d refused by quota, %d hung up", len(rows), quotas.Load(), ends.Load())
}
