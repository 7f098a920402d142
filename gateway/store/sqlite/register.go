package sqlite

import (
	"context"
	"database/sql"

	"github.com/sallyport/sallyport/gateway/authn"
)

var _ authn.Register = (*Store)(nil)

var registerFamily = family{
	notFound: authn.ErrNotFound, exists: authn.ErrExists, conflict: authn.ErrConflict, store: authn.ErrStore,
}

// CreateWorkload implements authn.Register.
func (s *Store) CreateWorkload(ctx context.Context, r authn.Registration) error {
	return registerFamily.wrap(s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx,
			"INSERT INTO workload (id, spiffe_id, enabled, automation, created, revision) VALUES (?, ?, ?, ?, ?, 1)",
			r.ID, r.SPIFFEID, r.Enabled, r.Automation, stamp(r.Created))
		return err
	}))
}

// UpdateWorkload implements authn.Register.
func (s *Store) UpdateWorkload(ctx context.Context, r authn.Registration) error {
	return registerFamily.wrap(s.inTx(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx,
			"UPDATE workload SET enabled = ?, automation = ?, revision = revision + 1 WHERE id = ? AND revision = ?",
			r.Enabled, r.Automation, r.ID, int64(r.Revision))
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
	rows, err := s.workloads(ctx, workloadQuery, id)
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
	return s.workloads(ctx, workloadsQuery, after, limitOf(limit))
}

const (
	workloadHead   = "SELECT id, spiffe_id, enabled, automation, created, revision FROM workload WHERE "
	workloadQuery  = workloadHead + "id = ?"
	workloadsQuery = workloadHead + "id > ? ORDER BY id LIMIT ?"
)

func (s *Store) workloads(ctx context.Context, query string, args ...any) ([]authn.Registration, error) {
	var out []authn.Registration
	err := s.rows(ctx, func(rows *sql.Rows) error {
		var r authn.Registration
		err := rows.Scan(&r.ID, &r.SPIFFEID, &r.Enabled, &r.Automation, (*stamp)(&r.Created), &r.Revision)
		out = append(out, r)
		return err
	}, query, args...)
	return out, registerFamily.wrap(err)
}

// Revoke implements authn.Register.
func (s *Store) Revoke(ctx context.Context, r authn.Revocation) (authn.Revocation, error) {
	stored := authn.Revocation{Fingerprint: r.Fingerprint}
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx,
			"INSERT INTO revocation (fingerprint, comment, revoked) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
			r.Fingerprint[:], r.Comment, stamp(r.Revoked))
		if err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, "SELECT comment, revoked FROM revocation WHERE fingerprint = ?", r.Fingerprint[:]).
			Scan(&stored.Comment, (*stamp)(&stored.Revoked))
	})
	if err != nil {
		return authn.Revocation{}, registerFamily.wrap(err)
	}
	return stored, nil
}

// Revocations implements authn.Register.
func (s *Store) Revocations(ctx context.Context, after authn.Fingerprint, limit int) ([]authn.Revocation, error) {
	var out []authn.Revocation
	err := s.rows(ctx, func(rows *sql.Rows) error {
		var r authn.Revocation
		var fingerprint []byte
		err := rows.Scan(&fingerprint, &r.Comment, (*stamp)(&r.Revoked))
		copy(r.Fingerprint[:], fingerprint)
		out = append(out, r)
		return err
	}, revocationsQuery, after[:], limitOf(limit))
	return out, registerFamily.wrap(err)
}

const revocationsQuery = "SELECT fingerprint, comment, revoked FROM revocation WHERE fingerprint > ? ORDER BY fingerprint LIMIT ?"
