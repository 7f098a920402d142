package sqlite

import (
	"context"
	"database/sql"

	"github.com/sallyport/sallyport/gateway/policy"
)

var _ policy.Archive = (*Store)(nil)

var archiveFamily = family{conflict: policy.ErrConflict, store: policy.ErrStore}

// Bundle implements policy.Archive. The files and their revision are of one
// moment.
func (s *Store) Bundle(ctx context.Context) (policy.Bundle, error) {
	var b policy.Bundle
	err := s.rows(ctx, func(rows *sql.Rows) error {
		var name, content sql.NullString
		if err := rows.Scan(&b.Revision, (*stamp)(&b.Loaded), &name, &content); err != nil {
			return err
		}
		if name.Valid {
			b.Files = append(b.Files, policy.File{Name: name.String, Content: content.String})
		}
		return nil
	}, "SELECT revision, loaded, name, content FROM policy LEFT JOIN policy_file ORDER BY name")
	if err != nil {
		return policy.Bundle{}, archiveFamily.wrap(err)
	}
	return b, nil
}

// ReplaceBundle implements policy.Archive.
func (s *Store) ReplaceBundle(ctx context.Context, b policy.Bundle) (uint64, error) {
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		var stored uint64
		err := tx.QueryRowContext(ctx, "SELECT coalesce(max(revision), 0) FROM policy").Scan(&stored)
		if err != nil {
			return err
		}
		if stored != b.Revision {
			return policy.ErrConflict
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM policy_file"); err != nil {
			return err
		}
		for _, f := range b.Files {
			if _, err := tx.ExecContext(ctx, "INSERT INTO policy_file (name, content) VALUES (?, ?)", f.Name, f.Content); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO policy (one, revision, loaded) VALUES (1, ?, ?)
			ON CONFLICT DO UPDATE SET revision = excluded.revision, loaded = excluded.loaded`,
			int64(b.Revision+1), stamp(b.Loaded))
		return err
	})
	if err != nil {
		return 0, archiveFamily.wrap(err)
	}
	return b.Revision + 1, nil
}
