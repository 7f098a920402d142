package envelope_test

import (
	"bytes"
	"testing"

	daead "github.com/tink-crypto/tink-go/v2/daead/subtle"
	mac "github.com/tink-crypto/tink-go/v2/mac/subtle"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/envelope"
)

// The tests of this file have a holder of the key write headers that do not
// tell the truth, with cryptography that agrees: only the comparison of header
// and key can refuse them.

func TestLyingStandardHeader(t *testing.T) {
	k := newAEADKey(t, fill(1, 32), ownScope())
	c := context(t, "owner", "alice")
	raw, _ := k.Seal(nil, []byte("x"), c, envelope.SuiteStandard)
	m, _ := envelope.Parse(raw)
	header := raw[:m.HeaderLen()-32]
	open := func(raw []byte) error {
		m, err := envelope.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		_, err = k.Open(nil, m, c)
		return err
	}
	if err := open(k.Forge(header, []byte("x"), c)); err != nil {
		t.Fatalf("the forge does not work: %v", err)
	}
	for what, at := range map[string]int{"keyring": 8, "version": 24, "lease": 28, "names": 61} {
		lie := bytes.Clone(header)
		lie[at] ^= 1
		if err := open(k.Forge(lie, []byte("x"), c)); err != envelope.ErrOpen {
			t.Errorf("header lies about %s: %v", what, err)
		}
	}
	if err := open(k.ForgeCommitment(m, []byte("x"), c)); err != envelope.ErrOpen {
		t.Errorf("wrong commitment, right tag: %v", err)
	}
}

func TestLyingCompactHeader(t *testing.T) {
	own := newAEADKey(t, fill(1, 32), ownScope())
	s := ownScope()
	s.Lease, s.Use = envelope.LeaseID{1}, "encrypt orders"
	leased := newAEADKey(t, fill(1, 32), s)
	honest := append([]byte{0xF6, 2, 0, 0, 0, 3}, fill(9, 16)...)
	otherVersion := append([]byte{0xF6, 2, 0, 0, 0, 4}, fill(9, 16)...)
	for what, tc := range map[string]struct {
		key    *envelope.AEADKey
		header []byte
		want   error
	}{
		"nothing":              {own, honest, nil},
		"version":              {own, otherVersion, envelope.ErrOpen},
		"being of the gateway": {leased, honest, envelope.ErrOpen},
	} {
		m, err := envelope.Parse(tc.key.ForgeCompact(tc.header, []byte("x"), binding.Context{}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tc.key.Open(nil, m, binding.Context{}); err != tc.want {
			t.Errorf("header lies about %s: %v, want %v", what, err, tc.want)
		}
	}
}

func TestLyingDeterministicHeader(t *testing.T) {
	siv, err := daead.NewAESSIV(fill(1, 64))
	if err != nil {
		t.Fatal(err)
	}
	k := newSIVKey(t, fill(1, 64), ownScope())
	for what, tc := range map[string]struct {
		header []byte
		want   error
	}{
		"nothing": {[]byte{0xF6, 3, 0, 0, 0, 3}, nil},
		"version": {[]byte{0xF6, 3, 0, 0, 0, 4}, envelope.ErrOpen},
		// The layout of the compact suite takes 22 bytes for the header.
		"suite": {append([]byte{0xF6, 2, 0, 0, 0, 3}, fill(9, 16)...), envelope.ErrOpen},
	} {
		ad := envelope.ForgedInput(ownScope(), envelope.SuiteDeterministic, tc.header, binding.Context{})
		sealed, err := siv.EncryptDeterministically(make([]byte, 40), ad)
		if err != nil {
			t.Fatal(err)
		}
		m, err := envelope.Parse(append(tc.header, sealed...))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Open(nil, m, binding.Context{}); err != tc.want {
			t.Errorf("header lies about %s: %v, want %v", what, err, tc.want)
		}
	}
}

func TestLyingMACHeader(t *testing.T) {
	p, err := mac.NewHMAC("SHA256", fill(1, 32), 32)
	if err != nil {
		t.Fatal(err)
	}
	k := newMACKey(t, fill(1, 32), ownScope())
	for what, tc := range map[string]struct {
		header []byte
		want   error
	}{
		"nothing": {[]byte{0xF6, 4, 0, 0, 0, 3}, nil},
		"version": {[]byte{0xF6, 4, 0, 0, 0, 4}, envelope.ErrOpen},
		"suite":   {[]byte{0xF6, 3, 0, 0, 0, 3}, envelope.ErrOpen},
	} {
		input := envelope.ForgedInput(ownScope(), envelope.SuiteMAC, tc.header, binding.Context{})
		tag, err := p.ComputeMAC(binding.AppendField(input, "message"))
		if err != nil {
			t.Fatal(err)
		}
		m, err := envelope.Parse(append(tc.header, tag...))
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Verify(m, []byte("message"), binding.Context{}); err != tc.want {
			t.Errorf("header lies about %s: %v, want %v", what, err, tc.want)
		}
	}
}

// keeper is a primitive that keeps the memory it saw or returned.
type keeper struct{ kept []byte }

func (k *keeper) EncryptDeterministically(_, _ []byte) ([]byte, error) { return make([]byte, 16), nil }

func (k *keeper) DecryptDeterministically(_, _ []byte) ([]byte, error) {
	k.kept = []byte("plaintext")
	return k.kept, nil
}

func (k *keeper) ComputeMAC(data []byte) ([]byte, error) { k.kept = data; return make([]byte, 32), nil }
func (k *keeper) VerifyMAC(_, data []byte) error         { k.kept = data; return nil }

// TestCopiesAreWiped looks at the copies of key material and plaintext that
// the package makes for a moment.
func TestCopiesAreWiped(t *testing.T) {
	if !newAEADKey(t, fill(1, 32), ownScope()).ExpanderIsClear() {
		t.Error("message keys stay in the pool")
	}
	p := &keeper{}
	check := func(what string, err error) {
		t.Helper()
		if err != nil || len(p.kept) == 0 || !bytes.Equal(p.kept, make([]byte, len(p.kept))) {
			t.Errorf("%s: %q stays in memory, %v", what, p.kept, err)
		}
	}
	d, err := envelope.NewSIVKey(p, ownScope())
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := d.Seal(nil, nil, binding.Context{})
	m, _ := envelope.Parse(raw)
	got, err := d.Open(nil, m, binding.Context{})
	check("SIV", err)
	if string(got) != "plaintext" {
		t.Errorf("SIV returned %q", got)
	}
	h, err := envelope.NewMACKey(p, ownScope())
	if err != nil {
		t.Fatal(err)
	}
	raw, err = h.Compute(nil, []byte("message"), binding.Context{})
	check("Compute", err)
	m, _ = envelope.Parse(raw)
	check("Verify", h.Verify(m, []byte("message"), binding.Context{}))
}
