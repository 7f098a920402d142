// Package sallyport is the Go client of a Sallyport gateway: it encrypts, decrypts
// and authenticates data under keyrings that never leave the gateway, and leases
// secrets that live shortly.
//
// [Dial] gives a [Client], [Client.Keyring] a handle for one keyring, and the
// handle's methods are the data plane:
//
//	client, err := sallyport.Dial(ctx, "gateway.internal:8443", sallyport.Options{
//		Credentials: sallyport.Files{Certificate: "svid.pem", Key: "svid-key.pem", CA: "ca.pem"},
//	})
//	…
//	cards := client.Keyring("tenants/acme/keyrings/cards")
//	sealed, err := cards.Encrypt(ctx, pan, map[string]string{"customer": "c-17"})
//
// [Client.SecretRole] is the handle for what may be leased, and [Client.Keep] keeps a
// leased secret fresh:
//
//	kept, err := client.Keep(ctx, "tenants/acme/secretRoles/orders-db", sallyport.KeepOptions{})
//	…
//	defer kept.Close(ctx)
//	secret, err := kept.Current()
//	…
//	err = secret.Use("password", func(password []byte) error { … })
//
// Package rotating makes connections to databases from that.
//
// Every error that a call returns is an [*Error]. Its [Reason] says why, and is an
// error itself:
//
//	if errors.Is(err, sallyport.DecryptionFailed) { … }
//
// Calls that the gateway could not answer are tried again, with full jitter and
// within the deadline; refusals never are. Every method of a [Keyring] may be repeated
// safely, because none has an effect but its reply and its audit record. To lease a
// secret has one: if the answer to that was lost, the caller decides.
//
// Slices that are passed in are read during the call and not kept; slices that are
// returned belong to the caller. The package logs nothing. gRPC and TLS keep
// copies of what they carried in buffers of their own until these are reused.
package sallyport
