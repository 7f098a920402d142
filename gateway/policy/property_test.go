package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	cedar "github.com/cedar-policy/cedar-go"
	"pgregory.net/rapid"
)

// everything evaluates all policies, with the whole context: what Decide would do
// without slicing, vocabulary and memory.
func everything(s *Snapshot, r Request) Decision {
	tenancy := newTenancy(r.Resource.parent)
	e := &entities{principal: r.Principal, resource: r.Resource.uid(), action: r.Action, tenancy: tenancy}
	whole := vocabulary{all: true}
	request := cedar.Request{
		Principal: r.Principal.entity.UID, Action: actionEntities[r.Action].UID,
		Resource: e.resource, Context: whole.record(r.Context),
	}
	all := candidates{}
	for i := range s.rules {
		all = append(all, &s.rules[i])
	}
	decision, why := cedar.Authorize(all, e, request)
	switch {
	case len(why.Errors) > 0:
		return denied(ReasonError, why)
	case decision == cedar.Allow:
		return Decision{Allow: true, Reason: ReasonPermitted, Policies: reasons(why)}
	case len(why.Reasons) > 0:
		return denied(ReasonForbidden, why)
	}
	return Decision{Reason: ReasonNoPermit}
}

var (
	somePrincipals = []string{
		`principal`, `principal is Sallyport::Workload`, `principal is Sallyport::Operator`,
		`principal == Sallyport::Workload::"spiffe://w/1"`, `principal in Sallyport::Workload::"spiffe://w/2"`,
		`principal is Sallyport::Workload in Sallyport::Workload::"spiffe://w/1"`, `principal == Sallyport::Operator::"alice"`,
	}
	someActions = []string{
		`action`, `action == Sallyport::Action::"decrypt"`, `action in Sallyport::Action::"plaintext"`,
		`action in [Sallyport::Action::"seal", Sallyport::Action::"getKeyring"]`, `action in Sallyport::Action::"control"`,
		`action in Sallyport::Action::"read"`, `action in Sallyport::Action::"secret"`,
		`action in [Sallyport::Action::"listLeases", Sallyport::Action::"getSecretRole", Sallyport::Action::"plaintext"]`,
	}
	someResources = []string{
		`resource`, `resource is Sallyport::Keyring`, `resource is Sallyport::Tenant`,
		`resource == Sallyport::Keyring::"tenants/a/keyrings/k"`, `resource in Sallyport::Tenant::"tenants/a"`,
		`resource is Sallyport::Keyring in Sallyport::Tenant::"tenants/b"`, `resource == Sallyport::Tenant::"tenants/a"`,
		`resource in Sallyport::Keyring::"tenants/b/keyrings/k"`, `resource == Sallyport::Gateway::"gateway"`,
		`resource is Sallyport::SecretRole`, `resource == Sallyport::SecretRole::"tenants/a/secretRoles/k"`,
		`resource is Sallyport::SecretRole in Sallyport::Tenant::"tenants/b"`,
	}
	someConditions = []string{
		``, `when { context.encryption has p && context.encryption.p == "1" }`, `unless { context.encryption has q }`,
		`when { context.time > 5 }`, `when { context.tenant == "a" }`, `when { principal has automation && principal.automation }`,
		`when { context.time * 4611686018427387904 > 0 }`, `when { context has encryption }`,
		`when { resource in Sallyport::Tenant::"tenants/a" }`, `when { action in Sallyport::Action::"read" }`,
		`when { context.encryption == {} }`, `when { (if context.tenant == "a" then context else context).time > 5 }`,
		`when { Sallyport::Workload::"spiffe://w/1".automation }`,
		`when { action in [Sallyport::Action::"encrypt", Sallyport::Action::"control"] }`,
	}
)

func drawPolicies(t *rapid.T) *Snapshot {
	var b strings.Builder
	for i := range rapid.IntRange(0, 12).Draw(t, "policies") {
		one := func(from []string) string { return rapid.SampledFrom(from).Draw(t, "part") }
		policy := fmt.Sprintf("@id(\"p%d\") %s (%s, %s, %s) %s;\n", i,
			rapid.SampledFrom([]string{"permit", "permit", "forbid"}).Draw(t, "effect"),
			one(somePrincipals), one(someActions), one(someResources), one(someConditions))
		// Some scopes can never apply, and the schema refuses them.
		if _, err := Compile([]File{{"t.cedar", policy}}); err == nil {
			b.WriteString(policy)
		}
	}
	s, err := Compile([]File{{"t.cedar", b.String()}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func drawResource(t *rapid.T, kind Kind) Resource {
	names := map[Kind][]string{
		KindGateway:    {"gateway"},
		KindTenant:     {"tenants/a", "tenants/b", "tenants/c"},
		KindSecretRole: {"tenants/a/secretRoles/k", "tenants/b/secretRoles/k"},
		KindKeyring:    {"tenants/a/keyrings/k", "tenants/a/keyrings/l", "tenants/b/keyrings/k", "tenants/c/keyrings/k"},
	}
	r, err := ParseResource(rapid.SampledFrom(names[kind]).Draw(t, "resource"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// drawRequest draws a request that the guards let pass.
func drawRequest(t *rapid.T) Request {
	r := Request{Action: rapid.SampledFrom(Actions()).Draw(t, "action")}
	r.Resource = drawResource(t, r.Action.Resource())
	r.Principal = NewWorkload(fmt.Sprintf("spiffe://w/%d", rapid.IntRange(1, 3).Draw(t, "workload")), "w", !r.Action.DataPlane())
	r.Context = Context{
		Tenant: r.Resource.Tenant(), Standing: StandingActive, Chain: ChainMachine,
		Time: rapid.Int64Range(0, 10).Draw(t, "time"),
		Encryption: rapid.MapOf(rapid.SampledFrom([]string{"p", "q", "r"}), rapid.SampledFrom([]string{"", "1", "2"})).
			Draw(t, "encryption"),
	}
	if !r.Action.DataPlane() && rapid.Bool().Draw(t, "human") {
		r.Principal = NewOperator(rapid.SampledFrom([]string{"alice", "bob"}).Draw(t, "operator"))
	}
	return r
}

// Slicing, vocabulary and memory change nothing.
func TestSlicingIsSound(t *testing.T) {
	seen := map[Reason]int{}
	rapid.Check(t, func(t *rapid.T) {
		s := drawPolicies(t)
		for range 30 {
			r := drawRequest(t)
			got, want := s.Decide(r), everything(s, r)
			seen[want.Reason]++
			if got.Allow != want.Allow || got.Reason != want.Reason || !slices.Equal(got.Policies, want.Policies) ||
				!slices.Equal(got.Errors, want.Errors) {
				t.Fatalf("sliced %+v\nwhole  %+v\nrequest %+v", got, want, r)
			}
		}
	})
	if len(seen) != 4 {
		t.Errorf("not every outcome was met: %v", seen)
	}
}

// somePeople are principals that ask more than once.
var somePeople = []*Principal{
	new(Principal), NewWorkload("spiffe://w/1", "w", false), NewWorkload("spiffe://w/1", "w", true),
	NewWorkload("spiffe://w/2", "w", true), NewOperator("alice"), NewOperator("bob"),
}

// A decision from memory is the decision that would be made anew, whatever was asked
// before.
func TestMemoryIsSound(t *testing.T) {
	remembered := 0
	rapid.Check(t, func(t *rapid.T) {
		s := drawPolicies(t)
		asked := []Request{}
		for range 40 {
			r := drawRequest(t)
			// Most questions differ from an earlier one in one thing.
			if len(asked) > 0 && rapid.IntRange(0, 4).Draw(t, "new") > 0 {
				other := r
				r = rapid.SampledFrom(asked).Draw(t, "earlier")
				switch rapid.IntRange(0, 7).Draw(t, "difference") {
				case 0:
					r.Principal = rapid.SampledFrom(somePeople).Draw(t, "principal")
				case 1:
					r.Action = other.Action
				case 2:
					r.Resource = drawResource(t, r.Action.Resource())
					r.Context.Tenant = r.Resource.Tenant()
				case 3:
					r.Context.Tenant = rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "tenant")
				case 4:
					r.Context.Standing = Standing(rapid.IntRange(0, 3).Draw(t, "standing"))
				case 5:
					r.Context.Chain = Chain(rapid.IntRange(0, 3).Draw(t, "chain"))
				case 6:
					r.Context.Time = other.Context.Time
				case 7:
					r.Context.Encryption = other.Context.Encryption
				}
			}
			asked = append(asked, r)
			got, want := s.Decide(r), Decision{Reason: ReasonRequest}
			if r.Resource.kind == r.Action.Resource() {
				want = s.decide(r, new(scratch))
			}
			if got.Allow != want.Allow || got.Reason != want.Reason || !slices.Equal(got.Policies, want.Policies) ||
				!slices.Equal(got.Errors, want.Errors) {
				t.Fatalf("remembered %+v\nanew       %+v\nrequest %+v", got, want, r)
			}
		}
		remembered += len(asked) - len(s.decided.known)
	})
	if remembered == 0 {
		t.Error("nothing was remembered")
	}
}

// Deciding does not change the request, and not the next decision.
func TestDecideIsPure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, r := drawPolicies(t), drawRequest(t)
		before := maps.Clone(r.Context.Encryption)
		first, second := s.Decide(r), s.Decide(r)
		if first.Allow != second.Allow || first.Reason != second.Reason || !maps.Equal(before, r.Context.Encryption) {
			t.Fatalf("%+v then %+v", first, second)
		}
	})
}

// Many goroutines, more tenants and values than are remembered.
func TestConcurrentDecisions(t *testing.T) {
	s := mustCompile(t, `@id("p") permit (principal, action, resource)
		when { context.encryption has n && context.encryption.n == context.tenant };`)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			r := decryptCards(t)
			for i := range 3 * maxContexts {
				n := fmt.Sprint("t", (i*7+worker)%(2*maxContexts))
				r.Resource, r.Context.Tenant = mustResource(t, "tenants/"+n+"/keyrings/k"), n
				r.Context.Encryption = map[string]string{"n": n, "m": "x"}
				if d := s.Decide(r); !d.Allow {
					t.Errorf("%s: %+v", n, d)
				}
				r.Context.Encryption["n"] = n + "x"
				if d := s.Decide(r); d.Allow {
					t.Errorf("%s: %+v", n, d)
				}
			}
		})
	}
	wg.Wait()
	if n := len(s.contexts.known); n > maxContexts {
		t.Errorf("%d contexts remembered", n)
	}
}

// FuzzCompile: no text makes Compile panic, and none makes it accept what a guard
// should refuse.
func FuzzCompile(f *testing.F) {
	for _, text := range []string{
		permitAll, `@id("a") forbid (principal, action, resource) when { context.time == 1 };`,
		`// only a comment`, `;`, `"`, `@id("\u{0}") permit`, manyPolicies(3),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Compile([]File{{"f.cedar", text}})
		if (s == nil) == (err == nil) {
			t.Fatalf("snapshot %v, error %v", s, err)
		}
		for _, a := range Actions() {
			if !a.DataPlane() {
				continue
			}
			r := decryptCards(t)
			r.Action, r.Resource, r.Principal = a, resourceOf(t, a.Resource()), NewOperator("alice")
			if s.Decide(r).Allow {
				t.Fatalf("%v allowed for an operator", a)
			}
		}
	})
}

// FuzzDecide: beside a permit of everything, the data plane serves workloads alone,
// whatever else a request says.
func FuzzDecide(f *testing.F) {
	s := mustCompile(f, permitAll)
	f.Add(uint8(ActionDecrypt), cards, "acme", uint8(1), uint8(1), payments, true, true, "purpose", "billing")
	f.Add(uint8(ActionEncrypt), cards, "acme", uint8(1), uint8(2), "alice", false, true, "", "")
	f.Add(uint8(ActionLeaseSecret), database, "acme", uint8(1), uint8(1), payments, true, false, "", "")
	f.Add(uint8(ActionListLeases), "tenants/acme", "acme", uint8(1), uint8(1), "alice", false, false, "", "")
	f.Fuzz(func(t *testing.T, action uint8, resource, tenant string, standing, chain uint8, name string,
		workload, automation bool, key, value string,
	) {
		r := Request{Principal: NewOperator(name), Action: Action(action), Context: Context{
			Tenant:   tenant,
			Standing: Standing(standing), Chain: Chain(chain), Encryption: map[string]string{key: value},
		}}
		if workload {
			r.Principal = NewWorkload(name, name, automation)
		}
		r.Resource, _ = ParseResource(resource)
		if d := s.Decide(r); d.Allow && (!proved(r) || r.Action.DataPlane() && !workload) {
			t.Fatalf("allowed: %+v", r)
		}
	})
}

// Each thing that a decision depends on is in the question.
func TestQuestionsDiffer(t *testing.T) {
	s := mustCompile(t, `@id("p") permit (principal, action, resource) when {
		context.encryption has purpose && context.encryption.purpose == "a" && context.encryption has q };`)
	changes := map[string]func(*Request){
		"nothing":        func(*Request) {},
		"principal":      func(r *Request) { r.Principal = NewWorkload(payments, "payments", false) },
		"action":         func(r *Request) { r.Action = ActionEncrypt },
		"keyring":        func(r *Request) { r.Resource = mustResource(t, cards+"2") },
		"tenant":         func(r *Request) { r.Context.Tenant = "other" },
		"standing":       func(r *Request) { r.Context.Standing = StandingInactive },
		"chain":          func(r *Request) { r.Context.Chain = ChainHuman },
		"value":          func(r *Request) { r.Context.Encryption = map[string]string{"purpose": "support"} },
		"no value":       func(r *Request) { r.Context.Encryption = nil },
		"empty value":    func(r *Request) { r.Context.Encryption = map[string]string{"purpose": ""} },
		"another key":    func(r *Request) { r.Context.Encryption = map[string]string{"q": "billing"} },
		"both":           func(r *Request) { r.Context.Encryption = map[string]string{"purpose": "billing", "q": ""} },
		"moved boundary": func(r *Request) { r.Context.Encryption = map[string]string{"purpose": "billing\x01", "q": ""} },
	}
	base := decryptCards(t)
	asked := map[string]string{}
	for name, change := range changes {
		r := base
		change(&r)
		q := string(s.uses.appendQuestion(nil, r))
		if other, taken := asked[q]; taken {
			t.Errorf("%q and %q are the same question", name, other)
		}
		asked[q] = name
	}
	// What no policy can observe does not matter.
	r := base
	r.Context.Time, r.Context.Encryption = 1, map[string]string{"purpose": "billing", "unobserved": "x"}
	if asked[string(s.uses.appendQuestion(nil, r))] != "nothing" {
		t.Error("the question has something that no policy observes")
	}
}
