package keys

import (
	"encoding/hex"
	"strconv"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/envelope"
)

// Binding is what a wrapped keyset is bound to. Every provider authenticates it:
// one with a readable encryption context (AWS) sends Pairs, one with opaque
// associated data uses Encode.
type Binding struct {
	Deployment, Environment string
	Tenant                  Tenant
	Keyring                 envelope.KeyringID
	Version                 uint32
	Purpose                 Purpose
}

// Pairs gives the binding as six readable pairs, so that a provider's key policy
// can match on them and its log shows them. Names are lower case and differ by
// more than case, because AWS ignores the case of names in grant constraints but
// not when decrypting. The keyring is its id in hexadecimal, the version decimal.
//
// Changing a name or a form makes every wrapped keyset unreadable.
func (b Binding) Pairs() map[string]string {
	return map[string]string{
		"deployment":  b.Deployment,
		"environment": b.Environment,
		"tenant":      string(b.Tenant),
		"keyring":     hex.EncodeToString(b.Keyring[:]),
		"version":     strconv.FormatUint(uint64(b.Version), 10),
		"purpose":     b.Purpose.String(),
	}
}

// Encode gives the binding as one injective string of bytes:
//
//	Encode("sallyport/v1/wrapped-version", deployment, environment, tenant,
//	       keyring (16 bytes), version (4), purpose (1))
//
// in the encoding of [binding.Encode].
func (b Binding) Encode() []byte {
	enc := binding.AppendField(nil, "sallyport/v1/wrapped-version")
	enc = binding.AppendField(enc, b.Deployment)
	enc = binding.AppendField(enc, b.Environment)
	enc = binding.AppendField(enc, string(b.Tenant))
	enc = binding.AppendField(enc, b.Keyring[:])
	enc = binding.AppendUint32(enc, b.Version)
	return binding.AppendField(enc, []byte{byte(b.Purpose)})
}
