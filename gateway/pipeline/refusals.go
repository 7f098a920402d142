package pipeline

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/identity"
	"github.com/sallyport/sallyport/gateway/policy"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

// RefusalInterval is how long refusals of strangers are counted before the count
// is recorded.
const RefusalInterval = time.Second

// knownCaller reports whether a refusal by authentication concerns a caller whose
// certificate one of our authorities vouches for. There are as many of those as
// certificates were issued, so each refusal gets a record of its own.
func knownCaller(r fault.Reason) bool {
	switch r {
	case fault.WorkloadNotRegistered, fault.WorkloadDisabled, fault.CertificateRevoked:
		return true
	default:
		return false
	}
}

// refusals counts, by method and reason, the calls of those we do not know.
type refusals struct {
	mu     sync.Mutex
	counts map[refusal]uint64
}

type refusal struct {
	method string
	reason fault.Reason
}

func (r *refusals) add(route *Route, reason fault.Reason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[refusal]uint64{}
	}
	r.counts[refusal{string(route.Method), reason}]++
}

func (r *refusals) take() map[refusal]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := r.counts
	r.counts = nil
	return counts
}

// Run records the refusals of strangers in aggregate until the context ends, and
// then once more.
func (p *Pipeline) Run(ctx context.Context) {
	tick := time.NewTicker(RefusalInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.flushRefusals(ctx)
		case <-ctx.Done():
			p.flushRefusals(context.WithoutCancel(ctx))
			return
		}
	}
}

func (p *Pipeline) flushRefusals(ctx context.Context) {
	for what, n := range p.refusals.take() {
		record := p.event(what.method)
		record.CallerKind = auditv1.CallerKind_CALLER_KIND_UNKNOWN
		record.Decision = auditv1.Decision_DECISION_DENY
		record.Reason = what.reason.String()
		record.Count = n
		if _, err := p.Log.Append(ctx, record); err != nil {
			p.Logger.ErrorContext(ctx, "refusals could not be recorded", "count", n, "error", err)
		}
	}
}

// Note records an act of the gateway itself: a scheduled rotation, a start, a
// stop. The phase is INTENT before an effect, OUTCOME after it, or EVENT.
func (p *Pipeline) Note(ctx context.Context, phase auditv1.Phase, action, resource, reason string, change ...string) error {
	record := p.event(action)
	record.Phase = phase
	record.CallerKind = auditv1.CallerKind_CALLER_KIND_GATEWAY
	record.Resource, record.Reason, record.Change = resource, reason, change
	_, err := p.Log.Append(ctx, record)
	return err
}

func (p *Pipeline) event(action string) *auditv1.Record {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails (crypto/rand)
	return &auditv1.Record{
		RequestId: id, Time: timestamppb.New(p.Now()), Phase: auditv1.Phase_PHASE_EVENT, Action: action,
	}
}

// principals keeps what policy calls each caller, so that it is made once for each
// connection's verdict and not once for each call.
type principals struct {
	mu    sync.RWMutex
	known map[identity.Caller]*policy.Principal
}

// maxPrincipals bounds the memory of principals; beyond it they are made anew.
const maxPrincipals = 16384

func (p *principals) of(c identity.Caller) *policy.Principal {
	p.mu.RLock()
	known, ok := p.known[c]
	p.mu.RUnlock()
	if ok {
		return known
	}
	var made *policy.Principal
	switch c := c.(type) {
	case identity.Workload:
		made = policy.NewWorkload(c.Name(), c.Registration(), c.Automation())
	case identity.Human:
		made = policy.NewOperator(c.Name())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil || len(p.known) >= maxPrincipals {
		p.known = map[identity.Caller]*policy.Principal{}
	}
	p.known[c] = made
	return made
}
