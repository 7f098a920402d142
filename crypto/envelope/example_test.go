package envelope_test

import (
	"fmt"
	"log"

	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/envelope"
)

// A version of a keyring seals and opens one field of a table.
func Example() {
	// In the gateway the keyset comes unwrapped from the KMS.
	handle, err := keyset.NewHandle(prf.HKDFSHA256PRFKeyTemplate())
	if err != nil {
		log.Fatal(err)
	}
	branch, err := prf.NewPRFSet(handle)
	if err != nil {
		log.Fatal(err)
	}
	key, err := envelope.DeriveAEADKey(branch.PRFs[branch.PrimaryID], envelope.Scope{
		Deployment: "eu-1", Environment: "production", Tenant: "acme",
		Keyring: envelope.KeyringID{0x1f}, Version: 1,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer key.Wipe()

	context, err := binding.FromMap(map[string]string{"table": "users", "row": "17"})
	if err != nil {
		log.Fatal(err)
	}
	sealed, err := key.Seal(nil, []byte("alice@example.com"), context, envelope.SuiteStandard)
	if err != nil {
		log.Fatal(err)
	}

	message, err := envelope.Parse(sealed)
	if err != nil {
		log.Fatal(err)
	}
	names, _ := message.ContextNames()
	fmt.Println(message.Suite(), "version", message.Version(), "names", names)
	plaintext, err := key.Open(nil, message, context)
	fmt.Printf("%s %v\n", plaintext, err)

	_, err = key.Open(nil, message, binding.Context{})
	fmt.Println(err)
	// Output:
	// standard version 1 names [row table]
	// alice@example.com <nil>
	// envelope: message does not open with this key and context
}
