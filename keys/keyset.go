package keys

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/daead"
	"github.com/tink-crypto/tink-go/v2/daead/aessiv"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/key"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"
	"github.com/tink-crypto/tink-go/v2/mac/hmac"
	"github.com/tink-crypto/tink-go/v2/prf"
	"github.com/tink-crypto/tink-go/v2/prf/hkdfprf"

	"github.com/sallyport/sallyport/crypto/envelope"
	"github.com/sallyport/sallyport/crypto/secret"
)

// errKeyset: bytes that a KEK released are not a keyset of the purpose. They were
// bound to it, so this is a defect or a KEK under somebody else's control.
var errKeyset = errors.New("not a keyset of the purpose")

// parameters says which key a purpose has. All are without Tink's output prefix:
// envelopes name their version themselves.
func parameters(p Purpose) (key.Parameters, error) {
	switch p {
	case PurposeAEAD:
		return hkdfprf.NewParameters(32, hkdfprf.SHA256, nil)
	case PurposeDeterministic:
		return aessiv.NewParameters(64, aessiv.VariantNoPrefix)
	case PurposeMAC:
		return hmac.NewParameters(hmac.ParametersOpts{
			KeySizeInBytes: 32, TagSizeInBytes: 32, HashType: hmac.SHA256, Variant: hmac.VariantNoPrefix,
		})
	case PurposeSigning: // no keyring's
	}
	return nil, fmt.Errorf("%w: purpose %d", ErrArgument, p)
}

// newKeyset makes a keyset of one fresh key, as Tink's binary serialisation. The
// caller wipes it; Tink's own copies become garbage.
func newKeyset(p Purpose) ([]byte, error) {
	params, err := parameters(p)
	if err != nil {
		return nil, err
	}
	manager := keyset.NewManager()
	id, err := manager.AddNewKeyFromParameters(params)
	if err == nil {
		err = manager.SetPrimary(id)
	}
	if err != nil {
		return nil, fmt.Errorf("keys: making a keyset: %w", err)
	}
	handle, err := manager.Handle()
	if err != nil {
		return nil, fmt.Errorf("keys: making a keyset: %w", err)
	}
	// Large enough to never grow, which would leave a copy behind.
	out := bytes.NewBuffer(make([]byte, 0, MaxKeyset))
	if err := insecurecleartextkeyset.Write(handle, keyset.NewBinaryWriter(out)); err != nil {
		secret.Wipe(out.Bytes())
		return nil, fmt.Errorf("keys: serialising a keyset: %w", err)
	}
	return out.Bytes(), nil
}

// openKeyset makes the envelope key of a serialised keyset. Its error wraps
// errKeyset or comes from package envelope, and shows nothing of the keyset.
func openKeyset(serialised []byte, p Purpose, s envelope.Scope) (*Handle, error) {
	handle, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(serialised)))
	if err != nil || handle.Len() != 1 {
		return nil, errKeyset
	}
	h := &Handle{scope: s}
	switch p {
	case PurposeAEAD:
		set, err := prf.NewPRFSet(handle)
		if err != nil {
			return nil, errKeyset
		}
		h.aead, err = envelope.DeriveAEADKey(set.PRFs[set.PrimaryID], s)
		return h, err
	case PurposeDeterministic:
		primitive, err := daead.New(handle)
		if err != nil {
			return nil, errKeyset
		}
		h.siv, err = envelope.NewSIVKey(primitive, s)
		return h, err
	case PurposeMAC:
		primitive, err := mac.New(handle)
		if err != nil {
			return nil, errKeyset
		}
		h.mac, err = envelope.NewMACKey(primitive, s)
		return h, err
	case PurposeSigning: // no keyring's
	}
	return nil, errKeyset
}

// Handle is an opened version: a key that can be used and not be seen. Use it for one
// operation and ask again: it does not notice what happens to the version, and is
// wiped wipeDelay after the version's state has forbidden its use.
type Handle struct {
	scope envelope.Scope
	aead  *envelope.AEADKey
	siv   *envelope.SIVKey
	mac   *envelope.MACKey
}

// Version returns the number of the version.
func (h *Handle) Version() uint32 { return h.scope.Version }

// Keyring returns the id of the keyring.
func (h *Handle) Keyring() envelope.KeyringID { return h.scope.Keyring }

// AEAD returns the key of a version with PurposeAEAD, and nil for others.
func (h *Handle) AEAD() *envelope.AEADKey { return h.aead }

// SIV returns the key of a version with PurposeDeterministic, and nil for others.
func (h *Handle) SIV() *envelope.SIVKey { return h.siv }

// MAC returns the key of a version with PurposeMAC, and nil for others.
func (h *Handle) MAC() *envelope.MACKey { return h.mac }

// wipe clears what can be cleared; calls that have begun finish.
func (h *Handle) wipe() {
	if h.aead != nil {
		h.aead.Wipe()
	}
}
