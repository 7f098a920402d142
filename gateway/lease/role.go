package lease

import (
	"time"

	"github.com/sallyport/sallyport/gateway/fault"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// The limits of roles.
const (
	MinLifetime = time.Second
	MaxLifetime = 90 * 24 * time.Hour
	// MaxCertificateLifetime bounds what cannot be revoked because nobody would ask.
	MaxCertificateLifetime = 24 * time.Hour
	// DefaultLifetime is a role's, unless its maximum is less.
	DefaultLifetime = 15 * time.Minute
	DefaultQuota    = 100
	MaxQuota        = 10_000
)

// Complete puts the defaults where a role is silent, and refuses with
// INVALID_ARGUMENT what no source could serve.
func (r *Role) Complete() error {
	if r.DefaultLifetime == 0 {
		r.DefaultLifetime = min(DefaultLifetime, r.MaxLifetime)
	}
	if r.Quota == 0 {
		r.Quota = DefaultQuota
	}
	bad := func(detail string) error { return fault.New(fault.InvalidArgument, detail) }
	_, certificate := r.Parameters.GetKind().(*controlv1.SecretParameters_LocalCertificate)
	switch {
	case r.Parameters.GetKind() == nil:
		return bad("parameters must have exactly one kind")
	case r.MaxLifetime < MinLifetime || r.MaxLifetime > MaxLifetime:
		return bad("max_lifetime must be between one second and 90 days")
	case r.DefaultLifetime < MinLifetime || r.DefaultLifetime > r.MaxLifetime:
		return bad("default_lifetime must be between one second and max_lifetime")
	case certificate && r.MaxLifetime > MaxCertificateLifetime:
		return bad("max_lifetime of a local certificate must be at most 24 hours: it cannot be revoked")
	case r.Quota > MaxQuota:
		return bad("quota_per_workload must be at most 10000")
	}
	return nil
}
