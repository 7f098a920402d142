package envelope

import (
	"crypto/hmac"
	"crypto/sha256"

	"github.com/sallyport/sallyport/crypto/binding"
)

// SealWithID is Seal with a chosen message id, to reproduce vectors.
func (k *AEADKey) SealWithID(plaintext []byte, c binding.Context, suite Suite, id []byte) ([]byte, error) {
	return k.seal(nil, plaintext, c, suite, id)
}

// Forge seals under a standard header of the caller's making, as a dishonest
// holder of the lease key can: the cryptography of the result is right.
func (k *AEADKey) Forge(header, plaintext []byte, c binding.Context) []byte {
	e, err := k.expander()
	if err != nil {
		panic(err)
	}
	defer k.release(e)
	key, commitment := e.expand(domainMessageKey, header, c)
	return k.finish(append(append([]byte(nil), header...), commitment...), key, plaintext)
}

// ForgeCompact is Forge for the compact suite.
func (k *AEADKey) ForgeCompact(header, plaintext []byte, c binding.Context) []byte {
	e, err := k.expander()
	if err != nil {
		panic(err)
	}
	defer k.release(e)
	encKey, macKey := e.expand(domainCompactKey, header, c)
	out := append(append([]byte(nil), header...), plaintext...)
	newCTR(encKey).XORKeyStream(out[len(header):], plaintext)
	mac := hmac.New(sha256.New, macKey)
	mac.Write(out)
	return mac.Sum(out)
}

// ForgedInput is what a suite without derivation authenticates beside its
// text, under a header of the caller's making.
func ForgedInput(s Scope, suite Suite, header []byte, c binding.Context) []byte {
	domain := map[Suite]string{SuiteDeterministic: domainDeterministic, SuiteMAC: domainMAC}[suite]
	return bound(s.encode(domain), header, c, 0)
}

// ExpanderIsClear reports whether a released expander holds no output.
func (k *AEADKey) ExpanderIsClear() bool {
	e, err := k.expander()
	if err != nil {
		panic(err)
	}
	e.expand(domainMessageKey, nil, binding.Context{})
	k.release(e)
	return e.out == [len(e.out)]byte{}
}

// ForgeCommitment replaces the commitment of a sealed message and computes
// the tag of GCM anew, so that only the commitment is wrong.
func (k *AEADKey) ForgeCommitment(m Message, plaintext []byte, c binding.Context) []byte {
	e, err := k.expander()
	if err != nil {
		panic(err)
	}
	defer k.release(e)
	key, _ := e.expand(domainMessageKey, m.raw[:m.body-commitmentLen], c)
	forged := append([]byte(nil), m.raw[:m.body]...)
	forged[m.body-1] ^= 1
	return k.finish(forged, key, plaintext)
}

func (k *AEADKey) finish(aad, key, plaintext []byte) []byte {
	aead, err := newGCM(key)
	if err != nil {
		panic(err)
	}
	return aead.Seal(aad, zeroNonce[:], plaintext, aad)
}

// Expand is the expander over a bare info, twice, to show that it may be reused.
func Expand(key, info []byte) (first, second []byte) {
	e := newExpander(key)
	e.info = append(e.info, "something else"...)
	e.hkdf()
	e.wipe()
	e.info = append(e.info[:0], info...)
	return e.hkdf()
}

// LeaseKey returns a copy of the lease key, which vectors publish.
func (k *AEADKey) LeaseKey() (key []byte) {
	_ = k.key.Use(func(b []byte) error { key = append(key, b...); return nil })
	return key
}

// HeaderLen is the length of the part of a message before its ciphertext.
func (m Message) HeaderLen() int { return m.body }
