// Package audit says what is remembered of a call, and what a caller is given to
// prove it.
//
// A [Log] appends records and answers with a [Receipt]: the gateway's signature
// over a batch, and the Merkle path from the record to that batch. The formats
// that a second implementation needs (batches, receipts, keys) are here; how the
// bytes reach the disk is package journal, how they are sealed into a
// transparency log and verified is package tlog. docs/formats/audit.md draws
// every byte.
package audit

import (
	"context"
	"errors"
	"fmt"

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

// ErrBroken is wrapped by every [BrokenError].
var ErrBroken = errors.New("audit: log is broken")

// BrokenError names the first place where files on disk are not what the gateway
// wrote. It does not say who changed them: a failing disk and a forger look the
// same.
type BrokenError struct {
	File   string // relative to the log's directory, with slashes
	Offset int64  // in bytes; 0 where the file as a whole is wrong
	What   string
}

func (e *BrokenError) Error() string {
	return fmt.Sprintf("audit: %s at byte %d: %s", e.File, e.Offset, e.What)
}

// Unwrap makes errors.Is(err, ErrBroken) true.
func (e *BrokenError) Unwrap() error { return ErrBroken }
