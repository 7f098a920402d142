package envelope_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/envelope"
	"github.com/sallyport/sallyport/crypto/secret"
)

func TestRoundTrip(t *testing.T) {
	scope := ownScope()
	all := constructions(t, 1, scope)
	rapid.Check(t, func(t *rapid.T) {
		plaintext := rapid.SliceOf(rapid.Byte()).Draw(t, "plaintext")
		c, err := binding.FromMap(rapid.MapOfN(rapid.StringN(1, 8, 32), rapid.StringN(0, 8, 32), 0, 4).Draw(t, "context"))
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range all {
			raw, err := k.seal(plaintext, c)
			if err != nil {
				t.Fatal(err)
			}
			m, err := envelope.Parse(raw)
			if err != nil {
				t.Fatal(k.suite, err)
			}
			got, err := k.open(m, c, plaintext)
			if err != nil || !bytes.Equal(got, plaintext) {
				t.Fatal(k.suite, "does not open:", err)
			}
			if len(raw) != envelope.SealedSize(k.suite, c, len(plaintext)) {
				t.Fatalf("%v: %d bytes, SealedSize says otherwise", k.suite, len(raw))
			}
			text := envelope.EncodeText(raw)
			if back, err := envelope.DecodeText(text); err != nil || !bytes.Equal(back, raw) {
				t.Fatal("text form:", err)
			}
		}
	})
}

func TestHeaderTellsWhatWasSealed(t *testing.T) {
	s := ownScope()
	c := context(t, "table", "users", "row", "17")
	for _, k := range constructions(t, 1, s) {
		raw, _ := k.seal(make([]byte, 100), c)
		m, err := envelope.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		keyring, hasKeyring := m.Keyring()
		names, hasNames := m.ContextNames()
		standard := k.suite == envelope.SuiteStandard
		if m.Suite() != k.suite || m.Version() != 3 || m.Lease() != (envelope.LeaseID{}) ||
			hasKeyring != standard || hasNames != standard ||
			standard && (keyring != s.Keyring || fmt.Sprint(names) != "[row table]") {
			t.Errorf("%v: header reads wrong", k.suite)
		}
		size := 100
		if k.suite == envelope.SuiteMAC {
			size = 0
		}
		if m.PlaintextSize() != size || m.Overhead() != len(raw)-size || !bytes.Equal(m.Bytes(), raw) {
			t.Errorf("%v: sizes read wrong", k.suite)
		}
	}
}

// TestOverhead holds the promises of the design: 110 and 56 bytes.
func TestOverhead(t *testing.T) {
	for suite, want := range map[envelope.Suite]int{
		envelope.SuiteStandard: 108, envelope.SuiteCompact: 54,
		envelope.SuiteDeterministic: 22, envelope.SuiteMAC: 38, 0: 0, 0x05: 0,
	} {
		if got := envelope.SealedSize(suite, binding.Context{}, 0); got != want {
			t.Errorf("%v: %d bytes of overhead, want %d", suite, got, want)
		}
	}
}

// TestBindingEverywhere changes one element of the scope, the key or the
// context at a time.
func TestBindingEverywhere(t *testing.T) {
	plaintext := []byte("attack at dawn")
	c := context(t, "a", "1", "b", "2")
	own := constructions(t, 1, ownScope())
	sealed := make([]envelope.Message, len(own))
	for i, k := range own {
		raw, _ := k.seal(plaintext, c)
		sealed[i], _ = envelope.Parse(raw)
	}
	refuse := func(what string, k construction, m envelope.Message, c binding.Context) {
		t.Helper()
		if _, err := k.open(m, c, plaintext); err != envelope.ErrOpen {
			t.Errorf("%v under another %s: %v", k.suite, what, err)
		}
	}
	for what, s := range otherScopes(ownScope()) {
		for i, k := range constructions(t, 1, s) {
			refuse(what, k, sealed[i], c)
		}
	}
	for i, k := range constructions(t, 2, ownScope()) {
		refuse("branch key", k, sealed[i], c)
	}
	for what, other := range map[string]binding.Context{
		"value": context(t, "a", "1", "b", "3"), "fewer": context(t, "a", "1"),
		"name": context(t, "a", "1", "c", "2"), "more": context(t, "a", "1", "b", "2", "c", ""),
		"swap": context(t, "a", "2", "b", "1"), "boundary": context(t, "a", "1b", "b", "2"), "none": {},
	} {
		for i, k := range own {
			refuse("context: "+what, k, sealed[i], other)
		}
	}
	for i := range own {
		for j, k := range own {
			if i != j && (i > 1 || j > 1) { // the first two share a key
				refuse("suite", k, sealed[i], c)
			}
		}
		refuse("message", own[i], envelope.Message{}, c)
	}
	if _, err := own[3].open(sealed[3], c, []byte("attack at dusk")); err != envelope.ErrOpen {
		t.Errorf("MAC of another message: %v", err)
	}
}

func TestLeases(t *testing.T) {
	s := ownScope()
	s.Lease, s.Use = envelope.LeaseID{1}, "encrypt orders"
	leased := newAEADKey(t, fill(1, 32), s)
	own := newAEADKey(t, fill(1, 32), ownScope())
	raw, err := leased.Seal(nil, []byte("x"), binding.Context{}, envelope.SuiteStandard)
	if err != nil {
		t.Fatal(err)
	}
	m, _ := envelope.Parse(raw)
	if m.Lease() != s.Lease {
		t.Error("the lease is not in the header")
	}
	if got, err := leased.Open(nil, m, binding.Context{}); err != nil || string(got) != "x" {
		t.Errorf("open: %v", err)
	}
	otherUse, otherLease := s, s
	otherUse.Use = "decrypt orders"
	otherLease.Lease[11] = 1
	for what, k := range map[string]*envelope.AEADKey{
		"no lease": own, "use": newAEADKey(t, fill(1, 32), otherUse), "lease": newAEADKey(t, fill(1, 32), otherLease),
	} {
		if _, err := k.Open(nil, m, binding.Context{}); err != envelope.ErrOpen {
			t.Errorf("another %s: %v", what, err)
		}
	}
	if _, err := leased.Seal(nil, nil, binding.Context{}, envelope.SuiteCompact); !errors.Is(err, envelope.ErrSuite) {
		t.Errorf("compact under a lease: %v", err)
	}
	raw, _ = own.Seal(nil, nil, binding.Context{}, envelope.SuiteCompact)
	m, _ = envelope.Parse(raw)
	if _, err := leased.Open(nil, m, binding.Context{}); err != envelope.ErrOpen {
		t.Errorf("compact opened under a lease: %v", err)
	}
}

func TestScopeIsChecked(t *testing.T) {
	long := strings.Repeat("x", envelope.MaxScopeNameLen+1)
	for name, change := range map[string]func(*envelope.Scope){
		"no deployment":      func(s *envelope.Scope) { s.Deployment = "" },
		"no environment":     func(s *envelope.Scope) { s.Environment = "" },
		"no tenant":          func(s *envelope.Scope) { s.Tenant = "" },
		"long tenant":        func(s *envelope.Scope) { s.Tenant = long },
		"tenant not UTF-8":   func(s *envelope.Scope) { s.Tenant = "\xff" },
		"no keyring":         func(s *envelope.Scope) { s.Keyring = envelope.KeyringID{} },
		"no version":         func(s *envelope.Scope) { s.Version = 0 },
		"use without lease":  func(s *envelope.Scope) { s.Use = "x" },
		"lease without use":  func(s *envelope.Scope) { s.Lease[0] = 1 },
		"long use":           func(s *envelope.Scope) { s.Lease[0], s.Use = 1, strings.Repeat(long, 5) },
		"lease for siv, mac": func(s *envelope.Scope) { s.Lease[0], s.Use = 1, "x" },
	} {
		s := ownScope()
		change(&s)
		if _, err := envelope.DeriveAEADKey(branch(t, fill(1, 32)), s); !errors.Is(err, envelope.ErrScope) && !strings.Contains(name, "for siv") {
			t.Errorf("%s: AEAD key: %v", name, err)
		}
		if _, err := envelope.NewSIVKey(nil, s); !errors.Is(err, envelope.ErrScope) {
			t.Errorf("%s: SIV key: %v", name, err)
		}
		if _, err := envelope.NewMACKey(nil, s); !errors.Is(err, envelope.ErrScope) {
			t.Errorf("%s: MAC key: %v", name, err)
		}
	}
}

// misfit is every primitive, with outputs that are a byte too long, as with a
// keyset of an output prefix, or with failures.
type misfit struct{ err error }

func (p misfit) ComputePRF(_ []byte, n uint32) ([]byte, error) { return make([]byte, n+1), p.err }
func (p misfit) ComputeMAC([]byte) ([]byte, error)             { return make([]byte, 33), p.err }
func (p misfit) VerifyMAC([]byte, []byte) error                { return p.err }
func (p misfit) EncryptDeterministically([]byte, []byte) ([]byte, error) {
	return make([]byte, 17), p.err
}
func (p misfit) DecryptDeterministically([]byte, []byte) ([]byte, error) { return nil, p.err }

func TestPrimitiveIsChecked(t *testing.T) {
	broken := errors.New("broken")
	for _, p := range []misfit{{}, {broken}} {
		_, errAEAD := envelope.DeriveAEADKey(p, ownScope())
		_, errSIV := envelope.NewSIVKey(p, ownScope())
		_, errMAC := envelope.NewMACKey(p, ownScope())
		for what, err := range map[string]error{"AEAD": errAEAD, "SIV": errSIV, "MAC": errMAC} {
			want := envelope.ErrPrimitive
			if p.err != nil {
				want = p.err
			}
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
		}
	}
}

func TestSealRefuses(t *testing.T) {
	k := newAEADKey(t, fill(1, 32), ownScope())
	for _, suite := range []envelope.Suite{0, envelope.SuiteDeterministic, envelope.SuiteMAC, 9} {
		if _, err := k.Seal(nil, nil, binding.Context{}, suite); !errors.Is(err, envelope.ErrSuite) {
			t.Errorf("%v: %v", suite, err)
		}
	}
	big := make([]byte, envelope.MaxPlaintext+1)
	for _, c := range constructions(t, 1, ownScope()) {
		if _, err := c.seal(big, binding.Context{}); !errors.Is(err, envelope.ErrTooLarge) {
			t.Errorf("%v: %v", c.suite, err)
		}
	}
}

func TestWipedKey(t *testing.T) {
	k := newAEADKey(t, fill(1, 32), ownScope())
	raw, _ := k.Seal(nil, []byte("x"), binding.Context{}, envelope.SuiteStandard)
	m, _ := envelope.Parse(raw)
	k.Wipe()
	if _, err := k.Seal(nil, nil, binding.Context{}, envelope.SuiteStandard); !errors.Is(err, secret.ErrWiped) {
		t.Errorf("Seal: %v", err)
	}
	if _, err := k.Open(nil, m, binding.Context{}); !errors.Is(err, secret.ErrWiped) {
		t.Errorf("Open: %v", err)
	}
}

// TestAppends shows that both directions append, and that a failure leaves
// nothing in the spare capacity.
func TestAppends(t *testing.T) {
	k := newAEADKey(t, fill(1, 32), ownScope())
	plaintext := fill('p', 100)
	for _, suite := range []envelope.Suite{envelope.SuiteStandard, envelope.SuiteCompact} {
		out, err := k.Seal([]byte("before"), plaintext, binding.Context{}, suite)
		if err != nil || !bytes.HasPrefix(out, []byte("before")) {
			t.Fatal(err)
		}
		raw := out[len("before"):]
		m, _ := envelope.Parse(raw)
		got, err := k.Open([]byte("before"), m, binding.Context{})
		if err != nil || string(got) != "before"+string(plaintext) {
			t.Fatalf("%v: Open: %q, %v", suite, got, err)
		}
		raw[len(raw)-1] ^= 1
		dst := make([]byte, 6, 400)
		if _, err := k.Open(dst, m, binding.Context{}); err != envelope.ErrOpen {
			t.Fatal(err)
		}
		if spare := dst[:cap(dst)]; !bytes.Equal(spare, make([]byte, len(spare))) {
			t.Errorf("%v: a failed Open left %x", suite, spare)
		}
	}
}

func TestMessagesDiffer(t *testing.T) {
	all := constructions(t, 1, ownScope())
	for _, k := range all {
		a, _ := k.seal([]byte("same"), binding.Context{})
		b, _ := k.seal([]byte("same"), binding.Context{})
		random := k.suite == envelope.SuiteStandard || k.suite == envelope.SuiteCompact
		if bytes.Equal(a, b) == random {
			t.Errorf("%v: two envelopes of one plaintext equal: %t", k.suite, !random)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	k := newAEADKey(t, fill(1, 32), ownScope())
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			plaintext, suite := fill(byte(i), 64), envelope.Suite(1+i%2)
			for range 200 {
				raw, err := k.Seal(nil, plaintext, binding.Context{}, suite)
				if err != nil {
					t.Error(err)
					return
				}
				m, _ := envelope.Parse(raw)
				if got, err := k.Open(nil, m, binding.Context{}); err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("%v: %v", suite, err)
				}
			}
		})
	}
	group.Wait()
}

// TestKeysDoNotPrint formats keys, also as unexported fields, with every verb
// and searches for the lease key and the material.
func TestKeysDoNotPrint(t *testing.T) {
	a := newAEADKey(t, fill('M', 32), ownScope())
	_, _ = a.Seal(nil, nil, binding.Context{}, envelope.SuiteStandard)
	holder := struct {
		a *envelope.AEADKey
		d *envelope.SIVKey
		h *envelope.MACKey
	}{a, newSIVKey(t, fill('M', 64), ownScope()), newMACKey(t, fill('M', 32), ownScope())}
	leaseKey := string(a.LeaseKey()[:4])
	for _, v := range []any{holder, &holder, holder.a, holder.d, holder.h} {
		for verb := 'A'; verb <= 'z'; verb++ {
			for _, flag := range []string{"", "+", "#"} {
				out := fmt.Sprintf("%"+flag+string(verb), v)
				for _, needle := range []string{
					"MMMM", "77 77 77 77", "4d4d4d4d", "4D4D4D4D", leaseKey,
					strings.Trim(fmt.Sprint([]byte(leaseKey)), "[]"), fmt.Sprintf("%x", leaseKey),
				} {
					if strings.Contains(out, needle) {
						t.Fatalf("%T leaks through %%%s%c: %s", v, flag, verb, out)
					}
				}
			}
		}
	}
}
