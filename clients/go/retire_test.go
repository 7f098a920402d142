package sallyport_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/crypto/secret"
	"github.com/sallyport/sallyport/gateway/fault"
)

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

func TestCloseDoesNotWaitForWhoHoldsTheSecret(t *testing.T) {
	v := newVault(time.Minute, 0)
	k, _, _ := v.keep(t)
	s, err := k.Current()
	if err != nil {
		t.Fatal(err)
	}
	done, used := make(chan struct{}), make(chan struct{})
	go func() {
		_ = s.Use("password", func([]byte) error { close(used); <-done; return nil })
	}()
	<-used
	defer close(done)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := k.Close(ctx); !errors.Is(err, sallyport.DeadlineExceeded) || len(v.alive()) != 0 {
		t.Errorf("%v, alive %v", err, v.alive())
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

// What was not accepted in time and cannot be replaced is not offered for ever.
func TestWhatHasEndedIsNotOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(10*time.Minute, 0)
		k, f, l := v.keep(t)
		f.answer(errors.New("not now"))
		time.Sleep(9 * time.Minute)
		l.stop()
		time.Sleep(20 * time.Minute)
		offers := len(f.offers())
		time.Sleep(time.Hour)
		if n := len(f.offers()); n != offers {
			t.Errorf("offered %d times more", n-offers)
		}
		none(t, k)
		f.answer(nil)
		l.start()
		time.Sleep(3 * time.Minute)
		current(t, v, k)
	})
}
