package lease

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// allowance bounds how often each workload asks. It remembers the workloads of the
// last minutes only: who has not asked for that long has its whole burst again.
type allowance struct {
	limit rate.Limit
	burst int

	mu            sync.Mutex
	recent, older map[string]*rate.Limiter
	turned        time.Time
}

func newAllowance(perSecond float64, burst int) *allowance {
	return &allowance{limit: rate.Limit(perSecond), burst: burst, recent: map[string]*rate.Limiter{}}
}

// take reports whether who may ask now.
func (a *allowance) take(who string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	refill := time.Duration(float64(a.burst) / float64(a.limit) * float64(time.Second))
	if now.Sub(a.turned) > refill {
		a.older, a.recent, a.turned = a.recent, map[string]*rate.Limiter{}, now
	}
	l := a.recent[who]
	if l == nil {
		if l = a.older[who]; l == nil {
			l = rate.NewLimiter(a.limit, a.burst)
		}
		a.recent[who] = l
	}
	return l.AllowN(now, 1)
}
