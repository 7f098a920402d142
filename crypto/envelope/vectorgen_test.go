package envelope_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/sallyport/sallyport/crypto/envelope"
	"github.com/sallyport/sallyport/crypto/testvectors"
)

// generator makes the published vectors. Keys, ids and plaintexts come from
// SHA-256 of names, so that the files are the same whoever makes them.
type generator struct {
	t       *testing.T
	vectors []testvectors.Envelope
}

func generateEnvelopes(t *testing.T) []testvectors.Envelope {
	g := &generator{t: t}
	g.valid()
	g.misused()
	g.damaged()
	g.lying()
	g.unreadable()
	return g.vectors
}

// derived returns n bytes that depend on name only.
func derived(name string, n int) []byte {
	var out []byte
	for i := 0; len(out) < n; i++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "sallyport vectors %s %d", name, i))
		out = append(out, sum[:]...)
	}
	return out[:n]
}

func vectorScope() testvectors.Scope {
	return testvectors.Scope{
		Deployment: "eu-central-1", Environment: "production", Tenant: "acme",
		Keyring: derived("keyring", 16), Version: 3, Lease: make([]byte, 12),
	}
}

func leasedScope() testvectors.Scope {
	s := vectorScope()
	s.Lease, s.Use = derived("lease", 12), "encrypt orders"
	return s
}

func pairs(texts ...string) []testvectors.Pair {
	var list []testvectors.Pair
	for i := 0; i < len(texts); i += 2 {
		list = append(list, testvectors.Pair{Name: []byte(texts[i]), Value: []byte(texts[i+1])})
	}
	return list
}

func vectorMaterial(suite envelope.Suite, s testvectors.Scope) testvectors.Key {
	key := testvectors.Key{Purpose: "aead", Material: derived("branch key", 32), Scope: s}
	switch suite {
	case envelope.SuiteDeterministic:
		key.Purpose, key.Material = "deterministic", derived("siv key", 64)
	case envelope.SuiteMAC:
		key.Purpose, key.Material = "mac", derived("mac key", 32)
	}
	return key
}

// complete fills in the lease key, an intermediate value.
func (g *generator) complete(key testvectors.Key) *testvectors.Key {
	if key.Purpose == "aead" {
		s := key.Scope
		key.LeaseKey = newAEADKey(g.t, key.Material, envelope.Scope{
			Deployment: s.Deployment, Environment: s.Environment, Tenant: s.Tenant,
			Keyring: envelope.KeyringID(s.Keyring), Version: s.Version,
			Lease: envelope.LeaseID(s.Lease), Use: s.Use,
		}).LeaseKey()
	}
	return &key
}

// sealed makes a valid vector without adding it.
func (g *generator) sealed(name string, suite envelope.Suite, s testvectors.Scope, context []testvectors.Pair, plaintext []byte) testvectors.Envelope {
	g.t.Helper()
	v := testvectors.Envelope{
		Name: name, Result: testvectors.OK, Suite: uint8(suite),
		Key: g.complete(vectorMaterial(suite, s)), Context: context, Plaintext: plaintext,
	}
	id := derived("message id of "+name, 20)
	switch suite {
	case envelope.SuiteStandard:
		v.MessageID = id
	case envelope.SuiteCompact:
		v.MessageID = id[:16]
	}
	c, err := contextOf(context)
	if err != nil {
		g.t.Fatal(err)
	}
	if v.Envelope, err = vectorKey(g.t, *v.Key).reseal(suite, plaintext, c, v.MessageID); err != nil {
		g.t.Fatal(err)
	}
	return v
}

var everySuite = []envelope.Suite{
	envelope.SuiteStandard, envelope.SuiteCompact, envelope.SuiteDeterministic, envelope.SuiteMAC,
}

func (g *generator) valid() {
	var most []testvectors.Pair
	for i := range 16 {
		most = append(most, pairs(fmt.Sprintf("name-%02d", i), fmt.Sprintf("value %d", i))...)
	}
	unicode := vectorScope()
	unicode.Tenant, unicode.Version = "Käufer & Söhne 株式会社", 0xfffffffe
	for _, suite := range everySuite {
		add := func(what string, s testvectors.Scope, context []testvectors.Pair, plaintext []byte) {
			g.vectors = append(g.vectors, g.sealed(fmt.Sprintf("%v: %s", suite, what), suite, s, context, plaintext))
		}
		for _, n := range []int{0, 1, 15, 16, 17, 32, 1000} {
			add(fmt.Sprintf("%d bytes", n), vectorScope(), nil, derived("plaintext", n))
		}
		add("context", vectorScope(), pairs("table", "users", "column", "email"), []byte("alice@example.com"))
		add("context, unsorted, unicode, empty value", vectorScope(), pairs("ü", "Ä", "z", "", "a\x00b", "line\nbreak"), []byte("x"))
		add("16 pairs", vectorScope(), most, []byte("x"))
		add("longest name", vectorScope(), pairs(string(fill('n', 64)), string(fill('v', 1024))), []byte("x"))
		add("other tenant and version", unicode, pairs("a", "1"), []byte("x"))
	}
	g.vectors = append(g.vectors, g.sealed("standard: lease", envelope.SuiteStandard, leasedScope(), pairs("a", "1"), []byte("leased")))
}

// misused opens valid messages with another key, scope or context.
func (g *generator) misused() {
	for _, suite := range everySuite {
		base := g.sealed(suite.String()+": misused", suite, vectorScope(), pairs("a", "1", "b", "2"), []byte("secret text"))
		add := func(what string, change func(key *testvectors.Key, v *testvectors.Envelope)) {
			v := base
			key := *base.Key
			v.Name, v.Result, v.Suite, v.MessageID = fmt.Sprintf("%v: another %s", suite, what), testvectors.Open, 0, nil
			change(&key, &v)
			v.Key = g.complete(key)
			if suite != envelope.SuiteMAC {
				v.Plaintext = nil
			}
			g.vectors = append(g.vectors, v)
		}
		type K = *testvectors.Key
		type V = *testvectors.Envelope
		add("key", func(k K, _ V) { k.Material = derived("another key", len(k.Material)) })
		add("deployment", func(k K, _ V) { k.Scope.Deployment = "eu-central-2" })
		add("environment", func(k K, _ V) { k.Scope.Environment = "staging" })
		add("tenant", func(k K, _ V) { k.Scope.Tenant = "acmf" })
		add("boundary of scope names", func(k K, _ V) { k.Scope.Environment, k.Scope.Tenant = "productiona", "cme" })
		add("keyring", func(k K, _ V) { k.Scope.Keyring = derived("another keyring", 16) })
		add("version", func(k K, _ V) { k.Scope.Version = 4 })
		add("value", func(_ K, v V) { v.Context = pairs("a", "1", "b", "3") })
		add("name", func(_ K, v V) { v.Context = pairs("a", "1", "c", "2") })
		add("context: a pair less", func(_ K, v V) { v.Context = pairs("a", "1") })
		add("context: a pair more", func(_ K, v V) { v.Context = pairs("a", "1", "b", "2", "c", "") })
		add("context: none", func(_ K, v V) { v.Context = nil })
		switch suite {
		case envelope.SuiteMAC:
			add("message", func(_ K, v V) { v.Plaintext = []byte("secret texT") })
		case envelope.SuiteStandard, envelope.SuiteCompact:
			add("lease", func(k K, _ V) { k.Scope = leasedScope() })
		}
	}
}

// damaged changes messages and opens them with their own key.
func (g *generator) damaged() {
	for _, suite := range everySuite {
		base := g.sealed(suite.String()+": damaged", suite, vectorScope(), pairs("a", "1"), []byte("secret text"))
		n := len(base.Envelope)
		add := func(what string, change func(raw []byte) []byte) {
			v := base
			v.Name, v.Result, v.Suite, v.MessageID = fmt.Sprintf("%v: damaged: %s", suite, what), testvectors.Open, 0, nil
			v.Envelope = change(bytes.Clone(base.Envelope))
			if suite != envelope.SuiteMAC {
				v.Plaintext = nil
			}
			g.vectors = append(g.vectors, v)
		}
		flip := func(at int) func([]byte) []byte {
			return func(raw []byte) []byte { raw[at] ^= 0x01; return raw }
		}
		add("last bit", flip(n-1))
		add("version", flip(map[bool]int{true: 27, false: 5}[suite == envelope.SuiteStandard]))
		switch suite {
		case envelope.SuiteStandard:
			add("keyring", flip(8))
			add("lease", flip(28))
			add("message id", flip(40))
			add("name", flip(61))
			add("commitment", flip(62))
			add("ciphertext", flip(94))
		case envelope.SuiteCompact:
			add("message id", flip(6))
			add("ciphertext", flip(22))
			add("first bit of the tag", flip(n-32))
		case envelope.SuiteDeterministic:
			add("synthetic IV", flip(6))
			add("ciphertext", flip(22))
		case envelope.SuiteMAC:
			add("first bit of the tag", flip(6))
		}
		if suite != envelope.SuiteMAC {
			add("cut short", func(raw []byte) []byte { return raw[:n-1] })
			add("a byte more", func(raw []byte) []byte { return append(raw, 0) })
		}
	}
}

// lying has a holder of the lease key write untrue headers and commitments.
func (g *generator) lying() {
	base := g.sealed("lying", envelope.SuiteStandard, vectorScope(), pairs("owner", "alice"), []byte("x"))
	k := newAEADKey(g.t, base.Key.Material, envelope.Scope{
		Deployment: base.Key.Scope.Deployment, Environment: base.Key.Scope.Environment, Tenant: base.Key.Scope.Tenant,
		Keyring: envelope.KeyringID(base.Key.Scope.Keyring), Version: base.Key.Scope.Version,
	})
	m, err := envelope.Parse(base.Envelope)
	if err != nil {
		g.t.Fatal(err)
	}
	c, _ := contextOf(base.Context)
	add := func(what string, raw []byte) {
		v := base
		v.Name, v.Result, v.Suite, v.MessageID, v.Plaintext = "standard: "+what, testvectors.Open, 0, nil, nil
		v.Comment = "everything else agrees: made with the lease key"
		v.Envelope = raw
		g.vectors = append(g.vectors, v)
	}
	for _, lie := range []struct {
		what string
		at   int
	}{{"keyring", 8}, {"version", 24}, {"lease", 28}, {"names", 61}} {
		header := bytes.Clone(base.Envelope[:m.HeaderLen()-32])
		header[lie.at] ^= 1
		add("header lies about "+lie.what, k.Forge(header, []byte("x"), c))
	}
	add("commitment wrong, tag right", k.ForgeCommitment(m, []byte("x"), c))
}

func (g *generator) unreadable() {
	for _, tc := range unreadable() {
		if tc.want != nil && len(tc.raw) < 4096 {
			g.vectors = append(g.vectors, testvectors.Envelope{
				Name: "unreadable: " + tc.name, Envelope: tc.raw, Result: resultOf(tc.want),
			})
		}
	}
}

func generateTexts() []testvectors.TextForm {
	var out []testvectors.TextForm
	for n := 1; n <= 4; n++ {
		raw := derived("text", n)
		out = append(out, testvectors.TextForm{
			Name: fmt.Sprintf("%d bytes", n), Text: envelope.EncodeText(raw), Bytes: raw, Result: testvectors.OK,
		})
	}
	raw := []byte{0xfb, 0xff, 0xfe}
	out = append(out, testvectors.TextForm{Name: "url alphabet", Text: "sp1:-__-", Bytes: raw, Result: testvectors.OK})
	for _, tc := range badTexts {
		out = append(out, testvectors.TextForm{Name: tc.name, Text: tc.text, Result: testvectors.Text})
	}
	return out
}
