package local

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/argon2"

	"github.com/sallyport/sallyport/crypto/secret"
)

// Sealer turns a secret that lies elsewhere into the key that seals a key file.
// PassphraseFile and CredentialFile make the two kinds there are.
type Sealer interface {
	// kind is the sealer's byte in the key file.
	kind() byte
	// fresh gives the parameters of a new key file.
	fresh() []byte
	// derive reads the secret and derives the sealing key.
	derive(salt, params []byte) (secret.Bytes, error)
}

const (
	kindPassphrase = 1
	kindCredential = 2
)

// Limits of the two secrets, in bytes.
const (
	MinPassphrase = 16
	MinCredential = 32
	maxSecret     = 4096
)

// secretForbid: the owner may read and write, the group may read. A group's read
// bit is not refused because systemd shows the access-control entry that lets the
// service's user at a credential as that bit, and Kubernetes does the like for
// fsGroup.
const secretForbid = 0o037

// The cost of argon2id for new key files is the second recommendation of RFC 9106
// section 4: 3 passes over 64 MiB in 4 lanes, a 256-bit result. The costs are in
// the key file, so raising these does not lock anybody out; the maxima stop an
// altered file from claiming the machine's memory.
const (
	argonTime, maxArgonTime     = 3, 64
	argonMemory, maxArgonMemory = 64 << 10, 1 << 20 // KiB
	argonLanes, maxArgonLanes   = 4, 64
	argonParamsLen              = 4 + 4 + 1
)

type passphraseFile struct{ path string }

// PassphraseFile seals by a passphrase of at least MinPassphrase bytes that is the
// content of a file. One newline at its end does not count. The sealing key is
// argon2id(passphrase, salt, parameters), RFC 9106.
func PassphraseFile(path string) Sealer { return passphraseFile{path} }

func (passphraseFile) kind() byte { return kindPassphrase }

func (passphraseFile) fresh() []byte {
	params := binary.BigEndian.AppendUint32(nil, argonTime)
	return append(binary.BigEndian.AppendUint32(params, argonMemory), argonLanes)
}

func (p passphraseFile) derive(salt, params []byte) (secret.Bytes, error) {
	if len(params) != argonParamsLen {
		return secret.Bytes{}, ErrFormat
	}
	passes, memory := binary.BigEndian.Uint32(params), binary.BigEndian.Uint32(params[4:])
	lanes := params[8]
	if passes == 0 || passes > maxArgonTime || memory < 8*uint32(lanes) || memory > maxArgonMemory ||
		lanes == 0 || lanes > maxArgonLanes {
		return secret.Bytes{}, ErrFormat
	}
	content, err := readSecret(p.path)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer secret.Wipe(content)
	passphrase := bytes.TrimSuffix(bytes.TrimSuffix(content, []byte("\n")), []byte("\r"))
	if len(passphrase) < MinPassphrase {
		return secret.Bytes{}, fmt.Errorf("%w: a passphrase needs %d bytes", ErrSecretFile, MinPassphrase)
	}
	return secret.Take(argon2.IDKey(passphrase, salt, passes, memory, lanes, keyLen)), nil
}

type credentialFile struct{ path string }

// CredentialFile seals by the whole content of a file of at least MinCredential
// random bytes, such as a systemd credential. There is no stretching: the content
// must be random, not chosen. The sealing key is HKDF-SHA256(content, salt,
// "sallyport/v1/local-credential"), RFC 5869.
func CredentialFile(path string) Sealer { return credentialFile{path} }

func (credentialFile) kind() byte { return kindCredential }

func (credentialFile) fresh() []byte { return nil }

func (c credentialFile) derive(salt, params []byte) (secret.Bytes, error) {
	if len(params) != 0 {
		return secret.Bytes{}, ErrFormat
	}
	content, err := readSecret(c.path)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer secret.Wipe(content)
	if len(content) < MinCredential {
		return secret.Bytes{}, fmt.Errorf("%w: a credential needs %d random bytes", ErrSecretFile, MinCredential)
	}
	key, err := hkdf.Key(sha256.New, content, salt, "sallyport/v1/local-credential", keyLen)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("local: deriving the sealing key: %w", err)
	}
	return secret.Take(key), nil
}

// readSecret reads a passphrase or credential. Errors wrap ErrSecretFile or
// ErrPermissions.
func readSecret(path string) ([]byte, error) {
	content, err := readChecked(path, secretForbid, maxSecret)
	if errors.Is(err, ErrPermissions) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSecretFile, err)
	}
	return content, nil
}
