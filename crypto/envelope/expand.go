package envelope

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/secret"
)

// expander is HKDF-Expand with SHA-256 (RFC 5869 section 2.3) for one
// pseudorandom key and 64 bytes of output:
//
//	T(1) = HMAC(key, info || 0x01)
//	T(2) = HMAC(key, T(1) || info || 0x02)
//
// It exists beside crypto/hkdf because keying HMAC costs more than using it
// here: an expander is keyed once and reused for many messages. A test compares
// it with crypto/hkdf. It is not safe for concurrent use.
type expander struct {
	mac  hash.Hash // HMAC-SHA256 under the key
	info []byte    // reused between messages; public
	out  [2 * sha256.Size]byte
}

func newExpander(key []byte) *expander {
	return &expander{mac: hmac.New(sha256.New, key)}
}

// expand derives the two halves of one message's key material over
// Encode(domain, header, digest of c). They are valid until wipe.
func (e *expander) expand(domain string, header []byte, c binding.Context) (first, second []byte) {
	digest := c.Digest()
	info := binding.AppendField(e.info[:0], domain)
	info = binding.AppendField(info, header)
	e.info = binding.AppendField(info, digest[:])
	return e.hkdf()
}

// hkdf is the derivation over e.info.
func (e *expander) hkdf() (first, second []byte) {
	last := len(e.info)
	e.info = append(e.info, 0x01)
	e.mac.Reset()
	e.mac.Write(e.info)
	first = e.mac.Sum(e.out[:0])

	e.info[last] = 0x02
	e.mac.Reset()
	e.mac.Write(first)
	e.mac.Write(e.info)
	second = e.mac.Sum(e.out[:sha256.Size])[sha256.Size:]
	return first, second
}

// wipe clears the output of expand and takes HMAC back to its keyed state.
func (e *expander) wipe() {
	secret.Wipe(e.out[:])
	e.mac.Reset()
}
