package cases

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/gateway/policy"
)

const cardsPolicy = `
@id("decrypt")
permit (principal == Sallyport::Workload::"spiffe://example.org/payments",
        action in Sallyport::Action::"plaintext", resource in Sallyport::Tenant::"tenants/acme")
when { context.encryption has purpose && context.encryption.purpose == "billing" };
@id("lease")
permit (principal == Sallyport::Workload::"spiffe://example.org/payments",
        action in Sallyport::Action::"secret", resource == Sallyport::SecretRole::"tenants/acme/secretRoles/db");
@id("rotate") permit (principal == Sallyport::Operator::"alice", action, resource);
@id("freeze") forbid (principal, action, resource) when { context.time >= 1893456000 };
`

const suite = `
cases:
  - name: payments decrypts for billing
    principal: {workload: spiffe://example.org/payments, registration: payments}
    action: decrypt
    resource: tenants/acme/keyrings/cards
    context: {encryption: {purpose: billing}}
    expect: allow
    policies: [payments/decrypt]
  - name: not for support
    principal: {workload: spiffe://example.org/payments}
    action: decrypt
    resource: tenants/acme/keyrings/cards
    context: {encryption: {purpose: support}}
    expect: deny
    policies: []
  - name: not for another tenant's data
    principal: {workload: spiffe://example.org/payments}
    action: decrypt
    resource: tenants/acme/keyrings/cards
    context: {tenant: other, encryption: {purpose: billing}}
    expect: deny
    policies: ["guard:data/tenant"]
  - name: not when disabled
    principal: {workload: spiffe://example.org/payments}
    action: decrypt
    resource: tenants/acme/keyrings/cards
    context: {inactive: true}
    expect: deny
    policies: ["guard:data/active"]
  - name: alice rotates
    principal: {operator: alice}
    action: rotateKeyring
    resource: tenants/acme/keyrings/cards
    context: {time: 2029-12-31T23:59:59Z}
    expect: allow
  - name: not in the freeze
    principal: {operator: alice}
    action: rotateKeyring
    resource: tenants/acme/keyrings/cards
    context: {time: 2030-01-01T00:00:00Z}
    expect: deny
    policies: [payments/freeze]
  - name: payments leases
    principal: {workload: spiffe://example.org/payments}
    action: leaseSecret
    resource: tenants/acme/secretRoles/db
    expect: allow
    policies: [payments/lease]
  - name: alice leases nothing
    principal: {operator: alice}
    action: leaseSecret
    resource: tenants/acme/secretRoles/db
    context: {humanInChain: false}
    expect: deny
    policies: ["guard:data/workload"]
  - name: alice reads nothing
    principal: {operator: alice}
    action: decrypt
    resource: tenants/acme/keyrings/cards
    context: {humanInChain: false}
    expect: deny
    policies: ["guard:data/workload"]
`

func run(t *testing.T, text string) []Result {
	t.Helper()
	snapshot, err := policy.Compile([]policy.File{{Name: "payments.cedar", Content: cardsPolicy}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.Run(snapshot)
}

func TestRun(t *testing.T) {
	for _, r := range run(t, suite) {
		if !r.Pass || r.Message != "" {
			t.Errorf("%s: %s", r.Name, r.Message)
		}
	}
}

// A case that expects something else fails and says why.
func TestRunFails(t *testing.T) {
	turned := strings.NewReplacer("expect: allow", "expect: deny", "expect: deny", "expect: allow").Replace(suite)
	for _, r := range run(t, turned) {
		if r.Pass || !strings.Contains(r.Message, "want ") {
			t.Errorf("%s: pass %v, %q", r.Name, r.Pass, r.Message)
		}
	}
	results := run(t, strings.Replace(suite, "[payments/decrypt]", "[payments/rotate]", 1))
	want := "want it determined by payments/rotate, got payments/decrypt"
	if results[0].Pass || results[0].Message != want {
		t.Errorf("got %q", results[0].Message)
	}
}

func TestParseRefuses(t *testing.T) {
	const good = "cases: [{name: a, principal: {operator: alice}, action: listTenants, resource: gateway, expect: allow}]"
	if _, err := Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing": "", "no cases": "cases: []", "a second document": good + "\n---\n" + good,
		"an unknown field": strings.Replace(good, "expect", "expects", 1),
		"another answer":   strings.Replace(good, "allow", "Allow", 1),
		"no principal":     strings.Replace(good, "{operator: alice}", "{}", 1),
		"two principals":   strings.Replace(good, "alice", "alice, workload: w", 1),
		"a registration":   strings.Replace(good, "alice", "alice, automation: true", 1),
		"no such action":   strings.Replace(good, "listTenants", "listTenant", 1),
		"a wrong resource": strings.Replace(good, "gateway", "tenants/a", 1),
		"no such resource": strings.Replace(good, "gateway", "gateways", 1),
		"a lease":          strings.NewReplacer("listTenants", "getLease", "gateway", "tenants/a/secretRoles/b/leases/c").Replace(good),
		"no name":          strings.Replace(good, "name: a", `name: ""`, 1),
		"a name twice":     strings.Replace(good, "[{", "[{name: a, principal: {operator: b}, action: getPolicy, resource: gateway, expect: deny}, {", 1),
		"a field twice":    strings.Replace(good, "expect: allow", "expect: deny, expect: allow", 1),
	} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
