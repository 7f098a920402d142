package delivery_test

import (
	"bytes"
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/sallyport/sallyport/crypto/delivery"
	"github.com/sallyport/sallyport/crypto/testvectors"
)

var update = flag.Bool("update", false, "write the published vectors anew")

const vectorFile = "../testvectors/delivery.json"

func resultOf(err error) testvectors.Result {
	switch {
	case err == nil:
		return testvectors.OK
	case errors.Is(err, delivery.ErrOpen):
		return testvectors.Open
	case errors.Is(err, delivery.ErrKey):
		return testvectors.BadKey
	default:
		return testvectors.Result("unexpected: " + err.Error())
	}
}

// TestPublishedDeliveries opens every vector and generates the file anew to the same
// bytes.
func TestPublishedDeliveries(t *testing.T) {
	want, err := testvectors.Encode("Sallyport sealed delivery: secrets sealed with HPKE to a recipient's key.", generate(t))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(vectorFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, err := os.ReadFile(vectorFile); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the generator writes (%v): the format changed, or run the test with -update", vectorFile, err)
	}
	vectors, err := testvectors.Deliveries()
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) { runDelivery(t, v) })
		if seen[v.Name] {
			t.Errorf("two vectors are named %q", v.Name)
		}
		seen[v.Name] = true
	}
}

func runDelivery(t *testing.T, v testvectors.Delivery) {
	kem, b := delivery.KEM(v.KEM), delivery.Binding{Lease: v.Lease, Workload: v.Workload}
	if v.PrivateKey == nil {
		_, _, err := delivery.Seal(kem, v.PublicKey, b, v.Plaintext)
		if got := resultOf(err); got != v.Result {
			t.Fatalf("Seal: %s, want %s", got, v.Result)
		}
		return
	}
	k := fixedKey(t, kem, v.PrivateKey)
	if !bytes.Equal(k.PublicKey(), v.PublicKey) || !bytes.Equal(b.Info(), v.Info) {
		t.Errorf("public key %x, info %x", k.PublicKey(), b.Info())
	}
	got, err := k.Open(b, v.Enc, v.Ciphertext)
	if result := resultOf(err); result != v.Result || !bytes.Equal(got, v.Plaintext) {
		t.Errorf("opens to %x: %s, want %s", got, result, v.Result)
	}
}

func fixedKey(t *testing.T, kem delivery.KEM, private []byte) *delivery.PrivateKey {
	t.Helper()
	suite, err := hpke.NewKEM(uint16(kem))
	if err != nil {
		t.Fatal(err)
	}
	key, err := suite.NewPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return delivery.Wrap(key)
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

var kemNames = map[delivery.KEM]string{
	delivery.DHKEMP256: "P-256", delivery.DHKEMX25519: "X25519", delivery.MLKEM768X25519: "MLKEM768-X25519",
}

// secretFields is a SecretFields message as clients get it: a user's name and password.
var secretFields = []byte("\x0a\x12\x0a\x08username\x12\x06orders\x0a\x14\x0a\x08password\x12\x08hunter22")

// generate makes the vectors. Keys and randomness come from SHA-256 of names, so that
// the file is the same whoever makes it.
func generate(t *testing.T) []testvectors.Delivery {
	var out []testvectors.Delivery
	good := make(map[delivery.KEM][]byte)
	for _, kem := range kems {
		out = append(out, generateFor(t, kem)...)
		good[kem] = out[len(out)-1].PublicKey
	}
	for _, b := range badKeys(good) {
		out = append(out, testvectors.Delivery{
			Name: fmt.Sprintf("%s: key: %s", kemNames[b.kem], b.name), KEM: uint16(b.kem), PublicKey: b.key,
			Lease: acme.Lease, Workload: acme.Workload, Result: testvectors.BadKey,
		})
	}
	return append(out, testvectors.Delivery{
		Name: "unknown mechanism", KEM: 0x0011, PublicKey: good[delivery.DHKEMP256],
		Lease: acme.Lease, Workload: acme.Workload, Result: testvectors.BadKey,
	})
}

func generateFor(t *testing.T, kem delivery.KEM) []testvectors.Delivery {
	var out []testvectors.Delivery
	private := derived("recipient "+kemNames[kem], 32)
	if kem == delivery.DHKEMX25519 { // the serialized form is clamped, RFC 9180 section 7.1.2
		private[0], private[31] = private[0]&248, private[31]&127|64
	}
	public := fixedKey(t, kem, private).PublicKey()
	sealed := func(name string, b delivery.Binding, plaintext []byte) testvectors.Delivery {
		random := derived("ephemeral "+kemNames[kem]+" "+name, 64)
		if kem != delivery.MLKEM768X25519 {
			random = random[:32]
		}
		enc, ciphertext := referenceSeal(t, kem, public, random, b.Info(), plaintext)
		return testvectors.Delivery{
			Name: kemNames[kem] + ": " + name, KEM: uint16(kem), PrivateKey: private, PublicKey: public,
			Lease: b.Lease, Workload: b.Workload, Info: b.Info(), Enc: enc, Ciphertext: ciphertext,
			Plaintext: plaintext, Result: testvectors.OK,
		}
	}
	bad := func(name string, change func(*testvectors.Delivery)) {
		v := sealed("changed", acme, secretFields)
		v.Name, v.Plaintext, v.Result = kemNames[kem]+": "+name, nil, testvectors.Open
		v.Enc, v.Ciphertext = bytes.Clone(v.Enc), bytes.Clone(v.Ciphertext)
		change(&v)
		v.Info = delivery.Binding{Lease: v.Lease, Workload: v.Workload}.Info()
		out = append(out, v)
	}
	out = append(out,
		sealed("a user and a password", acme, secretFields),
		sealed("nothing", acme, nil),
		sealed("a name that is not ASCII", delivery.Binding{Lease: acme.Lease, Workload: "spiffe://example.org/é"}, secretFields))
	bad("another lease", func(v *testvectors.Delivery) { v.Lease = v.Lease[:len(v.Lease)-1] + "e" })
	bad("another workload", func(v *testvectors.Delivery) { v.Workload += "2" })
	bad("encapsulated key altered", func(v *testvectors.Delivery) { v.Enc[len(v.Enc)-2] ^= 1 })
	bad("encapsulated key cut", func(v *testvectors.Delivery) { v.Enc = v.Enc[:len(v.Enc)-1] })
	bad("encapsulated key missing", func(v *testvectors.Delivery) { v.Enc = nil })
	bad("encapsulated key of zeros", func(v *testvectors.Delivery) { clear(v.Enc) })
	bad("ciphertext altered", func(v *testvectors.Delivery) { v.Ciphertext[0] ^= 1 })
	bad("tag altered", func(v *testvectors.Delivery) { v.Ciphertext[len(v.Ciphertext)-1] ^= 1 })
	bad("ciphertext cut", func(v *testvectors.Delivery) { v.Ciphertext = v.Ciphertext[:len(v.Ciphertext)-1] })
	bad("ciphertext missing", func(v *testvectors.Delivery) { v.Ciphertext = nil })
	return out
}
