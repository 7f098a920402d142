package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/sallyport/sallyport/crypto/binding"
)

// zeroNonce is the nonce of AES-GCM. A fixed nonce is safe because a message
// key seals one message: it is derived from 160 random bits of message id.
// NIST SP 800-38D section 8 requires that key and nonce together do not
// repeat, and here the key carries all the freshness.
var zeroNonce [12]byte

// sealStandard writes the suite 0x01. Numbers are big-endian:
//
//	┌─────────────────┬───┐
//	│ F5 53 50        │ 3 │ magic
//	│ 01              │ 1 │ format version
//	│ 01              │ 1 │ suite
//	│ 00              │ 1 │ flags; none is defined
//	│ length of names │ 2 │ 0 to 1040
//	│ keyring         │16 │ not zero
//	│ version         │ 4 │ not zero
//	│ lease           │12 │ zero for the gateway's own key
//	│ message id      │20 │ random
//	│ names           │ n │ of the context; see binding.Context.NamesBlock
//	├─────────────────┼───┤ ◄ up to here: "header", input of the derivation
//	│ commitment      │32 │
//	├─────────────────┼───┤ ◄ up to here: associated data of GCM
//	│ ciphertext      │   │ as long as the plaintext
//	│ tag             │16 │
//	└─────────────────┴───┘
//
//	message key (32) || commitment (32) = HKDF-Expand(lease key,
//	    Encode("sallyport/v1/message-key", header, context digest), 64)
//
// The commitment is an output of HMAC under SHA-256, collision resistant over
// the key and the info together because the key has a fixed length below the
// block size. It therefore commits to lease key, header and context, with 128
// bits of security, and reveals nothing of the message key, its sibling output
// of a PRF. That GCM authenticates the header too adds nothing to the proof;
// it keeps the header authentic even should someone weaken the derivation.
func (k *AEADKey) sealStandard(dst, plaintext []byte, c binding.Context, id []byte) ([]byte, error) {
	e, err := k.expander()
	if err != nil {
		return nil, err
	}
	defer k.release(e)

	start := len(dst)
	dst = slices.Grow(dst, SealedSize(SuiteStandard, c, len(plaintext)))
	dst = k.appendHeader(dst, c, id)
	key, commitment := e.expand(domainMessageKey, dst[start:], c)
	dst = append(dst, commitment...)
	aead, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(dst, zeroNonce[:], plaintext, dst[start:]), nil
}

func (k *AEADKey) appendHeader(dst []byte, c binding.Context, id []byte) []byte {
	names := c.NamesBlock()
	dst = append(dst, magic...)
	dst = append(dst, formatVersion, byte(SuiteStandard), 0 /* flags */)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(names)))
	dst = append(dst, k.scope.Keyring[:]...)
	dst = binary.BigEndian.AppendUint32(dst, k.scope.Version)
	dst = append(dst, k.scope.Lease[:]...)
	dst = append(dst, id...)
	return append(dst, names...)
}

// openStandard reads what sealStandard writes.
//
// The derivation takes the header as it was received, so it would follow any
// header that a holder of the lease key wrote. That the header tells the truth
// about the key and the context is checked here: policy and audit rely on it.
func (k *AEADKey) openStandard(dst []byte, m Message, c binding.Context) ([]byte, error) {
	keyring, _ := m.Keyring()
	if keyring != k.scope.Keyring || m.Version() != k.scope.Version ||
		m.Lease() != k.scope.Lease || string(m.names()) != c.NamesBlock() {
		return nil, ErrOpen
	}
	e, err := k.expander()
	if err != nil {
		return nil, err
	}
	defer k.release(e)

	header, received := m.raw[:m.body-commitmentLen], m.raw[m.body-commitmentLen:m.body]
	key, commitment := e.expand(domainMessageKey, header, c)
	// Before decrypting: only a key that is the one key of this message may
	// touch the ciphertext, or partitioning oracles come back.
	if subtle.ConstantTimeCompare(commitment, received) != 1 {
		return nil, ErrOpen
	}
	aead, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	plaintext, err := aead.Open(dst, zeroNonce[:], m.raw[m.body:], m.raw[:m.body])
	if err != nil {
		return nil, ErrOpen
	}
	return plaintext, nil
}

// newGCM returns AES-256-GCM under key. It fails only in the mode
// GODEBUG=fips140=only, in which the standard library refuses every nonce that
// it did not choose itself.
func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("envelope: message key of wrong length")
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("envelope: AES-GCM: %w", err)
	}
	return aead, nil
}
