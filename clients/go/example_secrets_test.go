package sallyport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"sync/atomic"
	"time"

	sallyport "github.com/sallyport/sallyport/clients/go"
)

// A client certificate of its own for a quarter of an hour.
func ExampleSecretRole_Lease() {
	ctx := context.Background()
	client, err := sallyport.Dial(ctx, gateway.GRPC, sallyport.Options{
		Credentials: sallyport.Files{Certificate: gateway.Workload.Cert, Key: gateway.Workload.Key, CA: gateway.CA},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	role := client.SecretRole("tenants/demo/secretRoles/certificate")
	secret, err := role.Lease(ctx, sallyport.Lifetime(15*time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	defer secret.Wipe()
	lease := secret.Lease()
	fmt.Println(secret.Names(), time.Until(lease.Expires) <= 15*time.Minute)
	if _, err := role.Revoke(ctx, lease.Name); err != nil {
		log.Fatal(err)
	}
	_, err = role.Renew(ctx, lease.Name, 0)
	fmt.Println(errors.Is(err, sallyport.LeaseGone))
	// Output:
	// [certificate issuing_ca private_key serial_number] true
	// true
}

// A server whose certificate changes before it ends, with connections unharmed.
func ExampleClient_Keep() {
	ctx := context.Background()
	client, err := sallyport.Dial(ctx, gateway.GRPC, sallyport.Options{
		Credentials: sallyport.Files{Certificate: gateway.Workload.Cert, Key: gateway.Workload.Key, CA: gateway.CA},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	var certificate atomic.Pointer[tls.Certificate]
	use := func(_ context.Context, s *sallyport.Secret) error {
		return s.Use("certificate", func(text []byte) error {
			return s.Use("private_key", func(key []byte) error {
				pair, err := tls.X509KeyPair(text, key)
				if err == nil {
					certificate.Store(&pair)
				}
				return err // with an error the one before stays current
			})
		})
	}
	kept, err := client.Keep(ctx, "tenants/demo/secretRoles/certificate", sallyport.KeepOptions{
		OnChange: use,
		OnError:  func(err error) { log.Print(err) },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer kept.Close(ctx)

	first, err := kept.Current()
	if err != nil {
		log.Fatal(err)
	}
	if err := use(ctx, first); err != nil {
		log.Fatal(err)
	}
	fmt.Println(certificate.Load().Leaf.NotAfter.After(time.Now()))
	// Output: true
}
