package sallyport

import "slices"

// Reason says why a call was refused or failed: the name of a
// sallyport.fault.v1.Reason without its prefix, where each is explained. A Reason
// is an error, so that errors.Is finds it in an [*Error]. A gateway that is newer
// than this package may give reasons that have no constant here.
type Reason string

// The reasons of the gateway, in the order of proto/sallyport/fault/v1.
const (
	MalformedRequest       Reason = "MALFORMED_REQUEST"
	RequestTooLarge        Reason = "REQUEST_TOO_LARGE"
	UnsupportedMediaType   Reason = "UNSUPPORTED_MEDIA_TYPE"
	InvalidArgument        Reason = "INVALID_ARGUMENT"
	InvalidContext         Reason = "INVALID_CONTEXT"
	UnknownMethod          Reason = "UNKNOWN_METHOD"
	CertificateExpired     Reason = "CERTIFICATE_EXPIRED"
	CertificateNotYetValid Reason = "CERTIFICATE_NOT_YET_VALID"
	CertificateUntrusted   Reason = "CERTIFICATE_UNTRUSTED"
	CertificateRevoked     Reason = "CERTIFICATE_REVOKED"
	NotAnSVID              Reason = "NOT_AN_SVID"
	ForeignTrustDomain     Reason = "FOREIGN_TRUST_DOMAIN"
	WorkloadNotRegistered  Reason = "WORKLOAD_NOT_REGISTERED"
	WorkloadDisabled       Reason = "WORKLOAD_DISABLED"
	HumanOnDataPlane       Reason = "HUMAN_ON_DATA_PLANE"
	CallerKindRefused      Reason = "CALLER_KIND_REFUSED"
	PermissionDenied       Reason = "PERMISSION_DENIED"
	PurposeMismatch        Reason = "PURPOSE_MISMATCH"
	VersionUnavailable     Reason = "VERSION_UNAVAILABLE"
	KEKUnreachable         Reason = "KEK_UNREACHABLE"
	KEKRefused             Reason = "KEK_REFUSED"
	KEKThrottled           Reason = "KEK_THROTTLED"
	ForeignEnvelope        Reason = "FOREIGN_ENVELOPE"
	UnknownVersion         Reason = "UNKNOWN_VERSION"
	MalformedEnvelope      Reason = "MALFORMED_ENVELOPE"
	UnknownSuite           Reason = "UNKNOWN_SUITE"
	DecryptionFailed       Reason = "DECRYPTION_FAILED"
	NotFound               Reason = "NOT_FOUND"
	AlreadyExists          Reason = "ALREADY_EXISTS"
	Conflict               Reason = "CONFLICT"
	FailedPrecondition     Reason = "FAILED_PRECONDITION"
	InvalidPolicy          Reason = "INVALID_POLICY"
	LeaseGone              Reason = "LEASE_GONE"
	LeaseNotRenewable      Reason = "LEASE_NOT_RENEWABLE"
	LifetimeExceeded       Reason = "LIFETIME_EXCEEDED"
	QuotaExceeded          Reason = "QUOTA_EXCEEDED"
	InvalidRecipient       Reason = "INVALID_RECIPIENT"
	SourceUnavailable      Reason = "SOURCE_UNAVAILABLE"
	SourceSealed           Reason = "SOURCE_SEALED"
	SourceStandby          Reason = "SOURCE_STANDBY"
	SourceThrottled        Reason = "SOURCE_THROTTLED"
	SourceUntrusted        Reason = "SOURCE_UNTRUSTED"
	SourceRefused          Reason = "SOURCE_REFUSED"
	SourceMalformed        Reason = "SOURCE_MALFORMED"
	AuditUnavailable       Reason = "AUDIT_UNAVAILABLE"
	StoreUnavailable       Reason = "STORE_UNAVAILABLE"
	Overloaded             Reason = "OVERLOADED"
	DeadlineExceeded       Reason = "DEADLINE_EXCEEDED"
	Cancelled              Reason = "CANCELLED"
	ShuttingDown           Reason = "SHUTTING_DOWN"
	Internal               Reason = "INTERNAL"
)

// Two reasons are ours and not the gateway's.
const (
	// Unavailable: no gateway answered. The connection was refused or broke, or one side
	// of the handshake did not trust the other.
	Unavailable Reason = "UNAVAILABLE"
	// UnexpectedAnswer: a secret was answered that is not the one that was asked for, or
	// not in the form that was asked for. Somebody may stand between the gateway and the
	// caller. The secret is not used.
	UnexpectedAnswer Reason = "UNEXPECTED_ANSWER"
)

// Error gives the reason's name.
func (r Reason) Error() string { return string(r) }

// Temporary reports whether the same call may succeed later: the gateway, or
// something it needs, was not there or had no room.
func (r Reason) Temporary() bool {
	return slices.Contains([]Reason{
		Unavailable, AuditUnavailable, StoreUnavailable, KEKUnreachable, KEKThrottled, Overloaded, ShuttingDown,
		SourceUnavailable, SourceSealed, SourceStandby, SourceThrottled,
	}, r)
}

// Refused reports whether the caller was not let in or not allowed: another
// attempt by the same caller will fare no better until somebody changes something.
func (r Reason) Refused() bool {
	return slices.Contains([]Reason{
		CertificateExpired, CertificateNotYetValid, CertificateUntrusted, CertificateRevoked, NotAnSVID,
		ForeignTrustDomain, WorkloadNotRegistered, WorkloadDisabled, HumanOnDataPlane, CallerKindRefused,
		PermissionDenied,
	}, r)
}
