package lease

import (
	"context"
	"errors"
	"time"

	"github.com/sallyport/sallyport/keys"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// The errors of Ledger and Roles. Everything they return wraps one of them, or a
// context error.
var (
	// ErrNotFound: no such lease, role or tenant.
	ErrNotFound = errors.New("lease: not found")
	// ErrExists: the name is taken.
	ErrExists = errors.New("lease: already exists")
	// ErrConflict: the stored revision is not the expected one; read again.
	ErrConflict = errors.New("lease: changed by somebody else")
	// ErrQuota: the workload holds as many leases of the role as it may.
	ErrQuota = errors.New("lease: quota reached")
	// ErrStore: the store failed. The write may have happened.
	ErrStore = errors.New("lease: store unavailable")
)

// Anchor is what ends a credential, and everything else that its issuing led to: what
// the source gave, opaque to everybody else. It opens nothing.
type Anchor struct {
	// Handle is durable before the credential is asked for. For Vault it is the
	// accessor of the child token that the credential hangs on.
	Handle string
	// Ref names the credential itself, once it is known. For Vault it is the lease id.
	Ref string
}

// Lease is a row of the ledger. It has no field for a value.
type Lease struct {
	Name Name
	// Workload is the owner's SPIFFE id, Registration the id of its row in the
	// register, and Evidence the SHA-256 of the certificate that it leased with.
	Workload     string
	Registration string
	Evidence     [32]byte
	Source       string // the name of the source
	Created      time.Time
	// MaxExpires is beyond every renewal: the source was told so too.
	MaxExpires time.Time
	// Lifetime is what it was issued for, and what a renewal asks for by default.
	Lifetime time.Duration

	// What follows changes.

	State State
	// Revision counts the changes to the row; 1 when it is reserved.
	Revision uint64
	Anchor   Anchor
	// Expires is when the credential ends by itself, if not renewed. While reserved it
	// is when it would end at the latest.
	Expires   time.Time
	Renewable bool
	// Revocable is false if the credential cannot be ended before Expires.
	Revocable bool
	// Version of a versioned secret; 0 for others.
	Version uint64
	// Due is when the sweeper looks at the row again: for a reserved row when issuing
	// must have ended, for an active one its end, for a revoking or stuck one the next
	// try, and for one that is gone when the row is forgotten.
	Due time.Time
	// Failures counts the tries to end it that failed, and Failure is the reason of the
	// last one, a fault.Reason's name.
	Failures uint32
	Failure  string
}

// Ledger keeps leases. Every write is durable when it returns and is compare-and-swap
// on the revision. The conformance suite is gateway/store/storetest.
type Ledger interface {
	// Reserve stores a new lease in StateReserved with revision 1. The error wraps
	// ErrExists if the id is taken, and ErrQuota if the workload already holds quota
	// leases of the role that are not gone; counting and storing are one step.
	Reserve(ctx context.Context, l Lease, quota uint32) error
	Lease(ctx context.Context, n Name) (Lease, error)
	// Update replaces the part of the row that changes if the stored revision is
	// l.Revision, and stores l.Revision+1. It does not judge the move.
	Update(ctx context.Context, l Lease) error
	// Forget removes the row if the stored revision is l.Revision.
	Forget(ctx context.Context, l Lease) error
	// Leases lists the leases that match, in order of Created and ID.
	Leases(ctx context.Context, q Query) ([]Lease, error)
	// Due lists at most limit leases whose Due has come, the longest due first.
	Due(ctx context.Context, at time.Time, limit int) ([]Lease, error)
	// Held counts the leases of the role that the workload holds and that are not gone;
	// no further than limit.
	Held(ctx context.Context, workload string, role RoleName, limit uint32) (uint32, error)
	// Count counts the rows by state.
	Count(ctx context.Context) (map[State]int, error)
}

// Query selects leases. Zero fields select all.
type Query struct {
	Tenant   keys.Tenant
	Role     string // within Tenant, which must be set
	ID       ID
	Workload string
	Evidence [32]byte
	// Since selects leases with Created at or after it.
	Since time.Time
	// State selects one state; Live those that are not gone.
	State State
	Live  bool

	// After is the last lease of the page before: its Created and ID.
	After Cursor
	Limit int // 0 for all
}

// Cursor is a place in the order of leases.
type Cursor struct {
	Created time.Time
	ID      ID
}

// Role is something that may be leased.
type Role struct {
	Name       RoleName
	Source     string
	Parameters *controlv1.SecretParameters
	// MaxLifetime bounds a lease's whole life, DefaultLifetime is what it gets when it
	// is not asked for.
	MaxLifetime, DefaultLifetime time.Duration
	Renewable                    bool
	// Quota is how many leases of the role a workload may hold.
	Quota uint32
	// SealedOnly refuses to deliver to anybody but a recipient's key.
	SealedOnly bool
	Created    time.Time
	Revision   uint64 // counts the changes; 1 when created
}

// Roles keeps roles, with the same promises as Ledger. The conformance suite is
// gateway/store/storetest.
type Roles interface {
	// CreateRole stores a new role with revision 1. The error wraps ErrNotFound if there
	// is no such tenant.
	CreateRole(ctx context.Context, r Role) error
	Role(ctx context.Context, n RoleName) (Role, error)
	// Roles lists at most limit (0 for all) roles of a tenant after the named one, in
	// order.
	Roles(ctx context.Context, t keys.Tenant, after string, limit int) ([]Role, error)
	// RolesOf lists every role of a source, in order of tenant and name.
	RolesOf(ctx context.Context, source string) ([]Role, error)
	// UpdateRole replaces everything but Name, Source and Created if the stored revision
	// is r.Revision, and stores r.Revision+1.
	UpdateRole(ctx context.Context, r Role) error
	// DeleteRole removes the role if the stored revision is the given one; 0 stands for
	// any.
	DeleteRole(ctx context.Context, n RoleName, revision uint64) error
}
