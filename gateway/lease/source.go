package lease

import (
	"context"
	"slices"
	"time"

	"github.com/sallyport/sallyport/crypto/secret"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// Source is where credentials come from. Every method but the pure ones respects the
// context's deadline and has one of its own, fails quickly while the source is known
// to be down, and returns a *fault.Error with one of the SOURCE reasons. The
// conformance suite is gateway/lease/leasetest.
type Source interface {
	// Kind is "vault" or "localca".
	Kind() string
	// Check refuses, with INVALID_ARGUMENT, parameters that the source cannot serve. It
	// asks nobody.
	Check(p *controlv1.SecretParameters) error
	// Policy gives the least that the source must allow the gateway, for the given
	// roles. It asks nobody.
	Policy(roles []Role) []*controlv1.SourceDocument
	// Failure tells why the source cannot issue now, or nil.
	Failure() error

	// Prepare makes what the credential will hang on, and nothing that opens anything.
	Prepare(ctx context.Context, o Order) (Ticket, error)
	// Renew puts off the credential's end by up to lifetime from now, never beyond last,
	// and tells the true end. A credential that has ended already is LEASE_GONE.
	Renew(ctx context.Context, a Anchor, lifetime time.Duration, last time.Time) (time.Time, error)
	// Revoke ends the credential, and everything else that hangs on the anchor. It
	// returns nil only if the end is confirmed: the credential does not work any more.
	// What has ended already is confirmed. The Ref may be missing: a crash came between
	// Prepare and its being noted.
	Revoke(ctx context.Context, a Anchor) error
	// Inspect tells whether the credential lives, and until when at the latest.
	Inspect(ctx context.Context, a Anchor) (Standing, error)
	// Newest gives the version of a versioned secret, without reading the value; 0 if
	// the secret has none.
	Newest(ctx context.Context, p *controlv1.SecretParameters) (uint64, error)
}

// Order is what a source is asked for.
type Order struct {
	Lease    Name
	Role     Role
	Workload string
	// Registration is the id of the workload's row in the register.
	Registration string
	// Lifetime is how long the credential shall live, and MaxLifetime how long it may
	// with renewals.
	Lifetime, MaxLifetime time.Duration
	// Now is the gateway's judgement of the time.
	Now time.Time
}

// Ticket is a credential that can be asked for, once. Whoever holds one calls Issue
// or Discard, or both.
type Ticket interface {
	// Anchor must be durable before Issue is called.
	Anchor() Anchor
	Issue(ctx context.Context) (Issued, error)
	// Discard wipes what the ticket holds and, if Issue was not called, ends what was
	// prepared. What it cannot end opens nothing and ends by itself. After Issue it ends
	// nothing: Source.Revoke does.
	Discard(ctx context.Context)
}

// Issued is a credential. The receiver wipes the value.
type Issued struct {
	Value Value
	// Ref completes the anchor.
	Ref string
	// Expires is the true end, not the one that was asked for.
	Expires              time.Time
	Renewable, Revocable bool
	Version              uint64
}

// Standing is how a credential is doing.
type Standing struct {
	Alive bool
	// Until is when it ends by itself, if it lives.
	Until time.Time
}

// Value is the parts of a credential, by name and in its order. It prints the names
// only.
type Value []Field

// Field is one part.
type Field struct {
	Name  string
	Value secret.Bytes
}

// Wipe wipes every part.
func (v Value) Wipe() {
	for _, f := range v {
		f.Value.Wipe()
	}
}

// Names lists the names.
func (v Value) Names() []string {
	names := make([]string, len(v))
	for i, f := range v {
		names[i] = f.Name
	}
	slices.Sort(names)
	return names
}
