package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	cedar "github.com/cedar-policy/cedar-go"
)

// The cast of the tests.
const (
	payments = "spiffe://example.org/payments"
	cards    = "tenants/acme/keyrings/cards"
	database = "tenants/acme/secretRoles/db"
)

func mustCompile(t testing.TB, text string) *Snapshot {
	t.Helper()
	s, err := Compile([]File{{Name: "test.cedar", Content: text}})
	if err != nil {
		t.Fatalf("Compile:\n%v", err)
	}
	return s
}

func mustResource(t testing.TB, name string) Resource {
	t.Helper()
	r, err := ParseResource(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// decryptCards is a data-plane request with everything proved.
func decryptCards(t testing.TB) Request {
	return Request{
		Principal: NewWorkload(payments, "payments", false),
		Action:    ActionDecrypt,
		Resource:  mustResource(t, cards),
		Context: Context{
			Tenant: "acme", Standing: StandingActive, Chain: ChainMachine, Time: 1_800_000_000,
			Encryption: map[string]string{"purpose": "billing"},
		},
	}
}

// rotateCards is a control-plane request with everything proved.
func rotateCards(t testing.TB) Request {
	return Request{
		Principal: NewOperator("alice"),
		Action:    ActionRotateKeyring,
		Resource:  mustResource(t, cards),
		Context:   Context{Tenant: "acme", Standing: StandingActive, Chain: ChainHuman, Time: 1_800_000_000},
	}
}

const permitAll = `@id("all") permit (principal, action, resource);`

func TestDecide(t *testing.T) {
	tests := []struct {
		name     string
		policies string
		want     Reason
		ids      []string
	}{
		{"nothing permits", ``, ReasonNoPermit, nil},
		{"everything is permitted", permitAll, ReasonPermitted, []string{"test/all"}},
		{
			"its own SPIFFE id", `@id("p") permit (principal == Sallyport::Workload::"spiffe://example.org/payments",
			action == Sallyport::Action::"decrypt", resource == Sallyport::Keyring::"tenants/acme/keyrings/cards");`,
			ReasonPermitted,
			[]string{"test/p"},
		},
		{"another SPIFFE id", `@id("p") permit (principal == Sallyport::Workload::"spiffe://example.org/other",
			action, resource);`, ReasonNoPermit, nil},
		{
			"the action's group", `@id("p") permit (principal, action in Sallyport::Action::"plaintext", resource);`,
			ReasonPermitted,
			[]string{"test/p"},
		},
		{
			"another group", `@id("p") permit (principal, action in Sallyport::Action::"seal", resource);`,
			ReasonNoPermit, nil,
		},
		{
			"the keyring's tenant", `@id("p") permit (principal, action, resource in Sallyport::Tenant::"tenants/acme");`,
			ReasonPermitted,
			[]string{"test/p"},
		},
		{
			"another tenant", `@id("p") permit (principal, action, resource in Sallyport::Tenant::"tenants/other");`,
			ReasonNoPermit, nil,
		},
		{
			"the encryption context", `@id("p") permit (principal, action, resource)
			when { context.encryption has purpose && context.encryption.purpose == "billing" };`,
			ReasonPermitted,
			[]string{"test/p"},
		},
		{
			"another purpose", `@id("p") permit (principal, action, resource)
			when { context.encryption has purpose && context.encryption.purpose == "support" };`,
			ReasonNoPermit, nil,
		},
		{"a key with a space", `@id("p") permit (principal, action, resource)
			unless { context.encryption has "a b" };`, ReasonPermitted, []string{"test/p"}},
		{"the registration", `@id("p") permit (principal is Sallyport::Workload, action, resource)
			when { principal.id == "payments" && !principal.automation };`, ReasonPermitted, []string{"test/p"}},
		{"the time", `@id("p") permit (principal, action, resource)
			when { context.time < 1800000001 && context.tenant == "acme" };`, ReasonPermitted, []string{"test/p"}},
		{
			"forbid wins", permitAll + `@id("f") forbid (principal, action, resource in Sallyport::Tenant::"tenants/acme");`,
			ReasonForbidden,
			[]string{"test/f"},
		},
		{
			"all permits are named, in order", `@id("b") permit (principal, action, resource);
			@id("a") permit (principal is Sallyport::Workload, action, resource);`,
			ReasonPermitted,
			[]string{"test/a", "test/b"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := mustCompile(t, test.policies).At(7).Decide(decryptCards(t))
			if got.Reason != test.want || got.Allow != (test.want == ReasonPermitted) ||
				!slices.Equal(got.Policies, test.ids) || len(got.Errors) > 0 || got.Revision != 7 {
				t.Errorf("got %+v, want %v %v", got, test.want, test.ids)
			}
		})
	}
}

// An evaluation error denies, also where Cedar would allow (access-paths X1, X5). The
// schema leaves few ways to fail; an overflow is one.
func TestErrorDenies(t *testing.T) {
	for _, effect := range []string{"permit", "forbid"} {
		s := mustCompile(t, permitAll+`@id("broken") `+effect+` (principal, action, resource)
			when { context.time * 9223372036854775807 == 0 };`)
		got := s.Decide(decryptCards(t))
		if got.Allow || got.Reason != ReasonError || !slices.Equal(got.Errors, []string{"test/broken"}) ||
			len(got.Policies) > 0 {
			t.Errorf("%s: got %+v", effect, got)
		}
	}
}

func TestZeroValuesDeny(t *testing.T) {
	var none *Snapshot
	var engine Engine
	s := mustCompile(t, permitAll)
	for name, d := range map[string]Decision{
		"zero decision": {}, "nil snapshot": none.Decide(decryptCards(t)), "zero engine": engine.Decide(decryptCards(t)),
		"zero request": s.Decide(Request{}), "nil principal": s.Decide(func() Request {
			r := decryptCards(t)
			r.Principal = nil
			return r
		}()),
		"zero principal": s.Decide(func() Request {
			r := decryptCards(t)
			r.Principal = new(Principal)
			return r
		}()),
		"zero context": s.Decide(func() Request {
			r := decryptCards(t)
			r.Context = Context{Tenant: "acme"}
			return r
		}()),
	} {
		if d.Allow {
			t.Errorf("%s allows: %+v", name, d)
		}
	}
}

func TestGuardsRefuse(t *testing.T) {
	s := mustCompile(t, permitAll)
	automation := NewWorkload(payments, "payments", true)
	tests := []struct {
		name   string
		base   func(testing.TB) Request
		change func(*Request)
		want   string // the guard, "" if allowed
	}{
		{"workload decrypts", decryptCards, func(*Request) {}, ""},
		{"operator decrypts", decryptCards, func(r *Request) { r.Principal = NewOperator("alice") }, "guard:data/workload"},
		{"operator seals", decryptCards, func(r *Request) {
			r.Principal, r.Action = NewOperator("alice"), ActionEncrypt
		}, "guard:data/workload"},
		{"other tenant", decryptCards, func(r *Request) { r.Context.Tenant = "other" }, "guard:data/tenant"},
		{"no tenant", decryptCards, func(r *Request) { r.Context.Tenant = "" }, "guard:data/tenant"},
		{"unknown standing", decryptCards, func(r *Request) { r.Context.Standing = 0 }, "guard:data/active"},
		{"inactive", decryptCards, func(r *Request) { r.Context.Standing = StandingInactive }, "guard:data/active"},
		{"unknown chain", decryptCards, func(r *Request) { r.Context.Chain = 0 }, "guard:data/machine"},
		{"human in chain", decryptCards, func(r *Request) { r.Context.Chain = ChainHuman }, "guard:data/machine"},
		{"operator rotates", rotateCards, func(*Request) {}, ""},
		{"automation rotates", rotateCards, func(r *Request) {
			r.Principal, r.Context.Chain = automation, ChainMachine
		}, ""},
		{"workload rotates", rotateCards, func(r *Request) {
			r.Principal = NewWorkload(payments, "payments", false)
		}, "guard:control/administrator"},
		{"other tenant rotated", rotateCards, func(r *Request) { r.Context.Tenant = "other" }, "guard:control/tenant"},
		{
			"inactive operator", rotateCards, func(r *Request) { r.Context.Standing = StandingInactive },
			"guard:control/active",
		},
		{"gateway has no tenant", rotateCards, func(r *Request) {
			r.Action, r.Resource, r.Context.Tenant = ActionLoadPolicy, Gateway, ""
		}, ""},
		{
			"gateway with a tenant", rotateCards, func(r *Request) { r.Action, r.Resource = ActionLoadPolicy, Gateway },
			"guard:control/tenant",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := test.base(t)
			test.change(&r)
			got := s.Decide(r)
			if got.Allow != (test.want == "") || test.want != "" && !slices.Equal(got.Policies, []string{test.want}) {
				t.Errorf("got %+v, want %q", got, test.want)
			}
			if proved(r) != got.Allow {
				t.Errorf("the Go check says %v", proved(r))
			}
		})
	}
}

func TestActionAndResourceMustMatch(t *testing.T) {
	s := mustCompile(t, permitAll)
	for _, a := range append(Actions(), 0, actionEnd, 200) {
		for _, name := range []string{"gateway", "tenants/acme", cards, database, ""} {
			r := rotateCards(t)
			if a.DataPlane() {
				r = decryptCards(t)
			}
			r.Action, r.Resource = a, Resource{}
			if name != "" {
				r.Resource = mustResource(t, name)
			}
			r.Context.Tenant = r.Resource.Tenant()
			fits := a.Valid() && r.Resource.Kind() == a.Resource()
			if got := s.Decide(r); got.Allow != fits || !fits && got.Reason != ReasonRequest {
				t.Errorf("%v on %q: %+v", a, name, got)
			}
		}
	}
}

func TestParseResource(t *testing.T) {
	for name, want := range map[string][2]string{
		"gateway": {"Gateway", ""}, "tenants/acme": {"Tenant", "acme"}, cards: {"Keyring", "acme"},
		database: {"SecretRole", "acme"},
	} {
		r, err := ParseResource(name)
		if err != nil || r.Kind().String() != want[0] || r.Tenant() != want[1] || r.Name() != name {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	for _, name := range []string{
		"", "gateway/", "tenants/", "tenants", "tenants/a/", "tenants/a/keyrings",
		"tenants/a/keyrings/", "tenants//keyrings/b", "tenants/a/keyrings/b/c", "tenants/a/x/keyrings/b",
		"tenants/a/keyrings/b/keyrings/c", "Tenants/a", " tenants/a", "tenants//secretRoles/b", "tenants/a/secretRoles",
		"tenants/a/secretRoles/", "tenants/a/secretRoles//", "tenants/a/secretroles/b", "tenants/a/secretRoles/b/leases",
		"tenants/a/secretRoles/b/leases/00112233445566778899aabbccddeeff", "tenants/a/keyrings/b/secretRoles/c", "tenants/a/x/b",
	} {
		if r, err := ParseResource(name); err == nil || r.Kind() != 0 {
			t.Errorf("%q accepted as %+v", name, r)
		}
	}
}

// The table of actions and the schema say the same.
func TestSchemaAgrees(t *testing.T) {
	if n := len(builtinSchema.Actions); n != int(actionEnd-1)+int(groupEnd-1) {
		t.Errorf("the schema has %d actions and groups", n)
	}
	for _, a := range Actions() {
		declared, ok := builtinSchema.Actions[actionEntities[a].UID]
		if !ok || declared.AppliesTo == nil {
			t.Errorf("%v: not in the schema", a)
			continue
		}
		if !declared.Entity.Parents.Equal(actionEntities[a].Parents) {
			t.Errorf("%v: in %v, schema has %v", a, actionEntities[a].Parents, declared.Entity.Parents)
		}
		if !slices.Equal(declared.AppliesTo.Resources, []cedar.EntityType{kindTypes[a.Resource()]}) {
			t.Errorf("%v: about %v, schema has %v", a, a.Resource(), declared.AppliesTo.Resources)
		}
		wantPrincipals := []cedar.EntityType{typeOperator, typeWorkload}
		if a.DataPlane() {
			wantPrincipals = []cedar.EntityType{typeWorkload}
		}
		if !slices.Equal(declared.AppliesTo.Principals, wantPrincipals) {
			t.Errorf("%v: schema has principals %v", a, declared.AppliesTo.Principals)
		}
		if back, err := ParseAction(a.String()); err != nil || back != a {
			t.Errorf("ParseAction(%q) = %v, %v", a.String(), back, err)
		}
	}
	for g := Group(1); g < groupEnd; g++ {
		declared, ok := builtinSchema.Actions[groupEntities[g].UID]
		if !ok || declared.AppliesTo != nil || !declared.Entity.Parents.Equal(groupEntities[g].Parents) {
			t.Errorf("group %v: schema has %+v", g, declared)
		}
	}
}

func TestCompileListsAllProblems(t *testing.T) {
	files := []File{
		{"b.cedar", "\n@id(\"typo\") permit (principal is Sallyport::Wrkload, action, resource);\n" +
			"@id(\"action\") permit (principal, action == Sallyport::Action::\"decypt\", resource);\n" +
			"@id(\"attr\") permit (principal is Sallyport::Workload, action, resource)\nwhen { principal.idd == \"x\" };\n" +
			"@id(\"nohas\") permit (principal, action, resource) when { context.encryption.purpose == \"x\" };\n" +
			"@id(\"type\") permit (principal, action, resource) when { context.time == \"now\" };\n" +
			"@id(\"ctx\") permit (principal, action, resource) when { context.tenat == \"acme\" };\n"},
		{"a.cedar", "// fine ; \"\n@id(\"ok\") permit (principal, action, resource);\n" +
			"permit (principal, action, resource);\n" +
			"@id(\"ok\") forbid (principal, action, resource);\n" +
			"@id(\"bad id\") forbid (principal, action, resource);\n" +
			"@id(\"parse\") forbid (principal, action resource);\n;\n" +
			"@id(\"open\") permit (principal, action, resource)"},
		{"../c.cedar", ""},
		{"a.cedar", ""},
		{"guard:data.cedar", ""},
	}
	_, err := Compile(files)
	var got *CompileError
	if !errors.As(err, &got) || !errors.Is(err, ErrInvalid) {
		t.Fatalf("got %v", err)
	}
	want := []string{
		`"../c.cedar": bad file name`, `"guard:data.cedar": bad file name`, `a.cedar: file given twice`,
		`a.cedar:3: no @id`, `a.cedar:4: a/ok: duplicate @id; the first is on line 2`, `a.cedar:5: bad @id`,
		`a.cedar:6: column 48`, `a.cedar:7: column 2`, `a.cedar:8: column 49`,
		`b.cedar:2: b/typo: unrecognized entity type`, `b.cedar:3: b/action: unrecognized action`,
		`b.cedar:4: b/attr: `, `b.cedar:6: b/nohas: `, `b.cedar:7: b/type: `, `b.cedar:8: b/ctx: `,
	}
	var lines []string
	for _, p := range got.Problems {
		lines = append(lines, p.String())
	}
	for _, w := range want {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, w) }) {
			t.Errorf("missing %q", w)
		}
	}
	if !slices.IsSortedFunc(got.Problems, func(a, b Problem) int { return strings.Compare(a.File, b.File) }) {
		t.Error("problems are not in order")
	}
	if t.Failed() {
		t.Logf("got:\n%s", strings.Join(lines, "\n"))
	}
}

func TestStatements(t *testing.T) {
	text := "a \"x;\\\";\\\\\"; // no; \"\n\n b\n\"\n;\";c"
	want := []statement{
		{text: `a "x;\";\\";`, line: 1}, {text: "// no; \"\n\n b\n\"\n;\";", line: 1}, {text: "c", line: 5, last: true},
	}
	if got := statements(text); !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
	s := mustCompile(t, `@id("p") @note("a;\"b;") permit (principal, action, resource) when { context.tenant != "\";" };`)
	if !s.Decide(decryptCards(t)).Allow {
		t.Error("a policy with semicolons in strings does not work")
	}
}

// What a policy names must be in the schema, wherever it names it.
func TestTypoRefused(t *testing.T) {
	for _, condition := range []string{
		`context has tenat`, `principal has idd`, `resource has tenat`, `principal is Sallyport::Wrkload`,
		`resource in Sallyport::Tennant::"tenants/acme"`, `action == Sallyport::Action::"decypt"`,
		`action in Sallyport::Action::"plain"`, `context.encryption.a`, `context.encryption has a && context.encryption.a`,
		`context.encryption has a && context.encryption.a == 1`, `context.tls == "1.3"`, `principal.automation == "true"`,
		`resource == Sallyport::Keyring::"a" || principal == Sallyport::Workload::"b" || principal == Human::"c"`,
		`principal in [Workload::"x"]`, `(if true then context else context).encryption has x`,
		`principal.hasTag("x")`, `Sallyport::Gateway::"gateway" has name`, `(if context.time == 1 then principal else principal) has nme`,
		`(if principal has idd then principal.id else "x") == "y"`, `ip("10.0.0.1").isIpv5()`,
	} {
		_, err := Compile([]File{{"t.cedar", `@id("t") permit (principal, action, resource) when { ` + condition + ` };`}})
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("accepted: %s", condition)
		}
	}
}

func TestCompileLimits(t *testing.T) {
	deep := `@id("deep") permit (principal, action, resource) when { ` + strings.Repeat("(", 1<<20) + "};"
	if _, err := Compile([]File{{"a.cedar", deep}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("deep: %v", err)
	}
	var files []File
	for i := range maxFiles + 1 {
		files = append(files, File{Name: fmt.Sprintf("f%d.cedar", i)})
	}
	if _, err := Compile(files); !errors.Is(err, ErrInvalid) {
		t.Errorf("files: %v", err)
	}
	if _, err := Compile(files[:maxFiles]); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := Compile([]File{{"a.cedar", strings.Repeat(" ", maxBytes+1)}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("bytes: %v", err)
	}
}

func TestEngineKeepsTheLaterRevision(t *testing.T) {
	var e Engine
	old, later := mustCompile(t, ``).At(1), mustCompile(t, permitAll).At(2)
	if e.Swap(nil) || e.Snapshot() != nil || !e.Swap(later) || e.Swap(old) || e.Snapshot() != later {
		t.Error("wrong snapshot in force")
	}
	if d := e.Decide(decryptCards(t)); !d.Allow || d.Revision != 2 {
		t.Errorf("got %+v", d)
	}
}
