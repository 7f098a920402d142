package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	cedar "github.com/cedar-policy/cedar-go"
)

// The experiments of access-paths.md that shaped the guards, as regression tests: X1
// to X6 say what Cedar does, so that a change of the library is noticed; X19 is the
// proof that our guards hold.

func parseSet(t testing.TB, text string) candidates {
	t.Helper()
	list, err := cedar.NewPolicyListFromBytes("x.cedar", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var out candidates
	for i, p := range list {
		out = append(out, &rule{id: cedar.PolicyID(fmt.Sprint(i)), policy: p})
	}
	return out
}

const permitEverything = `permit (principal, action, resource);`

func ask(principal cedar.EntityUID, context cedar.RecordMap) cedar.Request {
	return cedar.Request{
		Principal: principal, Action: actionEntities[ActionDecrypt].UID,
		Resource: cedar.NewEntityUID(typeKeyring, cards), Context: cedar.NewRecord(context),
	}
}

// X1: a forbid whose condition fails is skipped.
func TestX1ErroringForbidAllows(t *testing.T) {
	set := parseSet(t, permitEverything+`forbid (principal, action, resource) when { principal.kind == "human" };`)
	uid := cedar.NewEntityUID(typeWorkload, payments)
	decision, why := cedar.Authorize(set, cedar.EntityMap{uid: {UID: uid}}, ask(uid, nil))
	if decision != cedar.Allow || len(why.Errors) != 1 {
		t.Errorf("%v, %v: Cedar has changed; read guard_data.cedar again", decision, why.Errors)
	}
}

// X2: unnamed policies are numbered, so that two sets collide. Ours are named by
// their author, and a collision is a problem.
func TestX2NoCollision(t *testing.T) {
	if _, err := Compile([]File{{"a.cedar", permitEverything}}); err == nil {
		t.Error("a policy without @id was accepted")
	}
	for _, g := range []guard{guardData, guardControl} {
		for _, r := range g {
			if idGrammar.MatchString(string(r.id)) || fileName.MatchString(string(r.id)+".cedar") {
				t.Errorf("a loaded policy could be called %s", r.id)
			}
		}
	}
}

// X3: entity types are exact; a forbid list of human types fails open, and ours does
// not.
func TestX3LookAlikeTypes(t *testing.T) {
	list := parseSet(t, permitEverything+`forbid (principal is Sallyport::Operator, action, resource);`)
	for _, kind := range []cedar.EntityType{
		"Sallyport::operator", "Operator", "Acme::Operator", "Sallyport::Human",
		"User", "Sallyport::Workload::Operator", "Sallyport::workload",
	} {
		uid := cedar.NewEntityUID(kind, "bob")
		if decision, _ := cedar.Authorize(list, nil, ask(uid, nil)); decision != cedar.Allow {
			t.Errorf("%s: the list did know it", kind)
		}
		decision, why := guardData.authorize(cedar.EntityMap{}, ask(uid, provedFacts()))
		if decision == cedar.Allow || len(why.Errors) > 0 ||
			!slices.ContainsFunc(why.Reasons, func(r cedar.DiagnosticReason) bool { return r.PolicyID == "guard:data/workload" }) {
			t.Errorf("%s: %v %+v", kind, decision, why)
		}
	}
}

// X4: membership is false when the entities are absent.
func TestX4MembershipWithoutEntities(t *testing.T) {
	set := parseSet(t, permitEverything+`forbid (principal in Sallyport::Group::"humans", action, resource);`)
	decision, why := cedar.Authorize(set, nil, ask(cedar.NewEntityUID(typeOperator, "bob"), nil))
	if decision != cedar.Allow || len(why.Errors) != 0 {
		t.Errorf("%v, %v: Cedar has changed; read guard_data.cedar again", decision, why.Errors)
	}
}

// X5: a when on a value of the wrong type fails and is skipped; the mirrored unless
// denies.
func TestX5WrongTypes(t *testing.T) {
	uid := cedar.NewEntityUID(typeWorkload, payments)
	wrong := ask(uid, cedar.RecordMap{"x": cedar.String("yes")})
	when := parseSet(t, permitEverything+`forbid (principal, action, resource) when { context has x && context.x };`)
	if decision, why := cedar.Authorize(when, nil, wrong); decision != cedar.Allow || len(why.Errors) != 1 {
		t.Errorf("when: %v, %v", decision, why.Errors)
	}
	unless := parseSet(t, permitEverything+`forbid (principal, action, resource) unless { context has x && context.x == true };`)
	if decision, why := cedar.Authorize(unless, nil, wrong); decision != cedar.Deny || len(why.Errors) != 0 {
		t.Errorf("unless: %v, %v", decision, why.Errors)
	}
}

// X6: JSON with duplicate or misspelt members lost conditions in older releases. We
// take Cedar text alone.
func TestX6NoJSON(t *testing.T) {
	var p cedar.Policy
	for _, text := range []string{
		`{"effect":"forbid","effect":"permit","principal":{"op":"All"},"action":{"op":"All"},"resource":{"op":"All"},"conditions":[]}`,
		`{"effect":"forbid","Effect":"permit","principal":{"op":"All"},"action":{"op":"All"},"resource":{"op":"All"},"conditions":[]}`,
		`{"effect":"permit","principal":{"op":"All"},"action":{"op":"All"},"resource":{"op":"All"},"conditionz":[]}`,
	} {
		if err := p.UnmarshalJSON([]byte(text)); err == nil {
			t.Errorf("the library accepts %s", text)
		}
		for _, name := range []string{"a.json", "a.cedar.json", "a.cedar"} {
			if _, err := Compile([]File{{name, text}}); err == nil {
				t.Errorf("%s accepted: %s", name, text)
			}
		}
	}
}

func provedFacts() cedar.RecordMap {
	return cedar.RecordMap{
		"tenant": cedar.String("acme"), "state": cedar.String("active"), "humanInChain": cedar.False,
	}
}

// strange are values of every type, among them those that the guards want.
var strange = []cedar.Value{
	nil, // absent
	cedar.True, cedar.False, cedar.Long(0), cedar.Long(1), cedar.String(""), cedar.String("acme"), cedar.String("other"),
	cedar.String("active"), cedar.String("true"), cedar.NewSet(cedar.String("active")), cedar.NewSet(cedar.String("acme")),
	cedar.NewRecord(cedar.RecordMap{"tenant": cedar.String("acme")}), cedar.NewEntityUID(typeTenant, "acme"),
}

// X19: beside a permit of everything, the guards allow exactly the requests in which
// everything is proved, and never fail to evaluate.
func TestX19Guards(t *testing.T) {
	const requests = 240_000
	principals := []cedar.EntityType{
		typeWorkload, typeWorkload, typeOperator, typeKeyring, "Workload", "Sallyport::workload",
		"User", "Sallyport::Human",
	}
	resources := []cedar.EntityType{typeKeyring, typeKeyring, typeRole, typeTenant, typeGateway, typeWorkload, "Keyring", "SecretRole"}
	ofData := []cedar.EntityType{typeKeyring, typeRole, typeTenant}
	random := rand.New(rand.NewPCG(19, 19))
	vary := func(m cedar.RecordMap, key cedar.String) {
		if v := strange[random.IntN(len(strange))]; v == nil {
			delete(m, key)
		} else {
			m[key] = v
		}
	}
	allowed := map[string]int{}
	for range requests {
		principal := cedar.NewEntityUID(principals[random.IntN(len(principals))], "p")
		resource := cedar.NewEntityUID(resources[random.IntN(len(resources))], "r")
		facts := provedFacts()
		ofPrincipal := cedar.RecordMap{"automation": cedar.True}
		ofResource := cedar.RecordMap{"tenant": cedar.String("acme")}
		for range random.IntN(3) { // up to two at a time
			switch random.IntN(5) {
			case 0:
				vary(ofPrincipal, "automation")
			case 1:
				vary(ofResource, "tenant")
			default:
				vary(facts, []cedar.String{"tenant", "state", "humanInChain"}[random.IntN(3)])
			}
		}
		entities := cedar.EntityMap{}
		if random.IntN(20) > 0 {
			entities[principal] = cedar.Entity{UID: principal, Attributes: cedar.NewRecord(ofPrincipal)}
		} else {
			ofPrincipal = nil
		}
		if random.IntN(20) > 0 {
			entities[resource] = cedar.Entity{UID: resource, Attributes: cedar.NewRecord(ofResource)}
		} else {
			ofResource = nil
		}
		request := cedar.Request{
			Principal: principal, Resource: resource, Context: cedar.NewRecord(facts),
			Action: actionEntities[1+random.IntN(len(actionEntities)-1)].UID,
		}

		tenant := facts["tenant"] != nil && ofResource["tenant"] != nil && facts["tenant"].Equal(ofResource["tenant"])
		active := facts["state"] == cedar.Value(cedar.String("active"))
		data := tenant && active && facts["humanInChain"] == cedar.Value(cedar.False) &&
			principal.Type == typeWorkload && slices.Contains(ofData, resource.Type)
		control := tenant && active && (principal.Type == typeOperator ||
			principal.Type == typeWorkload && ofPrincipal["automation"] == cedar.Value(cedar.True))
		for name, want := range map[string]bool{"data": data, "control": control} {
			g := map[string]guard{"data": guardData, "control": guardControl}[name]
			decision, why := g.authorize(entities, request)
			if decision != cedar.Decision(want) || len(why.Errors) > 0 {
				t.Fatalf("%s: %v, want %v; errors %v\n%+v\n%+v", name, decision, want, why.Errors, request, entities)
			}
			if want {
				allowed[name]++
			}
		}
	}
	if allowed["data"] < requests/100 || allowed["control"] < requests/100 {
		t.Errorf("too few requests were allowed for the test to mean anything: %v", allowed)
	}
}
