// Package loop calls something from many goroutines, each as soon as its last call
// has ended, and measures.
package loop

import (
	"context"
	"sync"
	"time"
)

// Call does one operation for the numbered caller.
type Call func(ctx context.Context, caller int) error

// Result is what a run measured.
//
// The loop is closed: a caller that waits does not call, so that a server which
// stalls is asked less. The latencies are what these callers met, and not what
// callers who arrive at their own pace would meet.
type Result struct {
	Ops     uint64        // operations that succeeded
	Failed  uint64        // operations that did not
	Err     error         // the first failure
	Elapsed time.Duration // from the first call to the end of the last
	Latency Histogram     // of the operations that succeeded
}

// Rate is successful operations in a second.
func (r *Result) Rate() float64 { return float64(r.Ops) / r.Elapsed.Seconds() }

// Merge adds another run of the same operation.
func (r *Result) Merge(other *Result) {
	r.Ops += other.Ops
	r.Failed += other.Failed
	if r.Err == nil {
		r.Err = other.Err
	}
	r.Elapsed += other.Elapsed
	r.Latency.Merge(&other.Latency)
}

// Run lets callers call for the given time, or until the context ends. Calls that
// are on their way then are waited for and counted: what they cost the server is in
// its processor time too.
func Run(ctx context.Context, callers int, d time.Duration, call Call) *Result {
	parts := make([]Result, callers)
	start := time.Now()
	end := start.Add(d)
	var wg sync.WaitGroup
	for i := range parts {
		wg.Go(func() { parts[i].fill(ctx, i, end, call) })
	}
	wg.Wait()
	total := &Result{}
	for i := range parts {
		total.Merge(&parts[i])
	}
	total.Elapsed = time.Since(start)
	return total
}

func (r *Result) fill(ctx context.Context, caller int, end time.Time, call Call) {
	for now := time.Now(); now.Before(end) && ctx.Err() == nil; {
		err := call(ctx, caller)
		done := time.Now()
		if err == nil {
			r.Ops++
			r.Latency.Add(done.Sub(now))
		} else if ctx.Err() == nil {
			r.Failed++
			if r.Err == nil {
				r.Err = err
			}
		}
		now = done
	}
}
