package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/keys"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

var _ lease.Roles = (*Store)(nil)

// CreateRole implements lease.Roles.
func (s *Store) CreateRole(ctx context.Context, r lease.Role) error {
	parameters, err := marshal(r.Parameters)
	if err != nil {
		return leaseFamily.wrap(err)
	}
	return leaseFamily.wrap(s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO role (tenant, role, source, parameters, max_lifetime,
			default_lifetime, renewable, quota, sealed_only, created, revision) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)`,
			string(r.Name.Tenant), r.Name.Role, r.Source, parameters, int64(r.MaxLifetime),
			int64(r.DefaultLifetime), r.Renewable, r.Quota, r.SealedOnly, stamp(r.Created))
		return err
	}))
}

// UpdateRole implements lease.Roles.
func (s *Store) UpdateRole(ctx context.Context, r lease.Role) error {
	parameters, err := marshal(r.Parameters)
	if err != nil {
		return leaseFamily.wrap(err)
	}
	return leaseFamily.wrap(s.inTx(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `UPDATE role SET parameters = ?, max_lifetime = ?, default_lifetime = ?,
			renewable = ?, quota = ?, sealed_only = ?, revision = revision + 1
			WHERE tenant = ? AND role = ? AND revision = ?`,
			parameters, int64(r.MaxLifetime), int64(r.DefaultLifetime), r.Renewable, r.Quota, r.SealedOnly,
			string(r.Name.Tenant), r.Name.Role, int64(r.Revision))
		if err != nil {
			return err
		}
		return swappedRole(ctx, tx, result, r.Name)
	}))
}

// DeleteRole implements lease.Roles.
func (s *Store) DeleteRole(ctx context.Context, n lease.RoleName, revision uint64) error {
	return leaseFamily.wrap(s.inTx(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, "DELETE FROM role WHERE tenant = ? AND role = ? AND ? IN (0, revision)",
			string(n.Tenant), n.Role, int64(revision))
		if err != nil {
			return err
		}
		return swappedRole(ctx, tx, result, n)
	}))
}

// swappedRole tells why a write changed no role, if so.
func swappedRole(ctx context.Context, tx *sql.Tx, result sql.Result, n lease.RoleName) error {
	if changed, err := result.RowsAffected(); err != nil || changed == 1 {
		return err
	}
	var exists int
	err := tx.QueryRowContext(ctx, "SELECT 1 FROM role WHERE tenant = ? AND role = ?", string(n.Tenant), n.Role).Scan(&exists)
	if err != nil {
		return err
	}
	return lease.ErrConflict
}

// Role implements lease.Roles.
func (s *Store) Role(ctx context.Context, n lease.RoleName) (lease.Role, error) {
	roles, err := s.roles(ctx, roleQuery, string(n.Tenant), n.Role)
	if err == nil && len(roles) == 0 {
		err = lease.ErrNotFound
	}
	if err != nil {
		return lease.Role{}, err
	}
	return roles[0], nil
}

// Roles implements lease.Roles.
func (s *Store) Roles(ctx context.Context, t keys.Tenant, after string, limit int) ([]lease.Role, error) {
	return s.roles(ctx, rolesQuery, string(t), after, limitOf(limit))
}

// RolesOf implements lease.Roles.
func (s *Store) RolesOf(ctx context.Context, source string) ([]lease.Role, error) {
	return s.roles(ctx, rolesOfQuery, source)
}

const (
	roleHead = `SELECT tenant, role, source, parameters, max_lifetime, default_lifetime, renewable, quota, sealed_only,
		created, revision FROM role WHERE `
	roleQuery    = roleHead + "tenant = ? AND role = ?"
	rolesQuery   = roleHead + "tenant = ? AND role > ? ORDER BY role LIMIT ?"
	rolesOfQuery = roleHead + "source = ? ORDER BY tenant, role"
)

func (s *Store) roles(ctx context.Context, query string, args ...any) ([]lease.Role, error) {
	var out []lease.Role
	err := s.rows(ctx, func(rows *sql.Rows) error {
		r := lease.Role{Parameters: new(controlv1.SecretParameters)}
		var parameters sql.RawBytes
		if err := rows.Scan(&r.Name.Tenant, &r.Name.Role, &r.Source, &parameters, &r.MaxLifetime, &r.DefaultLifetime,
			&r.Renewable, &r.Quota, &r.SealedOnly, (*stamp)(&r.Created), &r.Revision); err != nil {
			return err
		}
		if err := proto.Unmarshal(parameters, r.Parameters); err != nil {
			return fmt.Errorf("the parameters of %v: %w", r.Name, err)
		}
		out = append(out, r)
		return nil
	}, query, args...)
	if err != nil {
		return nil, leaseFamily.wrap(err)
	}
	return out, nil
}

func marshal(p *controlv1.SecretParameters) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	return blob(b), err
}
