package pipeline

import (
	"fmt"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/policy"
	"github.com/sallyport/sallyport/keys"
)

// MaxItems is how many items a batch may have.
const MaxItems = 4096

// Subject is what a request is about: taken from it before anything is decided,
// by the function beside its route.
type Subject struct {
	// Resource is what policy decides on.
	Resource policy.Resource
	// Keyring is the keyring that the request names, if it names one.
	Keyring keys.Name
	// tenant is whose data it is, as package keys reads the name. Policy's guards
	// compare it with the resource, which package policy reads by itself.
	tenant keys.Tenant
	// name is the resource as the request spells it, for the record.
	name string

	// change is what a control method is to change; encryption is the encryption context of each item, as the request gives it;
	// contexts is its canonical form, and faults why an item is refused. Faults are
	// for batches only.
	change     []string
	encryption []map[string]string
	contexts   []binding.Context
	faults     []*fault.Error
	noted      []notedItem
	// one backs the slices of a request with one context.
	one struct {
		encryption [1]map[string]string
		contexts   [1]binding.Context
	}
}

// SetKeyring names the keyring that the request is about.
func (s *Subject) SetKeyring(name string) error {
	s.name = name
	n, err := keys.ParseName(name)
	if err != nil {
		return err
	}
	s.Keyring, s.tenant = n, n.Tenant
	s.Resource, err = policy.ParseResource(name)
	return err
}

// SetTenant names the tenant that the request is about.
func (s *Subject) SetTenant(name string) error {
	s.name = name
	t, err := keys.ParseTenant(name)
	if err != nil {
		return err
	}
	s.tenant = t
	s.Resource, err = policy.ParseResource(name)
	return err
}

// SetSecretRole says that the request is about a secret role of the tenant, given as
// "tenants/{tenant}/secretRoles/{role}", or about the named lease of it.
func (s *Subject) SetSecretRole(t keys.Tenant, role, name string) (err error) {
	s.name, s.tenant = name, t
	s.Resource, err = policy.ParseResource(role)
	return err
}

// SetGateway says that the request is about the gateway itself, or about the
// named thing of it, such as "workloads/billing".
func (s *Subject) SetGateway(name string) error {
	s.name = name
	s.Resource = policy.Gateway
	return nil
}

// Change notes "name=value" of what a control method is to change, so that the
// intent is in the log before the deed.
func (s *Subject) Change(name string, value any) {
	s.change = append(s.change, fmt.Sprintf("%s=%v", name, value))
}

// SetContext sets the encryption context of a request with one.
func (s *Subject) SetContext(m map[string]string) error {
	c, err := binding.FromMap(m)
	if err != nil {
		return err
	}
	s.one.encryption[0], s.one.contexts[0] = m, c
	s.encryption, s.contexts = s.one.encryption[:], s.one.contexts[:]
	return nil
}

// SetItems sets the encryption contexts of a batch. An item whose context is
// invalid fails alone.
func (s *Subject) SetItems(n int, contextOf func(i int) map[string]string) error {
	if n == 0 || n > MaxItems {
		return fault.New(fault.InvalidArgument, "a batch has 1 to 4096 items")
	}
	s.encryption = make([]map[string]string, n)
	s.contexts = make([]binding.Context, n)
	s.faults = make([]*fault.Error, n)
	s.noted = make([]notedItem, n)
	for i := range n {
		s.encryption[i] = contextOf(i)
		c, err := binding.FromMap(s.encryption[i])
		if err != nil {
			s.faults[i] = Reason(err)
			continue
		}
		s.contexts[i] = c
	}
	return nil
}

// allFaulty gives the fault of the first item if every item has one.
func (s *Subject) allFaulty() *fault.Error {
	for _, f := range s.faults {
		if f == nil {
			return nil
		}
	}
	return s.faults[0]
}

// recordName is the resource's name for the record. A name that breaks the grammar
// is not repeated: the log is no place for what strangers write.
func (s *Subject) recordName() string {
	if s.Resource == (policy.Resource{}) {
		return ""
	}
	return s.name
}
