package policy

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	cedar "github.com/cedar-policy/cedar-go"
)

// Snapshot is a compiled policy. It is immutable and safe for concurrent use. A nil
// Snapshot permits nothing.
type Snapshot struct {
	revision uint64
	*compiled
}

// compiled is what snapshots of the same policy share.
type compiled struct {
	rules     []rule
	index     index
	uses      vocabulary
	tenancies memo[*tenancy]
	contexts  memo[cedar.Record]
	decided   memo[Decision]
	scratch   sync.Pool
}

func newSnapshot(rules []rule) *Snapshot {
	c := &compiled{rules: rules, index: newIndex(rules)}
	c.tenancies.limit, c.contexts.limit, c.decided.limit = maxTenancies, maxContexts, maxDecisions
	for _, r := range rules {
		c.uses.add(r.uses)
	}
	c.uses.order = slices.Sorted(maps.Keys(c.uses.keys))
	c.scratch.New = func() any { return new(scratch) }
	return &Snapshot{compiled: c}
}

// At gives the same policy under the revision it was stored with.
func (s *Snapshot) At(revision uint64) *Snapshot { return &Snapshot{revision, s.compiled} }

// Revision gives the revision the policy was stored with, 0 if it was not.
func (s *Snapshot) Revision() uint64 {
	if s == nil {
		return 0
	}
	return s.revision
}

// scratch is the memory of one decision.
type scratch struct {
	entities   entities
	candidates candidates
	key        []byte
	asked      []byte
}

// Decide answers the request. It has no effect and depends on nothing but the
// snapshot and the request.
func (s *Snapshot) Decide(r Request) Decision {
	if s == nil {
		return Decision{Reason: ReasonNoPermit}
	}
	memory := s.scratch.Get().(*scratch)
	defer s.scratch.Put(memory)
	d := s.decideOnce(r, memory)
	d.Revision = s.revision
	return d
}

// decide evaluates the guards and the policies.
func (s *compiled) decide(r Request, memory *scratch) Decision {
	defer func() {
		clear(memory.candidates)
		memory.candidates = memory.candidates[:0]
		memory.entities = entities{} // keeps nobody's request alive
	}()
	e := &memory.entities
	*e = entities{
		principal: r.Principal, resource: r.Resource.uid(), action: r.Action,
		tenancy: s.tenancyOf(r.Resource, memory),
	}
	ask := cedar.Request{
		Principal: r.Principal.entity.UID,
		Action:    actionEntities[r.Action].UID,
		Resource:  e.resource,
		Context:   e.tenancy.guards(r.Resource, r.Context),
	}
	if decision, why := guardOf(r.Action).authorize(e, ask); decision != cedar.Allow {
		return denied(ReasonGuard, why)
	}

	memory.candidates = s.index.find(memory.candidates, ask.Principal, ask.Resource, e.tenancy.uid, r.Action)
	if len(memory.candidates) == 0 {
		return Decision{Reason: ReasonNoPermit}
	}
	ask.Context = s.contextOf(e.tenancy, r.Context, memory)
	decision, why := cedar.Authorize(memory.candidates, e, ask)
	switch {
	case len(why.Errors) > 0:
		return denied(ReasonError, why)
	case decision != cedar.Allow && len(why.Reasons) > 0:
		return denied(ReasonForbidden, why)
	case decision != cedar.Allow:
		return Decision{Reason: ReasonNoPermit}
	case !proved(r):
		return Decision{Reason: ReasonGuard}
	}
	return Decision{Allow: true, Reason: ReasonPermitted, Policies: reasons(why)}
}

func denied(reason Reason, why cedar.Diagnostic) Decision {
	d := Decision{Reason: reason}
	for _, e := range why.Errors {
		d.Errors = append(d.Errors, string(e.PolicyID))
	}
	slices.Sort(d.Errors)
	// With an error in a permitted request the reasons are the permits: they did not
	// determine the denial.
	if reason != ReasonError {
		d.Policies = reasons(why)
	}
	return d
}

func reasons(why cedar.Diagnostic) []string {
	ids := make([]string, len(why.Reasons))
	for i, r := range why.Reasons {
		ids[i] = string(r.PolicyID)
	}
	slices.Sort(ids)
	return ids
}

// Engine decides by the policy in force. The zero Engine permits nothing. It is safe
// for concurrent use.
type Engine struct {
	current atomic.Pointer[Snapshot]
}

// Snapshot gives the policy in force, or nil before the first Swap. A caller that
// decides and then records the revision uses one snapshot for both.
func (e *Engine) Snapshot() *Snapshot { return e.current.Load() }

// Decide answers by the policy in force.
func (e *Engine) Decide(r Request) Decision { return e.current.Load().Decide(r) }

// Swap puts the snapshot in force, unless one of a later revision already is: of two
// loads that overlap, the later one stays. It reports whether s is now in force.
func (e *Engine) Swap(s *Snapshot) bool {
	for {
		old := e.current.Load()
		if s == nil || old != nil && old.revision > s.revision {
			return false
		}
		if e.current.CompareAndSwap(old, s) {
			return true
		}
	}
}
