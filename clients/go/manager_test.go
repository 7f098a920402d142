package sallyport_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sallyport "github.com/sallyport/sallyport/clients/go"
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

func (f *follower) changed(ctx context.Context, s *sallyport.Secret) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		f.t.Errorf("offered what has ended: %v", ctx.Err())
	}
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
