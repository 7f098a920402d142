package envelope_test

import (
	"bytes"
	"testing"

	daead "github.com/tink-crypto/tink-go/v2/daead/subtle"
	mac "github.com/tink-crypto/tink-go/v2/mac/subtle"
	prf "github.com/tink-crypto/tink-go/v2/prf/subtle"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/envelope"
)

// ownScope is the scope that tests begin from, of the gateway's own key.
func ownScope() envelope.Scope {
	return envelope.Scope{
		Deployment: "eu-1", Environment: "production", Tenant: "acme",
		Keyring: envelope.KeyringID{15: 7}, Version: 3,
	}
}

// otherScopes changes each element of s that selects a key.
func otherScopes(s envelope.Scope) map[string]envelope.Scope {
	change := func(f func(*envelope.Scope)) envelope.Scope {
		t := s
		f(&t)
		return t
	}
	return map[string]envelope.Scope{
		"deployment":  change(func(s *envelope.Scope) { s.Deployment = "eu-2" }),
		"environment": change(func(s *envelope.Scope) { s.Environment = "staging" }),
		"tenant":      change(func(s *envelope.Scope) { s.Tenant = "acmf" }),
		"keyring":     change(func(s *envelope.Scope) { s.Keyring[0] = 1 }),
		"version":     change(func(s *envelope.Scope) { s.Version++ }),
		// The same text, cut elsewhere.
		"boundary": change(func(s *envelope.Scope) { s.Deployment, s.Environment = "eu-1p", "roduction" }),
	}
}

func branch(t testing.TB, material []byte) envelope.PRF {
	t.Helper()
	p, err := prf.NewHKDFPRF("SHA256", material, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func newAEADKey(t testing.TB, material []byte, s envelope.Scope) *envelope.AEADKey {
	t.Helper()
	k, err := envelope.DeriveAEADKey(branch(t, material), s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newSIVKey(t testing.TB, material []byte, s envelope.Scope) *envelope.SIVKey {
	t.Helper()
	p, err := daead.NewAESSIV(material)
	if err != nil {
		t.Fatal(err)
	}
	k, err := envelope.NewSIVKey(p, s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newMACKey(t testing.TB, material []byte, s envelope.Scope) *envelope.MACKey {
	t.Helper()
	p, err := mac.NewHMAC("SHA256", material, 32)
	if err != nil {
		t.Fatal(err)
	}
	k, err := envelope.NewMACKey(p, s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// construction lets one test run over all suites. open returns the plaintext;
// for the MAC suite, which carries none, it verifies message and returns it.
type construction struct {
	suite envelope.Suite
	seal  func(plaintext []byte, c binding.Context) ([]byte, error)
	open  func(m envelope.Message, c binding.Context, message []byte) ([]byte, error)
}

// constructions returns every suite under keys made of material and s.
func constructions(t testing.TB, material byte, s envelope.Scope) []construction {
	a := newAEADKey(t, fill(material, 32), s)
	open := func(m envelope.Message, c binding.Context, _ []byte) ([]byte, error) { return a.Open(nil, m, c) }
	d := newSIVKey(t, fill(material, 64), s)
	h := newMACKey(t, fill(material, 32), s)
	return []construction{
		{envelope.SuiteStandard, func(p []byte, c binding.Context) ([]byte, error) {
			return a.Seal(nil, p, c, envelope.SuiteStandard)
		}, open},
		{envelope.SuiteCompact, func(p []byte, c binding.Context) ([]byte, error) {
			return a.Seal(nil, p, c, envelope.SuiteCompact)
		}, open},
		{
			envelope.SuiteDeterministic,
			func(p []byte, c binding.Context) ([]byte, error) { return d.Seal(nil, p, c) },
			func(m envelope.Message, c binding.Context, _ []byte) ([]byte, error) { return d.Open(nil, m, c) },
		},
		{
			envelope.SuiteMAC,
			func(p []byte, c binding.Context) ([]byte, error) { return h.Compute(nil, p, c) },
			func(m envelope.Message, c binding.Context, message []byte) ([]byte, error) {
				return message, h.Verify(m, message, c)
			},
		},
	}
}

func context(t testing.TB, pairs ...string) binding.Context {
	t.Helper()
	var list []binding.Pair
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, binding.Pair{Name: pairs[i], Value: pairs[i+1]})
	}
	c, err := binding.FromPairs(list)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
