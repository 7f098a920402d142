package policy

import (
	"fmt"
	"iter"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// actionSet is a set of actions: bit a stands for Action a.
type actionSet uint64

// All actions must have a bit.
const _ = uint(64 - actionEnd)

func (s actionSet) has(a Action) bool { return s&(1<<a) != 0 }

// actionsOf gives the actions that a scope admits. The hierarchy of actions is
// closed, so that membership is known when the policy is compiled.
func actionsOf(scope ast.IsActionScopeNode) actionSet {
	var named []cedar.EntityUID
	switch s := scope.(type) {
	case ast.ScopeTypeAll:
		return ^actionSet(0)
	case ast.ScopeTypeEq:
		named = []cedar.EntityUID{s.Entity}
	case ast.ScopeTypeIn:
		named = []cedar.EntityUID{s.Entity}
	case ast.ScopeTypeInSet:
		named = s.Entities
	default:
		panic(fmt.Sprintf("policy: unknown action scope %T", scope))
	}
	var set actionSet
	for _, uid := range named {
		for a := Action(1); a < actionEnd; a++ {
			group := groupEntities[a.Group()]
			if uid == actionEntities[a].UID || uid == group.UID || group.Parents.Contains(uid) {
				set |= 1 << a
			}
		}
	}
	return set
}

// term is a number for one thing that a principal or resource scope can demand:
// nothing, an entity type, or an entity to be or to be in.
type term int

const (
	termAny term = iota
	termWorkload
	termOperator
	termGateway
	termTenant
	termKeyring
	termRole
	termNever  // a type that no request has
	termEntity // and up: the entities named by the policies
)

var typeTerms = map[cedar.EntityType]term{
	typeWorkload: termWorkload, typeOperator: termOperator,
	typeGateway: termGateway, typeTenant: termTenant, typeKeyring: termKeyring, typeRole: termRole,
}

// index finds the policies that could apply to a request. A policy is filed once,
// under the term of its principal scope and that of its resource scope. For a
// request the terms that can be true are few: any, its type, itself, and for a
// keyring or a secret role its tenant (no other entity has a parent). A policy filed
// under another pair has a scope that is false, evaluates to false without an error,
// and cannot change the decision; TestSlicingIsSound compares with evaluating all of
// them.
type index struct {
	entities map[cedar.EntityUID]term
	buckets  map[[2]term][]*rule
}

func newIndex(rules []rule) index {
	x := index{entities: map[cedar.EntityUID]term{}, buckets: map[[2]term][]*rule{}}
	for i := range rules {
		r := &rules[i]
		tree := r.policy.AST()
		key := [2]term{x.file(tree.Principal), x.file(tree.Resource)}
		x.buckets[key] = append(x.buckets[key], r)
	}
	return x
}

// file gives the term of a scope. For "is T in E" it is E: whether the type fits is
// left to the evaluation.
func (x index) file(scope ast.IsScopeNode) term {
	switch s := scope.(type) {
	case ast.ScopeTypeAll:
		return termAny
	case ast.ScopeTypeIs:
		if t, ok := typeTerms[s.Type]; ok {
			return t
		}
		return termNever
	case ast.ScopeTypeEq:
		return x.entity(s.Entity)
	case ast.ScopeTypeIn:
		return x.entity(s.Entity)
	case ast.ScopeTypeIsIn:
		return x.entity(s.Entity)
	default:
		panic(fmt.Sprintf("policy: unknown scope %T", scope))
	}
}

func (x index) entity(uid cedar.EntityUID) term {
	t, ok := x.entities[uid]
	if !ok {
		t = termEntity + term(len(x.entities))
		x.entities[uid] = t
	}
	return t
}

// find appends to out the policies that could apply.
func (x index) find(out candidates, principal, resource, tenant cedar.EntityUID, a Action) candidates {
	principals := [3]term{termAny, typeTerms[principal.Type], x.entities[principal]}
	resources := [4]term{termAny, typeTerms[resource.Type], x.entities[resource]}
	if tenant != resource {
		resources[3] = x.entities[tenant]
	}
	for i, p := range principals {
		if i > 0 && p == termAny { // not named by any policy
			continue
		}
		for j, r := range resources {
			if j > 0 && r == termAny {
				continue
			}
			for _, rule := range x.buckets[[2]term{p, r}] {
				if rule.actions.has(a) {
					out = append(out, rule)
				}
			}
		}
	}
	return out
}

// candidates are policies to evaluate; a cedar.PolicyIterator.
type candidates []*rule

// All yields the policies.
func (c candidates) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, r := range c {
			if !yield(r.id, r.policy) {
				return
			}
		}
	}
}
