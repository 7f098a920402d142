package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/sallyport/sallyport/crypto/binding"
)

// zeroIV is the initial counter of AES-CTR. Like zeroNonce it is safe because
// a message key encrypts one message.
var zeroIV [aes.BlockSize]byte

// sealCompact writes the suite 0x02, for database fields:
//
//	┌────────────┬───┐
//	│ F6         │ 1 │ compact magic
//	│ 02         │ 1 │ suite
//	│ version    │ 4 │ big-endian, not zero
//	│ message id │16 │ random
//	├────────────┼───┤ ◄ up to here: "header", input of the derivation
//	│ ciphertext │   │ AES-256-CTR from counter zero, as long as the plaintext
//	├────────────┼───┤ ◄ up to here: input of the tag
//	│ tag        │32 │ HMAC-SHA256
//	└────────────┴───┘
//
//	encryption key (32) || MAC key (32) = HKDF-Expand(lease key,
//	    Encode("sallyport/v1/compact-message-key", header, context digest), 64)
//
// This is encrypt-then-MAC, and the tag is not truncated so that it is the
// commitment as well: a collision of tags is a collision of HMAC-SHA256 in the
// MAC key or the ciphertext, and of the derivation before it.
//
// What the 54 bytes leave out: the context's names, so that a header scan does
// not show them; the lease, so that only the gateway's own key seals; and the
// keyring, so that a field stored under another keyring cannot be told from a
// damaged one. The keyring is bound all the same, through the lease key.
func (k *AEADKey) sealCompact(dst, plaintext []byte, c binding.Context, id []byte) ([]byte, error) {
	e, err := k.expander()
	if err != nil {
		return nil, err
	}
	defer k.release(e)

	start := len(dst)
	dst = slices.Grow(dst, SealedSize(SuiteCompact, c, len(plaintext)))
	dst = appendCompactHeader(dst, SuiteCompact, k.scope.Version)
	dst = append(dst, id...)
	encKey, macKey := e.expand(domainCompactKey, dst[start:], c)

	body := len(dst)
	dst = dst[:body+len(plaintext)]
	newCTR(encKey).XORKeyStream(dst[body:], plaintext)
	mac := hmac.New(sha256.New, macKey)
	mac.Write(dst[start:])
	return mac.Sum(dst), nil
}

func appendCompactHeader(dst []byte, suite Suite, version uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, compactMagic, byte(suite)), version)
}

// openCompact reads what sealCompact writes, and decrypts only after the tag
// has been verified.
func (k *AEADKey) openCompact(dst []byte, m Message, c binding.Context) ([]byte, error) {
	if m.Version() != k.scope.Version || (k.scope.Lease != LeaseID{}) {
		return nil, ErrOpen
	}
	e, err := k.expander()
	if err != nil {
		return nil, err
	}
	defer k.release(e)

	encKey, macKey := e.expand(domainCompactKey, m.raw[:m.body], c)
	tagAt := len(m.raw) - hmacTagLen
	mac := hmac.New(sha256.New, macKey)
	mac.Write(m.raw[:tagAt])
	var tag [hmacTagLen]byte
	if !hmac.Equal(mac.Sum(tag[:0]), m.raw[tagAt:]) {
		return nil, ErrOpen
	}
	ciphertext := m.raw[m.body:tagAt]
	start := len(dst)
	dst = slices.Grow(dst, len(ciphertext))[:start+len(ciphertext)]
	newCTR(encKey).XORKeyStream(dst[start:], ciphertext)
	return dst, nil
}

func newCTR(key []byte) cipher.Stream {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("envelope: message key of wrong length")
	}
	return cipher.NewCTR(block, zeroIV[:])
}
