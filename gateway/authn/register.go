package authn

import (
	"context"
	"errors"
	"time"
)

// The errors of a Register. Implementations wrap one of them.
var (
	ErrNotFound = errors.New("authn: not found")
	ErrExists   = errors.New("authn: already exists")
	ErrConflict = errors.New("authn: changed by somebody else")
	ErrStore    = errors.New("authn: store unavailable")
)

// Fingerprint is the SHA-256 of a certificate's DER.
type Fingerprint [32]byte

// Registration is a row of the register: a workload that may call.
type Registration struct {
	// ID is the last segment of "workloads/{workload}".
	ID       string
	SPIFFEID string
	Enabled  bool
	// Automation admits the workload to the control plane, as far as policy allows.
	Automation bool
	Created    time.Time
	Revision   uint64 // counts the changes to the row, from 1
}

// Revocation is a certificate that is refused, whoever holds it.
type Revocation struct {
	Fingerprint Fingerprint
	Comment     string
	Revoked     time.Time
}

// Register stores who may call. Every write is durable when it returns. The
// conformance suite is gateway/store/storetest.
type Register interface {
	// CreateWorkload stores a row with revision 1. ErrExists if the id or the SPIFFE
	// id is taken.
	CreateWorkload(ctx context.Context, r Registration) error
	Workload(ctx context.Context, id string) (Registration, error)
	// UpdateWorkload replaces the row if its stored revision is r.Revision, and
	// stores r.Revision+1. ID, SPIFFEID and Created do not change.
	UpdateWorkload(ctx context.Context, r Registration) error
	// Workloads lists at most limit rows after the given id, in order of id; limit 0
	// means all.
	Workloads(ctx context.Context, after string, limit int) ([]Registration, error)

	// Revoke stores a revocation; revoking twice keeps the first and succeeds.
	Revoke(ctx context.Context, r Revocation) (Revocation, error)
	// Revocations lists at most limit rows after the given fingerprint, in order;
	// the zero fingerprint begins, limit 0 means all.
	Revocations(ctx context.Context, after Fingerprint, limit int) ([]Revocation, error)
}
