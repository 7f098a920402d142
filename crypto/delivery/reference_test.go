package delivery_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/crypto/delivery"
)

// This file is the sender's side of RFC 9180 once more, from its primitives and with
// randomness that the caller chooses. It is the second opinion on what we seal, and it
// makes the published vectors the same whoever makes them.

// referenceSeal seals under a KEM with the given randomness: the ephemeral private key,
// after 32 bytes for ML-KEM if the KEM is the hybrid.
func referenceSeal(t *testing.T, kem delivery.KEM, publicKey, random, info, plaintext []byte) (enc, ciphertext []byte) {
	t.Helper()
	shared, enc := referenceEncap(t, kem, publicKey, random)
	// RFC 9180 section 5.1: KDF 0x0001 is HKDF-SHA256, AEAD 0x0002 is AES-256-GCM.
	suite := append([]byte("HPKE"), byte(kem>>8), byte(kem), 0, 1, 0, 2)
	context := slices.Concat([]byte{0}, extract(t, suite, nil, "psk_id_hash", nil), extract(t, suite, nil, "info_hash", info))
	secret := extract(t, suite, shared, "secret", nil)
	block, err := aes.NewCipher(expand(t, suite, secret, "key", context, 32))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return enc, aead.Seal(nil, expand(t, suite, secret, "base_nonce", context, 12), plaintext, nil)
}

func referenceEncap(t *testing.T, kem delivery.KEM, publicKey, random []byte) (shared, enc []byte) {
	t.Helper()
	switch kem {
	case delivery.DHKEMP256, delivery.DHKEMX25519:
		curve := ecdh.P256()
		if kem == delivery.DHKEMX25519 {
			curve = ecdh.X25519()
		}
		dh, enc := exchange(t, curve, publicKey, random)
		// RFC 9180 section 4.1.
		suite := append([]byte("KEM"), byte(kem>>8), byte(kem))
		prk := extract(t, suite, nil, "eae_prk", dh)
		return expand(t, suite, prk, "shared_secret", slices.Concat(enc, publicKey), 32), enc
	case delivery.MLKEM768X25519:
		// draft-ietf-hpke-pq, and draft-connolly-cfrg-xwing-kem section 5.4.
		pq, err := mlkem.NewEncapsulationKey768(publicKey[:mlkem.EncapsulationKeySize768])
		if err != nil {
			t.Fatal(err)
		}
		inner, ct, err := mlkemtest.Encapsulate768(pq, random[:32])
		if err != nil {
			t.Fatal(err)
		}
		point := publicKey[mlkem.EncapsulationKeySize768:]
		dh, ephemeral := exchange(t, ecdh.X25519(), point, random[32:])
		sum := sha3.Sum256(slices.Concat(inner, dh, ephemeral, point, []byte(`\.//^\`)))
		return sum[:], slices.Concat(ct, ephemeral)
	default:
		t.Fatalf("unknown mechanism %d", kem)
		return nil, nil
	}
}

func exchange(t *testing.T, curve ecdh.Curve, publicKey, private []byte) (dh, ephemeral []byte) {
	t.Helper()
	theirs, err := curve.NewPublicKey(publicKey)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := curve.NewPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	if dh, err = ours.ECDH(theirs); err != nil {
		t.Fatal(err)
	}
	return dh, ours.PublicKey().Bytes()
}

// extract and expand are LabeledExtract and LabeledExpand of RFC 9180 section 4.
func extract(t *testing.T, suite, salt []byte, label string, ikm []byte) []byte {
	t.Helper()
	prk, err := hkdf.Extract(sha256.New, slices.Concat([]byte("HPKE-v1"), suite, []byte(label), ikm), salt)
	if err != nil {
		t.Fatal(err)
	}
	return prk
}

func expand(t *testing.T, suite, prk []byte, label string, info []byte, n int) []byte {
	t.Helper()
	labelled := slices.Concat(binary.BigEndian.AppendUint16(nil, uint16(n)), []byte("HPKE-v1"), suite, []byte(label), info)
	out, err := hkdf.Expand(sha256.New, prk, string(labelled), n)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
