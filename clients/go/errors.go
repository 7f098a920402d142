package sallyport

import (
	"context"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The domain of the gateway's ErrorInfo details, and the key of the request id in
// their metadata.
const (
	errorDomain  = "sallyport.dev"
	requestIDKey = "request_id"
)

// Error is a call, or an item of a batch, that was refused or failed.
//
// errors.Is finds its Reason, the status error of gRPC, and for the reasons
// DEADLINE_EXCEEDED and CANCELLED the errors of package context.
type Error struct {
	Reason  Reason
	Message string
	// RequestID names the request in the gateway's log and audit records; "" if no
	// gateway answered.
	RequestID string
	// Receipt proves that the refusal is on record; "" if it is not.
	Receipt string

	cause error
}

// Error gives reason, message and request id.
func (e *Error) Error() string {
	s := "sallyport: " + string(e.Reason)
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.RequestID != "" {
		s += " (request " + e.RequestID + ")"
	}
	return s
}

// Unwrap gives the reason and what else the error stands for.
func (e *Error) Unwrap() []error {
	all := []error{e.Reason}
	if e.Reason == DeadlineExceeded {
		all = append(all, context.DeadlineExceeded)
	}
	if e.Reason == Cancelled {
		all = append(all, context.Canceled)
	}
	if e.cause != nil {
		all = append(all, e.cause)
	}
	return all
}

// fromCall makes the error of a call that ended with err, a status error of gRPC.
func fromCall(err error, receipt string) *Error {
	s := status.Convert(err)
	e := &Error{Reason: bareReason(s.Code()), Message: s.Message(), Receipt: receipt, cause: err}
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			e.Reason, e.RequestID = Reason(info.GetReason()), info.GetMetadata()[requestIDKey]
		}
	}
	return e
}

// bareReason is the reason of a status without one: what gRPC itself says, on
// either side, before or in place of the gateway.
func bareReason(c codes.Code) Reason {
	switch c {
	case codes.Unavailable:
		return Unavailable
	case codes.DeadlineExceeded:
		return DeadlineExceeded
	case codes.Canceled:
		return Cancelled
	case codes.ResourceExhausted:
		// grpc-go cuts a message off that is far beyond the limit, before the gateway
		// sees it; what the gateway itself lacks has a reason.
		return RequestTooLarge
	case codes.Unimplemented:
		return UnknownMethod
	default:
		return Internal
	}
}
