package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	random "math/rand/v2"
	"strconv"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// worker has what the exchanges need: a client for each way in, and keyrings of
// every purpose.
type worker struct {
	client  *sallyport.Client
	rest    *target.REST
	aead    sallyport.Keyring
	mac     sallyport.Keyring
	siv     sallyport.Keyring
	size    int
	weights int
}

// purposes are the keyrings of a run, by the last segment of their names.
var purposes = map[string]controlv1.Purpose{
	"hammer-aead":          controlv1.Purpose_PURPOSE_AEAD,
	"hammer-mac":           controlv1.Purpose_PURPOSE_MAC,
	"hammer-deterministic": controlv1.Purpose_PURPOSE_DETERMINISTIC,
}

func newWorker(ctx context.Context, e target.Endpoints, tenant string, callers, size int) (*worker, error) {
	if e.Control != "" && e.Operator.Cert != "" {
		if err := makeKeyrings(ctx, e, tenant); err != nil {
			return nil, err
		}
	}
	client, err := e.Dial(ctx)
	if err != nil {
		return nil, err
	}
	rest, err := target.NewREST(e, tenant+"/keyrings/hammer-aead", callers, false)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	w := &worker{
		client: client, rest: rest, size: size,
		aead: client.Keyring(tenant + "/keyrings/hammer-aead"),
		mac:  client.Keyring(tenant + "/keyrings/hammer-mac"),
		siv:  client.Keyring(tenant + "/keyrings/hammer-deterministic"),
	}
	for _, d := range exchanges {
		w.weights += d.weight
	}
	return w, nil
}

func makeKeyrings(ctx context.Context, e target.Endpoints, tenant string) error {
	control, err := e.DialControl(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = control.Close() }()
	for id, purpose := range purposes {
		_, err := control.Keyrings.CreateKeyring(ctx, &controlv1.CreateKeyringRequest{
			Parent: tenant, KeyringId: id, Purpose: purpose,
		})
		if err != nil && !errors.Is(err, sallyport.AlreadyExists) {
			return fmt.Errorf("making the keyring %s: %w", id, err)
		}
	}
	return nil
}

func (w *worker) close() { _ = errors.Join(w.client.Close(), w.rest.Close()) }

// exchange is something a service does with the gateway, its answers checked.
type exchange struct {
	name   string
	weight int
	do     func(*worker, context.Context) error
}

var exchanges = []exchange{
	{"encrypt, decrypt", 30, (*worker).roundTrip},
	{"encrypt, decrypt (compact)", 10, (*worker).compact},
	{"encrypt, decrypt (REST)", 20, (*worker).overREST},
	{"encrypt, rewrap, decrypt", 10, (*worker).rewrap},
	{"batch of 50", 5, (*worker).batch},
	{"compute, verify MAC", 10, (*worker).macs},
	{"deterministic", 10, (*worker).deterministic},
	{"altered, refused", 5, (*worker).altered},
}

// pick chooses an exchange by its weight.
func (w *worker) pick() exchange {
	n := random.IntN(w.weights)
	for _, d := range exchanges {
		if n -= d.weight; n < 0 {
			return d
		}
	}
	return exchanges[0]
}

// message makes a plaintext of any length up to the largest, and a context.
func (w *worker) message() ([]byte, map[string]string) {
	plaintext := make([]byte, random.IntN(w.size+1))
	_, _ = rand.Read(plaintext) // never fails
	return plaintext, map[string]string{"purpose": "soak", "row": strconv.FormatUint(random.Uint64(), 16)}
}

// same is a wrong answer unless what came back is what was sent.
func same(got, want []byte) error {
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w: %d bytes went in, other %d came back", errWrong, len(want), len(got))
	}
	return nil
}

func (w *worker) roundTrip(ctx context.Context) error { return w.through(ctx, w.aead) }

func (w *worker) compact(ctx context.Context) error { return w.through(ctx, w.aead.Compact()) }

func (w *worker) through(ctx context.Context, k sallyport.Keyring) error {
	plaintext, bound := w.message()
	sealed, err := k.Encrypt(ctx, plaintext, bound)
	if err != nil {
		return err
	}
	opened, err := k.Decrypt(ctx, sealed.Ciphertext, bound)
	if err != nil {
		return err
	}
	if sealed.Receipt == "" || opened.Receipt == "" {
		return fmt.Errorf("%w: a reply without a receipt", errWrong)
	}
	return same(opened.Plaintext, plaintext)
}

func (w *worker) overREST(ctx context.Context) error {
	plaintext, bound := w.message()
	envelope, err := w.rest.Encrypt(ctx, target.Item{Data: plaintext, Context: bound})
	if err != nil {
		return err
	}
	opened, err := w.rest.Decrypt(ctx, target.Item{Data: envelope, Context: bound})
	if err != nil {
		return err
	}
	return same(opened, plaintext)
}

func (w *worker) rewrap(ctx context.Context) error {
	plaintext, bound := w.message()
	sealed, err := w.aead.Encrypt(ctx, plaintext, bound)
	if err != nil {
		return err
	}
	again, err := w.aead.Rewrap(ctx, sealed.Ciphertext, bound)
	if err != nil {
		return err
	}
	opened, err := w.aead.Decrypt(ctx, again.Ciphertext, bound)
	if err != nil {
		return err
	}
	return same(opened.Plaintext, plaintext)
}

func (w *worker) batch(ctx context.Context) error {
	items := make([]sallyport.EncryptItem, 50)
	for i := range items {
		items[i].Plaintext, items[i].Context = w.message()
	}
	sealed, err := w.aead.BatchEncrypt(ctx, items)
	if err != nil {
		return err
	}
	envelopes := make([]sallyport.DecryptItem, len(items))
	for i, s := range sealed {
		if s.Err != nil {
			return s.Err
		}
		envelopes[i] = sallyport.DecryptItem{Ciphertext: s.Ciphertext, Context: items[i].Context}
	}
	spoilt := random.IntN(len(items))
	envelopes[spoilt].Context = map[string]string{"row": "another"}
	opened, err := w.aead.BatchDecrypt(ctx, envelopes)
	if err != nil {
		return err
	}
	for i, o := range opened {
		switch {
		case i == spoilt && !errors.Is(o.Err, sallyport.DecryptionFailed):
			return fmt.Errorf("%w: an item with another context: %w", errWrong, o.Err)
		case i == spoilt:
		case o.Err != nil:
			return o.Err
		default:
			if err := same(o.Plaintext, items[i].Plaintext); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *worker) macs(ctx context.Context) error {
	data, bound := w.message()
	tag, err := w.mac.ComputeMac(ctx, data, bound)
	if err != nil {
		return err
	}
	right, err := w.mac.VerifyMac(ctx, data, tag.MAC, bound)
	if err != nil {
		return err
	}
	other, err := w.mac.VerifyMac(ctx, append(data, 0), tag.MAC, bound)
	if err != nil {
		return err
	}
	if !right.Valid || other.Valid {
		return fmt.Errorf("%w: the tag is %v for the data and %v for other data", errWrong, right.Valid, other.Valid)
	}
	return nil
}

func (w *worker) deterministic(ctx context.Context) error {
	plaintext, bound := w.message()
	first, err := w.siv.DeterministicEncrypt(ctx, plaintext, bound)
	if err != nil {
		return err
	}
	second, err := w.siv.DeterministicEncrypt(ctx, plaintext, bound)
	if err != nil {
		return err
	}
	if !bytes.Equal(first.Ciphertext, second.Ciphertext) && first.Version == second.Version {
		return fmt.Errorf("%w: two envelopes for one plaintext", errWrong)
	}
	opened, err := w.siv.DeterministicDecrypt(ctx, first.Ciphertext, bound)
	if err != nil {
		return err
	}
	return same(opened.Plaintext, plaintext)
}

// altered flips a bit of an envelope's last 16 bytes, the tag.
func (w *worker) altered(ctx context.Context) error {
	plaintext, bound := w.message()
	sealed, err := w.aead.Encrypt(ctx, plaintext, bound)
	if err != nil {
		return err
	}
	bit := random.IntN(16 * 8)
	sealed.Ciphertext[len(sealed.Ciphertext)-1-bit/8] ^= 1 << (bit % 8)
	_, err = w.aead.Decrypt(ctx, sealed.Ciphertext, bound)
	switch {
	case err == nil:
		return fmt.Errorf("%w: an altered envelope was opened", errWrong)
	case errors.Is(err, sallyport.DecryptionFailed):
		return nil
	}
	return err
}
