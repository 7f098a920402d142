package envelope

import (
	"fmt"
	"unicode/utf8"

	"github.com/sallyport/sallyport/crypto/binding"
)

// KeyringID is the opaque identifier of a keyring. Zero is invalid, so that a
// forgotten field fails loudly.
type KeyringID [16]byte

// LeaseID identifies a data-key lease. Zero means the gateway's own key, which
// never leaves it.
type LeaseID [12]byte

// Limits of the strings in a [Scope], in bytes.
const (
	MaxScopeNameLen = 255
	MaxUseLen       = 1024
)

// Scope says whose key a key is. Every field takes part in the derivation or
// the associated data of every message, and each comes from verified identity
// and signed records, never from a caller's claim.
type Scope struct {
	Deployment  string // the installation; 1 to 255 bytes of UTF-8, like the next two
	Environment string
	Tenant      string
	Keyring     KeyringID
	Version     uint32  // generation of the keyring's key material; not zero
	Lease       LeaseID // zero for the gateway's own key
	Use         string  // what the lease may be used for; empty exactly when Lease is zero
}

// Domains of the encodings in this package; see [binding.Encode]. Together
// with the layouts they are the format: changing one makes a new version.
const (
	domainLeaseKey      = "sallyport/v1/lease-key"
	domainMessageKey    = "sallyport/v1/message-key"
	domainCompactKey    = "sallyport/v1/compact-message-key"
	domainDeterministic = "sallyport/v1/deterministic"
	domainMAC           = "sallyport/v1/mac"
)

// check returns an error wrapping [ErrScope] that names the field and not its
// content.
func (s Scope) check() error {
	for _, f := range []struct{ name, value string }{
		{"deployment", s.Deployment}, {"environment", s.Environment}, {"tenant", s.Tenant},
	} {
		if len(f.value) == 0 || len(f.value) > MaxScopeNameLen || !utf8.ValidString(f.value) {
			return fmt.Errorf("%w: %s", ErrScope, f.name)
		}
	}
	switch {
	case s.Keyring == KeyringID{}:
		return fmt.Errorf("%w: keyring", ErrScope)
	case s.Version == 0:
		return fmt.Errorf("%w: version", ErrScope)
	case len(s.Use) > MaxUseLen || !utf8.ValidString(s.Use):
		return fmt.Errorf("%w: use", ErrScope)
	case (s.Lease == LeaseID{}) != (s.Use == ""):
		return fmt.Errorf("%w: a lease and its use come together", ErrScope)
	}
	return nil
}

// checkOwn is check for primitives that are never leased.
func (s Scope) checkOwn() error {
	if (s.Lease != LeaseID{}) {
		return fmt.Errorf("%w: this purpose has no leases", ErrScope)
	}
	return s.check()
}

// encode returns the fields that every scope has, as the beginning of an
// encoding in the given domain.
func (s Scope) encode(domain string) []byte {
	enc := binding.AppendField(nil, domain)
	enc = binding.AppendField(enc, s.Deployment)
	enc = binding.AppendField(enc, s.Environment)
	enc = binding.AppendField(enc, s.Tenant)
	enc = binding.AppendField(enc, s.Keyring[:])
	return binding.AppendUint32(enc, s.Version)
}
