// Package audittest tests implementations of audit.Log, and has one in memory
// whose failures a test chooses.
package audittest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/gateway/audit"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

// ErrInjected is wrapped, beside audit.ErrUnavailable, by the errors that a
// Failure causes.
var ErrInjected = errors.New("audittest: injected failure")

// Failure is one way for an append to fail.
type Failure int

const (
	// Lost: the record is not written, and the append fails.
	Lost Failure = iota + 1
	// Persisted: the record is written, and the append fails all the same.
	Persisted
)

// Log is an audit.Log in memory, for tests. Its receipts are real and verify
// under PublicKey.
type Log struct {
	key audit.PrivateKey

	mu       sync.Mutex
	records  []*auditv1.Record
	prev     audit.Hash
	failures []Failure
	always   Failure
	stalled  chan struct{} // closed when the stall ends; nil: there is none
}

var _ audit.Log = (*Log)(nil)

// New returns an empty log with a key of its own.
func New() *Log {
	key, err := audit.GenerateKey("audit.test/memory")
	if err != nil {
		panic(err) // the name is right
	}
	return &Log{key: key}
}

// PublicKey returns the key that verifies the log's receipts.
func (l *Log) PublicKey() audit.PublicKey { return l.key.Public() }

// FailNext makes the next appends fail, one for each argument, in order.
func (l *Log) FailNext(f ...Failure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, f...)
}

// FailAlways makes all appends fail until it is called with 0.
func (l *Log) FailAlways(f Failure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.always = f
}

// Stall makes appends wait, for their context or for the function that it
// returns, which may be called more than once. A stalled append whose context
// ends writes nothing.
func (l *Log) Stall() (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	stalled := make(chan struct{})
	l.stalled = stalled
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.stalled == stalled {
			l.stalled = nil
			close(stalled)
		}
	}
}

// Records returns copies of the records in the log, oldest first.
func (l *Log) Records() []*auditv1.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*auditv1.Record, len(l.records))
	for i, r := range l.records {
		all[i] = proto.CloneOf(r)
	}
	return all
}

// Append implements audit.Log.
func (l *Log) Append(ctx context.Context, r *auditv1.Record) (audit.Receipt, error) {
	if err := l.wait(ctx); err != nil {
		return audit.Receipt{}, err
	}
	b, err := proto.Marshal(r)
	if err != nil {
		return audit.Receipt{}, fmt.Errorf("%w: %w", audit.ErrUnavailable, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	failure := l.always
	if len(l.failures) > 0 {
		failure, l.failures = l.failures[0], l.failures[1:]
	}
	if failure == Lost {
		return audit.Receipt{}, fmt.Errorf("%w: %w", audit.ErrUnavailable, ErrInjected)
	}
	leaf := audit.LeafHash(b)
	batch := audit.Batch{
		Kind: audit.KindBatch, Instance: l.key.Name(),
		First: uint64(len(l.records)), Count: 1, Prev: l.prev, Root: leaf,
	}
	receipt := audit.Receipt{
		Instance: batch.Instance, First: batch.First, Count: 1,
		Record: leaf, Prev: l.prev,
	}
	receipt.Signature, l.prev = batch.Sign(l.key)
	l.records = append(l.records, proto.CloneOf(r))
	if failure == Persisted {
		return audit.Receipt{}, fmt.Errorf("%w: %w", audit.ErrUnavailable, ErrInjected)
	}
	return receipt, nil
}

func (l *Log) wait(ctx context.Context) error {
	l.mu.Lock()
	stalled := l.stalled
	l.mu.Unlock()
	if stalled != nil {
		select {
		case <-stalled:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}
