package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A restored backup is old: what it calls reserved may be in use by now, and must not
// be revoked for that. It is told by three things that a copy does not bring along.
//
//   - The database counts its starts, and a file beside it has the same number. The
//     database is written first, so that it is never behind the file, unless it is
//     older than the last start here.
//   - SQLite changes the schema_version of every copy that it makes (VACUUM INTO,
//     .backup), so that also a copy of since the last start is told. The database
//     notes the one that it was last opened with.
//   - Without the file, the database was brought here, or an operator says that it
//     was restored.
//
// A false alarm is harmless: what is reserved then ends by itself.

// boots is the row that counts starts.
type boots struct {
	starts   int64
	schema   sql.NullInt64 // not known after a migration
	restored time.Time
	// old: the schema does not count yet, and holds no lease.
	old bool
}

// Restored is when a restored backup was last opened as this database, or the zero
// time. It stays with the database: leases of the backup may be in it for long. It is
// later than the Created of all of them, also if the clock has gone back.
func (s *Store) Restored() time.Time { return s.restored }

// begin judges the database before anything changes it, brings it up to date, and
// counts the start.
func (s *Store) begin(ctx context.Context, path string, steps fs.FS) error {
	_, version, err := pending(ctx, s.write, steps)
	if err != nil {
		return err
	}
	b := boots{old: version < countsBoots}
	if err := b.read(ctx, s.write); err != nil {
		return err
	}
	file, there, err := readBootFile(path)
	if err != nil {
		return err
	}
	restored, err := b.isRestored(ctx, s.write, file, there)
	if err != nil {
		return err
	}
	if restored {
		if b.restored, err = latest(ctx, s.write, b.old); err != nil {
			return err
		}
		if !b.old {
			// Now, because a migration takes part of the evidence away.
			if _, err := s.write.ExecContext(ctx, "UPDATE boot SET restored = ?", stamp(b.restored)); err != nil {
				return err
			}
		}
	}
	if err := migrate(ctx, s.write, steps); err != nil {
		return err
	}
	if !there && b.starts == 0 {
		// A crash between the two writes below must not leave a database that counts
		// and no file.
		if err := writeBootFile(path, 0); err != nil {
			return err
		}
	}
	b.starts = max(b.starts, file) + 1
	_, err = s.write.ExecContext(ctx,
		"UPDATE boot SET starts = ?, restored = ?, schema = (SELECT schema_version FROM pragma_schema_version)",
		b.starts, stamp(b.restored))
	if err != nil {
		return err
	}
	s.restored = b.restored
	return writeBootFile(path, b.starts)
}

// inherit lets a new database count on from where another one here has come to, so that
// neither it nor a backup that replaces it is taken for what it is not.
func inherit(ctx context.Context, db *sql.DB, path string) error {
	file, _, err := readBootFile(path)
	if err == nil {
		_, err = db.ExecContext(ctx, "UPDATE boot SET starts = ?", file)
	}
	return err
}

func (b *boots) read(ctx context.Context, db *sql.DB) error {
	if b.old {
		return nil
	}
	return db.QueryRowContext(ctx, "SELECT starts, schema, restored FROM boot").Scan(&b.starts, &b.schema, (*stamp)(&b.restored))
}

func (b boots) isRestored(ctx context.Context, db *sql.DB, file int64, there bool) (bool, error) {
	var schema int64
	if err := db.QueryRowContext(ctx, "PRAGMA schema_version").Scan(&schema); err != nil {
		return false, err
	}
	copied := b.schema.Valid && b.schema.Int64 != schema
	return copied || file > b.starts || !there && b.starts > 0, nil
}

const latestQuery = "SELECT max(created) FROM lease"

// latest is now, or later if the database has a lease that claims to be from later.
func latest(ctx context.Context, db *sql.DB, old bool) (time.Time, error) {
	now := time.Now().UTC()
	if old {
		return now, nil
	}
	var created stamp
	if err := db.QueryRowContext(ctx, latestQuery).Scan(&created); err != nil {
		return now, err
	}
	if last := time.Time(created); !now.After(last) {
		return last.Add(1), nil
	}
	return now, nil
}

func bootFile(path string) string { return path + ".boot" }

// readBootFile gives the number beside the database, and whether there is one. What
// is no number was not written by us, and counts as none.
func readBootFile(path string) (n int64, there bool, err error) {
	text, err := os.ReadFile(bootFile(path))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	n, err = strconv.ParseInt(strings.TrimSuffix(string(text), "\n"), 10, 64)
	if err != nil || n < 0 {
		return 0, false, nil //nolint:nilerr // see above
	}
	return n, true, nil
}

// writeBootFile replaces the number. A crash leaves the old or the new one.
func writeBootFile(path string, n int64) error {
	next := bootFile(path) + ".new"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, n)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(next, bootFile(path)); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
