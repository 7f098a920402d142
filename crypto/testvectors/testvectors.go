// Package testvectors publishes the test vectors of the envelope, of the encodings
// it binds and of sealed delivery, as JSON files for implementations in every
// language and as Go types. docs/formats/envelope.md and docs/formats/delivery.md
// describe what they exercise.
//
// Each vector says what must happen: "ok", or the one error that the input must
// produce. A valid envelope is also to be sealed again, with its message id, to
// identical bytes.
package testvectors

import (
	"bytes"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

//go:embed envelope.json text.json context.json delivery.json
var files embed.FS

// Hex is bytes written in lower-case hexadecimal.
type Hex []byte

// MarshalText writes the hexadecimal form.
func (h Hex) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

// UnmarshalText reads the hexadecimal form, of lower case only.
func (h *Hex) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || hex.EncodeToString(b) != string(text) {
		return errors.New("testvectors: not lower-case hexadecimal")
	}
	*h = b
	return nil
}

// Result is the required outcome of a vector.
type Result string

// The outcomes. All but OK are errors, named as the documents of the formats do.
const (
	OK             Result = "ok"
	Open           Result = "open"
	Malformed      Result = "malformed"
	UnknownVersion Result = "unknown-version"
	UnknownSuite   Result = "unknown-suite"
	UnknownFlag    Result = "unknown-flag"
	Text           Result = "text"
	TooManyPairs   Result = "too-many-pairs"
	Name           Result = "name"
	Value          Result = "value"
	NotUTF8        Result = "not-utf8"
	TooLarge       Result = "too-large"
	Duplicate      Result = "duplicate"
	NotCanonical   Result = "not-canonical"
	BadKey         Result = "key"
)

// Pair is one name and value of a context. They are hexadecimal because
// vectors of invalid contexts hold bytes that JSON cannot.
type Pair struct {
	Name  Hex `json:"name"`
	Value Hex `json:"value"`
}

// Scope is whose key a vector uses.
type Scope struct {
	Deployment  string `json:"deployment"`
	Environment string `json:"environment"`
	Tenant      string `json:"tenant"`
	Keyring     Hex    `json:"keyring"`
	Version     uint32 `json:"version"`
	Lease       Hex    `json:"lease"`
	Use         string `json:"use"`
}

// Key is the key material under which a vector is opened, and its scope.
type Key struct {
	// Purpose is "aead", "deterministic" or "mac".
	Purpose string `json:"purpose"`
	// Material is the input key of HKDF-SHA256 with empty salt (32 bytes), the
	// key of AES-SIV (64) or the key of HMAC-SHA256 (32), by purpose.
	Material Hex   `json:"material"`
	Scope    Scope `json:"scope"`
	// LeaseKey is the intermediate value of purpose "aead".
	LeaseKey Hex `json:"lease_key,omitempty"`
}

// Envelope is a vector of the binary format. Without Key, parsing alone must
// give Result.
type Envelope struct {
	Name      string `json:"name"`
	Comment   string `json:"comment,omitempty"`
	Envelope  Hex    `json:"envelope"`
	Result    Result `json:"result"`
	Suite     uint8  `json:"suite,omitempty"` // of a valid vector, to seal it again
	Key       *Key   `json:"key,omitempty"`
	Context   []Pair `json:"context,omitempty"`
	MessageID Hex    `json:"message_id,omitempty"`
	// Plaintext is the message itself for the MAC suite.
	Plaintext Hex `json:"plaintext,omitempty"`
}

// TextForm is a vector of the text form.
type TextForm struct {
	Name   string `json:"name"`
	Text   string `json:"text"`
	Bytes  Hex    `json:"bytes,omitempty"`
	Result Result `json:"result"`
}

// Context is a vector of the encryption context: made from pairs, or, without
// pairs, parsed from an encoding.
type Context struct {
	Name     string `json:"name"`
	Pairs    []Pair `json:"pairs,omitempty"`
	Encoding Hex    `json:"encoding,omitempty"`
	Names    Hex    `json:"names_block,omitempty"`
	Digest   Hex    `json:"digest,omitempty"`
	Result   Result `json:"result"`
}

// Delivery is a vector of a secret sealed to its recipient. Without PrivateKey,
// sealing to PublicKey must give Result.
type Delivery struct {
	Name string `json:"name"`
	KEM  uint16 `json:"kem"`
	// PrivateKey is in the form of SerializePrivateKey (RFC 9180 section 7.1); of the
	// hybrid it is the seed of 32 bytes.
	PrivateKey Hex    `json:"private_key,omitempty"`
	PublicKey  Hex    `json:"public_key"`
	Lease      string `json:"lease"`
	Workload   string `json:"workload"`
	// Info is the intermediate value that binds Lease and Workload.
	Info       Hex    `json:"info,omitempty"`
	Enc        Hex    `json:"enc,omitempty"`
	Ciphertext Hex    `json:"ciphertext,omitempty"`
	Plaintext  Hex    `json:"plaintext,omitempty"`
	Result     Result `json:"result"`
}

// file is the shape of every vector file.
type file[V any] struct {
	Description string `json:"description"`
	Vectors     []V    `json:"vectors"`
}

// Envelopes returns the vectors of envelope.json.
func Envelopes() ([]Envelope, error) { return load[Envelope]("envelope.json") }

// TextForms returns the vectors of text.json.
func TextForms() ([]TextForm, error) { return load[TextForm]("text.json") }

// Contexts returns the vectors of context.json.
func Contexts() ([]Context, error) { return load[Context]("context.json") }

// Deliveries returns the vectors of delivery.json.
func Deliveries() ([]Delivery, error) { return load[Delivery]("delivery.json") }

func load[V any](name string) ([]V, error) {
	raw, err := files.ReadFile(name)
	if err != nil {
		return nil, err
	}
	vectors, err := Decode[V](raw)
	if err != nil {
		return nil, fmt.Errorf("testvectors: %s: %w", name, err)
	}
	return vectors, nil
}

// Decode reads a vector file. Unknown keys are an error, because a key that a
// test does not know is a property that it does not test.
func Decode[V any](raw []byte) ([]V, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var f file[V]
	if err := dec.Decode(&f); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("data after the vectors")
	}
	if len(f.Vectors) == 0 {
		return nil, errors.New("no vectors")
	}
	return f.Vectors, nil
}

// Encode writes a vector file in the form in which it is published.
func Encode[V any](description string, vectors []V) ([]byte, error) {
	raw, err := json.MarshalIndent(file[V]{description, vectors}, "", "  ")
	return append(raw, '\n'), err
}
