package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/keys"
)

var _ keys.Shelf = (*Store)(nil)

var keysFamily = family{
	notFound: keys.ErrNotFound, exists: keys.ErrExists, conflict: keys.ErrConflict, store: keys.ErrStore,
}

// CreateTenant implements keys.Shelf.
func (s *Store) CreateTenant(ctx context.Context, t keys.Tenant, created time.Time) error {
	return keysFamily.wrap(s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO tenant (id, created) VALUES (?, ?)", string(t), stamp(created))
		return err
	}))
}

// Tenants implements keys.Shelf.
func (s *Store) Tenants(ctx context.Context, after keys.Tenant, limit int) ([]keys.TenantRow, error) {
	var out []keys.TenantRow
	err := s.rows(ctx, func(r *sql.Rows) error {
		var row keys.TenantRow
		err := r.Scan(&row.Tenant, (*stamp)(&row.Created))
		out = append(out, row)
		return err
	}, tenantsQuery, string(after), limit)
	return out, keysFamily.wrap(err)
}

const tenantsQuery = "SELECT id, created FROM tenant WHERE id > ? ORDER BY id LIMIT ?"

// CreateRing implements keys.Shelf.
func (s *Store) CreateRing(ctx context.Context, r keys.Ring) error {
	return keysFamily.wrap(s.inTx(ctx, func(tx *sql.Tx) error { return insertRing(ctx, tx, r) }))
}

func insertRing(ctx context.Context, tx *sql.Tx, r keys.Ring) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO ring
		(tenant, keyring, id, purpose, created, rotation_period, next_rotation, due, revision)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)`,
		string(r.Name.Tenant), r.Name.Keyring, r.ID[:], r.Purpose, stamp(r.Created),
		int64(r.RotationPeriod), stamp(r.NextRotation), stamp(due(r)))
	if err != nil {
		return err
	}
	return putVersions(ctx, tx, r)
}

// UpdateRing implements keys.Shelf.
func (s *Store) UpdateRing(ctx context.Context, r keys.Ring) error {
	return keysFamily.wrap(s.inTx(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `UPDATE ring
			SET rotation_period = ?, next_rotation = ?, due = ?, revision = revision + 1
			WHERE tenant = ? AND keyring = ? AND revision = ?`,
			int64(r.RotationPeriod), stamp(r.NextRotation), stamp(due(r)),
			string(r.Name.Tenant), r.Name.Keyring, int64(r.Revision))
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

// putVersions stores the ring's versions. Versions are never taken away, and those
// that have not changed are not written.
func putVersions(ctx context.Context, tx *sql.Tx, r keys.Ring) error {
	put, err := tx.PrepareContext(ctx, `INSERT INTO version
		(tenant, keyring, number, state, created, kek, wrapped, destroy_at, compromised) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET
		state = excluded.state, kek = excluded.kek, wrapped = excluded.wrapped,
		destroy_at = excluded.destroy_at, compromised = excluded.compromised
		WHERE (state, kek, wrapped, destroy_at, compromised) IS NOT
		(excluded.state, excluded.kek, excluded.wrapped, excluded.destroy_at, excluded.compromised)`)
	if err != nil {
		return err
	}
	defer func() { _ = put.Close() }()
	for _, v := range r.Versions {
		if _, err := put.ExecContext(ctx, string(r.Name.Tenant), r.Name.Keyring, v.Number, v.State,
			stamp(v.Created), v.KEK, blob(v.Wrapped), stamp(v.DestroyAt), stamp(v.Compromised)); err != nil {
			return err
		}
	}
	return nil
}

// due is when the ring has work next: a rotation, or a destruction.
func due(r keys.Ring) time.Time {
	next := r.NextRotation
	for _, v := range r.Versions {
		if v.State == keys.StateScheduledForDestruction && (next.IsZero() || v.DestroyAt.Before(next)) {
			next = v.DestroyAt
		}
	}
	return next
}

// Ring implements keys.Shelf. The ring and its versions are of one moment.
func (s *Store) Ring(ctx context.Context, n keys.Name) (keys.Ring, error) {
	rings, err := s.rings(ctx, ringQuery, string(n.Tenant), n.Keyring)
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
	query, args := ringsQuery(q)
	rings, err := s.rings(ctx, query, args...)
	return rings, keysFamily.wrap(err)
}

// The parts of a query for rings: the rings are chosen first, then each is joined
// with its versions, in one statement so that both are of one moment. A ring
// without versions is a row as well.
const (
	ringsHead = `SELECT r.*, coalesce(v.number, 0), coalesce(v.state, 0), v.created, coalesce(v.kek, ''), v.wrapped,
		v.destroy_at, v.compromised
		FROM (SELECT tenant, keyring, id, purpose, created, rotation_period, next_rotation, revision FROM ring `
	ringsTail = ") AS r LEFT JOIN version AS v USING (tenant, keyring) ORDER BY r.tenant, r.keyring, v.number"

	ringQuery = ringsHead + "WHERE tenant = ? AND keyring = ?" + ringsTail
)

// ringsQuery gives the statement for a page of rings. It has one lower bound,
// because SQLite searches by one only: with both, a prefix late in the order would
// be looked for from the beginning.
func ringsQuery(q keys.RingQuery) (string, []any) {
	where, args := "WHERE tenant = ?", []any{string(q.Tenant)}
	if q.Purpose != 0 {
		// Left to itself SQLite reads the whole tenant to find the few of a purpose.
		where, args = "INDEXED BY ring_purpose WHERE tenant = ? AND purpose = ?", append(args, q.Purpose)
	}
	if q.After < q.Prefix {
		where, args = where+" AND keyring >= ?", append(args, q.Prefix)
	} else {
		where, args = where+" AND keyring > ?", append(args, q.After)
	}
	if q.Prefix != "" {
		// Ids are ASCII below 0x7f, so that this is the end of the prefix.
		where, args = where+" AND keyring < ?", append(args, q.Prefix+"\x7f")
	}
	return ringsHead + where + " ORDER BY keyring LIMIT ?" + ringsTail, append(args, q.Limit)
}

func (s *Store) rings(ctx context.Context, query string, args ...any) ([]keys.Ring, error) {
	var out []keys.Ring
	err := s.rows(ctx, func(r *sql.Rows) error {
		var ring keys.Ring
		var v keys.Version
		var id []byte
		if err := r.Scan(&ring.Name.Tenant, &ring.Name.Keyring, &id, &ring.Purpose, (*stamp)(&ring.Created),
			&ring.RotationPeriod, (*stamp)(&ring.NextRotation), &ring.Revision,
			&v.Number, &v.State, (*stamp)(&v.Created), &v.KEK, &v.Wrapped,
			(*stamp)(&v.DestroyAt), (*stamp)(&v.Compromised)); err != nil {
			return err
		}
		if n := len(out); n == 0 || out[n-1].Name != ring.Name {
			if copy(ring.ID[:], id) != len(ring.ID) {
				return fmt.Errorf("keyring id of %d bytes", len(id))
			}
			out = append(out, ring)
		}
		if last := &out[len(out)-1]; v.Number != 0 {
			last.Versions = append(last.Versions, v)
		}
		return nil
	}, query, args...)
	return out, err
}

// RingsDue implements keys.Shelf. The longest due come first.
func (s *Store) RingsDue(ctx context.Context, at time.Time, limit int) ([]keys.Name, error) {
	var out []keys.Name
	err := s.rows(ctx, func(r *sql.Rows) error {
		var n keys.Name
		err := r.Scan(&n.Tenant, &n.Keyring)
		out = append(out, n)
		return err
	}, ringsDueQuery, stamp(at), limit)
	return out, keysFamily.wrap(err)
}

const ringsDueQuery = "SELECT tenant, keyring FROM ring WHERE due <= ? ORDER BY due LIMIT ?"
