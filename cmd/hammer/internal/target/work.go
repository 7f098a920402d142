package target

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/sallyport/sallyport/cmd/hammer/internal/loop"
)

// Op is an operation that is measured.
type Op string

// The operations, named as in the API.
const (
	Encrypt      Op = "Encrypt"
	Decrypt      Op = "Decrypt"
	BatchEncrypt Op = "BatchEncrypt"
	BatchDecrypt Op = "BatchDecrypt"
)

// Work is what one call asks for.
type Work struct {
	Op   Op
	Size int // bytes of plaintext, of each item
	// Items is the length of a batch; 0 for the operations that are none.
	Items   int
	Context Context
}

// Context is the encryption context of a message.
type Context string

// The contexts. A fresh one is another in every call, so that nothing that was
// decided or derived for one serves the next; it is for Encrypt.
const (
	NoContext       Context = "none"
	ConstantContext Context = "constant" // one pair
	FreshContext    Context = "fresh"    // one pair
)

const contextKey = "purpose"

// first is the context of the first call.
func (c Context) first() map[string]string {
	if c == NoContext {
		return nil
	}
	return map[string]string{contextKey: "benchmark"}
}

// Item is a message, plaintext or envelope, with its encryption context.
type Item struct {
	Data    []byte
	Context map[string]string
}

// Client is one of the ways to ask a server.
type Client interface {
	Encrypt(ctx context.Context, plaintext Item) (envelope []byte, err error)
	Decrypt(ctx context.Context, envelope Item) (plaintext []byte, err error)
	EncryptBatch(ctx context.Context, plaintexts []Item) (envelopes [][]byte, err error)
	DecryptBatch(ctx context.Context, envelopes []Item) (plaintexts [][]byte, err error)
	Close() error
}

var errRoundTrip = errors.New("the plaintext did not come back")

// Call gives the call that does the work, after one round trip whose result was
// compared: what is measured is right before it is fast.
func (w Work) Call(ctx context.Context, c Client) (loop.Call, error) {
	items := w.plaintexts()
	var call loop.Call
	var err error
	if w.Items == 0 {
		call, err = w.single(ctx, c, items[0])
	} else {
		call, err = w.batch(ctx, c, items)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", w.Op, err)
	}
	return call, nil
}

// plaintexts are random, so that nothing on the way can compress them.
func (w Work) plaintexts() []Item {
	items := make([]Item, max(w.Items, 1))
	for i := range items {
		items[i] = Item{make([]byte, w.Size), w.Context.first()}
		_, _ = rand.Read(items[i].Data) // never fails
	}
	return items
}

func (w Work) single(ctx context.Context, c Client, plaintext Item) (loop.Call, error) {
	envelope, err := c.Encrypt(ctx, plaintext)
	if err != nil {
		return nil, err
	}
	sealed := Item{envelope, plaintext.Context}
	opened, err := c.Decrypt(ctx, sealed)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(opened, plaintext.Data) {
		return nil, errRoundTrip
	}
	var n atomic.Uint64
	return func(ctx context.Context, _ int) error {
		var err error
		switch {
		case w.Op == Decrypt:
			_, err = c.Decrypt(ctx, sealed)
		case w.Context == FreshContext:
			fresh := map[string]string{contextKey: strconv.FormatUint(n.Add(1), 10)}
			_, err = c.Encrypt(ctx, Item{plaintext.Data, fresh})
		default:
			_, err = c.Encrypt(ctx, plaintext)
		}
		return err
	}, nil
}

func (w Work) batch(ctx context.Context, c Client, plaintexts []Item) (loop.Call, error) {
	envelopes, err := c.EncryptBatch(ctx, plaintexts)
	if err != nil {
		return nil, err
	}
	sealed := make([]Item, len(plaintexts))
	for i, p := range plaintexts {
		sealed[i] = Item{envelopes[i], p.Context}
	}
	opened, err := c.DecryptBatch(ctx, sealed)
	if err != nil {
		return nil, err
	}
	for i, p := range plaintexts {
		if !bytes.Equal(opened[i], p.Data) {
			return nil, errRoundTrip
		}
	}
	return func(ctx context.Context, _ int) error {
		var err error
		if w.Op == BatchDecrypt {
			_, err = c.DecryptBatch(ctx, sealed)
		} else {
			_, err = c.EncryptBatch(ctx, plaintexts)
		}
		return err
	}, nil
}
