package envelope

import (
	"fmt"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/secret"
)

// MAC is HMAC-SHA256 with its full output of 32 bytes, compared in constant
// time. tink.MAC over an HMAC keyset of tag size 32 and output prefix RAW is
// one.
type MAC interface {
	ComputeMAC(data []byte) ([]byte, error)
	VerifyMAC(mac, data []byte) error
}

// MACKey computes and verifies tags of the suite 0x04. It is safe for
// concurrent use if its primitive is.
type MACKey struct {
	scope  Scope
	prefix []byte // of the authenticated bytes, up to the version
	// Methods in place of the primitive: what a closure holds does not print.
	compute func(data []byte) ([]byte, error)
	verify  func(mac, data []byte) error
}

// NewMACKey binds the primitive of a version to its scope. It fails with
// [ErrScope], also for a leased scope, or with [ErrPrimitive].
func NewMACKey(p MAC, s Scope) (*MACKey, error) {
	if err := s.checkOwn(); err != nil {
		return nil, err
	}
	probe, err := p.ComputeMAC([]byte(domainMAC))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPrimitive, err)
	}
	if len(probe) != hmacTagLen {
		return nil, ErrPrimitive
	}
	return &MACKey{scope: s, prefix: s.encode(domainMAC), compute: p.ComputeMAC, verify: p.VerifyMAC}, nil
}

// Scope returns whose key it is.
func (k *MACKey) Scope() Scope { return k.scope }

// Format prints the key's version and nothing secret, for every verb.
func (k *MACKey) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "envelope.MACKey(version %d)", k.scope.Version)
}

// Compute appends the tag of message under the context c to dst. It fails with
// [ErrTooLarge] or with the error of the primitive.
//
//	┌─────────┬───┐
//	│ F6      │ 1 │ compact magic
//	│ 04      │ 1 │ suite
//	│ version │ 4 │ big-endian, not zero
//	├─────────┼───┤ ◄ up to here: "header"
//	│ tag     │32 │ HMAC-SHA256
//	└─────────┴───┘
//
// The tag is over
//
//	Encode("sallyport/v1/mac", deployment, environment, tenant,
//	       keyring (16 bytes), version (4), header, context digest, message)
func (k *MACKey) Compute(dst, message []byte, c binding.Context) ([]byte, error) {
	if len(message) > MaxPlaintext {
		return nil, ErrTooLarge
	}
	var buf [compactHeaderLen]byte
	header := appendCompactHeader(buf[:0], SuiteMAC, k.scope.Version)
	input := k.input(header, message, c)
	defer secret.Wipe(input)
	tag, err := k.compute(input)
	if err != nil {
		return nil, fmt.Errorf("envelope: HMAC: %w", err)
	}
	return append(append(dst, header...), tag...), nil
}

// Verify returns nil if m is the tag of message under the context c. It fails
// with [ErrOpen].
func (k *MACKey) Verify(m Message, message []byte, c binding.Context) error {
	if m.suite != SuiteMAC || m.Version() != k.scope.Version || len(message) > MaxPlaintext {
		return ErrOpen
	}
	input := k.input(m.raw[:m.body], message, c)
	defer secret.Wipe(input)
	if err := k.verify(m.raw[m.body:], input); err != nil {
		return ErrOpen
	}
	return nil
}

// input is a copy of message in its encoding; the caller wipes it.
func (k *MACKey) input(header, message []byte, c binding.Context) []byte {
	const lengths = 8
	return binding.AppendField(bound(k.prefix, header, c, lengths+len(message)), message)
}
