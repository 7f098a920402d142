package control

import (
	"context"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/gateway/pipeline"
	"github.com/sallyport/sallyport/gateway/policy"
	"github.com/sallyport/sallyport/keys"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

const secretRoleService = "sallyport.control.v1.SecretRoleService."

func (p *Plane) secretRoleRoutes() []pipeline.Route {
	return []pipeline.Route{
		pipeline.Effectful(secretRoleService+"CreateSecretRole", policy.ActionCreateSecretRole,
			func(r *controlv1.CreateSecretRoleRequest, s *pipeline.Subject) error {
				noteLimits(s, r)
				s.Change("source", r.GetSource())
				return onRoleNamed(s, r.GetParent()+"/secretRoles/"+r.GetSecretRoleId())
			}, p.createSecretRole),
		pipeline.Control(secretRoleService+"GetSecretRole", policy.ActionGetSecretRole,
			onSecretRole[*controlv1.GetSecretRoleRequest], p.getSecretRole),
		pipeline.Control(secretRoleService+"ListSecretRoles", policy.ActionListSecretRoles,
			func(r *controlv1.ListSecretRolesRequest, s *pipeline.Subject) error {
				return s.SetTenant(r.GetParent())
			},
			p.listSecretRoles),
		pipeline.Effectful(secretRoleService+"UpdateSecretRole", policy.ActionUpdateSecretRole,
			func(r *controlv1.UpdateSecretRoleRequest, s *pipeline.Subject) error {
				noteLimits(s, r)
				return onRoleNamed(s, r.GetName())
			}, p.updateSecretRole),
		pipeline.Effectful(secretRoleService+"DeleteSecretRole", policy.ActionDeleteSecretRole,
			onSecretRole[*controlv1.DeleteSecretRoleRequest], p.deleteSecretRole),
		pipeline.Control(secretRoleService+"ListSources", policy.ActionListSources,
			onGateway[*controlv1.ListSourcesRequest]("sources"), p.listSources),
		pipeline.Control(secretRoleService+"GetSourcePolicy", policy.ActionGetSourcePolicy,
			func(r *controlv1.GetSourcePolicyRequest, s *pipeline.Subject) error {
				if _, err := parseSource(r.GetName()); err != nil {
					return err
				}
				return s.SetGateway(r.GetName())
			}, p.getSourcePolicy),
	}
}

func onSecretRole[R named](r R, s *pipeline.Subject) error { return onRoleNamed(s, r.GetName()) }

func onRoleNamed(s *pipeline.Subject, name string) error {
	n, err := lease.ParseRoleName(name)
	if err != nil {
		return err
	}
	return s.SetSecretRole(n.Tenant, n.String(), name)
}

// limits are the fields that making and changing a role have in common.
type limits interface {
	GetParameters() *controlv1.SecretParameters
	GetMaxLifetime() *durationpb.Duration
	GetDefaultLifetime() *durationpb.Duration
	GetRenewable() bool
	GetQuotaPerWorkload() uint32
	GetSealedOnly() bool
}

// noteLimits puts the change into the record: parameters are names and paths, never
// values.
func noteLimits(s *pipeline.Subject, r limits) {
	if text, err := protojson.Marshal(r.GetParameters()); err == nil && r.GetParameters() != nil {
		s.Change("parameters", string(text))
	}
	s.Change("max_lifetime", r.GetMaxLifetime().AsDuration())
	s.Change("default_lifetime", r.GetDefaultLifetime().AsDuration())
	s.Change("renewable", r.GetRenewable())
	s.Change("quota_per_workload", r.GetQuotaPerWorkload())
	s.Change("sealed_only", r.GetSealedOnly())
}

func (p *Plane) createSecretRole(ctx context.Context, _ Grant, req *controlv1.CreateSecretRoleRequest, reply *controlv1.SecretRole) error {
	name, err := lease.ParseRoleName(req.GetParent() + "/secretRoles/" + req.GetSecretRoleId())
	if err != nil {
		return err
	}
	role := lease.Role{Name: name, Source: req.GetSource(), Created: p.Now().UTC(), Revision: 1}
	if err := p.setLimits(&role, req); err != nil {
		return err
	}
	if err := p.Leases.Roles.CreateRole(ctx, role); err != nil {
		return lease.Fault(err)
	}
	setSecretRole(reply, role)
	return nil
}

// setLimits takes a role's parameters and limits from a request, and refuses those that
// its source cannot serve.
func (p *Plane) setLimits(role *lease.Role, r limits) error {
	for _, d := range []*durationpb.Duration{r.GetMaxLifetime(), r.GetDefaultLifetime()} {
		if d != nil && d.CheckValid() != nil {
			return fault.New(fault.InvalidArgument, "a lifetime is not a duration")
		}
	}
	role.Parameters = r.GetParameters()
	role.MaxLifetime, role.DefaultLifetime = r.GetMaxLifetime().AsDuration(), r.GetDefaultLifetime().AsDuration()
	role.Renewable, role.Quota, role.SealedOnly = r.GetRenewable(), r.GetQuotaPerWorkload(), r.GetSealedOnly()
	if err := role.Complete(); err != nil {
		return err
	}
	source := p.Leases.Sources[role.Source]
	if source == nil {
		return fault.New(fault.InvalidArgument, "source is not the name of a configured source")
	}
	return source.Check(role.Parameters)
}

func (p *Plane) getSecretRole(ctx context.Context, _ Grant, req *controlv1.GetSecretRoleRequest, reply *controlv1.SecretRole) error {
	name, err := lease.ParseRoleName(req.GetName())
	if err != nil {
		return err
	}
	role, err := p.Leases.Roles.Role(ctx, name)
	if err != nil {
		return lease.Fault(err)
	}
	setSecretRole(reply, role)
	return nil
}

func (p *Plane) listSecretRoles(ctx context.Context, _ Grant, req *controlv1.ListSecretRolesRequest, reply *controlv1.ListSecretRolesResponse) error {
	limit, after, err := page(req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return err
	}
	tenant, err := keys.ParseTenant(req.GetParent())
	if err != nil {
		return err
	}
	rows, err := p.Leases.Roles.Roles(ctx, tenant, after, limit)
	if err != nil {
		return lease.Fault(err)
	}
	for _, role := range rows {
		r := new(controlv1.SecretRole)
		setSecretRole(r, role)
		reply.SecretRoles = append(reply.SecretRoles, r)
	}
	if len(rows) == limit {
		reply.NextPageToken = pageToken(rows[limit-1].Name.Role)
	}
	return nil
}

func (p *Plane) updateSecretRole(ctx context.Context, _ Grant, req *controlv1.UpdateSecretRoleRequest, reply *controlv1.SecretRole) error {
	name, err := lease.ParseRoleName(req.GetName())
	if err != nil {
		return err
	}
	revision, err := parseETag(req.GetEtag())
	if err != nil {
		return err
	}
	role, err := p.Leases.Roles.Role(ctx, name)
	if err != nil {
		return lease.Fault(err)
	}
	if revision != 0 && revision != role.Revision {
		return fault.New(fault.Conflict, "")
	}
	if err := p.setLimits(&role, req); err != nil {
		return err
	}
	if err := p.Leases.Roles.UpdateRole(ctx, role); err != nil {
		return lease.Fault(err)
	}
	role.Revision++
	setSecretRole(reply, role)
	return nil
}

func (p *Plane) deleteSecretRole(ctx context.Context, _ Grant, req *controlv1.DeleteSecretRoleRequest, _ *controlv1.DeleteSecretRoleResponse) error {
	name, err := lease.ParseRoleName(req.GetName())
	if err != nil {
		return err
	}
	revision, err := parseETag(req.GetEtag())
	if err != nil {
		return err
	}
	return lease.Fault(p.Leases.Roles.DeleteRole(ctx, name, revision))
}

func setSecretRole(to *controlv1.SecretRole, r lease.Role) {
	to.Name = r.Name.String()
	to.Source = r.Source
	to.Parameters = r.Parameters
	to.MaxLifetime, to.DefaultLifetime = durationpb.New(r.MaxLifetime), durationpb.New(r.DefaultLifetime)
	to.Renewable, to.QuotaPerWorkload, to.SealedOnly = r.Renewable, r.Quota, r.SealedOnly
	to.CreateTime = timestamppb.New(r.Created)
	to.Etag = etag(r.Revision)
}

func (p *Plane) listSources(_ context.Context, _ Grant, _ *controlv1.ListSourcesRequest, reply *controlv1.ListSourcesResponse) error {
	for _, name := range sortedNames(p.Leases.Sources) {
		source := p.Leases.Sources[name]
		row := &controlv1.SecretSource{Name: "sources/" + name, Kind: source.Kind()}
		if err := source.Failure(); err != nil {
			row.FailureReason = fault.From(err).Reason.String()
		}
		reply.Sources = append(reply.Sources, row)
	}
	return nil
}

func (p *Plane) getSourcePolicy(ctx context.Context, _ Grant, req *controlv1.GetSourcePolicyRequest, reply *controlv1.SourcePolicy) error {
	name, err := parseSource(req.GetName())
	if err != nil {
		return err
	}
	source := p.Leases.Sources[name]
	if source == nil {
		return fault.New(fault.NotFound, "")
	}
	roles, err := p.Leases.Roles.RolesOf(ctx, name)
	if err != nil {
		return lease.Fault(err)
	}
	reply.Documents = source.Policy(roles)
	return nil
}

func parseSource(name string) (string, error) {
	id, ok := strings.CutPrefix(name, "sources/")
	if !ok || !keys.ValidID(id) {
		return "", fault.New(fault.InvalidArgument, "want sources/{source}")
	}
	return id, nil
}
