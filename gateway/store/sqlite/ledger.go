package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport/sallyport/gateway/lease"
)

var _ lease.Ledger = (*Store)(nil)

var leaseFamily = family{
	notFound: lease.ErrNotFound, exists: lease.ErrExists, conflict: lease.ErrConflict, quota: lease.ErrQuota,
	store: lease.ErrStore,
}

// Reserve implements lease.Ledger.
func (s *Store) Reserve(ctx context.Context, l lease.Lease, quota uint32) error {
	l.State = lease.StateReserved
	return leaseFamily.wrap(s.inBatch(ctx, func(ctx context.Context, tx *sql.Tx) error {
		return s.insertLease(ctx, tx, l, quota)
	}))
}

func (s *Store) insertLease(ctx context.Context, tx *sql.Tx, l lease.Lease, quota uint32) error {
	result, err := execPrepared(ctx, tx, s.reserve,
		l.Name.ID[:], string(l.Name.Role.Tenant), l.Name.Role.Role, l.Workload, l.Registration, l.Evidence[:],
		l.Source, instant(l.Created), stamp(l.MaxExpires), int64(l.Lifetime), l.State, 1,
		l.Anchor.Handle, l.Anchor.Ref, stamp(l.Expires), l.Renewable, l.Revocable, int64(l.Version), stamp(l.Due),
		l.Failures, l.Failure,
		l.Workload, string(l.Name.Role.Tenant), l.Name.Role.Role, quota, quota)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 1 {
		return err
	}
	return lease.ErrQuota
}

func execPrepared(ctx context.Context, tx *sql.Tx, s *sql.Stmt, args ...any) (sql.Result, error) {
	s = tx.StmtContext(ctx, s)
	defer s.Close() // for the transaction
	return s.ExecContext(ctx, args...)
}

// Update implements lease.Ledger.
func (s *Store) Update(ctx context.Context, l lease.Lease) error {
	return leaseFamily.wrap(s.inBatch(ctx, func(ctx context.Context, tx *sql.Tx) error {
		result, err := execPrepared(ctx, tx, s.update,
			l.State, l.Anchor.Handle, l.Anchor.Ref, stamp(l.Expires), l.Renewable, l.Revocable, int64(l.Version),
			stamp(l.Due), l.Failures, l.Failure,
			l.Name.ID[:], string(l.Name.Role.Tenant), l.Name.Role.Role, int64(l.Revision))
		if err != nil {
			return err
		}
		return swappedLease(ctx, tx, result, l.Name)
	}))
}

// Forget implements lease.Ledger.
func (s *Store) Forget(ctx context.Context, l lease.Lease) error {
	return leaseFamily.wrap(s.inBatch(ctx, func(ctx context.Context, tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, "DELETE FROM lease WHERE "+isRevision,
			l.Name.ID[:], string(l.Name.Role.Tenant), l.Name.Role.Role, int64(l.Revision))
		if err != nil {
			return err
		}
		return swappedLease(ctx, tx, result, l.Name)
	}))
}

const (
	leaseColumns = `id, tenant, role, workload, registration, evidence, source, created, max_expires, lifetime,
		state, revision, handle, ref, expires, renewable, revocable, version, due, failures, failure`

	// Counting stops at the quota. The 4 is StateGone, as in the index.
	reserveStatement = "INSERT INTO lease (" + leaseColumns + `)
		SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
		WHERE (SELECT count(*) FROM (` + heldQuery + ")) < ?"
	heldQuery = "SELECT 1 FROM lease INDEXED BY lease_held WHERE workload = ? AND tenant = ? AND role = ? AND state <> 4 LIMIT ?"

	updateStatement = `UPDATE lease SET state = ?, handle = ?, ref = ?, expires = ?, renewable = ?, revocable = ?,
		version = ?, due = ?, failures = ?, failure = ?, revision = revision + 1 WHERE ` + isRevision

	isLease    = "id = ? AND tenant = ? AND role = ?"
	isRevision = isLease + " AND revision = ?"
)

// swappedLease tells why a write changed no lease, if so.
func swappedLease(ctx context.Context, tx *sql.Tx, result sql.Result, n lease.Name) error {
	if changed, err := result.RowsAffected(); err != nil || changed == 1 {
		return err
	}
	var exists int
	err := tx.QueryRowContext(ctx, "SELECT 1 FROM lease WHERE "+isLease, n.ID[:], string(n.Role.Tenant), n.Role.Role).Scan(&exists)
	if err != nil {
		return err
	}
	return lease.ErrConflict
}

// Lease implements lease.Ledger.
func (s *Store) Lease(ctx context.Context, n lease.Name) (lease.Lease, error) {
	rows, err := s.leases(ctx, leaseQuery, n.ID[:], string(n.Role.Tenant), n.Role.Role)
	if err == nil && len(rows) == 0 {
		err = lease.ErrNotFound
	}
	if err != nil {
		return lease.Lease{}, err
	}
	return rows[0], nil
}

// Leases implements lease.Ledger.
func (s *Store) Leases(ctx context.Context, q lease.Query) ([]lease.Lease, error) {
	query, args := leasesQuery(q)
	return s.leases(ctx, query, args...)
}

// Due implements lease.Ledger.
func (s *Store) Due(ctx context.Context, at time.Time, limit int) ([]lease.Lease, error) {
	return s.leases(ctx, leasesDueQuery, stamp(at), limit)
}

// Held implements lease.Ledger.
func (s *Store) Held(ctx context.Context, workload string, role lease.RoleName, limit uint32) (n uint32, err error) {
	err = s.rows(ctx, func(rows *sql.Rows) error { return rows.Scan(&n) },
		"SELECT count(*) FROM ("+heldQuery+")", workload, string(role.Tenant), role.Role, limit)
	return n, leaseFamily.wrap(err)
}

// Count implements lease.Ledger.
func (s *Store) Count(ctx context.Context) (map[lease.State]int, error) {
	counts := map[lease.State]int{}
	err := s.rows(ctx, func(rows *sql.Rows) error {
		var state lease.State
		var n int
		err := rows.Scan(&state, &n)
		counts[state] = n
		return err
	}, "SELECT state, n FROM lease_count WHERE n > 0")
	if err != nil {
		return nil, leaseFamily.wrap(err)
	}
	return counts, nil
}

const (
	leaseHead      = "SELECT " + leaseColumns + " FROM lease "
	leaseQuery     = leaseHead + "WHERE " + isLease
	leasesDueQuery = leaseHead + "INDEXED BY lease_due WHERE due <= ? ORDER BY due, id LIMIT ?"
)

// leasesQuery gives the statement for a list of leases. It names the index that
// narrows most, because SQLite knows nothing of how the leases are distributed.
func leasesQuery(q lease.Query) (string, []any) {
	var where []string
	var args []any
	and := func(condition string, values ...any) {
		where, args = append(where, condition), append(args, values...)
	}
	if q.ID != (lease.ID{}) {
		and("id = ?", q.ID[:])
	}
	if q.Tenant != "" {
		and("tenant = ?", string(q.Tenant))
	}
	if q.Role != "" {
		and("role = ?", q.Role)
	}
	if q.Workload != "" {
		and("workload = ?", q.Workload)
	}
	if q.Evidence != [32]byte{} {
		and("evidence = ?", q.Evidence[:])
	}
	if q.State != 0 {
		and("state = ?", q.State)
	}
	if q.Live {
		and("state <> 4") // StateGone, as in the index
	}
	// One lower bound, because SQLite searches by one only.
	if q.After.Created.Before(q.Since) {
		and("created >= ?", instant(q.Since))
	} else {
		and("(created, id) > (?, ?)", instant(q.After.Created), q.After.ID[:])
	}
	query := leaseHead + leasesIndex(q) + "WHERE " + strings.Join(where, " AND ") + " ORDER BY created, id LIMIT ?"
	return query, append(args, limitOf(q.Limit))
}

func leasesIndex(q lease.Query) string {
	switch {
	case q.ID != (lease.ID{}):
		return "" // the primary key
	case q.Evidence != [32]byte{}:
		return "INDEXED BY lease_evidence "
	case q.Workload != "" && q.Tenant != "" && q.Role != "" && q.Live:
		return "INDEXED BY lease_held "
	case q.Workload != "":
		return "INDEXED BY lease_workload "
	case q.State != 0 && q.State != lease.StateActive && q.State != lease.StateGone:
		return "INDEXED BY lease_state " // there are few
	case q.Tenant != "":
		return "INDEXED BY lease_tenant "
	case q.State != 0:
		return "INDEXED BY lease_state "
	}
	return "INDEXED BY lease_created "
}

func (s *Store) leases(ctx context.Context, query string, args ...any) ([]lease.Lease, error) {
	var out []lease.Lease
	err := s.rows(ctx, func(rows *sql.Rows) error {
		var l lease.Lease
		var id, evidence sql.RawBytes
		var version int64
		if err := rows.Scan(&id, &l.Name.Role.Tenant, &l.Name.Role.Role, &l.Workload, &l.Registration, &evidence, &l.Source,
			(*instant)(&l.Created), (*stamp)(&l.MaxExpires), &l.Lifetime,
			&l.State, &l.Revision, &l.Anchor.Handle, &l.Anchor.Ref, (*stamp)(&l.Expires), &l.Renewable, &l.Revocable,
			&version, (*stamp)(&l.Due), &l.Failures, &l.Failure); err != nil {
			return err
		}
		if copy(l.Name.ID[:], id) != len(l.Name.ID) || copy(l.Evidence[:], evidence) != len(l.Evidence) {
			return fmt.Errorf("lease id of %d bytes, evidence of %d", len(id), len(evidence))
		}
		l.Version = uint64(version)
		out = append(out, l)
		return nil
	}, query, args...)
	if err != nil {
		return nil, leaseFamily.wrap(err)
	}
	return out, nil
}
