// Package delivery seals a secret to the key of the one it is for, with HPKE (RFC
// 9180) in base mode, HKDF-SHA256 and AES-256-GCM. Only the holder of the private key
// reads it: not a proxy that ends TLS, a log of bodies or a heap dump of the transport.
//
// What base mode gives: confidentiality towards the key, and that the message was
// sealed for exactly this [Binding]. What it does not give: it says nothing about who
// sealed it. Anybody can seal anything to a public key, so a recipient believes a
// message because of the connection it came by, which TLS has authenticated. Neither
// does it give forward secrecy on the recipient's side: who learns the private key
// later opens what was recorded earlier. A key that lives as short as the process, or
// as the one request, is the remedy.
//
// docs/formats/delivery.md describes the format for other languages.
package delivery

import (
	"crypto/ecdh"
	"crypto/hpke"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/sallyport/sallyport/crypto/binding"
)

var (
	// ErrKey reports a key that nothing can be sealed to: of an unknown mechanism,
	// malformed, not on its curve, or of low order.
	ErrKey = errors.New("delivery: not a key of a known mechanism")

	// ErrOpen is the one failure of opening: wrong key, wrong binding, or altered. The
	// cause is not told.
	ErrOpen = errors.New("delivery: message does not open with this key and binding")
)

// KEM is a key encapsulation mechanism, by its number in IANA's registry of HPKE. The
// type is wider than the registry's 16 bits, so that no number in a message becomes a
// known one by being cut.
type KEM uint32

// The mechanisms that are served.
const (
	// DHKEMP256 is DHKEM(P-256, HKDF-SHA256), RFC 9180 section 7.1. Public keys and
	// encapsulated keys are 65 bytes, uncompressed.
	DHKEMP256 KEM = 0x0010
	// DHKEMX25519 is DHKEM(X25519, HKDF-SHA256), RFC 9180 section 7.1; 32 bytes each.
	DHKEMX25519 KEM = 0x0020
	// MLKEM768X25519 is X-Wing, the hybrid of ML-KEM-768 and X25519
	// (draft-ietf-hpke-pq), which also holds against who records now and has a quantum
	// computer later. Public keys are 1216 bytes and encapsulated keys 1120.
	MLKEM768X25519 KEM = 0x647a
)

// suite gives the implementation of a mechanism.
func (k KEM) suite() (hpke.KEM, error) {
	switch k {
	case DHKEMP256:
		return hpke.DHKEM(ecdh.P256()), nil
	case DHKEMX25519:
		return hpke.DHKEM(ecdh.X25519()), nil
	case MLKEM768X25519:
		return hpke.MLKEM768X25519(), nil
	default:
		return nil, fmt.Errorf("%w: unknown mechanism", ErrKey)
	}
}

// Binding is what a sealed secret is for. Opening needs the same one.
type Binding struct {
	// Lease is the lease's name; the tenant and the role are in it.
	Lease string
	// Workload is the SPIFFE id of the owner.
	Workload string
}

// domain is the first field of the info.
const domain = "sallyport/secrets/seal/v1"

// info is what HPKE mixes into its key schedule:
//
//	Encode("sallyport/secrets/seal/v1", lease, workload)
//
// in the encoding of [binding.Encode].
func (b Binding) info() []byte {
	return binding.AppendField(binding.AppendField(binding.AppendField(nil, domain), b.Lease), b.Workload)
}

// Recipient is a public key that has been checked: what is issued for it can be
// sealed to it.
type Recipient struct {
	kem KEM
	key hpke.PublicKey
}

// NewRecipient checks a public key. The error wraps [ErrKey].
func NewRecipient(kem KEM, publicKey []byte) (Recipient, error) {
	suite, err := kem.suite()
	if err != nil {
		return Recipient{}, err
	}
	key, err := suite.NewPublicKey(publicKey)
	if err != nil {
		return Recipient{}, fmt.Errorf("%w: malformed", ErrKey)
	}
	if err := checkOrder(kem, publicKey); err != nil {
		return Recipient{}, err
	}
	return Recipient{kem, key}, nil
}

// KEM is the key's mechanism.
func (r Recipient) KEM() KEM { return r.kem }

// checkOrder refuses points of low order on Curve25519, under which the shared secret
// is known to everybody. Package ecdh finds them only when it multiplies; all scalars
// give zero for them, so that any one will do. P-256 has no such points, and its parser
// refuses the identity.
func checkOrder(kem KEM, publicKey []byte) error {
	if kem == DHKEMP256 {
		return nil
	}
	point, err := ecdh.X25519().NewPublicKey(publicKey[len(publicKey)-32:])
	if err != nil {
		return fmt.Errorf("%w: malformed", ErrKey)
	}
	scalar, err := anyScalar()
	if err != nil {
		return err
	}
	if _, err := scalar.ECDH(point); err != nil {
		return fmt.Errorf("%w: of low order", ErrKey)
	}
	return nil
}

// anyScalar is no secret. It is kept because making one multiplies, too.
var anyScalar = sync.OnceValues(func() (*ecdh.PrivateKey, error) { return ecdh.X25519().NewPrivateKey(make([]byte, 32)) })

// Seal is [Recipient.Seal] for a key that is used once.
func Seal(kem KEM, publicKey []byte, b Binding, plaintext []byte) (enc, ciphertext []byte, err error) {
	r, err := NewRecipient(kem, publicKey)
	if err != nil {
		return nil, nil, err
	}
	return r.Seal(b, plaintext)
}

// Seal encrypts plaintext to the recipient. enc is the encapsulated key that the
// recipient needs beside the ciphertext, which is 16 bytes longer than the plaintext:
// the length shows. The error wraps [ErrKey].
func (r Recipient) Seal(b Binding, plaintext []byte) (enc, ciphertext []byte, err error) {
	if r.key == nil {
		return nil, nil, fmt.Errorf("%w: none", ErrKey)
	}
	enc, sender, err := hpke.NewSender(r.key, hpke.HKDFSHA256(), hpke.AES256GCM(), b.info())
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	ciphertext, err = sender.Seal(nil, plaintext)
	return enc, ciphertext, err
}

// PrivateKey opens what was sealed to its public key. It prints nothing of itself and
// is safe for concurrent use. The memory of the key cannot be wiped: it belongs to the
// standard library. A key for one process, or one request, is soonest gone.
type PrivateKey struct {
	// A closure hides the key from package fmt, which prints unexported fields.
	reveal func() hpke.PrivateKey
	kem    KEM
	public []byte
}

// GenerateKey makes a fresh key. The error wraps [ErrKey] for an unknown mechanism.
func GenerateKey(kem KEM) (*PrivateKey, error) {
	suite, err := kem.suite()
	if err != nil {
		return nil, err
	}
	key, err := suite.GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("delivery: generating a key: %w", err)
	}
	return wrap(key), nil
}

// NewPrivateKey makes a recipient of a key that exists, of P-256 or X25519; otherwise
// the error wraps [ErrKey].
//
// The key may be that of the caller's own certificate (ecdsa.PrivateKey.ECDH). One key
// for signing in TLS and for Diffie-Hellman here is sound as far as is known: what HPKE
// derives takes the secret through HKDF under labels of its own, and neither protocol
// is an oracle for the other's computation (joint security of ECDSA and ECIES is proven
// in the generic group model: Degabriele, Lehmann, Paterson, Smart and Strefler, CT-RSA
// 2012). The caveats: such a key lives as long as its certificate, and whoever gets it,
// through a copy of a file perhaps, opens everything recorded until then; and a
// certificate that limits its key's usage to signatures disagrees on paper. A key from
// [GenerateKey] has neither.
func NewPrivateKey(key *ecdh.PrivateKey) (*PrivateKey, error) {
	if key == nil || key.Curve() != ecdh.P256() && key.Curve() != ecdh.X25519() {
		return nil, fmt.Errorf("%w: want a key of P-256 or X25519", ErrKey)
	}
	k, err := hpke.NewDHKEMPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return wrap(k), nil
}

func wrap(key hpke.PrivateKey) *PrivateKey {
	return &PrivateKey{
		reveal: func() hpke.PrivateKey { return key },
		kem:    KEM(key.KEM().ID()),
		public: key.PublicKey().Bytes(),
	}
}

// KEM is the mechanism of the key.
func (k *PrivateKey) KEM() KEM { return k.kem }

// PublicKey gives a copy of the public key, as Seal takes it.
func (k *PrivateKey) PublicKey() []byte { return append([]byte(nil), k.public...) }

// Open decrypts what Seal made. The caller wipes the plaintext. Every failure is
// [ErrOpen].
func (k *PrivateKey) Open(b Binding, enc, ciphertext []byte) ([]byte, error) {
	recipient, err := hpke.NewRecipient(enc, k.reveal(), hpke.HKDFSHA256(), hpke.AES256GCM(), b.info())
	if err != nil {
		return nil, ErrOpen
	}
	plaintext, err := recipient.Open(nil, ciphertext)
	if err != nil {
		return nil, ErrOpen
	}
	return plaintext, nil
}

// Format writes a fixed text for every verb and flag.
func (k *PrivateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[private key]") }
