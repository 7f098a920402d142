package local

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/secret"
)

// The key file, of at most maxFile bytes:
//
//	┌────────────┬────┐
//	│ "SALLYKEK" │  8 │ magic
//	│ 01         │  1 │ format version
//	│ sealer     │  1 │ 01 passphrase, 02 credential
//	│ key id     │ 16 │ random, public
//	│ salt       │ 32 │ random
//	│ parameters │    │ passphrase: time (4), memory in KiB (4), lanes (1); credential: none
//	├────────────┼────┤ ◄ up to here: "header"
//	│ nonce      │ 12 │ random
//	│ master key │ 32 │ under AES-256-GCM
//	│ tag        │ 16 │
//	└────────────┴────┘
//
// Numbers are big-endian. The sealing key comes from the passphrase or credential,
// see [PassphraseFile] and [CredentialFile]; the associated data is
// Encode("sallyport/v1/local-key-file", header). A change of any byte is seen.
const (
	magic         = "SALLYKEK"
	fileFormat    = 1
	saltLen       = 32
	fixedLen      = len(magic) + 2 + keyIDLen + saltLen
	sealedLen     = gcmNonce + keyLen + gcmTag
	maxParamsLen  = 9
	maxFile       = fixedLen + maxParamsLen + sealedLen
	fileDomain    = "sallyport/v1/local-key-file"
	sealerAt      = len(magic) + 1
	keyIDAt       = sealerAt + 1
	saltAt        = keyIDAt + keyIDLen
	keyFileMode   = 0o600
	keyFileForbid = 0o077 // no access for group and others
)

// Create makes a key file with a fresh key and returns the open key. It never
// replaces a file: if there is one it fails with ErrKeyFileExists. The file and its
// directory entry are on disk when it returns. Only initialisation and the
// development command call it.
//
// A crash before it returns may leave a short file, which Open refuses with
// ErrFormat: nothing was wrapped by it, so remove it and create again.
func Create(path string, s Sealer) (*Key, error) {
	params := s.fresh()
	header := make([]byte, 0, maxFile)
	header = append(append(header, magic...), fileFormat, s.kind())
	header = append(header, random(keyIDLen+saltLen)...)
	header = append(header, params...)
	sealing, err := s.derive(header[saltAt:fixedLen], params)
	if err != nil {
		return nil, err
	}
	defer sealing.Wipe()
	k := &Key{id: [keyIDLen]byte(header[keyIDAt:]), master: secret.Random(keyLen)}
	content := header
	err = sealing.Use(func(sealing []byte) error {
		aead, err := newGCM(sealing)
		if err != nil {
			return err
		}
		return k.master.Use(func(master []byte) error {
			content = aead.Seal(header, nil, master, binding.Encode(fileDomain, header))
			return nil
		})
	})
	if err == nil {
		err = writeNew(path, content)
	}
	if err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

// Open opens a key file. Its errors are ErrNoKeyFile, ErrFormat, ErrSealer,
// ErrPermissions, ErrWrongSecret, ErrSecretFile, and those of the file system.
func Open(path string, s Sealer) (*Key, error) {
	content, err := readChecked(path, keyFileForbid, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %w", ErrNoKeyFile, err)
	case errors.Is(err, errTooLarge):
		return nil, ErrFormat
	case err != nil:
		return nil, err
	}
	return parseFile(content, s)
}

// parseFile opens the content of a key file.
func parseFile(content []byte, s Sealer) (*Key, error) {
	if len(content) < fixedLen+sealedLen || !bytes.HasPrefix(content, []byte(magic)) ||
		content[len(magic)] != fileFormat {
		return nil, ErrFormat
	}
	if content[sealerAt] != s.kind() {
		return nil, ErrSealer
	}
	header, sealed := content[:len(content)-sealedLen], content[len(content)-sealedLen:]
	sealing, err := s.derive(header[saltAt:fixedLen], header[fixedLen:])
	if err != nil {
		return nil, err
	}
	defer sealing.Wipe()
	var master []byte
	err = sealing.Use(func(sealing []byte) error {
		aead, err := newGCM(sealing)
		if err != nil {
			return err
		}
		if master, err = aead.Open(nil, nil, sealed, binding.Encode(fileDomain, header)); err != nil {
			return ErrWrongSecret
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &Key{id: [keyIDLen]byte(header[keyIDAt:]), master: secret.Take(master)}, nil
}

// writeNew writes a file that must not exist and makes it durable.
func writeNew(path string, content []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, keyFileMode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", ErrKeyFileExists, err)
	}
	if err != nil {
		return fmt.Errorf("local: creating the key file: %w", err)
	}
	defer func() {
		// A file that was not synced must not be trusted later, and it is ours.
		if err != nil {
			err = errors.Join(fmt.Errorf("local: writing the key file: %w", err), os.Remove(path))
		}
	}()
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

var errTooLarge = errors.New("local: file larger than it may be")

// readChecked reads a regular file of at most limit bytes, after checking on the
// open file that its mode has none of the forbidden bits.
func readChecked(path string, forbidden fs.FileMode, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("local: %s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&forbidden != 0 {
		return nil, fmt.Errorf("%w: %s has mode %04o", ErrPermissions, path, mode)
	}
	// One buffer of the whole size: growing would leave copies of a secret.
	content := make([]byte, limit+1)
	n, err := io.ReadFull(f, content)
	switch {
	case err == nil:
		secret.Wipe(content)
		return nil, errTooLarge
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return content[:n], nil
	}
	secret.Wipe(content)
	return nil, err
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
