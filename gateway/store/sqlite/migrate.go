package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
)

// migrations are the steps from an empty database to the current schema, in order
// of name. The database's user_version counts those that it has seen, so that a
// step never changes once it is released.
//
//go:embed migrations/*.sql
var migrations embed.FS

// pending gives the steps and how many of them the database has seen. The error wraps
// ErrNewer if it has seen more than there are.
func pending(ctx context.Context, db *sql.DB, steps fs.FS) (files []string, version int, err error) {
	if files, err = fs.Glob(steps, "migrations/*.sql"); err != nil {
		return nil, 0, err
	}
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return nil, 0, err
	}
	if version < 0 || version > len(files) {
		return nil, 0, fmt.Errorf("%w: schema %d, and this release knows %d", ErrNewer, version, len(files))
	}
	return files, version, nil
}

// migrate applies the migrations that the database has not seen, each in a
// transaction with its number.
func migrate(ctx context.Context, db *sql.DB, steps fs.FS) error {
	files, version, err := pending(ctx, db, steps)
	if err != nil {
		return err
	}
	for i := version; i < len(files); i++ {
		text, err := fs.ReadFile(steps, files[i])
		if err != nil {
			return err
		}
		change := fmt.Sprintf("%s;PRAGMA user_version = %d", text, i+1)
		if i >= countsBoots {
			change += ";UPDATE boot SET schema = NULL" // it is another one now, by our own doing
		}
		if err := step(ctx, db, change); err != nil {
			return fmt.Errorf("sqlite: %s: %w", files[i], err)
		}
	}
	return nil
}

// countsBoots is how many steps a database has seen that has the table boot.
const countsBoots = 2

func step(ctx context.Context, db *sql.DB, text string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, text); err != nil { //nolint:gosec // the text is compiled in
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}
