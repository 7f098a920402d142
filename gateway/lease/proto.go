package lease

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// SetProto fills what may be shown of a lease: everything but the anchor.
func (l Lease) SetProto(to *secretsv1.Lease) {
	to.Name = l.Name.String()
	to.Workload = l.Workload
	to.Source = l.Source
	to.State = secretsv1.LeaseState(l.State)
	to.CreateTime = timestamppb.New(l.Created)
	to.ExpireTime = timestamppb.New(l.Expires)
	to.MaxExpireTime = timestamppb.New(l.MaxExpires)
	to.Renewable = l.Renewable
	to.Revocable = l.Revocable
	to.Version = l.Version
	to.FailedAttempts = l.Failures
	to.FailureReason = l.Failure
	if l.State == StateRevoking || l.State == StateStuck {
		to.NextAttemptTime = timestamppb.New(l.Due)
	}
}

// Proto gives what may be shown of a lease.
func (l Lease) Proto() *secretsv1.Lease {
	p := new(secretsv1.Lease)
	l.SetProto(p)
	return p
}
