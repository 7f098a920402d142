package lease_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/identity"
	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/gateway/lease/leasetest"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

func reasonOf(err error) fault.Reason {
	if err == nil {
		return 0
	}
	return fault.From(err).Reason
}

func state(t *testing.T, w *world, id int) lease.Lease {
	t.Helper()
	l, err := w.ledger.Lease(t.Context(), nameOf(id))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A lease whose end cannot be confirmed for as long as its credential can live is
// stuck, and the tries go on until one succeeds.
func TestStuckIsNotTheEnd(t *testing.T) {
	w := newWorld(t)
	w.immortal = true
	w.issue(1)
	broken := true
	s := brokenSource{source{w: w}, &broken}
	w.book.Sources["model"] = s
	if _, err := w.book.RevokeOwned(t.Context(), nameOf(1), owner); err != nil {
		t.Fatal(err)
	}
	if l := state(t, w, 1); l.State != lease.StateRevoking || l.Failures != 1 || l.Failure != "SOURCE_UNAVAILABLE" {
		t.Fatalf("after the first try: %v, %d failures, %s", l, l.Failures, l.Failure)
	}
	for range 40 {
		w.now = w.now.Add(time.Minute)
		w.sweep(false)
		l := state(t, w, 1)
		if beyond := w.now.After(l.Expires.Add(modelMargin + 6*time.Minute)); beyond != (l.State == lease.StateStuck) && beyond {
			t.Fatalf("%v at %v, which ends at %v", l, w.now, l.Expires)
		}
	}
	if l := state(t, w, 1); l.State != lease.StateStuck || !l.Due.After(w.now) {
		t.Fatalf("%v, due %v", l, l.Due)
	}
	broken = false
	w.now = w.now.Add(10 * time.Minute)
	w.sweep(false)
	if l := state(t, w, 1); l.State != lease.StateGone {
		t.Fatalf("%v after the source came back", l)
	}
}

type brokenSource struct {
	source
	broken *bool
}

func (s brokenSource) Revoke(ctx context.Context, a lease.Anchor) error {
	if *s.broken {
		return unavailable
	}
	return s.source.Revoke(ctx, a)
}

// A lease whose end could not be written down is ended by a later sweep of the same
// process.
func TestAbandonIsRemembered(t *testing.T) {
	w := newWorld(t)
	w.issue(1)
	faulty := leasetest.NewFaulty(ledger{w.ledger, w}, w.ledger)
	w.book.Ledger = faulty
	faulty.Always("Lease", leasetest.Lost)
	w.book.Abandon(t.Context(), nameOf(1))
	w.sweep(false)
	if l := state(t, w, 1); l.State != lease.StateActive {
		t.Fatalf("%v while the store fails", l)
	}
	faulty.Always("Lease", nil)
	w.sweep(false)
	if l := state(t, w, 1); l.State != lease.StateGone {
		t.Fatalf("%v after the store came back", l)
	}
}

// Rows that are gone are forgotten after a while, and answer until then.
func TestGoneIsForgotten(t *testing.T) {
	w := newWorld(t)
	w.issue(1)
	if _, err := w.book.RevokeOwned(t.Context(), nameOf(1), owner); err != nil {
		t.Fatal(err)
	}
	if _, err := w.book.Renew(t.Context(), nameOf(1), owner, 0); reasonOf(err) != fault.LeaseGone {
		t.Errorf("renewing the gone: %v", err)
	}
	if l, err := w.book.RevokeOwned(t.Context(), nameOf(1), owner); err != nil || l.State != lease.StateGone {
		t.Errorf("revoking twice: %v, %v", l, err)
	}
	w.now = w.now.Add(59 * time.Minute)
	w.sweep(false)
	state(t, w, 1)
	w.now = w.now.Add(2 * time.Minute)
	w.sweep(false)
	if _, err := w.ledger.Lease(t.Context(), nameOf(1)); !errors.Is(err, lease.ErrNotFound) {
		t.Errorf("after an hour: %v", err)
	}
}

// Who is not the owner finds nothing.
func TestForeignLeasesAreUnknown(t *testing.T) {
	w := newWorld(t)
	w.issue(1)
	stranger := identity.NewWorkload("spiffe://example.org/stranger", "stranger", false, [32]byte{2})
	_, err := w.book.Owned(t.Context(), nameOf(1), stranger)
	_, err2 := w.book.Renew(t.Context(), nameOf(1), stranger, 0)
	_, err3 := w.book.RevokeOwned(t.Context(), nameOf(1), stranger)
	for _, err := range []error{err, err2, err3} {
		if reasonOf(err) != fault.NotFound {
			t.Errorf("got %v", err)
		}
	}
	if state(t, w, 1).State != lease.StateActive {
		t.Error("a stranger has ended it")
	}
}

// A renewal reaches as far as the role's maximum and says how far that is.
func TestRenewalTellsTheTrueEnd(t *testing.T) {
	w := newWorld(t)
	w.issue(1)
	begin := w.now
	for minute := 5; minute < 60; minute += 5 {
		w.now = begin.Add(time.Duration(minute) * time.Minute)
		l, err := w.book.Renew(t.Context(), nameOf(1), owner, 0)
		want := begin.Add(min(time.Duration(minute)*time.Minute+modelLifetime, modelMax))
		if err != nil || !l.Expires.Equal(want) {
			t.Fatalf("after %d minutes: until %v, want %v; %v", minute, l.Expires, want, err)
		}
	}
	w.now = begin.Add(modelMax)
	if _, err := w.book.Renew(t.Context(), nameOf(1), owner, 0); reasonOf(err) != fault.LeaseGone {
		t.Errorf("after the maximum: %v", err)
	}
	if _, err := w.book.Renew(t.Context(), nameOf(1), owner, 2*modelMax); reasonOf(err) != fault.LeaseGone {
		t.Errorf("too long, and gone: %v", err)
	}
}

// The quota holds whatever happens at once, and what is over it leaves no credential.
func TestQuota(t *testing.T) {
	w := newWorld(t)
	role, err := w.ledger.Role(t.Context(), modelRole)
	if err != nil {
		t.Fatal(err)
	}
	role.Quota = 3
	if err := w.ledger.UpdateRole(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 20)
	for i := range cap(results) {
		go func() {
			_, _, err := w.book.Issue(context.Background(), lease.Request{ID: lease.ID{byte(i), 9}, Role: modelRole, Caller: owner})
			results <- err
		}()
	}
	issued := 0
	for range cap(results) {
		switch reasonOf(<-results) {
		case 0:
			issued++
		case fault.QuotaExceeded, fault.SourceThrottled:
		default:
			t.Error("another reason")
		}
	}
	alive := 0
	for _, c := range w.credentials {
		if w.alive(c) {
			alive++
		}
	}
	if issued != 3 || alive != 3 {
		t.Errorf("%d issued and %d alive, with a quota of 3", issued, alive)
	}
}

// Operators end leases by every filter, and those that they do not name go on.
func TestRevokeWhere(t *testing.T) {
	w := newWorld(t)
	for i := 1; i <= 600; i++ {
		w.issue(i)
		w.now = w.now.Add(time.Millisecond)
	}
	since := state(t, w, 301).Created
	n, err := w.book.RevokeWhere(t.Context(), lease.Query{Since: since})
	if err != nil || n != 300 {
		t.Fatalf("%d, %v", n, err)
	}
	w.sweep(false)
	counts, err := w.ledger.Count(t.Context())
	if err != nil || counts[lease.StateActive] != 300 || counts[lease.StateGone] != 300 {
		t.Errorf("%v, %v", counts, err)
	}
	if n, err := w.book.RevokeWhere(t.Context(), lease.Query{Workload: "spiffe://example.org/nobody"}); n != 0 || err != nil {
		t.Errorf("nobody's: %d, %v", n, err)
	}
}

// The sweeper ends everything that is due, however few may be at the source at once and
// however little room there is to wait: its own queue is no failure of the source. A
// workload that finds no room leaves the end to it.
func TestSweeperWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		open := make(chan struct{})
		w.book.Sources["model"] = blockedSource{source{w: w}, open}
		const leases = 100
		for i := 1; i <= leases; i++ {
			w.issue(i)
		}
		if n, err := w.book.RevokeWhere(t.Context(), lease.Query{}); err != nil || n != leases {
			t.Fatalf("%d, %v", n, err)
		}
		w.issue(leases + 1)
		swept := make(chan error)
		go func() { swept <- w.book.Sweep(t.Context(), noNotes{}) }()
		synctest.Wait()
		if l, err := w.book.RevokeOwned(t.Context(), nameOf(leases+1), owner); err != nil || l.State != lease.StateRevoking || l.Failures != 0 {
			t.Errorf("without room: %v, %d failures, %v", l, l.Failures, err)
		}
		time.Sleep(2 * time.Minute) // longer than anybody's patience
		putOff := 0
		for i := 1; i <= leases+1; i++ {
			if l := state(t, w, i); l.State != lease.StateRevoking || l.Failures != 0 {
				t.Errorf("while the source is busy: %v, %d failures, %s", l, l.Failures, l.Failure)
			} else if l.Due.After(w.now) {
				putOff++
			}
		}
		if putOff != leases-1 { // two are at the source
			t.Errorf("%d were put off, so that other sources come to their turn", putOff)
		}
		close(open)
		if err := <-swept; err != nil {
			t.Error(err)
		}
		w.now = w.now.Add(time.Second) // what waited for long was put off
		w.sweep(false)
		for i := 1; i <= leases+1; i++ {
			if l := state(t, w, i); l.State != lease.StateGone {
				t.Errorf("in the end: %v, %d failures, %s", l, l.Failures, l.Failure)
			}
		}
	})
}

// blockedSource answers nothing before it is open. It has more patience than its callers.
type blockedSource struct {
	source
	open chan struct{}
}

func (s blockedSource) Revoke(ctx context.Context, a lease.Anchor) error {
	<-s.open
	return s.source.Revoke(ctx, a)
}

// What has a watcher is told of every change, once.
func TestChanged(t *testing.T) {
	w := newWorld(t)
	w.issue(1)
	c := w.book.Changed(nameOf(1))
	if _, err := w.book.Renew(t.Context(), nameOf(1), owner, 0); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c:
	default:
		t.Error("nobody was told of the renewal")
	}
}

// A version that the caller has is not issued again.
func TestKnownVersion(t *testing.T) {
	w := newWorld(t)
	w.book.Sources["model"] = versioned{source{w: w}}
	l, value, err := w.book.Issue(t.Context(), lease.Request{ID: lease.ID{1}, Role: modelRole, Caller: owner, KnownVersion: 7})
	if err != nil || l.State != 0 || value != nil || len(w.credentials) != 0 {
		t.Errorf("unchanged: %v, %v, %v", l, value, err)
	}
	if _, _, err := w.book.Issue(t.Context(), lease.Request{ID: lease.ID{2}, Role: modelRole, Caller: owner, KnownVersion: 6}); err != nil || len(w.credentials) != 1 {
		t.Errorf("changed: %v", err)
	}
}

type versioned struct{ source }

func (versioned) Newest(context.Context, *controlv1.SecretParameters) (uint64, error) { return 7, nil }

// Values print their names only.
func TestValuesDoNotPrint(t *testing.T) {
	w := newWorld(t)
	_, value, err := w.book.Issue(t.Context(), lease.Request{ID: lease.ID{1}, Role: modelRole, Caller: owner})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(value.Names(), []string{"password"}) {
		t.Errorf("names %v", value.Names())
	}
	value.Wipe()
	for _, f := range value {
		if !f.Value.Wiped() {
			t.Errorf("%s is not wiped", f.Name)
		}
	}
}
