package fault

import (
	"google.golang.org/grpc/codes"

	faultv1 "github.com/sallyport/sallyport/proto/sallyport/fault/v1"
)

// The reasons. proto/sallyport/fault/v1 says what each means.
const (
	MalformedRequest       = Reason(faultv1.Reason_REASON_MALFORMED_REQUEST)
	RequestTooLarge        = Reason(faultv1.Reason_REASON_REQUEST_TOO_LARGE)
	UnsupportedMediaType   = Reason(faultv1.Reason_REASON_UNSUPPORTED_MEDIA_TYPE)
	InvalidArgument        = Reason(faultv1.Reason_REASON_INVALID_ARGUMENT)
	InvalidContext         = Reason(faultv1.Reason_REASON_INVALID_CONTEXT)
	UnknownMethod          = Reason(faultv1.Reason_REASON_UNKNOWN_METHOD)
	CertificateExpired     = Reason(faultv1.Reason_REASON_CERTIFICATE_EXPIRED)
	CertificateNotYetValid = Reason(faultv1.Reason_REASON_CERTIFICATE_NOT_YET_VALID)
	CertificateUntrusted   = Reason(faultv1.Reason_REASON_CERTIFICATE_UNTRUSTED)
	CertificateRevoked     = Reason(faultv1.Reason_REASON_CERTIFICATE_REVOKED)
	NotAnSVID              = Reason(faultv1.Reason_REASON_NOT_AN_SVID)
	ForeignTrustDomain     = Reason(faultv1.Reason_REASON_FOREIGN_TRUST_DOMAIN)
	WorkloadNotRegistered  = Reason(faultv1.Reason_REASON_WORKLOAD_NOT_REGISTERED)
	WorkloadDisabled       = Reason(faultv1.Reason_REASON_WORKLOAD_DISABLED)
	HumanOnDataPlane       = Reason(faultv1.Reason_REASON_HUMAN_ON_DATA_PLANE)
	CallerKindRefused      = Reason(faultv1.Reason_REASON_CALLER_KIND_REFUSED)
	PermissionDenied       = Reason(faultv1.Reason_REASON_PERMISSION_DENIED)
	PurposeMismatch        = Reason(faultv1.Reason_REASON_PURPOSE_MISMATCH)
	VersionUnavailable     = Reason(faultv1.Reason_REASON_VERSION_UNAVAILABLE)
	KEKUnreachable         = Reason(faultv1.Reason_REASON_KEK_UNREACHABLE)
	KEKRefused             = Reason(faultv1.Reason_REASON_KEK_REFUSED)
	KEKThrottled           = Reason(faultv1.Reason_REASON_KEK_THROTTLED)
	ForeignEnvelope        = Reason(faultv1.Reason_REASON_FOREIGN_ENVELOPE)
	UnknownVersion         = Reason(faultv1.Reason_REASON_UNKNOWN_VERSION)
	MalformedEnvelope      = Reason(faultv1.Reason_REASON_MALFORMED_ENVELOPE)
	UnknownSuite           = Reason(faultv1.Reason_REASON_UNKNOWN_SUITE)
	DecryptionFailed       = Reason(faultv1.Reason_REASON_DECRYPTION_FAILED)
	NotFound               = Reason(faultv1.Reason_REASON_NOT_FOUND)
	AlreadyExists          = Reason(faultv1.Reason_REASON_ALREADY_EXISTS)
	Conflict               = Reason(faultv1.Reason_REASON_CONFLICT)
	FailedPrecondition     = Reason(faultv1.Reason_REASON_FAILED_PRECONDITION)
	InvalidPolicy          = Reason(faultv1.Reason_REASON_INVALID_POLICY)
	LeaseGone              = Reason(faultv1.Reason_REASON_LEASE_GONE)
	LeaseNotRenewable      = Reason(faultv1.Reason_REASON_LEASE_NOT_RENEWABLE)
	LifetimeExceeded       = Reason(faultv1.Reason_REASON_LIFETIME_EXCEEDED)
	QuotaExceeded          = Reason(faultv1.Reason_REASON_QUOTA_EXCEEDED)
	InvalidRecipient       = Reason(faultv1.Reason_REASON_INVALID_RECIPIENT)
	SourceUnavailable      = Reason(faultv1.Reason_REASON_SOURCE_UNAVAILABLE)
	SourceSealed           = Reason(faultv1.Reason_REASON_SOURCE_SEALED)
	SourceStandby          = Reason(faultv1.Reason_REASON_SOURCE_STANDBY)
	SourceThrottled        = Reason(faultv1.Reason_REASON_SOURCE_THROTTLED)
	SourceUntrusted        = Reason(faultv1.Reason_REASON_SOURCE_UNTRUSTED)
	SourceRefused          = Reason(faultv1.Reason_REASON_SOURCE_REFUSED)
	SourceMalformed        = Reason(faultv1.Reason_REASON_SOURCE_MALFORMED)
	AuditUnavailable       = Reason(faultv1.Reason_REASON_AUDIT_UNAVAILABLE)
	StoreUnavailable       = Reason(faultv1.Reason_REASON_STORE_UNAVAILABLE)
	Overloaded             = Reason(faultv1.Reason_REASON_OVERLOADED)
	DeadlineExceeded       = Reason(faultv1.Reason_REASON_DEADLINE_EXCEEDED)
	Cancelled              = Reason(faultv1.Reason_REASON_CANCELLED)
	ShuttingDown           = Reason(faultv1.Reason_REASON_SHUTTING_DOWN)
	Internal               = Reason(faultv1.Reason_REASON_INTERNAL)
)

// row is a reason's gRPC code, HTTP status and default message.
type row struct {
	code    codes.Code
	http    int
	message string
}

// table has a row for every reason; a test compares it with the enumeration.
var table = map[Reason]row{
	MalformedRequest:       {codes.InvalidArgument, 400, "the request is malformed"},
	RequestTooLarge:        {codes.ResourceExhausted, 413, "the request is larger than this listener admits"},
	UnsupportedMediaType:   {codes.InvalidArgument, 415, "the content type must be application/json"},
	InvalidArgument:        {codes.InvalidArgument, 400, "a field is missing or breaks its grammar"},
	InvalidContext:         {codes.InvalidArgument, 400, "the encryption context breaks its limits or its grammar"},
	UnknownMethod:          {codes.Unimplemented, 404, "no such method"},
	CertificateExpired:     {codes.Unauthenticated, 401, "the client certificate has expired"},
	CertificateNotYetValid: {codes.Unauthenticated, 401, "the client certificate is not valid yet"},
	CertificateUntrusted:   {codes.Unauthenticated, 401, "no configured authority vouches for the client certificate"},
	CertificateRevoked:     {codes.Unauthenticated, 401, "the client certificate is revoked"},
	NotAnSVID:              {codes.Unauthenticated, 401, "the client certificate is not an X.509-SVID"},
	ForeignTrustDomain:     {codes.Unauthenticated, 401, "the SPIFFE id belongs to a trust domain that is not configured"},
	WorkloadNotRegistered:  {codes.PermissionDenied, 403, "the workload is not registered"},
	WorkloadDisabled:       {codes.PermissionDenied, 403, "the workload is disabled"},
	HumanOnDataPlane:       {codes.PermissionDenied, 403, "the data plane admits workloads; you called with a person's certificate"},
	CallerKindRefused:      {codes.PermissionDenied, 403, "this method does not admit this kind of caller"},
	PermissionDenied:       {codes.PermissionDenied, 403, "policy does not allow this, or the resource does not exist"},
	PurposeMismatch:        {codes.FailedPrecondition, 400, "the keyring's purpose does not serve this method"},
	VersionUnavailable:     {codes.FailedPrecondition, 400, "the key version's state forbids this"},
	KEKUnreachable:         {codes.Unavailable, 503, "the KMS cannot be reached"},
	KEKRefused:             {codes.FailedPrecondition, 502, "the KMS refuses to open this keyring"},
	KEKThrottled:           {codes.Unavailable, 503, "the budget of KMS calls is spent"},
	ForeignEnvelope:        {codes.InvalidArgument, 400, "the envelope was made under another keyring"},
	UnknownVersion:         {codes.InvalidArgument, 400, "the envelope names a version that the keyring does not have"},
	MalformedEnvelope:      {codes.InvalidArgument, 400, "the ciphertext is not an envelope"},
	UnknownSuite:           {codes.InvalidArgument, 400, "the envelope's suite or format version is not known"},
	DecryptionFailed:       {codes.InvalidArgument, 400, "decryption failed"},
	NotFound:               {codes.NotFound, 404, "not found"},
	AlreadyExists:          {codes.AlreadyExists, 409, "already exists"},
	Conflict:               {codes.Aborted, 409, "changed by somebody else in the meantime"},
	FailedPrecondition:     {codes.FailedPrecondition, 400, "the resource's state does not allow this"},
	InvalidPolicy:          {codes.InvalidArgument, 400, "the policy does not parse or does not fit the schema"},
	LeaseGone:              {codes.FailedPrecondition, 410, "the lease has ended"},
	LeaseNotRenewable:      {codes.FailedPrecondition, 400, "the lease cannot be renewed; ask for a new one"},
	LifetimeExceeded:       {codes.InvalidArgument, 400, "the lifetime is above the role's maximum"},
	QuotaExceeded:          {codes.ResourceExhausted, 429, "the workload holds as many leases of the role as it may"},
	InvalidRecipient:       {codes.InvalidArgument, 400, "the recipient's key is missing, malformed or of an unknown mechanism"},
	SourceUnavailable:      {codes.Unavailable, 503, "the source of the secret cannot be reached"},
	SourceSealed:           {codes.Unavailable, 503, "the source of the secret is sealed"},
	SourceStandby:          {codes.Unavailable, 503, "the source of the secret is a standby"},
	SourceThrottled:        {codes.Unavailable, 503, "the source of the secret, or our budget for it, admits no more calls now"},
	SourceUntrusted:        {codes.Unavailable, 502, "the certificate of the source is not trusted"},
	SourceRefused:          {codes.FailedPrecondition, 502, "the source of the secret refuses the role"},
	SourceMalformed:        {codes.FailedPrecondition, 502, "the source of the secret answered in another shape than expected"},
	AuditUnavailable:       {codes.Unavailable, 503, "the audit record could not be made durable"},
	StoreUnavailable:       {codes.Unavailable, 503, "the store cannot be reached"},
	Overloaded:             {codes.ResourceExhausted, 429, "too many calls at once"},
	DeadlineExceeded:       {codes.DeadlineExceeded, 504, "the deadline passed"},
	Cancelled:              {codes.Canceled, 499, "the caller went away"},
	ShuttingDown:           {codes.Unavailable, 503, "the gateway is shutting down"},
	Internal:               {codes.Internal, 500, "an internal error; the request id is in the gateway's log"},
}
