package policy

import (
	"context"
	"errors"
	"time"
)

// The errors of an Archive. Implementations wrap one of them.
var (
	ErrConflict = errors.New("policy: changed by somebody else")
	ErrStore    = errors.New("policy: store unavailable")
)

// File is a named policy file: Cedar text.
type File struct {
	Name    string // ends in ".cedar"
	Content string
}

// Bundle is the whole policy as it is stored.
type Bundle struct {
	Revision uint64 // counts the loads; 0 before the first
	Files    []File // in order of name
	Loaded   time.Time
}

// Archive stores the policy. A write is durable when it returns. The conformance
// suite is gateway/store/storetest.
type Archive interface {
	// Bundle gives the policy in force, or the zero Bundle before the first.
	Bundle(ctx context.Context) (Bundle, error)
	// ReplaceBundle stores the bundle if the stored revision is b.Revision, and
	// stores b.Revision+1. It returns the new revision.
	ReplaceBundle(ctx context.Context, b Bundle) (uint64, error)
}
