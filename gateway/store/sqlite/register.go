package sqlite

import (
	"context"
	"database/sql"
	"time"

	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/policy"
)

var (
	_ authn.Register = (*Store)(nil)
	_ policy.Archive = (*Store)(nil)
)

var (
	registerFamily = family{authn.ErrNotFound, authn.ErrExists, authn.ErrConflict, authn.ErrStore}
	archiveFamily  = family{conflict: policy.ErrConflict, store: policy.ErrStore}
)

// noLimit is the LIMIT of a query without one.
const noLimit = -1

func limitOf(n int) int {
	if n == 0 {
		return noLimit
	}
	return n
}

// CreateWorkload implements authn.Register.
func (s *Store) CreateWorkload(ctx context.Context, r authn.Registration) error {
	return registerFamily.wrap(s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx,
			"INSERT INTO workload (id, spiffe_id, enabled, automation, created, revision) VALUES (?, ?, ?, ?, ?, 1)",
			r.ID, r.SPIFFEID, r.Enabled, r.Automation, instant(r.Created))
		return err
	}))
}

// UpdateWorkload implements authn.Register.
func (s *Store) UpdateWorkload(ctx context.Context, r authn.Registration) error {
	return registerFamily.wrap(s.inTx(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx,
			"UPDATE workload SET enabled = ?, automation = ?, revision = revision + 1 WHERE id = ? AND revision = ?",
			r.Enabled, r.Automation, r.ID, int64(r.Revision)) //nolint:gosec // counts changes
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 1 {
			return err
		}
		var exists int
		if err := tx.QueryRowContext(ctx, "SELECT 1 FROM workload WHERE id = ?", r.ID).Scan(&exists); err != nil {
			return err
		}
		return authn.ErrConflict
	}))
}

// Workload implements authn.Register.
func (s *Store) Workload(ctx context.Context, id string) (authn.Registration, error) {
	rows, err := s.workloads(ctx, "id = ?", id, 1)
	if err == nil && len(rows) == 0 {
		err = authn.ErrNotFound
	}
	if err != nil {
		return authn.Registration{}, err
	}
	return rows[0], nil
}

// Workloads implements authn.Register.
func (s *Store) Workloads(ctx context.Context, after string, limit int) ([]authn.Registration, error) {
	return s.workloads(ctx, "id > ?", after, limitOf(limit))
}

func (s *Store) workloads(ctx context.Context, where, id string, limit int) ([]authn.Registration, error) {
	var out []authn.Registration
	err := s.rows(ctx, func(rows *sql.Rows) error {
		var r authn.Registration
		var created sql.NullInt64
		err := rows.Scan(&r.ID, &r.SPIFFEID, &r.Enabled, &r.Automation, &created, &r.Revision)
		r.Created = fromInstant(created)
		out = append(out, r)
		return err
	}, "SELECT id, spiffe_id, enabled, automation, created, revision FROM workload WHERE "+where+" ORDER BY id LIMIT ?", id, limit)
	return out, registerFamily.wrap(err)
}

// Revoke implements authn.Register.
func (s *Store) Revoke(ctx context.Context, r authn.Revocation) (authn.Revocation, error) {
	stored := authn.Revocation{Fingerprint: r.Fingerprint}
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx,
			"INSERT INTO revocation (fingerprint, comment, revoked) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
			r.Fingerprint[:], r.Comment, instant(r.Revoked))
		if err != nil {
			return err
		}
		var revoked sql.NullInt64
		err = tx.QueryRowContext(ctx, "SELECT comment, revoked FROM revocation WHERE fingerprint = ?", r.Fingerprint[:]).
			Scan(&stored.Comment, &revoked)
		stored.Revoked = fromInstant(revoked)
		return err
	})
	return stored, registerFamily.wrap(err)
}

// Revocations implements authn.Register.
func (s *Store) Revocations(ctx context.Context, after authn.Fingerprint, limit int) ([]authn.Revocation, error) {
	var out []authn.Revocation
	err := s.rows(ctx, func(rows *sql.Rows) error {
		var r authn.Revocation
		var fingerprint []byte
		var revoked sql.NullInt64
		err := rows.Scan(&fingerprint, &r.Comment, &revoked)
		copy(r.Fingerprint[:], fingerprint)
		r.Revoked = fromInstant(revoked)
		out = append(out, r)
		return err
	}, "SELECT fingerprint, comment, revoked FROM revocation WHERE fingerprint > ? ORDER BY fingerprint LIMIT ?",
		after[:], limitOf(limit))
	return out, registerFamily.wrap(err)
}

// Bundle implements policy.Archive. The files and their revision are of one
// moment.
func (s *Store) Bundle(ctx context.Context) (policy.Bundle, error) {
	var b policy.Bundle
	err := s.rows(ctx, func(rows *sql.Rows) error {
		var name, content sql.NullString
		var loaded sql.NullInt64
		if err := rows.Scan(&b.Revision, &loaded, &name, &content); err != nil {
			return err
		}
		b.Loaded = fromInstant(loaded)
		if name.Valid {
			b.Files = append(b.Files, policy.File{Name: name.String, Content: content.String})
		}
		return nil
	}, "SELECT revision, loaded, name, content FROM policy LEFT JOIN policy_file ORDER BY name")
	return b, archiveFamily.wrap(err)
}

// ReplaceBundle implements policy.Archive.
func (s *Store) ReplaceBundle(ctx context.Context, b policy.Bundle) (uint64, error) {
	loaded := b.Loaded
	if loaded.IsZero() {
		loaded = time.Unix(0, 0)
	}
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
			int64(b.Revision+1), instant(loaded)) //nolint:gosec // counts loads
		return err
	})
	if err != nil {
		return 0, archiveFamily.wrap(err)
	}
	return b.Revision + 1, nil
}
