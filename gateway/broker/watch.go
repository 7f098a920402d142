package broker

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/sallyport/sallyport/crypto/delivery"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// How a watch goes about it.
const (
	// versionInterval is how often a versioned secret is asked for its newest version.
	versionInterval = 30 * time.Second
	// shortestWait keeps a credential of a second from being replaced without pause.
	shortestWait = time.Second
)

// watch makes one reply of a stream. The first says how the lease is; each later one
// comes when the lease has changed, or when it is time to renew or to replace it.
func (p *Plane) watch(ctx context.Context, g Grant, req *secretsv1.WatchLeaseRequest, reply *secretsv1.WatchLeaseResponse) error {
	name, err := lease.ParseName(req.GetName())
	if err != nil {
		return err
	}
	to, err := recipientOf(g, req.GetRecipient())
	if err != nil {
		return err
	}
	l, err := p.Leases.Owned(ctx, name, g.Caller())
	if err != nil {
		return err
	}
	now := p.Leases.Clock.Now()
	if due := g.Scheduled(); l.State == lease.StateActive && !due.IsZero() && !now.Before(due) {
		if l, err = p.refresh(ctx, g, req, reply, l, to); err != nil {
			return err
		}
	}
	// The channel first, so that a change after the reading is not missed.
	changed := p.Leases.Changed(l.Name)
	if l, err = p.Leases.Owned(ctx, l.Name, g.Caller()); err != nil {
		return err
	}
	g.NoteLease(l.Name.String(), l.Expires)
	reply.Lease = l.Proto()
	if l.State == lease.StateActive {
		g.Again(now.Add(p.wait(l, now)), changed)
	}
	return nil
}

// wait is how long a watch leaves a lease alone: about two thirds of what it has left,
// so that there is time for many tries, and not for everybody the same.
func (p *Plane) wait(l lease.Lease, now time.Time) time.Duration {
	left := l.Expires.Sub(now)
	d := left * 3 / 5
	if d > 0 {
		d += rand.N(left/8 + 1)
	}
	if l.Version != 0 {
		d = min(d, versionInterval)
	}
	return max(d, shortestWait)
}

// refresh renews the lease, or replaces it by a new one and goes on with that.
func (p *Plane) refresh(ctx context.Context, g Grant, req *secretsv1.WatchLeaseRequest, reply *secretsv1.WatchLeaseResponse, l lease.Lease, to *delivery.Recipient) (lease.Lease, error) {
	now := p.Leases.Clock.Now()
	// A renewal that gains little is left to a replacement.
	if l.Renewable && l.MaxExpires.Sub(l.Expires) > l.Lifetime/4 {
		renewed, err := p.Leases.Renew(ctx, l.Name, g.Caller(), l.Lifetime)
		if err == nil || !errors.Is(err, fault.New(fault.LeaseNotRenewable, "")) && !errors.Is(err, fault.New(fault.LeaseGone, "")) {
			return renewed, err
		}
	}
	lifetime, err := lifetimeOf(req.GetLifetime())
	if err != nil {
		return l, err
	}
	r := lease.Request{Role: l.Name.Role, Lifetime: lifetime, Sealed: to != nil}
	if l.Version != 0 && l.Expires.Sub(now) > l.Lifetime/3 {
		r.KnownVersion = l.Version // only if it has changed
	}
	next, value, err := p.issue(ctx, g, r)
	if err != nil || next.State == 0 {
		return l, err
	}
	defer value.Wipe()
	plaintext, sealed, err := deliver(value, to, next)
	switch {
	case err != nil:
		return l, err
	case sealed != nil:
		reply.Value = &secretsv1.WatchLeaseResponse_Sealed{Sealed: sealed}
	default:
		reply.Value = &secretsv1.WatchLeaseResponse_Plaintext{Plaintext: plaintext}
	}
	req.Name = next.Name.String()
	return next, nil
}
