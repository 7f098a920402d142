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

// migrate applies the migrations that the database has not seen, each in a
// transaction with its number.
func migrate(ctx context.Context, db *sql.DB, steps fs.FS) error {
	files, err := fs.Glob(steps, "migrations/*.sql")
	if err != nil {
		return err
	}
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version < 0 || version > len(files) {
		return fmt.Errorf("%w: schema %d, and this release knows %d", ErrNewer, version, len(files))
	}
	for i := version; i < len(files); i++ {
		text, err := fs.ReadFile(steps, files[i])
		if err != nil {
			return err
		}
		if err := step(ctx, db, fmt.Sprintf("%s;PRAGMA user_version = %d", text, i+1)); err != nil {
			return fmt.Errorf("sqlite: %s: %w", files[i], err)
		}
	}
	return nil
}

func step(ctx context.Context, db *sql.DB, text string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, text); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}
