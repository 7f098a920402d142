package policy

import (
	_ "embed"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

//go:embed schema.cedarschema
var schemaText []byte

// Schema gives the text of the schema that policies are validated against.
func Schema() string { return string(schemaText) }

// builtinSchema is the schema as embedded. That it resolves is tested.
var builtinSchema = mustResolveSchema()

func mustResolveSchema() *resolved.Schema {
	var s schema.Schema
	s.SetFilename("schema.cedarschema")
	if err := s.UnmarshalCedar(schemaText); err != nil {
		panic(fmt.Sprintf("policy: embedded schema: %v", err))
	}
	r, err := s.Resolve()
	if err != nil {
		panic(fmt.Sprintf("policy: embedded schema: %v", err))
	}
	return r
}

// validators validates policies, each against the schema in which the encryption
// context's type declares the keys that the policy itself names. The caller of the
// gateway chooses those keys, so no fixed schema can list them, and Cedar has no
// open records; declaring them as optional Strings still finds a key that is read
// without "has" and a value that is compared with something else than a string.
//
// Most policies name the same few keys: a validator is made once for each set.
type validators map[string]*validate.Validator

// check gives the reasons why the policy does not fit the schema, each once.
func (v validators) check(p *cedar.Policy, uses vocabulary) []string {
	tree := (*ast.Policy)(p.AST())
	keys := slices.Sorted(maps.Keys(uses.keys))
	name := strings.Join(keys, "\x00")
	validator, ok := v[name]
	if !ok {
		validator = validate.New(schemaWithKeys(keys))
		v[name] = validator
	}
	reasons := unknownNames(p)
	if err := validator.Policy("", tree); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			reasons = append(reasons, strings.TrimSpace(perAction.ReplaceAllString(line, "")))
		}
	}
	slices.Sort(reasons)
	return slices.Compact(reasons)
}

// perAction is what makes the validator say the same thing for each action.
var perAction = regexp.MustCompile(` for Sallyport::Action::"[A-Za-z]+"`)

// schemaWithKeys copies the parts of the schema on the way to the encryption
// context's type and shares the rest.
func schemaWithKeys(keys []string) *resolved.Schema {
	encryption := make(resolved.RecordType, len(keys))
	for _, k := range keys {
		encryption[cedar.String(k)] = resolved.Attribute{Type: resolved.StringType{}, Optional: true}
	}
	out := *builtinSchema
	out.Actions = maps.Clone(out.Actions)
	for uid, action := range out.Actions {
		if action.AppliesTo == nil {
			continue
		}
		to := *action.AppliesTo
		to.Context = maps.Clone(to.Context)
		to.Context["encryption"] = resolved.Attribute{Type: encryption}
		action.AppliesTo = &to
		out.Actions[uid] = action
	}
	return &out
}

// vocabulary is what policies can observe of a request's context. What no policy of
// a snapshot observes is left out of the record made for Cedar, which costs about a
// microsecond to make otherwise.
type vocabulary struct {
	time       bool
	encryption bool            // its presence
	keys       map[string]bool // the keys read from it by name
	order      []string        // the keys in order; only of a snapshot
	all        bool            // the context or the encryption context as a whole
}

// vocabularyOf reads the vocabulary off a policy's conditions; a scope cannot
// mention the context.
func vocabularyOf(p *cedar.Policy) vocabulary {
	v := vocabulary{keys: map[string]bool{}}
	for _, c := range (*ast.Policy)(p.AST()).Conditions {
		ast.Inspect(ast.NewNode(c.Body), v.visit)
	}
	return v
}

// visit takes a node of the forms context.X, context has X, context.encryption.X and
// context.encryption has X as a whole, and so reaches the variable context only when
// it is used in another way.
func (v *vocabulary) visit(n ast.IsNode) bool {
	switch n := n.(type) {
	case ast.NodeTypeAccess:
		return v.read(n.StrOpNode, true)
	case ast.NodeTypeHas:
		return v.read(n.StrOpNode, false)
	case ast.NodeTypeVariable:
		v.all = v.all || n == ast.NewContextNode()
	}
	return true
}

// read notes an access to, or a test for, an attribute, and reports whether the
// operand has to be visited too.
func (v *vocabulary) read(n ast.StrOpNode, value bool) bool {
	if n.Arg == ast.IsNode(ast.NewContextNode()) {
		switch n.Value {
		case "time":
			v.time = true
		case "encryption":
			v.encryption = true
			v.all = v.all || value // the record itself, to compare it or pass it on
		}
		return false
	}
	if inner, ok := n.Arg.(ast.NodeTypeAccess); ok && isEncryption(inner.StrOpNode) {
		v.encryption = true
		v.keys[string(n.Value)] = true
		return false
	}
	return true
}

// add makes v the union of both.
func (v *vocabulary) add(w vocabulary) {
	v.time = v.time || w.time
	v.encryption = v.encryption || w.encryption
	v.all = v.all || w.all
	if v.keys == nil {
		v.keys = map[string]bool{}
	}
	maps.Copy(v.keys, w.keys)
}
