package sallyport

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

// Keyring is a handle for one keyring of a gateway. It is a small value, safe for
// concurrent use, and making one calls nobody: a name that does not exist, or is
// not allowed, is PERMISSION_DENIED when it is used.
//
// Each method takes an encryption context: pairs that are bound to the envelope or
// tag, not secret and not stored in it, and that whoever opens it must state again.
// Nil is the empty one.
type Keyring struct {
	client *Client
	name   string
	format datav1.Format
}

// Keyring gives the handle of a keyring, "tenants/{tenant}/keyrings/{keyring}".
func (c *Client) Keyring(name string) Keyring { return Keyring{client: c, name: name} }

// Name gives the keyring's resource name.
func (k Keyring) Name() string { return k.name }

// Compact gives a handle whose encryptions have the compact form, for database
// fields: at most 56 bytes longer than the plaintext, it names its version and
// neither keyring nor context. Both handles decrypt both forms.
func (k Keyring) Compact() Keyring {
	k.format = datav1.Format_FORMAT_COMPACT
	return k
}

// Sealed is the result of an encryption.
type Sealed struct {
	Ciphertext []byte // the envelope
	Version    uint32 // of the keyring, that sealed it
	// PreviousVersion is the version that the envelope was sealed under before Rewrap,
	// otherwise 0.
	PreviousVersion uint32
	Receipt         string // proves that the call is on record
}

// Opened is the result of a decryption. It prints and marshals without its
// plaintext.
type Opened struct {
	Plaintext []byte `json:"-"`
	Version   uint32 // of the keyring, that the envelope was sealed under
	Receipt   string // proves that the call is on record
}

// Format implements fmt.Formatter, for every verb.
func (o Opened) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "{%d bytes of plaintext, version %d}", len(o.Plaintext), o.Version)
}

// Tag is the result of ComputeMac.
type Tag struct {
	MAC     []byte
	Version uint32 // of the keyring, that made it
	Receipt string // proves that the call is on record
}

// Verdict is the result of VerifyMac.
type Verdict struct {
	Valid   bool
	Version uint32 // that the tag names
	Receipt string // proves that the call is on record
}

// Encrypt seals plaintext under the keyring's primary version. The keyring's
// purpose is aead.
func (k Keyring) Encrypt(ctx context.Context, plaintext []byte, bound map[string]string) (Sealed, error) {
	r, receipt, err := call(ctx, k.client.data.Encrypt, &datav1.EncryptRequest{
		Name: k.name, Plaintext: plaintext, Context: bound, Format: k.format,
	})
	return Sealed{Ciphertext: r.GetCiphertext(), Version: r.GetVersion(), Receipt: receipt}, err
}

// Decrypt opens an envelope that Encrypt made. DECRYPTION_FAILED means that it was
// altered or that the context is another; the two are not told apart.
func (k Keyring) Decrypt(ctx context.Context, ciphertext []byte, bound map[string]string) (Opened, error) {
	r, receipt, err := call(ctx, k.client.data.Decrypt, &datav1.DecryptRequest{
		Name: k.name, Ciphertext: ciphertext, Context: bound,
	})
	return Opened{r.GetPlaintext(), r.GetVersion(), receipt}, err
}

// Rewrap moves an envelope to the keyring's primary version. The plaintext does
// not leave the gateway; context and form stay the same.
func (k Keyring) Rewrap(ctx context.Context, ciphertext []byte, bound map[string]string) (Sealed, error) {
	r, receipt, err := call(ctx, k.client.data.Rewrap, &datav1.RewrapRequest{
		Name: k.name, Ciphertext: ciphertext, Context: bound,
	})
	return Sealed{r.GetCiphertext(), r.GetVersion(), r.GetPreviousVersion(), receipt}, err
}

// ComputeMac authenticates data under the keyring's primary version. The keyring's
// purpose is mac.
func (k Keyring) ComputeMac(ctx context.Context, data []byte, bound map[string]string) (Tag, error) {
	r, receipt, err := call(ctx, k.client.data.ComputeMac, &datav1.ComputeMacRequest{
		Name: k.name, Data: data, Context: bound,
	})
	return Tag{r.GetMac(), r.GetVersion(), receipt}, err
}

// VerifyMac checks a tag that ComputeMac made. A wrong tag is a [Verdict] that is
// not valid, not an error.
func (k Keyring) VerifyMac(ctx context.Context, data, mac []byte, bound map[string]string) (Verdict, error) {
	r, receipt, err := call(ctx, k.client.data.VerifyMac, &datav1.VerifyMacRequest{
		Name: k.name, Data: data, Mac: mac, Context: bound,
	})
	return Verdict{r.GetValid(), r.GetVersion(), receipt}, err
}

// DeterministicEncrypt gives the same envelope for the same plaintext, context and
// version, so that equal values can be found; whoever sees the envelopes sees which
// are equal. The keyring's purpose is deterministic.
func (k Keyring) DeterministicEncrypt(ctx context.Context, plaintext []byte, bound map[string]string) (Sealed, error) {
	r, receipt, err := call(ctx, k.client.data.DeterministicEncrypt, &datav1.DeterministicEncryptRequest{
		Name: k.name, Plaintext: plaintext, Context: bound,
	})
	return Sealed{Ciphertext: r.GetCiphertext(), Version: r.GetVersion(), Receipt: receipt}, err
}

// DeterministicDecrypt opens an envelope that DeterministicEncrypt made.
func (k Keyring) DeterministicDecrypt(ctx context.Context, ciphertext []byte, bound map[string]string) (Opened, error) {
	r, receipt, err := call(ctx, k.client.data.DeterministicDecrypt, &datav1.DeterministicDecryptRequest{
		Name: k.name, Ciphertext: ciphertext, Context: bound,
	})
	return Opened{r.GetPlaintext(), r.GetVersion(), receipt}, err
}

// call calls a method of the generated client and gives the receipt with the reply.
func call[Request, Reply any](ctx context.Context,
	method func(context.Context, Request, ...grpc.CallOption) (Reply, error), req Request,
) (Reply, string, error) {
	var trailer metadata.MD
	reply, err := method(ctx, req, grpc.Trailer(&trailer))
	return reply, receiptIn(trailer), err
}
