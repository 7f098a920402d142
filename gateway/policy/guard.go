package policy

import (
	_ "embed"
	"fmt"

	cedar "github.com/cedar-policy/cedar-go"
)

var (
	//go:embed guard_data.cedar
	guardDataText []byte
	//go:embed guard_control.cedar
	guardControlText []byte

	guardData    = mustGuard("guard:data/", guardDataText)
	guardControl = mustGuard("guard:control/", guardControlText)
)

// guard is a set of policies that no loaded policy can add to or replace: a permit
// of everything, and forbids.
type guard candidates

// mustGuard parses an embedded guard file. Ids begin with the prefix, whose colon no
// loaded policy's id can contain. What goes wrong here goes wrong in every test.
func mustGuard(prefix string, text []byte) guard {
	var everything cedar.Policy
	if err := everything.UnmarshalCedar([]byte(`permit (principal, action, resource);`)); err != nil {
		panic(fmt.Sprintf("policy: %v", err))
	}
	g := guard{{id: cedar.PolicyID(prefix + "everything"), policy: &everything}}
	parsed, err := cedar.NewPolicyListFromBytes(prefix, text)
	if err != nil || len(parsed) == 0 {
		panic(fmt.Sprintf("policy: guards %s: %d policies, %v", prefix, len(parsed), err))
	}
	seen := map[cedar.PolicyID]bool{}
	for _, p := range parsed {
		id := cedar.PolicyID(prefix + string(p.Annotations()["id"]))
		if seen[id] || p.Effect() != cedar.Forbid {
			panic(fmt.Sprintf("policy: guard %s is a duplicate or permits", id))
		}
		seen[id] = true
		g = append(g, &rule{id: id, policy: p})
	}
	return g
}

// guardOf gives the guard of the action's plane.
func guardOf(a Action) guard {
	if a.DataPlane() {
		return guardData
	}
	return guardControl
}

// authorize evaluates the guards alone. It is Allow only if no guard forbids and
// none fails.
func (g guard) authorize(entities cedar.EntityGetter, r cedar.Request) (cedar.Decision, cedar.Diagnostic) {
	decision, why := cedar.Authorize(candidates(g), entities, r)
	if len(why.Errors) > 0 {
		return cedar.Deny, why
	}
	return decision, why
}

// proved repeats the guards in Go, for the day on which one of them, or Cedar, is
// wrong. Of the data plane it asks more than they do, who cannot name an action: that
// the resource is of the action's own kind.
func proved(r Request) bool {
	p, c := r.Principal, r.Context
	if c.Standing != StandingActive || c.Tenant != r.Resource.Tenant() {
		return false
	}
	if r.Action.DataPlane() {
		return p.IsWorkload() && r.Resource.kind == r.Action.Resource() && c.Chain == ChainMachine
	}
	return r.Action.Group() != 0 && (p.IsOperator() || p.IsWorkload() && p.automation)
}
