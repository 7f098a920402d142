package envelope_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/envelope"
	"github.com/sallyport/sallyport/crypto/testvectors"
)

var update = flag.Bool("update", false, "write the published vectors anew")

const vectorDir = "../testvectors"

// resultOf names an error as the vectors do.
func resultOf(err error) testvectors.Result {
	for result, target := range map[testvectors.Result]error{
		testvectors.Open: envelope.ErrOpen, testvectors.Malformed: envelope.ErrMalformed,
		testvectors.UnknownVersion: envelope.ErrUnknownVersion, testvectors.UnknownSuite: envelope.ErrUnknownSuite,
		testvectors.UnknownFlag: envelope.ErrUnknownFlag, testvectors.Text: envelope.ErrText,
	} {
		if errors.Is(err, target) {
			return result
		}
	}
	if err == nil {
		return testvectors.OK
	}
	return testvectors.Result("unexpected: " + err.Error())
}

// TestPublishedEnvelopes opens every vector, seals the valid ones again, and
// generates the file anew to the same bytes.
func TestPublishedEnvelopes(t *testing.T) {
	checkPublished(t, "envelope.json", "Sallyport envelope, format version 1: sealed messages of every suite.", generateEnvelopes(t))
	vectors, err := testvectors.Envelopes()
	if err != nil && !*update {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) { runEnvelope(t, v) })
		if seen[v.Name] {
			t.Errorf("two vectors are named %q", v.Name)
		}
		seen[v.Name] = true
	}
}

func TestPublishedTextForms(t *testing.T) {
	checkPublished(t, "text.json", "Sallyport envelope: the text form.", generateTexts())
	vectors, err := testvectors.TextForms()
	if err != nil && !*update {
		t.Fatal(err)
	}
	for _, v := range vectors {
		raw, err := envelope.DecodeText(v.Text)
		if got := resultOf(err); got != v.Result || !bytes.Equal(raw, v.Bytes) {
			t.Errorf("%s: %s, want %s", v.Name, got, v.Result)
		}
		if err == nil && envelope.EncodeText(raw) != v.Text {
			t.Errorf("%s: encodes to %s", v.Name, envelope.EncodeText(raw))
		}
	}
}

// checkPublished compares a published file with what is generated today, or
// writes it.
func checkPublished[V any](t *testing.T, name, description string, vectors []V) {
	t.Helper()
	want, err := testvectors.Encode(description, vectors)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(vectorDir, name)
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the generator writes (%v): the format changed, or run the test with -update", name, err)
	}
}

func runEnvelope(t *testing.T, v testvectors.Envelope) {
	m, err := envelope.Parse(v.Envelope)
	if err != nil || v.Key == nil {
		if got := resultOf(err); got != v.Result {
			t.Fatalf("Parse: %s, want %s", got, v.Result)
		}
		return
	}
	k := vectorKey(t, *v.Key)
	c, err := contextOf(v.Context)
	if err != nil {
		t.Fatal(err)
	}
	got, err := k.open(m, c, v.Plaintext)
	if result := resultOf(err); result != v.Result {
		t.Fatalf("open: %s, want %s", result, v.Result)
	}
	if err != nil {
		return
	}
	if !bytes.Equal(got, v.Plaintext) || m.Suite() != envelope.Suite(v.Suite) {
		t.Errorf("opens to %x", got)
	}
	again, err := k.reseal(envelope.Suite(v.Suite), v.Plaintext, c, v.MessageID)
	if err != nil || !bytes.Equal(again, v.Envelope) {
		t.Errorf("seals to %x, %v", again, err)
	}
}

// vectorPrimitive opens and reproduces vectors of one key.
type vectorPrimitive struct {
	open   func(m envelope.Message, c binding.Context, message []byte) ([]byte, error)
	reseal func(s envelope.Suite, plaintext []byte, c binding.Context, id []byte) ([]byte, error)
}

func vectorKey(t *testing.T, key testvectors.Key) vectorPrimitive {
	t.Helper()
	s := envelope.Scope{
		Deployment: key.Scope.Deployment, Environment: key.Scope.Environment, Tenant: key.Scope.Tenant,
		Keyring: envelope.KeyringID(key.Scope.Keyring), Version: key.Scope.Version,
		Lease: envelope.LeaseID(key.Scope.Lease), Use: key.Scope.Use,
	}
	switch key.Purpose {
	case "aead":
		k := newAEADKey(t, key.Material, s)
		if !bytes.Equal(k.LeaseKey(), key.LeaseKey) {
			t.Errorf("lease key %x, want %x", k.LeaseKey(), key.LeaseKey)
		}
		return vectorPrimitive{
			func(m envelope.Message, c binding.Context, _ []byte) ([]byte, error) { return k.Open(nil, m, c) },
			func(s envelope.Suite, plaintext []byte, c binding.Context, id []byte) ([]byte, error) {
				return k.SealWithID(plaintext, c, s, id)
			},
		}
	case "deterministic":
		k := newSIVKey(t, key.Material, s)
		return vectorPrimitive{
			func(m envelope.Message, c binding.Context, _ []byte) ([]byte, error) { return k.Open(nil, m, c) },
			func(_ envelope.Suite, plaintext []byte, c binding.Context, _ []byte) ([]byte, error) {
				return k.Seal(nil, plaintext, c)
			},
		}
	case "mac":
		k := newMACKey(t, key.Material, s)
		return vectorPrimitive{
			func(m envelope.Message, c binding.Context, message []byte) ([]byte, error) {
				return message, k.Verify(m, message, c)
			},
			func(_ envelope.Suite, message []byte, c binding.Context, _ []byte) ([]byte, error) {
				return k.Compute(nil, message, c)
			},
		}
	}
	t.Fatalf("unknown purpose %q", key.Purpose)
	return vectorPrimitive{}
}

func contextOf(pairs []testvectors.Pair) (binding.Context, error) {
	var list []binding.Pair
	for _, p := range pairs {
		list = append(list, binding.Pair{Name: string(p.Name), Value: string(p.Value)})
	}
	return binding.FromPairs(list)
}
