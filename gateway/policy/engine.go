package policy

import (
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
	tenancies tenancies
	scratch   sync.Pool
}

func newSnapshot(rules []rule) *Snapshot {
	c := &compiled{rules: rules, index: newIndex(rules)}
	for _, r := range rules {
		c.uses.add(r.uses)
	}
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
}

// Decide answers the request. It has no effect and depends on nothing but the
// snapshot and the request.
func (s *Snapshot) Decide(r Request) Decision {
	if s == nil {
		return Decision{Reason: ReasonNoPermit}
	}
	d := s.decide(r)
	d.Revision = s.revision
	return d
}

func (s *Snapshot) decide(r Request) Decision {
	if r.Principal == nil || !r.Action.Valid() || r.Resource.kind != r.Action.Resource() {
		return Decision{Reason: ReasonRequest}
	}
	memory := s.scratch.Get().(*scratch)
	defer func() {
		clear(memory.candidates)
		memory.candidates = memory.candidates[:0]
		memory.entities = entities{} // keeps nobody's request alive
		s.scratch.Put(memory)
	}()
	e := &memory.entities
	*e = entities{principal: r.Principal, resource: r.Resource.uid(), action: r.Action,
		tenancy: s.tenancies.of(r.Resource)}
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
	ask.Context = s.uses.record(e.tenancy, r.Context)
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

// record makes the context of the loaded policies, as far as they can observe it.
func (v *vocabulary) record(t *tenancy, c Context) cedar.Record {
	if !v.time && !v.encryption && !v.all {
		return t.attributes // {tenant}, which the guards found to be the context's too
	}
	m := cedar.RecordMap{"tenant": cedar.String(c.Tenant)}
	if v.time || v.all {
		m["time"] = cedar.Long(c.Time)
	}
	if v.encryption || v.all {
		m["encryption"] = v.encryptionRecord(c.Encryption)
	}
	return cedar.NewRecord(m)
}

func (v *vocabulary) encryptionRecord(pairs map[string]string) cedar.Record {
	var m cedar.RecordMap
	for key, value := range pairs {
		if v.all || v.keys[key] {
			if m == nil {
				m = cedar.RecordMap{}
			}
			m[cedar.String(key)] = cedar.String(value)
		}
	}
	if m == nil {
		return cedar.Record{}
	}
	return cedar.NewRecord(m)
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
