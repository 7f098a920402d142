package audit

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrKey is returned for a key that does not parse. It never holds any of the
// input: parse errors end up in logs.
var ErrKey = errors.New("audit: malformed key")

// MaxNameSize bounds the name of a log, in bytes.
const MaxNameSize = 255

const (
	privateKeyPrefix = "PRIVATE+KEY+"
	algEd25519       = 1 // https://c2sp.org/signed-note
)

// PublicKey is the name of a log and the key that verifies what it signs. It
// implements note.Verifier of golang.org/x/mod/sumdb/note, and its text form is
// that package's verifier key: name+hash+base64.
type PublicKey struct {
	name string
	key  [ed25519.PublicKeySize]byte
}

// PrivateKey signs for a log. It implements note.Signer, and its file holds that
// package's signer key on one line. It prints as its public half; the key itself
// is behind closures, where the reflection of package fmt does not reach.
type PrivateKey struct {
	pub  PublicKey
	sign func(msg []byte) []byte
	text func() []byte
}

// GenerateKey makes a key for the log called name: what the signed-note format
// allows (not empty, no white space, no plus sign), up to MaxNameSize bytes. By
// custom it is a URL without scheme that the operator owns, with the gateway's
// own name as last element.
func GenerateKey(name string) (PrivateKey, error) {
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed) // never fails: crypto/rand ends the process instead
	return newPrivateKey(name, seed)
}

func newPrivateKey(name string, seed []byte) (PrivateKey, error) {
	if !validName(name) {
		return PrivateKey{}, fmt.Errorf("%w: invalid name", ErrKey)
	}
	priv := ed25519.NewKeyFromSeed(seed)
	pub := PublicKey{name: name, key: [32]byte(priv.Public().(ed25519.PublicKey))}
	return PrivateKey{
		pub:  pub,
		sign: func(msg []byte) []byte { return ed25519.Sign(priv, msg) },
		text: func() []byte {
			b := fmt.Appendf(nil, "%s%s+%08x+", privateKeyPrefix, name, pub.KeyHash())
			b = base64.StdEncoding.AppendEncode(b, append([]byte{algEd25519}, priv.Seed()...))
			return append(b, '\n')
		},
	}, nil
}

// ParsePrivateKey reads what [PrivateKey.Reveal] wrote; one final newline is
// optional.
func ParsePrivateKey(text []byte) (PrivateKey, error) {
	rest, ok := strings.CutPrefix(strings.TrimSuffix(string(text), "\n"), privateKeyPrefix)
	if !ok {
		return PrivateKey{}, fmt.Errorf("%w: not a signer key", ErrKey)
	}
	name, hash, seed, err := parseKey(rest)
	if err != nil {
		return PrivateKey{}, err
	}
	k, err := newPrivateKey(name, seed)
	if err != nil {
		return PrivateKey{}, err
	}
	if hash != fmt.Sprintf("%08x", k.KeyHash()) {
		return PrivateKey{}, fmt.Errorf("%w: hash does not match", ErrKey)
	}
	return k, nil
}

// Reveal returns the content of a private key file. Keep it at mode 0600.
func (k PrivateKey) Reveal() []byte { return k.text() }

// Public returns the public half.
func (k PrivateKey) Public() PublicKey { return k.pub }

// Name returns the name of the log.
func (k PrivateKey) Name() string { return k.pub.name }

// KeyHash returns the key id of the signed-note format.
func (k PrivateKey) KeyHash() uint32 { return k.pub.KeyHash() }

// Sign signs the text of a note. The error is always nil. See [Batch] for why
// such a signature can never pass for one of a batch.
func (k PrivateKey) Sign(msg []byte) ([]byte, error) { return k.sign(msg), nil }

// String returns the public half.
func (k PrivateKey) String() string { return k.pub.String() }

// IsZero reports whether k is the zero PrivateKey, which cannot sign.
func (k PrivateKey) IsZero() bool { return k.sign == nil }

// ParsePublicKey reads a verifier key: name+hash+base64, as in a public key
// file; one final newline is optional.
func ParsePublicKey(text []byte) (PublicKey, error) {
	name, hash, key, err := parseKey(strings.TrimSuffix(string(text), "\n"))
	if err != nil {
		return PublicKey{}, err
	}
	k := PublicKey{name: name, key: [32]byte(key)}
	if hash != fmt.Sprintf("%08x", k.KeyHash()) {
		return PublicKey{}, fmt.Errorf("%w: hash does not match", ErrKey)
	}
	return k, nil
}

// parseKey splits name+hash+base64, where the base64 holds the algorithm and 32
// bytes.
func parseKey(text string) (name, hash string, key []byte, err error) {
	name, rest, ok1 := strings.Cut(text, "+")
	hash, b64, ok2 := strings.Cut(rest, "+")
	key, err = base64.StdEncoding.Strict().DecodeString(b64)
	if !ok1 || !ok2 || err != nil || strings.ContainsAny(b64, "\r\n") || !validName(name) {
		return "", "", nil, fmt.Errorf("%w: want name+hash+base64", ErrKey)
	}
	if len(key) != 1+ed25519.PublicKeySize || key[0] != algEd25519 {
		return "", "", nil, fmt.Errorf("%w: want an Ed25519 key", ErrKey)
	}
	return name, hash, key[1:], nil
}

// Name returns the name of the log.
func (k PublicKey) Name() string { return k.name }

// KeyHash returns the key id of the signed-note format: the first four bytes of
// SHA-256 over name, newline, algorithm and key.
func (k PublicKey) KeyHash() uint32 {
	b := append([]byte(k.name), '\n', algEd25519)
	sum := sha256.Sum256(append(b, k.key[:]...))
	return binary.BigEndian.Uint32(sum[:])
}

// Verify reports whether sig is a signature of the text of a note.
func (k PublicKey) Verify(msg, sig []byte) bool { return ed25519.Verify(k.key[:], msg, sig) }

// String returns the verifier key, without a newline.
func (k PublicKey) String() string {
	return fmt.Sprintf("%s+%08x+%s", k.name, k.KeyHash(),
		base64.StdEncoding.EncodeToString(append([]byte{algEd25519}, k.key[:]...)))
}

func validName(name string) bool {
	return name != "" && len(name) <= MaxNameSize && utf8.ValidString(name) &&
		!strings.Contains(name, "+") &&
		strings.IndexFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) < 0
}
