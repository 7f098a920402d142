// Package audit says what is remembered of a call, and what a caller is given to
// prove it.
package audit

import (
	"context"
	"errors"

	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

// ErrUnavailable is returned when a record could not be made durable in time:
// the disk is full, slow or failing, or the queue is full. The record may or may
// not be found in the log later; the caller must withhold its reply.
var ErrUnavailable = errors.New("audit: record could not be made durable")

// Log remembers records.
type Log interface {
	// Append returns when the record would survive a power cut. It does not retain
	// the record. The error wraps ErrUnavailable or is the context's.
	Append(ctx context.Context, r *auditv1.Record) (Receipt, error)
}
