package keys

import (
	"bytes"
	"fmt"
	"time"

	"github.com/tink-crypto/tink-go/v2/daead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"
	"github.com/tink-crypto/tink-go/v2/prf"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"

	"github.com/sallyport/sallyport/crypto/envelope"
	"github.com/sallyport/sallyport/crypto/secret"
)

// Handle is an opened version. It holds the key of one purpose and shows no bytes
// of it.
type Handle struct {
	version uint32
	aead    *envelope.AEADKey
	siv     *envelope.SIVKey
	mac     *envelope.MACKey

	expires time.Time
	// refused remembers, until expires, that the KEK refused to open the version.
	refused error
}

// Version is the number of the version.
func (h *Handle) Version() uint32 { return h.version }

// AEAD is the key of a version of purpose aead, and nil otherwise.
func (h *Handle) AEAD() *envelope.AEADKey { return h.aead }

// SIV is the key of a version of purpose deterministic, and nil otherwise.
func (h *Handle) SIV() *envelope.SIVKey { return h.siv }

// MAC is the key of a version of purpose mac, and nil otherwise.
func (h *Handle) MAC() *envelope.MACKey { return h.mac }

func (h *Handle) wipe() {
	if h.aead != nil {
		h.aead.Wipe()
	}
}

// newKeyset makes the key material of a version: a serialized Tink keyset with one
// key, whose primitive adds no prefix of its own.
func newKeyset(p Purpose) ([]byte, error) {
	var template *tinkpb.KeyTemplate
	switch p {
	case PurposeAEAD:
		template = prf.HKDFSHA256PRFKeyTemplate()
	case PurposeDeterministic:
		template = daead.AESSIVKeyTemplate()
		template.OutputPrefixType = tinkpb.OutputPrefixType_RAW
	case PurposeMAC:
		template = mac.HMACSHA256Tag256KeyTemplate()
		template.OutputPrefixType = tinkpb.OutputPrefixType_RAW
	default:
		return nil, ErrPurpose
	}
	h, err := keyset.NewHandle(template)
	if err != nil {
		return nil, fmt.Errorf("keys: making a keyset: %w", err)
	}
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewBinaryWriter(&buf)); err != nil {
		return nil, fmt.Errorf("keys: writing a keyset: %w", err)
	}
	return buf.Bytes(), nil
}

// newHandle opens a keyset for use, and wipes it.
func newHandle(serialized []byte, p Purpose, s envelope.Scope) (*Handle, error) {
	defer secret.Wipe(serialized)
	ks, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(serialized)))
	if err != nil {
		return nil, fmt.Errorf("%w: the keyset does not parse", ErrKEKMismatch)
	}
	h := &Handle{version: s.Version}
	switch p {
	case PurposeAEAD:
		var set *prf.Set
		if set, err = prf.NewPRFSet(ks); err == nil {
			h.aead, err = envelope.DeriveAEADKey(primaryPRF{set}, s)
		}
	case PurposeDeterministic:
		var d envelope.DeterministicAEAD
		if d, err = daead.New(ks); err == nil {
			h.siv, err = envelope.NewSIVKey(d, s)
		}
	case PurposeMAC:
		var m envelope.MAC
		if m, err = mac.New(ks); err == nil {
			h.mac, err = envelope.NewMACKey(m, s)
		}
	default:
		err = ErrPurpose
	}
	if err != nil {
		// What is wrong with a keyset could quote it.
		return nil, fmt.Errorf("%w: the keyset does not serve purpose %v", ErrKEKMismatch, p)
	}
	return h, nil
}

// primaryPRF is the primary key of a Tink PRF set.
type primaryPRF struct{ set *prf.Set }

// ComputePRF implements envelope.PRF.
func (p primaryPRF) ComputePRF(input []byte, n uint32) ([]byte, error) {
	return p.set.ComputePrimaryPRF(input, n)
}
