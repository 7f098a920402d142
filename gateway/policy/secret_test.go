package policy

import (
	"slices"
	"testing"
)

// leaseDatabase is a request for a secret with everything proved.
func leaseDatabase(t testing.TB) Request {
	r := decryptCards(t)
	r.Action, r.Resource, r.Context.Encryption = ActionLeaseSecret, mustResource(t, database), nil
	return r
}

// resourceOf gives a resource of the kind, of the tenant acme if of any.
func resourceOf(t testing.TB, k Kind) Resource {
	t.Helper()
	return mustResource(t, map[Kind]string{
		KindGateway: "gateway", KindTenant: "tenants/acme", KindKeyring: cards, KindSecretRole: database,
	}[k])
}

// What was permitted before there were secrets permits none, unless it names no
// action at all.
func TestWhoMayLease(t *testing.T) {
	tests := []struct {
		name     string
		policy   string
		lease    bool // leaseSecret on the role
		list     bool // listLeases on its tenant
		decrypts bool // decrypt on a keyring of the tenant
	}{
		{"plaintext", `permit (principal, action in Sallyport::Action::"plaintext", resource);`, false, false, true},
		{"seal", `permit (principal, action in Sallyport::Action::"seal", resource);`, false, false, false},
		{"control", `permit (principal, action in Sallyport::Action::"control", resource);`, false, false, false},
		{"secret", `permit (principal, action in Sallyport::Action::"secret", resource);`, true, true, false},
		{"no action", `permit (principal, action, resource);`, true, true, true},
		{"one action", `permit (principal, action == Sallyport::Action::"leaseSecret", resource);`, true, false, false},
		{"the role", `permit (principal, action, resource == Sallyport::SecretRole::"tenants/acme/secretRoles/db");`, true, false, false},
		{"another role", `permit (principal, action, resource == Sallyport::SecretRole::"tenants/acme/secretRoles/d");`, false, false, false},
		{"roles", `permit (principal, action, resource is Sallyport::SecretRole);`, true, false, false},
		{"the tenant", `permit (principal, action, resource in Sallyport::Tenant::"tenants/acme");`, true, true, true},
		{"another tenant", `permit (principal, action, resource in Sallyport::Tenant::"tenants/other");`, false, false, false},
		{"roles of the tenant", `permit (principal, action, resource is Sallyport::SecretRole in Sallyport::Tenant::"tenants/acme");`, true, false, false},
		{"the attribute", `permit (principal, action in Sallyport::Action::"secret", resource) when { resource.tenant == "acme" };`, true, true, false},
		{"the parent", `permit (principal, action in Sallyport::Action::"secret", resource) when { resource in Sallyport::Tenant::"tenants/acme" };`, true, true, false},
		{"a keyring of that name", `permit (principal, action, resource == Sallyport::Keyring::"tenants/acme/secretRoles/db");`, false, false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := mustCompile(t, `@id("p") `+test.policy)
			list := leaseDatabase(t)
			list.Action, list.Resource = ActionListLeases, resourceOf(t, KindTenant)
			got := [3]bool{s.Decide(leaseDatabase(t)).Allow, s.Decide(list).Allow, s.Decide(decryptCards(t)).Allow}
			if want := [3]bool{test.lease, test.list, test.decrypts}; got != want {
				t.Errorf("lease, list, decrypt: got %v, want %v", got, want)
			}
		})
	}
}

// Beside a permit of everything, no action of the group takes a person, and each fact
// that is missing denies.
func TestOnlyServicesGetSecrets(t *testing.T) {
	s := mustCompile(t, permitAll)
	changes := map[string]func(*Request){
		"":                    func(*Request) {},
		"guard:data/workload": func(r *Request) { r.Principal = NewOperator("alice") },
		"guard:data/tenant":   func(r *Request) { r.Context.Tenant = "other" },
		"guard:data/machine":  func(r *Request) { r.Context.Chain = ChainHuman },
		"guard:data/active":   func(r *Request) { r.Context.Standing = StandingInactive },
	}
	actions := 0
	for _, a := range Actions() {
		if a.Group() != GroupSecret {
			continue
		}
		actions++
		for guard, change := range changes {
			r := leaseDatabase(t)
			r.Action, r.Resource = a, resourceOf(t, a.Resource())
			change(&r)
			got := s.Decide(r)
			if got.Allow != (guard == "") || guard != "" && !slices.Equal(got.Policies, []string{guard}) || proved(r) != got.Allow {
				t.Errorf("%v, want %q: got %+v, the Go check says %v", a, guard, got, proved(r))
			}
		}
	}
	if actions != 6 {
		t.Errorf("%d actions about secrets", actions)
	}
}

// The guard admits three kinds to the data plane and cannot tell which action is
// about which. That is asked before it, and again behind the policies: also without
// the first question nothing is allowed on another kind.
func TestNoDataActionOnAnotherKind(t *testing.T) {
	s := mustCompile(t, permitAll)
	for _, a := range Actions() {
		if !a.DataPlane() {
			continue
		}
		for k := Kind(1); k < kindEnd; k++ {
			r := leaseDatabase(t)
			r.Action, r.Resource = a, resourceOf(t, k)
			r.Context.Tenant = r.Resource.Tenant()
			fits := k == a.Resource()
			if d := s.Decide(r); d.Allow != fits || !fits && d.Reason != ReasonRequest {
				t.Errorf("%v on a %v: %+v", a, k, d)
			}
			d := s.decide(r, new(scratch))
			if d.Allow != fits || !fits && d.Reason != ReasonGuard {
				t.Errorf("%v on a %v, without the first question: %+v", a, k, d)
			}
			if refused := slices.Contains(d.Policies, "guard:data/resource"); refused != (k == KindGateway) {
				t.Errorf("%v on a %v: the guard refused: %v", a, k, refused)
			}
		}
	}
}
