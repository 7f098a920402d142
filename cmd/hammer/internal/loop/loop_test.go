package loop

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

func TestBuckets(t *testing.T) {
	values := []uint64{0, 1, 63, 64, 127, 128, 129, 1000, 1 << 20, 1<<20 + 1, math.MaxInt64}
	for range 1000 {
		values = append(values, rand.Uint64()>>(1+rand.IntN(60)))
	}
	for _, v := range values {
		i := bucketOf(v)
		if i >= len(Histogram{}.buckets) {
			t.Fatalf("%d has no bucket: %d", v, i)
		}
		upper := upperOf(i)
		if bucketOf(upper) != i || (upper != math.MaxUint64 && bucketOf(upper+1) != i+1) {
			t.Fatalf("%d is in bucket %d, which does not end at %d", v, i, upper)
		}
		if upper < v || float64(upper-v) > float64(v)/(1<<subBits) {
			t.Fatalf("%d is counted as %d", v, upper)
		}
	}
}

func TestQuantile(t *testing.T) {
	var a, b Histogram
	var all []time.Duration
	for range 10_000 {
		d := time.Duration(rand.ExpFloat64() * float64(time.Millisecond))
		all = append(all, d)
		[]*Histogram{&a, &b}[rand.IntN(2)].Add(d)
	}
	a.Merge(&b)
	slices.Sort(all)
	for _, q := range []float64{0.001, 0.5, 0.99, 1} {
		want := all[int(math.Ceil(q*float64(len(all))))-1]
		if got := a.Quantile(q); got < want || got > want+want/64+1 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if a.Count() != 10_000 {
		t.Errorf("count %d", a.Count())
	}
	if got := new(Histogram).Quantile(0.5); got != 0 {
		t.Errorf("the median of nothing is %v", got)
	}
}

func TestRun(t *testing.T) {
	boom := errors.New("boom")
	var calls atomic.Uint64
	r := Run(t.Context(), 4, 200*time.Millisecond, func(_ context.Context, caller int) error {
		runtime.Gosched() // nobody is kept from their turn
		calls.Add(1)
		if caller == 3 {
			return boom
		}
		return nil
	})
	if r.Ops+r.Failed != calls.Load() || r.Ops == 0 || r.Failed == 0 {
		t.Errorf("%d succeeded and %d failed of %d", r.Ops, r.Failed, calls.Load())
	}
	if !errors.Is(r.Err, boom) || r.Latency.Count() != r.Ops {
		t.Errorf("error %v, %d latencies for %d operations", r.Err, r.Latency.Count(), r.Ops)
	}
}

// A call that was cut off because the run ended is not a failure of the server.
func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := Run(ctx, 2, time.Hour, func(ctx context.Context, _ int) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	})
	if r.Ops != 0 || r.Failed != 0 {
		t.Errorf("%d succeeded, %d failed", r.Ops, r.Failed)
	}
}
