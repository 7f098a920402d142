//go:build measure

package vault_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/broker/vaulttest"
	"github.com/sallyport/sallyport/gateway/lease"
)

// TestMeasureSource measures one caller after another, over TLS.
//
//	go test -tags measure -run MeasureSource -v ./gateway/broker/vault
func TestMeasureSource(t *testing.T) {
	l := ownLab(t, vaulttest.WithTLS())
	l.config.Timeout = 20 * time.Second
	l.Must(http.MethodPost, "secret/data/cost", map[string]any{"data": map[string]any{"password": "one"}})
	for name, r := range map[string]lease.Role{"database": database("app"), "certificate": certificate(), "kv": kv("cost")} {
		s := l.source(t, r)
		var prepare, issuing, renew, revoke time.Duration
		const times = 100
		before, err := l.CPU()
		check(t, err)
		for range times {
			began := time.Now()
			ticket, err := s.Prepare(t.Context(), order(r, time.Minute))
			check(t, err)
			made := time.Now()
			issued, err := ticket.Issue(t.Context())
			check(t, err)
			issued.Value.Wipe()
			got := time.Now()
			a := lease.Anchor{Handle: ticket.Anchor().Handle, Ref: issued.Ref}
			if issued.Renewable {
				_, err = s.Renew(t.Context(), a, time.Minute, time.Now().Add(time.Hour))
				check(t, err)
			}
			renewed := time.Now()
			if issued.Revocable {
				check(t, s.Revoke(t.Context(), a))
			}
			prepare, issuing = prepare+made.Sub(began), issuing+got.Sub(made)
			renew, revoke = renew+renewed.Sub(got), revoke+time.Since(renewed)
		}
		after, err := l.CPU()
		check(t, err)
		t.Logf("%-12s prepare %v, issue %v, renew %v, revoke %v, Vault computes %v for all", name, prepare/times, issuing/times, renew/times, revoke/times, (after-before)/times)
	}
}
