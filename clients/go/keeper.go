package sallyport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	// settled is how long something must go well for the next failure to be the first.
	settled = 10 * time.Second
	// obstinate is about how long a refusal is left alone: people must change something.
	obstinate = 5 * time.Minute
	// leaseTimeout bounds leasing and renewing from here; the gateway lets calls wait for
	// the source.
	leaseTimeout = 40 * time.Second
	// revokeTimeout bounds revoking what was replaced, which holds up the rest.
	revokeTimeout = 5 * time.Second

	pauseBase = time.Second
	pauseMax  = time.Minute
)

// pauses counts failures. The pause after the n-th is a random time up to
// pauseBase·2ⁿ⁻¹, at most pauseMax: full jitter, as in calls.
type pauses struct{ failures int }

func (p *pauses) next() time.Duration {
	p.failures++
	return rand.N(min(pauseBase<<min(p.failures-1, 16), pauseMax))
}

// after gives the pause after a failure of that kind.
func (p *pauses) after(err error) time.Duration {
	pause := p.next()
	var e *Error
	if errors.As(err, &e) && hopeless(e.Reason) {
		return obstinate*3/4 + rand.N(obstinate/2)
	}
	return pause
}

// hopeless reports whether asking again helps only when somebody has changed something.
// A certificate is changed by itself.
func hopeless(r Reason) bool {
	switch r {
	case InvalidArgument, LifetimeExceeded, InvalidRecipient, UnknownMethod, NotFound, UnexpectedAnswer, DecryptionFailed:
		return true
	case CertificateExpired, CertificateNotYetValid, CertificateUntrusted, CertificateRevoked:
		return false
	default:
		return r.Refused()
	}
}

// keeper is the goroutine of a Kept, and what only that touches.
type keeper struct {
	kept    *Kept
	role    SecretRole
	options KeepOptions

	// newest is what was leased last, nil when that has been lost. It is current once it
	// is accepted.
	newest   *Secret
	accepted bool
	took     time.Time
	period   time.Duration // the lifetime that it was leased with

	// When something is due; the zero time is never.
	refresh, offer, watch    time.Time
	refused, declined, broke pauses // the failures of these three
	losses                   pauses // of leases that were lost soon

	stream  chan event // nil if there is none
	opened  time.Time
	cut     context.CancelFunc
	helpers sync.WaitGroup // what reads streams, and what wipes

	retired []retired
}

// retired is a secret that has been replaced.
type retired struct {
	secret *Secret
	due    time.Time // to be revoked
	failed pauses
}

// run keeps the secret fresh until ctx ends.
func (k *keeper) run(ctx context.Context) {
	defer k.helpers.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case e := <-k.stream:
			k.handle(ctx, e)
		}
		k.work(ctx)
		if next := k.next(); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
	}
}

// work does what is due.
func (k *keeper) work(ctx context.Context) {
	due := func(t time.Time) bool { return ctx.Err() == nil && !t.IsZero() && !time.Now().Before(t) }
	if due(k.refresh) {
		k.renew(ctx)
	}
	if due(k.offer) {
		k.offerNewest(ctx)
	}
	if due(k.watch) {
		k.open(ctx)
	}
	for i := 0; i < len(k.retired); {
		if due(k.retired[i].due) && k.retire(ctx, &k.retired[i]) {
			k.retired = slices.Delete(k.retired, i, i+1)
		} else {
			i++
		}
	}
}

// next is when something is due again.
func (k *keeper) next() (first time.Time) {
	consider := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	consider(k.refresh)
	consider(k.offer)
	consider(k.watch)
	for _, r := range k.retired {
		consider(r.due)
	}
	return first
}

// take begins to keep a secret that was just leased.
func (k *keeper) take(s *Secret) {
	if k.newest != nil && !k.accepted {
		k.dismiss(k.newest)
	}
	l := s.Lease()
	k.newest, k.accepted, k.took, k.period = s, false, time.Now(), l.Expires.Sub(l.Created)
	k.offer, k.watch = k.took, k.took
	k.schedule()
}

// schedule sets when the newest secret is refreshed from here. The gateway does it when
// about two thirds of the time are over, and has failed if it has not by then.
func (k *keeper) schedule() {
	left := max(time.Until(k.newest.end()), 0)
	k.refresh = time.Now().Add(max(left*4/5+rand.N(left/10+1), pauseBase))
	k.refused = pauses{}
}

// heard notes what the gateway says of the newest lease.
func (k *keeper) heard(l Lease) {
	if l.State != LeaseActive {
		k.lost(&Error{Reason: LeaseGone, Message: "the lease is " + string(l.State), Receipt: l.Receipt})
		return
	}
	if k.newest.note(l) {
		k.kept.fail(nil)
		k.schedule()
	}
}

// lost forgets the newest lease, which has ended for the gateway, and asks for another.
// If leases are lost soon after they were given, the pauses grow.
func (k *keeper) lost(why error) {
	k.report(why)
	if k.accepted {
		k.kept.lose(why)
	} else {
		k.dismiss(k.newest)
	}
	k.newest, k.offer, k.watch = nil, time.Time{}, time.Time{}
	k.drop()
	if time.Since(k.took) > settled {
		k.losses = pauses{}
	}
	k.refresh, k.refused = time.Now().Add(k.losses.next()), pauses{}
}

// renew refreshes the newest secret from here: it renews the lease while that gains
// something, and otherwise leases anew.
func (k *keeper) renew(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, patient{}, true), leaseTimeout)
	defer cancel()
	if k.renewable() {
		l, err := k.role.Renew(ctx, k.newest.Lease().Name, k.options.Lifetime)
		switch {
		case err == nil:
			// The source may grant less than it was asked for, or nothing.
			if k.heard(l); k.newest == nil || time.Now().Before(k.refresh) && time.Until(k.newest.end()) > k.period/4 {
				return
			}
		case errors.Is(err, LeaseGone):
			k.lost(err)
			return
		case errors.Is(err, LeaseNotRenewable), errors.Is(err, PermissionDenied), errors.Is(err, NotFound):
			// Not allowed, or not known: a store from a backup has forgotten the lease.
		default:
			k.refreshFailed(ctx, err)
			return
		}
	}
	s, err := k.role.Lease(ctx, k.options.leaseOptions()...)
	if err != nil {
		k.refreshFailed(ctx, err)
		return
	}
	k.drop() // it is about the lease before
	k.kept.fail(nil)
	k.take(s)
}

// renewable reports whether renewing the newest lease can gain more than a little.
func (k *keeper) renewable() bool {
	if k.newest == nil || !time.Now().Before(k.newest.end()) {
		return false
	}
	l := k.newest.Lease()
	return l.Renewable && l.MaxExpires.Sub(l.Expires) > k.period/4
}

func (k *keeper) refreshFailed(ctx context.Context, err error) {
	k.refresh = time.Now().Add(k.refused.after(err))
	k.failed(ctx, err)
}

// offerNewest gives the newest secret to OnChange, and makes it current if that accepts
// it.
func (k *keeper) offerNewest(ctx context.Context) {
	k.offer = time.Time{}
	if k.accepted || k.newest == nil || !time.Now().Before(k.newest.end()) {
		return
	}
	if change := k.options.OnChange; change != nil {
		bounded, cancel := context.WithDeadline(ctx, k.newest.end())
		err := change(bounded, k.newest)
		cancel()
		if err != nil {
			k.offer = time.Now().Add(k.declined.next())
			k.failed(ctx, fmt.Errorf("sallyport: a new secret of %s was not accepted: %w", k.role.name, err))
			return
		}
	}
	k.accepted, k.declined = true, pauses{}
	k.kept.fail(nil)
	k.dismiss(k.kept.change(k.newest))
}

// dismiss lets a secret go that another has replaced.
func (k *keeper) dismiss(s *Secret) {
	due := time.Now().Add(max(k.options.Grace, 0))
	if end := s.end(); end.Before(due) {
		due = end
	}
	k.retired = append(k.retired, retired{secret: s, due: due})
}

// retire wipes and revokes what was replaced, and reports whether that is done with.
func (k *keeper) retire(ctx context.Context, r *retired) bool {
	if r.failed.failures == 0 {
		k.helpers.Go(r.secret.Wipe) // which waits for who is using it
	}
	if !time.Now().Before(r.secret.end()) {
		return true
	}
	bounded, cancel := context.WithTimeout(context.WithValue(ctx, patient{}, true), revokeTimeout)
	defer cancel()
	_, err := k.role.Revoke(bounded, r.secret.Lease().Name)
	if err == nil || errors.Is(err, NotFound) || errors.Is(err, LeaseGone) {
		return true
	}
	r.due = time.Now().Add(r.failed.after(err))
	if end := r.secret.end(); end.Before(r.due) {
		r.due = end
	}
	k.report(err)
	return false
}

// failed notes and reports what hinders, unless it is that Close was called.
func (k *keeper) failed(ctx context.Context, err error) {
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	k.kept.fail(err)
	k.report(err)
}

func (k *keeper) report(err error) {
	if k.options.OnError != nil {
		k.options.OnError(err)
	}
}

// end revokes and wipes everything. The goroutine has ended.
func (k *keeper) end(ctx context.Context) error {
	all := []*Secret{k.kept.current}
	if k.newest != nil && !k.accepted {
		all = append(all, k.newest)
	}
	for _, r := range k.retired {
		all = append(all, r.secret)
	}
	wiped := make(chan struct{})
	go func() {
		defer close(wiped)
		for _, s := range all {
			s.Wipe()
		}
	}()
	var errs []error
	for _, s := range all {
		if !time.Now().Before(s.end()) {
			continue
		}
		if _, err := k.role.Revoke(ctx, s.Lease().Name); err != nil {
			errs = append(errs, err)
		}
	}
	select {
	case <-wiped:
	case <-ctx.Done():
		errs = append(errs, &Error{Reason: DeadlineExceeded, Message: "the secret is still being used", cause: ctx.Err()})
	}
	return errors.Join(errs...)
}
