package envelope

import (
	"fmt"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/secret"
)

// DeterministicAEAD is deterministic authenticated encryption by AES-SIV (RFC
// 5297) whose output is the 16-byte synthetic IV followed by the ciphertext.
// tink.DeterministicAEAD over an AES-SIV keyset of output prefix RAW is one.
type DeterministicAEAD interface {
	EncryptDeterministically(plaintext, associatedData []byte) ([]byte, error)
	DecryptDeterministically(ciphertext, associatedData []byte) ([]byte, error)
}

// SIVKey seals and opens messages of the suite 0x03. It is safe for concurrent
// use if its primitive is.
//
// Equal plaintexts under one key and context have equal envelopes: that is the
// purpose, an index that can be searched, and the leak, since frequencies show
// and plaintexts of a small set are found by whoever can ask for encryptions.
// Put what need not be compared (a column, a record type) into the context.
// A version should seal at most 2^48 blocks of 16 bytes, the limit that NIST SP
// 800-38B appendix B recommends for CMAC, on which AES-SIV rests.
type SIVKey struct {
	scope  Scope
	prefix []byte // of the associated data, up to the version
	// Methods in place of the primitive: what a closure holds does not print.
	encrypt, decrypt func(text, associatedData []byte) ([]byte, error)
}

// NewSIVKey binds the primitive of a version to its scope. It fails with
// [ErrScope], also for a leased scope, or with [ErrPrimitive].
func NewSIVKey(p DeterministicAEAD, s Scope) (*SIVKey, error) {
	if err := s.checkOwn(); err != nil {
		return nil, err
	}
	// A keyset that prefixes its outputs is recognised by their length, here
	// and not by an envelope of the wrong shape later.
	probe, err := p.EncryptDeterministically(nil, []byte(domainDeterministic))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPrimitive, err)
	}
	if len(probe) != sivLen {
		return nil, ErrPrimitive
	}
	return &SIVKey{
		scope:   s,
		prefix:  s.encode(domainDeterministic),
		encrypt: p.EncryptDeterministically,
		decrypt: p.DecryptDeterministically,
	}, nil
}

// Scope returns whose key it is.
func (k *SIVKey) Scope() Scope { return k.scope }

// Format prints the key's version and nothing secret, for every verb.
func (k *SIVKey) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "envelope.SIVKey(version %d)", k.scope.Version)
}

// Seal encrypts plaintext under the context c and appends the envelope to dst.
// It fails with [ErrTooLarge] or with the error of the primitive.
//
//	┌────────────┬───┐
//	│ F6         │ 1 │ compact magic
//	│ 03         │ 1 │ suite
//	│ version    │ 4 │ big-endian, not zero
//	├────────────┼───┤ ◄ up to here: "header"
//	│ SIV        │16 │ synthetic IV
//	│ ciphertext │   │ as long as the plaintext
//	└────────────┴───┘
//
// The associated data, one string for AES-SIV, is
//
//	Encode("sallyport/v1/deterministic", deployment, environment, tenant,
//	       keyring (16 bytes), version (4), header, context digest)
func (k *SIVKey) Seal(dst, plaintext []byte, c binding.Context) ([]byte, error) {
	if len(plaintext) > MaxPlaintext {
		return nil, ErrTooLarge
	}
	var buf [compactHeaderLen]byte
	header := appendCompactHeader(buf[:0], SuiteDeterministic, k.scope.Version)
	sealed, err := k.encrypt(plaintext, bound(k.prefix, header, c, 0))
	if err != nil {
		return nil, fmt.Errorf("envelope: AES-SIV: %w", err)
	}
	return append(append(dst, header...), sealed...), nil
}

// Open decrypts a message of the suite 0x03 and appends the plaintext to dst.
// It fails with [ErrOpen].
func (k *SIVKey) Open(dst []byte, m Message, c binding.Context) ([]byte, error) {
	if m.suite != SuiteDeterministic || m.Version() != k.scope.Version {
		return nil, ErrOpen
	}
	plaintext, err := k.decrypt(m.raw[m.body:], bound(k.prefix, m.raw[:m.body], c, 0))
	if err != nil {
		return nil, ErrOpen
	}
	defer secret.Wipe(plaintext) // the primitive's copy
	return append(dst, plaintext...), nil
}

// bound appends header and context digest to a copy of the encoded scope, with
// room for extra bytes.
func bound(prefix, header []byte, c binding.Context, extra int) []byte {
	digest := c.Digest()
	const lengths = 2 * 8
	enc := make([]byte, 0, len(prefix)+lengths+len(header)+len(digest)+extra)
	enc = append(enc, prefix...)
	enc = binding.AppendField(enc, header)
	return binding.AppendField(enc, digest[:])
}
