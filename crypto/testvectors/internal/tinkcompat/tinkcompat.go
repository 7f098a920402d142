// Package tinkcompat exchanges keysets and envelopes between the archived
// github.com/google/tink/go and the maintained
// github.com/tink-crypto/tink-go/v2.
//
// The two modules register the same protobuf names, so that a program with
// both in it panics at start. Hence two test packages, one for each module,
// which write what the other one reads into testdata. The keysets there are in
// clear and protect nothing.
package tinkcompat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/envelope"
)

// Purpose selects a key type of Tink, always with output prefix RAW.
type Purpose string

// The purposes of keyrings.
const (
	AEAD          Purpose = "aead"          // HKDF-SHA256 PRF
	Deterministic Purpose = "deterministic" // AES-SIV
	MAC           Purpose = "mac"           // HMAC-SHA256 with 32-byte tags
)

// Keyset is one keyset in the two ways in which Tink writes it.
type Keyset struct {
	Cleartext json.RawMessage `json:"cleartext"` // Tink's JSON
	Encrypted []byte          `json:"encrypted"` // Tink's binary, under the wrapping key of the file
}

// Module is one of the two modules of Tink.
type Module interface {
	// Wrapping makes a new AEAD keyset that encrypts others, in JSON.
	Wrapping() (json.RawMessage, error)
	// Generate makes a new keyset, and encrypts it bound to its purpose.
	Generate(p Purpose, wrapping json.RawMessage) (Keyset, error)
	// Read reads both forms of a keyset: into a primitive each, of the types
	// that package envelope takes.
	Read(p Purpose, k Keyset, wrapping json.RawMessage) (cleartext, encrypted any, err error)
}

// Exchange is what one module writes for the other.
type Exchange struct {
	Module   string             `json:"module"`
	Wrapping json.RawMessage    `json:"wrapping"`
	Keysets  map[Purpose]Keyset `json:"keysets"`
	// PRF is an output of the keyset of purpose aead.
	PRF []byte `json:"prf"`
	// Envelopes are sealed under keys made from the keysets.
	Envelopes map[string][]byte `json:"envelopes"`
}

var plaintext = []byte("the same under both modules")

func scope() envelope.Scope {
	return envelope.Scope{
		Deployment: "compat", Environment: "test", Tenant: "acme",
		Keyring: envelope.KeyringID{1}, Version: 1,
	}
}

// Make writes an exchange with module m.
func Make(m Module, name string) (Exchange, error) {
	x := Exchange{Module: name, Keysets: make(map[Purpose]Keyset), Envelopes: make(map[string][]byte)}
	var err error
	if x.Wrapping, err = m.Wrapping(); err != nil {
		return x, err
	}
	for _, p := range []Purpose{AEAD, Deterministic, MAC} {
		if x.Keysets[p], err = m.Generate(p, x.Wrapping); err != nil {
			return x, fmt.Errorf("generating %s: %w", p, err)
		}
		primitive, _, err := m.Read(p, x.Keysets[p], x.Wrapping)
		if err != nil {
			return x, fmt.Errorf("reading %s: %w", p, err)
		}
		if err := x.seal(p, primitive); err != nil {
			return x, fmt.Errorf("sealing %s: %w", p, err)
		}
	}
	return x, nil
}

func (x *Exchange) seal(p Purpose, primitive any) error {
	c, err := binding.FromMap(map[string]string{"a": "1"})
	if err != nil {
		return err
	}
	switch p {
	case AEAD:
		prf := primitive.(envelope.PRF)
		if x.PRF, err = prf.ComputePRF([]byte("input"), 64); err != nil {
			return err
		}
		k, err := envelope.DeriveAEADKey(prf, scope())
		if err != nil {
			return err
		}
		for _, suite := range []envelope.Suite{envelope.SuiteStandard, envelope.SuiteCompact} {
			if x.Envelopes[suite.String()], err = k.Seal(nil, plaintext, c, suite); err != nil {
				return err
			}
		}
	case Deterministic:
		k, err := envelope.NewSIVKey(primitive.(envelope.DeterministicAEAD), scope())
		if err != nil {
			return err
		}
		x.Envelopes[envelope.SuiteDeterministic.String()], err = k.Seal(nil, plaintext, c)
		return err
	case MAC:
		k, err := envelope.NewMACKey(primitive.(envelope.MAC), scope())
		if err != nil {
			return err
		}
		x.Envelopes[envelope.SuiteMAC.String()], err = k.Compute(nil, plaintext, c)
		return err
	}
	return nil
}

// Check reads an exchange with module m: both forms of every keyset must give
// the outputs that the writer had, and open its envelopes.
func Check(m Module, x Exchange) error {
	var errs []error
	for _, p := range []Purpose{AEAD, Deterministic, MAC} {
		cleartext, encrypted, err := m.Read(p, x.Keysets[p], x.Wrapping)
		if err != nil {
			return fmt.Errorf("reading %s: %w", p, err)
		}
		for form, primitive := range map[string]any{"cleartext": cleartext, "encrypted": encrypted} {
			if err := x.check(p, primitive); err != nil {
				errs = append(errs, fmt.Errorf("%s keyset, %s: %w", form, p, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (x *Exchange) check(p Purpose, primitive any) error {
	again := Exchange{Envelopes: make(map[string][]byte)}
	if err := again.seal(p, primitive); err != nil {
		return err
	}
	if p != AEAD {
		name := string(p)
		if !bytes.Equal(again.Envelopes[name], x.Envelopes[name]) {
			return errors.New("the envelopes differ")
		}
		return nil
	}
	if !bytes.Equal(again.PRF, x.PRF) {
		return errors.New("the outputs of the PRF differ")
	}
	k, err := envelope.DeriveAEADKey(primitive.(envelope.PRF), scope())
	if err != nil {
		return err
	}
	c, err := binding.FromMap(map[string]string{"a": "1"})
	if err != nil {
		return err
	}
	for _, suite := range []envelope.Suite{envelope.SuiteStandard, envelope.SuiteCompact} {
		msg, err := envelope.Parse(x.Envelopes[suite.String()])
		if err != nil {
			return err
		}
		if got, err := k.Open(nil, msg, c); err != nil || !bytes.Equal(got, plaintext) {
			return fmt.Errorf("%v does not open: %w", suite, err)
		}
	}
	return nil
}
