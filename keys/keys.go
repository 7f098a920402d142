// Package keys turns a keyring's name into a key that can be used.
//
// A keyring is a named key of one purpose with ordered versions. A version's
// key material is a Tink keyset wrapped by a key-encryption key (KEK) that
// lives in a KMS. Package keys opens versions, keeps them open in a bounded
// cache, rotates them and moves them between states. It knows nothing of
// requests, callers or transports: it is a library in its own right.
package keys

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport/sallyport/crypto/envelope"
)

// The sentinel errors of the package. Everything that package keys returns wraps
// one of them, or a context error.
var (
	// ErrNotFound: no such tenant, keyring or version.
	ErrNotFound = errors.New("keys: not found")
	// ErrUnknownVersion: the keyring exists and has no such version.
	ErrUnknownVersion = fmt.Errorf("%w: no such version", ErrNotFound)
	// ErrForeign: the message was sealed under another keyring.
	ErrForeign = errors.New("keys: message of another keyring")
	// ErrExists: the name is taken.
	ErrExists = errors.New("keys: already exists")
	// ErrConflict: the stored revision is not the expected one; read again.
	ErrConflict = errors.New("keys: changed by somebody else")
	// ErrName: a name breaks its grammar.
	ErrName = errors.New("keys: invalid name")
	// ErrPurpose: the keyring's purpose does not serve the operation.
	ErrPurpose = errors.New("keys: wrong purpose")
	// ErrVersionState: the version's state forbids the operation or the move.
	ErrVersionState = errors.New("keys: version state forbids this")
	// ErrArgument: an argument is outside its documented range.
	ErrArgument = errors.New("keys: invalid argument")
	// ErrTooManyVersions: the keyring has MaxVersions versions and takes no more.
	ErrTooManyVersions = fmt.Errorf("keys: the keyring has %d versions already", MaxVersions)
	// ErrClosed: the keeper is closed.
	ErrClosed = errors.New("keys: closed")
	// ErrStore: the store failed. Implementations of Shelf wrap it.
	ErrStore = errors.New("keys: store unavailable")

	// ErrKEK is the family of KEK failures.
	ErrKEK = errors.New("keys: KEK")
	// ErrKEKUnreachable: no answer, or too late. Warm keys go on serving until their
	// stated maximum staleness.
	ErrKEKUnreachable = fmt.Errorf("%w unreachable", ErrKEK)
	// ErrKEKThrottled: the provider's quota, or our budget under it, is spent.
	ErrKEKThrottled = fmt.Errorf("%w throttled", ErrKEK)
	// ErrKEKRefused: denied, disabled, pending deletion, or the wrapped key does not
	// open under the given binding. Warm keys are evicted at once.
	ErrKEKRefused = fmt.Errorf("%w refused", ErrKEK)
	// ErrKEKMismatch: the KEK answers, and this wrapped key does not open: altered,
	// wrapped by another KEK, or under another binding. Unlike its family it says
	// nothing about other keys of the KEK.
	ErrKEKMismatch = fmt.Errorf("%w: the wrapped key does not open", ErrKEKRefused)
)

// Tenant is the id of an owner of data: the last segment of "tenants/{tenant}".
type Tenant string

// Name names a keyring within its tenant.
type Name struct {
	Tenant  Tenant
	Keyring string
}

// String gives the resource name, "tenants/{tenant}/keyrings/{keyring}".
func (n Name) String() string {
	return "tenants/" + string(n.Tenant) + "/keyrings/" + n.Keyring
}

// ParseName parses "tenants/{tenant}/keyrings/{keyring}". It accepts only what
// String writes; the error wraps ErrName.
func ParseName(s string) (Name, error) {
	rest, ok := strings.CutPrefix(s, "tenants/")
	tenant, keyring, found := strings.Cut(rest, "/keyrings/")
	if !ok || !found || !ValidID(tenant) || !ValidID(keyring) {
		return Name{}, fmt.Errorf("%w: want tenants/{tenant}/keyrings/{keyring}", ErrName)
	}
	return Name{Tenant(tenant), keyring}, nil
}

// ParseTenant parses "tenants/{tenant}". The error wraps ErrName.
func ParseTenant(s string) (Tenant, error) {
	id, ok := strings.CutPrefix(s, "tenants/")
	if !ok || !ValidID(id) {
		return "", fmt.Errorf("%w: want tenants/{tenant}", ErrName)
	}
	return Tenant(id), nil
}

// ValidID reports whether s can be one segment of a name: 1 to 63 of a-z, 0-9
// and "-", beginning with a letter and not ending with "-" (RFC 1034, as in
// AIP-122).
func ValidID(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] < 'a' || s[0] > 'z' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// Purpose is what a keyring is for; fixed when the keyring is made.
type Purpose uint8

// The purposes. The zero value is none.
const (
	PurposeAEAD          Purpose = 1 // authenticated encryption
	PurposeDeterministic Purpose = 2 // equal plaintexts give equal envelopes
	PurposeMAC           Purpose = 3 // message authentication
	// PurposeSigning is the signing key of an authority of the gateway's own, which a
	// KEK wraps like a keyset. It is no keyring's purpose: Valid denies it.
	PurposeSigning Purpose = 4
)

// State is the state of a version. The zero value is none.
type State uint8

// The states; docs/operations/keyrings.md draws the moves between them.
const (
	StatePending                 State = 1 // made, not used yet
	StatePrimary                 State = 2 // seals and opens; one version at most
	StateEnabled                 State = 3 // opens
	StateDisabled                State = 4 // nothing, can come back
	StateCompromised             State = 5 // nothing; known to have leaked
	StateScheduledForDestruction State = 6 // nothing; destroyed at DestroyAt unless cancelled
	StateDestroyed               State = 7 // the key material is gone
)

// Ring is a keyring as it is stored: names, states and wrapped key material.
type Ring struct {
	Name    Name
	ID      envelope.KeyringID // 128 bits, random; what envelopes carry
	Purpose Purpose
	Created time.Time
	// Versions in ascending order of number, beginning with 1.
	Versions []Version
	// RotationPeriod is 0 for none; NextRotation is then the zero time.
	RotationPeriod time.Duration
	NextRotation   time.Time
	// Revision counts the changes to the stored ring; 0 before it is stored.
	Revision uint64
}

// Version is one generation of a ring's key material.
type Version struct {
	Number  uint32
	State   State
	Created time.Time
	// KEK is the URI of the KEK that wraps the keyset.
	KEK string
	// Wrapped is the Tink keyset under the KEK; empty once destroyed.
	Wrapped []byte
	// DestroyAt is when the version will be or was destroyed, or the zero time.
	DestroyAt time.Time
	// Compromised is when the version was marked compromised, or the zero time. It
	// outlives that state, so that cancelling a destruction cannot wash it off.
	Compromised time.Time
}

// MaxKeyset is the size in bytes of the largest keyset that a KEK wraps, the
// plaintext limit of AWS KMS Encrypt.
const MaxKeyset = 4096

// MaxVersions bounds the versions of a keyring, destroyed ones included, and with
// them the size of a stored ring: eleven years of daily rotation.
const MaxVersions = 4096

// KEK is a key-encryption key in a KMS. An implementation must authenticate the
// binding: unwrapping under another binding fails with ErrKEKRefused. Errors wrap
// ErrKEKUnreachable, ErrKEKThrottled or ErrKEKRefused. Both methods respect the
// context's deadline, whose passing is ErrKEKUnreachable around the context's error,
// and are safe for concurrent use. The conformance suite is keys/kms/kmstest.
type KEK interface {
	// URI names the key, for example "awskms:arn:aws:kms:…" or "local:default". It
	// is stored beside what the key wrapped.
	URI() string
	// Wrap encrypts a keyset of 1 to MaxKeyset bytes; others are refused.
	Wrap(ctx context.Context, keyset []byte, b Binding) ([]byte, error)
	// Unwrap decrypts what Wrap made. The caller wipes the result.
	Unwrap(ctx context.Context, wrapped []byte, b Binding) ([]byte, error)
}

// Shelf stores tenants and rings. Every write is durable when it returns and is
// compare-and-swap. Errors wrap ErrNotFound, ErrExists, ErrConflict or ErrStore.
// The conformance suite is gateway/store/storetest.
type Shelf interface {
	CreateTenant(ctx context.Context, t Tenant, created time.Time) error
	// Tenants lists at most limit tenants after the given one, in order.
	Tenants(ctx context.Context, after Tenant, limit int) ([]TenantRow, error)

	// CreateRing stores a new ring with revision 1. The tenant must exist.
	CreateRing(ctx context.Context, r Ring) error
	Ring(ctx context.Context, n Name) (Ring, error)
	// Rings lists at most limit rings of a tenant after the named one, in order of
	// their names.
	Rings(ctx context.Context, q RingQuery) ([]Ring, error)
	// UpdateRing replaces the ring if its stored revision is r.Revision, and stores
	// r.Revision+1. Name, ID, Purpose and Created do not change.
	UpdateRing(ctx context.Context, r Ring) error
	// RingsDue lists at most limit names of rings with work due at the given time:
	// NextRotation or the DestroyAt of a scheduled version has passed.
	RingsDue(ctx context.Context, at time.Time, limit int) ([]Name, error)
}

// TenantRow is a stored tenant.
type TenantRow struct {
	Tenant  Tenant
	Created time.Time
}

// RingQuery selects rings. The zero Purpose and the empty Prefix select all.
type RingQuery struct {
	Tenant  Tenant
	After   string // the id of the last keyring of the page before
	Limit   int
	Purpose Purpose
	Prefix  string
}
