package keys

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// breakerThreshold is how many calls in a row must go unanswered before the
	// breaker opens, and breakerPause how long it then stays so before it lets one
	// call try; up to half as much again is added at random.
	breakerThreshold = 5
	breakerPause     = 5 * time.Second
	// tenantBuckets bounds the number of tenants whose budget is remembered. A tenant
	// that is forgotten begins with a full bucket.
	tenantBuckets = 4096
)

// ErrKEKBreaker: recent calls to the KEK went unanswered, so this one was not made.
var ErrKEKBreaker = fmt.Errorf("%w: circuit breaker open", ErrKEKUnreachable)

// budget bounds the calls to all KEKs together and for each tenant, in token buckets
// that hold what may come in two seconds. It is for calls, not for operations: one
// call opens a version for as long as it stays in memory.
type budget struct {
	all        *rate.Limiter
	tenantRate float64
	tenants    *cache[Tenant, *rate.Limiter]
}

func newBudget(all, tenant float64) *budget {
	return &budget{newLimiter(all), tenant, newCache[Tenant, *rate.Limiter](tenantBuckets, 1)}
}

func newLimiter(perSecond float64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(perSecond), max(1, int(2*perSecond)))
}

// take takes one token, or returns an error wrapping ErrKEKThrottled. The tenant's
// bucket comes first, so that a tenant beyond its share takes nothing from others.
func (b *budget) take(t Tenant) error {
	own, ok := b.tenants.get(t)
	if !ok {
		own = newLimiter(b.tenantRate)
		b.tenants.put(t, own, 1, func() bool { return true })
	}
	if !own.Allow() {
		return fmt.Errorf("%w: the tenant's budget is spent", ErrKEKThrottled)
	}
	if !b.all.Allow() {
		return fmt.Errorf("%w: the budget is spent", ErrKEKThrottled)
	}
	return nil
}

// gate stands before one KEK: deadline, budget, breaker and count.
type gate struct {
	kek     KEK
	budget  *budget
	timeout time.Duration
	counts  *counts
	breaker breaker
}

func (g *gate) wrap(ctx context.Context, keyset []byte, b Binding) ([]byte, error) {
	return g.call(ctx, b.Tenant, func(ctx context.Context) ([]byte, error) { return g.kek.Wrap(ctx, keyset, b) })
}

func (g *gate) unwrap(ctx context.Context, wrapped []byte, b Binding) ([]byte, error) {
	return g.call(ctx, b.Tenant, func(ctx context.Context) ([]byte, error) { return g.kek.Unwrap(ctx, wrapped, b) })
}

func (g *gate) call(ctx context.Context, t Tenant, do func(context.Context) ([]byte, error)) ([]byte, error) {
	if !g.breaker.allow(time.Now()) {
		return nil, ErrKEKBreaker
	}
	if err := g.budget.take(t); err != nil {
		return nil, err
	}
	g.counts.kekCalls.Add(1)
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	result, err := do(ctx)
	if err != nil && !errors.Is(err, ErrKEK) {
		// A provider that breaks its contract has not said no.
		err = fmt.Errorf("%w: %w", ErrKEKUnreachable, err)
	}
	if err != nil {
		g.counts.kekFailures.Add(1)
	}
	// A caller that went away says nothing about the KEK.
	if !errors.Is(err, context.Canceled) {
		g.breaker.record(errors.Is(err, ErrKEKUnreachable), time.Now())
	}
	return result, err
}

// breaker refuses calls to a KEK that does not answer. A refusal or throttling is
// an answer.
type breaker struct {
	mu         sync.Mutex
	unanswered int
	closedTill time.Time // no call before, once the threshold is reached
}

// allow reports whether a call may be made. While open it lets one through for each
// pause.
func (b *breaker) allow(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.unanswered < breakerThreshold {
		return true
	}
	if now.Before(b.closedTill) {
		return false
	}
	b.closedTill = now.Add(pause())
	return true
}

func (b *breaker) record(unanswered bool, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !unanswered {
		b.unanswered = 0
		return
	}
	b.unanswered++
	if b.unanswered == breakerThreshold {
		b.closedTill = now.Add(pause())
	}
}

// open reports whether calls are being refused.
func (b *breaker) open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unanswered >= breakerThreshold
}

func pause() time.Duration { return breakerPause + rand.N(breakerPause/2) }
