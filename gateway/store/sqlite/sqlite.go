// Package sqlite is the embedded store: one database file, written by one gateway
// process. A write is on disk when it returns (journal_mode=WAL,
// synchronous=FULL), and is compare-and-swap in one transaction.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
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

//go:embed migrations/*.sql
var migrations embed.FS

// Store is an open database. It implements keys.Shelf, authn.Register and
// policy.Archive.
type Store struct {
	write, read *sql.DB
	lock        *os.File
	queries     atomic.Uint64
}

// Create makes an empty store and opens it. The error wraps fs.ErrExist if there
// is a file. A crash leaves the store whole or not there.
func Create(ctx context.Context, path string) (_ *Store, err error) {
	next := path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(next, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) //nolint:gosec // the operator's own path
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(next) }()
	if err := f.Close(); err != nil {
		return nil, err
	}
	db, err := open(next, "_pragma=journal_mode(DELETE)&_pragma=synchronous(FULL)&mode=rw")
	if err != nil {
		return nil, err
	}
	_, err = db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	if err = errors.Join(err, migrate(ctx, db), db.Close()); err != nil {
		return nil, err
	}
	// A link, unlike a rename, does not replace what is there.
	if err := os.Link(next, path); err != nil {
		return nil, err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	return Open(ctx, path)
}

// Open opens a store, and brings one of an older release up to date. It never
// makes one: a missing file is an error that wraps fs.ErrNotExist. The others wrap
// ErrForeign, ErrNewer or ErrLocked.
func Open(ctx context.Context, path string) (_ *Store, err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	s := &Store{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.lock, err = lockFile(path + ".lock"); err != nil {
		return nil, err
	}
	if err := checkHeader(path); err != nil {
		return nil, err
	}
	const pragmas = "_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&mode=rw"
	if s.write, err = open(path, pragmas+"&_txlock=immediate"); err != nil {
		return nil, err
	}
	s.write.SetMaxOpenConns(1)
	if err := migrate(ctx, s.write); err != nil {
		return nil, err
	}
	if s.read, err = open(path, pragmas+"&_pragma=query_only(1)"); err != nil {
		return nil, err
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	return s, nil
}

// Close closes the database and lets go of the lock.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// Ping reports whether the store answers.
func (s *Store) Ping(ctx context.Context) error {
	var one int
	return s.read.QueryRowContext(ctx, "SELECT 1").Scan(&one)
}

// Queries counts the reads and writes since Open.
func (s *Store) Queries() uint64 { return s.queries.Load() }

func open(path, options string) (*sql.DB, error) {
	return sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+options)
}

// checkHeader reads the file's header before SQLite does, so that a file of
// somebody else is not touched (https://www.sqlite.org/fileformat2.html, 1.3).
func checkHeader(path string) error {
	f, err := os.Open(path) //nolint:gosec // the operator's own path
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	header := make([]byte, 100)
	if _, err := f.ReadAt(header, 0); err != nil {
		return fmt.Errorf("%w: %s", ErrForeign, path)
	}
	id := uint32(header[68])<<24 | uint32(header[69])<<16 | uint32(header[70])<<8 | uint32(header[71])
	if string(header[:16]) != "SQLite format 3\x00" || id != applicationID {
		return fmt.Errorf("%w: %s", ErrForeign, path)
	}
	return nil
}

// migrate applies the migrations that the database has not seen, each in a
// transaction with its number.
func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > len(files) {
		return fmt.Errorf("%w: schema %d, and this release knows %d", ErrNewer, version, len(files))
	}
	for i := version; i < len(files); i++ {
		text, err := migrations.ReadFile(files[i])
		if err != nil {
			return err
		}
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, string(text)+fmt.Sprintf(";PRAGMA user_version = %d", i+1))
		if err != nil {
			return errors.Join(fmt.Errorf("sqlite: migration %s: %w", files[i], err), tx.Rollback())
		}
		if err := tx.Commit(); err != nil {
			return err
		}
	}
	return nil
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // beside the operator's own path
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", ErrLocked, path), f.Close())
	}
	return f, nil
}

func syncDir(path string) error {
	d, err := os.Open(path) //nolint:gosec // beside the operator's own path
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
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// rows runs a read and gives each row to scan.
func (s *Store) rows(ctx context.Context, scan func(*sql.Rows) error, query string, args ...any) error {
	s.queries.Add(1)
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// instant is a time as it is stored.
func instant(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixNano(), Valid: !t.IsZero()}
}

func fromInstant(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.Unix(0, n.Int64).UTC()
}
