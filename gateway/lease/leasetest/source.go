package leasetest

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

const (
	// lifetime is what the suite asks for. The role must allow three times as much.
	lifetime = time.Minute
	// patience is how long a source may take for what ends in the background.
	patience = 30 * time.Second
	// rounding is what a source may lose of a lifetime: whole seconds, and the call.
	rounding = 5 * time.Second
)

// Lab is a source and what the suite needs to try it. Role and Fields are required.
type Lab struct {
	// Source works, and is not used by others meanwhile.
	Source lease.Source
	// Role is one that the source serves, whose credentials live until their end or
	// until they are revoked, for at least three minutes.
	Role lease.Role
	// Fields are the names of a credential's parts, sorted.
	Fields []string
	// Renewable and Revocable are what the source must say of the credential.
	Renewable, Revocable bool
	// Works, if set, asks whoever the credential is for whether it works.
	Works func(v lease.Value) bool
	// Now is the source's clock; time.Now if not set.
	Now func() time.Time
}

// Source checks what every lease.Source promises.
func Source(t *testing.T, l Lab) {
	t.Helper()
	if l.Now == nil {
		l.Now = time.Now
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T, Lab)
		// only, if set, says for which sources the test is.
		only func(Lab) bool
	}{
		{"it serves its own kinds of parameters and refuses others", ownKinds, nil},
		{"it tells of itself", tells, nil},
		{"what it issues lives until the stated end", issuesAlive, nil},
		{"no two anchors are the same", anchorsDiffer, nil},
		{"a ticket opens once", ticketOpensOnce, nil},
		{"a discarded ticket opens nothing", discarded, nil},
		{"nothing lives longer than its maximum", maximum, nil},
		{"ended contexts end calls", endedContexts, nil},
		{"anchors that are not its own end nothing and break nothing", foreignAnchors, nil},
		{"a revoked credential does not work, and revoking again succeeds", revokes, Lab.revocable},
		{"revoking what was never issued succeeds", revokesUnissued, Lab.revocable},
		{"the handle alone ends the credential", revokesByHandle, Lab.revocable},
		{"what cannot be revoked is not reported revoked", doesNotRevoke, Lab.irrevocable},
		{"renewing puts off the end, and not beyond the maximum", renews, Lab.renewable},
		{"what was revoked cannot be renewed", renewsNothingGone, Lab.renewable},
		{"what cannot be renewed is not renewed", doesNotRenew, Lab.unrenewable},
	} {
		if test.only == nil || test.only(l) {
			t.Run(test.name, func(t *testing.T) { test.run(t, l) })
		}
	}
}

func (l Lab) revocable() bool   { return l.Revocable }
func (l Lab) irrevocable() bool { return !l.Revocable }
func (l Lab) renewable() bool   { return l.Renewable && l.Revocable }
func (l Lab) unrenewable() bool { return !l.Renewable }

// order is an order for a role's credential, of a lease with a random id.
func (l Lab) order(lifetime time.Duration) lease.Order {
	name := lease.Name{Role: l.Role.Name}
	rand.Read(name.ID[:])
	longest := lifetime
	if l.Role.Renewable {
		longest = 3 * lifetime
	}
	return lease.Order{
		Lease: name, Role: l.Role, Workload: "spiffe://example.org/suite", Registration: "suite",
		Lifetime: lifetime, MaxLifetime: longest, Now: l.Now(),
	}
}

// issue issues a credential, with its complete anchor. The test ends it.
func (l Lab) issue(t *testing.T) (lease.Issued, lease.Anchor) {
	t.Helper()
	ticket, err := l.Source.Prepare(t.Context(), l.order(lifetime))
	check(t, err)
	anchor := ticket.Anchor()
	l.end(t, anchor)
	issued, err := ticket.Issue(t.Context())
	check(t, err)
	anchor.Ref = issued.Ref
	t.Cleanup(issued.Value.Wipe)
	return issued, anchor
}

// end ends what hangs on an anchor when the test is over, where that is possible.
func (l Lab) end(t *testing.T, a lease.Anchor) {
	t.Cleanup(func() {
		if l.Revocable {
			_ = l.Source.Revoke(context.WithoutCancel(t.Context()), a)
		}
	})
}

func ownKinds(t *testing.T, l Lab) {
	check(t, l.Source.Check(l.Role.Parameters))
	for name, p := range map[string]*controlv1.SecretParameters{
		"nothing": nil, "no kind": {},
		"an empty certificate": {Kind: (*controlv1.SecretParameters_LocalCertificate)(nil)},
		"an empty database":    {Kind: &controlv1.SecretParameters_VaultDatabase{}},
		"an empty KV":          {Kind: &controlv1.SecretParameters_VaultKv{VaultKv: &controlv1.VaultKv{}}},
		"an empty dynamic":     {Kind: &controlv1.SecretParameters_VaultDynamic{}},
	} {
		wantReason(t, name, l.Source.Check(p), fault.InvalidArgument)
	}
	foreign := &controlv1.SecretParameters{Kind: &controlv1.SecretParameters_VaultDatabase{
		VaultDatabase: &controlv1.VaultDatabase{Mount: "database", Role: "app"},
	}}
	if l.Source.Kind() == "vault" {
		foreign.Kind = &controlv1.SecretParameters_LocalCertificate{LocalCertificate: &controlv1.LocalCertificate{}}
	}
	wantReason(t, "a foreign kind", l.Source.Check(foreign), fault.InvalidArgument)
	o := l.order(lifetime)
	o.Role.Parameters = foreign
	if ticket, err := l.Source.Prepare(t.Context(), o); err == nil {
		l.end(t, ticket.Anchor())
		t.Error("a foreign kind is prepared")
	} else {
		wantFault(t, err)
	}
}

func tells(t *testing.T, l Lab) {
	if k := l.Source.Kind(); k != "vault" && k != "localca" {
		t.Errorf("kind %q", k)
	}
	check(t, l.Source.Failure())
	for _, roles := range [][]lease.Role{nil, {l.Role}} {
		for _, d := range l.Source.Policy(roles) {
			if d.GetName() == "" || d.GetContent() == "" || d.GetKind() != "policy" && d.GetKind() != "token_role" {
				t.Errorf("document %q %q", d.GetKind(), d.GetName())
			}
		}
	}
	version, err := l.Source.Newest(t.Context(), l.Role.Parameters)
	check(t, err)
	issued, _ := l.issue(t)
	if issued.Version != version {
		t.Errorf("version %d, newest %d", issued.Version, version)
	}
}

func issuesAlive(t *testing.T, l Lab) {
	before := l.Now()
	issued, anchor := l.issue(t)
	if got := issued.Value.Names(); !slices.Equal(got, l.Fields) {
		t.Errorf("fields %q", got)
	}
	for _, f := range issued.Value {
		if f.Value.Wiped() {
			t.Errorf("field %s is wiped", f.Name)
		}
	}
	if issued.Revocable != l.Revocable || issued.Renewable != l.Renewable {
		t.Errorf("revocable %v, renewable %v", issued.Revocable, issued.Renewable)
	}
	earliest, latest := before.Add(lifetime-rounding), l.Now().Add(lifetime)
	if issued.Expires.Before(earliest) || issued.Expires.After(latest) {
		t.Errorf("expires %v, not between %v and %v", issued.Expires, earliest, latest)
	}
	l.works(t, issued.Value, true)
	standing, err := l.Source.Inspect(t.Context(), anchor)
	check(t, err)
	if !standing.Alive || standing.Until.Before(earliest) || standing.Until.After(latest.Add(rounding)) {
		t.Errorf("standing %+v, expires %v", standing, issued.Expires)
	}
	issued.Value.Wipe()
	for _, f := range issued.Value {
		if !f.Value.Wiped() {
			t.Errorf("field %s is not wiped", f.Name)
		}
	}
}

func anchorsDiffer(t *testing.T, l Lab) {
	seen := map[string]bool{"": true}
	for range 3 {
		ticket, err := l.Source.Prepare(t.Context(), l.order(lifetime))
		check(t, err)
		l.end(t, ticket.Anchor())
		if a := ticket.Anchor(); seen[a.Handle] || a.Ref != "" {
			t.Errorf("anchor %+v", a)
		}
		seen[ticket.Anchor().Handle] = true
		ticket.Discard(t.Context())
	}
}

func ticketOpensOnce(t *testing.T, l Lab) {
	ticket, err := l.Source.Prepare(t.Context(), l.order(lifetime))
	check(t, err)
	l.end(t, ticket.Anchor())
	issued, err := ticket.Issue(t.Context())
	check(t, err)
	defer issued.Value.Wipe()
	again, err := ticket.Issue(t.Context())
	if err == nil {
		again.Value.Wipe()
		t.Error("a ticket opens twice")
	}
	ticket.Discard(t.Context()) // both is allowed
	l.works(t, issued.Value, true)
}

func discarded(t *testing.T, l Lab) {
	ticket, err := l.Source.Prepare(t.Context(), l.order(lifetime))
	check(t, err)
	l.end(t, ticket.Anchor())
	ticket.Discard(t.Context())
	ticket.Discard(t.Context())
	if l.revocable() {
		l.gone(t, ticket.Anchor())
	}
	if issued, err := ticket.Issue(t.Context()); err == nil {
		issued.Value.Wipe()
		t.Error("a discarded ticket opens")
	}
}

func maximum(t *testing.T, l Lab) {
	o := l.order(2 * lifetime)
	o.MaxLifetime = lifetime
	ticket, err := l.Source.Prepare(t.Context(), o)
	if err != nil {
		wantFault(t, err)
		return
	}
	l.end(t, ticket.Anchor())
	issued, err := ticket.Issue(t.Context())
	check(t, err)
	defer issued.Value.Wipe()
	if latest := l.Now().Add(lifetime); issued.Expires.After(latest) {
		t.Errorf("expires %v, after %v", issued.Expires, latest)
	}
}

func endedContexts(t *testing.T, l Lab) {
	issued, anchor := l.issue(t)
	ticket, err := l.Source.Prepare(t.Context(), l.order(lifetime))
	check(t, err)
	l.end(t, ticket.Anchor())
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range map[string]func() error{
		"prepare": func() error { _, err := l.Source.Prepare(ended, l.order(lifetime)); return err },
		"issue": func() error {
			issued, err := ticket.Issue(ended)
			issued.Value.Wipe()
			return err
		},
		"renew": func() error {
			_, err := l.Source.Renew(ended, anchor, lifetime, l.Now().Add(2*lifetime))
			return err
		},
		"revoke":  func() error { return l.Source.Revoke(ended, anchor) },
		"inspect": func() error { _, err := l.Source.Inspect(ended, anchor); return err },
		"newest":  func() error { _, err := l.Source.Newest(ended, l.Role.Parameters); return err },
	} {
		begun := time.Now()
		// A source that asks nobody need not look at the context.
		if err := call(); err != nil && !errors.Is(err, context.Canceled) {
			wantFault(t, err)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
	check(t, l.Source.Failure()) // whoever goes away says nothing about the source
	l.works(t, issued.Value, true)
}

func foreignAnchors(t *testing.T, l Lab) {
	issued, _ := l.issue(t)
	for _, a := range []lease.Anchor{
		{},
		{Ref: "x"},
		{Handle: "no such handle"},
		{Handle: "no such handle", Ref: "no such ref"},
		{Handle: "../../sys/seal", Ref: "../../sys/seal"},
		{Handle: "a\x00b\r\nc", Ref: "a/b?c=d#e%2f"},
		{Handle: strings.Repeat("x", 1<<16), Ref: strings.Repeat("y", 1<<16)},
	} {
		if _, err := l.Source.Renew(t.Context(), a, lifetime, l.Now().Add(lifetime)); err == nil {
			t.Errorf("%.40q is renewed", a)
		} else {
			wantFault(t, err)
		}
		if err := l.Source.Revoke(t.Context(), a); err != nil {
			wantFault(t, err)
		}
		if s, err := l.Source.Inspect(t.Context(), a); err != nil {
			wantFault(t, err)
		} else if s.Alive {
			t.Errorf("%.40q lives", a)
		}
	}
	l.works(t, issued.Value, true)
	check(t, l.Source.Failure())
}

func revokes(t *testing.T, l Lab) {
	issued, anchor := l.issue(t)
	other, _ := l.issue(t)
	for range 2 {
		check(t, l.Source.Revoke(t.Context(), anchor))
		l.works(t, issued.Value, false)
		l.gone(t, anchor)
	}
	l.works(t, other.Value, true)
}

func revokesUnissued(t *testing.T, l Lab) {
	ticket, err := l.Source.Prepare(t.Context(), l.order(lifetime))
	check(t, err)
	for range 2 {
		l.revokesInTime(t, ticket.Anchor())
		l.gone(t, ticket.Anchor())
	}
	if issued, err := ticket.Issue(t.Context()); err == nil {
		issued.Value.Wipe()
		t.Error("a ticket whose anchor was revoked opens")
	}
}

func revokesByHandle(t *testing.T, l Lab) {
	issued, anchor := l.issue(t)
	l.revokesInTime(t, lease.Anchor{Handle: anchor.Handle})
	eventually(t, "the end of the credential", func() bool {
		s, err := l.Source.Inspect(t.Context(), anchor)
		return err == nil && !s.Alive
	})
	if l.Works != nil {
		eventually(t, "a credential that does not work", func() bool { return !l.Works(issued.Value) })
	}
}

func doesNotRevoke(t *testing.T, l Lab) {
	issued, anchor := l.issue(t)
	if err := l.Source.Revoke(t.Context(), anchor); err == nil {
		t.Error("the end of what cannot be revoked is confirmed")
	} else {
		wantFault(t, err)
	}
	s, err := l.Source.Inspect(t.Context(), anchor)
	check(t, err)
	if !s.Alive {
		t.Error("what cannot be revoked is said to have ended")
	}
	l.works(t, issued.Value, true)
}

func renews(t *testing.T, l Lab) {
	issued, anchor := l.issue(t)
	begun := l.Now()
	last := begun.Add(2 * lifetime)
	for _, asked := range []time.Duration{lifetime, 2 * lifetime, 10 * lifetime} {
		end, err := l.Source.Renew(t.Context(), anchor, asked, last)
		check(t, err)
		want := begun.Add(min(asked, 2*lifetime))
		if end.After(last) || end.Before(want.Add(-rounding)) || end.After(want.Add(rounding)) {
			t.Errorf("renewed by %v until %v, want about %v and not after %v", asked, end, want, last)
		}
		s, err := l.Source.Inspect(t.Context(), anchor)
		check(t, err)
		if !s.Alive || s.Until.Before(end.Add(-rounding)) {
			t.Errorf("renewed until %v and lives %+v", end, s)
		}
	}
	l.works(t, issued.Value, true)
}

func renewsNothingGone(t *testing.T, l Lab) {
	_, anchor := l.issue(t)
	check(t, l.Source.Revoke(t.Context(), anchor))
	_, err := l.Source.Renew(t.Context(), anchor, lifetime, l.Now().Add(2*lifetime))
	wantReason(t, "what is gone", err, fault.LeaseGone)
}

func doesNotRenew(t *testing.T, l Lab) {
	_, anchor := l.issue(t)
	_, err := l.Source.Renew(t.Context(), anchor, lifetime, l.Now().Add(2*lifetime))
	wantReason(t, "what is not renewable", err, fault.LeaseNotRenewable)
}

func (l Lab) works(t *testing.T, v lease.Value, want bool) {
	t.Helper()
	if l.Works != nil && l.Works(v) != want {
		t.Errorf("the credential works: %v", !want)
	}
}

// revokesInTime revokes without the reference. It may take until no call can be under
// way that would still issue something.
func (l Lab) revokesInTime(t *testing.T, a lease.Anchor) {
	t.Helper()
	eventually(t, "the confirmation", func() bool {
		err := l.Source.Revoke(t.Context(), a)
		if err != nil {
			wantFault(t, err)
		}
		return err == nil
	})
}

func (l Lab) gone(t *testing.T, a lease.Anchor) {
	t.Helper()
	s, err := l.Source.Inspect(t.Context(), a)
	check(t, err)
	if s.Alive {
		t.Errorf("it lives %+v", s)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantFault(t *testing.T, err error) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) && !errors.Is(err, context.Canceled) {
		t.Errorf("%T without a reason: %v", err, err)
	}
}

func wantReason(t *testing.T, what string, err error, want fault.Reason) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Reason != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}
