package sallyport_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"testing"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/gateway/development"
)

// gateway is a real gateway that the examples call.
var gateway development.Endpoints

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sallyport")
	if err != nil {
		log.Fatal(err)
	}
	g, err := development.Start(context.Background(), development.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	gateway = g.Endpoints
	code := m.Run()
	if err := errors.Join(g.Stop(), os.RemoveAll(dir)); err != nil {
		log.Fatal(err)
	}
	os.Exit(code)
}

// A service encrypts a value for its database and decrypts it again.
func Example() {
	ctx := context.Background()
	client, err := sallyport.Dial(ctx, gateway.GRPC, sallyport.Options{
		Credentials: sallyport.Files{Certificate: gateway.Workload.Cert, Key: gateway.Workload.Key, CA: gateway.CA},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	keyring := client.Keyring("tenants/demo/keyrings/default")
	customer := map[string]string{"customer": "c-17"}
	sealed, err := keyring.Encrypt(ctx, []byte("attack at dawn"), customer)
	if err != nil {
		log.Fatal(err)
	}
	opened, err := keyring.Decrypt(ctx, sealed.Ciphertext, customer)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("version %d: %s\n", opened.Version, opened.Plaintext)
	fmt.Println(opened) // without the plaintext
	// Output:
	// version 1: attack at dawn
	// {14 bytes of plaintext, version 1}
}

// A reason is an error, and says what to do next.
func ExampleReason() {
	ctx := context.Background()
	client, err := sallyport.Dial(ctx, gateway.GRPC, sallyport.Options{
		// A person's certificate.
		Credentials: sallyport.Files{Certificate: gateway.Operator.Cert, Key: gateway.Operator.Key, CA: gateway.CA},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	_, err = client.Keyring("tenants/demo/keyrings/default").Encrypt(ctx, []byte("attack at dawn"), nil)
	var e *sallyport.Error
	switch {
	case errors.Is(err, sallyport.HumanOnDataPlane):
		fmt.Println("people do not reach plaintext")
	case errors.As(err, &e) && e.Reason.Temporary():
		fmt.Println("later, perhaps")
	}
	// Output: people do not reach plaintext
}

// Many small values go in few requests. An item that fails fails alone.
func ExampleKeyring_BatchDecrypt() {
	ctx := context.Background()
	client, err := sallyport.Dial(ctx, gateway.GRPC, sallyport.Options{
		Credentials: sallyport.Files{Certificate: gateway.Workload.Cert, Key: gateway.Workload.Key, CA: gateway.CA},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	fields := client.Keyring("tenants/demo/keyrings/default").Compact()
	sealed, err := fields.BatchEncrypt(ctx, []sallyport.EncryptItem{
		{Plaintext: []byte("ada"), Context: map[string]string{"row": "1"}},
		{Plaintext: []byte("grace"), Context: map[string]string{"row": "2"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	opened, err := fields.BatchDecrypt(ctx, []sallyport.DecryptItem{
		{Ciphertext: sealed[0].Ciphertext, Context: map[string]string{"row": "1"}},
		{Ciphertext: sealed[1].Ciphertext, Context: map[string]string{"row": "1"}}, // another row's
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range opened {
		fmt.Println(string(r.Plaintext), errors.Is(r.Err, sallyport.DecryptionFailed))
	}
	// Output:
	// ada false
	//  true
}
