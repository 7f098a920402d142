// Package control holds the verbs of the control plane: tenants, keyrings,
// workloads, policy, secret roles and leases. Nothing that it returns can carry plaintext or a key.
package control

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/identity"
	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/gateway/pipeline"
	"github.com/sallyport/sallyport/gateway/policy"
	"github.com/sallyport/sallyport/keys"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// Keys is what the verbs need of keyrings; *keys.Keeper is one. A revision of 0
// stands for any.
type Keys interface {
	CreateTenant(ctx context.Context, t keys.Tenant) (time.Time, error)
	Tenants(ctx context.Context, after keys.Tenant, limit int) ([]keys.TenantRow, error)
	CreateRing(ctx context.Context, n keys.Name, p keys.Purpose, rotation time.Duration) (keys.Ring, error)
	Ring(ctx context.Context, n keys.Name) (keys.Ring, error)
	Rings(ctx context.Context, q keys.RingQuery) ([]keys.Ring, error)
	Rotate(ctx context.Context, n keys.Name, revision uint64) (keys.Ring, error)
	SetVersionState(ctx context.Context, n keys.Name, version uint32, s keys.State, revision uint64) (keys.Ring, error)
}

// Plane is the control plane. Every field is required.
type Plane struct {
	Keys          Keys
	Register      authn.Register
	Authenticator *authn.Authenticator
	// TrustDomains are the domains whose workloads can be registered.
	TrustDomains []string
	Archive      policy.Archive
	Policy       *policy.Engine
	Leases       *lease.Book
	Now          func() time.Time

	// loading makes storing a bundle and putting it into force one step, so that the
	// snapshot in force is always the stored one.
	loading sync.Mutex
}

type caller = identity.Caller

const (
	keyringService  = "sallyport.control.v1.KeyringService."
	workloadService = "sallyport.control.v1.WorkloadService."
	policyService   = "sallyport.control.v1.PolicyService."
)

// Routes is the control plane's part of the table.
func (p *Plane) Routes() []pipeline.Route {
	return slices.Concat(p.keyRoutes(), p.secretRoleRoutes(), p.leaseRoutes())
}

func (p *Plane) keyRoutes() []pipeline.Route {
	return []pipeline.Route{
		pipeline.Effectful(keyringService+"CreateTenant", policy.ActionCreateTenant,
			func(r *controlv1.CreateTenantRequest, s *pipeline.Subject) error {
				return s.SetTenant("tenants/" + r.GetTenantId())
			}, p.createTenant),
		pipeline.Control(keyringService+"ListTenants", policy.ActionListTenants,
			onGateway[*controlv1.ListTenantsRequest]("tenants"), p.listTenants),
		pipeline.Effectful(keyringService+"CreateKeyring", policy.ActionCreateKeyring,
			func(r *controlv1.CreateKeyringRequest, s *pipeline.Subject) error {
				s.Change("purpose", r.GetPurpose())
				s.Change("rotation_period", r.GetRotationPeriod().AsDuration())
				return s.SetKeyring(r.GetParent() + "/keyrings/" + r.GetKeyringId())
			}, p.createKeyring),
		pipeline.Control(keyringService+"GetKeyring", policy.ActionGetKeyring,
			onKeyring[*controlv1.GetKeyringRequest], p.getKeyring),
		pipeline.Control(keyringService+"ListKeyrings", policy.ActionListKeyrings,
			func(r *controlv1.ListKeyringsRequest, s *pipeline.Subject) error { return s.SetTenant(r.GetParent()) },
			p.listKeyrings),
		pipeline.Effectful(keyringService+"RotateKeyring", policy.ActionRotateKeyring,
			onKeyring[*controlv1.RotateKeyringRequest], p.rotateKeyring),
		pipeline.Effectful(keyringService+"SetVersionState", policy.ActionSetVersionState,
			func(r *controlv1.SetVersionStateRequest, s *pipeline.Subject) error {
				s.Change("version", r.GetVersion())
				s.Change("state", r.GetState())
				return s.SetKeyring(r.GetName())
			}, p.setVersionState),

		pipeline.Effectful(workloadService+"RegisterWorkload", policy.ActionRegisterWorkload,
			func(r *controlv1.RegisterWorkloadRequest, s *pipeline.Subject) error {
				if err := p.checkRegistration(r); err != nil {
					return err
				}
				s.Change("spiffe_id", r.GetSpiffeId())
				s.Change("automation", r.GetAutomation())
				return s.SetGateway("workloads/" + r.GetWorkloadId())
			}, p.registerWorkload),
		pipeline.Control(workloadService+"ListWorkloads", policy.ActionListWorkloads,
			onGateway[*controlv1.ListWorkloadsRequest]("workloads"), p.listWorkloads),
		pipeline.Effectful(workloadService+"DisableWorkload", policy.ActionDisableWorkload,
			onWorkload[*controlv1.DisableWorkloadRequest], p.disableWorkload),
		pipeline.Effectful(workloadService+"EnableWorkload", policy.ActionEnableWorkload,
			onWorkload[*controlv1.EnableWorkloadRequest], p.enableWorkload),
		pipeline.Effectful(workloadService+"RevokeCertificate", policy.ActionRevokeCertificate,
			func(r *controlv1.RevokeCertificateRequest, s *pipeline.Subject) error {
				f, err := parseFingerprint(r.GetSha256Fingerprint())
				if err != nil {
					return err
				}
				return s.SetGateway("revokedCertificates/" + fingerprintText(f))
			}, p.revokeCertificate),
		pipeline.Control(workloadService+"ListRevokedCertificates", policy.ActionListRevokedCertificates,
			onGateway[*controlv1.ListRevokedCertificatesRequest]("revokedCertificates"), p.listRevokedCertificates),

		pipeline.Control(policyService+"GetPolicy", policy.ActionGetPolicy,
			onGateway[*controlv1.GetPolicyRequest]("policy"), p.getPolicy),
		pipeline.Effectful(policyService+"LoadPolicy", policy.ActionLoadPolicy,
			func(r *controlv1.LoadPolicyRequest, s *pipeline.Subject) error {
				for _, f := range r.GetFiles() {
					s.Change("file", f.GetName()+" sha256:"+contentDigest(f.GetContent()))
				}
				return s.SetGateway("policy")
			}, p.loadPolicy),
	}
}

// named is a request about one named resource.
type named interface{ GetName() string }

func onKeyring[R named](r R, s *pipeline.Subject) error { return s.SetKeyring(r.GetName()) }

func onWorkload[R named](r R, s *pipeline.Subject) error {
	if _, err := parseWorkload(r.GetName()); err != nil {
		return err
	}
	return s.SetGateway(r.GetName())
}

func onGateway[R any](name string) func(R, *pipeline.Subject) error {
	return func(_ R, s *pipeline.Subject) error { return s.SetGateway(name) }
}
