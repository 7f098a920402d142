package control

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/gateway/pipeline"
	"github.com/sallyport/sallyport/gateway/policy"
	"github.com/sallyport/sallyport/keys"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

const leaseService = "sallyport.control.v1.LeaseService."

func (p *Plane) leaseRoutes() []pipeline.Route {
	return []pipeline.Route{
		pipeline.Control(leaseService+"InspectLease", policy.ActionInspectLease,
			func(r *controlv1.InspectLeaseRequest, s *pipeline.Subject) error {
				n, err := lease.ParseName(r.GetName())
				if err != nil {
					return err
				}
				return s.SetSecretRole(n.Role.Tenant, n.Role.String(), r.GetName())
			}, p.inspectLease),
		pipeline.Control(leaseService+"SearchLeases", policy.ActionSearchLeases,
			onGateway[*controlv1.SearchLeasesRequest]("leases"), p.searchLeases),
		pipeline.Effectful(leaseService+"RevokeLeases", policy.ActionRevokeLeases,
			func(r *controlv1.RevokeLeasesRequest, s *pipeline.Subject) error {
				f := r.GetFilter()
				if _, err := queryOf(f); err != nil {
					return err
				}
				for _, set := range []struct{ name, value string }{
					{"name", f.GetName()}, {"tenant", f.GetTenant()}, {"role", f.GetRole()}, {"workload", f.GetWorkload()},
				} {
					if set.value != "" {
						s.Change(set.name, set.value)
					}
				}
				if f.GetIssuedSince() != nil {
					s.Change("issued_since", f.GetIssuedSince().AsTime().Format(time.RFC3339Nano))
				}
				if f.GetState() != 0 {
					s.Change("state", f.GetState())
				}
				return s.SetGateway("leases")
			}, p.revokeLeases),
	}
}

func (p *Plane) inspectLease(ctx context.Context, g Grant, req *controlv1.InspectLeaseRequest, reply *secretsv1.Lease) error {
	name, err := lease.ParseName(req.GetName())
	if err != nil {
		return err
	}
	l, err := p.Leases.Ledger.Lease(ctx, name)
	if err != nil {
		return lease.Fault(err)
	}
	g.NoteLease(l.Name.String(), time.Time{})
	l.SetProto(reply)
	return nil
}

func (p *Plane) searchLeases(ctx context.Context, _ Grant, req *controlv1.SearchLeasesRequest, reply *controlv1.SearchLeasesResponse) error {
	q, err := queryOf(req.GetFilter())
	if err != nil {
		return err
	}
	if q.After, q.Limit, err = lease.Page(req.GetPageToken(), req.GetPageSize()); err != nil {
		return err
	}
	rows, err := p.Leases.Ledger.Leases(ctx, q)
	if err != nil {
		return lease.Fault(err)
	}
	for _, l := range rows {
		reply.Leases = append(reply.Leases, l.Proto())
	}
	reply.NextPageToken = lease.NextPage(rows, q.Limit)
	return nil
}

func (p *Plane) revokeLeases(ctx context.Context, _ Grant, req *controlv1.RevokeLeasesRequest, reply *controlv1.RevokeLeasesResponse) error {
	q, err := queryOf(req.GetFilter())
	if err != nil {
		return err
	}
	if q == (lease.Query{}) {
		return fault.New(fault.InvalidArgument, "the filter is empty: say whose leases, or since when")
	}
	n, err := p.Leases.RevokeWhere(ctx, q)
	reply.Revoked = uint32(n)
	return err
}

func queryOf(f *controlv1.LeaseFilter) (q lease.Query, err error) {
	if f.GetTenant() != "" {
		if q.Tenant, err = keys.ParseTenant(f.GetTenant()); err != nil {
			return q, err
		}
	}
	role, filtered := f.GetRole(), f.GetRole() != ""
	if f.GetName() != "" {
		n, err := lease.ParseName(f.GetName())
		if err != nil {
			return q, err
		}
		if filtered && role != n.Role.String() {
			return q, fault.New(fault.InvalidArgument, "name and role disagree")
		}
		role, filtered, q.ID = n.Role.String(), true, n.ID
	}
	if filtered {
		n, err := lease.ParseRoleName(role)
		if err != nil {
			return q, err
		}
		if q.Tenant != "" && q.Tenant != n.Tenant {
			return q, fault.New(fault.InvalidArgument, "tenant and role disagree")
		}
		q.Tenant, q.Role = n.Tenant, n.Role
	}
	q.Workload = f.GetWorkload()
	if q.Since, err = timeOf(f.GetIssuedSince()); err != nil {
		return q, err
	}
	if q.State = lease.State(f.GetState()); q.State != 0 && !q.State.Valid() {
		return q, fault.New(fault.InvalidArgument, "state is not one of the states")
	}
	return q, nil
}

func timeOf(t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if t.CheckValid() != nil {
		return time.Time{}, fault.New(fault.InvalidArgument, "issued_since is not a time")
	}
	return t.AsTime(), nil
}

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
