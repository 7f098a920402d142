package sallyport_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/gateway/fault"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// Whatever is wrong with the stream, the secret stays fresh, and the gateway is not
// stormed.
func TestAStreamThatFails(t *testing.T) {
	unavailable := status.Error(codes.Unavailable, "broken")
	at := func(n int, err error) func(context.Context, int) error {
		return func(_ context.Context, sent int) error {
			if sent == n {
				return err
			}
			return nil
		}
	}
	silent := func(ctx context.Context, sent int) error {
		if sent == 1 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	spoil := func(change func(l *secretsv1.Lease, s *secretsv1.SealedSecret)) func(string, *secretsv1.Lease, *secretsv1.SealedSecret, *secretsv1.SecretFields) {
		return func(verb string, l *secretsv1.Lease, s *secretsv1.SealedSecret, _ *secretsv1.SecretFields) {
			if verb == "replace" {
				change(l, s)
			}
		}
	}
	for name, test := range map[string]struct {
		watch func(context.Context, int) error
		spoil func(string, *secretsv1.Lease, *secretsv1.SealedSecret, *secretsv1.SecretFields)
		told  sallyport.Reason // what OnError is told
		// revoked says that replacements cannot be used and are revoked.
		revoked bool
	}{
		"is not there":               {watch: at(0, fault.New(fault.UnknownMethod, "")), told: sallyport.UnknownMethod},
		"is refused":                 {watch: at(0, fault.New(fault.PermissionDenied, "")), told: sallyport.PermissionDenied},
		"breaks before it begins":    {watch: at(0, unavailable), told: sallyport.Unavailable},
		"breaks after a reply":       {watch: at(1, unavailable)},
		"breaks after two":           {watch: at(2, unavailable)},
		"ends without a word":        {watch: at(0, io.EOF), told: sallyport.Internal},
		"ends because of a shutdown": {watch: at(1, fault.New(fault.ShuttingDown, ""))},
		"has no source":              {watch: at(1, fault.New(fault.SourceSealed, ""))},
		"is silent":                  {watch: silent},
		"never says a word":          {watch: func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }},
		"sends what does not open":   {spoil: spoil(func(_ *secretsv1.Lease, s *secretsv1.SealedSecret) { s.Ciphertext[0] ^= 1 }), told: sallyport.DecryptionFailed, revoked: true},
		"sends another role's secret": {spoil: spoil(func(l *secretsv1.Lease, _ *secretsv1.SealedSecret) {
			l.Name = "tenants/demo/secretRoles/x/leases/" + l.Name[len(l.Name)-32:]
		}), told: sallyport.UnexpectedAnswer},
		"sends somebody else's secret": {spoil: spoil(func(l *secretsv1.Lease, _ *secretsv1.SealedSecret) { l.Workload += "x" }), told: sallyport.UnexpectedAnswer, revoked: true},
		"sends what is gone":           {spoil: spoil(func(l *secretsv1.Lease, _ *secretsv1.SealedSecret) { l.State = secretsv1.LeaseState_LEASE_STATE_GONE }), told: sallyport.UnexpectedAnswer, revoked: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newVault(10*time.Minute, 0)
				v.watch, v.spoil = test.watch, test.spoil
				k, f, _ := v.keep(t)
				attend(t, v, k, 2*time.Hour)
				if n := len(f.offers()); n < 12 || n > 22 {
					t.Errorf("%d replacements in 2 hours of leases of 10 minutes", n)
				}
				if n := v.called("watch"); n > 500 {
					t.Errorf("%d streams in 2 hours", n)
				}
				if n := v.called("lease"); n > 17 {
					t.Errorf("%d leased in 2 hours", n)
				}
				if test.told != "" && !f.saw(test.told) {
					t.Errorf("%s was not told: %v", test.told, f.errs)
				}
				// Neither is anything left behind that nobody has: the current one, and one in
				// its grace.
				if n := len(v.alive()); n > 3 {
					t.Errorf("%d leases live", n)
				}
				for _, l := range v.all() {
					if test.revoked && l.replacement && l.revoked.IsZero() {
						t.Errorf("%s was not revoked", l.GetName())
					}
				}
				if n := v.count(0); n > 1 {
					t.Errorf("%d streams are open", n)
				}
			})
		})
	}
}

func TestWithoutAStreamLeasesAreRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(10*time.Minute, time.Hour)
		v.watch = func(context.Context, int) error { return fault.New(fault.UnknownMethod, "") }
		k, f, _ := v.keep(t)
		attend(t, v, k, 50*time.Minute)
		if v.called("renew") < 4 || v.called("renew") > 8 || len(f.offers()) != 0 {
			t.Errorf("%d renewed, %d replaced", v.called("renew"), len(f.offers()))
		}
		attend(t, v, k, time.Hour)
		if n := len(f.offers()); n < 1 || n > 2 {
			t.Errorf("%d replaced in two hours of leases that live an hour with renewals", n)
		}
	})
}

// What the gateway has forgotten, or will not renew, is replaced before it ends.
func TestALeaseThatIsNotRenewed(t *testing.T) {
	for _, reason := range []fault.Reason{fault.PermissionDenied, fault.NotFound, fault.LeaseNotRenewable} {
		synctest.Test(t, func(t *testing.T) {
			v := newVault(10*time.Minute, time.Hour)
			k, f, _ := v.keep(t)
			v.obstruct(func(_ context.Context, verb string, _ int) error {
				if verb == "renew" || verb == "watch" {
					return fault.New(reason, "")
				}
				return nil
			})
			v.watch = func(context.Context, int) error { return fault.New(fault.ShuttingDown, "") }
			attend(t, v, k, time.Hour)
			if n := len(f.offers()); n < 5 {
				t.Errorf("%s: %d replacements", reason, n)
			}
		})
	}
}

// A source that renews by little or nothing is left with a new lease, not asked on and on.
func TestRenewalsThatGainNothing(t *testing.T) {
	for name, grant := range map[string]func(n int, l *secretsv1.Lease) time.Time{
		"nothing": func(_ int, l *secretsv1.Lease) time.Time { return l.GetExpireTime().AsTime() },
		"little":  func(_ int, l *secretsv1.Lease) time.Time { return l.GetExpireTime().AsTime().Add(time.Second) },
		"much once, then nothing": func(n int, l *secretsv1.Lease) time.Time {
			if n%2 == 1 {
				return time.Now().Add(time.Hour)
			}
			return l.GetExpireTime().AsTime()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newVault(10*time.Minute, 24*time.Hour)
				v.watch, v.grant = func(context.Context, int) error { return fault.New(fault.UnknownMethod, "") }, grant
				k, f, _ := v.keep(t)
				attend(t, v, k, 3*time.Hour)
				if n := v.called("renew"); n > 25 || len(f.offers()) < 2 {
					t.Errorf("%d renewals, %d replacements in 3 hours", n, len(f.offers()))
				}
			})
		})
	}
}

// Clients who lost the gateway together do not come back together.
func TestManyComeBackSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(time.Hour, 0)
		c, l := v.connect(t)
		const n = 100
		for range n {
			k, err := c.Keep(t.Context(), dbRole, sallyport.KeepOptions{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = k.Close(context.Background()) })
		}
		time.Sleep(time.Minute)
		l.stop()
		l.start()
		v.mu.Lock()
		v.calls["watch"] = nil
		v.mu.Unlock()
		time.Sleep(2 * time.Minute)
		v.mu.Lock()
		defer v.mu.Unlock()
		back := map[time.Duration]int{}
		for _, at := range v.calls["watch"] {
			back[at.Sub(v.calls["watch"][0]).Truncate(100*time.Millisecond)]++
		}
		busiest := 0
		for _, in := range back {
			busiest = max(busiest, in)
		}
		if len(v.calls["watch"]) < n || busiest > n/4 {
			t.Errorf("%d came back, %d of them in a tenth of a second: %v", len(v.calls["watch"]), busiest, fmt.Sprint(back))
		}
	})
}

// Streams hand over a receipt with each reply, and with the refusal that ends them.
func TestReceiptsOfStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(10*time.Minute, 0)
		var receipts atomic.Int64
		c, _ := v.connect(t, func(o *sallyport.Options) {
			o.OnReceipt = func(_ context.Context, method, receipt string) {
				if method == secretsv1.SecretService_WatchLease_FullMethodName && receipt == "receipt" {
					receipts.Add(1)
				}
			}
		})
		k, err := c.Keep(t.Context(), dbRole, sallyport.KeepOptions{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute)
		if n := receipts.Load(); n < 4 {
			t.Errorf("%d receipts", n)
		}
		if err := k.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A certificate that expires on an open stream is a reason for a new connection, if there
// is a new certificate by then.
func TestACertificateThatExpiresOnAStream(t *testing.T) {
	a := newAuthority(t)
	first, second := a.issue(app), a.issue(app)
	v := newVault(10*time.Minute, 0)
	seen := make(chan string, 100)
	v.hinder = func(ctx context.Context, verb string, _ int) error {
		p, _ := peer.FromContext(ctx)
		serial := p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].SerialNumber.String()
		if verb == "watch" {
			seen <- serial
			if serial == first.Leaf.SerialNumber.String() {
				return fault.New(fault.CertificateExpired, "")
			}
		}
		return nil
	}
	dir := t.TempDir()
	c := dial(t, v.listen(a), a.files(dir, first))
	k, err := c.Keep(t.Context(), dbRole, sallyport.KeepOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close(context.Background())
	a.files(dir, second)
	want := second.Leaf.SerialNumber.String()
	for timeout := time.After(20 * time.Second); ; {
		select {
		case serial := <-seen:
			if serial == want {
				return
			}
		case <-timeout:
			t.Fatal("it never came with the new certificate")
		}
	}
}

// A stream that speaks of another lease, or calls the one that there is a replacement, is
// not believed.
func TestAStreamThatMisleads(t *testing.T) {
	for name, mislead := range map[string]func(v *vault, reply *secretsv1.WatchLeaseResponse, of *secretsv1.Lease, to *secretsv1.Recipient){
		"about another lease": func(_ *vault, reply *secretsv1.WatchLeaseResponse, _ *secretsv1.Lease, _ *secretsv1.Recipient) {
			reply.Lease.Name = dbRole + "/leases/" + strings.Repeat("f", 32)
			reply.Lease.ExpireTime = timestamppb.New(time.Now().Add(24 * time.Hour))
		},
		"by calling the same lease a new one": func(v *vault, reply *secretsv1.WatchLeaseResponse, of *secretsv1.Lease, to *secretsv1.Recipient) {
			sealed, _, err := v.deliver("lease", of, to)
			if err != nil {
				t.Error(err)
			}
			reply.Value = &secretsv1.WatchLeaseResponse_Sealed{Sealed: sealed}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newVault(10*time.Minute, 0)
				v.mislead = func(sent int, reply *secretsv1.WatchLeaseResponse, of *secretsv1.Lease, to *secretsv1.Recipient) {
					if sent == 0 {
						mislead(v, reply, of, to)
					}
				}
				k, f, _ := v.keep(t)
				first := current(t, v, k)
				attend(t, v, k, 5*time.Minute)
				if current(t, v, k) != first || !f.saw(sallyport.UnexpectedAnswer) || len(v.alive()) != 1 {
					t.Errorf("changes %v, told %v, alive %v", f.offers(), f.errs, v.alive())
				}
				attend(t, v, k, time.Hour)
			})
		})
	}
}

// The gateway may say that a lease is gone by its state or by an error.
func TestALeaseThatIsGoneByAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(10*time.Minute, 0)
		var gone atomic.Bool
		v.watch = func(_ context.Context, sent int) error {
			if sent == 1 && gone.CompareAndSwap(true, false) {
				return fault.New(fault.LeaseGone, "")
			}
			return nil
		}
		k, f, _ := v.keep(t)
		time.Sleep(time.Minute)
		gone.Store(true)
		first := current(t, v, k)
		v.revoke(first)
		synctest.Wait()
		none(t, k)
		time.Sleep(10 * time.Second)
		if second := current(t, v, k); second == first || !f.saw(sallyport.LeaseGone) {
			t.Errorf("%s after %s, told %v", second, first, f.errs)
		}
	})
}
