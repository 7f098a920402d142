// Package broker leases secrets to services: the verbs of the data plane over package
// lease, and the delivery of a value to the one who asked.
package broker

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/identity"
	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/gateway/pipeline"
	"github.com/sallyport/sallyport/gateway/policy"
	"github.com/sallyport/sallyport/keys"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// Plane is the part of the data plane that leases secrets.
type Plane struct{ Leases *lease.Book }

// Grant is a grant of the data plane: a workload's.
type Grant = pipeline.Grant[identity.Workload]

const service = "sallyport.secrets.v1.SecretService."

// Routes is the broker's part of the table.
func (p *Plane) Routes() []pipeline.Route {
	return []pipeline.Route{
		pipeline.Issuing(service+"LeaseSecret", policy.ActionLeaseSecret, onRole[*secretsv1.LeaseSecretRequest], p.lease),
		pipeline.Issuing(service+"RenewLease", policy.ActionRenewLease, onLease[*secretsv1.RenewLeaseRequest], p.renew),
		pipeline.Issuing(service+"RevokeLease", policy.ActionRevokeLease, onLease[*secretsv1.RevokeLeaseRequest], p.revoke),
		pipeline.Data(service+"GetLease", policy.ActionGetLease, onLease[*secretsv1.GetLeaseRequest], p.get),
		pipeline.Data(service+"ListLeases", policy.ActionListLeases,
			func(r *secretsv1.ListLeasesRequest, s *pipeline.Subject) error { return s.SetTenant(r.GetParent()) }, p.list),
		pipeline.Watching(service+"WatchLease", policy.ActionWatchLease, onLease[*secretsv1.WatchLeaseRequest], p.watch,
			func(reply *secretsv1.WatchLeaseResponse, receipt string) { reply.Receipt = receipt }),
	}
}

type named interface{ GetName() string }

func onRole[R named](r R, s *pipeline.Subject) error {
	n, err := lease.ParseRoleName(r.GetName())
	if err != nil {
		return err
	}
	return s.SetSecretRole(n.Tenant, n.String(), r.GetName())
}

// onLease makes the role the resource: who may not lease a role any more may not renew
// its leases either.
func onLease[R named](r R, s *pipeline.Subject) error {
	n, err := lease.ParseName(r.GetName())
	if err != nil {
		return err
	}
	return s.SetSecretRole(n.Role.Tenant, n.Role.String(), r.GetName())
}

func (p *Plane) lease(ctx context.Context, g Grant, req *secretsv1.LeaseSecretRequest, reply *secretsv1.LeaseSecretResponse) error {
	name, err := lease.ParseRoleName(req.GetName())
	if err != nil {
		return err
	}
	to, err := recipientOf(g, req.GetRecipient())
	if err != nil {
		return err
	}
	lifetime, err := lifetimeOf(req.GetLifetime())
	if err != nil {
		return err
	}
	l, value, err := p.issue(ctx, g, lease.Request{
		Role: name, Lifetime: lifetime, KnownVersion: req.GetKnownVersion(), Sealed: to != nil,
	})
	if err != nil {
		return err
	}
	if l.State == 0 {
		reply.Unchanged = true
		return nil
	}
	defer value.Wipe()
	reply.Lease = l.Proto()
	plaintext, sealed, err := deliver(value, to, l)
	switch {
	case err != nil:
		return err
	case sealed != nil:
		reply.Value = &secretsv1.LeaseSecretResponse_Sealed{Sealed: sealed}
	default:
		reply.Value = &secretsv1.LeaseSecretResponse_Plaintext{Plaintext: plaintext}
	}
	return nil
}

// issue issues a lease that ends if the reply does not leave. Its id is that of the
// call, so that the record of the intent names it before it exists.
func (p *Plane) issue(ctx context.Context, g Grant, r lease.Request) (lease.Lease, lease.Value, error) {
	r.ID, r.Caller = g.RequestID(), g.Caller()
	l, value, err := p.Leases.Issue(ctx, r)
	if err != nil || l.State == 0 {
		return lease.Lease{}, nil, err
	}
	g.OnUnanswered(func() { p.Leases.Abandon(ctx, l.Name) })
	g.NoteLease(l.Name.String(), l.Expires)
	return l, value, nil
}

func (p *Plane) renew(ctx context.Context, g Grant, req *secretsv1.RenewLeaseRequest, reply *secretsv1.Lease) error {
	name, err := lease.ParseName(req.GetName())
	if err != nil {
		return err
	}
	lifetime, err := lifetimeOf(req.GetLifetime())
	if err != nil {
		return err
	}
	l, err := p.Leases.Renew(ctx, name, g.Caller(), lifetime)
	if err != nil {
		return err
	}
	g.NoteLease(l.Name.String(), l.Expires)
	l.SetProto(reply)
	return nil
}

func (p *Plane) revoke(ctx context.Context, g Grant, req *secretsv1.RevokeLeaseRequest, reply *secretsv1.Lease) error {
	name, err := lease.ParseName(req.GetName())
	if err != nil {
		return err
	}
	l, err := p.Leases.RevokeOwned(ctx, name, g.Caller())
	if err != nil {
		return err
	}
	g.NoteLease(l.Name.String(), time.Time{})
	l.SetProto(reply)
	return nil
}

func (p *Plane) get(ctx context.Context, g Grant, req *secretsv1.GetLeaseRequest, reply *secretsv1.Lease) error {
	name, err := lease.ParseName(req.GetName())
	if err != nil {
		return err
	}
	l, err := p.Leases.Owned(ctx, name, g.Caller())
	if err != nil {
		return err
	}
	g.NoteLease(l.Name.String(), time.Time{})
	l.SetProto(reply)
	return nil
}

func (p *Plane) list(ctx context.Context, g Grant, req *secretsv1.ListLeasesRequest, reply *secretsv1.ListLeasesResponse) error {
	tenant, err := keys.ParseTenant(req.GetParent())
	if err != nil {
		return err
	}
	after, limit, err := lease.Page(req.GetPageToken(), req.GetPageSize())
	if err != nil {
		return err
	}
	rows, err := p.Leases.Held(ctx, tenant, g.Caller(), after, limit)
	if err != nil {
		return err
	}
	for _, l := range rows {
		reply.Leases = append(reply.Leases, l.Proto())
	}
	reply.NextPageToken = lease.NextPage(rows, limit)
	return nil
}

func lifetimeOf(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if d.CheckValid() != nil || d.AsDuration() < 0 {
		return 0, fault.New(fault.InvalidArgument, "lifetime is not a duration of zero or more")
	}
	return d.AsDuration(), nil
}
