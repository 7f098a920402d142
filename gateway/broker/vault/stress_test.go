package vault_test

import (
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/broker/vaulttest"
	"github.com/sallyport/sallyport/gateway/lease"
)

// Every call that issues has a connection of its own, which ends with unread lines at
// Vault's side: no answer is lost for that.
func TestManyAreIssuedAtOnceAndAllEnd(t *testing.T) {
	t.Parallel()
	l := ownLab(t, vaulttest.WithTLS())
	l.config.Timeout = 20 * time.Second // for machines with little
	s := l.source(t, certificate())
	var wait sync.WaitGroup
	var mu sync.Mutex
	var prepared, issued, revoked time.Duration
	const workers, each = 8, 40
	for range workers {
		wait.Go(func() {
			for range each {
				began := time.Now()
				ticket, err := s.Prepare(t.Context(), order(certificate(), time.Minute))
				if err != nil {
					t.Error(err)
					return
				}
				made := time.Now()
				got, err := ticket.Issue(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				got.Value.Wipe()
				done := time.Now()
				if err := s.Revoke(t.Context(), lease.Anchor{Handle: ticket.Anchor().Handle, Ref: got.Ref}); err != nil {
					t.Error(err)
				}
				mu.Lock()
				prepared += made.Sub(began)
				issued += done.Sub(made)
				revoked += time.Since(done)
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	const n = workers * each
	t.Logf("of %d certificates, %d at once: preparing %v, issuing %v, revoking %v", n, workers, prepared/n, issued/n, revoked/n)
}
