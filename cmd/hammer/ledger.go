package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	random "math/rand/v2"
	"sync"

	sallyport "github.com/sallyport/sallyport/clients/go"
)

// ledger remembers what a gateway acknowledged: every receipt, and every envelope
// with what is in it.
type ledger struct {
	mu       sync.Mutex
	receipts []string
	sealed   []entry
}

type entry struct{ envelope, plaintext []byte }

// chaosContext is the encryption context of every call; the ledger has enough to keep.
var chaosContext = map[string]string{"purpose": "chaos"}

// size is how many calls were acknowledged.
func (l *ledger) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.receipts)
}

// call encrypts something new, or decrypts something old, from this life of the
// gateway or an earlier one. Whatever is answered is kept.
func (l *ledger) call(ctx context.Context, k sallyport.Keyring) error {
	if old, ok := l.any(); ok && random.IntN(4) == 0 {
		opened, err := k.Decrypt(ctx, old.envelope, chaosContext)
		if err != nil {
			return l.failed(err)
		}
		l.keep(opened.Receipt)
		return same(opened.Plaintext, old.plaintext)
	}
	plaintext := make([]byte, 16+random.IntN(48))
	_, _ = rand.Read(plaintext) // never fails
	sealed, err := k.Encrypt(ctx, plaintext, chaosContext)
	if err != nil {
		return l.failed(err)
	}
	l.keep(sealed.Receipt, entry{sealed.Ciphertext, plaintext})
	return nil
}

// failed takes a call that was not answered with what was asked for. A refusal has a
// receipt too; that an envelope does not open is wrong.
func (l *ledger) failed(err error) error {
	var e *sallyport.Error
	if !errors.As(err, &e) {
		return err
	}
	if e.Receipt != "" {
		l.keep(e.Receipt)
	}
	if e.Reason == sallyport.DecryptionFailed || e.Reason.Refused() {
		return fmt.Errorf("%w: %w", errWrong, err)
	}
	return err
}

func (l *ledger) keep(receipt string, sealed ...entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.receipts = append(l.receipts, receipt)
	l.sealed = append(l.sealed, sealed...)
}

func (l *ledger) any() (entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sealed) == 0 {
		return entry{}, false
	}
	return l.sealed[random.IntN(len(l.sealed))], true
}

// openAll decrypts every envelope.
func (l *ledger) openAll(ctx context.Context, k sallyport.Keyring) error {
	items := make([]sallyport.DecryptItem, len(l.sealed))
	for i, e := range l.sealed {
		items[i] = sallyport.DecryptItem{Ciphertext: e.envelope, Context: chaosContext}
	}
	results, err := k.BatchDecrypt(ctx, items)
	if err != nil {
		return err
	}
	var lost int
	for i, r := range results {
		wrong := r.Err
		if wrong == nil {
			wrong = same(r.Plaintext, l.sealed[i].plaintext)
		}
		if wrong != nil {
			lost++
			err = wrong
		}
	}
	if lost > 0 {
		return fmt.Errorf("%d of %d envelopes do not open, for example: %w", lost, len(results), err)
	}
	return nil
}
