package keys

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// guarded is a KEK behind our own budget of calls and a circuit breaker.
type guarded struct {
	kek      KEK
	budget   *budget
	counters *counters
	now      func() time.Time
	breaker  breaker
}

func (g *guarded) wrap(ctx context.Context, t Tenant, keyset []byte, b Binding) ([]byte, error) {
	return g.call(t, func() ([]byte, error) { return g.kek.Wrap(ctx, keyset, b) })
}

func (g *guarded) unwrap(ctx context.Context, t Tenant, wrapped []byte, b Binding) ([]byte, error) {
	return g.call(t, func() ([]byte, error) { return g.kek.Unwrap(ctx, wrapped, b) })
}

func (g *guarded) call(t Tenant, f func() ([]byte, error)) ([]byte, error) {
	now := g.now()
	if !g.breaker.admits(now) {
		return nil, fmt.Errorf("%w: it failed %d times in a row and is left alone for a moment", ErrKEKUnreachable, breakerThreshold)
	}
	if !g.budget.take(t, now) {
		return nil, fmt.Errorf("%w: our own budget of calls", ErrKEKThrottled)
	}
	g.counters.kekCalls.Add(1)
	out, err := f()
	if err != nil {
		g.counters.kekFailures.Add(1)
	}
	g.breaker.note(g.now(), errors.Is(err, ErrKEKUnreachable) || errors.Is(err, ErrKEKThrottled))
	return out, err
}

// Breaker settings.
const (
	breakerThreshold = 5
	breakerPause     = 2 * time.Second
)

// breaker stops calls to a KEK that failed several times in a row, and lets one
// through after a pause to see whether it is back.
type breaker struct {
	mu       sync.Mutex
	failures int
	until    time.Time // no calls before
}

func (b *breaker) admits(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < breakerThreshold {
		return true
	}
	if now.Before(b.until) {
		return false
	}
	b.until = now.Add(breakerPause) // this one goes through; the others wait for it
	return true
}

func (b *breaker) note(now time.Time, failed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !failed {
		b.failures = 0
		return
	}
	b.failures++
	b.until = now.Add(breakerPause)
}

// budget bounds the calls to KEKs, in all and by tenant.
type budget struct {
	all       *rate.Limiter
	tenantMax float64

	mu      sync.Mutex
	tenants map[Tenant]*rate.Limiter
}

// maxTenantBudgets bounds the memory of budgets; beyond it they begin anew.
const maxTenantBudgets = 10_000

func newBudget(all, tenant float64) *budget {
	return &budget{all: newLimiter(all), tenantMax: tenant, tenants: map[Tenant]*rate.Limiter{}}
}

func newLimiter(perSecond float64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(perSecond), max(1, int(2*perSecond)))
}

func (b *budget) take(t Tenant, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	tenant := b.tenants[t]
	if tenant == nil {
		if len(b.tenants) >= maxTenantBudgets {
			clear(b.tenants)
		}
		tenant = newLimiter(b.tenantMax)
		b.tenants[t] = tenant
	}
	return tenant.AllowN(now, 1) && b.all.AllowN(now, 1)
}
