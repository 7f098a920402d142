// Package local is a KEK in a file on this machine, itself sealed by a passphrase
// or by a credential that the service manager provides. It needs no network and
// no provider, and gives what that is worth: whoever reads both the key file and
// what seals it has the KEK. docs/operations/kek-local.md says when that is
// enough.
package local

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/secret"
	"github.com/sallyport/sallyport/keys"
)

// The errors of Create and Open. They never show content of a file.
var (
	// ErrNoKeyFile: there is no file at the path. Open never makes one.
	ErrNoKeyFile = errors.New("local: no key file")
	// ErrKeyFileExists: Create found a file at the path and left it alone.
	ErrKeyFileExists = errors.New("local: key file exists")
	// ErrFormat: the file is not a key file of this format, or is cut short.
	ErrFormat = errors.New("local: not a readable key file")
	// ErrWrongSecret: the passphrase or credential does not open the key file, or
	// the key file was altered: the two cannot be told apart.
	ErrWrongSecret = errors.New("local: the secret does not open the key file")
	// ErrSealer: the key file is sealed by the other kind of secret.
	ErrSealer = errors.New("local: sealed by another kind of secret")
	// ErrPermissions: the permissions of a file let others than its owner at it.
	ErrPermissions = errors.New("local: loose file permissions")
	// ErrSecretFile: the file with the passphrase or credential is missing,
	// unreadable or outside the stated lengths.
	ErrSecretFile = errors.New("local: unusable secret file")
)

// wrapDomain separates wrapping from every other use of associated data.
const wrapDomain = "sallyport/v1/local-wrap"

// wrapFormat is the first byte of what Wrap returns.
const wrapFormat = 1

const (
	keyLen     = 32 // AES-256
	keyIDLen   = 16
	gcmNonce   = 12
	gcmTag     = 16
	headerLen  = 1 + keyIDLen
	wrapExtra  = headerLen + gcmNonce + gcmTag
	maxWrapped = wrapExtra + keys.MaxKeyset
)

// Key is an open key file. It implements keys.KEK.
type Key struct {
	id     [keyIDLen]byte
	master secret.Bytes
}

var _ keys.KEK = (*Key)(nil)

// URI is "local:" and the key's id in hexadecimal, which is in the key file: a
// copy of the file on another machine is the same KEK.
func (k *Key) URI() string { return "local:" + hex.EncodeToString(k.id[:]) }

// Close wipes the key. Later calls are refused.
func (k *Key) Close() { k.master.Wipe() }

// Wrap encrypts a keyset with AES-256-GCM:
//
//	┌────────────┬────┐
//	│ 01         │  1 │ format
//	│ key id     │ 16 │
//	├────────────┼────┤ ◄ up to here: "header"
//	│ nonce      │ 12 │ random
//	│ ciphertext │    │ as long as the keyset
//	│ tag        │ 16 │
//	└────────────┴────┘
//
// with the associated data Encode("sallyport/v1/local-wrap", header, binding), in
// the encodings of [binding.Encode] and [keys.Binding.Encode]. Random nonces allow
// 2^32 wraps under one key (NIST SP 800-38D section 8.3); one wrap makes one
// version of a keyring.
func (k *Key) Wrap(ctx context.Context, keyset []byte, b keys.Binding) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", keys.ErrKEKUnreachable, err)
	}
	if len(keyset) == 0 || len(keyset) > keys.MaxKeyset {
		return nil, fmt.Errorf("%w: a keyset of %d bytes", keys.ErrKEKRefused, len(keyset))
	}
	header := append([]byte{wrapFormat}, k.id[:]...)
	wrapped := make([]byte, headerLen, wrapExtra+len(keyset))
	copy(wrapped, header)
	err := k.master.Use(func(master []byte) error {
		aead, err := newGCM(master)
		if err == nil {
			wrapped = aead.Seal(wrapped, nil, keyset, associated(header, b))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", keys.ErrKEKRefused, err)
	}
	return wrapped, nil
}

// Unwrap decrypts what Wrap made.
func (k *Key) Unwrap(ctx context.Context, wrapped []byte, b keys.Binding) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", keys.ErrKEKUnreachable, err)
	}
	header, sealed, err := parseWrapped(wrapped)
	if err != nil {
		return nil, err
	}
	if [keyIDLen]byte(header[1:]) != k.id {
		return nil, fmt.Errorf("%w: wrapped by another local key", keys.ErrKEKMismatch)
	}
	var keyset []byte
	err = k.master.Use(func(master []byte) error {
		aead, err := newGCM(master)
		if err != nil {
			return err
		}
		if keyset, err = aead.Open(nil, nil, sealed, associated(header, b)); err != nil {
			return keys.ErrKEKMismatch
		}
		return nil
	})
	switch {
	case errors.Is(err, keys.ErrKEKMismatch):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", keys.ErrKEKRefused, err)
	}
	return keyset, nil
}

// parseWrapped splits what Wrap made, without authenticating it. The error wraps
// keys.ErrKEKMismatch.
func parseWrapped(wrapped []byte) (header, sealed []byte, err error) {
	if len(wrapped) <= wrapExtra || len(wrapped) > maxWrapped || wrapped[0] != wrapFormat {
		return nil, nil, fmt.Errorf("%w: not wrapped by a local key", keys.ErrKEKMismatch)
	}
	return wrapped[:headerLen], wrapped[headerLen:], nil
}

func associated(header []byte, b keys.Binding) []byte {
	return binding.Encode(wrapDomain, header, b.Encode())
}

// newGCM returns AES-256-GCM with the nonce in front of the ciphertext. It is made
// for each use, so that the key schedule lives no longer than that.
func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
