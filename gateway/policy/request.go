package policy

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	cedar "github.com/cedar-policy/cedar-go"
)

// The entity types of the schema.
const (
	typeWorkload cedar.EntityType = "Sallyport::Workload"
	typeOperator cedar.EntityType = "Sallyport::Operator"
	typeGateway  cedar.EntityType = "Sallyport::Gateway"
	typeTenant   cedar.EntityType = "Sallyport::Tenant"
	typeKeyring  cedar.EntityType = "Sallyport::Keyring"
	typeRole     cedar.EntityType = "Sallyport::SecretRole"
	typeAction   cedar.EntityType = "Sallyport::Action"
)

// Request is a question. The zero Request is denied.
type Request struct {
	Principal *Principal
	Action    Action
	Resource  Resource
	Context   Context
}

// Principal is who asks. It is made once, when the caller is authenticated or its
// registration changes, and is immutable; a nil Principal is denied.
type Principal struct {
	serial     uint64 // no two principals of a process share one
	entity     cedar.Entity
	automation bool
}

var serials atomic.Uint64

// NewWorkload makes the principal of a registered workload. The registration is the
// id of its row in the register; automation admits it to the control plane, as far
// as policy allows.
func NewWorkload(spiffeID, registration string, automation bool) *Principal {
	return &Principal{
		serial: serials.Add(1),
		entity: cedar.Entity{
			UID: cedar.NewEntityUID(typeWorkload, cedar.String(spiffeID)),
			Attributes: cedar.NewRecord(cedar.RecordMap{
				"id":         cedar.String(registration),
				"automation": cedar.Boolean(automation),
			}),
		},
		automation: automation,
	}
}

// NewOperator makes the principal of a person.
func NewOperator(name string) *Principal {
	return &Principal{serial: serials.Add(1), entity: cedar.Entity{UID: cedar.NewEntityUID(typeOperator, cedar.String(name))}}
}

// IsWorkload reports whether p is a workload. A nil Principal is not.
func (p *Principal) IsWorkload() bool { return p != nil && p.entity.UID.Type == typeWorkload }

// IsOperator reports whether p is a person. A nil Principal is not.
func (p *Principal) IsOperator() bool { return p != nil && p.entity.UID.Type == typeOperator }

// Kind is a kind of resource. The zero Kind is none.
type Kind uint8

// The kinds.
const (
	KindGateway Kind = iota + 1
	KindTenant
	KindKeyring
	KindSecretRole

	kindEnd
)

var kindTypes = [kindEnd]cedar.EntityType{
	KindGateway: typeGateway, KindTenant: typeTenant, KindKeyring: typeKeyring, KindSecretRole: typeRole,
}

// String gives the kind's entity type, without the namespace.
func (k Kind) String() string {
	if k == 0 || k >= kindEnd {
		return fmt.Sprintf("Kind(%d)", uint8(k))
	}
	return strings.TrimPrefix(string(kindTypes[k]), "Sallyport::")
}

// Resource is what the action is about. The zero Resource is none and is denied.
type Resource struct {
	kind   Kind
	name   string
	parent string // the tenant's resource name, a part of name; "" for the gateway
}

var errResource = errors.New(`policy: want "gateway", "tenants/{tenant}", "tenants/{tenant}/keyrings/{keyring}" or "tenants/{tenant}/secretRoles/{role}"`)

// Gateway is the resource of the actions that concern no tenant.
var Gateway = Resource{kind: KindGateway, name: "gateway"}

// ParseResource gives the resource of a name: "gateway", "tenants/{tenant}",
// "tenants/{tenant}/keyrings/{keyring}" or "tenants/{tenant}/secretRoles/{role}". A
// lease is not a resource: what is asked of one is decided by its role's name. It
// checks the shape only; the grammar of the segments belongs to packages keys and
// lease. It does not allocate unless it fails.
func ParseResource(name string) (Resource, error) {
	if name == Gateway.name {
		return Gateway, nil
	}
	const prefix = "tenants/"
	rest, ok := strings.CutPrefix(name, prefix)
	tenant, below, nested := strings.Cut(rest, "/")
	if !ok || tenant == "" {
		return Resource{}, errResource
	}
	if !nested {
		return Resource{KindTenant, name, name}, nil
	}
	collection, id, _ := strings.Cut(below, "/")
	if id == "" || strings.Contains(id, "/") {
		return Resource{}, errResource
	}
	parent := name[:len(prefix)+len(tenant)]
	switch collection {
	case "keyrings":
		return Resource{KindKeyring, name, parent}, nil
	case "secretRoles":
		return Resource{KindSecretRole, name, parent}, nil
	}
	return Resource{}, errResource
}

// Kind gives the kind.
func (r Resource) Kind() Kind { return r.kind }

// Name gives the name the resource was made from.
func (r Resource) Name() string { return r.name }

// Tenant gives the id of the tenant the resource belongs to, or "" for the gateway.
func (r Resource) Tenant() string { return strings.TrimPrefix(r.parent, "tenants/") }

func (r Resource) uid() cedar.EntityUID {
	return cedar.EntityUID{Type: kindTypes[r.kind], ID: cedar.String(r.name)}
}

// Standing is whether the caller may call at all, from the live state of its
// registration and its certificate. The zero Standing proves nothing and is denied.
type Standing uint8

// The standings.
const (
	StandingActive   Standing = 1
	StandingInactive Standing = 2 // disabled, revoked or expired
)

// Chain is who stands behind the call. The zero Chain proves nothing; the data plane
// serves ChainMachine alone.
type Chain uint8

// The chains.
const (
	ChainMachine Chain = 1 // every link of the evidence is a machine's
	ChainHuman   Chain = 2 // a person is the caller, or somebody the caller acts for
)

// Context is what else a decision depends on. All of it but Encryption are facts
// that the gateway found out itself.
type Context struct {
	// Tenant is the id of the tenant the call acts for, "" if none. It must come from
	// elsewhere than the resource's name if there is such a source: the guards compare
	// the two.
	Tenant   string
	Standing Standing
	Chain    Chain
	// Time is the gateway's clock, in seconds since 1970 UTC.
	Time int64
	// Encryption is the caller's encryption context. Decide reads it and does not
	// retain it.
	Encryption map[string]string
}
