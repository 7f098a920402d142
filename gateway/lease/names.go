package lease

import (
	"encoding/hex"
	"strings"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/keys"
)

// RoleName names a secret role within its tenant.
type RoleName struct {
	Tenant keys.Tenant
	Role   string
}

// String gives "tenants/{tenant}/secretRoles/{role}".
func (n RoleName) String() string { return "tenants/" + string(n.Tenant) + "/secretRoles/" + n.Role }

// ParseRoleName parses what String writes and nothing else; the error is INVALID_ARGUMENT.
func ParseRoleName(s string) (RoleName, error) {
	rest, ok := strings.CutPrefix(s, "tenants/")
	tenant, role, found := strings.Cut(rest, "/secretRoles/")
	if !ok || !found || !keys.ValidID(tenant) || !keys.ValidID(role) {
		return RoleName{}, fault.New(fault.InvalidArgument, "want tenants/{tenant}/secretRoles/{role}")
	}
	return RoleName{keys.Tenant(tenant), role}, nil
}

// ID is a lease's own: 128 random bits.
type ID [16]byte

// String gives the id in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Name names a lease within its role.
type Name struct {
	Role RoleName
	ID   ID
}

// String gives "tenants/{tenant}/secretRoles/{role}/leases/{lease}".
func (n Name) String() string { return n.Role.String() + "/leases/" + n.ID.String() }

// ParseName parses what String writes and nothing else; the error is INVALID_ARGUMENT.
func ParseName(s string) (Name, error) {
	parent, id, found := strings.Cut(s, "/leases/")
	role, err := ParseRoleName(parent)
	n := Name{Role: role}
	if err == nil && found && len(id) == hex.EncodedLen(len(n.ID)) {
		if _, err := hex.Decode(n.ID[:], []byte(id)); err == nil && n.ID.String() == id {
			return n, nil
		}
	}
	return Name{}, fault.New(fault.InvalidArgument, "want tenants/{tenant}/secretRoles/{role}/leases/{lease}")
}
