package target

import (
	"context"

	sallyport "github.com/sallyport/sallyport/clients/go"
)

// Dial connects to the data plane as the workload, with one connection for all
// callers and without repeating what failed: a retry would hide a failure, and count
// its time as the server's.
func (e Endpoints) Dial(ctx context.Context) (*sallyport.Client, error) {
	return sallyport.Dial(ctx, e.GRPC, sallyport.Options{Credentials: e.credentials(e.Workload), Attempts: 1})
}

// DialControl connects to the control plane as the operator.
func (e Endpoints) DialControl(ctx context.Context) (*sallyport.Control, error) {
	return sallyport.DialControl(ctx, e.Control, sallyport.Options{Credentials: e.credentials(e.Operator)})
}

func (e Endpoints) credentials(p Pair) sallyport.Files {
	return sallyport.Files{Certificate: p.Cert, Key: p.Key, CA: e.CA}
}

// GRPC asks over gRPC, with the client library.
type GRPC struct {
	client  *sallyport.Client
	keyring sallyport.Keyring
}

// NewGRPC makes a client for one keyring.
func NewGRPC(ctx context.Context, e Endpoints, keyring string) (*GRPC, error) {
	client, err := e.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return &GRPC{client, client.Keyring(keyring)}, nil
}

// Close implements Client.
func (c *GRPC) Close() error { return c.client.Close() }

// Encrypt implements Client.
func (c *GRPC) Encrypt(ctx context.Context, plaintext Item) ([]byte, error) {
	sealed, err := c.keyring.Encrypt(ctx, plaintext.Data, plaintext.Context)
	return sealed.Ciphertext, err
}

// Decrypt implements Client.
func (c *GRPC) Decrypt(ctx context.Context, envelope Item) ([]byte, error) {
	opened, err := c.keyring.Decrypt(ctx, envelope.Data, envelope.Context)
	return opened.Plaintext, err
}

// EncryptBatch implements Client.
func (c *GRPC) EncryptBatch(ctx context.Context, plaintexts []Item) ([][]byte, error) {
	items := make([]sallyport.EncryptItem, len(plaintexts))
	for i, p := range plaintexts {
		items[i] = sallyport.EncryptItem{Plaintext: p.Data, Context: p.Context}
	}
	results, err := c.keyring.BatchEncrypt(ctx, items)
	if err != nil {
		return nil, err
	}
	envelopes := make([][]byte, len(results))
	for i, r := range results {
		if r.Err != nil {
			return nil, r.Err
		}
		envelopes[i] = r.Ciphertext
	}
	return envelopes, nil
}

// DecryptBatch implements Client.
func (c *GRPC) DecryptBatch(ctx context.Context, envelopes []Item) ([][]byte, error) {
	items := make([]sallyport.DecryptItem, len(envelopes))
	for i, e := range envelopes {
		items[i] = sallyport.DecryptItem{Ciphertext: e.Data, Context: e.Context}
	}
	results, err := c.keyring.BatchDecrypt(ctx, items)
	if err != nil {
		return nil, err
	}
	plaintexts := make([][]byte, len(results))
	for i, r := range results {
		if r.Err != nil {
			return nil, r.Err
		}
		plaintexts[i] = r.Plaintext
	}
	return plaintexts, nil
}
