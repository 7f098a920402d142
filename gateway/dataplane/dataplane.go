// Package dataplane encrypts, decrypts and authenticates customer data. It knows
// keys and envelopes, and nothing of transports or policy: whoever holds a grant
// has passed both.
package dataplane

import (
	"context"
	"fmt"

	"github.com/sallyport/sallyport/crypto/envelope"
	"github.com/sallyport/sallyport/crypto/secret"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/identity"
	"github.com/sallyport/sallyport/gateway/pipeline"
	"github.com/sallyport/sallyport/gateway/policy"
	"github.com/sallyport/sallyport/keys"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

// Plane is the data plane.
type Plane struct{ Keys *keys.Keeper }

// Grant is a grant of the data plane: a workload's.
type Grant = pipeline.Grant[identity.Workload]

const service = "sallyport.data.v1.DataService."

// Routes is the data plane's part of the table.
func (p *Plane) Routes() []pipeline.Route {
	return []pipeline.Route{
		pipeline.Data(service+"Encrypt", policy.ActionEncrypt, one[*datav1.EncryptRequest], p.encrypt),
		pipeline.Data(service+"Decrypt", policy.ActionDecrypt, one[*datav1.DecryptRequest], p.decrypt),
		pipeline.Data(service+"Rewrap", policy.ActionRewrap, one[*datav1.RewrapRequest], p.rewrap),
		pipeline.Data(service+"BatchEncrypt", policy.ActionBatchEncrypt,
			many[*datav1.BatchEncryptRequest, *datav1.BatchEncryptRequest_Item], p.batchEncrypt),
		pipeline.Data(service+"BatchDecrypt", policy.ActionBatchDecrypt,
			many[*datav1.BatchDecryptRequest, *datav1.BatchDecryptRequest_Item], p.batchDecrypt),
		pipeline.Data(service+"BatchRewrap", policy.ActionBatchRewrap,
			many[*datav1.BatchRewrapRequest, *datav1.BatchRewrapRequest_Item], p.batchRewrap),
		pipeline.Data(service+"ComputeMac", policy.ActionComputeMac, one[*datav1.ComputeMacRequest], p.computeMac),
		pipeline.Data(service+"VerifyMac", policy.ActionVerifyMac, one[*datav1.VerifyMacRequest], p.verifyMac),
		pipeline.Data(service+"DeterministicEncrypt", policy.ActionDeterministicEncrypt,
			one[*datav1.DeterministicEncryptRequest], p.deterministicEncrypt),
		pipeline.Data(service+"DeterministicDecrypt", policy.ActionDeterministicDecrypt,
			one[*datav1.DeterministicDecryptRequest], p.deterministicDecrypt),
	}
}

// contextual is what carries an encryption context.
type contextual interface{ GetContext() map[string]string }

// one reads the subject of a request with one context.
func one[R interface {
	contextual
	GetName() string
}](r R, s *pipeline.Subject) error {
	if err := s.SetKeyring(r.GetName()); err != nil {
		return err
	}
	return s.SetContext(r.GetContext())
}

// many reads the subject of a batch.
func many[R interface {
	GetName() string
	GetItems() []I
}, I contextual](r R, s *pipeline.Subject) error {
	if err := s.SetKeyring(r.GetName()); err != nil {
		return err
	}
	items := r.GetItems()
	return s.SetItems(len(items), func(i int) map[string]string { return items[i].GetContext() })
}

func (p *Plane) encrypt(ctx context.Context, g Grant, req *datav1.EncryptRequest, reply *datav1.EncryptResponse) error {
	suite, err := suiteOf(req.GetFormat())
	if err != nil {
		return err
	}
	h, err := p.Keys.Sealing(ctx, g.Keyring(), keys.PurposeAEAD)
	if err != nil {
		return err
	}
	sealed, err := h.AEAD().Seal(nil, req.GetPlaintext(), g.Context(), suite)
	if err != nil {
		return err
	}
	reply.Ciphertext, reply.Version = sealed, h.Version()
	note(g, sealed, h.Version(), len(req.GetPlaintext()), len(sealed))
	return nil
}

func (p *Plane) decrypt(ctx context.Context, g Grant, req *datav1.DecryptRequest, reply *datav1.DecryptResponse) error {
	g.NoteEnvelope(req.GetCiphertext())
	m, h, err := p.opening(ctx, g, keys.PurposeAEAD, req.GetCiphertext())
	if err != nil {
		return err
	}
	g.NoteVersion(m.Version())
	plaintext, err := h.AEAD().Open(nil, m, g.Context())
	if err != nil {
		return err
	}
	reply.Plaintext, reply.Version = plaintext, m.Version()
	g.NoteSizes(len(req.GetCiphertext()), len(plaintext))
	return nil
}

func (p *Plane) rewrap(ctx context.Context, g Grant, req *datav1.RewrapRequest, reply *datav1.RewrapResponse) error {
	m, h, err := p.opening(ctx, g, keys.PurposeAEAD, req.GetCiphertext())
	if err != nil {
		return err
	}
	primary, err := p.Keys.Sealing(ctx, g.Keyring(), keys.PurposeAEAD)
	if err != nil {
		return err
	}
	plaintext, err := h.AEAD().Open(nil, m, g.Context())
	if err != nil {
		return err
	}
	defer secret.Wipe(plaintext)
	sealed, err := primary.AEAD().Seal(nil, plaintext, g.Context(), m.Suite())
	if err != nil {
		return err
	}
	reply.Ciphertext, reply.Version, reply.PreviousVersion = sealed, primary.Version(), m.Version()
	note(g, sealed, primary.Version(), len(req.GetCiphertext()), len(sealed))
	return nil
}

func (p *Plane) computeMac(ctx context.Context, g Grant, req *datav1.ComputeMacRequest, reply *datav1.ComputeMacResponse) error {
	h, err := p.Keys.Sealing(ctx, g.Keyring(), keys.PurposeMAC)
	if err != nil {
		return err
	}
	tag, err := h.MAC().Compute(nil, req.GetData(), g.Context())
	if err != nil {
		return err
	}
	reply.Mac, reply.Version = tag, h.Version()
	note(g, tag, h.Version(), len(req.GetData()), len(tag))
	return nil
}

func (p *Plane) verifyMac(ctx context.Context, g Grant, req *datav1.VerifyMacRequest, reply *datav1.VerifyMacResponse) error {
	m, h, err := p.opening(ctx, g, keys.PurposeMAC, req.GetMac())
	if err != nil {
		return err
	}
	reply.Valid, reply.Version = h.MAC().Verify(m, req.GetData(), g.Context()) == nil, m.Version()
	note(g, req.GetMac(), m.Version(), len(req.GetData()), 0)
	return nil
}

func (p *Plane) deterministicEncrypt(ctx context.Context, g Grant, req *datav1.DeterministicEncryptRequest, reply *datav1.DeterministicEncryptResponse) error {
	h, err := p.Keys.Sealing(ctx, g.Keyring(), keys.PurposeDeterministic)
	if err != nil {
		return err
	}
	sealed, err := h.SIV().Seal(nil, req.GetPlaintext(), g.Context())
	if err != nil {
		return err
	}
	reply.Ciphertext, reply.Version = sealed, h.Version()
	note(g, sealed, h.Version(), len(req.GetPlaintext()), len(sealed))
	return nil
}

func (p *Plane) deterministicDecrypt(ctx context.Context, g Grant, req *datav1.DeterministicDecryptRequest, reply *datav1.DeterministicDecryptResponse) error {
	m, h, err := p.opening(ctx, g, keys.PurposeDeterministic, req.GetCiphertext())
	if err != nil {
		return err
	}
	plaintext, err := h.SIV().Open(nil, m, g.Context())
	if err != nil {
		return err
	}
	reply.Plaintext, reply.Version = plaintext, m.Version()
	note(g, req.GetCiphertext(), m.Version(), len(req.GetCiphertext()), len(plaintext))
	return nil
}

// opening parses an envelope and finds the key that opens it. The envelope is
// refused for its form, its keyring and its version before any key is fetched.
func (p *Plane) opening(ctx context.Context, g Grant, purpose keys.Purpose, raw []byte) (envelope.Message, *keys.Handle, error) {
	m, err := envelope.Parse(raw)
	if err != nil {
		return m, nil, err
	}
	h, err := p.Keys.Opening(ctx, g.Keyring(), purpose, m)
	return m, h, err
}

func note(g Grant, envelope []byte, version uint32, in, out int) {
	g.NoteEnvelope(envelope)
	g.NoteVersion(version)
	g.NoteSizes(in, out)
}

func suiteOf(f datav1.Format) (envelope.Suite, error) {
	switch f {
	case datav1.Format_FORMAT_UNSPECIFIED, datav1.Format_FORMAT_STANDARD:
		return envelope.SuiteStandard, nil
	case datav1.Format_FORMAT_COMPACT:
		return envelope.SuiteCompact, nil
	}
	return 0, fault.New(fault.InvalidArgument, fmt.Sprintf("format %d is not known", f))
}
