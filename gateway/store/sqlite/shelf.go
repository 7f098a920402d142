package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/keys"
)

var _ keys.Shelf = (*Store)(nil)

var keysFamily = family{keys.ErrNotFound, keys.ErrExists, keys.ErrConflict, keys.ErrStore}

// CreateTenant implements keys.Shelf.
func (s *Store) CreateTenant(ctx context.Context, t keys.Tenant, created time.Time) error {
	return keysFamily.wrap(s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO tenant (id, created) VALUES (?, ?)", string(t), instant(created))
		return err
	}))
}

// Tenants implements keys.Shelf.
func (s *Store) Tenants(ctx context.Context, after keys.Tenant, limit int) ([]keys.TenantRow, error) {
	var out []keys.TenantRow
	err := s.rows(ctx, func(r *sql.Rows) error {
		var row keys.TenantRow
		var created sql.NullInt64
		err := r.Scan(&row.Tenant, &created)
		row.Created = fromInstant(created)
		out = append(out, row)
		return err
	}, "SELECT id, created FROM tenant WHERE id > ? ORDER BY id LIMIT ?", string(after), limit)
	return out, keysFamily.wrap(err)
}

// CreateRing implements keys.Shelf.
func (s *Store) CreateRing(ctx context.Context, r keys.Ring) error {
	return keysFamily.wrap(s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO ring
			(tenant, keyring, id, purpose, created, rotation_period, next_rotation, due, revision)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)`,
			string(r.Name.Tenant), r.Name.Keyring, r.ID[:], r.Purpose, instant(r.Created),
			int64(r.RotationPeriod), instant(r.NextRotation), due(r))
		if err != nil {
			return err
		}
		return putVersions(ctx, tx, r)
	}))
}

// UpdateRing implements keys.Shelf.
func (s *Store) UpdateRing(ctx context.Context, r keys.Ring) error {
	return keysFamily.wrap(s.inTx(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `UPDATE ring
			SET rotation_period = ?, next_rotation = ?, due = ?, revision = revision + 1
			WHERE tenant = ? AND keyring = ? AND revision = ?`,
			int64(r.RotationPeriod), instant(r.NextRotation), due(r),
			string(r.Name.Tenant), r.Name.Keyring, int64(r.Revision)) //nolint:gosec // counts changes
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			var exists int
			err := tx.QueryRowContext(ctx, "SELECT 1 FROM ring WHERE tenant = ? AND keyring = ?",
				string(r.Name.Tenant), r.Name.Keyring).Scan(&exists)
			if err != nil {
				return err
			}
			return keys.ErrConflict
		}
		return putVersions(ctx, tx, r)
	}))
}

// putVersions stores the ring's versions. Versions are never taken away.
func putVersions(ctx context.Context, tx *sql.Tx, r keys.Ring) error {
	put, err := tx.PrepareContext(ctx, `INSERT INTO version
		(tenant, keyring, number, state, created, kek, wrapped, destroy_at, compromised) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET
		state = excluded.state, kek = excluded.kek, wrapped = excluded.wrapped,
		destroy_at = excluded.destroy_at, compromised = excluded.compromised`)
	if err != nil {
		return err
	}
	defer func() { _ = put.Close() }()
	for _, v := range r.Versions {
		wrapped := v.Wrapped
		if wrapped == nil {
			wrapped = []byte{}
		}
		if _, err := put.ExecContext(ctx, string(r.Name.Tenant), r.Name.Keyring, v.Number, v.State,
			instant(v.Created), v.KEK, wrapped, instant(v.DestroyAt), instant(v.Compromised)); err != nil {
			return err
		}
	}
	return nil
}

// due is when the ring has work next: a rotation, or a destruction.
func due(r keys.Ring) sql.NullInt64 {
	next := r.NextRotation
	for _, v := range r.Versions {
		if v.State == keys.StateScheduledForDestruction && (next.IsZero() || v.DestroyAt.Before(next)) {
			next = v.DestroyAt
		}
	}
	return instant(next)
}

const ringColumns = "tenant, keyring, id, purpose, created, rotation_period, next_rotation, revision"

// Ring implements keys.Shelf. The ring and its versions are of one moment.
func (s *Store) Ring(ctx context.Context, n keys.Name) (keys.Ring, error) {
	rings, err := s.rings(ctx, "tenant = ? AND keyring = ?", string(n.Tenant), n.Keyring)
	if err == nil && len(rings) == 0 {
		err = keys.ErrNotFound
	}
	if err != nil {
		return keys.Ring{}, keysFamily.wrap(err)
	}
	return rings[0], nil
}

// Rings implements keys.Shelf.
func (s *Store) Rings(ctx context.Context, q keys.RingQuery) ([]keys.Ring, error) {
	where, args := "tenant = ? AND keyring > ?", []any{string(q.Tenant), q.After}
	if q.Purpose != 0 {
		where, args = where+" AND purpose = ?", append(args, q.Purpose)
	}
	if q.Prefix != "" {
		// Ids are ASCII below 0x7f, so that this is the range of the prefix.
		where, args = where+" AND keyring >= ? AND keyring < ?", append(args, q.Prefix, q.Prefix+"\x7f")
	}
	rings, err := s.rings(ctx, where+" ORDER BY keyring LIMIT ?", append(args, q.Limit)...)
	return rings, keysFamily.wrap(err)
}

// rings reads rings with their versions in one statement, so that both are of one
// moment.
func (s *Store) rings(ctx context.Context, where string, args ...any) ([]keys.Ring, error) {
	var out []keys.Ring
	err := s.rows(ctx, func(r *sql.Rows) error {
		var ring keys.Ring
		var v keys.Version
		var id []byte
		var created, next, versionCreated, destroyAt, compromised sql.NullInt64
		var period, revision int64
		if err := r.Scan(&ring.Name.Tenant, &ring.Name.Keyring, &id, &ring.Purpose, &created, &period, &next, &revision,
			&v.Number, &v.State, &versionCreated, &v.KEK, &v.Wrapped, &destroyAt, &compromised); err != nil {
			return err
		}
		v.Created, v.DestroyAt = fromInstant(versionCreated), fromInstant(destroyAt)
		v.Compromised = fromInstant(compromised)
		if len(v.Wrapped) == 0 {
			v.Wrapped = nil
		}
		if n := len(out); n > 0 && out[n-1].Name == ring.Name {
			out[n-1].Versions = append(out[n-1].Versions, v)
			return nil
		}
		if copy(ring.ID[:], id) != len(ring.ID) {
			return fmt.Errorf("keyring id of %d bytes", len(id))
		}
		ring.Created, ring.NextRotation = fromInstant(created), fromInstant(next)
		ring.RotationPeriod, ring.Revision = time.Duration(period), uint64(revision) //nolint:gosec // counts changes
		ring.Versions = []keys.Version{v}
		out = append(out, ring)
		return nil
	}, "SELECT r.*, v.number, v.state, v.created, v.kek, v.wrapped, v.destroy_at, v.compromised FROM (SELECT "+ringColumns+
		" FROM ring WHERE "+where+") AS r JOIN version AS v USING (tenant, keyring) ORDER BY r.tenant, r.keyring, v.number", args...)
	return out, err
}

// RingsDue implements keys.Shelf.
func (s *Store) RingsDue(ctx context.Context, at time.Time, limit int) ([]keys.Name, error) {
	var out []keys.Name
	err := s.rows(ctx, func(r *sql.Rows) error {
		var n keys.Name
		err := r.Scan(&n.Tenant, &n.Keyring)
		out = append(out, n)
		return err
	}, "SELECT tenant, keyring FROM ring WHERE due <= ? ORDER BY due LIMIT ?", instant(at), limit)
	return out, keysFamily.wrap(err)
}
