package pipeline

import (
	"errors"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/envelope"
	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/policy"
	"github.com/sallyport/sallyport/keys"
)

// reasons turns the sentinel errors of the rooms below into reasons. Specific
// errors stand before the families they belong to.
var reasons = []struct {
	target error
	reason fault.Reason
}{
	{binding.ErrContext, fault.InvalidContext},
	{envelope.ErrOpen, fault.DecryptionFailed},
	{envelope.ErrUnknownSuite, fault.UnknownSuite},
	{envelope.ErrUnknownVersion, fault.UnknownSuite},
	{envelope.ErrFormat, fault.MalformedEnvelope},
	{envelope.ErrTooLarge, fault.RequestTooLarge},

	{keys.ErrName, fault.InvalidArgument},
	{keys.ErrPurpose, fault.PurposeMismatch},
	{keys.ErrForeign, fault.ForeignEnvelope},
	{keys.ErrUnknownVersion, fault.UnknownVersion},
	{keys.ErrVersionState, fault.VersionUnavailable},
	{keys.ErrTooManyVersions, fault.FailedPrecondition},
	{keys.ErrArgument, fault.InvalidArgument},
	{keys.ErrClosed, fault.ShuttingDown},
	{keys.ErrKEKUnreachable, fault.KEKUnreachable},
	{keys.ErrKEKThrottled, fault.KEKThrottled},
	{keys.ErrKEKRefused, fault.KEKRefused},
	{keys.ErrNotFound, fault.NotFound},
	{keys.ErrExists, fault.AlreadyExists},
	{keys.ErrConflict, fault.Conflict},
	{keys.ErrStore, fault.StoreUnavailable},

	{authn.ErrNotFound, fault.NotFound},
	{authn.ErrExists, fault.AlreadyExists},
	{authn.ErrConflict, fault.Conflict},
	{authn.ErrStore, fault.StoreUnavailable},

	{policy.ErrInvalid, fault.InvalidPolicy},
	{policy.ErrConflict, fault.Conflict},
	{policy.ErrStore, fault.StoreUnavailable},

	{audit.ErrUnavailable, fault.AuditUnavailable},
}

// Reason turns an error of the libraries below the gateway into a reason. Where a
// context's end is in the chain beside a reason, the reason wins: a KMS that
// answered too late is unreachable.
func Reason(err error) *fault.Error {
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	for _, row := range reasons {
		if errors.Is(err, row.target) {
			return fault.Wrap(row.reason, "", err)
		}
	}
	return fault.From(err)
}
