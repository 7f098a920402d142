// Package sqlite is the embedded store: one database file, written by one gateway
// process. A write is on disk when it returns (journal_mode=WAL,
// synchronous=FULL), and is compare-and-swap in one transaction.
// docs/operations/store.md is for those who run it.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"; pure Go, so that the gateway links no C
)

// The errors of opening.
var (
	// ErrForeign: the file is not a database of Sallyport.
	ErrForeign = errors.New("sqlite: not a Sallyport database")
	// ErrNewer: the database was written by a newer release.
	ErrNewer = errors.New("sqlite: the database is of a newer release")
	// ErrLocked: another process has the database open.
	ErrLocked = errors.New("sqlite: another process has the database open")
)

// applicationID marks our databases in the file's header: "SPRT".
const applicationID = 0x53505254

// readers is how many reads go on at once.
const readers = 4

// The options of a connection. The driver applies them to every connection that
// the pool opens, because SQLite keeps most of them per connection.
const (
	// mode=rw: never make a file. The schema of the file is not trusted to call
	// functions with side effects (https://www.sqlite.org/security.html).
	options = "mode=rw&_defensive=1&_pragma=trusted_schema(0)" +
		"&_pragma=busy_timeout(5000)&_pragma=foreign_keys(1)&_pragma=synchronous(FULL)"
	// A write takes the lock when it begins, so that it cannot fail halfway for
	// having read too early. Wrapped keys of destroyed versions are overwritten.
	writerOptions = options + "&_pragma=journal_mode(WAL)&_pragma=secure_delete(1)&_txlock=immediate"
	readerOptions = options + "&_pragma=query_only(1)"
	// The new file is one file, without a write-ahead log, until it has its name.
	createOptions = options + "&_pragma=journal_mode(DELETE)"
)

// Store is an open database. It implements keys.Shelf, authn.Register,
// policy.Archive, lease.Ledger and lease.Roles. All methods are safe for concurrent use.
type Store struct {
	write, read *sql.DB
	lock        *os.File
	restored    time.Time
	queries     atomic.Uint64
	prepared    sync.Map // of *sql.Stmt by query: the reads
	batch       batch
	// What every issued secret waits for is parsed once: that is half of its time
	// beside the disk's.
	reserve, update *sql.Stmt
}

// Create makes an empty store and opens it. The error wraps fs.ErrExist if there
// is a file. A crash leaves the store whole or not there, and maybe path.new,
// which the next Create removes.
func Create(ctx context.Context, path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(path); err == nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	if err := create(ctx, path); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return open(ctx, path, lock)
}

// create makes the file under another name and links it, complete, to its own.
func create(ctx context.Context, path string) error {
	next := path + ".new"
	// What a crash has left. SQLite itself drops the journal of a file that is empty.
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// SQLite gives its own files the mode of the database.
	f, err := os.OpenFile(next, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(next) }()
	if err := f.Close(); err != nil {
		return err
	}
	db, err := connect(next, createOptions)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	if err == nil {
		err = migrate(ctx, db, migrations)
	}
	if err == nil {
		err = inherit(ctx, db, path)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	// The last commit has synced the file. A link, unlike a rename, does not
	// replace what is there.
	if err := os.Link(next, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Open opens a store, and brings one of an older release up to date. It never
// makes one: a missing file is an error that wraps fs.ErrNotExist. The others wrap
// ErrForeign, ErrNewer or ErrLocked.
func Open(ctx context.Context, path string) (*Store, error) {
	// The lock is beside the file itself, whatever link led to it, as is SQLite's
	// write-ahead log.
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	return open(ctx, path, lock)
}

// open opens the database at an absolute path. It owns the lock.
func open(ctx context.Context, path string, lock *os.File) (_ *Store, err error) {
	s := &Store{lock: lock, batch: batch{turn: make(chan struct{}, 1)}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	// Only under the lock: closing any descriptor of a database file releases the
	// POSIX locks that this process holds on it.
	if err := checkHeader(path); err != nil {
		return nil, err
	}
	if s.write, err = connect(path, writerOptions); err != nil {
		return nil, err
	}
	s.write.SetMaxOpenConns(1)
	if err := s.begin(ctx, path, migrations); err != nil {
		return nil, err
	}
	// SQLite stays in another mode without an error where it cannot do WAL.
	var mode string
	if err := s.write.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return nil, err
	}
	if mode != "wal" {
		return nil, fmt.Errorf("sqlite: the file system of %s cannot do WAL: journal_mode is %s", path, mode)
	}
	if s.reserve, err = s.write.PrepareContext(ctx, reserveStatement); err != nil {
		return nil, err
	}
	if s.update, err = s.write.PrepareContext(ctx, updateStatement); err != nil {
		return nil, err
	}
	if s.read, err = connect(path, readerOptions); err != nil {
		return nil, err
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	return s, nil
}

// Close closes the database and lets go of the lock.
func (s *Store) Close() error {
	var errs []error
	// The writer last: the last connection to close empties the write-ahead log.
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// Ping reports whether the store answers: it reads a row of the file.
func (s *Store) Ping(ctx context.Context) error {
	var n int
	return s.read.QueryRowContext(ctx, "SELECT count(*) FROM policy").Scan(&n)
}

// Queries counts the reads and writes since Open.
func (s *Store) Queries() uint64 { return s.queries.Load() }

// connect prepares a pool of connections to the file at an absolute path.
func connect(path, options string) (*sql.DB, error) {
	return sql.Open("sqlite", "file://"+(&url.URL{Path: path}).EscapedPath()+"?"+options)
}

// checkHeader reads the file's header before SQLite does, so that a file of
// somebody else is not touched (https://www.sqlite.org/fileformat2.html, 1.3).
func checkHeader(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	header := make([]byte, 100)
	if _, err := f.ReadAt(header, 0); errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %s is too short", ErrForeign, path)
	} else if err != nil {
		return err
	}
	id := uint32(header[68])<<24 | uint32(header[69])<<16 | uint32(header[70])<<8 | uint32(header[71])
	if string(header[:16]) != "SQLite format 3\x00" || id != applicationID {
		return fmt.Errorf("%w: %s", ErrForeign, path)
	}
	return nil
}

// lockFile takes the lock that keeps a second process out. It is not on the
// database itself, whose locks are SQLite's. The kernel releases it when the
// process ends, however it ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("%w: %s", ErrLocked, path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// inTx runs a write in one transaction. It counts as one query.
func (s *Store) inTx(ctx context.Context, f func(*sql.Tx) error) error {
	s.queries.Add(1)
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return ended(ctx, err)
	}
	defer tx.Rollback() // does nothing after Commit
	if err := f(tx); err != nil {
		return ended(ctx, err)
	}
	return ended(ctx, tx.Commit())
}

// rows runs a read and gives each row to scan. The rows are of one moment.
func (s *Store) rows(ctx context.Context, scan func(*sql.Rows) error, query string, args ...any) error {
	s.queries.Add(1)
	stmt, err := s.statement(ctx, query) //nolint:sqlclosecheck // kept for the next read; closed with the database
	if err != nil {
		return ended(ctx, err)
	}
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return ended(ctx, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return ended(ctx, err)
		}
	}
	return ended(ctx, rows.Err())
}

// statement gives the prepared form of a read: there are few, and parsing one takes
// longer than a row.
func (s *Store) statement(ctx context.Context, query string) (*sql.Stmt, error) {
	if known, ok := s.prepared.Load(query); ok {
		return known.(*sql.Stmt), nil
	}
	stmt, err := s.read.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if first, raced := s.prepared.LoadOrStore(query, stmt); raced {
		defer stmt.Close() // another was faster
		return first.(*sql.Stmt), nil
	}
	return stmt, nil
}

// ended says of an error that the context ended, which the driver and
// database/sql say in several ways.
func ended(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}
