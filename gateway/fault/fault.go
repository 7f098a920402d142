// Package fault holds the reasons we give: one enumeration, one error type, and
// its forms in gRPC and HTTP.
//
// What survives the border: the reason, its message, and the request id. What
// does not: the cause, which is for our own log. An error that is not a *Error
// becomes INTERNAL without detail, here and nowhere else.
package fault

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	faultv1 "github.com/sallyport/sallyport/proto/sallyport/fault/v1"
)

// Domain is the domain of our google.rpc.ErrorInfo details.
const Domain = "sallyport.dev"

// requestIDKey is the ErrorInfo metadata key that carries the request id.
const requestIDKey = "request_id"

// Error is a refusal or failure with a reason that the caller can act on.
type Error struct {
	Reason Reason
	// Detail says more than the reason's own message. It never echoes input.
	Detail string

	requestID string
	cause     error
}

// New makes an error. An empty detail stands for the reason's own message.
func New(r Reason, detail string) *Error { return &Error{Reason: r, Detail: detail} }

// Wrap makes an error with a cause that stays inside the gateway.
func Wrap(r Reason, detail string, cause error) *Error {
	return &Error{Reason: r, Detail: detail, cause: cause}
}

// From gives the *Error in err's tree. Ends of contexts become
// DEADLINE_EXCEEDED and CANCELLED; everything else that is not recognised
// becomes INTERNAL, with err as the cause.
func From(err error) *Error {
	var f *Error
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, context.DeadlineExceeded):
		return Wrap(DeadlineExceeded, "", err)
	case errors.Is(err, context.Canceled):
		return Wrap(Cancelled, "", err)
	default:
		return Wrap(Internal, "", err)
	}
}

// WithRequestID returns a copy that names the request.
func (e *Error) WithRequestID(id string) *Error {
	c := *e
	c.requestID = id
	return &c
}

// Message is what the caller is told.
func (e *Error) Message() string {
	if e.Detail != "" {
		return e.Detail
	}
	return table[e.Reason].message
}

// Error gives the reason, the message and the cause: for our own log.
func (e *Error) Error() string {
	s := e.Reason.String() + ": " + e.Message()
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is an *Error with the same reason.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason
}

// GRPCStatus gives the status with an ErrorInfo detail; package status of
// grpc-go calls it.
func (e *Error) GRPCStatus() *status.Status {
	info := &errdetails.ErrorInfo{Reason: e.Reason.String(), Domain: Domain}
	if e.requestID != "" {
		info.Metadata = map[string]string{requestIDKey: e.requestID}
	}
	s, err := status.New(table[e.Reason].code, e.Message()).WithDetails(protoadapt.MessageV1Of(info))
	if err != nil { // an ErrorInfo always marshals
		return status.New(codes.Internal, "")
	}
	return s
}

// FromStatus is the inverse of GRPCStatus. It reports false if the status has no
// ErrorInfo of ours, or one with a reason that this build does not know.
func FromStatus(s *status.Status) (*Error, bool) {
	for _, d := range s.Details() {
		info, ok := d.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != Domain {
			continue
		}
		r, ok := ParseReason(info.GetReason())
		if !ok {
			return nil, false
		}
		return &Error{Reason: r, Detail: s.Message(), requestID: info.GetMetadata()[requestIDKey]}, true
	}
	return nil, false
}

// RequestID is the id of the request that failed, or "".
func (e *Error) RequestID() string { return e.requestID }

// Reason is a value of sallyport.fault.v1.Reason.
type Reason faultv1.Reason

// String gives the name without the prefix "REASON_": what crosses the border.
func (r Reason) String() string {
	return strings.TrimPrefix(faultv1.Reason(r).String(), "REASON_")
}

// ParseReason is the inverse of String.
func ParseReason(s string) (Reason, bool) {
	v, ok := faultv1.Reason_value["REASON_"+s]
	return Reason(v), ok && v != 0
}

// Code is the reason's gRPC status code.
func (r Reason) Code() codes.Code { return table[r].code }

// HTTPStatus is the reason's HTTP status code.
func (r Reason) HTTPStatus() int { return table[r].http }
