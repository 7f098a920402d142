package delivery

import "crypto/hpke"

// Wrap makes a recipient of any key of package hpke, for vectors with fixed keys.
func Wrap(key hpke.PrivateKey) *PrivateKey { return wrap(key) }

// Info is the info of a binding.
func (b Binding) Info() []byte { return b.info() }

// CheckKey says of a key whether there can be a recipient of it.
func CheckKey(kem KEM, publicKey []byte) error {
	_, err := NewRecipient(kem, publicKey)
	return err
}
