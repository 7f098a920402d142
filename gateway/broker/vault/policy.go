package vault

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/gateway/lease"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// policyName is the policy of a role's child tokens.
func (s *Source) policyName(n lease.RoleName) string {
	return s.config.PolicyPrefix + "." + string(n.Tenant) + "." + n.Role
}

// Policy implements lease.Source: a policy for the gateway's own token, one for the
// child tokens of each role, and the token role. Roles that Check refuses are left
// out.
func (s *Source) Policy(roles []lease.Role) []*controlv1.SourceDocument {
	gateway := rules{}
	gateway.allow("auth/token/create/"+s.config.TokenRole, "update")
	for _, path := range []string{"revoke-accessor", "lookup-accessor", "renew-self", "revoke-self"} {
		gateway.allow("auth/token/"+path, "update")
	}
	gateway.allow("auth/token/lookup-self", "read")
	var children []*controlv1.SourceDocument
	for _, r := range roles {
		p, err := planOf(r.Parameters)
		if err != nil {
			continue
		}
		gateway.allowFor(p, r.Renewable)
		children = append(children, document("policy", s.policyName(r.Name), "# What a lease of "+r.Name.String()+" opens.\n"+childPolicy(p)))
	}
	own := "# What Sallyport does itself. It opens no secret.\n" + gateway.String()
	return append([]*controlv1.SourceDocument{
		document("policy", s.config.PolicyPrefix+"-gateway", own),
		document("token_role", s.config.TokenRole, s.tokenRole()),
	}, children...)
}

func document(kind, name, content string) *controlv1.SourceDocument {
	return &controlv1.SourceDocument{Kind: kind, Name: name, Content: content}
}

// tokenRole is the body of auth/token/roles/<TokenRole>.
func (s *Source) tokenRole() string {
	text, err := json.MarshalIndent(map[string]any{
		"allowed_policies_glob": []string{s.config.PolicyPrefix + ".*"}, "orphan": true, "renewable": true,
		"token_no_default_policy": true, "token_type": "service",
	}, "", "  ")
	if err != nil {
		panic(err) // it marshals always
	}
	return string(text) + "\n"
}

// rules are paths of a policy and what is allowed on them.
type rules map[string]string

func (r rules) allow(path, capability string) { r[path] = capability }

// allowFor allows what the gateway does with leases of a plan.
func (r rules) allowFor(p plan, renewable bool) {
	if p.metadata != "" {
		r.allow(p.metadata, "read")
	}
	if !p.leased {
		return
	}
	r.allow("sys/leases/lookup", "update")
	r.allow("sys/leases/revoke/"+p.path+"/*", "update")
	if renewable && p.renewable {
		r.allow("auth/token/renew-accessor", "update")
		r.allow("sys/leases/renew/"+p.path+"/*", "update")
	}
}

// String writes the rules, in the order of their paths.
func (r rules) String() string {
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(r)) {
		b.WriteString("path " + quote(path) + " {\n  capabilities = [" + quote(r[path]) + "]\n}\n")
	}
	return b.String()
}

// childPolicy allows a child token its one call, with the parameters of its role.
func childPolicy(p plan) string {
	if !p.write {
		return rules{p.path: "read"}.String()
	}
	allowed := map[string]string{}
	for name, value := range p.body {
		allowed[name] = "[" + quote(value) + "]"
	}
	if p.ttl {
		allowed["ttl"] = "[]" // any
	}
	var b strings.Builder
	b.WriteString("path " + quote(p.path) + " {\n  capabilities = [\"update\"]\n  allowed_parameters = {\n")
	for _, name := range slices.Sorted(maps.Keys(allowed)) {
		b.WriteString("    " + quote(name) + " = " + allowed[name] + "\n")
	}
	b.WriteString("  }\n}\n")
	return b.String()
}

// quote writes a string of HCL, the language of policies. Check has refused control
// characters and what begins an interpolation.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
