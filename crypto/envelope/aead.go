package envelope

import (
	"crypto/rand"
	"fmt"
	"sync"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/secret"
)

// PRF is a pseudorandom function whose outputs for different inputs are
// independent keys. It must also be collision resistant over keys and inputs
// together, which HKDF is and AES-CMAC is not: the commitment of an envelope
// reaches up to the branch key through it. prf.PRF of Tink over an HKDF-SHA256
// key is one.
type PRF interface {
	// ComputePRF returns the first n bytes of the function's output.
	ComputePRF(input []byte, n uint32) ([]byte, error)
}

// leaseKeyLen is the length of a lease key in bytes: a pseudorandom key for
// HKDF with SHA-256.
const leaseKeyLen = 32

// AEADKey seals and opens messages of the suites 0x01 and 0x02. It is safe for
// concurrent use, does not print, and must not be copied.
//
// Its holder may seal any number of messages. Two messages with one context
// share a key only if their random message ids are equal: after 2^48 messages
// under one lease key the probability is below 2^-64 for the standard suite
// and about 2^-33 for the compact suite.
type AEADKey struct {
	scope     Scope
	key       secret.Bytes // the lease key
	expanders sync.Pool    // of *expander, keyed with the lease key
}

// DeriveAEADKey derives the key of a scope from the branch key of its version:
//
//	lease key = PRF(branch, Encode("sallyport/v1/lease-key", deployment,
//	            environment, tenant, keyring (16 bytes), version (4), lease (12), use))
//
// with 32 bytes of output and [binding.Encode]. It fails with [ErrScope], with
// [ErrPrimitive], or with the error of the branch.
func DeriveAEADKey(branch PRF, s Scope) (*AEADKey, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	info := s.encode(domainLeaseKey)
	info = binding.AppendField(info, s.Lease[:])
	info = binding.AppendField(info, s.Use)
	key, err := branch.ComputePRF(info, leaseKeyLen)
	if err != nil {
		return nil, fmt.Errorf("envelope: deriving a lease key: %w", err)
	}
	if len(key) != leaseKeyLen {
		secret.Wipe(key)
		return nil, ErrPrimitive
	}
	return &AEADKey{scope: s, key: secret.Take(key)}, nil
}

// Scope returns whose key it is.
func (k *AEADKey) Scope() Scope { return k.scope }

// Wipe clears the key. Calls that have begun finish; later ones fail with
// [secret.ErrWiped]. States of HMAC made from the key become garbage and are
// not cleared.
func (k *AEADKey) Wipe() { k.key.Wipe() }

// Format prints the key's version and nothing secret, for every verb.
func (k *AEADKey) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "envelope.AEADKey(version %d)", k.scope.Version)
}

// Seal encrypts plaintext under the context c and appends the envelope, of
// [SealedSize] bytes, to dst. The spare capacity of dst must not overlap
// plaintext.
//
// The suite is [SuiteStandard] or, for the gateway's own key, [SuiteCompact];
// others fail with [ErrSuite]. Other errors are [ErrTooLarge] and
// [secret.ErrWiped].
func (k *AEADKey) Seal(dst, plaintext []byte, c binding.Context, suite Suite) ([]byte, error) {
	var id [messageIDLen]byte
	rand.Read(id[:]) // does not fail: without randomness it ends the process
	return k.seal(dst, plaintext, c, suite, id[:])
}

// seal is Seal with the message id given: the compact suite takes its first 16
// bytes. An id must never be used twice with one key, which only random choice
// ensures; tests that reproduce published vectors are the other caller.
func (k *AEADKey) seal(dst, plaintext []byte, c binding.Context, suite Suite, id []byte) ([]byte, error) {
	if len(plaintext) > MaxPlaintext {
		return nil, ErrTooLarge
	}
	switch suite {
	case SuiteStandard:
		return k.sealStandard(dst, plaintext, c, id[:messageIDLen])
	case SuiteCompact:
		if (k.scope.Lease != LeaseID{}) {
			return nil, ErrSuite // a compact header has no place for the lease
		}
		return k.sealCompact(dst, plaintext, c, id[:compactMessageIDLen])
	default:
		return nil, ErrSuite
	}
}

// Open decrypts a message of the suites 0x01 and 0x02 and appends the
// plaintext to dst, whose spare capacity must not overlap the message. It
// fails with [ErrOpen] for every cause that lies in message, key or context,
// and with [secret.ErrWiped]. After a failure no byte of the plaintext is
// in the spare capacity of dst.
func (k *AEADKey) Open(dst []byte, m Message, c binding.Context) ([]byte, error) {
	switch m.suite {
	case SuiteStandard:
		return k.openStandard(dst, m, c)
	case SuiteCompact:
		return k.openCompact(dst, m, c)
	default:
		return nil, ErrOpen
	}
}

// expander takes an expander from the pool or keys a new one. The caller
// returns it with release.
func (k *AEADKey) expander() (*expander, error) {
	if e, ok := k.expanders.Get().(*expander); ok && !k.key.Wiped() {
		return e, nil
	}
	var e *expander
	err := k.key.Use(func(key []byte) error {
		e = newExpander(key)
		return nil
	})
	return e, err
}

func (k *AEADKey) release(e *expander) {
	e.wipe()
	k.expanders.Put(e)
}
