package policy

import (
	"strings"

	cedar "github.com/cedar-policy/cedar-go"
)

// entities gives Cedar the few entities of one request without a map: the principal,
// the resource, its tenant, the actions and their groups. All else does not exist.
type entities struct {
	principal *Principal
	resource  cedar.EntityUID
	action    Action
	tenancy   *tenancy
}

// Get implements cedar.EntityGetter.
func (e *entities) Get(uid cedar.EntityUID) (cedar.Entity, bool) {
	switch {
	case uid == e.resource:
		return cedar.Entity{UID: uid, Parents: e.parents(), Attributes: e.tenancy.attributes}, true
	case uid == e.principal.entity.UID:
		return e.principal.entity, true
	case uid == e.tenancy.uid:
		return cedar.Entity{UID: uid, Attributes: e.tenancy.attributes}, true
	case uid.Type == typeAction:
		return actionEntity(uid, e.action)
	}
	return cedar.Entity{}, false
}

func (e *entities) parents() cedar.EntityUIDSet {
	if e.resource.Type == typeKeyring || e.resource.Type == typeRole {
		return e.tenancy.parents
	}
	return cedar.EntityUIDSet{}
}

// actionEntity looks at the request's own action first.
func actionEntity(uid cedar.EntityUID, own Action) (cedar.Entity, bool) {
	if e := actionEntities[own]; uid == e.UID {
		return e, true
	}
	for _, e := range groupEntities[1:] {
		if uid == e.UID {
			return e, true
		}
	}
	for _, e := range actionEntities[1:] {
		if uid == e.UID {
			return e, true
		}
	}
	return cedar.Entity{}, false
}

// tenancy is what Cedar is told of a tenant. It depends on nothing but the tenant's
// name, and is immutable.
type tenancy struct {
	uid        cedar.EntityUID    // the Tenant
	parents    cedar.EntityUIDSet // the Tenant: what a keyring or a role of it is in
	attributes cedar.Record       // {tenant}: of the resource, and the smallest context
	// The guards' context when all is proved, for the two chains that can be: most
	// calls need no other.
	machine, human cedar.Record
}

// newTenancy copies the name, which is a part of a request's.
func newTenancy(parent string) *tenancy {
	parent = strings.Clone(parent)
	tenant := Resource{parent: parent}.Tenant()
	t := &tenancy{
		attributes: cedar.NewRecord(cedar.RecordMap{"tenant": cedar.String(tenant)}),
		machine:    guardContext(tenant, StandingActive, ChainMachine),
		human:      guardContext(tenant, StandingActive, ChainHuman),
	}
	if parent != "" {
		t.uid = cedar.EntityUID{Type: typeTenant, ID: cedar.String(parent)}
		t.parents = cedar.NewEntityUIDSet(t.uid)
	}
	return t
}

// guardContext makes the context of the guards. A fact that is not proved is absent.
func guardContext(tenant string, s Standing, c Chain) cedar.Record {
	m := cedar.RecordMap{"tenant": cedar.String(tenant)}
	switch s {
	case StandingActive:
		m["state"] = cedar.String("active")
	case StandingInactive:
		m["state"] = cedar.String("inactive")
	}
	switch c {
	case ChainMachine:
		m["humanInChain"] = cedar.False
	case ChainHuman:
		m["humanInChain"] = cedar.True
	}
	return cedar.NewRecord(m)
}

// guards gives the guards' context. The tenant is the context's own, which the
// guards compare with the resource's.
func (t *tenancy) guards(resource Resource, c Context) cedar.Record {
	if c.Standing == StandingActive && c.Tenant == resource.Tenant() {
		switch c.Chain {
		case ChainMachine:
			return t.machine
		case ChainHuman:
			return t.human
		}
	}
	return guardContext(c.Tenant, c.Standing, c.Chain)
}
