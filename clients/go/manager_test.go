package sallyport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/crypto/secret"
	"github.com/sallyport/sallyport/gateway/fault"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// follower notes what a kept secret does.
type follower struct {
	t *testing.T
	v *vault

	mu      sync.Mutex
	offered []string
	errs    []error
	refuse  error // what OnChange answers
}

func (f *follower) changed(_ context.Context, s *sallyport.Secret) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.offered = append(f.offered, s.Lease().Name)
	if got := read(f.t, s, "password"); got != value(s.Lease().Name) {
		f.t.Errorf("a change to %q", got)
	}
	return f.refuse
}

func (f *follower) failed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errs = append(f.errs, err)
}

func (f *follower) offers() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.offered)
}

func (f *follower) answer(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = err
}

// saw reports whether an error of that reason was told.
func (f *follower) saw(r sallyport.Reason) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.errs, func(err error) bool { return errors.Is(err, r) })
}

// keep keeps a secret of the fake until the test ends.
func (v *vault) keep(t *testing.T, change ...func(*sallyport.KeepOptions)) (*sallyport.Kept, *follower, *line) {
	t.Helper()
	c, l := v.connect(t)
	f := &follower{t: t, v: v}
	o := sallyport.KeepOptions{OnChange: f.changed, OnError: f.failed}
	for _, set := range change {
		set(&o)
	}
	k, err := c.Keep(t.Context(), dbRole, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close(context.Background()) })
	return k, f, l
}

// current checks that the current secret is one that works, and gives its lease.
func current(t *testing.T, v *vault, k *sallyport.Kept) string {
	t.Helper()
	s, err := k.Current()
	if err != nil {
		t.Fatal(err)
	}
	name := s.Lease().Name
	if got := read(t, s, "password"); got != value(name) {
		t.Errorf("%q is in the secret of %s", got, name)
	}
	if !slices.Contains(v.alive(), name) {
		t.Errorf("%s does not work and is current", name)
	}
	return name
}

// attend looks every five seconds for that long.
func attend(t *testing.T, v *vault, k *sallyport.Kept, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Second) {
		current(t, v, k)
	}
}

// none checks that there is no current secret, and gives the error.
func none(t *testing.T, k *sallyport.Kept) error {
	t.Helper()
	s, err := k.Current()
	if s != nil || !errors.Is(err, sallyport.LeaseGone) {
		t.Fatalf("%v, %v", s, err)
	}
	return err
}

func TestReplacementsComeBeforeTheOldOneEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(10*time.Minute, 0)
		k, f, _ := v.keep(t)
		attend(t, v, k, 2*time.Hour)
		if n := len(f.offers()); n < 15 || n > 22 {
			t.Errorf("%d replacements in 2 hours of leases of 10 minutes", n)
		}
		if v.called("lease") != 1 || v.called("renew") != 0 || v.called("watch") != 1 {
			t.Errorf("%d leased, %d renewed, %d watched: the stream does it all", v.called("lease"), v.called("renew"), v.called("watch"))
		}
		all := v.all()
		for i, l := range all[:len(all)-1] {
			next := all[i+1].GetCreateTime().AsTime()
			if after := l.revoked.Sub(next); after < 30*time.Second || after > 31*time.Second {
				t.Errorf("lease %d was revoked %v after it was replaced", i, after)
			}
		}
		if len(f.errs) > 0 {
			t.Errorf("errors: %v", f.errs)
		}
	})
}

func TestARenewedSecretStaysTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(10*time.Minute, time.Hour)
		k, f, _ := v.keep(t)
		first, err := k.Current()
		if err != nil {
			t.Fatal(err)
		}
		attend(t, v, k, 45*time.Minute)
		if s, err := k.Current(); s != first || err != nil || len(f.offers()) > 0 {
			t.Errorf("replaced by %v, %v", s, err)
		}
		if l := first.Lease(); !l.Expires.After(time.Now()) {
			t.Errorf("the secret does not know that it was renewed: %v", l.Expires)
		}
		attend(t, v, k, 45*time.Minute)
		if n := len(f.offers()); n != 1 {
			t.Errorf("%d replacements in the second hour", n)
		}
	})
}

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
		"sends what does not open":   {spoil: spoil(func(_ *secretsv1.Lease, s *secretsv1.SealedSecret) { s.Ciphertext[0] ^= 1 }), told: sallyport.DecryptionFailed},
		"sends another role's secret": {spoil: spoil(func(l *secretsv1.Lease, _ *secretsv1.SealedSecret) {
			l.Name = "tenants/demo/secretRoles/x/leases/" + l.Name[len(l.Name)-32:]
		}), told: sallyport.UnexpectedAnswer},
		"sends somebody else's secret": {spoil: spoil(func(l *secretsv1.Lease, _ *secretsv1.SealedSecret) { l.Workload += "x" }), told: sallyport.UnexpectedAnswer},
		"sends what is gone":           {spoil: spoil(func(l *secretsv1.Lease, _ *secretsv1.SealedSecret) { l.State = secretsv1.LeaseState_LEASE_STATE_GONE }), told: sallyport.UnexpectedAnswer},
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

// The secret is current until its true end while the gateway is away, and then it is
// not. The gateway is asked about once a minute, and when it is back all is well.
func TestAGatewayThatIsAway(t *testing.T) {
	for name, test := range map[string]struct {
		away func(v *vault, l *line)
		back func(v *vault, l *line)
		why  sallyport.Reason
	}{
		"down": {
			func(_ *vault, l *line) { l.stop() }, func(_ *vault, l *line) { l.start() }, sallyport.Unavailable,
		},
		"without its source": {
			func(v *vault, _ *line) {
				v.obstruct(func(_ context.Context, verb string, _ int) error {
					if verb != "watch" {
						return fault.New(fault.SourceUnavailable, "")
					}
					return nil
				})
			},
			func(v *vault, _ *line) { v.obstruct(nil) }, sallyport.SourceUnavailable,
		},
		"hanging": {
			func(v *vault, _ *line) {
				v.obstruct(func(ctx context.Context, _ string, _ int) error { <-ctx.Done(); return ctx.Err() })
			},
			func(v *vault, _ *line) { v.obstruct(nil) }, sallyport.DeadlineExceeded,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newVault(10*time.Minute, 0)
				k, f, l := v.keep(t)
				time.Sleep(time.Minute)
				first := current(t, v, k)
				test.away(v, l)
				attend(t, v, k, 8*time.Minute+55*time.Second)
				time.Sleep(6 * time.Second)
				if err := none(t, k); !errors.Is(err, test.why) {
					t.Errorf("it says nothing of %s: %v, told %v", test.why, errors.Unwrap(err), f.errs)
				}
				time.Sleep(time.Hour)
				calls := v.called("lease") + v.called("watch") + v.called("replace")
				test.back(v, l)
				time.Sleep(3 * time.Minute)
				if current(t, v, k) == first || len(f.offers()) < 1 {
					t.Errorf("%d changes", len(f.offers()))
				}
				if calls > 450 { // each verb about every half a minute
					t.Errorf("%d calls in an hour", calls)
				}
				attend(t, v, k, time.Hour)
			})
		})
	}
}

func TestAnOperatorRevokesTheLease(t *testing.T) {
	for _, renewable := range []time.Duration{0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			v := newVault(10*time.Minute, renewable)
			k, f, _ := v.keep(t)
			time.Sleep(time.Minute)
			first := current(t, v, k)
			v.obstruct(func(_ context.Context, verb string, _ int) error {
				if verb == "lease" {
					return fault.New(fault.SourceSealed, "")
				}
				return nil
			})
			v.revoke(first)
			synctest.Wait()
			none(t, k)
			if !f.saw(sallyport.LeaseGone) {
				t.Errorf("told %v", f.errs)
			}
			time.Sleep(time.Minute)
			if err := none(t, k); !errors.Is(err, sallyport.SourceSealed) {
				t.Errorf("it says nothing of what is in the way: %v", err)
			}
			v.obstruct(nil)
			time.Sleep(2 * time.Minute)
			second := current(t, v, k)
			if second == first || !slices.Equal(f.offers(), []string{second}) {
				t.Errorf("%s after %s, changes %v", second, first, f.offers())
			}
		})
	}
}

// Without a stream the revocation is noticed when the lease is to be renewed.
func TestARevocationThatNobodyTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(10*time.Minute, time.Hour)
		v.watch = func(context.Context, int) error { return fault.New(fault.UnknownMethod, "") }
		k, f, _ := v.keep(t)
		first := current(t, v, k)
		v.revoke(first)
		time.Sleep(10 * time.Minute)
		if second := current(t, v, k); second == first || len(f.offers()) != 1 {
			t.Errorf("%s after %s, changes %v", second, first, f.offers())
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

// A refusal is not asked again and again, and does not last for ever either.
func TestARefusalIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(10*time.Minute, 0)
		k, _, _ := v.keep(t)
		first := current(t, v, k)
		v.obstruct(always(fault.PermissionDenied))
		v.revoke(first)
		time.Sleep(time.Hour)
		if err := none(t, k); !errors.Is(err, sallyport.PermissionDenied) {
			t.Errorf("it says nothing of the refusal: %v", err)
		}
		if n := v.called("lease") - 1; n < 8 || n > 18 {
			t.Errorf("asked %d times in an hour", n)
		}
		v.obstruct(nil)
		time.Sleep(10 * time.Minute)
		current(t, v, k)
	})
}

// Who revokes each new lease at once does not make the client lease without pause.
func TestALoserSlowsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(10*time.Minute, 0)
		v.watch = func(context.Context, int) error {
			for _, name := range v.alive() {
				v.revoke(name)
			}
			return nil
		}
		v.keep(t)
		time.Sleep(time.Hour)
		if n := v.called("lease"); n < 60 || n > 200 {
			t.Errorf("leased %d times in an hour", n)
		}
	})
}

func TestAChangeThatIsNotAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(10*time.Minute, 0)
		k, f, _ := v.keep(t)
		first := current(t, v, k)
		mine := errors.New("not now")
		f.answer(mine)
		time.Sleep(8 * time.Minute)
		if n := len(f.offers()); n < 2 || n > 20 || current(t, v, k) != first {
			t.Errorf("offered %d times, current %s", n, current(t, v, k))
		}
		f.answer(nil)
		time.Sleep(time.Minute)
		if second := current(t, v, k); second == first {
			t.Error("it was not offered again")
		}
		time.Sleep(time.Minute)
		if alive := v.alive(); len(alive) != 1 {
			t.Errorf("alive: %v", alive)
		}

		// Until the old one has ended: the new one is not given to who did not accept it.
		f.answer(mine)
		time.Sleep(12 * time.Minute)
		if err := none(t, k); !errors.Is(err, mine) {
			t.Errorf("it says nothing of the change: %v", err)
		}
		time.Sleep(time.Hour)
		none(t, k)
		unwanted := v.all()
		for _, l := range unwanted[2 : len(unwanted)-2] {
			if l.revoked.IsZero() {
				t.Errorf("%s was not accepted, replaced and not revoked", l.GetName())
			}
		}
		f.answer(nil)
		time.Sleep(time.Minute)
		current(t, v, k)
	})
}

func TestGrace(t *testing.T) {
	for grace, want := range map[time.Duration]time.Duration{0: 30 * time.Second, -1: 0, time.Minute: time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			v := newVault(10*time.Minute, 0)
			k, f, _ := v.keep(t, func(o *sallyport.KeepOptions) { o.Grace = grace })
			old, err := k.Current()
			if err != nil {
				t.Fatal(err)
			}
			for len(f.offers()) == 0 {
				time.Sleep(time.Second)
			}
			time.Sleep(max(want-2*time.Second, 0))
			if want > 0 {
				read(t, old, "password")
			}
			time.Sleep(3 * time.Second)
			if err := old.Use("password", func([]byte) error { return nil }); !errors.Is(err, secret.ErrWiped) {
				t.Errorf("after its grace: %v", err)
			}
			all := v.all()
			if after := all[0].revoked.Sub(all[1].GetCreateTime().AsTime()); after < want || after > want+time.Second {
				t.Errorf("revoked after %v, want %v", after, want)
			}
		})
	}
}

// Wiping waits for who is using a secret, and nothing else waits for that. It is a lock
// that waits, which package synctest does not take for waiting.
func TestWhoHoldsASecretHoldsUpNobody(t *testing.T) {
	v := newVault(2*time.Second, 0)
	k, f, _ := v.keep(t, func(o *sallyport.KeepOptions) { o.Grace = -1 })
	s, err := k.Current()
	if err != nil {
		t.Fatal(err)
	}
	done, held := make(chan struct{}), make(chan error, 1)
	go func() {
		held <- s.Use("password", func(b []byte) error {
			<-done
			if string(b) != value(s.Lease().Name) {
				return errors.New("wiped while it was used")
			}
			return nil
		})
	}()
	wait(t, "it is replaced again and again", func() bool { return len(f.offers()) >= 3 })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := k.Close(ctx); !errors.Is(err, sallyport.DeadlineExceeded) {
		t.Errorf("closed while it is used: %v", err)
	}
	close(done)
	if err := <-held; err != nil {
		t.Error(err)
	}
	if err := k.Close(t.Context()); err != nil || len(v.alive()) != 0 {
		t.Errorf("%v, alive %v", err, v.alive())
	}
	if password, _ := s.Field("password"); !password.Wiped() {
		t.Error("it was not wiped")
	}
}

// What was replaced is revoked in the end, if the gateway fails at first.
func TestRevokingIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(time.Hour, 0)
		_, f, _ := v.keep(t)
		v.obstruct(func(_ context.Context, verb string, _ int) error {
			if verb == "revoke" {
				return fault.New(fault.StoreUnavailable, "")
			}
			return nil
		})
		for len(f.offers()) == 0 {
			time.Sleep(time.Second)
		}
		time.Sleep(5 * time.Minute)
		if n := v.called("revoke"); len(v.alive()) != 2 || n < 4 || n > 100 {
			t.Errorf("%d live after %d calls", len(v.alive()), n)
		}
		v.obstruct(nil)
		time.Sleep(2 * time.Minute)
		if len(v.alive()) != 1 || !f.saw(sallyport.StoreUnavailable) {
			t.Errorf("alive: %v, told %v", v.alive(), f.errs)
		}
	})
}

// Package synctest fails a test that leaves goroutines.
func TestCloseRevokesEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(10*time.Minute, 0)
		k, f, _ := v.keep(t)
		for len(f.offers()) == 0 {
			time.Sleep(time.Second)
		}
		s, err := k.Current()
		if err != nil || len(v.alive()) != 2 {
			t.Fatal(err, v.alive())
		}
		if err := k.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if n := len(v.alive()); n != 0 {
			t.Errorf("%d leases live", n)
		}
		none(t, k)
		if err := s.Use("password", func([]byte) error { return nil }); !errors.Is(err, secret.ErrWiped) {
			t.Errorf("after Close: %v", err)
		}
		calls := v.called("revoke")
		if err := k.Close(t.Context()); err != nil || v.called("revoke") != calls {
			t.Errorf("a second time: %v", err)
		}
		time.Sleep(time.Hour)
		if v.called("lease")+v.called("watch") != 2 {
			t.Error("it goes on")
		}
	})
}

func TestCloseRevokesWhatWasNotAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(10*time.Minute, 0)
		k, f, _ := v.keep(t)
		f.answer(errors.New("never"))
		time.Sleep(9 * time.Minute)
		if len(v.alive()) != 2 {
			t.Fatal(v.alive())
		}
		if err := k.Close(t.Context()); err != nil || len(v.alive()) != 0 {
			t.Errorf("%v, %v", v.alive(), err)
		}
	})
}

func TestCloseIsBounded(t *testing.T) {
	hang := func(ctx context.Context, _ string, _ int) error { <-ctx.Done(); return ctx.Err() }
	t.Run("when the gateway hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := newVault(10*time.Minute, 0)
			k, _, _ := v.keep(t)
			v.obstruct(hang)
			begun := time.Now()
			if err := k.Close(context.Background()); !errors.Is(err, sallyport.DeadlineExceeded) || time.Since(begun) > 10*time.Second {
				t.Errorf("%v after %v", err, time.Since(begun))
			}
		})
	})
	t.Run("when the gateway is away", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := newVault(10*time.Minute, 0)
			k, _, l := v.keep(t)
			l.stop()
			begun := time.Now()
			if err := k.Close(context.Background()); !errors.Is(err, sallyport.Unavailable) || time.Since(begun) > 10*time.Second {
				t.Errorf("%v after %v", err, time.Since(begun))
			}
		})
	})
	t.Run("when it is leasing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := newVault(10*time.Minute, 0)
			v.watch = func(context.Context, int) error { return fault.New(fault.UnknownMethod, "") }
			k, f, _ := v.keep(t)
			v.obstruct(func(ctx context.Context, verb string, n int) error {
				if verb == "lease" && n > 1 {
					<-ctx.Done()
				}
				return nil
			})
			for v.called("lease") < 2 {
				time.Sleep(time.Second)
			}
			told := len(f.errs)
			if err := k.Close(t.Context()); err != nil || len(f.errs) != told {
				t.Errorf("%v, told %v", err, f.errs)
			}
		})
	})
	t.Run("when OnChange waits for its context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := newVault(10*time.Minute, 0)
			k, _, _ := v.keep(t, func(o *sallyport.KeepOptions) {
				o.OnChange = func(ctx context.Context, _ *sallyport.Secret) error { <-ctx.Done(); return ctx.Err() }
			})
			time.Sleep(8 * time.Minute)
			if err := k.Close(t.Context()); err != nil || len(v.alive()) != 0 {
				t.Errorf("%v, %v", v.alive(), err)
			}
		})
	})
	t.Run("when OnChange does not return", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := newVault(10*time.Minute, 0)
			done := make(chan struct{})
			k, _, _ := v.keep(t, func(o *sallyport.KeepOptions) {
				o.OnChange = func(context.Context, *sallyport.Secret) error { <-done; return nil }
			})
			time.Sleep(8 * time.Minute)
			if err := k.Close(t.Context()); !errors.Is(err, sallyport.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
			none(t, k)
			close(done)
			if err := k.Close(t.Context()); err != nil || len(v.alive()) != 0 {
				t.Errorf("again: %v, %v", v.alive(), err)
			}
		})
	})
}

func TestTheFirstSecretIsWaitedFor(t *testing.T) {
	for name, test := range map[string]struct {
		hinder func(context.Context, string, int) error
		want   sallyport.Reason // "" for none
		within time.Duration
	}{
		"at once":        {},
		"after failures": {hinder: func(_ context.Context, verb string, n int) error { return failLease(verb, n < 12) }, within: time.Minute},
		"a refusal":      {hinder: always(fault.HumanOnDataPlane), want: sallyport.HumanOnDataPlane},
		"a full quota":   {hinder: always(fault.QuotaExceeded), want: sallyport.QuotaExceeded},
		"never":          {hinder: always(fault.SourceUnavailable), want: sallyport.SourceUnavailable, within: time.Minute},
		"without an answer": {
			hinder: func(ctx context.Context, _ string, _ int) error { <-ctx.Done(); return ctx.Err() },
			want:   sallyport.DeadlineExceeded, within: time.Minute,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newVault(10*time.Minute, 0)
				v.hinder = test.hinder
				c, _ := v.connect(t)
				begun := time.Now()
				k, err := c.Keep(t.Context(), dbRole, sallyport.KeepOptions{})
				if took := time.Since(begun); took > test.within {
					t.Errorf("after %v", took)
				}
				if test.want != "" {
					if k != nil || !errors.Is(err, test.want) {
						t.Errorf("%v, %v", k, err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				current(t, v, k)
				if err := k.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func failLease(verb string, fail bool) error {
	if verb == "lease" && fail {
		return fault.New(fault.SourceThrottled, "")
	}
	return nil
}

// The end of the context that a secret was first leased with does not end it.
func TestTheContextOfKeepIsForTheFirstSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(10*time.Minute, 0)
		c, _ := v.connect(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		k, err := c.Keep(ctx, dbRole, sallyport.KeepOptions{Lifetime: 5 * time.Minute, Plain: true})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		attend(t, v, k, time.Hour)
		for _, l := range v.all() {
			if d := l.GetExpireTime().AsTime().Sub(l.GetCreateTime().AsTime()); d != 5*time.Minute {
				t.Errorf("a lease of %v", d)
			}
		}
		if err := k.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// The gateway's clock may show another time. What counts is how long a lease lives.
func TestClocksThatDiffer(t *testing.T) {
	for _, skew := range []time.Duration{-3 * time.Hour, 3 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			v := newVault(10*time.Minute, 0)
			v.watch = func(context.Context, int) error { return fault.New(fault.UnknownMethod, "") }
			v.spoil = func(_ string, l *secretsv1.Lease, _ *secretsv1.SealedSecret, _ *secretsv1.SecretFields) {
				l.CreateTime.Seconds += int64(skew / time.Second)
				l.ExpireTime.Seconds += int64(skew / time.Second)
				l.MaxExpireTime.Seconds += int64(skew / time.Second)
			}
			k, f, _ := v.keep(t)
			attend(t, v, k, time.Hour)
			if n := len(f.offers()); n < 6 || n > 9 {
				t.Errorf("%d replacements in an hour", n)
			}
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
