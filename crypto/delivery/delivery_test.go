package delivery_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/delivery"
)

var kems = []delivery.KEM{delivery.DHKEMP256, delivery.DHKEMX25519, delivery.MLKEM768X25519}

var acme = delivery.Binding{
	Lease:    "tenants/acme/secretRoles/orders-db/leases/000102030405060708090a0b0c0d0e0f",
	Workload: "spiffe://example.org/orders",
}

func newKey(t testing.TB, kem delivery.KEM) *delivery.PrivateKey {
	t.Helper()
	k, err := delivery.GenerateKey(kem)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func seal(t testing.TB, k *delivery.PrivateKey, b delivery.Binding, plaintext []byte) (enc, ciphertext []byte) {
	t.Helper()
	enc, ciphertext, err := delivery.Seal(k.KEM(), k.PublicKey(), b, plaintext)
	if err != nil {
		t.Fatal(err)
	}
	return enc, ciphertext
}

func forEachKEM(t *testing.T, f func(t *testing.T, kem delivery.KEM)) {
	for _, kem := range kems {
		t.Run(fmt.Sprintf("%#04x", uint32(kem)), func(t *testing.T) { f(t, kem) })
	}
}

func TestTheRecipientReadsWhatWasSealed(t *testing.T) {
	forEachKEM(t, func(t *testing.T, kem delivery.KEM) {
		k := newKey(t, kem)
		for _, n := range []int{0, 1, 15, 16, 17, 4096, 1 << 20} {
			plaintext := bytes.Repeat([]byte{7}, n)
			enc, ciphertext := seal(t, k, acme, plaintext)
			if len(ciphertext) != n+16 || n > 15 && bytes.Contains(ciphertext, plaintext) {
				t.Errorf("%d bytes became %d", n, len(ciphertext))
			}
			got, err := k.Open(acme, enc, ciphertext)
			if err != nil || !bytes.Equal(got, plaintext) {
				t.Errorf("%d bytes: %v", n, err)
			}
		}
	})
}

func TestWhatIsSealedNeverRepeats(t *testing.T) {
	forEachKEM(t, func(t *testing.T, kem delivery.KEM) {
		k := newKey(t, kem)
		enc1, ct1 := seal(t, k, acme, []byte("same"))
		enc2, ct2 := seal(t, k, acme, []byte("same"))
		if bytes.Equal(enc1, enc2) || bytes.Equal(ct1, ct2) {
			t.Error("two messages are alike")
		}
	})
}

// The standard library's own HPKE reads ours and is read by ours, and the second
// implementation in reference_test.go as well: the suite and the info are as documented.
func TestOthersReadOursAndWeTheirs(t *testing.T) {
	info := binding.Encode("sallyport/secrets/seal/v1", []byte(acme.Lease), []byte(acme.Workload))
	forEachKEM(t, func(t *testing.T, kem delivery.KEM) {
		suite, err := hpke.NewKEM(uint16(kem))
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := suite.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		k, plaintext := delivery.Wrap(theirs), []byte("a password")
		enc, ciphertext := seal(t, k, acme, plaintext)
		got, err := hpke.Open(theirs, hpke.HKDFSHA256(), hpke.AES256GCM(), info, slices.Concat(enc, ciphertext))
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("they do not read ours: %v", err)
		}
		both, err := hpke.Seal(theirs.PublicKey(), hpke.HKDFSHA256(), hpke.AES256GCM(), info, plaintext)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.Open(acme, both[:len(enc)], both[len(enc):]); err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("we do not read theirs: %v", err)
		}
		random := make([]byte, 64)
		rand.Read(random)
		if kem != delivery.MLKEM768X25519 {
			random = random[:32]
		}
		enc, ciphertext = referenceSeal(t, kem, k.PublicKey(), random, info, plaintext)
		if got, err := k.Open(acme, enc, ciphertext); err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("we do not read the reference: %v", err)
		}
	})
}

func TestEveryAlteredByteIsNoticed(t *testing.T) {
	forEachKEM(t, func(t *testing.T, kem delivery.KEM) {
		k := newKey(t, kem)
		enc, ciphertext := seal(t, k, acme, []byte("a password of some length"))
		for what, part := range map[string][]byte{"encapsulated key": enc, "ciphertext": ciphertext} {
			for i := range part {
				part[i] ^= 1
				if _, err := k.Open(acme, enc, ciphertext); err != delivery.ErrOpen {
					t.Errorf("%s, byte %d: %v", what, i, err)
				}
				part[i] ^= 1
			}
		}
		for name, bad := range map[string][2][]byte{
			"nothing":            {nil, nil},
			"no encapsulated":    {nil, ciphertext},
			"no ciphertext":      {enc, nil},
			"encapsulated cut":   {enc[:len(enc)-1], ciphertext},
			"encapsulated grown": {append(slices.Clone(enc), 0), ciphertext},
			"ciphertext cut":     {enc, ciphertext[:len(ciphertext)-1]},
			"ciphertext grown":   {enc, append(slices.Clone(ciphertext), 0)},
			"of zeros":           {make([]byte, len(enc)), ciphertext},
		} {
			if got, err := k.Open(acme, bad[0], bad[1]); err != delivery.ErrOpen || got != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestEveryPartOfTheBindingCounts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// A small alphabet, so that other bindings with the same concatenation are drawn.
		text := rapid.StringOfN(rapid.SampledFrom([]rune("a\x00\x01/")), 0, 4, -1)
		a := delivery.Binding{Lease: text.Draw(rt, "lease"), Workload: text.Draw(rt, "workload")}
		b := delivery.Binding{Lease: text.Draw(rt, "other lease"), Workload: text.Draw(rt, "other workload")}
		if bytes.Equal(a.Info(), b.Info()) != (a == b) {
			rt.Fatalf("%q and %q", a, b)
		}
	})
	k := newKey(t, delivery.DHKEMX25519)
	enc, ciphertext := seal(t, k, acme, []byte("a password"))
	for name, other := range map[string]delivery.Binding{
		"another lease":    {acme.Lease[:len(acme.Lease)-1] + "e", acme.Workload},
		"another tenant":   {"tenants/evil" + acme.Lease[len("tenants/acme"):], acme.Workload},
		"another workload": {acme.Lease, acme.Workload + "2"},
		"exchanged":        {acme.Workload, acme.Lease},
		"none":             {},
	} {
		if _, err := k.Open(other, enc, ciphertext); err != delivery.ErrOpen {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnotherKeyDoesNotOpen(t *testing.T) {
	forEachKEM(t, func(t *testing.T, kem delivery.KEM) {
		enc, ciphertext := seal(t, newKey(t, kem), acme, []byte("a password"))
		for _, other := range kems {
			if _, err := newKey(t, other).Open(acme, enc, ciphertext); err != delivery.ErrOpen {
				t.Errorf("a key of %#04x: %v", uint32(other), err)
			}
		}
	})
}

// lowOrder are the points of Curve25519 under which every shared secret is zero, and
// forms of them that are not reduced (cr.yp.to/ecdh.html, "validate").
var lowOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000080",
}

type badKey struct {
	name string
	kem  delivery.KEM
	key  []byte
}

// badKeys are public keys of known mechanisms that nothing is sealed to. It takes good
// ones by mechanism.
func badKeys(good map[delivery.KEM][]byte) []badKey {
	var bad []badKey
	add := func(name string, kem delivery.KEM, key []byte) { bad = append(bad, badKey{name, kem, key}) }
	for _, kem := range kems {
		key := good[kem]
		add("empty", kem, nil)
		add("one byte short", kem, key[:len(key)-1])
		add("one byte more", kem, append(slices.Clone(key), 0))
	}
	p256, hybrid := good[delivery.DHKEMP256], good[delivery.MLKEM768X25519]
	offCurve := slices.Clone(p256)
	offCurve[64] ^= 1
	add("P-256: not on the curve", delivery.DHKEMP256, offCurve)
	add("P-256: the identity", delivery.DHKEMP256, []byte{0})
	add("P-256: the identity, padded", delivery.DHKEMP256, make([]byte, 65))
	add("P-256: zero coordinates", delivery.DHKEMP256, append([]byte{4}, make([]byte, 64)...))
	add("P-256: compressed", delivery.DHKEMP256, append([]byte{2 | p256[64]&1}, p256[1:33]...))
	add("P-256: coordinates not reduced", delivery.DHKEMP256, append([]byte{4}, bytes.Repeat([]byte{0xff}, 64)...))
	for i, point := range lowOrder {
		p, _ := hex.DecodeString(point)
		add(fmt.Sprintf("X25519: of low order, %d", i+1), delivery.DHKEMX25519, p)
		if i == 0 || i == 3 {
			add(fmt.Sprintf("hybrid: of low order, %d", i+1), delivery.MLKEM768X25519, slices.Concat(hybrid[:len(hybrid)-32], p))
		}
	}
	unreduced := slices.Clone(hybrid)
	unreduced[0], unreduced[1] = 0xff, 0xff // a coefficient of 4095, where 3328 is the most (FIPS 203, 7.2)
	add("hybrid: coefficients not reduced", delivery.MLKEM768X25519, unreduced)
	return bad
}

func TestKeysThatNothingIsSealedTo(t *testing.T) {
	good := make(map[delivery.KEM][]byte)
	for _, kem := range kems {
		good[kem] = newKey(t, kem).PublicKey()
		if err := delivery.CheckKey(kem, good[kem]); err != nil {
			t.Error(err)
		}
	}
	bad := badKeys(good)
	for _, kem := range []delivery.KEM{0, 1, 0x11, 0x21, 0x41, 0x50, 0x51, 0xffff, 1<<16 | delivery.DHKEMP256, 1 << 31} {
		bad = append(bad, badKey{"unknown mechanism", kem, good[delivery.DHKEMP256]})
		if _, err := delivery.GenerateKey(kem); !errors.Is(err, delivery.ErrKey) {
			t.Errorf("%#04x: a key is made: %v", uint32(kem), err)
		}
	}
	for _, kem := range kems {
		for of, key := range good {
			if of != kem {
				bad = append(bad, badKey{"of another mechanism", kem, key})
			}
		}
	}
	for _, b := range bad {
		enc, ciphertext, err := delivery.Seal(b.kem, b.key, acme, []byte("a password"))
		if !errors.Is(err, delivery.ErrKey) || enc != nil || ciphertext != nil {
			t.Errorf("%s (%#04x): sealed: %v", b.name, uint32(b.kem), err)
		}
		if err := delivery.CheckKey(b.kem, b.key); !errors.Is(err, delivery.ErrKey) {
			t.Errorf("%s (%#04x): found good: %v", b.name, uint32(b.kem), err)
		}
	}
}

func TestTheKeyOfACertificateCanBeTheRecipient(t *testing.T) {
	signing, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	exchange, err := signing.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	k, err := delivery.NewPrivateKey(exchange)
	if err != nil {
		t.Fatal(err)
	}
	public, err := signing.PublicKey.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	enc, ciphertext, err := delivery.Seal(delivery.DHKEMP256, public.Bytes(), acme, []byte("a password"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Open(acme, enc, ciphertext); err != nil || string(got) != "a password" {
		t.Error(err)
	}
	p384, err := ecdh.P384().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]*ecdh.PrivateKey{"nil": nil, "P-384": p384} {
		if _, err := delivery.NewPrivateKey(key); !errors.Is(err, delivery.ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAPrivateKeyPrintsNothing(t *testing.T) {
	own, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := delivery.NewPrivateKey(own)
	if err != nil {
		t.Fatal(err)
	}
	wrapped := struct{ key *delivery.PrivateKey }{k}
	asJSON, _ := json.Marshal(map[string]any{"key": k, "value": *k})
	text := string(asJSON)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		if got := fmt.Sprintf(verb, k); got != "[private key]" {
			t.Errorf("%s prints %s", verb, got)
		}
		text += fmt.Sprintf(verb+" "+verb, *k, wrapped)
	}
	for _, form := range []string{hex.EncodeToString(own.Bytes()), string(own.Bytes()), fmt.Sprint(own.Bytes())} {
		if bytes.Contains([]byte(text), []byte(form)) {
			t.Error("the private key is in its own description")
		}
	}
	k.PublicKey()[0] ^= 1
	if err := delivery.CheckKey(k.KEM(), k.PublicKey()); err != nil || !bytes.Equal(k.PublicKey(), own.PublicKey().Bytes()) {
		t.Error("the public key was changed through its copy")
	}
}

func FuzzOpen(f *testing.F) {
	own := map[delivery.KEM]*delivery.PrivateKey{}
	for _, kem := range kems {
		k := newKey(f, kem)
		own[kem] = k
		enc, ciphertext := seal(f, k, delivery.Binding{Lease: "lease"}, []byte("a password"))
		f.Add(uint32(kem), "lease", enc, ciphertext)
		f.Add(uint32(kem), "", enc, []byte{})
	}
	f.Fuzz(func(t *testing.T, kem uint32, lease string, enc, ciphertext []byte) {
		k := own[delivery.KEM(kem)]
		if k == nil {
			return
		}
		got, err := k.Open(delivery.Binding{Lease: lease}, enc, ciphertext)
		if err == nil && string(got) != "a password" || err != nil && (err != delivery.ErrOpen || got != nil) {
			t.Fatalf("opens to %d bytes, %v", len(got), err)
		}
	})
}

func FuzzPublicKey(f *testing.F) {
	for _, kem := range kems {
		f.Add(uint32(kem), newKey(f, kem).PublicKey())
	}
	for _, b := range lowOrder {
		p, _ := hex.DecodeString(b)
		f.Add(uint32(delivery.DHKEMX25519), p)
	}
	f.Fuzz(func(t *testing.T, kem uint32, key []byte) {
		checked := delivery.CheckKey(delivery.KEM(kem), key)
		enc, _, err := delivery.Seal(delivery.KEM(kem), key, acme, nil)
		if (checked == nil) != (err == nil) || err != nil && !errors.Is(err, delivery.ErrKey) {
			t.Fatalf("checked %v, sealed %v", checked, err)
		}
		if err == nil && len(enc) == 0 {
			t.Fatal("no encapsulated key")
		}
	})
}
