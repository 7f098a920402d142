package lease_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/crypto/secret"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/identity"
	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/gateway/lease/leasetest"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// The model: a source that knows which credentials work, a ledger, a clock, and a book
// that can be killed at each of its calls, before or after the call had its effect.
// Whatever happens, afterwards no credential works that the ledger does not know or
// calls gone, none works longer than stated, and none that was answered ends early.
type world struct {
	mu          sync.Mutex
	now         time.Time
	credentials map[string]*credential // by handle
	serial      int
	// immortal credentials do not end by themselves: a source that forgets.
	immortal bool

	ledger *leasetest.Ledger
	book   *lease.Book

	// steps counts the calls of the book; at step failAt something happens.
	steps, failAt int
	failure       failure
	dead          bool // the process was killed
	restored      time.Time
	backup        *leasetest.Ledger
}

type failure int

const (
	lost     failure = iota // the call had no effect and fails
	reported                // the call had its effect and fails
	killed                  // the process ends before the call
	late                    // the process ends after the call's effect
	copied                  // a backup is made after the call's effect, and nothing fails
)

type credential struct {
	issued, revoked bool
	until, max      time.Time
	// promised is the end that the holder was told; zero if nobody was.
	promised time.Time
	name     lease.Name
}

func (w *world) alive(c *credential) bool {
	return c.issued && !c.revoked && (w.immortal || w.now.Before(c.until))
}

var errKilled = errors.New("killed")

// step passes one call of the book through what may go wrong.
func (w *world) step(failed error, effect func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return errKilled
	}
	w.steps++
	if w.steps != w.failAt {
		return effect()
	}
	switch w.failure {
	case reported:
		_ = effect()
		return failed
	case late:
		_ = effect()
		w.dead = true
		return errKilled
	case killed:
		w.dead = true
		return errKilled
	case copied:
		err := effect()
		w.backup = w.ledger.Clone()
		return err
	default:
		return failed
	}
}

var unavailable = fault.New(fault.SourceUnavailable, "")

// source is the world's side of lease.Source.
type source struct {
	lease.Source
	w *world
}

func (source) Kind() string                            { return "model" }
func (source) Failure() error                          { return nil }
func (source) Check(*controlv1.SecretParameters) error { return nil }

func (s source) Prepare(_ context.Context, o lease.Order) (t lease.Ticket, err error) {
	err = s.w.step(unavailable, func() error {
		s.w.serial++
		handle := fmt.Sprint("handle-", s.w.serial)
		s.w.credentials[handle] = &credential{until: s.w.now.Add(o.Lifetime), max: s.w.now.Add(o.MaxLifetime), name: o.Lease}
		t = ticket{s.w, handle, o}
		return nil
	})
	if err != nil {
		t = nil
	}
	return t, err
}

type ticket struct {
	w      *world
	handle string
	order  lease.Order
}

func (t ticket) Anchor() lease.Anchor  { return lease.Anchor{Handle: t.handle} }
func (ticket) Discard(context.Context) {}

func (t ticket) Issue(context.Context) (issued lease.Issued, err error) {
	err = t.w.step(unavailable, func() error {
		c := t.w.credentials[t.handle]
		if c.revoked || !t.w.now.Before(c.until) {
			return fault.New(fault.SourceRefused, "")
		}
		c.issued = true
		issued = lease.Issued{
			Value: lease.Value{{Name: "password", Value: secret.Copy([]byte("s3cret"))}},
			Ref:   t.handle, Expires: c.until, Renewable: true, Revocable: true,
		}
		return nil
	})
	return issued, err
}

func (s source) Renew(_ context.Context, a lease.Anchor, d time.Duration, limit time.Time) (end time.Time, err error) {
	err = s.w.step(unavailable, func() error {
		c := s.w.credentials[a.Handle]
		if c == nil || !s.w.alive(c) {
			return fault.New(fault.LeaseGone, "")
		}
		c.until = s.w.now.Add(d)
		for _, bound := range []time.Time{limit, c.max} {
			if bound.Before(c.until) {
				c.until = bound
			}
		}
		end = c.until
		return nil
	})
	return end, err
}

func (s source) Revoke(_ context.Context, a lease.Anchor) error {
	return s.w.step(unavailable, func() error {
		if c := s.w.credentials[a.Handle]; c != nil {
			c.revoked = true
		}
		return nil
	})
}

func (s source) Inspect(_ context.Context, a lease.Anchor) (standing lease.Standing, err error) {
	err = s.w.step(unavailable, func() error {
		if c := s.w.credentials[a.Handle]; c != nil && s.w.alive(c) {
			standing = lease.Standing{Alive: true, Until: c.until}
		}
		return nil
	})
	return standing, err
}

// ledger is the world's door to the ledger. It judges every move.
type ledger struct {
	lease.Ledger
	w *world
}

func (l ledger) write(effect func() error) error { return l.w.step(lease.ErrStore, effect) }

func (l ledger) Reserve(ctx context.Context, row lease.Lease, quota uint32) error {
	return l.write(func() error { return l.Ledger.Reserve(ctx, row, quota) })
}

func (l ledger) Update(ctx context.Context, row lease.Lease) error {
	return l.write(func() error {
		before, err := l.Ledger.Lease(ctx, row.Name)
		if err == nil && before.Revision == row.Revision && before.State != row.State && !before.State.May(row.State) {
			panic(fmt.Sprintf("%v moves to %v", before, row.State))
		}
		return l.Ledger.Update(ctx, row)
	})
}

func (l ledger) Forget(ctx context.Context, row lease.Lease) error {
	return l.write(func() error { return l.Ledger.Forget(ctx, row) })
}

func (l ledger) Lease(ctx context.Context, n lease.Name) (row lease.Lease, err error) {
	err = l.write(func() (err error) { row, err = l.Ledger.Lease(ctx, n); return err })
	return row, err
}

func (l ledger) Leases(ctx context.Context, q lease.Query) (rows []lease.Lease, err error) {
	err = l.write(func() (err error) { rows, err = l.Ledger.Leases(ctx, q); return err })
	return rows, err
}

func (l ledger) Held(ctx context.Context, workload string, role lease.RoleName, limit uint32) (n uint32, err error) {
	err = l.write(func() (err error) { n, err = l.Ledger.Held(ctx, workload, role, limit); return err })
	return n, err
}

func (l ledger) Due(ctx context.Context, at time.Time, limit int) (rows []lease.Lease, err error) {
	err = l.write(func() (err error) { rows, err = l.Ledger.Due(ctx, at, limit); return err })
	return rows, err
}

// noNotes records nothing: records are the gateway's to test.
type noNotes struct{}

func (noNotes) Intend(context.Context, lease.Deed)      {}
func (noNotes) Done(context.Context, lease.Deed, error) {}

var (
	modelRole = lease.RoleName{Tenant: "acme", Role: "db"}
	owner     = identity.NewWorkload("spiffe://example.org/owner", "owner", false, [32]byte{1})
)

const (
	modelLifetime = 10 * time.Minute
	modelMax      = time.Hour
	modelMargin   = time.Minute
)

func newWorld(t interface{ Fatal(...any) }) *world {
	w := &world{
		now: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC), credentials: map[string]*credential{}, ledger: leasetest.NewLedger(),
	}
	ctx := context.Background()
	w.ledger.AddTenant(modelRole.Tenant)
	err := w.ledger.CreateRole(ctx, lease.Role{
		Name: modelRole, Source: "model", MaxLifetime: modelMax, DefaultLifetime: modelLifetime, Renewable: true, Quota: 1000,
		Parameters: &controlv1.SecretParameters{}, Created: w.now, Revision: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.start()
	return w
}

// start makes a new process over what is stored.
func (w *world) start() {
	w.dead, w.failAt = false, 0
	w.book = lease.NewBook(lease.Config{
		Ledger: ledger{w.ledger, w}, Roles: w.ledger, Sources: map[string]lease.Source{"model": source{w: w}},
		Clock:  lease.NewClock(func() time.Time { return w.now }),
		Logger: slog.New(slog.DiscardHandler), Restored: w.restored,
		Limits: lease.Limits{
			IssueTimeout: 15 * time.Second, Margin: modelMargin, Concurrency: 8, Waiting: 8, Patience: time.Second,
			PerSecond: 1e6, Burst: 1e6, Keep: time.Hour,
		},
	})
}

func (w *world) issue(id int) {
	ctx := context.Background()
	l, value, err := w.book.Issue(ctx, lease.Request{ID: lease.ID{byte(id >> 8), byte(id), 1}, Role: modelRole, Caller: owner})
	if err != nil {
		return
	}
	value.Wipe()
	w.credentials[l.Anchor.Handle].promised = l.Expires
}

// sweep is one round of the sweeper, as at a start if fresh.
func (w *world) sweep(fresh bool) {
	if fresh {
		w.book.Settle(context.Background())
	}
	_ = w.book.Sweep(context.Background(), noNotes{})
}

// settle lets a healthy process work for as long as any credential can live.
func (w *world) settle() {
	w.start()
	w.sweep(true)
	for range 20 {
		w.now = w.now.Add(modelMax / 10)
		w.sweep(false)
	}
}

// check is what must hold at every moment.
func (w *world) check() error {
	rows, err := w.ledger.Leases(context.Background(), lease.Query{})
	if err != nil {
		return err
	}
	known := map[string]lease.Lease{}
	for _, l := range rows {
		known[l.Anchor.Handle] = l
	}
	for handle, c := range w.credentials {
		if !w.alive(c) {
			continue
		}
		row, ok := known[handle]
		switch {
		case !ok:
			return fmt.Errorf("the credential of %v works and the ledger does not know it", c.name)
		case row.State == lease.StateGone:
			return fmt.Errorf("the credential of %v works and the ledger calls it gone", c.name)
		}
	}
	return nil
}

// A process that is killed, or whose calls fail, at each step of issuing, renewing and
// revoking, before the effect and after it, leaves nothing behind.
func TestEveryStepCanBeTheLast(t *testing.T) {
	for name, act := range map[string]func(w *world){
		"issue": func(w *world) { w.issue(2) },
		"renew": func(w *world) {
			_, _ = w.book.Renew(context.Background(), nameOf(1), owner, 0)
		},
		"revoke": func(w *world) { _, _ = w.book.RevokeOwned(context.Background(), nameOf(1), owner) },
		"sweep": func(w *world) {
			w.now = w.now.Add(modelLifetime)
			w.sweep(false)
		},
		"revoke all": func(w *world) {
			_, _ = w.book.RevokeWhere(context.Background(), lease.Query{Workload: owner.Name()})
			w.sweep(false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, immortal := range []bool{false, true} {
				for f := lost; f <= late; f++ {
					for step := 1; everyStep(t, act, step, f, immortal); step++ {
					}
				}
			}
		})
	}
}

func nameOf(id int) lease.Name {
	return lease.Name{Role: modelRole, ID: lease.ID{byte(id >> 8), byte(id), 1}}
}

// everyStep runs act with a failure at one step, and reports whether it has that many.
func everyStep(t *testing.T, act func(*world), step int, f failure, immortal bool) bool {
	t.Helper()
	w := newWorld(t)
	w.immortal = immortal
	w.issue(1)
	w.now = w.now.Add(time.Minute)
	w.failure, w.failAt = f, w.steps+step
	last := w.failAt
	act(w)
	reached := w.steps >= last
	if err := w.check(); err != nil {
		t.Fatalf("step %d, failure %d: %v", step, f, err)
	}
	w.settle()
	if err := w.check(); err != nil {
		t.Fatalf("step %d, failure %d, afterwards: %v", step, f, err)
	}
	for _, c := range w.credentials {
		if w.alive(c) {
			t.Fatalf("step %d, failure %d: the credential of %v works two hours later", step, f, c.name)
		}
	}
	return reached
}

// Random operations, crashes, failures, jumps of the clock and restored backups.
func TestNothingLeaks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.immortal = rapid.Bool().Draw(t, "immortal")
		ids := 0
		ended := map[lease.Name]bool{} // by somebody's wish
		pick := func() lease.Name { return nameOf(1 + rapid.IntRange(0, max(0, ids-1)).Draw(t, "lease")) }
		t.Repeat(map[string]func(*rapid.T){
			"issue": func(*rapid.T) { ids++; w.issue(ids) },
			"renew": func(*rapid.T) {
				n := pick()
				if l, err := w.book.Renew(context.Background(), n, owner, 0); err == nil {
					w.credentials[l.Anchor.Handle].promised = l.Expires
				}
			},
			"revoke": func(*rapid.T) {
				n := pick()
				ended[n] = true
				_, _ = w.book.RevokeOwned(context.Background(), n, owner)
			},
			"abandon": func(*rapid.T) { n := pick(); ended[n] = true; w.book.Abandon(context.Background(), n) },
			"fail": func(t *rapid.T) {
				w.failure = failure(rapid.IntRange(int(lost), int(copied)).Draw(t, "failure"))
				w.failAt = w.steps + rapid.IntRange(1, 12).Draw(t, "in")
			},
			"restart": func(*rapid.T) { w.start(); w.sweep(true) },
			"sweep":   func(*rapid.T) { w.sweep(false) },
			"time": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 900).Draw(t, "seconds")) * time.Second)
			},
			"backup": func(*rapid.T) { w.backup = w.ledger.Clone() },
			"restore": func(t *rapid.T) {
				if w.backup == nil {
					t.Skip("no backup")
				}
				// What was issued after the backup is not in it: those end by themselves.
				for _, c := range w.credentials {
					if _, err := w.backup.Lease(context.Background(), c.name); err != nil {
						c.revoked, c.promised = true, time.Time{}
					}
				}
				w.ledger, w.restored = w.backup.Clone(), w.now
				w.start()
				w.sweep(true)
			},
			"": func(t *rapid.T) {
				if err := w.check(); err != nil {
					t.Fatal(err)
				}
				for _, c := range w.credentials {
					if !ended[c.name] && w.now.Before(c.promised) && !w.alive(c) {
						t.Fatalf("the credential of %v was promised until %v and does not work at %v", c.name, c.promised, w.now)
					}
				}
			},
		})
		w.settle()
		for _, c := range w.credentials {
			if w.alive(c) {
				t.Fatalf("the credential of %v works for ever", c.name)
			}
		}
	})
}
