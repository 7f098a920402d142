package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/identity"
	"github.com/sallyport/sallyport/keys"
)

// Config is what a Book is made of. Every field is required.
type Config struct {
	Ledger  Ledger
	Roles   Roles
	Sources map[string]Source // by name
	Clock   *Clock
	Limits  Limits
	Logger  *slog.Logger
	// Restored is when the ledger was last restored from a backup, or the zero time. What
	// it calls reserved from before may be in use by now, and is adopted instead of
	// revoked.
	Restored time.Time
	// Observe, if set, is told how long a source took for "prepare", "issue", "renew",
	// "revoke" and "inspect".
	Observe func(source, verb string, took time.Duration)
}

// Limits bound what the book asks of sources. Every field is required.
type Limits struct {
	// IssueTimeout is how long issuing may take once it has begun.
	IssueTimeout time.Duration
	// Margin is how long after its stated end a credential may go on until its end is
	// confirmed; then the lease is stuck.
	Margin time.Duration
	// Concurrency is how many calls go to one source at once. A quarter as many, and at
	// least two, are kept for ending leases.
	Concurrency int
	// Waiting is how many calls may wait for their turn, and Patience for how long.
	Waiting  int
	Patience time.Duration
	// PerSecond is how often a workload may ask for leases and renewals, and Burst how
	// many it may ask for at once.
	PerSecond float64
	Burst     int
	// Keep is how long a lease that is gone still answers.
	Keep time.Duration
}

// Book issues, renews and ends leases. It is safe for concurrent use. Its errors are
// *fault.Error, or those of contexts.
type Book struct {
	Config
	started   time.Time
	gates     map[string]gate
	allowance *allowance
	wake      chan struct{}

	mu sync.Mutex
	// unended are leases whose end is decided but could not be written down.
	unended map[Name]struct{}
	changed map[Name]chan struct{} // of those that somebody watches
}

// gate is how calls get to one source.
type gate struct{ issue, end *turnstile }

// NewBook makes a Book.
func NewBook(c Config) *Book {
	b := &Book{
		Config: c, started: c.Clock.Now(), gates: map[string]gate{}, wake: make(chan struct{}, 1),
		allowance: newAllowance(c.Limits.PerSecond, c.Limits.Burst),
		unended:   map[Name]struct{}{}, changed: map[Name]chan struct{}{},
	}
	for name := range c.Sources {
		b.gates[name] = gate{
			newTurnstile(c.Limits.Concurrency, c.Limits.Waiting, c.Limits.Patience),
			newTurnstile(max(2, c.Limits.Concurrency/4), c.Limits.Waiting, c.Limits.Patience),
		}
	}
	return b
}

// Request asks for a lease.
type Request struct {
	// ID is the lease's id, random and never used before.
	ID     ID
	Role   RoleName
	Caller identity.Workload
	// Lifetime is 0 for the role's default.
	Lifetime time.Duration
	// KnownVersion is the version of a versioned secret that the caller has, or 0.
	KnownVersion uint64
	// Sealed says that the value will be sealed to a key of the caller's.
	Sealed bool
}

// Issue issues a credential. Without an error the lease is active and the caller owns
// the value; it calls Abandon if the value does not reach the workload. A zero Lease
// says that the version is unchanged, and nothing was issued.
//
// What a crash leaves behind, step by step: before Reserve, a child token that nobody
// holds and that has opened nothing; after it, a reserved row whose anchor ends
// whatever came into being; after the last Update, an active row with its end.
func (b *Book) Issue(ctx context.Context, r Request) (Lease, Value, error) {
	role, source, err := b.role(ctx, r.Role)
	if err != nil {
		return Lease{}, nil, err
	}
	lifetime, err := lifetimeOf(r, role)
	if err != nil {
		return Lease{}, nil, err
	}
	if err := b.admit(ctx, r.Caller, role); err != nil {
		return Lease{}, nil, err
	}
	leave, err := b.gates[role.Source].issue.enter(ctx, r.Caller.Name())
	if err != nil {
		return Lease{}, nil, err
	}
	defer leave()
	if r.KnownVersion != 0 {
		newest, err := source.Newest(ctx, role.Parameters)
		if err != nil || newest == r.KnownVersion {
			return Lease{}, nil, err
		}
	}
	// What has begun is brought to an end that the ledger knows, even if the caller
	// goes away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.Limits.IssueTimeout)
	defer cancel()
	return b.issue(ctx, r, role, source, lifetime)
}

func (b *Book) issue(ctx context.Context, r Request, role Role, source Source, lifetime time.Duration) (Lease, Value, error) {
	now := b.Clock.Now()
	prepared := b.clocked(role.Source, "prepare")
	ticket, err := source.Prepare(ctx, Order{
		Lease: Name{role.Name, r.ID}, Role: role, Workload: r.Caller.Name(), Registration: r.Caller.Registration(),
		Lifetime: lifetime, MaxLifetime: maxLifetime(role, lifetime), Now: now,
	})
	prepared()
	if err != nil {
		return Lease{}, nil, err
	}
	defer ticket.Discard(ctx)
	l := Lease{
		Name: Name{role.Name, r.ID}, Workload: r.Caller.Name(), Registration: r.Caller.Registration(),
		Evidence: r.Caller.EvidenceDigest(), Source: role.Source, Created: now, Lifetime: lifetime,
		MaxExpires: now.Add(maxLifetime(role, lifetime)), Expires: now.Add(lifetime),
		State: StateReserved, Revision: 1, Anchor: ticket.Anchor(), Due: now.Add(2 * b.Limits.IssueTimeout),
		Revocable: true,
	}
	if err := b.Ledger.Reserve(ctx, l, role.Quota); err != nil {
		// The row may be there all the same. Nothing hangs on its anchor, and now nothing will.
		ticket.Discard(ctx)
		b.Abandon(ctx, l.Name)
		return Lease{}, nil, Fault(err)
	}
	done := b.clocked(role.Source, "issue")
	issued, err := ticket.Issue(ctx)
	done()
	if err != nil {
		issued.Value.Wipe()
		b.Abandon(ctx, l.Name)
		return Lease{}, nil, err
	}
	l.State, l.Anchor.Ref, l.Version = StateActive, issued.Ref, issued.Version
	l.Renewable, l.Revocable = issued.Renewable && role.Renewable, issued.Revocable
	l.Expires = earlier(issued.Expires, l.MaxExpires)
	l.Due = l.Expires
	if err := b.update(ctx, &l); err != nil {
		issued.Value.Wipe()
		b.Abandon(ctx, l.Name)
		return Lease{}, nil, Fault(err)
	}
	return l, issued.Value, nil
}

// clocked begins to measure a call of a source; the result ends it.
func (b *Book) clocked(source, verb string) func() {
	if b.Observe == nil {
		return func() {}
	}
	begun := time.Now()
	return func() { b.Observe(source, verb, time.Since(begun)) }
}

// admit refuses who asks too often or holds too much, before the source is asked.
func (b *Book) admit(ctx context.Context, caller identity.Workload, role Role) error {
	if !b.allowance.take(caller.Name(), b.Clock.Now()) {
		return fault.New(fault.SourceThrottled, "the workload asks too often")
	}
	held, err := b.Ledger.Held(ctx, caller.Name(), role.Name, role.Quota)
	if err != nil {
		return Fault(err)
	}
	if held >= role.Quota {
		return fault.New(fault.QuotaExceeded, "")
	}
	return nil
}

func (b *Book) role(ctx context.Context, n RoleName) (Role, Source, error) {
	role, err := b.Roles.Role(ctx, n)
	if err != nil {
		return Role{}, nil, Fault(err)
	}
	source := b.Sources[role.Source]
	if source == nil {
		return Role{}, nil, fault.New(fault.SourceRefused, "the role's source is not configured")
	}
	return role, source, nil
}

func lifetimeOf(r Request, role Role) (time.Duration, error) {
	switch {
	case role.SealedOnly && !r.Sealed:
		return 0, fault.New(fault.InvalidRecipient, "the role delivers to a recipient's key only")
	case r.Lifetime < 0 || r.Lifetime > 0 && r.Lifetime < time.Second:
		return 0, fault.New(fault.InvalidArgument, "lifetime must be at least one second")
	case r.Lifetime > role.MaxLifetime:
		return 0, fault.New(fault.LifetimeExceeded, "")
	case r.Lifetime == 0:
		return role.DefaultLifetime, nil
	}
	return r.Lifetime, nil
}

// maxLifetime is how long a lease may live with renewals.
func maxLifetime(role Role, lifetime time.Duration) time.Duration {
	if role.Renewable {
		return role.MaxLifetime
	}
	return lifetime
}

// Owned gives a lease of the caller's. Somebody else's is as unknown as one that is
// not there.
func (b *Book) Owned(ctx context.Context, n Name, caller identity.Workload) (Lease, error) {
	l, err := b.Ledger.Lease(ctx, n)
	if err != nil {
		return Lease{}, Fault(err)
	}
	if l.Workload != caller.Name() {
		return Lease{}, fault.New(fault.NotFound, "")
	}
	return l, nil
}

// Renew puts off the end of one of the caller's leases, by lifetime from now (0 for
// what it was issued for) as far as the role and the source allow.
func (b *Book) Renew(ctx context.Context, n Name, caller identity.Workload, lifetime time.Duration) (Lease, error) {
	l, err := b.Owned(ctx, n, caller)
	if err != nil {
		return Lease{}, err
	}
	role, source, err := b.role(ctx, n.Role)
	switch {
	case err != nil:
		return Lease{}, err
	case l.State != StateActive || !b.Clock.Now().Before(l.Expires):
		return Lease{}, fault.New(fault.LeaseGone, "")
	case !l.Renewable || !role.Renewable || source != b.Sources[l.Source]:
		return Lease{}, fault.New(fault.LeaseNotRenewable, "")
	}
	if lifetime == 0 {
		lifetime = l.Lifetime
	}
	if lifetime, err = lifetimeOf(Request{Lifetime: lifetime, Sealed: true}, role); err != nil {
		return Lease{}, err
	}
	if !b.allowance.take(caller.Name(), b.Clock.Now()) {
		return Lease{}, fault.New(fault.SourceThrottled, "the workload asks too often")
	}
	leave, err := b.gates[l.Source].issue.enter(ctx, caller.Name())
	if err != nil {
		return Lease{}, err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.Limits.IssueTimeout)
	defer cancel()
	done := b.clocked(l.Source, "renew")
	end, err := source.Renew(ctx, l.Anchor, lifetime, l.MaxExpires)
	done()
	if errors.Is(err, fault.New(fault.LeaseGone, "")) {
		b.look(ctx, l) // the sweeper finds out what became of it
	}
	if err != nil {
		return Lease{}, err
	}
	return b.noteRenewed(ctx, l, earlier(end, l.MaxExpires))
}

// noteRenewed writes down a renewal that the source has done. If that fails, the
// ledger names an earlier end than the true one, and the sweeper asks before it acts
// on it.
func (b *Book) noteRenewed(ctx context.Context, l Lease, end time.Time) (Lease, error) {
	for {
		l.Expires, l.Due, l.Failures, l.Failure = end, end, 0, ""
		err := b.update(ctx, &l)
		if err == nil || !errors.Is(err, ErrConflict) {
			return l, Fault(err)
		}
		if l, err = b.Ledger.Lease(ctx, l.Name); err != nil {
			return Lease{}, Fault(err)
		}
		if l.State != StateActive {
			return Lease{}, fault.New(fault.LeaseGone, "")
		}
	}
}

// look makes an active lease due, so that the sweeper asks the source about it.
func (b *Book) look(ctx context.Context, l Lease) {
	l.Due = b.Clock.Now()
	if err := b.update(ctx, &l); err == nil {
		b.Wake()
	}
}

// RevokeOwned ends one of the caller's leases. It returns when the end is durably
// decided, and tries to bring it about at once; the state says whether it came. A
// lease that is ending or gone already is given as it is.
func (b *Book) RevokeOwned(ctx context.Context, n Name, caller identity.Workload) (Lease, error) {
	l, err := b.Owned(ctx, n, caller)
	if err != nil {
		return Lease{}, err
	}
	if l, _, err = b.decide(ctx, l); err != nil {
		return Lease{}, err
	}
	if l.State != StateRevoking || !l.Revocable {
		return l, nil
	}
	l, _ = b.attempt(ctx, l, (*turnstile).enter)
	if l.State != StateGone {
		b.Wake() // the sweeper goes on
	}
	return l, nil
}

// RevokeWhere decides the end of every lease that matches and says of how many. The
// sweeper brings it about.
func (b *Book) RevokeWhere(ctx context.Context, q Query) (int, error) {
	q.Live, q.Limit = true, 256
	revoked := 0
	defer b.Wake()
	for {
		page, err := b.Ledger.Leases(ctx, q)
		if err != nil {
			return revoked, Fault(err)
		}
		for _, l := range page {
			_, moved, err := b.decide(ctx, l)
			if err != nil {
				return revoked, err
			}
			if moved {
				revoked++
			}
		}
		if len(page) < q.Limit {
			return revoked, nil
		}
		last := page[len(page)-1]
		q.After = Cursor{last.Created, last.Name.ID}
	}
}

// decide moves a lease that lives to revoking, and reports whether it did.
func (b *Book) decide(ctx context.Context, l Lease) (_ Lease, moved bool, err error) {
	for {
		if !l.State.May(StateRevoking) || l.State == StateRevoking {
			return l, false, nil
		}
		l.State, l.Due, l.Failures, l.Failure = StateRevoking, b.Clock.Now(), 0, ""
		if !l.Revocable {
			l.Due = l.Expires // until then nothing can end it
		}
		if err = b.update(ctx, &l); err == nil {
			return l, true, nil
		}
		if !errors.Is(err, ErrConflict) {
			return l, false, Fault(err)
		}
		if l, err = b.Ledger.Lease(ctx, l.Name); err != nil {
			return l, false, Fault(err)
		}
	}
}

// Abandon ends a lease whose value did not reach the workload. It does not fail: what
// cannot be written down now is tried again with every sweep, and a crash before that
// leaves a row that the next start, or the credential's own end, settles.
func (b *Book) Abandon(ctx context.Context, n Name) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.Limits.IssueTimeout)
	defer cancel()
	if err := b.abandon(ctx, n); err != nil {
		b.Logger.ErrorContext(ctx, "the end of a lease could not be written down and will be tried again", "lease", n, "error", err)
		b.mu.Lock()
		b.unended[n] = struct{}{}
		b.mu.Unlock()
	}
	b.Wake()
}

func (b *Book) abandon(ctx context.Context, n Name) error {
	l, err := b.Ledger.Lease(ctx, n)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		_, _, err = b.decide(ctx, l)
	}
	return err
}

// update writes a row that has moved, counts its revision, and tells those who watch.
func (b *Book) update(ctx context.Context, l *Lease) error {
	if err := b.Ledger.Update(ctx, *l); err != nil {
		return err
	}
	l.Revision++
	b.tell(l.Name)
	return nil
}

// Changed gives a channel that is closed with the next change of the lease in this
// process.
func (b *Book) Changed(n Name) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed[n] == nil {
		b.changed[n] = make(chan struct{})
	}
	return b.changed[n]
}

func (b *Book) tell(n Name) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.changed[n]; c != nil {
		close(c)
		delete(b.changed, n)
	}
}

// Held lists the caller's leases in a tenant that are not gone.
func (b *Book) Held(ctx context.Context, t keys.Tenant, caller identity.Workload, after Cursor, limit int) ([]Lease, error) {
	rows, err := b.Ledger.Leases(ctx, Query{Tenant: t, Workload: caller.Name(), Live: true, After: after, Limit: limit})
	return rows, Fault(err)
}

// Fault turns an error of a Ledger or Roles into a *fault.Error with a reason; others
// pass.
func Fault(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNotFound):
		return fault.Wrap(fault.NotFound, "", err)
	case errors.Is(err, ErrExists):
		return fault.Wrap(fault.AlreadyExists, "", err)
	case errors.Is(err, ErrConflict):
		return fault.Wrap(fault.Conflict, "", err)
	case errors.Is(err, ErrQuota):
		return fault.Wrap(fault.QuotaExceeded, "", err)
	case errors.Is(err, ErrStore):
		return fault.Wrap(fault.StoreUnavailable, "", err)
	}
	return err
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// String names the lease and its state, for logs.
func (l Lease) String() string { return fmt.Sprintf("%v (%v)", l.Name, l.State) }
